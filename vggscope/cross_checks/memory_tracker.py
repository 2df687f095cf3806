"""torch's memory tracker: the peak of one forward pass, and of one training step with SGD and momentum.

The tracker follows fake CPU tensors and does not count the input and its labels. Our figures are for a GPU. Simulating
the step for the tracker's runtime too gives the difference between the two.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.analysis.memory.allocation_log import StepTimeline
from vggscope.analysis.memory.simulate import simulate_step, trained_parameters
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.cross_checks.measured_step import MeasuredStep, uncounted_bytes
from vggscope.cross_checks.reference_tool import (
    INFERENCE_PEAK,
    TRAINING_PEAK,
    NotApplicable,
    ReferenceTool,
    ReportedFigure,
    Term,
    copied,
    uses_transforms,
    written_out,
)
from vggscope.graph import Network
from vggscope.ops.base import Op
from vggscope.ops.constant import WithConstants
from vggscope.ops.recorded import Recorded
from vggscope.ops.recurrent import Recurrent, RecurrentCell
from vggscope.trace.inputs import inputs_of

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_LAYERS = 320
"""The longest network whose training step is tracked: more layers take over half a minute."""

_WRITTEN_OUT = frozenset({"bmm", "baddbmm", "einsum", "mm", "addmm", "matmul", "MultiheadAttention"})

_MODES = {INFERENCE_PEAK: "inference", TRAINING_PEAK: "train"}


def _peak(network: Network, module: nn.Module, figure: str) -> ReportedFigure:
    reason = next(_reasons_not_to_track(network, figure), None)
    if reason is not None:
        raise NotApplicable(reason)
    config = StepConfig(mode=_MODES[figure])
    trained = None if config.trains else ()
    step = MeasuredStep(lambda: copied(module, _empty), network, 1, config, trained)
    with written_out():
        tracked = step.tracked_peak()
    on_gpu, on_cpu = (simulate_step(network, replace(config, runtime=runtime)) for runtime in ("cuda", "tracker"))
    terms = tuple(_terms(on_gpu, on_cpu, uncounted_bytes(network, config, on_cpu.peak(1), 1)))
    reason = next(_approximations(network, figure), None)
    if reason is None and uses_transforms(module, inputs_of(module, network)):
        reason = "the temporary tensors of torch.func's transforms are not simulated"
    if reason is not None and on_gpu.peak_bytes(1) + sum(term.amount for term in terms) != tracked:
        raise NotApplicable(reason)
    return ReportedFigure(tracked, terms=terms)


def _reasons_not_to_track(network: Network, figure: str) -> Iterator[str]:
    """Why the tracker's figure cannot be compared with ours."""
    ops = _ops(network)
    recurrent = dict.fromkeys(op.name for op in ops if isinstance(op, (Recurrent, RecurrentCell)))
    if recurrent:
        yield f"a CPU runs {', '.join(recurrent)} step by step and saves the tensors of each step"
    if any(network.dtype_of(name).startswith("complex") for name in (*network.input_names, *network.by_name)):
        yield "a CPU computes with complex numbers in other steps than a GPU"
    if any(n.op.name == "scaled_dot_product_attention" and len(network.output_shape(n)) != 4 for n in network.nodes):
        yield "on a CPU attention is unfused unless its tensors have four axes"
    if figure == INFERENCE_PEAK:
        return
    if not trained_parameters(network, StepConfig()):
        yield "there is nothing to train"
    if any("attention" in op.name.lower() for op in ops):
        yield "attention saves other tensors on a CPU than on a GPU"
    if any(why == "runs only in training" for _, why in network.unused):
        yield "the network has heads that run only in training"
    if len(network.nodes) > MOST_LAYERS:
        yield f"the tracker is slow for {len(network.nodes)} layers"


def _approximations(network: Network, figure: str) -> Iterator[str]:
    """What the simulation knows by its result alone, so that it may miss a peak."""
    of_computed = dict.fromkeys(node.op.name for node in network.nodes if node.reads_computed_weight)
    if of_computed:
        yield f"{', '.join(of_computed)} reads weights that forward computes, which is not simulated"
    approximate = dict.fromkeys(op.name for op in _ops(network) if isinstance(op, Recorded) or op.name in _WRITTEN_OUT)
    if approximate:
        yield f"the temporary tensors of {', '.join(approximate)} are not simulated"
    uses = Counter(p.name for node in network.nodes for p in node.parameters)
    shared = dict.fromkeys(n.op.name for n in network.nodes if any(uses[p.name] > 1 for p in n.parameters))
    if shared:
        yield f"the gradients of {', '.join(shared)}, which runs several times, are not added up tensor by tensor"
    if network.side_outputs and figure == TRAINING_PEAK:
        yield "forward returns several tensors, and the step of the tracker has the gradients of one"
    reading = dict.fromkeys(n.op.name for n in network.nodes if isinstance(n.op, WithConstants) and n.parameters)
    if reading:
        yield f"the weight gradients of {', '.join(reading)} are not simulated tensor by tensor"


def _ops(network: Network) -> list[Op]:
    return [node.op.without_constants for node in network.nodes]


def _empty(tensor: Tensor) -> Tensor:
    """A CPU tensor of the same shape: a fake one under FakeTensorMode."""
    import torch

    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def _terms(on_gpu: StepTimeline, on_cpu: StepTimeline, uncounted: int) -> Iterator[Term]:
    """The tracker's peak minus ours: `uncounted` bytes of inputs and labels, and the CPU's runtime."""
    amounts = {
        "the input and its labels, which it does not count": -uncounted,
        "gradients added up in a third tensor and wider masks, as on a CPU": on_cpu.peak_bytes(1)
        - on_gpu.peak_bytes(1),
    }
    return (Term(amount, what) for what, amount in amounts.items() if amount)


REFERENCE_TOOL = ReferenceTool(
    name="tracker",
    title="torch's memory tracker",
    reports={
        INFERENCE_PEAK: lambda network, module: _peak(network, module, INFERENCE_PEAK),
        TRAINING_PEAK: lambda network, module: _peak(network, module, TRAINING_PEAK),
    },
    package="torch",
)
