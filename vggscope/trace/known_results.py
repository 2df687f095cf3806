"""What torch returned for a call on the meta device, for later calls that are equal to it.

A network repeats its layers, and a program traces it for several batches or several times. Without data, what a
function returns depends only on the shape, strides and dtype of each tensor among its arguments, and on plain values.
Only the run of torch's kernel is left out: whatever else a trace notes of a call, it notes of each one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

from vggscope.ops.base import Shape
from vggscope.trace.flops import OperatorMacs
from vggscope.trace.function_table import CREATIONS, MATRIX_PRODUCTS, NO_PRODUCTS, PROPERTIES, SAME_DATA
from vggscope.trace.functions import function_name
from vggscope.trace.layout import shares_memory
from vggscope.trace.tensors import Function, plain_kinds, tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vggscope.trace.saved import Saved

MOST_KNOWN = 20_000
"""The most calls that are remembered. One more, and all are forgotten."""

_PLAIN = frozenset({bool, int, float, str, type(None)})
"""Types of arguments that are equal if torch does the same with them. `True`, `1` and `1.0` differ in their types."""

_VIEWS = frozenset(
    {
        *("view", "permute", "transpose", "movedim", "unsqueeze", "squeeze", "expand", "expand_as", "unflatten"),
        *("narrow", "select", "chunk", "split", "unbind"),
    }
)
"""Functions whose results share their argument's memory. Their kernels are fast without data."""

_NOT_KNOWN = SAME_DATA | PROPERTIES | CREATIONS | _VIEWS | {"detach", "type_as", "as_strided"}
"""Functions of the tables whose results are no new tensors, or depend on more than the arguments."""

Signature = tuple[Hashable, ...]


class KnownResult(NamedTuple):
    """The result of a call, and the multiply-accumulates that it dispatched.

    - `is_input`: the call returns its first argument. Otherwise the result is a tensor with memory of its own.
    - `is_view`: it is a view of all of that memory.
    - `rest` is what a call returns after the tensor, as attention returns no weights; None if it returns no tuple.
    """

    shape: Shape
    stride: Shape
    dtype: torch.dtype
    is_input: bool
    is_view: bool
    rest: tuple[None, ...] | None
    macs: OperatorMacs

    def again(self, args: Sequence[object]) -> object:
        """Return the result of an equal call with these arguments."""
        import torch

        if self.is_input:
            return args[0]
        result = torch.empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
        if self.is_view:
            result = result.as_strided(self.shape, self.stride)
        return result if self.rest is None else (result, *self.rest)


_KNOWN: dict[Signature, KnownResult] = {}

_REFUSED: set[Signature] = set()
"""Calls that `remember` has refused: their results share memory, or are no plain tensors."""

_SAVED: dict[Signature, Saved | None] = {}


def signature_of(
    function: Function, args: Sequence[object], kwargs: Mapping[str, object], *, counts: bool = True
) -> Signature | None:
    """Return all that the result of a call on the meta device depends on; None if it may depend on more.

    `counts` is whether its multiply-accumulates are counted.
    """
    import torch

    if not is_covered(function):
        return None
    tensors: list[Tensor] = []
    given = [_described(value, tensors) for value in args]
    named = [(name, _described(value, tensors)) for name, value in kwargs.items()]
    if not tensors or None in given or any(value is None for _, value in named):
        return None
    state = _attention_kernels() if "attention" in function_name(function)[0] else ()
    return (function, counts, torch.get_default_dtype(), torch.is_grad_enabled(), *state, *given, *named)


def known_result(signature: Signature | None) -> KnownResult | None:
    """Return the result of an equal call; None if there was none."""
    return None if signature is None else _KNOWN.get(signature)


def is_refused(signature: Signature) -> bool:
    """Return whether the result of an equal call was one that is not remembered."""
    return signature in _REFUSED


def remember(
    signature: Signature,
    function: Function,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    result: object,
    macs: OperatorMacs,
) -> None:
    """Keep the result of a call for equal ones, unless it shares memory with an argument or is no plain tensor.

    `signature` is that before the call. It is another one now if the call has changed its argument.
    """
    known = _to_remember(signature, function, args, kwargs, result, macs)
    table: dict[Signature, KnownResult] | set[Signature] = _REFUSED if known is None else _KNOWN
    if len(table) >= MOST_KNOWN:
        table.clear()
    if known is None:
        _REFUSED.add(signature)
    else:
        _KNOWN[signature] = known


def _to_remember(
    signature: Signature,
    function: Function,
    args: Sequence[object],
    kwargs: Mapping[str, object],
    result: object,
    macs: OperatorMacs,
) -> KnownResult | None:
    from torch import Tensor, strided

    first, rest = (result[0], result[1:]) if type(result) is tuple and result else (result, None)
    if type(first) is not Tensor or not first.is_meta or first.layout != strided or first.is_quantized:
        return None
    if (rest is not None and any(other is not None for other in rest)) or _is_named(first):
        return None
    is_input = rest is None and bool(args) and first is args[0]
    is_changed = signature_of(function, args, kwargs, counts=bool(signature[1])) != signature
    if is_changed or not (is_input or _has_own_memory(first, args, kwargs)):
        return None
    macs = replace(macs, without_formula=macs.without_formula.copy())
    shape, stride = tuple(first.shape), tuple(first.stride())
    return KnownResult(shape, stride, first.dtype, is_input, first._base is not None, rest, macs)


def layer_signature(module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object]) -> Signature | None:
    """Return all that a call of one of torch's own layers depends on; None if it may depend on more.

    It does for a layer with parts or hooks, and for one whose settings are not plain values.
    """
    from torch import get_default_dtype

    kind = type(module)
    if not kind.__module__.startswith("torch.nn.modules."):
        return None
    tensors: list[Tensor] = []
    described = [_described((tuple(args), *kwargs, *kwargs.values()), tensors)]
    for name, value in vars(module).items():
        if name in ("_parameters", "_buffers"):
            described.append(_described(tuple(value.values()), tensors))
        elif value or type(value) in _PLAIN or type(value) is tuple:
            described.append((name, _described(value, tensors)))
    if any(value is None or cast("Signature", value)[-1:] == (None,) for value in described):
        return None
    return cast("Hashable", kind), kind.forward, get_default_dtype(), *described


def places_of(inputs: Sequence[Tensor], args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[int, ...]:
    """Return where each input stands among the tensors of the arguments, -1 for one that is not there."""
    given = tensors_in((tuple(args), dict(kwargs)))
    return tuple(next((place for place, other in enumerate(given) if other is tensor), -1) for tensor in inputs)


def known_saved(signature: Signature | None, tell: Callable[[], Saved | None]) -> Saved | None:
    """Return what autograd saves of a call, as `tell` tells it of the first one with this signature."""
    if signature is None:
        return tell()
    if signature not in _SAVED:
        if len(_SAVED) >= MOST_KNOWN:
            _SAVED.clear()
        _SAVED[signature] = tell()
    return _SAVED[signature]


def _has_own_memory(tensor: Tensor, args: Sequence[object], kwargs: Mapping[str, object]) -> bool:
    """Return whether a tensor is all of a memory that none of the arguments has."""
    is_whole = int(tensor.storage_offset()) == 0 and tensor.untyped_storage().nbytes() == tensor.nbytes
    return is_whole and not any(shares_memory(tensor, other) for other in tensors_in((tuple(args), dict(kwargs))))


def _attention_kernels() -> tuple[bool, ...]:
    """Return which kernels attention may choose from, which decides which operators it dispatches."""
    from torch.backends import cuda

    kernels = (cuda.flash_sdp_enabled, cuda.mem_efficient_sdp_enabled, cuda.math_sdp_enabled, cuda.cudnn_sdp_enabled)
    return tuple(is_enabled() for is_enabled in kernels)  # type: ignore[no-untyped-call]


def _is_named(tensor: Tensor) -> bool:
    """Return whether the axes of a tensor have names, which torch had up to 2.13."""
    has_names = _name_query()
    return has_names is not None and has_names(tensor)


@cache
def _name_query() -> Callable[[Tensor], bool] | None:
    from torch import Tensor

    return getattr(Tensor, "has_names", None)


@lru_cache(maxsize=4096)
def is_covered(function: Function) -> bool:
    """Return whether a function is torch's own, of the tables, and returns new tensors or its first argument."""
    name, in_place = function_name(function)
    library = getattr(function, "__module__", None) or "torch"
    is_own = library.partition(".")[0] == "torch" and not library.startswith(("torch._ops", "torch.autograd"))
    is_listed = name in NO_PRODUCTS | MATRIX_PRODUCTS or name == "multi_head_attention_forward"
    return is_own and is_listed and not in_place and name not in _NOT_KNOWN


def _described_tensor(tensor: Tensor, tensors: list[Tensor]) -> Hashable:
    """Return what a result depends on of a tensor, and add it to the list; None if that is not known."""
    import torch

    if not tensor.is_meta or tensor.layout is not torch.strided or _is_named(tensor):
        return None
    place = 0
    for other in tensors:
        if other is tensor:
            break
        place += 1
    tensors.append(tensor)
    return place, tensor.shape, tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg()


def _described(value: object, tensors: list[Tensor]) -> Hashable:
    """Return what a result depends on of an argument, and add its tensors to the list; None if that is not known.

    One tensor in two places is not the same as two alike.
    """
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if kind in plain_kinds():
        return _described_tensor(cast("Tensor", value), tensors)
    import torch

    if kind in (tuple, list, torch.Size):
        items = [_described(item, tensors) for item in cast("Sequence[object]", value)]
        return None if None in items else (kind, *items)
    if kind is slice:
        part = cast("slice", value)
        bounds = [_described(bound, tensors) for bound in (part.start, part.stop, part.step)]
        return None if None in bounds else (kind, *bounds)
    return (kind, value) if value is Ellipsis or kind in (torch.dtype, torch.memory_format) else None
