"""The peaks of one of several GPUs, by torch's memory tracker in a process group without a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, NamedTuple, get_type_hints

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer
from torch.testing._internal.distributed.fake_pg import FakeStore

from vggscope.analysis.memory.sharding import units_of
from vggscope.analysis.memory.step_config import AMP, StepConfig
from vggscope.cross_checks.measured_step import _memory_tracker
from vggscope.graph import Network
from vggscope.ops.base import numel

OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": torch.optim.SGD,
    "sgd-momentum": torch.optim.SGD,
    "adam": torch.optim.Adam,
}


class Peaks(NamedTuple):
    """The most bytes in the forward pass, in the backward pass and in the optimizer's step, without the inputs."""

    forward: int
    backward: int
    step: int


@contextmanager
def process_group(rank: int, gpus: int) -> Iterator[None]:
    """A process group whose collectives leave their tensors as they are."""
    dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=gpus)
    try:
        yield
    finally:
        dist.destroy_process_group()


def fullest_rank(network: Network, gpus: int) -> int:
    """The rank with the most elements, if each tensor, largest first, goes to the one with the fewest."""
    loads = [0] * gpus
    for size in sorted((numel(p.shape) for p in network.parameters()), reverse=True):
        loads[loads.index(min(loads))] += size
    return max(range(gpus), key=lambda rank: (loads[rank], rank))


def peaks_of_rank(
    make: Callable[[], nn.Module], network: Network, config: StepConfig, inputs: Tensor, rank: int = 0
) -> Peaks:
    """The peaks of a rank in the third step. DistributedDataParallel makes its buckets anew after the first."""
    tracker = _memory_tracker()
    labels = torch.zeros(len(inputs), dtype=torch.int64)
    with process_group(rank, config.gpus):
        step = _ShardedStep(make, network, config, inputs, labels, tracker)
        for _ in range(2):
            step.run()
        return step.run()


class _ShardedStep:
    def __init__(
        self,
        make: Callable[[], nn.Module],
        network: Network,
        config: StepConfig,
        inputs: Tensor,
        labels: Tensor,
        tracker: Any,
    ) -> None:
        self.config, self.inputs, self.labels, self.tracker = config, inputs, labels, tracker
        mesh = init_device_mesh("cpu", (config.gpus,))
        tracker.track_external(inputs, labels)
        with tracker:
            module = make().train()
            self.module = _WRAPPED[config.parallel or "ddp"](module, network, mesh)
            self.all_parameters = [*self.module.parameters()]
            self.parameters = [p for p in self.module.parameters() if p.requires_grad]
            momentum = {"momentum": 0.9} if config.optimizer == "sgd-momentum" else {}
            options = {"lr": 0.01, "foreach": config.steps_foreach, **momentum}
            cls = OPTIMIZERS[config.optimizer]
            self.optimizer = (
                ZeroRedundancyOptimizer(self.parameters, cls, **options)
                if config.parallel == "zero1"
                else cls(self.parameters, **options)
            )

    def run(self) -> Peaks:
        """Run one step and return its peaks."""
        peaks = [(self._forward_peak(), self._backward_peak()) for _ in range(self.config.accumulate)]
        with self.tracker:
            if self.config.clip_grad_norm:
                nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=self.config.foreach)
            self.optimizer.step()
        step = self._peak()
        self.optimizer.zero_grad(set_to_none=True)
        del self.loss
        return Peaks(*map(max, zip(*peaks)), step)

    def _forward_peak(self) -> int:
        is_amp = self.config.dtype == AMP
        with torch.autocast("cpu", torch.bfloat16) if is_amp else nullcontext(), self.tracker:
            scores = self.module(self.inputs)
            forward = self._peak()
            self.loss = nn.functional.cross_entropy(scores, self.labels)
        return forward

    def _backward_peak(self) -> int:
        with self.tracker:
            self.loss.backward()
        return self._peak()

    def _peak(self) -> int:
        (peak,) = self.tracker.get_tracker_snapshot("peak").values()
        total = int(peak["Total"]) - sum(tensor.untyped_storage().nbytes() for tensor in (self.inputs, self.labels))
        if self.config.parallel != "zero2":
            return total
        # ZeRO-2 keeps the weights alone: not their padding, nor the parts that FSDP2 cuts from them.
        parts = [p.to_local().untyped_storage().nbytes() for p in self.all_parameters]
        weights = [p.numel() * p.element_size() for p in self.all_parameters]
        return total - sum(parts) * (self.config.gpus + 1) + sum(weights)


def _replicated(module: nn.Module, network: Network, mesh: object) -> nn.Module:
    replica = DistributedDataParallel(module)
    # The fake group's all-reduce returns no tensor, so that a hook stands in for it.
    replica.register_comm_hook(None, _leave_as_it_is)
    return replica


def _leave_as_it_is(state: object, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    future: torch.futures.Future[Tensor] = torch.futures.Future()
    future.set_result(bucket.buffer())
    return future


_leave_as_it_is.__annotations__ = get_type_hints(_leave_as_it_is)  # torch compares the types themselves


def _sharded(module: nn.Module, network: Network, mesh: Any) -> nn.Module:
    """Wrap each unit of the network, and the whole module."""
    for path in units_of(network, ()):
        if path:
            fully_shard(module.get_submodule(path), mesh=mesh)
    return fully_shard(module, mesh=mesh)


def _with_whole_weights(module: nn.Module, network: Network, mesh: Any) -> nn.Module:
    """Wrap the module so that its weights stay whole from the first step on, as in ZeRO-2."""
    sharded = _sharded(module, network, mesh)
    for part in sharded.modules():
        if isinstance(part, FSDPModule):
            part.set_reshard_after_forward(False, recurse=False)
            part.set_reshard_after_backward(False, recurse=False)
    return sharded


_WRAPPED: dict[str, Callable[..., nn.Module]] = {
    "ddp": _replicated,
    "zero1": _replicated,
    "zero2": _with_whole_weights,
    "fsdp": _sharded,
}
