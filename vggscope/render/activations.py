"""The Document of the activations of an image: the strongest channels of each layer."""

from __future__ import annotations

from vggscope.document import Column, Document, Note, Table
from vggscope.execution.activations import METHOD, Activations
from vggscope.units import index_text, shape_text


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


COLUMNS = (
    Column("name", "layer"),
    Column("label", "label", priority=2),
    Column("op", "op", priority=3),
    Column("channel", "channel", right=True),
    Column("mean", "mean", _number, right=True),
    Column("value", "largest", _number, right=True),
    Column("unit", "at row,column", index_text, right=True, priority=1),
)


def document(activations: Activations, columns: tuple[str, ...] | None = None) -> Document:
    """One row for each listed channel of a layer, or for each unit of a layer whose output is a vector."""
    rows: list[tuple[object, ...]] = []
    for layer in activations.layers:
        about = (layer.name, layer.label, layer.op)
        rows += ((*about, c.channel, c.mean, c.value, c.unit) for c in layer.channels)
        rows += ((*about, unit.unit, None, unit.value, ()) for unit in layer.units)
    table = Table(COLUMNS, tuple(rows))
    return Document(
        f"{activations.model}   input {shape_text(activations.input_shape)}",
        (table.choose(columns) if columns else table, Note(METHOD)),
    )


def line(activations: Activations) -> str:
    """The model, its input, the number of layers, and the strongest unit of the output."""
    text = f"{activations.model} at {shape_text(activations.input_shape)}: {len(activations.layers)} layers"
    units = activations.layers[-1].units if activations.layers else ()
    if not units:
        return text
    best = units[0].unit
    return f"{text}, strongest unit {best}" + (f" ({activations.classes[best]})" if activations.classes else "")
