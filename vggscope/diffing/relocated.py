"""A layer that stands at another place: one mistake, not one layer too many and one too few."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from vggscope.diffing.effects import changes, effect_of_move
from vggscope.diffing.locate import Aligned, LayerPair, LocatedDifference, op_text
from vggscope.diffing.result import Change
from vggscope.graph import Network, Node

FARTHEST = 8
"""Over how many layers one is taken for moved. Further off, one that is missing and one too many are two mistakes."""


def relocated(found: list[LocatedDifference], aligned: Aligned) -> list[LocatedDifference]:
    """The same differences, with a layer that only we have and its like that only the reference has, a few layers on
    in the same row of layers, as one.
    """
    edits = list(aligned.nodes())
    places = {_names(edit): place for place, edit in enumerate(edits)}
    causes: list[LocatedDifference] = []
    taken: set[int] = set()
    for i, item in enumerate(found):
        if i in taken:
            continue
        for j in range(i + 1, len(found)):
            passed = _passed(item, found[j], places, edits) if j not in taken else None
            if passed is not None and (one := _as_one(item, found[j], passed, aligned)) is not None:
                taken.add(j)
                item = one  # noqa: PLW2901 - stands for both from here on
                break
            if places[_names(found[j].edits[0])] - places[_names(item.edits[0])] > FARTHEST:
                break
        causes.append(item)
    return causes


def _names(edit: LayerPair) -> tuple[str | None, str | None]:
    mine, other = edit
    return None if mine is None else mine.name, None if other is None else other.name


def _passed(
    item: LocatedDifference,
    later: LocatedDifference,
    places: dict[tuple[str | None, str | None], int],
    edits: list[LayerPair],
) -> list[tuple[Node, Node]] | None:
    """The layers between one that only we have and one that only the reference has, if these do the same and those all
    have their counterpart; None where it is no such pair.
    """
    if {item.difference.kind, later.difference.kind} != {"inserted", "missing"} or len(item.edits + later.edits) > 2:
        return None
    mine, other = _both(item, later)
    if not _alike(mine, other):
        return None
    between = edits[places[_names(item.edits[0])] + 1 : places[_names(later.edits[0])]]
    pairs = [(ours, theirs) for ours, theirs in between if ours is not None and theirs is not None]
    return pairs if 0 < len(pairs) == len(between) <= FARTHEST else None


def _alike(mine: Node, other: Node) -> bool:
    """Whether both do the same, in place or not."""
    otherwise = {change.attribute for change in changes(mine.op, other.op)}
    return otherwise <= {"inplace"} and mine.op.parameters() == other.op.parameters()


def _both(item: LocatedDifference, later: LocatedDifference) -> tuple[Node, Node]:
    """Ours and the reference's."""
    mine = item.edits[0][0] or later.edits[0][0]
    other = item.edits[0][1] or later.edits[0][1]
    assert mine is not None
    assert other is not None
    return mine, other


def _as_one(
    item: LocatedDifference, later: LocatedDifference, passed: list[tuple[Node, Node]], aligned: Aligned
) -> LocatedDifference | None:
    """Both as a layer at another place; None where the layers between are no row, each read by the next alone."""
    mine, other = _both(item, later)
    ours, theirs = [pair[0] for pair in passed], [pair[1] for pair in passed]
    first = item.difference.kind == "inserted"
    row = [mine, *ours] if first else [*ours, mine]
    expected = [*theirs, other] if first else [other, *theirs]
    if not (_is_row(aligned.ours, row) and _is_row(aligned.reference, expected)):
        return None
    effects = item.difference.effect, later.difference.effect
    met = [(one.op, another.op) for one, another in passed]
    title = f"{mine.name}{f' ({other.label or mine.label})' if other.label or mine.label else ''}"
    here, there = _behind(aligned.ours, mine), _behind(aligned.reference, other)
    difference = replace(
        item.difference,
        kind="changed",
        ours=mine.name,
        reference=other.name,
        effect=effect_of_move(mine.op, met, effects),
        message=f"{title}: {op_text(mine.op)} stands behind {here}, the reference has it behind {there}",
        label=other.label or mine.label,
        changes=(Change("order", _order(row), _order(expected)), *changes(mine.op, other.op)),
        follows=(*item.difference.follows, *later.difference.follows),
    )
    return LocatedDifference(difference, ((None, other), (mine, None)))


def _is_row(network: Network, nodes: list[Node]) -> bool:
    """Whether each reads the one before it alone and is read by the next alone."""
    return all(len(node.inputs) == 1 for node in nodes) and all(
        later.inputs == (node.name,) and network.consumers[node.name] == (later.name,)
        for node, later in pairwise(nodes)
    )


def _behind(network: Network, node: Node) -> str:
    before = network.by_name.get(node.inputs[0])
    return before.title if before else "the input"


def _order(nodes: list[Node]) -> tuple[str, ...]:
    return tuple(node.op.name for node in nodes)
