"""Peak memory over a grid: many networks, batches, optimizers and dtypes at once.

The passes of a step are simulated once for each network and element width. The peak is then the maximum of a few
linear functions of the batch. The optimizer adds its states to all of them, and its step is simulated by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import repeat
from typing import Any, NamedTuple

from vggscope.analysis.memory.allocation_log import AllocationLog, BatchLinear
from vggscope.analysis.memory.simulate import (
    allocate_optimizer_states,
    of_step,
    simulate_optimizer,
    simulate_passes,
    trained_parameters,
)
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.dtypes import converted, dtype_of
from vggscope.graph import Network
from vggscope.ops.base import Shape
from vggscope.plain_data import plain_value
from vggscope.result import Tabular

BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
"""The default batches."""


class Estimate(NamedTuple):
    """One point of the grid. `input_shape` is without the batch; `optimizer` is None at inference."""

    model: str
    input_shape: Shape
    mode: str
    optimizer: str | None
    dtype: str
    batch: int
    peak_bytes: int


class Grid(Tabular):
    """The points of a grid, in order, computed one at a time as they are read. Each read starts from the first point.

    `next(points)` reads on from the point before.
    """

    def __init__(self, estimates: Callable[[], Iterator[Estimate]]) -> None:
        self._estimates = estimates
        self._unread: Iterator[Estimate] | None = None

    def __iter__(self) -> Iterator[Estimate]:
        return self._estimates()

    def __next__(self) -> Estimate:
        if self._unread is None:
            self._unread = self._estimates()
        return next(self._unread)

    def _columns(self) -> dict[str, list[Any]]:
        return {name: plain_value(values) for name, values in self.columns().items()}

    def to_dict(self) -> dict[str, list[dict[str, Any]]]:
        """The points as plain dicts, with the fields of `compare --grid --format jsonl`.

        >>> import vggscope
        >>> vggscope.grid("A", batches=[1, 64]).to_dict()["points"][1]["peak_bytes"]
        4749085928
        """
        return {"points": [dict(zip(Estimate._fields, map(plain_value, point))) for point in self]}

    def columns(self) -> dict[str, list[Any]]:
        """The points as a list for each field of Estimate: pandas, polars and pyarrow make a table of it.

        >>> import vggscope
        >>> vggscope.grid("A", batches=[1, 64]).columns()["peak_bytes"]
        [1637681904, 4749085928]
        """
        columns: dict[str, list[Any]] = {name: [] for name in Estimate._fields}
        for estimate in self:
            for column, value in zip(columns.values(), estimate):
                column.append(value)
        return columns


def grid(networks: Iterable[Network], batches: Sequence[int], configs: Sequence[StepConfig]) -> Iterator[Estimate]:
    """Yield the peak of each network with each config at each batch, in that order; each equals `memory`'s.

    Raises ShapeError for a network that does not run.

    >>> from vggscope.sources.resolve import resolve
    >>> configs = [StepConfig(), StepConfig(optimizer="adam")]
    >>> [estimate.peak_bytes for estimate in grid([resolve("A")], [1, 64], configs)]
    [1637681904, 4749085928, 2657868844, 5280539272]
    """
    keys = {_key(config) for config in configs}
    for network in networks:
        batched = network.for_batch(2)
        one_sample: dict[StepConfig, Sizes] = {}
        more_samples: dict[StepConfig, Sizes] = {}
        for config in configs:
            key, samples = _key(config), [config.samples(batch) for batch in batches]
            network.require_batch(max(samples, default=1))
            if key not in more_samples:
                more_samples.update(_peak_sizes(batched, key, keys))
                # Networks with a batch variant of an op need other sizes for one sample.
                one_sample.update(more_samples if batched is network else _peak_sizes(network, key, keys))
            optimizer = config.optimizer if config.trains else None
            point = (network.name, network.input_shape[1:], config.mode, optimizer, config.dtype or dtype_of(network))
            peaks = largest_at(more_samples[key], samples)
            if batched is not network:
                peaks_of_one = largest_at(one_sample[key], samples)
                peaks = [one if n == 1 else peak for n, one, peak in zip(samples, peaks_of_one, peaks)]
            yield from map(Estimate, *map(repeat, point), batches, peaks)


def step_configs(modes: Sequence[str], optimizers: Sequence[str], dtypes: Sequence[str]) -> list[StepConfig]:
    """One config for each mode, optimizer and dtype. At inference the optimizer makes no difference.

    Raises OptionError for an unknown name.

    >>> len(step_configs(["train", "inference"], ["sgd", "adam"], ["float32"]))
    3
    """
    configs = (
        StepConfig(mode, optimizer, dtype)
        for mode in modes
        for optimizer in (optimizers if mode != "inference" else optimizers[:1])
        for dtype in dtypes
    )
    return list(dict.fromkeys(configs))


Sizes = tuple[BatchLinear, ...]


def largest_at(sizes: Sequence[BatchLinear], samples: Sequence[int]) -> list[int]:
    """The largest of the sizes in bytes, for each number of samples.

    >>> largest_at([BatchLinear(10, 1), BatchLinear(0, 3)], [1, 5, 6])
    [11, 15, 18]
    """
    first, *rest = ([fixed + per_sample * n for n in samples] for fixed, per_sample in sizes)
    return list(map(max, first, *rest)) if rest else first


def _key(config: StepConfig) -> StepConfig:
    """One config for all that need the same memory. Of a dtype only the width matters."""
    is_half = config.dtype in ("float16", "bfloat16")
    config = config if config.trains else config.without_optimizer
    return replace(config, dtype="float16") if is_half else config


def _peak_sizes(network: Network, config: StepConfig, wanted: set[StepConfig]) -> Iterator[tuple[StepConfig, Sizes]]:
    """Yield each wanted config that differs only in the optimizer, with the sizes that may be its peak."""
    network = of_step(converted(network, config.converts_to), config)
    trained = trained_parameters(network, config)
    stateless = config.without_optimizer
    log = AllocationLog()
    simulate_passes(log, network, stateless, trained)
    log.begin("optimizer step")
    timeline = log.finish(0, 0)
    after_passes = timeline.moments[-1].total
    peaks = [moment.total for moment in timeline.peak_candidates]
    for other in wanted:
        if other.without_optimizer != stateless:
            continue
        if not other.trains:
            yield other, tuple(peaks)
            continue
        log = AllocationLog()
        allocate_optimizer_states(log, network, other, trained)
        simulate_optimizer(log, network, other, trained)
        states, *steps = (moment.total for moment in log.finish(0, 0).moments)
        yield other, tuple(_largest([_sum(states, peak) for peak in peaks] + [_sum(after_passes, s) for s in steps]))


def _sum(one: BatchLinear, other: BatchLinear) -> BatchLinear:
    return BatchLinear(one.fixed + other.fixed, one.per_sample + other.per_sample)


def _largest(sizes: Iterable[BatchLinear]) -> Iterator[BatchLinear]:
    """The largest of the sizes with the same bytes per sample."""
    fixed_bytes: dict[int, int] = {}
    for fixed, per_sample in sizes:
        fixed_bytes[per_sample] = max(fixed, fixed_bytes.get(per_sample, fixed))
    return (BatchLinear(fixed, per_sample) for per_sample, fixed in fixed_bytes.items())
