"""An identified checkpoint as a column that can be built."""

from __future__ import annotations

from vggscope.checkpoint.chain import BEFORE, GUESSED_POOL, UNKNOWN, Link, labelled
from vggscope.checkpoint.head import HEAD_SIDE
from vggscope.checkpoint.stored import StoredLayer
from vggscope.errors import NotationError
from vggscope.record import record
from vggscope.vgg.notation import Word, parse, write

LARGEST_KERNEL = 3
"""VGG's: a larger one usually goes with a stride, of which a checkpoint says nothing."""

_SIDE, _POOLS = 224, 5
"""Pixels that the paper's columns read, and how often they halve them."""


Shaped = tuple[str | None, int | None]
"""How FC layers are written, and the side of the map that the first of them reads."""


@record
class Model:
    """The words of a column, the input (channels, height, width) that its FC layers fit, and how they are written."""

    words: tuple[Word, ...]
    input: tuple[int, int, int]
    head: str | None


def obstacle(notation: str | None, layers: tuple[StoredLayer, ...], channels: int | None, head: Shaped) -> str:
    """Why no network can be built from a file with these layers that reads so many channels; empty if one can."""
    if notation is None:
        return "it is no VGG"
    if UNKNOWN in notation.split():
        return "where its pools stand cannot be told from the names"
    try:
        words = _words(notation)
    except NotationError as error:
        return error.problem
    if GUESSED_POOL in notation and any(word.kernel > LARGEST_KERNEL for word in words):
        return "the strides of its large kernels are not in the file"
    if any(layer.label == BEFORE for layer in layers):
        return "a convolution stands before the column's, and how its maps are padded is not in the file"
    is_odd = head[0] and head[1] is None
    odd = "the map that its first FC layer reads is not square, or that layer is missing" if is_odd else ""
    return odd or _misfit(words, layers, channels or 3)


def model(notation: str, channels: int | None, head: Shaped) -> Model:
    """The column to build where there is no obstacle."""
    words = _words(notation)
    kind, side = head
    pools = sum(word.kind == "maxpool" for word in words)
    if kind == "linear" and side is not None and (side, pools) != (HEAD_SIDE, _POOLS):
        pixels = side * 2**pools
        return Model(words, (channels or 3, pixels, pixels), "flatten")
    return Model(words, (channels or 3, _SIDE, _SIDE), {"linear": "adaptive", None: None}.get(kind, "dense"))


def _words(notation: str) -> tuple[Word, ...]:
    return parse(notation.replace(GUESSED_POOL, "maxpool"))


def _misfit(words: tuple[Word, ...], layers: tuple[StoredLayer, ...], channels: int) -> str:
    """Which convolution does not read what the one before it gives."""
    stored = {layer.label: layer for layer in layers if layer.label}
    for link in labelled(tuple(Link(write((word,)), word) for word in words)):
        if link.word and link.word.kind == "conv":
            layer = stored.get(link.label)
            if layer and layer.shape[1] != channels:
                return f"{link.label} reads {layer.shape[1]} channels where {channels} come in"
            if layer and layer.shape[2:] != (link.word.kernel,) * 2:
                return f"the kernel of {link.label} is not square"
            channels = link.word.size
    return ""
