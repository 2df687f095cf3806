"""One step walked as torch runs it: forward, loss, backward, optimizer; or one forward pass without gradients.

An output lives while a Python variable names it or autograd keeps it, what a call keeps lives until its backward has
run, a gradient until it has been used. The engine runs the calls' backwards in the reverse order of the calls.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vggscope.analysis.memory.calls import COPY, LOSS, Call, Program
from vggscope.analysis.memory.ledger import Ledger
from vggscope.analysis.memory.lines import Line
from vggscope.analysis.memory.optimizers import Optimizer
from vggscope.analysis.memory.runtime import Runtime
from vggscope.network import INPUT, Parameter
from vggscope.ops.base import numel


@dataclass(frozen=True)
class Gradient:
    """The gradient of a value: the tensor it lies in, and whether it fills its own memory without gaps."""

    tensor: int
    dense: bool = True


@dataclass
class Walk:
    """The state of a step: which tensor each value lies in, what is kept, which gradients have come.

    `trained` are the names of the parameters that require a gradient, `keeping` tells whether autograd is on.
    """

    program: Program
    ledger: Ledger
    runtime: Runtime
    width: int
    trained: frozenset[str]
    keeping: bool = True
    tensors: dict[str, int] = field(default_factory=dict)
    kept: dict[int, list[int]] = field(default_factory=dict)
    gradients: dict[str, Gradient] = field(default_factory=dict)
    parameter_gradients: dict[str, int] = field(default_factory=dict)
    differentiable: set[str] = field(default_factory=set)

    def forward(self, calls: Sequence[Call]) -> None:
        """The calls in order; autograd keeps what the backward of a differentiable one needs."""
        last = last_reads(calls)
        for copy in self.program.copies:
            # Autocast caches the copy of a weight that requires a gradient; it ends after the loss.
            if copy.removesuffix(COPY) in self.trained:
                last[copy] = len(calls) - 1
        ends: dict[int, list[str]] = {}
        for name, position in last.items():
            ends.setdefault(position, []).append(name)
        for position, call in enumerate(calls):
            self.ledger.begin("forward" if call.layer else "loss", call.layer)
            if self.keeping and self._requires_gradient(call):
                self.differentiable.add(call.output)
            self._run(position, call)
            for name in ends.get(position, ()):
                self._drop(name)

    def _requires_gradient(self, call: Call) -> bool:
        return any(p.name in self.trained for p in call.parameters) or not self.differentiable.isdisjoint(call.inputs)

    def _run(self, position: int, call: Call) -> None:
        ledger = self.ledger
        if call.shares:
            tensor = self.tensors[call.inputs[0]]
            ledger.hold(tensor)
        else:
            kind = "activations" if call.inputs else "temporary"
            tensor = ledger.allocate(kind, call.size)
        self.tensors[call.output] = tensor
        extra = [ledger.allocate("activations", size) for size in call.extra]
        if call.output in self.differentiable:
            keeps = [self.tensors[name] for name in call.keeps]
            for kept in keeps:
                ledger.hold(kept)
            self.kept[position] = [*keeps, *extra]
        else:
            for made in extra:
                ledger.release(made)

    def _drop(self, name: str) -> None:
        """No variable names the value any more."""
        if name != INPUT:
            self.ledger.release(self.tensors[name])

    def backward(self, calls: Sequence[Call]) -> None:
        """The calls' backwards, last to first, from the gradient of the loss."""
        if LOSS not in self.differentiable:
            return
        self.ledger.begin("loss")
        one = self.ledger.allocate("temporary", self.program.sizes[LOSS])
        self.ledger.hold(one)
        self.gradients[LOSS] = Gradient(one)
        for position in range(len(calls) - 1, -1, -1):
            if position in self.kept:
                call = calls[position]
                self.ledger.begin("backward" if call.layer else "loss", call.layer)
                self._run_backward(call, self.kept.pop(position))
        self.ledger.release(one)

    def _run_backward(self, call: Call, kept: list[int]) -> None:
        ledger = self.ledger
        arrived: list[tuple[str, Gradient]] = []
        spent: list[int] = []
        given = self.gradients.pop(call.output, None)
        if given is not None:
            arrived = [(name, self._gradient(call, i, given)) for i, name in self._wanted(call)]
            spent = [g for p in call.parameters if (g := self._parameter_gradient(p)) is not None]
            ledger.release(given.tensor)
        for tensor in kept:
            ledger.release(tensor)
        if arrived and call.reverse:
            arrived.reverse()
        spent += [done for name, gradient in arrived if (done := self._accumulate(name, gradient)) is not None]
        for tensor in spent:
            ledger.release(tensor)

    def _wanted(self, call: Call) -> Iterable[tuple[int, str]]:
        wanted = [(i, name) for i, name in enumerate(call.inputs) if name in self.differentiable]
        return reversed(wanted) if call.reverse else wanted

    def _gradient(self, call: Call, position: int, given: Gradient) -> Gradient:
        if call.gradient != "new":
            self.ledger.hold(given.tensor)
            return Gradient(given.tensor, given.dense and call.gradient == "same")
        scratch = call.scratch[position] if call.scratch else 0
        made = [self.ledger.allocate("temporary", call.size) for _ in range(scratch)]
        tensor = self.ledger.allocate("temporary", self.program.sizes[call.inputs[position]])
        for temporary in made:
            self.ledger.release(temporary)
        return Gradient(tensor)

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

    def _parameter_gradient(self, parameter: Parameter) -> int | None:
        """A parameter's gradient: its own tensor, or, where there is one already, a temporary that is added to it."""
        if parameter.name not in self.trained:
            return None
        size = Line(numel(parameter.shape) * self.width, 0)
        if parameter.name in self.parameter_gradients:
            return self.ledger.allocate("temporary", size)
        self.parameter_gradients[parameter.name] = self.ledger.allocate("gradients", size)
        return None

    def optimizer_step(self, optimizer: Optimizer, parameters: Sequence[Parameter], foreach: bool) -> None:
        """The temporaries of a step, parameter by parameter or for all at once."""
        sizes = {p.name: Line(numel(p.shape) * self.width, 0) for p in parameters if p.name in self.parameter_gradients}
        self.ledger.begin("optimizer step")
        if foreach:
            made = [self.ledger.allocate("temporary", s) for s in sizes.values() for _ in range(optimizer.foreach)]
            for tensor in made:
                self.ledger.release(tensor)
            return
        if not optimizer.fresh:
            return
        before: int | None = None
        for name, size in sizes.items():
            self.ledger.begin("optimizer step", name.rpartition(".")[0])
            first, *more = [self.ledger.allocate("temporary", size) for _ in range(optimizer.fresh)]
            # The name of the last tensor is bound to the previous parameter's until the new one is complete.
            for tensor in [first, *more][:-1] + ([before] if before is not None else []):
                self.ledger.release(tensor)
            before = [first, *more][-1]
        if before is not None:
            self.ledger.release(before)


def last_reads(calls: Sequence[Call]) -> Mapping[str, int]:
    """The position of the call after which no Python variable names a value any more.

    A module's caller holds what it passed in until the module returns; the last output is never dropped.
    """
    last: dict[str, int] = {}
    made: dict[str, int] = {}
    frames: list[tuple[str, int, set[str]]] = []
    for position, call in enumerate(calls):
        path = call.layer.rpartition(":")[0] or call.layer
        parts = path.split(".")[:-1]
        _close(frames, parts, position - 1, last)
        for depth in range(len(frames), len(parts)):
            frames.append((parts[depth], position, set()))
        last[call.output] = position
        made[call.output] = position
        for name in (*call.inputs, *call.holds):
            last[name] = position
            for _, start, passed in frames:
                if made.get(name, -1) < start:
                    passed.add(name)
    _close(frames, [], len(calls) - 1, last)
    if calls:
        last.pop(calls[-1].output)
    return last


def _close(frames: list[tuple[str, int, set[str]]], parts: list[str], position: int, last: dict[str, int]) -> None:
    """Leave the modules that the next call is not in."""
    depth = next((i for i, (frame, part) in enumerate(zip(frames, parts)) if frame[0] != part), min(len(frames), len(parts)))
    while len(frames) > depth:
        for name in frames.pop()[2]:
            last[name] = position
