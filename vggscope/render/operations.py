"""The Document of the operations: the layers, their total, and how they are counted."""

from __future__ import annotations

from vggscope.analysis.operations import LayerOperations, Operations
from vggscope.document import Block, Column, Document, Facts, Note, Table
from vggscope.render.summary import inputs_text, usual_dtype
from vggscope.units import BINARY, BatchShape, bytes_text, count_text, percent_text, short_count, time_text


def _intensity(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 100 else f"{value:.0f}"


COLUMNS = (
    Column("name", "layer"),
    Column("label", "label", priority=4),
    Column("op", "op", priority=6),
    Column("output_shape", "output", BatchShape.text, right=True, priority=7),
    Column("dtype", "dtype", priority=4),
    Column("macs", "MACs", short_count, right=True, priority=5),
    Column("other", "other", short_count, right=True, priority=8),
    Column("flops", "FLOPs", short_count, right=True),
    Column("backward_macs", "MACs, backward", short_count, right=True, priority=9),
    Column("backward_flops", "FLOPs, backward", short_count, right=True, priority=3),
    Column("bytes", "moved", bytes_text, right=True, priority=2),
    Column("intensity", "FLOPs/byte", _intensity, right=True, priority=1),
    Column("time_ns", "least time", time_text, right=True),
    Column("bound", "bound by", lambda bound: bound or "", priority=1),
)


def document(operations: Operations, columns: tuple[str, ...] | None = None) -> Document:
    """The table with these columns, the formulas, and the meaning of the figures."""
    usual = usual_dtype(operations)
    rows = tuple(tuple(_value(layer, column.key, usual) for column in COLUMNS) for layer in operations.layers)
    quiet = frozenset(place for place, layer in enumerate(operations.layers) if not layer.macs)
    total = tuple("total" if column.key == "name" else getattr(operations.totals, column.key, "") for column in COLUMNS)
    table = Table(COLUMNS, rows, quiet, total=total)
    table = table.choose(columns or tuple(key for key in _shown(operations) if key != "dtype" or table.holds(key)))
    blocks: list[Block] = [
        *(Note(f"note: {text}", "warning") for text in (*operations.alerts, *operations.warnings)),
        table,
    ]
    if operations.formulas:
        blocks.append(Facts(tuple((formula.op, formula.formula) for formula in operations.formulas)))
    blocks.append(_meaning(operations))
    if operations.roof is not None:
        blocks.append(_bounds(operations))
    title = f"{operations.model}   input {inputs_text(operations)}, {operations.dtype}"
    return Document(title, tuple(blocks))


def _value(layer: LayerOperations, key: str, usual: str) -> object:
    """The value in a column. The dtype is shown where it is not the `usual` one."""
    if key == "dtype":
        return "" if layer.dtype == usual else layer.dtype
    return BatchShape(layer.output_shape, layer.batch_axis) if key == "output_shape" else getattr(layer, key)


def line(operations: Operations) -> str:
    """The totals of forward and backward."""
    totals = operations.totals
    return (
        f"{operations.model} at {inputs_text(operations)}: {short_count(totals.flops, 'FLOPs')},"
        f" {short_count(totals.backward_flops, 'FLOPs')} backward, {bytes_text(totals.bytes)} moved"
    )


def _shown(operations: Operations) -> tuple[str, ...]:
    """The columns that are shown by default."""
    other = ("other",) if operations.count == "all" else ()
    card = ("time_ns", "bound") if operations.roof is not None else ()
    return ("name", "label", "op", "dtype", "macs", *other, "flops", "backward_flops", "bytes", "intensity", *card)


def _meaning(operations: Operations) -> Note:
    flops = "2 x MACs and the other operations" if operations.count == "all" else "2 x MACs, bias left out"
    return Note(
        f"FLOPs are {flops}; backward, 2 x MACs of the gradients that training needs. The bytes moved are those of a"
        f" layer's inputs, parameters and output, each once; {BINARY}."
    )


def _bounds(operations: Operations) -> Note:
    roof, total = operations.roof, operations.totals.time_ns
    assert roof is not None
    times = {"compute": 0, "memory": 0}
    for layer in operations.layers:
        if layer.bound is not None:
            times[layer.bound] += layer.time_ns or 0
    whole = sum(times.values())
    shares = ", ".join(f"{percent_text(time, whole)} bound by {bound}" for bound, time in times.items())
    return Note(
        f"The least time is what a layer's FLOPs or bytes take, whichever is longer, at the peak of {roof.card},"
        f" {short_count(roof.flops, 'FLOP/s')} and {short_count(roof.bytes, 'B/s')}: {time_text(total)} in all,"
        f" {shares}. From {count_text(round(roof.ridge))} FLOPs/byte on, a layer is bound by compute."
    )
