"""The consequences of one difference: apply it alone to the reference and compare the figures; and advice on it.

Several mistakes in one model blur each other. Each is therefore judged alone, on a reference that is otherwise right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from vggscope.analysis.cost import costs, total_macs
from vggscope.analysis.memory.simulate import training_peak
from vggscope.analysis.receptive_field.view import receptive_fields
from vggscope.diffing.locate import LayerPair, LocatedDifference, last_weighted
from vggscope.diffing.sharing import corresponding, is_sharing, shared_weights
from vggscope.errors import ShapeError, option
from vggscope.graph import INPUT, Network, Node, Parameter, one_input
from vggscope.ops.base import Op, Shape, infer_output_shape, numel
from vggscope.record import record
from vggscope.units import bytes_text, count_text, kernel_text, pair_text, shape_text, short_count

NO_LONGER_RUNS = "it no longer runs"

_EXTRA = " (extra)"

_CHANNELS_FIRST = (0, 3, 1, 2)
"""The permutation from channels last, as in Keras and image files, to channels first."""


@record
class Counterparts:
    """What of the reference stands for our layers and weights.

    `positions` names, for each of our layers, the reference's layer at whose place or after which it belongs. `weights`
    has the reference's parameter for each of ours, by name, and `relocated` the reference's layer for each of ours that
    is at another position.
    """

    positions: dict[str, str]
    weights: dict[str, Parameter]
    relocated: dict[str, Node]


def apply_difference(
    ours: Network, reference: Network, located: Sequence[LocatedDifference], counterparts: Counterparts
) -> Network:
    """The reference with the layers of these differences as in ours: exchanged, left out or inserted, or sharing their
    weights. All widths are adapted to the layers before, as somebody who edits the model does.
    """
    sharing = [one for one in located if is_sharing(one.difference)]
    pairs = tuple(pair for one in located if one not in sharing for pair in one.pairs)
    changed = _with_pairs(ours, reference, pairs, counterparts)
    for one in sharing:
        shared = shared_weights(one, counterparts.weights)
        nodes = (replace(node, parameters=shared.get(node.name, node.parameters)) for node in changed.nodes)
        changed = replace(changed, nodes=tuple(nodes))
    return changed


def _with_pairs(ours: Network, reference: Network, pairs: tuple[LayerPair, ...], counterparts: Counterparts) -> Network:
    """The reference with these layers as in ours: exchanged, left out or inserted."""
    exchanged, removed, inserted = _by_kind(pairs, counterparts, ours.side_outputs)
    reads_input = any(other is not None and mine is not None and other.inputs == (INPUT,) for mine, other in pairs)
    # Of several inputs, one may have the name that a single one has.
    is_first = reads_input and len(reference.inputs) == 1
    replaced: dict[str, str] = {}
    """The node to read in place of a node or the input: the input of a removed node, or an inserted node."""
    nodes = list(_inserted_after(INPUT, inserted, replaced))
    for node in reference.nodes:
        inputs = tuple(replaced.get(name, name) for name in node.inputs)
        if node.name in removed:
            replaced[node.name] = inputs[0] if inputs else INPUT
        else:
            nodes.append(replace(node, op=exchanged.get(node.name, node.op), inputs=inputs))
        nodes += _inserted_after(node.name, inserted, replaced)
    size = (*ours.input_shape[:2], *reference.input_shape[2:])
    network_inputs = one_input(size) if is_first else reference.inputs
    output = replaced.get(reference.output, reference.output) if reference.output is not None else None
    return _refitted(replace(reference, inputs=network_inputs, output=output), nodes)


def _by_kind(
    pairs: tuple[LayerPair, ...], counterparts: Counterparts, side_outputs: frozenset[str]
) -> tuple[dict[str, Op], set[str], dict[str, list[Node]]]:
    """By the reference's layer: the op that replaces its own, whether it is removed, and our layers inserted after it.

    Our side outputs are inserted nowhere, since nothing reads them.
    """
    exchanged: dict[str, Op] = {}
    removed: set[str] = set()
    inserted: dict[str, list[Node]] = {}
    for mine, other in pairs:
        if mine is not None and other is not None:
            exchanged[other.name] = mine.op
        elif other is not None:
            removed.add(other.name)
        elif mine is not None and mine.name not in side_outputs:
            place = counterparts.positions[mine.name] if mine.inputs else INPUT
            inserted.setdefault(place, []).append(_with_reference_weights(mine, counterparts))
    return exchanged, removed, inserted


def _with_reference_weights(mine: Node, counterparts: Counterparts) -> Node:
    """An inserted layer with the reference's weights: those of its counterpart if it is relocated, else those that it
    shares with a layer that has a counterpart.
    """
    other, weights = counterparts.relocated.get(mine.name), counterparts.weights
    if other is not None:
        weights = {ours.name: theirs for ours, theirs in corresponding(mine, other)}
    own = tuple(weights.get(p.name, replace(p, name=p.name + _EXTRA)) for p in mine.parameters)
    return replace(mine, parameters=own)


def _inserted_after(name: str, inserted: dict[str, list[Node]], replaced: dict[str, str]) -> Iterator[Node]:
    """Our layers after this node, as a chain; its readers are redirected to the last one."""
    for node in inserted.get(name, ()):
        new_name = node.name + _EXTRA
        inputs = (replaced.get(name, name),) if node.inputs else ()
        yield replace(node, name=new_name, inputs=inputs, named_until="")  # named_until is a layer of ours
        if node.inputs:
            replaced[name] = new_name


@record
class Figures:
    """The figures of a whole network that are compared.

    `last_map` is the last layer before the head, `receptive_field` that of one of its units as a text.
    `training_bytes` is None where the ops' rules do not predict it: no torch runs a reference with one difference.
    """

    network: Network
    params: int
    macs: int | None
    last_map: Node | None
    receptive_field: str | None
    training_bytes: int | None


def figures(network: Network) -> Figures:
    """A network's figures. Raises ShapeError if it does not run."""
    last = _last_map(network)
    params = sum(numel(parameter.shape) for parameter in network.parameters())
    field = receptive_fields(network)[last.name] if last else None
    size = pair_text(field.size) if field else None
    # In a chain of layers, a function may lack an input, such as a mask beside a map.
    is_whole = all(node.op.least_inputs <= len(node.inputs) for node in network.nodes)
    training = training_peak(network, 1) if is_whole and network.predicts_memory else None
    return Figures(network, params, total_macs(costs(network)), last, size, training)


@record
class Consequences:
    """What results from one difference: in words, and by how many parameters, None if that is not known."""

    texts: tuple[str, ...]
    params: int | None


def consequences(
    reference: Figures, changed: Network, name: str, has_head: bool = True, missing: int = 0
) -> Consequences:
    """How `changed`, the reference with one difference, differs from it at the layer `name`, after it, and in total.

    `has_head` is false if our own network fails before its head. `missing` is the number of parameters of the
    layers that it lacks.
    """
    try:
        ours = figures(changed)
    except ShapeError as error:
        return Consequences((f"{NO_LONGER_RUNS}: {error.problem}",), None)
    texts = (*_shapes(reference, ours, name, has_head), *_sizes(reference, ours, missing))
    return Consequences(texts, ours.params - reference.params)


def added_figures(network: Network, nodes: list[Node]) -> Consequences:
    """The parameters and MACs of inserted layers with several inputs, which cannot be inserted in a chain."""
    by_layer = costs(network)
    params = sum(by_layer[node.name].params for node in nodes)
    macs = [by_layer[node.name].macs for node in nodes]
    texts = [f"{count_text(params)} parameters more"] if params else []
    if any(macs) and None not in macs:
        texts.append(f"{short_count(sum(count or 0 for count in macs), 'MACs')} more")
    return Consequences(tuple(texts), params)


def added_params(reference: Network, changed: Network) -> int:
    """How many parameters more `changed` has."""
    return sum(numel(p.shape) for p in changed.parameters()) - sum(numel(p.shape) for p in reference.parameters())


def _refitted(reference: Network, nodes: list[Node]) -> Network:
    """The reference with these nodes, their widths adapted; unchanged if they do not fit."""
    shapes = {tensor.name: tensor.shape for tensor in reference.inputs}
    fitted = []
    try:
        for node in nodes:
            inputs = [shapes[name] for name in node.inputs]
            op = node.op.fitted(inputs[0]) if len(inputs) == 1 else node.op
            shapes[node.name] = infer_output_shape(op, *inputs)
            parameters = _parameters(node, op)
            is_same = op is node.op and parameters is node.parameters
            fitted.append(node if is_same else replace(node, op=op, parameters=parameters))
    except ShapeError:
        return replace(reference, nodes=tuple(nodes))
    return replace(reference, nodes=tuple(fitted))


def _parameters(node: Node, op: Op) -> tuple[Parameter, ...]:
    """The parameters of a node with this op: its own, which other nodes may share, if they have the op's sizes.

    A constant that it reads is its own too.
    """
    shapes = op.parameters()
    fits = tuple(shapes.values()) == tuple(parameter.shape for parameter in node.parameters)
    if (not shapes and not node.op.parameters()) or fits:
        return node.parameters
    names = [parameter.name for parameter in node.parameters]
    if len(names) != len(shapes):
        names = [f"{node.name}.{name}" for name in shapes]
    # Layers that share a weight share it in the other size too.
    return tuple(Parameter(f"{name} of {shape}", shape) for name, shape in zip(names, shapes.values()))


def _shapes(reference: Figures, ours: Figures, name: str, has_head: bool) -> list[str]:
    """The output shapes that differ: at the layer itself, before and in the head, at the end."""
    texts = []
    shapes, expected = ours.network.shapes, reference.network.shapes
    if name in shapes and name in expected and shapes[name] != expected[name]:
        texts.append(_instead(shapes[name], expected[name], ""))
    here, there = ours.last_map, reference.last_map
    if here and there and shapes[here.name] != expected[there.name]:
        title = _short_title(there)
        if _short_title(here) == title != name:
            texts.append(_instead(shapes[here.name], expected[there.name], f" after {title}"))
        if has_head:
            texts += _head(reference.network, ours.network, name)
    end = reference.network.end
    result, wanted = shapes[ours.network.end], expected[end]
    if result != wanted and end != name:
        texts.append(f"the output is {_texts(result, wanted)}")
    return texts


def _instead(ours: Shape, theirs: Shape, where: str) -> str:
    """Two shapes in words; of square maps that differ in nothing else the sides alone."""
    if len(ours) == len(theirs) == 4 and ours[:2] == theirs[:2] and ours[2] == ours[3] and theirs[2] == theirs[3]:
        return f"each side is {ours[2]} instead of {theirs[2]}{where}"
    return f"{_texts(ours, theirs)}{where}"


def _texts(ours: Shape, theirs: Shape) -> str:
    """Two different shapes: without the batch axis, unless they differ in nothing else."""
    texts = [shape_text(ours), shape_text(theirs)]
    if texts[0] == texts[1]:
        texts = [kernel_text(ours), kernel_text(theirs)]
    return f"{texts[0]} instead of {texts[1]}"


def _short_title(node: Node) -> str:
    return node.label or node.name


def _last_map(network: Network) -> Node | None:
    """The last layer before the head whose output is a feature map."""
    last = None
    for node in network.nodes:
        axes = len(network.output_shape(node))
        if node.op.family == "linear" or node.op.is_adaptive or (node.op.is_layout and axes < 4):
            break
        if axes == 4:
            last = node
    return last


def _head(reference: Network, ours: Network, name: str) -> list[str]:
    """The effect of another feature map on the head: an adaptive pool that resizes it, or an FC layer that does not
    fit.
    """
    for node in ours.nodes:
        shape = ours.input_shapes(node)[0]
        if node.op.is_adaptive and node.name != name:
            sides = pair_text(ours.output_shape(node)[2:])
            return [f"{node.title} hides it: it resizes {pair_text(shape[2:])} to {sides}"]
        if node.op.family == "linear":
            expected = reference.by_name.get(node.name)
            if expected is not None and reference.input_shapes(expected)[0] != shape:
                wanted = reference.input_shapes(expected)[0]
                if shape[-1] == wanted[-1]:
                    return [f"{node.title} gets {kernel_text(shape)} instead of {kernel_text(wanted)}"]
                return [f"{node.title} gets {count_text(shape[-1])} features instead of {count_text(wanted[-1])}"]
    return []


def _sizes(reference: Figures, ours: Figures, missing: int) -> list[str]:
    """The parameters, MACs, receptive field and training memory that differ."""
    texts = []
    params = ours.params - reference.params
    if missing and missing + params:
        # Layers after a missing one read another width and have other weights: both counts say what happens.
        texts.append(f"{count_text(missing)} parameters are missing")
        change = f"{count_text(abs(missing + params))} {'more' if missing + params > 0 else 'fewer'}"
        texts.append(f"layers after it read another width and have {change}")
    elif params:
        texts.append(f"{count_text(abs(params))} parameters {'more' if params > 0 else 'fewer'}")
    if ours.macs is not None and reference.macs is not None and ours.macs != reference.macs:
        macs = ours.macs - reference.macs
        texts.append(f"{short_count(abs(macs), 'MACs')} {'more' if macs > 0 else 'fewer'}")
    here, there = ours.last_map, reference.last_map
    field, expected = ours.receptive_field, reference.receptive_field
    if field and expected and here and there and _short_title(here) == _short_title(there) and field != expected:
        texts.append(f"a receptive field of {field} instead of {expected} pixels at {_short_title(there)}")
    needed, expected_bytes = ours.training_bytes, reference.training_bytes
    if needed is not None and expected_bytes is not None and needed != expected_bytes:
        memory = needed - expected_bytes
        texts.append(f"{bytes_text(abs(memory))} {'more' if memory > 0 else 'less'} to train at batch 1")
    return texts


def advice(ours: Network, reference: Network, pairs: tuple[LayerPair, ...]) -> tuple[str, ...]:
    """Advice on one difference, each sentence once: what somebody may not know about such a layer."""
    mine, other = classes = (last_weighted(ours), last_weighted(reference))
    if mine and other and classes in pairs and _width(mine) != _width(other):
        return (f"if another number of classes is intended: {option('ignore', 'classes')}",)
    missing = pairs[0][1] if pairs and all(mine is None for mine, _ in pairs) else None
    texts = list(_on_missing(reference, missing)) if missing else []
    return tuple(dict.fromkeys((*texts, *(text for pair in pairs for text in _on(ours, *pair)))))


def _width(node: Node) -> int:
    return node.op.parameters()["weight"][0]


def _on(ours: Network, mine: Node | None, other: Node | None) -> Iterator[str]:
    if mine is None:
        return
    readers = [ours.by_name[name].op for name in ours.consumers[mine.name]]
    if other is not None:
        if (
            getattr(other.op, "bias", False)
            and not getattr(mine.op, "bias", True)
            and [op.label_prefix for op in readers] == ["bn"]
        ):
            yield "the batch norm after it subtracts the bias and adds its own: nothing is lost without it"
    elif mine.op.label_prefix == "prob" and not readers:
        yield "torch.nn.CrossEntropyLoss takes the logits and applies a softmax itself; with two it learns slowly"
    elif mine.op.permutation == _CHANNELS_FIRST and mine.inputs == (INPUT,):
        batch, channels, *sides = ours.input_shape
        last = shape_text((batch, *sides, channels))
        yield f"it expects the channels last, {last}; torch has the channels first and needs no permute"
    elif mine.op.permutation and len(readers) == 1 and readers[0].is_layout:
        yield "the head reads the same values in another order: the reference's weights do not fit it unchanged"


def _on_missing(reference: Network, other: Node) -> Iterator[str]:
    before_it = reference.by_name.get(other.inputs[0]) if len(other.inputs) == 1 else None
    if other.op.folding and before_it and before_it.op.is_convolution:
        yield f"at evaluation {_short_title(before_it)} can do its work: {other.op.folding}"
    if not other.op.is_pointwise:
        return
    before = _nearest_weights(reference, other, lambda node: node.inputs)
    after = _nearest_weights(reference, other, lambda node: reference.consumers[node.name])
    if before and after:
        yield f"without it {before} and {after} together are one linear layer: two can do no more than one"


def _nearest_weights(network: Network, node: Node, step: Callable[[Node], tuple[str, ...]]) -> str | None:
    """The nearest layer with weights in one direction, if only linear ops lie in between."""
    names = step(node)
    while len(names) == 1 and names[0] != INPUT:
        node = network.by_name[names[0]]
        if node.op.is_weight_layer:
            return _short_title(node)
        if not node.op.is_affine:
            return None
        names = step(node)
    return None
