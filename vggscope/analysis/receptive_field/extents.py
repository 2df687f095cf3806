"""The pixels that the units along one axis of a map cover: by one rule for all units, or unit by unit."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from vggscope.ops.axis_maps import FlattenedAxis, Ranges, Reading, Shifted, StridedWindow
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
        return self.span(0)[0], self.span(self.units - 1)[1]


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
    base: Regular | Irregular
    axis: FlattenedAxis

    def span(self, unit: int) -> Span | None:
        """The pixels of one position of the flattened axis."""
        return self.base.span(unit // self.axis.inner % self.axis.size) if 0 <= unit < self.units else None

    @property
    def hull(self) -> Span | None:
        """The pixels of all units together."""
        return self.base.hull


Extent = Regular | Irregular | Flattened


def unflattened(extent: Extent) -> Regular | Irregular:
    """The extent before a flatten; any other one as it is."""
    return extent.base if isinstance(extent, Flattened) else extent


def spans(extent: Extent) -> tuple[Span | None, ...]:
    """The pixels of each unit."""
    return tuple(extent.span(unit) for unit in range(extent.units))


def hull_of(spans: Iterable[Span | None]) -> Span | None:
    """The smallest span around all of these; None if there is none."""
    known = [span for span in spans if span is not None]
    return (min(first for first, _ in known), max(last for _, last in known)) if known else None


def read(extent: Extent, reading: Reading, units: int) -> Extent:
    """The pixels of `units` output units that read the units of `extent` through a map of its axis."""
    if isinstance(reading, StridedWindow):
        return _read_windows(extent, reading, units)
    if isinstance(reading, Ranges):
        return Irregular(tuple(hull_of(map(extent.span, range(*bounds))) for bounds in reading.bounds))
    if isinstance(reading, Shifted):
        sources = (unit - reading.offset for unit in range(units))
        return Irregular(tuple(extent.span(source) if 0 <= source < extent.units else None for source in sources))
    if isinstance(reading, FlattenedAxis):
        return Flattened(units, Irregular(spans(extent)) if isinstance(extent, Flattened) else extent, reading)
    return read_all(extent, units)


def _read_windows(extent: Extent, window: StridedWindow, units: int) -> Extent:
    reach = (window.kernel_size - 1) * window.dilation
    if isinstance(extent, Regular) and extent.stride >= 0:
        # Araujo et al. 2019, equations 2 to 4: padding counts as units that go on beyond the border.
        return Regular(
            units,
            extent.size + reach * extent.stride,
            extent.stride * window.stride,
            extent.padding + extent.stride * window.padding,
        )
    starts = (unit * window.stride - window.padding for unit in range(units))
    return Irregular(
        tuple(hull_of(map(extent.span, range(start, start + reach + 1, window.dilation))) for start in starts)
    )


def read_all(extent: Extent, units: int, stride: int = 0) -> Regular | Irregular:
    """The pixels of units that each read all units of `extent`."""
    hull = extent.hull
    if hull is None or not isinstance(extent, Regular):
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
    first, *rest = base.spans or (None,)
    if first is None:
        return None
    stride = rest[0][0] - first[0] if rest and rest[0] else 0
    regular = Regular(base.units, first[1] - first[0] + 1, stride, -first[0])
    return regular if spans(regular) == base.spans else None


def union(extents: Sequence[Extent]) -> Extent:
    """The pixels of units that read the unit at their own position in each of these extents of equal length."""
    regular = [extent for extent in extents if isinstance(extent, Regular)]
    units = extents[0].units
    if len(regular) == len(extents):
        if len({extent.stride for extent in regular}) == 1:
            padding = max(extent.padding for extent in regular)
            size = max(extent.size - extent.padding for extent in regular) + padding
            return Regular(units, size, regular[0].stride, padding)
        covering = next((extent for extent in regular if extent.stride == 0 and _covers(extent, regular)), None)
        if covering is not None:
            return covering
    return Irregular(tuple(hull_of(extent.span(unit) for extent in extents) for unit in range(units)))


def _covers(extent: Regular, others: Sequence[Regular]) -> bool:
    """Whether an extent with stride 0 covers the pixels of all others."""
    return hull_of([extent.hull, *(other.hull for other in others)]) == extent.hull


def same_centres(extents: Sequence[Extent]) -> bool:
    """Whether units at the same position are centred on the same pixel, as far as their rules have a stride."""
    regular = [extent for extent in extents if isinstance(extent, Regular) and extent.units > 1 and extent.stride > 0]
    return len({extent.size - 2 * extent.padding for extent in regular}) <= 1
