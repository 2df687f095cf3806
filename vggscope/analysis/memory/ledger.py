"""The book of a step: every allocation and every free in order, and what is alive at the height of each event."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from vggscope.analysis.memory.lines import Line

KINDS = ("parameters", "buffers", "gradients", "optimizer", "activations", "temporary", "input")
"""What memory is for. Gradients are those of parameters; `temporary` holds the gradients of activations, autocast's
copies of weights, and what an optimizer takes for the length of its step.
"""

Lines = tuple[Line, ...]
"""One line for each of KINDS."""


@dataclass(frozen=True)
class Moment:
    """What is alive at a height of an event: after it has allocated, before it frees."""

    event: str
    layer: str
    alive: Lines
    total: Line


@dataclass(frozen=True)
class Entry:
    """An allocation (`size` given) or a free (None) of the tensor with this number; `moment` counts the moments before it."""

    tensor: int
    size: Line | None


@dataclass(frozen=True)
class Trace:
    """A finished book. `resident` are the entries before the step: what is there from the start."""

    moments: tuple[Moment, ...]
    entries: tuple[Entry, ...]
    resident: int

    def peak(self, batch: int) -> Moment:
        """The first of the highest moments.

        The cost does not depend on the batch: only moments that are highest for some batch are looked at.
        """
        return max(self.summits, key=lambda moment: moment.total.at(batch))

    def peak_bytes(self, batch: int) -> int:
        """The most bytes alive at once."""
        return max(moment.total.at(batch) for moment in self.summits)

    def largest_batch(self, capacity: int) -> int:
        """The largest batch whose peak is at most `capacity` bytes; 0 where not even one sample fits.

        Exact: the peak is the maximum of straight lines, each of which has its own largest batch.
        """
        limits = []
        for fixed, slope in (moment.total for moment in self.summits):
            if fixed + slope > capacity:
                return 0
            if slope:
                limits.append((capacity - fixed) // slope)
        return min(limits)

    @cached_property
    def summits(self) -> tuple[Moment, ...]:
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
        while hull and (hull[-1].total.at(1) <= moment.total.at(1) or (len(hull) > 1 and _hidden(*hull[-2:], moment))):
            hull.pop()
        hull.append(moment)
    return hull


def _hidden(low: Moment, middle: Moment, high: Moment) -> bool:
    """Whether the middle of three lines by rising slope is nowhere above both others."""
    (a, p), (b, q), (c, r) = low.total, middle.total, high.total
    return (a - b) * (r - q) >= (b - c) * (q - p)


@dataclass
class Ledger:
    """Written while a step is walked. A tensor is known by the number that `allocate` gives; it is freed when as many
    holds as it has are released.
    """

    event: str = "start"
    layer: str = ""
    moments: list[Moment] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    _kinds: list[int] = field(default_factory=list)
    _sizes: list[Line] = field(default_factory=list)
    _holds: list[int] = field(default_factory=list)
    _alive: list[Line] = field(default_factory=lambda: [Line(0, 0)] * len(KINDS))
    _risen: bool = True

    def begin(self, event: str, layer: str = "") -> None:
        """What is written from now on belongs to this event."""
        if self._risen:
            self._mark()
        self.event, self.layer, self._risen = event, layer, True

    def allocate(self, kind: str, size: Line) -> int:
        """A new tensor with one hold; its number."""
        tensor = len(self._sizes)
        self._kinds.append(KINDS.index(kind))
        self._sizes.append(size)
        self._holds.append(1)
        self._count(tensor, 1)
        self.entries.append(Entry(tensor, size))
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
        self._count(tensor, -1)
        self.entries.append(Entry(tensor, None))

    def is_single(self, tensor: int) -> bool:
        """Whether one hold is left."""
        return self._holds[tensor] == 1

    def finish(self, resident: int) -> Trace:
        """The book, closed."""
        if self._risen:
            self._mark()
        return Trace(tuple(self.moments), tuple(self.entries), resident)

    def _mark(self) -> None:
        alive = tuple(self._alive)
        total = Line(sum(line.fixed for line in alive), sum(line.per_sample for line in alive))
        self.moments.append(Moment(self.event, self.layer, alive, total))
        self._risen = False

    def _count(self, tensor: int, sign: int) -> None:
        kind, size, alive = self._kinds[tensor], self._sizes[tensor], self._alive
        alive[kind] = Line(alive[kind].fixed + sign * size.fixed, alive[kind].per_sample + sign * size.per_sample)
