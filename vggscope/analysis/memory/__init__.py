"""What is alive when: the memory of one forward pass, or of one training step, tensor by tensor.

`calls` writes a network as the calls that torch makes, `step` walks them forward and backward as autograd does,
`ledger` books every tensor, `report` reads the peak out of the book.
"""

from __future__ import annotations

from vggscope.analysis.memory.calls import labels, per_sample, program
from vggscope.analysis.memory.ledger import Ledger, Trace
from vggscope.analysis.memory.lines import Line
from vggscope.analysis.memory.optimizers import optimizer_named
from vggscope.analysis.memory.runtime import runtime_named
from vggscope.analysis.memory.setup import AMP, Setup
from vggscope.analysis.memory.step import Walk
from vggscope.analysis.memory.stages import head_parameters, stages
from vggscope.graph import INPUT, Network
from vggscope.ops.base import numel


def trace(network: Network, setup: Setup) -> Trace:
    """The book of a step, for every batch at once."""
    runtime = runtime_named(setup.runtime)
    ledger = Ledger()
    width = setup.width
    parameters = list(network.parameters())
    unused = {p.name for p, _ in network.unused}
    trained = [p for p in parameters if p.trainable and p.name not in unused]
    if setup.mode == "finetune-head":
        head = head_parameters(network)
        trained = [p for p in trained if p.name in head]
    for p in parameters:
        ledger.allocate("parameters", Line(numel(p.shape) * width, 0))
    for node in network.nodes:
        for shape in node.op.buffers().values():
            ledger.allocate("buffers", Line(numel(shape) * (width if shape else 8), 0))
    optimizer = optimizer_named(setup.optimizer)
    if setup.trains:
        for p in trained:
            for _ in range(optimizer.states):
                ledger.allocate("optimizer", Line(numel(p.shape) * width, 0))
            if optimizer.counter and runtime.counts_on_device:
                ledger.allocate("optimizer", Line(4, 0))
    program_ = program(
        network, width, runtime, training=setup.trains, autocast=setup.dtype == AMP, loss=setup.trains
    )
    tensor = ledger.allocate("input", per_sample(network.input_shape, width))
    if setup.trains:
        ledger.allocate("input", labels(network))
    resident = len(ledger.entries)
    cut = stages(network, program_.calls) if setup.checkpoint else ()
    names = frozenset(p.name for p in trained)
    walk = Walk(program_, ledger, runtime, width, names, keeping=setup.trains, stages=cut)
    walk.tensors[INPUT] = tensor
    for _ in range(min(setup.accumulate, 2)):
        walk.forward()
        if setup.trains:
            walk.backward()
    if setup.trains:
        walk.optimizer_step(optimizer, trained, setup.foreach)
    return ledger.finish(resident)


def inference_peak(network: Network, batch: int, itemsize: int) -> int:
    dtype = {2: "float16", 4: "float32", 8: "float64"}[itemsize]
    return trace(network, Setup(mode="inference", dtype=dtype)).peak_bytes(batch)


def training_peak(network: Network, batch: int, itemsize: int) -> int:
    dtype = {2: "float16", 4: "float32", 8: "float64"}[itemsize]
    return trace(network, Setup(dtype=dtype)).peak_bytes(batch)
