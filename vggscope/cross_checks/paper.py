"""The paper's Table 2: the number of parameters of each configuration, in millions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vggscope.cross_checks.reference_tool import PARAMS, NotApplicable, ReferenceTool, ReportedFigure
from vggscope.graph import Network
from vggscope.ops.base import numel
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.notation import Word

if TYPE_CHECKING:
    from torch import nn

MILLION = 10**6

INPUT_SHAPE = (1, 3, 224, 224)


def column_of(network: Network) -> str | None:
    """The configuration of Table 1 with the weights and maps of this network at 224x224, or None.

    Names, batch norms, activations, dropout and the way the head is written make no difference.
    """
    if network.input_shape != INPUT_SHAPE:
        return None
    layers = list(_layers(network))
    return next((name for name, config in CONFIGS.items() if list(_expected(config.words)) == layers), None)


def _layers(network: Network) -> Iterator[tuple[int, int]]:
    """The number of weights and of outputs of each layer with weights, and of each LRN."""
    for node in network.nodes:
        weights = [numel(p.shape) for p in node.parameters if len(p.shape) > 1]
        if weights or node.op.notation == "lrn":
            yield sum(weights), numel(network.output_shape(node))


def _expected(words: tuple[Word, ...]) -> Iterator[tuple[int, int]]:
    _, channels, side, _ = INPUT_SHAPE
    for word in words:
        if word.kind == "conv":
            yield word.kernel**2 * channels * word.size, word.size * side**2
            channels = word.size
        elif word.kind == "lrn":
            yield 0, channels * side**2
        elif word.kind == "maxpool":
            side //= 2
        elif word.kind == "fc":
            yield channels * side**2 * word.size, word.size
            channels, side = word.size, 1


def _params(network: Network, module: nn.Module) -> ReportedFigure:
    column = column_of(network)
    published = CONFIGS[column].published if column else None
    if published is None:
        raise NotApplicable("Table 2 has the paper's columns at 3x224x224 with 1000 classes")
    if any(node.op.notation == "bn" for node in network.nodes):
        raise NotApplicable("the paper has no batch normalisation")
    return ReportedFigure(published.params_millions * MILLION, rounded_to=MILLION)


REFERENCE_TOOL = ReferenceTool(name="paper", title="the paper's Table 2", reports={PARAMS: _params}, runs=False)
