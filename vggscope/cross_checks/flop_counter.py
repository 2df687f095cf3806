"""torch itself: its parameters, and the MACs of torch.utils.flop_counter, forward and backward.

The counter's convention is ours: 2 FLOPs for each MAC of convolutions and matrix products, and nothing else. In the
backward pass its conv_backward_flop ignores the groups of a grouped convolution's weight gradient.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggscope.cross_checks.reference_tool import (
    BACKWARD_MACS,
    MACS,
    PARAMS,
    ReferenceTool,
    ReportedFigure,
    Term,
    frozen,
)
from vggscope.graph import Network
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.trace.inputs import CallInputs, inputs_of

if TYPE_CHECKING:
    from torch import nn


def params(module: nn.Module) -> int:
    """The number of elements of all parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


def macs(module: nn.Module, inputs: CallInputs) -> int:
    """The MACs of a forward pass of a module on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad(), frozen(module):
        inputs.to("meta").call(module)
    return int(counter.get_total_flops()) // 2


def backward_macs(module: nn.Module, inputs: CallInputs) -> int:
    """The MACs of the backward pass from the output's sum to the trainable parameters."""
    import torch
    from torch.utils._pytree import tree_leaves
    from torch.utils.flop_counter import FlopCounterMode

    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    if not trainable:
        return 0
    leaves = tree_leaves(inputs.to("meta").call(module))
    sums = [leaf.sum() for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.requires_grad]
    with FlopCounterMode(display=False) as counter:
        torch.autograd.grad(sums, trainable, allow_unused=True)
    return int(counter.get_total_flops()) // 2


def group_terms(network: Network) -> tuple[Term, ...]:
    """The MACs that the counter adds in a backward pass, computed from the network's ops."""
    amount = sum(
        (node.op.groups - 1) * node.op.macs(network.input_shapes(node), network.output_shape(node))
        for node in network.nodes
        if isinstance(node.op, (Convolution, TransposedConvolution))
        and any(p.trainable and len(p.shape) > 1 for p in node.parameters)
    )
    return (Term(amount, "the weight gradients of grouped convolutions, counted as if not grouped"),) if amount else ()


REFERENCE_TOOL = ReferenceTool(
    name="torch",
    title="torch",
    reports={
        PARAMS: lambda network, module: ReportedFigure(params(module)),
        MACS: lambda network, module: ReportedFigure(macs(module, inputs_of(module, network))),
        BACKWARD_MACS: lambda network, module: ReportedFigure(backward_macs(module, inputs_of(module, network))),
    },
    explain={BACKWARD_MACS: lambda network, value: group_terms(network)},
    package="torch",
)
