"""The Document of a comparison: a row for each model, and on request the paper's Tables 1 and 2."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence

from vggscope.analysis.compare import Compared, Comparison, Uncompared
from vggscope.analysis.receptive_field.last_map import NO_MAP
from vggscope.analysis.tensors import sizes_text
from vggscope.document import Block, Column, Document, Facts, Note, Table, keys_of
from vggscope.plain_data import plain_value
from vggscope.units import BINARY, UNKNOWN, BatchShape, bytes_text, count_text, kernel_text, short_count, whole_text


def _output_text(shape: BatchShape | None) -> str:
    return UNKNOWN if shape is None else shape.text()


def _field_text(field: tuple[int, ...] | str | None) -> str:
    return UNKNOWN if field is None else field if isinstance(field, str) else kernel_text(field)


COLUMNS = (
    Column("model", "model"),
    Column("input_shape", "input", BatchShape.text, right=True, priority=20),
    Column("params", "params", short_count, right=True),
    Column("macs", "MACs", short_count, right=True),
    Column("activation_bytes", "activations", bytes_text, right=True, priority=5),
    Column("inference_peak_bytes", "inference", bytes_text, right=True, priority=2),
    Column("training_peak_bytes", "training", bytes_text, right=True, priority=1),
    Column("depth", "depth", count_text, right=True, priority=3),
    Column("weight_layers", "weight layers", count_text, right=True, priority=20),
    Column("receptive_field", "field", _field_text, right=True, priority=4),
    Column("output_shape", "output", _output_text, right=True, priority=6),
)

RARE = {"input_shape", "weight_layers"}
"""Columns that are shown only if the models differ in them, or if `weight_layers` differs from `depth`."""


ALIASES = {
    **{column.title.lower(): column.key for column in COLUMNS},
    **{"name": "model", "memory": "training_peak_bytes", "rf": "receptive_field", "layers": "weight_layers"},
}
"""Other names of the columns, for `sort` and `columns`."""

PEAKS = ("inference_peak_bytes", "training_peak_bytes")

MOST_NAMES = 3
"""How many models or layers a sentence names."""


def column_keys(names: Iterable[str]) -> tuple[str, ...]:
    """The keys of columns that are named by keys, headings or ALIASES. Raises OptionError for an unknown one."""
    return keys_of(COLUMNS, names, ALIASES, ("model", "params", "macs"))


def document(comparison: Comparison, columns: tuple[str, ...] | None = None) -> Document:
    """The table with these columns, their meaning, the paper's tables, the warnings, and the models without figures."""
    models = comparison.models
    failed = [Note(f"failed: {failure_text(failure)}", "warning") for failure in comparison.failures]
    if failed and not models:
        return Document(f"none of {len(failed):,} models can be compared", tuple(failed))
    table = Table(COLUMNS, tuple(_row(model) for model in models))
    usual = tuple(column.key for column in COLUMNS if column.key not in RARE or _informative(column.key, models))
    keys = columns or comparison.columns or usual
    legend = tuple(_legend(comparison, keys))
    blocks: list[Block] = [table.choose(keys), *([Facts(legend)] if legend else [])]
    if comparison.paper:
        from vggscope.tutorials.paper import tables

        blocks += tables(comparison.paper)
    blocks += [Note(f"note: {text}", "warning") for text in (*_warnings(models), *_without_field(models, keys))]
    blocks += failed
    if comparison.missing:
        blocks.append(Note(f"interrupted: {missing_text(comparison)}", "warning"))
    return Document(f"{models_text(comparison)}   {_inputs(comparison)}, {comparison.dtype}", tuple(blocks))


def failure_text(failure: Uncompared) -> str:
    """The model, why it has no figures, and what would work."""
    named = failure.failure if failure.failure.startswith(failure.model) else f"{failure.model}: {failure.failure}"
    return f"{named}{f' ({failure.remedy})' if failure.remedy else ''}"


def missing_text(comparison: Comparison) -> str:
    """How many models were not reached before an interruption."""
    missing = comparison.missing
    done = len(comparison.models) + comparison.left_out + len(comparison.failures)
    return f"{len(missing):,} of {done + len(missing):,} models are missing: {names_text(missing)}"


def models_text(comparison: Comparison, unshown: int = 0) -> str:
    """How many models are shown, of how many: `3 of 9 models`. `unshown` of those in the comparison are not."""
    shown, all_models = len(comparison.models) - unshown, len(comparison.models) + comparison.left_out
    count = f"{shown:,} of {all_models:,}" if shown < all_models else f"{shown:,}"
    return f"{count} model{'' if all_models == 1 else 's'}"


def names_text(names: Sequence[str]) -> str:
    """The first MOST_NAMES names, and how many more there are."""
    more = f" and {len(names) - MOST_NAMES:,} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def _warnings(models: Sequence[Compared]) -> Iterator[str]:
    """Each warning once, with its models."""
    return _by_text((warning, model.model) for model in models for warning in model.warnings)


def _without_field(models: Sequence[Compared], keys: Sequence[str]) -> Iterator[str]:
    """Why models that run have no field, if `keys` has its column."""
    unknown = [model for model in models if model.field_size is None and model.failure is None]
    reasons = ((model.last_map.note if model.last_map else NO_MAP, model.model) for model in unknown)
    return _by_text((f"field unknown: {why}", name) for why, name in reasons if "receptive_field" in keys)


def _by_text(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Each text once, after the models that it is about."""
    named: dict[str, list[str]] = {}
    for text, name in pairs:
        named.setdefault(text, []).append(name)
    for text, names in named.items():
        yield f"{names_text(names)}: {text}"


def json_line(row: Compared | Uncompared, batch: int) -> str:
    """The line of a model in JSON lines."""
    return json.dumps({"schema": "vggscope/compared@1", "batch": batch, **plain_value(row)}) + "\n"


def line(comparison: Comparison) -> str:
    """The models."""
    return f"{', '.join(model.model for model in comparison.models)} at {_inputs(comparison).removeprefix('input ')}"


def _row(model: Compared) -> tuple[object, ...]:
    return tuple(_value(model, column.key) for column in COLUMNS)


def _value(model: Compared, key: str) -> object:
    if key == "input_shape":
        return BatchShape(model.input_shape, model.inputs[0].batch_axis)
    if key == "output_shape":
        return None if model.output_shape is None else BatchShape(model.output_shape, model.batch_axis)
    if key == "receptive_field":
        return whole_text(len(model.field_size or ())) if model.sees_all else model.field_size
    return getattr(model, key)


def _informative(key: str, models: tuple[Compared, ...]) -> bool:
    if key == "input_shape":
        return len({model.inputs for model in models}) > 1
    return any(model.weight_layers != model.depth for model in models)


def _inputs(comparison: Comparison) -> str:
    inputs = {model.inputs for model in comparison.models}
    is_same = len(inputs) == 1
    text = f"input {sizes_text(inputs.pop(), comparison.dtype)}" if is_same else "each at its own input"
    return f"{text}, batch {count_text(comparison.batch)}"


def _legend(comparison: Comparison, keys: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What the columns mean."""
    meanings = (
        ("MACs", "multiply-accumulates, bias left out; FLOPs = 2 x MACs", ("macs",)),
        ("activations", "each output once; 0 where it shares its input's memory", ("activation_bytes",)),
        ("inference, training", "the most memory at once; training is with SGD and momentum", PEAKS),
        ("depth", "layers with weights on the longest way through", ("depth",)),
        ("field", "the largest receptive field on the last feature map", ("receptive_field",)),
        ("units", BINARY, ("activation_bytes", *PEAKS)),
    )
    for name, meaning, about in meanings:
        if {*about} & {*keys}:
            yield name, meaning
    if comparison.sort is not None:
        yield "sorted", order_text(comparison)


def order_text(comparison: Comparison) -> str:
    """The figure by which models are sorted, and how: `by MACs, descending`; empty in the order given."""
    title = next((column.title for column in COLUMNS if column.key == comparison.sort), None)
    return f"by {title}, {comparison.order}" if title else ""
