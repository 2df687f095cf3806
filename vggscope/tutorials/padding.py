"""`explain padding`: why a 3x3 convolution is padded by one pixel."""

from __future__ import annotations

from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, code, facts, listing, text, tutorial
from vggscope.units import rule_text
from vggscope.vgg.options import BuildOptions

SIDE, STACK = 224, 13
CORNER = 5


@record
class PaddedSize:
    """The side of the map after some 3x3 convolutions with padding 1 and with padding 0."""

    convolutions: int
    padded: int
    unpadded: int


@record
class PaddingSizes:
    """The sides after each convolution, and how many windows of a 3x3 kernel read each pixel of a small picture."""

    sizes: tuple[PaddedSize, ...]
    windows_padded: tuple[tuple[int, ...], ...]
    windows_unpadded: tuple[tuple[int, ...], ...]


def windows(side: int, padding: int) -> tuple[tuple[int, ...], ...]:
    """How many 3x3 windows, at stride 1, cover each pixel of a square picture.

    >>> windows(3, 1)[0], windows(3, 0)[0]
    ((4, 6, 4), (1, 1, 1))
    """
    starts = range(-padding, side + padding - 2)
    along = [sum(start <= pixel < start + 3 for start in starts) for pixel in range(side)]
    return tuple(tuple(row * column for column in along) for row in along)


def explain() -> Tutorial:
    """The sides of the maps of thirteen convolutions, padded and not, and how often the border is read."""
    sides = [_sides(padding) for padding in (1, 0)]
    sizes = tuple(PaddedSize(count, *pair) for count, pair in enumerate(zip(*sides), 1))
    shown = tuple(size for size in sizes if size.convolutions in (1, 2, 3, 6, STACK))
    data = PaddingSizes(sizes, windows(CORNER, 1), windows(CORNER, 0))
    return tutorial(
        "padding",
        "padding: zeros around the picture, so that a 3x3 convolution keeps its size",
        data,
        text(f"The side of a {SIDE}x{SIDE} picture after 3x3 convolutions with stride 1:"),
        listing(
            ("convolutions", "padding 1", "padding 0"), tuple((s.convolutions, s.padded, s.unpadded) for s in shown)
        ),
        facts(
            {
                "padding 1": rule_text(SIDE, 3, 1, 1, 1, SIDE),
                "padding 0": rule_text(SIDE, 3, 0, 1, 1, SIDE - 2) + ": two pixels less at each convolution",
                "in general": "padding (K-1)/2 keeps the size, for an odd kernel K and stride 1",
                "the border": f"of a {CORNER}x{CORNER} picture the middle pixel is read by {data.windows_padded[2][2]}"
                f" windows, the corner by {data.windows_padded[0][0]} with padding and by"
                f" {data.windows_unpadded[0][0]} without",
                "not free": "units at the border see zeros that are no part of the image",
                "in the paper": "every convolution keeps the size, and only the five max pools halve it (section 2.1)",
            }
        ),
        code(SOURCE, (SIDE, SIDE - 2, SIDE - 2 * STACK)),
    )


def _sides(padding: int) -> list[int]:
    words = " ".join(["conv3-1" if padding else "conv3-1/p0"] * STACK)
    network = resolve(words, BuildOptions(input=(1, SIDE, SIDE)))
    return [network.output_shape(node)[-1] for node in network.nodes if node.op.is_convolution]


SOURCE = f"""\
import torch
from torch import nn

x = torch.empty(1, 1, {SIDE}, {SIDE}, device="meta")
stack = nn.Sequential(*[nn.Conv2d(1, 1, 3) for _ in range({STACK})]).to("meta")
padded = nn.Conv2d(1, 1, 3, padding=1, device="meta")
y = [part(x).shape[-1] for part in (padded, stack[0], stack)]
print(y)
"""
