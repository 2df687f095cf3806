"""autograd: of the layers that are modules, how many have units that depend on the very pixels that we say.

Measured are a map's corners, its middle and a unit aside.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vggscope.analysis.receptive_field.ranges import Flattened
from vggscope.analysis.receptive_field.view import UnknownView, View, views
from vggscope.cross_checks.gradients import Pixels, Place, measure
from vggscope.cross_checks.reference_tool import FIELDS, NotApplicable, ReferenceTool, ReportedFigure
from vggscope.graph import Network, Node

if TYPE_CHECKING:
    from torch import nn

MOST_LAYERS = 64
"""How many layers are measured, at most: each takes a backward pass."""

Views = Mapping[str, View | UnknownView]


def measured_layers(network: Network) -> tuple[str, ...]:
    """The layers that are measured: modules whose field the rule gives; of many, those that see otherwise than what
    they read, spread over the depth.
    """
    seen = views(network)
    known = [node for node in network.nodes if node.module is not None and _has_units(seen[node.name])]
    if len(known) > MOST_LAYERS:
        known = [node for node in known if seen[node.name] not in [seen[name] for name in node.inputs]]
    if len(known) > MOST_LAYERS:
        known = [known[(i + 1) * len(known) // MOST_LAYERS - 1] for i in range(MOST_LAYERS)]
    return tuple(node.name for node in known)


def _has_units(view: View | UnknownView) -> bool:
    """Whether units can be told from one another: those of a flattened map are its pixels and its channels in one."""
    return isinstance(view, View) and bool(view.sides) and not any(isinstance(s.extent, Flattened) for s in view.sides)


def units(view: View) -> tuple[Place, ...]:
    """The places of a layer's output that are measured."""
    sides = [(side.axis, side.extent.units) for side in view.sides if side.axis is not None]
    if len({axis for axis, _ in sides}) < len(sides):
        sides = sides[:1]  # a row of tokens goes along both sides
    ways = (lambda n: 0, lambda n: n - 1, lambda n: n // 2, lambda n: n // 3)
    return tuple(dict.fromkeys(tuple((axis, way(count)) for axis, count in sides) for way in ways))


def _fields(network: Network, module: nn.Module) -> ReportedFigure:
    layers = measured_layers(network)
    if not layers:
        raise NotApplicable("no rule gives a receptive field here")
    wrong = differences(network, module, layers)
    return ReportedFigure(len(layers) - len(wrong), detail="; ".join(wrong[:3]))


def differences(network: Network, module: nn.Module, layers: tuple[str, ...]) -> list[str]:
    """For each of these layers that depends on other pixels than we say, the first such unit, in words."""
    seen, exact = views(network), views(network, exact=True)
    places = {name: units(_view(exact, name)) for name in layers}
    found = measure(module, network.input_shape, places)
    nodes = {node.name: node for node in network.nodes}
    texts = (
        _difference(nodes[name], network.input_shape[2:], _view(seen, name), _view(exact, name), found.get(name, {}))
        for name in layers
    )
    return [text for text in texts if text]


def _view(views: Views, name: str) -> View:
    view = views[name]
    assert isinstance(view, View)
    return view


def _difference(
    node: Node, sides: tuple[int, ...], seen: View, exact: View, measured: Mapping[Place, Pixels | None]
) -> str:
    """The first unit that was measured otherwise than we say. Where the rule's region lies on the image, that is what
    has to be measured; at the border it is what is read in truth.
    """
    for place in units(exact):
        rule = _pixels(seen, place)
        within = rule is not None and all(first >= 0 and last < side for (first, last), side in zip(rule, sides))
        ours = rule if within else _pixels(exact, place)
        if place not in measured:
            return f"{node.title} was not called"
        if measured[place] != ours:
            unit = ",".join(str(position) for _, position in place)
            return f"{node.title}, unit {unit}, depends on {_text(measured[place])}, by the rule on {_text(ours)}"
    return ""


def _pixels(view: View, place: Place) -> Pixels | None:
    """What the rule gives for a unit."""
    positions = dict(place)
    spans = [side.extent.span(0 if side.axis is None else positions[side.axis]) for side in view.sides]
    known = tuple(span for span in spans if span is not None)
    return known if len(known) == len(spans) else None


def _text(pixels: Pixels | None) -> str:
    """Rows, then columns."""
    return " x ".join(f"{first} to {last}" for first, last in pixels) if pixels else "nothing"


REFERENCE_TOOL = ReferenceTool(name="autograd", title="autograd", ask={FIELDS: _fields}, package="torch")
