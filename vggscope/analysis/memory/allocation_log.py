"""The book of a step: every allocation and every free in order, and what is alive at the height of each event."""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

from vggscope.record import record


class BatchLinear(NamedTuple):
    """Bytes: `fixed` + `per_sample` for each sample of the batch."""

    fixed: int
    per_sample: int

    def at(self, batch: int) -> int:
        """Bytes for a batch of that many.

        >>> BatchLinear(1000, 4).at(32)
        1128
        """
        return self.fixed + self.per_sample * batch


NO_BYTES = BatchLinear(0, 0)


KINDS = ("parameters", "buffers", "gradients", "optimizer", "activations", "temporary", "input")
"""What memory is for. Gradients are those of parameters; `temporary` holds the gradients of activations, autocast's
copies of weights, and what an optimizer takes for the length of its step.
"""

_POSITIONS = {kind: position for position, kind in enumerate(KINDS)}

Lines = tuple[BatchLinear, ...]
"""One line for each of KINDS."""


class Moment(NamedTuple):
    """What is alive at a height of an event: after it has allocated, before it frees. `entries` counts the entries of
    the book until then.
    """

    event: str
    layer: str
    alive: Lines
    total: BatchLinear
    entries: int


class Entry(NamedTuple):
    """An allocation (`size` given) or a free (None) of the tensor with this number; `kind` is one of KINDS, `layer` the
    one in whose event the tensor was made, or whose parameter it belongs to.
    """

    tensor: int
    size: BatchLinear | None
    kind: str
    layer: str


@record
class Trace:
    """A finished book. `resident` counts the entries before the step: what is there from its start. `stepping` counts
    those before the optimizer's step.
    """

    moments: tuple[Moment, ...]
    entries: tuple[Entry, ...]
    resident: int
    stepping: int

    def peak(self, batch: int) -> Moment:
        """The first of the highest moments.

        The cost does not depend on the batch: only moments that are highest for some batch are looked at.
        """
        return max(self.peak_candidates, key=lambda moment: moment.total.at(batch))

    def peak_bytes(self, batch: int) -> int:
        """The most bytes alive at once."""
        return max(moment.total.at(batch) for moment in self.peak_candidates)

    def largest_batch(self, capacity: int) -> int:
        """The largest batch whose peak is at most `capacity` bytes; 0 where not even one sample fits.

        Exact: the peak is the maximum of straight lines, each of which has its own largest batch.
        """
        limits = []
        for fixed, slope in (moment.total for moment in self.peak_candidates):
            if fixed + slope > capacity:
                return 0
            if slope:
                limits.append((capacity - fixed) // slope)
        return min(limits)

    def holders(self, moment: Moment, batch: int) -> dict[str, int]:
        """Bytes alive at a moment by the layer that they belong to, the most first; the input is no layer's."""
        alive = {entry.tensor: entry for entry in self.entries[: moment.entries] if entry.size is not None}
        for entry in self.entries[: moment.entries]:
            if entry.size is None:
                del alive[entry.tensor]
        held: dict[str, int] = {}
        for entry in alive.values():
            if entry.layer and entry.size is not None:
                held[entry.layer] = held.get(entry.layer, 0) + entry.size.at(batch)
        return dict(sorted(held.items(), key=lambda item: -item[1]))

    @cached_property
    def peak_candidates(self) -> tuple[Moment, ...]:
        """The moments that are the peak for some batch from 1 up, in order of time."""
        return tuple(sorted(upper_envelope(self.moments), key=self.moments.index))


def upper_envelope(moments: tuple[Moment, ...]) -> list[Moment]:
    """Those whose line is highest somewhere from a batch of 1 up, by rising slope; of equal lines the first."""
    steepest: dict[int, Moment] = {}
    for moment in moments:
        fixed, slope = moment.total
        if slope not in steepest or fixed > steepest[slope].total.fixed:
            steepest[slope] = moment
    hull: list[Moment] = []
    for slope in sorted(steepest):
        moment = steepest[slope]
        while hull and (
            hull[-1].total.at(1) <= moment.total.at(1) or (len(hull) > 1 and _hidden(hull[-2], hull[-1], moment))
        ):
            hull.pop()
        hull.append(moment)
    return hull


def _hidden(low: Moment, middle: Moment, high: Moment) -> bool:
    """Whether the middle of three lines by rising slope is nowhere above both others."""
    (a, p), (b, q), (c, r) = low.total, middle.total, high.total
    return (a - b) * (r - q) >= (b - c) * (q - p)


class AllocationLog:
    """Written while a step is walked. A tensor is known by the number that `allocate` gives; it is freed when as many
    holds as it has are released.
    """

    def __init__(self) -> None:
        self.event = "start"
        self.layer = ""
        self.moments: list[Moment] = []
        self.entries: list[Entry] = []
        self._made: list[Entry] = []
        self._holds: list[int] = []
        self._alive = [NO_BYTES] * len(KINDS)
        self._risen = True

    def begin(self, event: str, layer: str = "") -> None:
        """What is written from now on belongs to this event."""
        if self._risen:
            self._mark()
        self.event, self.layer, self._risen = event, layer, True

    def allocate(self, kind: str, size: BatchLinear, layer: str | None = None) -> int:
        """A new tensor with one hold; its number. Its layer is the event's, unless one is given."""
        tensor = len(self._made)
        entry = Entry(tensor, size, kind, self.layer if layer is None else layer)
        self._made.append(entry)
        self._holds.append(1)
        self._count(kind, size.fixed, size.per_sample)
        self.entries.append(entry)
        self._risen = True
        return tensor

    def hold(self, tensor: int) -> None:
        """One more that needs the tensor."""
        self._holds[tensor] += 1

    def release(self, tensor: int) -> None:
        """One less; the last frees it."""
        self._holds[tensor] -= 1
        if self._holds[tensor]:
            return
        if self._risen:
            self._mark()
        made = self._made[tensor]
        assert made.size is not None
        self._count(made.kind, -made.size.fixed, -made.size.per_sample)
        self.entries.append(Entry(tensor, None, made.kind, made.layer))

    def size(self, tensor: int) -> BatchLinear:
        """How large a tensor is."""
        made = self._made[tensor].size
        assert made is not None
        return made

    def is_single(self, tensor: int) -> bool:
        """Whether one hold is left."""
        return self._holds[tensor] == 1

    def finish(self, resident: int, stepping: int) -> Trace:
        """The book, closed; the counts are those of Trace."""
        if self._risen:
            self._mark()
        return Trace(tuple(self.moments), tuple(self.entries), resident, stepping)

    def _mark(self) -> None:
        alive = tuple(self._alive)
        total = BatchLinear(sum([line.fixed for line in alive]), sum([line.per_sample for line in alive]))
        self.moments.append(Moment(self.event, self.layer, alive, total, len(self.entries)))
        self._risen = False

    def _count(self, kind: str, fixed: int, per_sample: int) -> None:
        position = _POSITIONS[kind]
        before = self._alive[position]
        self._alive[position] = BatchLinear(before.fixed + fixed, before.per_sample + per_sample)
