"""Whether a step fits a card, the largest batch that does, and the changes with which a larger one fits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.analysis.cards import Gpu, find_gpu
from vggscope.analysis.memory.allocation_log import BatchLinear, StepTimeline
from vggscope.analysis.memory.allocator import Reserve, replay
from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import AMP, StepConfig
from vggscope.analysis.memory.workspace import CUDNN, largest_workspace, workspaces
from vggscope.errors import OptionError, option, unknown
from vggscope.graph import Network
from vggscope.record import record

MOST_MICRO_BATCHES = 64
"""The most micro-batches that a remedy proposes."""

MARGIN = 17
"""Per cent that nvidia-smi may show more than the figure: of 18 published measurements, the worst is 16.8% above."""


@record
class Remedy:
    """A change of the options, and with it the peak on one GPU, the largest batch whose tensors fit, the verdict, and
    what nvidia-smi would show.
    """

    change: str
    peak_bytes: int
    max_batch: int
    verdict: str
    nvidia_smi_bytes: int


@record
class Fit:
    """Whether a step fits a card of `capacity_bytes`, of which CUDA offers `usable_bytes` (says `usable_source`).

    `verdict` is `fits`, `tight` or `no`. It rests on a replay of torch's caching allocator on the card, with cuDNN's
    workspaces (of which `workspace_bytes` is the largest, or was given as an amount set aside) and the CUDA context of
    `context_bytes`. `tight`: the step fits, but not with `margin_bytes` to spare, by which the figure may be too low.

    `reserved_bytes` is what the allocator takes, and `nvidia_smi_bytes` that and the context, as `tool` shows it. Both
    are for an unlimited card if the verdict is no. `max_batch_fits` and `max_batch_tight` are the largest batches with
    these verdicts, 0 for none. `fits` is whether the verdict is not `no`; `missing_bytes` is what the card then lacks,
    and `missing_for_one_bytes` what it lacks for a batch of one.

    `max_batch` counts tensors exactly and is a limit above which no batch fits; `max_batch_reserved` is the largest
    with the segments of the caching allocator. Both leave out workspaces and a context that the caller did not give.
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
    verdict: str
    usable_bytes: int
    usable_source: str
    margin_bytes: int
    cudnn: str
    tool: str
    reserved_bytes: int
    nvidia_smi_bytes: int
    max_batch_fits: int
    max_batch_tight: int


@record
class GpuBudget:
    """A card, by its name or its memory, and the memory that is set aside on it.

    `context_bytes`: None for the card's own figure. `workspace_bytes`: an amount in place of the model of workspaces.
    `cudnn`: one of CUDNN.
    """

    gpu: str
    context_bytes: int | None = None
    workspace_bytes: int | None = None
    cudnn: str = "heuristic"

    def __post_init__(self) -> None:
        if min(self.context_bytes or 0, self.workspace_bytes or 0) < 0:
            raise OptionError("memory set aside cannot be negative", "write it as 500MiB")
        if self.cudnn not in CUDNN:
            raise unknown("choice of algorithms", self.cudnn, CUDNN, "cudnn")
        if self.workspace_bytes is not None and self.cudnn == "none":
            raise OptionError(
                "no cuDNN sets no workspace aside", f"leave out {option('workspace')} or {option('cudnn')}"
            )
        find_gpu(self.gpu)

    @property
    def card(self) -> Gpu:
        """The GPU."""
        return find_gpu(self.gpu)

    @property
    def context(self) -> int:
        """The bytes of the CUDA context: those given, or the card's."""
        return self.card.context_bytes if self.context_bytes is None else self.context_bytes

    @property
    def tensor_bytes(self) -> int:
        """The memory for tensors; 0 or less if all is set aside. Only what the caller gave is set aside."""
        return self.card.usable_bytes - (self.context_bytes or 0) - (self.workspace_bytes or 0)

    @property
    def beside(self) -> int:
        """The bytes that nvidia-smi shows beside the allocator's segments."""
        return self.context + (self.workspace_bytes or 0)

    @property
    def margin(self) -> int:
        """The bytes of the card that have to stay free for the verdict `fits`."""
        return self.card.usable_bytes - self.card.usable_bytes * 100 // (100 + MARGIN)


class StepOnCard:
    """A simulated step on a card. `timeline` has its tensors, `replayed` cuDNN's workspaces too."""

    def __init__(self, network: Network, config: StepConfig, budget: GpuBudget, timeline: StepTimeline | None) -> None:
        self.budget = budget
        self.timeline = timeline or simulate_step(network, config)
        self.sizes: dict[str, BatchLinear] = {}
        if budget.workspace_bytes is None:
            layout = budget.card.converts_layout
            self.sizes = workspaces(network, config, budget.cudnn, converts_layout=layout)
        self.replayed = self.timeline.with_workspaces(self.sizes) if self.sizes else self.timeline
        self.room = budget.card.usable_bytes - budget.beside
        self._replays: dict[tuple[int, int | None], Reserve] = {}

    def verdict(self, samples: int) -> str:
        """`fits`, `tight` or `no`."""
        if not self.is_within(samples, self.room):
            return "no"
        return "fits" if self.is_within(samples, self.room - self.budget.margin) else "tight"

    def is_within(self, samples: int, room: int) -> bool:
        """Whether the allocator gets by with this much memory."""
        return self.timeline.peak_bytes(samples) <= room and self._replay(samples, room).fits

    def reserved(self, samples: int) -> int:
        """What the allocator takes of the card; if the step does not fit, of an unlimited one."""
        room = self.room if self.is_within(samples, self.room) else None
        return self._replay(samples, room).reserved_bytes

    def allocated(self, samples: int) -> int:
        """What the tensors and the workspaces take of those segments in rounded blocks."""
        room = self.room if self.is_within(samples, self.room) else None
        return self._replay(samples, room).allocated_bytes

    def missing(self, samples: int) -> int:
        """What the card lacks for a step; 0 if it fits."""
        return 0 if self.is_within(samples, self.room) else self.reserved(samples) - self.room

    def _replay(self, samples: int, room: int | None) -> Reserve:
        """The replay with this much memory, which is kept."""
        key = samples, room
        if key not in self._replays:
            self._replays[key] = replay(self.replayed, samples, room)
        return self._replays[key]

    def largest(self, room: int, limit: int) -> int:
        """The largest number of samples, up to `limit`, for which the allocator gets by with this much memory."""
        return _largest_reserved(self.replayed, room, min(limit, self.timeline.largest_batch(room)))


def fit(
    network: Network, config: StepConfig, batch: int, budget: GpuBudget, timeline: StepTimeline | None = None
) -> Fit:
    """Whether a step with this batch fits a card. `timeline` is the step's, if it is already simulated."""
    step, samples = StepOnCard(network, config, budget, timeline), config.samples(batch)
    verdict, reserved = step.verdict(samples), step.reserved(samples)
    by_tensors = _largest_by_tensors(network, step.timeline, budget)
    by_segments = _largest_reserved(step.timeline, budget.tensor_bytes, by_tensors)
    tight = step.largest(step.room, by_segments)
    given = budget.workspace_bytes
    return Fit(
        gpu=budget.card.name,
        capacity_bytes=budget.card.capacity_bytes,
        context_bytes=budget.context,
        workspace_bytes=largest_workspace(step.sizes, samples) if given is None else given,
        fits=verdict != "no",
        missing_bytes=step.missing(samples),
        missing_for_one_bytes=step.missing(1),
        max_batch=config.batch(by_tensors),
        max_batch_reserved=config.batch(by_segments),
        remedies=tuple(remedies(network, config, batch, budget, reserved)) if verdict == "no" else (),
        verdict=verdict,
        usable_bytes=budget.card.usable_bytes,
        usable_source=budget.card.source,
        margin_bytes=budget.margin,
        cudnn=budget.cudnn,
        tool=budget.card.tool,
        reserved_bytes=reserved,
        nvidia_smi_bytes=reserved + budget.beside,
        max_batch_fits=config.batch(step.largest(step.room - budget.margin, tight)),
        max_batch_tight=config.batch(tight),
    )


def _largest_by_tensors(network: Network, timeline: StepTimeline, budget: GpuBudget) -> int:
    """The most samples whose tensors fit, at most one if the network is known for the batch of its inputs alone."""
    largest = timeline.largest_batch(budget.tensor_bytes)
    return largest if network.single is None else min(largest, 1)


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


def remedies(network: Network, config: StepConfig, batch: int, budget: GpuBudget, current: int) -> Iterator[Remedy]:
    """Single changes with which this batch fits, the smallest of each kind. If none does, the nearest three.

    `current` is the reserved memory without a change, in bytes.
    """
    smaller: list[Remedy] = []
    fitting: dict[str, Remedy] = {}
    for kind, change, changed in _changes(network, config, batch):
        if kind in fitting:
            continue
        step, samples = StepOnCard(network, changed, budget, None), changed.samples(batch)
        reserved = step.reserved(samples)
        remedy = Remedy(
            change=change,
            peak_bytes=step.timeline.peak_bytes(samples),
            max_batch=changed.batch(_largest_by_tensors(network, step.timeline, budget)),
            verdict=step.verdict(samples),
            nvidia_smi_bytes=reserved + budget.beside,
        )
        if remedy.verdict != "no":
            fitting[kind] = remedy
        elif reserved < current:
            smaller.append(remedy)
    yield from fitting.values() or sorted(smaller, key=lambda remedy: remedy.nvidia_smi_bytes)[:3]


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
    if OPTIMIZERS[config.optimizer].has_fused and not config.fused:
        yield "fused", "--fused", replace(config, foreach=None, fused=True)
    if config.steps_foreach:
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
