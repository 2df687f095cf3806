"""Receptive fields: which input pixels a unit depends on.

Size, stride and padding as in Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks"
(Distill 2019): unit i of an axis covers the input pixels [-padding + i*stride, -padding + i*stride + size - 1].
`extent` has that rule for one axis, `view` follows it through a graph, `region` follows one unit back.
"""

from __future__ import annotations

from vggscope.analysis.receptive_field.ranges import rule
from vggscope.analysis.receptive_field.view import UnknownView, View, views
from vggscope.graph import Network
from vggscope.record import record


@record
class ReceptiveField:
    """Pixels, each for (height, width)."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


def receptive_fields(network: Network) -> dict[str, ReceptiveField | None]:
    """Each node's field, by name; None where the units do not see alike, or no rule tells what they see."""
    found = views(network)
    return {node.name: field_of(found[node.name]) for node in network.nodes}


def field_of(view: View | UnknownView) -> ReceptiveField | None:
    """The field that all units share."""
    if isinstance(view, UnknownView) or not view.sides:
        return None
    even = [found for side in view.sides if (found := rule(side.extent)) is not None]
    if len(even) < len(view.sides):
        return None
    return ReceptiveField(
        tuple(side.size for side in even), tuple(side.stride for side in even), tuple(side.padding for side in even)
    )
