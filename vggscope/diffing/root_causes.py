"""Causes apart from what only follows from them, so that a person reads one line for one mistake."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import groupby

from vggscope.diffing.align import WEIGHTED
from vggscope.diffing.effects import LAYOUT
from vggscope.diffing.locate import Aligned, LocatedDifference
from vggscope.diffing.relocated import relocated
from vggscope.graph import Network, Node

_FOLLOWERS = {"ReLU", "BatchNorm2d", "Dropout"}
"""What comes and goes with the layer before it."""

_POOLS = {"MaxPool2d", "AvgPool2d"}

_FEWEST = 3
"""From how many equal mistakes on, made in every layer of a kind, one mistake is named for all."""

DOES_NOT_RUN = "it does not run"

_DEEPEST = 20
"""Modules further below the root are not looked at as wholes."""


def group_by_root_cause(found: Iterable[LocatedDifference], aligned: Aligned) -> list[LocatedDifference]:
    """The causes in order, each with what follows from it."""
    ours, reference = aligned.ours, aligned.reference
    whole = _blocks(_renumbered(list(found)), ours, reference)
    return _everywhere(relocated(_companions(whole), aligned), ours, reference)


def broken_off(
    causes: list[LocatedDifference], failing: LocatedDifference, reads: str | None
) -> list[LocatedDifference]:
    """The causes of a model that does not run: that a layer fails follows from the last one that changed a shape,
    unless the layer itself is otherwise, or the reference's fails as well. `reads` is what the reference's layer in its
    place reads, if ours met a map: where that flattens and is missing, it is the cause.
    """
    blamed = next((i for i in reversed(range(len(causes))) if causes[i].difference.effect == "shape"), None)
    for i, cause in enumerate(causes):
        if cause.difference.kind == "missing" and cause.difference.reference == reads and lays_out(cause):
            causes[i] = replace(cause, difference=replace(cause.difference, effect="shape"))
            blamed = i
    if failing.difference.reference is not None or blamed is None:
        return [*causes, failing]
    causes[blamed] = _with_follower(causes[blamed], f"{DOES_NOT_RUN}: {failing.difference.consequences[0]}")
    return causes


def lays_out(item: LocatedDifference) -> bool:
    """Whether all that is otherwise is how values are laid out."""
    return bool(item.edits) and all(node.op.name in LAYOUT for edit in item.edits for node in edit if node)


@dataclass
class _Numbering:
    """How far the numbers of one Sequential are off so far, and since which cause."""

    offset: int = 0
    cause: int = -1
    layers: int = 0
    example: tuple[str, str] = ("", "")


def _renumbered(found: list[LocatedDifference]) -> list[LocatedDifference]:
    """A layer more or less shifts the numbers of all behind it in its Sequential: those renames follow from it."""
    causes: list[LocatedDifference] = []
    numberings: dict[str, _Numbering] = {}
    finished: list[tuple[int, _Numbering]] = []
    for item in found:
        mine, other = item.edits[0]
        node = mine or other
        path = _numbered(node.name) if node and node.module else None
        numbering = numberings.setdefault(path[0], _Numbering()) if path else None
        if numbering and item.difference.kind == "renamed" and mine and other and _is_shift(mine, other, numbering):
            numbering.layers += 1
            numbering.example = numbering.example if numbering.example[0] else (mine.name, other.name)
            continue
        if path and item.difference.kind in ("inserted", "missing"):
            offset = (numbering.offset if numbering else 0) + (1 if mine else -1)
            if numbering and numbering.layers:
                finished.append((numbering.cause, numbering))
            numberings[path[0]] = _Numbering(offset, len(causes))
        causes.append(item)
    for cause, numbering in (*finished, *((n.cause, n) for n in numberings.values() if n.layers)):
        causes[cause] = _with_follower(causes[cause], _numbering_text(numbering))
    return causes


def _numbered(path: str) -> tuple[str, int] | None:
    """`features.3` as ("features", 3)."""
    match = re.fullmatch(r"(?:(.*)\.)?(\d{1,18})", path, re.ASCII | re.DOTALL)
    return (match[1] or "", int(match[2])) if match else None


def _is_shift(mine: Node, other: Node, numbering: _Numbering) -> bool:
    here, there = _numbered(mine.name), _numbered(other.name)
    # Without an offset the paths are equal, and it is the keys of the state dict that differ.
    return (
        here is not None
        and there is not None
        and numbering.offset != 0
        and here[0] == there[0]
        and here[1] - there[1] == numbering.offset
        and (mine.module is None) == (other.module is None)
    )


def _numbering_text(numbering: _Numbering) -> str:
    here, there = numbering.example
    layers = "1 layer behind it is" if numbering.layers == 1 else f"{numbering.layers} layers behind it are"
    return f"{layers} numbered otherwise: {here} is {there} in the reference"


def _blocks(found: list[LocatedDifference], ours: Network, reference: Network) -> list[LocatedDifference]:
    """Layers in a row that are missing, or too many, are one difference: a module, a stage, a head."""
    causes: list[LocatedDifference] = []
    for kind, items in groupby(found, key=lambda item: item.difference.kind):
        run = list(items)
        network = {"inserted": ours, "missing": reference}.get(kind)
        if network is None:
            causes += run
            continue
        sizes = Counter(path for node in network.nodes for path in _modules(node.name))
        for stretch in _stretches(run, network):
            one = _as_stretch(stretch, kind, network, sizes)
            causes += [one] if one else _blocks_of(stretch, kind, sizes)
    return causes


def _stretches(run: list[LocatedDifference], network: Network) -> Iterator[list[LocatedDifference]]:
    """Those that follow each other in their network, together."""
    places = {node.name: place for place, node in enumerate(network.nodes)}
    stretch: list[LocatedDifference] = []
    for item in run:
        if stretch and places[_node(item).name] != places[_node(stretch[-1]).name] + 1:
            yield stretch
            stretch = []
        stretch.append(item)
    yield stretch


def _as_stretch(
    stretch: list[LocatedDifference], kind: str, network: Network, sizes: Counter[str]
) -> LocatedDifference | None:
    """A head, or a stage and more, that one network has alone; None for less, and where modules tell it better."""
    nodes = list(map(_node, stretch))
    first, last = nodes[0], nodes[-1]
    is_end = last is network.nodes[-1] and network.failure is None
    names = [node.name for node in nodes]
    if sum(node.op.name in WEIGHTED for node in nodes) < 2:
        return None
    if not is_end and sum(node.op.name in (*WEIGHTED, *_POOLS) for node in nodes) < _FEWEST:
        return None  # two convolutions more in a stage are two
    if not is_end and any(_whole_module(names, place, sizes) for place in range(len(names))):
        return None
    layers = f"{len(nodes)} layers from {'here' if kind == 'inserted' else 'there'} to {last.title}"
    if kind == "inserted":
        text = f"the network goes on with {layers}" if is_end else f"{layers} stand here, the reference has none"
    else:
        text = f"the network ends before it, {layers} are missing" if is_end else f"{layers} are missing"
    return _as_one(stretch, f"{first.title}: {text}")


def _blocks_of(run: list[LocatedDifference], kind: str, sizes: Counter[str]) -> Iterator[LocatedDifference]:
    """The differences of one kind in a row, a whole module as one."""
    names = [_node(item).name for item in run]
    place = 0
    while place < len(run):
        path = _whole_module(names, place, sizes)
        if path is None:
            yield run[place]
            place += 1
        else:
            yield _as_block(run[place : place + sizes[path]], path, kind)
            place += sizes[path]


def _modules(name: str) -> list[str]:
    """The paths of the modules that a layer is in, without the root's parts, the outermost first."""
    parts = name.split(".")[:_DEEPEST]
    return [".".join(parts[:depth]) for depth in range(2, len(parts))]


def _whole_module(names: list[str], place: int, sizes: Counter[str]) -> str | None:
    """The outermost module whose layers are the names from this place on, all of them."""
    for path in _modules(names[place]):
        size, prefix = sizes[path], f"{path}."
        if size < _FEWEST or (place and names[place - 1].startswith(prefix)):
            continue
        inside = names[place : place + size]
        if len(inside) == size and all(name.startswith(prefix) for name in inside):
            return path
    return None


def _as_block(run: list[LocatedDifference], path: str, kind: str) -> LocatedDifference:
    first, last = _node(run[0]), _node(run[-1])
    what = "stands here, the reference has none" if kind == "inserted" else "is missing"
    return _as_one(run, f"{path}: the block {what}, {len(run)} layers from {first.title} to {last.title}")


def _as_one(run: list[LocatedDifference], message: str) -> LocatedDifference:
    effect = "shape" if any(item.difference.effect == "shape" for item in run) else "function"
    follows = tuple(text for item in run for text in item.difference.follows)
    difference = replace(run[0].difference, message=message, effect=effect, follows=follows)
    return LocatedDifference(difference, tuple(edit for item in run for edit in item.edits))


def _companions(found: list[LocatedDifference]) -> list[LocatedDifference]:
    """The ReLU, batch norm and dropout of a layer that is missing, or one too many, go with it."""
    causes: list[LocatedDifference] = []
    for item in found:
        if causes and _goes_with(item, causes[-1]):
            last = _with_follower(causes[-1], item.difference.message, *item.difference.follows)
            causes[-1] = replace(last, edits=(*last.edits, *item.edits))
        else:
            causes.append(item)
    return causes


def _goes_with(item: LocatedDifference, cause: LocatedDifference) -> bool:
    nodes = [mine or other for mine, other in (item.edits[0], cause.edits[0])]
    return (
        item.difference.kind == cause.difference.kind
        and item.difference.kind in ("inserted", "missing")
        and nodes[0] is not None
        and nodes[1] is not None
        and nodes[0].op.name in _FOLLOWERS
        and bool(nodes[1].parameters)
        and nodes[1].op.name not in _FOLLOWERS
    )


def _everywhere(found: list[LocatedDifference], ours: Network, reference: Network) -> list[LocatedDifference]:
    """A mistake that was made in every layer of a kind, changed alike in several in a row, an order that was turned
    alike in several places, or a layer without weights that was left out of several, is one mistake; and so is what
    changes nothing at evaluation, wherever it is alike.
    """
    alike = Counter(map(_likeness, found))
    kinds = {"inserted": _places(ours)}
    in_reference = _places(reference)
    groups: list[list[LocatedDifference]] = []
    latest: dict[object, int] = {}
    places: dict[object, int] = {}
    for item in found:
        likeness, node = _likeness(item), _node(item)
        place, count = kinds.get(item.difference.kind, in_reference)[node.name]
        in_all = _FEWEST <= alike[likeness] == count
        in_a_row = item.difference.kind == "changed" and places.get(likeness) == place - 1
        is_quiet = item.difference.effect in ("none", "training_only")
        is_bare = item.difference.kind in ("inserted", "missing") and not node.parameters and alike[likeness] >= _FEWEST
        in_order = alike[likeness] >= _FEWEST and [c.attribute for c in item.difference.changes][:1] == ["order"]
        places[likeness] = place
        if (
            item.difference.kind != "renamed"
            and likeness in latest
            and (is_quiet or is_bare or in_all or in_a_row or in_order)
        ):
            groups[latest[likeness]].append(item)
        else:
            latest[likeness] = len(groups)
            groups.append([item])
    return [_for_all(group) if len(group) > 1 else group[0] for group in groups]


def _places(network: Network) -> dict[str, tuple[int, int]]:
    """For each layer the place among those of its kind, and how many there are."""
    counts = Counter(node.op.name for node in network.nodes)
    seen: Counter[str] = Counter()
    found = {}
    for node in network.nodes:
        found[node.name] = seen[node.op.name], counts[node.op.name]
        seen[node.op.name] += 1
    return found


def _node(item: LocatedDifference) -> Node:
    """The layer that a difference is counted by: ours where only we have it, else the reference's."""
    mine, other = item.edits[0]
    node = mine if item.difference.kind == "inserted" else other
    assert node is not None
    return node


def _likeness(item: LocatedDifference) -> tuple[object, ...]:
    """What makes two differences the same mistake made twice."""
    return item.difference.kind, _node(item).op.name, item.difference.effect, item.difference.changes


def _for_all(group: list[LocatedDifference]) -> LocatedDifference:
    """The same mistake made several times as one."""
    first, *others = group
    name = _node(first).op.name
    edits = tuple(edit for item in group for edit in item.edits)
    # A layer that was moved is counted where the reference has it.
    side = 0 if first.difference.kind == "inserted" else 1
    count = sum(node.op.name == name for edit in edits if (node := edit[side]))
    message = f"{first.difference.message}; so in {count} {name} layers"
    follows = (*first.difference.follows, *(item.difference.message for item in others))
    return LocatedDifference(replace(first.difference, message=message, follows=follows), edits)


def _with_follower(item: LocatedDifference, *messages: str) -> LocatedDifference:
    return replace(item, difference=replace(item.difference, follows=(*item.difference.follows, *messages)))
