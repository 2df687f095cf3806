"""The log of a step: every allocation and free in order, and the bytes alive at each local peak.

Sizes are linear in the batch, so that one simulated step gives the figures for every batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import NamedTuple

from vggscope.record import record


class BatchLinear(NamedTuple):
    """A number of bytes: `fixed`, plus `per_sample` for each sample of the batch."""

    fixed: int
    per_sample: int

    def at(self, batch: int) -> int:
        """The bytes for a batch of this size.

        >>> BatchLinear(1000, 4).at(32)
        1128
        """
        return self.fixed + self.per_sample * batch


KINDS = ("parameters", "buffers", "gradients", "optimizer", "activations", "temporary", "input")
"""What memory is used for. `gradients` are those of parameters. `temporary` covers the gradients of activations,
autocast's copies of weights, the buffers of collectives, and the tensors that an optimizer frees within its step.
"""

_POSITIONS = {kind: position for position, kind in enumerate(KINDS)}

BytesByKind = tuple[BatchLinear, ...]
"""One size for each of KINDS."""


class Moment(NamedTuple):
    """A local peak within an event: the bytes alive after its allocations and before its next free.

    `entries` counts the log entries up to here.
    """

    event: str
    layer: str
    alive: BytesByKind
    total: BatchLinear
    entries: int


class LogEntry(NamedTuple):
    """An allocation of a numbered tensor, or its free, for which `size` is None.

    `kind` is one of KINDS. `layer` is the layer that allocated the tensor, or that owns the parameter.
    """

    tensor: int
    size: BatchLinear | None
    kind: str
    layer: str


@record
class StepTimeline:
    """A finished log. The step begins at entry `step_start`: what was allocated before is resident. The optimizer's
    step begins at entry `optimizer_start`.
    """

    moments: tuple[Moment, ...]
    entries: tuple[LogEntry, ...]
    step_start: int
    optimizer_start: int

    def peak(self, batch: int) -> Moment:
        """The first moment with the most bytes alive."""
        return max(self.peak_candidates, key=lambda moment: moment.total.at(batch))

    def peak_bytes(self, batch: int) -> int:
        """The most bytes alive at once."""
        return max(moment.total.at(batch) for moment in self.peak_candidates)

    def largest_batch(self, capacity: int) -> int:
        """The largest batch whose peak is at most `capacity` bytes; 0 if one sample does not fit.

        Exact: the peak is the maximum of linear functions of the batch, and each gives its own limit.
        """
        limits = []
        for fixed, per_sample in (moment.total for moment in self.peak_candidates):
            if fixed + per_sample > capacity:
                return 0
            if per_sample:
                limits.append((capacity - fixed) // per_sample)
        return min(limits)

    def with_workspaces(self, sizes: Mapping[str, BatchLinear]) -> StepTimeline:
        """This timeline with a tensor of the given size that each backward of a layer allocates and frees at its peak.

        It serves to replay the entries: the totals of its moments leave these tensors out.
        """
        moments: list[Moment] = []
        entries: list[LogEntry] = []
        added = step_end = 0
        before, number = 0, len(self.entries)
        for moment in self.moments:
            entries += self.entries[before : moment.entries]
            before = moment.entries
            if moment.event == "backward" and (size := sizes.get(moment.layer)) is not None:
                entries.append(LogEntry(number + added, size, "temporary", moment.layer))
                entries.append(LogEntry(number + added, None, "temporary", moment.layer))
                added += 1
            moments.append(moment._replace(entries=len(entries)))
            if before <= self.optimizer_start:
                step_end = 2 * added
        entries += self.entries[before:]
        return StepTimeline(tuple(moments), tuple(entries), self.step_start, self.optimizer_start + step_end)

    def bytes_by_layer(self, moment: Moment, batch: int) -> dict[str, int]:
        """Bytes alive at a moment for each layer, the most first. The input belongs to no layer."""
        alive = {entry.tensor: entry for entry in self.entries[: moment.entries] if entry.size is not None}
        for entry in self.entries[: moment.entries]:
            if entry.size is None:
                del alive[entry.tensor]
        totals: dict[str, int] = {}
        for entry in alive.values():
            if entry.layer and entry.size is not None:
                totals[entry.layer] = totals.get(entry.layer, 0) + entry.size.at(batch)
        return dict(sorted(totals.items(), key=lambda item: -item[1]))

    @cached_property
    def peak_candidates(self) -> tuple[Moment, ...]:
        """The moments that are the peak for some batch from 1 up, in order of time."""
        return tuple(sorted(upper_envelope(self.moments), key=self.moments.index))


def upper_envelope(moments: tuple[Moment, ...]) -> list[Moment]:
    """The moments with the largest total for some batch from 1 up, by bytes per sample; of equal ones the first."""
    largest: dict[int, Moment] = {}
    for moment in moments:
        fixed, per_sample = moment.total
        if per_sample not in largest or fixed > largest[per_sample].total.fixed:
            largest[per_sample] = moment
    hull: list[Moment] = []
    for per_sample in sorted(largest):
        moment = largest[per_sample]
        while hull and (
            hull[-1].total.at(1) <= moment.total.at(1) or (len(hull) > 1 and _is_below(hull[-1], hull[-2], moment))
        ):
            hull.pop()
        hull.append(moment)
    return hull


def _is_below(middle: Moment, low: Moment, high: Moment) -> bool:
    """Whether one of the two other lines, of smaller and of larger slope, is above the middle one everywhere."""
    (a, p), (b, q), (c, r) = low.total, middle.total, high.total
    return (a - b) * (r - q) >= (b - c) * (q - p)


class TensorReferences:
    """Numbers the tensors of a step, with their sizes and the references to each."""

    def __init__(self) -> None:
        self._sizes: list[BatchLinear] = []
        self._references: list[int] = []

    def retain(self, tensor: int) -> None:
        """Add a reference to a tensor."""
        self._references[tensor] += 1

    def size(self, tensor: int) -> BatchLinear:
        """The size of a tensor."""
        return self._sizes[tensor]

    def has_one_reference(self, tensor: int) -> bool:
        """Whether one release would free the tensor."""
        return self._references[tensor] == 1


class AllocationLog(TensorReferences):
    """Records the allocations of a step. `allocate` returns a tensor's number; a tensor is freed when its reference
    count reaches 0.
    """

    def __init__(self) -> None:
        super().__init__()
        self.event = "start"
        self.layer = ""
        self.moments: list[Moment] = []
        self.entries: list[LogEntry] = []
        self._allocations: list[LogEntry] = []
        self._alive = [BatchLinear(0, 0)] * len(KINDS)
        self._total = BatchLinear(0, 0)
        self._grew = True

    @property
    def length(self) -> int:
        """The number of entries so far."""
        return len(self.entries)

    def begin(self, event: str, layer: str = "") -> None:
        """Start an event: the next entries belong to it."""
        self._add_moment()
        self.event, self.layer, self._grew = event, layer, True

    def allocate(self, kind: str, size: BatchLinear, layer: str | None = None) -> int:
        """Allocate a tensor with one reference and return its number. `layer` defaults to the event's layer."""
        tensor = len(self._sizes)
        entry = LogEntry(tensor, size, kind, self.layer if layer is None else layer)
        self._sizes.append(size)
        self._allocations.append(entry)
        self._references.append(1)
        self._count(kind, size.fixed, size.per_sample)
        self.entries.append(entry)
        self._grew = True
        return tensor

    def use_as(self, kind: str, tensor: int) -> None:
        """Count a tensor as memory of another kind from now on."""
        entry, size = self._allocations[tensor], self._sizes[tensor]
        self._count(entry.kind, -size.fixed, -size.per_sample)
        self._count(kind, size.fixed, size.per_sample)
        self._allocations[tensor] = entry._replace(kind=kind)

    def release(self, *tensors: int) -> None:
        """Drop a reference to each tensor in turn, and free it with the last."""
        for tensor in tensors:
            self._references[tensor] -= 1
            if not self._references[tensor]:
                self._add_moment()
                entry, size = self._allocations[tensor], self._sizes[tensor]
                self._count(entry.kind, -size.fixed, -size.per_sample)
                self.entries.append(LogEntry(tensor, None, entry.kind, entry.layer))

    def finish(self, step_start: int, optimizer_start: int) -> StepTimeline:
        """The finished log; the arguments are entry numbers, those of StepTimeline."""
        self._add_moment()
        return StepTimeline(tuple(self.moments), tuple(self.entries), step_start, optimizer_start)

    def _add_moment(self) -> None:
        """Record what is alive, unless nothing was allocated since the last moment."""
        if not self._grew:
            return
        self.moments.append(Moment(self.event, self.layer, tuple(self._alive), self._total, len(self.entries)))
        self._grew = False

    def _count(self, kind: str, fixed: int, per_sample: int) -> None:
        position = _POSITIONS[kind]
        before = self._alive[position]
        self._alive[position] = BatchLinear(before.fixed + fixed, before.per_sample + per_sample)
        self._total = BatchLinear(self._total.fixed + fixed, self._total.per_sample + per_sample)


class PeakLog(TensorReferences):
    """Finds the peak of a step for one batch, and keeps nothing else of it.

    >>> log = PeakLog(batch=2)
    >>> log.release(log.allocate("activations", BatchLinear(0, 8)))
    >>> log.allocate("gradients", BatchLinear(4, 0)), log.peak
    (1, 16)
    """

    length = 0
    """It has no entries."""

    def __init__(self, batch: int) -> None:
        super().__init__()
        self.peak = 0
        self._batch, self._alive = batch, 0

    def begin(self, event: str, layer: str = "") -> None:
        """Start an event, which makes no difference here."""

    def use_as(self, kind: str, tensor: int) -> None:
        """Count a tensor as memory of another kind, which makes no difference here."""

    def allocate(self, kind: str, size: BatchLinear, layer: str | None = None) -> int:
        """Allocate a tensor with one reference and return its number."""
        self._sizes.append(size)
        self._references.append(1)
        self._alive += size[0] + size[1] * self._batch
        self.peak = max(self.peak, self._alive)
        return len(self._sizes) - 1

    def release(self, *tensors: int) -> None:
        """Drop a reference to each tensor in turn, and free it with the last."""
        references = self._references
        for tensor in tensors:
            references[tensor] -= 1
            if not references[tensor]:
                fixed, per_sample = self._sizes[tensor]
                self._alive -= fixed + per_sample * self._batch


StepLog = AllocationLog | PeakLog
"""What a step is simulated into."""
