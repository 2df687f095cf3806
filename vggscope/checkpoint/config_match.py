"""The column of Table 1 that a run of convolutions matches, wholly or nearly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

from vggscope.checkpoint.contents import StoredLayer
from vggscope.checkpoint.conv_runs import CAFFE, OTHER, ConvRun, Position
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.labels import kind_of_word, layer_labels
from vggscope.vgg.notation import Word

MIN_MATCHES = 4
"""With fewer convolutions than this, a file is not taken for a part of a configuration."""

_MIN_SHARE = 0.6
"""The smallest share of convolutions that a damaged file has in common with its configuration."""


@record
class ConfigConv:
    """A convolution of a configuration: its label, its weight's shape, and its number in torchvision's `features`."""

    label: str
    shape: Shape
    number: Position

    def position(self, style: str) -> Position:
        """Its position in names of a style: its number, or stage and layer in Caffe's."""
        if style != CAFFE:
            return self.number
        return tuple(map(int, self.label.removeprefix("conv").split("_")))


@record
class ConfigMatch:
    """A run compared with a configuration. `convs` has the file's layer for each of `expected`, None for a missing one.

    `config` is None where the file ends before the configurations in `candidates` differ. `renumbered`: the
    numbers in the paths are not torchvision's. `before` is a 1x1 convolution of the colours before the run, if any.
    """

    config: str | None
    run: ConvRun
    expected: tuple[ConfigConv, ...]
    convs: tuple[StoredLayer | None, ...]
    candidates: tuple[str, ...] = ()
    renumbered: bool = False
    before: StoredLayer | None = None


@cache
def config_convs(config: str, batch_norm: bool) -> tuple[ConfigConv, ...]:
    """The convolutions of a configuration, in order."""
    convs: list[ConfigConv] = []
    number, channels = 0, 3
    words = CONFIGS[config].words
    for word, label in zip(words, layer_labels(map(kind_of_word, words))):
        if word.kind == "conv":
            convs.append(ConfigConv(label, (word.size, channels, word.kernel, word.kernel), (number,)))
            number, channels = number + 2 + batch_norm, word.size
        elif word.kind in ("lrn", "maxpool"):
            number += 1
    return tuple(convs)


def feature_words(config: str, count: int) -> tuple[Word, ...]:
    """A configuration's words before its FC layers, up to its `count`-th convolution if there are more."""
    words = [word for word in CONFIGS[config].words if word.kind in ("conv", "lrn", "maxpool")]
    convs = [i for i, word in enumerate(words) if word.kind == "conv"]
    return tuple(words if count >= len(convs) else words[: convs[count - 1] + 1])


def match_config(run: ConvRun) -> ConfigMatch | None:
    """The configuration that the run matches in whole, up to its end or for the most part; None if there is none."""
    first = run.convs[0] if run.convs else None
    if first and first.shape == (3, 3, 1, 1):
        rest = replace(run, positions=run.positions[1:], convs=run.convs[1:], norms=run.norms[1:])
        match = match_config(rest)
        return replace(match, before=first) if match else None
    whole = _match_whole(run)
    if whole:
        return whole
    beginning = _match_beginning(run)
    # A gap in the numbers shows which convolution is missing; a truncated file has no gap.
    return beginning if beginning and not beginning.renumbered else _match_most(run) or beginning


def same_shape(shape: Shape, expected: Shape, is_first: bool) -> bool:
    """Whether a weight has the expected shape; the first convolution may have any number of input channels."""
    return (shape[0], *shape[2:]) == (expected[0], *expected[2:]) and (is_first or shape[1] == expected[1])


def _leading_matches(run: ConvRun, expected: Sequence[ConfigConv]) -> int:
    """How many convolutions match before the first mismatch."""
    for i, (conv, config_conv) in enumerate(zip(run.convs, expected)):
        if not same_shape(conv.shape, config_conv.shape, not i):
            return i
    return min(len(run.convs), len(expected))


def _match_whole(run: ConvRun) -> ConfigMatch | None:
    # A-LRN has A's convolutions; only the number of its LRN in the Sequential distinguishes them.
    for config in ("A-LRN", *(config for config in CONFIGS if config != "A-LRN")):
        expected = config_convs(config, run.batch_norm)
        convs = run.convs[: len(expected)]
        if _leading_matches(run, expected) == len(expected):
            renumbered = _is_renumbered(run, expected)
            if config != "A-LRN" or (run.style not in (CAFFE, OTHER) and not renumbered):
                return ConfigMatch(config, run, expected, convs, renumbered=renumbered)
    return None


def _is_renumbered(run: ConvRun, expected: Sequence[ConfigConv]) -> bool:
    return run.style != OTHER and any(
        position != config_conv.position(run.style) for position, config_conv in zip(run.positions, expected)
    )


def _match_beginning(run: ConvRun) -> ConfigMatch | None:
    count = len(run.convs)
    if count < MIN_MATCHES:
        return None
    candidates = tuple(
        config
        for config in CONFIGS
        if config != "A-LRN" and _leading_matches(run, config_convs(config, run.batch_norm)) == count
    )
    if not candidates:
        return None
    expected = config_convs(candidates[0], run.batch_norm)
    renumbered = _is_renumbered(run, expected)
    if len(candidates) > 1:
        return ConfigMatch(None, run, expected[:count], run.convs, candidates, renumbered)
    padded = (*run.convs, *(None for _ in expected[count:]))
    return ConfigMatch(candidates[0], run, expected, padded, renumbered=renumbered)


def _match_most(run: ConvRun) -> ConfigMatch | None:
    """The configuration that shares the most convolutions by position and shape."""
    if run.style == OTHER:
        return None
    stored = dict(zip(run.positions, run.convs))
    best, best_share = None, _MIN_SHARE
    for config in CONFIGS:
        expected = {conv.position(run.style): conv for conv in config_convs(config, run.batch_norm)}
        matches = sum(
            position in stored and same_shape(stored[position].shape, conv.shape, conv.label == "conv1_1")
            for position, conv in expected.items()
        )
        share = matches / len(expected.keys() | stored.keys())
        if matches >= MIN_MATCHES and share > best_share:
            best, best_share = config, share
    if best is None:
        return None
    convs = config_convs(best, run.batch_norm)
    return ConfigMatch(best, run, convs, tuple(stored.get(conv.position(run.style)) for conv in convs))
