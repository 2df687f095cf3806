"""The counters of a GPU: those of torch's caching allocator, and what the driver shows."""

from __future__ import annotations

import gc
import os
import re

from vggscope.analysis.cards import device_card
from vggscope.errors import OptionError, option, unknown
from vggscope.record import record
from vggscope.trace.functions import first_line

MIB = 2**20

KINDS = ("requested", "allocated", "reserved")
"""The figures of torch's caching allocator."""

OWN, ALL = "this process", "all processes on the card"
"""Whose memory the driver's figure is."""


@record
class GpuPeaks:
    """The memory of a step on a GPU, in bytes.

    `requested`, `allocated` and `reserved` are the most of the caching allocator: the sizes that torch asks for, its
    rounded blocks, and its segments, without what the process held before. `shown` is what the driver shows after the
    step, of `whose` processes. `ran_out`: the card was full before the step ended; the figures are those until then.
    """

    requested: int
    allocated: int
    reserved: int
    shown: int
    whose: str
    ran_out: bool = False


class GpuCounters:
    """The counters of torch's current CUDA device. A test replaces this class: nothing else reads a GPU's memory."""

    device = "cuda"

    def __init__(self) -> None:
        self._held: dict[str, int] = {}

    @property
    def name(self) -> str:
        """The name that the driver gives."""
        import torch

        return torch.cuda.get_device_name()

    @property
    def total_bytes(self) -> int:
        """What CUDA offers of the card."""
        import torch

        return torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory

    @property
    def versions(self) -> str:
        """The versions of torch and cuDNN."""
        import torch

        cudnn: int | None = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
        return f"torch {torch.__version__}" + (f", cuDNN {cudnn}" if cudnn else "")

    @property
    def card(self) -> str:
        """The card of the table with this name and about this size; else the device's memory as an amount."""
        known = device_card(self.name, self.total_bytes)
        return known.name if known else f"{self.total_bytes // MIB}MiB"

    def start(self) -> None:
        """Empty the allocator, and leave out from now on what else the process holds."""
        self.empty()
        self._held = {kind: self._bytes(kind, "current") for kind in KINDS}

    def empty(self) -> None:
        """Return unused segments to the card, and begin to count."""
        import torch

        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        self.reset_peaks()

    def reset_peaks(self) -> None:
        """Count the peaks from now on."""
        import torch

        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()

    def peaks(self, *, ran_out: bool = False) -> GpuPeaks:
        """The peaks since they were reset, and what the driver shows now."""
        import torch

        if not ran_out:
            torch.cuda.synchronize()
        requested, allocated, reserved = (self._bytes(kind, "peak") - self._held.get(kind, 0) for kind in KINDS)
        shown, whose = self._shown()
        return GpuPeaks(requested, allocated, reserved, shown, whose, ran_out)

    def _bytes(self, kind: str, moment: str) -> int:
        """A figure of the allocator: of one of KINDS, now (`current`) or at its `peak`."""
        import torch

        return int(torch.cuda.memory_stats().get(f"{kind}_bytes.all.{moment}", 0))

    def _shown(self) -> tuple[int, str]:
        """What the driver shows, and of whom: NVML tells the process's share, where it is installed and sees it."""
        import torch

        try:
            processes = torch.cuda.list_gpu_processes()
        except Exception:  # NVML raises errors of its own, and has no figures in some containers
            processes = ""
        own = re.search(rf"process\s+{os.getpid()} uses\s+([\d.]+) MB", processes)
        if own is not None:
            return round(float(own[1]) * MIB), OWN
        free, total = torch.cuda.mem_get_info()
        return total - free, ALL


DEVICES = ("cuda", "cpu")
"""Where a step is measured: on a GPU, or on a CPU by torch's memory tracker."""


def gpu_counters(device: str | None) -> GpuCounters | None:
    """The counters of the GPU on which a step runs; None for a CPU. Without a `device`, a GPU where torch sees one.

    Raises OptionError for `cuda` where torch sees no GPU, and where CUDA does not start.
    """
    import torch

    if device is not None and device not in DEVICES:
        raise unknown("device", device, DEVICES)
    remedy = f"{option('device', 'cpu')} measures with torch's memory tracker"
    if not torch.cuda.is_available():
        if device == "cuda":
            raise OptionError("torch sees no CUDA device here", remedy)
        return None
    if device == "cpu":
        return None
    try:
        torch.cuda.mem_get_info()
    except Exception as error:  # torch raises RuntimeError and its subclasses: a full card, an old driver
        raise OptionError(f"CUDA does not start: {first_line(error)}", remedy) from error
    return GpuCounters()
