"""Runs of convolutions in a checkpoint that may be one network's features, recognised by their numbered paths.

features.0, features.2       torchvision's and timm's VGG
0, 2 or encoder.0            a bare Sequential, or one inside another module
net.slice1.0, net.slice2.5   a Sequential cut into slices whose numbers continue, as in perceptual losses
conv1_1, vgg.conv1_1         Caffe's names
anything else                all convolutions, in the file's order or in the natural order of their names
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TypeVar

from vggscope.checkpoint.contents import StoredLayer, natural
from vggscope.record import record

Position = tuple[int, ...]
"""A layer's number in its Sequential, or its stage and its number there."""

_BEFORE_ALL: Position = (-1,)
"""Sorts before every position."""

Groups = dict[tuple[str, str], dict[Position, StoredLayer]]
"""Layers by style and prefix, then by position."""

TORCHVISION, SEQUENTIAL, CAFFE, OTHER = "torchvision", "bare Sequential", "Caffe-like", "other"
SLICED = "sliced Sequential"

K = TypeVar("K")

_MAX_UNNUMBERED = 1000
"""With more convolutions than this, only numbered paths are searched."""

_HEAD_KERNEL = 7
"""A convolution of this kernel size over the last pool's output is a fully connected layer (224 / 2**5 = 7)."""


@record
class ConvRun:
    """Convolutions in order, each with its position and the batch norm after it, or None.

    `prefix` precedes every path, such as `backbone.`; `style` is the naming scheme of the rest.
    """

    style: str
    prefix: str
    positions: tuple[Position, ...]
    convs: tuple[StoredLayer, ...]
    norms: tuple[StoredLayer | None, ...]

    @property
    def batch_norm(self) -> bool:
        """Whether a batch norm follows any convolution."""
        return any(self.norms)

    @property
    def is_chain(self) -> bool:
        """Whether each convolution's input channels are the output channels of the one before it."""
        return all(a.shape[0] == b.shape[1] for a, b in zip(self.convs, self.convs[1:]))

    @property
    def min_gap(self) -> int:
        """The fewest unused numbers after a convolution and its batch norm: 1 where only a ReLU fits."""
        pairs = zip(self.positions, self.positions[1:])
        return min((after[0] - here[0] - 1 - self.batch_norm for here, after in pairs), default=1)

    def path(self, position: Position) -> str:
        """The path of a position in this style."""
        if self.style == CAFFE:
            return f"{self.prefix}conv{position[0]}_{position[1]}"
        return f"{self.prefix}{'features.' if self.style == TORCHVISION else ''}{position[0]}"


def conv_runs(layers: tuple[StoredLayer, ...]) -> Iterator[ConvRun]:
    """The candidate runs, likeliest first: numbered ones by length, then all convolutions in order."""
    convs_by_group: Groups = {}
    norms_by_group: Groups = {}
    for layer in layers:
        place = _place(layer)
        if place is not None:
            style, prefix, position = place
            groups = norms_by_group if layer.is_norm else convs_by_group
            groups.setdefault((style, prefix), {})[position] = layer
    _add_slices(convs_by_group, norms_by_group)
    for key in sorted(convs_by_group, key=lambda key: -len(convs_by_group[key]))[:3]:
        yield _numbered_run(key, convs_by_group[key], norms_by_group.get(key, {}))
    convs = [layer for layer in layers if len(layer.shape) == 4]
    norms = [layer for layer in layers if layer.is_norm]
    if len(convs) > _MAX_UNNUMBERED:
        return
    yield _unnumbered_run(convs, norms)
    yield _unnumbered_run(sorted(convs, key=_natural), sorted(norms, key=_natural))


def _add_slices(convs_by_group: Groups, norms_by_group: Groups) -> None:
    """Add a group for sibling Sequentials whose numbers continue from one to the next."""
    siblings: dict[str, list[str]] = {}
    for style, prefix in convs_by_group:
        if style == SEQUENTIAL and prefix:
            siblings.setdefault(prefix[:-1].rpartition(".")[0], []).append(prefix)
    for parent, prefixes in siblings.items():
        convs: dict[Position, StoredLayer] = {}
        norms: dict[Position, StoredLayer] = {}
        slices, last = 0, _BEFORE_ALL
        for prefix in sorted(prefixes, key=natural):
            members = convs_by_group[SEQUENTIAL, prefix]
            if min(members) > last:
                last = max(members)
                convs |= members
                norms |= norms_by_group.get((SEQUENTIAL, prefix), {})
                slices += 1
        if slices > 1:
            key = (SLICED, f"{parent}." if parent else "")
            convs_by_group[key], norms_by_group[key] = convs, norms


def _natural(layer: StoredLayer) -> tuple[tuple[int, str], ...]:
    return natural(layer.path)


def _place(layer: StoredLayer) -> tuple[str, str, Position] | None:
    """Style, prefix and position of a convolution or norm with a numbered path; None for any other layer."""
    is_norm = layer.is_norm
    if not is_norm and len(layer.shape) != 4:
        return None
    parent, _, last = layer.path.rpartition(".")
    if re.fullmatch(r"[0-9]{1,5}", last):
        if parent == "features" or parent.endswith(".features"):
            return TORCHVISION, parent.removesuffix("features"), (int(last),)
        return SEQUENTIAL, f"{parent}." if parent else "", (int(last),)
    pattern = r"\w{0,20}?([0-9]{1,2})_([0-9]{1,3})(?:_?[a-z]+)?" if is_norm else r"conv_?([0-9]{1,2})_([0-9]{1,3})"
    match = re.fullmatch(pattern, last, re.ASCII | re.IGNORECASE)
    return (CAFFE, f"{parent}." if parent else "", (int(match[1]), int(match[2]))) if match else None


def _numbered_run(
    key: tuple[str, str], convs: dict[Position, StoredLayer], norms: dict[Position, StoredLayer]
) -> ConvRun:
    positions = _without_head(sorted(convs), [convs[position] for position in sorted(convs)])
    step = 0 if key[0] == CAFFE else 1
    following = (norms.get((*position[:-1], position[-1] + step)) for position in positions)
    return ConvRun(*key, tuple(positions), tuple(convs[position] for position in positions), tuple(following))


def _unnumbered_run(convs: Iterable[StoredLayer], norms: list[StoredLayer]) -> ConvRun:
    """All convolutions as one run; it takes the norms if they match one to one in number and channels."""
    features = _without_head(list(convs), list(convs))
    fits = [norm.shape[0] for norm in norms] == [conv.shape[0] for conv in features]
    following = tuple(norms) if fits else (None,) * len(features)
    return ConvRun(OTHER, "", tuple((i,) for i in range(len(features))), tuple(features), following)


def _without_head(keys: list[K], convs: list[StoredLayer]) -> list[K]:
    """The keys before a head that is written as convolutions: one 7x7, then 1x1."""
    for place, conv in enumerate(convs):
        if place and conv.shape[2:] == (_HEAD_KERNEL,) * 2 and all(c.shape[2:] == (1, 1) for c in convs[place + 1 :]):
            return keys[:place]
    return keys
