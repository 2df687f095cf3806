"""One step walked as torch runs it: forward, loss, backward, optimizer; or one forward pass without gradients.

An output lives while a Python variable names it or autograd keeps it, what a call keeps lives until its backward has
run, a gradient until it has been used. The engine runs the calls' backwards in the reverse order of the calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from vggscope.analysis.memory.allocation_log import AllocationLog, BatchLinear, Trace
from vggscope.analysis.memory.calls import (
    COPY,
    LOSS,
    Call,
    Program,
    head_parameters,
    labels,
    last_reads,
    per_sample,
    program,
    stages,
)
from vggscope.analysis.memory.step_config import (
    ALONE,
    AMP,
    Optimizer,
    Runtime,
    Shards,
    StepConfig,
    optimizer_named,
    runtime_named,
)
from vggscope.graph import INPUT, Buffer, Network, Parameter
from vggscope.ops.base import numel


class Gradient(NamedTuple):
    """The gradient of a value: the tensor it lies in, and whether it fills its own memory without gaps."""

    tensor: int
    dense: bool = True


class StepSimulator:
    """The state of a step: which tensor each value lies in, what is kept, which gradients have come.

    `width` is the bytes of one element of a weight, `trained` are the names of the parameters that require a gradient,
    `keeping` tells whether autograd is on, `stages` are the calls that are recomputed in the backward pass
    (torch.utils.checkpoint without reentry).
    """

    def __init__(
        self,
        program: Program,
        ledger: AllocationLog,
        runtime: Runtime,
        width: int,
        trained: frozenset[str],
        shards: Shards = ALONE,
        *,
        keeping: bool = True,
        stages: tuple[range, ...] = (),
    ) -> None:
        self.program, self.ledger, self.runtime, self.width = program, ledger, runtime, width
        self.trained, self.shards, self.keeping, self.stages = trained, shards, keeping, stages
        self.tensors: dict[str, int] = {}
        self.saved_for_backward: dict[int, list[int]] = {}
        self.entries: dict[range, int] = {}
        self.gradients: dict[str, Gradient] = {}
        self.pieces: dict[str, list[int]] = {}
        self.parameter_gradients: dict[str, int] = {}
        self.differentiable: set[str] = set()
        self.gathered: dict[int, int] = {}
        units = [position for position, call in enumerate(program.calls) if call.parameters]
        gathers = shards.parallel is not None and shards.parallel.weights
        # Where weights are cut: for each call that has any, the call before it and the one behind it that have.
        around = zip([None, *units], [*units[1:], None])
        self.units: dict[int, tuple[int | None, int | None]] = dict(zip(units, around)) if gathers else {}

    def forward(self) -> None:
        """All calls in order; autograd keeps what the backward of a differentiable one needs, of a stage its input."""
        before = self.tensors.pop(LOSS, None)
        self._pass(range(len(self.program.calls)), "forward")
        if before is not None:
            # Until here the loss of the micro-batch before had its name.
            self.ledger.release(before)

    def _pass(self, positions: range, event: str) -> None:
        calls = self.program.calls[positions.start : positions.stop]
        drops: dict[int, list[str]] = {}
        for name, position in last_reads(calls).items():
            cached = name in self.program.copies and name.removesuffix(COPY) in self.trained
            # Autocast holds the copy of a weight that requires a gradient until it ends, with the pass.
            drops.setdefault(positions.stop - 1 if cached else positions.start + position, []).append(name)
        stages = {stage.start: stage for stage in self.stages} if event == "forward" else {}
        within = range(0)
        for position, call in zip(positions, calls):
            self.ledger.begin(event if call.layer else "loss", call.layer)
            if position in stages:
                within = stages[position]
                self._enter(within)
            self._gather(position, self.units.get(position, (None, None))[1])
            self._run(position, call, position not in within)
            self._scatter(position)
            for name in drops.get(position, ()):
                self.ledger.release(self.tensors[name])

    def _enter(self, stage: range) -> None:
        """Hold what a stage is recomputed from, if it has a backward."""
        source = self.program.calls[stage.start - 1].output if stage.start else INPUT
        calls = self.program.calls[stage.start : stage.stop]
        if source in self.differentiable or any(p.name in self.trained for call in calls for p in call.parameters):
            self.entries[stage] = self.tensors[source]
            self.ledger.hold(self.tensors[source])

    def _run(self, position: int, call: Call, keeps: bool) -> None:
        ledger = self.ledger
        if call.shares:
            tensor = self.tensors[call.inputs[0]]
            ledger.hold(tensor)
        else:
            tensor = ledger.allocate("activations" if call.inputs else "temporary", call.size)
        self.tensors[call.output] = tensor
        extra = [ledger.allocate("activations", size) for size in call.extra]
        passing = [ledger.allocate("temporary", size) for size in call.passing]
        if self.keeping and self._requires_gradient(call):
            self.differentiable.add(call.output)
            self.saved_for_backward[position] = []
            extra += [ledger.allocate("activations", size) for size in call.copies]
        if keeps and position in self.saved_for_backward:
            self.saved_for_backward[position] = [*(self.tensors[name] for name in call.keeps), *extra]
            for name in call.keeps:
                ledger.hold(self.tensors[name])
        else:
            passing += extra
        for made in passing:
            ledger.release(made)

    def _requires_gradient(self, call: Call) -> bool:
        if call.gradient == "none":
            return False
        return any(p.name in self.trained for p in call.parameters) or not self.differentiable.isdisjoint(call.inputs)

    def backward(self) -> None:
        """The calls' backwards, last to first, from the gradient of the loss."""
        if LOSS not in self.differentiable:
            return
        self.ledger.begin("loss")
        one = self.ledger.allocate("temporary", self.program.sizes[LOSS])
        self.ledger.hold(one)
        self.gradients[LOSS] = Gradient(one)
        waiting = list(self.entries)
        for position in sorted(self.saved_for_backward, reverse=True):
            call = self.program.calls[position]
            if waiting and position in waiting[-1] and (call.keeps or call.extra or call.copies):
                self._recompute(waiting.pop(), position)
            self.ledger.begin("backward" if call.layer else "loss", call.layer)
            self._gather(position, self.units.get(position, (None, None))[0])
            self._run_backward(call, self.saved_for_backward.pop(position))
            self._scatter(position)
            for stage in [stage for stage in self.entries if position in stage and not self._pending(stage)]:
                self.ledger.release(self.entries.pop(stage))
        self.ledger.release(one)

    def _pending(self, stage: range) -> bool:
        return any(position in self.saved_for_backward for position in stage)

    def _recompute(self, stage: range, last: int) -> None:
        """A stage's forward once more, up to the last call of which anything is kept."""
        self._pass(range(stage.start, last + 1), "recompute")
        self.ledger.release(self.tensors[self.program.calls[last].output])

    def _run_backward(self, call: Call, kept: list[int]) -> None:
        ledger = self.ledger
        arrived: list[tuple[str, Gradient]] = []
        spent: list[int] = []
        given = self._given(call)
        if given is not None:
            made = [(name, size, self._made(call, i, given)) for i, name, size in self._wanted(call)]
            raw = self._raw_parameter_gradients(call)
            arrived = [(name, self._fitted(size, gradient)) for name, size, gradient in made]
            spent = self._parameter_gradients(call)
            for tensor in (given.tensor, *raw, *self.pieces.pop(call.output, ())):
                ledger.release(tensor)
        for tensor in kept:
            ledger.release(tensor)
        if call.reverse:
            arrived.reverse()
        spent += [done for name, gradient in arrived if (done := self._accumulate(name, gradient)) is not None]
        if given is not None:
            self._lay_out(call)
        for tensor in spent:
            ledger.release(tensor)

    def _lay_out(self, call: Call) -> None:
        """The copies of gradients that came in another layout than their weights."""
        for p in call.parameters if call.relays else ():
            if p.name in self.trained and p.name not in self.parameter_gradients:
                self.parameter_gradients[p.name] = self.ledger.allocate("gradients", self._size(numel(p.shape)))

    def _given(self, call: Call) -> Gradient | None:
        """The gradient of a call's output; that of a piece waits for those of the pieces before it."""
        given = self.gradients.pop(call.output, None)
        if not call.first_piece:
            return given
        waiting = self.pieces.setdefault(call.first_piece, [])
        if given is not None:
            waiting.append(given.tensor)
        if call.first_piece != call.output or not waiting:
            return None
        return Gradient(waiting.pop())

    def _wanted(self, call: Call) -> Iterable[tuple[int, str, BatchLinear]]:
        """The inputs that get a gradient, in the order in which those are made, with their sizes."""
        wanted = [
            (i, name, self.program.sizes[name]) for i, name in enumerate(call.inputs) if name in self.differentiable
        ]
        return reversed(wanted) if call.reverse else wanted

    def _made(self, call: Call, position: int, given: Gradient) -> Gradient:
        """The gradient of an input as the op makes it of the output's: in the output's size where it has been repeated
        or widened.
        """
        size = self.program.sizes[call.inputs[position]]
        if call.gradient == "part" or (call.gradient == "same" and (size == call.size or call.mixes)):
            self.ledger.hold(given.tensor)
            return Gradient(given.tensor, given.dense and call.gradient == "same")
        scratch = call.scratch[position] if call.scratch and call.gradient == "new" else 0
        made = [self.ledger.allocate("temporary", call.size) for _ in range(scratch)]
        tensor = self.ledger.allocate("temporary", call.size if call.mixes else size)
        for temporary in made:
            self.ledger.release(temporary)
        return Gradient(tensor)

    def _fitted(self, size: BatchLinear, gradient: Gradient) -> Gradient:
        """The same gradient summed up or narrowed to the size of its input."""
        if self.ledger.size(gradient.tensor) == size or not gradient.dense:
            return gradient
        fitted = self.ledger.allocate("temporary", size)
        self.ledger.release(gradient.tensor)
        return Gradient(fitted)

    def _raw_parameter_gradients(self, call: Call) -> list[int]:
        """Of parameters that take part in arithmetic, the gradients before they are summed up."""
        if not call.sums:
            return []
        learned = [p for p in call.parameters if p.name in self.trained]
        return [self.ledger.allocate("temporary", call.size) for _ in learned]

    def _accumulate(self, name: str, gradient: Gradient) -> int | None:
        """Take a gradient in; where another has come before, their sum. Gives the tensor that this leaves over."""
        before = self.gradients.get(name)
        if before is None:
            self.gradients[name] = gradient
            return None
        if not (self.runtime.sums_in_place and before.dense and self.ledger.is_single(before.tensor)):
            self.gradients[name] = Gradient(self.ledger.allocate("temporary", self.program.sizes[name]))
            self.ledger.release(before.tensor)
        return gradient.tensor

    def _parameter_gradients(self, call: Call) -> list[int]:
        """The gradients of a call's parameters, each its own tensor, or, where there is one already or each GPU keeps
        its part alone, a temporary. Gives the temporaries.
        """
        spent = []
        learned = [p for p in call.parameters if p.name in self.trained]
        for p in learned:
            waits = call.relays and len(p.shape) > 1
            if p.name in self.parameter_gradients or self._cuts_gradients or waits:
                spent.append(self.ledger.allocate("temporary", self._size(numel(p.shape))))
            else:
                self.parameter_gradients[p.name] = self.ledger.allocate("gradients", self._size(numel(p.shape)))
        if spent and self._cuts_gradients:
            # They are copied together, summed over the GPUs, and each GPU takes its part.
            spent.append(self.ledger.allocate("temporary", self._size(sum(numel(p.shape) for p in learned))))
            for p in learned:
                if p.name not in self.parameter_gradients:
                    part = self._size(self.shards.gradient(numel(p.shape)))
                    self.parameter_gradients[p.name] = self.ledger.allocate("gradients", part)
        return spent

    @property
    def _cuts_gradients(self) -> bool:
        return self.shards.parallel is not None and self.shards.parallel.gradients

    def _size(self, elements: int) -> BatchLinear:
        return BatchLinear(elements * self.width, 0)

    def _gather(self, position: int, ahead: int | None) -> None:
        """Where weights are cut: have those of this call whole, and those of the next that has any ahead of time."""
        for unit in (position, ahead):
            if unit in self.units and unit not in self.gathered and unit is not None:
                whole = sum(numel(p.shape) for p in self.program.calls[unit].parameters)
                self.gathered[unit] = self.ledger.allocate("parameters", self._size(whole))

    def _scatter(self, position: int) -> None:
        if position in self.gathered:
            self.ledger.release(self.gathered.pop(position))

    def optimizer_step(self, optimizer: Optimizer, parameters: Mapping[str, int], foreach: bool) -> None:
        """The temporaries of a step over parameters of so many elements, one by one or all at once."""
        sizes = {name: self._size(n) for name, n in parameters.items() if n and name in self.parameter_gradients}
        self.ledger.begin("optimizer step")
        if foreach:
            made = [self.ledger.allocate("temporary", s) for s in sizes.values() for _ in range(optimizer.foreach)]
            for tensor in made:
                self.ledger.release(tensor)
            return
        named: list[int] = []
        for name, size in sizes.items() if optimizer.fresh else ():
            self.ledger.begin("optimizer step", name.rpartition(".")[0])
            *made, result = [self.ledger.allocate("temporary", size) for _ in range(optimizer.fresh)]
            # The previous parameter's result has its name until this one is complete.
            for tensor in made + named:
                self.ledger.release(tensor)
            named = [result]
        for tensor in named:
            self.ledger.release(tensor)


COUNTER = 4
"""Bytes of an optimizer's step counter, a float32."""

BATCHES_TRACKED = 8
"""Bytes of a batch norm's count of batches, an int64 whatever the dtype."""


def simulate_step(network: Network, setup: StepConfig) -> Trace:
    """The book of one step, or of one forward pass, for every batch at once: it takes time linear in the nodes."""
    learned = trained(network, setup)
    walk, resident = passes(network, setup, learned)
    stepping = len(walk.ledger.entries)
    if setup.trains:
        step(walk, setup, learned)
    return walk.ledger.finish(resident, stepping)


def passes(network: Network, setup: StepConfig, learned: tuple[Parameter, ...]) -> tuple[StepSimulator, int]:
    """A step up to the optimizer's, and how many entries of its book were there before it."""
    ledger = AllocationLog()
    _resident(ledger, network, setup, learned)
    inputs = _inputs(ledger, network, setup)
    resident = len(ledger.entries)
    runtime = runtime_named(setup.runtime)
    calls = program(
        network, setup.width, runtime, training=setup.trains, autocast=setup.dtype == AMP, loss=setup.trains
    )
    walk = StepSimulator(
        calls,
        ledger,
        runtime,
        setup.width,
        frozenset(p.name for p in learned),
        setup.shards,
        keeping=setup.trains,
        stages=stages(network, calls.calls) if setup.checkpoint else (),
    )
    walk.tensors[INPUT] = inputs
    for _ in range(min(setup.accumulate, 2) if setup.trains else 1):
        walk.forward()
        if setup.trains:
            walk.backward()
    return walk, resident


def step(walk: StepSimulator, setup: StepConfig, learned: tuple[Parameter, ...]) -> None:
    """The optimizer's step, behind the passes."""
    elements = dict(zip((p.name for p in learned), setup.shards.states(learned)))
    walk.optimizer_step(optimizer_named(setup.optimizer), elements, setup.foreach)


def trained(network: Network, setup: StepConfig) -> tuple[Parameter, ...]:
    """The parameters that require a gradient: at inference too, where none is made."""
    read = {p.name for node in network.nodes if not node.detached for p in node.parameters}
    head = head_parameters(network) if setup.mode == "finetune-head" else None
    return tuple(p for p in network.parameters() if p.trainable and p.name in read and (head is None or p.name in head))


def _resident(ledger: AllocationLog, network: Network, setup: StepConfig, learned: tuple[Parameter, ...]) -> None:
    """Weights, buffers, gradient buckets and the optimizer's states: what is there before the step."""
    width, shards = setup.width, setup.shards
    for p in network.parameters():
        ledger.allocate("parameters", BatchLinear(shards.weight(numel(p.shape)) * width, 0), _layer(p))
    buffers = {(n.module or n.name, name): shape for n in network.nodes for name, shape in n.op.buffers().items()}
    for (module, _), shape in buffers.items():
        ledger.allocate("buffers", BatchLinear(numel(shape) * width if shape else BATCHES_TRACKED, 0), module)
    for table in network.tables:
        ledger.allocate("buffers", BatchLinear(numel(table.shape) * (table.element_bytes or width), 0), _layer(table))
    if setup.trains:
        _resident_for_training(ledger, setup, learned)


def _resident_for_training(ledger: AllocationLog, setup: StepConfig, learned: tuple[Parameter, ...]) -> None:
    if setup.shards.parallel is not None and setup.shards.parallel.buckets:
        for p in learned:
            ledger.allocate("gradients", BatchLinear(numel(p.shape) * setup.width, 0), _layer(p))
    states(ledger, setup, learned)


def states(ledger: AllocationLog, setup: StepConfig, learned: tuple[Parameter, ...]) -> None:
    """What the optimizer keeps between steps."""
    optimizer = optimizer_named(setup.optimizer)
    for p, elements in zip(learned, setup.shards.states(learned)):
        for _ in range(optimizer.states if elements else 0):
            ledger.allocate("optimizer", BatchLinear(elements * setup.width, 0), _layer(p))
        if elements and optimizer.counter and runtime_named(setup.runtime).counts_on_device:
            ledger.allocate("optimizer", BatchLinear(COUNTER, 0), _layer(p))


def _inputs(ledger: AllocationLog, network: Network, setup: StepConfig) -> int:
    """The batch, and its labels where there is a loss; the batch's tensor."""
    tensor = ledger.allocate("input", per_sample(network.input_shape, setup.width), "")
    if setup.trains:
        ledger.allocate("input", labels(network), "")
    return tensor


def _layer(tensor: Parameter | Buffer) -> str:
    return tensor.name.rpartition(".")[0]


_DTYPE = {2: "float16", 4: "float32", 8: "float64"}


def inference_peak(network: Network, batch: int, itemsize: int) -> int:
    """The most bytes alive in one forward pass without gradients, the input batch among them."""
    return simulate_step(network.for_batch(batch), StepConfig(mode="inference", dtype=_DTYPE[itemsize])).peak_bytes(
        batch
    )


def training_peak(network: Network, batch: int, itemsize: int) -> int:
    """The most bytes alive in a training step with SGD and momentum, the input batch and its labels among them."""
    return simulate_step(network.for_batch(batch), StepConfig(dtype=_DTYPE[itemsize])).peak_bytes(batch)
