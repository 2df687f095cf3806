"""What is known of a call on the meta device, for later calls that are equal to it.

A network repeats its layers, and a program traces it for several batches or several times. Without data, what a
function returns depends only on the shape, strides and dtype of each tensor among its arguments, and on plain values.
The same holds for one of torch's own layers and its settings. The run of torch's code is left out, and so is the check
of the rules of the op. Whatever else a trace notes of a call, it notes of each one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from marshal import dumps
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

from vggscope.ops.base import Shape
from vggscope.trace.flops import OperatorMacs
from vggscope.trace.function_table import CREATIONS, MATRIX_PRODUCTS, NO_PRODUCTS, PROPERTIES, SAME_DATA
from vggscope.trace.functions import function_name
from vggscope.trace.layout import shares_memory
from vggscope.trace.tensors import Function, plain_kinds, tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from vggscope.trace.recorder import NodeFacts

MOST_KNOWN = 20_000
"""The most calls that are remembered. One more, and all are forgotten."""

_PLAIN = frozenset({bool, int, float, str, type(None)})
"""Types of arguments that are equal if torch does the same with them. `True`, `1` and `1.0` differ in their types."""

VIEWS = frozenset(
    {
        *("view", "permute", "transpose", "movedim", "unsqueeze", "squeeze", "expand", "expand_as", "unflatten"),
        *("narrow", "select", "chunk", "split", "unbind"),
    }
)
"""Functions whose results share their argument's memory. Their kernels are fast without data."""

_NOT_KNOWN = SAME_DATA | (PROPERTIES - {"contiguous"}) | CREATIONS | {"detach", "type_as", "as_strided", "setitem"}
"""Functions of the tables that return no tensor, or whose results depend on more than the arguments."""

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
        if self.is_input:
            return args[0]
        result = _torch().empty_strided(self.shape, self.stride, dtype=self.dtype, device="meta")
        if self.is_view:
            result = result.as_strided(self.shape, self.stride)
        return result if self.rest is None else (result, *self.rest)


@dataclass
class KnownCall:
    """What is known of equal calls.

    `result` is None if torch must run: its result shares memory, or is no plain tensor. `inputs` and `weights` are the
    places of those of the op among the tensors of a function's arguments. `nodes` are by `Origins.kinds` of both, one
    for each result.
    """

    result: KnownResult | None
    inputs: tuple[int, ...] = ()
    weights: tuple[int, ...] = ()
    nodes: dict[str, tuple[NodeFacts, ...]] = field(default_factory=dict)


_KNOWN: dict[Signature, KnownCall] = {}

_TOLD: dict[Hashable, Any] = {}
"""What torch has told of calls on tensors without data: what autograd saves, and results for other batches."""

ToldT = TypeVar("ToldT")


def signature_of(
    function: Function, args: Sequence[object], kwargs: Mapping[str, object], *, counts: bool = True
) -> Signature | None:
    """Return all that the result of a call on the meta device depends on; None if it may depend on more.

    `counts` is whether its multiply-accumulates are counted.
    """
    return signature_and_tensors(function, args, kwargs, counts=counts)[0]


def signature_and_tensors(
    function: Function, args: Sequence[object], kwargs: Mapping[str, object], *, counts: bool
) -> tuple[Signature | None, list[Tensor]]:
    """Return the signature of a call and, if there is one, the tensors among its arguments."""
    tensors: list[Tensor] = []
    if not is_covered(function):
        return None, tensors
    given = [_described(value, tensors) for value in args]
    named = [_described(value, tensors) for value in kwargs.values()]
    if not tensors or None in given or None in named:
        return None, tensors
    torch = _torch()
    state = _attention_kernels() if "attention" in function_name(function)[0] else ()
    return (function, counts, torch.default_dtype(), torch.is_grad_enabled(), *state, *given, *kwargs, *named), tensors


def forget_if_functions_changed() -> None:
    """Forget all calls if a function that layers call by its name is another one.

    It is one of torch.nn.functional, or a method of a layer or of a class that this one inherits from.
    """
    from torch.nn import functional

    owners = (functional, *_CODE) if _CODE else (functional,)
    functions = {owner: tuple(vars(owner).values()) for owner in owners}
    if any(functions[owner] != _CODE.get(owner) for owner in owners):
        _KNOWN.clear()
        _TOLD.clear()
        _CODE.update(functions)


_CODE: dict[Any, tuple[object, ...]] = {}
"""The functions of torch.nn.functional and of each class of layers that was seen, as they were then."""


def known_call(signature: Signature | None) -> KnownCall | None:
    """Return what is known of equal calls; None if there was none."""
    return None if signature is None else _KNOWN.get(signature)


def remember(signature: Signature, result: KnownResult | None) -> KnownCall:
    """Keep the result of a call for equal ones, None if torch must run for each of them."""
    if len(_KNOWN) >= MOST_KNOWN:
        _KNOWN.clear()
    known = _KNOWN[signature] = KnownCall(result)
    return known


def result_to_know(
    args: Sequence[object], kwargs: Mapping[str, object], result: object, macs: OperatorMacs
) -> KnownResult | None:
    """Return what is to remember of a result; None if it shares memory with an argument or is no plain tensor."""
    from torch import Tensor, strided

    first, rest = (result[0], result[1:]) if type(result) is tuple and result else (result, None)
    if type(first) is not Tensor or not first.is_meta or first.layout != strided or first.is_quantized:
        return None
    if (rest is not None and any(other is not None for other in rest)) or _is_named(first):
        return None
    is_input = rest is None and bool(args) and first is args[0]
    if not (is_input or _has_own_memory(first, args, kwargs)):
        return None
    macs = replace(macs, without_formula=macs.without_formula.copy())
    shape, stride = tuple(first.shape), tuple(first.stride())
    return KnownResult(shape, stride, first.dtype, is_input, first._base is not None, rest, macs)


def layer_signature(
    module: nn.Module, args: Sequence[object], kwargs: Mapping[str, object], *, counts: bool = True
) -> Signature | None:
    """Return all that a call of a layer of a library depends on; None if it may depend on more.

    It does for a layer with parts or hooks, and for one whose settings are not plain values.
    """
    kind, own = type(module), vars(module)
    if not kind.__module__.startswith(_LAYERS):
        return None
    attributes = _attributes(cast("Hashable", kind), tuple(own))
    values = tuple(own.values())
    settings = attributes.settings(values)
    if any(attributes.empty(values)) or not _SETTINGS.issuperset(map(type, settings)):
        return None
    try:
        plain = dumps(settings, _WITHOUT_REFERENCES)  # equal for values that are equal in all types too
    except ValueError:
        return None
    tensors: list[Tensor] = []
    given = [_described(value, tensors) for value in (*args, *kwargs.values())]
    owned = [_described(value, tensors) for value in (*module._parameters.values(), *module._buffers.values())]
    if not tensors or None in given or None in owned:
        return None
    torch = _torch()
    state = (attributes, kind.forward, counts, torch.default_dtype(), torch.is_grad_enabled(), plain)
    return (*state, *module._parameters, *module._buffers, *kwargs, *given, *owned)


_LAYERS = ("torch.nn.modules.", "torchvision.ops.", "timm.layers.")
"""The modules in which libraries define layers that do the same for equal settings."""

_SETTINGS = _PLAIN | {tuple, list}
"""Types of the settings of a layer. What is in a tuple or a list is as plain, or marshal refuses it."""

_WITHOUT_REFERENCES = 2
"""The version of marshal's format in which equal values are written equally, wherever else they are referred to."""


class _LayerAttributes(NamedTuple):
    """Where the attributes of the modules of a class are among all of them: the settings, and what must be empty."""

    kind: Hashable
    names: tuple[str, ...]
    settings: Callable[[tuple[object, ...]], tuple[Any, ...]]
    empty: Callable[[tuple[object, ...]], tuple[object, ...]]


@lru_cache(maxsize=4096)
def _attributes(kind: Hashable, names: tuple[str, ...]) -> _LayerAttributes:
    from torch import nn

    for owner in cast("type[nn.Module]", kind).__mro__:
        if owner.__module__.startswith(_LAYERS) and owner is not nn.Module:
            _CODE.setdefault(owner, tuple(vars(owner).values()))
    usual = vars(nn.Module())
    empty = [name for name, value in usual.items() if isinstance(value, (dict, set))]
    owned = ("_parameters", "_buffers")
    places = [
        [i for i, n in enumerate(names) if (n in empty) is is_empty and n not in owned] for is_empty in (False, True)
    ]
    return _LayerAttributes(kind, names, *(cast("Any", itemgetter(*part)) for part in places))


def places_of(inputs: Sequence[Tensor], args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[int, ...]:
    """Return where each input stands among the tensors of the arguments, -1 for one that is not there."""
    given = tensors_in((tuple(args), dict(kwargs)))
    return tuple(next((place for place, other in enumerate(given) if other is tensor), -1) for tensor in inputs)


def told_once(key: Hashable, tell: Callable[[], ToldT]) -> ToldT:
    """Return what `tell` tells, or has told of an equal key. None is no key."""
    if key is None:
        return tell()
    if key not in _TOLD:
        if len(_TOLD) >= MOST_KNOWN:
            _TOLD.clear()
        _TOLD[key] = tell()
    told: ToldT = _TOLD[key]
    return told


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
    name, _ = function_name(function)
    library = getattr(function, "__module__", None) or "torch"
    is_own = library.partition(".")[0] == "torch" and not library.startswith(("torch._ops", "torch.autograd"))
    is_listed = name in NO_PRODUCTS or name in MATRIX_PRODUCTS or name == "multi_head_attention_forward"
    return is_own and is_listed and name not in _NOT_KNOWN


def _described_tensor(tensor: Tensor, tensors: list[Tensor]) -> Hashable:
    """Return what a result depends on of a tensor, and add it to the list; None if that is not known."""
    torch = _torch()
    has_names = torch.has_names is not None and torch.has_names(tensor)
    if not tensor.is_meta or tensor.layout is not torch.strided or has_names:
        return None
    place = 0
    for other in tensors:
        if other is tensor:
            break
        place += 1
    tensors.append(tensor)
    return place, tensor.shape, tensor.stride(), tensor.dtype, tensor.is_conj(), tensor.is_neg()


class _Torch(NamedTuple):
    """What is asked of torch for each call. An import in a function takes as long as the question."""

    strided: torch.layout
    has_names: Callable[[Tensor], bool] | None
    default_dtype: Callable[[], torch.dtype]
    is_grad_enabled: Callable[[], bool]
    empty_strided: Callable[..., Tensor]


@cache
def _torch() -> _Torch:
    from torch import empty_strided, get_default_dtype, is_grad_enabled, strided

    return _Torch(strided, _name_query(), get_default_dtype, is_grad_enabled, empty_strided)


def _described(value: object, tensors: list[Tensor]) -> Hashable:
    """Return what a result depends on of an argument, and add its tensors to the list; None if that is not known.

    One tensor in two places is not the same as two alike.
    """
    kind = type(value)
    if kind in _PLAIN:
        return kind, value
    if kind in plain_kinds():
        return _described_tensor(value, tensors)  # type: ignore[arg-type]
    import torch

    if kind in (tuple, list, torch.Size):
        items = [_described(item, tensors) for item in value]  # type: ignore[attr-defined]
        return None if None in items else (kind, *items)
    if kind is slice:
        part = cast("slice", value)
        bounds = [_described(bound, tensors) for bound in (part.start, part.stop, part.step)]
        return None if None in bounds else (kind, *bounds)
    return (kind, value) if value is Ellipsis or kind in (torch.dtype, torch.memory_format) else None
