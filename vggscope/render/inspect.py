"""The Document of a checkpoint: which network it is, its problems, its layers, and how to load it."""

from __future__ import annotations

from collections import Counter

from vggscope.checkpoint.inspection import Inspection
from vggscope.document import Block, Column, Document, Facts, Item, Items, Lines, Note, Table
from vggscope.units import count_text

_OPS_SHOWN = 4
"""How many kinds of layers the line on an unknown network names."""


def document(inspection: Inspection) -> Document:
    """The verdict first, then the problems, the layers and the code that loads the file."""
    blocks: list[Block] = [Note(_verdict(inspection), "verdict"), Facts(tuple(_facts(inspection)))]
    if inspection.problems:
        blocks.append(Items(tuple(Item("!", problem) for problem in inspection.problems)))
    blocks += [_layers(inspection), *([_modules(inspection)] if inspection.modules else [])]
    blocks += [Note(f"note: {note}", "warning") for note in inspection.notes]
    if inspection.load:
        blocks.append(Lines(("to load it:", *(f"    {line}" for line in inspection.load.splitlines())), "python"))
    return Document(inspection.path, tuple(blocks))


def line(inspection: Inspection) -> str:
    """The network that the file belongs to, its parameters and the number of problems."""
    count = len(inspection.problems)
    problems = f", {count} problem{'' if count == 1 else 's'}" if count else ""
    return f"{inspection.path}: {_verdict(inspection)}, {count_text(inspection.params)} parameters{problems}"


def _verdict(inspection: Inspection) -> str:
    if inspection.shard:
        shard = inspection.shard
        return f"shard {shard.number} of {shard.count} of {_network(inspection)}"
    return _network(inspection)


def _network(inspection: Inspection) -> str:
    if inspection.library_model is not None:
        return _library_model(inspection)
    if inspection.column is None:
        return "a VGG of its own" if inspection.notation else _unknown_network(inspection)
    norm = " with batch normalisation" if inspection.batch_norm else ""
    exactly = "nearest to column" if inspection.problems else "column"
    return f"{exactly} {inspection.column}{norm}"


def _library_model(inspection: Inspection) -> str:
    if inspection.library_match == "nearest":
        return f"nearest to {inspection.library_model}"
    classes = inspection.num_classes
    if inspection.library_match == "exact" or classes is None:
        return str(inspection.library_model)
    head = f"with {count_text(classes)} class{'' if classes == 1 else 'es'}" if classes else "without a head"
    return f"{inspection.library_model} {head}"


def _unknown_network(inspection: Inspection) -> str:
    """What the layers are most likely: those with an op, the most frequent first.

    A file of another network than a VGG shows no more of it.
    """
    ops = Counter(layer.op for layer in inspection.layers if layer.op)
    layers = ", ".join(f"{count_text(count)} {op}" for op, count in ops.most_common(_OPS_SHOWN))
    return f"unknown network: {layers}" if layers else "unknown network"


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    facts = [
        ("file", _file(inspection)),
        ("parameters", count_text(inspection.params) + f"  ({', '.join(inspection.dtypes) or 'none'})"),
        ("keys", inspection.key_style),
    ]
    if inspection.num_classes is not None:
        facts.append(("classes", count_text(inspection.num_classes)))
    if inspection.input_channels is not None:
        facts.append(("input channels", count_text(inspection.input_channels)))
    if inspection.architecture is not None:
        facts.append(("config.json", inspection.architecture))
    if inspection.notation is not None:
        facts.append(("notation", inspection.notation))
    if inspection.named_weights is not None:
        facts.append(("weights", f"{inspection.named_weights.title}, by the file's name, not checked"))
        facts.append(("image", inspection.named_weights.preprocessing))
    return facts


def _file(inspection: Inspection) -> str:
    count = len(inspection.shards)
    shards = f", weights in {count} files" if inspection.format == "ONNX" else f" in {count} shards"
    shards = shards if count else ""
    return inspection.format + shards + (f", below {'.'.join(inspection.wrapper)}" if inspection.wrapper else "")


def _modules(inspection: Inspection) -> Table:
    columns = (
        Column("path", "module"),
        Column("kind", "class", lambda kind: kind.removeprefix("torch.nn.modules.")),
        Column("settings", "settings", wrap=True),
    )
    return Table(columns, tuple((m.path or "(root)", m.kind, m.settings_text) for m in inspection.modules))


def _layers(inspection: Inspection) -> Table:
    columns = (
        Column("name", "layer"),
        Column("label", "label", priority=2),
        Column("op", "op", lambda op: op or "", priority=1),
        Column("shape", "weight", lambda shape: "x".join(map(str, shape)), right=True),
        Column("params", "params", count_text, right=True),
        Column("dtype", "dtype", priority=3),
    )
    rows = tuple((s.name, s.label, s.op or "", s.shape, s.params, s.tensors[0].dtype) for s in inspection.layers)
    return Table(columns, rows)
