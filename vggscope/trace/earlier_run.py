"""What a run of forward on more samples repeats of the run on one sample.

Most calls of the second run are those of the first one: the same function in the same module, with the same arguments,
on tensors from the same nodes. Such a call has the op of the first run. What more samples may change is asked anew:
torch's output shape and memory layout, and whether the op's rule gives that shape. Any other call is read as usual.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

from vggscope.errors import ShapeError
from vggscope.graph import Node
from vggscope.ops.attention import MultiheadAttention
from vggscope.ops.base import Op, Shape
from vggscope.ops.constant import WithComputedWeights, WithConstants, WithMasks
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.linear import Linear
from vggscope.ops.recorded import CallResult, Recorded
from vggscope.ops.recurrent import Recurrent, RecurrentCell
from vggscope.ops.view import View
from vggscope.record import changed
from vggscope.trace.layout import shares_memory
from vggscope.trace.recorder import Recorder
from vggscope.trace.tensors import plain_kinds
from vggscope.trace.transforms import is_transforming

if TYPE_CHECKING:
    from torch import Tensor, nn

BY_SIZES = frozenset({"unflatten", "select", "matmul", "einsum", "group_norm"})
"""Functions whose op depends on sizes or strides of their input that its own rule does not check."""

_BY_CALL = (MultiheadAttention, Recurrent, RecurrentCell, TransposedConvolution)
"""Ops of modules that depend on more of a call than on the module."""

_BY_SHAPES = (Recorded, CallResult, WithComputedWeights, WithMasks)
"""Ops that hold the shapes of their call, or read weights that other nodes compute."""


class TracedCall(NamedTuple):
    """A call of a function or a module in the module at `path`.

    `plain` are its arguments, without tensors, and `origins` those of its tensors: a node or an input, or a constant
    with its shape. For a module, `op` is its op before the call, and `plain` is empty. `node` is the node that the call
    has become.
    """

    called: object
    path: str
    plain: Hashable
    origins: tuple[object, ...]
    op: Op | None = None
    node: str = ""


@dataclass
class Calls:
    """The calls of a run, in order, and what the run repeats of an earlier one.

    `made` has None for a call that later runs must read as usual, and `ends` the number of nodes after each call. Both
    are empty in a run that follows an earlier one. `earlier` is None from the call on that adds other nodes. `end` is
    the number of nodes after the last call, and `place` the number of calls.
    """

    recorder: Recorder
    earlier: Calls | None = None
    is_first: bool = False
    made: list[TracedCall | None] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    place: int = 0
    end: int = 0

    def __post_init__(self) -> None:
        if self.earlier is not None:
            self.earlier.names = list(self.earlier.recorder.nodes)

    def of_function(
        self, function: object, path: str, args: tuple[object, ...], kwargs: dict[str, object], inputs: Sequence[Tensor]
    ) -> TracedCall | None:
        """Return a call of a function whose op does not depend on the sizes of its inputs; None if nothing asks."""
        if self.earlier is None and not self.is_first:
            return None
        plain = without_tensors((args, tuple(kwargs.items())) if kwargs else args)
        return TracedCall(function, path, plain, self._origins(inputs))

    def of_module(self, module: nn.Module, path: str, op: Op, inputs: Sequence[Tensor]) -> TracedCall | None:
        """Return a call of a module whose op does not depend on the call; None if nothing asks."""
        if (self.earlier is None and not self.is_first) or isinstance(op, (*_BY_CALL, *_BY_SHAPES)):
            return None
        return TracedCall(module, path, (), self._origins(inputs), op)

    def _origins(self, tensors: Sequence[Tensor]) -> tuple[object, ...]:
        origins = []
        for tensor in tensors:
            origin = self.recorder.origin(tensor)
            origins.append(origin if isinstance(origin, str) else (origin, tensor.shape))
        return tuple(origins)

    def add(self, call: TracedCall | None) -> None:
        """Add a call whose nodes have been recorded as usual. Follow the earlier run no longer if it has others."""
        nodes, start = self.recorder.nodes, self.end
        self.end = len(nodes)
        if self.is_first:
            is_one = call is not None and self.end == start + 1
            name = next(reversed(nodes)) if is_one else ""
            self.made.append(
                call._replace(node=name) if call and is_one and _is_repeatable(nodes[name], call) else None
            )
            self.ends.append(self.end)
        elif self.earlier is not None:
            added = [*islice(reversed(nodes), self.end - start)][::-1]
            is_equal = self.place < len(self.earlier.ends) and self.earlier.ends[self.place] == self.end
            if not is_equal or added != self.earlier.names[start : self.end]:
                self.earlier = None
            self.place += 1

    def known(self, call: TracedCall | None) -> tuple[Node, bool] | None:
        """Return the node that an equal call has become in the earlier run; None without one.

        The second value is whether all arguments are equal: those of a function may differ but for its tensors.
        """
        earlier, place = self.earlier, self.place
        if call is None or earlier is None or place >= len(earlier.made) or len(self.recorder.nodes) != self.end:
            return None
        made = earlier.made[place]
        if made is None or earlier.ends[place] != self.end + 1 or made.called is not call.called:
            return None
        if made.path != call.path or made.origins != call.origins or made.op != call.op:
            return None
        return earlier.recorder.nodes[made.node], made.plain == call.plain

    def repeat(self, node: Node, own: Op, inputs: Sequence[Tensor], result: Tensor) -> bool:
        """Record a call with the node of an equal call in the earlier run, and with the op `own`.

        Return whether that op covers the call.
        """
        assert self.earlier is not None
        recorder, earlier = self.recorder, self.earlier.recorder
        if recorder.has_own_backward or is_transforming():
            return False
        shapes = tuple([recorder.shapes[name] for name in node.inputs])
        before = [earlier.shapes[name] for name in node.inputs]
        if [*map(len, shapes)] != [*map(len, before)]:
            return False
        op = _with_layout(own, inputs, result)
        if op is None or not _fits(op, shapes, tuple(result.shape)):
            return False
        recorder.repeat_node(changed(node, op=op), result, earlier)
        self.end += 1
        self.place += 1
        return True


def _with_layout(op: Op, inputs: Sequence[Tensor], result: Tensor) -> Op | None:
    """Return the op with the memory layout of this call; None if that must be asked as usual."""
    if isinstance(op, View):
        return changed(op, shares=True in [shares_memory(tensor, result) for tensor in inputs])
    own = op.op if isinstance(op, WithConstants) else op
    if isinstance(own, (Linear, Convolution)) and not inputs[0].is_contiguous():
        return None
    return op


def _fits(op: Op, inputs: tuple[Shape, ...], output: Shape) -> bool:
    """Return whether the rules of an op give torch's output shape, and its cost."""
    try:
        return op.output_shape(*inputs) == output and op.macs(inputs, output) is not None
    except (ShapeError, ValueError, IndexError, TypeError):
        return False


def _is_repeatable(node: Node, call: TracedCall) -> bool:
    """Return whether an equal call with more samples has the op of a node, up to the memory layout of a view."""
    op = node.op
    if isinstance(op, WithConstants):
        op = op.op
        if isinstance(op, View):
            return False
    if isinstance(op, _BY_SHAPES) or (call.op is not None and type(op) is not type(call.op)):
        return False
    return not (isinstance(op, Linear) and op.apart) and not (isinstance(op, Convolution) and op.channels_last)


def without_tensors(value: Any) -> Hashable:
    """Return an argument without its tensors. Two are equal if torch does the same with both.

    >>> without_tensors((1, [2.0, slice(None)])) == without_tensors((1, [2.0, slice(None)]))
    True
    >>> without_tensors((1,)) == without_tensors((True,))
    False
    """
    kind = type(value)
    if kind is int or kind is str or value is None:
        plain: Hashable = value
        return plain
    if kind in plain_kinds():
        return _TENSOR
    if kind is tuple or kind is list:
        return kind, *[without_tensors(item) for item in value]
    if kind is slice:
        return kind, *map(without_tensors, (value.start, value.stop, value.step))
    return (kind, value) if kind in _plain() else object()


@cache
def _plain() -> frozenset[type]:
    """Return types whose equal values do the same in torch. `True`, `1` and `1.0` differ in their types."""
    import torch

    return frozenset({bool, float, type(Ellipsis), torch.Size, torch.dtype, torch.device, torch.memory_format})


_TENSOR = object()
"""What stands for a tensor."""
