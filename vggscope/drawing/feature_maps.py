"""What the style `volumes` draws: the feature maps of a network in groups, and the connections that skip some."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, takewhile

from vggscope.drawing.layer import Layer, LayerRow, input_shape, shape_range
from vggscope.drawing.look import Layers
from vggscope.drawing.stages import Stage, span
from vggscope.drawing.subject import Subject
from vggscope.errors import OptionError, option
from vggscope.record import record
from vggscope.units import sample_sides


@record
class FeatureMap:
    """A tensor. `sides` are channels, height and width; a signal and a sequence of tokens have a length in their place,
    a vector its units alone. `layers` compute it, none for an input. With `adds_input`, they add what they read to
    what they compute, as a residual block does.
    """

    key: str
    name: str
    kind: str
    sides: tuple[int, ...]
    shape: str
    layers: Layers = ()
    adds_input: bool = False

    @property
    def is_vector(self) -> bool:
        return len(self.sides) == 1

    @property
    def area(self) -> str:
        """Its height and width, or its length, as text."""
        return " × ".join(f"{side:,}" for side in self.sides[1:])


@record
class MapGroup:
    """The maps that a bracket holds together: those of a stage, or an input."""

    name: str
    maps: tuple[FeatureMap, ...]

    @property
    def members(self) -> str:
        """The names of its maps without the path that they share, and those that differ in a last number as one:
        `conv3_1–3, pool3`.
        """
        paths = [shown.name.split(".") for shown in self.maps]
        shared = sum(1 for _ in takewhile(lambda parts: len(set(parts)) == 1, zip(*(path[:-1] for path in paths))))
        # A number alone names nothing.
        shared -= any(path[shared][:1].isdigit() for path in paths) if shared else 0
        names = [".".join(path[shared:]) for path in paths]
        runs = groupby(names, key=lambda name: name.rstrip("0123456789"))
        return ", ".join(span(list(names)) for _, names in runs)

    @property
    def layers(self) -> Layers:
        return tuple(layer for shown in self.maps for layer in shown.layers)


def map_groups(subject: Subject) -> list[MapGroup]:
    """The inputs with a height and a width, and the stages, each with its maps.

    Raises OptionError for a map of more dimensions than a solid can show.
    """
    groups = [MapGroup(shown.name, (shown,)) for shown in _inputs(subject)]
    for stage in subject.stages:
        maps = tuple(_map(*step) for step in _steps(stage))
        groups += [MapGroup(stage.name, maps)] if maps else []
    return groups


def skips(subject: Subject, maps: Sequence[FeatureMap]) -> list[tuple[int, int]]:
    """The connections that skip maps, as pairs of their places: a layer reads an earlier map than the one before it, or
    a residual block adds what it reads.

    A layer without a map of its own is represented by the map before it.
    """
    owner = {shown.key: place for place, shown in enumerate(maps) if not shown.layers}
    own = {layer.node.name: place for place, shown in enumerate(maps) for layer in shown.layers}
    found = {(place - 1, place): None for place, shown in enumerate(maps) if shown.adds_input and place}
    before = 0
    for layer in subject.layers:
        place = own.get(layer.node.name, before)
        sources = [owner[name] for name in layer.node.inputs if name in owner]
        found.update({(source, place): None for source in sources if place - source > 1})
        owner[layer.node.name] = before = place
    return sorted(found)


def _inputs(subject: Subject) -> Iterator[FeatureMap]:
    samples = {tensor: sample_sides(tensor.shape, tensor.batch_axis) for tensor in subject.inputs}
    images = [tensor for tensor, sample in samples.items() if len(sample) >= 3]
    for tensor in images or subject.inputs[:1]:
        readers = [layer for layer in subject.layers if tensor.name in layer.node.inputs]
        sides = _sides(samples[tensor], tensor.label, readers)
        yield FeatureMap(tensor.name, tensor.label, "input", sides, input_shape(tensor))


def _map(name: str, kind: str, layers: Layers, last: Layer) -> FeatureMap:
    sides = _sides(last.sample, name, (last,))
    return FeatureMap(layers[0].node.name, name, kind, sides, last.output, layers, _adds_input(layers))


def _steps(stage: Stage) -> Iterator[tuple[str, str, Layers, Layer]]:
    """The steps that compute a new tensor, each with its name, kind, layers and the layer with its output. A
    step is a row with weights, a pool that changes the shape, or one of several modules.
    """
    for block in stage.blocks:
        if block.title:
            layers = block.instances[-1]
            times = f" ×{block.count}" if block.count > 1 else ""
            yield block.title + times, _largest(block.rows).layer.kind, layers, layers[-1]
            continue
        for row in block.rows:
            report, kind = row.layer.report, row.layer.kind
            if kind in ("conv", "fc") or (kind == "pool" and report.input_shape != report.output_shape):
                yield row.layer.name, kind, row.layers, row.layer


def _largest(rows: tuple[LayerRow, ...]) -> LayerRow:
    """The row with most parameters, which gives a module its colour."""
    return max(rows, key=lambda row: sum(layer.report.params or 0 for layer in row.layers))


def _adds_input(layers: Layers) -> bool:
    """Whether layers add a tensor from before them, as it is or projected, to what they compute of it."""
    own = {layer.node.name for layer in layers}
    entering = [name for layer in layers for name in layer.node.inputs if name not in own]
    sums = [layer for layer in layers if layer.node.op.broadcasts and layer.node.op.gradient == "same"]
    return any(len(layer.node.inputs) > 1 for layer in sums) and len(entering) > len(set(entering))


def _sides(sample: tuple[int, ...], name: str, layers: Sequence[Layer]) -> tuple[int, ...]:
    """The sides of a FeatureMap from those of a sample.

    `layers` compute the tensor or read it: the channels of a signal come first, those of tokens last.
    """
    if len(sample) == 3:
        return sample
    if len(sample) == 2:
        is_signal = any(layer.kind in ("conv", "pool") for layer in layers)
        return sample if is_signal else (sample[1], sample[0])
    if len(sample) < 2:
        return (*sample, 1)[:1]
    text = shape_range([sample])
    remedy = f"{option('style', 'blocks')} or {option('style', 'layers')} can"
    raise OptionError(f"style volumes cannot show {name}: {text}", remedy)
