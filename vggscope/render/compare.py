"""A comparison laid out: a row for each model, and with the paper's figures its Tables 1 and 2 below."""

from __future__ import annotations

from vggscope.analysis.compare import Compared, Comparison, LastConvolution
from vggscope.document import Block, Column, Document, Facts, Note, Table
from vggscope.ops.base import Shape
from vggscope.tutorials.paper import tables
from vggscope.units import BINARY, UNKNOWN, bytes_text, count_text, kernel_text, shape_text, short_count


def _output_text(shape: Shape | None) -> str:
    return UNKNOWN if shape is None else shape_text(shape)


CONFIGS = (
    Column("model", "model"),
    Column("input_shape", "input", shape_text, right=True, priority=20),
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
"""Columns that are shown only where they tell the models apart, or say what `depth` does not."""


def document(comparison: Comparison) -> Document:
    """The table, what its columns mean, and the warnings."""
    models = comparison.models
    table = Table(CONFIGS, tuple(_row(found) for found in models))
    shown = table.choose(
        tuple(column.key for column in CONFIGS if column.key not in RARE or _tells(column.key, models))
    )
    blocks: list[Block] = [shown, Facts(tuple(_legend(comparison)))]
    if comparison.paper:
        blocks += tables(comparison.paper)
    blocks += [Note(f"note: {found.model}: {warning}", "warning") for found in models for warning in found.warnings]
    return Document(f"{_count(len(models))}   {_inputs(comparison)}, {comparison.dtype}", tuple(blocks))


def line(comparison: Comparison) -> str:
    """The models."""
    return f"{', '.join(found.model for found in comparison.models)} at {_inputs(comparison).removeprefix('input ')}"


def _row(found: Compared) -> tuple[object, ...]:
    field = found.last_convolution.receptive_field if found.last_convolution else None
    values = {"receptive_field": field.size if field else None}
    return tuple(values[c.key] if c.key in values else getattr(found, c.key) for c in CONFIGS)


def _tells(key: str, models: tuple[Compared, ...]) -> bool:
    if key == "input_shape":
        return len({found.input_shape for found in models}) > 1
    return any(found.weight_layers != found.depth for found in models)


def _count(models: int) -> str:
    return "1 model" if models == 1 else f"{models} models"


def _inputs(comparison: Comparison) -> str:
    sizes = {found.input_shape[1:] for found in comparison.models}
    text = f"input {shape_text(comparison.models[0].input_shape)}" if len(sizes) == 1 else "each at its own input"
    return f"{text}, batch {count_text(comparison.batch)}"


def _legend(comparison: Comparison) -> list[tuple[str, str]]:
    layers = dict.fromkeys(map(_where, (found.last_convolution for found in comparison.models)))
    where = ", ".join(filter(None, layers))
    return [
        ("MACs", "multiply-accumulates, bias left out; FLOPs = 2 x MACs"),
        ("activations", "each output once; 0 where it shares its input's memory"),
        ("inference, training", "the most memory at once; training is with SGD and momentum"),
        ("depth", "layers with weights on the longest way through"),
        ("field", f"receptive field at the last convolution{f' ({where})' if where else ''}"),
        ("units", BINARY),
    ]


def _where(last: LastConvolution | None) -> str:
    return (last.label or last.layer) if last else ""
