"""The network that a picture shows, with its summary, layers and stages."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

from vggscope.analysis.summary import Summary, summarize
from vggscope.drawing.layer import Layer, input_shape
from vggscope.drawing.stages import Stage, has_paper_stages, stages
from vggscope.errors import NotationError
from vggscope.graph import Network, module_node
from vggscope.ops.activation import Softmax
from vggscope.record import record
from vggscope.units import at_least, count_text, short_count
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.notation import parse


def with_printed_softmax(network: Network) -> Network:
    """The network with the soft-max that ends it where the paper prints it: in Table 1, or in its notation.

    A built network ends at the logits, as torchvision's do: the loss holds the soft-max.
    """
    config = CONFIGS.get(network.name.removesuffix("_bn"))
    try:
        words = config.words if config else parse(network.name)
    except NotationError:
        return network
    if words[-1].kind != "softmax" or not network.nodes or network.nodes[-1].op.notation == "softmax":
        return network
    softmax = module_node("softmax", Softmax(dim=1), network.end, "prob")
    return replace(network, nodes=(*network.nodes, softmax), output=None)


@record
class Subject:
    """A network to draw; with `fold`, repeated modules are drawn once."""

    network: Network
    fold: bool = True

    @property
    def title(self) -> str:
        """The network's heading: `D (VGG-16)`, or its name."""
        return self.network.title or self.network.name

    @property
    def caption(self) -> str:
        """Parameters, MACs and input size in a line."""
        totals = self.report.totals
        macs = at_least(totals.macs) + short_count(totals.macs_known, "MACs")
        inputs = self.network.inputs
        size = f"input {input_shape(inputs[0])}" if len(inputs) == 1 else f"{len(inputs)} inputs"
        return f"{at_least(totals.params)}{count_text(totals.params_known)} parameters, {macs}, {size}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the whole network: where its forward pass fails."""
        return (f"The forward pass fails here: {self.network.failure}",) if self.network.failure else ()

    @cached_property
    def report(self) -> Summary:
        return summarize(self.network)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(Layer(node, report) for node, report in zip(self.network.nodes, self.report.layers))

    @property
    def has_paper_stages(self) -> bool:
        """Whether its stages are the paper's."""
        return has_paper_stages(self.layers)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(stages(self.layers, self.fold))
