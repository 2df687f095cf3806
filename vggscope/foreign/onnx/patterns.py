"""Several nodes of an ONNX graph that are one layer: exporters write a layer that ONNX lacks as what computes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from math import prod

from vggscope.checkpoint.formats.onnx_model import STANDARD, OnnxNode
from vggscope.checkpoint.formats.protobuf import shortest
from vggscope.foreign.onnx.ops import OnnxLayer, is_row, is_turned_weight
from vggscope.foreign.onnx.values import Number, OnnxValue
from vggscope.ops.base import Shape
from vggscope.ops.linear import Linear
from vggscope.ops.normalization import LocalResponseNorm
from vggscope.record import record

_VIEWS = ("Reshape", "Squeeze", "Unsqueeze")


@record
class OnnxPattern:
    """Nodes that are one layer: the layer, the value that it reads, all of its nodes but the last, and its weights."""

    layer: OnnxLayer
    source: str
    nodes: tuple[OnnxNode, ...]
    weights: tuple[str, ...] = ()


class OnnxPatterns:
    """Finds patterns by their last node, among nodes that have run.

    `values` are the values of the graph by name, and `initializer` gives those of the file, or raises LookupError.
    """

    def __init__(
        self,
        nodes: tuple[OnnxNode, ...],
        outputs: frozenset[str],
        values: Mapping[str, OnnxValue],
        initializer: Callable[[str], OnnxValue],
    ) -> None:
        self._values = values
        self._initializer = initializer
        self._writers = {output: node for node in nodes for output in node.outputs}
        self._readers = Counter(name for node in nodes for name in {*node.inputs, *node.reads})
        self._readers.update(outputs)

    def ending_at(self, node: OnnxNode) -> OnnxPattern | None:
        """The pattern whose last node this is; None for a node that is a layer of its own."""
        find = {"Div": self._local_response_norm, "Add": self._linear}.get(node.op_type)
        if find is None or node.domain not in STANDARD or len(node.inputs) != 2:
            return None
        try:
            return find(node)
        except LookupError:
            return None

    def _linear(self, node: OnnxNode) -> OnnxPattern:
        """X W + b, a linear layer whose weight an exporter has transposed. Raises LookupError for any other sum."""
        for place in (0, 1):
            product = self._writers.get(node.inputs[place])
            if product is not None and product.op_type == "MatMul":
                break
        else:
            raise LookupError("MatMul")
        product = self._writer(node.inputs[place], "MatMul")
        source, matrix = product.inputs
        bias = node.inputs[1 - place]
        weight, left = self._constant(matrix), self._values[source]
        if not is_turned_weight(weight) or left.is_constant or len(left.shape) < 2 or product.scope != node.scope:
            raise LookupError("weight")
        if not is_row(self._constant(bias), weight.shape[1]):
            raise LookupError("bias")
        layer = OnnxLayer(Linear(weight.shape[0], weight.shape[1]), weights=(1, 2), is_turned=True)
        return OnnxPattern(layer, source, (product,), (matrix, bias))

    def _constant(self, name: str) -> OnnxValue:
        """A value that is known before its readers run, those of the file among them. Raises LookupError for others."""
        return self._values[name] if name in self._values else self._initializer(name)

    def _local_response_norm(self, node: OnnxNode) -> OnnxPattern:
        """X / (k + alpha * mean(x^2 of neighbouring channels))^beta, as torch computes F.local_response_norm.

        The mean is an average pool over an axis of channels, with zeros before and after them. Raises LookupError for
        any other division.
        """
        source, divisor = node.inputs
        power, beta = self._with_number(divisor, "Pow")
        added, k = self._with_number(power.inputs[0], "Add")
        scaled, alpha = self._with_number(self._other(added), "Mul")
        views, pool = self._behind_views(self._other(scaled), "AveragePool")
        pad = self._writer(pool.inputs[0], "Pad")
        more, square = self._behind_views(pad.inputs[0], "Mul")
        size = self._pooled_channels(pool, pad, self._values[source].shape)
        if square.inputs != (source, source):
            raise LookupError("x * x")
        layer = OnnxLayer(LocalResponseNorm(size, float(alpha), float(beta), float(k)))
        return OnnxPattern(layer, source, (square, *more, pad, pool, *views, scaled, added, power))

    def _pooled_channels(self, pool: OnnxNode, pad: OnnxNode, shape: Shape) -> int:
        """How many channels the mean is over. Raises LookupError unless the pool moves along them alone."""
        kernel = pool.attributes.get("kernel_shape", ())
        padded, before = self._values[pool.inputs[0]].shape, self._values[pad.inputs[0]].shape
        size, plain = kernel[0] if kernel else 0, (1,) * len(kernel)
        is_plain = all(
            (
                kernel[1:] == plain[1:],
                pool.attributes.get("strides", plain) == plain,
                pool.attributes.get("dilations", plain) == plain,
                not any(pool.attributes.get("pads", ())),
                pool.attributes.get("auto_pad", "NOTSET") in ("NOTSET", "VALID", ""),
                not pool.attributes.get("ceil_mode", 0),
            )
        )
        rank = len(before)
        pads = tuple(map(int, self._values[pad.inputs[1]].numbers or ())) if len(pad.inputs) > 1 else ()
        wanted = tuple(amount if axis == 2 else 0 for amount in (size // 2, (size - 1) // 2) for axis in range(rank))
        value = self._number(pad.inputs[2]) if len(pad.inputs) > 2 and pad.inputs[2] else 0
        is_padded = pads == wanted and value == 0 and pad.attributes.get("mode", "constant") in ("constant", "")
        is_channels = before[:3] == (shape[0], 1, shape[1]) and prod(before) == prod(shape) and len(shape) > 2
        if not (size and is_plain and is_padded and is_channels and len(padded) == rank and len(pad.inputs) <= 3):
            raise LookupError("channels")
        return int(size)

    def _with_number(self, name: str, kind: str) -> tuple[OnnxNode, Number]:
        """The node of a kind that writes a value, with the number that it reads. Raises LookupError for any other."""
        node = self._writer(name, kind)
        for place in reversed(range(len(node.inputs))):
            number = self._number(node.inputs[place])
            if number is not None and (place == 1 or kind != "Pow"):
                return node, number
        raise LookupError(kind)

    def _other(self, node: OnnxNode) -> str:
        """The input of a node of two that is no number."""
        return next(name for name in node.inputs if self._number(name) is None)

    def _number(self, name: str) -> Number | None:
        value = self._values.get(name)
        if value is None or not value.is_constant or value.numbers is None or len(value.numbers) != 1:
            return None
        return shortest(value.numbers[0]) if value.dtype == "float32" else value.numbers[0]

    def _behind_views(self, name: str, kind: str) -> tuple[tuple[OnnxNode, ...], OnnxNode]:
        """The node of a kind before nodes that only lay out its output, and those nodes, the last of them last."""
        views = tuple(self._views(name))
        start = views[0].inputs[0] if views else name
        return views, self._writer(start, kind)

    def _views(self, name: str) -> Iterator[OnnxNode]:
        node = self._writers.get(name)
        if node is not None and node.op_type in _VIEWS and self._readers[name] == 1:
            yield from self._views(node.inputs[0])
            yield node

    def _writer(self, name: str, kind: str) -> OnnxNode:
        """The node of a kind that writes a value which nothing else reads. Raises LookupError for any other."""
        node = self._writers.get(name)
        if node is None or node.op_type != kind or node.domain not in STANDARD or self._readers[name] != 1:
            raise LookupError(kind)
        return node
