"""How a step runs: mode, dtype, optimizer, runtime, and the parallel scheme that splits it over several GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from heapq import heapify, heapreplace
from math import inf
from types import MappingProxyType
from typing import TypeVar

from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.errors import OptionError, check_count, option, unknown
from vggscope.graph import Parameter
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.recorded_step import StepRequest
from vggscope.units import DTYPE_BYTES

MODES = ("train", "inference", "finetune-head")

AMP = "amp"
"""Automatic mixed precision: weights in float32, autocast to half precision."""

DTYPES = (*DTYPE_BYTES, AMP)


Entry = TypeVar("Entry", "Runtime", "Parallel")


def _by_name(*entries: Entry) -> Mapping[str, Entry]:
    return MappingProxyType({entry.name: entry for entry in entries})


@record
class Runtime:
    """The differences in memory between torch on a GPU and torch under its memory tracker.

    `mask_width`: bytes per value of a dropout mask; None: the width of the values.
    `sums_in_place`: a second gradient of a tensor is added into the first. Under a dispatch mode such as the tracker,
    torch allocates a third tensor for the sum.
    `adds_in_place`: a linear layer that adds its bias separately does so in place; a dispatch mode prevents that too.
    `counts_on_device`: the optimizer's step counters are on the device.
    `statistics_width`: the least bytes per value of saved batch statistics.
    `fuses_attention`: attention runs in the kernels of a GPU: the flash kernel in half precision, else the
    memory-efficient one.
    `float32_ops`: the ops that autocast runs in float32.
    `widened_ops`: the ops whose inputs autocast casts to the widest of them.
    """

    name: str
    mask_width: int | None
    sums_in_place: bool
    adds_in_place: bool
    counts_on_device: bool
    statistics_width: int
    fuses_attention: bool
    float32_ops: frozenset[str]
    widened_ops: frozenset[str] = frozenset()


_FLOAT32 = frozenset(
    {
        *("Softmax", "LogSoftmax", "LayerNorm", "GroupNorm", "RMSNorm", "Softplus", "cross_entropy", "pow", "exp"),
        *("expm1", "log", "log2", "log10", "log1p", "rsqrt", "reciprocal", "tan", "acos", "asin", "sum", "prod"),
        *("norm", "vector_norm", "logsumexp", "cumsum", "cumprod", "cosine_similarity"),
    }
)
"""The float32 list of torch's autocast_mode.h, as far as vggscope has a name for its ops."""

CUDA = Runtime("cuda", 1, True, True, False, 4, True, _FLOAT32)
"""A GPU, by torch's CUDA sources."""

_CPU_FLOAT32 = frozenset(
    {"cross_entropy", "avg_pool3d", "AvgPool3d", "MaxPool3d", "AdaptiveAvgPool3d", "AdaptiveMaxPool3d"}
)
"""The float32 list of autocast on a CPU, as far as the rules of a whole step reach."""

TRACKER = Runtime("tracker", None, False, False, True, 0, False, _CPU_FLOAT32, frozenset({"cat", "stack"}))
"""torch.distributed._tools.mem_tracker on CPU tensors. The tests compare the simulator with it byte for byte."""

RUNTIMES = _by_name(CUDA, TRACKER)


@record
class Parallel:
    """A scheme for training on several GPUs. Each GPU computes the activations of its own part of the batch.

    `assumption`: what the figures assume, in words.
    `buckets`: gradients are copied into buckets to be summed (DistributedDataParallel without gradient_as_bucket_view).
    `states`: `whole` assigns each optimizer state to one GPU (ZeroRedundancyOptimizer), `cut` cuts each by rows over
    all GPUs, and the empty string copies all of them to each GPU.
    `gradients`, `weights`: these are cut over the GPUs too. `sharding` has the order in which torch gathers and sums.

    The stages are those of Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models"
    (2020), section 5.
    """

    name: str
    assumption: str
    buckets: bool = False
    states: str = ""
    gradients: bool = False
    weights: bool = False


PARALLEL = _by_name(
    Parallel(
        "ddp",
        "gradients are copied into buckets (DistributedDataParallel with gradient_as_bucket_view=False)",
        buckets=True,
    ),
    Parallel(
        "zero1",
        "as ddp; whole tensors of optimizer states go to one GPU each, the figure is the fullest GPU's",
        buckets=True,
        states="whole",
    ),
    Parallel(
        "zero2",
        "gradients and states are cut by rows; each module's gradients are summed over the GPUs after its backward",
        states="cut",
        gradients=True,
    ),
    Parallel(
        "fsdp",
        "weights, gradients and states are cut by rows (FSDP2: fully_shard of each module with parameters and of the "
        "network); a module gathers its whole weights while it runs",
        states="cut",
        gradients=True,
        weights=True,
    ),
)

_ONE_GPU = Parallel("", "")


@record
class Shards:
    """What one of `gpus` GPUs holds of the weights, the gradients and the optimizer's states."""

    parallel: Parallel = _ONE_GPU
    gpus: int = 1

    def gradient(self, shape: Shape) -> int:
        """The elements of a parameter's gradient that stay on this GPU after the backward of its layer."""
        return self.part(shape) if self.parallel.gradients else numel(shape)

    def states(self, parameters: Sequence[Parameter]) -> list[int]:
        """The elements of each parameter that the optimizer of the fullest GPU steps."""
        if self.parallel.states == "whole":
            return _of_fullest([numel(p.shape) for p in parameters], self.gpus)
        return [self.part(p.shape) if self.parallel.states else numel(p.shape) for p in parameters]

    def part(self, shape: Shape) -> int:
        """The elements of the first of `gpus` parts, which the rows of a tensor are cut into. No part is larger."""
        return -(-shape[0] // self.gpus) * numel(shape[1:]) if shape else 1


def _of_fullest(sizes: list[int], gpus: int) -> list[int]:
    """The sizes on the fullest GPU, 0 for the others' tensors, if each tensor, largest first, goes to the emptiest."""
    loads = [(0, gpu) for gpu in range(gpus)]
    heapify(loads)
    owner: dict[int, int] = {}
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        load, gpu = loads[0]
        heapreplace(loads, (load + sizes[index], gpu))
        owner[index] = gpu
    fullest = max(loads)[1]
    return [size if owner[index] == fullest else 0 for index, size in enumerate(sizes)]


@record
class StepConfig:
    """The settings of a step.

    `mode`: one of MODES, a training step, a forward pass without gradients, or a step that trains the head alone.
    `dtype`: one of DTYPES, to which the network is converted; empty for its own dtypes.
    `foreach`: the optimizer steps over all parameters at once; None for torch's default, which does on a GPU.
    `fused`: it steps in one kernel, without temporaries.
    `weight_decay`, `nesterov`: of the optimizer. Only whether the weight decay is 0 makes a difference.
    `clip_grad_norm`: torch.nn.utils.clip_grad_norm_ runs before the optimizer.
    `ema`: torch.optim.swa_utils.AveragedModel, with get_ema_multi_avg_fn, averages the parameters.
    `accumulate`: the number of micro-batches into which the batch is cut.
    `checkpoint`: the backward pass recomputes the activations of each stage.
    `gpus`, `parallel`: how many GPUs share the batch, and the scheme, one of PARALLEL.
    `runtime`: one of RUNTIMES.
    """

    mode: str = "train"
    optimizer: str = "sgd-momentum"
    dtype: str = ""
    foreach: bool | None = None
    fused: bool = False
    weight_decay: float = 0.0
    nesterov: bool = False
    clip_grad_norm: bool = False
    ema: bool = False
    accumulate: int = 1
    checkpoint: bool = False
    gpus: int = 1
    parallel: str | None = None
    runtime: str = "cuda"

    def __post_init__(self) -> None:
        _check("mode", self.mode, MODES)
        _check("dtype", self.dtype or AMP, DTYPES)
        check_count("accumulate", self.accumulate, f"a batch cut into {self.accumulate} makes no sense", 10**6)
        check_count("gpus", self.gpus, f"{self.gpus} GPUs make no sense", 10**6)
        if self.parallel is not None:
            _check("way to share training", self.parallel, PARALLEL, "parallel")
        _check("optimizer", self.optimizer, OPTIMIZERS)
        _check("runtime", self.runtime, RUNTIMES)
        self._check_optimizer()

    def _check_optimizer(self) -> None:
        """Raise OptionError for what torch.optim refuses."""
        if not (isinstance(self.weight_decay, (int, float)) and 0 <= self.weight_decay < inf):
            raise OptionError(
                f"a weight decay of {self.weight_decay} makes no sense", f"{option('weight_decay')} is 0 or more"
            )
        if self.nesterov and self.optimizer != "sgd-momentum":
            raise OptionError(
                f"{self.optimizer} has no Nesterov momentum", f"{option('optimizer', 'sgd-momentum')} has it"
            )
        if self.fused and not OPTIMIZERS[self.optimizer].has_fused:
            fused = ", ".join(optimizer.name for optimizer in OPTIMIZERS.values() if optimizer.has_fused)
            raise OptionError(f"torch has no fused {self.optimizer} on CUDA", f"fused are {fused}")
        if self.fused and self.foreach:
            raise OptionError("an optimizer is fused or foreach, not both", f"leave out {option('foreach')}")

    @property
    def steps_foreach(self) -> bool:
        """Whether the optimizer steps over all parameters at once: as given, else as torch chooses for the device."""
        if self.foreach is None:
            return not self.fused and self.runtime == CUDA.name
        return self.foreach

    @property
    def kernel(self) -> str:
        """How the optimizer steps: fused, foreach or for-loop."""
        return "fused" if self.fused else "foreach" if self.steps_foreach else "for-loop"

    @property
    def without_optimizer(self) -> StepConfig:
        """The same forward and backward pass with the optimizer that has no states and no temporaries."""
        return replace(
            self,
            optimizer="sgd",
            foreach=None,
            fused=False,
            weight_decay=0.0,
            nesterov=False,
            clip_grad_norm=False,
            ema=False,
        )

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return self.mode != "inference"

    @property
    def passes(self) -> int:
        """The micro-batches that make a difference: in the second, the gradients of the first exist."""
        return min(self.accumulate, 2) if self.trains else 1

    @cached_property
    def shards(self) -> Shards:
        """How the GPUs share the training state: by DistributedDataParallel unless `parallel` names another scheme."""
        if self.parallel is None and self.gpus == 1:
            return Shards()
        return Shards(PARALLEL[self.parallel or "ddp"], self.gpus)

    def samples(self, batch: int) -> int:
        """The samples of a batch that pass through the GPU with the most of them at once."""
        return -(-batch // self._parts)

    def batch(self, samples: int) -> int:
        """The largest batch for which at most this many samples pass through one GPU at once."""
        return samples * self._parts

    @property
    def _parts(self) -> int:
        return self.gpus * (self.accumulate if self.trains else 1)

    @property
    def converts_to(self) -> str | None:
        """The dtype that floating-point tensors are converted to; None if they keep theirs, as with autocast."""
        return self.dtype if self.dtype in DTYPE_BYTES else None

    @property
    def request(self) -> StepRequest | None:
        """The step as torch can be recorded in it; None for a step that only the rules know."""
        if self.mode == "finetune-head" or self.dtype == AMP or self.checkpoint:
            return None
        # A GPU that keeps parts of gradients sums none of two micro-batches before they are cut.
        passes = 1 if self.shards.parallel.gradients else self.passes
        return StepRequest(self.trains, self.converts_to, passes=passes, on_gpu=self.runtime == CUDA.name)


def _check(what: str, name: str, known: Sequence[str] | Mapping[str, object], option: str = "") -> None:
    if name not in known:
        raise unknown(what, name, known, option)
