"""Networks side by side: the result that `compare` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

from vggscope.analysis.receptive_field.view import ReceptiveField
from vggscope.analysis.summary import Summary, summarize
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.base import Shape
from vggscope.ops.convolution import Convolution
from vggscope.record import record
from vggscope.result import Result


@record
class LastConvolution:
    """The last convolution that runs, FC layers written as convolutions left out, and its receptive field, None where
    its units do not see alike.
    """

    layer: str
    label: str
    receptive_field: ReceptiveField | None


@record
class Compared:
    """One network's figures for the batch; None where one is not known, and all of them where a forward pass breaks
    off, as `failure` and the warnings tell.

    `weight_layers` counts the modules with weights that multiply, `depth` those on the longest way from the input to
    the output, as the literature counts (18 for ResNet-18, whose shortcuts have three more).
    """

    model: str
    input_shape: Shape
    output_shape: Shape | None
    weight_layers: int
    depth: int | None
    params: int | None
    macs: int | None
    flops: int | None
    activation_bytes: int | None
    inference_peak_bytes: int | None
    training_peak_bytes: int | None
    last_convolution: LastConvolution | None
    warnings: tuple[str, ...]
    failure: str | None = field(default=None, metadata={"json": False})

    @property
    def field_size(self) -> tuple[int, ...] | None:
        """The receptive field at the last convolution, in pixels of the input."""
        last = self.last_convolution
        return last.receptive_field.size if last and last.receptive_field else None


@record
class Published:
    """A column of the paper: Table 1's words and number of weight layers, Table 2's parameters in millions, and what
    is computed of the same column. `agrees` is whether the two are the same, rounded as the paper rounds.
    """

    column: str
    notation: str
    paper_weight_layers: int
    weight_layers: int
    paper_params_millions: int
    params: int
    agrees: bool


@record
class Comparison(Result):
    """Networks side by side, in the order in which they were named. `paper` is empty where it was not asked for."""

    schema: str
    batch: int
    dtype: str
    models: tuple[Compared, ...]
    paper: tuple[Published, ...] = ()


def compare(
    networks: Sequence[Network], batch: int = 1, dtype: str = "float32", paper: tuple[Published, ...] = ()
) -> Comparison:
    """The figures of several networks on a batch of that many inputs.

    >>> from vggscope.sources.resolve import resolve
    >>> [(found.model, found.depth, found.params) for found in compare([resolve("A"), resolve("E")]).models]
    [('A', 11, 132863336), ('E', 19, 143667240)]
    """
    found = tuple(_compared(network, summarize(network, batch, dtype), batch) for network in networks)
    return Comparison("vggscope/compare@1", batch, dtype, found, paper)


def _compared(network: Network, report: Summary, batch: int) -> Compared:
    whole = network.failure is None
    return Compared(
        model=network.name,
        input_shape=report.input_shape,
        output_shape=network.batched(network.end, batch) if whole else None,
        weight_layers=len({node.module or node.name for node in network.nodes if has_weights(network, node)}),
        depth=depth(network) if whole else None,
        params=report.totals.params if whole else None,
        macs=report.totals.macs if whole else None,
        flops=report.totals.flops if whole else None,
        activation_bytes=report.totals.activation_bytes if whole else None,
        inference_peak_bytes=report.memory.inference_peak_bytes,
        training_peak_bytes=report.memory.training_peak_bytes,
        last_convolution=_last_convolution(network, report),
        warnings=report.warnings,
        failure=network.failure,
    )


def has_weights(network: Network, node: Node) -> bool:
    """Whether a node multiplies by a matrix of weights: a convolution or a linear layer does, a batch norm does not."""
    matrices = any(len(parameter.shape) > 1 for parameter in node.parameters)
    return matrices and node.op.macs(network.input_shapes(node), network.output_shape(node)) != 0


def depth(network: Network) -> int:
    """Layers with weights on the longest way from the input to the output.

    >>> from vggscope.sources.resolve import resolve
    >>> depth(resolve("D"))
    16
    """
    behind = {INPUT: 0}
    for node in network.nodes:
        before = max((behind[name] for name in node.inputs), default=0)
        behind[node.name] = before + has_weights(network, node)
    return behind[network.end]


def _last_convolution(network: Network, report: Summary) -> LastConvolution | None:
    convolutions = [layer for node, layer in zip(network.nodes, report.layers) if isinstance(node.op, Convolution)]
    features = [layer for layer in convolutions if not layer.label.startswith("fc")]
    if not convolutions:
        return None
    last = (features or convolutions)[-1]
    return LastConvolution(last.name, last.label, last.receptive_field)
