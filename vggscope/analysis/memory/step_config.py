"""How a step runs: mode, dtype, optimizer, runtime, and the scheme that spreads it over several GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from types import MappingProxyType

from vggscope.errors import OptionError, unknown
from vggscope.graph import Parameter
from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.units import DTYPE_BYTES


@record
class Optimizer:
    """`states` are the tensors of a parameter's size kept between steps, `counter` tells of a float32 step counter.

    `fresh` and `old` describe a step that takes the parameters one by one: how many tensors of the parameter's size it
    makes, and whether the previous parameter's result is still named then. `foreach` counts the tensors of a
    parameter's size that a step over all parameters at once has alive for every one of them.
    """

    name: str
    states: int
    counter: bool = False
    fresh: int = 0
    foreach: int = 0


OPTIMIZERS = MappingProxyType(
    {
        optimizer.name: optimizer
        for optimizer in (
            Optimizer("sgd", states=0),
            Optimizer("sgd-momentum", states=1),
            # The square root of the second moment, and that divided by the bias correction.
            Optimizer("adam", states=2, counter=True, fresh=2, foreach=1),
            Optimizer("adamw", states=2, counter=True, fresh=2, foreach=1),
            # The square root of the mean square.
            Optimizer("rmsprop", states=1, counter=True, fresh=1, foreach=1),
        )
    }
)


def optimizer_named(name: str) -> Optimizer:
    """The optimizer of this name; raises OptionError where there is none."""
    if name not in OPTIMIZERS:
        raise unknown("optimizer", name, OPTIMIZERS)
    return OPTIMIZERS[name]


@record
class Runtime:
    """One of RUNTIMES.

    `mask_width` is the bytes of one value of a dropout mask, None: as wide as the values it masks. `sums_in_place`
    tells whether a second gradient of the same tensor is added into the first; torch makes a third tensor of the two
    where a dispatch mode watches, as the memory tracker does. There it also makes a further tensor where a linear layer
    adds its bias in a step of its own: `adds_in_place` is false. `counts_on_device` tells whether an optimizer's step
    counters lie there. `statistics_width` is the least width of a batch's saved statistics. `float32_ops` are the
    operations that autocast runs in float32, `widened_ops` those before which it makes all inputs as wide as the
    widest.
    """

    name: str
    mask_width: int | None
    sums_in_place: bool
    adds_in_place: bool
    counts_on_device: bool
    statistics_width: int
    float32_ops: frozenset[str]
    widened_ops: frozenset[str] = frozenset()


_FLOAT32 = frozenset(
    {
        *("Softmax", "LogSoftmax", "LayerNorm", "GroupNorm", "RMSNorm", "Softplus", "cross_entropy", "pow", "exp"),
        *("expm1", "log", "log2", "log10", "log1p", "rsqrt", "reciprocal", "tan", "acos", "asin", "sum", "prod"),
        *("norm", "vector_norm", "logsumexp", "cumsum", "cumprod", "cosine_similarity"),
    }
)
"""Of the operations that have a name here, those of the list in torch's autocast_mode.h."""

CUDA = Runtime("cuda", 1, True, True, False, 4, _FLOAT32)
"""A GPU, by torch's CUDA sources."""

TRACKER = Runtime(
    "tracker", None, False, False, True, 0, frozenset({"cross_entropy", "avg_pool3d"}), frozenset({"cat", "stack"})
)
"""torch.distributed._tools.mem_tracker over CPU tensors: the witness that the tests hold the walk to, byte for byte."""

RUNTIMES = {runtime.name: runtime for runtime in (CUDA, TRACKER)}


def runtime_named(name: str) -> Runtime:
    """The runtime of this name; raises OptionError where there is none."""
    if name not in RUNTIMES:
        raise OptionError(f"unknown runtime {name!r}", f"it is one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]


@record
class Parallel:
    """A way of training on several GPUs.

    `buckets` tells that gradients are copied into buckets to be summed (torch's DistributedDataParallel without
    gradient_as_bucket_view). `states` is how the optimizer's states are shared: `whole` tensors to each GPU (torch's
    ZeroRedundancyOptimizer), or each tensor `cut`; empty: every GPU has all. `gradients` and `weights` tell whether
    those are cut too.
    """

    name: str
    title: str
    buckets: bool = False
    states: str = ""
    gradients: bool = False
    weights: bool = False


PARALLEL = MappingProxyType(
    {
        parallel.name: parallel
        for parallel in (
            Parallel("ddp", "DistributedDataParallel", buckets=True),
            Parallel("zero1", "DistributedDataParallel with ZeroRedundancyOptimizer", buckets=True, states="whole"),
            Parallel("zero2", "ZeRO stage 2", states="cut", gradients=True),
            Parallel("fsdp", "fully_shard, each layer its own unit", states="cut", gradients=True, weights=True),
        )
    }
)


def parallel_named(name: str) -> Parallel:
    """The way of this name; raises OptionError where there is none."""
    if name not in PARALLEL:
        raise unknown("way to share training", name, PARALLEL, "parallel")
    return PARALLEL[name]


@record
class Shards:
    """`parallel` on that many GPUs, as one of them sees it; None: alone."""

    parallel: Parallel | None = None
    gpus: int = 1

    def weight(self, elements: int) -> int:
        """Elements of a parameter that stay on this GPU."""
        return self._cut(elements, self.parallel is not None and self.parallel.weights)

    def gradient(self, elements: int) -> int:
        """Elements of a parameter's gradient that stay behind the backward of its layer."""
        return self._cut(elements, self.parallel is not None and self.parallel.gradients)

    def states(self, parameters: Sequence[Parameter]) -> list[int]:
        """Elements of each parameter, in order, that this GPU's optimizer steps: on the GPU that has most of them."""
        sizes = [numel(p.shape) for p in parameters]
        if self.parallel is None or not self.parallel.states:
            return sizes
        if self.parallel.states == "cut":
            return [self._cut(size, True) for size in sizes]
        return _fullest(sizes, self.gpus)

    def _cut(self, elements: int, cut: bool) -> int:
        """The largest of the equal parts, the last padded."""
        return -(-elements // self.gpus) if cut else elements


ALONE = Shards()


def _fullest(sizes: list[int], gpus: int) -> list[int]:
    """What the fullest GPU gets where each tensor, largest first, goes to the one that has least; the others as 0."""
    loads = [(0, gpu) for gpu in range(gpus)]
    heapify(loads)
    owner: dict[int, int] = {}
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        load, gpu = loads[0]
        heapreplace(loads, (load + sizes[index], gpu))
        owner[index] = gpu
    fullest = max(loads)[1]
    return [size if owner[index] == fullest else 0 for index, size in enumerate(sizes)]


MODES = ("train", "inference", "finetune-head")

AMP = "amp"
"""Automatic mixed precision: weights in float32, autocast to half."""

DTYPES = (*DTYPE_BYTES, AMP)


@record
class StepConfig:
    """`mode` is one of MODES: a training step, a forward pass without gradients, or a training step that leaves all but
    the head as it is. `foreach` has the optimizer step over all parameters at once, as torch does by default on a
    GPU. `accumulate` cuts the batch into that many micro-batches, `checkpoint` recomputes each stage's activations in
    the backward pass. `gpus` share the batch, by one of PARALLEL. `runtime` is one of RUNTIMES.
    """

    mode: str = "train"
    optimizer: str = "sgd-momentum"
    dtype: str = "float32"
    foreach: bool = False
    accumulate: int = 1
    checkpoint: bool = False
    gpus: int = 1
    parallel: str | None = None
    runtime: str = "cuda"

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise unknown("mode", self.mode, MODES)
        if self.dtype not in DTYPES:
            raise unknown("dtype", self.dtype, DTYPES)
        if not 1 <= self.accumulate <= 10**6:
            raise OptionError(f"a batch cut into {self.accumulate} makes no sense", "--accumulate is 1 to 1000000")
        if not 1 <= self.gpus <= 10**6:
            raise OptionError(f"{self.gpus} GPUs make no sense", "--gpus is 1 to 1000000")
        if self.parallel is not None:
            parallel_named(self.parallel)
        optimizer_named(self.optimizer)
        runtime_named(self.runtime)

    @property
    def trains(self) -> bool:
        """Whether there is a backward pass."""
        return self.mode != "inference"

    @property
    def shards(self) -> Shards:
        """How the GPUs share what is trained: by DistributedDataParallel, where nothing else was asked for."""
        if self.parallel is None and self.gpus == 1:
            return ALONE
        return Shards(parallel_named(self.parallel or "ddp"), self.gpus)

    def samples(self, batch: int) -> int:
        """Samples of a batch that go through one GPU at once, on the GPU that gets most."""
        return -(-batch // (self.gpus * (self.accumulate if self.trains else 1)))

    def batch(self, samples: int) -> int:
        """The largest batch of which no more than that many samples go through one GPU at once."""
        return samples * self.gpus * (self.accumulate if self.trains else 1)

    @property
    def width(self) -> int:
        """Bytes of one element of a weight."""
        return DTYPE_BYTES.get(self.dtype, 4)
