"""Whether a step fits a card, the largest batch that does, and what would make a larger one fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.analysis.cards import gpu_memory
from vggscope.analysis.memory.allocation_log import Trace
from vggscope.analysis.memory.allocator import replay
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import AMP, StepConfig, optimizer_named
from vggscope.errors import OptionError
from vggscope.graph import Network
from vggscope.record import record

LARGEST_PIECES = 64
"""Beyond this many micro-batches accumulation is not proposed."""


@record
class Remedy:
    """A change of the setup, what the step then takes at its peak on one GPU, and the largest batch that then fits."""

    change: str
    peak_bytes: int
    max_batch: int


@record
class Fit:
    """How a step stands to a card of `capacity_bytes`, of which `context_bytes` (the CUDA context) and
    `workspace_bytes` (what cuDNN and cuBLAS work in) are set aside: assumptions of the caller, 0 where none were made.

    `fits`, `missing_bytes` and `max_batch` count tensors exactly; `max_batch` is 0 where not even one sample fits.
    `missing_for_one_bytes` is what a batch of one lacks. `max_batch_reserved` is the largest batch for which the
    replayed caching allocator finds room.
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
    """A card, by its name or its memory, and what is set aside of it."""

    gpu: str
    context_bytes: int = 0
    workspace_bytes: int = 0

    def __post_init__(self) -> None:
        if min(self.context_bytes, self.workspace_bytes) < 0:
            raise OptionError("memory set aside cannot be negative", "write it as 500MiB")
        gpu_memory(self.gpu)

    @property
    def free_bytes(self) -> int:
        """What is left for tensors; not above 0 where all is set aside."""
        return gpu_memory(self.gpu) - self.context_bytes - self.workspace_bytes


def fit(network: Network, setup: StepConfig, batch: int, room: GpuBudget, book: Trace | None = None) -> Fit:
    """How a step with this batch stands to a card. `book` is its trace, where it is at hand."""
    book = book or simulate_step(network, setup)
    need = book.peak_bytes(setup.samples(batch))
    largest = book.largest_batch(room.free_bytes)
    fits = need <= room.free_bytes
    return Fit(
        gpu=room.gpu,
        capacity_bytes=gpu_memory(room.gpu),
        context_bytes=room.context_bytes,
        workspace_bytes=room.workspace_bytes,
        fits=fits,
        missing_bytes=max(0, need - room.free_bytes),
        missing_for_one_bytes=max(0, book.peak_bytes(1) - room.free_bytes),
        max_batch=setup.batch(largest),
        max_batch_reserved=setup.batch(largest_reserved(book, room.free_bytes, largest)),
        remedies=() if fits else tuple(remedies(network, setup, batch, room)),
    )


def largest_reserved(book: Trace, capacity: int, above: int) -> int:
    """The largest batch up to `above` that the replayed allocator finds room for, by bisection.

    More samples may by chance leave smaller gaps; the bisection takes the need as rising with the batch.
    """
    low, high = 0, above
    while low < high:
        middle = (low + high + 1) // 2
        if replay(book, middle, capacity).fits:
            low = middle
        else:
            high = middle - 1
    return low


def remedies(network: Network, setup: StepConfig, batch: int, room: GpuBudget) -> Iterator[Remedy]:
    """Single changes under which this batch fits, the least of each kind; where none does, those that come nearest."""
    before = simulate_step(network, setup).peak_bytes(setup.samples(batch))
    nearer: list[Remedy] = []
    fitting: dict[str, Remedy] = {}
    for kind, change, other in _changes(setup, batch):
        book = simulate_step(network, other)
        peak = book.peak_bytes(other.samples(batch))
        remedy = Remedy(change, peak, other.batch(book.largest_batch(room.free_bytes)))
        if peak <= room.free_bytes:
            fitting.setdefault(kind, remedy)
        elif peak < before:
            nearer.append(remedy)
    yield from fitting.values() or sorted(nearer, key=lambda remedy: remedy.peak_bytes)[:3]


def _changes(setup: StepConfig, batch: int) -> Iterator[tuple[str, str, StepConfig]]:
    """What people change, by kind: other numbers first, another training last."""
    if setup.dtype == "float32":
        if setup.trains:
            yield "amp", "--dtype amp", replace(setup, dtype=AMP)
        yield "bfloat16", "--dtype bfloat16", replace(setup, dtype="bfloat16")
    if setup.trains:
        yield from _changes_of_training(setup, batch)


def _changes_of_training(setup: StepConfig, batch: int) -> Iterator[tuple[str, str, StepConfig]]:
    if not setup.checkpoint:
        yield "checkpoint", "--checkpoint", replace(setup, checkpoint=True)
    pieces = setup.accumulate * 2
    while pieces * setup.gpus <= batch and pieces <= LARGEST_PIECES:
        yield "accumulate", f"--accumulate {pieces}", replace(setup, accumulate=pieces)
        pieces *= 2
    if setup.foreach:
        yield "foreach", "--no-foreach", replace(setup, foreach=False)
    if optimizer_named(setup.optimizer).states > 1:
        yield "optimizer", "--optimizer sgd-momentum", replace(setup, optimizer="sgd-momentum")
    if setup.mode == "train":
        yield "head", "--mode finetune-head", replace(setup, mode="finetune-head")
    for parallel in ("zero2", "fsdp") if setup.gpus > 1 else ():
        if parallel != setup.parallel:
            yield parallel, f"--parallel {parallel}", replace(setup, parallel=parallel)
    for gpus in (2, 4, 8) if setup.gpus == 1 else ():
        yield "gpus", f"--gpus {gpus} --parallel fsdp", replace(setup, gpus=gpus, parallel="fsdp")
