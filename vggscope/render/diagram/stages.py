"""A network cut into the stages that its picture shows: the paper's for a chain that has them, else its modules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from vggscope.analysis.report import LayerReport, Report, summarize
from vggscope.columns import LITERATURE
from vggscope.labels import stage_of
from vggscope.network import Network, Node
from vggscope.ops.base import Shape
from vggscope.units import kernel_text

HEAD = "classifier"
"""What the stage of the fully connected layers is called."""


@dataclass(frozen=True)
class Layer:
    """One node with what is known of it."""

    node: Node
    report: LayerReport

    @property
    def name(self) -> str:
        """The literature's name where there is one, else the path."""
        return self.node.label or self.node.name

    @property
    def kind(self) -> str:
        """The theme's word for its colour."""
        op = self.node.op.name
        if op.startswith("Conv"):
            # A dense head's convolutions stand for fully connected layers, and are named so.
            return "fc" if self.node.label.startswith("fc") else "conv"
        if op == "Linear":
            return "fc"
        if "Pool" in op:
            return "pool"
        if "Norm" in op:
            return "norm"
        return "activation" if type(self.node.op).__module__.endswith(".activation") else "other"

    @property
    def is_minor(self) -> bool:
        """Whether a picture of stages says it behind the layer before: it has no window and no weights, or is that
        layer's batch norm.
        """
        if "BatchNorm" in self.node.op.name:
            return True
        return self.kind in ("activation", "other") and self.node.op.name != "Softmax"

    @property
    def spec(self) -> str:
        """What it does, in a few signs: `3×3, 256`, `2×2, /2`, `4,096`."""
        report = self.report
        if report.kernel_size is None:
            return f"{report.output_shape[1]:,}" if self.kind == "fc" else self.word
        parts = [kernel_text(report.kernel_size).replace("x", "×")]
        if self.node.op.name.startswith("Adaptive"):
            parts = ["to " + "×".join(map(str, report.output_shape[2:]))]
        elif self.kind in ("conv", "fc"):
            parts.append(f"{report.output_shape[1]:,}")
        groups = getattr(self.node.op, "groups", 1)
        if groups > 1:
            parts.append(f"g{groups}")
        if report.stride and set(report.stride) != {1} and not self.node.op.name.startswith("Adaptive"):
            parts.append("/" + "×".join(map(str, dict.fromkeys(report.stride))))
        return ", ".join(parts)

    @property
    def word(self) -> str:
        """The op in a word."""
        op = self.node.op.name
        return _WORDS.get(op, op)


_WORDS = {
    "BatchNorm2d": "BN",
    "LocalResponseNorm": "LRN",
    "MaxPool2d": "max pool",
    "AvgPool2d": "avg pool",
    "AdaptiveAvgPool2d": "avg pool",
    "AdaptiveMaxPool2d": "max pool",
    "Softmax": "soft-max",
    "Dropout": "dropout",
    "Flatten": "flatten",
    "Identity": "identity",
}


@dataclass(frozen=True)
class Stage:
    """Layers that a picture draws as one. `name` is unique among the network's stages."""

    name: str
    title: str
    layers: tuple[Layer, ...]

    @property
    def output_shape(self) -> Shape:
        return self.layers[-1].report.output_shape

    @property
    def kind(self) -> str:
        """The kind of most of its layers with weights, for its colour."""
        kinds = [layer.kind for layer in self.layers if layer.report.params] or ["other"]
        return max(dict.fromkeys(kinds), key=kinds.count)

    @property
    def params(self) -> int:
        return sum(layer.report.params for layer in self.layers)

    @property
    def macs(self) -> int | None:
        known = [layer.report.macs for layer in self.layers]
        return None if None in known else sum(macs or 0 for macs in known)

    @property
    def activation_bytes(self) -> int:
        return sum(layer.report.activation_bytes for layer in self.layers)


@dataclass(frozen=True)
class Subject:
    """A network to be drawn, with its report and its stages."""

    network: Network

    @property
    def title(self) -> str:
        """What it is called, with the literature's name behind a column's letter."""
        literature = {column: name.replace("vgg", "VGG-") for name, column in LITERATURE.items()}
        column, normalised, _ = self.network.name.partition("_bn")
        known = literature.get(column)
        if known is None:
            return self.network.name
        return f"{self.network.name} ({known}{' with batch norm' if normalised else ''})"

    @cached_property
    def report(self) -> Report:
        return summarize(self.network)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(Layer(node, report) for node, report in zip(self.network.nodes, self.report.layers))

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        return tuple(_stages(self.layers))


def _stages(layers: Iterable[Layer]) -> Iterator[Stage]:
    keyed = list(_keyed(layers))
    for key, group in groupby(keyed, key=lambda pair: pair[0]):
        title = key if key == HEAD or not key.isdigit() else f"stage {key}"
        yield Stage(key, title, tuple(layer for _, layer in group))


def _keyed(layers: Iterable[Layer]) -> Iterator[tuple[str, Layer]]:
    """Each layer with its stage: one that has no label of its own belongs with those before it within its module, else
    with the head that follows.
    """
    labelled = any(layer.node.label for layer in layers)
    before: tuple[str, str] = ("", "")
    for layer in layers:
        top = layer.node.name.partition(".")[0]
        stage = stage_of(layer.node.label)
        if labelled and not stage:
            stage = before[1] if before[0] == top else HEAD
        before = (top, stage or top)
        yield before[1], layer
