"""torch itself: its parameters, and the MACs of torch.utils.flop_counter, forward and backward.

The counter's convention is ours: 2 FLOPs for each MAC of convolutions and matrix products, and nothing else. It has no
formula for some products, such as a matrix with a vector. In the backward pass its conv_backward_flop ignores the
groups of a grouped convolution's weight gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
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
    run_copy,
)
from vggscope.graph import Network, Node
from vggscope.ops.attention import MatrixProduct
from vggscope.ops.constant import WithComputedWeights
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.linear import Bilinear
from vggscope.record import record
from vggscope.trace.flops import operator_macs
from vggscope.trace.forward import layers_of_training, module_mode
from vggscope.trace.inputs import CallInputs, inputs_of
from vggscope.trace.preserve import preserved
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode


def params(module: nn.Module) -> int:
    """The number of elements of all parameters, shared ones counted once."""
    return sum(parameter.numel() for parameter in module.parameters())


@record
class CountedPass:
    """The MACs of a pass by torch's counter.

    `left_out` are those of operators that it has no formula for, by operator, and `repeated` those of modules that run
    again in a backward pass, as under torch.utils.checkpoint.
    """

    macs: int
    left_out: Mapping[str, int]
    repeated: int


def _counted(call: Callable[[], object]) -> CountedPass:
    from torch.utils.flop_counter import FlopCounterMode

    with operator_macs() as own, FlopCounterMode(display=False) as counter, _in_modules(counter) as in_modules:
        call()
    return CountedPass(int(counter.get_total_flops()) // 2, dict(own.without_formula), sum(in_modules) // 2)


@contextmanager
def _in_modules(counter: FlopCounterMode) -> Iterator[list[int]]:
    """The FLOPs of each outermost module that runs within the block."""
    from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

    starts: list[int] = []
    flops: list[int] = []

    def enter(*_: object) -> None:
        starts.append(counter.get_total_flops())

    def leave(*_: object) -> None:
        start = starts.pop()
        if not starts:
            flops.append(counter.get_total_flops() - start)

    hooks = register_module_forward_pre_hook(enter), register_module_forward_hook(leave, always_call=True)
    try:
        yield flops
    finally:
        for hook in hooks:
            hook.remove()


def forward_count(module: nn.Module, inputs: CallInputs) -> CountedPass:
    """Count a forward pass of the copy of a module that tools run."""
    import torch

    with torch.no_grad(), frozen(module):
        return _counted(lambda: run_copy(module, inputs))


def backward_count(module: nn.Module, inputs: CallInputs) -> CountedPass:
    """Count the backward pass from the output's sum to the trainable parameters, in the module's mode."""
    return _counted(_backward(module, inputs))


def _backward(module: nn.Module, inputs: CallInputs) -> Callable[[], object]:
    """Run forward. Return the backward pass from the sum of its outputs to the trainable parameters."""
    import torch

    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    with preserved(module, with_data=False):  # a tensor that forward stores would belong to this graph in the next run
        sums = [tensor.sum() for tensor in tensors_in(run_copy(module, inputs)) if tensor.requires_grad]
    if not trainable or not sums:
        return lambda: None
    return lambda: torch.autograd.grad(sums, trainable, allow_unused=True)


def _backward_terms(network: Network, left_out: Mapping[str, int]) -> tuple[Term, ...]:
    """The MACs of the operators that the counter leaves out in a backward pass.

    The gradients of a product with a vector are further products with vectors.
    """
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


def _macs(network: Network, module: nn.Module) -> ReportedFigure:
    count = forward_count(module, inputs_of(module, network))
    return ReportedFigure(count.macs, terms=_left_out(sum(count.left_out.values()), count.left_out))


def _backward_macs(network: Network, module: nn.Module) -> ReportedFigure:
    inputs = inputs_of(module, network)
    trains = network.in_training is not None
    if network.other_backward and not trains:
        raise NotApplicable(network.other_backward)
    network = network.in_training or network
    with layers_of_training(module) if trains else module_mode(module, False):
        count = backward_count(module, inputs)
    terms = _backward_terms(network, count.left_out)
    if count.repeated:
        terms += (Term(count.repeated, "layers that torch.utils.checkpoint runs again"),)
    return ReportedFigure(count.macs, terms=terms)


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
