"""Convolutions of a checkpoint that may be one network's features, found by how their paths are numbered.

features.0, features.2       torchvision's and timm's VGG
0, 2 or encoder.0            a bare Sequential, or one inside something
net.slice1.0, net.slice2.5   one that is cut into several, as perceptual losses have it: the numbers go on
conv1_1, vgg.conv1_1         Caffe's names
anything else                taken in the file's order, or in the names' natural order
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from vggscope.checkpoint.stored import StoredLayer, natural
from vggscope.record import record

Position = tuple[int, ...]
"""A layer's number in its Sequential, or its stage and its place there."""

_BEFORE_ALL: Position = (-1,)
"""Before every number."""

Groups = dict[tuple[str, str], dict[Position, StoredLayer]]
"""Layers by style and prefix, then by position."""

TORCHVISION, SEQUENTIAL, CAFFE, OTHER = "torchvision", "bare Sequential", "Caffe-like", "other"
SLICED = "sliced Sequential"

K = TypeVar("K")

_MOST = 1000
"""Convolutions above which nothing is looked for among all of them."""

_HEAD_KERNEL = 7
"""A convolution as wide as the map that five pools leave of 224 pixels is a fully connected layer."""


@record
class Run:
    """Convolutions in order, each with its position and the batch norm that follows it, if any.

    `prefix` is what stands before every path, such as `backbone.`; `style` is how the rest is named.
    """

    style: str
    prefix: str
    positions: tuple[Position, ...]
    convs: tuple[StoredLayer, ...]
    norms: tuple[StoredLayer | None, ...]

    @property
    def batch_norm(self) -> bool:
        """Whether any convolution is followed by a batch norm."""
        return any(self.norms)

    @property
    def is_chain(self) -> bool:
        """Whether each convolution takes as many channels as the one before it gives."""
        return all(a.shape[0] == b.shape[1] for a, b in zip(self.convs, self.convs[1:]))

    @property
    def room(self) -> int:
        """How many numbers are free behind each convolution and its batch norm at least: 1 for the ReLU."""
        pairs = zip(self.positions, self.positions[1:])
        return min((after[0] - here[0] - 1 - self.batch_norm for here, after in pairs), default=1)

    def path(self, position: Position) -> str:
        """The path that this style gives to a position."""
        if self.style == CAFFE:
            return f"{self.prefix}conv{position[0]}_{position[1]}"
        return f"{self.prefix}{'features.' if self.style == TORCHVISION else ''}{position[0]}"


def runs(layers: tuple[StoredLayer, ...]) -> Iterator[Run]:
    """The runs that may be features, the likeliest first: numbered ones by length, then all convolutions in order."""
    groups: Groups = {}
    norms: Groups = {}
    for layer in layers:
        place = _place(layer)
        if place is not None:
            style, prefix, position = place
            (norms if layer.is_norm else groups).setdefault((style, prefix), {})[position] = layer
    _join(groups, norms)
    for key in sorted(groups, key=lambda key: -len(groups[key]))[:3]:
        yield _numbered(key, groups[key], norms.get(key, {}))
    convs = [layer for layer in layers if len(layer.shape) == 4]
    scales = [layer for layer in layers if layer.is_norm]
    if len(convs) > _MOST:
        return
    yield _ordered(convs, scales)
    yield _ordered(sorted(convs, key=_natural), sorted(scales, key=_natural))


def _join(groups: Groups, norms: Groups) -> None:
    """Add what Sequentials beside one another hold together, as far as the numbers of each go on behind the last's."""
    beside: dict[str, list[str]] = {}
    for style, prefix in groups:
        if style == SEQUENTIAL and prefix:
            beside.setdefault(prefix[:-1].rpartition(".")[0], []).append(prefix)
    for parent, prefixes in beside.items():
        joined: dict[Position, StoredLayer] = {}
        following: dict[Position, StoredLayer] = {}
        slices, last = 0, _BEFORE_ALL
        for prefix in sorted(prefixes, key=natural):
            found = groups[SEQUENTIAL, prefix]
            if min(found) > last:
                last = max(found)
                joined |= found
                following |= norms.get((SEQUENTIAL, prefix), {})
                slices += 1
        if slices > 1:
            key = (SLICED, f"{parent}." if parent else "")
            groups[key], norms[key] = joined, following


def _natural(layer: StoredLayer) -> tuple[tuple[int, str], ...]:
    return natural(layer.path)


def _place(layer: StoredLayer) -> tuple[str, str, Position] | None:
    """Style, prefix and position of a convolution or a norm with a numbered path."""
    is_norm = layer.is_norm
    if not is_norm and len(layer.shape) != 4:
        return None
    parent, _, last = layer.path.rpartition(".")
    if re.fullmatch(r"[0-9]{1,5}", last):
        if parent == "features" or parent.endswith(".features"):
            return TORCHVISION, parent.removesuffix("features"), (int(last),)
        return SEQUENTIAL, f"{parent}." if parent else "", (int(last),)
    pattern = r"\w{0,20}?([0-9]{1,2})_([0-9]{1,3})(?:_?[a-z]+)?" if is_norm else r"conv_?([0-9]{1,2})_([0-9]{1,3})"
    found = re.fullmatch(pattern, last, re.ASCII | re.IGNORECASE)
    return (CAFFE, f"{parent}." if parent else "", (int(found[1]), int(found[2]))) if found else None


def _numbered(key: tuple[str, str], group: dict[Position, StoredLayer], norms: dict[Position, StoredLayer]) -> Run:
    positions = _without_head(sorted(group), [group[position] for position in sorted(group)])
    behind = 0 if key[0] == CAFFE else 1
    followed = (norms.get((*position[:-1], position[-1] + behind)) for position in positions)
    return Run(*key, tuple(positions), tuple(group[position] for position in positions), tuple(followed))


def _ordered(convs: Iterable[StoredLayer], norms: list[StoredLayer]) -> Run:
    """All convolutions as one run; the norms are theirs if there are as many, of the same channels."""
    features = _without_head(list(convs), list(convs))
    fits = [norm.shape[0] for norm in norms] == [conv.shape[0] for conv in features]
    followed = tuple(norms) if fits else (None,) * len(features)
    return Run(OTHER, "", tuple((i,) for i in range(len(features))), tuple(features), followed)


def _without_head(keys: list[K], convs: list[StoredLayer]) -> list[K]:
    """What comes before a head that is written as convolutions: 7x7, then 1x1."""
    for place, conv in enumerate(convs):
        if place and conv.shape[2:] == (_HEAD_KERNEL,) * 2 and all(c.shape[2:] == (1, 1) for c in convs[place + 1 :]):
            return keys[:place]
    return keys
