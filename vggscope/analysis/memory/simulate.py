"""Simulates the memory of one step as torch runs it: forward, loss, backward and optimizer, or forward alone.

An output lives while a Python variable names it or autograd saves it. What a call saves lives until its backward has
run, and a gradient until it has been used. Autograd runs the backwards in the reverse order of the calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from vggscope.analysis.memory.allocation_log import AllocationLog, BatchLinear, PeakLog, StepLog, StepTimeline
from vggscope.analysis.memory.calls import (
    HALF_COPY,
    LOSS,
    OperatorCall,
    forward_pass,
    head_parameters,
    input_size,
    label_size,
    last_reads,
    stages,
)
from vggscope.analysis.memory.optimizers import OPTIMIZERS
from vggscope.analysis.memory.sharding import ShardedUnits
from vggscope.analysis.memory.step_config import AMP, CUDA, RUNTIMES, StepConfig
from vggscope.dtypes import converted
from vggscope.errors import ModelError
from vggscope.graph import Buffer, Network, Parameter
from vggscope.ops.base import numel
from vggscope.recorded_step import BEFORE, BY_RULES, RecordedStep, StepRequest, StorageEvent
from vggscope.units import ELEMENT_BYTES, count_text

COUNTER = 4
"""Bytes of an optimizer's step counter, a float32."""

BATCHES_TRACKED = 8
"""Bytes of a batch norm's count of batches, or of AveragedModel's count of averages, an int64 for every dtype."""

NORM_CHUNK = 65536
"""Elements of a tensor of which torch's foreach norm on CUDA keeps one partial sum, a float32."""


def inference_peak(network: Network, batch: int) -> int:
    """Peak bytes of a forward pass without gradients, the input included."""
    return _peak(network.for_batch(batch), batch, StepConfig(mode="inference"))


def training_peak(network: Network, batch: int) -> int:
    """Peak bytes of a training step with SGD and momentum, the input and its labels included."""
    return _peak(network.for_batch(batch), batch, StepConfig())


def _peak(network: Network, batch: int, config: StepConfig) -> int:
    log = PeakLog(batch)
    _simulate(log, network, config)
    return log.peak


def simulate_step(network: Network, config: StepConfig) -> StepTimeline:
    """The allocations of one step, or of one forward pass, for every batch at once, in time linear in the nodes."""
    log = AllocationLog()
    return log.finish(*_simulate(log, network, config))


def _simulate(log: StepLog, network: Network, config: StepConfig) -> tuple[int, int]:
    """Simulate a step. Return the numbers of the entries at which it, and the optimizer's step, begin."""
    network = of_step(converted(network, config.converts_to), config)
    trained = trained_parameters(network, config)
    step_start = simulate_passes(log, network, config, trained)
    optimizer_start = log.length
    if config.trains:
        simulate_optimizer(log, network, config, trained)
    return step_start, optimizer_start


def of_step(network: Network, config: StepConfig) -> Network:
    """The network that runs in a step: in training, the one that forward has there, unless torch was recorded."""
    if not config.trains or network.training_step is None or recorded_step(network, config) is not None:
        return network
    return network.training_step


def simulate_passes(log: StepLog, network: Network, config: StepConfig, trained: tuple[Parameter, ...]) -> int:
    """Simulate a step up to the optimizer's; return the number of log entries of resident tensors.

    The network has the dtypes of the step already. If torch was recorded in this step, the log is what it allocated.
    """
    resident_tensors = _allocate_resident(log, network, config, trained)
    input_tensors = _allocate_inputs(log, network, config)
    resident = log.length
    recorded = recorded_step(network, config)
    if recorded is not None:
        units = ShardedUnits(log, network, config.shards, [p.name for p in trained])
        passes = 1 if recorded.request.passes > 1 else config.passes
        kept = _replay(log, recorded, ELEMENT_BYTES[network.dtype], units, passes)
        return resident + kept
    simulator = StepSimulator(log, network, config, trained)
    simulator.tensors.update(input_tensors)
    simulator.take_leaves(resident_tensors)
    for _ in range(config.passes):
        simulator.forward()
        if config.trains:
            simulator.backward()
    return resident


def recorded_step(network: Network, config: StepConfig) -> RecordedStep | None:
    """The recording of torch for this step, if the network has one."""
    request = config.request
    return None if request is None else network.recorded_step(request)


def is_predicted(network: Network, config: StepConfig) -> bool:
    """Whether the memory of a step equals torch's: the ops' rules predict it, or torch was recorded."""
    is_ruled = network.predicts_step(StepRequest(config.trains, on_gpu=RUNTIMES[config.runtime] is CUDA))
    nodes = of_step(network, config).nodes
    if config.request is None and any(node.op.needs_layout or node.weight_calls for node in nodes):
        is_ruled = False  # autocast copies into other layouts, and no recording holds the rules to torch
    return is_ruled or recorded_step(network, config) is not None


_UNREGISTERED_REMEDY = "nn.ModuleList or nn.ModuleDict registers modules, nn.Parameter as an attribute a tensor"


def unknown_memory(network: Network, config: StepConfig) -> str:
    """Why the memory of a step is not known; empty if it is."""
    if not network.registers_all:
        return "its unregistered parameters take memory too, but do not move to a GPU with the model"
    if network.uncounted:
        more = f" and of {len(network.uncounted) - 1} more layers" if len(network.uncounted) > 1 else ""
        return f"the parameters of {network.uncounted[0]}{more} are not known"
    if _has_untold_gradient(network, config):
        return (
            f"no gradient is registered for {network.without_gradient}: torch warns that the backward pass may be wrong"
        )
    return _unknown_gradients(network, config)


def _unknown_gradients(network: Network, config: StepConfig) -> str:
    """Why the memory of a step's gradients, or of its sparse products, is not known; empty if it is."""
    trained = trained_parameters(network, config) if config.trains else ()
    sparse = next((p.name for p in trained if p.name in network.sparse_gradients), None)
    if sparse is not None:
        return f"the gradient of {sparse} is sparse: its size depends on the rows that the batch reads"
    if network.sparse_call and (trained or not config.trains) and recorded_step(network, config) is None:
        return f"{network.sparse_call} computes with a sparse matrix, of which torch makes copies that no rule gives"
    if config.trains and not trained:
        frozen = any(network.parameters())
        return f"it has nothing to train: {'no parameter gets a gradient' if frozen else 'no parameters'}"
    return ""


def _has_untold_gradient(network: Network, config: StepConfig) -> bool:
    """Whether a step trains through an operator without a registered gradient."""
    return config.trains and bool(network.without_gradient) and any(p.trainable for p in network.parameters())


def require_known_memory(network: Network, config: StepConfig) -> None:
    """Raise ModelError if the memory of a step is not known, unless there is nothing to train."""
    if config.trains and network.sparse_gradients and trained_parameters(network, config):
        remedy = "sparse=False gives a dense gradient"
    elif not network.registers_all:
        remedy = _UNREGISTERED_REMEDY
    elif network.uncounted:
        remedy = "a model exported to ONNX has all its parameters in the file"
    elif _has_untold_gradient(network, config):
        remedy = "torch.library.register_autograd registers one"
    elif network.sparse_call and (not config.trains or trained_parameters(network, config)):
        remedy = "the memory of a dense matrix is known: to_dense() returns one"
    else:
        return
    if reason := unknown_memory(network, config):
        raise ModelError(f"the memory of {network.name} is not known: {reason}", remedy)


def peaks(network: Network, batch: int) -> tuple[dict[bool, int | None], tuple[str, ...]]:
    """The peak of a forward pass and of a training step by whether it trains, None if it is not known, and sentences
    on what is not known of them.
    """
    network = network.for_batch(batch)
    known: dict[bool, int | None] = {}
    reasons: dict[str, list[str]] = {}
    for config in (StepConfig(mode="inference"), StepConfig()):
        reason = unknown_memory(network, config)
        known[config.trains] = None if reason else _peak(network, batch, config)
        if reason:
            reasons.setdefault(reason, []).append("a training step" if config.trains else "a forward pass")
    texts = (f"the peak memory of {' and '.join(steps)} is not known: {reason}" for reason, steps in reasons.items())
    return known, tuple(texts)


def refused_layer(network: Network, config: StepConfig, batch: int) -> str:
    """The layer that torch refuses to run in a training step at a batch, as batch norm on one value per channel; empty
    if there is none, or if torch was recorded.
    """
    network = network.for_batch(batch)
    if not config.trains or recorded_step(network, config) is not None:
        return ""
    network = of_step(network, config)
    shapes = network.batched_shapes(batch)
    for node in network.nodes:
        if node.inputs and not node.op.without_constants.trains_on(shapes[node.inputs[0]]):
            return node.title
    return ""


def refused_warning(network: Network, batch: int) -> tuple[str, ...]:
    """A sentence on a training step that torch refuses to run at a batch, if rules predict its memory."""
    layer = refused_layer(network, StepConfig(), batch) if network.predicts_training else ""
    samples = "one sample" if batch == 1 else f"{count_text(batch)} samples"
    failure = f"a training step on {samples} fails in torch: {layer} has one value per channel"
    return (f"{failure}; its memory is that of larger batches, extended",) if layer else ()


def by_rules_warning(network: Network, batch: int) -> tuple[str, ...]:
    """A sentence on the peaks of a forward pass and a training step that torch may not share, if there is one."""
    network = network.for_batch(batch)
    configs = StepConfig(mode="inference"), StepConfig()
    known = [config for config in configs if not unknown_memory(network, config)]
    if all(is_predicted(network, config) for config in known) or any(BY_RULES in text for text in network.warnings):
        return ()
    remedy = "" if network.torch_count is None else "; a summary of the module itself records it"
    return (f"the peak memory is {BY_RULES}, and torch may allocate otherwise: it was not recorded{remedy}",)


def _replay(log: StepLog, recorded: RecordedStep, element_bytes: int, units: ShardedUnits, passes: int) -> int:
    """Allocate and free what torch did, with floating-point values of `element_bytes`, in so many equal passes.

    Returns the number of storages that earlier steps kept and this one does not free. They are allocated first.
    """
    freed = {event.storage for event in recorded.events if not event.kind}
    kept = [event for event in recorded.events if event.event == BEFORE and event.storage not in freed]
    numbers = {event.storage for event in kept}
    events = [event for event in recorded.events if event.storage not in numbers]
    replayer = _Replayer(log, units, element_bytes, ELEMENT_BYTES[recorded.dtype])
    replayer.run(kept)
    for _ in range(passes):
        replayer.run(events)
    return len(kept)


class _Replayer:
    """Allocates and frees the storages of a recording. Floating-point values of `width` bytes get `element_bytes`."""

    def __init__(self, log: StepLog, units: ShardedUnits, element_bytes: int, width: int) -> None:
        self.log, self.units, self.element_bytes, self.width = log, units, element_bytes, width
        self.place = BEFORE, ""
        self.phase = ""
        self.loss: list[int] = []

    def run(self, events: Sequence[StorageEvent]) -> None:
        """Replay one pass. What it leaves is the loss, which a variable names until the backward of the next pass."""
        tensors: dict[int, int] = {}
        for event, layer, storage, kind, fixed, per_sample, scales in events:
            if self.place != (event, layer):
                self._begin(event, layer)
            if not kind:
                self.log.release(tensors.pop(storage))
                continue
            mine = self.element_bytes if scales else self.width
            size = BatchLinear(fixed * mine // self.width, per_sample * mine // self.width)
            if kind == "gradients" and self.units:
                self.units.keep_gradient(layer, size.fixed, self.log.allocate("temporary", size))
            else:
                tensors[storage] = self.log.allocate(kind, size)
        if self.phase == "backward" and self.units:
            self.units.end_backward()
            self.loss = [*tensors.values()]
        self.units.leave("forward", "")

    def _begin(self, event: str, layer: str) -> None:
        """Begin an event of a layer. Those of the loss are in the pass that runs, and in no layer."""
        if event == "backward" and self.phase == "forward":
            self.log.release(*self.loss)
            self.loss = []
        self.phase = event if event in ("forward", "backward") else self.phase
        if self.phase == "forward" or layer:
            self.units.leave(self.phase, layer)
        self.log.begin(event, layer)
        if layer:
            self.units.enter(self.phase, layer)
        self.place = event, layer


def simulate_optimizer(log: StepLog, network: Network, config: StepConfig, trained: tuple[Parameter, ...]) -> None:
    """Simulate the optimizer's step, which follows the passes, and the clipping of gradients before it."""
    shares = [(p, elements) for p, elements in zip(trained, config.shards.states(trained)) if elements]
    if config.shards.parallel.states == "whole":
        shares.sort(key=lambda share: -share[1])  # ZeroRedundancyOptimizer assigns the largest first
    sizes = {p.name: BatchLinear(elements * network.element_bytes_of(p), 0) for p, elements in shares}
    log.begin("optimizer step")
    if config.clip_grad_norm and trained:
        _simulate_clipping(log, network, config, trained)
    optimizer = OPTIMIZERS[config.optimizer]
    foreach = config.steps_foreach
    names = optimizer.temporaries(foreach=foreach, decays=bool(config.weight_decay), nesterov=config.nesterov)
    if config.fused or not names:
        return
    tensors: dict[str, list[int]] = {}
    for group in _groups(shares, foreach=foreach):
        if not foreach:
            log.begin("optimizer step", group[0].rpartition(".")[0])
        log.release(*tensors.pop("grad", ()))
        for name in names:
            if name.startswith("-"):
                log.release(*tensors.pop(name[1:]))
                continue
            assigned = [log.allocate("temporary", sizes[parameter]) for parameter in group]
            log.release(*tensors.pop(name, ()))
            tensors[name] = assigned
    for assigned in tensors.values():
        log.release(*assigned)


def _groups(shares: Sequence[tuple[Parameter, int]], *, foreach: bool) -> Iterable[list[str]]:
    """The names of the parameters that are stepped at once: those of one dtype with foreach, else one."""
    groups: dict[str, list[str]] = {}
    for p, _ in shares:
        groups.setdefault(p.dtype if foreach else p.name, []).append(p.name)
    return groups.values()


def _simulate_clipping(log: StepLog, network: Network, config: StepConfig, trained: tuple[Parameter, ...]) -> None:
    """Simulate torch.nn.utils.clip_grad_norm_: scalars, and on CUDA the partial sums of the foreach kernel."""
    widths = [network.element_bytes_of(p) for p in trained]
    if config.foreach is not False and RUNTIMES[config.runtime] is CUDA:
        chunks = max(-(-config.shards.gradient(p.shape) // NORM_CHUNK) for p in trained)
        log.release(log.allocate("temporary", BatchLinear(len(trained) * chunks * COUNTER, 0)))
    norms = [log.allocate("temporary", BatchLinear(width, 0)) for width in widths]
    stack = BatchLinear(len(widths) * max(widths), 0)
    stacked = log.allocate("temporary", stack)
    if config.shards.parallel.gradients:
        # The norms of a GPU's parts: their squares, the sums over the GPUs, and the roots of these.
        squares, sums, roots = (log.allocate("temporary", stack) for _ in range(3))
        log.release(squares, sums)
        norms.append(roots)
    total = log.allocate("temporary", BatchLinear(max(widths), 0))
    log.release(*norms, stacked)
    # The coefficient, and what it is computed from: the norm and a small number, and the reciprocal of their sum.
    scalars = [log.allocate("temporary", BatchLinear(max(widths), 0)) for _ in range(3)]
    log.release(total, *scalars)


def trained_parameters(network: Network, config: StepConfig) -> tuple[Parameter, ...]:
    """The parameters that get a gradient, in the optimizer's order; at inference, those that require one."""
    recorded = recorded_step(network, config) if config.trains else None
    if recorded is not None:
        parameters = {parameter.name: parameter for parameter in network.parameters()}
        return tuple(parameters[name] for name in recorded.trained if name in parameters)
    network = of_step(network, config)
    nodes = [node for node in network.nodes if not node.detached]
    if config.trains and len(network.returned) > 1:  # the loss reads one tensor of several
        nodes = [node for node in nodes if node.name in network.differentiated]
    read = {p.name for node in nodes for p in node.parameters}
    head = head_parameters(network) if config.mode == "finetune-head" else None
    return tuple(
        parameter
        for parameter in network.registered_parameters()
        if parameter.trainable and parameter.name in read and (head is None or parameter.name in head)
    )


def _allocate_resident(
    log: StepLog, network: Network, config: StepConfig, trained: tuple[Parameter, ...]
) -> dict[str, int]:
    """Allocate what exists before the step: weights, buffers, gradient buckets and the optimizer's states.

    Returns the tensors of the parameters and tables by name.
    """
    shards = config.shards
    tensors = {
        p.name: log.allocate("parameters", _weight_size(network, config, p), _layer(p)) for p in network.parameters()
    }
    for module, size in _buffers_of_layers(network):
        log.allocate("buffers", BatchLinear(size, 0), module)
    recorded = recorded_step(network, config)
    for table in network.tables:
        if recorded is not None and table.name in recorded.replaced:
            continue
        tensors[table.name] = log.allocate("buffers", BatchLinear(network.bytes_of(table), 0), _layer(table))
    if config.trains:
        for p in trained if shards.parallel.buckets else ():
            log.allocate("gradients", BatchLinear(network.bytes_of(p), 0), _layer(p))
        allocate_optimizer_states(log, network, config, trained)
    return tensors


def _weight_size(network: Network, config: StepConfig, p: Parameter) -> BatchLinear:
    """The bytes of a parameter on this GPU."""
    if p.stored is not None or not config.shards.parallel.weights:
        return BatchLinear(network.bytes_of(p), 0)
    return BatchLinear(config.shards.part(p.shape) * network.element_bytes_of(p) + p.index_bytes, 0)


def _buffers_of_layers(network: Network) -> Iterator[tuple[str, int]]:
    """The module and the bytes of each buffer that an op declares. It has the dtype of the layer's weights."""
    sizes = {}
    for node in network.nodes:
        buffers = node.op.buffers() if node.module is not None else {}
        if buffers:
            width = network.element_bytes_of(node.parameters[0]) if node.parameters else ELEMENT_BYTES[network.dtype]
            for name, shape in buffers.items():
                sizes[node.module or "", name] = numel(shape) * width if shape else BATCHES_TRACKED
    return ((module, size) for (module, _), size in sizes.items())


def allocate_optimizer_states(
    log: StepLog, network: Network, config: StepConfig, trained: tuple[Parameter, ...]
) -> None:
    """Allocate what the optimizer keeps between steps."""
    optimizer = OPTIMIZERS[config.optimizer]
    for p, elements in zip(trained, config.shards.states(trained)):
        for _ in range(optimizer.states if elements else 0):
            log.allocate("optimizer", BatchLinear(elements * network.element_bytes_of(p), 0), _layer(p))
        if elements and optimizer.counter and (config.fused or RUNTIMES[config.runtime].counts_on_device):
            log.allocate("optimizer", BatchLinear(COUNTER, 0), _layer(p))
    if config.ema:
        _allocate_average(log, network, config)


def _allocate_average(log: StepLog, network: Network, config: StepConfig) -> None:
    """Allocate the copy of the weights and buffers that AveragedModel keeps, as states of the optimizer."""
    for p in network.parameters():
        log.allocate("optimizer", _weight_size(network, config, p), _layer(p))
    for module, size in _buffers_of_layers(network):
        log.allocate("optimizer", BatchLinear(size, 0), module)
    for table in network.tables:
        log.allocate("optimizer", BatchLinear(network.bytes_of(table), 0), _layer(table))
    if RUNTIMES[config.runtime].counts_on_device:
        log.allocate("optimizer", BatchLinear(BATCHES_TRACKED, 0), "")


def _allocate_inputs(log: StepLog, network: Network, config: StepConfig) -> dict[str, int]:
    """Allocate the inputs, and the labels if there is a loss; return the inputs' tensors by name."""
    tensors = {given.name: log.allocate("input", input_size(network, given), "") for given in network.inputs}
    if config.trains:
        log.allocate("input", label_size(network), "")
    return tensors


def _layer(tensor: Parameter | Buffer) -> str:
    return tensor.name.rpartition(".")[0]


class Gradient(NamedTuple):
    """The gradient of a value: the number of its tensor, and whether it is as large as the tensor's memory.

    `takes_sum`: autograd may add another gradient to it in place, unless another value refers to it.
    """

    tensor: int
    dense: bool = True
    takes_sum: bool = True


def _beside(network: Network) -> frozenset[str]:
    """The names of the nodes of which the loss has no gradient, if forward returns several tensors."""
    if len(network.returned) <= 1:
        return frozenset()
    return frozenset(network.by_name.keys() - network.differentiated)


class StepSimulator:
    """The state of a step: the tensor of each value, what autograd saves, and the gradients so far.

    `tensors` and `gradients` are keyed by the name of a value, `saved` by the position of a call. `stage_inputs` are
    the tensors from which checkpointing recomputes a stage (torch.utils.checkpoint with use_reentrant=False).
    `aliases` are the names of values that a call returns as they are, with the names that they had.
    """

    def __init__(self, log: StepLog, network: Network, config: StepConfig, trained: tuple[Parameter, ...]) -> None:
        self.log, self.network = log, network
        self.runtime, self.records_backward = RUNTIMES[config.runtime], config.trains
        self.trained = frozenset(p.name for p in trained)
        self.units = ShardedUnits(log, network, config.shards, self.trained)
        self.beside = _beside(network) if config.trains else frozenset()
        if config.mode == "train":
            # Their calls save for backward too, until the tensors that forward returns are freed.
            self.trained |= {p.name for name in self.beside for p in network.by_name[name].parameters if p.trainable}
        self.forward_pass = forward_pass(
            network.with_weight_calls, self.runtime, training=config.trains, autocast=config.dtype == AMP
        )
        self.calls, self.sizes = self.forward_pass.calls, self.forward_pass.sizes
        self.stages = stages(network, self.calls) if config.checkpoint else ()
        self.tensors: dict[str, int] = {}
        self.saved: dict[int, list[int]] = {}
        self.stage_inputs: dict[range, int] = {}
        self.gradients: dict[str, Gradient] = {}
        self.piece_gradients: dict[str, list[tuple[int, BatchLinear]]] = {}
        self.parameter_gradients: dict[str, int] = {}
        self.differentiable: set[str] = set()
        self.aliases: dict[str, str] = {}
        self.leaves = self.forward_pass.leaves
        self.readers: dict[str, int] = {}
        self.complete: list[str] = []

    def take_leaves(self, tensors: Mapping[str, int]) -> None:
        """Let calls on weights read these tensors, the parameters and buffers by name."""
        self.tensors.update((name, tensors[leaf.key]) for name, leaf in self.leaves.items())
        self.differentiable.update(name for name, leaf in self.leaves.items() if leaf.key in self.trained)

    def forward(self) -> None:
        """Run all calls in order."""
        previous_loss = self.tensors.pop(LOSS, None)
        self._run_calls(range(len(self.calls)), "forward")
        self.units.leave("forward", "")
        if previous_loss is not None:
            # A variable names the loss of the previous micro-batch until here.
            self.log.release(previous_loss)

    def _run_calls(self, positions: range, event: str) -> None:
        calls = self.calls[positions.start : positions.stop]
        unnamed: dict[int, list[str]] = {}
        half_copies = self.forward_pass.half_copies
        for name, position in last_reads(calls).items():
            # Autocast caches the copy of a weight that requires a gradient until the pass ends.
            cached = name in half_copies and name.removesuffix(HALF_COPY) in self.trained
            unnamed.setdefault(positions.stop - 1 if cached else positions.start + position, []).append(name)
        stage_starts = {stage.start: stage for stage in self.stages} if event == "forward" else {}
        stage, is_sharded, tensors = range(0), bool(self.units), self.tensors
        for position, call in zip(positions, calls):
            if is_sharded:
                self.units.leave(event, call.layer)
            if self.beside and not call.layer:
                self._free_beside()
            self.log.begin(event if call.layer else "loss", call.layer)
            if position in stage_starts:
                stage = stage_starts[position]
                self._retain_input(stage)
            if is_sharded:
                self.units.enter(event, call.layer)
            self._run(position, call, position not in stage)
            if position in unnamed:
                self.log.release(*[tensors[name] for name in unnamed[position]])

    def _free_beside(self) -> None:
        """Free what the calls saved whose results the loss does not read: forward has returned."""
        for position in [position for position in self.saved if self.calls[position].layer in self.beside]:
            self.log.release(*self.saved.pop(position))

    def _retain_input(self, stage: range) -> None:
        """Retain the tensor that a stage is recomputed from, if the stage has a backward."""
        if stage.start:
            source = self.calls[stage.start - 1].output
        else:  # the first calls may cast weights, which reads no activation
            source = next(name for call in self.calls for name in call.inputs if name not in self.leaves)
        calls = self.calls[stage.start : stage.stop]
        if source in self.differentiable or any(p.name in self.trained for call in calls for p in call.parameters):
            self.stage_inputs[stage] = self.tensors[source]
            self.log.retain(self.tensors[source])

    def _run(self, position: int, call: OperatorCall, saves: bool) -> None:
        log = self.log
        if call.shares_memory and call.inputs:
            tensor = self.tensors[call.inputs[0]]
            log.retain(tensor)
        else:
            tensor = log.allocate("activations" if call.inputs else "temporary", call.size)
        self.tensors[call.output] = tensor
        extra = [log.allocate("activations", size) for size in call.extra]
        temporaries = [log.allocate("temporary", size) for size in call.temporaries]
        if self.records_backward and self._requires_gradient(call):
            self.differentiable.add(call.output)
            if call.returns_input:
                self.aliases[call.output] = self.aliases.get(call.inputs[0], call.inputs[0])
                return
            self.saved[position] = []
            if call.factors is None or any(p.name in self.trained for p in call.factors):
                extra += [log.allocate("activations", size) for size in call.copies]
        if saves and position in self.saved:
            kept = [self.tensors[name] for name in self._saved_names(call)]
            self.saved[position] = [*kept, *extra]
            for number in kept:
                log.retain(number)
        else:
            temporaries += extra
        log.release(*temporaries)

    def _saved_names(self, call: OperatorCall) -> Sequence[str]:
        """The values that autograd saves of a call."""
        if call.factors is None or any(p.name in self.trained for p in call.factors):
            return call.saves
        needs = [name in self.differentiable for name in call.saves]
        return [name for i, name in enumerate(call.saves) if any(needs[:i]) or any(needs[i + 1 :])]

    def _requires_gradient(self, call: OperatorCall) -> bool:
        if call.gradient == "none":
            return False
        return not self.differentiable.isdisjoint(call.inputs) or bool(self._trained(call))

    def backward(self) -> None:
        """Run the calls' backwards, last to first, from the gradient of the loss."""
        if LOSS not in self.differentiable:
            return
        self.log.begin("loss")
        for position in self.saved:
            for name in self.leaves.keys() & self.calls[position].inputs:
                self.readers[name] = self.readers.get(name, 0) + 1
        one = self.log.allocate("temporary", self.sizes[LOSS])
        self.log.retain(one)
        self.gradients[LOSS] = Gradient(one)
        to_recompute, is_sharded = list(self.stage_inputs), bool(self.units)
        for position in sorted(self.saved, reverse=True):
            call = self.calls[position]
            if is_sharded:
                self.units.leave("backward", call.layer)
            if to_recompute and position in to_recompute[-1] and (call.saves or call.extra or call.copies):
                self._recompute(to_recompute.pop(), position)
            self.log.begin("backward" if call.layer else "loss", call.layer)
            if is_sharded:
                self.units.enter("backward", call.layer)
            self._run_backward(call, self.saved.pop(position))
            done = [s for s in self.stage_inputs if position in s and self.saved.keys().isdisjoint(s)]
            self.log.release(*map(self.stage_inputs.pop, done))
        self.units.end_backward()
        self.log.release(one)

    def _recompute(self, stage: range, last: int) -> None:
        """Run a stage's forward again, up to the last call that saves anything."""
        self._run_calls(range(stage.start, last + 1), "recompute")
        self.units.leave("recompute", "")
        self.log.release(self.tensors[self.calls[last].output])

    def _run_backward(self, call: OperatorCall, saved: list[int]) -> None:
        gradient = self._output_gradient(call)
        if gradient is None or not call.base:
            self.log.release(*self._run_formula(call, gradient, saved))
            while self.complete:
                self._keep_leaf_gradient(self.complete.pop(0))
            return
        # CopySlices: a copy of the base's gradient, in which that of the part replaces what the part had.
        part = call.inputs[0]
        whole = self.log.allocate("temporary", self.sizes[call.base])
        of_part = Gradient(self.log.allocate("temporary", self.sizes[part]))
        used = self._run_formula(call._replace(size=self.sizes[part]), of_part, saved)
        used += [self.gradients.pop(part).tensor] if part in self.gradients else []
        used += self._accumulate(call.base, Gradient(whole)) if call.base in self.differentiable else [whole]
        self.log.release(gradient.tensor, *used)

    def _run_formula(self, call: OperatorCall, gradient: Gradient | None, saved: list[int]) -> list[int]:
        """Compute the gradients of a call's inputs and parameters; return the tensors that are no longer needed."""
        log = self.log
        input_gradients: list[tuple[str, Gradient]] = []
        used: list[int] = []
        if gradient is not None:
            if call.copies_gradient:
                copy = log.allocate("temporary", call.size)
                log.release(gradient.tensor)
                gradient = Gradient(copy)
            zeros = self._allocate_missing_pieces(call) if self.piece_gradients.get(call.output) else []
            computed = [
                (i, name, size, self._input_gradient(call, i, gradient)) for i, name, size in self._targets(call)
            ]
            if call.last_input_first:
                computed.reverse()
            # The gradients of these parameters have the output's size before they are summed.
            summed = self._trained(call) if call.sums_gradients else ()
            unreduced = [self.log.allocate("temporary", call.size) for _ in summed]
            input_gradients = [(name, self._reduced(call, i, size, gradient)) for i, name, size, gradient in computed]
            used = self._allocate_parameter_gradients(call, gradient)
            log.release(gradient.tensor, *unreduced, *zeros)
            if call.output in self.piece_gradients:
                log.release(*[tensor for tensor, _ in self.piece_gradients.pop(call.output)])
        log.release(*saved)
        added = [tensor for name, one in input_gradients for tensor in self._accumulate(name, one)]
        if call.relays_gradients:
            log.release(*added)  # before the gradients of the weights are copied
        else:
            used += added
        for p in self._trained(call) if call.relays_gradients and gradient is not None else ():
            # Copy the gradients that were computed in another memory layout than their weights have.
            if not self._has_gradient(p):
                self._keep_gradient(p)
        return used

    def _output_gradient(self, call: OperatorCall) -> Gradient | None:
        """The gradient of a call's output, once it is complete: the gradients of pieces wait for the first piece."""
        gradient = self.gradients.pop(call.output, None)
        if not call.first_piece:
            return gradient
        waiting = self.piece_gradients.setdefault(call.first_piece, [])
        if gradient is not None:
            waiting.append((gradient.tensor, call.size))
        if call.first_piece != call.output or not waiting:
            return None
        self.log.retain(waiting[-1][0])
        return Gradient(waiting[-1][0])

    def _allocate_missing_pieces(self, call: OperatorCall) -> list[int]:
        """Allocate the zeros that stand for the gradients of pieces that have none, if the call cuts up a tensor."""
        pieces = self.piece_gradients[call.output]
        whole = self.sizes[call.inputs[0]]
        fixed = whole.fixed - sum(size.fixed for _, size in pieces)
        per_sample = whole.per_sample - sum(size.per_sample for _, size in pieces)
        return [self.log.allocate("temporary", BatchLinear(fixed, per_sample))] if fixed or per_sample else []

    def _targets(self, call: OperatorCall) -> Iterable[tuple[int, str, BatchLinear]]:
        """The inputs that get a gradient, in the order of computation: position, name and size."""
        needed, sizes = self.differentiable, self.sizes
        targets = [(i, name, sizes[name]) for i, name in enumerate(call.inputs) if name in needed]
        return reversed(targets) if call.last_input_first else targets

    def _input_gradient(self, call: OperatorCall, position: int, gradient: Gradient) -> Gradient:
        """The gradient of an input from that of the output, before it is reduced to the input's size."""
        size = self.sizes[call.inputs[position]]
        kind = call.input_gradients[position] if position < len(call.input_gradients) else call.gradient
        if kind == "part" or (kind in ("same", "view") and (size == call.size or call.broadcasts)):
            self.log.retain(gradient.tensor)
            takes_sum = gradient.takes_sum and (kind != "view" or call.copies_gradient)
            return Gradient(gradient.tensor, gradient.dense and kind != "part", takes_sum)
        if kind == "copied":
            zeros, tensor = (self.log.allocate("temporary", size) for _ in range(2))
            self.log.release(zeros)
            return Gradient(tensor)
        is_new = kind in ("new", "new view")
        scratch = call.scratch[position] if call.scratch and is_new else 0
        further = call.backward_temporaries if is_new else ()
        temporaries = [self.log.allocate("temporary", size) for size in (*[call.size] * scratch, *further)]
        own = call.size if call.broadcasts else size
        if position < len(call.gradient_sizes):  # further inputs are autocast's copies of weights
            own = call.gradient_sizes[position]
        tensor = self.log.allocate("temporary", own)
        self.log.release(*temporaries)
        return Gradient(tensor, not call.gradient_sizes or own == size, takes_sum=kind != "new view")

    def _reduced(self, call: OperatorCall, position: int, size: BatchLinear, gradient: Gradient) -> Gradient:
        """The gradient summed or cast to the size of its input."""
        if not gradient.dense and not call.broadcasts:
            return gradient
        # The gradient of a sum, which is expanded, takes less memory than the output of that size.
        own = self.log.size(gradient.tensor) if gradient.dense else call.size
        drops_axes = bool(call.drops_axes) and call.drops_axes[position]
        if not drops_axes and (own == size or (call.is_single and own.at(1) == size.at(1))):
            return gradient
        reduced = self.log.allocate("temporary", size)
        self.log.release(gradient.tensor)
        return Gradient(reduced, takes_sum=not drops_axes)

    def _trained(self, call: OperatorCall) -> Sequence[Parameter]:
        trained = self.trained
        return [p for p in call.parameters if p.name in trained] if call.parameters else ()

    def _accumulate(self, name: str, gradient: Gradient) -> list[int]:
        """Add a gradient to that of a value; return the tensors that are no longer needed."""
        name = self.aliases.get(name, name)
        if name in self.leaves:
            self.readers[name] -= 1
            self.complete += [name] * (not self.readers[name])
        before = self.gradients.get(name)
        if before is None:
            self.gradients[name] = gradient
            return []
        takes_sum = self.runtime.sums_in_place and before.dense and before.takes_sum
        if not (takes_sum and self.log.has_one_reference(before.tensor)):
            self.gradients[name] = Gradient(self.log.allocate("temporary", self.sizes[name]))
            self.log.release(before.tensor)
        return [gradient.tensor]

    def _keep_leaf_gradient(self, name: str) -> None:
        """Keep the gradient of a parameter that calls on weights read, or add it to an earlier one.

        Autograd keeps the tensor itself if nothing else refers to it and it has the parameter's memory layout.
        """
        leaf, gradient = self.leaves[name], self.gradients.pop(name)
        assert leaf.parameter is not None
        is_alone = not gradient.dense or not gradient.takes_sum or self.log.has_one_reference(gradient.tensor)
        if not self._has_gradient(leaf.parameter):
            if is_alone and not leaf.copies_gradient and not self.units:
                self.log.use_as("gradients", gradient.tensor)
                self.parameter_gradients[leaf.key] = gradient.tensor
                return
            self._keep_gradient(leaf.parameter)
        self.log.release(gradient.tensor)

    def _allocate_parameter_gradients(self, call: OperatorCall, gradient: Gradient) -> list[int]:
        """Allocate the gradients of a call's parameters; return those that are temporary.

        A gradient is temporary if it is added to an earlier one, or copied to another layout.
        """
        temporaries = []
        for p in self._trained(call):
            if call.keeps_gradient and not self.units:
                if not self._has_gradient(p):
                    self.log.retain(gradient.tensor)
                    self.parameter_gradients[p.name] = gradient.tensor
            elif self._has_gradient(p) or (call.relays_gradients and len(p.shape) > 1):
                temporaries.append(self.log.allocate("temporary", self._size(p)))
            else:
                self._keep_gradient(p)
        return temporaries

    def _has_gradient(self, parameter: Parameter) -> bool:
        return parameter.name in self._gradients_with(parameter)

    def _keep_gradient(self, parameter: Parameter) -> None:
        kind = "temporary" if self.units else "gradients"
        self._gradients_with(parameter)[parameter.name] = self.log.allocate(kind, self._size(parameter))

    def _gradients_with(self, parameter: Parameter) -> dict[str, int]:
        """The gradients that are kept or, if each GPU keeps a part, those of the parameter's unit."""
        return self.units.gradients[self.units.paths[parameter.name]] if self.units else self.parameter_gradients

    def _size(self, parameter: Parameter) -> BatchLinear:
        return BatchLinear(self.network.bytes_of(parameter), 0)
