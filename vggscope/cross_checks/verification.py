"""Every witness's figures beside ours: what `verify` shows.

A difference is explained where the witness's convention, worked out from the network's own ops, gives it to the last
digit; any other difference is a disagreement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from vggscope.analysis.cost import backward_macs, costs, total_macs
from vggscope.analysis.memory.simulate import inference_peak, training_peak
from vggscope.builders.module import module as build_module
from vggscope.cross_checks import autograd, flop_counter, fvcore, memory_tracker, paper, torchinfo, torchvision
from vggscope.cross_checks.reference_tool import (
    BACKWARD_MACS,
    FIELDS,
    INFERENCE_PEAK,
    MACS,
    PARAMS,
    TRAINING_PEAK,
    NotApplicable,
    ReferenceTool,
    ReportedFigure,
    Term,
    without_data,
)
from vggscope.errors import ModelError, printable
from vggscope.graph import Network
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.result import Result
from vggscope.suppress import suppress_output
from vggscope.units import count_text

if TYPE_CHECKING:
    from torch import nn

REFERENCE_TOOLS = (
    flop_counter.REFERENCE_TOOL,
    torchinfo.REFERENCE_TOOL,
    fvcore.REFERENCE_TOOL,
    torchvision.REFERENCE_TOOL,
    paper.REFERENCE_TOOL,
    memory_tracker.REFERENCE_TOOL,
    autograd.REFERENCE_TOOL,
)


@record
class Answer:
    """One witness's figure. `difference` is its value less ours.

    `agrees` where the two are equal as far as the witness's rounding tells, or where `terms` add up to the difference;
    `reason` is that sum in words. Both are None where our own figure is not known.
    """

    witness: str
    value: int
    rounded_to: int
    difference: int | None
    agrees: bool | None
    terms: tuple[Term, ...]
    reason: str


@record
class Figure:
    """A figure by its name (params, macs, backward_macs), ours, and what the witnesses say of it."""

    name: str
    ours: int | None
    answers: tuple[Answer, ...]

    @property
    def agrees(self) -> bool:
        """Whether no witness disagrees."""
        return all(answer.agrees is not False for answer in self.answers)


@record
class Skipped:
    """A witness that did not give a figure that it could have given, and why not."""

    witness: str
    figure: str
    reason: str


@record
class Verification(Result):
    """The figures of a network for a batch of one. `agrees` is whether at least one witness could be compared and
    none disagrees.
    """

    schema: str
    model: str
    input_shape: Shape
    figures: tuple[Figure, ...]
    skipped: tuple[Skipped, ...]
    agrees: bool


def verify(
    network: Network, module: nn.Module | None = None, progress: Callable[[str], None] = lambda witness: None
) -> Verification:
    """Ask every witness about a network. `module` is what it was traced from; a column's is built here.

    `progress` is called with each witness's title before it is asked. The module is left as it is; nothing that the
    witnesses say but their figures comes out.

    Raises ModelError where there is no module and none can be built, or where the module cannot be copied.
    """
    ours = _ours(network)
    found: dict[str, list[Answer]] = {name: [] for name in ours}
    skipped = []
    with suppress_output():
        empty = _without_data(network, module)
    for witness in REFERENCE_TOOLS:
        progress(witness.title)
        for figure in witness.ask:
            heard = _hear(witness, figure, network, empty)
            if isinstance(heard, ReportedFigure):
                found[figure].append(_judge(witness, figure, network, ours[figure], heard))
            else:
                skipped.append(Skipped(witness.name, figure, heard))
    figures = tuple(Figure(name, ours[name], tuple(found[name])) for name in ours)
    heard_any = any(answer.agrees is not None for figure in figures for answer in figure.answers)
    agrees = heard_any and all(figure.agrees for figure in figures)
    return Verification("vggscope/verify@1", network.name, network.input_shape, figures, tuple(skipped), agrees)


def _ours(network: Network) -> Mapping[str, int | None]:
    return MappingProxyType(
        {
            PARAMS: sum(numel(parameter.shape) for parameter in network.parameters()),
            MACS: total_macs(costs(network)),
            BACKWARD_MACS: backward_macs(network),
            INFERENCE_PEAK: inference_peak(network, 1, 4),
            TRAINING_PEAK: training_peak(network, 1, 4),
            FIELDS: len(autograd.measured_layers(network)) or None,
        }
    )


def _without_data(network: Network, module: nn.Module | None) -> nn.Module:
    if module is not None:
        try:
            return without_data(_unwrapped(module))
        except Exception as error:
            raise ModelError(f"{printable(network.name)} cannot be copied for the witnesses: {error}") from error
    from torch import device

    with device("meta"):
        return build_module(network).eval()


def _unwrapped(module: nn.Module) -> nn.Module:
    """The module behind one that only says how it is to be run: compiled, or on several devices."""
    from torch.nn import Module
    from torch.nn.parallel import DataParallel, DistributedDataParallel

    behind = getattr(module, "_orig_mod", None)
    if isinstance(module, (DataParallel, DistributedDataParallel)):
        behind = module.module
    return _unwrapped(behind) if isinstance(behind, Module) else module


def _hear(witness: ReferenceTool, figure: str, network: Network, module: nn.Module) -> ReportedFigure | str:
    """The witness's figure, or the reason why there is none: other people's code may fail in any way."""
    try:
        with suppress_output():
            return witness.ask[figure](network, module)
    except NotApplicable as reason:
        return str(reason)
    except ImportError as error:
        return f"{error.name or witness.package} is not installed: pip install {witness.package}"
    except Exception as error:
        cause = error.__cause__ or error
        text = next(iter(str(cause).splitlines()), "")
        return f"{witness.package} failed: {type(cause).__name__}" + (f": {text}" if text else "")


def _judge(witness: ReferenceTool, figure: str, network: Network, ours: int | None, claim: ReportedFigure) -> Answer:
    if ours is None:
        return Answer(witness.name, claim.value, claim.rounded_to, None, None, (), "ours is not known")
    difference = claim.value - ours
    if 2 * abs(difference) <= claim.rounded_to:
        reason = f"rounded to {count_text(claim.rounded_to)}" if difference else ""
        return Answer(witness.name, claim.value, claim.rounded_to, difference, True, (), reason)
    terms = claim.terms + (witness.explain[figure](network, claim.value) if figure in witness.explain else ())
    if sum(term.amount for term in terms) != difference:
        return Answer(witness.name, claim.value, claim.rounded_to, difference, False, (), claim.detail)
    reason = _sum_text(ours, claim.value, terms)
    return Answer(witness.name, claim.value, claim.rounded_to, difference, True, terms, reason)


def _sum_text(ours: int, value: int, terms: tuple[Term, ...]) -> str:
    """The difference as a sum: `15,470,289,408 = 15,470,264,320 + 25,088 (what that is)`."""
    parts = (f" {'-' if t.amount < 0 else '+'} {count_text(abs(t.amount))} ({t.what})" for t in terms)
    return f"{count_text(value)} = {count_text(ours)}" + "".join(parts)
