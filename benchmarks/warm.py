"""The time that one tool takes in a process that has everything loaded, for models that are already there.

    python benchmarks/warm.py TOOL [MODEL...]

Prints JSON: for each model the median CPU and wall seconds of a call. A module is made on torch's meta device where
the tool takes it so; where it does not, the module is real and the forward pass is part of the time. One tool to a
process, because some change torch's functions for good.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

SIZE = (3, 224, 224)
MODELS = ("vgg16", "resnet50", "swin_v2_b")

Work = Callable[[], object]


def made(name: str, device: str = "meta") -> nn.Module:
    """torchvision's model of this name on a device."""
    import torch
    from torchvision import models

    with torch.device(device):
        module: nn.Module = models.get_model(name).eval()
    return module


def costs(name: str) -> Work:
    """Of a Network that is there, as a module is there for the others: what torchinfo shows."""
    from vggscope.analysis.cost import costs
    from vggscope.sources.resolve import resolve

    network = resolve(f"torchvision:{name}")
    # A copy has not been asked for its shapes yet.
    return lambda: costs(replace(network))


def summarize(name: str) -> Work:
    """The same Network: all that `summary` shows, memory and receptive fields among it."""
    from vggscope.analysis.summary import summarize
    from vggscope.sources.resolve import resolve

    network = resolve(f"torchvision:{name}")
    return lambda: summarize(replace(network))


def trace(name: str) -> Work:
    """An nn.Module that we have not seen before."""
    from vggscope.analysis.cost import costs
    from vggscope.trace.network import network_of

    module = made(name)
    return lambda: costs(network_of(module, name, SIZE))


def torchinfo(name: str) -> Work:
    """torchinfo on the meta device."""
    import torchinfo

    module = made(name)
    return lambda: torchinfo.summary(module, (1, *SIZE), device="meta", verbose=0)


def flop_counter(name: str) -> Work:
    """torch's own counter on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module, batch = made(name), torch.zeros(1, *SIZE, device="meta")

    def count() -> None:
        with torch.no_grad(), FlopCounterMode(display=False):
            module(batch)

    return count


def torchview(name: str) -> Work:
    """torchview's graph on the meta device, not drawn."""
    import torchview

    module = made(name)
    return lambda: torchview.draw_graph(module, input_size=(1, *SIZE), device="meta")


def torchscan(name: str) -> Work:
    """torchscan on the meta device."""
    import torchscan

    module = made(name)
    return lambda: torchscan.crawl_module(module, SIZE)


def fvcore(name: str) -> Work:
    """fvcore, which runs the forward under torch.jit.trace: real tensors."""
    import torch
    from fvcore.nn import FlopCountAnalysis

    module, batch = made(name, "cpu"), torch.zeros(1, *SIZE)
    return lambda: FlopCountAnalysis(module, batch).total()


def ptflops(name: str) -> Work:
    """ptflops, which makes its own batch: real tensors."""
    from ptflops import get_model_complexity_info

    module = made(name, "cpu")
    return lambda: get_model_complexity_info(module, SIZE, as_strings=False, print_per_layer_stat=False)


def torchlens(name: str) -> Work:
    """torchlens, which keeps every value: real tensors."""
    import torch
    import torchlens

    module, batch = made(name, "cpu"), torch.zeros(1, *SIZE)
    return lambda: torchlens.trace(module, batch)


TOOLS: dict[str, tuple[Callable[[str], Work], int]] = {
    "costs": (costs, 30),
    "summarize": (summarize, 30),
    "trace": (trace, 15),
    "torchinfo": (torchinfo, 30),
    "flop_counter": (flop_counter, 30),
    "torchview": (torchview, 15),
    "torchscan": (torchscan, 15),
    "fvcore": (fvcore, 3),
    "ptflops": (ptflops, 3),
    "torchlens": (torchlens, 3),
}
"""What prepares a tool's work for a model, and how often that is run."""


def median(work: Work, runs: int) -> dict[str, float]:
    """Median seconds of some runs, after one that fills the caches."""
    work()
    cpu, wall = [], []
    for _ in range(runs):
        at_cpu, at_wall = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - at_cpu)
        wall.append(time.perf_counter() - at_wall)
    return {"cpu": statistics.median(cpu), "wall": statistics.median(wall)}


def main() -> None:
    """Measure and print."""
    tool, *models = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    prepare, runs = TOOLS[tool]
    found = {}
    for name in models or MODELS:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            found[name] = median(prepare(name), runs)
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
