"""Parameters and multiply-accumulates.

A MAC is one multiply-accumulate of a convolution, a linear layer or a matrix product, bias left out; FLOPs are twice
the MACs, which is what torch.utils.flop_counter counts.
"""

from __future__ import annotations

from vggscope.graph import INPUT, Network, Node, Parameter
from vggscope.ops.base import numel
from vggscope.ops.constant import WithConstants
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
    reached = _reached(network)
    for node in network.nodes:
        if node.name not in reached:
            needs[node.name], found[node.name] = False, 0
            continue
        needed, trained = _needed(node, needs)
        needs[node.name] = node.passes_gradient and (
            any(needs[name] for name in node.inputs) or any(p.trainable for p in node.parameters)
        )
        macs = node.op.backward_macs(network.input_shapes(node), network.output_shape(node), needed, trained)
        found[node.name] = _batched(network, node, macs, batch)
    return found


def _reached(network: Network) -> set[str]:
    """The nodes to whose output a gradient comes: all but what runs without, or is read behind a `detach` alone."""
    reached: set[str] = set()
    for node in reversed(network.nodes):
        readers = [network.by_name[name] for name in network.consumers[node.name]]
        comes = not readers or any(reader.name in reached and reader.passes_gradient for reader in readers)
        if comes and not node.detached:
            reached.add(node.name)
    return reached


def _needed(node: Node, needs: dict[str, bool]) -> tuple[tuple[bool, ...], bool]:
    """Of each tensor that a node's op reads, constants among them, whether it needs a gradient; and whether the op's
    own weights do.
    """
    own = len(node.op.parameters())
    made_of, weights = node.parameters[: len(node.parameters) - own], node.parameters[len(node.parameters) - own :]
    learned = any(p.trainable for p in made_of)
    trained = any(p.trainable and len(p.shape) > 1 for p in weights)
    if not isinstance(node.op, WithConstants):
        # Weights that are made of others, as standardised ones are, are trained if those are.
        return tuple(needs[name] for name in node.inputs), trained or (own > 0 and learned)
    names = iter(node.inputs)
    constants = enumerate(node.op.constants)
    needed = (learned and i not in node.op.fixed if c is not None else needs[next(names)] for i, c in constants)
    return tuple(needed), trained


def _macs(network: Network, node: Node, batch: int) -> int | None:
    return _batched(network, node, node.op.macs(network.input_shapes(node), network.output_shape(node)), batch)


def _batched(network: Network, node: Node, macs: int | None, batch: int) -> int | None:
    """A node's MACs for a batch of that many."""
    if macs is None or (node.irregular and batch > 1):
        return None
    return macs * (1 if node.name in network.batchless else batch)


def _size(parameters: list[Parameter]) -> int:
    return sum(numel(parameter.shape) for parameter in parameters)
