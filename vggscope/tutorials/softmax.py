"""`explain softmax`: logits to probabilities."""

from __future__ import annotations

from math import exp, log

from vggscope.document import Facts
from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, code, listing, tutorial

LOGITS = (2.0, 1.0, -1.0)
TARGET = 0


@record
class Probabilities:
    """Logits, their exponentials and probabilities; the loss of one class, with the soft-max once and twice."""

    logits: tuple[float, ...]
    exponentials: tuple[float, ...]
    probabilities: tuple[float, ...]
    target: int
    loss: float
    loss_of_probabilities: float


def softmax(logits: tuple[float, ...]) -> tuple[float, ...]:
    """exp(x) over its sum, the largest logit taken off first so that nothing overflows.

    >>> softmax((0.0, 0.0))
    (0.5, 0.5)
    >>> sum(softmax((1000.0, 999.0)))
    1.0
    """
    top = max(logits)
    powers = [exp(x - top) for x in logits]
    return tuple(power / sum(powers) for power in powers)


def explain() -> Tutorial:
    """The soft-max of three logits, the loss, and what happens where it is taken twice."""
    probabilities = softmax(LOGITS)
    exponentials = tuple(map(exp, LOGITS))
    loss, twice = -log(probabilities[TARGET]), -log(softmax(probabilities)[TARGET])
    found = Probabilities(LOGITS, exponentials, probabilities, TARGET, loss, twice)
    total = sum(exponentials)
    rows = tuple(
        (place, x, power, f"{power:.4f}/{total:.4f}", p)
        for place, (x, power, p) in enumerate(zip(LOGITS, exponentials, probabilities))
    )
    return tutorial(
        "softmax",
        "soft-max: logits become probabilities, exp(x) over the sum of all exp(x)",
        found,
        listing(("class", "logit", "exp(logit)", "over the sum", "probability"), rows),
        Facts(
            (
                ("sum", f"{sum(probabilities):.4f}: each is above 0 and together they are 1"),
                ("order", "stays: the class with the largest logit has the largest probability"),
                (
                    "shift",
                    "adding the same number to all logits changes nothing; taking off the largest avoids overflow",
                ),
                ("loss", f"-log of the true class's probability: class {TARGET} gives {loss:.4f}"),
                (
                    "twice",
                    "torch's cross_entropy takes logits and has the soft-max in it; fed with probabilities it gives"
                    f" {twice:.4f}, cannot go below {_floor(len(LOGITS)):.4f}, and learns slowly without an error",
                ),
                ("in the paper", "the last word of each column; torchvision's modules end at the logits"),
            )
        ),
        code(_code(), (*probabilities, loss)),
    )


def _floor(classes: int) -> float:
    """The least loss where probabilities are taken for logits: one class has 1, the others 0."""
    return -log(softmax((1.0, *(0.0,) * (classes - 1)))[0])


def _code() -> str:
    return f"""\
import torch
import torch.nn.functional as F

x = torch.tensor({list(LOGITS)})
loss = F.cross_entropy(x[None], torch.tensor([{TARGET}]))
y = torch.cat([torch.softmax(x, dim=0), loss[None]])
print(y)
"""
