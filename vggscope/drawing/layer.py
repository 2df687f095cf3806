"""One layer as pictures show it: its name, its kind for the colour, its parameters in short."""

from __future__ import annotations

from collections.abc import Sequence

from vggscope.analysis.summary import LayerSummary
from vggscope.graph import Input, Node
from vggscope.record import record
from vggscope.units import field_text, kernel_text, sample_sides

_KINDS = {
    "convolution": "conv",
    "linear": "fc",
    "attention": "fc",
    "recurrent": "fc",
    "embedding": "fc",
    "pooling": "pool",
    "normalization": "norm",
    "activation": "activation",
}
"""The key of the theme's colour for each family of ops; any other family is `other`."""


@record
class Layer:
    """One node with its row of the summary."""

    node: Node
    report: LayerSummary

    @property
    def name(self) -> str:
        """The literature's name where there is one, else the path."""
        return self.node.label or self.node.name

    @property
    def op(self) -> str:
        """The op's name, without the underscore of an in-place function."""
        return self.node.op.name.rstrip("_")

    @property
    def kind(self) -> str:
        """The key of its colour in the theme."""
        return kind(self.node.op.family, self.node.label)

    @property
    def is_minor(self) -> bool:
        """Whether a list of layers shows it on the line of the layer before: a batch norm, or an op without window and
        weights.
        """
        if self.node.op.follows_a_layer:
            return True
        if self.node.parameters or len(self.node.inputs) != 1:
            return False
        return self.kind in ("activation", "other") and not self.node.label.startswith("prob")

    @property
    def word(self) -> str:
        """The op in one word, for a list of layers."""
        return self.node.op.word or self.op

    @property
    def spec(self) -> str:
        """Its parameters in short: `3×3, 256`, `2×2, /2`, `4,096`."""
        report = self.report
        if self.node.op.is_adaptive:
            return "to " + "×".join(map(str, report.output_shape[2:]))
        kernel = getattr(self.node.op, "kernel_size", None)
        if report.kernel_size is None and self.kind == "conv" and isinstance(kernel, tuple):
            return f"{kernel_text(kernel).replace('x', '×')} transposed, {report.output_shape[1]:,}"
        if report.kernel_size is None:
            return f"{report.output_shape[-1]:,}" if self.node.op.family == "linear" else self.word
        parts = [kernel_text(report.kernel_size).replace("x", "×")]
        if self.kind in ("conv", "fc"):
            parts.append(f"{report.output_shape[1]:,}")
        groups = getattr(self.node.op, "groups", 1)
        if groups > 1:
            parts.append("depthwise" if groups == report.input_shape[1] else f"{groups} groups")
        if report.stride and set(report.stride) != {1}:
            parts.append("/" + "×".join(map(str, dict.fromkeys(report.stride))))
        return ", ".join(parts)

    def spec_beside(self, name: str) -> str:
        """Its `spec`, or nothing if it repeats the name shown."""
        return "" if self.spec == name.partition(":")[0].rpartition(".")[2].rstrip("_") else self.spec

    @property
    def sample(self) -> tuple[int, ...]:
        """Its output shape without the batch axis."""
        return sample_sides(self.report.output_shape, self.report.batch_axes[1])

    @property
    def output(self) -> str:
        """Its output shape as text, without the batch axis."""
        return shape_range([self.sample])

    @property
    def details(self) -> str:
        """The text of its tooltip, one fact per line."""
        report = self.report
        source = shape(report.input_shape, report.batch_axes[0])
        lines = [f"{self.node.title}: {self.op}", f"{source} → {self.output}"]
        lines += [report.rule] if report.rule else []
        lines += [f"{report.params:,} parameters"] if report.params else []
        lines += [f"{report.macs:,} MACs"] if report.macs else []
        field = report.receptive_field
        lines += [f"receptive field {field_text(field.size)}"] if field else []
        return "\n".join(lines)


@record
class LayerRow:
    """A layer with the minor ones after it: one line of a list. `name` is relative to its module."""

    name: str
    layers: tuple[Layer, ...]

    @property
    def layer(self) -> Layer:
        """The first layer, which gives the row its kind."""
        return self.layers[0]

    @property
    def words(self) -> tuple[str, ...]:
        """The spec of its first layer and the words of all others: the same for rows that can be drawn once."""
        return (self.layer.spec_beside(self.name), *(layer.word for layer in self.layers[1:]))

    @property
    def minor(self) -> tuple[str, ...]:
        """The words of the minor layers, without those that return their input, such as a dropout of rate 0."""
        return tuple(layer.word for layer in self.layers[1:] if not layer.node.op.returns_input)

    @property
    def spec(self) -> str:
        """The specs of all its layers; one that returns its input is named if it is alone."""
        is_idle = self.layer.is_minor and self.layer.node.op.returns_input
        first = "" if is_idle and self.minor else self.layer.spec_beside(self.name)
        return ", ".join(filter(None, (first, *self.minor)))


def kind(family: str, label: str) -> str:
    """The key of the theme's colour for a layer of this family of ops; `label` is its name in the literature."""
    # A dense head's convolutions replace fully connected layers and keep their names.
    return "fc" if label.startswith("fc") else _KINDS.get(family, "other")


def shape(sides: tuple[int, ...], batch_axis: int | None) -> str:
    """A tensor's shape as text, without its batch axis.

    >>> shape((1, 64, 224, 224), 0), shape((16, 1, 64), 1), shape((1,), 0)
    ('64 × 224 × 224', '16 × 64', 'scalar')
    """
    return shape_range([sample_sides(sides, batch_axis)])


def input_shape(tensor: Input) -> str:
    """An input's shape as text, without its batch axis.

    >>> input_shape(Input("frames", (16, 1, 64), batch_growth=(0, 1, 0)))
    '16 × 64'
    """
    return shape(tensor.shape, tensor.batch_axis)


def output_range(layers: Sequence[Layer]) -> str:
    """The output shape of a layer in each repetition of its module, as one text."""
    return shape_range([layer.sample for layer in layers])


def shape_range(samples: Sequence[tuple[int, ...]]) -> str:
    """The shapes of several samples as one text, with the range of each side that differs.

    >>> shape_range([(64, 56, 56), (224, 56, 56)])
    '64–224 × 56 × 56'
    """
    if len({len(sides) for sides in samples}) > 1:
        samples = samples[:1]
    ends = [(min(sides), max(sides)) for sides in zip(*samples)]
    return " × ".join(f"{low:,}" if low == high else f"{low:,}–{high:,}" for low, high in ends) or "scalar"
