"""The Document of a memory report: whether it fits, the parts of the peak, the layers that hold most."""

from __future__ import annotations

from vggscope.analysis.memory.fit import Fit
from vggscope.analysis.memory.report import MemoryReport
from vggscope.analysis.memory.step_config import AMP
from vggscope.analysis.tensors import sizes_text
from vggscope.document import Block, Column, Document, Facts, Item, Items, Note, Table, data_table
from vggscope.units import BINARY, bytes_text, count_text, percent_text

PARTS = {
    "parameters": "weights",
    "buffers": "buffers of batch norms and the like",
    "gradients": "gradients of the weights",
    "optimizer": "the optimizer's states",
    "activations": "activations, kept for the backward pass or in use",
    "temporary": "temporaries: gradients of activations, an op's working memory",
    "input": "the input batch, and its labels",
}
"""The parts that add up to the peak, with their descriptions."""

MOST_LAYERS = 8
"""How many layers are shown."""


def document(report: MemoryReport) -> Document:
    """The peak, whether it fits the GPU, its parts, the layers, and the assumptions."""
    blocks: list[Block] = [Note(_headline(report), "verdict")]
    if report.fit is not None:
        blocks.append(_fit(report.fit, report.batch))
    blocks += [_parts(report), _layers(report), _reserved(report)]
    blocks += [Note(f"counted: {assumption}") for assumption in report.assumptions]
    keys = ("event", "layer", "label", "bytes", *(f"{part}_bytes" for part in PARTS))
    blocks.append(data_table(keys, (tuple(getattr(entry, key) for key in keys) for entry in report.timeline)))
    optimizer = f", {report.optimizer}" if report.optimizer else ""
    gpus = f", {report.gpus} GPUs ({report.parallel})" if report.parallel else ""
    batch = f"batch {count_text(report.batch)} of {inputs_text(report)}"
    title = f"{report.model}   {report.mode}, {batch}, {report.dtype}{optimizer}{gpus}"
    return Document(title, tuple(blocks))


def inputs_text(report: MemoryReport) -> str:
    """The sizes of the inputs, without the batch."""
    return sizes_text(report.inputs, "float32" if report.dtype == AMP else report.dtype)


def line(report: MemoryReport) -> str:
    """The peak, and whether it fits the GPU."""
    fits = "" if report.fit is None else f", {'fits' if report.fit.fits else 'does not fit'} {report.fit.gpu}"
    return f"{report.model}: {report.mode}, batch {count_text(report.batch)}: {_headline(report)}{fits}"


def _headline(report: MemoryReport) -> str:
    return f"peak {bytes_text(report.peak_bytes)}, at the {report.peak_at}"


def _parts(report: MemoryReport) -> Table:
    columns = (
        Column("part", "at the peak"),
        Column("bytes", "memory", bytes_text, right=True),
        Column("share", "share", right=True, priority=1),
        Column("about", "", wrap=True, priority=2),
    )
    sizes = {part: getattr(report, f"{part}_bytes") for part in PARTS}
    rows = tuple((part, sizes[part], percent_text(sizes[part], report.peak_bytes), PARTS[part]) for part in PARTS)
    return Table(columns, rows, total=("peak", report.peak_bytes, "", ""))


def _layers(report: MemoryReport) -> Table:
    columns = (
        Column("layer", "layers that use most memory"),
        Column("label", "label", priority=1),
        Column("bytes", "memory", bytes_text, right=True),
    )
    return Table(columns, tuple((share.layer, share.label, share.bytes) for share in report.layers[:MOST_LAYERS]))


def _reserved(report: MemoryReport) -> Facts:
    return Facts(
        (
            ("allocated", f"{bytes_text(report.allocated_bytes)} in the caching allocator's rounded blocks"),
            ("reserved", f"{bytes_text(report.reserved_bytes)} of segments that it takes of the card (replayed)"),
            ("units", BINARY),
        )
    )


def _fit(fit: Fit, batch: int) -> Items:
    """Whether the batch fits the GPU. If not, how much is missing and what would help."""
    aside = fit.context_bytes + fit.workspace_bytes
    room = f"{fit.gpu} ({bytes_text(fit.capacity_bytes)}{f', {bytes_text(aside)} set aside' if aside else ''})"
    if fit.max_batch:
        most = (
            f"the largest batch that fits is {count_text(fit.max_batch)},"
            f" {count_text(fit.max_batch_reserved)} with the caching allocator's segments"
        )
    else:
        most = f"not even a batch of 1 fits: {bytes_text(fit.missing_for_one_bytes)} are missing"
    if fit.fits:
        return Items((Item("=", f"it fits {room}", (most,)),))
    help_ = tuple(
        f"{remedy.change}: {bytes_text(remedy.peak_bytes)}"
        + (f", largest batch {count_text(remedy.max_batch)}" if remedy.max_batch else "")
        for remedy in fit.remedies
    )
    head = "what would make it fit:" if any(r.max_batch >= batch for r in fit.remedies) else "what comes nearest:"
    text = f"batch {count_text(batch)} does not fit {room}: {bytes_text(fit.missing_bytes)} are missing"
    return Items((Item("!", text, (most, *((head, *help_) if help_ else ()))),))
