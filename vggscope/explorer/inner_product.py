"""The inner product behind one unit of a convolution, and what a pool's window holds, in numbers that can be read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggscope.graph import Node
from vggscope.ops.base import Window
from vggscope.ops.convolution import Convolution

if TYPE_CHECKING:
    from torch import Tensor, nn

TERMS = 4
"""How many input channels are shown, those that give most."""

WIDEST = 7
"""A window of a larger side is too much to be read number by number."""


def short(value: float) -> float:
    """Five digits say all that a page can show."""
    return float(f"{value:.5g}")


def inner_product(
    node: Node, module: nn.Module, given: Tensor, channel: int, unit: tuple[int, int]
) -> dict[str, object] | None:
    """How a unit's value comes about: `given` is the layer's input, channels x height x width.

    Of a convolution `terms`, each an input channel with its values, its weights and what they sum up to; `others` what
    the rest gives, `bias`, and how many `inputs` there are. Of a pool its `values`. None for what has no such window.
    """
    window = node.op.window(tuple(given.shape[1:]))
    if window is None or len(window.kernel_size) != 2 or max(window.kernel_size) > WIDEST:
        return None
    if "Pool" in node.op.name:
        return {"values": _rows(_patch(given[channel : channel + 1], window, unit, float("nan"))[0])}
    if not isinstance(node.op, Convolution) or node.op.padding_mode != "zeros" or node.op.same:
        return None
    weight: Tensor = module.get_parameter("weight")
    bias = module.get_parameter("bias") if node.op.bias else None
    inputs = int(weight.shape[1])
    first = channel // (node.op.out_channels // node.op.groups) * inputs
    patch = _patch(given[first : first + inputs], window, unit, 0.0)
    parts = (patch * weight[channel]).sum((1, 2))
    most = parts.abs().sort(descending=True, stable=True).indices[:TERMS].tolist()
    return {
        "inputs": inputs,
        "terms": [
            {
                "channel": first + c,
                "values": _rows(patch[c]),
                "weights": _rows(weight[channel, c]),
                "sum": short(float(parts[c])),
            }
            for c in most
        ],
        "others": short(float(parts.sum() - parts[most].sum())),
        "bias": None if bias is None else short(float(bias[channel])),
    }


def _patch(given: Tensor, window: Window, unit: tuple[int, int], outside: float) -> Tensor:
    """What the window of a unit holds, `outside` where it lies in the padding: channels x kernel."""
    patch = given.new_full((given.shape[0], *window.kernel_size), outside)
    (rows, their_rows), (columns, their_columns) = (
        _taps(window, axis, unit[axis], int(given.shape[axis + 1])) for axis in (0, 1)
    )
    for row, their_row in zip(rows, their_rows):
        for column, their_column in zip(columns, their_columns):
            patch[:, row, column] = given[:, their_row, their_column]
    return patch


def _taps(window: Window, axis: int, unit: int, size: int) -> tuple[list[int], list[int]]:
    """Which places of the kernel lie within the input, and where."""
    start = unit * window.stride[axis] - window.padding[axis]
    places = [(tap, start + tap * window.dilation[axis]) for tap in range(window.kernel_size[axis])]
    within = [(tap, place) for tap, place in places if 0 <= place < size]
    return [tap for tap, _ in within], [place for _, place in within]


def _rows(values: Tensor) -> list[list[float | None]]:
    """Rows of numbers, None for padding that has none."""
    return [[None if value != value else short(value) for value in row] for row in values.tolist()]  # noqa: PLR0124
