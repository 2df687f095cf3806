"""The values of the tensors that forward computes without its inputs: constants, and weights that it changes first.

A diff needs them to tell whether two networks compute the same. A small constant keeps its values. Any other tensor is
described by the calls that compute it, with {} for each tensor of the state dict.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from vggscope.graph import ConstantValue, Parameter
from vggscope.ops.base import Shape
from vggscope.ops.recorded import RANDOM
from vggscope.trace.layout import shares_memory
from vggscope.trace.tensor_map import TensorMap
from vggscope.trace.tensors import Function, dtype_name, mapped_tensors, tensors_in
from vggscope.trace.writes import region_of

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 4096
"""The most elements of a constant whose values are computed."""

LARGEST_GIVEN = 10**6
"""The most elements of a tensor whose values are compared."""

SHORT = 8
"""The most elements whose values are shown; more are replaced by their digest."""

LONGEST = 500
"""The most characters of a description; a longer one is replaced by its digest."""

MOST_NAMES = 50
"""The most tensors of the state dict in a description."""

_OVERWRITING = frozenset({"copy", "fill", "zero"})
"""Functions that write all elements of their first argument."""

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
        """Record the values of a tensor, or how they were computed if it has none."""
        import torch

        built = described_when_built().get(values) if values.is_meta else None
        if built is not None:
            self.known[tensor] = built
        if not values.is_meta and values.numel() <= LARGEST_GIVEN and values.layout == torch.strided:
            self.known[tensor] = values.detach()

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
            value = described_when_built().get(tensor, UNKNOWN)
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
        if name in RANDOM and not in_place:
            return
        if name == "deepcopy":  # its second argument holds modules that are half copied
            name, function, args = "clone", type(results[0]).clone, args[:1]
        inputs = tensors_in((args, dict(kwargs)))
        if in_place:
            result = results[0]
            self._write(self._description(name, args, kwargs, inputs), result)
            if name in _OVERWRITING and inputs[0] is result:
                whole = f"{name} {tuple(result.shape)} {result.dtype} {mapped_tensors(args[1:], lambda tensor: 'x')}"
                made = joined(whole, [self.of(tensor) for tensor in inputs[1:]])
                self.known.pop(result, None)
                self.known.update({result: made} if made.text else {})
            return
        values = self._evaluated(function, args, kwargs, inputs, results)
        if values is not None:
            for result, value in zip(results, values):
                self.keep(result, value)
            return
        made = self._description(name, args, kwargs, inputs)
        for place, result in enumerate(results if made.text else ()):
            self.known[result] = replace(made, text=f"{made.text}[{place}]") if place else made

    def _description(
        self, name: str, args: tuple[object, ...], kwargs: Mapping[str, object], inputs: Sequence[Tensor]
    ) -> ConstantValue:
        """Return a call in words; UNKNOWN if an input is not known, or if the call draws random numbers."""
        plain = mapped_tensors((args, sorted(kwargs.items())), lambda tensor: "x")
        return UNKNOWN if name in RANDOM else joined(f"{name} {plain}", [self.of(tensor) for tensor in inputs])

    def _write(self, made: ConstantValue, result: Tensor) -> None:
        """Record a call that writes to the memory of its result, and so to all tensors that share it."""
        for tensor in list(self.known):
            if tensor is result or shares_memory(tensor, result):
                places = f"{region_of(result)} in {region_of(tensor)}"
                written = joined(f"after a write to {places}", [self.of(tensor), made])
                if written.text:
                    self.known[tensor] = written
                else:
                    del self.known[tensor]

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


def value_of_parameter(parameter: Parameter) -> ConstantValue:
    """Return the value of a tensor that is a parameter."""
    return ConstantValue("{}", (parameter.name,), (parameter.shape,))


def joined(text: str, parts: Sequence[ConstantValue]) -> ConstantValue:
    """Return what is computed from parts, as `text` says; UNKNOWN if one of them is not known."""
    names = tuple(name for part in parts for name in part.names)
    if any(not part.text for part in parts) or len(names) > MOST_NAMES:
        return UNKNOWN
    whole = f"{text.replace('{', '(')}({', '.join(part.text for part in parts)})"
    if len(whole) > LONGEST:
        whole = f"{sha256(whole.encode()).hexdigest()[:32]}({', '.join(['{}'] * len(names))})"
    return ConstantValue(whole, names, tuple(shape for part in parts for shape in part.shapes))


@cache
def described_when_built() -> MutableMapping[Tensor, Tensor | ConstantValue]:
    """Return the descriptions of tensors without data that constructors have computed."""
    return TensorMap()


def _on_cpu(value: object) -> object:
    from torch import device

    return "cpu" if isinstance(value, device) or value == "meta" else value


def _of_values(values: Tensor) -> ConstantValue:
    """Return the text of a tensor's values: the numbers of a small one, else a digest."""
    import torch

    plain = values.resolve_conj().resolve_neg().contiguous()
    if plain.dtype.is_complex:
        plain = torch.view_as_real(plain)
    first = plain.flatten()[:1].tolist()
    is_one = bool(first) and bool((plain == plain.flatten()[0]).all()) and not values.dtype.is_complex
    number = float(first[0]) if is_one and values.dtype != torch.bool and math.isfinite(first[0]) else None
    is_short = plain.numel() <= SHORT
    known = plain.flatten().tolist() if is_short else digest(plain.flatten().view(torch.uint8).numpy().tobytes())
    return ConstantValue(constant_text(dtype_name(values), tuple(values.shape), known), number=number)


def digest(data: bytes) -> str:
    """Return what stands for many values: the digest of their bytes, in the order of the axes, little-endian."""
    return sha256(data).hexdigest()[:32]


def constant_text(dtype: str, shape: Shape, values: object) -> str:
    """Return the text of a tensor with known values, which are a list of few, or the digest of many.

    >>> constant_text("int64", (2,), [3, 4])
    'int64 (2,) [3, 4]'
    """
    return f"{dtype} {shape} {values}".replace("{", "(")
