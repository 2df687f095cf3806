"""The peak memory of a step, measured: by torch's memory tracker on fake tensors, or on a GPU by its counters.

torch.distributed._tools.mem_tracker is a dispatch mode that records every tensor that torch allocates and frees. Under
FakeTensorMode nothing is allocated, so that a batch of 256 takes a fraction of a second on any machine. The fake
tensors are CPU tensors: a fake CUDA device fails in the backward pass. What CUDA does differently is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vggscope.analysis.memory.allocation_log import KINDS
from vggscope.analysis.memory.fit import GpuBudget, StepOnCard
from vggscope.analysis.memory.simulate import require_known_memory, simulate_step, trained_parameters
from vggscope.analysis.memory.step_config import AMP, CUDA, TRACKER, StepConfig
from vggscope.cross_checks.gpu_counters import GpuCounters, GpuPeaks
from vggscope.errors import ModelError, OptionError, VggscopeError, names_options, option
from vggscope.graph import Network
from vggscope.record import record
from vggscope.result import TableResult
from vggscope.trace.compiled import without_compiler
from vggscope.trace.dataless import tensors_without_data
from vggscope.trace.forward import META, random_state
from vggscope.trace.functions import first_line
from vggscope.trace.inputs import CallInputs, inputs_of
from vggscope.trace.preserve import stored_tensors
from vggscope.trace.source_line import own_line
from vggscope.trace.step import class_labels, loss_of
from vggscope.trace.tensors import converted_dtype, dtype_named, tensors_in
from vggscope.units import bytes_text, count_text

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.optim import Optimizer
    from torch.optim.swa_utils import AveragedModel


GPU_WARM_UP = 2
"""The steps before the one that is measured on a GPU: the first has no optimizer states at its start."""


@record
class MeasuredFigure:
    """One figure of a step in bytes, predicted and measured. `figure` is its name, `counts` what is counted, in words.

    The figures are `tensors`, and on a GPU also `allocated`, `reserved` and `driver`.
    """

    figure: str
    counts: str
    predicted_bytes: int
    measured_bytes: int

    @property
    def difference_bytes(self) -> int:
        """The predicted bytes minus the measured ones."""
        return self.predicted_bytes - self.measured_bytes


@record
class Measurement(TableResult[MeasuredFigure]):
    """The predicted and the measured memory of a step, in bytes.

    `witness` is the tool that measured, `counts` is what `predicted_bytes` and `measured_bytes` count, in words: the
    peak of the tensors without the input on a CPU, what CUDA's allocator allocates on a GPU. `figures` has every
    figure. `gpu` is the card that the predictions are for; None on a CPU.
    """

    rows_field = "figures"
    named_by = ("figure",)

    schema: str
    model: str
    batch: int
    witness: str
    counts: str
    predicted_bytes: int
    measured_bytes: int
    gpu: str | None
    figures: tuple[MeasuredFigure, ...]

    @property
    def difference_bytes(self) -> int:
        """The predicted bytes minus the measured ones."""
        return self.predicted_bytes - self.measured_bytes


@record
class MeasuredGpu:
    """The GPU on which a step is measured, and the card that it is compared with: the same, or one that is named."""

    counters: GpuCounters
    budget: GpuBudget


def step_measured(config: StepConfig, *, on_gpu: bool = False) -> StepConfig:
    """The step in the runtime that `measure` runs it in."""
    return replace(config, runtime=CUDA.name if on_gpu else TRACKER.name)


def measure(
    network: Network, make: Callable[[], nn.Module], batch: int, config: StepConfig, gpu: MeasuredGpu | None = None
) -> Measurement:
    """Run a few steps of `make`'s module and compare the memory of the last with what is predicted for `network`.

    On a `gpu` the steps are real, and its counters are the measure. Elsewhere the memory tracker measures steps on fake
    tensors.

    Raises OptionError for checkpointing and for several GPUs, and ModelError if there is nothing to train, if the
    step fails, or if the GPU is full: on tensors without data, a forward that reads values fails.
    """
    step = _step_to_measure(network, make, batch, config)
    samples = config.samples(batch)
    network.require_batch(samples)
    network = network.for_batch(samples)
    config = step_measured(config, on_gpu=gpu is not None)
    if gpu is not None:
        return _measured_on_gpu(network, step, gpu)
    moment = simulate_step(network, config).peak(samples)
    predicted = moment.total.at(samples) - moment.alive[KINDS.index("input")].at(samples)
    with random_state():
        measured = step.tracked_peak()
    tool = "torch.distributed._tools.mem_tracker, CPU tensors without data"
    counts = "tensors exactly, without the input and its labels"
    figures = (MeasuredFigure("tensors", counts, predicted, measured),)
    return Measurement("vggscope/measure@1", network.name, batch, tool, counts, predicted, measured, None, figures)


def _step_to_measure(network: Network, make: Callable[[], nn.Module], batch: int, config: StepConfig) -> MeasuredStep:
    """The step. Raises OptionError or ModelError for one that cannot be measured."""
    if config.checkpoint or config.shards.parallel.name:
        given = {"checkpoint": config.checkpoint, "gpus": config.gpus > 1, "parallel": config.parallel is not None}
        names = " and ".join(option(name) for name, is_given in given.items() if is_given)
        raise OptionError("only a plain step on one device is measured", f"leave out {names}")
    require_known_memory(network, config)
    trained = {p.name for p in trained_parameters(network, config)} if config.trains else None
    if trained is not None and not trained:
        frozen = any(network.parameters())
        raise ModelError(
            f"{network.name} has nothing to train: {'all its parameters are frozen' if frozen else 'no parameters'}",
            f"{option('mode', 'inference')} measures a forward pass",
        )
    return MeasuredStep(make, network, batch, config, trained if config.mode == "finetune-head" else None)


def _measured_on_gpu(network: Network, step: MeasuredStep, gpu: MeasuredGpu) -> Measurement:
    """The counters of a GPU beside the predictions for the card. Raises ModelError if the GPU is full."""
    predicted = predictions(network, step.config, step.batch, gpu.budget)
    with random_state():
        peaks = step.peaks_on_gpu(gpu.counters, gpu.budget.cudnn)
    if peaks.ran_out:
        shown, card = bytes_text(predicted["driver"]), gpu.budget.card.name
        figures = (
            f"{bytes_text(peaks.allocated)} allocated, {bytes_text(peaks.reserved)} reserved and "
            f"{bytes_text(peaks.shown)} shown by the driver ({peaks.whose}) of {bytes_text(gpu.counters.total_bytes)}"
        )
        raise ModelError(
            f"batch {count_text(step.batch)} of {network.name} does not fit {gpu.counters.name}: it ran out of memory "
            f"with {figures}; predicted for {card}: {shown}",
            f"{option('gpu', card.replace(' ', '-'))} without {option('measure')} names the largest batch",
        )
    measured = tuple(
        MeasuredFigure(figure, counts.format(whose=peaks.whose), predicted[figure], getattr(peaks, counter))
        for figure, (counter, counts) in GPU_FIGURES.items()
    )
    allocated = next(figure for figure in measured if figure.figure == "allocated")
    return Measurement(
        schema="vggscope/measure@1",
        model=network.name,
        batch=step.batch,
        witness=f"torch.cuda.max_memory_allocated, {gpu.counters.name}, {gpu.counters.versions}",
        counts=allocated.counts,
        predicted_bytes=allocated.predicted_bytes,
        measured_bytes=allocated.measured_bytes,
        gpu=gpu.budget.card.name,
        figures=measured,
    )


GPU_FIGURES = {
    "tensors": ("requested", "bytes that torch requests, with the input; the prediction has no workspace of a library"),
    "allocated": ("allocated", "max_memory_allocated: rounded blocks; cuBLAS's workspace is in the measured alone"),
    "reserved": ("reserved", "max_memory_reserved: the segments of the caching allocator"),
    "driver": ("shown", "what the driver shows after the step: {whose}"),
}
"""What is measured on a GPU: each figure with its counter, a field of GpuPeaks, and what it counts."""


def predictions(network: Network, config: StepConfig, batch: int, budget: GpuBudget) -> dict[str, int]:
    """The figures of GPU_FIGURES for a card, as `memory` predicts them. The network is that of the step's samples."""
    samples, config = config.samples(batch), replace(config, runtime=CUDA.name)
    card = StepOnCard(network, config, budget, None)
    reserved = card.reserved(samples)
    return {
        "tensors": card.timeline.peak_bytes(samples),
        "allocated": card.allocated(samples),
        "reserved": reserved,
        "driver": reserved + budget.beside,
    }


@contextmanager
def _errors_as(what: str) -> Iterator[None]:
    """Raise any error within the block as a ModelError that begins with `what` and names the model's line."""
    try:
        yield
    except VggscopeError:
        raise
    except Exception as error:
        place = own_line(error)
        # FakeTensorMode raises its own errors where forward reads values: DataDependentOutputException and others.
        reads_values = type(error).__module__.startswith("torch._subclasses")
        reason = "it reads the values of tensors" if reads_values else first_line(error)
        predicts = f"memory without {option('measure')}" if names_options() else "memory"
        raise ModelError(
            f"{what}{f' ({place})' if place else ''}: {reason}", f"{predicts} predicts its peak"
        ) from error


@record
class MeasuredStep:
    """A forward pass, or a training step, of `make`'s module, whose Network is `network`.

    `trained` are the names of the parameters that require a gradient; None: as in the module. The loss is that of the
    network's output. The module may be on the meta device: its tensors are not read.
    """

    make: Callable[[], nn.Module]
    network: Network
    batch: int
    config: StepConfig
    trained: Collection[str] | None = None

    def tracked_peak(self) -> int:
        """The most bytes alive at once by the memory tracker, in the second step if it trains.

        The input batch and its labels are allocated before tracking starts and do not count.
        """
        with without_compiler():
            return self._peak_without_compiler()

    def _peak_without_compiler(self) -> int:
        module = self._module()
        inputs = inputs_of(module, self.network, self.config.samples(self.batch))
        average = _average(module, self.config)
        try:
            with tensors_without_data(module):
                with _errors_as(f"{self.network.name} cannot be run without data"):
                    for part in (module, average):
                        if part is not None:
                            _fake_state(part, _element_type(self.config))
                return self._tracked_peak(module, average, inputs)
        except ModelError:
            module = self._module().to(_element_type(self.config))
            if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
                raise
            # A forward that reads values needs data.
            return self._tracked_peak(module, _average(module, self.config), inputs, " with data")

    def _tracked_peak(
        self, module: nn.Module, average: AveragedModel | None, inputs: CallInputs, kind: str = " without data"
    ) -> int:
        tracker = _memory_tracker()
        before = stored_tensors(module)
        with _errors_as(f"a step of {self.network.name} on tensors{kind} fails"):
            run = _Run(module, inputs, "cpu", self)
            run.warm_up(average)
        given = run.given_tensors()
        with _errors_as(f"torch's memory tracker fails on a step of {self.network.name}"):
            # Without this, the tracker counts an input only if forward takes a view of it.
            kept = [tensor for tensor in stored_tensors(module) if all(tensor is not other for other in before)]
            tracker.track_external(run.module, *([run.optimizer] if run.optimizer else []), *given, *kept)
            if run.average is not None:
                tracker.track_external(run.average)
            del kept  # forward may replace them
            with tracker:
                run.step()
        peaks = tracker.get_tracker_snapshot("peak").items()
        # torch computes some derivatives on tensors of the meta device, which take no memory.
        total = sum(int(peak["Total"]) for device, peak in peaks if device.type != META)
        return total - sum(tensor.untyped_storage().nbytes() for tensor in given)

    def peaks_on_gpu(self, counters: GpuCounters, cudnn: str = "heuristic") -> GpuPeaks:
        """What the counters show for a step after `GPU_WARM_UP` others, as in training, from an empty allocator.

        If the card is full, the figures are those until then.
        """
        import torch

        with _errors_as(f"a step of {self.network.name} fails"), _cudnn(cudnn):
            try:
                self._run_on_gpu(counters)
                return counters.peaks()
            except torch.OutOfMemoryError:
                pass  # the error holds the tensors of the step until this block ends
            return counters.peaks(ran_out=True)

    def _run_on_gpu(self, counters: GpuCounters) -> None:
        counters.start()
        module = self._module()
        inputs = inputs_of(module, self.network, self.config.samples(self.batch))
        is_empty = any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers()))
        placed = module.to_empty(device=counters.device) if is_empty else module.to(counters.device)
        run = _Run(placed, inputs, counters.device, self)
        average = _average(placed, self.config)
        counters.empty()  # the labels are from a forward pass that no training has
        for _ in range(GPU_WARM_UP):
            if run.optimizer is None:
                run.step()
            run.warm_up(average)
        counters.reset_peaks()
        run.step()

    def _module(self) -> nn.Module:
        """Make the module with the config's dtype as torch's default."""
        import torch

        before = torch.get_default_dtype()
        torch.set_default_dtype(_element_type(self.config) or before)
        try:
            return self.make()
        finally:
            torch.set_default_dtype(before)


@contextmanager
def _cudnn(choice: str) -> Iterator[None]:
    """Let cuDNN choose its algorithms by trying them within the block, or not."""
    import torch

    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = choice == "benchmark"
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


class _Run:
    """A module on a device, with its optimizer and its micro-batches: inputs, and a label for each output position."""

    def __init__(self, module: nn.Module, example: CallInputs, device: str, measured: MeasuredStep) -> None:
        import torch

        config = measured.config
        self.module, self.device, self.config = module.train(config.trains), device, config
        self.output_place, self.name = measured.network.output_place, measured.network.name
        if measured.trained is not None:
            for name, parameter in module.named_parameters():
                parameter.requires_grad_(name in measured.trained)
        trains = config.trains and any(parameter.requires_grad for parameter in module.parameters())
        self.optimizer = _optimizer(module, config) if trains else None
        self.average: AveragedModel | None = None
        self.batches: list[tuple[CallInputs, Tensor | None]] = []
        for _ in range(config.accumulate if config.trains else 1):
            inputs = example.map(self._placed)
            with torch.no_grad():
                self.batches.append((inputs, class_labels(self.output(inputs))))

    def _placed(self, tensor: Tensor) -> Tensor:
        """A copy of an input on the device, in the step's dtype. It is fake under FakeTensorMode."""
        import torch

        dtype = converted_dtype(tensor, _element_type(self.config))
        copy = torch.zeros(tensor.shape, dtype=dtype, device=self.device)
        is_fake = type(copy) is not torch.Tensor
        return copy if is_fake or tensor.is_meta else copy.copy_(tensor)

    def given_tensors(self) -> list[Tensor]:
        """The inputs and labels of all micro-batches."""
        return [t for inputs, labels in self.batches for t in (*inputs.tensors(), labels) if t is not None]

    def output(self, inputs: CallInputs) -> Tensor:
        """Run forward and return the tensor that the loss reads."""
        return tensors_in(inputs.call(self.module))[self.output_place]

    def warm_up(self, average: AveragedModel | None) -> None:
        """Run a first step, so that the optimizer has its states, and drop the gradients.

        Later steps update `average`.
        """
        import torch

        if self.optimizer is not None:
            self.step()
            self.optimizer.zero_grad(set_to_none=True)
            if average is not None:
                average.n_averaged = torch.tensor(1)  # the first update only copies
                self.average = average

    def step(self) -> None:
        """Run one step, or one forward pass without gradients."""
        import torch

        # Even one that is disabled would keep the casts of weights by autocast in forward until it ends.
        is_amp = self.config.dtype == AMP
        autocast: Any = torch.autocast(self.device) if is_amp else nullcontext()
        if not self.config.trains:
            with torch.no_grad(), autocast:
                self.batches[0][0].call(self.module)
            return
        for inputs, labels in self.batches:
            with autocast:
                loss = loss_of(self.output(inputs), labels)
            if not loss.requires_grad:
                raise ModelError(
                    f"the output of {self.name} has no gradient: it depends on no trained parameter",
                    f"{option('mode', 'inference')} measures a forward pass",
                )
            torch.autograd.backward(loss)
        if self.optimizer is None:
            return
        if self.config.clip_grad_norm:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0, foreach=self.config.foreach)
        self.optimizer.step()
        if self.average is not None:
            self.average.update_parameters(self.module)


def _element_type(config: StepConfig) -> torch.dtype | None:
    """The dtype to which weights and inputs are converted, None if they keep theirs."""
    return dtype_named(config.converts_to) if config.converts_to else None


def _optimizer(module: nn.Module, config: StepConfig) -> Optimizer:
    """The optimizer that the config names, with torch's defaults."""
    from torch import optim

    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    classes: dict[str, Callable[..., Optimizer]] = {
        "rmsprop": optim.RMSprop,
        "adam": optim.Adam,
        "adamw": optim.AdamW,
        "adagrad": optim.Adagrad,
        "adadelta": optim.Adadelta,
        "adamax": optim.Adamax,
    }
    fused = {"fused": True} if config.fused else {}
    common: dict[str, Any] = {"lr": 0.01, "weight_decay": config.weight_decay, "foreach": config.foreach, **fused}
    if config.optimizer in classes:
        return classes[config.optimizer](trained, **common)
    momentum = 0.9 if config.optimizer == "sgd-momentum" else 0.0
    return optim.SGD(trained, momentum=momentum, nesterov=config.nesterov, **common)


def _average(module: nn.Module, config: StepConfig) -> AveragedModel | None:
    """The module's moving average, if the step has one."""
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    if not config.trains or not config.ema:
        return None
    return AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn())  # type: ignore[no-untyped-call]


def _memory_tracker() -> MemTracker:
    """Create torch's memory tracker, made to work with frozen parameters and without its figures for each module.

    MemTracker hooks the gradient of every parameter and fails for a frozen one. For the figures of each module it
    hooks the inputs of modules, which fails for a view of a frozen tensor, and it holds the gradients of a module with
    several inputs until the last has arrived.
    """
    from torch.distributed._tools.mem_tracker import MemTracker
    from torch.distributed._tools.mod_tracker import ModTracker

    class NoModules(ModTracker):
        def _fw_pre_hook(self, mod: nn.Module, input: object) -> None: ...

        def _fw_post_hook(self, mod: nn.Module, input: object, output: object) -> None: ...

    class Tracker(MemTracker):  # type: ignore[no-untyped-call]
        def _track_module_params_and_buffers(
            self, module: nn.Module, install_grad_hooks: bool = True
        ) -> tuple[int, int]:
            trains_all = all(parameter.requires_grad for parameter in module.parameters())
            return super()._track_module_params_and_buffers(module, install_grad_hooks and trains_all)

    tracker = Tracker()
    tracker._mod_tracker = NoModules()  # type: ignore[no-untyped-call]
    return tracker


def _fake_state(module: nn.Module, floating: torch.dtype | None) -> None:
    """Replace each parameter and buffer by a fake tensor; to be called under FakeTensorMode.

    Floating-point tensors get the step's dtype `floating`, in which the peak is predicted; None keeps theirs.
    """
    import torch

    def fake(tensor: Tensor) -> Tensor:
        return torch.empty(tensor.shape, dtype=converted_dtype(tensor, floating))

    replaced: dict[int, Tensor] = {}
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                faked = torch.nn.Parameter(fake(parameter), parameter.requires_grad)
                part._parameters[name] = replaced.setdefault(id(parameter), faked)  # type: ignore[assignment]
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = replaced.setdefault(id(buffer), fake(buffer))
