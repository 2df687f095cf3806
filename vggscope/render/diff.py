"""A comparison laid out: the verdict, each cause with what follows from it, the two networks side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from vggscope.diffing.result import Diff, Difference, Numeric, Row
from vggscope.document import Block, Column, Document, Facts, Item, Items, Lines, Note, Table
from vggscope.record import record
from vggscope.units import count_text, shape_text

SIGNS = {"inserted": "+", "missing": "-", "changed": "~", "renamed": "="}
"""How each kind of difference is marked, colour or none."""

EFFECTS = {
    "shape": "other shapes",
    "function": "another function",
    "training_only": "acts in training only",
    "none": "no effect on this input",
}
"""Each effect in words, the gravest first."""

CONTEXT = 1
"""Layers that are alike and stand beside a difference, shown around it."""

_DATA = ("kind", "effect", "ours", "reference", "label", "message")


def document(diff: Diff) -> Document:
    """The verdict first, then why."""
    blocks: list[Block] = [Note(f"{diff.verdict}: {verdict_text(diff)}", "verdict")]
    told = [difference for difference in diff.differences if difference.kind != "renamed"]
    told.sort(key=lambda difference: list(EFFECTS).index(difference.effect))
    if told:
        blocks.append(Items(tuple(item(difference) for difference in told)))
    renamed = [difference for difference in diff.differences if difference.kind == "renamed"]
    if renamed:
        blocks.append(Items((renamed_item(renamed),)))
    if told:
        blocks.append(Lines(tuple(_side_by_side(diff)), "diff"))
    blocks.append(Facts(tuple(facts(diff))))
    if diff.training:
        blocks.append(_training(diff))
    blocks += [Note(f"note: {note}", "warning") for note in diff.notes]
    rows = tuple(tuple(getattr(difference, key) for key in _DATA) for difference in diff.differences)
    blocks.append(Table(tuple(Column(key, key) for key in _DATA), rows, data=True))
    return Document(f"{diff.model} against {diff.reference}", tuple(blocks))


def line(diff: Diff) -> str:
    """The verdict, and on how many differences it rests."""
    count = sum(difference.effect in ("shape", "function") for difference in diff.differences)
    told = f", {count} difference{'' if count == 1 else 's'}" if count else ""
    return f"{diff.model} against {diff.reference}: {diff.verdict}{told}"


def verdict_text(diff: Diff) -> str:
    """The verdict in a sentence."""
    if diff.verdict == "identical":
        return "the same layers in the same order, with the same attributes, paths and state-dict keys"
    if diff.verdict == "equivalent":
        return "written otherwise, the same function of this input at evaluation"
    count = sum(difference.effect in ("shape", "function") for difference in diff.differences)
    which = "1 difference that changes" if count == 1 else f"{count} differences that change"
    return f"{which} what is computed"


def item(difference: Difference) -> Item:
    """A difference as a finding, with what follows from it."""
    quiet = difference.effect in ("none", "training_only")
    consequences = ("; ".join(difference.consequences),) if difference.consequences else ()
    return Item(
        SIGNS[difference.kind],
        f"{difference.message}  [{EFFECTS[difference.effect]}]",
        (*consequences, *(f"with it: {text}" for text in _shortened(difference.follows, 1 if quiet else 3))),
        quiet,
    )


def _shortened(texts: tuple[str, ...], most: int = 3) -> tuple[str, ...]:
    return texts if len(texts) <= most + 1 else (*texts[:most], f"and {len(texts) - most} more")


def renamed_item(renamed: Sequence[Difference]) -> Item:
    """All layers that are only called otherwise, as one finding."""
    count = f"{len(renamed)} layers are" if len(renamed) > 1 else "1 layer is"
    examples = _shortened(
        tuple(d.message if d.ours == d.reference else f"{d.ours} is {d.reference} in the reference" for d in renamed)
    )
    return Item("=", f"{count} called otherwise  [{EFFECTS['none']}]", examples, quiet=True)


def _training(diff: Diff) -> Table:
    columns = (
        Column("matter", "training"),
        Column("paper", "the paper", wrap=True),
        Column("torchvision", "torchvision", wrap=True),
    )
    return Table(columns, tuple((fact.matter, fact.paper, fact.torchvision) for fact in diff.training))


def facts(diff: Diff) -> list[tuple[str, str]]:
    """The parameters of both, and how far apart they are in numbers, if that was measured."""
    ours, reference = diff.params.ours, diff.params.reference
    if ours == reference:
        found = [("parameters", f"{count_text(ours)} on both sides")]
    else:
        more = "more" if ours > reference else "fewer"
        found = [
            (
                "parameters",
                f"{count_text(ours)}, the reference {count_text(reference)}:"
                f" {count_text(abs(ours - reference))} {more}",
            )
        ]
    return [*found, *([("numeric", _numeric_text(diff.numeric))] if diff.numeric else [])]


def _numeric_text(numeric: Numeric) -> str:
    parts = f"; they part at {numeric.parts_at}" if numeric.parts_at else ""
    if numeric.max_abs_error == float("inf"):
        return f"not to be told in a number: the outputs are of other sizes{parts}"
    return (
        f"largest error {numeric.max_abs_error:.3g} (relative {numeric.max_rel_error:.3g})"
        f" on one seeded {shape_text(numeric.input_shape)} input, seed {numeric.seed}, {numeric.dtype}{parts}"
    )


def _side_by_side(diff: Diff) -> list[str]:
    """Two columns behind a sign, runs of layers that are alike cut short."""
    width = max(len(row.ours) for row in diff.rows)
    found = shown(diff.rows, lambda row: "alike" if row.sign == "=" else "")
    return [f"  ... {row.text}" if isinstance(row, Hidden) else _line(row, width) for row in found]


@record
class Hidden:
    """Rows in a row that are counted and not shown, and what they are in a word."""

    rows: tuple[Row, ...]
    word: str

    @property
    def text(self) -> str:
        return f"{len(self.rows)} {self.word}"


def shown(rows: Sequence[Row], word: Callable[[Row], str]) -> Iterator[Row | Hidden]:
    """The rows, runs of those that have the same `word` cut short; one without a word is always shown."""
    groups = [(kind, tuple(run)) for kind, run in groupby(rows, key=word)]
    for place, (kind, run) in enumerate(groups):
        first = CONTEXT if place else 0
        last = len(run) - (CONTEXT if place < len(groups) - 1 else 0)
        if not kind or last - first < 2:
            yield from run
            continue
        yield from run[:first]
        yield Hidden(run[first:last], kind)
        yield from run[last:]


def _line(row: Row, width: int) -> str:
    sign = " " if row.sign == "=" else row.sign
    return f"{sign} {row.ours:<{width}} | {row.reference}".rstrip()
