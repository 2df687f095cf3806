"""`explain init`: the standard deviation of the first weights, and what it does to the signal."""

from __future__ import annotations

from math import sqrt

from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial

COLUMN, STD = "D", 0.01


@record
class InitialisedLayer:
    """A layer with weights: the inputs of each output, He's standard deviation, and the factor by which the mean
    square of the signal changes with weights of standard deviation 0.01.
    """

    label: str
    fan_in: int
    he_std: float
    factor: float


@record
class Initialisation:
    """The layers of a column, and the product of the factors over all of them."""

    model: str
    layers: tuple[InitialisedLayer, ...]
    product: float


def factor(fan_in: int, std: float) -> float:
    """The factor on the mean square of the signal of a layer after a ReLU: fan_in * std^2 / 2 (He et al. 2015, 2.2).

    >>> factor(128, 0.125)
    1.0
    """
    return fan_in * std**2 / 2


def explain() -> Tutorial:
    """He's standard deviation for each layer of column D, and the signal with the paper's 0.01 throughout."""
    network = resolve(COLUMN)
    layers: list[InitialisedLayer] = []
    product = 1.0
    for node in network.nodes:
        if node.op.is_weight_layer:
            _, *sizes = node.parameters[0].shape
            fan_in = 1
            for size in sizes:
                fan_in *= size
            no_relu_before = 1 if layers else 2
            own = no_relu_before * factor(fan_in, STD)
            layers.append(InitialisedLayer(node.label, fan_in, sqrt(2 / fan_in), own))
            product *= layers[-1].factor
    data = Initialisation(COLUMN, tuple(layers), product)
    first, widest = layers[0], max(layers, key=lambda layer: layer.fan_in)
    return tutorial(
        "init",
        f"initialisation: the first weights of column {COLUMN}",
        data,
        text(
            "A weight layer after a ReLU multiplies the mean square of the signal by fan_in * std^2 / 2; the first one,"
            " which reads the image, by twice that. Max pooling is left out:"
        ),
        listing(
            ("layer", "fan_in", "He's std, sqrt(2/fan_in)", f"factor with std {STD}"),
            tuple((layer.label, layer.fan_in, layer.he_std, layer.factor) for layer in layers),
        ),
        facts(
            {
                "fan_in": f"the inputs of one output: 3 x 3 x 3 = {first.fan_in} for {first.label}",
                "He": "std sqrt(2/fan_in) makes each factor 1, the first 2: torch's kaiming_normal_ with"
                " nonlinearity='relu'",
                f"std {STD}": f"the factors multiply to {product:.1e}: the signal all but vanishes. Only {widest.label}"
                f", with {widest.fan_in:,} inputs, has a factor above 1",
                "in the paper": "A is trained first from N(0, 0.01), and gives its first four convolutions and its FC"
                " layers to the deeper ones (section 3.1)",
                "in torchvision": "kaiming_normal_ with mode='fan_out' for convolutions, N(0, 0.01) for FC layers",
            }
        ),
        code(SOURCE, (first.he_std, widest.he_std)),
    )


SOURCE = """\
import torch
from torch import nn

torch.set_default_device("meta")
layers = nn.Conv2d(3, 64, 3), nn.Linear(25088, 4096)
torch.set_default_device(None)
fans = [layer.weight[0].numel() for layer in layers]
y = [nn.init.calculate_gain("relu") / fan**0.5 for fan in fans]
print(y)
"""
