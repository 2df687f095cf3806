"""Parameters and multiply-accumulates.

A MAC is one multiply-accumulate of a convolution, a linear layer or a matrix product, without bias. FLOPs are 2 x MACs,
as torch.utils.flop_counter counts them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from vggscope.graph import Network, Node
from vggscope.ops.base import numel
from vggscope.ops.constant import WithConstants
from vggscope.units import count_text


class Cost(NamedTuple):
    """The cost of one node. `params` counts parameters that no earlier node uses; `macs` is None if unknown."""

    params: int
    trainable_params: int
    macs: int | None


def costs(network: Network, batch: int = 1) -> dict[str, Cost]:
    """The cost of each node by name. Shared parameters count at their first use; MACs count for each call."""
    counted: set[str] = set()
    cost = {}
    for node in network.nodes:
        params = trainable = 0
        for parameter in node.parameters:
            if parameter.name not in counted:
                counted.add(parameter.name)
                size = numel(parameter.shape)
                params += size
                trainable += size * parameter.trainable
        cost[node.name] = Cost(params, trainable, _macs(network, node, batch))
    return cost


def total_macs(costs: dict[str, Cost]) -> int | None:
    """The sum of the nodes' MACs; None if one is unknown."""
    return known_sum(cost.macs for cost in costs.values())


def backward_macs(network: Network, batch: int = 1) -> int | None:
    """The MACs of a backward pass from what forward returns to the trainable parameters; None if unknown.

    They include the layers that run only in training.
    """
    return known_sum(backward_costs(network.in_training or network, batch).values())


def backward_notes(network: Network) -> tuple[str, ...]:
    """Sentences on a backward pass that is unknown, or that is not that of the network's layers."""
    if network.in_training is not None:
        return (
            f"{network.other_backward}: the figures of the backward pass are those of training{_not_in_rows(network)}",
        )
    reason = network.other_backward
    if network.makes_leaf:
        reason = "forward makes a tensor require a gradient that is no parameter"
    elif not network.registers_all:
        reason = "autograd computes gradients of parameters that are not registered too"
    if not reason:
        unknown = [name for name, macs in backward_costs(network).items() if macs is None]
        more = f" and of {len(unknown) - 1} more layers" if len(unknown) > 1 else ""
        reason = f"torch tells none of {unknown[0]}{more}" if unknown else ""
    return (f"the cost of the backward pass is not known: {reason}",) if reason else ()


def _not_in_rows(network: Network) -> str:
    """The MACs of the layers that run only in training, in words."""
    rows, total = known_sum(backward_costs(network).values()), backward_macs(network)
    if rows is None or total is None or rows == total:
        return ""
    return f", with {count_text(total - rows)} MACs per sample in the total and in no row"


def known_sum(values: Iterable[int | None]) -> int | None:
    """The sum of the values; None if one is None."""
    total = 0
    for value in values:
        if value is None:
            return None
        total += value
    return total


def backward_costs(network: Network, batch: int = 1) -> dict[str, int | None]:
    """The MACs of each node in a backward pass, by name; None if unknown.

    The gradient of each of a product's two factors, weights and input, costs as much as the product. An input needs no
    gradient without a trainable layer before it, as at the first convolution. All are unknown if autograd also
    differentiates by what is no parameter of the network. A layer that training leaves out has none.
    """
    if network.in_training is not None:
        costs = backward_costs(network.in_training, batch)
        return {name: costs.get(name, 0) for name in network.by_name}
    if network.makes_leaf or not network.registers_all or network.other_backward:
        return dict.fromkeys(network.by_name)
    needs = dict.fromkeys(network.input_names, False)
    backward: dict[str, int | None] = {}
    reached = _reached(network)
    for node in network.nodes:
        if node.name not in reached:
            needs[node.name], backward[node.name] = False, 0
            continue
        needed, trained = _needed(node, needs)
        needs[node.name] = node.passes_gradient and (
            any(needs[name] for name in node.inputs) or any(p.trainable for p in node.parameters)
        )
        macs = node.op.backward_macs(network.input_shapes(node), network.output_shape(node), needed, trained)
        backward[node.name] = _batched(network, node, macs, batch)
    return backward


def _reached(network: Network) -> set[str]:
    """The nodes whose output gets a gradient: forward returns it, or a node reads it that passes its gradient on.

    Code under no_grad gets none, nor does what only `.item()` or a `detach` reads.
    """
    reached: set[str] = set()
    for node in reversed(network.nodes):
        readers = [network.by_name[name] for name in network.consumers[node.name]]
        is_end = node.name in network.returned_nodes or _computes_weight(node, readers)
        has_gradient = is_end or any(reader.name in reached and reader.passes_gradient for reader in readers)
        if has_gradient and not node.detached:
            reached.add(node.name)
    return reached


def _computes_weight(node: Node, readers: list[Node]) -> bool:
    """Whether a node is a parametrization: its layer reads its output as a weight, not as an input."""
    return not node.inputs and not readers


def _needed(node: Node, needs: dict[str, bool]) -> tuple[tuple[bool, ...], bool]:
    """Whether each tensor that a node's op reads needs a gradient, constants included, and whether its weights do."""
    own = len(node.op.parameters())
    read, weights = node.parameters[: len(node.parameters) - own], node.parameters[len(node.parameters) - own :]
    reads_trainable = any(p.trainable for p in read)
    trained = any(p.trainable and len(p.shape) > 1 for p in weights)
    if not isinstance(node.op, WithConstants):
        # Weights that are computed from others, as standardised ones are, are trained if those are.
        return tuple(needs[name] for name in node.inputs), trained or (own > 0 and reads_trainable)
    names = iter(node.inputs)
    constants = enumerate(node.op.constants)
    needed = (
        reads_trainable and i not in node.op.fixed if constant is not None else needs[next(names)]
        for i, constant in constants
    )
    return tuple(needed), trained


def _macs(network: Network, node: Node, batch: int) -> int | None:
    return _batched(network, node, node.op.macs(network.input_shapes(node), network.shapes[node.name]), batch)


def _batched(network: Network, node: Node, macs: int | None, batch: int) -> int | None:
    """The MACs of a node for a batch; None if they are not proportional to it."""
    if macs is None or (node.irregular and batch > 1):
        return None
    return macs * (1 if node.name in network.batchless else batch)
