"""Decide from the run on one sample whether another batch could take another way.

Most convolutional networks could not: forward sees no size of a tensor, and each op's rules give the shapes and the
cost for two samples. Then the run on two samples, which takes as long as the first, is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vggscope.errors import ShapeError
from vggscope.graph import Node
from vggscope.ops.activation import ReLU, SiLU
from vggscope.ops.base import Op, Shape
from vggscope.ops.constant import WithComputedWeights
from vggscope.ops.convolution import Convolution
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.merge import Concatenation
from vggscope.ops.normalization import BatchNorm2d
from vggscope.ops.pooling import AvgPool2d, MaxPool2d
from vggscope.ops.recorded import CallResult, Recorded
from vggscope.ops.view import Chunk, Slice, Split
from vggscope.trace.inputs import CallInputs
from vggscope.trace.recorder import Recorder

if TYPE_CHECKING:
    from vggscope.trace.watch import Watch

BATCHES = (2, 1009)
"""The batches for which the rules are asked. A slice of the first samples has its own size in a large batch."""


MORE_SAMPLES = (3, 1009)
"""The batches for which the rules are asked after a run on two samples."""


def is_sample_wise(watch: Watch, inputs: CallInputs) -> bool:
    """Return whether the first axis of every tensor, and every cost, are sure to grow in proportion to the samples.

    They are if forward has read nothing that depends on the batch, all tensors lie in memory in the order of their
    axes, and the rules of the ops say so. A permuted tensor may have another layout for more samples. The samples of a
    slice of channels lie as far apart as those of the whole tensor, which matters only to some ops that read it.
    """
    recorder = watch.recorder
    if watch.reads_sizes or not recorder.is_regular or not all(output.source for output in recorder.outputs):
        return False
    if any(inputs.batch_axis_of(tensor) != 0 or len(tensor) != 1 for tensor in inputs.tensors()):
        return False
    nodes = recorder.nodes.values()
    if recorder.slices and not all(_takes_slices(node, recorder) for node in nodes):
        return False
    return all(_is_proportional(node, recorder, batch) for node in nodes for batch in BATCHES)


def _takes_slices(node: Node, recorder: Recorder) -> bool:
    """Return whether torch runs a node in the same way on slices as on whole tensors, and its result is as they are."""
    if recorder.slices.isdisjoint(node.inputs):
        return True
    op = node.op
    if op.overwrites or len(recorder.shapes[node.inputs[0]]) != len("NCHW"):
        return False
    if isinstance(op, Elementwise):
        shapes = {recorder.shapes[name] for name in node.inputs}
        return op.function in _ARITHMETIC and shapes == {recorder.shapes[node.name]}
    return isinstance(op, _ON_SLICES)


_ON_SLICES = (Convolution, BatchNorm2d, MaxPool2d, AvgPool2d, ReLU, SiLU, Concatenation, Slice, Chunk, Split)
"""Ops on maps whose result for each sample is in the usual order, or again a slice."""

_ARITHMETIC = frozenset({"add", "sub", "mul", "div"})
"""Functions whose result is in the usual order if all tensors have one shape, of which each sample is whole."""


def _is_proportional(node: Node, recorder: Recorder, batch: int) -> bool:
    """Return whether the rules of a node's op multiply its output and its cost by the batch if its inputs are."""
    if isinstance(node.op, WithComputedWeights) or isinstance(node.op.without_constants, (Recorded, CallResult)):
        return False
    given, output = tuple(recorder.shapes[source] for source in node.inputs), recorder.shapes[node.name]
    if not output or not all(given):
        return False
    scaled, expected = tuple(_scaled(shape, batch) for shape in given), _scaled(output, batch)
    if _shape_by_rule(node.op, scaled) != expected:
        return False
    macs = node.op.macs(given, output)
    return macs is not None and node.op.macs(scaled, expected) == batch * macs


class Growth:
    """The shapes of two runs, on one sample and on two, and those of larger batches if each sample adds as much."""

    def __init__(self, one: Recorder, two: Recorder) -> None:
        self._two = two
        self._shapes = [one.shapes, two.shapes, *(_extended(one.shapes, two.shapes, n) for n in MORE_SAMPLES)]

    def follows_rule(self, node: Node) -> bool:
        """Return whether each further sample adds to a node's output what the second one adds, by the rule of its op.

        It does not for `x[:2]` and `x[::2]`. True if the rule of the op does not give the shapes of both runs.
        """
        if self._two.nodes[node.name].op != node.op:
            return True  # the op has a number that differs in each run, such as the size of a reshape

        def agrees(shapes: Mapping[str, Shape]) -> bool:
            return _shape_by_rule(node.op, tuple([shapes[source] for source in node.inputs])) == shapes[node.name]

        one, two, *more = self._shapes
        return all(map(agrees, more)) or not (agrees(one) and agrees(two))


def _extended(one: Mapping[str, Shape], two: Mapping[str, Shape], samples: int) -> dict[str, Shape]:
    """Return the shapes for a larger batch than those of one sample and of two."""
    further = samples - 1
    return {
        name: tuple([size + (larger - size) * further for size, larger in zip(shape, two[name])])
        for name, shape in one.items()
        if name in two
    }


def _shape_by_rule(op: Op, given: tuple[Shape, ...]) -> Shape | None:
    """Return the output shape by the rule of an op; None if it does not accept these input shapes."""
    try:
        return op.output_shape(*given)
    except (ShapeError, ValueError, IndexError, TypeError):
        return None


def _scaled(shape: Shape, batch: int) -> Shape:
    return (batch * shape[0], *shape[1:])
