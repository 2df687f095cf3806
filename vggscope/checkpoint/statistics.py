"""Statistics of the values in a checkpoint, tensor by tensor; the memory is that of one tensor at most."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import field
from math import isfinite, sqrt
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint.contents import StoredTensor
from vggscope.checkpoint.data import NUMBERS, TensorFile, numbers, open_tensors
from vggscope.checkpoint.flattened_maps import GraphOf
from vggscope.checkpoint.inspection import Inspection, examine
from vggscope.checkpoint.published import PublishedWeights, published_by_digest, published_by_name
from vggscope.errors import printable
from vggscope.ops.base import Shape, numel
from vggscope.progress import Advance, progress
from vggscope.record import record
from vggscope.result import TableResult

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

MOST_DRAWN = 256
"""Filters of the first convolution that are kept for a picture."""

LARGEST_DRAWN = 15
"""The largest side of a filter that is kept for a picture, in pixels."""

Filter = tuple[tuple[tuple[float, ...], ...], ...]
"""A filter's weights by input channel, row and column."""


@record
class TensorStatistics:
    """The values of one tensor. `reason` says why they are unknown; they are then None.

    `minimum`, `maximum`, `mean` and `std` (of the population: divided by the count) are of the finite values, None if
    there are none. `zeros`, `nans` and `infs` are counts. Of a weight with output channels, the first axis,
    `channels` is their number; `zero_channels` are the indices of those whose values are all zero, `constant_channels`
    of those whose values are all equal to another number.
    """

    name: str
    label: str
    shape: Shape
    dtype: str
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    zeros: int | None = None
    nans: int | None = None
    infs: int | None = None
    channels: int | None = None
    zero_channels: tuple[int, ...] = ()
    constant_channels: tuple[int, ...] = ()
    reason: str | None = None

    @property
    def elements(self) -> int:
        """The number of values."""
        return numel(self.shape)


@record
class FileStatistics:
    """One file. `sha256` is its digest, `weights` the published weights that have it.

    `claim` is a sentence on a file whose name is that of published weights and whose digest is not, else empty.
    `filters` are those of the first convolution that sees an image.
    """

    path: str
    format: str
    column: str | None
    params: int
    sha256: str
    weights: PublishedWeights | None
    claim: str
    tensors: tuple[TensorStatistics, ...]
    filters: tuple[Filter, ...] = field(default=(), metadata={"json": False})
    filters_of: str = field(default="", metadata={"json": False})


@record
class Statistics(TableResult[TensorStatistics]):
    """The values of one or several checkpoints, file by file."""

    rows_field = "tensors"

    schema: str
    files: tuple[FileStatistics, ...]

    @property
    def tensors(self) -> tuple[TensorStatistics, ...]:
        """The tensors of all files."""
        return tuple(tensor for file in self.files for tensor in file.tensors)

    def _columns(self) -> dict[str, list[Any]]:
        paths = [file.path for file in self.files for _ in file.tensors]
        return {"path": paths, **super()._columns()}


def statistics(paths: Sequence[str | os.PathLike[str]], graph_of: GraphOf | None = None) -> Statistics:
    """Read all values of some .pth, .pt or .safetensors files. `graph_of` is as in `open_tensors`.

    Raises CheckpointError where a file is no checkpoint, is damaged, or holds code.
    """
    return Statistics("vggscope/stats@1", tuple(_of_file(path, graph_of) for path in paths))


def _of_file(path: str | os.PathLike[str], graph_of: GraphOf | None) -> FileStatistics:
    with open_tensors(path, graph_of) as file:
        checkpoint = file.checkpoint
        inspection = examine(checkpoint)
        labels = {tensor.name: layer.label for layer in inspection.layers for tensor in layer.tensors}
        with progress("reading", len(checkpoint.tensors) + 1) as advance:
            rows = tuple(_rows(file, labels, advance))
            advance("its digest")
            digest = file.digest()
        first = _first_convolution(inspection)
        weights = published_by_digest(digest)
        return FileStatistics(
            path=checkpoint.path,
            format=checkpoint.format,
            column=inspection.column,
            params=inspection.params,
            sha256=digest,
            weights=weights,
            claim=_claim(checkpoint.path, digest, weights),
            tensors=rows,
            filters=_filters(file, first) if first else (),
            filters_of=(labels.get(first.name) or first.name) if first else "",
        )


def _claim(path: str, digest: str, weights: PublishedWeights | None) -> str:
    """The sentence on a name that promises other weights; empty where it promises none, or keeps its promise."""
    named = published_by_name(path)
    if named is None or named == weights:
        return ""
    return f"the name is that of {named.title}, but the SHA-256 begins with {digest[:8]}: the file differs from it"


def _rows(file: TensorFile, labels: dict[str, str], advance: Advance) -> Iterator[TensorStatistics]:
    for tensor in file.checkpoint.tensors:
        advance(printable(tensor.name))
        label = labels.get(tensor.name, "")
        obstacle = file.obstacle(tensor)
        if not obstacle and tensor.dtype not in NUMBERS:
            obstacle = f"{tensor.dtype} is not read"
        if obstacle:
            yield TensorStatistics(tensor.name, label, tensor.shape, tensor.dtype, reason=obstacle)
        else:
            yield _statistics(file, tensor, label)


def _statistics(file: TensorFile, tensor: StoredTensor, label: str) -> TensorStatistics:
    import numpy as np

    moments = _Moments()
    channels = _Channels(tensor) if _has_channels(tensor) else None
    # NaN and infinity in the file raise no warnings: they are counted.
    with np.errstate(over="ignore", invalid="ignore"):
        for raw in file.pieces(tensor):
            values = numbers(raw, tensor.dtype)
            moments.add(values)
            if channels:
                channels.add(values)
    has_finite = moments.count > 0
    return TensorStatistics(
        name=tensor.name,
        label=label,
        shape=tensor.shape,
        dtype=tensor.dtype,
        minimum=moments.minimum if has_finite else None,
        maximum=moments.maximum if has_finite else None,
        mean=moments.mean if has_finite else None,
        std=sqrt(moments.squares / moments.count) if has_finite else None,
        zeros=moments.zeros,
        nans=moments.nans,
        infs=moments.infs,
        channels=tensor.shape[0] if channels else None,
        zero_channels=channels.equal_to_zero() if channels else (),
        constant_channels=channels.equal_to_another() if channels else (),
    )


class _Moments:
    """Range, mean and sum of squared deviations of finite values, piece by piece (Chan, Golub and LeVeque 1979)."""

    def __init__(self) -> None:
        import numpy as np

        self._room = np.empty(0)
        self.count = self.zeros = self.nans = self.infs = 0
        self.minimum, self.maximum = float("inf"), float("-inf")
        self.mean = self.squares = 0.0

    def add(self, values: Array) -> None:
        import numpy as np

        self.zeros += values.size - int(np.count_nonzero(values))
        low, high = float(values.min()), float(values.max())
        if not (isfinite(low) and isfinite(high)):
            self.nans += int(np.isnan(values).sum())
            self.infs += int(np.isinf(values).sum())
            values = values[np.isfinite(values)]
            if not values.size:
                return
            low, high = float(values.min()), float(values.max())
        self.minimum, self.maximum = min(self.minimum, low), max(self.maximum, high)
        count, mean = values.size, float(values.mean(dtype=np.float64))
        if self._room.size < count:
            self._room = np.empty(count)
        deviations = np.subtract(values, mean, out=self._room[:count], dtype=np.float64)
        shift = mean - self.mean
        total = self.count + count
        self.squares += float(np.einsum("i,i->", deviations, deviations)) + shift * shift * self.count * count / total
        self.mean += shift * count / total
        self.count = total


class _Channels:
    """The least and the largest value of each output channel, of which a piece may hold a part."""

    def __init__(self, tensor: StoredTensor) -> None:
        import numpy as np

        self.size = numel(tensor.shape[1:])
        self.done = 0
        self.low = np.full(tensor.shape[0], np.inf)
        self.high = np.full(tensor.shape[0], -np.inf)

    def add(self, values: Array) -> None:
        import numpy as np

        first, last = self.done // self.size, (self.done + values.size - 1) // self.size
        starts = np.maximum(np.arange(first, last + 1) * self.size - self.done, 0)
        here = slice(first, last + 1)
        self.low[here] = np.minimum(self.low[here], np.minimum.reduceat(values, starts))
        self.high[here] = np.maximum(self.high[here], np.maximum.reduceat(values, starts))
        self.done += values.size

    def equal_to_zero(self) -> tuple[int, ...]:
        return tuple(((self.low == 0) & (self.high == 0)).nonzero()[0].tolist())

    def equal_to_another(self) -> tuple[int, ...]:
        is_constant = (self.low == self.high) & (self.low != 0)
        return tuple(is_constant.nonzero()[0].tolist()) if self.size > 1 else ()


def _has_channels(tensor: StoredTensor) -> bool:
    """Whether it is a weight whose first axis are output channels."""
    return tensor.leaf == "weight" and len(tensor.shape) > 1 and numel(tensor.shape) > 0


def _first_convolution(inspection: Inspection) -> StoredTensor | None:
    """The weight of conv1_1, or of the first convolution of colours or grey values where no layer has that label."""
    weights = [t for layer in inspection.layers for t in layer.tensors if t.leaf == "weight" and len(t.shape) == 4]
    named = {t.name for layer in inspection.layers if layer.label == "conv1_1" for t in layer.tensors}
    images = [t for t in weights if t.shape[1] in (1, 3) and max(t.shape[2:]) <= LARGEST_DRAWN and numel(t.shape)]
    return next((tensor for tensor in images if tensor.name in named), images[0] if images else None)


def _filters(file: TensorFile, tensor: StoredTensor) -> tuple[Filter, ...]:
    if file.obstacle(tensor) or tensor.dtype not in NUMBERS:
        return ()
    size = numel(tensor.shape[1:])
    # The first piece has as many filters as are drawn.
    values = numbers(next(file.pieces(tensor, size * min(tensor.shape[0], MOST_DRAWN))), tensor.dtype)
    rows: Any = values.reshape(-1, *tensor.shape[1:]).tolist()
    return tuple(tuple(tuple(tuple(row) for row in channel) for channel in kept) for kept in rows)
