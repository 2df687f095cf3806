"""What each node sees of the image, from the input on: one pass over the graph.

Height and width are followed apart. Each lies along one axis of a node's tensor until that axis is read whole, by a
Linear or a global pool; from there on the tensor as a whole sees that much of it.
"""

from __future__ import annotations

from dataclasses import replace

from vggscope.analysis.receptive_field.ranges import (
    Extent,
    Irregular,
    Regular,
    centred_alike,
    everywhere,
    read,
    rule,
    union,
    whole,
)
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.axis_maps import SAME, AxisMaps
from vggscope.ops.base import Shape
from vggscope.record import record


@record
class Side:
    """One of the image's axes as a node has it: the tensor's axis that goes along it (None: gone), and what its units
    see.
    """

    axis: int | None
    extent: Extent


@record
class View:
    """What a node sees, for height and width. `aligned` is false where the node puts windows together that are centred
    on different pixels.
    """

    sides: tuple[Side, ...]
    aligned: bool = True


@record
class UnknownView:
    """No rule gives what a node sees; `why` names the layer where that begins."""

    why: str


BLIND = View(())
"""What a node sees that the input does not reach."""


def views(network: Network, exact: bool = False) -> dict[str, View | UnknownView]:
    """What each node sees, by name, the input among them.

    The rule lets padding see what lies beyond the border. With `exact` each unit has the pixels that it depends on in
    truth, and no more: padding sees nothing, nor does anybody see rows that the last window leaves out.

    Raises ShapeError where a layer does not fit.
    """
    shape = network.input_shape
    pixels = tuple(Side(axis, _pixels(shape[axis], exact)) for axis in range(2, len(shape)))
    found: dict[str, View | UnknownView] = {INPUT: View(pixels) if pixels else UnknownView("the input is no image")}
    for node in network.nodes:
        found[node.name] = _view(network, node, [found[name] for name in node.inputs])
    return found


def _pixels(size: int, exact: bool) -> Extent:
    return Irregular(tuple((pixel, pixel) for pixel in range(size))) if exact else Regular(size, 1, 1, 0)


def _view(network: Network, node: Node, before: list[View | UnknownView]) -> View | UnknownView:
    untold = next((view for view in before if isinstance(view, UnknownView)), None)
    if untold is not None:
        return untold
    output = network.output_shape(node)
    reads = node.op.reads(network.input_shapes(node), output)
    if reads is None:
        return UnknownView(f"no rule tells what {node.op.name} at {node.title} reads")
    seen = [(view, read) for view, read in zip(before, reads) if isinstance(view, View) and view is not BLIND]
    if not seen:
        return BLIND
    if len(seen) == 1 and _changes_nothing(*seen[0]):
        view = seen[0][0]
        return view if view.aligned else replace(view, aligned=True)
    return _merged(node, output, seen)


def _changes_nothing(view: View, reads: AxisMaps) -> bool:
    return all(side.axis is None or reads.get(side.axis) == (side.axis, SAME) for side in view.sides)


def _merged(node: Node, output: Shape, inputs: list[tuple[View, AxisMaps]]) -> View | UnknownView:
    """What a node sees through each of its inputs, put together."""
    sides = []
    aligned = True
    for image_axis in range(len(inputs[0][0].sides)):
        parts = [_through(view.sides[image_axis], reads, output) for view, reads in inputs]
        known = [part for part in parts if part is not None]
        if len(known) < len(parts):
            return UnknownView(f"{node.title} cuts an axis that goes along the image into several")
        if len({part.axis for part in known if part.axis is not None}) > 1:
            return UnknownView(f"{node.title} lays the image's pixels out along several axes")
        side, alike = _joined(known)
        sides.append(side)
        aligned &= alike
    return View(tuple(sides), aligned)


def _through(side: Side, reads: AxisMaps, output: Shape) -> Side | None:
    """The side as an op has it that reads it so; None where that cannot be told."""
    if side.axis is None:
        return side
    if side.axis not in reads:
        return Side(None, whole(side.extent))
    along = reads[side.axis]
    if along is None:
        return None
    axis, reading = along
    return Side(axis, read(side.extent, reading, 1 if axis is None else output[axis]))


def _joined(sides: list[Side]) -> tuple[Side, bool]:
    """The union, and whether all are centred alike. What has lost its axis is seen by every unit along it."""
    if len(sides) == 1:
        return sides[0], True
    axis = next((side.axis for side in sides if side.axis is not None), None)
    if axis is None:
        return Side(None, union([side.extent for side in sides])), True
    apart = [side.extent for side in sides if side.axis is not None]
    units = apart[0].units
    common = [everywhere(side.extent, units) for side in sides if side.axis is None]
    return Side(axis, union([*apart, *common])), centred_alike(apart)


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
