"""The parameters and MACs that torchvision publishes with its weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vggscope.cross_checks.paper import column_of
from vggscope.cross_checks.reference_tool import MACS, PARAMS, NotApplicable, ReferenceTool, ReportedFigure, Term
from vggscope.graph import Network
from vggscope.ops.base import numel
from vggscope.vgg.configs import CONFIGS

if TYPE_CHECKING:
    from torch import nn

OPS_ROUNDED_TO = 10**6
"""`_ops` has three decimals of 10^9."""

UNREAD = "parameters that nothing reads at evaluation"


def model_name(network: Network) -> str | None:
    """Torchvision's name of this network. It has the configurations A, B, D and E, with and without batch norm."""
    prefix, _, name = network.name.partition(":")
    if prefix == "torchvision":
        return name
    column = column_of(network)
    literature = CONFIGS[column].literature if column else None
    if column is None or literature is None:
        return None
    norms = sum(node.op.notation == "bn" for node in network.nodes)
    convolutions = sum(word.kind == "conv" for word in CONFIGS[column].words)
    return {0: literature, convolutions: f"{literature}_bn"}.get(norms)


def _published(network: Network) -> tuple[Any, ...]:
    """Torchvision's weights for this model and number of classes: those trained at this input's size, if any."""
    from torchvision.models import get_model_weights

    name = model_name(network)
    try:
        weights: tuple[Any, ...] = tuple(get_model_weights(name or ""))
    except ValueError:
        raise NotApplicable("torchvision publishes nothing about this network") from None
    classes = numel(network.shapes[network.end])
    matching = tuple(w for w in weights if len(w.meta.get("categories") or []) == classes)
    if not matching:
        raise NotApplicable(f"torchvision publishes nothing about {name} for {classes} classes")
    return tuple(w for w in matching if _has_input_size(network, w)) or matching


def _params(network: Network, module: nn.Module) -> ReportedFigure:
    counts = {w.meta["num_params"] for w in _published(network)}
    if len(counts) != 1:
        raise NotApplicable("torchvision publishes parameters at other sizes than this input")
    return ReportedFigure(counts.pop())


def _macs(network: Network, module: nn.Module) -> ReportedFigure:
    """The MACs from `_ops`, which torchvision documents as billions of operations."""
    weights = _published(network)
    if not all(_has_input_size(network, w) for w in weights):
        raise NotApplicable("torchvision publishes operations at other sizes than this input")
    return ReportedFigure(round(max(w.meta["_ops"] for w in weights) * 10**9), rounded_to=OPS_ROUNDED_TO)


def _has_input_size(network: Network, weights: Any) -> bool:
    # The transforms of detection and optical flow keep an image's size and are no partial.
    crop = getattr(weights.transforms, "keywords", {}).get("crop_size")
    return bool((crop if isinstance(crop, tuple) else (crop,) * 2) == network.input_shape[-2:])


def unread_parameters(network: Network, value: int) -> tuple[Term, ...]:
    """The parameters of heads that run only in training, if the published value leaves them out as some do."""
    unread = sum(numel(parameter.shape) for parameter, _ in network.unused)
    all_params = sum(numel(parameter.shape) for parameter in network.parameters())
    return (Term(-unread, UNREAD),) if value == all_params - unread else ()


REFERENCE_TOOL = ReferenceTool(
    name="torchvision",
    title="torchvision's published figures",
    reports={PARAMS: _params, MACS: _macs},
    explain={PARAMS: unread_parameters},
    package="torchvision",
    runs=False,
)
