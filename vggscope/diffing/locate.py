"""Each place where two aligned networks differ, with its kind, its effect and its message."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vggscope.diffing.align import Pair, align
from vggscope.diffing.effects import (
    changes,
    effect_of_change,
    effect_of_change_in_call,
    effect_of_presence,
    proof_of,
)
from vggscope.diffing.result import IGNORABLE, Change, Difference
from vggscope.diffing.wording import arguments_text, constants_text, op_text, tensors_text, value_text
from vggscope.errors import ShapeError, unknown
from vggscope.graph import INPUT, Network, Node
from vggscope.record import record

LayerPair = tuple[Node | None, Node | None]
"""Our layer and its counterpart in the reference; None on a side that has none."""


def names_of(pair: LayerPair) -> tuple[str | None, str | None]:
    """The names of both layers."""
    mine, other = pair
    return mine.name if mine else None, other.name if other else None


@record
class LocatedDifference:
    """A difference with the layers that it is about."""

    difference: Difference
    pairs: tuple[LayerPair, ...]


@record
class AlignedNetworks:
    """Two networks and their alignment. `pairs` and `is_cheapest` are those of an Alignment."""

    ours: Network
    reference: Network
    pairs: tuple[Pair, ...]
    is_cheapest: bool = True

    def layer_pairs(self) -> Iterator[LayerPair]:
        """The pairs with the layers themselves."""
        for i, j in self.pairs:
            yield (None if i is None else self.ours.nodes[i]), (None if j is None else self.reference.nodes[j])

    def up_to_failure(self) -> AlignedNetworks:
        """The part of the alignment before the layer at which our forward pass failed.

        The reference's layers between our last layer that ran and the counterpart of the failed one are missing in
        ours; its later layers were never compared.
        """
        last = self._last_of_ours()
        failed = self._counterpart_of_failed()
        end = next((k for k, (_, j) in enumerate(self.pairs[last + 1 :]) if j is not None and j == failed), 0)
        return AlignedNetworks(self.ours, self.reference, self.pairs[: last + 1 + end], self.is_cheapest)

    def failed_pair(self) -> LayerPair:
        """The layer at which our forward pass failed, and its counterpart: one that runs, or else the layer at which
        the reference fails too.
        """
        position = self._counterpart_of_failed()
        ours, theirs = self.ours.failed, self.reference.failed
        if position is None:
            return ours, theirs if ours and theirs and ours.op.name == theirs.op.name else None
        return ours, self.reference.nodes[position]

    def _last_of_ours(self) -> int:
        return max((k for k, (i, _) in enumerate(self.pairs) if i is not None), default=-1)

    def _counterpart_of_failed(self) -> int | None:
        """The reference's first layer of the failed layer's kind, after those that ours reached."""
        failed, nodes = self.ours.failed, self.reference.nodes
        if failed is None:
            return None
        rest = (j for _, j in self.pairs[self._last_of_ours() + 1 :] if j is not None)
        return next((j for j in rest if nodes[j].op.name == failed.op.name), None)

    def positions_in_reference(self) -> dict[str, str]:
        """For each of our layers its counterpart, or the reference's layer after which it belongs.

        Missing layers directly before an inserted layer come first, except layout ops.
        """
        positions = _paired_inputs(self.ours, self.reference)
        missing: set[str] = set()
        for ours, theirs in self.layer_pairs():
            if ours is None:
                missing.update({theirs.name} if theirs and not theirs.op.is_layout else ())
                continue
            if theirs is not None:
                positions[ours.name] = theirs.name
                continue
            position = _of_first_input(positions, ours)
            while len(readers := self.reference.consumers[position]) == 1 and readers[0] in missing:
                (position,) = readers
            positions[ours.name] = position
        return positions

    def nearest_counterparts(self) -> tuple[dict[str, str], dict[str, str]]:
        """For each layer, of ours and of the reference, the reference's layer that is paired with it, or else with the
        nearest layer before it.
        """
        ours, theirs = _paired_inputs(self.ours, self.reference), _paired_inputs(self.reference, self.reference)
        for mine, other in self.layer_pairs():
            if mine is not None:
                ours[mine.name] = other.name if other else _of_first_input(ours, mine)
            if other is not None:
                theirs[other.name] = other.name if mine else _of_first_input(theirs, other)
        return ours, theirs


def align_networks(ours: Network, reference: Network) -> AlignedNetworks:
    """Both networks with their cheapest alignment."""
    pairs, is_cheapest = align(ours, reference)
    if ours.failure is not None:
        # Our layers without a counterpart ran before the failure; the reference's later layers were never reached.
        end = max((k for k, pair in enumerate(pairs) if None not in pair), default=-1) + 1
        pairs[end:] = sorted(pairs[end:], key=lambda pair: pair[0] is None)
    return AlignedNetworks(ours, reference, tuple(pairs), is_cheapest)


def _paired_inputs(ours: Network, reference: Network) -> dict[str, str]:
    """For each of our inputs the reference's at the same place, else its first."""
    others = [tensor.name for tensor in reference.inputs]
    return {tensor.name: others[i] if i < len(others) else others[0] for i, tensor in enumerate(ours.inputs)}


def _of_first_input(values: dict[str, str], node: Node) -> str:
    return values[node.inputs[0]] if node.inputs else next(iter(values.values()))


def locate_differences(aligned: AlignedNetworks) -> Iterator[LocatedDifference]:
    """Every difference, in execution order."""
    ours, theirs = aligned.nearest_counterparts()
    if aligned.ours.failure is not None:
        aligned = aligned.up_to_failure()
    for mine, other in aligned.layer_pairs():
        if mine is not None and other is not None:
            inputs = [ours[name] for name in mine.inputs], [theirs[name] for name in other.inputs]
            difference = _changed_or_renamed(aligned, mine, other, inputs)
        elif mine is not None:
            difference = _inserted(aligned, mine, _of_first_input(ours, mine))
        else:
            assert other is not None
            difference = _missing(aligned, other)
        if difference is not None:
            yield LocatedDifference(difference, ((mine, other),))


def without_ignored(
    differences: Iterable[LocatedDifference], ignore: frozenset[str], aligned: AlignedNetworks
) -> Iterator[LocatedDifference]:
    """The differences that count. Raises OptionError for a name that is not in IGNORABLE."""
    unknown_name = min(ignore - IGNORABLE.keys(), default=None)
    if unknown_name is not None:
        raise unknown("difference", unknown_name, IGNORABLE, "ignore")
    classes = (last_weighted(aligned.ours), last_weighted(aligned.reference)) if "classes" in ignore else None
    for located in differences:
        difference, (pair, *_) = located.difference, located.pairs
        if difference.kind == "renamed" and "names" in ignore:
            continue
        if "dropout" in ignore and any(node and node.op.is_dropout for node in pair):
            continue
        attributes = ignore & {"inplace", "bias"}
        if pair == classes:
            attributes |= {"out_features", "out_channels"}
        left = tuple(change for change in difference.changes if change.attribute not in attributes)
        if left or not difference.changes:
            yield replace(located, difference=replace(difference, changes=left))
            continue
        mine, other = pair
        # A change that is ignored may change the keys: only another name or module is a rename.
        if "names" not in ignore and mine and other and (mine.name, mine.module) != (other.name, other.module):
            yield replace(located, difference=_named_differently(mine, other))


def last_weighted(network: Network) -> Node | None:
    """The last layer with weights, whose width is the number of classes."""
    return next((node for node in reversed(network.nodes) if node.op.is_weight_layer), None)


def failure_difference(aligned: AlignedNetworks) -> LocatedDifference:
    """The failure of our forward pass as a difference: a change of the failed layer, or that it does not run."""
    mine, other = aligned.failed_pair()
    changed: tuple[Change, ...] = ()
    if mine is not None and other is not None:
        changed = changes(mine.op, other.op) or _width_change(mine, other)
    text = f"{_changes_text(changed)}{_there(mine, other)}" if changed and mine and other else "it does not run"
    both_fail = other is not None and other is aligned.reference.failed
    if both_fail and not changed:
        text += ", nor does the reference's"
    label = (other.label if other else "") or (mine.label if mine else "")
    title = f"{replace(mine, label=mine.label or label).title}: " if mine else ""
    names = mine.name if mine else None, other.name if other and (changed or both_fail) else None
    difference = Difference("changed", *names, "shape", f"{title}{text}", label, changed, (str(aligned.ours.failure),))
    return LocatedDifference(difference, ())


def _width_change(mine: Node, other: Node) -> tuple[Change, ...]:
    """The input width, for two ops that differ in nothing else."""
    field = other.op.width_field
    return (Change(field, getattr(mine.op, field), getattr(other.op, field)),) if mine.op != other.op else ()


def _changed_or_renamed(
    aligned: AlignedNetworks, mine: Node, other: Node, inputs: tuple[list[str], list[str]]
) -> Difference | None:
    """The difference between two paired layers, if any. `inputs` are the reference's layers that either one reads."""
    changed = changes(mine.op, other.op)
    effect = _effect_of_change(aligned, mine, other) if changed else "function"
    if effect == "shape" and mine.op.is_layout and other.op.is_layout:
        # A different input shape has another cause: compare two layout ops on the input that ours has.
        effect = _effect_on_our_input(aligned, mine, other)
    elif effect == "none" and mine.op.is_layout and other.op.is_layout and _mixes_batch(aligned.ours, mine):
        effect = _effect_on_our_input(aligned, mine, other)
    if effect == "none" and mine.op.is_layout and other.op.is_layout and _joins_batch(aligned, mine, other):
        effect = "shape"
    if not changed and other.inputs[:1] == (INPUT,) and (width := _width_change(mine, other)):
        # Elsewhere the width follows from the layers before. Here the network's input itself is another.
        changed, effect = width, "shape"
    is_any_order = mine.op.commutes and other.op.commutes
    reads_constants = [change.attribute for change in changed] == ["constants"]
    are_other = sorted(inputs[0]) != sorted(inputs[1]) if is_any_order else inputs[0] != inputs[1]
    if are_other and not (reads_constants and set(inputs[0]) == set(inputs[1])):
        changed, effect = (*changed, Change("inputs", *map(tuple, inputs))), "function"
    if not changed and (values := _values_change(mine, other)):
        changed, effect = values, "function"
    if changed:
        text = f"{_changes_text(changed)}{_there(mine, other)}"
        proof = _proof(aligned, mine, other) if effect == "none" and changed[0].attribute == "op" else ""
        text += f"; the same function: {proof}" if proof else ""
        return _difference("changed", mine, other, effect, text, changed)
    is_same = (mine.name, mine.module, _keys(mine)) == (other.name, other.module, _keys(other))
    return None if is_same else _named_differently(mine, other)


def _effect_of_change(aligned: AlignedNetworks, mine: Node, other: Node) -> str:
    shapes = aligned.ours.input_shapes(mine), aligned.reference.input_shapes(other)
    outputs = aligned.ours.output_shape(mine), aligned.reference.output_shape(other)
    if len(shapes[0]) == len(shapes[1]) == 1:
        return effect_of_change(mine.op, other.op, shapes[1][0], outputs[1])
    return effect_of_change_in_call(mine.op, other.op, shapes, outputs)


def _proof(aligned: AlignedNetworks, mine: Node, other: Node) -> str:
    """Why two ops of one input each compute the same, in words; empty if their names tell."""
    sides = ((mine, aligned.ours), (other, aligned.reference))
    proofs = [proof_of(node.op, network.input_shapes(node)[0]) for node, network in sides if len(node.inputs) == 1]
    return "; ".join(dict.fromkeys(filter(None, proofs)))


def _values_change(mine: Node, other: Node) -> tuple[Change, ...]:
    """The known values that two equal ops compute with, if they differ."""
    sides = [tuple(value.text for value in node.constants) for node in (mine, other)]
    if len(sides[0]) != len(sides[1]):
        return ()
    return tuple(Change("values", a, b) for a, b in zip(*sides) if a and b and a != b)


def _effect_on_our_input(aligned: AlignedNetworks, mine: Node, other: Node) -> str:
    """The effect of a layout op that is another one, on the input that ours has; the reference's may not take that."""
    (own_shape,) = aligned.ours.input_shapes(mine)
    try:
        output = other.op.output_shape(own_shape)
    except ShapeError:
        return "shape"
    return effect_of_change(mine.op, other.op, own_shape, output)


def _mixes_batch(network: Network, node: Node) -> bool:
    """Whether a layer makes another number of rows of the samples."""
    shapes = network.input_shapes(node)
    return len(shapes) == 1 and shapes[0][:1] != network.output_shape(node)[:1]


def _joins_batch(aligned: AlignedNetworks, mine: Node, other: Node) -> bool:
    """Whether our layer alone joins the batch axis with another one, as `flatten(0)` does."""
    ours, reference = aligned.ours, aligned.reference
    before = [network.batch_axis_of(node.inputs[0]) for network, node in ((ours, mine), (reference, other))]
    after = ours.batch_axis_of(mine.name), reference.batch_axis_of(other.name)
    return None not in before and after[0] is None and after[1] is not None


def _named_differently(mine: Node, other: Node) -> Difference:
    """The difference in name, module or state-dict keys between two paired layers."""
    return _difference("renamed", mine, other, "none", _renamed_text(mine, other))


def _inserted(aligned: AlignedNetworks, mine: Node, before: str) -> Difference:
    network = aligned.ours
    is_unused = mine.name in network.side_outputs and not mine.parameters
    effect = "none" if is_unused else _effect_of_presence(network, mine)
    text = f"{op_text(mine.op)} is inserted, the reference has none after {title_in(aligned.reference, before)}"
    if is_unused:
        text += "; the output does not depend on it"
    return _difference("inserted", mine, None, effect, text)


def _missing(aligned: AlignedNetworks, other: Node) -> Difference:
    effect = _effect_of_presence(aligned.reference, other)
    before = title_in(aligned.reference, other.inputs[0]) if other.inputs else "the input"
    text = f"{op_text(other.op)} is missing, the reference has it after {before}"
    return _difference("missing", None, other, effect, text)


def _effect_of_presence(network: Network, node: Node) -> str:
    if len(node.inputs) != 1:
        return "function"
    before = network.by_name.get(node.inputs[0])
    return effect_of_presence(node.op, network.input_shapes(node)[0], before.op if before else None)


def _difference(
    kind: str, mine: Node | None, other: Node | None, effect: str, text: str, changed: tuple[Change, ...] = ()
) -> Difference:
    node = mine or other
    assert node is not None
    label = (other.label if other else "") or node.label
    title = replace(node, label=node.label or label).title
    return Difference(kind, *names_of((mine, other)), effect, f"{title}: {text}", label, changed)


def _keys(node: Node) -> list[str]:
    return [parameter.name for parameter in node.parameters]


def _keys_of_one(node: Node, other: Node) -> list[str]:
    return [key for key in _keys(node) if key not in _keys(other)] or _keys(node) or ["no key for it"]


def title_in(network: Network, name: str) -> str:
    """The title of the node with this name, or of the input."""
    return network.by_name[name].title if name in network.by_name else "the input"


def _there(mine: Node, other: Node) -> str:
    label = f", {other.label}" if other.label and mine.label not in ("", other.label) else ""
    return f" (there {other.name}{label})" if mine.name != other.name or label else ""


def _renamed_text(mine: Node, other: Node) -> str:
    if mine.name == other.name and (mine.module is None) != (other.module is None):
        return "a function here, a module there" if mine.module is None else "a module here, a function there"
    if mine.name == other.name:
        ours, theirs = _keys_of_one(mine, other), _keys_of_one(other, mine)
        return f"the state dict has {' and '.join(ours)}, the reference's {' and '.join(theirs)}"
    return f"called {other.name} in the reference"


_WHEN = {"always": "at evaluation too", "training": "in training only"}


def _changes_text(changed: tuple[Change, ...]) -> str:
    first, *others = changed
    if first.attribute == "op":
        names = [str(value).partition(" (")[0] for value in (first.ours, first.reference)]
        if names[0] == names[1]:
            return f"{names[0]} is called with other kinds of arguments than in the reference"
        return f"{first.ours}, the reference has {first.reference}"
    if first.attribute == "active_in":
        return f"acts {_WHEN[str(first.ours)]}, the reference {_WHEN[str(first.reference)]}"
    return "; ".join((_change_text(first, "the reference has"), *(_change_text(change, "there") for change in others)))


def _change_text(change: Change, there: str) -> str:
    """One changed attribute in words; `there` introduces the reference's value."""
    if change.attribute == "values":
        return constants_text(str(change.ours), str(change.reference))
    if change.attribute == "constants" and isinstance(change.ours, tuple) and isinstance(change.reference, tuple):
        return f"reads {tensors_text(change.ours)}, {there.replace('has', 'reads')} {tensors_text(change.reference)}"
    if change.attribute == "arguments_given":
        return f"arguments {arguments_text(change.ours)}, {there} {arguments_text(change.reference)}"
    return f"{change.attribute} {value_text(change.ours)}, {there} {value_text(change.reference)}"
