"""Follow what other batches would do in a run on one sample.

A run on one sample tells most of what a run on two would: the ops' rules give the shapes and costs for any batch, and a
number that forward reads of a size knows its value for each (`batch_size`). What rules do not tell is asked of torch
for the call alone: the layout in memory of two samples, where the tensors of a call are not all of their storage in the
order of their axes, and the shape of what is made of sizes. Where that is not enough, the batches are lost, and forward
runs on two samples.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar
from weakref import ref

from vggscope.graph import Input, Node, Output
from vggscope.ops.activation import Activation, ReLU, SiLU
from vggscope.ops.attention import MatrixProduct
from vggscope.ops.base import Op, Shape, shape_by_rule
from vggscope.ops.constant import WithComputedWeights, WithConstants
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.embedding import Embedding
from vggscope.ops.linear import Linear
from vggscope.ops.merge import Concatenation, Stack
from vggscope.ops.normalization import BatchNorm2d, GroupNorm, LayerNorm
from vggscope.ops.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from vggscope.ops.recorded import CallResult, Recorded
from vggscope.ops.reduction import Reduction
from vggscope.ops.regularization import Detach, Dropout, Identity, StochasticDepth
from vggscope.ops.sampling import Upsample
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Reshape, Squeeze, Unsqueeze, View
from vggscope.record import changed
from vggscope.trace.batch_size import asks_for_types, batch_size
from vggscope.trace.gradient_layouts import StridedLayout
from vggscope.trace.layout import is_whole, with_op_layout
from vggscope.trace.other_calls import (
    FollowedCall,
    OtherResult,
    TensorLayout,
    other_results,
    usual_strides,
)
from vggscope.trace.recorder import Constant, Recorder, shape_of
from vggscope.trace.source_line import PACKAGE
from vggscope.trace.tensor_map import TensorMap
from vggscope.trace.tensors import tensors_in
from vggscope.trace.transforms import is_transforming

if TYPE_CHECKING:
    from torch import Tensor

TensorT = TypeVar("TensorT", Input, Output)

MANY = 1009
"""A batch in which a slice of the first samples has its own size."""

REVEALING_NOTHING = frozenset(
    {
        *("dim", "ndim", "dtype", "device", "layout", "requires_grad", "is_leaf", "grad_fn", "element_size"),
        *("itemsize", "is_floating_point", "is_complex", "is_nested", "is_sparse", "is_quantized"),
        *("is_meta", "is_cuda", "is_cpu", "is_mps", "is_xpu"),
    }
)
"""What forward may ask of a tensor that does not depend on the batch."""

_OF_LAYOUT = frozenset({"stride", "is_contiguous"})

_IN_ORDER = (
    *(Activation, AdaptiveAvgPool2d, AvgPool2d, BatchNorm2d, Concatenation, Convolution, Detach, Dropout, Elementwise),
    *(Embedding, GroupNorm, Identity, LayerNorm, Linear, MatrixProduct, MaxPool2d, Reduction, Stack, StochasticDepth),
    *(TransposedConvolution, Upsample),
    *(Flatten, Reshape, Squeeze, Unsqueeze),
)
"""Ops whose result lies in memory in the order of its axes if their inputs do, for each batch."""

_ON_SLICES = (Convolution, BatchNorm2d, MaxPool2d, AvgPool2d, ReLU, SiLU, Concatenation)
"""Ops on maps that return the samples of a slice of channels in the usual order."""

_ARITHMETIC = frozenset({"add", "sub", "mul", "div"})
"""Functions whose result is in the usual order if all tensors have one shape, of which each sample is whole."""


class Grown(NamedTuple):
    """The nodes, inputs and outputs of a run on one sample, with how they grow with the batch.

    `layouts` returns the shapes and strides for two samples, None if each tensor just has a second sample.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[Input, ...]
    outputs: tuple[Output, ...]
    layouts: Callable[[], Mapping[str, StridedLayout]] | None


@dataclass
class Loss:
    """Whether something is unknown."""

    is_noted: bool = False

    def note(self) -> None:
        """Note that it is."""
        self.is_noted = True


@dataclass
class OtherBatches:
    """What is known of other batches in a run on one sample.

    - `batches` are the other batches, two samples first.
    - `shapes` are those of the inputs and nodes for each of them.
    - `layouts` are those for two samples of the nodes whose layout in memory is not the usual one.
    - `made` are the constants that forward makes of sizes, with their layouts for each batch.
    - `ops` are the ops of nodes for two samples, where these lie otherwise in memory.
    - `told` are the nodes whose shapes torch has told.
    - `are_read`: forward has got a number that depends on the batch.
    - `are_made`: forward has made a constant of sizes.
    - `are_irregular`: the shape of a node does not grow in proportion to the batch.
    - `loss` is whether what other batches do is unknown. The numbers that forward has got refer to it alone, because
      the module's code may keep them. `need_plain_sizes`: nor is what one sample does, because something may have told
      these numbers from plain ones.
    """

    recorder: Recorder
    batches: tuple[int, ...] = (2, MANY)
    shapes: dict[str, tuple[Shape, ...]] = field(default_factory=dict)
    layouts: dict[str, TensorLayout] = field(default_factory=dict)
    made: TensorMap[tuple[TensorLayout, ...]] = field(default_factory=TensorMap)
    ops: dict[str, Op] = field(default_factory=dict)
    told: set[str] = field(default_factory=set)
    are_read: bool = False
    are_made: bool = False
    are_irregular: bool = False
    loss: Loss = field(default_factory=Loss)
    need_plain_sizes: bool = False
    _before: dict[int, str | None] = field(default_factory=dict)
    _ruled: int = 0
    _followed: int = 0

    @property
    def are_lost(self) -> bool:
        """Whether what other batches do is not known from this run."""
        return self.loss.is_noted

    def lose(self) -> None:
        """Note that what other batches do is not known from this run."""
        self.loss.note()

    def want_plain_sizes(self) -> None:
        """Note that forward is to be run with plain sizes."""
        self.need_plain_sizes = True
        self.lose()

    def look_at_code(self) -> None:
        """Note if the code that has a size may ask for its class."""
        frame = sys._getframe(1)
        while frame.f_code.co_filename.startswith(PACKAGE) and frame.f_back is not None:
            frame = frame.f_back
        if asks_for_types(frame.f_code):
            self.want_plain_sizes()

    def end(self) -> None:
        """Note if one of these sizes outlives the run: forward has kept it, and later calls shall find a plain one."""
        loss, self.loss = ref(self.loss), Loss(self.loss.is_noted)
        if loss() is not None:
            self.want_plain_sizes()

    def begin(self, tensors: Sequence[Tensor], axes: Sequence[int | None]) -> None:
        """Note the network's inputs for one sample, each with its batch axis."""
        for given, tensor, axis in zip(self.recorder.inputs, tensors, axes):
            shape = shape_of(tensor)
            if not is_whole(tensor) or (axis is not None and shape[axis] != 1):
                self.lose()
            self.shapes[given.name] = tuple([_with_size(shape, axis, batch) for batch in self.batches])

    def after(self, call: FollowedCall, result: object) -> object:
        """Follow a call that has been recorded. Return its result, with sizes that depend on the batch."""
        if self.are_lost:
            return result
        if is_transforming():
            self.lose()
            return result
        results = tensors_in(result)
        is_new, self._followed = len(self.recorder.nodes) > self._followed, len(self.recorder.nodes)
        if call.name == "setitem":
            results = tuple(call.inputs[:1])
        if not results:
            return self._after_reading(call, result)
        names = [origin for origin in map(self.recorder.origin, results) if isinstance(origin, str)]
        self._before = self._overwritten(call, results, names) if is_new and names else {}
        try:
            if not names:
                self._make(call, results)
            elif not is_new:
                self._pass_on(call, names)
            elif self._may_differ(call, names):
                self._run_on_others(call, results, names)
        except Exception:  # torch may refuse what forward does with two samples
            self.lose()
        return result

    def _overwritten(self, call: FollowedCall, results: Sequence[Tensor], names: list[str]) -> dict[int, str | None]:
        """Return the node that computed an input before the call wrote to it, None for a constant, by its id."""
        if not call.inputs or results[0] is not call.inputs[0]:
            return {}
        node = self.recorder.nodes[names[0]]
        is_constant = isinstance(node.op, WithConstants) and node.op.constants[0] is not None
        return {id(results[0]): None if is_constant else next(iter(node.inputs), None)}

    def _origin(self, tensor: Tensor) -> str | None:
        """Return the node or input that a tensor is from, None for a constant."""
        if id(tensor) in self._before:
            return self._before[id(tensor)]
        origin = self.recorder.origin(tensor)
        return origin if isinstance(origin, str) else None

    def _after_reading(self, call: FollowedCall, result: object) -> object:
        """Return what a call tells of its tensors, with sizes that depend on the batch."""
        if call.given is not None:
            self.lose()  # the axis of `size`, for example, may be another one
        if call.name in REVEALING_NOTHING or not self._depend_on_batch(call.inputs):
            return result
        shapes = self._shapes_of(call.inputs[0])
        if shapes is None:
            self.lose()
            return result
        if call.name in _OF_LAYOUT:
            if call.function(self._layout(call.inputs[0], 0).empty(), *call.args[1:], **call.kwargs) != result:
                self.lose()
            return result
        return self._size(call, shape_of(call.inputs[0]), shapes, result)

    def _size(self, call: FollowedCall, shape: Shape, shapes: tuple[Shape, ...], result: object) -> object:
        """Return the size that a call reads, for all batches."""
        if call.name in ("numel", "nelement"):
            return self._number((prod(shape), *map(prod, shapes)))
        sizes = [self._number(numbers) for numbers in zip(shape, *shapes)]
        if call.name == "shape" or (call.name == "size" and type(result) is not int):
            import torch

            return torch.Size(sizes)
        if call.name == "size":
            axis: Any = call.args[1] if len(call.args) > 1 else call.kwargs["dim"]
            return sizes[axis]
        if call.name != "len" or type(sizes[0]) is not int:
            self.lose()
        return result

    def _number(self, values: tuple[int, ...]) -> Any:
        number = batch_size(values, self.loss.note)
        if type(number) is not int:
            self.are_read = True
            self.look_at_code()
        return number

    def _depend_on_batch(self, tensors: Sequence[Tensor]) -> bool:
        return not self.recorder.is_constant(tensors) or self._are_made(tensors)

    def _are_made(self, tensors: Sequence[Tensor]) -> bool:
        """Return whether one of these constants is made of sizes."""
        return self.are_made and any(tensor in self.made for tensor in tensors)

    def _shapes_of(self, tensor: Tensor) -> tuple[Shape, ...] | None:
        """Return the shapes of a tensor for the other batches; None if they are not known."""
        if self._are_made((tensor,)):
            return tuple([layout.shape for layout in self.made[tensor]])
        name = self._origin(tensor)
        if name is None:
            return (shape_of(tensor),) * len(self.batches)
        if name not in self.shapes:
            self._follow_rules(name)
        return self.shapes.get(name) if self.recorder.shapes[name] == tuple(tensor.shape) else None

    def _follow_rules(self, last: str | None = None) -> None:
        """Note the shapes of all nodes up to the last one by the rules of their ops."""
        nodes = self.recorder.nodes
        further = [*islice(reversed(nodes.values()), len(nodes) - self._ruled)]
        while further and not self.are_lost:
            node = further.pop()
            self._ruled += 1
            if node.name not in self.shapes:
                shapes = self._shapes_by_rule(node)
                if shapes is None:
                    return self.lose()
                self.shapes[node.name] = shapes
            if node.name == last:
                break
        return None

    def _shapes_by_rule(self, node: Node) -> tuple[Shape, ...] | None:
        """Return the shapes of a node for the other batches by the rule of its op; None if it has none."""
        op = node.op
        if isinstance(op.without_constants, (Recorded, CallResult)):
            return self._shapes_of_written(node)
        if isinstance(op, WithComputedWeights):
            weights = node.inputs[len(node.inputs) - len(op.matrices) :]
            if any(shape != self.recorder.shapes[name] for name in weights for shape in self.shapes[name]):
                return None
        found: list[Shape] = []
        for shapes in self._shapes_read(node):
            shape = shape_by_rule(op, shapes)
            if shape is None:
                return None
            found.append(shape)
        return tuple(found)

    def _shapes_read(self, node: Node) -> list[tuple[Shape, ...]]:
        """Return the shapes that a node reads, for each of the other batches."""
        return [tuple([self.shapes[name][place] for name in node.inputs]) for place in range(len(self.batches))]

    def _shapes_of_written(self, node: Node) -> tuple[Shape, ...] | None:
        """Return the shapes of a tensor to whose memory another node has written; None for any other node."""
        shape = self.recorder.shapes[node.name]
        if node.op.name != "setitem":
            return None
        if isinstance(node.op, WithConstants):
            return None if self.are_made else (shape,) * len(self.batches)
        return self.shapes[node.inputs[0]] if self.recorder.shapes[node.inputs[0]] == shape else None

    def _make(self, call: FollowedCall, results: Sequence[Tensor]) -> None:
        """Note what a call makes of sizes, or of tensors that are made of sizes."""
        if call.given is None and not self._depend_on_batch(call.inputs):
            return
        self.are_made = True
        made = [self._run(call, place, [None] * len(results)) for place in range(len(self.batches))]
        for number, result in enumerate(results):
            self.made[result] = tuple([others[number].layout for others in made])
            origin = self.recorder.origin(result)
            if isinstance(origin, Constant) and self.made[result][0].shape != result.shape:
                self.recorder.weights.varying.add(origin.call)

    def _pass_on(self, call: FollowedCall, names: Sequence[str]) -> None:
        """Follow a call that returns what a node has computed, as `contiguous` may: it may copy two samples."""
        if call.given is not None:
            self.lose()
        for name in names:
            if name in self.layouts and self._run(call, 0, [None])[0].layout != self.layouts[name]:
                self.lose()

    def _may_differ(self, call: FollowedCall, names: Sequence[str]) -> bool:
        """Return whether a call may not be known by the rule of its op, or may lie otherwise in memory."""
        node = self.recorder.nodes[names[0]]
        op = node.op.without_constants
        if any(self._needs_torch(call, name) for name in names):
            return True
        are_usual = self.layouts.keys().isdisjoint(node.inputs)
        return not (isinstance(op, _IN_ORDER) if are_usual else self._takes_slices(node, op))

    def _takes_slices(self, node: Node, op: Op) -> bool:
        """Return whether torch runs a node in the same way on slices of channels as on whole tensors."""
        slices = [self.layouts[name] for name in node.inputs if name in self.layouts]
        if op.overwrites or not all(len(own.shape) == len("NCHW") and own.has_usual_samples for own in slices):
            return False
        if isinstance(op, Elementwise):
            shapes = {self.recorder.shapes[name] for name in node.inputs}
            return op.function in _ARITHMETIC and shapes == {self.recorder.shapes[node.name]}
        return isinstance(op, _ON_SLICES)

    def _run_on_others(self, call: FollowedCall, results: Sequence[Tensor], names: Sequence[str]) -> None:
        """Ask torch for the results of a call for two samples, and for all batches if no rule tells their shapes."""
        told = {name for name in names if self._needs_torch(call, name)}
        if any(self.recorder.macs(name) != 0 for name in told):
            return self.lose()
        own = [self.recorder.nodes[name].op for name in names]
        others = [self._run(call, place, own) for place in range(len(self.batches) if told else 1)]
        if len(names) != len(results) or any(len(other) != len(results) for other in others):
            return self.lose()
        self.told |= told
        for name, op, result, *found in zip(names, own, results, *others):
            if name in told:
                self.shapes[name] = tuple([other.layout.shape for other in found])
            if not (found[0].layout.is_usual and result.is_contiguous()):
                self.layouts[name] = found[0].layout
            other = with_op_layout(op, dict(found[0].op_layout))
            if other is not None:
                self.ops[name] = other
        return None

    def _needs_torch(self, call: FollowedCall, name: str) -> bool:
        """Return whether the op of a node holds sizes that may depend on the batch."""
        if call.given is not None or call.name == "unflatten":
            return True
        is_recorded = isinstance(self.recorder.nodes[name].op.without_constants, (Recorded, CallResult))
        return is_recorded or self._are_made(call.inputs)

    def _run(self, call: FollowedCall, place: int, ops: Sequence[Op | None]) -> tuple[OtherResult, ...]:
        """Return the results of a call for another batch, whose ops are these for one sample."""
        return other_results(call, place + 1, [self._layout(tensor, place) for tensor in call.inputs], ops)

    def _layout(self, tensor: Tensor, place: int) -> TensorLayout:
        """Return the layout of a tensor for another batch, the usual one for all but two samples."""
        if self._are_made((tensor,)):
            return self.made[tensor][place]
        name = self._origin(tensor)
        if name is None:
            return TensorLayout(shape_of(tensor), tensor.stride(), tensor.dtype)
        if place == 0 and name in self.layouts:
            return self.layouts[name]
        shapes = self._shapes_of(tensor)
        if shapes is None:
            raise UnknownBatch
        return TensorLayout(shapes[place], usual_strides(shapes[place]), tensor.dtype)

    def grown(self, nodes: Sequence[Node]) -> Grown | None:
        """Return nodes with their growth; None if this run does not tell how each of them grows with the batch."""
        self._follow_rules()
        recorder = self.recorder
        if self.are_lost or not all(recorder.output_origins):
            return None
        if not all(map(self._is_proportional, recorder.nodes.values())):
            return None
        inputs = tuple([self._with_growth(given, given.name) for given in recorder.inputs])
        outputs = tuple(map(self._with_growth, recorder.outputs, recorder.output_origins))
        grown = tuple(map(self._node_with_growth, nodes))
        is_usual = all(node.batch_growth is None for node in grown)
        is_usual = is_usual and all(layout.has_usual_samples for layout in self.layouts.values())
        return Grown(grown, inputs, outputs, None if is_usual else self._strided)

    @property
    def ops_hold_sizes(self) -> bool:
        """Whether an op has a size of one sample among its numbers, as a padding by it has: its rules fit no other."""
        return any(map(self._holds_size, self.told))

    def _holds_size(self, name: str) -> bool:
        node = self.recorder.nodes[name]
        return uses_own_numbers(node.op) and self._shapes_by_rule(node) != self.shapes[name]

    def _is_proportional(self, node: Node) -> bool:
        """Return whether each sample adds to the output of a node, and to its cost, what the second one adds."""
        one, others = self.recorder.shapes[node.name], self.shapes[node.name]
        if node.name in self.layouts and self.layouts[node.name].shape != others[0]:
            return False
        further = [extended(one, others[0], batch) for batch in self.batches]
        if len(one) != len(others[0]) or further != [*others]:
            self.are_irregular = True
            return False
        if node.name in self.told:
            return True
        cost = self.recorder.macs(node.name)
        if cost is None:
            return False
        return all(
            node.op.macs(shapes, output) == (cost if output == one else batch * cost)
            for batch, shapes, output in zip(self.batches, self._shapes_read(node), others)
        )

    def _with_growth(self, tensor: TensorT, name: str) -> TensorT:
        """Return an input, or an output that this node returns, with its growth."""
        return replace(tensor, batch_growth=growth_of(tensor.shape, self.shapes[name][0]))

    def _node_with_growth(self, node: Node) -> Node:
        growth = growth_of(self.recorder.shapes[node.name], self.shapes[node.name][0])
        op = self.ops.get(node.name)
        return node if growth is None and op is None else changed(node, batch_growth=growth, batched_op=op)

    def _strided(self) -> dict[str, StridedLayout]:
        """Return the shape and strides of each input and node for two samples."""
        usual = {name: StridedLayout(shapes[0], usual_strides(shapes[0])) for name, shapes in self.shapes.items()}
        return usual | {name: StridedLayout(layout.shape, layout.strides) for name, layout in self.layouts.items()}


class UnknownBatch(Exception):
    """The shape of a tensor is not known for another batch."""


def _with_size(shape: Shape, axis: int | None, size: int) -> Shape:
    return shape if axis is None else (*shape[:axis], size, *shape[axis + 1 :])


def uses_own_numbers(op: Op) -> bool:
    """Return whether the memory of a result may depend on a number of its op.

    That of a view does not, nor that of the elements of the input in another shape, nor one that torch has told. The
    sizes of an op's constants are looked at elsewhere.
    """
    if isinstance(op, (WithConstants, Recorded, CallResult, Reshape, Flatten, Squeeze, Unsqueeze)):
        return False
    return not (isinstance(op, View) and op.shares)


def extended(one: Shape, two: Shape, batch: int) -> Shape:
    """Return the shape for a batch of which each sample adds what the second one adds."""
    return tuple([size + (larger - size) * (batch - 1) for size, larger in zip(one, two)])


def growth_of(one: Shape, two: Shape) -> Shape | None:
    """Return by how much a second sample extends each axis; None if it doubles the first axis alone."""
    growth = tuple(more - size for size, more in zip(one, two))
    return None if growth == (*one[:1], *(0,) * (len(one) - 1)) and one else growth
