"""The alignment of two networks: which layer of one corresponds to which layer of the other.

Layers are matched in execution order by what they compute, not by their names. The alignment is the cheapest way to
turn one sequence into the other (Needleman and Wunsch 1970). A layer without a counterpart is a gap. A convolution's
gap costs more than a dropout's, and a changed attribute costs less than another op.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from functools import cache
from itertools import accumulate, repeat
from operator import add, sub
from typing import NamedTuple

from vggscope.graph import Network, Node
from vggscope.ops.base import Op

_Substitutions = Callable[[int, int, int], Iterator[float]]

Pair = tuple[int | None, int | None]
"""Positions in our network and in the reference; None on the side of a gap."""

_NO_EFFECT = 0.25
"""The cost of a gap for an op that returns its input. That of any other op is its `alignment_cost`."""

_IMPOSSIBLE = 1e9

FIRST_WIDTH = 64
"""The width of the first band of the alignment: enough for networks that differ in a few layers."""

MOST_CELLS = 10**7
"""The most pairs of layers that are compared: all pairs of two networks of 3,000 layers. In longer networks only layers
at similar positions are compared.
"""


class Alignment(NamedTuple):
    """Pairs of positions in order; each position of either network occurs once. `is_cheapest` is false if a cheaper
    alignment may exist, which happens only for very long and very different networks.
    """

    pairs: list[Pair]
    is_cheapest: bool


def align(ours: Network, reference: Network) -> Alignment:
    """Align two networks at the lowest cost."""
    left = [_signature(ours, node) for node in ours.nodes]
    right = [_signature(reference, node) for node in reference.nodes]
    start = _common_prefix(left, right)
    end = _common_prefix(left[start:][::-1], right[start:][::-1])
    middle, is_cheapest = _cheapest(left[start : len(left) - end], right[start : len(right) - end])
    shifted = [(None if i is None else i + start, None if j is None else j + start) for i, j in middle]
    tail: list[Pair] = [(len(left) - end + k, len(right) - end + k) for k in range(end)]
    pairs = _with_late_gaps([*[(k, k) for k in range(start)], *shifted, *tail], left, right)
    return Alignment(_without_stray_pairs(pairs, left, right), is_cheapest)


def _without_stray_pairs(pairs: list[Pair], left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:
    """The same alignment without accidental pairs, such as a ReLU matched with one of another stage.

    Anchors are the paired layers with weights. Between two anchors a pair is accidental if gaps with weights separate
    it from both.
    """
    cleaned: list[Pair] = []
    start = 0
    for end in range(len(pairs) + 1):
        if end < len(pairs) and not _is_anchor(pairs[end], left):
            continue
        cleaned += _adjacent_to_anchors(pairs[start:end], left, right)
        cleaned += pairs[end : end + 1]
        start = end + 1
    return cleaned


def _adjacent_to_anchors(between: list[Pair], left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:
    """Keep the pairs before the first gap with weights and after the last one; turn those in between into gaps."""
    gaps = [k for k, pair in enumerate(between) if None in pair]
    weighted = [k for k in gaps if _signature_of(between[k], left, right).is_weight_layer]
    if len(weighted) < 2 or weighted[-1] - weighted[0] < 2:
        return between
    first, last = weighted[0], weighted[-1] + 1
    strays = between[first:last]
    if all(None in pair for pair in strays):
        return between
    theirs: list[Pair] = [(None, j) for _, j in strays if j is not None]
    ours: list[Pair] = [(i, None) for i, _ in strays if i is not None]
    return [*between[:first], *theirs, *ours, *between[last:]]


def _is_anchor(pair: Pair, left: Sequence[Signature]) -> bool:
    i, j = pair
    return i is not None and j is not None and left[i].is_weight_layer


def _signature_of(pair: Pair, left: Sequence[Signature], right: Sequence[Signature]) -> Signature:
    i, j = pair
    return left[i] if i is not None else right[j or 0]


def _with_late_gaps(pairs: list[Pair], left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:
    """The same alignment with gaps as late as possible: of three equal convolutions the third is the gap."""
    start = 0
    while start < len(pairs):
        if None not in pairs[start]:
            start += 1
            continue
        side = 0 if pairs[start][1] is None else 1
        signatures = (left, right)[side]
        end = start
        while end < len(pairs) and pairs[end][1 - side] is None:
            end += 1
        while end < len(pairs) and _are_equal(signatures, pairs[start][side], pairs[end][side]):
            # The first layer of the run takes the counterpart of the layer after the run, which becomes a gap.
            partners = [pairs[end][1 - side], *[None] * (end - start)]
            layers = [pair[side] for pair in pairs[start : end + 1]]
            pairs[start : end + 1] = zip(partners, layers) if side else zip(layers, partners)
            start, end = start + 1, end + 1
        start = max(end, start + 1)
    return pairs


def _are_equal(signatures: Sequence[Signature], one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and signatures[one].matches(signatures[other])


class Signature(NamedTuple):
    """What the alignment compares of a layer.

    `gap` is the cost of no counterpart. `whole_input`, `exchanges` and `is_weight_layer` are those of its op.
    """

    name: str
    attributes: tuple[tuple[str, object], ...]
    whole_input: int
    is_last: bool
    gap: float
    exchanges: tuple[tuple[str, float], ...]
    is_weight_layer: bool

    def matches(self, other: Signature) -> bool:
        """Whether two layers are the same op with the same attributes."""
        return self.name == other.name and self.attributes == other.attributes


def _signature(network: Network, node: Node) -> Signature:
    op, is_last = node.op, node is network.nodes[-1]
    attributes = chosen_attributes(op)
    if op.returns_input:
        return Signature("", attributes, 0, is_last, _NO_EFFECT, (), False)
    whole_input = op.whole_input(network.input_shapes(node), network.output_shape(node))
    return Signature(op.name, attributes, whole_input, is_last, op.alignment_cost, op.exchanges, op.is_weight_layer)


def chosen_attributes(op: Op) -> tuple[tuple[str, object], ...]:
    """An op's attributes without the width that follows from its input, and when it is active."""
    attributes = ((f.name, getattr(op, f.name)) for f in fields(op) if f.compare and f.name != op.width_field)
    return (*attributes, ("active_in", op.active_in))


def _common_prefix(left: Sequence[Signature], right: Sequence[Signature]) -> int:
    return next((k for k, (a, b) in enumerate(zip(left, right)) if not a.matches(b)), min(len(left), len(right)))


def _substitution(ours: Signature, reference: Signature) -> float:
    """The cost of pairing two layers."""
    if ours.matches(reference):
        return 0.0
    misplaced = 0.25 if ours.is_last != reference.is_last else 0.0
    names = {ours.name, reference.name}
    if len(names) == 1:
        changed = sum(a != b for a, b in zip(ours.attributes, reference.attributes))
        return min(0.75 + 0.5 * changed + misplaced, 2 * ours.gap - 0.5)
    if ours.whole_input and reference.whole_input:
        return 0.5 + misplaced
    return next((cost for group, cost in ours.exchanges if (group, cost) in reference.exchanges), _IMPOSSIBLE)


def _cheapest(left: Sequence[Signature], right: Sequence[Signature]) -> Alignment:
    """The cheapest alignment by dynamic programming: a row of costs for each of our layers.

    Each row is a band around the diagonal. An alignment outside the band has so many gaps that the result is certainly
    the cheapest, unless it costs more than those gaps: then the band is made wider (Ukkonen 1985).
    """
    if not left or not right:
        return Alignment([*((i, None) for i in range(len(left))), *((None, j) for j in range(len(right)))], True)
    substitutions = _substitutions(left, right)
    widest = min(len(right) + 1, MOST_CELLS // (len(left) + 1))
    width = min(FIRST_WIDTH, widest)
    while True:
        band = _band(left, right, width, substitutions)
        is_cheapest = band.rows[-1][-1] < _least_cost_outside(band.starts, width, left, right)
        if is_cheapest or width == widest:
            return Alignment(_trace_back(band, left, right), is_cheapest)
        width = min(4 * width, widest)


class _Band(NamedTuple):
    """The least costs: `rows[i][k]` is that of aligning our first i layers with the reference's first starts[i]+k."""

    rows: list[array[float]]
    starts: list[int]


def _band(left: Sequence[Signature], right: Sequence[Signature], width: int, substitutions: _Substitutions) -> _Band:
    """The costs inside a band around the diagonal. Built-in functions work out a row at once."""
    skipped = list(accumulate((signature.gap for signature in right), initial=0.0))
    last = len(right) + 1 - width
    starts = [min(max(i * len(right) // len(left) - width // 2, 0), last) for i in range(len(left) + 1)]
    rows = [array("d", skipped[:width])]
    for i, signature in enumerate(left):
        start, shift = starts[i + 1], min(starts[i + 1] - starts[i], width + 1)
        # The costs of the row before, from position start-1 on. Outside the band they are unknown.
        before = [math.inf, *rows[i], *repeat(math.inf, shift)][shift:]
        unpaired = map(add, before[1:], repeat(signature.gap))
        paired = map(add, before, substitutions(i, start, start + width))
        # Within the row: reach an earlier position, then leave gaps for the reference's layers up to this one.
        skips = skipped[start : start + width]
        reached = accumulate(map(sub, map(min, unpaired, paired), skips), min)
        rows.append(array("d", map(add, reached, skips)))
    return _Band(rows, starts)


def _substitutions(left: Sequence[Signature], right: Sequence[Signature]) -> _Substitutions:
    """A function of i, start and end: the costs of pairing our layer i with the reference's layers start-1 to end-2.

    The value for layer -1, which does not exist, is never used.
    """
    left_kinds, left_index = _distinct(left)
    right_kinds, right_index = _distinct(right)
    shifted = [0, *right_index]

    def costs(left_kind: int, right_kinds_paired: Iterable[int]) -> dict[int, float]:
        ours = left_kinds[left_kind]
        return {kind: _substitution(ours, right_kinds[kind]) for kind in right_kinds_paired}

    if len(left_kinds) * len(right_kinds) <= MOST_CELLS:
        of_kind = cache(lambda left_kind: costs(left_kind, range(len(right_kinds))))
        return lambda i, start, end: map(of_kind(left_index[i]).__getitem__, shifted[start:end])

    def substitutions(i: int, start: int, end: int) -> Iterator[float]:
        paired = shifted[start:end]
        return map(costs(left_index[i], set(paired)).__getitem__, paired)

    return substitutions


def _least_cost_outside(starts: list[int], width: int, left: Sequence[Signature], right: Sequence[Signature]) -> float:
    """A lower bound for the cost of an alignment that leaves the band: its gaps on the way out and back."""
    ours, theirs = min(s.gap for s in left), min(s.gap for s in right)
    surplus = len(right) - len(left)
    above = min((start - i + width for i, start in enumerate(starts) if start + width <= len(right)), default=math.inf)
    below = max((start - i - 1 for i, start in enumerate(starts) if start), default=-math.inf)
    return min(
        max(above, 0) * theirs + max(above - surplus, 0) * ours,
        max(-below, 0) * ours + max(surplus - below, 0) * theirs,
    )


def _distinct(signatures: Sequence[Signature]) -> tuple[list[Signature], list[int]]:
    """The distinct signatures, and each layer's index among them."""
    places = {signature: place for place, signature in enumerate(dict.fromkeys(signatures))}
    return list(places), [places[signature] for signature in signatures]


def _trace_back(band: _Band, left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:
    """Read the cheapest alignment off the costs, from the end."""
    i, j = len(left), len(right)

    def cost(i: int, j: int) -> float:
        row, place = band.rows[i], j - band.starts[i]
        return row[place] if 0 <= place < len(row) else math.inf

    pairs: list[Pair] = []
    while i or j:
        here = cost(i, j) + 1e-6
        if i and cost(i - 1, j) + left[i - 1].gap <= here:
            i -= 1
            pairs.append((i, None))
        elif j and cost(i, j - 1) + right[j - 1].gap <= here:
            j -= 1
            pairs.append((None, j))
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
