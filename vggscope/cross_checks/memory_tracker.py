"""torch's memory tracker: the peak of one forward pass, and of one training step with SGD and momentum.

The tracker follows fake CPU tensors and does not count the input and its labels. Our figures are for a GPU. Simulating
the step for the tracker's runtime too gives the difference between the two.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.analysis.memory.allocation_log import KINDS, StepTimeline
from vggscope.analysis.memory.simulate import is_predicted, simulate_step, trained_parameters
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.cross_checks.measured_step import MeasuredStep
from vggscope.cross_checks.reference_tool import (
    INFERENCE_PEAK,
    TRAINING_PEAK,
    NotApplicable,
    ReferenceTool,
    ReportedFigure,
    Term,
    copied,
)
from vggscope.graph import Network

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_LAYERS = 320
"""The longest network whose training step is tracked: more layers take over half a minute."""

_MODES = {INFERENCE_PEAK: "inference", TRAINING_PEAK: "train"}


def _peak(network: Network, module: nn.Module, figure: str) -> ReportedFigure:
    config = StepConfig(mode=_MODES[figure])
    reason = next(_reasons_not_to_track(network, module, config), None)
    if reason is not None:
        raise NotApplicable(reason)
    tracked = MeasuredStep(lambda: copied(module, _empty), network, 1, config).tracked_peak()
    on_gpu, on_cpu = (simulate_step(network, replace(config, runtime=runtime)) for runtime in ("cuda", "tracker"))
    packed = _packed_bytes(network, module)
    terms = tuple(_terms(on_gpu, on_cpu, packed))
    agrees = on_gpu.peak_bytes(1) + sum(term.amount for term in terms) == tracked
    if not agrees and network.reads_values:
        raise NotApplicable("forward reads values, and the tracker runs it without those of the weights")
    if not agrees and config.trains and network.other_backward and network.in_training is None:
        raise NotApplicable(network.other_backward)
    if not agrees and not is_predicted(network, config):
        raise NotApplicable("torch cannot be recorded in this step, and the rules do not predict it to the byte")
    return ReportedFigure(tracked, terms=terms)


def _reasons_not_to_track(network: Network, module: nn.Module, config: StepConfig) -> Iterator[str]:
    """Why the tracker's figure cannot be compared with ours."""
    from torch.jit import ScriptModule

    if any(isinstance(part, ScriptModule) for part in module.modules()):
        yield "a module of TorchScript cannot be run without data"
    if not config.trains:
        return
    if not trained_parameters(network, config):
        yield "there is nothing to train"
    if len(network.nodes) > MOST_LAYERS:
        yield f"the tracker is slow for {len(network.nodes)} layers"


def _empty(tensor: Tensor) -> Tensor:
    """A CPU tensor of the same shape: a fake one under FakeTensorMode."""
    import torch

    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def _packed_bytes(network: Network, module: nn.Module) -> int:
    """The bytes of weights that are no parameters of torch, as those of quantised layers."""
    seen = dict(module.named_parameters(remove_duplicate=False))
    return sum(network.bytes_of(parameter) for parameter in network.parameters() if parameter.name not in seen)


def _terms(on_gpu: StepTimeline, on_cpu: StepTimeline, packed: int) -> Iterator[Term]:
    """The tracker's peak minus ours: no input, no packed weights, and the CPU's kernels."""
    uncounted = on_cpu.peak(1).alive[KINDS.index("input")].at(1)
    amounts = {
        "the input and its labels, which it does not count": -uncounted,
        "packed weights, which it does not see": -packed,
        "gradients added up in a third tensor and other kernels, as on a CPU": on_cpu.peak_bytes(1)
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
