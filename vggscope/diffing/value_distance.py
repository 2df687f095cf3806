"""How far apart the values of two tensors are, piece by piece."""

from __future__ import annotations

from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint.data import FLOATS, NUMBERS, numbers
from vggscope.record import record

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy import ndarray

    Array = ndarray[Any, Any]


@record
class Distance:
    """The distance of ours from the reference.

    `has_equal_bits`: all bytes are equal. `has_equal_values`: all numbers are, NaN being equal to NaN. `is_cast`: the
    more precise of the two, rounded to the dtype of the other, is the other. The figures are those of float64
    arithmetic, None where they are unknown: `max_abs` is the largest difference, `relative_norm` the Euclidean norm of
    the differences by that of the reference, `cosine` that of the angle between the two, and `factor` that by which the
    reference is nearest to ours (least squares).
    """

    has_equal_bits: bool
    has_equal_values: bool
    is_cast: bool
    max_abs: float | None = None
    relative_norm: float | None = None
    cosine: float | None = None
    factor: float | None = None


@record
class Scaling:
    """The factor by which the reference is ours, and the largest difference that rounding leaves."""

    factor: float
    max_abs: float


SAME_BITS = Distance(True, True, False, 0.0, 0.0, None)


def has_equal_bits(pieces: Iterable[tuple[Array, Array]]) -> bool:
    """Whether all bytes are equal; the first difference ends it."""
    import numpy as np

    return all(a.dtype == b.dtype and np.array_equal(_bits(a), _bits(b)) for a, b in pieces)


def distance(pieces: Iterable[tuple[Array, Array]], our_dtype: str, reference_dtype: str) -> Distance:
    """The distance between two tensors, from their raw pieces and dtypes."""
    if our_dtype not in NUMBERS or reference_dtype not in NUMBERS:
        return Distance(False, False, False)
    sums = _Sums(our_dtype, reference_dtype)
    import numpy as np

    with np.errstate(over="ignore", invalid="ignore"):
        for ours, reference in pieces:
            sums.add(ours, reference)
    return sums.result()


_EPSILON = {"float16": 2.0**-10, "bfloat16": 2.0**-7, "float32": 2.0**-23}
"""The distance from 1 to the next larger number; of any other dtype that of float64."""

_ROUNDINGS = 2
"""By how many epsilons of the largest value a scaled tensor may differ from the reference times the factor."""

_PEAK = 50
"""How many times the largest value of a scaled tensor may be its root mean square."""

_EXPLAINED = 16
"""How many times the factor must reduce the largest difference: a factor near 1 explains nothing."""


def scaling(
    pieces: Iterable[tuple[Array, Array]], our_dtype: str, reference_dtype: str, apart: Distance
) -> Scaling | None:
    """The factor if ours is the reference times one factor, up to rounding; None if it is not.

    `apart` is the distance of the two. Its cosine rules out most tensors without reading them again. It cannot decide:
    the norm of what the factor leaves is a small difference of large sums.
    """
    import numpy as np

    rounding = _ROUNDINGS * max(_EPSILON.get(dtype, 2.0**-52) for dtype in (our_dtype, reference_dtype))
    if apart.factor is None or apart.cosine is None or apart.max_abs is None:
        return None
    if 1 - abs(apart.cosine) > max((_PEAK * rounding) ** 2 / 2, 1e-12):
        return None
    count, largest, left = 0, 0.0, 0.0
    for ours, reference in pieces:
        mine = numbers(ours, our_dtype).astype(np.float64)
        count += mine.size
        largest = max(largest, float(np.abs(mine).max()))
        mine -= apart.factor * numbers(reference, reference_dtype).astype(np.float64)
        left = max(left, float(np.abs(mine).max()))
    is_scaled = count > 1 and left <= rounding * largest and _EXPLAINED * left <= apart.max_abs
    return Scaling(apart.factor, left) if is_scaled else None


class _Sums:
    """Sums over the pieces."""

    def __init__(self, our_dtype: str, reference_dtype: str) -> None:
        import numpy as np

        # Arrays that are allocated anew for each piece would take half of the time.
        self._room = np.empty((3, 0))
        self._dtypes = our_dtype, reference_dtype
        self._narrow = _narrow(our_dtype, reference_dtype)
        self._bits = our_dtype == reference_dtype
        self._values = self._cast = True
        self._largest = self._squares = self._ours = self._reference = self._product = 0.0

    def add(self, ours: Array, reference: Array) -> None:
        import numpy as np

        if self._bits and not np.array_equal(_bits(ours), _bits(reference)):
            self._bits = False
        mine, other = numbers(ours, self._dtypes[0]), numbers(reference, self._dtypes[1])
        if self._values and not np.array_equal(mine, other, equal_nan=True):
            self._values = False
        if self._cast and not self._values and not self._is_cast(mine, other):
            self._cast = False
        if self._room.shape[1] < mine.size:
            self._room = np.empty((3, mine.size))
        ours, reference, difference = self._room[:, : mine.size]
        np.copyto(ours, mine)
        np.copyto(reference, other)
        np.subtract(ours, reference, out=difference)
        self._largest = max(self._largest, float(difference.max()), -float(difference.min()))
        self._squares += _product(difference, difference)
        self._ours += _product(ours, ours)
        self._reference += _product(reference, reference)
        self._product += _product(ours, reference)

    def _is_cast(self, mine: Array, other: Array) -> bool:
        import numpy as np

        if self._narrow is None:
            return False
        return np.array_equal(_rounded(mine, self._narrow), _rounded(other, self._narrow), equal_nan=True)

    def result(self) -> Distance:
        if self._values:
            return Distance(self._bits, True, self._dtypes[0] != self._dtypes[1], 0.0, 0.0, None)
        if not all(map(isfinite, (self._squares, self._ours, self._reference))):
            return Distance(False, False, self._cast)
        norms = sqrt(self._ours) * sqrt(self._reference)
        relative = sqrt(self._squares) / sqrt(self._reference) if self._reference else None
        cosine = max(-1.0, min(1.0, self._product / norms)) if norms else None
        factor = self._product / self._reference if self._reference else None
        return Distance(False, False, self._cast, self._largest, relative, cosine, factor)


def _bits(array: Array) -> Array:
    return array.view(f"u{array.itemsize}")


def _product(one: Array, other: Array) -> float:
    """The dot product on one thread: BLAS would start one for each core, which wait for each other."""
    import numpy as np

    return float(np.einsum("i,i->", one, other))


def _narrow(one: str, other: str) -> str | None:
    """The less precise of two floating-point dtypes; None if they are the same, or one is of integers."""
    places = [FLOATS.index(dtype) for dtype in (one, other) if dtype in FLOATS]
    return FLOATS[max(places)] if len(set(places)) == 2 else None


def _rounded(values: Array, dtype: str) -> Array:
    """Numbers rounded to a dtype, as torch does: to the nearest, ties to even, by way of float32."""
    import numpy as np

    single = values.astype(np.float32, copy=False)
    if dtype == "float16":
        return single.astype(np.float16)
    if dtype == "bfloat16":
        bits = single.view(np.uint32)
        rounded = ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)
        return np.where(np.isnan(single), single, rounded)
    return single
