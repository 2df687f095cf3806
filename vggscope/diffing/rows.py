"""The two networks side by side: a row for each layer of either, with its sign and the difference it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from vggscope.diffing.locate import Aligned, LayerPair, failed_pair
from vggscope.diffing.result import Difference, Row, RowLayer
from vggscope.graph import Network, Node
from vggscope.units import shape_text


def rows(aligned: Aligned, edits: Sequence[tuple[LayerPair, ...]], differences: Sequence[Difference]) -> Iterator[Row]:
    """In order of execution: `=` alike, `~` changed, `+` only ours, `-` only the reference's, `!` where ours fails,
    `?` what it did not reach. `edits` are the layers that each of the differences is about.
    """
    places = {_names(edit): place for place, found in enumerate(edits) for edit in found}
    reached = list(aligned.reached().nodes()) if aligned.ours.failure is not None else list(aligned.nodes())
    for edit in reached:
        place = places.get(_names(edit))
        sign = _sign(edit, None if place is None else differences[place])
        yield _row(aligned, sign, edit, place)
    if aligned.ours.failure is not None:
        yield from _beyond(aligned, reached, differences)


def _sign(edit: LayerPair, difference: Difference | None) -> str:
    mine, other = edit
    if mine is None or other is None:
        return "+" if other is None else "-"
    # What was changed and is no difference was asked to be ignored.
    return "~" if difference is not None and difference.kind == "changed" and difference.effect != "none" else "="


def _beyond(aligned: Aligned, reached: Sequence[LayerPair], differences: Sequence[Difference]) -> Iterator[Row]:
    """The layer that failed, and what the reference has from there on. It failed for the last difference that changes
    a shape: its own, if it has one.
    """
    known = {other.name for _, other in reached if other is not None}
    failed, counterpart = failed_pair(aligned)
    place = max((i for i, difference in enumerate(differences) if difference.effect == "shape"), default=None)
    title = _fails(failed) if failed else "does not run"
    ours = None if failed is None else _layer(failed, None)
    for node in aligned.reference.nodes:
        row = _row(aligned, "?", (None, node), None)
        if node is counterpart:
            yield Row("!", title, row.reference, ours, row.reference_layer, place)
        elif node.name not in known:
            yield row
    if counterpart is None:
        yield Row("!", title, "", ours, None, place)
    elif counterpart is aligned.reference.failed:
        yield Row("!", title, _fails(counterpart), ours, _layer(counterpart, None), place)


def _fails(node: Node) -> str:
    return f"{node.title} {node.op.name} does not run"


def _names(edit: LayerPair) -> tuple[str | None, str | None]:
    mine, other = edit
    return mine.name if mine else None, other.name if other else None


def _row(aligned: Aligned, sign: str, edit: LayerPair, place: int | None) -> Row:
    sides = tuple(zip((aligned.ours, aligned.reference), edit))
    texts = [_text(network, node) for network, node in sides]
    layers = [None if node is None else _layer(node, network) for network, node in sides]
    return Row(sign, texts[0], texts[1], layers[0], layers[1], place)


def _layer(node: Node, network: Network | None) -> RowLayer:
    """What is said of a layer; without a network it does not run."""
    output = network.output_shape(node) if network else None
    return RowLayer(node.name, node.label, node.op.name, node.op.family, output, node.inputs)


def _text(network: Network, node: Node | None) -> str:
    return "" if node is None else f"{node.title} {node.op.name} {shape_text(network.output_shape(node))}"
