"""Branches inside the cards of a picture: what they say is what the network computes."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from vggscope.drawing import diagram
from vggscope.drawing.branches import TOP, Rail, block_rails, read_from_elsewhere, stage_rails, starts_branch
from vggscope.drawing.picture import Line, Picture, Point, Text
from vggscope.drawing.stages import LayerBlock, Stage
from vggscope.drawing.subject import Subject
from vggscope.sources.resolve import resolve
from vggscope.trace.inputs import CallInputs
from vggscope.trace.network import network_of


def cards(word: str) -> dict[str, Stage]:
    return {stage.name: stage for stage in Subject(resolve(word)).stages}


def in_words(block: LayerBlock) -> set[tuple[str, str]]:
    """Who reads whom beside the row above, by the names of the rows."""
    names = [row.name for row in block.rows]

    def name(number: int) -> str:
        return "input" if number == TOP else names[number]

    return {(name(s), name(t)) for rail in block_rails(block) for s in rail.sources for t in rail.targets}


def test_the_shortcut_of_a_residual_block_leaves_its_input() -> None:
    first, second = cards("torchvision:resnet18")["layer2"].blocks
    assert in_words(first) == {("input", "downsample.0"), ("conv2", "add")}
    assert [starts_branch(first, number) for number in range(4)] == [False, False, True, False]
    assert in_words(second) == {("input", "add")}


def test_the_branches_of_an_inception_block_leave_one_line_and_enter_one() -> None:
    (block,) = cards("torchvision:googlenet")["inception3a"].blocks
    rails = {(rail.sources, rail.targets) for rail in block_rails(block)}
    assert rails == {((TOP,), (1, 3, 5)), ((0, 2, 4), (7,))}
    assert [row.name for row in block.rows][7] == "cat"


def test_a_gate_reads_what_it_scales() -> None:
    block = cards("torchvision:efficientnet_b0")["features.2"].blocks[1]
    assert in_words(block) == {("block.1.0", "block.2.mul"), ("input", "add")}


def test_a_dense_block_is_called_dense_and_a_residual_one_is_not() -> None:
    stages = cards("torchvision:densenet121")
    layers, closing = stages["features.denseblock1"].blocks
    assert layers.is_dense
    assert not closing.is_dense
    (rail,) = stage_rails(stages["features.denseblock1"])  # the last concatenation reads the block's input too
    assert rail == Rail((TOP,), (3,), 0)
    assert not any(block.is_dense for stage in cards("torchvision:resnet34").values() for block in stage.blocks)


class Up(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2 * channels, channels, 2, 2)
        self.conv = nn.Conv2d(2 * channels, channels, 3, padding=1)

    def forward(self, x: Tensor, beside: Tensor) -> Tensor:
        return self.conv(torch.cat([self.up(x), beside], 1)).relu()


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.middle = nn.Conv2d(16, 32, 3, padding=1)
        self.up2, self.up1 = Up(16), Up(8)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(nn.functional.max_pool2d(first, 2))
        return self.up1(self.up2(self.middle(nn.functional.max_pool2d(second, 2)), second), first)


def test_a_row_names_the_layer_of_another_card_that_it_reads() -> None:
    network = network_of(UNet(), "UNet", CallInputs((torch.zeros(1, 3, 32, 32),)))
    subject = Subject(network)
    names = {layer.node.name: layer.name for layer in subject.layers}
    elsewhere = {row: read for stage in subject.stages for row, read in read_from_elsewhere(stage, names).items()}
    assert elsewhere == {"up2.cat": ("down2",), "up1.cat": ("down1",)}
    texts = {shape.text for shape in diagram(network).picture.shapes() if isinstance(shape, Text)}
    assert {"from down1", "from down2"} <= texts


def test_dot_has_the_same_branches() -> None:
    text = diagram(resolve("torchvision:resnet18")).source
    within = set(re.findall(r'^  "layer2":r(\d+):w -> "layer2":r(\d+):w$', text, re.MULTILINE))
    # Of the cells, 0 is the heading, 1 and 6 are the titles of the two blocks.
    assert within == {("1", "4"), ("3", "5"), ("6", "9")}
    (card,) = [line for line in text.splitlines() if line.startswith('  "layer2" [')]
    ports = dict(re.findall(r'<td port="r(\d+)" align="left"[^>]*>([^<]*)<', card))
    assert (ports["4"], ports["5"], ports["9"]) == ("downsample.0", "add", "add")
    assert " port=" not in diagram(resolve("D")).source


def test_a_chain_has_no_lines_beside_its_rows() -> None:
    assert not any(block_rails(block) for stage in cards("D").values() for block in stage.blocks)
    assert not any(map(stage_rails, cards("D").values()))


@pytest.mark.parametrize("word", ["torchvision:googlenet", "torchvision:densenet121", "torchvision:swin_t"])
@pytest.mark.parametrize("fold", [True, False])
def test_lines_do_not_meet_in_a_lane_nor_cross_a_text(word: str, fold: bool) -> None:
    network = resolve(word)
    for stage in Subject(network, fold).stages:
        for rails in (stage_rails(stage), *map(block_rails, stage.blocks)):
            for number, rail in enumerate(rails):
                others = [other for other in rails[:number] if other.lane == rail.lane]
                assert all(rail.bottom <= other.top or other.bottom <= rail.top for other in others)
    assert crossed(diagram(network, fold=fold).picture) == []


def crossed(picture: Picture) -> list[str]:
    """The texts that a horizontal or vertical piece of a line passes through."""
    texts = [shape for shape in picture.shapes() if isinstance(shape, Text)]
    lines = [shape for shape in picture.shapes() if isinstance(shape, Line) and not shape.curved]
    pieces = [piece for line in lines for piece in pairwise(line.points)]
    return [text.text for text in texts if any(passes(piece, text) for piece in pieces)]


def passes(piece: tuple[Point, Point], text: Text) -> bool:
    (x, y), (x2, y2) = piece
    left, top, right, bottom = text.bounds
    # The top of the bounds is that of accents: a line may touch the room above small letters.
    top += 0.25 * text.size
    return min(x, x2) < right and left < max(x, x2) and min(y, y2) < bottom and top < max(y, y2)
