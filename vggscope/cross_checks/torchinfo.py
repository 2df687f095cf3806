"""torchinfo, as its `summary` counts.

Its mult-adds count each parameter named weight or bias, once per output position of a convolution and once per sample
of any other module without submodules. So biases and the weights of normalisations count, and matrix products in
functions do not. A parameter whose name contains either word counts once per position along the output's first two
axes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vggscope.cross_checks import flop_counter
from vggscope.cross_checks.reference_tool import (
    MACS,
    PARAMS,
    TRANSFORMS,
    NotApplicable,
    ReferenceTool,
    ReportedFigure,
    Term,
    device_of,
    uses_transforms,
)
from vggscope.graph import Network, Node, Parameter
from vggscope.ops.base import numel
from vggscope.trace.inputs import CallInputs, inputs_of

if TYPE_CHECKING:
    from torch import nn
    from torchinfo import ModelStatistics

BIASES = "each bias, once for each output position"
SCALES = "each weight and bias of a normalisation or an embedding, once"
UNSEEN = "products of functions and of attention, which it does not see"
NAMED = "each parameter named after a weight or bias, once for each row of the output, less the MACs"
TIED = "it counts a tied weight once for each layer"
WEIGHTS = "each weight of a linear layer once, less its MACs at all positions"
COMPLEX = "each product of complex numbers once, where torch convolves real numbers three times"


def params(module: nn.Module, inputs: CallInputs) -> int:
    """The "Total params" of its summary."""
    return _summary(module, inputs).total_params


def macs(module: nn.Module, inputs: CallInputs) -> int:
    """The "Total mult-adds" of its summary."""
    return _summary(module, inputs).total_mult_adds


def _summary(module: nn.Module, inputs: CallInputs) -> ModelStatistics:
    import torch
    import torchinfo

    device = device_of(module)
    inputs = inputs.to(device)
    with torch.device(device):
        return torchinfo.summary(
            module, input_data=list(inputs.args), device=device, verbose=0, **dict[str, Any](inputs.kwargs)
        )


def mult_add_terms(network: Network, module: nn.Module | None = None) -> tuple[Term, ...]:
    """The difference of torchinfo's mult-adds from MACs, computed from the network's ops and its modules.

    Without `module`, each layer is taken as torch's own module.
    """
    modules = None if module is None else dict(module.named_modules())
    amounts: Counter[str] = Counter()
    for node in network.nodes:
        amounts.update(_terms(network, node, _torch_class(node) if modules is None else _class(node, modules)))
    return tuple(Term(amount, what) for what, amount in amounts.items() if amount)


def _torch_class(node: Node) -> str | None:
    """The class of torch's module, or None if torchinfo does not count it."""
    return None if node.module is None or node.op.name == "MultiheadAttention" else node.op.name


def _class(node: Node, modules: Mapping[str, nn.Module]) -> str | None:
    """The class of the module that owns a node's parameters, or None if torchinfo does not count it.

    It does not count a module with submodules, or one whose parameters another module's forward reads.
    """
    path = next((parameter.name.rpartition(".")[0] for parameter in _own(node)), None)
    if path is None:
        return None
    owner = modules.get(path) if node.module == path or node.name.startswith(path and f"{path}.") else None
    return None if owner is None or any(True for _ in owner.children()) else type(owner).__name__


def _own(node: Node) -> tuple[Parameter, ...]:
    """The parameters of the module that owns a node's last one. Those before it may belong to the node's input."""
    paths = [parameter.name.rpartition(".")[0] for parameter in node.parameters]
    return tuple(p for p, path in zip(node.parameters, paths) if path == paths[-1])


def _terms(network: Network, node: Node, module_class: str | None) -> dict[str, int]:
    macs = node.op.macs(network.input_shapes(node), network.output_shape(node)) or 0
    output = network.output_shape(node)
    sizes = {p.name.rpartition(".")[2]: numel(p.shape) for p in _own(node)}
    weight, bias = sizes.pop("weight", 0), sizes.pop("bias", 0)
    if module_class is None:
        return {UNSEEN: -macs}
    similar = sum(size for name, size in sizes.items() if "weight" in name or "bias" in name)
    positions = output[0] * numel(output[2:]) if "Conv" in module_class else output[0]
    if similar:
        return {NAMED: numel(output[:2]) * similar - macs + positions * (weight + bias)}
    if not macs:
        return {SCALES: output[0] * (weight + bias)}
    is_complex = "Conv" in module_class and (_own(node)[-1].dtype or network.dtype).startswith("complex")
    return {BIASES: positions * bias, COMPLEX if is_complex else WEIGHTS: positions * weight - macs}


def _params(network: Network, module: nn.Module) -> ReportedFigure:
    reported = params(module, inputs_of(module, network))
    if reported != flop_counter.params(module):
        if _has_shared_parts(module):
            raise NotApplicable("it counts a module with several parents once for each")
        if _has_tied_weights(module):
            raise NotApplicable(TIED)
    return ReportedFigure(reported)


def _has_tied_weights(module: nn.Module) -> bool:
    return len(list(module.named_parameters(remove_duplicate=False))) > len(list(module.parameters()))


def _has_shared_parts(module: nn.Module) -> bool:
    uses = Counter(child for part in module.modules() for child in part.children())
    return max(uses.values(), default=0) > 1


def _macs(network: Network, module: nn.Module) -> ReportedFigure:
    if uses_transforms(module, inputs_of(module, network)):
        raise NotApplicable(TRANSFORMS)
    if _has_tied_weights(module):
        raise NotApplicable(TIED)
    return ReportedFigure(macs(module, inputs_of(module, network)), terms=mult_add_terms(network, module))


REFERENCE_TOOL = ReferenceTool(
    name="torchinfo",
    title="torchinfo",
    reports={PARAMS: _params, MACS: _macs},
    package="torchinfo",
)
