"""Replays torch's CUDA caching allocator: the memory that a step reserves on the card for its tensors.

The rules are those of c10/cuda/CUDACachingAllocator.cpp with its default settings:
- Sizes are rounded up to 512 bytes. Sizes up to 1 MiB come from segments of 2 MiB. Larger ones come from segments of
  20 MiB or, from 10 MiB up, from a segment of their own size rounded up to 2 MiB.
- The smallest free block that is large enough is split. Adjacent free blocks are merged.
- If the card is full, the segments without a tensor are returned to it, and the allocation is tried once more.

Replaying a run with these rules is the method of xMem (Shi, Pezaros and Elkhatib 2025). Here no run is needed.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from dataclasses import dataclass, field

from vggscope.analysis.memory.allocation_log import LogEntry, StepTimeline
from vggscope.record import record

RESIDENT = 0
"""The number of the run that resident tensors belong to."""

SMALLEST = 512
SMALL = 2**20
SMALL_SEGMENT = 2 * 2**20
LARGE_SEGMENT = 20 * 2**20
OWN_SEGMENT = 10 * 2**20
SEGMENT_STEP = 2 * 2**20


@record
class Reserve:
    """The most that the allocator reserves (torch.cuda.max_memory_reserved) and that its blocks in use take
    (torch.cuda.max_memory_allocated, tensors rounded up to blocks), in bytes.

    `fits` is False if the card is too small; the figures then count up to the allocation that failed.
    """

    reserved_bytes: int
    allocated_bytes: int
    fits: bool = True


def replay(timeline: StepTimeline, batch: int, capacity: int | None = None) -> Reserve:
    """Replay a step twice, from an empty allocator. `capacity` is the card's memory in bytes; None: unlimited.

    As in training, the optimizer's states are allocated at the end of the first step, and the second step reuses the
    segments of the first.
    """
    allocator = Allocator(capacity)
    resident = timeline.entries[: timeline.step_start]
    passes = timeline.entries[timeline.step_start : timeline.optimizer_start]
    optimizer_step = timeline.entries[timeline.optimizer_start :]
    weights = [entry for entry in resident if entry.kind != "optimizer"]
    states = [entry for entry in resident if entry.kind == "optimizer"]
    first = ((RESIDENT, weights), (1, passes), (RESIDENT, states), (1, optimizer_step))
    second = ((2, passes), (2, optimizer_step))
    fits = True
    for run, entries in first + second:
        if run == 2:
            allocator.free_run(1)
        fits = fits and allocator.run(entries, batch, run)
    return Reserve(allocator.max_reserved, allocator.max_allocated, fits)


@dataclass
class Block:
    """A part of a segment, with the adjacent parts."""

    address: int
    size: int
    small: bool
    free: bool = False
    before: Block | None = None
    after: Block | None = None


@dataclass
class Allocator:
    """The pools of large and small free blocks by (size, address), and the blocks in use by (run, tensor)."""

    capacity: int | None = None
    max_reserved: int = 0
    max_allocated: int = 0
    _reserved: int = 0
    _allocated: int = 0
    _next_address: int = 0
    _pools: tuple[list[tuple[int, int]], list[tuple[int, int]]] = field(default_factory=lambda: ([], []))
    _blocks: dict[int, Block] = field(default_factory=dict)
    _used: dict[tuple[int, int], Block] = field(default_factory=dict)

    def run(self, entries: Iterable[LogEntry], batch: int, run: int) -> bool:
        """Replay log entries as the run with this number; return False if the card is full."""
        for entry in entries:
            if entry.size is None:
                if (run, entry.tensor) in self._used:
                    self._free(self._used.pop((run, entry.tensor)))
            elif (size := entry.size.at(batch)) and not self._allocate((run, entry.tensor), size):
                return False
        return True

    def free_run(self, run: int) -> None:
        """Free what a run still uses: its gradients and its loss."""
        for key in [key for key in self._used if key[0] == run]:
            self._free(self._used.pop(key))

    def _allocate(self, key: tuple[int, int], size: int) -> bool:
        rounded = -(-size // SMALLEST) * SMALLEST
        small = rounded <= SMALL
        block = self._best_fit(rounded, small) or self._new_segment(rounded, small)
        if block is None:
            return False
        self._split(block, rounded)
        block.free = False
        self._used[key] = block
        self._allocated += block.size
        self.max_allocated = max(self.max_allocated, self._allocated)
        return True

    def _best_fit(self, size: int, small: bool) -> Block | None:
        pool = self._pools[small]
        position = bisect_left(pool, (size, 0))
        return self._blocks[pool.pop(position)[1]] if position < len(pool) else None

    def _new_segment(self, size: int, small: bool) -> Block | None:
        if small:
            segment_size = SMALL_SEGMENT
        elif size < OWN_SEGMENT:
            segment_size = LARGE_SEGMENT
        else:
            segment_size = -(-size // SEGMENT_STEP) * SEGMENT_STEP
        if self._is_full(segment_size):
            self._return_segments()
            if self._is_full(segment_size):
                return None
        block = Block(self._next_address, segment_size, small)
        self._blocks[block.address] = block
        self._next_address += segment_size
        self._reserved += segment_size
        self.max_reserved = max(self.max_reserved, self._reserved)
        return block

    def _is_full(self, segment_size: int) -> bool:
        return self.capacity is not None and self._reserved + segment_size > self.capacity

    def _return_segments(self) -> None:
        """Return the segments that hold no tensor to the card."""
        for pool in self._pools:
            for block in [self._blocks[address] for _, address in pool]:
                if block.before is None and block.after is None:
                    self._leave_pool(block)
                    del self._blocks[block.address]
                    self._reserved -= block.size

    def _split(self, block: Block, size: int) -> None:
        rest = block.size - size
        if rest < SMALLEST if block.small else rest <= SMALL:
            return
        remaining = Block(block.address + size, rest, block.small, True, block, block.after)
        if block.after is not None:
            block.after.before = remaining
        block.after, block.size = remaining, size
        self._blocks[remaining.address] = remaining
        insort(self._pools[block.small], (rest, remaining.address))

    def _free(self, block: Block) -> None:
        self._allocated -= block.size
        if block.after is not None and block.after.free:
            after = block.after
            self._leave_pool(after)
            self._join(block, after)
        if block.before is not None and block.before.free:
            before = block.before
            self._leave_pool(before)
            self._join(before, block)
            block = before
        block.free = True
        insort(self._pools[block.small], (block.size, block.address))

    def _leave_pool(self, block: Block) -> None:
        # list.remove would compare every block before this one.
        pool = self._pools[block.small]
        del pool[bisect_left(pool, (block.size, block.address))]

    def _join(self, block: Block, after: Block) -> None:
        block.size += after.size
        block.after = after.after
        if after.after is not None:
            after.after.before = block
        del self._blocks[after.address]
