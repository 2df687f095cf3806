"""Parameters and multiply-accumulates.

A MAC is one multiply-accumulate of a convolution, a linear layer or a matrix product, bias left out; FLOPs are twice
the MACs, which is what torch.utils.flop_counter counts.
"""

from __future__ import annotations

from vggscope.graph import INPUT, Network, Node, Parameter
from vggscope.ops.base import numel
from vggscope.record import record


@record
class Cost:
    """One node's share: `params` are those that no earlier node has owned; `macs` is None where it is not known."""

    params: int
    trainable_params: int
    macs: int | None


def costs(network: Network, batch: int = 1) -> dict[str, Cost]:
    """Each node's cost, by name. Shared parameters count once, where they are first used; MACs count for each call."""
    counted: set[str] = set()
    found = {}
    for node in network.nodes:
        new = [parameter for parameter in node.parameters if parameter.name not in counted]
        counted.update(parameter.name for parameter in new)
        found[node.name] = Cost(_size(new), _size([p for p in new if p.trainable]), _macs(network, node, batch))
    return found


def total_macs(costs: dict[str, Cost]) -> int | None:
    """The sum, or None where one node's MACs are not known."""
    known = [cost.macs for cost in costs.values()]
    return None if None in known else sum(macs or 0 for macs in known)


def backward_macs(network: Network, batch: int = 1) -> int | None:
    """The MACs of a backward pass from the output to the trainable parameters; None where they are not known."""
    known = backward_costs(network, batch).values()
    return None if None in known else sum(macs or 0 for macs in known)


def backward_costs(network: Network, batch: int = 1) -> dict[str, int | None]:
    """Each node's MACs in a backward pass, by name; None where they are not known.

    A product costs as much again for the gradient of each of its two factors that needs one: the weights, and the
    input. What no trainable layer stands before needs none, so that the first convolution has no input gradient.
    """
    needs = {INPUT: False}
    found: dict[str, int | None] = {}
    for node in network.nodes:
        trained = any(parameter.trainable and len(parameter.shape) > 1 for parameter in node.parameters)
        factors = sum(needs[name] for name in node.inputs) + trained
        needs[node.name] = any(needs[name] for name in node.inputs) or any(p.trainable for p in node.parameters)
        macs = _macs(network, node, batch) if factors else 0
        found[node.name] = None if macs is None else factors * macs
    return found


def _macs(network: Network, node: Node, batch: int) -> int | None:
    macs = node.op.macs(network.input_shapes(node), network.output_shape(node))
    if macs is None or (node.irregular and batch > 1):
        return None
    return macs * (1 if node.name in network.batchless else batch)


def _size(parameters: list[Parameter]) -> int:
    return sum(numel(parameter.shape) for parameter in parameters)
