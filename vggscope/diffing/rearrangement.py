"""The ways in which two files store the same tensor in another order, and the pieces of both in one order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from math import isqrt
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint.contents import StoredTensor
from vggscope.checkpoint.data import NUMBERS, PIECE, TensorFile, numbers
from vggscope.ops.base import Shape, numel
from vggscope.record import record

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

BGR, FLATTEN_ORDER, TRANSPOSED, RESHAPED = "bgr", "flatten_order", "transposed", "reshaped"

_AXES = {
    2: ((1, 0),),
    3: ((2, 1, 0),),
    4: ((3, 2, 0, 1), (2, 3, 1, 0), (0, 3, 1, 2), (0, 2, 3, 1), (1, 0, 2, 3), (0, 1, 3, 2)),
    5: ((4, 3, 0, 1, 2),),
}
"""Orders of axes by rank. For convolutions: TensorFlow's (height, width, in, out) to torch's and back, channels last to
channels first and back, a transposed convolution's, and kernels with height and width swapped.
"""

_RGB = 3

_LARGEST_SIDE = 32
"""The largest side of a map that a flatten's order is tried for."""

_SAMPLES = 48
"""Elements that are compared before a whole tensor is."""


_GOLDEN = 0x9E3779B97F4A7C15
"""2^64 divided by the golden ratio: its multiples are spread over any range without a pattern (Knuth, TAOCP 6.4)."""


@record
class Rearrangement:
    """What leads from our order to the reference's, in this order.

    `axes` of ours in the reference's order, if they are another. `flips`: the input channels, axis 1, are reversed.
    `inner` is the size of the inner one of two axes that axis 1 of ours flattens, and the reference in the other order;
    0 for none. `reshapes`: then the same elements in another shape.
    """

    axes: Shape = ()
    flips: bool = False
    inner: int = 0
    reshapes: bool = False

    @property
    def steps(self) -> tuple[str, ...]:
        """The steps by name."""
        named = ((self.axes, TRANSPOSED), (self.flips, BGR), (self.inner, FLATTEN_ORDER), (self.reshapes, RESHAPED))
        return tuple(name for is_taken, name in named if is_taken)

    def applied(self, index: Shape, shape: Shape) -> Shape:
        """The index in ours of the element at `index` of the reference's shape (before it is reshaped)."""
        if not index:
            return index
        first, *rest = index
        if self.inner:
            outer = shape[1] // self.inner
            rest[0] = rest[0] % outer * self.inner + rest[0] // outer
        if self.flips:
            rest[0] = shape[1] - 1 - rest[0]
        moved = (first, *rest)
        return tuple(moved[self.axes.index(axis)] for axis in range(len(moved))) if self.axes else moved


AS_STORED = Rearrangement()


def candidates(ours: StoredTensor, reference: StoredTensor) -> Iterator[Rearrangement]:
    """The rearrangements that the shapes allow, the one without any step first."""
    if numel(ours.shape) != numel(reference.shape):
        return
    if ours.shape == reference.shape:
        yield AS_STORED
    orders = [axes for axes in _AXES.get(len(ours.shape), ()) if tuple(ours.shape[a] for a in axes) == reference.shape]
    if ours.shape == reference.shape:
        yield from _of_inputs((), reference.shape)
    for axes in orders:
        yield Rearrangement(axes)
        yield from _of_inputs(axes, reference.shape)
    if ours.shape != reference.shape and ours.shape[:1] == reference.shape[:1]:
        yield Rearrangement(reshapes=True)


def _of_inputs(axes: Shape, shape: Shape) -> Iterator[Rearrangement]:
    """The orders of the input channels of a weight of this shape."""
    if len(shape) == 4 and shape[1] == _RGB:
        yield Rearrangement(axes, flips=True)
    if len(shape) == 2:
        for side in range(2, min(isqrt(shape[1]), _LARGEST_SIDE) + 1):
            area = side * side
            if shape[1] % area == 0 and shape[1] > area:
                yield Rearrangement(axes, inner=shape[1] // area)
                yield Rearrangement(axes, inner=area)


def fitting(ours: TensorSide, reference: TensorSide) -> list[Rearrangement]:
    """The candidates by which a few elements of ours and the reference are the same, or nearly so after a cast."""
    shape = reference.tensor.shape
    count = numel(shape)
    found = list(candidates(ours.tensor, reference.tensor))
    if not count:
        return found[:1]
    # Places at equal distances may all be fixed points of a permutation.
    places = list({(i * _GOLDEN) % count: None for i in range(1, _SAMPLES)} | {0: None, count - 1: None})
    for some in (places[:4], places):
        expected = reference.sample(_indices(some, shape))
        found = [candidate for candidate in found if _fits(candidate, some, expected, ours, reference.tensor)]
    return found


def _fits(
    candidate: Rearrangement, places: list[int], expected: Array, ours: TensorSide, reference: StoredTensor
) -> bool:
    """Whether our elements, rearranged, are `expected` at some places of the reference."""
    import numpy as np

    if candidate.reshapes:
        indices = _indices(places, ours.tensor.shape)
    else:
        indices = [candidate.applied(index, reference.shape) for index in _indices(places, reference.shape)]
    sampled = ours.sample(indices)
    if ours.tensor.dtype == reference.dtype:
        return np.array_equal(sampled, expected)
    if ours.tensor.dtype not in NUMBERS or reference.dtype not in NUMBERS:
        return False
    sides = numbers(sampled, ours.tensor.dtype), numbers(expected, reference.dtype)
    with np.errstate(all="ignore"):
        return bool(np.allclose(*sides, rtol=2**-7, atol=2**-14, equal_nan=True))


def _indices(places: list[int], shape: Shape) -> list[Shape]:
    """The indices of positions in row-major order."""
    steps = [numel(shape[axis + 1 :]) for axis in range(len(shape))]
    return [tuple(place // step % side for step, side in zip(steps, shape)) for place in places]


@record
class TensorSide:
    """A tensor and the file that it is in."""

    file: TensorFile
    tensor: StoredTensor

    def sample(self, indices: list[Shape]) -> Array:
        """The raw elements at some indices."""
        return self.file.sample(self.tensor, indices)


def paired_pieces(
    ours: TensorSide, reference: TensorSide, rearrangement: Rearrangement
) -> Iterator[tuple[Array, Array]]:
    """Flat arrays of the raw elements of ours, rearranged, and the reference's; each is valid until the next is taken.

    The memory is that of a piece of either, and that of our whole tensor where its axes are in another order.
    """
    shape = reference.tensor.shape
    if not (rearrangement.axes or rearrangement.flips or rearrangement.inner):
        yield from zip(ours.file.pieces(ours.tensor), reference.file.pieces(reference.tensor))
        return
    row = numel(shape[1:])
    # Columns are read by many rows at once, so that each line of the cache is read once.
    rows = max((16 if rearrangement.axes else 1) * PIECE // row, 1)
    theirs = reference.file.pieces(reference.tensor, rows * row)
    for mine, other in zip_longest(_blocks(ours, rearrangement, shape, rows), theirs):
        yield _rearranged(mine, rearrangement).reshape(-1), other


def _blocks(ours: TensorSide, rearrangement: Rearrangement, shape: Shape, rows: int) -> Iterator[Array]:
    """Our tensor in the reference's order of axes, some rows at a time."""
    if rearrangement.axes:
        whole = ours.file.whole(ours.tensor).transpose(rearrangement.axes)
        for begin in range(0, shape[0], rows):
            yield whole[begin : begin + rows]
    else:
        for piece in ours.file.pieces(ours.tensor, rows * numel(shape[1:])):
            yield piece.reshape(-1, *shape[1:])


def _rearranged(block: Array, rearrangement: Rearrangement) -> Array:
    if rearrangement.flips:
        return block[:, ::-1]
    if rearrangement.inner:
        return block.reshape(len(block), -1, rearrangement.inner).swapaxes(1, 2)
    return block
