"""The Document of a diff: the verdict, each difference with its consequences, the two networks side by side."""

from __future__ import annotations

from vggscope.diffing.result import Diff, Row
from vggscope.diffing.wording import (
    FoldedRows,
    difference_items,
    folded,
    is_style,
    renamed_item,
    style_item,
    totals,
    verdict_text,
)
from vggscope.document import Block, Column, Document, Facts, Items, Lines, Note, Table, data_table

_DATA = ("kind", "effect", "ours", "reference", "label", "message")


def document(diff: Diff) -> Document:
    """The verdict first, then its reasons, the gravest first."""
    blocks: list[Block] = [Note(f"{diff.verdict}: {verdict_text(diff)}", "verdict")]
    others = [difference for difference in diff.differences if difference.kind != "renamed"]
    styles = [] if diff.lists_all else [difference for difference in diff.differences if is_style(difference)]
    listed = [difference for difference in others if difference not in styles]
    if listed:
        blocks.append(Items(difference_items(listed)))
    renamed = [difference for difference in diff.differences if difference.kind == "renamed"]
    if styles:
        blocks.append(Items((style_item(styles, _layers(diff)),)))
    elif renamed:
        blocks.append(Items((renamed_item(renamed, None),)))
    if others:
        blocks.append(Lines(tuple(_side_by_side(diff)), "diff"))
    if diff.compared:
        blocks.append(Facts(tuple(totals(diff))))
    if diff.training:
        blocks.append(_training(diff))
    blocks += [Note(f"note: {note}", "warning") for note in diff.notes]
    blocks.append(data_table(_DATA, (tuple(getattr(d, key) for key in _DATA) for d in diff.differences)))
    return Document(f"{diff.model} against {diff.reference}", tuple(blocks))


def _layers(diff: Diff) -> int:
    """How many pairs of layers differ in style alone."""
    places = {place for place, difference in enumerate(diff.differences) if is_style(difference)}
    return sum(row.difference in places for row in diff.rows)


def line(diff: Diff) -> str:
    """The verdict, and the number of differences that it rests on."""
    count = sum(difference.changes_output for difference in diff.differences)
    differences = f", {count} difference{'' if count == 1 else 's'}" if count else ""
    return f"{diff.model} against {diff.reference}: {diff.verdict}{differences}"


def _training(diff: Diff) -> Table:
    columns = (
        Column("matter", "training"),
        Column("paper", "the paper", wrap=True),
        Column("torchvision", "torchvision", wrap=True),
    )
    return Table(columns, tuple((fact.matter, fact.paper, fact.torchvision) for fact in diff.training))


def _side_by_side(diff: Diff) -> list[str]:
    """Two columns after a sign, long runs of identical layers folded."""
    width = max(len(row.ours) for row in diff.rows)
    rows = folded(diff.rows, lambda row: "alike" if row.sign == "=" else "")
    return [f"  ... {row.text}" if isinstance(row, FoldedRows) else _line(row, width) for row in rows]


def _line(row: Row, width: int) -> str:
    sign = " " if row.sign == "=" else row.sign
    return f"{sign} {row.ours:<{width}} | {row.reference}".rstrip()
