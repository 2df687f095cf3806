"""Which positions of an input a position of the output reads, axis by axis: what receptive fields are made of."""

from __future__ import annotations

from collections.abc import Mapping, Set
from functools import cache
from math import prod

from vggscope.record import record


@record
class StridedWindow:
    """Position i reads i*stride - padding + k*dilation for each k below kernel_size; beyond the input lies padding."""

    kernel_size: int = 1
    stride: int = 1
    padding: int = 0
    dilation: int = 1


@record
class Ranges:
    """Position i reads from bounds[i][0] up to bounds[i][1], which is left out; nothing where they are equal."""

    bounds: tuple[tuple[int, int], ...]


@record
class Shifted:
    """Position i reads i - offset where the input has that position, and nothing elsewhere."""

    offset: int


@record
class FlattenedAxis:
    """Position i of a row into which several axes are laid reads i // inner % size of this one of them."""

    inner: int
    size: int


@record
class Whole:
    """Every position reads all of the axis."""


Reading = StridedWindow | Ranges | Shifted | FlattenedAxis | Whole

SAME = StridedWindow()
"""Each position reads its own."""

WHOLE = Whole()

Along = tuple[int | None, Reading] | None
"""The axis of the output that goes along an axis of the input, None where it is gone, and how it reads it; None alone
where that cannot be told.
"""

AxisMaps = Mapping[int, Along]
"""For the axes of one input; one that is not named is read whole and is gone."""


def pointwise(shape: tuple[int, ...], output: tuple[int, ...]) -> AxisMaps:
    """Each place reads its own place, axes of size 1 repeated as torch's broadcasting does."""
    if shape == output:
        return _same(len(shape))
    ahead = len(output) - len(shape)
    return {
        axis: (axis + ahead, SAME if size == output[axis + ahead] else StridedWindow(stride=0))
        for axis, size in enumerate(shape)
    }


def without(shape: tuple[int, ...], gone: Set[int], keepdim: bool = False) -> AxisMaps:
    """The axes `gone` are read whole, the others place by place."""
    kept = [axis for axis in range(len(shape)) if axis not in gone]
    return {axis: (axis if keepdim else place, SAME) for place, axis in enumerate(kept)}


def throughout(shape: tuple[int, ...], axes: Set[int]) -> AxisMaps:
    """Each position along `axes` reads all of them, the other axes place by place."""
    return {axis: (axis, WHOLE if axis in axes else SAME) for axis in range(len(shape))}


def reshaped(shape: tuple[int, ...], output: tuple[int, ...]) -> AxisMaps:
    """The same elements in the same order: an axis stays, is laid into a longer one, or is cut up, which no rule
    follows.
    """
    return {axis: _new_place(axis, shape, output) for axis, size in enumerate(shape) if size > 1}


def _new_place(axis: int, shape: tuple[int, ...], output: tuple[int, ...]) -> Along:
    size, inner = shape[axis], prod(shape[axis + 1 :])
    for place, length in enumerate(output):
        step = prod(output[place + 1 :])
        if (length, step) == (size, inner):
            return place, SAME
        if step <= inner and inner % step == 0 and step * length >= inner * size:
            return place, FlattenedAxis(inner // step, size)
    return None


@cache
def _same(axes: int) -> AxisMaps:
    return {axis: (axis, SAME) for axis in range(axes)}
