"""What follows from one difference, worked out by making that one change to the reference and looking again.

Several mistakes in one model blur each other; each is therefore judged alone, on a reference that is otherwise right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.analysis.cost import costs, total_macs
from vggscope.analysis.memory.simulate import training_peak
from vggscope.analysis.receptive_field.view import receptive_fields
from vggscope.diffing.locate import LayerPair
from vggscope.errors import ShapeError
from vggscope.graph import INPUT, Network, Node, Parameter
from vggscope.ops.base import Op, Shape, infer_output_shape, numel
from vggscope.ops.pooling import AdaptiveAvgPool2d
from vggscope.record import record
from vggscope.units import bytes_text, count_text, pair_text, shape_text, short_count

FLOAT32 = 4

NO_LONGER_RUNS = "it no longer runs"

_EXTRA = " (extra)"


def edited(ours: Network, reference: Network, edits: tuple[LayerPair, ...], behind: dict[str, str]) -> Network:
    """The reference with these layers exchanged for ours, left out, or ours put in.

    `behind` names, for each of our layers, the layer of the reference at whose place it stands. Every width is then
    made to follow from what stands before, as somebody writing the model would.
    """
    exchanged, gone, extra = _by_place(edits, behind, ours.side_outputs)
    first = any(other is not None and mine is not None and other.inputs == (INPUT,) for mine, other in edits)
    reads: dict[str, str] = {}
    """What is read in the place of a node, or of the input: what a node that is gone read, or one that is put in."""
    nodes = list(_put_in(extra, INPUT, reads))
    for node in reference.nodes:
        inputs = tuple(reads.get(name, name) for name in node.inputs)
        if node.name in gone:
            reads[node.name] = inputs[0] if inputs else INPUT
        else:
            nodes.append(replace(node, op=exchanged.get(node.name, node.op), inputs=inputs))
        nodes += _put_in(extra, node.name, reads)
    size = (*ours.input_shape[:2], *reference.input_shape[2:]) if first else reference.input_shape
    output = reads.get(reference.output, reference.output) if reference.output is not None else None
    return _refitted(replace(reference, input_shape=size, output=output), nodes)


def _by_place(
    edits: tuple[LayerPair, ...], behind: dict[str, str], aside: frozenset[str]
) -> tuple[dict[str, Op], set[str], dict[str, list[Node]]]:
    """The edits by the layer of the reference that they are about: its other op, that it goes, ours put in behind.

    What ours works out aside is read by nothing, and put in nowhere.
    """
    exchanged: dict[str, Op] = {}
    gone: set[str] = set()
    extra: dict[str, list[Node]] = {}
    for mine, other in edits:
        if mine is not None and other is not None:
            exchanged[other.name] = mine.op
        elif other is not None:
            gone.add(other.name)
        elif mine is not None and mine.name not in aside:
            extra.setdefault(behind[mine.name] if mine.inputs else INPUT, []).append(mine)
    return exchanged, gone, extra


def _put_in(extra: dict[str, list[Node]], name: str, reads: dict[str, str]) -> Iterator[Node]:
    """Those of ours that stand behind a node, one behind the other; its readers are to read the last."""
    for node in extra.get(name, ()):
        put_in = node.name + _EXTRA
        inputs = (reads.get(name, name),) if node.inputs else ()
        yield replace(node, name=put_in, inputs=inputs, named_until="")  # which names a layer of ours
        if node.inputs:
            reads[name] = put_in


@record
class _Map:
    """A layer by its name and as messages call it, and the shape of what it gives."""

    name: str
    title: str
    shape: Shape


@record
class Figures:
    """What is compared of two networks as wholes. `field` is the receptive field at the last map, as text."""

    network: Network
    params: int
    macs: int | None
    last_map: _Map | None
    field: str | None
    training: int


def figures(network: Network) -> Figures:
    """A network's figures; raises ShapeError where it does not run."""
    last = _last_map(network)
    params = sum(numel(parameter.shape) for parameter in network.parameters())
    field = _field_at(network, last) if last else None
    return Figures(network, params, total_macs(costs(network)), last, field, training_peak(network, 1, FLOAT32))


def consequences(reference: Figures, other: Network, name: str, whole: bool = True) -> tuple[str, ...]:
    """In words: what is otherwise at the layer `name`, behind it, and in total, where `other` stands for the
    reference. `whole` is false where our own network breaks off, so that nothing is known of its head.
    """
    try:
        ours = figures(other)
    except ShapeError as error:
        return (f"{NO_LONGER_RUNS}: {error.problem}",)
    return (*_shapes(reference, ours, name, whole), *_sizes(reference, ours))


def own_figures(network: Network, nodes: list[Node]) -> tuple[str, ...]:
    """In words: what layers that one network alone has are and cost there, where they join what no chain holds."""
    found = costs(network)
    params = sum(found[node.name].params for node in nodes)
    macs = [found[node.name].macs for node in nodes]
    said = [f"{count_text(params)} parameters more"] if params else []
    if any(macs) and None not in macs:
        said.append(f"{short_count(sum(count or 0 for count in macs), 'MACs')} more")
    return tuple(said)


def _refitted(reference: Network, nodes: list[Node]) -> Network:
    """The nodes with every width made to follow; as they are from where they do not fit."""
    shapes = {INPUT: reference.input_shape}
    fitted = []
    try:
        for node in nodes:
            inputs = [shapes[name] for name in node.inputs]
            op = node.op.fitted(inputs[0]) if len(inputs) == 1 else node.op
            shapes[node.name] = infer_output_shape(op, *inputs)
            fitted.append(replace(node, op=op, parameters=_parameters(node, op.parameters())))
    except ShapeError:
        return replace(reference, nodes=tuple(nodes))
    return replace(reference, nodes=tuple(fitted))


def _parameters(node: Node, shapes: dict[str, Shape]) -> tuple[Parameter, ...]:
    return tuple(Parameter(f"{node.name}.{name}", shape) for name, shape in shapes.items())


def _shapes(reference: Figures, ours: Figures, name: str, whole: bool) -> list[str]:
    said = []
    shapes, expected = ours.network.shapes, reference.network.shapes
    if name in shapes and name in expected and shapes[name] != expected[name]:
        said.append(_side_by_side(shapes[name], expected[name], ""))
    here, there = ours.last_map, reference.last_map
    if here and there and here.shape != there.shape:
        if here.title == there.title != name:
            said.append(_side_by_side(here.shape, there.shape, f" after {there.title}"))
        if whole:
            said += _head(reference.network, ours.network, name)
    last, wanted = ours.network.end, reference.network.end
    out, meant = shape_text(shapes[last]), shape_text(expected[wanted])
    if out != meant and wanted != name:
        said.append(f"{out} comes out instead of {meant}")
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
            found = _Map(node.name, node.label or node.name, network.output_shape(node))
    return found


def _head(reference: Network, other: Network, name: str) -> list[str]:
    """What the layers behind the features make of another map than `name` leads to: a pool that hides it, or an FC
    layer that cannot take it.
    """
    for node in other.nodes:
        shape = other.input_shapes(node)[0]
        if isinstance(node.op, AdaptiveAvgPool2d) and node.name != name:
            sides = pair_text(node.op.sides(shape[2:]))
            return [f"{node.title} hides it: it makes {sides} a side of {pair_text(shape[2:])}"]
        if node.op.name == "Linear":
            expected = reference.by_name.get(node.name)
            if expected is not None and reference.input_shapes(expected)[0] != shape:
                want = count_text(reference.input_shapes(expected)[0][-1])
                return [f"{node.title} meets {count_text(shape[-1])} features where it expects {want}"]
    return []


def _sizes(reference: Figures, ours: Figures) -> list[str]:
    """Parameters, MACs, receptive field and training memory, where they are otherwise."""
    said = []
    params = ours.params - reference.params
    if params:
        said.append(f"{count_text(abs(params))} parameters {'more' if params > 0 else 'fewer'}")
    if ours.macs is not None and reference.macs is not None and ours.macs != reference.macs:
        macs = ours.macs - reference.macs
        said.append(f"{short_count(abs(macs), 'MACs')} {'more' if macs > 0 else 'fewer'}")
    here, there = ours.last_map, reference.last_map
    known = ours.field is not None and reference.field is not None
    if known and here and there and here.title == there.title and reference.field != ours.field:
        said.append(f"a receptive field of {ours.field} instead of {reference.field} pixels at {there.title}")
    memory = ours.training - reference.training
    if memory:
        said.append(f"{bytes_text(abs(memory))} {'more' if memory > 0 else 'less'} to train at batch 1")
    return said


def _field_at(network: Network, place: _Map) -> str | None:
    field = receptive_fields(network)[place.name]
    return pair_text(field.size) if field else None
