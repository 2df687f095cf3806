"""Measure one tool in a warm process: all imports done, the models built.

    python benchmarks/warm.py TOOL MOST_RUNS [MODEL...]

Prints JSON: the median CPU and wall seconds of a call for each model. The module is on torch's meta device if the tool
supports it; otherwise it is real, and the time includes the forward pass. Each tool needs its own process, because some
change torch's functions permanently.
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
    """vggscope on an existing Network: the content of torchinfo."""
    from vggscope.analysis.cost import costs
    from vggscope.sources.resolve import resolve

    network = resolve(f"torchvision:{name}")
    # A copy has no cached shapes.
    return lambda: costs(replace(network))


def summarize(name: str) -> Work:
    """vggscope on an existing Network: all that `summary` shows, including memory and receptive fields."""
    from vggscope.analysis.summary import summarize
    from vggscope.sources.resolve import resolve

    network = resolve(f"torchvision:{name}")
    return lambda: summarize(replace(network))


def trace(name: str) -> Work:
    """vggscope on a new nn.Module."""
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
    """fvcore, which runs forward in torch.jit.trace: real tensors."""
    import torch
    from fvcore.nn import FlopCountAnalysis

    module, batch = made(name, "cpu"), torch.zeros(1, *SIZE)
    return lambda: FlopCountAnalysis(module, batch).total()


def ptflops(name: str) -> Work:
    """ptflops, which creates its own batch: real tensors."""
    from ptflops import get_model_complexity_info

    module = made(name, "cpu")
    return lambda: get_model_complexity_info(module, SIZE, as_strings=False, print_per_layer_stat=False)


def torchlens(name: str) -> Work:
    """torchlens, which saves every value: real tensors."""
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
"""The function that prepares each tool, and its number of runs."""


def median(work: Work, runs: int) -> dict[str, float]:
    """Median seconds of the runs, after one that fills the caches."""
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
    tool, most, *models = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    prepare, runs = TOOLS[tool]
    times = {}
    for name in models or MODELS:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            times[name] = median(prepare(name), min(runs, int(most)))
    json.dump(times, sys.stdout)


if __name__ == "__main__":
    main()
