"""Which layer of one network stands for which layer of another.

Both are read in execution order and matched by what the layers do, not by what they are called: the alignment is the
cheapest way to turn one sequence into the other (Needleman and Wunsch 1970), where leaving out a convolution costs
more than leaving out a dropout, and changing an attribute costs less than exchanging the layer.
"""

from __future__ import annotations

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
    ({"MaxPool2d", "AvgPool2d", "AdaptiveAvgPool2d", "AdaptiveMaxPool2d"}, 2.5),
    ({"ReLU", "Sigmoid", "Tanh", "LeakyReLU", "GELU", "SiLU", "ELU", "ReLU6", "Hardswish", "PReLU", "Softplus"}, 2.5),
    ({"BatchNorm2d", "LocalResponseNorm", "GroupNorm", "InstanceNorm2d", "LayerNorm"}, 3.0),
    ({"Flatten", "reshape", "squeeze"}, 0.5),
    ({"Dropout", "Dropout2d"}, 1.0),
)
"""Ops of which one may stand in the other's place, and what that exchange costs."""

_IMPOSSIBLE = 1e9


def align(ours: Network, reference: Network) -> list[Pair]:
    """Pairs of positions in order, each position of either network once."""
    left = [_signature(ours, node) for node in ours.nodes]
    right = [_signature(reference, node) for node in reference.nodes]
    start = _common(left, right)
    end = _common(left[start:][::-1], right[start:][::-1])
    middle = _cheapest(left[start : len(left) - end], right[start : len(right) - end])
    shifted = [(None if i is None else i + start, None if j is None else j + start) for i, j in middle]
    tail: list[Pair] = [(len(left) - end + k, len(right) - end + k) for k in range(end)]
    return _slid([*[(k, k) for k in range(start)], *shifted, *tail], left, right)


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
    """What the cheapest alignment costs: 0 for networks whose layers do the same in the same order."""
    left = [_signature(ours, node) for node in ours.nodes]
    right = [_signature(reference, node) for node in reference.nodes]
    total = 0.0
    for i, j in align(ours, reference):
        if i is not None and j is not None:
            total += _exchange(left[i], right[j])
        else:
            total += _gap(left[i] if i is not None else right[j or 0])
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
    covers = 0
    inputs = network.input_shapes(node)
    if node.op.name == "Linear":
        covers = inputs[0][-1]
    elif node.op.name == "Conv2d" and set(network.output_shape(node)[2:]) == {1}:
        covers = numel(inputs[0])
    return Signature(node.op.name, chosen(node.op), covers, node is network.nodes[-1])


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


def _cheapest(left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:
    """The alignment by dynamic programming, a row at a time over the reference."""
    if not left or not right:
        return [*((i, None) for i in range(len(left))), *((None, j) for j in range(len(right)))]
    import numpy as np

    left_kinds, left_index = _distinct(left)
    right_kinds, right_index = _distinct(right)
    table = np.array([[_exchange(a, b) for b in right_kinds] for a in left_kinds])
    exchange = table[:, right_index]
    skipped = np.concatenate(([0.0], np.cumsum([_gap(signature) for signature in right])))
    costs = np.empty((len(left) + 1, len(right) + 1))
    costs[0] = skipped
    for i, signature in enumerate(left):
        row = costs[i] + _gap(signature)
        row[1:] = np.minimum(row[1:], costs[i, :-1] + exchange[left_index[i]])
        # The cheapest way along the row: arrive somewhere, then skip the reference's layers up to here.
        costs[i + 1] = np.minimum.accumulate(row - skipped) + skipped
    return _trace_back(costs, left, right)


def _distinct(signatures: Sequence[Signature]) -> tuple[list[Signature], list[int]]:
    """Each signature once, and for each layer the place of its own among them."""
    places = {signature: place for place, signature in enumerate(dict.fromkeys(signatures))}
    return list(places), [places[signature] for signature in signatures]


def _trace_back(costs, left: Sequence[Signature], right: Sequence[Signature]) -> list[Pair]:  # type: ignore[no-untyped-def]
    """From the end to the start along the cheapest way."""
    i, j = len(left), len(right)
    pairs: list[Pair] = []
    while i or j:
        here = costs[i, j] + 1e-6
        if i and costs[i - 1, j] + _gap(left[i - 1]) <= here:
            i -= 1
            pairs.append((i, None))
        elif j and costs[i, j - 1] + _gap(right[j - 1]) <= here:
            j -= 1
            pairs.append((None, j))
        else:
            i, j = i - 1, j - 1
            pairs.append((i, j))
    return pairs[::-1]
