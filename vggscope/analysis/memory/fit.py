"""Whether a step fits a card, the largest batch that does, and the changes with which a larger one fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.analysis.cards import gpu_memory
from vggscope.analysis.memory.allocation_log import StepTimeline
from vggscope.analysis.memory.allocator import replay
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import AMP, OPTIMIZERS, StepConfig
from vggscope.errors import OptionError
from vggscope.graph import Network
from vggscope.record import record

MOST_MICRO_BATCHES = 64
"""The most micro-batches that a remedy proposes."""


@record
class Remedy:
    """A change of the options, and with it the peak on one GPU and the largest batch that fits."""

    change: str
    peak_bytes: int
    max_batch: int


@record
class Fit:
    """Whether a step fits a card of `capacity_bytes`.

    `context_bytes` (the CUDA context) and `workspace_bytes` (of cuDNN and cuBLAS) are set aside: assumptions of the
    caller, 0 by default. `fits`, `missing_bytes` and `max_batch` count tensors exactly; `max_batch` is 0 if one sample
    does not fit. `missing_for_one_bytes` is what a batch of one lacks. `max_batch_reserved` is the largest batch that
    fits with the segments of the caching allocator.
    """

    gpu: str
    capacity_bytes: int
    context_bytes: int
    workspace_bytes: int
    fits: bool
    missing_bytes: int
    missing_for_one_bytes: int
    max_batch: int
    max_batch_reserved: int
    remedies: tuple[Remedy, ...]


@record
class GpuBudget:
    """A card, by its name or its memory, and the memory that is set aside on it."""

    gpu: str
    context_bytes: int = 0
    workspace_bytes: int = 0

    def __post_init__(self) -> None:
        if min(self.context_bytes, self.workspace_bytes) < 0:
            raise OptionError("memory set aside cannot be negative", "write it as 500MiB")
        gpu_memory(self.gpu)

    @property
    def free_bytes(self) -> int:
        """The memory for tensors; 0 or less if all is set aside."""
        return gpu_memory(self.gpu) - self.context_bytes - self.workspace_bytes


def fit(
    network: Network, config: StepConfig, batch: int, budget: GpuBudget, timeline: StepTimeline | None = None
) -> Fit:
    """Whether a step with this batch fits a card. `timeline` is the step's, if it is already simulated."""
    timeline = timeline or simulate_step(network, config)
    peak, free = timeline.peak_bytes(config.samples(batch)), budget.free_bytes
    largest = timeline.largest_batch(free)
    return Fit(
        gpu=budget.gpu,
        capacity_bytes=gpu_memory(budget.gpu),
        context_bytes=budget.context_bytes,
        workspace_bytes=budget.workspace_bytes,
        fits=peak <= free,
        missing_bytes=max(0, peak - free),
        missing_for_one_bytes=max(0, timeline.peak_bytes(1) - free),
        max_batch=config.batch(largest),
        max_batch_reserved=config.batch(_largest_reserved(timeline, free, largest)),
        remedies=() if peak <= free else tuple(remedies(network, config, batch, budget)),
    )


def _largest_reserved(timeline: StepTimeline, capacity: int, limit: int) -> int:
    """The largest batch up to `limit` that fits with the allocator's segments, by bisection.

    Bisection assumes that the reserved memory grows with the batch. A larger batch may by chance leave smaller gaps.
    """
    low, high = 0, limit
    while low < high:
        middle = (low + high + 1) // 2
        if replay(timeline, middle, capacity).fits:
            low = middle
        else:
            high = middle - 1
    return low


def remedies(network: Network, config: StepConfig, batch: int, budget: GpuBudget) -> Iterator[Remedy]:
    """Single changes with which this batch fits, the smallest of each kind. If none does, the nearest three."""
    current_peak = simulate_step(network, config).peak_bytes(config.samples(batch))
    smaller: list[Remedy] = []
    fitting: dict[str, Remedy] = {}
    for kind, change, changed in _changes(network, config, batch):
        timeline = simulate_step(network, changed)
        peak = timeline.peak_bytes(changed.samples(batch))
        remedy = Remedy(change, peak, changed.batch(timeline.largest_batch(budget.free_bytes)))
        if peak <= budget.free_bytes:
            fitting.setdefault(kind, remedy)
        elif peak < current_peak:
            smaller.append(remedy)
    yield from fitting.values() or sorted(smaller, key=lambda remedy: remedy.peak_bytes)[:3]


def _changes(network: Network, config: StepConfig, batch: int) -> Iterator[tuple[str, str, StepConfig]]:
    """The changes to try, as kind, option and config: another dtype first, another way to train last."""
    if (config.dtype or network.dtype) == "float32":
        if config.trains:
            yield "amp", "--dtype amp", replace(config, dtype=AMP)
        yield "bfloat16", "--dtype bfloat16", replace(config, dtype="bfloat16")
    if config.trains:
        yield from _changes_of_training(config, batch)


def _changes_of_training(config: StepConfig, batch: int) -> Iterator[tuple[str, str, StepConfig]]:
    if not config.checkpoint:
        yield "checkpoint", "--checkpoint", replace(config, checkpoint=True)
    micro_batches = config.accumulate * 2
    while micro_batches * config.gpus <= batch and micro_batches <= MOST_MICRO_BATCHES:
        yield "accumulate", f"--accumulate {micro_batches}", replace(config, accumulate=micro_batches)
        micro_batches *= 2
    if config.foreach:
        yield "foreach", "--no-foreach", replace(config, foreach=False)
    if OPTIMIZERS[config.optimizer].states > 1:
        yield "optimizer", "--optimizer sgd-momentum", replace(config, optimizer="sgd-momentum")
    if config.mode == "train":
        yield "head", "--mode finetune-head", replace(config, mode="finetune-head")
    for parallel in ("zero2", "fsdp") if config.gpus > 1 else ():
        if parallel != config.parallel:
            yield parallel, f"--parallel {parallel}", replace(config, parallel=parallel)
    for gpus in (2, 4, 8) if config.gpus == 1 else ():
        yield "gpus", f"--gpus {gpus} --parallel fsdp", replace(config, gpus=gpus, parallel="fsdp")
