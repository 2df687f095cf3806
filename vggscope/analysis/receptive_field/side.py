"""One side of the input in a node's tensor, also where a reshape has split it over several axes.

Windowed attention splits height into windows and the rows within each: position p is a number with the digits (window,
row). A digit that an attention or a Linear combines is gone from then on, or all its values cover the same pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from vggscope.analysis.receptive_field.extents import (
    Extent,
    Flattened,
    Irregular,
    constant,
    hull_of,
    read,
    read_all,
    reduced,
    rule,
    spans,
    unflattened,
    union,
)
from vggscope.ops.axis_maps import SAME, AxisMaps, FlattenedAxis, Ranges, SplitAxis, Whole
from vggscope.ops.base import Shape
from vggscope.record import record


@record
class Digit:
    """A part of the position along a side: index // inner % size of an index of `axis`, times `weight`."""

    axis: int
    inner: int
    size: int
    weight: int


@record
class Side:
    """One side of the input in a node's tensor: its axis in the tensor, None after a reduction, and the pixels of the
    units along it.

    A side that lies along several axes has the position of a unit in `digits`. Units that depend on two positions, as a
    product of queries and keys does, cover the pixels of the sides in `also` too.
    """

    axis: int | None
    extent: Extent
    digits: tuple[Digit, ...] = ()
    also: tuple[Side, ...] = ()

    @property
    def is_on_one_axis(self) -> bool:
        """Whether the position along one axis, or none, gives the pixels of a unit."""
        return not self.digits and not self.also


def through(side: Side, reads: AxisMaps, output: Shape) -> list[Side] | None:
    """The side in the output of an op that reads it so, with those in `also`; None if no rule gives one of them."""
    own = replace(side, also=()) if side.also else side
    parts = [_through(part, reads, output) for part in (own, *side.also)]
    known = [part for part in parts if part is not None]
    return known if len(known) == len(parts) else None


def _through(side: Side, reads: AxisMaps, output: Shape) -> Side | None:
    if side.axis is None:
        return _digits_through(side.extent, side.digits, reads, output) if side.digits else side
    if side.axis not in reads:
        return Side(None, reduced(side.extent))
    along = reads[side.axis]
    if (along is None or isinstance(along[1], SplitAxis)) and constant(side.extent) is not None:
        return Side(None, read_all(side.extent, 1))
    if along is None:
        return None
    axis, reading = along
    if isinstance(reading, SplitAxis):
        return _digits_through(unflattened(side.extent), _digits(side), reads, output)
    extent = read(side.extent, reading, 1 if axis is None else output[axis])
    return side if extent is side.extent and axis == side.axis and side.is_on_one_axis else Side(axis, extent)


def _digits(side: Side) -> tuple[Digit, ...]:
    if side.digits or side.axis is None:
        return side.digits
    if isinstance(side.extent, Flattened):
        return (Digit(side.axis, side.extent.axis.inner, side.extent.axis.size, 1),)
    return (Digit(side.axis, 1, side.extent.units, 1),)


def _digits_through(extent: Extent, digits: tuple[Digit, ...], reads: AxisMaps, output: Shape) -> Side | None:
    """The side whose positions are these digits, in the output of an op; None if no rule gives it."""
    for place in reversed(range(len(digits))):
        along = reads.get(digits[place].axis, (None, Whole()))
        if along is None:
            return None
        axis, reading = along
        if axis is None and isinstance(reading, (Whole, Ranges)):
            extent = _reduced(extent, digits[place], reading)
            digits = _without(digits, place)
        elif isinstance(reading, Whole):
            extent = _spread(extent, digits[place])
    moved: list[Digit] = []
    for digit in digits:
        parts = _moved(digit, reads)
        if parts is None:
            return None
        moved += parts
    return _side(extent, moved, output)


def _moved(digit: Digit, reads: AxisMaps) -> list[Digit] | None:
    """The digit in the axes of the output."""
    along = reads[digit.axis]
    if along is None:
        return None
    axis, reading = along
    if isinstance(reading, SplitAxis):
        return _parts(digit, reading)
    if axis is None:
        return None
    if isinstance(reading, FlattenedAxis):
        return [replace(digit, axis=axis, inner=digit.inner * reading.inner)]
    return [replace(digit, axis=axis)] if reading == SAME or isinstance(reading, Whole) else None


def _parts(digit: Digit, split: SplitAxis) -> list[Digit] | None:
    """The digits that a digit becomes when its axis is split; None if a part lies across the cut."""
    parts = []
    for axis, inner, size, within in split.digits:
        start, end = max(inner, digit.inner), min(inner * size, digit.inner * digit.size)
        if start < end:
            if start % inner or start % digit.inner or end % start:
                return None
            parts.append(Digit(axis, within * (start // inner), end // start, digit.weight * (start // digit.inner)))
    return parts if prod(part.size for part in parts) == digit.size else None


def _without(digits: tuple[Digit, ...], place: int) -> tuple[Digit, ...]:
    gone = digits[place]
    rest = (*digits[:place], *digits[place + 1 :])
    return tuple(replace(d, weight=d.weight // gone.size) if d.weight > gone.weight else d for d in rest)


def _reduced(extent: Extent, digit: Digit, reading: Whole | Ranges) -> Extent:
    """The pixels of units that read all values of a digit, or only those in a range of its axis's indices."""
    indices = range(*reading.bounds[0]) if isinstance(reading, Ranges) else range(digit.inner * digit.size)
    values = sorted({index // digit.inner % digit.size for index in indices})
    units, step = spans(extent), digit.weight
    starts = (high + low for high in range(0, len(units), digit.size * step) for low in range(step))
    return _regular(extent, [hull_of(units[start + value * step] for value in values) for start in starts])


def _spread(extent: Extent, digit: Digit) -> Extent:
    """The pixels of units that read all values of a digit, which stays."""
    hulls, step = spans(_reduced(extent, digit, Whole())), digit.weight
    positions = range(extent.units)
    return _regular(extent, [hulls[position // (digit.size * step) * step + position % step] for position in positions])


def _regular(like: Extent, units: Sequence[tuple[int, int] | None]) -> Extent:
    """The extent of these units; by one rule, unless `like` lists exact pixels."""
    irregular = Irregular(tuple(units))
    regular = None if isinstance(like, Irregular) else rule(irregular)
    return regular or irregular


def _side(extent: Extent, digits: Sequence[Digit], output: Shape) -> Side:
    """The side with these digits, on one axis if they are neighbours there."""
    if constant(extent) is not None:
        return Side(None, read_all(extent, 1))
    merged: list[Digit] = []
    for digit in sorted(digits, key=lambda digit: -digit.weight):
        above = merged[-1] if merged else None
        if (
            above
            and above.axis == digit.axis
            and (above.inner, above.weight) == (digit.inner * digit.size, digit.weight * digit.size)
        ):
            merged[-1] = replace(digit, size=above.size * digit.size)
        else:
            merged.append(digit)
    if len(merged) != 1:
        return Side(None, extent, tuple(merged))
    (only,) = merged
    if (only.inner, only.size) == (1, output[only.axis]):
        return Side(only.axis, extent)
    return Side(only.axis, Flattened(output[only.axis], unflattened(extent), FlattenedAxis(only.inner, only.size)))


def united(sides: Sequence[Side]) -> Side:
    """The side of units that depend on all of these. Every unit covers the sides without an axis."""
    if len(sides) == 1:
        return sides[0]
    if any(side.digits for side in sides):
        return _united_digits(sides)
    shared = [side.extent for side in sides if side.axis is None]
    axes = list(dict.fromkeys(side.axis for side in sides if side.axis is not None))
    if not axes:
        return Side(None, union(shared))
    along = [[side.extent for side in sides if side.axis == axis] for axis in axes]
    parts = [
        Side(axis, union([*extents, *(read_all(extent, extents[0].units) for extent in shared)]))
        for axis, extents in zip(axes, along)
    ]
    hull = hull_of(part.extent.hull for part in parts)
    whole = next((part for part in parts if constant(part.extent) == hull), None)
    if len(parts) > 1 and whole is not None:
        return Side(axes[0], read_all(whole.extent, parts[0].extent.units))
    return replace(parts[0], also=tuple(parts[1:]))


def _united_digits(sides: Sequence[Side]) -> Side:
    widest = max(sides, key=lambda side: len(_digits(side)))
    digits = _digits(widest)
    places = {(digit.axis, digit.inner, digit.size): digit for digit in digits}
    count = prod(digit.size for digit in digits)
    alike: list[Extent] = []
    apart: list[Side] = []
    for side in sides:
        own = _digits(side)
        if not all((digit.axis, digit.inner, digit.size) in places for digit in own):
            apart.append(side)
        elif own == digits:
            alike.append(unflattened(side.extent))
        else:
            units = spans(unflattened(side.extent))
            pairs = [(digit.weight, places[digit.axis, digit.inner, digit.size]) for digit in own]
            index = (sum(position // d.weight % d.size * weight for weight, d in pairs) for position in range(count))
            alike.append(Irregular(tuple(units[i] for i in index)))
    extent = union(alike)
    if constant(extent) is not None:
        return united([Side(None, read_all(extent, 1)), *apart])
    return replace(widest, extent=extent, also=tuple(apart))
