"""The bytes alive at each local maximum of a step: those of the rules held to a recording of torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby

from torch import nn

from vggscope.analysis.memory.allocation_log import StepTimeline
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.graph import Network
from vggscope.inputs import InputSize
from vggscope.trace.inputs import from_sizes
from vggscope.trace.step import recorded_steps


def maxima(timeline: StepTimeline, batch: int) -> list[int]:
    """The bytes alive at each local maximum of the passes, in order."""
    sizes: dict[int, int] = {}
    alive, levels = 0, [0]
    for entry in timeline.entries[: timeline.optimizer_start]:
        if entry.size is not None:
            sizes[entry.tensor] = entry.size.at(batch)
        alive += sizes[entry.tensor] if entry.size is not None else -sizes[entry.tensor]
        levels.append(alive)
    levels = [level for level, _ in groupby(levels)]
    inner = zip(levels, levels[1:], [*levels[2:], 0])
    return [level for before, level, after in inner if before < level > after]


def require_equal_maxima(
    module: nn.Module, network: Network, size: tuple[int, ...], *, modes: Sequence[str] = ("train", "inference")
) -> None:
    """Compare the rules with a recording of torch on a GPU and under the tracker, and each optimizer's peak.

    The tracker is left out where the rules need the kernels of a GPU.
    """
    runtimes = ("cuda",) if network.needs_gpu else ("cuda", "tracker")
    inputs = from_sizes(module, [InputSize(size)])
    for mode in modes:
        for batch in (1, 2, 5):
            for runtime in runtimes:
                config = StepConfig(mode=mode, optimizer="sgd", runtime=runtime)
                assert config.request is not None
                request = replace(config.request, samples=batch)
                steps, failure, _ = recorded_steps(module, network, inputs, request, has_data=False)
                assert failure is None
                both = replace(network, steps=()).for_batch(batch), replace(network, steps=steps).for_batch(batch)
                ours, torchs = (maxima(simulate_step(one, config), batch) for one in both)
                assert ours == torchs, (mode, batch, runtime)
                for optimizer in ("sgd-momentum", "adam"):
                    other = replace(config, optimizer=optimizer)
                    assert len({simulate_step(one, other).peak_bytes(batch) for one in both}) == 1
