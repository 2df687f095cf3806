"""A network to be drawn, cut into its stages: the paper's for a chain that has them, else its modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import groupby

from vggscope.analysis.summary import Summary, summarize
from vggscope.drawing.layer import Layer
from vggscope.drawing.modules import module_stages
from vggscope.drawing.stage import Block, Stage, divided, rows, span
from vggscope.errors import NotationError
from vggscope.graph import Network, module_node
from vggscope.ops.activation import Softmax
from vggscope.record import record
from vggscope.vgg.configs import CONFIGS, LITERATURE
from vggscope.vgg.labels import stage_of
from vggscope.vgg.notation import parse

HEAD = "classifier"
"""What the stage of the fully connected layers is called."""

MOST_ALIKE = 8
"""More rows than this that say the same are drawn once, with their number. The paper's stages have four at most."""


def as_printed(network: Network) -> Network:
    """The network with the soft-max that ends it in Table 1, or in the notation that it was made of: what is built ends
    at the logits, as torchvision's does, and leaves the soft-max to the loss.
    """
    try:
        words = parse(CONFIGS.get(network.name.removesuffix("_bn"), network.name))
    except NotationError:
        return network
    if words[-1].kind != "softmax" or not network.nodes or network.nodes[-1].op.name == "Softmax":
        return network
    ending = module_node("softmax", Softmax(dim=1), network.end, "prob")
    return replace(network, nodes=(*network.nodes, ending), output=None)


@record
class Subject:
    """A network with its report and its stages; with `fold` what repeats in a row is drawn once."""

    network: Network
    fold: bool = True

    @property
    def title(self) -> str:
        """What it is called, with the literature's name behind a column's letter."""
        literature = {column: name.replace("vgg", "VGG-") for name, column in LITERATURE.items()}
        column, normalised, _ = self.network.name.partition("_bn")
        known = literature.get(column)
        if known is None:
            return self.network.name
        return f"{self.network.name} ({known}{' with batch norm' if normalised else ''})"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader has to know of the whole."""
        return (f"The forward pass breaks off here: {self.network.failure}",) if self.network.failure else ()

    @cached_property
    def report(self) -> Summary:
        return summarize(self.network)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(Layer(node, report) for node, report in zip(self.network.nodes, self.report.layers))

    @property
    def has_paper_stages(self) -> bool:
        """Whether the literature's names, and so the paper's stages, are known."""
        return any(layer.node.label for layer in self.layers)

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        cut = _paper_stages if self.has_paper_stages else module_stages
        found = cut(self.layers, self.fold)
        return tuple(part for stage in found for part in divided(stage))


def _paper_stages(layers: Sequence[Layer], fold: bool) -> Iterator[Stage]:
    for key, pairs in groupby(_keyed(layers), key=lambda pair: pair[0]):
        found = tuple(layer for _, layer in pairs)
        yield Stage(f"stage {key}" if key.isdigit() else key, found, tuple(_blocks(found, fold)))


def _keyed(layers: Iterable[Layer]) -> Iterator[tuple[str, Layer]]:
    """Each layer with its stage: one that has no label of its own belongs with those before it within its module, else
    with the head that follows.
    """
    before: tuple[str, str] = ("", "")
    for layer in layers:
        top = layer.node.name.partition(".")[0]
        stage = stage_of(layer.node.label) or (before[1] if before[0] == top else HEAD)
        before = (top, stage)
        yield stage, layer


def _blocks(layers: Sequence[Layer], fold: bool) -> Iterator[Block]:
    """A stage's rows, many that are alike as one block that counts them."""
    plain: list[Layer] = []
    for _, run in groupby(rows(layers), key=lambda row: row.spec):
        alike = list(run)
        if fold and len(alike) > MOST_ALIKE:
            if plain:
                yield Block("", "", rows(plain), (tuple(plain),))
            plain = []
            yield Block(span([row.name for row in alike]), "", (alike[0],), tuple(row.layers for row in alike))
        else:
            plain += [layer for row in alike for layer in row.layers]
    if plain:
        yield Block("", "", rows(plain), (tuple(plain),))
