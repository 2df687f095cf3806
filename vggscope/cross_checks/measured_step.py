"""The witnesses for memory: torch's memory tracker over tensors without data, and on a GPU the allocator's own count.

torch.distributed._tools.mem_tracker is a dispatch mode that books every tensor which torch makes and frees. Under
FakeTensorMode nothing is allocated, so that a batch of 256 is followed in a fraction of a second on any machine. It
works on fake CPU tensors; a fake CUDA device fails in the backward pass, so what CUDA does otherwise it does not see.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.analysis.memory.allocation_log import KINDS
from vggscope.analysis.memory.allocator import replay
from vggscope.analysis.memory.simulate import simulate_step, trained
from vggscope.analysis.memory.step_config import AMP, CUDA, TRACKER, StepConfig
from vggscope.errors import OptionError
from vggscope.graph import Network
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.result import Result
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.optim import Optimizer


@record
class Tracked:
    """The most bytes alive at once and what they were for, in the tracker's own words (Parameter, Gradient...).

    The input batch and its labels were made before the tracker looked and are not among them.
    """

    peak_bytes: int
    parts: dict[str, int]


@record
class Measurement(Result):
    """A step's peak as foretold and as measured, in bytes. `witness` is what measured, `counts` what both figures are
    of.
    """

    schema: str
    model: str
    batch: int
    witness: str
    counts: str
    predicted_bytes: int
    measured_bytes: int

    @property
    def difference_bytes(self) -> int:
        """How much more was foretold than measured."""
        return self.predicted_bytes - self.measured_bytes


def measure(network: Network, make: Callable[[], nn.Module], batch: int, setup: StepConfig) -> Measurement:
    """Run two steps of `make`'s module and set the second's peak beside the figure foretold for `network`.

    With CUDA the steps are real and the measure is torch.cuda.max_memory_allocated, which rounds tensors up to blocks:
    the figure foretold is rounded likewise. Elsewhere the steps have no data and the memory tracker measures.

    Raises OptionError for what one device does not run by itself.
    """
    import torch

    if setup.checkpoint or setup.shards.parallel is not None:
        raise OptionError("only a plain step on one device is measured", "leave out --checkpoint and --parallel")
    names = {p.name for p in trained(network, setup)} if setup.trains else None
    samples = setup.samples(batch)
    network = network.for_batch(samples)
    if torch.cuda.is_available():
        foretold = replay(simulate_step(network, replace(setup, runtime=CUDA.name)), samples).allocated_bytes
        measured = allocated_on_gpu(make, network.input_shape[1:], batch, setup, names, network.output_place)
        witness = f"torch.cuda.max_memory_allocated, {torch.cuda.get_device_name()}"
        counts = (
            "tensors in the allocator's rounded blocks, with the input; what libraries hold is in the measured alone"
        )
        return Measurement("vggscope/measure@1", network.name, batch, witness, counts, foretold, measured)
    moment = simulate_step(network, replace(setup, runtime=TRACKER.name)).peak(samples)
    foretold = moment.total.at(samples) - moment.alive[KINDS.index("input")].at(samples)
    tracked = track(make, network.input_shape[1:], batch, setup, names, network.output_place)
    witness = "torch.distributed._tools.mem_tracker, CPU tensors without data"
    counts = "tensors exactly, without the input and its labels"
    return Measurement("vggscope/measure@1", network.name, batch, witness, counts, foretold, tracked.peak_bytes)


def track(
    make: Callable[[], nn.Module],
    input_shape: Shape,
    batch: int,
    setup: StepConfig,
    learned: Collection[str] | None = None,
    place: int = 0,
) -> Tracked:
    """Follow one forward pass, or the second step of training, of `make`'s module on inputs of channels x height x
    width. `learned` are the names of the parameters that require a gradient; None: as the module has it. The loss is
    of the tensor at `place` among those that forward returns.

    The module's own tensors are not read: it may have been made on the meta device.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    module = made(make, setup)
    with FakeTensorMode():
        take_data_away(module)
        tracker = make_tracker()
        step = Step(module, "cpu", setup, learned, place)
        batches = step.batches(input_shape, batch)
        step.warm_up(batches)
        tracker.track_external(step.module, *([step.optimizer] if step.optimizer else []))
        with tracker:
            step.run(batches)
        (snapshot,) = tracker.get_tracker_snapshot("peak").values()
    parts = {str(getattr(kind, "value", kind)): size for kind, size in snapshot.items()}
    return Tracked(parts.pop("Total"), parts)


def allocated_on_gpu(
    make: Callable[[], nn.Module],
    input_shape: Shape,
    batch: int,
    setup: StepConfig,
    learned: Collection[str] | None = None,
    place: int = 0,
) -> int:
    """torch.cuda.max_memory_allocated over the same step, run for real."""
    import torch

    module = made(make, setup)
    is_empty = any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
    module = module.to_empty(device="cuda") if is_empty else module.to("cuda")
    step = Step(module, "cuda", setup, learned, place)
    batches = step.batches(input_shape, batch)
    step.warm_up(batches)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    step.run(batches)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated()


class Step:
    """A module with what runs it."""

    def __init__(
        self,
        module: nn.Module,
        device: str,
        setup: StepConfig,
        learned: Collection[str] | None,
        place: int,
    ) -> None:
        self.module, self.device, self.setup = module.train(setup.trains), device, setup
        self.place = place
        if learned is not None:
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name in learned)
        self.optimizer = make_optimizer(module, setup) if setup.trains else None

    def batches(self, input_shape: Shape, batch: int) -> list[tuple[Tensor, Tensor]]:
        """The micro-batches, each with a label for every position of the output behind its classes."""
        import torch

        found = []
        for _ in range(self.setup.accumulate if self.setup.trains else 1):
            inputs = torch.zeros(
                self.setup.samples(batch), *input_shape, dtype=element_type(self.setup), device=self.device
            )
            with torch.no_grad():
                shape = self.output(inputs).shape
            found.append((inputs, torch.zeros(shape[0], *shape[2:], dtype=torch.long, device=self.device)))
        return found

    def output(self, inputs: Tensor) -> Tensor:
        """Of what forward returns, the tensor that the loss is of."""
        return tensors_in(self.module(inputs))[self.place]

    def warm_up(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """A first step, behind which the optimizer has its states and no gradient is left."""
        if self.optimizer is not None:
            self.run(batches)
            self.optimizer.zero_grad(set_to_none=True)

    def run(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        """One step, or one forward pass without gradients."""
        import torch
        from torch.nn.functional import cross_entropy

        autocast = torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.setup.dtype == AMP)
        if self.optimizer is None:
            with torch.no_grad(), autocast:
                self.module(batches[0][0])
            return
        for inputs, labels in batches:
            with autocast:
                loss = cross_entropy(self.output(inputs), labels)
            torch.autograd.backward(loss)
        self.optimizer.step()


def element_type(setup: StepConfig) -> torch.dtype:
    """The dtype of weights and inputs."""
    import torch

    found: torch.dtype = torch.float32 if setup.dtype == AMP else getattr(torch, setup.dtype)
    return found


def make_optimizer(module: nn.Module, setup: StepConfig) -> Optimizer:
    """The optimizer of the setup's name, otherwise with torch's own defaults."""
    from torch import optim

    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if setup.optimizer in ("sgd", "sgd-momentum"):
        momentum = 0.9 if setup.optimizer == "sgd-momentum" else 0.0
        return optim.SGD(learned, lr=0.01, momentum=momentum, foreach=setup.foreach)
    if setup.optimizer == "rmsprop":
        return optim.RMSprop(learned, lr=0.01, foreach=setup.foreach)
    kind = optim.AdamW if setup.optimizer == "adamw" else optim.Adam
    return kind(learned, lr=0.01, foreach=setup.foreach)


def make_tracker() -> MemTracker:
    """The tracker, which as it stands refuses a model with a frozen parameter: it hooks the gradient of each.

    Its share of each module is left out. For that it hooks what modules read, which no view of a frozen tensor allows,
    and of a module that reads several tensors it holds the gradients until the last has come.
    """
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.distributed._tools.mod_tracker import ModTracker

    class Nowhere(ModTracker):
        def _fw_pre_hook(self, mod: nn.Module, input: object) -> None: ...

        def _fw_post_hook(self, mod: nn.Module, input: object, output: object) -> None: ...

    class Tracker(MemTracker):  # type: ignore[no-untyped-call]
        def _track_module_params_and_buffers(
            self, module: nn.Module, install_grad_hooks: bool = True
        ) -> tuple[int, int]:
            learns = all(parameter.requires_grad for parameter in module.parameters())
            return super()._track_module_params_and_buffers(module, install_grad_hooks and learns)

    tracker = Tracker()
    tracker._mod_tracker = Nowhere()  # type: ignore[no-untyped-call]
    return tracker


def made(make: Callable[[], nn.Module], setup: StepConfig) -> nn.Module:
    """A module whose weights are in the setup's dtype from the start."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(element_type(setup))
    try:
        return make()
    finally:
        torch.set_default_dtype(before)


def take_data_away(module: nn.Module) -> None:
    """Put a tensor without data in the place of each parameter and buffer; to be called under FakeTensorMode."""
    import torch

    made: dict[int, Tensor] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                empty = torch.nn.Parameter(torch.empty(parameter.shape, dtype=parameter.dtype), parameter.requires_grad)
                part._parameters[name] = made.setdefault(id(parameter), empty)  # type: ignore[assignment]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = made.setdefault(id(buffer), torch.empty(buffer.shape, dtype=buffer.dtype))
