"""`explain input`: the order of axes, the channels, and two ways to centre pixels."""

from __future__ import annotations

from vggscope.document import Block, Facts, Table
from vggscope.errors import OptionError, printable
from vggscope.ops.base import Shape, numel
from vggscope.photo import IMAGENET_MEAN, IMAGENET_STD
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.image_file import CHANNELS, Channel, Pixels, order_of, read
from vggscope.tutorials.tutorial import Tutorial, code, listing, text, tutorial
from vggscope.units import count_text, kernel_text
from vggscope.vgg.options import Options

PAPER_MEAN = (123.68, 116.779, 103.939)
"""The training set's mean RGB, in values of 0 to 255, as the authors published it with their weights."""

NAMES = ("red", "green", "blue")
PIXEL = (200.0, 120.0, 40.0)
"""An orange, where there is no image."""


@record
class Centred:
    """A channel's values, least, mean and largest, as they are (0 to 255) and after either preprocessing."""

    channel: str
    raw: tuple[float, ...]
    paper: tuple[float, ...]
    torchvision: tuple[float, ...]


@record
class FirstLayer:
    """conv1_1 of column D for so many channels."""

    channels: int
    weight: Shape
    params: int


@record
class InputTutorial:
    """What was looked at, its shape and the order of its axes ("" where none was given), and one pixel worked through.
    `channels` are those of the image, empty without one.
    """

    source: str
    shape: Shape | None
    order: str
    notes: tuple[str, ...]
    channels: tuple[Centred, ...]
    pixel: tuple[Centred, ...]
    first_layers: tuple[FirstLayer, ...]


def explain(image: str | None = None, shape: str | None = None) -> Tutorial:
    """The order of an input's axes, its channels, and what the paper's preprocessing and torchvision's do to it.

    Raises OptionError for a shape or a file that cannot be read.
    """
    if image is not None and shape is not None:
        raise OptionError("--image and --shape both say what is looked at", "leave one of them out")
    pixels = read(image) if image is not None else None
    given = pixels.shape if pixels else _parsed(shape) if shape else None
    found = InputTutorial(
        source=image or "",
        shape=given,
        order=pixels.order if pixels else order_of(given) if given else "",
        notes=pixels.notes if pixels else (),
        channels=tuple(_centred(*pair) for pair in zip(NAMES, pixels.channels, range(3))) if pixels else (),
        pixel=tuple(_pixel(*row) for row in zip(NAMES, pixels.middle if pixels else PIXEL, range(3))),
        first_layers=tuple(map(_first_layer, CHANNELS)),
    )
    return tutorial("input", "input: C, H, W, and values around 0", found, *_blocks(found, pixels))


def _blocks(found: InputTutorial, pixels: Pixels | None) -> list[Block]:
    blocks: list[Block] = [
        text(
            "torch wants channels, height, width, with the batch before: N,C,H,W. Image files, numpy and matplotlib"
            " have H,W,C."
        )
    ]
    if found.shape is not None:
        blocks.append(Facts(tuple(_order(found))))
    blocks += [
        text("A network is built for a number of channels; conv1_1 of column D would have:"),
        listing(
            ("channels", "such as", "weights", "parameters"),
            tuple(
                (layer.channels, _SUCH_AS[layer.channels], kernel_text(layer.weight), layer.params)
                for layer in found.first_layers
            ),
        ),
    ]
    if pixels is not None:
        blocks += [text("Each channel, least / mean / largest:"), _listing(found.channels)]
    which = "the image's middle pixel" if pixels else "one pixel"
    blocks += [
        text(
            f"Worked for {which}: the paper takes off the mean and no more; torchvision scales to 0..1 first and"
            " divides by a deviation:"
        ),
        listing(("channel", "value", "the paper", "torchvision"), tuple(_worked(found.pixel))),
        Facts(_MATTERS),
        code(_code(found), tuple(zip(*((c.paper[0], c.torchvision[0]) for c in found.pixel)))),
    ]
    return blocks


_SUCH_AS = {1: "grey", 3: "red, green, blue", 4: "RGB and alpha"}

_MATTERS = (
    (
        "apart by",
        "a factor of about 255 * 0.226 = 58: weights trained on one see, fed with the other, an image far too flat or"
        " far too glaring",
    ),
    ("grey", "repeat the channel three times: x.expand(3, -1, -1)"),
    ("alpha", "is no colour: drop it, x[:3], or put the image on a background first"),
    ("Caffe", "the authors' own weights want blue, green, red: the same means in the other order, values 0 to 255"),
)


def _order(found: InputTutorial) -> list[tuple[str, str]]:
    assert found.shape is not None
    text = kernel_text(found.shape)
    order = found.order
    items = [("array", text), *(("note", note) for note in found.notes)]
    if not order:
        return [*items, ("order", "cannot be told: an axis of 1, 3 or 4 at one end, and only there, would be channels")]
    if order == "HW":
        return [*items, ("order", "H,W: grey, without an axis for channels; x[None] makes C,H,W")]
    named = ",".join(order)
    if order.endswith("CHW"):
        return [
            *items,
            ("order", f"{named}: as torch wants it" + ("" if "N" in order else ", but for the batch: x[None]")),
        ]
    axes = "0, 3, 1, 2" if "N" in order else "2, 0, 1"
    height, width, channels = found.shape[-3:]
    turned = (*found.shape[:-3], channels, height, width)
    return [
        *items,
        ("order", f"{named}: not torch's; x.permute({axes}) makes {kernel_text(turned)} of it"),
        ("as it is", f"torch would take its {count_text(height)} rows for channels, and conv1_1 refuse them"),
    ]


def _listing(channels: tuple[Centred, ...]) -> Table:
    rows = tuple(
        (c.channel, *(" / ".join(f"{v:.2f}" for v in part) for part in (c.raw, c.paper, c.torchvision)))
        for c in channels
    )
    return listing(("channel", "0 to 255", "the paper", "torchvision"), rows)


def _worked(pixel: tuple[Centred, ...]) -> list[tuple[str, float, str, str]]:
    return [
        (
            c.channel,
            c.raw[0],
            f"{c.raw[0]:g} - {PAPER_MEAN[i]:g} = {c.paper[0]:.3f}",
            f"({c.raw[0]:g}/255 - {IMAGENET_MEAN[i]:g})/{IMAGENET_STD[i]:g} = {c.torchvision[0]:.3f}",
        )
        for i, c in enumerate(pixel)
    ]


def _centred(name: str, channel: Channel, place: int) -> Centred:
    raw = (channel.least, channel.mean, channel.largest)
    return Centred(name, raw, *_both(raw, place))


def _pixel(name: str, value: float, place: int) -> Centred:
    return Centred(name, (value,), *_both((value,), place))


def _both(values: tuple[float, ...], place: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both preprocessings of values of 0 to 255. They are straight lines, so that least, mean and largest stay so."""
    mean, std = IMAGENET_MEAN[place], IMAGENET_STD[place]
    return tuple(v - PAPER_MEAN[place] for v in values), tuple((v / 255 - mean) / std for v in values)


def _first_layer(channels: int) -> FirstLayer:
    node = resolve("D", Options(input=(channels, 224, 224))).nodes[0]
    return FirstLayer(channels, node.parameters[0].shape, sum(numel(p.shape) for p in node.parameters))


def _parsed(text: str) -> Shape:
    parts = text.replace("×", "x").replace(",", "x").split("x")
    if not 2 <= len(parts) <= 4 or not all(
        part.isascii() and part.isdigit() and len(part) <= 6 and int(part) > 0 for part in parts
    ):
        raise OptionError(
            f"--shape {printable(text)!r} is no array's shape", "write two to four sides: --shape 224x224x3"
        )
    return tuple(map(int, parts))


def _code(found: InputTutorial) -> str:
    return f"""\
import torch

pixel = torch.tensor({[c.raw[0] for c in found.pixel]})  # red, green, blue
paper = pixel - torch.tensor({list(PAPER_MEAN)})
mean = torch.tensor({list(IMAGENET_MEAN)})
std = torch.tensor({list(IMAGENET_STD)})
torchvision = (pixel / 255 - mean) / std
y = torch.stack([paper, torchvision])
print(y)
"""
