"""Causes apart from what only follows from them, so that a person reads one line for one mistake."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

from vggscope.diffing.find import Found
from vggscope.graph import Network, Node

_FOLLOWERS = {"ReLU", "BatchNorm2d", "Dropout"}
"""What comes and goes with the layer before it."""

_FEWEST = 3
"""From how many equal mistakes on, made in every layer of a kind, one mistake is named for all."""


def fold(found: Iterable[Found], ours: Network, reference: Network) -> list[Found]:
    """The causes in order, each with what follows from it."""
    return _everywhere(_companions(_renumbered(list(found))), ours, reference)


@dataclass
class _Numbering:
    """How far the numbers of one Sequential are off so far, and since which cause."""

    offset: int = 0
    cause: int = -1
    layers: int = 0
    example: tuple[str, str] = ("", "")


def _renumbered(found: list[Found]) -> list[Found]:
    """A layer more or less shifts the numbers of all behind it in its Sequential: those renames follow from it."""
    causes: list[Found] = []
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
    match = re.fullmatch(r"(?:(.*)\.)?(\d+)", path)
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


def _companions(found: list[Found]) -> list[Found]:
    """The ReLU, batch norm and dropout of a layer that is missing, or one too many, go with it."""
    causes: list[Found] = []
    for item in found:
        if causes and _goes_with(item, causes[-1]):
            last = _with_follower(causes[-1], item.difference.message, *item.difference.follows)
            causes[-1] = replace(last, edits=(*last.edits, *item.edits))
        else:
            causes.append(item)
    return causes


def _goes_with(item: Found, cause: Found) -> bool:
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


def _everywhere(found: list[Found], ours: Network, reference: Network) -> list[Found]:
    """A mistake that was made in every layer of a kind is one mistake."""
    alike = Counter(_likeness(item) for item in found)
    first: dict[tuple[object, ...], int] = {}
    causes: list[Found] = []
    for item in found:
        likeness = _likeness(item)
        network = ours if item.difference.kind == "inserted" else reference
        places = sum(node.op.name == likeness[1] for node in network.nodes)
        if item.difference.kind == "renamed" or not _FEWEST <= alike[likeness] == places:
            causes.append(item)
        elif likeness not in first:
            first[likeness] = len(causes)
            causes.append(_for_all(item, places))
        else:
            cause = _with_follower(causes[first[likeness]], item.difference.message)
            causes[first[likeness]] = replace(cause, edits=(*cause.edits, *item.edits))
    return causes


def _likeness(item: Found) -> tuple[object, ...]:
    """What makes two differences the same mistake made twice."""
    mine, other = item.edits[0]
    node = (mine if item.difference.kind == "inserted" else other) or mine
    assert node is not None
    return item.difference.kind, node.op.name, item.difference.effect, item.difference.changes, len(item.edits)


def _for_all(item: Found, places: int) -> Found:
    name = _likeness(item)[1]
    message = f"{item.difference.message}; so in all {places} {name} layers"
    return replace(item, difference=replace(item.difference, message=message))


def _with_follower(item: Found, *messages: str) -> Found:
    return replace(item, difference=replace(item.difference, follows=(*item.difference.follows, *messages)))
