"""The Document of a measurement: the predicted peak memory beside the measured one."""

from __future__ import annotations

from vggscope.cross_checks.measured_step import Measurement
from vggscope.document import Column, Document, Note, Table
from vggscope.units import bytes_text, count_text


def line(measurement: Measurement) -> str:
    """The predicted and the measured peak."""
    predicted, measured = bytes_text(measurement.predicted_bytes), bytes_text(measurement.measured_bytes)
    return f"{measurement.model}, batch {count_text(measurement.batch)}: {predicted} predicted, {measured} measured"


def document(measurement: Measurement) -> Document:
    """Both peaks, their difference, and the tool that measured."""
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
    return Document(
        f"{measurement.model}   batch {count_text(measurement.batch)}",
        (
            Table(columns, rows),
            Note(apart, "verdict"),
            Note(f"measured by {measurement.witness}: {measurement.counts}"),
        ),
    )
