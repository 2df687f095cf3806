"""What the units along one axis of a map see of the image: a rule where all do alike, else unit by unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vggscope.ops.reading import Folded, Placed, Reading, Regions, Taps

Span = tuple[int, int]
"""The first and the last pixel; below 0 and behind the image lies padding."""


@dataclass(frozen=True)
class Even:
    """Unit i covers the pixels [-padding + i*stride, -padding + i*stride + size - 1] (Araujo et al. 2019)."""

    units: int
    size: int
    stride: int
    padding: int

    def span(self, unit: int) -> Span:
        """What one unit covers; a unit beyond the map's border covers what the rule says."""
        first = unit * self.stride - self.padding
        return first, first + self.size - 1

    @property
    def hull(self) -> Span:
        """What all units together cover."""
        return self.span(0)[0], self.span(self.units - 1)[1]


@dataclass(frozen=True)
class Uneven:
    """What each unit covers; None for one that sees nothing of the image."""

    spans: tuple[Span | None, ...]

    @property
    def units(self) -> int:
        """How many there are."""
        return len(self.spans)

    def span(self, unit: int) -> Span | None:
        """What one unit covers."""
        return self.spans[unit] if 0 <= unit < len(self.spans) else None

    @property
    def hull(self) -> Span | None:
        """What all units together cover."""
        return around(self.spans)


@dataclass(frozen=True)
class Laid:
    """The units of `base` in a row with those of other axes: what a map's flattening gives."""

    units: int
    base: Even | Uneven
    fold: Folded

    def span(self, unit: int) -> Span | None:
        """What one place of the row covers."""
        return self.base.span(unit // self.fold.inner % self.fold.size) if 0 <= unit < self.units else None

    @property
    def hull(self) -> Span | None:
        """What all of them together cover."""
        return self.base.hull


Extent = Even | Uneven | Laid


def around(spans: Iterable[Span | None]) -> Span | None:
    """The smallest span that holds all of these."""
    known = [span for span in spans if span is not None]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None


def read(extent: Extent, reading: Reading, units: int) -> Extent:
    """What `units` units cover that read the units of `extent` in this way."""
    if isinstance(reading, Taps):
        return _tapped(extent, reading, units)
    if isinstance(reading, Regions):
        return evened([around(map(extent.span, range(*bounds))) for bounds in reading.bounds])
    if isinstance(reading, Placed):
        return evened(
            [extent.span(i) if 0 <= (i := unit - reading.offset) < extent.units else None for unit in range(units)]
        )
    if isinstance(reading, Folded):
        return Laid(units, evened(spans(extent)) if isinstance(extent, Laid) else extent, reading)
    return everywhere(extent.hull, units)


def _tapped(extent: Extent, taps: Taps, units: int) -> Extent:
    reach = (taps.kernel_size - 1) * taps.dilation
    if isinstance(extent, Even) and extent.stride >= 0:
        # Araujo et al. 2019, equations 2 to 4: padding counts as units that go on beyond the border.
        return Even(
            units,
            extent.size + reach * extent.stride,
            extent.stride * taps.stride,
            extent.padding + extent.stride * taps.padding,
        )
    starts = (unit * taps.stride - taps.padding for unit in range(units))
    return evened([around(map(extent.span, range(start, start + reach + 1, taps.dilation))) for start in starts])


def everywhere(hull: Span | None, units: int, stride: int = 0) -> Extent:
    """Units that all cover the same."""
    return Uneven((None,) * units) if hull is None else Even(units, hull[1] - hull[0] + 1, stride, -hull[0])


def whole(extent: Extent) -> Extent:
    """The one unit that reads all of these; its stride is theirs, as in a convolution that covers the map."""
    base = rule(extent)
    return everywhere(extent.hull, 1, base.stride if base else 0)


def rule(extent: Extent) -> Even | None:
    """The rule that all units follow, if one does; a row into which a map is laid has the map's."""
    base = extent.base if isinstance(extent, Laid) else extent
    return base if isinstance(base, Even) else None


def spans(extent: Extent) -> list[Span | None]:
    """What each unit covers."""
    return [extent.span(unit) for unit in range(extent.units)]


def evened(found: Sequence[Span | None]) -> Even | Uneven:
    """Spans as a rule, where they are equally long at equal steps."""
    first = found[0] if found else None
    if first is None:
        return Uneven(tuple(found))
    second = found[1] if len(found) > 1 else None
    even = Even(len(found), first[1] - first[0] + 1, second[0] - first[0] if second else 0, -first[0])
    return even if all(span == even.span(unit) for unit, span in enumerate(found)) else Uneven(tuple(found))


def union(extents: Sequence[Extent]) -> Extent:
    """What units cover that read their own place in each of these, which have as many units each."""
    even = [extent for extent in extents if isinstance(extent, Even)]
    first = extents[0]
    if len(even) == len(extents) and len({extent.stride for extent in even}) == 1:
        padding = max(extent.padding for extent in even)
        size = max(extent.size - extent.padding for extent in even) + padding
        return Even(first.units, size, even[0].stride, padding)
    return evened([around(extent.span(unit) for extent in extents) for unit in range(first.units)])


def centred_alike(extents: Sequence[Extent]) -> bool:
    """Whether the windows of these lie one over the other, as far as they have a common stride."""
    even = [extent for extent in extents if isinstance(extent, Even) and extent.units > 1 and extent.stride > 0]
    return len({extent.size - 2 * extent.padding for extent in even}) <= 1
