"""What somebody who wrote a layer that the reference has not should know of it, where its figures say nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vggscope.diffing.ignore import last_weights
from vggscope.diffing.locate import LayerPair
from vggscope.graph import INPUT, Network, Node
from vggscope.units import shape_text

_FIRST = (0, 3, 1, 2)
"""From channels last, as Keras and image files have them, to channels first."""

_BEND = {"ReLU", "LeakyReLU", "ELU", "GELU", "SiLU", "Sigmoid", "Tanh"}
_PASSED = {"Dropout", "BatchNorm2d", "Flatten", "reshape"}
"""What may stand between two layers with weights, and both are one linear map at evaluation still."""


def advice(ours: Network, reference: Network, edits: tuple[LayerPair, ...]) -> tuple[str, ...]:
    """What there is to say of one difference, each thing once; of what goes with a layer, nothing."""
    mine, other = classes = last_weights(ours, reference)
    if mine and other and classes in edits and _width(mine) != _width(other):
        return ("where it is for other classes on purpose: --ignore classes",)
    first = edits[0][1] if edits and all(mine is None for mine, _ in edits) else None
    said = (*(_without(reference, first) if first else ()), *(line for edit in edits for line in _of(ours, *edit)))
    return tuple(dict.fromkeys(said))


def _width(node: Node) -> int:
    return node.op.parameters()["weight"][0]


def _of(ours: Network, mine: Node | None, other: Node | None) -> Iterator[str]:
    if mine is None:
        return
    if other is None:
        yield from _on(ours, mine)
    elif getattr(other.op, "bias", False) and not getattr(mine.op, "bias", True):
        readers = [ours.by_name[name].op.name for name in ours.consumers[mine.name]]
        if readers == ["BatchNorm2d"]:
            yield "the batch norm behind it takes the bias out again and adds its own: nothing is lost without"


def _on(ours: Network, mine: Node) -> Iterator[str]:
    readers = [ours.by_name[name].op.name for name in ours.consumers[mine.name]]
    if mine.op.name == "Softmax" and not readers:
        yield "torch.nn.CrossEntropyLoss takes the logits and has a softmax of its own; with two it learns slowly"
    elif mine.op.name == "permute" and mine.inputs == (INPUT,) and getattr(mine.op, "dims", ()) == _FIRST:
        yield f"it expects its input with the channels last, {_last(ours)}; torch has them first, with no permute"
    elif mine.op.name == "permute" and readers in (["Flatten"], ["reshape"]):
        yield "the head reads the same values in another order: the reference's weights do not fit it as they are"


def _without(reference: Network, other: Node) -> Iterator[str]:
    if other.op.name not in _BEND:
        return
    before = _weights(reference, other, lambda node: node.inputs)
    behind = _weights(reference, other, lambda node: reference.consumers[node.name])
    if before and behind:
        yield f"without it {before} and {behind} together are one linear layer: two can do no more than one"


def _weights(network: Network, node: Node, step: Callable[[Node], tuple[str, ...]]) -> str | None:
    """The next layer with weights in a direction, if nothing but what is linear stands before it."""
    names = step(node)
    while len(names) == 1 and names[0] != INPUT:
        node = network.by_name[names[0]]
        if node.op.name in ("Conv2d", "Linear"):
            return node.label or node.name
        if node.op.name not in _PASSED:
            return None
        names = step(node)
    return None


def _last(ours: Network) -> str:
    """The input as the same image with its channels last."""
    batch, channels, *sides = ours.input_shape
    return shape_text((batch, *sides, channels))
