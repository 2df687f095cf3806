"""`explain dropout`: random zeros in training, nothing at evaluation."""

from __future__ import annotations

from itertools import product

from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial

X = (1.0, 2.0, 3.0, 4.0)
MASK = (1, 0, 1, 1)
P = 0.5


@record
class Dropped:
    """Values with one mask of dropout, at evaluation, and the mean over all masks."""

    p: float
    input: tuple[float, ...]
    mask: tuple[int, ...]
    training: tuple[float, ...]
    evaluation: tuple[float, ...]
    mean_of_all_masks: tuple[float, ...]


def dropped(values: tuple[float, ...], mask: tuple[int, ...], p: float) -> tuple[float, ...]:
    """The values that the mask keeps, divided by 1 - p.

    >>> dropped((1.0, 2.0), (1, 0), 0.5)
    (2.0, 0.0)
    """
    return tuple(value * kept / (1 - p) for value, kept in zip(values, mask))


def explain() -> Tutorial:
    """Four values under one mask, and the mean over all masks, each with its probability."""
    masks = tuple(product((0, 1), repeat=len(X)))
    chances = [P ** mask.count(0) * (1 - P) ** mask.count(1) for mask in masks]
    results = [dropped(X, mask, P) for mask in masks]
    means = tuple(sum(c * result[place] for c, result in zip(chances, results)) for place in range(len(X)))
    data = Dropped(P, X, MASK, dropped(X, MASK, P), X, means)
    rows = tuple(zip(data.input, data.mask, data.training, data.mean_of_all_masks, data.evaluation))
    return tutorial(
        "dropout",
        f"dropout: in training each value is 0 with probability {P}",
        data,
        text("Training multiplies by a random mask and divides by 1 - p; evaluation changes nothing:"),
        listing(("x", "mask", "x * mask / (1-p)", "mean of all masks", "at evaluation"), rows),
        facts(
            {
                "why / (1-p)": f"the mean over all {len(masks)} masks is then x itself, so evaluation needs no factor",
                "parameters": "none",
                "backward": "the gradient gets the same mask; a GPU saves it as one byte per value",
                "mode": "model.eval() switches it off; F.dropout needs training=self.training, or it stays on",
                "in the paper": "after the first two fully connected layers, p = 0.5: drop6 and drop7",
            }
        ),
        code(SOURCE, (data.training, data.evaluation)),
    )


SOURCE = f"""\
import torch
import torch.nn.functional as F

x = torch.tensor({list(X)})
mask = torch.tensor({list(MASK)})
y = torch.stack([x * mask / (1 - {P}), F.dropout(x, {P}, training=False)])
print(y)
"""
