"""torchinfo, as its `summary` counts.

Its mult-adds are each parameter called weight or bias, once for each output position of a convolution and once for
each sample of any other module that has no modules inside: biases and the weights of normalisations are in them, and
matrix products that a function makes are not.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from vggscope.graph import Network, Node
from vggscope.ops.base import Shape, numel
from vggscope.oracles.witness import MACS, PARAMS, Claim, Term, Witness

if TYPE_CHECKING:
    from torch import nn
    from torchinfo import ModelStatistics

BIASES = "each bias, once for each output position"
SCALES = "each weight and bias of a normalisation, once"
UNSEEN = "products of functions and of attention, which it does not see"
WEIGHTS = "each weight of a linear layer once, less its MACs at all positions"


def params(module: nn.Module, input_shape: Shape) -> int:
    """The "Total params" of its summary."""
    return _summary(module, input_shape).total_params


def macs(module: nn.Module, input_shape: Shape) -> int:
    """The "Total mult-adds" of its summary."""
    return _summary(module, input_shape).total_mult_adds


def _summary(module: nn.Module, input_shape: Shape) -> ModelStatistics:
    import torch
    import torchinfo

    return torchinfo.summary(module, input_data=[torch.empty(input_shape, device="meta")], device="meta", verbose=0)


def mult_add_terms(network: Network) -> tuple[Term, ...]:
    """What torchinfo's mult-adds have beyond MACs, worked out from the network's ops."""
    amounts: Counter[str] = Counter()
    for node in network.nodes:
        amounts.update(_beyond(network, node))
    return tuple(Term(amount, what) for what, amount in amounts.items() if amount)


def _beyond(network: Network, node: Node) -> dict[str, int]:
    macs = node.op.macs(network.input_shapes(node), network.output_shape(node))
    output = network.output_shape(node)
    sizes = {p.name.rpartition(".")[2]: numel(p.shape) for p in node.parameters}
    weight, bias = sizes.get("weight", 0), sizes.get("bias", 0)
    if macs and (node.module is None or node.op.name == "MultiheadAttention"):
        return {UNSEEN: -macs}
    if not macs:
        return {SCALES: output[0] * (weight + bias)}
    positions = output[0] * numel(output[2:]) if "Conv" in node.op.name else output[0]
    return {BIASES: positions * bias, WEIGHTS: positions * weight - macs}


def _params(network: Network, module: nn.Module) -> Claim:
    return Claim(params(module, network.input_shape))


def _macs(network: Network, module: nn.Module) -> Claim:
    return Claim(macs(module, network.input_shape))


WITNESS = Witness(
    name="torchinfo",
    title="torchinfo",
    ask={PARAMS: _params, MACS: _macs},
    explain={MACS: lambda network, value: mult_add_terms(network)},
    package="torchinfo",
)
