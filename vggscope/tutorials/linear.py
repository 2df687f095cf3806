"""`explain linear`: <w, x> + b."""

from __future__ import annotations

from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Rows, Tutorial, code, facts, listing, sums, text, tutorial
from vggscope.units import percent_text

X = (2, -1, 3)
WEIGHT: Rows = ((1, 0, -1), (2, 1, 1))
BIAS = (4, -2)


@record
class FullyConnected:
    """An FC layer of column D: its features in and out, its parameters, and those of the whole network."""

    label: str
    in_features: int
    out_features: int
    params: int
    network_params: int


@record
class Products:
    """A linear layer with three inputs and two outputs, and the FC layers of column D."""

    input: tuple[int, ...]
    weight: Rows
    bias: tuple[int, ...]
    output: tuple[int, ...]
    layers: tuple[FullyConnected, ...]


def explain() -> Tutorial:
    """Each output as an inner product, and the parameters of the FC layers of column D."""
    output = tuple(int(sum(w * x for w, x in zip(row, X))) + b for row, b in zip(WEIGHT, BIAS))
    layers = _layers()
    lines = tuple(
        (f"y[{place}]", "+".join(f"({w})({x})" for w, x in zip(row, X)) + f" + ({b})", y)
        for place, (row, b, y) in enumerate(zip(WEIGHT, BIAS, output))
    )
    return tutorial(
        "linear",
        "linear: every output is an inner product of all inputs, <w, x> + b",
        Products(X, WEIGHT, BIAS, output, layers),
        text(f"x = {list(X)}; each row of the weights gives one output, with its own bias:"),
        sums(lines),
        text("It has in x out weights, as many MACs, and one bias for each output. In the paper's column D:"),
        listing(
            ("layer", "in", "out", "in x out + out parameters", "share of the column"),
            tuple(
                (fc.label, fc.in_features, fc.out_features, fc.params, percent_text(fc.params, fc.network_params))
                for fc in layers
            ),
        ),
        facts(
            {
                "fc6 reads": "512 channels of 7x7, which nn.Flatten joins channel by channel: 25,088 numbers",
                "so": "the input size is fixed; `vggscope explain dense` shows how to lift that",
            }
        ),
        code(SOURCE, output),
    )


def _layers() -> tuple[FullyConnected, ...]:
    network = resolve("D")
    total = sum(numel(parameter.shape) for parameter in network.parameters())
    return tuple(
        FullyConnected(
            node.label,
            network.input_shapes(node)[0][-1],
            network.output_shape(node)[-1],
            sum(numel(parameter.shape) for parameter in node.parameters),
            total,
        )
        for node in network.nodes
        if node.op.family == "linear"
    )


SOURCE = f"""\
import torch
import torch.nn.functional as F

x = torch.tensor({list(X)}, dtype=torch.float32)
w = torch.tensor({[list(row) for row in WEIGHT]}, dtype=torch.float32)  # out x in
b = torch.tensor({list(BIAS)}, dtype=torch.float32)
y = F.linear(x, w, b)
print(y)
"""
