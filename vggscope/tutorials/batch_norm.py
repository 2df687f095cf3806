"""`explain batchnorm`: the values of one channel, normalised over the batch."""

from __future__ import annotations

from math import sqrt

from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial

X = (1.0, 3.0, 5.0, 11.0)
WEIGHT, BIAS = 2.0, 1.0
EPS, MOMENTUM = 1e-5, 0.1


@record
class NormalisedChannel:
    """One channel over a batch: mean and variance, the outputs, and the running statistics after this step."""

    input: tuple[float, ...]
    weight: float
    bias: float
    mean: float
    variance: float
    training: tuple[float, ...]
    running_mean: float
    running_variance: float
    evaluation: tuple[float, ...]


def normalised(values: tuple[float, ...], mean: float, variance: float) -> tuple[float, ...]:
    """(x - mean) / sqrt(variance + eps) * weight + bias (Ioffe and Szegedy 2015).

    >>> normalised((3.0,), 3.0, 1.0)
    (1.0,)
    """
    return tuple((x - mean) / sqrt(variance + EPS) * WEIGHT + BIAS for x in values)


def explain() -> Tutorial:
    """Four values of a channel in training and at evaluation, after one step from the initial statistics."""
    count = len(X)
    mean = sum(X) / count
    squares = sum((x - mean) ** 2 for x in X)
    running_mean = MOMENTUM * mean
    running_variance = (1 - MOMENTUM) + MOMENTUM * squares / (count - 1)
    training, evaluation = normalised(X, mean, squares / count), normalised(X, running_mean, running_variance)
    data = NormalisedChannel(
        X, WEIGHT, BIAS, mean, squares / count, training, running_mean, running_variance, evaluation
    )
    return tutorial(
        "batchnorm",
        "batch norm: subtract the mean, divide by the standard deviation, scale and shift",
        data,
        text(f"One channel of a batch of {count}, weight {WEIGHT:g}, bias {BIAS:g}:"),
        listing(("x", "in training", "at evaluation"), tuple(zip(X, training, evaluation))),
        facts(
            {
                "mean": f"({' + '.join(f'{x:g}' for x in X)}) / {count} = {mean:g}",
                "variance": f"the mean of the squared distances, {squares:g} / {count} = {squares / count:g}",
                "in training": "mean and variance are those of the batch, over its images and all positions",
                "running mean": f"0.9 * 0 + 0.1 * {mean:g} = {running_mean:g}",
                "running variance": f"0.9 * 1 + 0.1 * {squares:g} / {count - 1} = {running_variance:.4f}: here divided"
                " by one less",
                "at evaluation": "the running statistics stand in for those of the batch: model.eval()",
                "parameters": "2 per channel, weight and bias; 2 more values per channel are buffers",
                "conv bias": "a convolution before it needs none, since the mean is subtracted; torchvision keeps it",
                "in the paper": "it is older than batch norm; torchvision's vgg16_bn has one after each convolution",
            }
        ),
        code(SOURCE, (*training, running_mean, running_variance, *evaluation)),
    )


SOURCE = f"""\
import torch
import torch.nn.functional as F

x = torch.tensor({list(X)})[:, None]
mean, variance = torch.zeros(1), torch.ones(1)
scale = torch.tensor([{WEIGHT}]), torch.tensor([{BIAS}])
trained = F.batch_norm(x, mean, variance, *scale, training=True)
evaluated = F.batch_norm(x, mean, variance, *scale)
y = torch.cat([trained[:, 0], mean, variance, evaluated[:, 0]])
print(y)
"""
