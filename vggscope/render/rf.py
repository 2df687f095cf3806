"""The Document of receptive fields: those of all layers, or the regions of the chosen units."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from vggscope.analysis.receptive_field.result import Box, EffectiveField, LayerField, ReceptiveFields, UnitField
from vggscope.document import Block, Column, Document, Note, Table, data_table
from vggscope.graph import INPUT
from vggscope.units import index_text, kernel_text, pair_text, percent_text, positions_word, whole_text


def _box(box: Box | None) -> str:
    return "nothing" if box is None else f"{index_text(box.first)} to {index_text(box.last)}"


_AXES = {
    1: ("position",),
    2: ("row", "column"),
    3: ("frame", "row", "column"),
    **{n: tuple(map(str, range(n))) for n in (4, 5, 6)},
}
"""The names of an input's sides, by their number."""

LAYERS = (
    Column("name", "layer"),
    Column("label", "label", priority=3),
    Column("op", "op", priority=4),
    Column("map", "map", kernel_text, right=True, priority=2),
    Column("size", "field", pair_text, right=True),
    Column("stride", "stride", pair_text, right=True),
    Column("padding", "padding", pair_text, right=True),
    Column("note", "note", lambda note: note or "", priority=1, wrap=True),
)

UNITS = (
    Column("name", "layer", priority=4),
    Column("label", "label"),
    Column("unit", "unit", index_text, right=True),
    Column("map", "map", kernel_text, right=True, priority=3),
    Column("box", "rows,columns", _box),
    Column("size", "size", kernel_text, right=True, priority=2),
    Column("clipped", "on the image", _box),
    Column("padding", "padding", right=True, priority=1),
    Column("reads", "reads", _box, priority=5),
)


def document(fields: ReceptiveFields, columns: tuple[str, ...] | None = None) -> Document:
    """The chosen units, or else every layer. Without `columns`, empty columns are left out."""
    table = _units(fields.units) if fields.units else _layers(fields.layers)
    chosen = columns or tuple(column.key for column in table.columns if table.holds(column.key))
    blocks: list[Block] = [table.choose(chosen)]
    if fields.effective is not None:
        blocks += _effective(fields.effective)
    if fields.units:
        blocks.append(_data(fields.units))
    else:
        blocks.append(
            Note(
                f"unit i covers the {positions_word(len(fields.sides))} from -padding + i x stride to"
                " -padding + i x stride + field - 1"
                " (Araujo, Norris and Sim, Distill 2019)"
            )
        )
    blocks += [Note(note) for note in fields.notes]
    return Document(f"{fields.model}   {_input(fields)}", tuple(blocks))


def _input(fields: ReceptiveFields) -> str:
    """The input that the fields lie in; its name, if the network has several."""
    name = "" if fields.of == INPUT else f"{fields.of} "
    return f"input {name}{fields.input_text}"


def line(fields: ReceptiveFields) -> str:
    """The chosen units, or the field of the last layer with a known one."""
    where = f"{fields.model} at {fields.input_text}"
    if fields.units:
        return f"{where}: " + ", ".join(f"{unit.title} {kernel_text(unit.box.size)}" for unit in fields.units)
    known = [layer for layer in fields.layers if layer.size and layer.padding is not None]
    return f"{where}: {len(fields.layers)} layers" + (
        f", {pair_text(known[-1].size)} {positions_word(len(fields.sides))} at {known[-1].title}" if known else ""
    )


def _effective(field: EffectiveField) -> list[Block]:
    """The boxes that hold most of the energy, and a note on what that is."""
    columns = (
        Column("percent", "energy", right=True),
        Column("box", ",".join(f"{side}s" for side in _AXES[len(field.box.first)]), _box),
        Column("size", "size", kernel_text, right=True),
        Column("area", "of the field", right=True),
    )
    rows = tuple(
        (f"{100 * part.share:.1f}%", part.box, part.box.size, percent_text(part.box.pixels, field.box.pixels))
        for part in field.boxes
    )
    sample = "image" if len(field.box.first) == 2 else "input"
    images = f"{field.samples} {sample}{'' if field.samples == 1 else 's'}"
    note = (
        f"the effective field of {field.title}, unit {index_text(field.unit)}: where the energy of its gradients lies,"
        f" mean over {images} of noise (seed {field.seed}), with the weights that the module has"
    )
    return [Note(note), Table(columns, rows)]


def _layers(layers: tuple[LayerField, ...]) -> Table:
    rows = tuple(tuple(_cell(getattr(layer, column.key)) for column in LAYERS) for layer in _with_new_notes(layers))
    quiet = frozenset(
        place
        for place, (before, layer) in enumerate(pairwise(layers), 1)
        if (layer.size, layer.stride, layer.padding) == (before.size, before.stride, before.padding)
    )
    return Table(LAYERS, rows, quiet)


def _with_new_notes(layers: tuple[LayerField, ...]) -> Iterator[LayerField]:
    """The layers. Of consecutive equal notes the first is kept, and of the others that the whole input is seen."""
    previous = None
    for layer in layers:
        repeated = whole_text(len(layer.size or ())) if layer.whole else None
        yield replace(layer, note=repeated) if layer.note == previous else layer
        previous = layer.note


def _cell(value: object) -> object:
    return "" if value is None or value == () else value


def _units(units: tuple[UnitField, ...]) -> Table:
    differs = any(unit.reads != unit.clipped for unit in units)

    def row(unit: UnitField) -> tuple[object, ...]:
        padding = percent_text(unit.padding_pixels, unit.pixels)
        places = (unit.unit, unit.map, unit.box, unit.box.size, unit.clipped)
        return (unit.name, unit.label, *places, padding, unit.reads if differs else "")

    heading = ",".join(f"{side}s" for side in _AXES[len(units[0].box.first)])
    titles = {"box": heading, "clipped": "on the image" if heading == "rows,columns" else "in the input"}
    columns = tuple(replace(column, title=titles.get(column.key, column.title)) for column in UNITS)
    return Table(columns, tuple(map(row, units)))


def _data(units: tuple[UnitField, ...]) -> Table:
    """The units for CSV, with a column for each number."""
    sides = _AXES[len(units[0].box.first)]
    along = sides if any(len(unit.unit) == len(sides) for unit in units) else ("token",)
    boxes = ("first", "last", "clipped_first", "clipped_last", "reads_first", "reads_last")
    places = [f"{what}_{axis}" for what in ("unit", "map") for axis in along]
    corners = [f"{what}_{axis}" for what in boxes for axis in sides]
    rows = (_numbers(unit, len(along), len(sides)) for unit in units)
    return data_table(("name", "label", *places, *corners, "pixels", "padding_pixels"), rows)


def _numbers(unit: UnitField, along: int, sides: int) -> tuple[object, ...]:
    """A unit's cells; those of a token leave the second side of its place empty."""
    empty: tuple[object, ...] = ("",) * sides
    places = [number for place in (unit.unit, unit.map) for number in (*place, *("",) * (along - len(place)))]
    boxes = (unit.box, unit.clipped, unit.reads)
    ends = [number for box in boxes for end in ((box.first, box.last) if box else (empty, empty)) for number in end]
    return (unit.name, unit.label, *places, *ends, unit.pixels, unit.padding_pixels)
