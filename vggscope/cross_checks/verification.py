"""The result of `verify`: the figures of every reference tool beside ours.

A difference is explained if the tool's convention, computed from the network's ops, gives it to the last digit. Any
other difference is a mismatch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.analysis.cost import backward_macs, costs, total_macs
from vggscope.analysis.memory.simulate import peaks
from vggscope.analysis.tensors import TensorSummary, summarize_tensors
from vggscope.builders.graph_module import graph_module, has_steps, tape_of
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
    on_cpu,
    run_copy,
    without_data,
)
from vggscope.errors import ModelError, VggscopeError, printable
from vggscope.graph import Network
from vggscope.ops.base import Shape, numel
from vggscope.ops.recorded import is_pre_hook
from vggscope.record import record
from vggscope.result import TableResult
from vggscope.suppress import suppress_output
from vggscope.trace.compiled import without_compiler
from vggscope.trace.forward import random_state
from vggscope.trace.inputs import InputSpec, attach, inputs_of
from vggscope.trace.network import unwrapped
from vggscope.trace.quantized import has_quantized_tensors
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


AGREES, EXPLAINED, DISAGREES, UNCHECKED = "agrees", "explained", "disagrees", "unchecked"

OUTCOMES = (AGREES, EXPLAINED, DISAGREES, UNCHECKED)
"""Of a comparison: equal within the tool's rounding, different for known reasons to the last digit, different, or not
compared.
"""


RUN_BY_OPS = "the network is no chain of torch.nn's modules: it is run op by op, which tells its MACs alone"
"""Why tools that look at modules, or at what they keep, are skipped."""


@record
class Answer:
    """A tool's figure; `witness` is the tool's name, `difference` its value minus ours.

    `agrees` is true if both are equal within the tool's rounding, or if `terms` add up to the difference; `reason` is
    that sum in words. `difference` and `agrees` are None if our figure is unknown. `outcome` is one of OUTCOMES.
    """

    witness: str
    value: int
    rounded_to: int
    difference: int | None
    agrees: bool | None
    terms: tuple[Term, ...]
    reason: str
    outcome: str = UNCHECKED


@record
class Figure:
    """A figure by its name (params, macs, backward_macs...), our value, and the tools' values.

    `outcome` is the worst of the answers': `unchecked` only if there is none, or if our value is unknown.
    """

    name: str
    ours: int | None
    answers: tuple[Answer, ...]
    outcome: str = UNCHECKED

    @property
    def agrees(self) -> bool:
        """Whether no tool disagrees."""
        return all(answer.agrees is not False for answer in self.answers)


@record
class Skipped:
    """A figure that a tool did not report, and the reason; `witness` is the tool's name."""

    witness: str
    figure: str
    reason: str


@record
class Verification(TableResult[Figure]):
    """The figures of a network for a batch of one. `agrees` is true if at least one tool's figure could be compared
    and no tool disagrees. It says nothing of the figures in `unchecked`.
    """

    rows_field = "figures"
    named_by = ("name",)

    schema: str
    model: str
    input_shape: Shape
    figures: tuple[Figure, ...]
    skipped: tuple[Skipped, ...]
    agrees: bool
    inputs: tuple[TensorSummary, ...] = ()

    @property
    def unchecked(self) -> tuple[str, ...]:
        """The names of the figures that no tool could check."""
        return tuple(figure.name for figure in self.figures if figure.outcome == UNCHECKED)


def verify(
    network: Network,
    module: nn.Module | None = None,
    progress: Callable[[str], None] = lambda title: None,
    inputs: InputSpec | None = None,
    program: Callable[[], nn.Module | None] = lambda: None,
) -> Verification:
    """Compare a network's figures with those of every reference tool.

    `module` is the traced module and stays as it is; a configuration's is built here. `inputs` are those that it was
    traced on, if they are not its own. `progress` is called with each tool's title before it runs. The tools' output is
    suppressed.

    Without a module, a network that is no chain of modules is run op by op, which tells its MACs alone; the tools that
    need more are skipped. `program` makes what runs a file so with all that it holds, or returns None.

    Raises ModelError if the module cannot be copied.
    """
    ours = _our_figures(network)
    answers: dict[str, list[Answer]] = {name: [] for name in ours}
    skipped = []
    with suppress_output():
        empty, lacking = _without_data(network, module, inputs, program)
    packed = _packed(network, module)
    with suppress_output():
        executed = on_cpu(empty) if not lacking and _runs_faster_on_cpu(network) else empty
        outside = "" if lacking else _called_outside(network, executed)
    for tool in REFERENCE_TOOLS:
        progress(tool.title)
        for figure in tool.reports:
            copy = executed if figure in (PARAMS, MACS, BACKWARD_MACS) else empty
            counts_ops = tool is flop_counter.REFERENCE_TOOL and figure == MACS
            if lacking and tool.runs and not (counts_ops and has_steps(empty)):
                skipped.append(Skipped(tool.name, figure, lacking))
                continue
            reported = _reported(tool, figure, network, copy, outside)
            if isinstance(reported, ReportedFigure):
                if figure == PARAMS:
                    reported = replace(reported, terms=(*reported.terms, *packed))
                answer = _compare(tool, figure, network, ours[figure], reported)
                reason = (
                    _not_comparable(tool, figure, network, outside, bool(packed)) if answer.outcome == DISAGREES else ""
                )
                if reason:
                    skipped.append(Skipped(tool.name, figure, reason))
                else:
                    answers[figure].append(answer)
            else:
                skipped.append(Skipped(tool.name, figure, reported))
    figures = tuple(Figure(name, ours[name], tuple(answers[name]), _worst(answers[name])) for name in ours)
    compared = any(figure.outcome != UNCHECKED for figure in figures)
    agrees = compared and all(figure.agrees for figure in figures)
    tensors = summarize_tensors(network.inputs, dtype=network.dtype)
    return Verification(
        "vggscope/verify@1", network.name, network.input_shape, figures, tuple(skipped), agrees, tensors
    )


MOST_MACS = 2 * 10**9
"""The costliest recurrent network that tools run on the CPU, which takes a second or two."""


def _runs_faster_on_cpu(network: Network) -> bool:
    """Whether a run on zeros takes less time than one on the meta device, which takes milliseconds for each step of a
    recurrent layer.
    """
    macs = total_macs(costs(network))
    is_small = macs is not None and macs <= MOST_MACS and not network.reads_values
    return is_small and any(node.op.has_gates for node in network.nodes)


def _packed(network: Network, module: nn.Module | None) -> tuple[Term, ...]:
    """The weights of quantised layers, which the tools do not count."""
    if module is None or not has_quantized_tensors(module):
        return ()
    listed = {name for name, _ in module.named_parameters()}
    packed = sum(numel(parameter.shape) for parameter in network.parameters() if parameter.name not in listed)
    return (Term(-packed, "packed weights of quantised layers, which are in no list of parameters"),) if packed else ()


def _called_outside(network: Network, module: nn.Module) -> str:
    """The class of a module that forward calls and that is no part of the copy which the tools run; empty if none is.

    A plain list, a lambda, a hook or a compiled method may hold it. The tools do not see the calls of such a module,
    and if it was not copied, its weights are those of the original.
    """
    from torch.nn.modules.module import register_module_forward_pre_hook

    known, found = {id(part) for part in module.modules()}, list[str]()

    def enter(part: nn.Module, _: object) -> None:
        if id(part) not in known:
            found.append(type(part).__name__)

    handle = register_module_forward_pre_hook(enter)
    try:
        with without_compiler(), random_state(), suppress(Exception):  # of a failure, each tool tells itself
            run_copy(module, inputs_of(module, network))
    finally:
        handle.remove()
    return next(iter(found), "")


def _not_comparable(tool: ReferenceTool, figure: str, network: Network, outside: str, is_quantized: bool) -> str:
    """Why a tool's figure that differs is not compared, by what a run of the copy has shown; empty if it is."""
    if outside and figure != PARAMS:
        return _outside_text(outside)
    if is_quantized and figure == FIELDS:
        return "quantised layers have no gradient"
    if tool is fvcore.REFERENCE_TOOL and any(is_pre_hook(node.op) for node in network.nodes):
        return "it counts what a forward pre-hook computes, which is one row here"
    return ""


def _outside_text(outside: str) -> str:
    holders = "a list, a lambda, a hook or a compiled method"
    return f"forward calls a {outside} of {holders}, which is no part of the copy that tools run"


def _worst(answers: Sequence[Answer]) -> str:
    outcomes = {answer.outcome for answer in answers}
    return next((outcome for outcome in (DISAGREES, EXPLAINED, AGREES) if outcome in outcomes), UNCHECKED)


def _our_figures(network: Network) -> Mapping[str, int | None]:
    known, _ = peaks(network, 1)
    return {
        PARAMS: sum(numel(parameter.shape) for parameter in network.parameters()),
        MACS: total_macs(costs(network)),
        BACKWARD_MACS: backward_macs(network),
        INFERENCE_PEAK: known[False],
        TRAINING_PEAK: known[True],
        FIELDS: len(autograd.measured_layers(network)) or None,
    }


def _without_data(
    network: Network, module: nn.Module | None, inputs: InputSpec | None, program: Callable[[], nn.Module | None]
) -> tuple[nn.Module, str]:
    """The network's module on the meta device, with the inputs that it was traced on.

    Of a network that is no chain of modules, it is the one that runs its ops, or an empty one, with the reason.
    """
    if module is not None:
        try:
            copy = without_data(unwrapped(module, network.name))
            source = module if inputs is None else attach(copy, inputs)
            return attach(copy, inputs_of(source, network)), ""
        except Exception as error:
            raise ModelError(f"{printable(network.name)} cannot be copied for the reference tools: {error}") from error
    from torch import device, nn

    try:
        with device("meta"):
            return build_module(network).eval(), ""
    except ModelError:
        pass
    try:
        built = program()
        with device("meta"):
            return built or graph_module(tape_of(network)), RUN_BY_OPS
    except VggscopeError as error:
        return nn.Module(), error.problem


def _reported(
    tool: ReferenceTool, figure: str, network: Network, module: nn.Module, outside: str
) -> ReportedFigure | str:
    """The tool's figure, or the reason why there is none; the tool may fail in any way."""
    try:
        with suppress_output(), without_compiler(), random_state():
            return tool.reports[figure](network, module)
    except NotApplicable as reason:
        return str(reason)
    except ImportError as error:
        return f"{error.name or tool.package} is not installed: pip install {tool.package}"
    except Exception as error:
        if outside:
            return _outside_text(outside)
        cause = error.__cause__ or error
        text = next(iter(str(cause).splitlines()), "")
        return f"{tool.package} failed: {type(cause).__name__}" + (f": {text}" if text else "")


def _compare(tool: ReferenceTool, figure: str, network: Network, ours: int | None, reported: ReportedFigure) -> Answer:
    value, rounded_to = reported.value, reported.rounded_to
    if ours is None:
        return Answer(tool.name, value, rounded_to, None, None, (), "ours is not known")
    difference = value - ours
    if 2 * abs(difference) <= rounded_to:
        reason = f"rounded to {count_text(rounded_to)}" if difference else ""
        return Answer(tool.name, value, rounded_to, difference, True, (), reason, AGREES)
    terms = reported.terms + (tool.explain[figure](network, value) if figure in tool.explain else ())
    if sum(term.amount for term in terms) != difference:
        return Answer(tool.name, value, rounded_to, difference, False, (), reported.detail, DISAGREES)
    reason = _sum_text(ours, value, terms)
    return Answer(tool.name, value, rounded_to, difference, True, terms, reason, EXPLAINED)


def _sum_text(ours: int, value: int, terms: tuple[Term, ...]) -> str:
    """The difference as a sum: `15,470,289,408 = 15,470,264,320 + 25,088 (what that is)`."""
    return " ".join((f"{count_text(value)} = {count_text(ours)}", *map(str, terms)))
