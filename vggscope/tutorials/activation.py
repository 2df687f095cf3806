"""`explain relu`: ReLU and the sigmoid."""

from __future__ import annotations

from math import exp

from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial

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
class FunctionValues:
    """Both functions at several inputs."""

    values: tuple[Value, ...]


def relu(x: float) -> float:
    """max(0, x)."""
    return max(0.0, x)


def sigmoid(x: float) -> float:
    """1/(1+exp(-x)), written so that exp never overflows.

    >>> sigmoid(0.0), round(sigmoid(2.0) + sigmoid(-2.0), 12)
    (0.5, 1.0)
    """
    return 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))


def value(x: float) -> Value:
    """Both functions at x. ReLU's slope at 0 is 0, as in torch. The sigmoid's is s(x)(1-s(x)) = s(x)s(-x)."""
    return Value(x, relu(x), float(x > 0), sigmoid(x), sigmoid(x) * sigmoid(-x))


def explain() -> Tutorial:
    """Both functions at the same inputs, with their ranges and slopes."""
    values = tuple(map(value, INPUTS))
    return tutorial(
        "relu",
        "activation: ReLU and the sigmoid",
        FunctionValues(values),
        text("ReLU(x) = max(0, x) keeps every positive value and sets all others to 0."),
        text("sigmoid(x) = 1/(1+exp(-x)) maps every value into the range from 0 to 1."),
        listing(
            ("x", "ReLU(x)", "ReLU's slope", "sigmoid(x)", "sigmoid's slope"),
            tuple((v.x, v.relu, v.relu_slope, v.sigmoid, v.sigmoid_slope) for v in values),
        ),
        facts(
            {
                "range of ReLU": "[0, infinity): every x <= 0 gives 0",
                "range of sigmoid": "(0, 1), both ends excluded: exp(-x) is never 0. In float32 the result rounds to"
                " exactly 1 from x = 18 on, and to exactly 0 far below 0",
                "slopes": "ReLU's is 1 wherever x > 0; the sigmoid's is s(x)(1-s(x)), at most 0.25 (at x = 0), so each"
                " sigmoid shrinks a gradient to a quarter or less",
                "parameters": "none; the output has the shape of the input",
                "memory": "nn.ReLU(inplace=True) overwrites its input: backward only needs to know which outputs are"
                " positive",
                "in the paper": "ReLU after every convolution and every FC layer but the last",
            }
        ),
        code(SOURCE, tuple((v.relu, v.sigmoid) for v in values)),
    )


SOURCE = f"""\
import torch

x = torch.tensor({list(INPUTS)})
y = torch.stack([torch.relu(x), torch.sigmoid(x)], dim=1)
print(y)
"""
