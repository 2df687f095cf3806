"""The result of `compare`: the figures of several networks side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import field
from math import inf
from typing import Any

from vggscope.analysis.receptive_field.last_map import last_map
from vggscope.analysis.receptive_field.result import LayerField
from vggscope.analysis.receptive_field.view import ReceptiveField
from vggscope.analysis.summary import Summary, summarize
from vggscope.analysis.tensors import TensorSummary
from vggscope.dtypes import MIXED
from vggscope.graph import Network, Node
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.result import TableResult
from vggscope.units import natural_order


@record
class LastConvolution:
    """The last convolution that is no FC layer, and its receptive field, None if its units have different ones."""

    layer: str
    label: str
    receptive_field: ReceptiveField | None


@record
class Compared:
    """The figures of one network for the batch; None if unknown. Of a network that does not run to its end, the
    parameters alone are known.

    `weight_layers` counts the convolutions and linear layers. `depth` counts those on the longest path from the input
    to the output, as the literature does: 18 for ResNet-18, which has three more in its shortcuts. `failure` is the
    reason why the network does not run. `last_map` is the layer with the largest receptive field on the last feature
    map, None if no layer with weights has a map. `batch_axis` is the axis of the output that grows with the batch, None
    if there is none.
    """

    model: str
    input_shape: Shape
    output_shape: Shape | None
    weight_layers: int | None
    depth: int | None
    params: int | None
    macs: int | None
    flops: int | None
    activation_bytes: int | None
    inference_peak_bytes: int | None
    training_peak_bytes: int | None
    last_convolution: LastConvolution | None
    warnings: tuple[str, ...]
    inputs: tuple[TensorSummary, ...]
    macs_known: int | None
    flops_known: int | None
    params_known: int | None
    dtype: str
    failure: str | None = None
    last_map: LayerField | None = None
    batch_axis: int | None = field(default=0, metadata={"json": False})

    @property
    def field_size(self) -> tuple[int, ...] | None:
        """The largest receptive field on the last feature map, in pixels of the input; None if it is unknown."""
        return self.last_map.size if self.last_map else None

    @property
    def sees_all(self) -> bool:
        """Whether each unit of that layer sees the whole input."""
        return self.last_map is not None and self.last_map.whole


@record
class Uncompared:
    """A model that could not be built or read: the reason, and what would work (empty if nothing is known to)."""

    model: str
    failure: str
    remedy: str


@record
class Published:
    """A configuration of the paper: its notation and weight layers in Table 1, its parameters in millions in Table 2,
    and the same figures as computed. `agrees` is whether both are equal, rounded as in the paper.
    """

    column: str
    notation: str
    paper_weight_layers: int
    weight_layers: int
    paper_params_millions: int
    params: int
    agrees: bool


@record
class Comparison(TableResult[Compared]):
    """The figures of networks in the order given, or sorted. `paper` is empty unless it is requested.

    `dtype` is `mixed` if the networks' differ. `failures` are models without figures, `missing` those that were not
    reached before an interruption. `sort` and `order` are None in the order given; `left_out` is the number of models
    that are not among the first of that order. `columns` are those of the table, by default if empty.
    """

    rows_field = "models"
    named_by = ("model",)

    schema: str
    batch: int
    dtype: str
    models: tuple[Compared, ...]
    paper: tuple[Published, ...] = ()
    failures: tuple[Uncompared, ...] = ()
    missing: tuple[str, ...] = ()
    sort: str | None = None
    order: str | None = None
    left_out: int = 0
    columns: tuple[str, ...] = field(default=(), metadata={"json": False})


def compare(
    networks: Sequence[Network], batch: int = 1, dtype: str | None = None, paper: tuple[Published, ...] = ()
) -> Comparison:
    """Compare the figures of several networks for a batch.

    >>> from vggscope.sources.resolve import resolve
    >>> [(model.model, model.depth, model.params) for model in compare([resolve("A"), resolve("E")]).models]
    [('A', 11, 132863336), ('E', 19, 143667240)]
    """
    return comparison([compared(network, batch, dtype) for network in networks], batch, paper)


def comparison(
    rows: Iterable[Compared | Uncompared],
    batch: int = 1,
    paper: tuple[Published, ...] = (),
    missing: tuple[str, ...] = (),
    ranking: Ranking | None = None,
    columns: tuple[str, ...] = (),
) -> Comparison:
    """The rows as a Comparison, sorted by `ranking`."""
    rows = list(rows)
    models = [row for row in rows if isinstance(row, Compared)]
    shown = models if ranking is None else ranking.first(models)
    dtypes = {model.dtype for model in shown}
    return Comparison(
        "vggscope/compare@1",
        batch,
        dtypes.pop() if len(dtypes) == 1 else MIXED,
        tuple(shown),
        paper,
        tuple(row for row in rows if isinstance(row, Uncompared)),
        missing,
        ranking.sort if ranking else None,
        ranking.order if ranking else None,
        len(models) - len(shown),
        columns,
    )


ORDERS = ("ascending", "descending")


def _field_order(model: Compared) -> float | None:
    """The longer side of the field; the whole input is more than any number."""
    return inf if model.sees_all else max(model.field_size) if model.field_size else None


SORTS: Mapping[str, Callable[[Compared], Any]] = {
    "model": lambda model: natural_order(model.model),
    "params": lambda model: model.params,
    "macs": lambda model: model.macs,
    "activation_bytes": lambda model: model.activation_bytes,
    "inference_peak_bytes": lambda model: model.inference_peak_bytes,
    "training_peak_bytes": lambda model: model.training_peak_bytes,
    "depth": lambda model: model.depth,
    "weight_layers": lambda model: model.weight_layers,
    "receptive_field": _field_order,
}
"""What models are sorted by. None, for an unknown figure, comes last in both orders."""


@record
class Ranking:
    """An order of models: `sort` is a key of SORTS, `order` one of ORDERS, `top` how many come first, None for all."""

    sort: str
    order: str
    top: int | None = None

    def first(self, models: Iterable[Compared]) -> list[Compared]:
        """The models sorted, equal ones in the order given, and the first `top` of them."""
        values = [(SORTS[self.sort](model), model) for model in models]
        known = [pair for pair in values if pair[0] is not None]
        known.sort(key=lambda pair: pair[0], reverse=self.order == "descending")
        return [model for _, model in (*known, *(pair for pair in values if pair[0] is None))][: self.top]


_TOTALS = ("params", "macs", "flops", "macs_known", "flops_known", "params_known", "activation_bytes")

_BUILT = ("params", "params_known")
"""The totals of a network that does not run to its end: its parameters do not depend on that."""


def compared(network: Network, batch: int = 1, dtype: str | None = None) -> Compared:
    """The figures of one network for a batch."""
    summary, runs = summarize(network, batch, dtype), network.failure is None
    weighted = [node for node in network.nodes if has_weights(network, node)]
    totals = {name: getattr(summary.totals, name) if runs or name in _BUILT else None for name in _TOTALS}
    return Compared(
        model=network.name,
        input_shape=summary.input_shape,
        output_shape=network.batched(network.end, batch) if runs else None,
        weight_layers=len({node.module or node.name for node in weighted}) if runs else None,
        depth=depth(network) if runs else None,
        **totals,
        **vars(summary.memory),
        last_convolution=_last_convolution(network, summary),
        warnings=summary.warnings,
        inputs=summary.inputs,
        dtype=summary.dtype,
        failure=network.failure,
        last_map=last_map(network, {node.name for node in weighted}) if runs else None,
        batch_axis=network.batch_axis_of(network.end) if runs else None,
    )


def has_weights(network: Network, node: Node) -> bool:
    """Whether a node is a convolution or a linear layer: it multiplies by a matrix of weights."""
    matrices = any(len(parameter.shape) > 1 for parameter in node.parameters)
    return matrices and node.op.macs(network.input_shapes(node), network.output_shape(node)) != 0


def depth(network: Network) -> int:
    """The number of layers with weights on the longest path from the input to the output.

    >>> from vggscope.sources.resolve import resolve
    >>> depth(resolve("D"))
    16
    """
    depths = dict.fromkeys(network.input_names, 0)
    for node in network.nodes:
        before = max((depths[name] for name in node.inputs), default=0)
        depths[node.name] = before + has_weights(network, node)
    return depths[network.end]


def _last_convolution(network: Network, summary: Summary) -> LastConvolution | None:
    convolutions = [layer for node, layer in zip(network.nodes, summary.layers) if node.op.is_convolution]
    features = [layer for layer in convolutions if not layer.label.startswith("fc")]
    if not convolutions:
        return None
    last = (features or convolutions)[-1]
    return LastConvolution(last.name, last.label, last.receptive_field)
