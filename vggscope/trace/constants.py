"""The values of the tensors that forward computes without its inputs: constants, and weights that it changes first.

A diff needs them to tell whether two networks compute the same. A small constant keeps its values. Any other tensor is
described by the calls that compute it, with {} for each tensor of the state dict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from vggscope.graph import ConstantValue, Parameter
from vggscope.ops.recorded import RANDOM
from vggscope.trace.layout import shares_memory
from vggscope.trace.tensors import Function, mapped_tensors, tensors_in

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 4096
"""The most elements of a constant whose values are computed."""

LONGEST = 500
"""The most characters of a description; a longer one is replaced by its digest."""

MOST_NAMES = 50
"""The most tensors of the state dict in a description."""

UNKNOWN = ConstantValue("")
"""A tensor whose values are not known."""


@dataclass
class ConstantValues:
    """What is known of each constant: its values on the CPU, or a description.

    `buffers` are the names of the module's buffers.
    """

    known: MutableMapping[Tensor, Tensor | ConstantValue]
    buffers: MutableMapping[Tensor, str]

    def keep(self, tensor: Tensor, values: Tensor) -> None:
        """Record the values of a tensor, if it has some."""
        if not values.is_meta and values.numel() <= LARGEST and values.layout == _strided():
            self.known[tensor] = values.detach()

    def leaf(self, tensor: Tensor, parameter: Parameter) -> None:
        """Record that a tensor is a parameter."""
        self.known[tensor] = ConstantValue("{}", (parameter.name,), (parameter.shape,))

    def buffer(self, tensor: Tensor) -> ConstantValue:
        """Return the value of a running statistic, which belongs to the weights."""
        name = self.buffers.get(tensor)
        return self.of(tensor) if name is None else ConstantValue("{}", (name,), (tuple(tensor.shape),))

    def of(self, tensor: Tensor) -> ConstantValue:
        """Return what is known of a constant."""
        value = self.known.get(tensor)
        if value is None and not tensor.is_meta:
            self.keep(tensor, tensor)
            value = self.known.get(tensor)
        if value is None:
            return UNKNOWN
        return value if isinstance(value, ConstantValue) else _of_values(value)

    def computed(
        self,
        name: str,
        function: Function,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        results: Sequence[Tensor],
        in_place: bool,
    ) -> None:
        """Record the results of a call whose tensors are all constants."""
        if in_place:
            for tensor in list(self.known):
                if any(tensor is result or shares_memory(tensor, result) for result in results):
                    del self.known[tensor]
            return
        if name in RANDOM:
            return
        inputs = tensors_in((args, dict(kwargs)))
        values = self._evaluated(function, args, kwargs, inputs, results)
        if values is not None:
            for result, value in zip(results, values):
                self.keep(result, value)
            return
        parts = [self.of(tensor) for tensor in inputs]
        names = tuple(name for part in parts for name in part.names)
        if any(not part.text for part in parts) or len(names) > MOST_NAMES:
            return
        shapes = tuple(shape for part in parts for shape in part.shapes)
        plain = mapped_tensors((args, sorted(kwargs.items())), lambda tensor: "x")
        text = f"{name}({', '.join(part.text for part in parts)}; {plain})"
        if len(text) > LONGEST:
            text = f"{sha256(text.encode()).hexdigest()[:32]}({', '.join(['{}'] * len(names))})"
        for place, result in enumerate(results):
            self.known[result] = ConstantValue(f"{text}[{place}]" if place else text, names, shapes)

    def _evaluated(
        self,
        function: Function,
        args: tuple[object, ...],
        kwargs: Mapping[str, object],
        inputs: Sequence[Tensor],
        results: Sequence[Tensor],
    ) -> tuple[Tensor, ...] | None:
        """Return the results on the CPU, if all values are known and few."""
        if any(result.numel() > LARGEST for result in results):
            return None
        values = {id(tensor): self.known.get(tensor, tensor) for tensor in inputs}
        if any(isinstance(value, ConstantValue) or value.is_meta for value in values.values()):
            return None

        def evaluated(value: Any) -> Any:
            return mapped_tensors(_on_cpu(value), lambda tensor: values[id(tensor)])

        try:
            made = function(*map(evaluated, args), **{key: evaluated(value) for key, value in kwargs.items()})
        except Exception:  # any error of a function that runs on another device
            return None
        found = tensors_in(made)
        is_alike = len(found) == len(results) and all(
            (one.shape, one.dtype) == (other.shape, other.dtype) for one, other in zip(found, results)
        )
        return found if is_alike else None


def _on_cpu(value: object) -> object:
    from torch import device

    return "cpu" if isinstance(value, device) or value == "meta" else value


def _strided() -> object:
    from torch import strided

    return strided


def _of_values(values: Tensor) -> ConstantValue:
    """Return the text of a tensor's values: the numbers of a small one, else a digest."""
    import torch

    plain = values.resolve_conj().resolve_neg().contiguous()
    if plain.dtype.is_complex:
        plain = torch.view_as_real(plain)
    numbers = plain.flatten().tolist()
    dtype = str(values.dtype).removeprefix("torch.")
    is_one = len(set(map(repr, numbers))) == 1 and not values.dtype.is_complex and values.dtype != torch.bool
    number = float(numbers[0]) if is_one and math.isfinite(numbers[0]) else None
    text = f"{numbers}" if len(numbers) <= 8 else sha256(repr(numbers).encode()).hexdigest()[:32]
    return ConstantValue(f"{dtype} {tuple(values.shape)} {text}".replace("{", "("), number=number)
