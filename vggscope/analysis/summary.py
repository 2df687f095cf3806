"""The result of `summary`: the shapes, costs and receptive fields of a network, by layer and in total."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import field, replace
from itertools import groupby

from vggscope.analysis.cost import Cost, costs, known_sum
from vggscope.analysis.memory.simulate import by_rules_warning, peaks, refused_warning
from vggscope.analysis.receptive_field.view import ReceptiveField, receptive_fields
from vggscope.analysis.tensors import TensorSummary, summarize_tensors
from vggscope.dtypes import converted, dtype_of, mixture_warning, parameters_by_dtype
from vggscope.errors import check_count
from vggscope.graph import Network, Node, Parameter, TorchCount
from vggscope.ops.base import Shape, Window, numel
from vggscope.record import record, uncollected
from vggscope.result import TableResult
from vggscope.units import ELEMENT_BYTES, rule_text
from vggscope.vgg.labels import stage_of


@record
class LayerSummary:
    """One executed layer. Shapes include the batch; None is unknown.

    `activation_bytes` is the memory of the output, 0 if it shares that of the input. `dtype` is that of the output.
    `params` is None for a layer in a file that does not tell its parameters. `rule` is (W-K+2P)/S+1 with the layer's
    numbers. `batch_axes` are the axes of the input and the output that grow
    with the batch; None if there is none.

    `macs_from` is `rule` (the op's formula), `torch` (torch's FLOP counter) or `register_op` (the user's figure), None
    where `macs` is. `module` is the path of the module that is called, None for a call of a function. `line` is where
    the user's own code builds the layer, or calls it, as `net.py:14`; empty for a model without Python code of theirs.
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
    params: int | None
    macs: int | None
    flops: int | None
    activation_bytes: int
    receptive_field: ReceptiveField | None
    dtype: str
    macs_from: str | None = None
    module: str | None = None
    line: str = ""
    batch_axes: tuple[int | None, int | None] = field(default=(0, 0), metadata={"json": False})


@record
class OtherParameters:
    """A parameter that no executed layer owns, and the reason."""

    name: str
    params: int
    why: str


@record
class DtypeParameters:
    """The parameters of one dtype: how many, and their memory."""

    dtype: str
    params: int
    bytes: int


@record
class Totals:
    """Sums over the layers and the parameters that no layer owns. `dtypes` has the parameters by dtype, most first.

    `macs` and `flops` are None if those of a layer are unknown, or the forward pass fails; `macs_known` and
    `flops_known` add up the others. `params`, `trainable_params` and `param_bytes` are None if the parameters of a
    layer are unknown; `params_known` adds up the others.
    """

    params: int | None
    trainable_params: int | None
    macs: int | None
    flops: int | None
    macs_known: int
    flops_known: int
    param_bytes: int | None
    activation_bytes: int
    other_params: tuple[OtherParameters, ...]
    dtypes: tuple[DtypeParameters, ...]
    params_known: int


@record
class Peaks:
    """The peak memory of a forward pass and of a training step.

    None if the network does not run to its end, or if `warnings` of the summary say why the peak is not known.
    """

    inference_peak_bytes: int | None
    training_peak_bytes: int | None


@record
class ModuleSum:
    """The sums over a module whose parts have rows of their own: `rows` of them, from the one at place `first` on.

    `depth` is 1 for an outermost module. A sum is None if one of its parts is unknown.
    """

    name: str
    depth: int
    first: int
    rows: int
    params: int | None
    macs: int | None
    flops: int | None
    activation_bytes: int


@record
class Summary(TableResult[LayerSummary]):
    """The summary of a network; `str` of it is the table.

    `dtype` is that of the floating-point parameters, or `mixed`. `failure` says where and why the forward pass fails:
    the figures are then those of the layers before. `torch_count` is what torch itself counts in the run of a module,
    for one sample, or for the whole batch if only that is known. `alerts` are the warnings that come before any figure.
    `title` is the model's name with the one of the literature, if it has one. `modules` are those around the rows in a
    summary to a depth.
    """

    schema: str
    model: str
    input_shape: Shape
    dtype: str
    layers: tuple[LayerSummary, ...]
    totals: Totals
    memory: Peaks
    warnings: tuple[str, ...]
    batch: int
    inputs: tuple[TensorSummary, ...]
    outputs: tuple[TensorSummary, ...]
    failure: str | None = None
    torch_count: TorchCount | None = None
    modules: tuple[ModuleSum, ...] = ()
    alerts: tuple[str, ...] = field(default=(), metadata={"json": False})
    title: str = field(default="", metadata={"json": False})

    def by_operator(self) -> CostSums:
        """Return the sums over the layers of each operator, most parameters first. They add up to the totals.

        Parameters that no layer owns are the last group, `(no layer)`.

        >>> import vggscope
        >>> sums = vggscope.summary("D").by_operator()
        >>> sums["Conv2d"].layers, sums["Conv2d"].macs, sums["Linear"].params
        (13, 15346630656, 123642856)
        """
        return _sums(self, "operator", [layer.op for layer in self.layers], lambda path: NO_LAYER)

    def by_module(self, depth: int | None = 1) -> CostSums:
        """Return the sums over each module of the first `depth` levels, in the order of their calls; over each module
        that is called itself if `depth` is None. They add up to the totals.

        Functions that forward calls itself, and its own parameters, are the group `(forward)`.

        Raises OptionError for a depth below 1.

        >>> import vggscope
        >>> [(group.name, group.params) for group in vggscope.summary("D").by_module()]
        [('features', 14714688), ('avgpool', 0), ('(forward)', 0), ('classifier', 123642856)]
        """
        if depth is not None:
            check_count("depth", depth, f"a depth of {depth} makes no sense", 1000)

        def group(path: str) -> str:
            return ".".join(path.split(".")[:depth]) or FORWARD

        paths = (layer.name.rpartition(".")[0] if layer.module is None else layer.module for layer in self.layers)
        return _sums(self, "module", [group(path) for path in paths], group)


NO_LAYER, FORWARD = "(no layer)", "(forward)"


@record
class CostSum:
    """The sums over a group of layers; None if one of them is unknown. `layers` is their number."""

    name: str
    layers: int
    params: int | None
    macs: int | None
    flops: int | None
    activation_bytes: int


@record
class CostSums(TableResult[CostSum]):
    """The costs of a network by groups of its layers. `by` is `operator` or `module`."""

    rows_field = "groups"
    named_by = ("name",)

    schema: str
    model: str
    by: str
    batch: int
    groups: tuple[CostSum, ...]
    total: CostSum


def _sums(summary: Summary, by: str, keys: list[str], of_other: Callable[[str], str]) -> CostSums:
    """The sums over the layers with the same key. `of_other` is that of the path of a parameter that no layer owns."""
    others = [(of_other(other.name.rpartition(".")[0]), other.params) for other in summary.totals.other_params]
    members: dict[str, tuple[list[LayerSummary], list[int]]] = {}
    for key, layer in zip(keys, summary.layers):
        members.setdefault(key, ([], []))[0].append(layer)
    for key, params in others:
        members.setdefault(key, ([], []))[1].append(params)
    groups = [_sum_of(name, *parts) for name, parts in members.items()]
    if by == "operator":
        groups.sort(key=lambda group: (group.name == NO_LAYER, -(group.params or 0), -(group.macs or 0)))
    total = _sum_of("total", list(summary.layers), [params for _, params in others])
    return CostSums("vggscope/sums@1", summary.model, by, summary.batch, tuple(groups), total)


def _sum_of(name: str, layers: list[LayerSummary], others: list[int]) -> CostSum:
    return CostSum(
        name,
        len(layers),
        known_sum((*(layer.params for layer in layers), *others)),
        known_sum(layer.macs for layer in layers),
        known_sum(layer.flops for layer in layers),
        sum(layer.activation_bytes for layer in layers),
    )


@uncollected()
def summarize(network: Network, batch: int = 1, dtype: str | None = None) -> Summary:
    """Summarize a network for a batch, with its floating-point tensors converted to `dtype` if that is given."""
    network = converted(network, dtype)
    cost, unowned = _split_unowned(network, costs(network, batch))
    fields = receptive_fields(network)
    memory, unknown = _peaks(network, batch)
    shapes = network.batched_shapes(batch)
    layers = tuple([_layer(network, node, cost[node.name], fields[node.name], shapes) for node in network.nodes])
    others = (*unowned, *(OtherParameters(p.name, numel(p.shape), why) for p, why in network.unused))
    return Summary(
        schema="vggscope/summary@1",
        model=network.name,
        input_shape=network.batched(network.inputs[0].name, batch),
        dtype=dtype_of(network),
        layers=layers,
        totals=_totals(network, layers, others),
        memory=memory,
        warnings=(*network.alerts(), *network.warnings, *mixture_warning(network), *unknown),
        batch=batch,
        inputs=summarize_tensors(network.inputs, batch, network.dtype),
        outputs=summarize_tensors(network.outputs, batch, network.dtype),
        failure=network.failure,
        torch_count=network.torch_count,
        alerts=network.alerts(),
        title=network.title,
    )


def _peaks(network: Network, batch: int) -> tuple[Peaks, tuple[str, ...]]:
    """The peaks, and sentences on those that are not known or not sure."""
    if network.failure is not None:
        return Peaks(None, None), ()
    known, reasons = peaks(network, batch)
    refused = refused_warning(network, batch) if known[True] is not None else ()
    return Peaks(known[False], known[True]), (*reasons, *refused, *by_rules_warning(network, batch))


def _split_unowned(network: Network, cost: Mapping[str, Cost]) -> tuple[dict[str, Cost], tuple[OtherParameters, ...]]:
    """Split off the parameters that a function reads without a multiply, such as class tokens and position embeddings.

    Returns the costs without them, and the parameters.
    """
    owned = {p.name for node in network.nodes if node.op.parameters() for p in node.parameters}
    rows, others = dict(cost), list[OtherParameters]()
    for node in network.nodes:
        read = {p.name: numel(p.shape) for p in node.parameters if p.name not in owned}
        if not read:
            continue
        owned.update(read)
        if cost[node.name].macs == 0:
            others += (OtherParameters(name, size, "read by a function, no layer's own") for name, size in read.items())
            rows[node.name] = cost[node.name]._replace(params=cost[node.name].params - sum(read.values()))
    return rows, tuple(others)


def _layer(
    network: Network, node: Node, cost: Cost, receptive_field: ReceptiveField | None, batched: Mapping[str, Shape]
) -> LayerSummary:
    output = network.output_shape(node)
    source = node.inputs[0] if node.inputs else node.name
    source_shape = network.shapes[source]
    window = _ruling(node.op.window(source_shape[2:]), source_shape[2:], output[2:])
    dtype = node.dtype or network.dtype
    position = node.position
    return LayerSummary(
        name=node.name,
        label=node.label,
        op=node.op.name,
        input_shape=batched[source],
        output_shape=batched[node.name],
        kernel_size=window.kernel_size if window else None,
        stride=window.stride if window else None,
        padding=window.padding if window else None,
        rule=rule(window, source_shape[2:], output[2:]) if window else None,
        params=None if node.op.hides_parameters else cost.params,
        macs=cost.macs,
        flops=None if cost.macs is None else 2 * cost.macs,
        activation_bytes=numel(batched[node.name]) * ELEMENT_BYTES[dtype] if node.op.allocates else 0,
        receptive_field=receptive_field,
        dtype=dtype,
        macs_from=None if cost.macs is None else node.op.without_constants.counted_by,
        module=node.module,
        line=position.text if position else "",
        batch_axes=(network.batch_axis_of(source), network.batch_axis_of(node.name)),
    )


def _ruling(window: Window | None, size: tuple[int, ...], result: tuple[int, ...]) -> Window | None:
    """The window if the rule gives the output's size. The regions of an adaptive pool may follow no rule."""
    if window is None or 0 in window.stride or window.output_size(size) != result:
        return None
    return window


def rule(window: Window, size: tuple[int, ...], result: tuple[int, ...]) -> str:
    """(W-K+2P)/S+1 with the numbers of height and width, once if they are equal."""
    sides = zip(size, window.kernel_size, window.padding, window.stride, window.dilation, result)
    return ", ".join(dict.fromkeys(rule_text(*side) for side in sides))


def _totals(
    network: Network,
    layers: tuple[LayerSummary, ...],
    others: tuple[OtherParameters, ...],
) -> Totals:
    parameters = list(network.parameters())
    is_counted = network.parameter_count is not None
    known = sum(layer.macs or 0 for layer in layers)
    macs = known_sum(layer.macs for layer in layers) if network.failure is None else None
    return Totals(
        params=network.parameter_count,
        trainable_params=sum(numel(p.shape) for p in parameters if p.trainable) if is_counted else None,
        macs=macs,
        flops=None if macs is None else 2 * macs,
        macs_known=known,
        flops_known=2 * known,
        param_bytes=sum(map(network.bytes_of, parameters)) if is_counted else None,
        activation_bytes=sum(layer.activation_bytes for layer in layers),
        other_params=others,
        dtypes=tuple(_by_dtype(network, parameters)),
        params_known=network.parameters_known,
    )


def _by_dtype(network: Network, parameters: list[Parameter]) -> Iterator[DtypeParameters]:
    for dtype, params in parameters_by_dtype(network).items():
        size = sum(network.bytes_of(p) for p in parameters if (p.dtype or network.dtype) == dtype)
        yield DtypeParameters(dtype, params, size)


def by_stage(summary: Summary) -> Summary:
    """The summary with one row for each stage: its input and output shape, the sum of its costs, and the receptive
    field after it.

    Stages follow the literature's labels: stage 3 is conv3_1 to pool3, and the FC layers are one. In a network without
    labels a stage is an outermost module.
    """
    stages = _stages(summary.layers)
    grouped = groupby(zip(stages, summary.layers), key=lambda pair: pair[0])
    return replace(summary, layers=tuple(_merge(name, [layer for _, layer in pairs]) for name, pairs in grouped))


def to_depth(summary: Summary, depth: int) -> Summary:
    """The summary with one row for each module at this depth, the sum of its layers, and with the layers above it.
    `modules` has the sums of the modules around the rows.

    Raises OptionError for a depth below 1.
    """
    check_count("depth", depth, f"a depth of {depth} makes no sense", 1000)
    rows = [row for path, layers in _runs(summary.layers, depth) for row in _row_of(path, layers)]
    modules = [
        ModuleSum(path, level, first, len(members), *_sums_over(members))
        for level in range(1, depth)
        for path, first, members in _within(rows, level)
    ]
    modules.sort(key=lambda module: (module.first, module.depth))
    return replace(summary, layers=tuple(rows), modules=tuple(modules))


def _runs(layers: Iterable[LayerSummary], depth: int) -> Iterator[tuple[str, list[LayerSummary]]]:
    """Successive layers with the same first `depth` parts of their paths."""
    for path, run in groupby(layers, key=lambda layer: ".".join(layer.name.split(".")[:depth])):
        yield path, list(run)


def _row_of(path: str, layers: list[LayerSummary]) -> list[LayerSummary]:
    """Layers as they are, or one row for a module that holds them."""
    return [_merge(path, layers)] if any(layer.name != path for layer in layers) else layers


def _within(rows: list[LayerSummary], level: int) -> Iterator[tuple[str, int, list[LayerSummary]]]:
    """The modules at a level that hold rows, each with the place of its first row."""
    first = 0
    for path, members in _runs(rows, level):
        if any(row.name != path for row in members):
            yield path, first, members
        first += len(members)


def _sums_over(rows: list[LayerSummary]) -> tuple[int | None, int | None, int | None, int]:
    return (
        known_sum(row.params for row in rows),
        known_sum(row.macs for row in rows),
        known_sum(row.flops for row in rows),
        sum(row.activation_bytes for row in rows),
    )


def _stages(layers: tuple[LayerSummary, ...]) -> list[str]:
    """The stage of each layer. One without a label belongs to the stage before it in the same module."""
    stages: list[str] = []
    module = ""
    for layer in layers:
        stage, outermost = stage_of(layer.label), layer.name.partition(".")[0]
        if stage:
            stages.append(stage if stage == "classifier" else f"stage {stage}")
        else:
            stages.append(stages[-1] if stages and outermost == module else outermost)
        module = outermost
    return stages


def _merge(name: str, layers: list[LayerSummary]) -> LayerSummary:
    return replace(
        layers[-1],
        name=name,
        label=_span([layer.label for layer in layers if layer.label]),
        op=_counted([layer.op for layer in layers]),
        input_shape=layers[0].input_shape,
        batch_axes=(layers[0].batch_axes[0], layers[-1].batch_axes[1]),
        kernel_size=None,
        stride=None,
        padding=None,
        rule=None,
        module=None,
        line="",
        params=known_sum(layer.params for layer in layers),
        macs=known_sum(layer.macs for layer in layers),
        flops=known_sum(layer.flops for layer in layers),
        activation_bytes=sum(layer.activation_bytes for layer in layers),
    )


def _counted(ops: list[str]) -> str:
    """The ops with their numbers, in order of first use: `2 Conv2d, 2 ReLU, MaxPool2d`."""
    return ", ".join(f"{ops.count(op)} {op}" if ops.count(op) > 1 else op for op in dict.fromkeys(ops))


def _span(labels: list[str]) -> str:
    return " - ".join(dict.fromkeys((labels[0], labels[-1]))) if labels else ""
