"""Decide from the run on one sample whether another batch could take another way.

Most convolutional networks could not: forward sees no size of a tensor, and each op's rules give the shapes and the
cost for two samples. Then the run on two samples, which takes as long as the first, is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggscope.errors import ShapeError
from vggscope.graph import Node
from vggscope.ops.base import Shape
from vggscope.ops.recorded import CallResult, Recorded
from vggscope.trace.inputs import CallInputs
from vggscope.trace.recorder import Recorder

if TYPE_CHECKING:
    from vggscope.trace.watch import Watch

BATCHES = (2, 1009)
"""The batches for which the rules are asked. A slice of the first samples has its own size in a large batch."""


def is_sample_wise(watch: Watch, inputs: CallInputs) -> bool:
    """Return whether the first axis of every tensor, and every cost, are sure to grow in proportion to the samples.

    They are if forward has read nothing that depends on the batch, all tensors lie in memory in the order of their
    axes, and the rules of the ops say so. A slice or a permuted tensor may have another layout for more samples.
    """
    recorder = watch.recorder
    if watch.reads_sizes or not recorder.is_regular or not all(output.source for output in recorder.outputs):
        return False
    if any(inputs.batch_axis_of(tensor) != 0 or len(tensor) != 1 for tensor in inputs.tensors()):
        return False
    return all(_is_proportional(node, recorder, batch) for node in recorder.nodes.values() for batch in BATCHES)


def _is_proportional(node: Node, recorder: Recorder, batch: int) -> bool:
    """Return whether the rules of a node's op multiply its output and its cost by the batch if its inputs are."""
    if isinstance(node.op.without_constants, (Recorded, CallResult)):
        return False
    given, output = tuple(recorder.shapes[source] for source in node.inputs), recorder.shapes[node.name]
    if not output or not all(given):
        return False
    scaled, expected = tuple(_scaled(shape, batch) for shape in given), _scaled(output, batch)
    try:
        if node.op.output_shape(*scaled) != expected:
            return False
    except (ShapeError, ValueError, IndexError, TypeError):
        return False
    macs = node.op.macs(given, output)
    return macs is not None and node.op.macs(scaled, expected) == batch * macs


def _scaled(shape: Shape, batch: int) -> Shape:
    return (batch * shape[0], *shape[1:])
