"""What somebody who wrote a layer that the reference has not should know of it, where its figures say nothing."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.diffing.find import Edit
from vggscope.graph import INPUT, Network, Node
from vggscope.units import shape_text

_FIRST = (0, 3, 1, 2)
"""From channels last, as Keras and image files have them, to channels first."""


def advice(ours: Network, edits: tuple[Edit, ...]) -> tuple[str, ...]:
    """A line for each of our layers for which there is one to say."""
    return tuple(line for mine, other in edits if mine is not None and other is None for line in _on(ours, mine))


def _on(ours: Network, mine: Node) -> Iterator[str]:
    readers = [ours.by_name[name].op.name for name in ours.consumers[mine.name]]
    if mine.op.name in ("Softmax", "LogSoftmax") and not readers:
        yield "torch.nn.CrossEntropyLoss takes the logits and has a softmax of its own; with two it learns slowly"
    elif mine.op.name == "permute" and mine.inputs == (INPUT,) and getattr(mine.op, "dims", ()) == _FIRST:
        yield f"it expects its input with the channels last, {_last(ours)}; torch has them first, with no permute"
    elif mine.op.name == "permute" and readers in (["Flatten"], ["reshape"]):
        yield "the head reads the same values in another order: the reference's weights do not fit it as they are"


def _last(ours: Network) -> str:
    """The input as the same image with its channels last."""
    batch, channels, *sides = ours.input_shape
    return shape_text((batch, *sides, channels))
