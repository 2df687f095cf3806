"""torch's CUDA caching allocator, replayed: what a step reserves of the card beside what its tensors take.

The rules are those of c10/cuda/CUDACachingAllocator.cpp with its default settings: a size is rounded up to 512 bytes;
up to 1 MiB it comes from segments of 2 MiB, else from segments of 20 MiB or, from 10 MiB on, of its own size rounded
up to 2 MiB; the smallest free block that is large enough is taken and split; neighbours that are free are merged. When
the card is full the segments without a tensor go back to it, and the allocation is tried once more. Replaying a run
against these rules is xMem's method (Shi, Pezaros and Elkhatib 2025); here no run is needed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from vggscope.analysis.memory.allocation_log import Entry, Trace
from vggscope.record import record

RESIDENT = 0
"""The number of the run to which what lies there from the start belongs."""

SMALLEST = 512
SMALL = 2**20
SMALL_SEGMENT = 2 * 2**20
LARGE_SEGMENT = 20 * 2**20
OWN_SEGMENT = 10 * 2**20
SEGMENT_STEP = 2 * 2**20


@record
class Reserve:
    """What the allocator has taken of the card at most, and the most that its blocks in use came to.

    `reserved_bytes` is torch.cuda.max_memory_reserved, `allocated_bytes` torch.cuda.max_memory_allocated: tensors with
    the rounding of their blocks. `fits` is False where the card was too small; the figures are then those until there.
    """

    reserved_bytes: int
    allocated_bytes: int
    fits: bool = True


def replay(trace: Trace, batch: int, capacity: int | None = None) -> Reserve:
    """A step, and the same step once more, against an allocator that starts empty.

    The first step finds the weights alone and makes the optimizer's states at its end, as in training; the second
    finds the segments of the first. `capacity` is what the card has for segments, in bytes; None: it is never full.
    """
    allocator = Allocator(capacity)
    resident = trace.entries[: trace.resident]
    passes, stepping = trace.entries[trace.resident : trace.stepping], trace.entries[trace.stepping :]
    weights = [entry for entry in resident if entry.kind != "optimizer"]
    states = [entry for entry in resident if entry.kind == "optimizer"]
    runs = ((RESIDENT, weights), (1, passes), (RESIDENT, states), (1, stepping), (2, passes), (2, stepping))
    fits = True
    for run, entries in runs:
        if run == 2:
            allocator.forget(1)
        fits = fits and allocator.run(entries, batch, run)
    return Reserve(allocator.most_reserved, allocator.most_allocated, fits)


@dataclass
class Block:
    """A piece of a segment, with its neighbours in the segment."""

    address: int
    size: int
    small: bool
    free: bool = False
    before: Block | None = None
    behind: Block | None = None


@dataclass
class Allocator:
    """The two pools of free blocks, by size and address, and the blocks in use, by run and tensor."""

    capacity: int | None = None
    most_reserved: int = 0
    most_allocated: int = 0
    _reserved: int = 0
    _allocated: int = 0
    _next_address: int = 0
    _pools: tuple[list[tuple[int, int]], list[tuple[int, int]]] = field(default_factory=lambda: ([], []))
    _blocks: dict[int, Block] = field(default_factory=dict)
    _used: dict[tuple[int, int], Block] = field(default_factory=dict)

    def run(self, entries: Iterable[Entry], batch: int, run: int) -> bool:
        """Entries of a ledger in order, as those of a run with this number: False where the card is full."""
        for entry in entries:
            if entry.size is None:
                if (run, entry.tensor) in self._used:
                    self._free(self._used.pop((run, entry.tensor)))
            elif (size := entry.size.at(batch)) and not self._allocate((run, entry.tensor), size):
                return False
        return True

    def forget(self, run: int) -> None:
        """Free what a run has left in use: its gradients and its loss."""
        for key in [key for key in self._used if key[0] == run]:
            self._free(self._used.pop(key))

    def _allocate(self, key: tuple[int, int], size: int) -> bool:
        rounded = -(-size // SMALLEST) * SMALLEST
        small = rounded <= SMALL
        block = self._best_fit(rounded, small) or self._segment(rounded, small)
        if block is None:
            return False
        self._split(block, rounded)
        block.free = False
        self._used[key] = block
        self._allocated += block.size
        self.most_allocated = max(self.most_allocated, self._allocated)
        return True

    def _best_fit(self, size: int, small: bool) -> Block | None:
        pool = self._pools[small]
        position = bisect_left(pool, (size, 0))
        return self._blocks[pool.pop(position)[1]] if position < len(pool) else None

    def _segment(self, size: int, small: bool) -> Block | None:
        if small:
            wanted = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            wanted = LARGE_SEGMENT
        else:
            wanted = -(-size // SEGMENT_STEP) * SEGMENT_STEP
        if self._is_full(wanted):
            self._give_back()
            if self._is_full(wanted):
                return None
        block = Block(self._next_address, wanted, small)
        self._blocks[block.address] = block
        self._next_address += wanted
        self._reserved += wanted
        self.most_reserved = max(self.most_reserved, self._reserved)
        return block

    def _is_full(self, wanted: int) -> bool:
        return self.capacity is not None and self._reserved + wanted > self.capacity

    def _give_back(self) -> None:
        """Free segments that hold no tensor go back to the card."""
        for pool in self._pools:
            for size, address in list(pool):
                block = self._blocks[address]
                if block.before is None and block.behind is None:
                    pool.remove((size, address))
                    del self._blocks[address]
                    self._reserved -= size

    def _split(self, block: Block, size: int) -> None:
        rest = block.size - size
        if rest < SMALLEST if block.small else rest <= SMALL:
            return
        remaining = Block(block.address + size, rest, block.small, True, block, block.behind)
        if block.behind is not None:
            block.behind.before = remaining
        block.behind, block.size = remaining, size
        self._blocks[remaining.address] = remaining
        insort(self._pools[block.small], (rest, remaining.address))

    def _free(self, block: Block) -> None:
        self._allocated -= block.size
        pool = self._pools[block.small]
        if block.behind is not None and block.behind.free:
            self._merge(pool, block, block.behind)
        if block.before is not None and block.before.free:
            before = block.before
            pool.remove((before.size, before.address))
            self._join(before, block)
            block = before
        block.free = True
        insort(pool, (block.size, block.address))

    def _merge(self, pool: list[tuple[int, int]], block: Block, behind: Block) -> None:
        pool.remove((behind.size, behind.address))
        self._join(block, behind)

    def _join(self, block: Block, behind: Block) -> None:
        block.size += behind.size
        block.behind = behind.behind
        if behind.behind is not None:
            behind.behind.before = block
        del self._blocks[behind.address]
