"""The peak of a step over a grid: many networks, batches, optimizers and dtypes at once.

The passes of a step are walked once for a network and a width of its numbers. Over the batch a peak is the highest of
a few straight lines, so that each batch costs a few products; an optimizer adds its states to all of them, and its
step, which comes behind the passes, is walked by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import NamedTuple

from vggscope.analysis.memory.allocation_log import AllocationLog, BatchLinear
from vggscope.analysis.memory.simulate import passes, states, step, trained
from vggscope.analysis.memory.step_config import AMP, StepConfig
from vggscope.graph import Network
from vggscope.ops.base import Shape

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""Where none are given."""

STATELESS = "sgd"
"""The optimizer that keeps nothing."""


class Estimate(NamedTuple):
    """One point of the grid. `input_shape` is without the batch; `optimizer` is None where none runs."""

    model: str
    input_shape: Shape
    mode: str
    optimizer: str | None
    dtype: str
    batch: int
    peak_bytes: int


def grid(networks: Iterable[Network], batches: Sequence[int], setups: Sequence[StepConfig]) -> Iterator[Estimate]:
    """The peak of each network with each setup at each batch, `memory`'s to the byte, in that order and one at a time.

    Raises ShapeError where a layer does not fit.

    >>> from vggscope.sources.resolve import resolve
    >>> [found.peak_bytes for found in grid([resolve("A")], [1, 64], [StepConfig(), StepConfig(optimizer="adam")])]
    [1637681904, 4749085928, 2948501132, 5280539272]
    """
    for network in networks:
        alone, several = network, network.for_batch(2)
        known: dict[tuple[bool, StepConfig], tuple[BatchLinear, ...]] = {}
        for setup in setups:
            key, samples = _key(setup), [setup.samples(batch) for batch in batches]
            network.require_batch(max(samples, default=1))
            for laid_out, more in ((several, True), *(((alone, False),) if several is not alone else ())):
                if (more, key) not in known:
                    found = _peaks(laid_out, key, {_key(other) for other in setups})
                    known.update(((more, found_key), lines) for found_key, lines in found)
            optimizer = setup.optimizer if setup.trains else None
            point = (network.name, network.input_shape[1:], setup.mode, optimizer, setup.dtype)
            peaks = highest(known[True, key], samples)
            if several is not alone:
                ones = highest(known[False, key], samples)
                peaks = [one if n == 1 else peak for n, one, peak in zip(samples, ones, peaks)]
            yield from map(Estimate, *map(repeat, point), batches, peaks)


def setups(modes: Sequence[str], optimizers: Sequence[str], dtypes: Sequence[str]) -> list[StepConfig]:
    """One for each mode, optimizer and dtype; without a backward pass an optimizer makes no difference.

    Raises OptionError for an unknown name.

    >>> len(setups(["train", "inference"], ["sgd", "adam"], ["float32"]))
    3
    """
    found = (
        StepConfig(mode, optimizer, dtype)
        for mode in modes
        for optimizer in (optimizers if mode != "inference" else optimizers[:1])
        for dtype in dtypes
    )
    return list(dict.fromkeys(found))


def highest(lines: Sequence[BatchLinear], samples: Sequence[int]) -> list[int]:
    """The highest of the lines at each number of samples.

    >>> highest([BatchLinear(10, 1), BatchLinear(0, 3)], [1, 5, 6])
    [11, 15, 18]
    """
    first, *rest = ([fixed + per_sample * n for n in samples] for fixed, per_sample in lines)
    return list(map(max, first, *rest)) if rest else first


def _key(setup: StepConfig) -> StepConfig:
    """The setup that takes the same memory and stands for all that do: what counts of a dtype is its width."""
    narrow = setup.dtype != AMP and setup.width == 2
    return replace(
        setup, dtype="float16" if narrow else setup.dtype, optimizer=setup.optimizer if setup.trains else STATELESS
    )


def _peaks(
    network: Network, setup: StepConfig, wanted: set[StepConfig]
) -> Iterator[tuple[StepConfig, tuple[BatchLinear, ...]]]:
    """The lines of this setup and of those that are wanted and differ from it in the optimizer alone."""
    learned = trained(network, setup)
    bare = replace(setup, optimizer=STATELESS)
    walk, _ = passes(network, bare, learned)
    walk.ledger.begin("optimizer step")
    moments = walk.ledger.finish(0, 0)
    left = moments.moments[-1].total
    peak_candidates = [moment.total for moment in moments.peak_candidates]
    for other in wanted:
        if replace(other, optimizer=STATELESS) != bare:
            continue
        if not other.trains:
            yield other, tuple(peak_candidates)
            continue
        walk.ledger = AllocationLog()
        states(walk.ledger, other, learned)
        step(walk, other, learned)
        kept, *during = (moment.total for moment in walk.ledger.finish(0, 0).moments)
        yield (
            other,
            tuple(_steepest([_sum(kept, line) for line in peak_candidates] + [_sum(left, line) for line in during])),
        )


def _sum(one: BatchLinear, other: BatchLinear) -> BatchLinear:
    return BatchLinear(one.fixed + other.fixed, one.per_sample + other.per_sample)


def _steepest(lines: Iterable[BatchLinear]) -> Iterator[BatchLinear]:
    """Of lines that rise alike the highest."""
    highest_of: dict[int, int] = {}
    for fixed, per_sample in lines:
        highest_of[per_sample] = max(fixed, highest_of.get(per_sample, fixed))
    return (BatchLinear(fixed, per_sample) for per_sample, fixed in highest_of.items())
