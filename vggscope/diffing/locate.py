"""Each place where two aligned networks differ, with its kind, its effect and its words."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.diffing.align import Pair, align
from vggscope.diffing.effects import LAYOUT, changes, effect_of_change, effect_of_presence
from vggscope.diffing.result import Change, Difference
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.base import Op
from vggscope.record import record
from vggscope.units import count_text, pair_text

LayerPair = tuple[Node | None, Node | None]
"""Our layer and the reference's for which it stands; None where that side has none."""


@record
class LocatedDifference:
    """A difference with the layers that it is about."""

    difference: Difference
    edits: tuple[LayerPair, ...]


@record
class Aligned:
    """Two networks and which layer of one stands for which of the other; `is_cheapest` as an Alignment's."""

    ours: Network
    reference: Network
    pairs: tuple[Pair, ...]
    is_cheapest: bool = True

    def nodes(self) -> Iterator[LayerPair]:
        """The same with the layers themselves."""
        for i, j in self.pairs:
            yield (None if i is None else self.ours.nodes[i]), (None if j is None else self.reference.nodes[j])

    def reached(self) -> Aligned:
        """Up to where our forward broke off: what the reference has behind the layer that failed was never looked at.

        What it has between the last layer that ran and that one is missing.
        """
        last = max((k for k, (i, _) in enumerate(self.pairs) if i is not None), default=-1)
        failed = _counterpart_of_failed(self, last)
        end = next((k for k, (_, j) in enumerate(self.pairs[last + 1 :]) if j is not None and j == failed), 0)
        return Aligned(self.ours, self.reference, self.pairs[: last + 1 + end], self.is_cheapest)

    def places(self) -> dict[str, str]:
        """For each of our layers the layer of the reference that it stands for, or behind which it stands: what is
        missing just before it comes first, but for what lays a map out.
        """
        found: dict[str, str] = {INPUT: INPUT}
        missing: set[str] = set()
        for mine, other in self.nodes():
            if mine is None:
                missing.update({other.name} if other and other.op.name not in LAYOUT else ())
                continue
            if other is not None:
                found[mine.name] = other.name
                continue
            place = _first(found, mine)
            while len(readers := self.reference.consumers[place]) == 1 and readers[0] in missing:
                (place,) = readers
            found[mine.name] = place
        return found

    def counterparts(self) -> tuple[dict[str, str], dict[str, str]]:
        """For each of our layers, and for each of the reference's, the nearest layer of the reference that is paired:
        itself, or what it reads.
        """
        ours, theirs = {INPUT: INPUT}, {INPUT: INPUT}
        for mine, other in self.nodes():
            if mine is not None:
                ours[mine.name] = other.name if other else _first(ours, mine)
            if other is not None:
                theirs[other.name] = other.name if mine else _first(theirs, other)
        return ours, theirs


def align_networks(ours: Network, reference: Network) -> Aligned:
    """Both, with the cheapest alignment between them."""
    pairs, is_cheapest = align(ours, reference)
    if ours.failure is not None:
        # What ours has no counterpart for ran before it failed; what the reference has there was never reached.
        both = max((k for k, pair in enumerate(pairs) if None not in pair), default=-1) + 1
        pairs[both:] = sorted(pairs[both:], key=lambda pair: pair[0] is None)
    return Aligned(ours, reference, tuple(pairs), is_cheapest)


def _first(found: dict[str, str], node: Node) -> str:
    return found[node.inputs[0]] if node.inputs else INPUT


def find(aligned: Aligned) -> Iterator[LocatedDifference]:
    """Every difference, in the order of execution."""
    ours, theirs = aligned.counterparts()
    if aligned.ours.failure is not None:
        aligned = aligned.reached()
    for mine, other in aligned.nodes():
        if mine is not None and other is not None:
            wiring = [ours[name] for name in mine.inputs], [theirs[name] for name in other.inputs]
            difference = _pair(aligned, mine, other, wiring)
        elif mine is not None:
            difference = _inserted(aligned, mine, _first(ours, mine))
        else:
            assert other is not None
            difference = _missing(aligned, other)
        if difference is not None:
            yield LocatedDifference(difference, ((mine, other),))


def _counterpart_of_failed(aligned: Aligned, last: int) -> int | None:
    """The reference's first layer of that kind behind the last one that was reached."""
    failed, nodes = aligned.ours.failed, aligned.reference.nodes
    if failed is None:
        return None
    left = (j for _, j in aligned.pairs[last + 1 :] if j is not None)
    return next((j for j in left if nodes[j].op.name == failed.op.name), None)


def failed_pair(aligned: Aligned) -> LayerPair:
    """The layer at which our forward broke off, and the reference's layer for which it stands: one that runs, or else
    the one at which the reference breaks off itself.
    """
    last = max((k for k, (i, _) in enumerate(aligned.pairs) if i is not None), default=-1)
    place = _counterpart_of_failed(aligned, last)
    mine, theirs = aligned.ours.failed, aligned.reference.failed
    if place is None:
        return mine, theirs if mine and theirs and mine.op.name == theirs.op.name else None
    return mine, aligned.reference.nodes[place]


def failing(aligned: Aligned) -> LocatedDifference:
    """That forward breaks off, as a difference: what was changed in the layer itself, or only that it fails."""
    mine, other = failed_pair(aligned)
    found: tuple[Change, ...] = ()
    if mine is not None and other is not None:
        found = changes(mine.op, other.op)
        field = other.op.width_field
        if not found and mine.op != other.op:
            found = (Change(field, getattr(mine.op, field), getattr(other.op, field)),)
    text = f"{_changes_text(found)}{_there(mine, other)}" if found and mine and other else "it does not run"
    fails_alike = other is not None and other is aligned.reference.failed
    if fails_alike and not found:
        text += ", nor does the reference's"
    label = (other.label if other else "") or (mine.label if mine else "")
    title = f"{mine.name}{f' ({label})' if label else ''}: " if mine else ""
    names = mine.name if mine else None, other.name if other and (found or fails_alike) else None
    difference = Difference("changed", *names, "shape", f"{title}{text}", label, found, (str(aligned.ours.failure),))
    return LocatedDifference(difference, ())


def _pair(aligned: Aligned, mine: Node, other: Node, wiring: tuple[list[str], list[str]]) -> Difference | None:
    """Two layers that stand for each other: what was changed, or how it is called otherwise, or nothing."""
    found = changes(mine.op, other.op)
    shape, output = aligned.reference.input_shapes(other), aligned.reference.output_shape(other)
    effect = effect_of_change(mine.op, other.op, shape[0], output) if found and shape else "function"
    if effect == "shape" and {mine.op.name, other.op.name} <= LAYOUT:
        # What lays values out does so for the map that it meets, whatever made that another one.
        (met,) = aligned.ours.input_shapes(mine)
        effect = effect_of_change(mine.op, other.op, met, other.op.output_shape(met))
    if not found and mine.op != other.op and other.inputs[:1] == (INPUT,):
        # Nothing stands before the first layer, so its width follows from nothing: the input itself is another.
        field = other.op.width_field
        found, effect = (Change(field, getattr(mine.op, field), getattr(other.op, field)),), "shape"
    if sorted(wiring[0]) != sorted(wiring[1]):
        found, effect = (*found, Change("inputs", *map(tuple, wiring))), "function"
    if found:
        return _difference("changed", mine, other, effect, f"{_changes_text(found)}{_there(mine, other)}", found)
    return renamed(mine, other)


def renamed(mine: Node, other: Node) -> Difference | None:
    """How a layer is called otherwise, whatever else is to be said of it; None where it is not."""
    if (mine.name, mine.module, _keys(mine)) == (other.name, other.module, _keys(other)):
        return None
    return _difference("renamed", mine, other, "none", _renamed_text(mine, other))


def _inserted(aligned: Aligned, mine: Node, behind: str) -> Difference:
    network = aligned.ours
    aside = mine.name in network.side_outputs and not mine.parameters
    effect = "none" if aside else _presence(network, mine)
    text = f"{op_text(mine.op)} stands here, the reference has none behind {_title(aligned.reference, behind)}"
    if aside:
        text += "; the output does not depend on it"
    return _difference("inserted", mine, None, effect, text)


def _missing(aligned: Aligned, other: Node) -> Difference:
    effect = _presence(aligned.reference, other)
    behind = _title(aligned.reference, other.inputs[0]) if other.inputs else "the input"
    text = f"{op_text(other.op)} is missing, the reference has it behind {behind}"
    return _difference("missing", None, other, effect, text)


def _presence(network: Network, node: Node) -> str:
    if len(node.inputs) != 1:
        return "function"
    before = network.by_name.get(node.inputs[0])
    return effect_of_presence(node.op, network.input_shapes(node)[0], before.op if before else None)


def _difference(
    kind: str, mine: Node | None, other: Node | None, effect: str, text: str, found: tuple[Change, ...] = ()
) -> Difference:
    node = mine or other
    assert node is not None
    label = (other.label if other else "") or node.label
    names = mine.name if mine else None, other.name if other else None
    title = replace(node, label=node.label or label).title
    return Difference(kind, *names, effect, f"{title}: {text}", label, found)


def _keys(node: Node) -> list[str]:
    return [parameter.name for parameter in node.parameters]


def _keys_alone(node: Node, other: Node) -> list[str]:
    return [key for key in _keys(node) if key not in _keys(other)] or _keys(node) or ["no key for it"]


def _title(network: Network, name: str) -> str:
    return network.by_name[name].title if name in network.by_name else "the input"


def _there(mine: Node, other: Node) -> str:
    label = f", {other.label}" if other.label and mine.label not in ("", other.label) else ""
    return f" (there {other.name}{label})" if mine.name != other.name or label else ""


def _renamed_text(mine: Node, other: Node) -> str:
    if mine.name == other.name and (mine.module is None) != (other.module is None):
        return "a function here, a module there" if mine.module is None else "a module here, a function there"
    if mine.name == other.name:
        ours, theirs = _keys_alone(mine, other), _keys_alone(other, mine)
        return f"the state dict has {' and '.join(ours)}, the reference's {' and '.join(theirs)}"
    return f"called {other.name} in the reference"


_WHEN = {"always": "at evaluation too", "training": "in training only"}


def _changes_text(found: tuple[Change, ...]) -> str:
    if found[0].attribute == "op":
        return f"{found[0].ours}, the reference has {found[0].reference}"
    if found[0].attribute == "active_in":
        return f"acts {_WHEN[str(found[0].ours)]}, the reference {_WHEN[str(found[0].reference)]}"
    first, *more = found
    texts = [f"{c.attribute} {value_text(c.ours)}, there {value_text(c.reference)}" for c in more]
    return "; ".join(
        (f"{first.attribute} {value_text(first.ours)}, the reference has {value_text(first.reference)}", *texts)
    )


def value_text(value: object) -> str:
    """An attribute's value as a message has it."""
    if isinstance(value, tuple) and value:
        return pair_text(value)
    return count_text(value) if type(value) is int else str(value)


_SEEN = ("met", "gave", "shares")
"""What is known of an op from its run alone, and nobody has written."""


def op_text(op: Op) -> str:
    """An op as one writes it in torch: `Conv2d(64, 128, kernel_size=3, padding=1)`, `div(x, 255.0)`."""
    given = {name: value for name, value in op.arguments().items() if value != op.name and name not in _SEEN}
    arguments = (_argument(name, value) for name, value in given.items())
    return f"{op.name}({', '.join(arguments)})"


def _argument(name: str, value: object) -> str:
    if name == "arguments_given" and isinstance(value, tuple):
        return ", ".join("x" if given is None else repr(given) for given in value)
    return repr(value) if name.endswith(("_channels", "_features")) else f"{name}={value!r}"
