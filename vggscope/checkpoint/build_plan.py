"""How to build a checkpoint's network, or why that is impossible."""

from __future__ import annotations

from vggscope.checkpoint.contents import StoredLayer
from vggscope.checkpoint.fc_head import HEAD_SIDE
from vggscope.checkpoint.structure import BEFORE, GUESSED_POOL, UNKNOWN
from vggscope.errors import NotationError
from vggscope.record import record
from vggscope.vgg.labels import kind_of_word, layer_labels
from vggscope.vgg.notation import Word, parse

LARGEST_KERNEL = 3
"""VGG's kernel size: a larger kernel usually comes with a stride, which a checkpoint does not store."""

_SIDE, _POOLS = 224, 5
"""The side in pixels of the paper's input, and the number of its pools."""


Head = tuple[str | None, int | None]
"""The kind of the FC layers, and the side of the feature map that the first of them reads."""


@record
class BuildPlan:
    """The notation of a network, its input (channels, height, width), and its `--head` option."""

    words: tuple[Word, ...]
    input: tuple[int, int, int]
    head: str | None


def obstacle(notation: str | None, layers: tuple[StoredLayer, ...], channels: int | None, head: Head) -> str:
    """Why no network can be built from a file with these layers and input channels; empty if one can."""
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
    is_unfit = head[0] and head[1] is None
    unfit = "the map that its first FC layer reads is not square, or that layer is missing" if is_unfit else ""
    return unfit or _mismatch(words, layers, channels or 3)


def build_plan(notation: str, channels: int | None, head: Head) -> BuildPlan:
    """How to build a network for which `obstacle` is empty."""
    words = _words(notation)
    kind, side = head
    pools = sum(word.kind == "maxpool" for word in words)
    if kind == "linear" and side is not None and (side, pools) != (HEAD_SIDE, _POOLS):
        pixels = side * 2**pools
        return BuildPlan(words, (channels or 3, pixels, pixels), "flatten")
    return BuildPlan(words, (channels or 3, _SIDE, _SIDE), {"linear": "adaptive", None: None}.get(kind, "dense"))


def _words(notation: str) -> tuple[Word, ...]:
    return parse(notation.replace(GUESSED_POOL, "maxpool"))


def _mismatch(words: tuple[Word, ...], layers: tuple[StoredLayer, ...], channels: int) -> str:
    """The first convolution that cannot read the output of the one before it; empty if all can."""
    stored = {layer.label: layer for layer in layers if layer.label}
    for word, label in zip(words, layer_labels(map(kind_of_word, words))):
        if word.kind == "conv":
            layer = stored.get(label)
            if layer and layer.shape[1] != channels:
                return f"{label} reads {layer.shape[1]} channels where {channels} come in"
            if layer and layer.shape[2:] != (word.kernel,) * 2:
                return f"the kernel of {label} is not square"
            channels = word.size
    return ""
