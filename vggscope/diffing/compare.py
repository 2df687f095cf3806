"""Compare two networks: align them, judge each difference alone, group what follows from it, list both side by side."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vggscope.diffing.consequence import (
    NO_LONGER_RUNS,
    Consequences,
    Counterparts,
    Figures,
    added_figures,
    added_params,
    advice,
    apply_difference,
    consequences,
    figures,
)
from vggscope.diffing.folded import with_folded_norms
from vggscope.diffing.locate import (
    AlignedNetworks,
    LayerPair,
    LocatedDifference,
    align_networks,
    failure_difference,
    locate_differences,
    names_of,
    without_ignored,
)
from vggscope.diffing.result import EFFECTS, Diff, Difference, ParameterCounts, Row, RowLayer
from vggscope.diffing.root_causes import DOES_NOT_RUN, group_by_root_cause, is_layout_alone, with_failure
from vggscope.diffing.sharing import reference_weights, relocated
from vggscope.diffing.verify import verified
from vggscope.errors import ShapeError, printable
from vggscope.graph import Network, Node, failure_remedy
from vggscope.ops.base import numel
from vggscope.units import sample_text

EXPLAINED_LAYERS = 8_000
"""How many layers are recomputed for consequences: for all differences of a VGG, a few of a very deep network."""


def compare(
    ours: Network, reference: Network, notes: tuple[str, ...] = (), ignore: frozenset[str] = frozenset()
) -> Diff:
    """How `ours` differs from `reference`.

    `notes` explain the choice of the reference. `ignore` names kinds of difference that do not count, from IGNORABLE. A
    network that does not run on its input is compared up to the layer that fails.

    Raises OptionError for an unknown name in `ignore`, and ShapeError if ours runs and the reference does not.
    """
    ours, reference = ours.truncated_at_failure(), reference.truncated_at_failure()
    if reference.failure is not None and ours.failure is None:
        shape = sample_text(reference.input_shape, reference.inputs[0].batch_axis)
        problem = f"{reference.name} does not run on {shape}: {reference.failure}"
        raise ShapeError(problem, failure_remedy(reference.failure))
    aligned = align_networks(ours, reference)
    located = with_folded_norms(locate_differences(aligned), aligned)
    causes = group_by_root_cause(without_ignored(located, ignore, aligned), aligned)
    causes = verified(causes, aligned, ignore)
    if ours.failure is not None:
        causes = with_failure(causes, failure_difference(aligned), _unflattened(aligned))
    causes = _checked_against_output(causes, aligned)
    differences = tuple(_explained(aligned, causes))
    rows = tuple(_rows(aligned, [cause.pairs for cause in causes], differences))
    differences, rows = _gravest_first(differences, rows)
    verdict = _verdict(differences)
    return Diff(
        schema="vggscope/diff@1",
        model=ours.name,
        reference=reference.name,
        verdict=verdict,
        differences=differences,
        params=_params(ours, reference),
        numeric=None,
        notes=(*notes, *_notes(aligned, is_equal=verdict != "different")),
        rows=rows,
        failure=ours.failure,
    )


def _gravest_first(
    differences: tuple[Difference, ...], rows: tuple[Row, ...]
) -> tuple[tuple[Difference, ...], tuple[Row, ...]]:
    """The differences by their effect, those of equal effect in execution order, and the rows that refer to them."""
    effects = list(EFFECTS)
    order = sorted(range(len(differences)), key=lambda place: -effects.index(differences[place].effect))
    places = {before: after for after, before in enumerate(order)}
    renumbered = (row if row.difference is None else replace(row, difference=places[row.difference]) for row in rows)
    return tuple(differences[place] for place in order), tuple(renumbered)


def _checked_against_output(causes: list[LocatedDifference], aligned: AlignedNetworks) -> list[LocatedDifference]:
    """The differences; one that was judged harmless gets the effect `shape` if it explains another output shape.

    That is looked for if no other difference changes a shape, and our output has another size than the reference's.
    """
    ours, reference = aligned.ours, aligned.reference
    if ours.failure is not None or reference.failure is not None or any(c.difference.effect == "shape" for c in causes):
        return causes
    if _output_size(ours) == _output_size(reference):
        return causes
    counterparts = _counterparts(aligned, causes)
    for place, cause in enumerate(causes):
        if cause.difference.changes_output or cause.difference.kind == "renamed":
            continue
        changed = apply_difference(ours, reference, [cause], counterparts)
        try:
            is_harmless = _output_size(changed) == _output_size(reference)
        except ShapeError:
            is_harmless = False
        if not is_harmless:
            judged = replace(cause, difference=replace(cause.difference, effect="shape"))
            return [*causes[:place], judged, *causes[place + 1 :]]
    return causes


def not_compared(ours: Network, reference: Network, notes: tuple[str, ...] = ()) -> Diff:
    """The result for two networks too different for a comparison layer by layer."""
    return Diff(
        schema="vggscope/diff@1",
        model=ours.name,
        reference=reference.name,
        verdict="different",
        differences=(),
        params=_params(ours, reference),
        numeric=None,
        notes=notes,
        rows=(),
        failure=ours.failure,
        compared=False,
    )


def _notes(aligned: AlignedNetworks, *, is_equal: bool) -> Iterator[str]:
    """What the reader should know about the comparison as a whole. `is_equal`: the two compute the same."""
    if aligned.ours.mixed_batch is not None:
        yield aligned.ours.mixed_batch
    if aligned.ours.failure is not None:
        failed = aligned.ours.failure.partition(": ")[0]
        yield f"the model does not run at this input: it is compared up to {failed}, which fails"
    if aligned.reference.failure is not None:
        yield f"the reference does not run at this input either: {aligned.reference.failure}"
    pairs, taken_apart = [*aligned.layer_pairs()], set[str]()
    only_ours = [mine for mine, other in pairs if mine and not other]
    only_theirs = [other for mine, other in pairs if other and not mine]
    for wholes, pieces, one, many in (
        (only_theirs, only_ours, "the reference", "ours"),
        (only_ours, only_theirs, "ours", "the reference"),
    ):
        for whole, parts in _taken_apart(wholes, pieces):
            taken_apart.update(node.name for node in (whole, *parts))
            unknown = "these are not matched, so it is not known whether they compute the same"
            yield (
                f"{printable(whole.title)} is one layer of {one} and {len(parts)} operations of {many} with as many"
                f" parameters: {'these compute the same' if is_equal else unknown}"
            )
    weighted = [
        other
        for mine, other in pairs
        if mine and mine.name not in taken_apart and any(len(p.shape) > 1 for p in mine.parameters)
    ]
    paired = sum(other is not None for other in weighted)
    if 2 * paired < len(weighted):
        yield f"{paired} of its {len(weighted)} layers with weights have a counterpart: it is probably another network"
    if not aligned.is_cheapest:
        yield "both are very long and differ a lot: fewer differences may explain as much"


def _taken_apart(wholes: Sequence[Node], pieces: Sequence[Node]) -> Iterator[tuple[Node, list[Node]]]:
    """The layers of one network that the other one has as several within the same module, with the same parameters, as
    an exporter writes an attention.
    """
    by_name = sorted(pieces, key=lambda node: node.name)
    names = [node.name for node in by_name]
    for whole in wholes:
        if whole.module and len(whole.parameters) > 1:
            start = bisect_left(names, f"{whole.module}.")
            parts = by_name[start : bisect_left(names, f"{whole.module}/", start)]  # a slash is after a dot
            if len(parts) > 1 and _size((whole,)) == _size(parts):
                yield whole, parts


def _size(nodes: Sequence[Node]) -> int:
    """The parameters of some layers, each once."""
    return sum({p.name: numel(p.shape) for node in nodes for p in node.parameters}.values())


def _unflattened(aligned: AlignedNetworks) -> str | None:
    """The input of the failed layer's counterpart, if ours passes a feature map there."""
    failed, counterpart = aligned.failed_pair()
    dimensions = [len(aligned.ours.shapes[name]) for name in failed.inputs] if failed else []
    return counterpart.inputs[0] if dimensions == [4] and counterpart and counterpart.inputs else None


def _verdict(differences: tuple[Difference, ...]) -> str:
    if not differences:
        return "identical"
    return "different" if any(difference.changes_output for difference in differences) else "equivalent"


def _params(ours: Network, reference: Network) -> ParameterCounts:
    known = ours.parameters_known, reference.parameters_known
    unused = (sum(numel(p.shape) for p, _ in network.unused) for network in (ours, reference))
    return ParameterCounts(ours.parameter_count, reference.parameter_count, *known, *unused)


def _counterparts(aligned: AlignedNetworks, causes: list[LocatedDifference]) -> Counterparts:
    moved = {mine.name: other for mine, other in relocated(causes)}
    return Counterparts(aligned.positions_in_reference(), reference_weights(causes, aligned), moved)


def _explained(aligned: AlignedNetworks, causes: list[LocatedDifference]) -> Iterator[Difference]:
    """Each root cause with its consequences; for large networks only the first causes have them."""
    counterparts = _counterparts(aligned, causes)
    base = figures(_in_our_style(aligned, causes, counterparts))
    if not aligned.ours.predicts_memory:
        base = replace(base, training_bytes=None)
    left = max(1, EXPLAINED_LAYERS // (len(base.network.nodes) + 1))
    for cause in causes:
        difference = cause.difference
        if cause.pairs and difference.changes_output and left and not is_layout_alone(cause):
            left -= 1
            found = _consequences(aligned, cause, base, counterparts)
            hints = advice(aligned.ours, aligned.reference, cause.pairs)
            difference = replace(difference, consequences=(*found.texts, *hints), params=found.params)
        elif not any(node.parameters for pair in cause.pairs for node in pair if node):
            difference = replace(difference, params=0)
        elif left and not difference.changes_output:
            left -= 1
            changed = apply_difference(aligned.ours, aligned.reference, [cause], counterparts)
            difference = replace(difference, params=added_params(aligned.reference, changed))
        yield difference


def _consequences(
    aligned: AlignedNetworks, cause: LocatedDifference, base: Figures, counterparts: Counterparts
) -> Consequences:
    difference, runs = cause.difference, aligned.ours.failure is None
    inserted = [mine for mine, other in cause.pairs if mine is not None and other is None]
    if any(len(mine.inputs) > 1 for mine in inserted):
        found = added_figures(aligned.ours, inserted)
    else:
        changed = apply_difference(aligned.ours, base.network, [cause], counterparts)
        name = difference.reference or difference.ours or ""
        found = consequences(base, changed, name, runs, _missing_params(aligned.reference, cause.pairs))
    if runs or any(text.startswith(DOES_NOT_RUN) for text in difference.follows):
        # Ours runs in spite of this change, or the failure is listed already.
        return replace(found, texts=tuple(text for text in found.texts if not text.startswith(NO_LONGER_RUNS)))
    return found


def _missing_params(reference: Network, pairs: tuple[LayerPair, ...]) -> int:
    """The parameters of layers that ours lacks; 0 if a pair is of another kind or other layers share the weights."""
    missing = {other.name for _, other in pairs if other is not None}
    parameters = {parameter.name: parameter for _, other in pairs if other for parameter in other.parameters}
    others = (node for node in reference.nodes if node.name not in missing)
    is_shared = any(parameter.name in parameters for node in others for parameter in node.parameters)
    if is_shared or any(mine is not None for mine, _ in pairs):
        return 0
    return sum(numel(parameter.shape) for parameter in parameters.values())


def _in_our_style(aligned: AlignedNetworks, causes: list[LocatedDifference], counterparts: Counterparts) -> Network:
    """The reference with all differences of ours that have no effect: the base that consequences are measured on."""
    harmless = [cause for cause in causes if cause.difference.effect == "none" and cause.pairs]
    if not harmless:
        return aligned.reference
    base = apply_difference(aligned.ours, aligned.reference, harmless, counterparts)
    try:
        same = _output_size(base) == _output_size(aligned.reference)
    except ShapeError:
        return aligned.reference
    return base if same else aligned.reference


def _output_size(network: Network) -> int:
    """The number of output values. Raises ShapeError if the network does not run."""
    return numel(network.shapes[network.end]) if network.nodes else 0


def _rows(
    aligned: AlignedNetworks, causes: Sequence[tuple[LayerPair, ...]], differences: Sequence[Difference]
) -> Iterator[Row]:
    """The side-by-side rows in execution order. `causes` are the layers that each difference is about."""
    causes_of = {names_of(pair): number for number, pairs in enumerate(causes) for pair in pairs}
    reached = aligned if aligned.ours.failure is None else aligned.up_to_failure()
    for pair in reached.layer_pairs():
        number = causes_of.get(names_of(pair))
        yield _row(aligned, _sign(pair, None if number is None else differences[number]), pair, number)
    if aligned.ours.failure is not None:
        yield from _rows_after_failure(aligned, reached, differences)


def _sign(pair: LayerPair, difference: Difference | None) -> str:
    mine, other = pair
    if mine is None or other is None:
        return "+" if other is None else "-"
    # A change without a difference is ignored at the user's request.
    return "~" if difference is not None and difference.kind == "changed" and difference.effect != "none" else "="


def _rows_after_failure(
    aligned: AlignedNetworks, reached: AlignedNetworks, differences: Sequence[Difference]
) -> Iterator[Row]:
    """The failed layer and the reference's layers from there on. The failure belongs to the last difference that
    changes a shape, which is the failed layer's own if it has one.
    """
    shown = {other.name for _, other in reached.layer_pairs() if other is not None}
    failed, counterpart = aligned.failed_pair()
    number = max((i for i, difference in enumerate(differences) if difference.effect == "shape"), default=None)
    text = _failure_text(failed) if failed else "does not run"
    ours = None if failed is None else _row_layer(failed, None)
    for node in aligned.reference.nodes:
        row = _row(aligned, "?", (None, node), None)
        if node is counterpart:
            yield Row("!", text, row.reference, ours, row.reference_layer, number)
        elif node.name not in shown:
            yield row
    if counterpart is None:
        yield Row("!", text, "", ours, None, number)
    elif counterpart is aligned.reference.failed:
        yield Row("!", text, _failure_text(counterpart), ours, _row_layer(counterpart, None), number)


def _failure_text(node: Node) -> str:
    return f"{node.title} {node.op.name} does not run"


def _row(aligned: AlignedNetworks, sign: str, pair: LayerPair, number: int | None) -> Row:
    sides = tuple(zip((aligned.ours, aligned.reference), pair))
    texts = [_text(network, node) for network, node in sides]
    layers = [None if node is None else _row_layer(node, network) for network, node in sides]
    return Row(sign, texts[0], texts[1], layers[0], layers[1], number)


def _row_layer(node: Node, network: Network | None) -> RowLayer:
    """A layer's data; pass no network for a layer that does not run."""
    output, axis = (network.output_shape(node), network.batch_axis_of(node.name)) if network else (None, None)
    return RowLayer(node.name, node.label, node.op.name, node.op.family, output, node.inputs, axis)


def _text(network: Network, node: Node | None) -> str:
    if node is None:
        return ""
    return f"{node.title} {node.op.name} {sample_text(network.output_shape(node), network.batch_axis_of(node.name))}"
