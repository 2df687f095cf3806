"""The Document of a summary's sums by operator or by module."""

from __future__ import annotations

from vggscope.analysis.summary import CostSum, CostSums
from vggscope.document import Column, Document, Table
from vggscope.units import bytes_text, count_text, short_count

COLUMNS = (
    Column("name", "group"),
    Column("layers", "layers", count_text, right=True),
    Column("params", "params", count_text, right=True),
    Column("macs", "MACs", short_count, right=True),
    Column("flops", "FLOPs", short_count, right=True, priority=2),
    Column("activation_bytes", "memory", bytes_text, right=True, priority=1),
)


def document(sums: CostSums) -> Document:
    """One table: a row for each group, and the total."""
    return Document(
        f"{sums.model} by {sums.by}, batch {sums.batch}",
        (Table(COLUMNS, tuple(map(_row, sums.groups)), total=_row(sums.total)),),
    )


def line(sums: CostSums) -> str:
    """The model and the number of groups."""
    return f"{sums.model} by {sums.by}: {len(sums)} groups"


def _row(group: CostSum) -> tuple[object, ...]:
    return tuple(getattr(group, column.key) for column in COLUMNS)
