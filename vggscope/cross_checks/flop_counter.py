"""torch itself: its parameters, and the MACs of torch.utils.flop_counter, forward and backward.

The counter's convention is ours: 2 FLOPs for each MAC of convolutions and matrix products, and nothing else. It has no
formula for some products, such as a matrix with a vector. In the backward pass its conv_backward_flop ignores the
groups of a grouped convolution's weight gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from vggscope.analysis.cost import backward_costs
from vggscope.cross_checks.reference_tool import (
    BACKWARD_MACS,
    MACS,
    PARAMS,
    NotApplicable,
    ReferenceTool,
    ReportedFigure,
    Term,
    frozen,
    run_on_meta,
)
from vggscope.graph import Network, Node
from vggscope.ops.attention import MatrixProduct
from vggscope.ops.constant import WithComputedWeights
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.linear import Bilinear
from vggscope.trace.flops import macs_without_formula
from vggscope.trace.forward import layers_of_training, module_mode
from vggscope.trace.inputs import CallInputs, inputs_of
from vggscope.trace.preserve import preserved
from vggscope.trace.tensors import tensors_in

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
        run_on_meta(module, inputs)
    return int(counter.get_total_flops()) // 2


def backward_macs(module: nn.Module, inputs: CallInputs) -> int:
    """The MACs of the backward pass from the output's sum to the trainable parameters, in the module's mode."""
    from torch.utils.flop_counter import FlopCounterMode

    backward = _backward(module, inputs)
    with FlopCounterMode(display=False) as counter:
        backward()
    return int(counter.get_total_flops()) // 2


def _backward(module: nn.Module, inputs: CallInputs) -> Callable[[], object]:
    """Run forward. Return the backward pass from the sum of its outputs to the trainable parameters."""
    import torch

    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with preserved(module, with_data=False):  # a tensor that forward stores would belong to this graph in the next run
        sums = [tensor.sum() for tensor in tensors_in(run_on_meta(module, inputs)) if tensor.requires_grad]
    if not trainable or not sums:
        return lambda: None
    return lambda: torch.autograd.grad(sums, trainable, allow_unused=True)


def _forward_terms(module: nn.Module, inputs: CallInputs) -> tuple[Term, ...]:
    """The MACs of the operators that the counter leaves out."""
    import torch

    with torch.no_grad(), frozen(module):
        left_out = macs_without_formula(lambda: run_on_meta(module, inputs))
    return _left_out(sum(left_out.values()), left_out)


def _backward_terms(network: Network, module: nn.Module, inputs: CallInputs) -> tuple[Term, ...]:
    """The same for the backward pass. The gradients of a product with a vector are further products with vectors."""
    left_out = macs_without_formula(_backward(module, inputs))
    ours = backward_costs(network)
    vectors = sum(ours[node.name] or 0 for node in network.nodes if _has_vector(network, node))
    others = {name: macs for name, macs in left_out.items() if name not in _OF_VECTORS}
    return _left_out(vectors + sum(others.values()), left_out)


def _has_vector(network: Network, node: Node) -> bool:
    op, inputs = node.op.unwrapped(network.input_shapes(node))
    return isinstance(op, Bilinear) or (isinstance(op, MatrixProduct) and op.has_vector(inputs))


_OF_VECTORS = frozenset(f"aten::{name}" for name in ("mv", "addmv", "addmv_", "dot", "vdot", "addr", "_trilinear"))


def _left_out(amount: int, operators: Iterable[str]) -> tuple[Term, ...]:
    names = ", ".join(name.removeprefix("aten::") for name in operators) or "products with a vector"
    return (Term(-amount, f"{names}, for which it has no formula"),) if amount else ()


def group_terms(network: Network) -> tuple[Term, ...]:
    """The MACs that the counter adds in a backward pass, computed from the network's ops."""
    amount = 0
    for node in network.nodes:
        op, inputs = node.op.without_constants, network.input_shapes(node)
        is_trained = any(p.trainable and len(p.shape) > 1 for p in node.parameters)
        if isinstance(op, (Convolution, TransposedConvolution)) and (
            is_trained or isinstance(node.op, WithComputedWeights)
        ):
            amount += (op.groups - 1) * (node.op.macs(inputs, network.output_shape(node)) or 0)
    return (Term(amount, "the weight gradients of grouped convolutions, counted as if not grouped"),) if amount else ()


def _recomputation_terms(module: nn.Module, inputs: CallInputs) -> tuple[Term, ...]:
    """The MACs of layers that run again in the backward pass, as under torch.utils.checkpoint."""
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
    from torch.utils.flop_counter import FlopCounterMode

    backward = _backward(module, inputs)
    starts: list[int] = []
    flops = 0
    with FlopCounterMode(display=False) as counter:

        def enter(*_: object) -> None:
            starts.append(counter.get_total_flops())

        def leave(*_: object) -> None:
            nonlocal flops
            start = starts.pop()
            if not starts:
                flops += counter.get_total_flops() - start

        hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)
        try:
            backward()
        finally:
            for hook in hooks:
                hook.remove()
    return (Term(flops // 2, "layers that torch.utils.checkpoint runs again"),) if flops else ()


def _macs(network: Network, module: nn.Module) -> ReportedFigure:
    inputs = inputs_of(module, network)
    return ReportedFigure(macs(module, inputs), terms=_forward_terms(module, inputs))


def _backward_macs(network: Network, module: nn.Module) -> ReportedFigure:
    inputs = inputs_of(module, network)
    trains = network.in_training is not None
    if network.other_backward and not trains:
        raise NotApplicable(network.other_backward)
    network = network.in_training or network
    with layers_of_training(module) if trains else module_mode(module, False):
        terms = (*_backward_terms(network, module, inputs), *_recomputation_terms(module, inputs))
        return ReportedFigure(backward_macs(module, inputs), terms=terms)


REFERENCE_TOOL = ReferenceTool(
    name="torch",
    title="torch",
    reports={
        PARAMS: lambda network, module: ReportedFigure(params(module)),
        MACS: _macs,
        BACKWARD_MACS: _backward_macs,
    },
    explain={BACKWARD_MACS: lambda network, value: group_terms(network.in_training or network)},
    package="torch",
)
