"""Two networks compared: aligned, each difference judged alone, what only follows folded under its cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.diffing.consequence import consequences, edited
from vggscope.diffing.find import Aligned, Edit, Found, align_networks, failed_pair, failing, find
from vggscope.diffing.fold import broken_off, fold
from vggscope.diffing.ignore import without
from vggscope.diffing.judge import changes
from vggscope.diffing.result import Diff, Difference, ParameterCounts, Row
from vggscope.errors import ShapeError
from vggscope.graph import Network, Node
from vggscope.ops.base import numel
from vggscope.units import shape_text

MOST_EXPLAINED = 40
"""How many differences get their consequences worked out: two networks that differ more are two networks."""


def compare(
    ours: Network, reference: Network, notes: tuple[str, ...] = (), ignore: frozenset[str] = frozenset()
) -> Diff:
    """How `ours` differs from `reference`; `notes` are what the reader should know of the choice of the reference.

    `ignore` names kinds of difference that do not count, a few of IGNORABLE. Raises OptionError for any other.
    """
    aligned = align_networks(ours, reference)
    causes = fold(without(find(aligned), ignore), ours, reference)
    if ours.failure is not None:
        causes = broken_off(causes, failing(aligned))
        notes = (*notes, f"the model does not run at this input, and is compared up to there: {ours.failure}")
    differences = tuple(_explained(aligned, causes))
    return Diff(
        schema="vggscope/diff@1",
        model=ours.name,
        reference=reference.name,
        verdict=_verdict(differences),
        differences=differences,
        params=ParameterCounts(_params(ours), _params(reference)),
        numeric=None,
        notes=notes,
        rows=tuple(_rows(aligned, causes)),
    )


def _verdict(differences: tuple[Difference, ...]) -> str:
    if not differences:
        return "identical"
    return "equivalent" if all(d.effect in ("none", "training_only") for d in differences) else "different"


def _params(network: Network) -> int:
    return sum(numel(parameter.shape) for parameter in network.parameters())


def _explained(aligned: Aligned, causes: list[Found]) -> Iterator[Difference]:
    """Each cause with its consequences, where it has some."""
    behind = aligned.counterparts()[0]
    base = _in_our_style(aligned, causes, behind)
    explained = 0
    for cause in causes:
        difference = cause.difference
        if cause.edits and difference.effect in ("shape", "function") and explained < MOST_EXPLAINED:
            explained += 1
            other = edited(aligned.ours, base, cause.edits, behind)
            name = difference.reference or difference.ours or ""
            difference = replace(difference, consequences=consequences(base, other, name, aligned.ours.failure is None))
        yield difference


def _in_our_style(aligned: Aligned, causes: list[Found], behind: dict[str, str]) -> Network:
    """The reference written as ours is, with every difference that changes nothing: what a mistake does is seen
    there.
    """
    edits = tuple(edit for cause in causes if cause.difference.effect == "none" for edit in cause.edits)
    base = edited(aligned.ours, aligned.reference, edits, behind)
    try:
        base.shapes  # noqa: B018 - asks whether it still runs
    except ShapeError:
        return aligned.reference
    return base


def _rows(aligned: Aligned, causes: list[Found]) -> Iterator[Row]:
    """The two networks side by side: `=` alike, `~` changed, `+` only ours, `-` only the reference's, `!` where ours
    fails, `?` what it did not reach.
    """
    harmless = {edit for cause in causes if cause.difference.effect == "none" for edit in _names(cause)}
    reached = list(aligned.reached().nodes()) if aligned.ours.failure is not None else list(aligned.nodes())
    for mine, other in reached:
        if mine is None or other is None:
            sign = "+" if other is None else "-"
        else:
            alike = not changes(mine.op, other.op) or (mine.name, other.name) in harmless
            sign = "=" if alike else "~"
        yield Row(sign, _row_text(aligned.ours, mine), _row_text(aligned.reference, other))
    if aligned.ours.failure is not None:
        yield from _beyond(aligned, reached)


def _beyond(aligned: Aligned, reached: list[Edit]) -> Iterator[Row]:
    """The layer that failed, and what the reference has from there on."""
    known = {other.name for _, other in reached if other is not None}
    failed, counterpart = failed_pair(aligned)
    title = f"{failed.title} {failed.op.name} does not run" if failed else "does not run"
    for node in aligned.reference.nodes:
        if node is counterpart:
            yield Row("!", title, _row_text(aligned.reference, node))
        elif node.name not in known:
            yield Row("?", "", _row_text(aligned.reference, node))
    if counterpart is None:
        yield Row("!", title, "")


def _names(cause: Found) -> Iterator[tuple[str, str]]:
    return ((mine.name, other.name) for mine, other in cause.edits if mine and other)


def _row_text(network: Network, node: Node | None) -> str:
    return "" if node is None else f"{node.title} {node.op.name} {shape_text(network.output_shape(node))}"
