"""The pixels that the units along one axis of a map cover: by one rule for all units, by runs, or unit by unit.

By the rule, the cost of a layer does not depend on the number of its units. Only units without a rule, such as those
of uneven pools and of transposed convolutions, are kept one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import accumulate

from vggscope.ops.axis_maps import SAME, FlattenedAxis, Ranges, Reading, Shifted, StridedWindow
from vggscope.record import record

Span = tuple[int, int]
"""The first and the last pixel. Pixels below 0 and after the image are padding."""


@record
class Regular:
    """Unit i covers the pixels [-padding + i*stride, -padding + i*stride + size - 1] (Araujo et al. 2019)."""

    units: int
    size: int
    stride: int
    padding: int

    def span(self, unit: int) -> Span:
        """The pixels of one unit. The rule holds for units outside the map too, which are padding."""
        first = unit * self.stride - self.padding
        return first, first + self.size - 1

    @property
    def hull(self) -> Span:
        """The pixels of all units together."""
        ends = self.span(0), self.span(self.units - 1)
        return min(ends)[0], max(ends)[1]


@lru_cache(maxsize=4096)
def regular(units: int, size: int, stride: int, padding: int) -> Regular:
    """The extent with these fields: the same object for equal sides and layers."""
    return Regular(units, size, stride, padding)


@record
class Irregular:
    """The pixels of each unit; None for a unit that depends on no pixel."""

    spans: tuple[Span | None, ...]

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.spans)

    def span(self, unit: int) -> Span | None:
        """The pixels of one unit."""
        return self.spans[unit] if 0 <= unit < len(self.spans) else None

    @property
    def hull(self) -> Span | None:
        """The smallest span around the pixels of all units."""
        return hull_of(self.spans)


@record
class Flattened:
    """The units of `base` after a flatten that merged their axis with others."""

    units: int
    base: Regular | Irregular | Runs
    axis: FlattenedAxis

    def span(self, unit: int) -> Span | None:
        """The pixels of one position of the flattened axis."""
        return self.base.span(unit // self.axis.inner % self.axis.size) if 0 <= unit < self.units else None

    @property
    def hull(self) -> Span | None:
        """The pixels of all units together."""
        return self.base.hull


@record
class Runs:
    """Runs of consecutive units, each with its length and extent; None for units that depend on no pixel.

    Tokens of an image after a class token are two runs.
    """

    runs: tuple[tuple[int, Regular | Irregular | Flattened | None], ...]

    @property
    def units(self) -> int:
        """The number of units."""
        return sum(length for length, _ in self.runs)

    def span(self, unit: int) -> Span | None:
        """The pixels of one unit."""
        for length, extent in self.runs:
            if 0 <= unit < length:
                return extent.span(unit) if extent else None
            unit -= length
        return None

    @property
    def hull(self) -> Span | None:
        """The pixels of all units together."""
        return hull_of(extent.hull for _, extent in self.runs if extent)


Extent = Regular | Irregular | Flattened | Runs
_Run = tuple[int, Regular | Irregular | Flattened | None]


def unflattened(extent: Extent) -> Regular | Irregular | Runs:
    """The extent before a flatten; any other one as it is."""
    return extent.base if isinstance(extent, Flattened) else extent


def spans(extent: Extent) -> tuple[Span | None, ...]:
    """The pixels of each unit."""
    return extent.spans if isinstance(extent, Irregular) else tuple(map(extent.span, range(extent.units)))


def hull_of(spans: Iterable[Span | None]) -> Span | None:
    """The smallest span around all of these; None if there is none."""
    known = [span for span in spans if span is not None]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None


def sizes(extent: Extent) -> tuple[int, int] | None:
    """The least and the largest number of pixels of a unit; None if no unit depends on a pixel."""
    if isinstance(extent, Regular):
        return extent.size, extent.size
    if isinstance(extent, Flattened):
        return sizes(extent.base)
    if isinstance(extent, Runs):
        return hull_of(sizes(run) for _, run in extent.runs if run)
    lengths = {span[1] - span[0] + 1 for span in extent.spans if span is not None}
    return (min(lengths), max(lengths)) if lengths else None


def covers(extent: Extent, side: int) -> bool:
    """Whether each unit covers all pixels of a side of the image."""
    if isinstance(extent, Regular):
        return max(extent.span(0)[0], extent.span(extent.units - 1)[0]) <= 0 and (
            min(extent.span(0)[1], extent.span(extent.units - 1)[1]) >= side - 1
        )
    if isinstance(extent, Flattened):
        return covers(extent.base, side)
    if isinstance(extent, Runs):
        return all(run is not None and covers(run, side) for _, run in extent.runs)
    return all(span is not None and span[0] <= 0 and span[1] >= side - 1 for span in set(extent.spans))


def constant(extent: Extent) -> Span | None:
    """The pixels of each unit, if all units cover the same ones."""
    if isinstance(extent, Regular):
        return extent.span(0) if extent.stride == 0 or extent.units == 1 else None
    if isinstance(extent, Flattened):
        return constant(extent.base)
    if isinstance(extent, Runs):
        return None
    distinct = set(extent.spans)
    return distinct.pop() if len(distinct) == 1 else None


def read(extent: Extent, reading: Reading, units: int) -> Extent:
    """The pixels of `units` output units that read the units of `extent` through a map of its axis."""
    if reading is SAME and units == extent.units:
        return extent
    if isinstance(reading, StridedWindow):
        return _read_windows(extent, reading, units)
    if isinstance(reading, Ranges):
        return _read_ranges(extent, reading)
    if isinstance(reading, Shifted):
        return _cut(extent, -reading.offset, units)
    if isinstance(reading, FlattenedAxis):
        return _flatten(extent, reading, units)
    return read_all(extent, units)


def _read_ranges(extent: Extent, ranges: Ranges) -> Regular | Irregular:
    hulls = tuple(_hulls(extent, ranges.bounds))
    if len(set(hulls)) == 1 and hulls[0] is not None and not isinstance(unflattened(extent), Irregular):
        first, last = hulls[0]
        return Regular(len(hulls), last - first + 1, 0, -first)
    return Irregular(hulls)


def _read_windows(extent: Extent, window: StridedWindow, units: int) -> Extent:
    reach = (window.kernel_size - 1) * window.dilation
    if isinstance(extent, Regular) and extent.stride >= 0:
        # Araujo et al. 2019, equations 2 to 4: padding counts as units that go on beyond the border.
        return regular(
            units,
            extent.size + reach * extent.stride,
            extent.stride * window.stride,
            extent.padding + extent.stride * window.padding,
        )
    if window.kernel_size == window.stride == 1:
        return _cut(extent, -window.padding, units)
    starts = (unit * window.stride - window.padding for unit in range(units))
    return Irregular(tuple(_hulls(extent, ((start, start + reach + 1) for start in starts), window.dilation)))


def _hulls(extent: Extent, bounds: Iterable[tuple[int, int]], step: int = 1) -> Iterator[Span | None]:
    """The pixels of the units in each of these ranges."""
    if isinstance(extent, Regular):
        for start, end in bounds:
            yield hull_of((extent.span(start), extent.span(end - 1))) if end > start else None
        return
    units = spans(extent)
    if step == 1 and _is_monotone(units):
        count = len(units)
        for start, end in bounds:
            inside = units[max(start, 0) : min(max(end, 0), count)]
            yield (inside[0][0], inside[-1][1]) if inside else None  # type: ignore[index]
        return
    for start, end in bounds:
        inside_range = range(start if start >= 0 else start % step, min(end, len(units)), step)
        yield hull_of(map(units.__getitem__, inside_range))


def _is_monotone(units: Sequence[Span | None]) -> bool:
    """Whether each unit covers pixels that begin and end nowhere before those of the unit before it."""
    previous = (-(10**18), -(10**18))
    for span in units:
        if span is None or span[0] < previous[0] or span[1] < previous[1]:
            return False
        previous = span
    return True


def _flatten(extent: Extent, axis: FlattenedAxis, units: int) -> Flattened:
    if isinstance(extent, Flattened):
        return Flattened(units, extent.base, FlattenedAxis(axis.inner * extent.axis.inner, extent.axis.size))
    return Flattened(units, extent, axis)


def _cut(extent: Extent, start: int, units: int) -> Extent:
    """The units from `start` on; those before the first and after the last depend on no pixel."""
    if start == 0 and units == extent.units:
        return extent
    before, last = min(max(-start, 0), units), min(start + units, extent.units)
    first = max(start, 0)
    inside = _slice(extent, first, last) if last > first else ()
    return _joined(((before, None), *inside, (units - before - max(last - first, 0), None)))


def _slice(extent: Extent, start: int, end: int) -> tuple[_Run, ...]:
    """The units of a range as runs."""
    units = end - start
    if isinstance(extent, Regular):
        return ((units, Regular(units, extent.size, extent.stride, extent.padding - start * extent.stride)),)
    if isinstance(extent, Runs):
        starts = accumulate((length for length, _ in extent.runs), initial=0)
        cut = [((max(start - at, 0), min(end - at, length)), run) for (length, run), at in zip(extent.runs, starts)]
        return tuple(
            part
            for (first, last), run in cut
            if last > first
            for part in (_slice(run, first, last) if run else ((last - first, None),))
        )
    if (start, units) == (0, extent.units):
        return ((units, extent),)
    return ((units, Irregular(spans(extent)[start:end])),)


def _joined(runs: Iterable[_Run]) -> Extent:
    """The extent of consecutive runs; neighbours that cover the same pixels become one."""
    merged: list[_Run] = []
    for length, run in runs:
        if not length:
            continue
        if merged and (together := _merged(*merged[-1], length, run)) is not None:
            merged[-1] = together
        else:
            merged.append((length, run))
    if any(isinstance(run, Irregular) for _, run in merged):
        return Irregular(tuple(span for length, run in merged for span in (spans(run) if run else (None,) * length)))
    only = merged[0][1] if len(merged) == 1 else None
    return Runs(tuple(merged)) if only is None else only


def _merged(length: int, run: Extent | None, more: int, other: Extent | None) -> _Run | None:
    if run is None or other is None:
        return (length + more, None) if run is other else None
    if not isinstance(run, Regular) or not isinstance(other, Regular) or run.size != other.size:
        return None
    stride = run.stride if length > 1 else other.stride if more > 1 else other.span(0)[0] - run.span(0)[0]
    joined = Regular(length + more, run.size, stride, run.padding)
    fits = joined.span(length - 1) == run.span(length - 1) and joined.span(length) == other.span(0)
    return (length + more, joined) if fits and joined.span(length + more - 1) == other.span(more - 1) else None


def read_all(extent: Extent, units: int, stride: int = 0) -> Extent:
    """The pixels of units that each read all units of `extent`."""
    hull = extent.hull
    if hull is None or isinstance(unflattened(extent), Irregular):
        return Irregular((hull,) * units)
    return Regular(units, hull[1] - hull[0] + 1, stride, -hull[0])


def reduced(extent: Extent) -> Extent:
    """The pixels of the one unit that reads all others, with their stride: a convolution as large as the map."""
    base = unflattened(extent)
    return read_all(base, 1, base.stride if isinstance(base, Regular) else 0)


def rule(extent: Extent) -> Regular | None:
    """The rule that all units follow, if there is one; before a flatten, if there was one."""
    base = unflattened(extent)
    if isinstance(base, Regular):
        return base
    if isinstance(base, Runs):
        return None
    first, *rest = base.spans or (None,)
    if first is None:
        return None
    stride = rest[0][0] - first[0] if rest and rest[0] else 0
    ruled = Regular(base.units, first[1] - first[0] + 1, stride, -first[0])
    return ruled if spans(ruled) == base.spans else None


def union(extents: Sequence[Extent]) -> Extent:
    """The pixels of units that read the unit at their own position in each of these extents of equal length."""
    first, *others = extents
    if all(other is first for other in others) or all(other == first for other in others):
        return first
    ruled = [extent for extent in extents if isinstance(extent, Regular)]
    is_ruled = len(ruled) == len(extents)
    if not is_ruled and any(isinstance(extent, Runs) for extent in extents):
        return _union_of_runs(extents)
    strides = {extent.stride for extent in ruled}
    covering = next((extent for extent in ruled if _covers_all(extent, extents)), None) if 0 in strides else None
    if covering is not None:
        return covering
    if is_ruled and len(strides) == 1:
        padding = max([extent.padding for extent in ruled])
        size = max([extent.size - extent.padding for extent in ruled]) + padding
        return regular(first.units, size, ruled[0].stride, padding)
    flat = [extent for extent in extents if isinstance(extent, Flattened)]
    if len({extent.axis for extent in flat}) == 1:
        shared = [extent for extent in ruled if extent.stride == 0]
        if len(flat) + len(shared) == len(extents):
            units = flat[0].base.units
            bases = [*(extent.base for extent in flat), *(replace(extent, units=units) for extent in shared)]
            return _flatten(union(bases), flat[0].axis, first.units)
    return Irregular(tuple(map(hull_of, zip(*map(spans, extents)))))


def _covers_all(extent: Regular, others: Sequence[Extent]) -> bool:
    """Whether an extent with stride 0 covers the pixels of all others."""
    return extent.stride == 0 and hull_of([extent.hull, *(other.hull for other in others)]) == extent.hull


def _union_of_runs(extents: Sequence[Extent]) -> Extent:
    """The union, run by run."""
    ends: set[int] = set()
    for extent in extents:
        lengths = (length for length, _ in extent.runs) if isinstance(extent, Runs) else (extent.units,)
        ends.update(accumulate(lengths))
    runs: list[_Run] = []
    for start, end in zip((0, *sorted(ends)), sorted(ends)):
        cut = [_slice(extent, start, end)[0][1] for extent in extents]
        together = [run for run in cut if run is not None]
        joined = union(together) if together else None
        assert not isinstance(joined, Runs)
        runs.append((end - start, joined))
    return _joined(runs)


def same_centres(extents: Sequence[Extent]) -> bool:
    """Whether units at the same position are centred on the same pixel, as far as their rules have a stride."""
    ruled = [extent for extent in extents if isinstance(extent, Regular) and extent.units > 1 and extent.stride > 0]
    return len({extent.size - 2 * extent.padding for extent in ruled}) <= 1
