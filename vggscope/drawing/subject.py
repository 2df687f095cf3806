"""The network that a picture shows, with its summary, layers and stages."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cached_property

from vggscope.analysis.summary import Summary, summarize
from vggscope.drawing.layer import Layer, input_shape
from vggscope.drawing.part import chosen, entering, given_to
from vggscope.drawing.stages import Stage, has_paper_stages, stages
from vggscope.errors import NotationError
from vggscope.graph import Input, Network, module_node
from vggscope.ops.activation import Softmax
from vggscope.record import record
from vggscope.units import at_least, count_text, short_count
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.notation import parse

_CLASS = re.compile(r".*\.(?:py|ipynb):(?P<name>.+)", re.DOTALL)
_FILE = re.compile(r"(?:[A-Za-z]:)?[^:]*[/\\](?P<name>[^/\\:]+\.[A-Za-z]\w*)")


def without_place(name: str) -> str:
    """A network's name without the folders and the file in which it lies: what is said of it in print.

    >>> without_place("models/unet.py:UNet(base=8)"), without_place("runs/vgg16.pth"), without_place("conv3-8/s2")
    ('UNet(base=8)', 'vgg16.pth', 'conv3-8/s2')
    """
    found = _CLASS.fullmatch(name) or _FILE.fullmatch(name)
    return found["name"] if found else name


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
    """A network to draw; with `fold`, repeated modules are drawn once. `only` names the part that is drawn, if not all
    of it is: `stage3..stage5`, `layer2`, `conv1_1..pool2`. Its figures are those that it has in the whole network.
    Modules have frames down to `depth`; without it, repeated ones and those of a series.
    """

    network: Network
    fold: bool = True
    only: str | None = None
    depth: int | None = None

    @property
    def title(self) -> str:
        """The network's heading: `D (VGG-16)`, or its name, that of a file's class or of a file without its path."""
        return self.network.title or without_place(self.network.name)

    @property
    def caption(self) -> str:
        """Parameters, MACs and input size in a line; of a part, its own and those of the whole network."""
        totals = self.report.totals
        whole = at_least(totals.macs) + short_count(totals.macs_known, "MACs")
        params = f"{at_least(totals.params)}{count_text(totals.params_known)} parameters"
        size = f"input {input_shape(self.inputs[0])}" if len(self.inputs) == 1 else f"{len(self.inputs)} inputs"
        if self.only is None:
            return f"{params}, {whole}, {size}"
        rows = [layer.report for layer in self.layers]
        own = count_text(sum(row.params or 0 for row in rows))
        macs = short_count(sum(row.macs or 0 for row in rows), "MACs")
        unknown = at_least(None) if any(row.macs is None for row in rows) else ""
        return f"{self.only}: {own} of {params}, {unknown}{macs} of {whole}, {size}"

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes on the whole network: where its forward pass fails."""
        ends = self.layers[-1:] == self.every_layer[-1:]
        return (f"The forward pass fails here: {self.network.failure}",) if self.network.failure and ends else ()

    @cached_property
    def report(self) -> Summary:
        return summarize(self.network)

    @cached_property
    def every_layer(self) -> tuple[Layer, ...]:
        """The layers of the whole network."""
        return tuple(Layer(node, report) for node, report in zip(self.network.nodes, self.report.layers))

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """The layers that are drawn."""
        if self.only is None:
            return self.every_layer
        return chosen(self.every_layer, tuple(stages(self.every_layer, self.fold)), self.only)

    @cached_property
    def inputs(self) -> tuple[Input, ...]:
        """The tensors that enter what is drawn: the network's inputs, or outputs of the layers before a part."""
        if self.only is None:
            return self.network.inputs
        return entering(self.network, self.given_names, {layer.node.name: layer.name for layer in self.every_layer})

    @cached_property
    def given_names(self) -> tuple[str, ...]:
        """By which names the layers that are drawn refer to what enters."""
        return given_to(self.layers)

    @property
    def has_paper_stages(self) -> bool:
        """Whether its stages are the paper's."""
        return has_paper_stages(self.layers)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(stages(self.layers, self.fold))
