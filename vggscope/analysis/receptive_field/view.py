"""The pixels that the units of each node depend on, in one pass over the graph from one input.

The sides of that input (the length of a signal; height and width of an image; time, height and width of a video) are
followed separately. Each is one axis of a node's tensor until a Linear or a global pool reads that axis as a whole.
From there on, every unit of the tensor covers the same pixels on that side.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from vggscope.analysis.receptive_field.extents import (
    Extent,
    Flattened,
    Irregular,
    regular,
    rule,
    same_centres,
    sizes,
    union,
)
from vggscope.analysis.receptive_field.side import Side, through, united
from vggscope.analysis.receptive_field.source import pixel_axes, spatial_input
from vggscope.graph import Network, Node
from vggscope.ops.axis_maps import SAME, AxisMaps
from vggscope.ops.base import Shape
from vggscope.record import record


@record
class ReceptiveField:
    """The field that all units of a layer share, in pixels for each side of the input: (height, width) of an image."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]


@record
class PixelView:
    """The pixels that a node's units cover, for each side of the input.

    `aligned` is false if the node joins branches whose windows are centred on different pixels.
    """

    sides: tuple[Side, ...]
    aligned: bool = True


@record
class UnknownView:
    """No rule gives the pixels of a node's units; `why` names the first such layer.

    `size` is the largest number of pixels of a unit along each side, if that is known.
    """

    why: str
    size: tuple[int, ...] | None = None


NO_PIXELS = PixelView(())
"""The view of a node that the input does not reach."""


def receptive_fields(network: Network) -> dict[str, ReceptiveField | None]:
    """The receptive field of each node by name; None if its units have different fields, or no rule gives them.

    The field lies in the first input with spatial axes that the node depends on.
    """
    fields: dict[str, ReceptiveField | None] = {}
    for given in network.inputs:
        if len(fields) < len(network.nodes) and pixel_axes(network, given.name):
            known = views(network, of=given.name)
            reached = [node.name for node in network.nodes if known[node.name] is not NO_PIXELS]
            fields = {**dict(zip(reached, _fields(known[name] for name in reached))), **fields}
    return {node.name: fields.get(node.name) for node in network.nodes}


def _fields(views: Iterable[PixelView | UnknownView]) -> Iterator[ReceptiveField | None]:
    """The field of each view. A layer that moves no pixels has the view, and the field, of the layer before it."""
    previous, field = None, None
    for view in views:
        if view is not previous:
            previous, field = view, field_of(view)
        yield field


def field_of(view: PixelView | UnknownView) -> ReceptiveField | None:
    """The field that all units share, if they do."""
    if isinstance(view, UnknownView) or not view.sides:
        return None
    rules = [ruled for side in view.sides if (ruled := rule(side.extent)) is not None]
    if len(rules) < len(view.sides):
        return None
    size, stride, padding = zip(*((ruled.size, ruled.stride, ruled.padding) for ruled in rules))
    return ReceptiveField(size, stride, padding)


def views(
    network: Network, exact: bool = False, of: str | None = None, only: Collection[str] = ()
) -> dict[str, PixelView | UnknownView]:
    """The view of each node by name, and of the inputs: which pixels of one input each node covers.

    By the rule, a window covers padding as if the image went on. With `exact`, a unit covers only the pixels that its
    value depends on: none in padding, and none in rows after the last window.

    `of` names that input; left out, it is the first with spatial axes. With `only`, the result has these nodes and
    those before them. Raises ShapeError for a layer that does not fit its input.
    """
    source = of or spatial_input(network)
    known: dict[str, PixelView | UnknownView] = dict.fromkeys(network.input_names, NO_PIXELS)
    shape = network.shapes[source]
    pixels = tuple(Side(axis, _pixels(shape[axis], exact)) for axis in pixel_axes(network, source))
    known[source] = PixelView(pixels) if pixels else UnknownView("the input has no spatial axes")
    needed = _needed(network, only) if only else network.by_name
    for node in network.nodes:
        if node.name in needed:
            known[node.name] = _view(network, node, [known[name] for name in node.inputs])
    return {name: _on_single_axes(view) for name, view in known.items()}


def _on_single_axes(view: PixelView | UnknownView) -> PixelView | UnknownView:
    """The view, or why its units have no position along each side."""
    if isinstance(view, UnknownView):
        return view
    for side in view.sides:
        if side.digits or side.also:
            break
    else:
        return view
    if any(side.also for side in view.sides):
        return UnknownView("each unit depends on two positions, as a product of queries and keys does")
    largest = [most for side in view.sides if (most := sizes(side.extent)) is not None]
    size = tuple(most for _, most in largest) if len(largest) == len(view.sides) else None
    return UnknownView("a side of the input lies along several axes", size)


def _needed(network: Network, names: Collection[str]) -> set[str]:
    """The nodes with these names and those that they depend on."""
    needed = set(names)
    for node in reversed(network.nodes):
        if node.name in needed:
            needed.update(node.inputs)
    return needed


def unit_positions(view: PixelView | UnknownView, unit: tuple[int, ...]) -> dict[int, int] | None:
    """The positions of a unit along the axes of its tensor; None if an axis mixes pixels with channels.

    `unit` has a position for each side of the map, or one if the sides are one axis of tokens.
    """
    if isinstance(view, UnknownView) or mixes_channels(view):
        return None
    positions: dict[int, int] = {}
    for side, position in zip(view.sides, unit * len(view.sides) if len(unit) < len(view.sides) else unit):
        if side.axis is not None and isinstance(side.extent, Flattened):
            positions[side.axis] = positions.get(side.axis, 0) + position * side.extent.axis.inner
        elif side.axis is not None:
            positions[side.axis] = position
    return positions


def mixes_channels(view: PixelView) -> bool:
    """Whether the pixels of a side were flattened into one axis with channels, and not with other sides alone."""
    lengths: dict[int, int] = {}
    pixels: dict[int, int] = {}
    for side in view.sides:
        if side.axis is not None and isinstance(side.extent, Flattened):
            lengths[side.axis] = side.extent.units
            pixels[side.axis] = pixels.get(side.axis, 1) * side.extent.axis.size
    return lengths != pixels


def _pixels(size: int, exact: bool) -> Extent:
    return Irregular(tuple((pixel, pixel) for pixel in range(size))) if exact else regular(size, 1, 1, 0)


def _view(network: Network, node: Node, inputs: list[PixelView | UnknownView]) -> PixelView | UnknownView:
    unknown = next((view for view in inputs if isinstance(view, UnknownView)), None)
    if unknown is not None:
        return unknown
    if all(view is NO_PIXELS for view in inputs):
        return NO_PIXELS
    output = network.output_shape(node)
    axis_maps = node.op.reads(network.input_shapes(node), output)
    if axis_maps is None:
        return UnknownView(f"no rule tells what {node.op.name} at {node.title} reads")
    branches = [
        (view, reads) for view, reads in zip(inputs, axis_maps) if isinstance(view, PixelView) and view is not NO_PIXELS
    ]
    if not branches:
        return NO_PIXELS
    if len(branches) == 1 and _is_pointwise(*branches[0], output):
        view = branches[0][0]
        return view if view.aligned else replace(view, aligned=True)
    return _joined(node, output, branches)


def _is_pointwise(view: PixelView, reads: AxisMaps, output: Shape) -> bool:
    """Whether each side keeps its axis and all its units: the first piece of an axis begins where that does."""
    for side in view.sides:
        axis = side.axis
        if side.digits or side.also:
            return False
        if axis is not None and (reads.get(axis) != (axis, SAME) or side.extent.units != output[axis]):
            return False
    return True


def _joined(node: Node, output: Shape, branches: list[tuple[PixelView, AxisMaps]]) -> PixelView | UnknownView:
    """The union of the views through each of a node's inputs."""
    sides: list[Side] = []
    aligned = True
    known: dict[tuple[int, ...], tuple[Extent, bool]] = {}  # equal sides of an image have the same extents
    for number in range(len(branches[0][0].sides)):
        parts: list[Side] = []
        for view, reads in branches:
            side = view.sides[number]
            if _is_kept(side, reads, output):
                parts.append(side)
                continue
            read = through(side, reads, output)
            if read is None:
                return UnknownView(f"{node.title} cuts an axis that goes along the image into several")
            parts += read
        axis, extents = parts[0].axis, [part.extent for part in parts]
        key = tuple(map(id, extents))
        if axis is None or any(part.axis != axis or part.digits or part.also for part in parts):
            sides.append(united(parts))
            aligned &= same_centres([part.extent for part in parts if part.axis is not None])
            continue
        if key not in known:
            known[key] = union(extents), same_centres(extents)
        sides.append(Side(axis, known[key][0]))
        aligned &= known[key][1]
    return PixelView(tuple(sides), aligned)


def _is_kept(side: Side, reads: AxisMaps, output: Shape) -> bool:
    """Whether a side on one axis keeps that axis and all its units in an op's output."""
    axis = side.axis
    if axis is None or side.digits or side.also:
        return False
    along = reads.get(axis)
    return along is not None and along[0] == axis and along[1] is SAME and side.extent.units == output[axis]
