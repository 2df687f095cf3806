"""Maps from positions of an output to the positions of an input that they read, for each axis.

Receptive fields are computed from them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from functools import cache
from math import prod

from vggscope.record import record


@record
class StridedWindow:
    """Position i reads i*stride - padding + k*dilation for each k below kernel_size; outside the input is padding."""

    kernel_size: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1


@record
class Ranges:
    """Position i reads range(*bounds[i]), which may be empty."""

    bounds: tuple[tuple[int, int], ...]


@record
class Shifted:
    """Position i reads i - offset, or nothing if the input has no such position."""

    offset: int


@record
class FlattenedAxis:
    """One of several axes that are flattened into one: position i of that reads i // inner % size of this axis."""

    inner: int
    size: int


@record
class SplitAxis:
    """An axis that is split into several, each alone or flattened with other axes.

    Each of `digits` has an axis of the output and the part of a position that lies there: position // inner % size.
    The last number is that part's own `inner` in the output axis, as in FlattenedAxis.
    """

    digits: tuple[tuple[int, int, int, int], ...]


@record
class Whole:
    """Every position reads all of the axis."""


Reading = StridedWindow | Ranges | Shifted | FlattenedAxis | SplitAxis | Whole

SAME = StridedWindow()
"""Each position reads its own."""

WHOLE = Whole()

Along = tuple[int | None, Reading] | None
"""The output axis that corresponds to an input axis (None if it is reduced), and what its positions read. None alone if
no rule is known.
"""

AxisMaps = Mapping[int, Along]
"""For each axis of one input. An axis that is left out is reduced: every position reads all of it."""


def pointwise(shape: tuple[int, ...], output: tuple[int, ...]) -> AxisMaps:
    """Each position reads its own position; axes of size 1 are broadcast."""
    if shape == output:
        return _same(len(shape))
    ahead = len(output) - len(shape)
    return {
        axis: (axis + ahead, SAME if size == output[axis + ahead] else StridedWindow(stride=0))
        for axis, size in enumerate(shape)
    }


def tiled(shape: tuple[int, ...], output: tuple[int, ...]) -> AxisMaps:
    """The input one copy after another along each axis: position i reads i % size."""
    ahead = len(output) - len(shape)
    copies = {
        axis: (axis + ahead, Ranges(tuple((i % size, i % size + 1) for i in range(output[axis + ahead]))))
        for axis, size in enumerate(shape)
        if 1 < size < output[axis + ahead]
    }
    return {**pointwise(shape, output), **copies}


def without(shape: tuple[int, ...], gone: Set[int], keepdim: bool = False) -> AxisMaps:
    """The axes `gone` are reduced; each position of the others reads its own."""
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    return {axis: (axis if keepdim else place, SAME) for place, axis in enumerate(kept)}


def throughout(shape: tuple[int, ...], axes: Set[int]) -> AxisMaps:
    """Each position reads all positions along `axes`, and its own along the other axes."""
    return {axis: (axis, WHOLE if axis in axes else SAME) for axis in range(len(shape))}


def reshaped(shape: tuple[int, ...], output: tuple[int, ...]) -> AxisMaps:
    """The same elements in the same order: an axis stays, is flattened into a longer one, or is split.

    There is no rule for an axis that is cut at no whole number of its positions.
    """
    if 0 in output:
        return dict.fromkeys(range(len(shape)))
    return {axis: _new_place(axis, shape, output) for axis, size in enumerate(shape) if size > 1}


def _new_place(axis: int, shape: tuple[int, ...], output: tuple[int, ...]) -> Along:
    size, inner = shape[axis], prod(shape[axis + 1 :])
    for place, length in enumerate(output):
        step = prod(output[place + 1 :])
        if (length, step) == (size, inner):
            return place, SAME
        if step <= inner and inner % step == 0 and step * length >= inner * size:
            return place, FlattenedAxis(inner // step, size)
    digits = tuple(_digits(size, inner, output))
    return (None, SplitAxis(digits)) if prod(length for _, _, length, _ in digits) == size else None


def _digits(size: int, inner: int, output: tuple[int, ...]) -> Iterator[tuple[int, int, int, int]]:
    """The parts of an axis of this size, with `inner` elements after each position, as SplitAxis has them."""
    for place, length in enumerate(output):
        step = prod(output[place + 1 :])
        start, end = max(step, inner), min(step * length, inner * size)
        if start < end and not (start % step or start % inner or end % start):
            yield place, start // inner, end // start, start // step


@cache
def _same(axes: int) -> AxisMaps:
    return {axis: (axis, SAME) for axis in range(axes)}
