"""`explain flops`: the multiply-accumulates of each layer as a product of its sizes."""

from __future__ import annotations

from vggscope.analysis.cost import costs, known_sum
from vggscope.graph import Network
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial
from vggscope.units import count_text, percent_text, short_count

COLUMN = "D"


@record
class CountedLayer:
    """A layer with weights: its multiply-accumulates, and the product that gives them."""

    label: str
    product: str
    macs: int | None


@record
class CountedNetwork:
    """The layers with weights, and the sum over all layers; None if one is unknown."""

    model: str
    layers: tuple[CountedLayer, ...]
    macs: int | None
    flops: int | None


def explain(network: Network | None = None) -> Tutorial:
    """The MACs of each layer with weights of column D, or of `network`."""
    described = network or resolve(COLUMN)
    cost = costs(described)
    layers = []
    for node in described.nodes:
        if node.op.is_weight_layer:
            outputs, weight = described.output_shape(node)[1:], node.parameters[0].shape
            positions = outputs[1:] if node.op.is_convolution else outputs[:-1]
            product = " x ".join(map(str, (*positions, *weight)))
            layers.append(CountedLayer(node.label or node.name, product, cost[node.name].macs))
    macs = known_sum(each.macs for each in cost.values())
    data = CountedNetwork(described.name, tuple(layers), macs, None if macs is None else 2 * macs)
    return tutorial(
        "flops",
        f"FLOPs: the multiply-accumulates of {described.name}",
        data,
        text("A convolution multiplies its whole kernel at each position: height x width x out x in x kernel."),
        listing(
            ("layer", "positions x weights", "MACs", "share"),
            tuple((layer.label, layer.product, layer.macs, _share(layer.macs, macs)) for layer in layers),
        ),
        facts(
            {
                "MACs": "not known" if macs is None else f"{count_text(macs)}, {short_count(macs, 'MACs')}, one image",
                "a MAC": "one product added to a sum, w*x + s; the bias is left out",
                "FLOPs": "2 x MACs, as torch's own counter says: a product and an addition",
                "grow with": "the number of positions: twice the side of the input costs four times as much in the"
                " convolutions, and parameters stay the same",
                "not counted": "ReLU, pooling and bias; vggscope summary D --count all adds them",
            }
        ),
        code(SOURCE, (2 * 224 * 224 * 64 * 27, 2 * 4096 * 25088)),
    )


def _share(part: int | None, whole: int | None) -> str:
    return percent_text(part, whole) if part is not None and whole else "?"


SOURCE = """\
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

def flops(function, *shapes, **options):
    tensors = [torch.empty(shape, device="meta") for shape in shapes]
    with FlopCounterMode(display=False) as counter:
        function(*tensors, **options)
    return counter.get_total_flops()

y = [
    flops(F.conv2d, (1, 3, 224, 224), (64, 3, 3, 3), padding=1),
    flops(F.linear, (1, 25088), (4096, 25088)),
]
print(y)
"""
