"""`explain input`: the order of axes, the channels, and two ways to preprocess pixels."""

from __future__ import annotations

from vggscope.document import Block, Facts, Table
from vggscope.errors import OptionError, option, printable
from vggscope.ops.base import Shape, numel
from vggscope.photo import IMAGENET_MEAN, IMAGENET_STD
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.image_file import CHANNELS, Channel, Pixels, order_of, read
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial
from vggscope.units import count_text, kernel_text
from vggscope.vgg.options import BuildOptions

PAPER_MEAN = (123.68, 116.779, 103.939)
"""The training set's mean RGB, in values of 0 to 255, as the authors published it with their weights."""

NAMES = ("red", "green", "blue")
PIXEL = (200.0, 120.0, 40.0)
"""The pixel shown where no image is given: an orange."""


@record
class Centred:
    """A channel's values, from 0 to 255, and the same after the paper's preprocessing and after torchvision's. An
    image's channel has three values: least, mean and largest.
    """

    channel: str
    raw: tuple[float, ...]
    paper: tuple[float, ...]
    torchvision: tuple[float, ...]


@record
class FirstLayer:
    """conv1_1 of column D for this number of channels."""

    channels: int
    weight: Shape
    params: int


@record
class InputTutorial:
    """The image's file, its shape and the order of its axes, and one preprocessed pixel.

    `order` is empty where no shape is given or its order is unclear. `channels` is empty without an image.
    """

    source: str
    shape: Shape | None
    order: str
    notes: tuple[str, ...]
    channels: tuple[Centred, ...]
    pixel: tuple[Centred, ...]
    first_layers: tuple[FirstLayer, ...]


def explain(image: str | None = None, shape: str | None = None) -> Tutorial:
    """The order of an input's axes, its channels, and the preprocessing of the paper and of torchvision.

    Raises OptionError for an invalid shape and for a file that cannot be read.
    """
    if image is not None and shape is not None:
        raise OptionError(
            f"{option('image')} and {option('shape')} both say what is looked at", "leave one of them out"
        )
    pixels = read(image) if image is not None else None
    sides = pixels.shape if pixels else _parse(shape) if shape else None
    data = InputTutorial(
        source=image or "",
        shape=sides,
        order=pixels.order if pixels else order_of(sides) if sides else "",
        notes=pixels.notes if pixels else (),
        channels=tuple(_channel(*row) for row in zip(NAMES, pixels.channels, range(3))) if pixels else (),
        pixel=tuple(_centred(*row) for row in zip(NAMES, zip(pixels.middle if pixels else PIXEL), range(3))),
        first_layers=tuple(map(_first_layer, CHANNELS)),
    )
    return tutorial("input", "input: C, H, W, and values around 0", data, *_blocks(data, pixels))


def _blocks(data: InputTutorial, pixels: Pixels | None) -> list[Block]:
    blocks: list[Block] = [
        text(
            "torch expects channels, height, width, after the batch dimension: N,C,H,W. Image files, numpy and"
            " matplotlib use H,W,C."
        )
    ]
    if data.shape is not None:
        blocks.append(Facts(_order(data, data.shape)))
    blocks += [
        text("A network is built for a fixed number of channels; conv1_1 of column D would have:"),
        listing(
            ("channels", "such as", "weights", "parameters"),
            tuple(
                (layer.channels, _SUCH_AS[layer.channels], kernel_text(layer.weight), layer.params)
                for layer in data.first_layers
            ),
        ),
    ]
    if pixels is not None:
        blocks += [text("Each channel, least / mean / largest:"), _ranges(data.channels)]
    which = "the image's middle pixel" if pixels else "one pixel"
    blocks += [
        text(
            f"Worked for {which}: the paper subtracts the mean and no more; torchvision first scales to 0..1, then"
            " subtracts a mean and divides by a deviation:"
        ),
        listing(("channel", "value", "the paper", "torchvision"), tuple(map(_worked, data.pixel, range(3)))),
        facts(_MATTERS),
        code(_source(data), tuple(zip(*((c.paper[0], c.torchvision[0]) for c in data.pixel)))),
    ]
    return blocks


_SUCH_AS = {1: "grey", 3: "red, green, blue", 4: "RGB and alpha"}

_MATTERS = {
    "apart by": "a factor of about 255 * 0.226 = 58: to weights trained with one, an image preprocessed for the other"
    " has far too little or far too much contrast",
    "grey": "repeat the channel three times: x.expand(3, -1, -1)",
    "alpha": "is not a colour channel: drop it, x[:3], or blend the image with a background first",
    "Caffe": "the authors' own weights expect blue, green, red: the same means in that order, values 0 to 255",
}


def _order(data: InputTutorial, shape: Shape) -> tuple[tuple[str, str], ...]:
    order = data.order
    named = ",".join(order)
    if not order:
        facts = [("order", "unclear: an axis of 1, 3 or 4 at one end, and only there, would be the channels")]
    elif order == "HW":
        facts = [("order", "H,W: grey, without an axis for channels; x[None] makes C,H,W")]
    elif order.endswith("CHW"):
        facts = [("order", f"{named}: as torch expects it{'' if 'N' in order else ', without the batch: x[None]'}")]
    else:
        axes = "0, 3, 1, 2" if "N" in order else "2, 0, 1"
        height, width, channels = shape[-3:]
        permuted = kernel_text((*shape[:-3], channels, height, width))
        facts = [
            ("order", f"{named}: not torch's; x.permute({axes}) gives {permuted}"),
            ("as it is", f"torch would take its {count_text(height)} rows for channels, and conv1_1 would fail"),
        ]
    return (("array", kernel_text(shape)), *(("note", note) for note in data.notes), *facts)


def _ranges(channels: tuple[Centred, ...]) -> Table:
    rows = tuple(
        (c.channel, *(" / ".join(f"{v:.2f}" for v in values) for values in (c.raw, c.paper, c.torchvision)))
        for c in channels
    )
    return listing(("channel", "0 to 255", "the paper", "torchvision"), rows)


def _worked(c: Centred, place: int) -> tuple[str, float, str, str]:
    return (
        c.channel,
        c.raw[0],
        f"{c.raw[0]:g} - {PAPER_MEAN[place]:g} = {c.paper[0]:.3f}",
        f"({c.raw[0]:g}/255 - {IMAGENET_MEAN[place]:g})/{IMAGENET_STD[place]:g} = {c.torchvision[0]:.3f}",
    )


def _channel(name: str, channel: Channel, place: int) -> Centred:
    return _centred(name, (channel.least, channel.mean, channel.largest), place)


def _centred(name: str, values: tuple[float, ...], place: int) -> Centred:
    """Both preprocessings of values from 0 to 255. Both are linear, so least, mean and largest stay what they are."""
    mean, std = IMAGENET_MEAN[place], IMAGENET_STD[place]
    paper = tuple(v - PAPER_MEAN[place] for v in values)
    return Centred(name, values, paper, tuple((v / 255 - mean) / std for v in values))


def _first_layer(channels: int) -> FirstLayer:
    node = resolve("D", BuildOptions(input=(channels, 224, 224))).nodes[0]
    return FirstLayer(channels, node.parameters[0].shape, sum(numel(p.shape) for p in node.parameters))


def _parse(shape: str) -> Shape:
    parts = shape.replace("×", "x").replace(",", "x").split("x")
    if not 2 <= len(parts) <= 4 or not all(
        part.isascii() and part.isdigit() and len(part) <= 6 and int(part) > 0 for part in parts
    ):
        raise OptionError(
            f"{option('shape')} {printable(shape)!r} is not an array's shape",
            f"write two to four sides: {option('shape', '224x224x3')}",
        )
    return tuple(map(int, parts))


def _source(data: InputTutorial) -> str:
    return f"""\
import torch

pixel = torch.tensor({[c.raw[0] for c in data.pixel]})  # red, green, blue
paper = pixel - torch.tensor({list(PAPER_MEAN)})
mean = torch.tensor({list(IMAGENET_MEAN)})
std = torch.tensor({list(IMAGENET_STD)})
torchvision = (pixel / 255 - mean) / std
y = torch.stack([paper, torchvision])
print(y)
"""
