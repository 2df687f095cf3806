"""torch's memory tracker: the most bytes alive in one forward pass, and in one step of training with SGD and momentum.

The tracker follows fake CPU tensors and does not count the input and its labels, which are there before it looks. Ours
is for a GPU; the walk that is held to the tracker byte by byte tells what the two have apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.analysis.memory.allocation_log import KINDS, Trace
from vggscope.analysis.memory.simulate import simulate_step, trained
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.cross_checks.measured_step import track
from vggscope.cross_checks.reference_tool import (
    INFERENCE_PEAK,
    TRAINING_PEAK,
    NotApplicable,
    ReferenceTool,
    ReportedFigure,
    Term,
    copied,
    written_out,
)
from vggscope.graph import Network
from vggscope.ops.base import Op
from vggscope.ops.constant import WithConstants
from vggscope.ops.recorded import Recorded
from vggscope.ops.recurrent import Recurrent

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_LAYERS = 320
"""The longest network whose training step is followed: the tracker takes half a minute for more."""

_WRITTEN_OUT = frozenset({"bmm", "baddbmm", "einsum", "mm", "addmm", "matmul", "MultiheadAttention"})

_SETUPS = {INFERENCE_PEAK: "inference", TRAINING_PEAK: "train"}


def _peak(network: Network, module: nn.Module, figure: str) -> ReportedFigure:
    why = next(_beyond(network, figure), None)
    if why is not None:
        raise NotApplicable(why)
    setup = StepConfig(mode=_SETUPS[figure])
    learned = None if setup.trains else ()
    batch, *size = network.input_shape
    with written_out():
        seen = track(lambda: copied(module, _empty), tuple(size), batch, setup, learned, network.output_place)
    ours, theirs = (simulate_step(network, replace(setup, runtime=runtime)) for runtime in ("cuda", "tracker"))
    terms = tuple(_terms(ours, theirs, module))
    why = next(_not_followed(network), None)
    if why is not None and ours.peak_bytes(1) + sum(term.amount for term in terms) != seen.peak_bytes:
        raise NotApplicable(why)
    return ReportedFigure(seen.peak_bytes, terms=terms)


def _beyond(network: Network, figure: str) -> Iterator[str]:
    """Why the walk is not held to the tracker here."""
    ops = _ops(network)
    recurrent = dict.fromkeys(op.name for op in ops if isinstance(op, Recurrent))
    if recurrent:
        yield f"a CPU runs {', '.join(recurrent)} step by step, and keeps what each step makes"
    if any(n.op.name == "scaled_dot_product_attention" and len(network.output_shape(n)) != 4 for n in network.nodes):
        yield "a CPU writes attention out unless it has four axes"
    if figure == INFERENCE_PEAK:
        return
    if not trained(network, StepConfig()):
        yield "there is nothing to train"
    if any("attention" in op.name.lower() for op in ops):
        yield "attention keeps other tensors on a CPU than on a GPU"
    if any(why == "runs only in training" for _, why in network.unused):
        yield "the network has heads that run only in training"
    if len(network.nodes) > MOST_LAYERS:
        yield f"the tracker takes long for {len(network.nodes)} layers"


def _not_followed(network: Network) -> Iterator[str]:
    """What the walk knows by its result alone, so that a peak on the way is not to be seen."""
    odd = dict.fromkeys(op.name for op in _ops(network) if isinstance(op, Recorded) or op.name in _WRITTEN_OUT)
    if odd:
        yield f"what {', '.join(odd)} takes on the way is not followed tensor by tensor"
    made = dict.fromkeys(node.op.name for node in network.nodes if node.reads_computed_weight)
    if made:
        yield f"what {', '.join(made)} reads is made on the way, of weights that no input reaches"
    reading = dict.fromkeys(n.op.name for n in network.nodes if isinstance(n.op, WithConstants) and n.parameters)
    if reading:
        yield f"how {', '.join(reading)} gives its weights their gradient is not followed tensor by tensor"


def _ops(network: Network) -> list[Op]:
    return [node.op.op if isinstance(node.op, WithConstants) else node.op for node in network.nodes]


def _empty(tensor: Tensor) -> Tensor:
    """A tensor of the same shape on the CPU, which is a fake one where it is called."""
    import torch

    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def _terms(ours: Trace, theirs: Trace, module: nn.Module) -> Iterator[Term]:
    """What the tracker has beyond ours: on a CPU instead of a GPU, without the input."""
    alive = dict(zip(KINDS, theirs.peak(1).alive))
    parameters = sum(parameter.numel() * parameter.element_size() for parameter in module.parameters())
    amounts = {
        "the input and its labels, which it does not count": -alive["input"].at(1),
        "gradients added up in a third tensor and wider masks, as on a CPU": theirs.peak_bytes(1) - ours.peak_bytes(1),
        "parameters that are no float32": parameters - alive["parameters"].at(1),
    }
    return (Term(amount, what) for what, amount in amounts.items() if amount)


REFERENCE_TOOL = ReferenceTool(
    name="tracker",
    title="torch's memory tracker",
    ask={
        INFERENCE_PEAK: lambda network, module: _peak(network, module, INFERENCE_PEAK),
        TRAINING_PEAK: lambda network, module: _peak(network, module, TRAINING_PEAK),
    },
    package="torch",
)
