"""`--only`: a part of a network is drawn, with the figures that it has in the whole."""

from __future__ import annotations

import pytest
import torch
from torchvision.models import resnet18

from tests.test_branches import UNet
from vggscope.drawing import STYLES, diagram
from vggscope.drawing.picture import Picture, Text
from vggscope.drawing.subject import Subject
from vggscope.errors import OptionError
from vggscope.sources.resolve import resolve
from vggscope.trace.inputs import CallInputs
from vggscope.trace.network import network_of


def drawn(only: str, word: str = "D") -> list[str]:
    return [layer.name for layer in Subject(resolve(word), only=only).layers]


def texts(picture: Picture) -> list[str]:
    return [shape.text for shape in picture.shapes() if isinstance(shape, Text)]


@pytest.mark.parametrize(
    ("only", "first", "last", "count"),
    [
        ("stage3..stage5", "conv3_1", "pool5", 21),
        ("Stage 3 .. stage 5", "conv3_1", "pool5", 21),
        ("conv1_2..features.5", "conv1_2", "conv2_1", 4),
        ("stage2", "conv2_1", "pool2", 5),
        ("fc7", "fc7", "fc7", 1),
        ("classifier", "avgpool", "fc8", 9),  # the stage as it is drawn
    ],
)
def test_the_layers_of_a_part_are_those_between_its_ends(only: str, first: str, last: str, count: int) -> None:
    names = drawn(only)
    assert (names[0], names[-1], len(names)) == (first, last, count)


def test_a_module_is_a_part_with_the_figures_of_the_whole() -> None:
    module = resnet18().layer2
    whole = Subject(resolve("torchvision:resnet18"))
    subject = Subject(resolve("torchvision:resnet18"), only="layer2")
    assert sum(layer.report.params or 0 for layer in subject.layers) == sum(p.numel() for p in module.parameters())
    fields = {layer.name: layer.report.receptive_field for layer in whole.layers}
    assert all(layer.report.receptive_field == fields[layer.name] for layer in subject.layers)
    assert subject.caption.startswith("layer2: 525,568 of 11,689,512 parameters, ")
    (given,) = subject.inputs
    assert (given.label, given.shape, given.dtype) == ("layer1.1.relu:2", (1, 64, 56, 56), "")


def test_each_tensor_that_enters_a_part_is_an_input() -> None:
    network = network_of(UNet(), "UNet", CallInputs((torch.zeros(1, 3, 32, 32),)))
    subject = Subject(network, only="up2..up1")
    assert [(tensor.label, tensor.shape[1:]) for tensor in subject.inputs] == [
        ("middle", (32, 8, 8)),
        ("down2", (16, 16, 16)),
        ("down1", (8, 32, 32)),
    ]
    assert {"middle", "down1", "down2"} <= set(texts(diagram(network, only="up2..up1").picture))


PARTS = [("D", "conv3_2..stage4", style) for style in STYLES]
PARTS += [("torchvision:resnet18", "layer2.1..layer3", style) for style in STYLES if style != "table"]


@pytest.mark.parametrize(("word", "only", "style"), PARTS)
def test_every_style_draws_a_part(word: str, only: str, style: str) -> None:
    shown = " ".join(texts(diagram(resolve(word), style, only=only).picture))
    whole = " ".join(texts(diagram(resolve(word), style).picture))
    assert "classifier" not in shown
    assert "fc" not in shown
    assert len(shown) < len(whole)


def test_a_part_that_is_not_there_is_refused_with_the_names_that_are() -> None:
    with pytest.raises(
        OptionError, match="no stage, module or layer is called 'stage7', did you mean stage5"
    ) as caught:
        diagram(resolve("D"), only="stage7")
    assert "stage1, stage2" in str(caught.value.remedy)
    with pytest.raises(OptionError, match="stage5 comes after stage3") as caught:
        diagram(resolve("D"), only="stage5..stage3")
    assert "stage3..stage5" in str(caught.value.remedy)
    for odd in ("..", "stage3..", "..stage3", "", "stage3..stage4..stage5"):
        with pytest.raises(OptionError, match="no stage, module or layer"):
            diagram(resolve("D"), only=odd)
