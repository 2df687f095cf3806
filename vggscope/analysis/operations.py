"""The operations and bytes of each layer, forward and backward, and the least time on a card."""

from __future__ import annotations

from dataclasses import field, fields, replace

from vggscope.analysis.cards import Roof, roof_of
from vggscope.analysis.cost import backward_costs, backward_macs, backward_notes, costs, known_sum
from vggscope.analysis.summary import Summary
from vggscope.analysis.tensors import TensorSummary, summarize_tensors
from vggscope.dtypes import converted, dtype_of
from vggscope.errors import unknown
from vggscope.graph import Network, Node
from vggscope.ops.base import Op, Shape, numel
from vggscope.record import record, uncollected
from vggscope.result import TableResult

COUNTS = ("macs", "all")


@record
class LayerOperations:
    """One layer's forward pass on the whole batch, and the MACs of its backward pass; None is unknown.

    `other` counts the operations other than multiply-accumulates. `flops` is 2 x MACs, plus `other` if all operations
    count. `bytes` counts inputs, parameters and output, each moved once. `intensity` is FLOPs per byte. `time_ns` is
    the least time on the card, `bound` its bottleneck: compute or memory. `dtype` is that of the output.
    `batch_axis` is the axis of the output that grows with the batch, None if there is none.
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
    bytes: int | None
    intensity: float | None
    time_ns: int | None
    bound: str | None
    dtype: str
    batch_axis: int | None = field(default=0, metadata={"json": False})


@record
class OperationTotals:
    """Sums over the layers, those that run only in training included; None if one is unknown, or forward fails."""

    macs: int | None
    other: int | None
    flops: int | None
    backward_macs: int | None
    backward_flops: int | None
    bytes: int | None
    time_ns: int | None


@record
class Formula:
    """The formula that counts an op's operations other than multiply-accumulates."""

    op: str
    formula: str


@record
class Operations(TableResult[LayerOperations]):
    """The operations of a network. `roof` is the roofline of the card, None without a card.

    `failure` and `alerts` are as in a Summary. `warnings` are sentences on the backward pass.
    """

    schema: str
    model: str
    input_shape: Shape
    dtype: str
    count: str
    roof: Roof | None
    layers: tuple[LayerOperations, ...]
    totals: OperationTotals
    formulas: tuple[Formula, ...]
    batch: int
    inputs: tuple[TensorSummary, ...]
    failure: str | None = None
    warnings: tuple[str, ...] = ()
    alerts: tuple[str, ...] = field(default=(), metadata={"json": False})


@uncollected()
def operations(
    network: Network, batch: int = 1, dtype: str | None = None, *, count: str = "macs", card: str | None = None
) -> Operations:
    """Count the operations and bytes of each layer. `count` is `macs`, for FLOPs of 2 x MACs, or `all`.

    Raises OptionError for another count, for an unknown card, and for a dtype whose speed on it is not published.
    """
    if count not in COUNTS:
        raise unknown("count", count, COUNTS)
    network = converted(network, dtype)
    roof = roof_of(card, network.dtype) if card is not None else None
    forward, backward = costs(network, batch), backward_costs(network, batch)
    layers = tuple(
        _layer(network, node, forward[node.name].macs, backward[node.name], batch, count, roof)
        for node in network.nodes
    )
    totals: dict[str, int | None] = dict.fromkeys(f.name for f in fields(OperationTotals))
    if network.failure is None:
        totals = {name: known_sum(getattr(layer, name) for layer in layers) for name in totals}
        total = backward_macs(network, batch)
        totals |= {"backward_macs": total, "backward_flops": _flops(total, 0)}
    return Operations(
        schema="vggscope/operations@1",
        model=network.name,
        input_shape=network.batched(network.inputs[0].name, batch),
        dtype=dtype_of(network),
        count=count,
        roof=roof,
        layers=layers,
        totals=OperationTotals(**totals),
        formulas=_formulas(network) if count == "all" else (),
        batch=batch,
        inputs=summarize_tensors(network.inputs, batch, network.dtype),
        failure=network.failure,
        warnings=backward_notes(network),
        alerts=network.alerts(),
    )


def _layer(
    network: Network,
    node: Node,
    macs: int | None,
    backward: int | None,
    batch: int,
    count: str,
    roof: Roof | None,
) -> LayerOperations:
    inputs, output = network.input_shapes(node), network.output_shape(node)
    other = node.op.other_operations(inputs, output)
    other = None if other is None else other * (1 if node.name in network.batchless else batch)
    flops = _flops(macs, other if count == "all" else 0)
    moved = _moved_bytes(network, node, batch)
    known = flops is not None and bool(moved)
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
        time_ns=roof.time_ns(flops, moved) if roof and flops is not None and moved is not None else None,
        bound=roof.bound(flops or 0, moved or 0) if roof and known else None,
        dtype=network.dtype_of(node.name),
        batch_axis=network.batch_axis_of(node.name),
    )


def _flops(macs: int | None, other: int | None) -> int | None:
    return None if macs is None or other is None else 2 * macs + other


def _moved_bytes(network: Network, node: Node, batch: int) -> int | None:
    """The bytes that a layer reads and writes: its inputs, parameters and output, each once; None if unknown."""
    if node.op.hides_parameters:
        return None
    if not _moves(node.op):
        return 0
    parameters = 0 if node.op.is_lookup else sum(map(network.bytes_of, node.parameters))
    values = (*node.inputs, node.name)
    return sum(numel(network.batched(name, batch)) * network.element_bytes(name) for name in values) + parameters


def _moves(op: Op) -> bool:
    """Whether an op reads or writes memory: not a view, nor an op that is idle at evaluation."""
    return op.active_in == "always" and (op.allocates or bool(getattr(op, "inplace", False)))


def _formulas(network: Network) -> tuple[Formula, ...]:
    """The formulas of the network's ops, in order of first use."""
    formulas: dict[str, str] = {}
    for node in network.nodes:
        formulas.setdefault(node.op.name, node.op.other_formula or "not known")
    return tuple(Formula(op, formula) for op, formula in formulas.items())


def with_all(summary: Summary, counted: Operations) -> Summary:
    """The summary with FLOPs that count all operations, not the MACs alone."""
    layers = tuple(replace(layer, flops=other.flops) for layer, other in zip(summary.layers, counted.layers))
    return replace(
        summary,
        layers=layers,
        totals=replace(
            summary.totals, flops=counted.totals.flops, flops_known=sum(layer.flops or 0 for layer in counted.layers)
        ),
    )
