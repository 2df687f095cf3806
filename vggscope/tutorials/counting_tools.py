"""`explain why-tools-disagree`: the counts of several tools for one network, and how they differ."""

from __future__ import annotations

from vggscope.analysis.cost import costs, total_macs
from vggscope.cross_checks import fvcore, torchinfo
from vggscope.cross_checks.reference_tool import Term
from vggscope.errors import OptionError
from vggscope.graph import Network
from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, facts, listing, sums, text, tutorial
from vggscope.units import bytes_text, count_text, shape_text


@record
class Count:
    """A tool's figure, `value`, under the name that the tool uses, `called`. It is `times` the MACs plus the terms."""

    tool: str
    called: str
    value: int
    times: int
    terms: tuple[Term, ...]


@record
class Counts:
    """A network's MACs for a batch of one, its parameters, and the counts of the tools."""

    model: str
    input_shape: tuple[int, ...]
    macs: int
    params: int
    counts: tuple[Count, ...]


def explain(network: Network | None = None) -> Tutorial:
    """The counts of D, or of another network, by the rules of each tool. Computed here, without running the tools.

    Raises OptionError for a network whose MACs are unknown.
    """
    network = network or resolve("D")
    macs = total_macs(costs(network))
    if macs is None:
        raise OptionError(f"the MACs of {network.name} are not known", "name another model")
    counts = (
        _count("vggscope", "MACs", macs),
        _count("torch.utils.flop_counter", "FLOPs", macs, 2),
        _count("torchinfo", "mult-adds", macs, 1, torchinfo.mult_add_terms(network)),
        _count("fvcore", "flops", macs, 1, fvcore.flop_terms(network)),
    )
    params = sum(numel(parameter.shape) for parameter in network.parameters())
    return tutorial(
        "why-tools-disagree",
        f"why tools disagree: {network.name}, input {shape_text(network.input_shape)}, batch 1",
        Counts(network.name, network.input_shape, macs, params, counts),
        listing(("tool", "it prints", "and calls it"), tuple((c.tool, c.value, c.called) for c in counts)),
        text("None of them is wrong: each counts something else. From the MACs to each figure, to the last digit:"),
        sums(tuple((count.tool, _sum(count, macs), count.value) for count in counts if count.value != macs)),
        facts(_facts(network, params)),
    )


def _count(tool: str, called: str, macs: int, times: int = 1, terms: tuple[Term, ...] = ()) -> Count:
    return Count(tool, called, times * macs + sum(term.amount for term in terms), times, terms)


def _sum(count: Count, macs: int) -> str:
    start = (f"{count.times} x " if count.times != 1 else "") + count_text(macs)
    return " ".join((start, *map(str, count.terms)))


def _facts(network: Network, params: int) -> dict[str, str]:
    unused = sum(numel(parameter.shape) for parameter, _ in network.unused)
    note = f"; {count_text(unused)} of them belong to no layer that runs, and some tools omit them" if unused else ""
    size = params * 4
    return {
        "a MAC": "is one multiplication and one addition: some tools count one operation, others two (FLOPs)",
        "parameters": f"{count_text(params)}{note}",
        "megabytes": f"weights in float32 take {count_text(size)} bytes: {bytes_text(size)} (2^20 bytes each), or"
        f" {size / 10**6:,.2f} MB (10^6)",
        "which is right": "all; name the one you mean, and compare figures of the same kind",
        "to run them": "vggscope verify runs the tools themselves and shows their figures side by side",
    }
