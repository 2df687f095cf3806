"""Print docs/memory.md's table of several GPUs: vggscope's peak of a rank beside that of torch's own classes.

python benchmarks/sharding_truth.py. It takes some minutes and 6 GB of memory: the weights have data.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

sys.path.insert(0, str(Path(__file__).parent.parent))

import vggscope
from vggscope.analysis.memory.allocation_log import KINDS
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import PARALLEL, StepConfig
from vggscope.inputs import InputSize
from vggscope.trace.inputs import from_sizes
from vggscope.trace.network import network_of

SAMPLES, GPUS = 4, 4


def models() -> Iterator[tuple[str, int, Callable[[], nn.Module]]]:
    """The name, the input's side and the maker of each model."""
    import timm
    import torchvision

    yield "D", 64, lambda: vggscope.build("D", (3, 64, 64))
    yield "torchvision:resnet50", 64, torchvision.models.resnet50
    yield "timm:vit_tiny_patch16_224", 224, lambda: timm.create_model("vit_tiny_patch16_224")


def row(name: str, side: int, make: Callable[[], nn.Module], parallel: str) -> str:
    from tests.sharded import fullest_rank, peaks_of_rank

    config = StepConfig(optimizer="adam", gpus=GPUS, parallel=parallel, runtime="tracker")
    request = config.request
    steps = () if request is None else (replace(request, samples=SAMPLES),)
    module = make()
    network = network_of(module, name, from_sizes(module, [InputSize((3, side, side))]), steps=steps)
    network = network.for_batch(SAMPLES)
    peak = simulate_step(network, config).peak(SAMPLES)
    ours = peak.total.at(SAMPLES) - peak.alive[KINDS.index("input")].at(SAMPLES)
    rank = fullest_rank(network, GPUS) if parallel == "zero1" else 0
    torchs = max(peaks_of_rank(make, network, config, torch.zeros(SAMPLES, 3, side, side), rank))
    return f"| `{name}` | {side} | `{parallel}` | {ours:,} | {torchs:,} | {ours - torchs:,} |"


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    print("| model | side | scheme | vggscope | torch | difference |", "|---|---:|---|---:|---:|---:|", sep="\n")
    for name, side, make in models():
        for parallel in PARALLEL:
            print(row(name, side, make, parallel), flush=True)
