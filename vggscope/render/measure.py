"""The Document of a measurement: the predicted memory beside the measured one."""

from __future__ import annotations

from vggscope.cross_checks.measured_step import MeasuredFigure, Measurement
from vggscope.document import Block, Column, Document, Note, Table
from vggscope.units import bytes_text, count_text


def line(measurement: Measurement) -> str:
    """The predicted and the measured peak."""
    predicted, measured = bytes_text(measurement.predicted_bytes), bytes_text(measurement.measured_bytes)
    return f"{measurement.model}, batch {count_text(measurement.batch)}: {predicted} predicted, {measured} measured"


def document(measurement: Measurement) -> Document:
    """What was predicted and measured, the difference, and the tool that measured."""
    blocks = _on_cpu(measurement) if measurement.gpu is None else _on_gpu(measurement)
    return Document(f"{measurement.model}   batch {count_text(measurement.batch)}", tuple(blocks))


def _on_cpu(measurement: Measurement) -> list[Block]:
    """Both peaks, a row each."""
    difference = measurement.difference_bytes
    rows = (
        ("predicted", measurement.predicted_bytes, count_text(measurement.predicted_bytes)),
        ("measured", measurement.measured_bytes, count_text(measurement.measured_bytes)),
    )
    columns = (
        Column("figure", "peak"),
        Column("bytes", "memory", bytes_text, right=True),
        Column("exact", "bytes", right=True),
    )
    share = 100 * abs(difference) / measurement.measured_bytes
    apart = f"{count_text(abs(difference))} bytes apart, {share:.3g}%" if difference else "equal to the byte"
    return [
        Table(columns, rows),
        Note(apart, "verdict"),
        Note(f"measured by {measurement.witness}: {measurement.counts}"),
    ]


def _on_gpu(measurement: Measurement) -> list[Block]:
    """A row for each figure, and what each counts."""
    columns = (
        Column("figure", "figure"),
        Column("predicted_bytes", "predicted", bytes_text, right=True),
        Column("measured_bytes", "measured", bytes_text, right=True),
        Column("difference_bytes", "difference", _mib, right=True),
        Column("difference_percent", "", _percent, right=True),
    )
    rows = tuple(
        (figure.figure, figure.predicted_bytes, figure.measured_bytes, figure.difference_bytes, _share(figure))
        for figure in measurement.figures
    )
    blocks: list[Block] = [
        Table(columns, rows),
        Note(f"measured by {measurement.witness}; predicted for {measurement.gpu}"),
    ]
    return blocks + [Note(f"{figure.figure}: {figure.counts}") for figure in measurement.figures]


def _share(figure: MeasuredFigure) -> float | None:
    """The difference in per cent of the measured bytes."""
    return round(100 * figure.difference_bytes / figure.measured_bytes, 2) if figure.measured_bytes else None


def _mib(size: int) -> str:
    """A difference in MiB, with its sign."""
    return f"{size / 2**20:+,.2f} MiB"


def _percent(share: float | None) -> str:
    """A share with its sign; empty where it is not known."""
    return "" if share is None else f"{share:+.1f}%"
