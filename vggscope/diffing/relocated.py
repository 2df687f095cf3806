"""A layer at another position: one difference instead of an inserted layer and a missing one."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from vggscope.diffing.effects import changes, effect_of_move
from vggscope.diffing.locate import AlignedNetworks, LayerPair, LocatedDifference, names_of, title_in
from vggscope.diffing.result import Change
from vggscope.diffing.wording import op_text
from vggscope.graph import Network, Node

FARTHEST = 8
"""The most layers that a relocated layer may pass. Farther apart, an inserted and a missing layer stay two
differences.
"""


def merge_relocated(differences: list[LocatedDifference], aligned: AlignedNetworks) -> list[LocatedDifference]:
    """Replace an inserted layer and an equal missing one, a few layers apart in the same chain, by one difference."""
    pairs = list(aligned.layer_pairs())
    positions = {names_of(pair): position for position, pair in enumerate(pairs)}
    merged: list[LocatedDifference] = []
    used: set[int] = set()
    for i, located in enumerate(differences):
        if i in used:
            continue
        for j in range(i + 1, len(differences)):
            later = differences[j]
            passed = _passed(located, later, positions, pairs) if j not in used else None
            if passed is not None and (one := _as_one(located, later, passed, aligned)) is not None:
                used.add(j)
                located = one  # noqa: PLW2901 - replaces both
                break
            if positions[names_of(later.pairs[0])] - positions[names_of(located.pairs[0])] > FARTHEST:
                break
        merged.append(located)
    return merged


def _passed(
    located: LocatedDifference,
    later: LocatedDifference,
    positions: dict[tuple[str | None, str | None], int],
    pairs: list[LayerPair],
) -> list[tuple[Node, Node]] | None:
    """The paired layers between an inserted layer and an equal missing one; None for any other two differences."""
    if {located.difference.kind, later.difference.kind} != {"inserted", "missing"}:
        return None
    if len(located.pairs + later.pairs) > 2 or not _are_equal(*_both(located, later)):
        return None
    between = pairs[positions[names_of(located.pairs[0])] + 1 : positions[names_of(later.pairs[0])]]
    passed = [(ours, theirs) for ours, theirs in between if ours is not None and theirs is not None]
    return passed if 0 < len(passed) == len(between) <= FARTHEST else None


def _are_equal(mine: Node, other: Node) -> bool:
    """Whether both layers compute the same, in place or not."""
    attributes = {change.attribute for change in changes(mine.op, other.op)}
    return attributes <= {"inplace"} and mine.op.parameters() == other.op.parameters()


def _both(located: LocatedDifference, later: LocatedDifference) -> tuple[Node, Node]:
    """Our layer and the reference's."""
    mine = located.pairs[0][0] or later.pairs[0][0]
    other = located.pairs[0][1] or later.pairs[0][1]
    assert mine is not None
    assert other is not None
    return mine, other


def _as_one(
    located: LocatedDifference, later: LocatedDifference, passed: list[tuple[Node, Node]], aligned: AlignedNetworks
) -> LocatedDifference | None:
    """Both as one relocated layer; None unless the layers form a chain in either network."""
    mine, other = _both(located, later)
    ours, theirs = [pair[0] for pair in passed], [pair[1] for pair in passed]
    is_earlier = located.difference.kind == "inserted"
    chain = [mine, *ours] if is_earlier else [*ours, mine]
    expected = [*theirs, other] if is_earlier else [other, *theirs]
    if not (_is_chain(aligned.ours, chain) and _is_chain(aligned.reference, expected)):
        return None
    effects = located.difference.effect, later.difference.effect
    title = replace(mine, label=other.label or mine.label).title
    here, there = title_in(aligned.ours, mine.inputs[0]), title_in(aligned.reference, other.inputs[0])
    difference = replace(
        located.difference,
        kind="changed",
        ours=mine.name,
        reference=other.name,
        effect=effect_of_move(mine.op, [(one.op, another.op) for one, another in passed], effects),
        message=f"{title}: {op_text(mine.op)} comes after {here}, in the reference after {there}",
        label=other.label or mine.label,
        changes=(Change("order", _ops(chain), _ops(expected)), *changes(mine.op, other.op)),
        follows=(*located.difference.follows, *later.difference.follows),
    )
    return LocatedDifference(difference, ((None, other), (mine, None)))


def _is_chain(network: Network, nodes: list[Node]) -> bool:
    """Whether each layer has one input and is read by the next one alone."""
    return all(len(node.inputs) == 1 for node in nodes) and all(
        later.inputs == (node.name,) and network.consumers[node.name] == (later.name,)
        for node, later in pairwise(nodes)
    )


def _ops(nodes: list[Node]) -> tuple[str, ...]:
    return tuple(node.op.name for node in nodes)
