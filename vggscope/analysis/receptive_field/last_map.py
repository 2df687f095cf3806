"""The receptive field on the last feature map: what a unit sees where the head begins."""

from __future__ import annotations

from collections.abc import Collection
from math import prod

from vggscope.analysis.receptive_field.result import LayerField, layer_field
from vggscope.analysis.receptive_field.source import pixel_axes, spatial_input
from vggscope.analysis.receptive_field.view import NO_PIXELS, PixelView, UnknownView, views
from vggscope.graph import Network

NO_MAP = "no layer with weights has a map whose units see parts of the input"
"""Why a network has no last map."""


def last_map(network: Network, weighted: Collection[str]) -> LayerField | None:
    """The layer with the largest field on the last feature map; None if no layer of `weighted`, the names of layers
    with weights, has a map.

    The map is that of the last such layer that comes neither after a global pool nor among the FC layers. Its layers
    are those that follow on a map of the same size, such as the sum of a block: a shortcut sees less than the branch
    that it is added to.

    >>> from vggscope.sources.resolve import resolve
    >>> network = resolve("D")
    >>> last_map(network, [node.name for node in network.nodes if node.parameters]).label
    'conv5_3'
    """
    source = spatial_input(network)
    axes = pixel_axes(network, source)
    if not axes:
        return None
    fields, sides = views(network, of=source), tuple(network.shapes[source][axis] for axis in axes)
    layers = {node.name: layer_field(network, node, fields[node.name], sides) for node in network.nodes}
    mapped = _with_maps(network, fields, layers)
    ends = [name for name in layers if name in weighted and name in mapped and not layers[name].label.startswith("fc")]
    if not ends:
        return None
    units, found = _units(layers[ends[-1]]), {ends[-1]}
    for node in network.nodes:
        if node.name in mapped and found.intersection(node.inputs) and _units(layers[node.name]) == units:
            found.add(node.name)
    return max((layers[name] for name in layers if name in found), key=_rank)


def _with_maps(network: Network, fields: dict[str, PixelView | UnknownView], layers: dict[str, LayerField]) -> set[str]:
    """The layers whose units see parts of the input: not those after a global pool or a linear layer over a whole map,
    unless they are joined with a map again.
    """
    mapped = {name for name in network.input_names if fields[name] is not NO_PIXELS}
    for node in network.nodes:
        view = fields[node.name]
        if isinstance(view, PixelView) and all(side.axis is None for side in view.sides):
            continue
        read = [name for name in node.inputs if fields[name] is not NO_PIXELS]
        # A convolution of a small image may make a map of one unit, as a global pool does.
        pools = not node.op.is_convolution and any(name not in layers or _units(layers[name]) > 1 for name in read)
        if _units(layers[node.name]) > 1 or (mapped.issuperset(read) and not pools):
            mapped.add(node.name)
    return mapped


def _units(layer: LayerField) -> int:
    return prod(layer.map)


def _rank(layer: LayerField) -> tuple[bool, bool, int]:
    """The whole input first, then an unknown field, which may be larger than those that are known."""
    return layer.whole, layer.size is None, max(layer.size or (0,))
