"""`explain lrn`: local response normalisation across channels."""

from __future__ import annotations

from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, code, facts, sums, text, tutorial
from vggscope.units import count_text
from vggscope.vgg.network import LRN

ACTIVATIONS = (10, 200, 30, 0, 50, 100, 20)
"""The values of one pixel in seven channels."""


@record
class Constants:
    """The constants of the formula. `alpha` multiplies the sum of the squares; `torch_alpha`, as in
    torch.nn.LocalResponseNorm, their mean over n channels.
    """

    k: float
    n: int
    alpha: float
    beta: float
    torch_alpha: float


@record
class Normalised:
    """One pixel before and after LRN, channel by channel, and the parameters of columns A and A-LRN."""

    constants: Constants
    input: tuple[int, ...]
    squares: tuple[int, ...]
    output: tuple[float, ...]
    params_a: int
    params_a_lrn: int


def explain() -> Tutorial:
    """Each channel divided by the power of its neighbours, with the paper's constants, and the same in torch."""
    c = Constants(LRN.k, LRN.size, LRN.alpha / LRN.size, LRN.beta, LRN.alpha)
    reach = c.n // 2
    channels = range(len(ACTIVATIONS))
    neighbours = [ACTIVATIONS[max(channel - reach, 0) : channel + reach + 1] for channel in channels]
    squares = tuple(sum(a * a for a in values) for values in neighbours)
    output = tuple(a / (c.k + c.alpha * square) ** c.beta for a, square in zip(ACTIVATIONS, squares))
    data = Normalised(c, ACTIVATIONS, squares, output, _params("A"), _params("A-LRN"))
    sums_of_squares = ("+".join(f"{value}^2" for value in values) for values in neighbours)
    lines = tuple(
        (f"y[{channel}]", f"{a}/({c.k:g} + {c.alpha:g}*({terms}))^{c.beta:g}", y)
        for channel, (a, terms, y) in enumerate(zip(ACTIVATIONS, sums_of_squares, output))
    )
    return tutorial(
        "lrn",
        "local response normalisation: a channel divided by its neighbours' strength",
        data,
        text("y[c] = x[c] / (k + alpha * sum of x[j]^2)^beta, the sum over the n channels around c, all at one pixel."),
        text(
            f"k = {c.k:g}, n = {c.n}, alpha = {c.alpha:g}, beta = {c.beta:g}"
            f" (Krizhevsky et al. 2012, which the paper follows). One pixel in {len(ACTIVATIONS)} channels:"
        ),
        sums(lines),
        facts(_facts(data)),
        code(_source(c), output),
    )


def _facts(data: Normalised) -> dict[str, str]:
    c = data.constants
    same = "the same" if data.params_a == data.params_a_lrn else "not the same"
    return {
        "torch's alpha": "torch.nn.LocalResponseNorm takes the mean of the squares, the formula their sum. So torch"
        f" needs an alpha n times as large: {c.n} * {c.alpha:g} = {c.torch_alpha:g}. Its defaults, alpha = 1e-4 and k"
        " = 1, compute another function",
        "at the ends": "channels beyond the first and the last count as 0; torch's mean still divides by n",
        "parameters": f"none: A has {count_text(data.params_a)}, A-LRN {count_text(data.params_a_lrn)}, {same}",
        "in the paper": "only A-LRN has it, after conv1_1; it did not lower the error, so B to E go without",
    }


def _params(column: str) -> int:
    return sum(numel(parameter.shape) for parameter in resolve(column).parameters())


def _source(c: Constants) -> str:
    return f"""\
import torch

x = torch.tensor({list(ACTIVATIONS)}, dtype=torch.float32)
lrn = torch.nn.LocalResponseNorm({c.n}, alpha={c.torch_alpha:g}, beta={c.beta:g}, k={c.k:g})
y = lrn(x.reshape(1, -1, 1, 1)).flatten()
print(y)
"""
