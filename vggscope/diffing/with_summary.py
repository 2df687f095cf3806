"""Compare a network with the JSON of a summary, as far as that goes: its layers in order, with shapes and parameters.

A summary does not hold which layers a layer reads, the other arguments of a layer, or which weights are shared. So it
proves no equality: without a difference the verdict is `alike`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from typing import Any

from vggscope.analysis.cost import known_sum
from vggscope.analysis.summary import LayerSummary, summarize
from vggscope.diffing.result import Change, Diff, Difference, ParameterCounts, Row, RowLayer
from vggscope.diffing.wording import value_text
from vggscope.graph import Network
from vggscope.units import kernel_text, sample_text

COMPARED = ("op", "input_shape", "output_shape", "kernel_size", "stride", "padding", "params")
"""The fields of a layer that are compared."""

UNKNOWN = (
    "{} is a summary: it does not hold which layers a layer reads, arguments such as dilation and groups,"
    " or which weights are shared; vggscope lock MODEL -o arch.json writes a file that does"
)


def layers_of(values: Mapping[str, Any]) -> tuple[LayerSummary, ...]:
    """The layers of a summary's JSON. Raises ValueError, with the layer, for any other object."""
    rows = values.get("layers")
    if not isinstance(rows, list) or not rows:
        raise ValueError("it has no layers")
    return tuple(_layer(number, row) for number, row in enumerate(rows, 1))


def _layer(number: int, row: object) -> LayerSummary:
    if not isinstance(row, dict):
        raise ValueError(f"layer {number} is no object")  # noqa: TRY004
    texts = [row.get(name) for name in ("name", "label", "op")]
    sizes = [row.get(name) for name in COMPARED[1:6]]
    params = row.get("params")
    if not all(isinstance(text, str) for text in texts) or not (params is None or type(params) is int):
        raise ValueError(f"layer {number}: its name, label, op or params is missing")
    for name, size in zip(COMPARED[1:6], sizes):
        is_sizes = isinstance(size, list) and all(type(side) is int for side in size)
        if not is_sizes and (size is not None or name.endswith("_shape")):
            raise ValueError(f"layer {number}: {name} is no list of numbers")
    shapes = [None if size is None else tuple(size) for size in sizes if size is None or isinstance(size, list)]
    known: dict[str, Any] = dict(zip(("name", "label", "op", *COMPARED[1:6]), [*texts, *shapes]))
    return LayerSummary(
        **known, rule=None, params=params, macs=None, flops=None, activation_bytes=0, receptive_field=None, dtype=""
    )


def compare_with_summary(ours: Network, name: str, layers: Sequence[LayerSummary], notes: tuple[str, ...] = ()) -> Diff:
    """How a network differs from the layers of the summary in the file `name`."""
    mine = summarize(ours).layers
    differences: list[Difference] = []
    rows: list[Row] = []
    for one, other in _pairs(mine, layers):
        difference = _difference(one, other)
        place = None
        if difference is not None:
            place = len(differences)
            differences.append(difference)
        rows.append(_row(one, other, difference, place))
    effects = ["shape", "function", "training_only", "none"]
    order = sorted(range(len(differences)), key=lambda i: effects.index(differences[i].effect))
    places: dict[int | None, int] = {before: after for after, before in enumerate(order)}
    changes = any(difference.changes_output for difference in differences)
    our_count, their_count = (known_sum(layer.params for layer in side) for side in (mine, layers))
    known = (sum(layer.params or 0 for layer in side) for side in (mine, layers))
    return Diff(
        schema="vggscope/diff@1",
        model=ours.name,
        reference=name,
        verdict="different" if changes else "alike",
        differences=tuple(differences[i] for i in order),
        params=ParameterCounts(our_count, their_count, *known),
        numeric=None,
        notes=(UNKNOWN.format(name), *notes),
        rows=tuple(
            Row(r.sign, r.ours, r.reference, r.our_layer, r.reference_layer, places.get(r.difference)) for r in rows
        ),
    )


def _key(layer: LayerSummary) -> tuple[object, ...]:
    return tuple(getattr(layer, name) for name in COMPARED)


def _pairs(
    ours: Sequence[LayerSummary], reference: Sequence[LayerSummary]
) -> Iterator[tuple[LayerSummary | None, LayerSummary | None]]:
    """The layers side by side: first by their ops, equal layers in the same order."""
    exact = SequenceMatcher(None, [*map(_key, ours)], [*map(_key, reference)], autojunk=False)
    for tag, start, end, first, last in exact.get_opcodes():
        mine, theirs = ours[start:end], reference[first:last]
        if tag == "equal":
            yield from zip(mine, theirs)
            continue
        inner = SequenceMatcher(None, [layer.op for layer in mine], [layer.op for layer in theirs], autojunk=False)
        for kind, i, j, k, m in inner.get_opcodes():
            if kind == "equal":
                yield from zip(mine[i:j], theirs[k:m])
            else:
                yield from ((layer, None) for layer in mine[i:j])
                yield from ((None, layer) for layer in theirs[k:m])


def _difference(mine: LayerSummary | None, other: LayerSummary | None) -> Difference | None:
    if mine is None or other is None:
        layer = mine or other
        assert layer is not None
        kind, what = ("missing", "is missing") if mine is None else ("inserted", "is inserted, the reference has none")
        effect = "function" if layer.input_shape == layer.output_shape else "shape"
        text = f"{_title(layer)}: {layer.op} {what}"
        names = mine.name if mine else None, other.name if other else None
        return Difference(kind, *names, effect, text, layer.label, params=_added_params(mine, other))
    changes = tuple(
        Change(name, a, b) for name in COMPARED if (a := getattr(mine, name)) != (b := getattr(other, name))
    )
    if changes:
        effect = "function" if mine.output_shape == other.output_shape else "shape"
        texts = (f"{c.attribute} {_text(c.ours)}, the reference has {_text(c.reference)}" for c in changes)
        label = other.label or mine.label
        return Difference(
            *("changed", mine.name, other.name, effect, f"{_title(mine)}: {'; '.join(texts)}", label, changes),
            params=_added_params(mine, other),
        )
    if mine.name != other.name:
        return Difference(
            "renamed",
            mine.name,
            other.name,
            "none",
            f"{_title(mine)}: called {other.name} in the reference",
            mine.label,
        )
    return None


def _added_params(mine: LayerSummary | None, other: LayerSummary | None) -> int | None:
    """How many parameters our layer has more than the reference's; None if one is not known."""
    ours, reference = (layer.params if layer is not None else 0 for layer in (mine, other))
    return None if ours is None or reference is None else ours - reference


def _title(layer: LayerSummary) -> str:
    return f"{layer.name} ({layer.label})" if layer.label not in ("", layer.name) else layer.name


def _text(value: object) -> str:
    return kernel_text(value) if isinstance(value, tuple) and len(value) != 2 else value_text(value)


def _row(
    mine: LayerSummary | None, other: LayerSummary | None, difference: Difference | None, place: int | None
) -> Row:
    signs = {"inserted": "+", "missing": "-", "changed": "~"}
    sign = signs.get(difference.kind, "=") if difference is not None else "="
    return Row(sign, _side(mine), _side(other), _row_layer(mine), _row_layer(other), place)


def _side(layer: LayerSummary | None) -> str:
    return "" if layer is None else f"{_title(layer)} {layer.op} {sample_text(layer.output_shape, 0)}"


def _row_layer(layer: LayerSummary | None) -> RowLayer | None:
    return None if layer is None else RowLayer(layer.name, layer.label, layer.op, "", layer.output_shape, ())
