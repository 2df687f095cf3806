"""What `rf` shows: the receptive field of every layer, and single units' regions on the image."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import field, replace
from math import prod

from vggscope.analysis.receptive_field.ranges import Extent, Flattened, Span, spans
from vggscope.analysis.receptive_field.stacks import stack_note
from vggscope.analysis.receptive_field.view import ReceptiveField, UnknownView, View, field_of, views
from vggscope.errors import OptionError, printable
from vggscope.graph import Network, Node
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.result import Result
from vggscope.units import kernel_text


@record
class LayerField:
    """One layer's field, each figure for (height, width): unit i covers the pixels [-padding + i*stride, -padding +
    i*stride + size - 1].

    `map` is how many units there are along each side. Where the units do not see alike, `size` is the largest of them
    and `stride` and `padding` are None; where no rule tells, `size` is None too, and `note` says why. `aligned` is
    false where branches meet whose windows are centred on different pixels; `size` is then that of their union.
    """

    name: str
    label: str
    op: str
    size: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | None
    map: tuple[int, ...]
    aligned: bool
    note: str | None

    @property
    def title(self) -> str:
        """The layer as the literature calls it, or else by its path."""
        return self.label or self.name


@record
class Box:
    """Pixels from `first` to `last`, both included, each (row, column)."""

    first: tuple[int, ...]
    last: tuple[int, ...]

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width."""
        return tuple(last - first + 1 for first, last in zip(self.first, self.last))

    @property
    def pixels(self) -> int:
        """How many it holds."""
        return prod(self.size)

    def clipped(self, sides: tuple[int, ...]) -> Box | None:
        """The part that lies on an image of these sides; None where that is nothing."""
        first = tuple(max(row, 0) for row in self.first)
        last = tuple(min(row, side - 1) for row, side in zip(self.last, sides))
        return None if any(begin > end for begin, end in zip(first, last)) else Box(first, last)


@record
class UnitField:
    """What one unit sees. `box` is the rule's, which goes on beyond the image's border; `clipped` its part on the
    image, None where that is nothing; `padding_pixels` of its `pixels` are padding. `reads` is what the unit depends on
    in truth: less than `clipped` where a window lies in a map's padding, or rows behind the last window are left out.
    """

    name: str
    label: str
    unit: tuple[int, ...]
    map: tuple[int, ...]
    box: Box
    clipped: Box | None
    reads: Box | None
    pixels: int
    padding_pixels: int

    @property
    def title(self) -> str:
        """The layer as the literature calls it, or else by its path."""
        return self.label or self.name


@record
class EnergyBox:
    """The smallest box about a unit's middle that holds at least `percent` of the energy; it holds `share` of it."""

    percent: int
    box: Box
    share: float


@record
class EffectiveField:
    """How the energy of a unit's gradients lies in its field (Luo et al. 2016): the squares of the derivatives of all
    its channels, added up over the image's channels, the mean over `samples` images of noise drawn with `seed`.
    """

    name: str
    label: str
    unit: tuple[int, ...]
    box: Box
    samples: int
    seed: int
    boxes: tuple[EnergyBox, ...]

    @property
    def title(self) -> str:
        """The layer as the literature calls it, or else by its path."""
        return self.label or self.name


@record
class ReceptiveFields(Result):
    """The receptive fields of a network's layers, those of the units that were asked for, and one unit's effective
    field where it was measured. `heat` is each pixel's share of the energy then, row by row: a picture shows it, JSON
    leaves it out. `failure` is the network's: where it breaks off, as the notes tell too.
    """

    schema: str
    model: str
    input_shape: Shape
    layers: tuple[LayerField, ...]
    units: tuple[UnitField, ...]
    notes: tuple[str, ...]
    effective: EffectiveField | None = None
    heat: tuple[tuple[float, ...], ...] | None = field(default=None, metadata={"json": False})
    failure: str | None = field(default=None, metadata={"json": False})


def describe(network: Network, at: Sequence[str] = (), unit: tuple[int, ...] | None = None) -> ReceptiveFields:
    """The fields of all layers; of each layer `at`, by path or label, the region of one unit, the middle one if none is
    named.

    Raises OptionError for a layer that is not there, with the nearest names, for a unit outside its map, and for a
    layer whose field no rule gives.
    """
    found, exact = views(network), views(network, exact=True) if at else {}
    layers = tuple(_layer(network, node, found[node.name]) for node in network.nodes)
    by_name = {layer.name: layer for layer in layers}
    nodes = [layer_named(network, word) for word in at]
    units = tuple(_unit(network, by_name[node.name], found[node.name], exact[node.name], unit) for node in nodes)
    notes = (*filter(None, [stack_note(network)]), *network.broken_off())
    fields = ReceptiveFields("vggscope/rf@1", network.name, network.input_shape, layers, units, notes)
    return replace(fields, failure=network.failure)


def layer_named(network: Network, word: str) -> Node:
    """The layer of this label (`conv5_3`) or path (`features.28`). Raises OptionError with the nearest names."""
    for node in network.nodes:
        if word in (node.label, node.name):
            return node
    names = [*(node.label for node in network.nodes if node.label), *(node.name for node in network.nodes)]
    near = difflib.get_close_matches(word, names, n=3, cutoff=0.4)
    remedy = f"near it: {', '.join(near)}" if near else f"its layers are {', '.join(names[:3])} and so on"
    raise OptionError(f"{network.name} has no layer {printable(word)!r}", remedy)


def _layer(network: Network, node: Node, view: View | UnknownView) -> LayerField:
    rule = field_of(view)
    size, note = (rule.size, _said(network, rule, view)) if rule else _largest(view)
    return LayerField(
        name=node.name,
        label=node.label,
        op=node.op.name,
        size=size,
        stride=rule.stride if rule else None,
        padding=rule.padding if rule else None,
        map=_map(view, network.output_shape(node)),
        aligned=isinstance(view, UnknownView) or view.aligned,
        note=note,
    )


def _map(view: View | UnknownView, output: Shape) -> tuple[int, ...]:
    """How many units there are along each side; one number where a row of tokens goes along both."""
    if isinstance(view, UnknownView):
        return output[2:]
    units = tuple(_base(side.extent).units for side in view.sides)
    return units[:1] if _is_row(view) else units


def _is_row(view: View) -> bool:
    """Whether the map's pixels lie in one row, with others among them: what attention reads."""
    axes = {side.axis for side in view.sides}
    return (
        len(axes) < len(view.sides)
        and None not in axes
        and not any(isinstance(s.extent, Flattened) for s in view.sides)
    )


def _base(extent: Extent) -> Extent:
    return extent.base if isinstance(extent, Flattened) else extent


def _said(network: Network, field: ReceptiveField, view: View | UnknownView) -> str | None:
    """What the numbers of a field do not say."""
    if isinstance(view, View) and not view.aligned:
        return "branches meet whose windows are not centred alike"
    reach = zip(field.size, field.padding, network.input_shape[2:])
    if set(field.stride) == {0} and all(padding >= 0 and size - padding >= side for size, padding, side in reach):
        return "whole image"
    return None


def _largest(view: View | UnknownView) -> tuple[tuple[int, ...] | None, str]:
    """The largest field on each side where the units differ, and what there is to say of it."""
    if isinstance(view, UnknownView):
        return None, view.why
    lengths = [[last - first + 1 for first, last in _known(_base(side.extent))] for side in view.sides]
    if not lengths or not all(lengths):
        return None, "it does not depend on the input"
    return tuple(map(max, lengths)), f"regions of {' x '.join(map(_range, lengths))} pixels, not at equal steps"


def _range(lengths: list[int]) -> str:
    least, most = min(lengths), max(lengths)
    return f"{least}" if least == most else f"{least} to {most}"


def _known(extent: Extent) -> list[Span]:
    return [span for span in spans(extent) if span is not None]


def _unit(
    network: Network,
    layer: LayerField,
    view: View | UnknownView,
    exact: View | UnknownView,
    unit: tuple[int, ...] | None,
) -> UnitField:
    if isinstance(view, UnknownView) or isinstance(exact, UnknownView) or not view.sides:
        raise OptionError(f"{layer.title} has no receptive field: {layer.note}", "name a layer before it")
    chosen = _checked(layer, tuple(side // 2 for side in layer.map) if unit is None else unit)
    box, reads = _box(view, chosen), _box(exact, chosen)
    if box is None:
        raise OptionError(f"unit {_pair(chosen)} of {layer.title} sees nothing of the image", "name another unit")
    clipped = box.clipped(network.input_shape[2:])
    return UnitField(
        name=layer.name,
        label=layer.label,
        unit=chosen,
        map=layer.map,
        box=box,
        clipped=clipped,
        reads=reads,
        pixels=box.pixels,
        padding_pixels=box.pixels - (clipped.pixels if clipped else 0),
    )


def _box(view: View, unit: tuple[int, ...]) -> Box | None:
    """What a unit covers; a side that is gone has one unit, and in a row of tokens one number tells all sides."""
    places = unit * len(view.sides) if len(unit) < len(view.sides) else unit
    found = [_base(side.extent).span(place if side.axis is not None else 0) for place, side in zip(places, view.sides)]
    known = [span for span in found if span is not None]
    return Box(*zip(*known)) if len(known) == len(found) else None


def _checked(layer: LayerField, unit: tuple[int, ...]) -> tuple[int, ...]:
    sides = layer.map
    if len(unit) != len(sides):
        raise OptionError(
            f"unit {_pair(unit)} is none of a map of {kernel_text(sides)}", "write row,column: --unit 6,6"
        )
    if not all(0 <= place < side for place, side in zip(unit, sides)):
        last = _pair(tuple(side - 1 for side in sides))
        raise OptionError(
            f"{layer.title} has no unit {_pair(unit)}: its map is {kernel_text(sides)}",
            f"units go from {_pair((0,) * len(sides))} to {last}",
        )
    return unit


def _pair(unit: tuple[int, ...]) -> str:
    return ",".join(map(str, unit))
