"""Root causes: differences that follow from another one are listed under it, so that one mistake takes one line."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from vggscope.diffing.locate import AlignedNetworks, LayerPair, LocatedDifference
from vggscope.diffing.relocated import merge_relocated
from vggscope.graph import Network, Node

_FEWEST = 3
"""The fewest equal differences in all layers of a kind, or layers of a module, that are reported as one."""

DOES_NOT_RUN = "it does not run"
"""The first words of a failure that another difference explains."""

_DEEPEST = 20
"""Modules below this depth are not reported as blocks."""


def group_by_root_cause(differences: Iterable[LocatedDifference], aligned: AlignedNetworks) -> list[LocatedDifference]:
    """The root causes in execution order, each with what follows from it."""
    ours, reference = aligned.ours, aligned.reference
    causes = _with_whole_modules(_without_shifted_numbers(list(differences)), ours, reference)
    return _merge_equal(merge_relocated(_with_followers(causes), aligned), ours, reference)


def with_failure(
    causes: list[LocatedDifference], failure: LocatedDifference, reads: str | None
) -> list[LocatedDifference]:
    """The root causes of a model that does not run. The failure follows from the last difference that changes a shape,
    unless the failed layer itself was changed or the reference fails too.

    `reads` names the input of the failed layer's counterpart, if ours passes a feature map there. If that input is a
    missing layout op, such as a flatten, it is the cause.
    """
    cause = next((i for i in reversed(range(len(causes))) if causes[i].difference.effect == "shape"), None)
    for i, located in enumerate(causes):
        difference = located.difference
        if difference.kind == "missing" and difference.reference == reads and is_layout_alone(located):
            causes[i] = replace(located, difference=replace(difference, effect="shape"))
            cause = i
    if failure.difference.reference is not None or cause is None:
        return [*causes, failure]
    causes[cause] = _followed_by(causes[cause], f"{DOES_NOT_RUN}: {failure.difference.consequences[0]}")
    return causes


def is_layout_alone(located: LocatedDifference) -> bool:
    """Whether the difference is about layout ops only, such as a flatten."""
    return bool(located.pairs) and all(node.op.is_layout for pair in located.pairs for node in pair if node)


@dataclass
class _Numbering:
    """By how much the numbers in a Sequential are shifted, since which cause, and how many layers that renames."""

    offset: int = 0
    cause: int = -1
    layers: int = 0
    example: tuple[str, str] = ("", "")


def _without_shifted_numbers(differences: list[LocatedDifference]) -> list[LocatedDifference]:
    """Put renames under their cause: an inserted or missing layer shifts all later numbers in its Sequential."""
    causes: list[LocatedDifference] = []
    numberings: dict[str, _Numbering] = {}
    finished: list[_Numbering] = []
    for located in differences:
        mine, other = located.pairs[0]
        node = mine or other
        path = _numbered(node.name) if node and node.module else None
        numbering = numberings.setdefault(path[0], _Numbering()) if path else None
        if numbering and located.difference.kind == "renamed" and mine and other and _is_shift(mine, other, numbering):
            numbering.layers += 1
            numbering.example = numbering.example if numbering.example[0] else (mine.name, other.name)
            continue
        if path and located.difference.kind in ("inserted", "missing"):
            offset = (numbering.offset if numbering else 0) + (1 if mine else -1)
            finished += [numbering] if numbering else []
            numberings[path[0]] = _Numbering(offset, len(causes))
        causes.append(located)
    for numbering in (*finished, *numberings.values()):
        if numbering.layers:
            causes[numbering.cause] = _followed_by(causes[numbering.cause], _numbering_text(numbering))
    return causes


def _numbered(path: str) -> tuple[str, int] | None:
    """`features.3` as ("features", 3)."""
    match = re.fullmatch(r"(?:(.*)\.)?(\d{1,18})", path, re.ASCII | re.DOTALL)
    return (match[1] or "", int(match[2])) if match else None


def _is_shift(mine: Node, other: Node, numbering: _Numbering) -> bool:
    here, there = _numbered(mine.name), _numbered(other.name)
    if here is None or there is None or numbering.offset == 0:  # at offset 0 the state-dict keys differ
        return False
    is_same_kind = (mine.module is None) == (other.module is None)
    return is_same_kind and here == (there[0], there[1] + numbering.offset)


def _numbering_text(numbering: _Numbering) -> str:
    here, there = numbering.example
    layers = "1 later layer is" if numbering.layers == 1 else f"{numbering.layers} later layers are"
    return f"{layers} renumbered: {here} is {there} in the reference"


def _with_whole_modules(
    differences: list[LocatedDifference], ours: Network, reference: Network
) -> list[LocatedDifference]:
    """Report successive missing or inserted layers as one difference: a module, a stage, a head."""
    causes: list[LocatedDifference] = []
    for kind, same_kind in groupby(differences, key=lambda located: located.difference.kind):
        run = list(same_kind)
        network = {"inserted": ours, "missing": reference}.get(kind)
        if network is None:
            causes += run
            continue
        sizes = Counter(path for node in network.nodes for path in _modules(node.name))
        for stretch in _stretches(run, network):
            one = _as_stretch(stretch, kind, network, sizes)
            causes += [one] if one else _as_modules(stretch, kind, sizes)
    return causes


def _stretches(run: list[LocatedDifference], network: Network) -> Iterator[list[LocatedDifference]]:
    """The differences grouped into layers that directly follow each other."""
    positions = {node.name: position for position, node in enumerate(network.nodes)}
    stretch: list[LocatedDifference] = []
    for located in run:
        if stretch and positions[_node(located).name] != positions[_node(stretch[-1]).name] + 1:
            yield stretch
            stretch = []
        stretch.append(located)
    yield stretch


def _as_stretch(
    stretch: list[LocatedDifference], kind: str, network: Network, sizes: Counter[str]
) -> LocatedDifference | None:
    """The layers as a whole stage or head; None for fewer layers, and for layers that form a module."""
    nodes = list(map(_node, stretch))
    first, last = nodes[0], nodes[-1]
    is_end = last is network.nodes[-1] and network.failure is None
    names = [node.name for node in nodes]
    if sum(node.op.is_weight_layer for node in nodes) < 2:
        return None
    if not is_end and sum(node.op.is_weight_layer or node.op.label_prefix == "pool" for node in nodes) < _FEWEST:
        return None  # two more convolutions within a stage are two differences
    if not is_end and any(_whole_module(names, position, sizes) for position in range(len(names))):
        return None
    layers = f"{len(nodes)} layers from {'here' if kind == 'inserted' else 'there'} to {last.title}"
    if kind == "inserted":
        text = f"the network continues with {layers}" if is_end else f"{layers} are inserted, the reference has none"
    else:
        text = f"the network ends before it, {layers} are missing" if is_end else f"{layers} are missing"
    return _as_one(stretch, f"{first.title}: {text}")


def _as_modules(run: list[LocatedDifference], kind: str, sizes: Counter[str]) -> Iterator[LocatedDifference]:
    """Successive differences of one kind, those of a whole module as one."""
    names = [_node(located).name for located in run]
    position = 0
    while position < len(run):
        path = _whole_module(names, position, sizes)
        if path is None:
            yield run[position]
            position += 1
        else:
            yield _as_module(run[position : position + sizes[path]], path, kind)
            position += sizes[path]


def _modules(name: str) -> list[str]:
    """The paths of the modules around a layer, the outermost first, without the root's children."""
    parts = name.split(".")[:_DEEPEST]
    return [".".join(parts[:depth]) for depth in range(2, len(parts))]


def _whole_module(names: list[str], position: int, sizes: Counter[str]) -> str | None:
    """The outermost module whose layers are exactly the names from this position on."""
    for path in _modules(names[position]):
        size, prefix = sizes[path], f"{path}."
        if size < _FEWEST or (position and names[position - 1].startswith(prefix)):
            continue
        inside = names[position : position + size]
        if len(inside) == size and all(name.startswith(prefix) for name in inside):
            return path
    return None


def _as_module(run: list[LocatedDifference], path: str, kind: str) -> LocatedDifference:
    first, last = _node(run[0]), _node(run[-1])
    what = "is inserted, the reference has none" if kind == "inserted" else "is missing"
    return _as_one(run, f"{path}: the block {what}, {len(run)} layers from {first.title} to {last.title}")


def _as_one(run: list[LocatedDifference], message: str) -> LocatedDifference:
    effect = "shape" if any(located.difference.effect == "shape" for located in run) else "function"
    follows = tuple(text for located in run for text in located.difference.follows)
    difference = replace(run[0].difference, message=message, effect=effect, follows=follows)
    return LocatedDifference(difference, _pairs(run))


def _with_followers(differences: list[LocatedDifference]) -> list[LocatedDifference]:
    """Put the ReLU, batch norm and dropout after an inserted or missing layer under that layer."""
    causes: list[LocatedDifference] = []
    for located in differences:
        if causes and _follows(located, causes[-1]):
            cause = _followed_by(causes[-1], located.difference.message, *located.difference.follows)
            causes[-1] = replace(cause, pairs=(*cause.pairs, *located.pairs))
        else:
            causes.append(located)
    return causes


def _follows(located: LocatedDifference, cause: LocatedDifference) -> bool:
    node, leading = (mine or other for mine, other in (located.pairs[0], cause.pairs[0]))
    return (
        located.difference.kind == cause.difference.kind
        and located.difference.kind in ("inserted", "missing")
        and node is not None
        and leading is not None
        and node.op.follows_a_layer
        and bool(leading.parameters)
        and not leading.op.follows_a_layer
    )


def _merge_equal(differences: list[LocatedDifference], ours: Network, reference: Network) -> list[LocatedDifference]:
    """Report equal differences once. These are merged:

    - a difference in every layer of a kind, or the same change in successive layers of a kind;
    - the same reordering, or the same layer without weights inserted or missing, at several positions;
    - equal differences with no effect at evaluation, wherever they are.
    """
    counts = Counter(map(_likeness, differences))
    kinds = {"inserted": _places(ours)}
    in_reference = _places(reference)
    groups: list[list[LocatedDifference]] = []
    group_of: dict[object, int] = {}
    last_place: dict[object, int] = {}
    for located in differences:
        likeness, node, difference = _likeness(located), _node(located), located.difference
        place, layers = kinds.get(difference.kind, in_reference)[node.name]
        is_frequent = counts[likeness] >= _FEWEST
        is_bare = difference.kind in ("inserted", "missing") and not node.parameters
        is_order = [change.attribute for change in difference.changes][:1] == ["order"]
        is_next = difference.kind == "changed" and last_place.get(likeness) == place - 1
        is_mergeable = (
            not difference.changes_output
            or is_next
            or (is_frequent and (is_bare or is_order or counts[likeness] == layers))
        )
        last_place[likeness] = place
        if difference.kind != "renamed" and likeness in group_of and is_mergeable:
            groups[group_of[likeness]].append(located)
        else:
            group_of[likeness] = len(groups)
            groups.append([located])
    return [_merged(group) if len(group) > 1 else group[0] for group in groups]


def _places(network: Network) -> dict[str, tuple[int, int]]:
    """For each layer its index among the layers of its kind, and how many there are."""
    counts = Counter(node.op.name for node in network.nodes)
    indices: Counter[str] = Counter()
    places = {}
    for node in network.nodes:
        places[node.name] = indices[node.op.name], counts[node.op.name]
        indices[node.op.name] += 1
    return places


def _node(located: LocatedDifference) -> Node:
    """The layer of a difference: ours if it is inserted, else the reference's."""
    mine, other = located.pairs[0]
    node = mine if located.difference.kind == "inserted" else other
    assert node is not None
    return node


def _likeness(located: LocatedDifference) -> tuple[object, ...]:
    """A key that is equal for the same mistake in different layers."""
    difference = located.difference
    return difference.kind, _node(located).op.name, difference.effect, difference.changes


def _merged(group: list[LocatedDifference]) -> LocatedDifference:
    """Equal differences as one."""
    first, *others = group
    name, pairs = _node(first).op.name, _pairs(group)
    # A relocated layer is counted at its position in the reference.
    side = 0 if first.difference.kind == "inserted" else 1
    count = sum(node.op.name == name for pair in pairs if (node := pair[side]))
    message = f"{first.difference.message}; so in {count} {name} layers"
    follows = (*first.difference.follows, *(located.difference.message for located in others))
    return LocatedDifference(replace(first.difference, message=message, follows=follows), pairs)


def _pairs(group: list[LocatedDifference]) -> tuple[LayerPair, ...]:
    return tuple(pair for located in group for pair in located.pairs)


def _followed_by(located: LocatedDifference, *messages: str) -> LocatedDifference:
    difference = located.difference
    return replace(located, difference=replace(difference, follows=(*difference.follows, *messages)))
