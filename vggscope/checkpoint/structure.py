"""The VGG in a checkpoint: its convolutions and FC layers as a line of Table 1's notation.

Each word has the layer of the file that it describes. Problems, labels and the Network follow from the words.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vggscope.checkpoint.config_match import ConfigMatch, feature_words, match_config
from vggscope.checkpoint.contents import StoredLayer
from vggscope.checkpoint.conv_runs import CAFFE, OTHER, TORCHVISION, ConvRun, conv_runs
from vggscope.checkpoint.fc_head import HIDDEN, FCHead, find_head
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.vgg.labels import kind_of_word, layer_labels
from vggscope.vgg.notation import Word, write

UNKNOWN = "?"
"""In notation: there may be a layer without weights, of unknown kind."""

GUESSED_POOL = "maxpool?"
"""In notation: the paths' numbers leave room for a pool."""

BEFORE = "conv0"
"""The label of a convolution before the configuration's first."""

_BN = ("weight", "bias", "running_mean", "running_var")


@record
class StoredWord:
    """One word of the notation and the file's layer for it.

    `stored` is None for a word without weights and for a layer that the file lacks. `expected` has the name within the
    layer and the shape of each tensor.
    """

    text: str
    word: Word | None = None
    label: str = ""
    stored: StoredLayer | None = None
    expected: tuple[tuple[str, Shape], ...] = ()


@record
class StoredVGG:
    """A VGG in a checkpoint. `match` compares it with a column of Table 1; None for any other VGG-like network."""

    run: ConvRun
    head: FCHead
    words: tuple[StoredWord, ...]
    match: ConfigMatch | None = None

    @property
    def config(self) -> str | None:
        """The column of Table 1 that it is or comes nearest to."""
        return self.match.config if self.match else None

    @property
    def convs(self) -> tuple[StoredLayer | None, ...]:
        """The file's layer for each expected convolution."""
        return self.match.convs if self.match else self.run.convs

    @property
    def num_classes(self) -> int | None:
        """The units of the last FC layer; None where it is missing."""
        last = self.head.layers[-1] if self.head.layers else None
        return last.shape[0] if last else None

    @property
    def input_channels(self) -> int | None:
        """The input channels of the first convolution; None where it is missing."""
        first = self.convs[0]
        return first.shape[1] if first else None

    @property
    def style(self) -> str:
        """The naming scheme of the keys: the features', or `timm` where the FC layers are timm's."""
        is_timm = any(layer and "pre_logits" in layer.path for layer in self.head.layers)
        return "timm" if is_timm and self.run.style == TORCHVISION else self.run.style

    @property
    def notation(self) -> str:
        """The whole as a line of Table 1's notation."""
        return " ".join(word.text for word in self.words)


def find_vgg(layers: tuple[StoredLayer, ...]) -> StoredVGG | None:
    """The VGG in a file: a column of Table 1 if one matches, else a chain of convolutions and FC layers, else None."""
    runs = tuple(conv_runs(layers))
    for run in runs:
        match = match_config(run)
        if match:
            channels = next(conv.shape[0] for conv in reversed(match.convs) if conv)
            rest = _without(layers, (*match.convs, match.before))
            head = find_head(rest, channels, run, match.config is not None)
            custom = None if head.layers or match.convs[-1] else _custom_vgg(layers, run)
            # A network that begins like a column but ends with its own FC layers is not a truncated column.
            return custom if custom and custom.head.layers else StoredVGG(run, head, _config_words(match, head), match)
    return next((vgg for run in runs if (vgg := _custom_vgg(layers, run))), None)


def _custom_vgg(layers: tuple[StoredLayer, ...], run: ConvRun) -> StoredVGG | None:
    """A VGG of the run if it is a chain of square convolutions and FC layers with no other weights in the file.

    Vectors beside the network do not matter: those of a loss, as Lightning stores them beside `model.`.
    """
    layers = tuple(layer for layer in layers if layer.path.startswith(run.prefix) or not layer.is_vector)
    is_square = all(conv.shape[2] == conv.shape[3] and numel(conv.shape) for conv in run.convs)
    if len(run.convs) < 2 or not run.is_chain or not is_square:
        return None
    if sum(layer.is_norm for layer in layers) != sum(norm is not None for norm in run.norms):
        return None
    rest = _without(layers, run.convs)
    head = find_head(rest, run.convs[-1].shape[0], run, False)
    return StoredVGG(run, head, _custom_words(run, head)) if len(rest) == len(head.layers) else None


def _without(layers: tuple[StoredLayer, ...], convs: tuple[StoredLayer | None, ...]) -> list[StoredLayer]:
    used = {conv.name for conv in convs if conv}
    return [layer for layer in layers if layer.name not in used and not layer.is_norm]


def _config_words(match: ConfigMatch, head: FCHead) -> tuple[StoredWord, ...]:
    """The words of a column, up to the file's last layer, with the file's own sizes where it has the layer."""
    last = max((i for i, conv in enumerate(match.convs) if conv), default=-1) + 1
    count = last if not head.layers else len(match.expected)
    words: list[StoredWord] = []
    if match.before:
        shape = match.before.shape
        words.append(StoredWord("conv1-3", None, BEFORE, match.before, (("weight", shape), ("bias", shape[:1]))))
    norms = {conv.name: norm for conv, norm in zip(match.run.convs, match.run.norms)}
    position = 0
    for word in feature_words(match.config or match.candidates[0], count):
        if word.kind == "conv":
            conv = match.convs[position]
            shape = conv.shape if conv else match.expected[position].shape
            norm = norms[conv.name] if conv else None
            sized = replace(word, size=shape[0], kernel=shape[2])
            words += _conv_words(sized, shape, conv, norm, match.run.batch_norm)
            position += 1
        else:
            words.append(StoredWord(write((word,)), word))
    return _labelled((*words, *_fc_words(head)))


def _custom_words(run: ConvRun, head: FCHead) -> tuple[StoredWord, ...]:
    """The words of a network that is not a column; a guessed pool where the paths' numbers leave room for one."""
    words: list[StoredWord] = []
    following = (*run.positions[1:], None)
    for conv, norm, here, after in zip(run.convs, run.norms, run.positions, following):
        kernel = conv.shape[2]
        word = Word("conv", conv.shape[0], kernel, 1, (kernel - 1) // 2)
        words += _conv_words(word, conv.shape, conv, norm, norm is not None)
        between = _between(run.style, here, after, norm is not None)
        if between:
            words.append(StoredWord(between))
    return _labelled((*words, *_fc_words(head)))


def _between(style: str, here: tuple[int, ...], after: tuple[int, ...] | None, batch_norm: bool) -> str:
    """The word before the next convolution, other than BN, as far as the positions tell."""
    if style == OTHER:
        return UNKNOWN
    if style == CAFFE:
        return GUESSED_POOL if after is None or after[0] != here[0] else ""
    if after is None:
        return GUESSED_POOL
    gap = after[0] - here[0] - 1 - batch_norm
    return {1: "", 2: GUESSED_POOL}.get(gap, UNKNOWN)


def _conv_words(
    word: Word, shape: Shape, conv: StoredLayer | None, norm: StoredLayer | None, batch_norm: bool
) -> Iterator[StoredWord]:
    size = (word.size,)
    yield StoredWord(write((word,)), word, "", conv, (("weight", shape), ("bias", size)))
    if batch_norm:
        yield StoredWord("BN", Word("bn"), "", norm, tuple((name, size) for name in _BN))


def _fc_words(head: FCHead) -> Iterator[StoredWord]:
    """The FC words up to the file's last; a missing one in between has the paper's units."""
    present = max((i for i, layer in enumerate(head.layers) if layer), default=-1)
    for layer in head.layers[: present + 1]:
        units = layer.shape[0] if layer else HIDDEN
        expected = (("weight", layer.shape), ("bias", (units,))) if layer else ()
        yield StoredWord(f"FC-{units}", Word("fc", units), "", layer, expected)


def _labelled(words: Iterable[StoredWord]) -> tuple[StoredWord, ...]:
    """The words with the literature's labels."""
    words = tuple(words)
    guessed = {GUESSED_POOL: "pool"}
    labels = layer_labels(kind_of_word(w.word) if w.word else guessed.get(w.text, "") for w in words)
    return tuple(replace(word, label=label) if label else word for word, label in zip(words, labels))
