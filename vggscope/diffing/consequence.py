"""What follows from one difference, worked out by making that one change to the reference and looking again.

Several mistakes in one model blur each other; each is therefore judged alone, on a reference that is otherwise right.
"""

from __future__ import annotations

from dataclasses import replace

from vggscope.analysis.cost import costs, total_macs
from vggscope.analysis.memory import training_peak
from vggscope.analysis.receptive_field import receptive_fields
from vggscope.diffing.find import Edit
from vggscope.errors import ShapeError
from vggscope.graph import INPUT, Network, Node, Parameter
from vggscope.ops.base import Shape, numel
from vggscope.ops.pooling import AdaptiveAvgPool2d
from vggscope.record import record
from vggscope.units import bytes_text, count_text, pair_text, shape_text, short_count

FLOAT32 = 4

_EXTRA = " (extra)"


def edited(ours: Network, reference: Network, edits: tuple[Edit, ...], behind: dict[str, str]) -> Network:
    """The reference with these layers exchanged for ours, left out, or ours put in.

    `behind` names, for each of our layers, the layer of the reference at whose place it stands. Every width is then
    made to follow from what stands before, as somebody writing the model would.
    """
    nodes, input_shape = list(reference.nodes), reference.input_shape
    for mine, other in edits:
        if mine is None:
            assert other is not None
            nodes = _without(nodes, other)
        elif other is None:
            nodes = _with_extra(nodes, mine, behind[mine.inputs[0]])
        else:
            nodes = [replace(node, op=mine.op) if node.name == other.name else node for node in nodes]
            input_shape = ours.input_shape if other.inputs == (INPUT,) else input_shape
    return _refitted(replace(reference, input_shape=input_shape), nodes)


def _without(nodes: list[Node], gone: Node) -> list[Node]:
    """The nodes without one, its readers reading what it read."""
    source = next(node.inputs[0] for node in nodes if node.name == gone.name)
    return [
        replace(node, inputs=tuple(source if name == gone.name else name for name in node.inputs))
        for node in nodes
        if node.name != gone.name
    ]


def _with_extra(nodes: list[Node], ours: Node, behind: str) -> list[Node]:
    """The nodes with one of ours behind the node of that name, or behind others of ours that stand there already."""
    names = [node.name for node in nodes]
    place = names.index(behind) + 1 if behind in names else 0
    while place < len(nodes) and nodes[place].name.endswith(_EXTRA):
        behind, place = nodes[place].name, place + 1
    extra = replace(ours, name=ours.name + _EXTRA, inputs=(behind,))
    readers = [
        replace(node, inputs=tuple(extra.name if name == behind else name for name in node.inputs))
        for node in nodes[place:]
    ]
    return [*nodes[:place], extra, *readers]


def consequences(reference: Network, other: Network, name: str, whole: bool = True) -> tuple[str, ...]:
    """In words: what is otherwise at the layer `name`, behind it, and in total, where `other` stands for the
    reference.
    """
    try:
        shapes = other.shapes
    except ShapeError as error:
        return (f"it no longer runs: {error.problem}",)
    return (*_shapes(reference, other, shapes, name, whole), *_sizes(reference, other))


def _refitted(reference: Network, nodes: list[Node]) -> Network:
    """The nodes with every width made to follow; as they are from where they do not fit."""
    shapes = {INPUT: reference.input_shape}
    fitted = []
    try:
        for node in nodes:
            inputs = [shapes[name] for name in node.inputs]
            op = node.op.fitted(inputs[0]) if len(inputs) == 1 else node.op
            shapes[node.name] = op.output_shape(*inputs)
            fitted.append(replace(node, op=op, parameters=_parameters(node, op.parameters())))
    except ShapeError:
        return replace(reference, nodes=tuple(nodes))
    return replace(reference, nodes=tuple(fitted))


def _parameters(node: Node, shapes: dict[str, Shape]) -> tuple[Parameter, ...]:
    return tuple(Parameter(f"{node.name}.{name}", shape) for name, shape in shapes.items())


@record
class _Map:
    title: str
    shape: Shape


def _shapes(reference: Network, other: Network, shapes: dict[str, Shape], name: str, whole: bool) -> list[str]:
    said = []
    here, there = shapes.get(name), reference.shapes.get(name)
    if here is not None and there is not None and here != there:
        said.append(_side_by_side(here, there, ""))
    ours, theirs = _last_map(other), _last_map(reference)
    if (
        ours
        and theirs
        and ours.shape != theirs.shape
        and ours.title == theirs.title
        and theirs.title.split(" ")[0] != name
    ):
        said.append(_side_by_side(ours.shape, theirs.shape, f" after {theirs.title}"))
    if whole and ours and theirs and ours.shape != theirs.shape:
        said += _head(reference, other)
    last, expected = other.nodes[-1].name, reference.nodes[-1].name
    if shapes[last] != reference.shapes[expected] and expected != name:
        said.append(f"{shape_text(shapes[last])} comes out instead of {shape_text(reference.shapes[expected])}")
    return said


def _side_by_side(ours: Shape, theirs: Shape, where: str) -> str:
    """Two shapes, as sides where only those differ."""
    if len(ours) == len(theirs) == 4 and ours[:2] == theirs[:2] and ours[2] == ours[3] and theirs[2] == theirs[3]:
        return f"each side is {ours[2]} instead of {theirs[2]}{where}"
    return f"{shape_text(ours)} instead of {shape_text(theirs)}{where}"


def _last_map(network: Network) -> _Map | None:
    """The last layer that gives a map of the features: what stands before the head."""
    found = None
    for node in network.nodes:
        if node.op.name in ("Linear", "Flatten") or isinstance(node.op, AdaptiveAvgPool2d):
            break
        if len(network.output_shape(node)) == 4:
            found = _Map(node.label or node.name, network.output_shape(node))
    return found


def _head(reference: Network, other: Network) -> list[str]:
    """What the layers behind the features make of another map: a pool that hides it, or an FC layer that cannot take
    it.
    """
    for node in other.nodes:
        shape = other.input_shapes(node)[0]
        if isinstance(node.op, AdaptiveAvgPool2d):
            sides = pair_text(node.op.sides(shape[2:]))
            return [f"{node.title} hides it: it makes {sides} a side of {pair_text(shape[2:])}"]
        if node.op.name == "Linear":
            expected = next((n for n in reference.nodes if n.name == node.name), None)
            if expected is not None and reference.input_shapes(expected)[0] != shape:
                want = count_text(reference.input_shapes(expected)[0][-1])
                return [f"{node.title} meets {count_text(shape[-1])} features where it expects {want}"]
    return []


def _sizes(reference: Network, other: Network) -> list[str]:
    """Parameters, MACs, receptive field and training memory, where they are otherwise."""
    said = []
    params = _params(other) - _params(reference)
    if params:
        said.append(f"{count_text(abs(params))} parameters {'more' if params > 0 else 'fewer'}")
    macs, wanted = total_macs(costs(other)), total_macs(costs(reference))
    if macs is not None and wanted is not None and macs != wanted:
        said.append(f"{short_count(abs(macs - wanted), 'MACs')} {'more' if macs > wanted else 'fewer'}")
    said += _field(reference, other)
    memory = training_peak(other, 1, FLOAT32) - training_peak(reference, 1, FLOAT32)
    if memory:
        said.append(f"{bytes_text(abs(memory))} {'more' if memory > 0 else 'less'} to train at batch 1")
    return said


def _params(network: Network) -> int:
    return sum(numel(parameter.shape) for parameter in network.parameters())


def _field(reference: Network, other: Network) -> list[str]:
    ours, theirs = _last_map(other), _last_map(reference)
    if ours is None or theirs is None or ours.title != theirs.title:
        return []
    fields = [_field_of(network, theirs.title) for network in (other, reference)]
    if None in fields or fields[0] == fields[1]:
        return []
    return [f"a receptive field of {fields[0]} instead of {fields[1]} pixels at {theirs.title}"]


def _field_of(network: Network, title: str) -> str | None:
    fields = receptive_fields(network)
    node = next(node for node in network.nodes if title in (node.label, node.name))
    field = fields[node.name]
    return pair_text(field.size) if field else None
