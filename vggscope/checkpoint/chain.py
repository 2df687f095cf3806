"""The layers with weights of a VGG, in order: each a word of the notation, with what the file has for it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.checkpoint.configs import Found, feature_words
from vggscope.checkpoint.head import HIDDEN, Head
from vggscope.checkpoint.runs import CAFFE, OTHER, Run
from vggscope.checkpoint.stored import StoredLayer
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.vgg.notation import Word, write

UNKNOWN = "?"
"""In notation: something without weights may stand here, and what it is cannot be told."""

GUESSED_POOL = "maxpool?"
"""In notation: the names leave room for a pool here."""

BEFORE = "conv0"
"""The label of a convolution that stands before the column's own."""

_BN = ("weight", "bias", "running_mean", "running_var")


@record
class Link:
    """One word. `stored` is the file's layer, or None for a word without weights or a layer that the file lacks;
    `expected` is the name below the layer's path and the shape of each tensor.
    """

    text: str
    word: Word | None = None
    label: str = ""
    stored: StoredLayer | None = None
    expected: tuple[tuple[str, Shape], ...] = ()


def column_chain(found: Found, head: Head) -> tuple[Link, ...]:
    """The links of a column, of its beginning where the rest is cut off; the file's own sizes where it has a layer."""
    last = max((i for i, conv in enumerate(found.convs) if conv), default=-1) + 1
    count = last if not head.layers else len(found.places)
    links: list[Link] = []
    if found.before:
        shape = found.before.shape
        links.append(Link("conv1-3", None, BEFORE, found.before, (("weight", shape), ("bias", shape[:1]))))
    position = 0
    for word in feature_words(found.column or found.alike[0], count):
        if word.kind == "conv":
            conv = found.convs[position]
            shape = conv.shape if conv else found.places[position].shape
            norm = _norm(found.run, conv)
            links += _convolution(
                replace(word, size=shape[0], kernel=shape[2]), shape, conv, norm, found.run.batch_norm
            )
            position += 1
        else:
            links.append(Link(write((word,)), word))
    return labelled((*links, *_fully_connected(head)))


def custom_chain(run: Run, head: Head) -> tuple[Link, ...]:
    """The links of a network of its own; where the paths' numbers leave room for a pool, a guessed one."""
    links: list[Link] = []
    following = (*run.positions[1:], None)
    for conv, norm, here, after in zip(run.convs, run.norms, run.positions, following):
        kernel = conv.shape[2]
        word = Word("conv", conv.shape[0], kernel, 1, (kernel - 1) // 2)
        links += _convolution(word, conv.shape, conv, norm, norm is not None)
        between = _between(run.style, here, after, norm is not None)
        if between:
            links.append(Link(between))
    return labelled((*links, *_fully_connected(head)))


def _between(style: str, here: tuple[int, ...], after: tuple[int, ...] | None, batch_norm: bool) -> str:
    """What stands before the next convolution beside the ReLU, as far as the numbers tell."""
    if style == OTHER:
        return UNKNOWN
    if style == CAFFE:
        return GUESSED_POOL if after is None or after[0] != here[0] else ""
    if after is None:
        return GUESSED_POOL
    room = after[0] - here[0] - 1 - batch_norm
    return {1: "", 2: GUESSED_POOL}.get(room, UNKNOWN)


def _norm(run: Run, conv: StoredLayer | None) -> StoredLayer | None:
    return next((norm for have, norm in zip(run.convs, run.norms) if have is conv and conv), None)


def _convolution(
    word: Word, shape: Shape, conv: StoredLayer | None, norm: StoredLayer | None, batch_norm: bool
) -> Iterator[Link]:
    size = (word.size,)
    yield Link(write((word,)), word, "", conv, (("weight", shape), ("bias", size)))
    if batch_norm:
        yield Link("BN", Word("bn"), "", norm, tuple((name, size) for name in _BN))


def _fully_connected(head: Head) -> Iterator[Link]:
    """FC words; one that the file lacks between others has the column's units, one at the end is left out."""
    present = max((i for i, layer in enumerate(head.layers) if layer), default=-1)
    for layer in head.layers[: present + 1]:
        units = layer.shape[0] if layer else HIDDEN
        expected = (("weight", layer.shape), ("bias", (units,))) if layer else ()
        yield Link(f"FC-{units}", Word("fc", units), "", layer, expected)


def labelled(links: tuple[Link, ...]) -> tuple[Link, ...]:
    """The same links with the literature's names: a stage ends with its pool, FC layers count on from the last."""
    stage, layer, connected, current = 1, 0, 0, ""
    found: list[Link] = []
    for link in links:
        kind = link.word.kind if link.word else ""
        if kind == "conv":
            layer += 1
            current = f"{stage}_{layer}"
        elif kind == "maxpool" or link.text == GUESSED_POOL:
            stage, layer = stage + 1, 0
        elif kind == "fc":
            connected += 1
            current = str(stage - (layer == 0) + connected)
        prefix = {"conv": "conv", "bn": "bn", "fc": "fc"}.get(kind, "")
        found.append(replace(link, label=prefix + current) if prefix else link)
    return tuple(found)


def notation(links: tuple[Link, ...]) -> str:
    """The links as a line of Table 1's notation."""
    return " ".join(link.text for link in links)
