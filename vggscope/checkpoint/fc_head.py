"""The fully connected layers of a checkpoint, written as Linear or as convolutions."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

from vggscope.checkpoint.contents import StoredLayer, natural
from vggscope.checkpoint.conv_runs import CAFFE, TORCHVISION, ConvRun
from vggscope.record import record

HIDDEN = 4096
"""Units of fc6 and fc7 in every column of Table 1."""

LABELS = ("fc6", "fc7", "fc8")

HEAD_SIDE = 7
"""The side of the feature map that fc6 reads: 224 halved five times."""

_NAMES = {
    TORCHVISION: (
        ("classifier.0", "classifier.3", "classifier.6"),
        ("pre_logits.fc1", "pre_logits.fc2", "head.fc"),
    ),
    CAFFE: (LABELS,),
}
"""The paths of fc6, fc7 and fc8 beside features of each style: torchvision's and timm's, Caffe's."""


@record
class FCHead:
    """The FC layers in order, None for one that the file lacks; empty without any. `names` are their usual paths.

    `kind` is `linear`, `dense` (convolutions) or `pre_logits` (timm's: convolutions, a global pool, one Linear); None
    without FC layers. `side` is the side of the feature map that the first layer reads; None where it is unknown.
    """

    layers: tuple[StoredLayer | None, ...] = ()
    names: tuple[str, ...] = ()
    kind: str | None = None
    side: int | None = None

    @property
    def units(self) -> tuple[int, ...]:
        """The units of the layers that the file has."""
        return tuple(layer.shape[0] for layer in self.layers if layer)

    def has_usual_names(self, run: ConvRun) -> bool:
        """Whether these are a column's FC layers on a 7x7 map, under torchvision's or timm's paths."""
        hidden = [layer.shape[0] if layer else HIDDEN for layer in self.layers[:2]]
        if len(self.layers) != 3 or hidden != [HIDDEN, HIDDEN] or self.side != HEAD_SIDE:
            return False
        present = [(place, layer) for place, layer in enumerate(self.layers) if layer]
        return any(
            all((layer.path, len(layer.shape)) == (run.prefix + names[i], ranks[i]) for i, layer in present)
            for names, ranks in zip(_NAMES[TORCHVISION], ((2, 2, 2), (4, 4, 2)))
        )


NO_HEAD = FCHead()


def find_head(rest: Sequence[StoredLayer], channels: int, run: ConvRun, is_config: bool) -> FCHead:
    """The FC layers among `rest` after features with `channels` output channels.

    `is_config`: the features are those of a column of Table 1.
    """
    chain = _chain(rest, channels, is_config) if channels else ()
    if is_config and channels:
        layers, names = _by_usual_names(rest, channels, run)
        if sum(layer is not None for layer in layers) >= len(chain):
            return _head(layers, names, channels)
        if [layer.shape[0] for layer in chain] in ([HIDDEN], [HIDDEN, HIDDEN]):
            return _head((*chain, *(None,) * (3 - len(chain))), LABELS, channels)
    return _head(chain, (), channels)


def _head(layers: tuple[StoredLayer | None, ...], names: tuple[str, ...], channels: int) -> FCHead:
    present = next((layer for layer in layers if layer), None)
    if present is None:
        return NO_HEAD
    kind = "linear" if len(present.shape) == 2 else "dense"
    kind = "pre_logits" if kind == "dense" and "pre_logits" in present.path else kind
    return FCHead(layers, names, kind, _side(layers[0], channels) if layers[0] else None)


def _side(first: StoredLayer, channels: int) -> int | None:
    """The side of the square feature map that the first FC layer reads; None where it is not square."""
    if len(first.shape) == 4:
        return first.shape[2] if first.shape[2] == first.shape[3] else None
    side = isqrt(first.shape[1] // channels)
    return side if side * side * channels == first.shape[1] else None


def _chain(rest: Sequence[StoredLayer], channels: int, is_square: bool) -> tuple[StoredLayer, ...]:
    """FC layers in natural order, each reading the output of the one before it.

    The first reads a feature map, which must be square if `is_square` is set.
    """
    chain: list[StoredLayer] = []
    for layer in sorted(rest, key=_order):
        if not layer.shape or len(layer.shape) not in (2, 4):
            continue
        if _reads(layer, chain[-1].shape[0]) if chain else _reads_features(layer, channels, is_square):
            chain.append(layer)
    return tuple(chain)


def _order(layer: StoredLayer) -> tuple[bool, tuple[tuple[int, str], ...]]:
    """Natural order, with timm's last layer, `head`, after its `pre_logits`."""
    return any(part == "head" for part in layer.path.split(".")), natural(layer.path)


def _reads_features(layer: StoredLayer, channels: int, is_square: bool) -> bool:
    if len(layer.shape) == 4:
        return layer.shape[1:] == (channels, HEAD_SIDE, HEAD_SIDE)
    fits = layer.shape[1] > 0 and layer.shape[1] % channels == 0
    return fits and not (is_square and _side(layer, channels) is None)


def _reads(layer: StoredLayer, features: int) -> bool:
    return layer.shape[1] == features and set(layer.shape[2:]) <= {1}


def _by_usual_names(
    rest: Sequence[StoredLayer], channels: int, run: ConvRun
) -> tuple[tuple[StoredLayer | None, ...], tuple[str, ...]]:
    """fc6, fc7 and fc8 under their usual paths, if their shapes fit together, and those paths."""
    by_name = {layer.path: layer for layer in rest if len(layer.shape) in (2, 4)}
    for names in _NAMES.get(run.style, ()):
        fc6, fc7, fc8 = (by_name.get(run.prefix + name) for name in names)
        fits = (
            (fc6 is None or (fc6.shape[0] == HIDDEN and fc6.shape[1] % channels == 0))
            and (fc7 is None or (fc7.shape[0] == HIDDEN and _reads(fc7, HIDDEN)))
            and (fc8 is None or _reads(fc8, HIDDEN))
        )
        if fits and (fc6 or fc7 or fc8):
            return (fc6, fc7, fc8), tuple(run.prefix + name for name in names)
    return (), ()
