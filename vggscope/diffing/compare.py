"""Two networks compared: aligned, each difference judged alone, what only follows folded under its cause."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.diffing.advice import advice
from vggscope.diffing.consequence import NO_LONGER_RUNS, consequences, edited, figures, own_figures
from vggscope.diffing.ignore import without
from vggscope.diffing.locate import Aligned, LocatedDifference, align_networks, failed_pair, failing, find
from vggscope.diffing.result import Diff, Difference, ParameterCounts
from vggscope.diffing.root_causes import DOES_NOT_RUN, broken_off, group_by_root_cause, lays_out
from vggscope.diffing.rows import rows
from vggscope.errors import ShapeError
from vggscope.graph import Network
from vggscope.ops.base import numel
from vggscope.units import shape_text

EXPLAINED_LAYERS = 8_000
"""How many layers are worked through to tell what follows: all of a VGG's differences, a few of a very deep
network's.
"""


def compare(
    ours: Network, reference: Network, notes: tuple[str, ...] = (), ignore: frozenset[str] = frozenset()
) -> Diff:
    """How `ours` differs from `reference`; `notes` are what the reader should know of the choice of the reference.

    `ignore` names kinds of difference that do not count, a few of IGNORABLE. Where ours does not run on its input, it
    is compared up to the layer that fails.

    Raises OptionError for another kind, and ShapeError where ours runs and the reference does not.
    """
    ours, reference = ours.truncated_at_failure(), reference.truncated_at_failure()
    if reference.failure is not None and ours.failure is None:
        shape = shape_text(reference.input_shape)
        problem = f"{reference.name} does not run on {shape}: {reference.failure}"
        raise ShapeError(problem, "--input gives both another size")
    aligned = align_networks(ours, reference)
    causes = group_by_root_cause(without(find(aligned), ignore, aligned), aligned)
    if ours.failure is not None:
        causes = broken_off(causes, failing(aligned), _unflattened(aligned))
        notes = (*notes, f"the model does not run at this input, and is compared up to there: {ours.failure}")
    if reference.failure is not None:
        notes = (*notes, f"the reference does not run at this input either: {reference.failure}")
    notes = (*notes, *_another(aligned))
    if not aligned.is_cheapest:
        notes = (*notes, "both are very long and differ much: fewer differences might explain as much")
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
        rows=tuple(rows(aligned, [cause.edits for cause in causes], differences)),
    )


def _another(aligned: Aligned) -> Iterator[str]:
    """A note where most of ours has no counterpart, so that its differences are no mistakes."""
    weighted = [other for mine, other in aligned.nodes() if mine and any(len(p.shape) > 1 for p in mine.parameters)]
    paired = sum(other is not None for other in weighted)
    if 2 * paired < len(weighted):
        yield f"{paired} of its {len(weighted)} layers with weights have a counterpart: it is rather another network"


def _unflattened(aligned: Aligned) -> str | None:
    """What the reference's layer reads in the place of the one that failed, if ours met a map there."""
    failed, counterpart = failed_pair(aligned)
    met = [len(aligned.ours.shapes[name]) for name in failed.inputs] if failed else []
    return counterpart.inputs[0] if met == [4] and counterpart and counterpart.inputs else None


def _verdict(differences: tuple[Difference, ...]) -> str:
    if not differences:
        return "identical"
    return "equivalent" if all(d.effect in ("none", "training_only") for d in differences) else "different"


def _params(network: Network) -> int:
    return sum(numel(parameter.shape) for parameter in network.parameters())


def _explained(aligned: Aligned, causes: list[LocatedDifference]) -> Iterator[Difference]:
    """Each cause with its consequences, where it has some; for large networks the first causes alone."""
    behind = aligned.places()
    base = figures(_in_our_style(aligned, causes, behind))
    left = max(1, EXPLAINED_LAYERS // (len(base.network.nodes) + 1))
    for cause in causes:
        difference = cause.difference
        if cause.edits and difference.effect in ("shape", "function") and left and not lays_out(cause):
            left -= 1
            extra = [mine for mine, other in cause.edits if mine is not None and other is None]
            if any(len(mine.inputs) > 1 for mine in extra):
                follows = own_figures(aligned.ours, extra)
            else:
                other = edited(aligned.ours, base.network, cause.edits, behind)
                name = difference.reference or difference.ours or ""
                follows = consequences(base, other, name, aligned.ours.failure is None)
            is_told = any(text.startswith(DOES_NOT_RUN) for text in difference.follows)
            if is_told or aligned.ours.failure is None:  # ours runs, whatever one change alone would do
                follows = tuple(text for text in follows if not text.startswith(NO_LONGER_RUNS))
            difference = replace(
                difference, consequences=(*follows, *advice(aligned.ours, aligned.reference, cause.edits))
            )
        yield difference


def _in_our_style(aligned: Aligned, causes: list[LocatedDifference], behind: dict[str, str]) -> Network:
    """The reference written as ours is, with every difference that changes nothing: what a mistake does is seen
    there.
    """
    edits = tuple(edit for cause in causes if cause.difference.effect == "none" for edit in cause.edits)
    base = edited(aligned.ours, aligned.reference, edits, behind)
    try:
        same = _outputs(base) == _outputs(aligned.reference)
    except ShapeError:
        return aligned.reference
    return base if same else aligned.reference


def _outputs(network: Network) -> int:
    """How many values come out; raises ShapeError where it does not run."""
    return numel(network.shapes[network.end]) if network.nodes else 0
