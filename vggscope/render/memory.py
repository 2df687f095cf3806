"""The Document of a memory report: whether it fits, the parts of the peak, the layers that hold most."""

from __future__ import annotations

from vggscope.analysis.memory.fit import MARGIN, Fit
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
    blocks: list[Block] = [] if report.fit is None else [_fit(report.fit, report.batch)]
    blocks.append(Note(_headline(report), "verdict"))
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
    words = {"fits": "fits", "tight": "is tight on", "no": "does not fit"}
    fits = "" if report.fit is None else f", {words[report.fit.verdict]} {report.fit.gpu}"
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
    card = "an unlimited card" if report.fit is None or report.fit.verdict == "no" else report.fit.gpu
    if report.fit is not None and report.fit.workspace_bytes and not _is_set_aside(report.fit):
        card += ", with cuDNN's workspaces"
    return Facts(
        (
            ("allocated", f"{bytes_text(report.allocated_bytes)} in the caching allocator's rounded blocks"),
            ("reserved", f"{bytes_text(report.reserved_bytes)} of segments that it takes of {card} (replayed)"),
            ("units", BINARY),
        )
    )


def _verdict(fit: Fit, batch: int) -> str:
    """The verdict in one sentence."""
    shown, usable = bytes_text(fit.nvidia_smi_bytes), bytes_text(fit.usable_bytes)
    here = f"{fit.tool} would show {shown} of {usable}"
    words = {
        "fits": f"batch {count_text(batch)} fits {fit.gpu}: {here}",
        "tight": f"batch {count_text(batch)} is tight on {fit.gpu}: {here}, and may take {MARGIN}% more",
        "no": f"batch {count_text(batch)} does not fit {fit.gpu}: {fit.tool} would show {shown}, the card has {usable}",
    }
    return words[fit.verdict]


def _fit(fit: Fit, batch: int) -> Items:
    """Whether the batch fits the GPU, the largest batches, and what the figure consists of. If not, what would help."""
    if fit.max_batch_tight:
        batches = {fit.max_batch_tight: "is tight", fit.max_batch_fits: "fits"}
        most = ", ".join(f"{count_text(size)} {word}" for size, word in sorted(batches.items()) if size)
        largest = f"the largest batches: {most}"
        if fit.max_batch > fit.max_batch_tight:
            largest += f"; above {count_text(fit.max_batch)} not even the tensors fit"
    else:
        largest = f"not even a batch of 1 fits: {bytes_text(fit.missing_for_one_bytes)} are missing"
    details = [largest, _consists_of(fit)]
    spare = fit.usable_bytes - fit.margin_bytes
    if fit.verdict == "fits" and fit.nvidia_smi_bytes > spare:
        details.append(f"freed segments stay until the card is full; the batch also fits {bytes_text(spare)}")
    if fit.remedies:
        helps = any(remedy.verdict != "no" for remedy in fit.remedies)
        details.append("what would make it fit:" if helps else "what comes nearest:")
        details += [f"{r.change}: {_VERDICTS[r.verdict]}, {bytes_text(r.nvidia_smi_bytes)}" for r in fit.remedies]
    return Items((Item("=" if fit.verdict == "fits" else "!", _verdict(fit, batch), tuple(details)),))


_VERDICTS = {"fits": "fits", "tight": "tight", "no": "does not fit"}


def _is_set_aside(fit: Fit) -> bool:
    """Whether the workspaces are an amount beside the segments, not replayed within them."""
    return fit.nvidia_smi_bytes > fit.reserved_bytes + fit.context_bytes


def _consists_of(fit: Fit) -> str:
    """What the figure of nvidia-smi consists of."""
    workspace = bytes_text(fit.workspace_bytes) if fit.workspace_bytes else ""
    parts = [f"{bytes_text(fit.reserved_bytes)} of segments"]
    if workspace and _is_set_aside(fit):
        parts.append(f"{workspace} for cuDNN")
    elif workspace:
        parts[0] += f" (up to {workspace} for cuDNN at once)"
    if fit.context_bytes:
        context = "CUDA context" if fit.tool == "nvidia-smi" else "context"
        parts.append(f"{bytes_text(fit.context_bytes)} of {context}")
    return f"of that {', '.join(parts)}"
