"""`explain relu`: ReLU, and the sigmoid beside it."""

from __future__ import annotations

from math import exp

from vggscope.document import Facts
from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, code, listing, text, tutorial

INPUTS = (-100.0, -5.0, -2.0, -1.0, 0.0, 1.0, 2.0, 5.0, 100.0)


@record
class Value:
    """Both functions and their slopes at one input."""

    x: float
    relu: float
    relu_slope: float
    sigmoid: float
    sigmoid_slope: float


@record
class Activations:
    """Both functions at some inputs."""

    values: tuple[Value, ...]


def relu(x: float) -> float:
    """max(0, x)."""
    return max(0.0, x)


def sigmoid(x: float) -> float:
    """1/(1+exp(-x)), written so that exp is never of a large number.

    >>> sigmoid(0.0), round(sigmoid(2.0) + sigmoid(-2.0), 12)
    (0.5, 1.0)
    """
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


def value(x: float) -> Value:
    """Both at x; torch takes ReLU's slope at 0 to be 0. The sigmoid's is s(x) s(-x), which is s(x)(1-s(x))."""
    return Value(x, relu(x), float(x > 0), sigmoid(x), sigmoid(x) * sigmoid(-x))


def explain() -> Tutorial:
    """Both functions at the same inputs, their ranges and slopes."""
    found = Activations(tuple(map(value, INPUTS)))
    return tutorial(
        "relu",
        "activation: ReLU and the sigmoid",
        found,
        text("ReLU(x) = max(0, x) leaves what is positive and cuts off the rest, value by value."),
        text("sigmoid(x) = 1/(1+exp(-x)) squeezes every value between 0 and 1."),
        listing(
            ("x", "ReLU(x)", "ReLU's slope", "sigmoid(x)", "sigmoid's slope"),
            tuple((v.x, v.relu, v.relu_slope, v.sigmoid, v.sigmoid_slope) for v in found.values),
        ),
        Facts(
            (
                ("range of ReLU", "[0, infinity): 0 is taken by every x <= 0"),
                (
                    "range of sigmoid",
                    "(0, 1), both ends excluded: exp(-x) is never 0. On a computer it rounds: from x = 18 on"
                    " float32 gives exactly 1, and far below 0 exactly 0",
                ),
                (
                    "slopes",
                    "ReLU's is 1 wherever x > 0; the sigmoid's is s(x)(1-s(x)), at most 0.25 at x = 0, so that a"
                    " gradient shrinks at least to a quarter at each sigmoid that it passes",
                ),
                ("parameters", "none; the shape stays"),
                (
                    "memory",
                    "nn.ReLU(inplace=True) overwrites its input: backward needs only which outputs are positive",
                ),
                ("in the paper", "ReLU behind every convolution and every FC layer but the last"),
            )
        ),
        code(_code(), tuple((v.relu, v.sigmoid) for v in found.values)),
    )


def _code() -> str:
    return f"""\
import torch

x = torch.tensor({list(INPUTS)})
y = torch.stack([torch.relu(x), torch.sigmoid(x)], dim=1)
print(y)
"""
