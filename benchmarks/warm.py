"""Measure one tool in a warm process: all imports done, the models built.

    python benchmarks/warm.py TOOL MOST_RUNS [MODEL...]

Prints JSON: the CPU seconds of the first call for each model, and the median CPU and wall seconds of those after it, or
`error`, what the tool raised. MODEL is torchvision's name, or timm's after `timm:`. The tool has run on another model
before, so that the first call imports nothing. The module is on torch's meta device if the tool supports it; otherwise
it is real, and the time includes the forward pass. Each tool needs its own process, because some change torch's
functions permanently.
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

MODELS = ("vgg16", "resnet50", "swin_v2_b")
OTHER = "squeezenet1_0"
"""The model on which each tool runs before the others."""

Work = Callable[[], object]


def made(name: str, device: str = "meta") -> nn.Module:
    """The model of this name on a device."""
    import torch

    try:
        with torch.device(device):
            module = _create(name)
    except NotImplementedError:  # __init__ computes with data, which tensors on the meta device do not have
        module = _create(name).to(device)
    return module.eval()


def _create(name: str) -> nn.Module:
    library, _, own_name = name.rpartition(":")
    if library == "timm":
        import timm

        module: nn.Module = timm.create_model(own_name)
    else:
        from torchvision import models

        module = models.get_model(own_name)
    return module


def size(module: nn.Module) -> tuple[int, ...]:
    """The image that a model of timm states, or one of 224 by 224 pixels."""
    return tuple(getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))


def word(name: str) -> str:
    """The word for a model of this name."""
    return name if ":" in name else f"torchvision:{name}"


def costs(name: str) -> Work:
    """vggscope on an existing Network: the content of torchinfo."""
    from vggscope.analysis.cost import costs
    from vggscope.sources.resolve import resolve

    network = resolve(word(name))
    # A copy has no cached shapes.
    return lambda: costs(replace(network))


def summarize(name: str) -> Work:
    """vggscope on an existing Network: all that `summary` shows, including memory and receptive fields."""
    from vggscope.analysis.summary import summarize
    from vggscope.sources.resolve import resolve

    network = resolve(word(name))
    return lambda: summarize(replace(network))


def trace(name: str) -> Work:
    """vggscope on an nn.Module: the content of torchinfo, for the same batch."""
    from vggscope.analysis.cost import costs
    from vggscope.trace.network import network_of

    module = made(name)
    return lambda: costs(network_of(module, name, size(module), batch=1, memory=False))


def trace_summary(name: str) -> Work:
    """vggscope on an nn.Module: all that `summary` shows."""
    import vggscope

    module = made(name)
    return lambda: vggscope.summary(module, input_size=(1, *size(module)))


def torchinfo(name: str) -> Work:
    """torchinfo on the meta device."""
    import torchinfo

    module = made(name)
    return lambda: torchinfo.summary(module, (1, *size(module)), device="meta", verbose=0)


def flop_counter(name: str) -> Work:
    """torch's own counter on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    module = made(name)
    batch = torch.zeros(1, *size(module), device="meta")

    def count() -> None:
        with torch.no_grad(), FlopCounterMode(display=False):
            module(batch)

    return count


def torchview(name: str) -> Work:
    """torchview's graph on the meta device, not drawn."""
    import torchview

    module = made(name)
    return lambda: torchview.draw_graph(module, input_size=(1, *size(module)), device="meta")


def torchscan(name: str) -> Work:
    """torchscan on the meta device."""
    import torchscan

    module = made(name)
    return lambda: torchscan.crawl_module(module, size(module))


def calflops(name: str) -> Work:
    """calflops on the meta device."""
    from calflops import calculate_flops

    module = made(name)
    shape = (1, *size(module))
    return lambda: calculate_flops(module, input_shape=shape, print_results=False, output_as_string=False)


def fvcore(name: str) -> Work:
    """fvcore, which runs forward in torch.jit.trace: real tensors."""
    import torch
    from fvcore.nn import FlopCountAnalysis

    module = made(name, "cpu")
    batch = torch.zeros(1, *size(module))
    return lambda: FlopCountAnalysis(module, batch).total()


def ptflops(name: str) -> Work:
    """ptflops, which creates its own batch: real tensors."""
    from ptflops import get_model_complexity_info

    module = made(name, "cpu")
    return lambda: get_model_complexity_info(module, size(module), as_strings=False, print_per_layer_stat=False)


def torchlens(name: str) -> Work:
    """torchlens, which saves every value: real tensors."""
    import torch
    import torchlens

    module = made(name, "cpu")
    batch = torch.zeros(1, *size(module))
    return lambda: torchlens.trace(module, batch)


TOOLS: dict[str, tuple[Callable[[str], Work], int]] = {
    "costs": (costs, 30),
    "summarize": (summarize, 30),
    "trace": (trace, 15),
    "trace_summary": (trace_summary, 15),
    "torchinfo": (torchinfo, 30),
    "flop_counter": (flop_counter, 30),
    "torchview": (torchview, 15),
    "torchscan": (torchscan, 15),
    "calflops": (calflops, 15),
    "fvcore": (fvcore, 3),
    "ptflops": (ptflops, 3),
    "torchlens": (torchlens, 3),
}
"""The function that prepares each tool, and its number of runs."""


def median(work: Work, runs: int) -> dict[str, float]:
    """CPU seconds of the first run, which fills the caches, and median seconds of those after it."""
    start = time.process_time()
    work()
    first = time.process_time() - start
    cpu, wall = [], []
    for _ in range(runs):
        at_cpu, at_wall = time.process_time(), time.perf_counter()
        work()
        cpu.append(time.process_time() - at_cpu)
        wall.append(time.perf_counter() - at_wall)
    if not runs:
        return {"first": first}
    return {"first": first, "cpu": statistics.median(cpu), "wall": statistics.median(wall)}


def _quietly(prepare: Callable[[str], Work], name: str, runs: int) -> dict[str, float] | dict[str, str]:
    """The times of a tool on a model, without what it prints, or the error that it raised."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        try:
            return median(prepare(name), runs)
        except Exception as error:  # what a tool raises is a result too
            return {"error": f"{type(error).__name__}: {error}"[:200]}


def main() -> None:
    """Measure and print."""
    tool, most, *models = sys.argv[1:]
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    prepare, runs = TOOLS[tool]
    _quietly(prepare, OTHER, 0)
    times: dict[str, dict[str, float] | dict[str, str]] = {}
    for name in models or MODELS:
        times[name] = _quietly(prepare, name, min(runs, int(most)))
    json.dump(times, sys.stdout)


if __name__ == "__main__":
    main()
