"""Published networks beside Table 1, held to torch modules as their authors wrote them, and to hand formulas."""

from __future__ import annotations

import json
from math import prod

import pytest
import torch
import torchvision
from torch import nn

from vggscope.api import build, diff, network
from vggscope.sources.resolve import resolve
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.families import FAMILIES
from vggscope.vgg.options import BuildOptions

PLAN_D = (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0)


def features(plan: tuple[int, ...] = PLAN_D, norm: bool = False) -> list[nn.Module]:
    layers, before = [], 3
    for width in plan:
        if not width:
            layers.append(nn.MaxPool2d(2, 2))
            continue
        layers.append(nn.Conv2d(before, width, 3, padding=1))
        layers += [nn.BatchNorm2d(width), nn.ReLU(inplace=True)] if norm else [nn.ReLU(inplace=True)]
        before = width
    return layers


class Cifar(nn.Module):
    """VGG-16 for 32x32 with any classifier."""

    def __init__(self, classifier: nn.Module, norm: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(*features(norm=norm))
        self.classifier = classifier

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.classifier(torch.flatten(self.features(x), 1))


def hidden(units: int) -> nn.Sequential:
    return nn.Sequential(
        *(nn.Linear(512, units), nn.ReLU(inplace=True), nn.Dropout()),
        *(nn.Linear(units, units), nn.ReLU(inplace=True), nn.Dropout()),
        nn.Linear(units, 10),
    )


def dropout_first() -> nn.Sequential:
    return nn.Sequential(
        *(nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True)),
        *(nn.Dropout(), nn.Linear(512, 512), nn.ReLU(inplace=True)),
        nn.Linear(512, 10),
    )


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize(
    ("word", "classifier"),
    [
        ("vgg16-cifar", lambda: nn.Sequential(nn.Linear(512, 10))),
        ("vgg16-cifar-512", dropout_first),
        ("vgg16-cifar-4096", lambda: hidden(4096)),
    ],
)
def test_cifar_heads_are_those_that_people_write(word: str, classifier, norm: bool) -> None:
    word += "_bn" if norm else ""
    with torch.device("meta"):
        ours = Cifar(classifier(), norm)
    compared = diff(ours, word, (3, 32, 32))
    assert (compared.verdict, compared.differences) == ("identical", ())
    assert list(build(word).state_dict()) == list(ours.state_dict())


def test_a_face_is_one_of_2622() -> None:
    """By hand: fc8 has 2,622 units of 4,096 weights and a bias, where D has 1,000."""
    face, d = network("vgg-face"), network("D")
    assert face.shapes[face.end] == (1, 2622)
    params = [sum(prod(p.shape) for p in shown.parameters()) for shown in (face, d)]
    assert params[0] - params[1] == 1622 * 4097


# Kernel, stride and padding of each convolution and each pool, and whether a normalisation comes between, as in the
# paper's table and the published weights; the maps follow by (W-K+2P)/S+1, pools rounded up.
DEVIL = {
    "cnn-f": ([54, 27, 27, 13, 13, 13, 13, 6], 256, 2),
    "cnn-m": ([109, 54, 26, 13, 13, 13, 13, 6], 512, 2),
    "cnn-s": ([109, 37, 33, 17, 17, 17, 17, 6], 512, 1),
}


@pytest.mark.parametrize("word", DEVIL)
def test_the_maps_of_chatfield_et_al(word: str) -> None:
    sides, channels, norms = DEVIL[word]
    shown = network(word)
    windowed = [node for node in shown.nodes if node.op.label_prefix in ("conv", "pool")]
    assert [shown.shapes[node.name][-1] for node in windowed] == sides
    (first,) = (node.op for node in shown.nodes if node.label == "fc4")
    assert (first.in_features, first.out_features) == (channels * 6 * 6, 4096)
    assert sum(node.op.notation == "lrn" for node in shown.nodes) == norms
    with torch.no_grad():
        assert build(word)(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)


def test_the_backbone_of_ssd_is_torchvisions() -> None:
    with torch.device("meta"):
        backbone = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None).backbone
    theirs = [module for module in backbone.modules() if isinstance(module, (nn.Conv2d, nn.MaxPool2d))]
    ours = [m for m in build("ssd300").modules() if isinstance(m, (nn.Conv2d, nn.MaxPool2d))]
    attributes = ("kernel_size", "stride", "padding", "dilation", "out_channels")

    def read(module: nn.Module) -> list[object]:
        values = (getattr(module, name, None) for name in attributes)
        return [(value, value) if isinstance(value, int) else value for value in values]

    # torchvision lists conv4_3 and what follows in other modules, in the same order, then the predictors' layers.
    assert [read(m) for m in theirs[: len(ours)]] == [read(m) for m in ours]
    assert [n.shapes[n.end] for n in [network("ssd300")]] == [(1, 1024, 19, 19)]


def test_the_backbone_of_fcn() -> None:
    """By hand: 500 + 200 - 2 = 698, halved five times and rounded up 22, less 6 by fc6's kernel of 7."""
    shown = network("fcn32s")
    assert shown.shapes["features.0"] == (1, 64, 698, 698)
    assert shown.shapes[shown.end] == (1, 21, 16, 16)
    small = resolve("fcn32s", BuildOptions(input=(3, 97, 97)))
    plan = [nn.MaxPool2d(2, 2, ceil_mode=True) if isinstance(m, nn.MaxPool2d) else m for m in features()]
    plan[0] = nn.Conv2d(3, 64, 3, padding=100)
    with torch.device("meta"):
        scores = nn.Sequential(*plan, nn.Conv2d(512, 4096, 7), nn.Conv2d(4096, 4096, 1), nn.Conv2d(4096, 21, 1))
    assert small.shapes[small.end] == tuple(scores.to("meta")(torch.empty(1, 3, 97, 97, device="meta")).shape)


@pytest.mark.parametrize("column", ["A", "B", "D", "E"])
def test_variants_of_columns(column: str) -> None:
    name = CONFIGS[column].literature
    assert diff(f"{name}-10", column, num_classes=10).verdict == "identical"
    dense = resolve(column, BuildOptions(head="dense"))
    assert diff(f"{name}-dense", dense).verdict == "identical"


@pytest.mark.parametrize("word", FAMILIES)
def test_every_family_is_listed_and_named_in_any_case(word: str, vggscope) -> None:
    shown = resolve(word)
    assert shown.failure is None
    assert shown.input_shape[1:] == FAMILIES[word].input
    assert resolve(word.upper()).nodes == shown.nodes
    normalised = resolve(f"{word}_bn")
    convolutions = sum(node.op.label_prefix == "conv" and node.name.startswith("features") for node in shown.nodes)
    assert sum(node.op.notation == "bn" for node in normalised.nodes) == convolutions


def test_list_shows_them(vggscope) -> None:
    listed = json.loads(vggscope("list", "-f", "json").out)["families"]
    assert [entry["name"] for entry in listed] == list(FAMILIES)
    assert all(any(part.strip(",").isdigit() for part in entry["source"].split()) for entry in listed)
    face = next(entry for entry in listed if entry["name"] == "vgg-face")
    assert (face["weight_layers"], face["notation"].split()[-1]) == (16, "FC-2622")


def test_options_apply(vggscope) -> None:
    assert network("vgg16-cifar", num_classes=100).shapes["classifier.0"] == (1, 100)
    assert network("cnn-m", (3, 256, 256), head="adaptive").shapes["avgpool"] == (1, 512, 6, 6)
    assert network("cnn-m", head="dense").shapes["classifier.6"] == (1, 1000, 1, 1)
    ran = vggscope("summary", "cnm-m")
    assert ran.code == 2
    assert "did you mean cnn-m?" in ran.err
