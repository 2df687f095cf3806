"""Everything that is known of a network, layer by layer and in total: the result that `summary` shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby

from vggscope.analysis.cost import Cost, costs, total_macs
from vggscope.analysis.memory.simulate import inference_peak, training_peak
from vggscope.analysis.receptive_field.view import ReceptiveField, receptive_fields
from vggscope.graph import Network, Node
from vggscope.ops.base import Shape, Window, numel
from vggscope.record import record
from vggscope.result import Result
from vggscope.units import DTYPE_BYTES, rule_text
from vggscope.vgg.labels import stage_of


@record
class LayerReport:
    """One executed layer. Shapes are torch's, the batch among them; `activation_bytes` is the memory its output takes,
    0 where it shares its input's; `rule` is (W-K+2P)/S+1 with its numbers; None is unknown.
    """

    name: str
    label: str
    op: str
    input_shape: Shape
    output_shape: Shape
    kernel_size: tuple[int, ...] | None
    stride: tuple[int, ...] | None
    padding: tuple[int, ...] | None
    rule: str | None
    params: int
    macs: int | None
    flops: int | None
    activation_bytes: int
    receptive_field: ReceptiveField | None


@record
class OtherParameters:
    """Parameters that no executed layer owns."""

    name: str
    params: int
    why: str


@record
class Totals:
    """Sums over the layers, the parameters that no layer owns included."""

    params: int
    trainable_params: int
    macs: int | None
    flops: int | None
    param_bytes: int
    activation_bytes: int
    other_params: tuple[OtherParameters, ...]


@record
class Peaks:
    """The most bytes alive at once, in one forward pass and in one step of training; None for a network that breaks
    off.
    """

    inference_peak_bytes: int | None
    training_peak_bytes: int | None


@record
class Summary(Result):
    """A network's summary; `str` of it is the table."""

    schema: str
    model: str
    input_shape: Shape
    dtype: str
    layers: tuple[LayerReport, ...]
    totals: Totals
    memory: Peaks
    warnings: tuple[str, ...]


def summarize(network: Network, batch: int = 1, dtype: str = "float32") -> Summary:
    """The report of a network on a batch of that many inputs."""
    itemsize = DTYPE_BYTES[dtype]
    cost, lent = _without_lent(network, costs(network, batch))
    fields = receptive_fields(network)
    layers = tuple(_layer(network, node, cost[node.name], fields[node.name], batch, itemsize) for node in network.nodes)
    others = (*lent, *(OtherParameters(p.name, numel(p.shape), why) for p, why in network.unused))
    return Summary(
        schema="vggscope/summary@1",
        model=network.name,
        input_shape=(batch, *network.input_shape[1:]),
        dtype=dtype,
        layers=layers,
        totals=_totals(network, layers, others, total_macs(cost), itemsize),
        memory=Peaks(inference_peak(network, batch, itemsize), training_peak(network, batch, itemsize))
        if network.failure is None
        else Peaks(None, None),
        warnings=(*network.broken_off(), *network.warnings),
    )


def _without_lent(network: Network, cost: Mapping[str, Cost]) -> tuple[dict[str, Cost], tuple[OtherParameters, ...]]:
    """The costs without the parameters that a function reads and multiplies with nothing, and those apart: a class
    token that is put before the patches, an embedding of positions that is added, are no layer's own.
    """
    own = {p.name for node in network.nodes if node.op.parameters() for p in node.parameters}
    rows, others = dict(cost), list[OtherParameters]()
    for node in network.nodes:
        lent = {p.name: numel(p.shape) for p in node.parameters if p.name not in own}
        own.update(lent)
        if lent and cost[node.name].macs == 0:
            others += (OtherParameters(name, size, "read by a function, no layer's own") for name, size in lent.items())
            rows[node.name] = replace(cost[node.name], params=cost[node.name].params - sum(lent.values()))
    return rows, tuple(others)


def _layer(
    network: Network, node: Node, cost: Cost, field: ReceptiveField | None, batch: int, itemsize: int
) -> LayerReport:
    output = network.output_shape(node)
    source = node.inputs[0] if node.inputs else node.name
    before = network.shapes[source]
    width = node.op.element_bytes or itemsize
    window = _deciding(node.op.window(before[2:]), before[2:], output[2:])
    return LayerReport(
        name=node.name,
        label=node.label,
        op=node.op.name,
        input_shape=network.batched(source, batch),
        output_shape=network.batched(node.name, batch),
        kernel_size=window.kernel_size if window else None,
        stride=window.stride if window else None,
        padding=window.padding if window else None,
        rule=rule(window, before[2:], output[2:]) if window else None,
        params=cost.params,
        macs=cost.macs,
        flops=None if cost.macs is None else 2 * cost.macs,
        activation_bytes=numel(network.batched(node.name, batch)) * width if node.op.allocates else 0,
        receptive_field=field,
    )


def _deciding(window: Window | None, size: tuple[int, ...], result: tuple[int, ...]) -> Window | None:
    """The window if the rule makes the output's size of the input's: an adaptive pool may cut regions that no rule
    does.
    """
    if window is None or 0 in window.stride or window.output_size(size) != result:
        return None
    return window


def rule(window: Window, size: tuple[int, ...], result: tuple[int, ...]) -> str:
    """(W-K+2P)/S+1 with its numbers: once where the sides are alike, else side by side."""
    sides = zip(size, window.kernel_size, window.padding, window.stride, window.dilation, result)
    return ", ".join(dict.fromkeys(rule_text(*side) for side in sides))


def _totals(
    network: Network,
    layers: tuple[LayerReport, ...],
    others: tuple[OtherParameters, ...],
    macs: int | None,
    itemsize: int,
) -> Totals:
    parameters = list(network.parameters())
    params = sum(numel(p.shape) for p in parameters)
    return Totals(
        params=params,
        trainable_params=sum(numel(p.shape) for p in parameters if p.trainable),
        macs=macs,
        flops=None if macs is None else 2 * macs,
        param_bytes=params * itemsize,
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        other_params=others,
    )


def by_stage(report: Summary) -> Summary:
    """The report with one row for each stage: shapes from its first layer's input to its last layer's output, costs
    added up, the receptive field at its end.

    A stage is what the literature's labels make it (stage 3 is conv3_1 to pool3, then the FC layers); in a network
    without labels it is the outermost module.
    """
    stages = _stages(report.layers)
    grouped = groupby(zip(stages, report.layers), key=lambda pair: pair[0])
    return replace(report, layers=tuple(_merge(name, [layer for _, layer in pairs]) for name, pairs in grouped))


def _stages(layers: tuple[LayerReport, ...]) -> list[str]:
    """Each layer's stage; one without a label belongs to the stage before it in the same module."""
    stages: list[str] = []
    module = ""
    for layer in layers:
        stage, inside = stage_of(layer.label), layer.name.partition(".")[0]
        if stage:
            stages.append(stage if stage == "classifier" else f"stage {stage}")
        else:
            stages.append(stages[-1] if stages and inside == module else inside)
        module = inside
    return stages


def _merge(name: str, layers: list[LayerReport]) -> LayerReport:
    macs = [layer.macs for layer in layers]
    total = None if None in macs else sum(m or 0 for m in macs)
    return LayerReport(
        name=name,
        label=_span([layer.label for layer in layers if layer.label]),
        op=_counted([layer.op for layer in layers]),
        input_shape=layers[0].input_shape,
        output_shape=layers[-1].output_shape,
        kernel_size=None,
        stride=None,
        padding=None,
        rule=None,
        params=sum(layer.params for layer in layers),
        macs=total,
        flops=None if total is None else 2 * total,
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        receptive_field=layers[-1].receptive_field,
    )


def _counted(ops: list[str]) -> str:
    """Ops by number, in order of first use: `2 Conv2d, 2 ReLU, MaxPool2d`."""
    return ", ".join(f"{ops.count(op)} {op}" if ops.count(op) > 1 else op for op in dict.fromkeys(ops))


def _span(labels: list[str]) -> str:
    return " - ".join(dict.fromkeys((labels[0], labels[-1]))) if labels else ""
