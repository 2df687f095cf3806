"""The network that forward runs in training mode, where it runs other layers than at evaluation."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from vggscope.graph import Network, Node
from vggscope.trace.forward import META
from vggscope.trace.functions import first_line
from vggscope.trace.run import Run, run
from vggscope.trace.source_line import own_line

MOST_NAMED = 3
"""How many layers are named that only one of the modes runs."""


def with_training(network: Network, result: Run) -> Network:
    """Return the network with that of training mode, if its products or its gradients are others.

    The backward pass of training is unknown if forward fails in that mode, or if it may choose other layers in each
    call.
    """
    trains = any(parameter.trainable for parameter in network.parameters())
    if network.failure is not None or not result.reads_mode or not trains or network.other_backward:
        return network
    training = run(result.module, result.inputs, network.name, "cpu" if result.has_data else META, training=True)
    if training.error is not None:
        return replace(network, other_backward=f"in training, forward {_failure(training)}")
    if training.draws:
        reason = "in training, forward draws random numbers and may run other layers in each call"
        return replace(network, other_backward=reason)
    if training.network.other_backward:
        return replace(network, other_backward=f"in training, {training.network.other_backward}")
    ours, theirs = _products(network), _products(training.network)
    if ours == theirs:
        return network
    return replace(network, other_backward=_difference(network, training.network), in_training=training.network)


def _failure(training: Run) -> str:
    assert training.error is not None
    line = own_line(training.error)
    place = f" ({line})" if line else ""
    if training.wants_data:
        return f"reads values{place} and may run other layers in each call"
    return f"fails{place}: {first_line(training.error)}"


def _products(network: Network) -> Counter[object]:
    """Return the nodes that cost something in the backward pass, and those that end it, with how often they run."""
    returned = _returned(network)
    return Counter(
        (_cost(network, node), node.passes_gradient, node.name in returned, tuple(p.name for p in node.parameters))
        for node in network.nodes
        if _cost(network, node) != 0 or not node.passes_gradient
    )


def _cost(network: Network, node: Node) -> int | None:
    return node.op.macs(network.input_shapes(node), network.output_shape(node))


def _returned(network: Network) -> set[str]:
    """Return the names of the nodes that an output depends on."""
    found = set(network.returned_nodes)
    for node in reversed(network.nodes):
        if node.name in found:
            found.update(node.inputs)
    return found


def _difference(evaluation: Network, training: Network) -> str:
    """Return a sentence on the layers that only one of the modes runs."""
    ours, theirs = (
        {node.name for node in network.nodes if node.parameters or _cost(network, node) != 0}
        for network in (evaluation, training)
    )
    added = _named(training, theirs - ours)
    left_out = _named(evaluation, ours - theirs)
    if not added and not left_out:
        return "in training, forward computes other gradients than at evaluation"
    parts = (f"also runs {added}" if added else "", f"does not run {left_out}" if left_out else "")
    return f"in training, forward {' and '.join(filter(None, parts))}"


def _named(network: Network, names: set[str]) -> str:
    """Return the first of these nodes in words."""
    titles = [node.title for node in network.nodes if node.name in names]
    more = len(titles) - MOST_NAMED
    texts = titles if more <= 1 else [*titles[:MOST_NAMED], f"{more} more layers"]
    return " and ".join(filter(None, (", ".join(texts[:-1]), *texts[-1:])))
