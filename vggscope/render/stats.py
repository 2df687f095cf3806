"""The Document of the statistics of checkpoints."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.checkpoint.statistics import FileStatistics, Statistics, TensorStatistics
from vggscope.document import Block, Column, Document, Facts, Item, Items, Note, Table, data_table
from vggscope.units import UNKNOWN, count_text, kernel_text, percent_text

_DATA = (
    *("name", "label", "shape", "dtype", "minimum", "maximum", "mean", "std"),
    *("zeros", "nans", "infs", "channels", "zero_channels", "constant_channels", "reason"),
)

_MOST_CHANNELS = 10
"""Channels that a sentence names."""


def document(statistics: Statistics) -> Document:
    """For each file its facts, its faults, and a row for each tensor."""
    blocks: list[Block] = []
    for file in statistics.files:
        if len(statistics.files) > 1:
            blocks.append(Note(file.path, "verdict"))
        blocks += _blocks(file)
    rows = ((file.path, *(getattr(t, key) for key in _DATA)) for file in statistics.files for t in file.tensors)
    blocks.append(data_table(("path", *_DATA), rows))
    return Document(_title(statistics), tuple(blocks))


def line(statistics: Statistics) -> str:
    """The files, and how many values they hold."""
    values = sum(tensor.elements for file in statistics.files for tensor in file.tensors)
    return f"{_title(statistics)}: {count_text(values)} values"


def _title(statistics: Statistics) -> str:
    if len(statistics.files) == 1:
        return statistics.files[0].path
    return f"{len(statistics.files)} files"


def _blocks(file: FileStatistics) -> Iterator[Block]:
    yield Facts(tuple(_facts(file)))
    faults = tuple(_faults(file))
    if faults:
        yield Items(faults)
    yield _table(file)
    if file.claim:
        yield Note(f"note: {file.claim}", "warning")


def _facts(file: FileStatistics) -> Iterator[tuple[str, str]]:
    yield "file", file.format
    yield "parameters", count_text(file.params)
    yield "sha256", file.sha256
    if file.weights is not None:
        yield "weights", f"{file.weights.title}, by the first digits of the SHA-256"
        yield "image", file.weights.preprocessing


def _faults(file: FileStatistics) -> Iterator[Item]:
    """A sentence for each tensor with NaN, infinity, or dead or constant channels."""
    for tensor in file.tensors:
        title = f"{tensor.label} ({tensor.name})" if tensor.label else tensor.name
        if tensor.nans or tensor.infs:
            yield Item("!", f"{title}: {count_text(tensor.nans)} NaN, {count_text(tensor.infs)} infinite")
        for channels, what in ((tensor.zero_channels, "all zero"), (tensor.constant_channels, "constant")):
            if channels:
                verb = "is" if len(channels) == 1 else "are"
                count = f"{count_text(len(channels))} of {count_text(tensor.channels)} output channels {verb} {what}"
                yield Item("!", f"{title}: {count}: {_listed(channels)}")


def _listed(channels: tuple[int, ...]) -> str:
    return ", ".join(map(str, channels[:_MOST_CHANNELS])) + (", ..." if len(channels) > _MOST_CHANNELS else "")


def _table(file: FileStatistics) -> Table:
    columns = (
        Column("name", "tensor"),
        Column("label", "label", priority=3),
        Column("shape", "shape", _shape, right=True, priority=2),
        Column("dtype", "dtype", priority=4),
        Column("minimum", "min", _figure, right=True),
        Column("maximum", "max", _figure, right=True),
        Column("mean", "mean", _figure, right=True),
        Column("std", "std", _figure, right=True),
        Column("zeros", "zeros", right=True),
        Column("nans", "NaN", _count, right=True, priority=1),
        Column("infs", "inf", _count, right=True, priority=1),
        Column("dead", "dead", right=True),
    )
    return Table(columns, tuple(map(_row, file.tensors)))


def _row(tensor: TensorStatistics) -> tuple[object, ...]:
    zeros = UNKNOWN if tensor.zeros is None else percent_text(tensor.zeros, tensor.elements) if tensor.elements else ""
    dead = "" if tensor.channels is None else str(len(tensor.zero_channels) + len(tensor.constant_channels))
    figures = (tensor.minimum, tensor.maximum, tensor.mean, tensor.std)
    return (tensor.name, tensor.label, tensor.shape, tensor.dtype, *figures, zeros, tensor.nans, tensor.infs, dead)


def _shape(shape: tuple[int, ...]) -> str:
    return kernel_text(shape) or "a number"


def _figure(value: float | None) -> str:
    """Four digits of a number; a question mark for an unknown one."""
    return UNKNOWN if value is None else f"{value:.4g}"


def _count(value: int | None) -> str:
    return count_text(value) if value != 0 else ""
