"""`explain dense`: fully connected layers as convolutions (the paper, section 3.2)."""

from __future__ import annotations

from vggscope.analysis.cost import costs, total_macs
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial
from vggscope.units import count_text, kernel_text, shape_text, short_count
from vggscope.vgg.options import BuildOptions

SIDES = (224, 256, 384, 512)
"""The sides of the square images for which score maps are shown; the paper tests at 256, 384 and 512 among others."""


@record
class Rewritten:
    """An FC layer in both forms: the weight's shape as a Linear and as a Conv2d. The values are the same."""

    label: str
    linear_weight: Shape
    convolution_weight: Shape
    params: int


@record
class ScoreMap:
    """The dense network's output for an image of this side, and its MACs. `macs_of_crops` are those of running each
    position as a separate crop.
    """

    side: int
    output_shape: Shape
    positions: int
    macs: int | None
    macs_of_crops: int | None


@record
class DenseHead:
    """Column D's three FC layers as convolutions, and the score maps that they give."""

    layers: tuple[Rewritten, ...]
    maps: tuple[ScoreMap, ...]


def explain() -> Tutorial:
    """The weights of each FC layer in both forms, and the score maps of larger images with their costs."""
    data = DenseHead(_layers(), tuple(map(_map, SIDES)))
    return tutorial(
        "dense",
        "dense: the FC layers of column D as convolutions",
        data,
        text(
            "fc6 multiplies each value of a 512x7x7 map by its own weight. A 7x7 convolution without padding does the"
            " same at its only position. Its output is one pixel, so fc7 and fc8 become 1x1 convolutions."
        ),
        listing(
            ("layer", "as Linear", "as Conv2d", "weights and biases, either way"),
            tuple(
                (layer.label, kernel_text(layer.linear_weight), kernel_text(layer.convolution_weight), layer.params)
                for layer in data.layers
            ),
        ),
        text("The input size is no longer fixed. A larger image gives a map of scores, one for each crop:"),
        listing(
            ("image", "scores", "positions", "MACs", "crop by crop"),
            tuple(map(_score_row, data.maps)),
        ),
        facts(_facts(data)),
        code(SOURCE, True),
    )


def _score_row(m: ScoreMap) -> tuple[str, str, int, str, str]:
    macs, of_crops = short_count(m.macs), short_count(m.macs_of_crops)
    return f"{m.side}x{m.side}", shape_text(m.output_shape), m.positions, macs, of_crops


def _facts(data: DenseHead) -> dict[str, str]:
    total = sum(layer.params for layer in data.layers)
    last = data.maps[-1]
    ratio = f"{last.macs_of_crops / last.macs:.1f}" if last.macs and last.macs_of_crops else "?"
    return {
        "parameters": f"{count_text(total)} in the three layers, either way; only the shape of the weights changes",
        "saved": f"at {last.side}x{last.side}, separate crops would take {ratio} times as many MACs: they repeat the"
        " convolutions where they overlap",
        "then": "the mean over all positions is the image's score, and soft-max turns scores into probabilities",
        "not the same": "as the adaptive pool in torchvision's head, which shrinks a larger map to 7x7 before fc6: the"
        " two agree only where the map is 7x7 already",
        "to see it": "vggscope summary D --head dense --input 3x384x384",
    }


def _layers() -> tuple[Rewritten, ...]:
    flat, dense = resolve("D", BuildOptions(head="flatten")), resolve("D", BuildOptions(head="dense"))
    by_label = {node.label: node.parameters for node in dense.nodes}
    linear = {node.label: node.parameters[0].shape for node in flat.nodes if node.op.family == "linear"}
    return tuple(
        Rewritten(label, shape, by_label[label][0].shape, sum(numel(p.shape) for p in by_label[label]))
        for label, shape in linear.items()
    )


def _map(side: int) -> ScoreMap:
    network = resolve("D", BuildOptions(head="dense", input=(3, side, side)))
    output = network.shapes[network.end]
    positions = numel(output[2:])
    macs, crop = (total_macs(costs(n)) for n in (network, resolve("D", BuildOptions(head="dense"))))
    return ScoreMap(side, output, positions, macs, None if crop is None else crop * positions)


SOURCE = """\
import torch
from torch import nn

fc = nn.Linear(8 * 7 * 7, 5)
conv = nn.Conv2d(8, 5, kernel_size=7)
with torch.no_grad():
    # Flatten joins channels, rows and columns in this order
    conv.weight.copy_(fc.weight.view(5, 8, 7, 7))
    conv.bias.copy_(fc.bias)
x = torch.rand(1, 8, 7, 7)
y = torch.allclose(conv(x).flatten(1), fc(x.flatten(1)), atol=1e-5)
print(y, conv(torch.rand(1, 8, 12, 12)).shape)
"""
