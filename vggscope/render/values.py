"""The Document of two checkpoints compared by their values."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.diffing.values import RELATIONS, TensorDifference, ValueDiff
from vggscope.document import Block, Column, Document, Facts, Item, Items, Note, Table
from vggscope.units import UNKNOWN, count_text, kernel_text

_DATA = (
    *("name", "reference", "label", "shape", "reference_shape", "dtype", "reference_dtype"),
    *("relation", "steps", "max_abs", "relative_norm", "cosine", "reason", "factor", "factor_max_abs"),
)

_MOST_LAYERS = 12
"""Layers that a sentence names."""

_QUIET = ("equal", "untouched")


def document(diff: ValueDiff) -> Document:
    """The verdict, the layers that changed and those that did not, the counts, and a row for each tensor."""
    blocks: list[Block] = [Note(f"{diff.verdict}: {_verdict(diff)}", "verdict")]
    items = tuple(_items(diff))
    if items:
        blocks.append(Items(items))
    blocks.append(Facts(tuple(_facts(diff))))
    blocks.append(_table(diff))
    blocks += [Note(f"note: {note}", "warning") for note in diff.notes]
    rows = tuple(tuple(_csv(getattr(tensor, key)) for key in _DATA) for tensor in diff.tensors)
    blocks.append(Table(tuple(Column(key, key) for key in _DATA), rows, data=True))
    return Document(f"{diff.model} against {diff.reference}", tuple(blocks))


def line(diff: ValueDiff) -> str:
    """The verdict, and how many tensors have which relation."""
    return f"{diff.model} against {diff.reference}: {diff.verdict}, {_verdict(diff)}"


def _csv(value: object) -> object:
    return " ".join(value) if isinstance(value, tuple) and value and isinstance(value[0], str) else value


def _verdict(diff: ValueDiff) -> str:
    counts = (f"{count.tensors} {_WORDS.get(count.relation, count.relation)}" for count in diff.counts)
    total = len(diff.tensors)
    return f"{total} tensor{'' if total == 1 else 's'}, {', '.join(counts)}"


_WORDS = {
    "flatten_order": "in another flatten's order",
    "bgr": "BGR for RGB",
    "shape": "of another shape",
    "unread": "not compared",
}


def _items(diff: ValueDiff) -> Iterator[Item]:
    if diff.trained:
        yield Item("~", f"changed: {_listed(diff.trained)}")
    if diff.untouched:
        yield Item("=", f"untouched: {_listed(diff.untouched)}", quiet=True)
    yield from _scaled_items(diff)
    for tensor in diff.tensors:
        if tensor.relation not in ("equal", "untouched", "scaled", "trained", "cast", "missing", "extra"):
            yield Item(_SIGNS.get(tensor.relation, "~"), _sentence(tensor))
    for sign, relation, side in (("-", "missing", "reference"), ("+", "extra", "name")):
        names = tuple(getattr(tensor, side) for tensor in diff.tensors if tensor.relation == relation)
        if names:
            yield Item(sign, f"{relation}, {RELATIONS[relation]}: {_listed(names)}")


def _scaled_items(diff: ValueDiff) -> Iterator[Item]:
    """The scaled tensors, those of the same factor and steps as one item."""
    groups: dict[str, list[TensorDifference]] = {}
    for tensor in diff.tensors:
        if tensor.factor is not None:
            also = f"; also {', '.join(tensor.steps)}" if tensor.steps else ""
            groups.setdefault(f"scaled by {tensor.factor:.6g}{also}", []).append(tensor)
    for text, tensors in groups.items():
        left = _figure(max(tensor.factor_max_abs or 0.0 for tensor in tensors))
        yield Item("~", f"{text} (largest difference {left}): {_listed(tuple(map(_title, tensors)))}")


_SIGNS = {"transposed": "=", "reshaped": "=", "unread": "?"}


def _sentence(tensor: TensorDifference) -> str:
    """The relation of a tensor to its counterpart."""
    title = _title(tensor)
    if tensor.relation == "shape":
        return f"{title}: {_sides(tensor.shape)}, the reference has {_sides(tensor.reference_shape)}"
    if tensor.relation == "unread":
        return f"{title}: not compared, {tensor.reason}"
    further = [step for step in tensor.steps if step != tensor.relation]
    also = f"; also {', '.join(further)}" if further else ""
    return f"{title}: {RELATIONS[tensor.relation]}{also}"


def _title(tensor: TensorDifference) -> str:
    return f"{tensor.label} ({tensor.name})" if tensor.label else str(tensor.name)


def _sides(shape: tuple[int, ...] | None) -> str:
    return kernel_text(shape) or "a number" if shape is not None else ""


def _listed(names: tuple[str, ...]) -> str:
    """Names, those in the middle left out where they are many."""
    if len(names) <= _MOST_LAYERS:
        return ", ".join(names)
    return f"{', '.join(names[: _MOST_LAYERS - 2])}, ... {names[-1]} ({len(names)} in all)"


def _facts(diff: ValueDiff) -> Iterator[tuple[str, str]]:
    for count in diff.counts:
        yield count.relation, f"{count_text(count.elements)} values  ({RELATIONS[count.relation]})"
    yield "paired by", {"order": "order and shape", "prefix": "keys after a prefix"}.get(diff.paired_by, diff.paired_by)


def _table(diff: ValueDiff) -> Table:
    has_other_keys = any(
        tensor.name and tensor.reference and tensor.name != tensor.reference for tensor in diff.tensors
    )
    columns = (
        Column("name", "tensor"),
        *([Column("reference", "reference", priority=3)] if has_other_keys else []),
        Column("label", "label", priority=2),
        Column("shape", "shape", _sides, right=True, priority=1),
        Column("relation", "relation"),
        Column("max_abs", "max abs", _figure, right=True),
        Column("relative_norm", "relative", _figure, right=True),
        Column("cosine", "cosine", _cosine, right=True, priority=1),
    )
    rows = tuple(_row(tensor, has_other_keys) for tensor in diff.tensors)
    quiet = frozenset(place for place, tensor in enumerate(diff.tensors) if tensor.relation in _QUIET)
    return Table(columns, rows, quiet)


def _row(tensor: TensorDifference, has_other_keys: bool) -> tuple[object, ...]:
    """The figures of a tensor that was compared; empty ones for any other."""
    is_apart = tensor.relation in ("trained", "scaled")
    is_near = is_apart or tensor.relation == "cast" or "cast" in tensor.steps
    shape = tensor.shape if tensor.shape is not None else tensor.reference_shape
    relation = ", ".join(dict.fromkeys((tensor.relation, *tensor.steps)))
    return (
        tensor.name or tensor.reference,
        *([tensor.reference or ""] if has_other_keys else []),
        tensor.label,
        shape,
        relation,
        tensor.max_abs if is_near else "",
        tensor.relative_norm if is_near else "",
        tensor.cosine if is_apart else "",
    )


def _figure(value: object) -> str:
    """Three digits of a number; a question mark for an unknown one."""
    return f"{value:.3g}" if isinstance(value, (int, float)) else UNKNOWN if value is None else ""


def _cosine(value: object) -> str:
    return f"{value:.4f}" if isinstance(value, float) else UNKNOWN if value is None else ""
