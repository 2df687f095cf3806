"""Receptive fields: which input pixels a unit depends on.

Size, stride and padding as in Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks"
(Distill 2019): unit i of an axis covers the input pixels [-padding + i*stride, -padding + i*stride + size - 1].
"""

from __future__ import annotations

from dataclasses import dataclass

from vggscope.graph import INPUT, Network, Node
from vggscope.ops.base import Window
from vggscope.ops.pooling import AdaptiveAvgPool2d


@dataclass(frozen=True)
class ReceptiveField:
    """Pixels, each for (height, width)."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


@dataclass(frozen=True)
class _Map:
    """A field with the sides of the map that its units form: a flattened map still has them."""

    field: ReceptiveField
    sides: tuple[int, ...]


def receptive_fields(network: Network) -> dict[str, ReceptiveField | None]:
    """Each node's field, by name; None where the rule cannot tell."""
    sides = network.input_shape[2:]
    pixel = ReceptiveField((1,) * len(sides), (1,) * len(sides), (0,) * len(sides))
    maps: dict[str, _Map | None] = {INPUT: _Map(pixel, sides)}
    for node in network.nodes:
        maps[node.name] = _next(network, node, maps[node.inputs[0]]) if len(node.inputs) == 1 else None
    return {node.name: found.field if (found := maps[node.name]) else None for node in network.nodes}


def _next(network: Network, node: Node, before: _Map | None) -> _Map | None:
    if before is None:
        return None
    shape = network.output_shape(node)
    if node.op.name == "Linear":
        # One unit over the whole map, as a convolution whose kernel covers it.
        whole = Window(before.sides, (1,) * len(before.sides), (0,) * len(before.sides), (1,) * len(before.sides))
        return _Map(through(before.field, whole), (1,) * len(before.sides))
    if isinstance(node.op, AdaptiveAvgPool2d) and not node.op.is_regular(before.sides):
        return None
    window = node.op.window(before.sides)
    if window is None:
        return before
    return _Map(through(before.field, window), shape[2:])


def through(field: ReceptiveField, window: Window) -> ReceptiveField:
    """The field of a layer with this window over a layer with this field (Araujo et al. 2019, equations 2 to 4)."""
    return ReceptiveField(
        size=tuple(r + (span - 1) * j for r, j, span in zip(field.size, field.stride, window.span)),
        stride=tuple(j * s for j, s in zip(field.stride, window.stride)),
        padding=tuple(p + j * q for p, j, q in zip(field.padding, field.stride, window.padding)),
    )
