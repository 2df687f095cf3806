"""Which layer of one network stands for which layer of another.

Both are read in execution order and matched by what the layers do, not by what they are called: the alignment is the
cheapest way to turn one sequence into the other (Needleman and Wunsch 1970), where leaving out a convolution costs
more than leaving out a dropout, and changing an attribute costs less than exchanging the layer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields
from typing import NamedTuple

from vggscope.graph import Network, Node
from vggscope.ops.base import Op, numel

Pair = tuple[int | None, int | None]
"""Positions in ours and in the reference; None where the other side has no such layer."""

_GAPS = {
    "Conv2d": 4.0,
    "Linear": 4.0,
    "MaxPool2d": 3.0,
    "AvgPool2d": 3.0,
    "AdaptiveAvgPool2d": 1.5,
    "Dropout": 1.0,
    "Flatten": 0.5,
    "Identity": 0.25,
}
_GAP = 2.0
"""What leaving out a layer costs: much where it carries weights or halves the map, little where it does next to
nothing.
"""

_FAMILIES = (
    ({"MaxPool2d", "AvgPool2d"}, 2.5),
    ({"AdaptiveAvgPool2d", "AdaptiveMaxPool2d"}, 1.25),
    ({"MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d"}, 3.0),
    ({"ReLU", "Sigmoid", "Tanh", "LeakyReLU", "GELU", "SiLU", "ELU", "ReLU6", "Hardswish", "PReLU", "Softplus"}, 2.5),
    ({"BatchNorm2d", "LocalResponseNorm", "GroupNorm", "InstanceNorm2d", "LayerNorm"}, 3.0),
    ({"Flatten", "reshape", "squeeze"}, 0.5),
    ({"Dropout", "Dropout2d"}, 1.0),
)
"""Ops of which one may stand in the other's place, and what that exchange costs."""

_IMPOSSIBLE = 1e9

_IN_A_ROW = 0.25
"""How much of its cost a layer adds to a stage or a head that is left out as a whole, to its dearest layer's."""

WEIGHTED = {"Conv2d", "Linear"}

MOST_CELLS = 10**7
"""How many pairs of layers are looked at: all of two networks of 3,000 layers; of longer ones those that stand at
about the same place.
"""


class Alignment(NamedTuple):
    """Pairs of positions in order, each position of either network once. `is_cheapest` is false where a cheaper
    alignment may have been overlooked, because the networks are very long and very different.
    """

    pairs: list[Pair]
    is_cheapest: bool


def align(ours: Network, reference: Network) -> Alignment:
    """The cheapest alignment of two networks."""
    left = [_signature(ours, node) for node in ours.nodes]
    right = [_signature(reference, node) for node in reference.nodes]
    start = _common(left, right)
    end = _common(left[start:][::-1], right[start:][::-1])
    middle, is_cheapest = _cheapest(left[start : len(left) - end], right[start : len(right) - end])
    shifted = [(None if i is None else i + start, None if j is None else j + start) for i, j in middle]
    tail: list[Pair] = [(len(left) - end + k, len(right) - end + k) for k in range(end)]
    pairs = _slid([*[(k, k) for k in range(start)], *shifted, *tail], left, right)
    return Alignment(_without_strays(pairs, left, right), is_cheapest)


def _without_strays(pairs: list[Pair], left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:
    """The same alignment without the ReLU or pool that stands for another far off by chance: between two layers with
    weights that have their counterpart, those that others with weights part from both.
    """
    found: list[Pair] = []
    start = 0
    for end in range(len(pairs) + 1):
        if end < len(pairs) and not _is_anchor(pairs[end], left):
            continue
        found += _held(pairs[start:end], left, right)
        found += pairs[end : end + 1]
        start = end + 1
    return found


def _held(between: list[Pair], left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:
    """Of the pairs between two layers with weights those that hang together with either; what is behind the first gap
    with weights and before the last one stands alone.
    """
    gaps = [k for k, (i, j) in enumerate(between) if i is None or j is None]
    weighted = [k for k in gaps if _signature_of(between[k], left, right).name in WEIGHTED]
    if len(weighted) < 2 or weighted[-1] - weighted[0] < 2:
        return between
    first, last = weighted[0], weighted[-1] + 1
    apart = between[first:last]
    if all(None in pair for pair in apart):
        return between
    theirs: list[Pair] = [(None, j) for _, j in apart if j is not None]
    ours: list[Pair] = [(i, None) for i, _ in apart if i is not None]
    return [*between[:first], *theirs, *ours, *between[last:]]


def _is_anchor(pair: Pair, left: Sequence[Signature]) -> bool:
    i, j = pair
    return i is not None and j is not None and left[i].name in WEIGHTED


def _signature_of(pair: Pair, left: Sequence[Signature], right: Sequence[Signature]) -> Signature:
    i, j = pair
    return left[i] if i is not None else right[j or 0]


def _slid(pairs: list[Pair], left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:
    """The same alignment where, of equal layers in a row, the later ones are those left out: of three equal
    convolutions the third.
    """
    start = 0
    while start < len(pairs):
        side = 0 if pairs[start][1] is None else 1 if pairs[start][0] is None else None
        if side is None:
            start += 1
            continue
        signatures = (left, right)[side]
        end = start
        while end < len(pairs) and pairs[end][1 - side] is None:
            end += 1
        while end < len(pairs) and _same(signatures, pairs[start][side], pairs[end][side]):
            pairs[start], pairs[end] = _swapped(pairs[start], pairs[end], side)
            pairs[start + 1 : end + 1] = sorted(pairs[start + 1 : end + 1], key=lambda pair: pair[side] or 0)
            start, end = start + 1, end + 1
        start = max(end, start + 1)
    return pairs


def _same(signatures: Sequence[Signature], one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and signatures[one].does_as(signatures[other])


def _swapped(gap: Pair, pair: Pair, side: int) -> tuple[Pair, Pair]:
    """A lone layer and a pair with the pair's partner handed to the lone layer."""
    partner = pair[1 - side]
    lone: Pair = (pair[0], None) if side == 0 else (None, pair[1])
    return ((gap[0], partner) if side == 0 else (partner, gap[1])), lone


def distance(ours: Network, reference: Network) -> float:
    """How far apart two networks are: 0 for those whose layers do the same in the same order, else what the exchanges
    of their alignment cost, and the layers left out. Those between two layers with weights that have their counterpart
    are left out as one.
    """
    left = [_signature(ours, node) for node in ours.nodes]
    right = [_signature(reference, node) for node in reference.nodes]
    total = 0.0
    gaps: tuple[list[float], list[float]] = ([], [])
    for i, j in align(ours, reference).pairs:
        if i is None or j is None:
            gaps[i is None].append(_gap(right[j or 0] if i is None else left[i]))
            continue
        total += _exchange(left[i], right[j])
        if left[i].name in WEIGHTED:
            total += _as_one(gaps)
    return total + _as_one(gaps)


def _as_one(gaps: tuple[list[float], list[float]]) -> float:
    """What the layers cost that either network has alone since the last time."""
    total = sum(max(costs) + _IN_A_ROW * (sum(costs) - max(costs)) for costs in gaps if costs)
    for costs in gaps:
        costs.clear()
    return total


class Signature(NamedTuple):
    """What an alignment knows of a layer: the op's name, what its writer chose about it, the width that it takes in
    where it covers its whole input (else 0), and whether the network ends there.
    """

    name: str
    chosen: tuple[tuple[str, object], ...]
    covers: int
    last: bool

    def does_as(self, other: Signature) -> bool:
        """Whether two layers do the same."""
        return self.name == other.name and self.chosen == other.chosen


def _signature(network: Network, node: Node) -> Signature:
    covers, name = 0, node.op.name
    inputs = network.input_shapes(node)
    if name in ("MaxPool2d", "AvgPool2d") and is_pixel(node.op):
        name = "Identity"
    if node.op.name == "Linear" and inputs[0]:
        covers = inputs[0][-1]
    elif node.op.name == "Conv2d" and set(network.output_shape(node)[2:]) == {1}:
        covers = numel(inputs[0])
    return Signature(name, chosen(node.op), covers, node is network.nodes[-1])


def is_pixel(op: Op) -> bool:
    """Whether an op's window is one pixel of its input, at each."""
    window = op.window((1, 1))
    return window is not None and set(window.span) | set(window.stride) == {1} and not any(window.padding)


def chosen(op: Op) -> tuple[tuple[str, object], ...]:
    """What its writer chose about it: its fields but the one that follows from the input, and when it acts."""
    named = ((f.name, getattr(op, f.name)) for f in fields(op) if f.name != op.width_field)
    return (*named, ("active_in", op.active_in))


def _common(left: Sequence[Signature], right: Sequence[Signature]) -> int:
    return next((k for k, (a, b) in enumerate(zip(left, right)) if not a.does_as(b)), min(len(left), len(right)))


def _gap(signature: Signature) -> float:
    return _GAPS.get(signature.name, _GAP)


def _exchange(ours: Signature, reference: Signature) -> float:
    """What it costs that this layer stands where that one should."""
    if ours.does_as(reference):
        return 0.0
    elsewhere = 0.25 if ours.last != reference.last else 0.0
    names = {ours.name, reference.name}
    if len(names) == 1:
        changed = sum(a != b for a, b in zip(ours.chosen, reference.chosen))
        return min(0.75 + 0.5 * changed + elsewhere, 2 * _gap(ours) - 0.5)
    if names == {"Linear", "Conv2d"} and ours.covers and reference.covers:
        return 0.5 + elsewhere
    return next((cost for family, cost in _FAMILIES if names <= family), _IMPOSSIBLE)


def _cheapest(left: Sequence[Signature], right: Sequence[Signature]) -> Alignment:
    """The alignment by dynamic programming, a row at a time over the reference.

    Of long networks each row is a band around the straight line from the start to the end of both. What leaves the
    band leaves out so many layers that the alignment is known to be the cheapest unless it costs more than those.
    """
    if not left or not right:
        return Alignment([*((i, None) for i in range(len(left))), *((None, j) for j in range(len(right)))], True)
    import numpy as np

    exchange = _exchanges(left, right)
    skipped = np.concatenate(([0.0], np.cumsum([_gap(signature) for signature in right])))
    width = min(len(right) + 1, MOST_CELLS // (len(left) + 1))
    line = np.arange(len(left) + 1) * len(right) // len(left)
    starts = np.clip(line - width // 2, 0, len(right) + 1 - width)
    costs = np.empty((len(left) + 1, width))
    costs[0] = skipped[:width]
    for i, signature in enumerate(left):
        start, shift = starts[i + 1], starts[i + 1] - starts[i]
        above = np.concatenate(([np.inf], costs[i, max(shift - 1, 0) :], np.full(shift, np.inf)))[-width - 1 :]
        row = np.minimum(above[1:] + _gap(signature), above[:-1] + exchange(i, start, start + width))
        # The cheapest way along the row: arrive somewhere, then skip the reference's layers up to here.
        skips = skipped[start : start + width]
        costs[i + 1] = np.minimum.accumulate(row - skips) + skips
    is_cheapest = costs[-1, -1] < _least_outside(starts, width, left, right)
    return Alignment(_trace_back(costs, starts, left, right), bool(is_cheapest))


def _exchanges(left: Sequence[Signature], right: Sequence[Signature]):  # type: ignore[no-untyped-def]
    """A function that gives what it costs that layer i of ours stands where the reference has those before place
    `start` to `end`; before place 0 there is none, and what it says there counts for nothing.
    """
    import numpy as np

    left_kinds, left_index = _distinct(left)
    right_kinds, right_index = _distinct(right)
    before = np.array([0, *right_index])
    if len(left_kinds) * len(right_kinds) <= MOST_CELLS:
        table = np.array([[_exchange(a, b) for b in right_kinds] for a in left_kinds])
        return lambda i, start, end: table[left_index[i], before[start:end]]

    def exchange(i: int, start: int, end: int):  # type: ignore[no-untyped-def]
        kinds, places = np.unique(before[start:end], return_inverse=True)
        return np.array([_exchange(left[i], right_kinds[kind]) for kind in kinds])[places]

    return exchange


def _least_outside(starts, width: int, left: Sequence[Signature], right: Sequence[Signature]) -> float:  # type: ignore[no-untyped-def]
    """What an alignment costs at the least that leaves the band: the layers that it has to leave out on its way there
    and back.
    """
    import numpy as np

    ours, theirs = min(map(_gap, left)), min(map(_gap, right))
    behind = len(right) - len(left)
    ahead = starts - np.arange(len(left) + 1)
    above = min((ahead + width)[starts + width <= len(right)], default=np.inf)
    below = max((ahead - 1)[starts > 0], default=-np.inf)
    return float(
        min(
            max(above, 0) * theirs + max(above - behind, 0) * ours,
            max(-below, 0) * ours + max(behind - below, 0) * theirs,
        )
    )


def _distinct(signatures: Sequence[Signature]) -> tuple[list[Signature], list[int]]:
    """Each signature once, and for each layer the place of its own among them."""
    places = {signature: place for place, signature in enumerate(dict.fromkeys(signatures))}
    return list(places), [places[signature] for signature in signatures]


def _trace_back(costs, starts, left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:  # type: ignore[no-untyped-def]
    """From the end to the start along the cheapest way. Row i of the costs begins at place `starts[i]`."""
    i, j = len(left), len(right)
    width = costs.shape[1]

    def cost(i: int, j: int) -> float:
        place = j - starts[i]
        return float(costs[i, place]) if 0 <= place < width else math.inf

    pairs: list[Pair] = []
    while i or j:
        here = cost(i, j) + 1e-6
        if i and cost(i - 1, j) + _gap(left[i - 1]) <= here:
            i -= 1
            pairs.append((i, None))
        elif j and cost(i, j - 1) + _gap(right[j - 1]) <= here:
            j -= 1
            pairs.append((None, j))
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
