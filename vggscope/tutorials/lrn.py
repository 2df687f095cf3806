"""`explain lrn`: local response normalisation across channels."""

from __future__ import annotations

from vggscope.document import Facts
from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, code, sums, text, tutorial
from vggscope.units import count_text
from vggscope.vgg.network import LRN

ACTIVATIONS = (10, 200, 30, 0, 50, 100, 20)
"""One pixel's value in seven channels."""


@record
class Constants:
    """`alpha` multiplies the sum of squares, `torch_alpha` their mean over n, as torch.nn.LocalResponseNorm has it."""

    k: float
    n: int
    alpha: float
    beta: float
    torch_alpha: float


@record
class Normalised:
    """One pixel before and after, channel by channel, and the parameters of A with and without LRN."""

    constants: Constants
    input: tuple[int, ...]
    squares: tuple[int, ...]
    output: tuple[float, ...]
    params_a: int
    params_a_lrn: int


def explain() -> Tutorial:
    """Each channel divided by its neighbours' power, with the paper's constants, and how torch writes them."""
    constants = Constants(LRN.k, LRN.size, LRN.alpha / LRN.size, LRN.beta, LRN.alpha)
    reach = constants.n // 2
    near = [list(ACTIVATIONS[max(channel - reach, 0) : channel + reach + 1]) for channel in range(len(ACTIVATIONS))]
    squares = tuple(sum(a * a for a in values) for values in near)
    output = tuple(
        a / (constants.k + constants.alpha * square) ** constants.beta for a, square in zip(ACTIVATIONS, squares)
    )
    found = Normalised(constants, ACTIVATIONS, squares, output, _params("A"), _params("A-LRN"))
    return tutorial(
        "lrn",
        "local response normalisation: a channel divided by what its neighbours hold",
        found,
        text("y[c] = x[c] / (k + alpha * sum of x[j]^2)^beta, the sum over the n channels around c, all at one pixel."),
        text(
            f"k = {constants.k:g}, n = {constants.n}, alpha = {constants.alpha:g}, beta = {constants.beta:g}"
            f" (Krizhevsky et al. 2012, which the paper follows). One pixel in {len(ACTIVATIONS)} channels:"
        ),
        sums(_lines(found, near)),
        Facts(_figures(found)),
        code(_code(constants), output),
    )


def _lines(found: Normalised, near: list[list[int]]) -> tuple[tuple[str, str, float], ...]:
    c = found.constants
    return tuple(
        (
            f"y[{channel}]",
            f"{a}/({c.k:g} + {c.alpha:g}*({'+'.join(f'{value}^2' for value in near[channel])}))^{c.beta:g}",
            found.output[channel],
        )
        for channel, a in enumerate(found.input)
    )


def _figures(found: Normalised) -> tuple[tuple[str, str], ...]:
    c = found.constants
    same = "the same" if found.params_a == found.params_a_lrn else "not the same"
    return (
        (
            "torch's alpha",
            f"torch.nn.LocalResponseNorm takes the mean of the squares where the formula takes their sum: for the same"
            f" function its alpha is n times as large, {c.n} * {c.alpha:g} = {c.torch_alpha:g}; its default of 1e-4,"
            " with k = 1, is another function",
        ),
        ("at the ends", "channels that are not there count as 0; the mean still divides by n"),
        (
            "parameters",
            f"none: A has {count_text(found.params_a)}, A-LRN {count_text(found.params_a_lrn)}, {same}",
        ),
        ("in the paper", "A-LRN alone has it, behind conv1_1; it did not lower the error, and B to E go without"),
    )


def _params(column: str) -> int:
    return sum(numel(parameter.shape) for parameter in resolve(column).parameters())


def _code(c: Constants) -> str:
    return f"""\
import torch

x = torch.tensor({list(ACTIVATIONS)}, dtype=torch.float32)
lrn = torch.nn.LocalResponseNorm({c.n}, alpha={c.torch_alpha:g}, beta={c.beta:g}, k={c.k:g})
y = lrn(x.reshape(1, -1, 1, 1)).flatten()
print(y)
"""
