"""How a network is run: what is asked of the memory walk."""

from __future__ import annotations

from vggscope.analysis.memory.optimizers import optimizer_named
from vggscope.analysis.memory.runtime import runtime_named
from vggscope.analysis.memory.sharding import ALONE, Shards, parallel_named
from vggscope.errors import OptionError, unknown
from vggscope.record import record
from vggscope.units import DTYPE_BYTES

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
