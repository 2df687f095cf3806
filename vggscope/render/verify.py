"""A verification laid out: a row for each figure, a column for each witness, then each difference as a sum."""

from __future__ import annotations

from vggscope.cross_checks.verification import REFERENCE_TOOLS, Answer, Figure, Verification
from vggscope.document import Block, Column, Document, Item, Items, Note, Table
from vggscope.units import count_text, rounded_text, shape_text

TITLES = {
    "params": "parameters",
    "macs": "MACs",
    "backward_macs": "MACs, backward",
    "inference_peak_bytes": "bytes, inference",
    "training_peak_bytes": "bytes, training",
    "receptive_fields": "layers' fields",
}
"""What each figure is called."""

_DATA = ("figure", "witness", "ours", "value", "difference", "agrees", "reason")


def document(verification: Verification) -> Document:
    """The table, the reasons, who was skipped, and whether all agree."""
    blocks: list[Block] = [_table(verification)]
    reasons = tuple(
        _reason(figure, answer) for figure in verification.figures for answer in figure.answers if _differs(answer)
    )
    if reasons:
        blocks.append(Items(reasons))
    blocks += [
        Note(f"skipped: {_title(skipped.witness)}, {TITLES[skipped.figure]}: {skipped.reason}", "warning")
        for skipped in verification.skipped
    ]
    blocks.append(Note(_verdict(verification), "verdict"))
    rows = tuple(
        (figure.name, answer.witness, figure.ours, answer.value, answer.difference, answer.agrees, answer.reason)
        for figure in verification.figures
        for answer in figure.answers
    )
    blocks.append(Table(tuple(Column(key, key) for key in _DATA), rows, data=True))
    return Document(f"{verification.model}   input {shape_text(verification.input_shape)}, batch 1", tuple(blocks))


def line(verification: Verification) -> str:
    """Who was heard, and whether all agree."""
    heard = {answer.witness for figure in verification.figures for answer in figure.answers}
    return f"{verification.model}: {len(verification.figures)} figures, {len(heard)} witnesses, {_short(verification)}"


def _short(verification: Verification) -> str:
    return _verdict(verification).partition(":")[0]


def _table(verification: Verification) -> Table:
    """Figures down, witnesses across; a number stands where a witness's differs, with ! before it if unexplained."""
    heard = {answer.witness for figure in verification.figures for answer in figure.answers}
    witnesses = [witness for witness in REFERENCE_TOOLS if witness.name in heard]
    columns = (
        Column("figure", "figure"),
        Column("ours", "ours", count_text, right=True),
        *(Column(witness.name, witness.name, right=True, priority=place) for place, witness in enumerate(witnesses, 1)),
    )
    rows = []
    for figure in verification.figures:
        answers = {answer.witness: answer for answer in figure.answers}
        cells = (_cell(answers[witness.name]) if witness.name in answers else "" for witness in witnesses)
        rows.append((TITLES[figure.name], figure.ours, *cells))
    return Table(columns, tuple(rows))


def _cell(answer: Answer) -> str:
    if not _differs(answer):
        return count_text(answer.value) if answer.agrees is None else "same"
    return ("" if answer.agrees else "! ") + rounded_text(answer.value, answer.rounded_to)


def _differs(answer: Answer) -> bool:
    return bool(answer.difference)


def _reason(figure: Figure, answer: Answer) -> Item:
    title = f"{_title(answer.witness)}, {TITLES[figure.name]}"
    if answer.agrees:
        return Item("=", f"{title}: {answer.reason}")
    what = answer.reason or "no reason is known"
    return Item("!", f"{title}: {count_text(answer.difference)} from ours: {what}")


def _title(name: str) -> str:
    return next(witness.title for witness in REFERENCE_TOOLS if witness.name == name)


def _verdict(verification: Verification) -> str:
    if verification.agrees:
        return "all agree: every difference is explained to the last digit"
    return "not all agree" if verification.figures else "nothing could be compared"
