"""What the units along one axis of a map see of the image: a rule where all do alike, else unit by unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vggscope.ops.axis_maps import FlattenedAxis, Ranges, Reading, Shifted, StridedWindow
from vggscope.record import record

Span = tuple[int, int]
"""The first and the last pixel; below 0 and behind the image lies padding."""


@record
class Regular:
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


@record
class Irregular:
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


@record
class Flattened:
    """The units of `base` in a row with those of other axes: what a map's flattening gives."""

    units: int
    base: Regular | Irregular
    fold: FlattenedAxis

    def span(self, unit: int) -> Span | None:
        """What one place of the row covers."""
        return self.base.span(unit // self.fold.inner % self.fold.size) if 0 <= unit < self.units else None

    @property
    def hull(self) -> Span | None:
        """What all of them together cover."""
        return self.base.hull


Extent = Regular | Irregular | Flattened


def around(spans: Iterable[Span | None]) -> Span | None:
    """The smallest span that holds all of these."""
    known = [span for span in spans if span is not None]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None


def read(extent: Extent, reading: Reading, units: int) -> Extent:
    """What `units` units cover that read the units of `extent` in this way."""
    if isinstance(reading, StridedWindow):
        return _tapped(extent, reading, units)
    if isinstance(reading, Ranges):
        return Irregular(tuple(around(map(extent.span, range(*bounds))) for bounds in reading.bounds))
    if isinstance(reading, Shifted):
        places = (unit - reading.offset for unit in range(units))
        return Irregular(tuple(extent.span(place) if 0 <= place < extent.units else None for place in places))
    if isinstance(reading, FlattenedAxis):
        return Flattened(units, Irregular(spans(extent)) if isinstance(extent, Flattened) else extent, reading)
    return everywhere(extent, units)


def _tapped(extent: Extent, taps: StridedWindow, units: int) -> Extent:
    reach = (taps.kernel_size - 1) * taps.dilation
    if isinstance(extent, Regular) and extent.stride >= 0:
        # Araujo et al. 2019, equations 2 to 4: padding counts as units that go on beyond the border.
        return Regular(
            units,
            extent.size + reach * extent.stride,
            extent.stride * taps.stride,
            extent.padding + extent.stride * taps.padding,
        )
    starts = (unit * taps.stride - taps.padding for unit in range(units))
    return Irregular(
        tuple(around(map(extent.span, range(start, start + reach + 1, taps.dilation))) for start in starts)
    )


def everywhere(extent: Extent, units: int, stride: int = 0) -> Regular | Irregular:
    """Units that each cover all that those of `extent` do."""
    hull = extent.hull
    if hull is None or not isinstance(extent, Regular):
        return Irregular((hull,) * units)
    return Regular(units, hull[1] - hull[0] + 1, stride, -hull[0])


def whole(extent: Extent) -> Extent:
    """The one unit that reads all of these; its stride is theirs, as in a convolution that covers the map."""
    base = extent.base if isinstance(extent, Flattened) else extent
    return everywhere(base, 1, base.stride if isinstance(base, Regular) else 0)


def spans(extent: Extent) -> tuple[Span | None, ...]:
    """What each unit covers."""
    return tuple(extent.span(unit) for unit in range(extent.units))


def rule(extent: Extent) -> Regular | None:
    """The rule that all units follow, if one does; a row into which a map is laid has the map's."""
    base = extent.base if isinstance(extent, Flattened) else extent
    if isinstance(base, Regular):
        return base
    first, *rest = base.spans or (None,)
    if first is None:
        return None
    step = rest[0][0] - first[0] if rest and rest[0] else 0
    even = Regular(base.units, first[1] - first[0] + 1, step, -first[0])
    return even if spans(even) == base.spans else None


def union(extents: Sequence[Extent]) -> Extent:
    """What units cover that read their own place in each of these, which have as many units each."""
    even = [extent for extent in extents if isinstance(extent, Regular)]
    first = extents[0]
    if len(even) == len(extents):
        if len({extent.stride for extent in even}) == 1:
            padding = max(extent.padding for extent in even)
            size = max(extent.size - extent.padding for extent in even) + padding
            return Regular(first.units, size, even[0].stride, padding)
        covering = next((extent for extent in even if extent.stride == 0 and _covers(extent, even)), None)
        if covering is not None:
            return covering
    return Irregular(tuple(around(extent.span(unit) for extent in extents) for unit in range(first.units)))


def _covers(extent: Regular, others: Sequence[Regular]) -> bool:
    """Whether what all units of `extent` see alike holds all that those of the others see."""
    return around([extent.hull, *(other.hull for other in others)]) == extent.hull


def centred_alike(extents: Sequence[Extent]) -> bool:
    """Whether the windows of these lie one over the other, as far as they have a common stride."""
    even = [extent for extent in extents if isinstance(extent, Regular) and extent.units > 1 and extent.stride > 0]
    return len({extent.size - 2 * extent.padding for extent in even}) <= 1
