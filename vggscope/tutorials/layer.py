"""`explain MODEL LAYER`: the shapes, weights, costs, receptive field, memory and neighbours of one layer."""

from __future__ import annotations

from vggscope.analysis.receptive_field.result import UnitField, describe, layer_named
from vggscope.analysis.summary import LayerSummary, Summary, summarize
from vggscope.document import Facts
from vggscope.errors import OptionError
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.base import Op, SavedTensors, Shape, numel
from vggscope.ops.convolution import Convolution
from vggscope.ops.linear import Linear
from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, tutorial
from vggscope.units import bytes_text, count_text, index_text, kernel_text, pair_text, percent_text, shape_text

FLOAT32 = 4


@record
class Weights:
    """A parameter of the layer."""

    name: str
    shape: Shape
    params: int


@record
class Neighbour:
    """A layer before or after this one, with its output shape."""

    name: str
    label: str
    op: str
    shape: Shape


@record
class LayerTutorial:
    """A layer's figures for a batch of one in float32.

    `kept_bytes` is what autograd saves for backward; a neighbour may save, and share, the same tensor. `middle_unit`
    is the receptive field of the middle output, None where the rule does not apply.
    """

    model: str
    layer: LayerSummary
    input_shapes: tuple[Shape, ...]
    weights: tuple[Weights, ...]
    network_params: int | None
    network_macs: int | None
    kept_bytes: int
    before: tuple[Neighbour, ...]
    behind: tuple[Neighbour, ...]
    middle_unit: UnitField | None


def explain_layer(network: Network, word: str) -> Tutorial:
    """The tutorial on a layer, named by its label or its path.

    Raises OptionError for an unknown layer, with the nearest names.
    """
    node = layer_named(network, word)
    summary = summarize(network)
    layer = next(layer for layer in summary.layers if layer.name == node.name)
    saved = node.op.saved_for_backward(network.input_shapes(node), network.output_shape(node))
    data = LayerTutorial(
        model=network.name,
        layer=layer,
        input_shapes=network.input_shapes(node),
        weights=tuple(Weights(p.name, p.shape, numel(p.shape)) for p in node.parameters),
        network_params=summary.totals.params,
        network_macs=summary.totals.macs,
        kept_bytes=saved_bytes(saved, network.input_shapes(node), network.output_shape(node)),
        before=tuple(_neighbour(network, name) for name in node.inputs),
        behind=tuple(_neighbour(network, name) for name in network.consumers[node.name]),
        middle_unit=_middle_unit(network, node),
    )
    title = f"{network.name}   {node.title}: {node.op.name}"
    return tutorial("layer", title, data, Facts(_facts(data, node, summary, saved)))


def _facts(data: LayerTutorial, node: Node, summary: Summary, saved: SavedTensors) -> tuple[tuple[str, str], ...]:
    layer = data.layer
    facts = [
        ("input", " and ".join(shape_text(shape) for shape in data.input_shapes) or "none"),
        *_window(layer),
        ("output", f"{shape_text(layer.output_shape)}, {count_text(numel(layer.output_shape))} values"),
        *_weights(data),
        ("MACs", _macs(data, node.op)),
        *_field(data, summary.input_shape),
        ("memory", _memory(layer, node.op)),
        ("saved", _saved(data, saved)),
        *_around("before it", data.before),
        *_around("after it", data.behind or (Neighbour("", "the network's output", "", layer.output_shape),)),
    ]
    return tuple((name, text) for name, text in facts if text)


def _window(layer: LayerSummary) -> list[tuple[str, str]]:
    if layer.kernel_size is None:
        return []
    window = f"{kernel_text(layer.kernel_size)}, stride {pair_text(layer.stride)}, padding {pair_text(layer.padding)}"
    return [("window", window), ("(W-K+2P)/S+1", layer.rule or "")]


def _weights(data: LayerTutorial) -> list[tuple[str, str]]:
    if data.layer.params is None:
        return [("weights", "not known: the file does not tell them")]
    if not data.weights:
        return [("weights", "none: the layer has no parameters")]
    sizes = [f"{weights.name.rpartition('.')[2]} {kernel_text(weights.shape)}" for weights in data.weights]
    total = sum(weights.params for weights in data.weights)
    product = " + ".join(" x ".join(map(str, weights.shape)) for weights in data.weights)
    share = "" if data.network_params is None else f", {_share(total, data.network_params)} of the network's"
    shared = "" if data.layer.params == total else f"; {count_text(data.layer.params)} not shared with an earlier layer"
    return [
        ("weights", ", ".join(sizes)),
        ("parameters", f"{product} = {count_text(total)}{share}{shared}"),
    ]


def _macs(data: LayerTutorial, op: Op) -> str:
    macs = data.layer.macs
    if macs is None:
        return "not known"
    if not macs:
        return "0: no convolution, linear layer or matrix product"
    share = f", {_share(macs, data.network_macs)} of the network's" if data.network_macs else ""
    return f"{_product(data, op)}{count_text(macs)}{share}; FLOPs = 2 x MACs = {count_text(2 * macs)}"


def _share(part: int, whole: int) -> str:
    return "less than 0.1%" if 2000 * part < whole else percent_text(part, whole)


def _product(data: LayerTutorial, op: Op) -> str:
    """The MACs as a product: the number of outputs times the MACs of each."""
    outputs = " x ".join(map(str, data.layer.output_shape[1:]))
    if isinstance(op, Convolution):
        each = " x ".join(map(str, (op.in_channels // op.groups, *op.kernel_size)))
        return f"{outputs} outputs, {each} for each = "
    if isinstance(op, Linear):
        return f"{outputs} outputs, {op.in_features} for each = "
    return ""


def _field(data: LayerTutorial, image: Shape) -> list[tuple[str, str]]:
    field = data.layer.receptive_field
    if field is None:
        return [("receptive field", "differs from unit to unit")]
    window = f"stride {pair_text(field.stride)}, padding {pair_text(field.padding)}"
    facts = [("receptive field", f"{kernel_text(field.size)} pixels of the image, {window}")]
    unit = data.middle_unit
    if unit is not None and unit.clipped is not None:
        rows, columns = (f"{first} to {last}" for first, last in zip(unit.clipped.first, unit.clipped.last))
        pixels = f"sees rows {rows}, columns {columns} of {kernel_text(image[2:])}"
        facts.append((f"unit {index_text(unit.unit)}", pixels))
    return facts


def _memory(layer: LayerSummary, op: Op) -> str:
    if not layer.activation_bytes:
        how = "in place: it overwrites its input" if getattr(op, "inplace", False) else "a view of its input"
        return f"none of its own ({how})"
    return f"{bytes_text(layer.activation_bytes)} for the output, a batch of one in float32"


def _saved(data: LayerTutorial, saved: SavedTensors) -> str:
    names = saved_names(saved)
    return f"{names} for the backward pass, {bytes_text(data.kept_bytes)}" if names else "nothing for the backward pass"


def saved_names(saved: SavedTensors) -> str:
    """What autograd saves, in words; empty for nothing."""
    parts = {
        "its input": saved.inputs or saved.copies,
        "its output": saved.output,
        "intermediate values": saved.extra,
        "a mask": saved.masks,
        "statistics": saved.statistics,
    }
    return " and ".join(name for name, is_saved in parts.items() if is_saved)


def saved_bytes(saved: SavedTensors, inputs: tuple[Shape, ...], output: Shape) -> int:
    """The bytes saved for backward in float32 on a GPU, where a mask takes one byte per value."""
    values = sum(numel(inputs[place]) for place in saved.inputs) + (numel(output) if saved.output else 0)
    values += sum(map(numel, (*saved.copies, *saved.statistics)))
    extra = sum(numel(shape) * (width or FLOAT32) for shape, width in saved.extra)
    return values * FLOAT32 + extra + sum(map(numel, saved.masks))


def _around(title: str, neighbours: tuple[Neighbour, ...]) -> list[tuple[str, str]]:
    return [
        (title if place == 0 else "", f"{_neighbour_title(neighbour)} {shape_text(neighbour.shape)}".rstrip())
        for place, neighbour in enumerate(neighbours)
    ]


def _neighbour_title(neighbour: Neighbour) -> str:
    if not neighbour.name or neighbour.name == INPUT:
        return f"{neighbour.label or 'the image'},"
    title = f"{neighbour.name} ({neighbour.label})" if neighbour.label else neighbour.name
    return f"{title}, {neighbour.op},"


def _neighbour(network: Network, name: str) -> Neighbour:
    shape = network.shapes[name]
    if name == INPUT:
        return Neighbour(INPUT, "", "", shape)
    node = network.by_name[name]
    return Neighbour(name, node.label, node.op.name, shape)


def _middle_unit(network: Network, node: Node) -> UnitField | None:
    try:
        return describe(network, [node.name]).units[0]
    except OptionError:  # the rule does not apply
        return None
