"""Table 1 notation: what reads, what it means, and what an error says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.strategies import columns
from vggscope.errors import NotationError, VggscopeError
from vggscope.sources.resolve import resolve
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.notation import Word, parse, write


@given(columns())
def test_what_is_written_reads_back_the_same(line: str) -> None:
    words = parse(line)
    assert parse(write(words)) == words
    assert write(parse(write(words))) == write(words)


@pytest.mark.parametrize("column", CONFIGS)
def test_columns_are_written_as_table_1_prints_them(column: str) -> None:
    assert write(CONFIGS[column].words) == " ".join(CONFIGS[column].notation.split())


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("conv3-64", Word("conv", 64, 3, 1, 1)),
        ("conv1-256", Word("conv", 256, 1, 1, 0)),
        ("conv11-64/s4p2", Word("conv", 64, 11, 4, 2)),
        ("conv3-64/p0", Word("conv", 64, 3, 1, 0)),
        ("conv3-64/s2", Word("conv", 64, 3, 2, 1)),
        ("maxpool", Word("maxpool", 0, 2, 2, 0)),
        ("maxpool3", Word("maxpool", 0, 3, 2, 0)),
        ("maxpool3/s1p1", Word("maxpool", 0, 3, 1, 1)),
        ("avgpool", Word("avgpool", 0, 2, 2, 0)),
        ("FC-4096", Word("fc", 4096)),
        ("soft-max", Word("softmax")),
        ("Softmax", Word("softmax")),
        ("lrn", Word("lrn")),
    ],
)
def test_each_word(text: str, word: Word) -> None:
    assert parse(text) == (word,)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("conv3-64 convx maxpool", "word 2, 'convx', cannot be read"),
        ("conv3-64/", "word 1, 'conv3-64/', cannot be read"),
        ("conv0-64", "kernel 0 makes no sense"),
        ("conv3-0", "channels 0 makes no sense"),
        ("conv3-64/s0", "stride 0 makes no sense"),
        ("maxpool2/p2", "padding 2 is more than half the window of 2"),
        ("FC-10/s2", "only a conv or a pool has a stride"),
        ("FC-10 conv3-64", "comes after an FC layer"),
        ("soft-max FC-10", "is not the last"),
        ("maxpool BN", "has no convolution to normalise"),
        ("conv3-99999999", "channels 99999999 makes no sense"),
        ("   ", "empty"),
        ("conv٣-64", "cannot be read"),
    ],
)
def test_an_error_points_at_the_word(line: str, said: str) -> None:
    with pytest.raises(NotationError) as caught:
        parse(line)
    assert said in caught.value.problem
    assert caught.value.remedy
    assert "\n" not in caught.value.problem


@given(st.text(max_size=40))
def test_any_text_reads_or_is_refused(line: str) -> None:
    try:
        words = parse(line)
    except VggscopeError:
        return
    assert parse(write(words)) == words


def test_relu_follows_every_conv_and_every_hidden_fc() -> None:
    names = [node.op.name for node in resolve("conv3-4 BN maxpool conv3-4 LRN FC-5 FC-6").nodes]
    assert names == [
        *("Conv2d", "BatchNorm2d", "ReLU", "MaxPool2d", "Conv2d", "ReLU", "LocalResponseNorm"),
        *("AdaptiveAvgPool2d", "Flatten", "Linear", "ReLU", "Dropout", "Linear"),
    ]


def test_a_line_without_fc_is_a_feature_extractor() -> None:
    network = resolve("conv3-4 maxpool")
    assert [node.name for node in network.nodes] == ["features.0", "features.1", "features.2"]
    assert network.output_shape(network.nodes[-1]) == (1, 4, 112, 112)
