"""The Document of a comparison: a row for each model, and on request the paper's Tables 1 and 2."""

from __future__ import annotations

from vggscope.analysis.compare import Compared, Comparison
from vggscope.analysis.tensors import sizes_text
from vggscope.document import Block, Column, Document, Facts, Note, Table
from vggscope.tutorials.paper import tables
from vggscope.units import BINARY, UNKNOWN, BatchShape, bytes_text, count_text, kernel_text, short_count


def _output_text(shape: BatchShape | None) -> str:
    return UNKNOWN if shape is None else shape.text()


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
    Column("receptive_field", "field", lambda size: kernel_text(size) if size else UNKNOWN, right=True, priority=4),
    Column("output_shape", "output", _output_text, right=True, priority=6),
)

RARE = {"input_shape", "weight_layers"}
"""Columns that are shown only if the models differ in them, or if `weight_layers` differs from `depth`."""


def document(comparison: Comparison) -> Document:
    """The table, the meaning of its columns, the paper's tables, and the warnings."""
    models = comparison.models
    table = Table(COLUMNS, tuple(_row(model) for model in models))
    keys = tuple(column.key for column in COLUMNS if column.key not in RARE or _informative(column.key, models))
    blocks: list[Block] = [table.choose(keys), Facts(tuple(_legend(comparison)))]
    if comparison.paper:
        blocks += tables(comparison.paper)
    blocks += [Note(f"note: {model.model}: {warning}", "warning") for model in models for warning in model.warnings]
    count = "1 model" if len(models) == 1 else f"{len(models)} models"
    return Document(f"{count}   {_inputs(comparison)}, {comparison.dtype}", tuple(blocks))


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
    return model.field_size if key == "receptive_field" else getattr(model, key)


def _informative(key: str, models: tuple[Compared, ...]) -> bool:
    if key == "input_shape":
        return len({model.inputs for model in models}) > 1
    return any(model.weight_layers != model.depth for model in models)


def _inputs(comparison: Comparison) -> str:
    inputs = {model.inputs for model in comparison.models}
    is_same = len(inputs) == 1
    text = f"input {sizes_text(inputs.pop(), comparison.dtype)}" if is_same else "each at its own input"
    return f"{text}, batch {count_text(comparison.batch)}"


def _legend(comparison: Comparison) -> list[tuple[str, str]]:
    layers = [model.last_convolution for model in comparison.models if model.last_convolution]
    titles = ", ".join(filter(None, dict.fromkeys(layer.label or layer.layer for layer in layers)))
    return [
        ("MACs", "multiply-accumulates, bias left out; FLOPs = 2 x MACs"),
        ("activations", "each output once; 0 where it shares its input's memory"),
        ("inference, training", "the most memory at once; training is with SGD and momentum"),
        ("depth", "layers with weights on the longest way through"),
        ("field", f"receptive field at the last convolution{f' ({titles})' if titles else ''}"),
        ("units", BINARY),
    ]
