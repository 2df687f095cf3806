"""The result that `memory` shows: what a step takes, where its peak is and what is alive there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import groupby

from vggscope.analysis.memory.allocation_log import KINDS, Moment, Trace
from vggscope.analysis.memory.allocator import replay
from vggscope.analysis.memory.calls import head_parameters
from vggscope.analysis.memory.fit import Fit, GpuBudget, fit
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import AMP, CUDA, PARALLEL, StepConfig, optimizer_named
from vggscope.errors import OptionError
from vggscope.graph import Network
from vggscope.ops.constant import WithConstants
from vggscope.ops.recorded import Unknown
from vggscope.record import record
from vggscope.result import Result
from vggscope.units import count_text

LARGEST_BATCH = 10**9


@record
class TimelineEntry:
    """The height of one event of one layer: `bytes` in all, and its parts, which add up to it.

    `event` is start, forward, loss, recompute, backward or optimizer step; `layer` is empty where none runs, `label`
    where the literature has no name for it.
    """

    event: str
    layer: str
    label: str
    bytes: int
    parameters_bytes: int
    buffers_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    temporary_bytes: int
    input_bytes: int


@record
class LayerShare:
    """What is alive at the peak that belongs to a layer: its weights, what it keeps, what its event has made."""

    layer: str
    label: str
    bytes: int


@record
class MemoryReport(Result):
    """A step's memory on one GPU, in bytes. The seven parts are those at the peak and add up to `peak_bytes`.

    `optimizer` is None where none runs. `allocated_bytes` and `reserved_bytes` are what torch's caching allocator would
    show as max_memory_allocated and max_memory_reserved: tensors in rounded blocks, and the segments that it takes of
    the card. `layers` has the most first. `max_batch` and `fit` are None where no GPU was named.
    """

    schema: str
    model: str
    mode: str
    batch: int
    dtype: str
    optimizer: str | None
    input_shape: tuple[int, ...]
    gpus: int
    parallel: str | None
    peak_bytes: int
    peak_at: str
    parameters_bytes: int
    buffers_bytes: int
    gradients_bytes: int
    optimizer_bytes: int
    activations_bytes: int
    temporary_bytes: int
    input_bytes: int
    allocated_bytes: int
    reserved_bytes: int
    layers: tuple[LayerShare, ...]
    timeline: tuple[TimelineEntry, ...]
    assumptions: tuple[str, ...]
    max_batch: int | None = None
    fit: Fit | None = None


def memory(
    network: Network, batch: int = 1, setup: StepConfig | None = None, room: GpuBudget | None = None
) -> MemoryReport:
    """What a step takes, and, with a `room`, whether it fits a card.

    Raises OptionError for a batch that makes no sense, ShapeError where nothing is known of more than one sample.

    >>> from vggscope.sources.resolve import resolve
    >>> report = memory(resolve("A"), batch=64)
    >>> report.peak_bytes, report.peak_at
    (4749085928, 'backward of features.14 (relu4_2)')
    """
    setup = setup or StepConfig()
    if not 1 <= batch <= LARGEST_BATCH:
        raise OptionError(f"a batch of {batch} makes no sense", f"--batch is 1 to {LARGEST_BATCH}")
    samples = setup.samples(batch)
    network.require_batch(samples)
    network = network.for_batch(samples)
    book = simulate_step(network, setup)
    peak = book.peak(samples)
    reserve = replay(book, samples)
    found = fit(network, setup, batch, room, book) if room else None
    return MemoryReport(
        schema="vggscope/memory@1",
        model=network.name,
        mode=setup.mode,
        batch=batch,
        dtype=setup.dtype,
        optimizer=setup.optimizer if setup.trains else None,
        input_shape=(batch, *network.input_shape[1:]),
        gpus=setup.gpus,
        parallel=setup.shards.parallel.name if setup.shards.parallel else None,
        peak_bytes=peak.total.at(samples),
        peak_at=_place(network, peak),
        **_parts(peak, samples),
        allocated_bytes=reserve.allocated_bytes,
        reserved_bytes=reserve.reserved_bytes,
        layers=_layers(network, book, peak, samples),
        timeline=tuple(timeline(book, samples, _labels(network))),
        assumptions=tuple(assumptions(network, setup, batch)),
        max_batch=found.max_batch if found else None,
        fit=found,
    )


def _parts(moment: Moment, samples: int) -> dict[str, int]:
    return {f"{kind}_bytes": line.at(samples) for kind, line in zip(KINDS, moment.alive)}


def _place(network: Network, moment: Moment) -> str:
    titles = {node.name: node.title for node in network.nodes}
    return f"{moment.event} of {titles.get(moment.layer, moment.layer)}" if moment.layer else moment.event


def _layers(network: Network, book: Trace, peak: Moment, samples: int) -> tuple[LayerShare, ...]:
    labels = _labels(network)
    held = book.holders(peak, samples)
    return tuple(LayerShare(layer, labels.get(layer, ""), size) for layer, size in held.items())


def _labels(network: Network) -> dict[str, str]:
    return {node.name: node.label for node in network.nodes}


def timeline(book: Trace, samples: int, labels: Mapping[str, str]) -> Iterator[TimelineEntry]:
    """Each event of each layer at its height, in order of time; `labels` are the layers'."""
    for (event, layer), moments in groupby(book.moments, key=lambda moment: (moment.event, moment.layer)):
        height = max(moments, key=lambda moment: moment.total.at(samples))
        yield TimelineEntry(event, layer, labels.get(layer, ""), height.total.at(samples), **_parts(height, samples))


def assumptions(network: Network, setup: StepConfig, batch: int) -> Iterator[str]:
    """What the figures rest on, a sentence each."""
    yield "tensors exactly, without the CUDA context, cuDNN's workspace and the caching allocator's rounding"
    if not setup.trains:
        yield "one forward pass at evaluation under torch.no_grad(); the input batch counts"
    else:
        yield from _of_training(network, setup)
    yield from _of_sharing(setup, batch)
    if setup.runtime == CUDA.name:
        yield "CUDA's tensors: dropout masks of one byte a value, step counters on the CPU; not measured on a GPU"
    else:
        yield "torch's CPU path under the memory tracker: dropout masks as wide as the values"
    ops = [node.op.op if isinstance(node.op, WithConstants) else node.op for node in network.nodes]
    if unknown := sorted({op.name for op in ops if isinstance(op, Unknown)}):
        yield f"of {', '.join(unknown)} the output alone is counted: what autograd keeps is not known"


def _of_training(network: Network, setup: StepConfig) -> Iterator[str]:
    yield "a step after the first: gradients set to None before it, the optimizer's states in place, no weight decay"
    yield "the loss is cross_entropy(model(x), y), nothing else names the logits; batch and int64 labels count"
    optimizer = optimizer_named(setup.optimizer)
    if optimizer.foreach:
        yield (
            "the optimizer steps over all parameters at once (foreach, torch's default on a GPU)"
            if setup.foreach
            else "the optimizer steps parameter by parameter (foreach=False; torch's default on a GPU is foreach)"
        )
    if setup.dtype == AMP:
        yield "autocast to half precision: weights and gradients in float32, the weights' half copies as temporary"
    if setup.mode == "finetune-head":
        head = head_parameters(network)
        names = [node.title for node in network.nodes if not head.isdisjoint(p.name for p in node.parameters)]
        yield f"trained are {', '.join(names)}; the rest is frozen, in training mode" if names else "nothing is trained"
    if setup.checkpoint:
        yield "each stage is recomputed in the backward pass (torch.utils.checkpoint, use_reentrant=False)"


def _of_sharing(setup: StepConfig, batch: int) -> Iterator[str]:
    if setup.accumulate > 1 and setup.trains:
        yield f"the batch is cut into {setup.accumulate} micro-batches whose gradients are summed"
    if setup.shards.parallel is not None:
        share = count_text(setup.samples(batch))
        yield f"per GPU: {count_text(setup.gpus)} GPUs share the batch, {share} samples at once on each"
        yield _SHARED[setup.shards.parallel.name]


_SHARED = {
    "ddp": "gradients are copied into buckets (DistributedDataParallel with gradient_as_bucket_view=False)",
    "zero1": "as ddp; whole tensors of optimizer states go to one GPU each, the figure is the fullest GPU's",
    "zero2": "states and gradients are cut evenly, summed layer by layer; DeepSpeed's own buffers come on top",
    "fsdp": "weights, gradients and states are cut evenly; while a layer runs its weights and the next one's are whole",
}
assert set(_SHARED) == set(PARALLEL)
