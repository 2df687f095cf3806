"""`explain parameters`: the weights and biases of each layer as a product of its sizes."""

from __future__ import annotations

from vggscope.graph import Network
from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial
from vggscope.units import bytes_text, count_text, percent_text

COLUMN = "D"


@record
class ParameterSum:
    """A layer's parameters, and the sum of products that gives them."""

    label: str
    terms: str
    params: int


@record
class ParameterCount:
    """The layers with parameters, and the number of all parameters; None if that is unknown."""

    model: str
    layers: tuple[ParameterSum, ...]
    params: int | None


def explain(network: Network | None = None) -> Tutorial:
    """The parameters of each layer of column D, or of `network`."""
    described = network or resolve(COLUMN)
    seen: set[str] = set()
    layers = []
    for node in described.nodes:
        own = [parameter for parameter in node.parameters if parameter.name not in seen]
        seen.update(parameter.name for parameter in own)
        if own:
            terms = " + ".join(" x ".join(map(str, p.shape)) or "1" for p in own)
            layers.append(ParameterSum(node.label or node.name, terms, sum(numel(p.shape) for p in own)))
    total = described.parameter_count
    data = ParameterCount(described.name, tuple(layers), total)
    largest = max(layers, key=lambda layer: layer.params, default=None)
    items = {} if total is None else {"together": f"{count_text(total)}, {bytes_text(4 * total)} in float32"}
    if largest is not None and total:
        items["largest"] = f"{largest.label} has {percent_text(largest.params, total)} of them"
    return tutorial(
        "parameters",
        f"parameters: the weights and biases of {described.name}",
        data,
        text("A convolution has out x in x height x width weights and a bias for each output channel:"),
        listing(("layer", "weights + biases", "parameters"), tuple((s.label, s.terms, s.params) for s in layers)),
        facts(
            {
                **items,
                "convolution": "their number does not depend on the size of the image, since each position uses the"
                " same weights",
                "fully connected": "its weights are one for each pair of input and output: the first one reads the"
                " whole feature map",
                "none": "ReLU, pooling, dropout and flatten",
                "buffers": "tensors that are saved and not trained, such as the running mean of a batch norm, are no"
                " parameters",
            }
        ),
        code(SOURCE, (1792, 102764544)),
    )


SOURCE = """\
import torch
from torch import nn

torch.set_default_device("meta")
layers = nn.Conv2d(3, 64, 3), nn.Linear(25088, 4096)
torch.set_default_device(None)
y = [sum(p.numel() for p in layer.parameters()) for layer in layers]
print(y)
"""
