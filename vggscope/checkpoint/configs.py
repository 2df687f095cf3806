"""Which column of Table 1 a run of convolutions is, wholly or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from vggscope.checkpoint.runs import CAFFE, OTHER, Position, Run
from vggscope.checkpoint.stored import StoredLayer
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.notation import Word, parse

FEWEST = 4
"""Convolutions below which nothing is taken for a column that is cut."""

_LIKENESS = 0.6
"""The share of a column's convolutions that a damaged file of it has at least."""


@record
class Place:
    """One convolution of a column: its weight's shape, and where torchvision's tree and Caffe's names have it."""

    shape: Shape
    number: Position
    stage: Position

    def position(self, style: str) -> Position:
        """Its position in names of that style."""
        return self.stage if style == CAFFE else self.number


@record
class Found:
    """A run beside a column. `convs` are the file's, one for each of `places`, or None where the file has none.

    `column` is None where several columns, `alike`, begin with the file's convolutions and go on differently.
    `renumbered`: the paths' numbers are not torchvision's. `before` is a 1x1 convolution of the colours that stands
    before the run, if any.
    """

    column: str | None
    run: Run
    places: tuple[Place, ...]
    convs: tuple[StoredLayer | None, ...]
    alike: tuple[str, ...] = ()
    renumbered: bool = False
    before: StoredLayer | None = None


@cache
def places(column: str, batch_norm: bool) -> tuple[Place, ...]:
    """The convolutions of a column, in order."""
    found: list[Place] = []
    number, stage, layer, channels = 0, 1, 0, 3
    for word in parse(CONFIGS[column]):
        if word.kind == "conv":
            layer += 1
            found.append(Place((word.size, channels, word.kernel, word.kernel), (number,), (stage, layer)))
            number, channels = number + 2 + batch_norm, word.size
        elif word.kind in ("lrn", "maxpool"):
            number += 1
        if word.kind == "maxpool":
            stage, layer = stage + 1, 0
    return tuple(found)


def feature_words(column: str, count: int) -> tuple[Word, ...]:
    """A column's words up to its FC layers, or, where `count` leaves convolutions out, up to the last that is left."""
    words = [word for word in parse(CONFIGS[column]) if word.kind in ("conv", "lrn", "maxpool")]
    convs = [i for i, word in enumerate(words) if word.kind == "conv"]
    return tuple(words if count >= len(convs) else words[: convs[count - 1] + 1])


def find(run: Run) -> Found | None:
    """The column that a run belongs to: all of it, its beginning, or most of it; None for another network."""
    first = run.convs[0] if run.convs else None
    if first and first.shape == (3, 3, 1, 1):
        rest = replace(run, positions=run.positions[1:], convs=run.convs[1:], norms=run.norms[1:])
        found = find(rest)
        return replace(found, before=first) if found else None
    whole = _whole(run)
    if whole:
        return whole
    beginning = _beginning(run)
    # Numbers that leave a gap tell which convolution is missing; a beginning has none.
    return beginning if beginning and not beginning.renumbered else _most(run) or beginning


def same(shape: Shape, expected: Shape, first: bool) -> bool:
    """Whether a weight has the expected shape; the first convolution may read any number of channels."""
    return (shape[0], *shape[2:]) == (expected[0], *expected[2:]) and (first or shape[1] == expected[1])


def _agreeing(run: Run, expected: Sequence[Place]) -> int:
    """How many convolutions agree from the first on."""
    for i, (conv, place) in enumerate(zip(run.convs, expected)):
        if not same(conv.shape, place.shape, not i):
            return i
    return min(len(run.convs), len(expected))


def _whole(run: Run) -> Found | None:
    # A-LRN's convolutions are A's; only a number left free for the LRN can tell them apart.
    for column in ("A-LRN", *(column for column in CONFIGS if column != "A-LRN")):
        expected = places(column, run.batch_norm)
        convs = run.convs[: len(expected)]
        if _agreeing(run, expected) == len(expected):
            renumbered = _renumbered(run, expected)
            if column != "A-LRN" or (run.style not in (CAFFE, OTHER) and not renumbered):
                return Found(column, run, expected, convs, renumbered=renumbered)
    return None


def _renumbered(run: Run, expected: Sequence[Place]) -> bool:
    return run.style != OTHER and any(have != place.position(run.style) for have, place in zip(run.positions, expected))


def _beginning(run: Run) -> Found | None:
    count = len(run.convs)
    if count < FEWEST:
        return None
    alike = tuple(
        column for column in CONFIGS if column != "A-LRN" and _agreeing(run, places(column, run.batch_norm)) == count
    )
    if not alike:
        return None
    expected = places(alike[0], run.batch_norm)
    renumbered = _renumbered(run, expected)
    if len(alike) > 1:
        return Found(None, run, expected[:count], run.convs, alike, renumbered)
    padded = (*run.convs, *(None for _ in expected[count:]))
    return Found(alike[0], run, expected, padded, renumbered=renumbered)


def _most(run: Run) -> Found | None:
    """The column to which most convolutions belong by position and shape."""
    if run.style == OTHER:
        return None
    have = dict(zip(run.positions, run.convs))
    best, likeness = None, _LIKENESS
    for column in CONFIGS:
        expected = {place.position(run.style): place for place in places(column, run.batch_norm)}
        agreeing = sum(
            position in have and same(have[position].shape, place.shape, place.stage == (1, 1))
            for position, place in expected.items()
        )
        share = agreeing / len(expected.keys() | have.keys())
        if agreeing >= FEWEST and share > likeness:
            best, likeness = column, share
    if best is None:
        return None
    expected_places = places(best, run.batch_norm)
    return Found(best, run, expected_places, tuple(have.get(p.position(run.style)) for p in expected_places))
