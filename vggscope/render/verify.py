"""The Document of a verification: a row for each figure, a column for each tool, then the reason of each difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from vggscope.analysis.tensors import sizes_text
from vggscope.cross_checks.reference_tool import ReferenceTool
from vggscope.cross_checks.verification import (
    AGREES,
    DISAGREES,
    EXPLAINED,
    REFERENCE_TOOLS,
    UNCHECKED,
    Answer,
    Figure,
    Skipped,
    Verification,
)
from vggscope.document import Block, Column, Document, Item, Items, Note, Table, data_table
from vggscope.units import count_text, rounded_text

TITLES = {
    "params": "parameters",
    "macs": "MACs",
    "backward_macs": "MACs, backward",
    "inference_peak_bytes": "bytes, inference",
    "training_peak_bytes": "bytes, training",
    "receptive_fields": "layers' fields",
}
"""The title of each figure."""

_DATA = ("figure", "witness", "ours", "value", "difference", "agrees", "reason")


def document(verification: Verification) -> Document:
    """The table, the reasons of the differences, the skipped tools, and whether all agree."""
    blocks: list[Block] = [_table(verification)]
    reasons = tuple(
        _reason(figure, answer) for figure in verification.figures for answer in figure.answers if answer.difference
    )
    if reasons:
        blocks.append(Items(reasons))
    blocks += [Note(f"skipped: {text}", "warning") for text in _skipped(verification.skipped)]
    blocks.append(Note(_verdict(verification), "verdict"))
    rows = (
        (figure.name, answer.witness, figure.ours, answer.value, answer.difference, answer.agrees, answer.reason)
        for figure in verification.figures
        for answer in figure.answers
    )
    blocks.append(data_table(_DATA, rows))
    return Document(f"{verification.model}   input {sizes_text(verification.inputs)}, batch 1", tuple(blocks))


def line(verification: Verification) -> str:
    """The number of figures and of tools, and whether all agree."""
    verdict = "all agree" if verification.agrees and not verification.unchecked else _verdict(verification)
    return f"{verification.model}: {len(verification.figures)} figures, {len(_tools(verification))} tools, {verdict}"


def _tools(verification: Verification) -> list[ReferenceTool]:
    names = {answer.witness for figure in verification.figures for answer in figure.answers}
    return [tool for tool in REFERENCE_TOOLS if tool.name in names]


def _table(verification: Verification) -> Table:
    """A row for each figure. A tool's cell has its number if that differs from ours, with ! if nothing explains it."""
    tools = _tools(verification)
    columns = (
        Column("figure", "figure"),
        Column("ours", "ours", count_text, right=True),
        *(Column(tool.name, tool.name, right=True, priority=place) for place, tool in enumerate(tools, 1)),
    )
    rows = []
    for figure in verification.figures:
        answers = {answer.witness: answer for answer in figure.answers}
        cells = (_cell(answers[tool.name]) if tool.name in answers else "" for tool in tools)
        rows.append((TITLES[figure.name], figure.ours, *cells))
    return Table(columns, tuple(rows))


def _cell(answer: Answer) -> str:
    if not answer.difference:
        return count_text(answer.value) if answer.agrees is None else "same"
    return ("" if answer.agrees else "! ") + rounded_text(answer.value, answer.rounded_to)


def _reason(figure: Figure, answer: Answer) -> Item:
    title = f"{_title(answer.witness)}, {TITLES[figure.name]}"
    if answer.agrees:
        return Item("=", f"{title}: {answer.reason}")
    reason = answer.reason or "no reason is known"
    return Item("!", f"{title}: {count_text(answer.difference)} from ours: {reason}")


def _skipped(all_skipped: Sequence[Skipped]) -> Iterator[str]:
    """Each skipped figure with the reason. Several tools that share one are listed before it."""
    tools: dict[str, dict[str, None]] = {}
    for skipped in all_skipped:
        tools.setdefault(skipped.reason, {})[_title(skipped.witness)] = None
    for skipped in all_skipped:
        sharing = tools[skipped.reason]
        if len(sharing) == 1:
            yield f"{_title(skipped.witness)}, {TITLES[skipped.figure]}: {skipped.reason}"
        elif sharing:
            figures = sum(other.reason == skipped.reason for other in all_skipped)
            yield f"{figures} figures of {', '.join(sharing)}: {skipped.reason}"
            sharing.clear()


def _title(name: str) -> str:
    return next(tool.title for tool in REFERENCE_TOOLS if tool.name == name)


def _verdict(verification: Verification) -> str:
    """Whether all agree, with the number of figures of each outcome unless all agree."""
    outcomes = Counter(figure.outcome for figure in verification.figures)
    if outcomes[UNCHECKED] == len(verification.figures):
        return "nothing could be compared"
    if verification.agrees and not outcomes[UNCHECKED]:
        return "all agree: every difference is explained to the last digit"
    counts = ((outcomes[AGREES], "agree"), (outcomes[EXPLAINED], "explained"), (outcomes[DISAGREES], "disagree"))
    parts = [f"{number} {word}" for number, word in counts if number]
    if verification.unchecked:
        titles = ", ".join(TITLES[name] for name in verification.unchecked)
        parts.append(f"{outcomes[UNCHECKED]} unchecked ({titles})")
    return ("" if verification.agrees else "not all agree: ") + ", ".join(parts)
