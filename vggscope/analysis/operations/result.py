"""Operations and bytes of every layer: what `summary` shows of them on request."""

from __future__ import annotations

from dataclasses import replace

from vggscope.analysis.cost import backward_costs, costs
from vggscope.analysis.operations.counting import operations as beyond_macs
from vggscope.analysis.operations.counting import rule_for
from vggscope.analysis.operations.roofline import Roof, roof_of
from vggscope.analysis.summary import Summary
from vggscope.errors import unknown
from vggscope.graph import Network, Node
from vggscope.ops.base import Op, Shape, numel
from vggscope.ops.embedding import Embedding
from vggscope.record import record
from vggscope.result import Result
from vggscope.units import DTYPE_BYTES

COUNTS = ("macs", "all")


@record
class LayerOperations:
    """One layer's forward pass on the whole batch, and the MACs of its backward pass; None is unknown.

    `other` are the operations that are no multiply-accumulate; `flops` are 2 for each MAC and, where all is counted,
    `other` too. `bytes` are inputs, parameters and output, each moved once. `intensity` is FLOPs per byte. `time_ns`
    is the least that the layer takes on the card, `bound` what it waits for, compute or memory.
    """

    name: str
    label: str
    op: str
    output_shape: Shape
    macs: int | None
    other: int | None
    flops: int | None
    backward_macs: int | None
    backward_flops: int | None
    bytes: int
    intensity: float | None
    time_ns: int | None
    bound: str | None


@record
class OperationTotals:
    """Sums over the layers; None where one is unknown."""

    macs: int | None
    other: int | None
    flops: int | None
    backward_macs: int | None
    backward_flops: int | None
    bytes: int
    time_ns: int | None


@record
class Formula:
    """How an op's operations that are no multiply-accumulates are counted."""

    op: str
    formula: str


@record
class Operations(Result):
    """A network's operations. `roof` is the card's, None where none was asked for; `ridge` its FLOPs per byte."""

    schema: str
    model: str
    input_shape: Shape
    dtype: str
    count: str
    roof: Roof | None
    layers: tuple[LayerOperations, ...]
    totals: OperationTotals
    formulas: tuple[Formula, ...]


def operations(
    network: Network, batch: int = 1, dtype: str = "float32", *, count: str = "macs", card: str | None = None
) -> Operations:
    """What each layer computes and moves. `count` is `macs`, FLOPs being 2 x MACs, or `all`.

    Raises OptionError for another count, for an unknown card, and for a type of numbers that it has no figure for.
    """
    if count not in COUNTS:
        raise unknown("count", count, COUNTS)
    roof = roof_of(card, dtype) if card is not None else None
    forward, backward = costs(network, batch), backward_costs(network, batch)
    layers = tuple(
        _layer(network, node, forward[node.name].macs, backward[node.name], batch, DTYPE_BYTES[dtype], count, roof)
        for node in network.nodes
    )
    return Operations(
        schema="vggscope/operations@1",
        model=network.name,
        input_shape=(batch, *network.input_shape[1:]),
        dtype=dtype,
        count=count,
        roof=roof,
        layers=layers,
        totals=_totals(layers),
        formulas=_formulas(network) if count == "all" else (),
    )


def _layer(
    network: Network,
    node: Node,
    macs: int | None,
    backward: int | None,
    batch: int,
    itemsize: int,
    count: str,
    roof: Roof | None,
) -> LayerOperations:
    inputs, output = network.input_shapes(node), network.output_shape(node)
    other = beyond_macs(node.op, inputs, output)
    other = None if other is None else other * (1 if node.name in network.batchless else batch)
    flops = _flops(macs, other if count == "all" else 0)
    moved = _elements(network, node, batch) * itemsize
    known = roof is not None and flops is not None and moved > 0
    return LayerOperations(
        name=node.name,
        label=node.label,
        op=node.op.name,
        output_shape=network.batched(node.name, batch),
        macs=macs,
        other=other,
        flops=flops,
        backward_macs=backward,
        backward_flops=_flops(backward, 0),
        bytes=moved,
        intensity=flops / moved if flops is not None and moved else None,
        time_ns=roof.time_ns(flops or 0, moved) if roof and flops is not None else None,
        bound=roof.bound(flops or 0, moved) if roof and known else None,
    )


def _flops(macs: int | None, other: int | None) -> int | None:
    return None if macs is None or other is None else 2 * macs + other


def _elements(network: Network, node: Node, batch: int) -> int:
    """The elements that a layer reads and writes: its inputs, its parameters and its output, each once."""
    if not _moves(node.op):
        return 0
    looked_up = isinstance(node.op, Embedding)
    parameters = 0 if looked_up else sum(numel(parameter.shape) for parameter in node.parameters)
    values = (*node.inputs, node.name)
    return sum(numel(network.batched(name, batch)) for name in values) + parameters


def _moves(op: Op) -> bool:
    """Whether anything is read or written: not by a view, nor by what does nothing at evaluation."""
    return op.active_in == "always" and (op.allocates or bool(getattr(op, "inplace", False)))


def _totals(layers: tuple[LayerOperations, ...]) -> OperationTotals:
    return OperationTotals(
        macs=_sum([layer.macs for layer in layers]),
        other=_sum([layer.other for layer in layers]),
        flops=_sum([layer.flops for layer in layers]),
        backward_macs=_sum([layer.backward_macs for layer in layers]),
        backward_flops=_sum([layer.backward_flops for layer in layers]),
        bytes=sum(layer.bytes for layer in layers),
        time_ns=_sum([layer.time_ns for layer in layers]),
    )


def _sum(values: list[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _formulas(network: Network) -> tuple[Formula, ...]:
    """The formulas of the ops that the network has, in order of first use."""
    found: dict[str, str] = {}
    for node in network.nodes:
        rule = rule_for(node.op)
        found.setdefault(node.op.name, "not known" if rule is None else rule.formula)
    return tuple(Formula(op, formula) for op, formula in found.items())


def with_all(report: Summary, counted: Operations) -> Summary:
    """A summary whose FLOPs count all operations and not only the MACs."""
    layers = tuple(replace(layer, flops=other.flops) for layer, other in zip(report.layers, counted.layers))
    return replace(report, layers=layers, totals=replace(report.totals, flops=counted.totals.flops))
