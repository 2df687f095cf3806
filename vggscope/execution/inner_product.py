"""How one unit's value is computed: a convolution's inner product, term by term, or the window of a pooling layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggscope.graph import Node
from vggscope.ops.base import Window
from vggscope.ops.convolution import Convolution
from vggscope.record import record

if TYPE_CHECKING:
    from torch import Tensor, nn

TERMS = 4
"""How many input channels an inner product lists: those with the largest terms."""

LARGEST_WINDOW = 7
"""The largest side of a window whose values are listed."""

Rows = tuple[tuple[float | None, ...], ...]
"""The values of a window, row by row; None in the padding of a pooling layer."""


@record
class ChannelProduct:
    """One input channel of an inner product: its window, the kernel's weights, and the sum of their products."""

    channel: int
    values: Rows
    weights: Rows
    sum: float


@record
class InnerProduct:
    """A unit of a convolution: the sum of `terms`, of `others` (the input channels not listed) and of `bias`.

    `inputs` is the number of input channels that the unit reads.
    """

    inputs: int
    terms: tuple[ChannelProduct, ...]
    others: float
    bias: float | None


@record
class PoolWindow:
    """A unit of a pooling layer: the values in its window."""

    values: Rows


def inner_product(
    node: Node, module: nn.Module, image: Tensor, channel: int, unit: tuple[int, int]
) -> InnerProduct | PoolWindow | None:
    """Return how the module computes one unit, (row, column), of an output channel.

    `image` is the module's input, channels x height x width. Returns None for an op that is neither a convolution nor a
    pooling, for a window larger than `LARGEST_WINDOW`, and for padding other than zeros.
    """
    window = node.op.window(tuple(image.shape[1:]))
    if window is None or len(window.kernel_size) != 2 or max(window.kernel_size) > LARGEST_WINDOW:
        return None
    if node.op.family == "pooling":
        return PoolWindow(_rows(_patch(image[channel : channel + 1], window, unit, float("nan"))[0]))
    if not isinstance(node.op, Convolution) or node.op.padding_mode != "zeros" or node.op.same:
        return None
    weight: Tensor = module.get_parameter("weight")
    bias = module.get_parameter("bias") if node.op.bias else None
    inputs = int(weight.shape[1])
    first = channel // (node.op.out_channels // node.op.groups) * inputs
    patch = _patch(image[first : first + inputs], window, unit, 0.0)
    sums = (patch * weight[channel]).sum((1, 2))
    largest = sums.abs().sort(descending=True, stable=True).indices[:TERMS].tolist()
    return InnerProduct(
        inputs,
        tuple(ChannelProduct(first + c, _rows(patch[c]), _rows(weight[channel, c]), float(sums[c])) for c in largest),
        float(sums.sum() - sums[largest].sum()),
        None if bias is None else float(bias[channel]),
    )


def _patch(image: Tensor, window: Window, unit: tuple[int, int], padding: float) -> Tensor:
    """The values in a unit's window, channels x kernel; `padding` is the value outside the image."""
    patch = image.new_full((image.shape[0], *window.kernel_size), padding)
    rows, columns = (_inside(window, axis, unit[axis], int(image.shape[axis + 1])) for axis in (0, 1))
    for row, image_row in rows:
        for column, image_column in columns:
            patch[:, row, column] = image[:, image_row, image_column]
    return patch


def _inside(window: Window, axis: int, unit: int, size: int) -> list[tuple[int, int]]:
    """The positions in the kernel that lie inside the image, each with its position in the image."""
    start = unit * window.stride[axis] - window.padding[axis]
    positions = ((tap, start + tap * window.dilation[axis]) for tap in range(window.kernel_size[axis]))
    return [(tap, position) for tap, position in positions if 0 <= position < size]


def _rows(values: Tensor) -> Rows:
    """The values as numbers, None for NaN, which marks padding."""
    return tuple(tuple(None if value != value else value for value in row) for row in values.tolist())  # noqa: PLR0124
