"""Measure a summary as the network, the input, the batch and the number of models grow, and a grid of memory estimates.

    python benchmarks/growth.py

Prints JSON: for each quantity its values and the CPU seconds at each. No torch is loaded.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial

from vggscope.analysis.compare import compare
from vggscope.analysis.memory.grid import grid
from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.analysis.summary import summarize
from vggscope.graph import Network
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions


def seconds(work: Callable[[], object]) -> float:
    """CPU seconds, the minimum of three runs, since other processes only add time."""
    times = []
    for _ in range(3):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def chain(layers: int) -> Network:
    """A network of so many 3x3 convolutions, each with its ReLU."""
    return resolve(" ".join(["conv3-8"] * layers) + " maxpool FC-10", BuildOptions(input=(3, 32, 32)))


def column(side: int) -> Network:
    """Column D on a square input."""
    return resolve("D", BuildOptions(input=(3, side, side)))


GRID_COLUMNS = [name + norm for name in ("A", "A-LRN", "B", "C", "D", "E") for norm in ("", "_bn")]
GRID_SIDES = range(64, 384, 16)
GRID_BATCHES = range(1, 210)
GRID_DTYPES = ("float32", "float16", "bfloat16", "amp")


def estimates() -> int:
    """Make a million different estimates of a training step's memory; return their number."""
    networks = (resolve(name, BuildOptions(input=(3, side, side))) for name in GRID_COLUMNS for side in GRID_SIDES)
    configs = [StepConfig(optimizer=optimizer, dtype=dtype) for optimizer in OPTIMIZERS for dtype in GRID_DTYPES]
    return sum(1 for _ in grid(networks, GRID_BATCHES, configs))


CURVES: dict[str, tuple[Callable[[int], object], tuple[int, ...]]] = {
    "layers": (lambda n: summarize(chain(n)), (30, 100, 300, 1000, 3000, 10000)),
    "side of the input": (lambda side: summarize(column(side)), (32, 64, 128, 256, 512, 1024)),
    "batch": (lambda batch: summarize(column(224), batch), (1, 10, 100, 1000, 10**4, 10**5, 10**6)),
    "models": (lambda n: compare([column(224) for _ in range(n)]), (1, 3, 10, 30, 100)),
}


def main() -> None:
    """Measure and print."""
    curves = {
        name: {value: seconds(partial(work, value)) for value in values} for name, (work, values) in CURVES.items()
    }
    started = time.process_time()
    count = estimates()
    json.dump({"curves": curves, "estimates": count, "estimates_seconds": time.process_time() - started}, sys.stdout)


if __name__ == "__main__":
    main()
