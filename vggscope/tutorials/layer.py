"""`explain MODEL LAYER`: all that there is to say of one layer."""

from __future__ import annotations

from vggscope.analysis.receptive_field.result import Box, UnitField, describe, layer_named
from vggscope.analysis.summary import LayerReport, Summary, summarize
from vggscope.document import Facts
from vggscope.errors import OptionError
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.base import Op, SavedTensors, Shape, numel
from vggscope.ops.convolution import Convolution
from vggscope.ops.linear import Linear
from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, tutorial
from vggscope.units import bytes_text, count_text, kernel_text, pair_text, percent_text, shape_text

FLOAT32 = 4


@record
class Weights:
    """A learned tensor of the layer."""

    name: str
    shape: Shape
    params: int


@record
class Neighbour:
    """A layer that this one reads, or that reads it, and the shape of what it gives."""

    name: str
    label: str
    op: str
    shape: Shape


@record
class LayerTutorial:
    """A layer for a batch of one in float32. `kept_bytes` is what autograd keeps of it until its backward has run; it
    may be shared with a neighbour that keeps the same tensor. `middle_unit` is the middle output's region of the
    image, None where no rule gives it.
    """

    model: str
    layer: LayerReport
    input_shapes: tuple[Shape, ...]
    weights: tuple[Weights, ...]
    network_params: int
    network_macs: int | None
    kept_bytes: int
    before: tuple[Neighbour, ...]
    behind: tuple[Neighbour, ...]
    middle_unit: UnitField | None


def explain_layer(network: Network, word: str) -> Tutorial:
    """A layer by its label or its path: input, rule, output, weights, costs, receptive field, memory, neighbours.

    Raises OptionError for a layer that is not there, with the nearest names.
    """
    node = layer_named(network, word)
    report = summarize(network)
    layer = next(layer for layer in report.layers if layer.name == node.name)
    kept = node.op.saved_for_backward(network.input_shapes(node), network.output_shape(node))
    found = LayerTutorial(
        model=network.name,
        layer=layer,
        input_shapes=network.input_shapes(node),
        weights=tuple(Weights(p.name, p.shape, numel(p.shape)) for p in node.parameters),
        network_params=report.totals.params,
        network_macs=report.totals.macs,
        kept_bytes=_kept_bytes(kept, network.input_shapes(node), network.output_shape(node)),
        before=tuple(_neighbour(network, name) for name in node.inputs),
        behind=tuple(_neighbour(network, name) for name in network.consumers[node.name]),
        middle_unit=_middle_unit(network, node),
    )
    title = f"{network.name}   {node.title}: {node.op.name}"
    return tutorial("layer", title, found, Facts(tuple(_figures(found, node, report, kept))))


def _figures(found: LayerTutorial, node: Node, report: Summary, kept: SavedTensors) -> list[tuple[str, str]]:
    layer = found.layer
    items = [
        ("input", " and ".join(shape_text(shape) for shape in found.input_shapes) or "none"),
        *_window(layer),
        ("output", f"{shape_text(layer.output_shape)}, {count_text(numel(layer.output_shape))} values"),
        *_weights(found, node.op),
        ("MACs", _macs(found, node.op)),
        *_field(found, report.input_shape),
        ("memory", _memory(layer, node.op)),
        ("kept", _kept(found, kept)),
        *_around("before it", found.before),
        *_around("behind it", found.behind or (Neighbour("", "the network's output", "", layer.output_shape),)),
    ]
    return [(name, text) for name, text in items if text]


def _window(layer: LayerReport) -> list[tuple[str, str]]:
    if layer.kernel_size is None or layer.stride is None or layer.padding is None:
        return []
    window = f"{kernel_text(layer.kernel_size)}, stride {pair_text(layer.stride)}, padding {pair_text(layer.padding)}"
    return [("window", window), ("(W-K+2P)/S+1", layer.rule or "")]


def _weights(found: LayerTutorial, op: Op) -> list[tuple[str, str]]:
    if not found.weights:
        return [("weights", "none: nothing here is learned")]
    sizes = [f"{weights.name.rpartition('.')[2]} {kernel_text(weights.shape)}" for weights in found.weights]
    total = sum(weights.params for weights in found.weights)
    product = " + ".join(" x ".join(map(str, weights.shape)) for weights in found.weights)
    share = _share(total, found.network_params)
    shared = "" if found.layer.params == total else f"; {count_text(found.layer.params)} not owned by an earlier layer"
    return [
        ("weights", ", ".join(sizes)),
        ("parameters", f"{product} = {count_text(total)}, {share} of the network's{shared}"),
    ]


def _macs(found: LayerTutorial, op: Op) -> str:
    macs = found.layer.macs
    if macs is None:
        return "not known"
    if not macs:
        return "0: no convolution, linear layer or matrix product"
    share = f", {_share(macs, found.network_macs)} of the network's" if found.network_macs else ""
    return f"{_product(found, op)}{count_text(macs)}{share}; FLOPs = 2 x MACs = {count_text(2 * macs)}"


def _share(part: int, whole: int) -> str:
    return "less than 0.1%" if 2000 * part < whole else percent_text(part, whole)


def _product(found: LayerTutorial, op: Op) -> str:
    """The MACs as a product: so many outputs, so many multiplications for each."""
    outputs = " x ".join(map(str, found.layer.output_shape[1:]))
    if isinstance(op, Convolution):
        each = " x ".join(map(str, (op.in_channels // op.groups, *op.kernel_size)))
        return f"{outputs} outputs, {each} for each = "
    if isinstance(op, Linear):
        return f"{outputs} outputs, {op.in_features} for each = "
    return ""


def _field(found: LayerTutorial, image: Shape) -> list[tuple[str, str]]:
    field = found.layer.receptive_field
    if field is None:
        return [("receptive field", "not the same for all its units")]
    text = (
        f"{kernel_text(field.size)} pixels of the image, stride {pair_text(field.stride)},"
        f" padding {pair_text(field.padding)}"
    )
    unit = found.middle_unit
    if unit is None or unit.clipped is None:
        return [("receptive field", text)]
    place = ",".join(map(str, unit.unit))
    return [("receptive field", text), (f"unit {place}", f"sees {_box(unit.clipped)} of {kernel_text(image[2:])}")]


def _box(box: Box) -> str:
    rows, columns = (f"{first} to {last}" for first, last in zip(box.first, box.last))
    return f"rows {rows}, columns {columns}"


def _memory(layer: LayerReport, op: Op) -> str:
    if not layer.activation_bytes:
        how = "in place: it overwrites its input" if getattr(op, "inplace", False) else "a view of its input"
        return f"none of its own ({how})"
    return f"{bytes_text(layer.activation_bytes)} for the output, a batch of one in float32"


def _kept(found: LayerTutorial, kept: SavedTensors) -> str:
    what = [
        *(["its input"] if kept.inputs or kept.copies else []),
        *(["its output"] if kept.output else []),
        *(["working values"] if kept.extra else []),
        *(["a mask"] if kept.masks else []),
        *(["statistics"] if kept.statistics else []),
    ]
    if not what:
        return "nothing for the backward pass"
    return f"{' and '.join(what)} for the backward pass, {bytes_text(found.kept_bytes)}"


def _kept_bytes(kept: SavedTensors, inputs: tuple[Shape, ...], output: Shape) -> int:
    """In float32 on a GPU, where a mask takes a byte a value."""
    values = sum(numel(inputs[place]) for place in kept.inputs) + (numel(output) if kept.output else 0)
    values += sum(map(numel, (*kept.copies, *kept.statistics)))
    extra = sum(numel(shape) * (width or FLOAT32) for shape, width in kept.extra)
    return values * FLOAT32 + extra + sum(map(numel, kept.masks))


def _around(title: str, neighbours: tuple[Neighbour, ...]) -> list[tuple[str, str]]:
    return [
        (title if place == 0 else "", " ".join(filter(None, (_called(found), shape_text(found.shape)))))
        for place, found in enumerate(neighbours)
    ]


def _called(found: Neighbour) -> str:
    if not found.name or found.name == INPUT:
        return f"{found.label or 'the image'},"
    title = f"{found.name} ({found.label})" if found.label else found.name
    return f"{title}, {found.op},"


def _neighbour(network: Network, name: str) -> Neighbour:
    shape = network.shapes[name]
    if name == INPUT:
        return Neighbour(INPUT, "", "", shape)
    node = network.by_name[name]
    return Neighbour(name, node.label, node.op.name, shape)


def _middle_unit(network: Network, node: Node) -> UnitField | None:
    try:
        return describe(network, [node.name]).units[0]
    except OptionError:  # no rule gives what it sees
        return None
