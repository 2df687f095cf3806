"""`explain softmax`: logits to probabilities."""

from __future__ import annotations

from math import exp, log

from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, tutorial

LOGITS = (2.0, 1.0, -1.0)
TARGET = 0


@record
class Probabilities:
    """Logits, their exponentials and probabilities. `loss` is the target class's cross-entropy; that
    `loss_of_probabilities` applies the soft-max twice.
    """

    logits: tuple[float, ...]
    exponentials: tuple[float, ...]
    probabilities: tuple[float, ...]
    target: int
    loss: float
    loss_of_probabilities: float


def softmax(logits: tuple[float, ...]) -> tuple[float, ...]:
    """exp(x) over the sum of all exp(x). Subtracts the largest logit first, so that nothing overflows.

    >>> softmax((0.0, 0.0))
    (0.5, 0.5)
    >>> sum(softmax((1000.0, 999.0)))
    1.0
    """
    top = max(logits)
    powers = [exp(x - top) for x in logits]
    return tuple(power / sum(powers) for power in powers)


def explain() -> Tutorial:
    """The soft-max of three logits, the loss, and the effect of a second soft-max."""
    probabilities = softmax(LOGITS)
    exponentials = tuple(map(exp, LOGITS))
    loss, twice = -log(probabilities[TARGET]), -log(softmax(probabilities)[TARGET])
    total = sum(exponentials)
    rows = tuple(
        (place, x, power, f"{power:.4f}/{total:.4f}", p)
        for place, (x, power, p) in enumerate(zip(LOGITS, exponentials, probabilities))
    )
    return tutorial(
        "softmax",
        "soft-max: logits become probabilities, exp(x) over the sum of all exp(x)",
        Probabilities(LOGITS, exponentials, probabilities, TARGET, loss, twice),
        listing(("class", "logit", "exp(logit)", "over the sum", "probability"), rows),
        facts(
            {
                "sum": f"{sum(probabilities):.4f}: each probability is above 0, and together they are 1",
                "order": "unchanged: the class with the largest logit has the largest probability",
                "shift": "adding the same number to all logits changes nothing; subtracting the largest avoids"
                " overflow",
                "loss": f"-log of the true class's probability: class {TARGET} gives {loss:.4f}",
                "twice": "torch's cross_entropy expects logits and applies the soft-max itself. Given probabilities"
                f" it returns {twice:.4f} here, never less than {_least_loss(len(LOGITS)):.4f}: training is slow, and"
                " no error is raised",
                "in the paper": "the last word of each column; torchvision's modules end at the logits",
            }
        ),
        code(SOURCE, (*probabilities, loss)),
    )


def _least_loss(classes: int) -> float:
    """The least possible loss of probabilities passed as logits: one class has probability 1, the others 0."""
    return -log(softmax((1.0, *(0.0,) * (classes - 1)))[0])


SOURCE = f"""\
import torch
import torch.nn.functional as F

x = torch.tensor({list(LOGITS)})
loss = F.cross_entropy(x[None], torch.tensor([{TARGET}]))
y = torch.cat([torch.softmax(x, dim=0), loss[None]])
print(y)
"""
