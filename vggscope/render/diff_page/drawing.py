"""Both networks side by side in the page of a diff. Stretches that are alike are folded, and open on a click."""

from __future__ import annotations

from collections.abc import Mapping

from vggscope.diffing.result import Diff, Row, RowLayer
from vggscope.drawing.diff.marks import Mark, marks, short_names
from vggscope.drawing.diff.rows import (
    DOES_NOT_RUN,
    MarkedRow,
    StackedRows,
    folded_rows,
    marked_row,
    name_text,
    ops_text,
    output_text,
)
from vggscope.drawing.layer import kind
from vggscope.render.diff_page.differences import LOOKS, badge
from vggscope.render.html import escaped

UNFOLDED = (1, 3, 3)
"""The layers that are alike and shown before and after a difference, the places of a difference, and its successive
layers that are shown unfolded.
"""

LONGEST_NOTE = 14
"""The most letters of an attribute and its two values that fit on one line between the sides."""

GAPS = {"+": "not in the reference", "-": "missing here", "?": "not reached", "!": "no counterpart"}
"""The text in place of a layer, by the sign of the row."""


def drawn(diff: Diff) -> str:
    """Return the section with the drawing."""
    marked = marks(diff)
    numbers = {id(row): number for number, row in enumerate(diff.rows)}
    matter = {index for index, difference in enumerate(diff.differences) if difference.effect != "none"}
    every = {index for index, difference in enumerate(diff.differences) if difference.kind != "renamed"}
    rows = folded_rows(diff, marked, matter or every, *UNFOLDED)
    shown = "".join(
        _row(row, numbers, diff) if isinstance(row, MarkedRow) else _stacked(row, numbers, diff, marked) for row in rows
    )
    sides = zip(short_names(diff), diff.params.texts)
    heads = "".join(
        f'<p class="head"><b>{escaped(name)}</b> <span>{params} parameters</span></p>' for name, params in sides
    )
    return (
        '<section aria-labelledby="drawing">\n<div class="bar"><h2 id="drawing" tabindex="-1">Side by side</h2>\n'
        '<p class="tools" id="drawing-tools"></p></div>\n'
        f'<div class="drawing">\n<div class="heads"><span></span>{heads}</div>\n'
        f'<ol class="rows">\n{shown}</ol>\n</div>\n</section>\n'
    )


def _stacked(stack: StackedRows, numbers: Mapping[int, int], diff: Diff, marked: Mapping[int, Mark]) -> str:
    """Folded rows: a line that counts them, and the rows."""
    rows = "".join(_row(marked_row(row, diff, marked), numbers, diff) for row in stack.rows)
    layers = stack.ours or stack.reference
    names = " … ".join(dict.fromkeys((name_text(layers[0]), name_text(layers[-1])))) if layers else ""
    ops = f' <span class="ops">{escaped(ops_text(layers))}</span>' if stack.is_block else ""
    gap = (
        f' <span class="missing">{GAPS[stack.rows[0].sign]}</span>'
        if stack.is_block and stack.rows[0].sign in GAPS
        else ""
    )
    mark = f'<span class="badge {_look(stack.mark)}">{escaped(stack.mark.text)}</span>' if stack.mark else ""
    effect = diff.differences[index].effect if (index := stack.rows[0].difference) is not None and stack.mark else ""
    look = f"stack block {_look(stack.mark)} {effect}" if stack.mark and stack.is_block else "stack"
    return (
        f'<li class="{look}"><details>\n<summary><span class="marks">{mark}</span>'
        f'<b>{escaped(", ".join(stack.texts))}</b> <span class="names">{escaped(names)}</span>{ops}{gap}</summary>\n'
        f'<ol class="rows">\n{rows}</ol></details></li>\n'
    )


def _look(mark: Mark) -> str:
    return f"{LOOKS[mark.sign]}{' hollow' if mark.quiet else ''}"


def _row(shown: MarkedRow, numbers: Mapping[int, int], diff: Diff) -> str:
    """One row: the mark, our layer, what differs, the reference's layer."""
    row, mark = shown.row, shown.mark
    effect = "" if row.difference is None else diff.differences[row.difference].effect
    look = f"row {_look(mark)} {effect}".rstrip() if mark else "row"
    shown_mark = "" if mark is None else f'<span class="badge {_look(mark)}">{escaped(mark.text)}</span>'
    if mark is not None and mark.number is not None:
        shown_mark = badge(mark, f"difference-{mark.number}", f"to difference {mark.number}")
    return (
        f'<li class="{look}" id="row-{numbers[id(row)]}" tabindex="-1"><span class="marks">{shown_mark}</span>'
        f"{_side(row, row.our_layer, 'ours')}{_between(shown)}{_side(row, row.reference_layer, 'reference')}</li>\n"
    )


def _between(shown: MarkedRow) -> str:
    """The attributes that differ, each with both values."""
    notes = "".join(map(_note, shown.notes))
    return f'<span class="between">{notes}</span>'


def _note(note: tuple[str, str, str]) -> str:
    ours, name, reference = map(escaped, note)
    long = ' class="long"' if sum(map(len, note)) > LONGEST_NOTE else ""
    return f"<span{long}><b>{ours}</b> <i>{name}</i> <b>{reference}</b></span>"


def _side(row: Row, layer: RowLayer | None, side: str) -> str:
    if layer is None:
        text = row.ours if row.sign == "!" and side == "ours" else GAPS.get(row.sign, "")
        return f'<span class="gap {side}">{escaped(text)}</span>'
    path = f' <span class="path">{escaped(layer.name)}</span>' if layer.label else ""
    output = output_text(layer)
    fails = " fails" if output == DOES_NOT_RUN else ""
    return (
        f'<span class="layer {side} {kind(layer.family, layer.label)}"><span class="name">{escaped(name_text(layer))}'
        f'</span>{path} <span class="op">{escaped(layer.op)}</span> '
        f'<span class="shape{fails}">{escaped(output)}</span></span>'
    )
