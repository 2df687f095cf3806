"""`memory --measure` on a GPU, with counters that stand for one: everything else runs, on the CPU."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import vggscope
from vggscope.cross_checks import gpu_counters
from vggscope.cross_checks.gpu_counters import ALL, OWN, GpuCounters, GpuPeaks
from vggscope.errors import ModelError, OptionError

MIB = 2**20
SIZE = (2, 3, 16, 16)


class CpuCounters(GpuCounters):
    """Counters that are always the same, of a CPU that is called a T4. `calls` are the methods, and forward passes."""

    device = "cpu"
    name = "Tesla T4"  # type: ignore[assignment]
    total_bytes = 14904 * MIB  # type: ignore[assignment]
    versions = "torch 2, cuDNN 9"  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")

    def empty(self) -> None:
        self.calls.append("empty")

    def reset_peaks(self) -> None:
        self.calls.append("reset")

    def peaks(self, *, ran_out: bool = False) -> GpuPeaks:
        self.calls.append("peaks")
        return GpuPeaks(10 * MIB, 20 * MIB, 30 * MIB, 600 * MIB, OWN, ran_out)


class Net(nn.Module):
    """A network that calls a function at each forward pass."""

    def __init__(self, tell: Callable[[], None]) -> None:
        super().__init__()
        self.conv, self.tell = nn.Conv2d(3, 8, 3), tell

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.tell()
        return self.conv(x).mean((2, 3))


def told(counters: CpuCounters, full: int | None = None) -> Net:
    """A network that tells the counters about each forward pass, and runs out of memory in the `full`th."""

    def tell() -> None:
        if counters.calls:  # not while the network is traced
            counters.calls.append("forward")
            if counters.calls.count("forward") == full:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")

    return Net(tell)


@pytest.fixture
def counters(monkeypatch: pytest.MonkeyPatch) -> CpuCounters:
    found = CpuCounters()
    monkeypatch.setattr(gpu_counters, "gpu_counters", lambda device: found)
    return found


@pytest.mark.parametrize("mode", ["train", "inference"])
def test_a_step_is_measured_after_two_others(counters: CpuCounters, mode: Any) -> None:
    """The allocator is empty before the first: the labels of the loss need a forward pass too."""
    vggscope.measure(told(counters), SIZE, optimizer="adam", mode=mode)
    steps = ["forward", "forward", "reset", "forward"]
    assert counters.calls == ["start", "forward", "empty", *steps, "peaks"]


def test_each_prediction_stands_beside_its_counter(counters: CpuCounters) -> None:
    measured = vggscope.measure("conv3-8 maxpool FC-10", SIZE, optimizer="adam")
    memory = vggscope.memory("conv3-8 maxpool FC-10", SIZE, optimizer="adam", gpu="T4")
    assert memory.fit is not None
    assert {figure.figure: (figure.predicted_bytes, figure.measured_bytes) for figure in measured.figures} == {
        "tensors": (memory.peak_bytes, 10 * MIB),
        "allocated": (memory.allocated_bytes, 20 * MIB),
        "reserved": (memory.reserved_bytes, 30 * MIB),
        "driver": (memory.fit.nvidia_smi_bytes, 600 * MIB),
    }
    assert measured.gpu == "T4"
    assert (measured.predicted_bytes, measured.measured_bytes) == (memory.allocated_bytes, 20 * MIB)
    assert "Tesla T4, torch 2, cuDNN 9" in measured.witness


def test_the_command_prints_the_differences(counters: CpuCounters, vggscope: Callable) -> None:
    words = ("memory", "conv3-8 FC-10", "--input", "3x16x16", "--measure")
    text = vggscope(*words).out
    assert "driver     514.00 MiB  600.00 MiB  -86.00 MiB  -14.3%" in text  # 2 MiB of segments, 512 MiB of context
    assert "what the driver shows after the step: this process" in text
    printed = json.loads(vggscope(*words, "--gpu", "24GiB", "--context", "1GiB", "--format", "json").out)
    assert printed["gpu"] == "24GiB"
    assert printed["figures"][-1]["predicted_bytes"] == (1024 + 2) * MIB


@pytest.mark.parametrize("full", [1, 2, 4])
def test_a_full_card_is_an_error_with_the_figures_until_then(counters: CpuCounters, full: int) -> None:
    with pytest.raises(ModelError) as raised:
        vggscope.measure(told(counters, full), SIZE)
    assert raised.value.args[0].startswith(
        "batch 2 of Net does not fit Tesla T4: it ran out of memory with 20.00 MiB allocated, 30.00 MiB reserved and "
        "600.00 MiB shown by the driver (this process) of 14,904.00 MiB; predicted for T4: 514.00 MiB"
    )
    assert counters.calls[-1] == "peaks"


def test_cudnn_tries_its_algorithms_while_it_is_measured(counters: CpuCounters) -> None:
    tried = []
    counters.reset_peaks = lambda: tried.append(torch.backends.cudnn.benchmark)  # type: ignore[method-assign]
    before = torch.backends.cudnn.benchmark
    for choice in ("benchmark", "heuristic"):
        vggscope.measure("conv3-8 FC-10", SIZE, cudnn=choice)  # type: ignore[arg-type]
    assert tried == [True, False]
    assert torch.backends.cudnn.benchmark == before


@pytest.mark.parametrize("given", [{"gpu": "T4"}, {"context": "1GiB"}, {"workspace": "1GiB"}, {"cudnn": "none"}])
def test_options_of_a_card_are_refused_on_a_cpu(given: dict[str, str]) -> None:
    with pytest.raises(OptionError, match=f"the same for every card\nleave out {next(iter(given))}"):
        vggscope.measure("A", device="cpu", **given)  # type: ignore[arg-type]


# torch.cuda, of which a few functions are replaced.


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What torch.cuda says: a mutable object."""
    said = SimpleNamespace(name="NVIDIA A100-SXM4-40GB", total=40450 * MIB, processes="", calls=[])
    kinds = enumerate(("requested", "allocated", "reserved"), 1)
    stats = {f"{kind}_bytes.all.{at}": n * size for n, kind in kinds for at, size in (("peak", 10), ("current", 1))}
    answers = {
        "is_available": lambda: True,
        "current_device": lambda: 0,
        "get_device_name": lambda: said.name,
        "get_device_properties": lambda device: SimpleNamespace(total_memory=said.total),
        "memory_stats": lambda: stats,
        "mem_get_info": lambda: (said.total - 700 * MIB, said.total),
        "list_gpu_processes": lambda: said.processes,
        **{
            call: lambda call=call: said.calls.append(call)
            for call in ("synchronize", "empty_cache", "reset_peak_memory_stats")
        },
    }
    for name, answer in answers.items():
        monkeypatch.setattr(torch.cuda, name, answer)
    return said


def test_the_counters_of_torch(cuda: SimpleNamespace) -> None:
    counters = gpu_counters.gpu_counters(None)
    assert counters is not None
    assert counters.peaks() == GpuPeaks(10, 20, 30, 700 * MIB, ALL)
    cuda.processes = f"GPU:0\nprocess          1 uses       99.000 MB GPU memory\nprocess {os.getpid():>10} uses      \
600.500 MB GPU memory"
    assert counters.peaks(ran_out=True) == GpuPeaks(10, 20, 30, 600 * MIB + MIB // 2, OWN, True)
    cuda.calls.clear()
    counters.start()
    assert cuda.calls == ["synchronize", "empty_cache", "synchronize", "reset_peak_memory_stats"]
    others = counters.peaks()  # without what the process held at the start
    assert (others.requested, others.allocated, others.reserved) == (9, 18, 27)


def test_nvml_may_have_no_figures(cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> str:
        raise TypeError("unsupported operand type(s) for /: 'NoneType' and 'int'")

    monkeypatch.setattr(torch.cuda, "list_gpu_processes", fails)
    assert GpuCounters().peaks().whose == ALL


@pytest.mark.parametrize(
    ("name", "total", "card"),
    [
        ("NVIDIA A100-SXM4-40GB", 40450, "A100-40GB"),
        ("NVIDIA A100 80GB PCIe", 81150, "A100-80GB"),
        ("Tesla T4", 14910, "T4"),
        ("Tesla V100-SXM2-16GB", 16150, "V100-16GB"),
        ("NVIDIA H100 80GB HBM3", 81000, "H100"),
        ("NVIDIA H100 PCIe", 81000, "H100"),
        ("NVIDIA RTX 6000 Ada Generation", 48500, "RTX 6000 Ada"),
        ("NVIDIA GeForce RTX 4060 Laptop GPU", 8188, "RTX 4060"),
        ("NVIDIA GeForce RTX 3060", 8191, "8191MiB"),  # it is sold with 12 GB too
        ("NVIDIA GeForce RTX 4060 Ti", 16000, "RTX 4060 Ti-16GB"),
        ("NVIDIA Tomorrow", 99000, "99000MiB"),
    ],
)
def test_the_card_of_a_device(cuda: SimpleNamespace, name: str, total: int, card: str) -> None:
    cuda.name, cuda.total = name, total * MIB
    assert GpuCounters().card == card


def test_a_device_that_cannot_be_used(cuda: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gpu_counters.gpu_counters("cpu") is None

    def fails() -> tuple[int, int]:
        raise RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fails)
    with pytest.raises(OptionError, match=r"^CUDA does not start: CUDA error: out of memory\ndevice='cpu' measures"):
        vggscope.measure("A")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(OptionError, match=r"^torch sees no CUDA device here\ndevice='cpu' measures"):
        vggscope.measure("A", device="cuda")
    with pytest.raises(OptionError, match=r"device is one of cuda, cpu"):
        vggscope.measure("A", device="gpu")  # type: ignore[arg-type]
