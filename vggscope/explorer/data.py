"""The results of a network as the page's script reads them: raw numbers, with layers by their place in the network."""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from vggscope.analysis.memory.allocation_log import KINDS, Moment
from vggscope.analysis.memory.settings import OPTIMIZER_STEP, SIMULATED_AS, WEIGHTS_AS, step_memory
from vggscope.analysis.memory.step_config import MODES
from vggscope.analysis.receptive_field.extents import Extent, Flattened, Regular, spans
from vggscope.analysis.receptive_field.result import LayerField, describe
from vggscope.analysis.receptive_field.view import PixelView, UnknownView, views
from vggscope.analysis.summary import LayerSummary, Summary, summarize
from vggscope.drawing.layer import Layer
from vggscope.drawing.subject import Subject
from vggscope.errors import visible
from vggscope.execution.activations import METHOD, Activations, ChannelActivation, LayerActivations
from vggscope.execution.channel_sheets import (
    ChannelSheet,
    ImageChannels,
    ImageKernels,
    LayerKernels,
    WeightHistogram,
)
from vggscope.graph import Network, Node
from vggscope.plain_data import plain_value
from vggscope.units import sample_sides

MOST_SPANS = 20_000
"""The most irregular units whose spans a page holds. A layer beyond that shows its numbers without a box."""

EVENTS = ("start", "forward", "loss", "recompute", "backward", OPTIMIZER_STEP)
"""The events of a moment of a step."""

DIGITS = 5
"""Significant digits of activations."""


def facts(network: Network) -> dict[str, Any]:
    """Return the layers, the totals and the warnings, for a batch of one in the network's own dtype. A layer's `key` is
    its name in the page's address, None where that is its path.
    """
    summary = summarize(network)
    stages = {layer.node.name: stage.name for stage in Subject(network).stages for layer in stage.layers}
    places = {node.name: place for place, node in enumerate(network.nodes)}
    keys = addresses(network)
    return {
        "name": visible(network.name),
        "input": sample_sides(summary.inputs[0].shape, summary.inputs[0].batch_axis),
        "dtype": summary.dtype,
        "layers": [
            {
                **_layer(network, node, report),
                "key": keys[node.name] if keys[node.name] != node.name else None,
                "stage": stages.get(node.name, ""),
                "inputs": [places.get(name, -1) for name in node.inputs],
            }
            for node, report in zip(network.nodes, summary.layers)
        ],
        "totals": _totals(summary),
        "warnings": list(summary.warnings),
    }


def addresses(network: Network) -> dict[str, str]:
    """Return the name of each layer in the page's address: its label if no other layer has it, else its path."""
    labels = Counter(node.label for node in network.nodes)
    names = {node.name for node in network.nodes}
    return {
        node.name: node.label if labels[node.label] == 1 and node.label and node.label not in names else node.name
        for node in network.nodes
    }


def _layer(network: Network, node: Node, report: LayerSummary) -> dict[str, object]:
    layer = Layer(node, report)
    return {
        "name": node.name,
        "label": node.label,
        "op": node.op.name,
        "kind": layer.kind,
        "spec": layer.spec,
        "in": sample_sides(report.input_shape, report.batch_axes[0]),
        "out": layer.sample,
        "rule": report.rule,
        "window": _window(network, node, report),
        "params": report.params,
        "macs": report.macs,
        "bytes": report.activation_bytes,
    }


def _window(network: Network, node: Node, report: LayerSummary) -> dict[str, object] | None:
    """The window of a layer whose output size the rule gives; None for other layers, and for one of constants alone."""
    shapes = network.input_shapes(node) if report.rule else ()
    size = shapes[0][2:] if shapes else ()
    window = node.op.window(size) if shapes else None
    if window is None:
        return None
    return {
        "size": size,
        "kernel": window.kernel_size,
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "ceil": window.ceil_mode,
        "out": report.output_shape[2:],
        "groups": getattr(node.op, "groups", 1),
    }


def _totals(summary: Summary) -> dict[str, object]:
    totals = summary.totals
    return {
        "params": totals.params,
        "trainable": totals.trainable_params,
        "macs": totals.macs,
        "flops": totals.flops,
        "paramBytes": totals.param_bytes,
        "activationBytes": totals.activation_bytes,
        "other": [{"name": other.name, "params": other.params, "why": other.why} for other in totals.other_params],
        "inferencePeak": summary.memory.inference_peak_bytes,
        "trainingPeak": summary.memory.training_peak_bytes,
    }


def receptive_fields(network: Network) -> dict[str, Any]:
    """Return what every unit of every layer covers.

    `sides`: the input's. `layers`: the numbers of each layer and its `sides`, for height and width [whether there are
    units along the side, index of the extent]. `extents`: {n, size, stride, padding} if all n units follow the rule,
    else {n, spans}.
    """
    layer_views = views(network)
    extents = _Extents()
    fields = describe(network)
    layers = [_field(field, layer_views[field.name], extents) for field in fields.layers]
    return {"sides": fields.sides, "layers": layers, "extents": extents.extents}


class _Extents:
    """The extents of all layers, each once."""

    def __init__(self) -> None:
        self.extents: list[dict[str, object]] = []
        self._places: dict[str, int] = {}
        self._spans = 0

    def place(self, extent: Extent) -> int | None:
        """The index of an extent; None once there are more than MOST_SPANS spans."""
        base = extent.base if isinstance(extent, Flattened) else extent
        data: dict[str, object] = {"n": base.units}
        if isinstance(base, Regular):
            data.update(size=base.size, stride=base.stride, padding=base.padding)
        else:
            data["spans"] = spans(base)
        key = repr(data)
        if key not in self._places:
            self._spans += 0 if isinstance(base, Regular) else base.units
            if self._spans > MOST_SPANS:
                return None
            self._places[key] = len(self.extents)
            self.extents.append(data)
        return self._places[key]


def _field(field: LayerField, view: PixelView | UnknownView, extents: _Extents) -> dict[str, object]:
    sides: list[tuple[bool, int | None]] = []
    if isinstance(view, PixelView):
        sides = [(side.axis is not None, extents.place(side.extent)) for side in view.sides]
    is_complete = len(sides) > 0 and all(place is not None for _, place in sides)
    return {
        "size": field.size,
        "stride": field.stride,
        "padding": field.padding,
        "map": field.map,
        "note": field.note,
        "sides": sides if is_complete else None,
    }


def memory(network: Network) -> dict[str, object]:
    """Return the memory of a step in bytes as lines over the batch, so that the reader of a page can change the batch.

    `walks` by mode and dtype: each moment as [event, layer, then kind, fixed bytes, bytes per sample for each kind that
    has changed]. `optimizers` by mode and dtype, and by name: [bytes of the states, temporary bytes at the peak of the
    optimizer's step, its layer]. `restsOn` by mode, optimizer and dtype: indices into `assumptions`. A layer is its
    place in the network, -1 for none.
    """
    step = step_memory(network)
    places = {node.name: place for place, node in enumerate(network.nodes)}
    for node in network.nodes:
        places.setdefault(node.module or node.name, places[node.name])
    optimizers: dict[str, dict[str, list[int]]] = {}
    for (mode, dtype, name), added in step.optimizers.items():
        numbers = [added.states, added.temporary, places.get(added.layer, -1)]
        optimizers.setdefault(f"{mode}/{dtype}", {})[name] = numbers
    sentences: dict[str, int] = {}
    rests_on = {
        "/".join(setting): [sentences.setdefault(text, len(sentences)) for text in texts]
        for setting, texts in step.assumptions.items()
    }
    return {
        "assumptions": list(sentences),
        "restsOn": rests_on,
        "kinds": KINDS,
        "modes": MODES,
        "events": EVENTS,
        "walkOf": SIMULATED_AS,
        "weightsOf": WEIGHTS_AS,
        "walks": {"/".join(setting): list(_changes(moments, places)) for setting, moments in step.moments.items()},
        "optimizers": optimizers,
    }


def _changes(moments: tuple[Moment, ...], places: dict[str, int]) -> Iterator[list[int]]:
    """Each moment as the difference to the one before it; the first as the difference to nothing."""
    before = [(0, 0)] * len(KINDS)
    for moment in moments:
        numbers = [EVENTS.index(moment.event), places.get(moment.layer, -1)]
        for kind, line in enumerate(moment.alive):
            fixed, per_sample = before[kind]
            if (line.fixed, line.per_sample) != (fixed, per_sample):
                numbers += [kind, line.fixed - fixed, line.per_sample - per_sample]
        before = [(line.fixed, line.per_sample) for line in moment.alive]
        yield numbers


def feature_maps(
    network: Network, activations: Sequence[Activations], channels: Sequence[ImageChannels]
) -> dict[str, object]:
    """Return for each image the `layers` by their place in the network with the sheets of their channels, and the names
    of the output's `classes`, and `how` the channels are chosen.
    """
    places = {node.name: place for place, node in enumerate(network.nodes)}
    return {
        "images": [
            {
                "layers": {places[layer.name]: _activations(layer) for layer in given.layers},
                "sheets": {places[sheet.name]: _sheet(sheet) for sheet in more.sheets},
                "pixels": png_uri(more.pixels),
                "inputs": {places[name]: b64encode(values).decode() for name, values in more.inputs},
                "logSumExp": more.log_sum_exp,
            }
            for given, more in zip(activations, channels)
        ],
        "classes": activations[0].classes,
        "how": METHOD,
    }


def _sheet(sheet: ChannelSheet) -> dict[str, object]:
    means = [float(f"{mean:.3g}") for mean in sheet.means]
    return {"columns": sheet.columns, "size": sheet.size, "png": png_uri(sheet.png), "means": means}


def png_uri(png: bytes) -> str:
    """The data URI of a PNG."""
    return f"data:image/png;base64,{b64encode(png).decode()}"


def weights(
    network: Network,
    histograms: Sequence[WeightHistogram],
    first: ImageKernels | None,
    kernels: Sequence[LayerKernels],
) -> dict[str, object] | None:
    """Return the `histograms` of the layers by their place, the `first` layer's weights, and the `kernels` of other
    convolutions by their place; None without weights.
    """
    if not histograms:
        return None
    places = {node.name: place for place, node in enumerate(network.nodes)}
    return {
        "histograms": {places[one.name]: _rounded(plain_value(one)) for one in histograms},
        "first": None if first is None else {**_plain_first(first), "place": places[first.name]},
        "kernels": {
            places[one.name]: {
                "weights": b64encode(one.weights).decode(),
                "bias": None if one.bias is None else [_seven_digits(value) for value in one.bias],
                "groups": one.groups,
            }
            for one in kernels
        },
    }


def _plain_first(first: ImageKernels) -> dict[str, object]:
    return {
        "weights": [_seven_digits(value) for value in first.weights],
        "bias": None if first.bias is None else [_seven_digits(value) for value in first.bias],
        "mean": first.mean,
        "deviation": first.deviation,
    }


def _seven_digits(value: float) -> float:
    """The value with the digits that a float32 has."""
    return float(f"{value:.7g}")


def _activations(layer: LayerActivations) -> dict[str, object]:
    if layer.channels:
        return {"channels": [_channel(channel) for channel in layer.channels]}
    return {"units": [[unit.unit, _rounded(unit.value)] for unit in layer.units]}


def _channel(channel: ChannelActivation) -> dict[str, object]:
    pixels = channel.map.pixels
    return {
        "channel": channel.channel,
        "mean": _rounded(channel.mean),
        "size": [len(pixels), len(pixels[0])],
        "low": _rounded(channel.map.low),
        "high": _rounded(channel.map.high),
        "map": b64encode(bytes(step for row in pixels for step in row)).decode(),
        "unit": channel.unit,
        "value": _rounded(channel.value),
        "product": _rounded(plain_value(channel.product)),
    }


def _rounded(value: object) -> object:
    """The value with every float in it rounded to DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return {key: _rounded(item) for key, item in value.items()} if isinstance(value, dict) else value
