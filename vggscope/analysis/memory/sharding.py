"""Training on several GPUs: what each of them holds of the weights, the gradients and the optimizer's states.

Stages as in Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models" (2020),
section 5. Activations are not shared: each GPU has its part of the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heapreplace
from types import MappingProxyType

from vggscope.errors import unknown
from vggscope.graph import Parameter
from vggscope.ops.base import numel
from vggscope.record import record


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
