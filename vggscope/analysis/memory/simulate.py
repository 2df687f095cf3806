"""A network and a setup to the book of one step: the one place where the parts of the walk are put together."""

from __future__ import annotations

from vggscope.analysis.memory.allocation_log import AllocationLog, Trace
from vggscope.analysis.memory.batch_linear import BatchLinear
from vggscope.analysis.memory.calls import labels, per_sample, program
from vggscope.analysis.memory.optimizers import optimizer_named
from vggscope.analysis.memory.runtime import runtime_named
from vggscope.analysis.memory.stages import head_parameters, stages
from vggscope.analysis.memory.step import StepSimulator
from vggscope.analysis.memory.step_config import AMP, StepConfig
from vggscope.graph import INPUT, Buffer, Network, Parameter
from vggscope.ops.base import numel

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
