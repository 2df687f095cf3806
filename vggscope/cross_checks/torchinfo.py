"""torchinfo, as its `summary` counts.

Its mult-adds are each parameter called weight or bias, once for each output position of a convolution and once for
each sample of any other module that has no modules inside: biases and the weights of normalisations are in them, and
matrix products that a function makes are not. A parameter with either word within its name counts once for each
place along the output's first two axes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vggscope.cross_checks import flop_counter
from vggscope.cross_checks.reference_tool import MACS, PARAMS, NotApplicable, ReferenceTool, ReportedFigure, Term
from vggscope.graph import Network, Node, Parameter
from vggscope.ops.base import Shape, numel

if TYPE_CHECKING:
    from torch import nn
    from torchinfo import ModelStatistics

BIASES = "each bias, once for each output position"
SCALES = "each weight and bias of a normalisation, once"
UNSEEN = "products of functions and of attention, which it does not see"
NAMED = "each parameter named after a weight or bias, once for each row of the output, less the MACs"
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


def mult_add_terms(network: Network, module: nn.Module | None = None) -> tuple[Term, ...]:
    """What torchinfo's mult-adds have beyond MACs, worked out from the network's ops and from whose parameters they
    are; without the module, as if each layer were torch's own.
    """
    parts = None if module is None else dict(module.named_modules())
    amounts: Counter[str] = Counter()
    for node in network.nodes:
        amounts.update(_beyond(network, node, _own_kind(node) if parts is None else _kind(node, parts)))
    return tuple(Term(amount, what) for what, amount in amounts.items() if amount)


def _own_kind(node: Node) -> str | None:
    """The class of torch's module, None where torchinfo passes it over."""
    return None if node.module is None or node.op.name == "MultiheadAttention" else node.op.name


def _kind(node: Node, parts: Mapping[str, nn.Module]) -> str | None:
    """The class of the module whose parameters a node reads. None where torchinfo passes over it: the module has others
    inside, or never ran itself, but another's forward read its parameters.
    """
    path = next((parameter.name.rpartition(".")[0] for parameter in _own(node)), "")
    owner = parts.get(path) if node.module == path or node.name.startswith(f"{path}.") else None
    return None if owner is None or any(True for _ in owner.children()) else type(owner).__name__


def _own(node: Node) -> tuple[Parameter, ...]:
    """The parameters of the module that a node's last is of: before them may be those that its input was made of."""
    paths = [parameter.name.rpartition(".")[0] for parameter in node.parameters]
    return tuple(p for p, path in zip(node.parameters, paths) if path == paths[-1])


def _beyond(network: Network, node: Node, kind: str | None) -> dict[str, int]:
    macs = node.op.macs(network.input_shapes(node), network.output_shape(node)) or 0
    output = network.output_shape(node)
    sizes = {p.name.rpartition(".")[2]: numel(p.shape) for p in _own(node)}
    weight, bias = sizes.pop("weight", 0), sizes.pop("bias", 0)
    if kind is None:
        return {UNSEEN: -macs}
    alike = sum(size for name, size in sizes.items() if "weight" in name or "bias" in name)
    positions = output[0] * numel(output[2:]) if "Conv" in kind else output[0]
    if alike:
        return {NAMED: numel(output[:2]) * alike - macs + positions * (weight + bias)}
    if not macs:
        return {SCALES: output[0] * (weight + bias)}
    return {BIASES: positions * bias, WEIGHTS: positions * weight - macs}


def _params(network: Network, module: nn.Module) -> ReportedFigure:
    counted = params(module, network.input_shape)
    if counted != flop_counter.params(module) and _has_shared_parts(module):
        raise NotApplicable("it lists what is part of several modules in each of them")
    return ReportedFigure(counted)


def _has_shared_parts(module: nn.Module) -> bool:
    parts = Counter(child for part in module.modules() for child in part.children())
    return max(parts.values(), default=0) > 1


def _macs(network: Network, module: nn.Module) -> ReportedFigure:
    return ReportedFigure(macs(module, network.input_shape), terms=mult_add_terms(network, module))


REFERENCE_TOOL = ReferenceTool(
    name="torchinfo",
    title="torchinfo",
    ask={PARAMS: _params, MACS: _macs},
    package="torchinfo",
)
