"""Ask torch what a call of a run on one sample returns for another batch.

The call is repeated without data, on tensors as they are for that batch. For equal calls torch is asked once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, NamedTuple

from vggscope.ops.base import Op, Shape
from vggscope.trace.batch_size import batch_size_kind
from vggscope.trace.functions import read
from vggscope.trace.gradient_layouts import StridedLayout, contiguous
from vggscope.trace.known_results import told_once
from vggscope.trace.layout import kernel_layout, laid_out, layout_of, with_layout, without_layout
from vggscope.trace.recorder import shape_of
from vggscope.trace.tensors import Function, plain_kinds, tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Arguments = tuple[tuple[object, ...], dict[str, object]]


class FollowedCall(NamedTuple):
    """A call of a function, or of a layer's forward, that has become nodes or constants.

    - `name` is as `function_name` gives it, empty for a layer.
    - `layer` is the op of a layer, None for a function.
    - `signature` is that of the call on one sample, None if equal calls may differ.
    - `given` are the arguments with the sizes that depend on the batch, None without any.
    """

    function: Function
    args: tuple[object, ...]
    kwargs: dict[str, object]
    inputs: Sequence[Tensor]
    name: str = ""
    layer: Op | None = None
    signature: Hashable = None
    given: Arguments | None = None


class TensorLayout(NamedTuple):
    """The shape and the strides of a tensor, and its dtype."""

    shape: Shape
    strides: Shape
    dtype: torch.dtype

    @property
    def is_usual(self) -> bool:
        """Whether the elements lie in memory in the order of the axes."""
        usual = usual_strides(self.shape)
        return self.strides == usual or StridedLayout(self.shape, self.strides).is_contiguous

    @property
    def has_usual_samples(self) -> bool:
        """Whether those of each sample do, as in a slice of the channels of a batch."""
        return self.strides[1:] == usual_strides(self.shape)[1:]

    def empty(self) -> Tensor:
        """Return a tensor without data like this one."""
        import torch

        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta")


@lru_cache(maxsize=4096)
def usual_strides(shape: Shape) -> Shape:
    """Return the strides of a tensor whose elements lie in memory in the order of its axes."""
    return contiguous(shape).strides


class OtherResult(NamedTuple):
    """The result of a call for another batch, and what its op holds of the layout of its tensors."""

    layout: TensorLayout
    op_layout: tuple[tuple[str, object], ...] = ()


def other_results(
    call: FollowedCall, place: int, layouts: Sequence[TensorLayout], ops: Sequence[Op | None]
) -> tuple[OtherResult, ...]:
    """Return the results of a call for another batch.

    `place` is that of the batch among the values of a size, in which 0 is one sample, and `layouts` are those of the
    inputs. `ops` are the ops of the results for one sample.
    """

    def tell() -> tuple[OtherResult, ...]:
        return _asked(call, place, layouts, ops)

    return told_once(_key(call, place, layouts), tell)


def _key(call: FollowedCall, place: int, layouts: Sequence[TensorLayout]) -> Hashable:
    """Return all that the results of a call depend on; None if that is not known."""
    if call.signature is not None and call.given is None:
        return (call.signature, place, *layouts)
    known = {id(tensor): layout for tensor, layout in zip(call.inputs, layouts)}
    arguments = _described(call.given or (call.args, call.kwargs), place, known)
    return None if arguments is None else (call.layer or call.function, call.name, place, arguments)


def _described(value: Any, place: int, layouts: Mapping[int, TensorLayout]) -> Hashable:
    """Return an argument for a batch, with the layouts of its tensors; None if it may be more than a plain value."""
    kind = type(value)
    if kind is int or kind in _PLAIN:
        plain: Hashable = kind, value
        return plain
    if kind in plain_kinds():
        return layouts.get(id(value))
    if kind is batch_size_kind():
        return int, value.values[place]
    items = _items(value)
    if items is None:
        return (kind, value) if kind.__module__ == "torch" else None
    described = [_described(item, place, layouts) for item in items]
    return None if None in described else (kind, *(value if kind is dict else ()), *described)


_PLAIN = frozenset({bool, int, float, str, type(None), type(Ellipsis)})
"""Types of arguments whose equal values do the same in torch. `True`, `1` and `1.0` differ in their types."""


def _items(value: Any) -> Sequence[object] | None:
    """Return the items of a list, a tuple, a torch.Size, a dict or a slice; None for any other argument."""
    kind = type(value)
    if kind is tuple or kind is list:
        items: Sequence[object] = value
        return items
    if kind is slice:
        return value.start, value.stop, value.step
    if kind is dict:
        return [*value.values()]
    return value if isinstance(value, tuple) and not hasattr(value, "_fields") else None


def has_size(value: Any) -> bool:
    """Return whether an argument has a size that depends on the batch, also inside of containers."""
    kind = type(value)
    if kind in _PLAIN or kind in plain_kinds():
        return False
    items = _items(value)
    return kind is batch_size_kind() if items is None else True in map(has_size, items)


def for_batch(value: Any, place: int, tensor: Callable[[Tensor], Tensor] | None = None) -> Any:
    """Return an argument with its sizes for one batch, 0 for one sample, and with `tensor` applied to its tensors."""
    kind = type(value)
    if kind is batch_size_kind():
        return value.values[place]
    if kind in plain_kinds():
        return value if tensor is None else tensor(value)
    items = _items(value)
    if items is None:
        return value
    own = [for_batch(item, place, tensor) for item in items]
    return slice(*own) if kind is slice else dict(zip(value, own)) if kind is dict else kind(own)


def _asked(
    call: FollowedCall, place: int, layouts: Sequence[TensorLayout], ops: Sequence[Op | None]
) -> tuple[OtherResult, ...]:
    """Return the results of a call for another batch as torch gives them."""
    tensors = {id(tensor): layout.empty() for tensor, layout in zip(call.inputs, layouts)}
    args, kwargs = for_batch(call.given or (call.args, call.kwargs), place, lambda tensor: tensors[id(tensor)])
    function = call.function
    if place > 1 and call.name == "view":
        function = type(call.inputs[0]).reshape  # of a large batch, the shape alone is known and counts
    if not call.inputs:
        kwargs = {"device": "meta", **kwargs}
    order = kernel_layout(call.name, args)
    result = function(*args, **kwargs) if order is None else laid_out(order, function, *args, **kwargs)
    inputs = tuple([tensors[id(tensor)] for tensor in call.inputs])
    results = inputs[:1] if call.name == "setitem" else tensors_in(result)
    return tuple([_other_result(call, op, args, inputs, own) for op, own in zip_longest(ops, results)])


def _other_result(
    call: FollowedCall, op: Op | None, args: tuple[object, ...], inputs: tuple[Tensor, ...], result: Tensor
) -> OtherResult:
    """Return a result with what its op holds of the layout of its tensors, given that for one sample."""
    layout = TensorLayout(shape_of(result), result.stride(), result.dtype)
    if op is None:
        return OtherResult(layout)
    other = with_layout(without_layout(op.without_constants), inputs, result)
    if call.name in ("matmul", "einsum"):
        (other, *_) = read(call.name, False, args, {}, inputs, (result,)).ops
    return OtherResult(layout, tuple(layout_of(other).items()))
