"""Which VGG a model is held to: by its layers with weights, whatever else was changed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from vggscope.api import diff, network
from vggscope.errors import ModelError
from vggscope.graph import Network
from vggscope.sources.reference import reference_for
from vggscope.vgg.likeness import likeness, weight_layers
from vggscope.vgg.options import BuildOptions

STAGES = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}

WIDTHS = (64, 128, 256, 512, 512)


def conv(before: int, width: int, kernel: int = 3, **options: object) -> list[nn.Module]:
    return [nn.Conv2d(before, width, kernel, padding=kernel // 2, **options), nn.ReLU()]


def separable(before: int, width: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(before, before, 3, padding=1, groups=before) if before > 3 else nn.Conv2d(3, 3, 3, padding=1)
    return [depthwise, nn.ReLU(), nn.Conv2d(before, width, 1), nn.ReLU()]


def head(features: int = 512 * 49, units: int = 4096, classes: int = 1000) -> list[nn.Module]:
    hidden = [nn.Linear(features, units), nn.ReLU(), nn.Dropout(), nn.Linear(units, units), nn.ReLU(), nn.Dropout()]
    return [nn.Flatten(), *hidden, nn.Linear(units, classes)]


def vgg(
    name: str,
    layer: Callable[[int, int], list[nn.Module]] = conv,
    pool: Callable[[int], list[nn.Module]] = lambda width: [nn.MaxPool2d(2)],
    end: Callable[[], list[nn.Module]] = head,
    widths: tuple[int, ...] = WIDTHS,
) -> nn.Sequential:
    layers, before = [], 3
    for count, width in zip(STAGES[name], widths):
        for _ in range(count):
            layers += layer(before, width)
            before = width
        layers += pool(width)
    return nn.Sequential(*layers, *end())


def with_norm(position: int) -> Callable[[int, int], list[nn.Module]]:
    """A convolution whose batch norm stands before it (0), after it (1) or after its ReLU (2)."""

    def layer(before: int, width: int) -> list[nn.Module]:
        layers = conv(before, width, bias=False)
        layers.insert(position, nn.BatchNorm2d(width if position else before))
        return layers

    return layer


def global_mean() -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10)]


MUTILATED: dict[str, tuple[Callable[[str], nn.Module], str]] = {
    "average pools": (lambda name: vgg(name, pool=lambda width: [nn.AvgPool2d(2)]), ""),
    "overlapping pools": (lambda name: vgg(name, pool=lambda width: [nn.MaxPool2d(3, 2, 1)]), ""),
    "no pools": (lambda name: vgg(name, pool=lambda width: [], end=global_mean), ""),
    "strided convolutions for pools": (
        lambda name: vgg(name, pool=lambda width: [nn.Conv2d(width, width, 3, 2, 1), nn.ReLU()]),
        "",
    ),
    "no biases": (lambda name: vgg(name, lambda a, b: conv(a, b, bias=False)), ""),
    "kernels of 5x5": (lambda name: vgg(name, lambda a, b: conv(a, b, 5)), ""),
    "no padding": (lambda name: vgg(name, lambda a, b: [nn.Conv2d(a, b, 3), nn.ReLU()], end=global_mean), ""),
    "other activations": (lambda name: vgg(name, lambda a, b: [*conv(a, b)[:1], nn.GELU()]), ""),
    "global mean, ten classes": (lambda name: vgg(name, end=global_mean), ""),
    "no head": (lambda name: vgg(name, end=list), ""),
    "narrow head": (lambda name: vgg(name, end=lambda: head(units=512, classes=10)), ""),
    "halved widths": (
        lambda name: vgg(name, widths=tuple(w // 2 for w in WIDTHS), end=lambda: head(256 * 49)),
        "",
    ),
    "depthwise separable": (lambda name: vgg(name, separable), ""),
    "norm after the ReLU, everything else wrong too": (
        lambda name: vgg(name, with_norm(2), lambda width: [nn.AvgPool2d(2)]),
        "_bn",
    ),
    "norm before the convolution": (lambda name: vgg(name, with_norm(0)), "_bn"),
    "norm, no pools": (lambda name: vgg(name, with_norm(1), lambda width: [], global_mean), "_bn"),
    "one norm before all": (lambda name: nn.Sequential(nn.BatchNorm2d(3), vgg(name)), ""),
    "norm in the head alone": (lambda name: nn.Sequential(vgg(name), nn.BatchNorm1d(1000)), ""),
}


def on_meta(make: Callable[[str], nn.Module], name: str) -> nn.Module:
    """The module without data: 138 million weights need not be drawn."""
    with torch.device("meta"):
        return make(name)


def chosen(ours: Network, word: str = "torchvision") -> str:
    return reference_for(word, "", ours, BuildOptions()).network.name


@pytest.mark.parametrize(
    "name", [name if name == "vgg16" else pytest.param(name, marks=pytest.mark.slow) for name in STAGES]
)
@pytest.mark.parametrize("kind", MUTILATED)
def test_a_mutilated_vgg_is_held_to_the_one_that_it_was(kind: str, name: str) -> None:
    make, suffix = MUTILATED[kind]
    assert chosen(network(on_meta(make, name), (3, 224, 224))) == f"torchvision:{name}{suffix}"


@pytest.mark.parametrize("kind", ["average pools", "halved widths", "norm after the ReLU, everything else wrong too"])
def test_small_images_change_nothing(kind: str) -> None:
    make, suffix = MUTILATED[kind]
    features = nn.Sequential(*list(on_meta(make, "vgg16"))[:-8])
    assert chosen(network(features, (3, 32, 32))) == f"torchvision:vgg16{suffix}"


@pytest.mark.parametrize("name", STAGES)
def test_a_vgg_is_most_like_itself(name: str) -> None:
    found = likeness(network(on_meta(vgg, name), (3, 224, 224)), network(name))
    convolutions = sum(STAGES[name])
    assert found.text == f"{convolutions} of {convolutions} convolutions, 3 of 3 fully connected layers"
    assert (found.cost, found.width, found.is_same_family) == (0, 1, True)


def test_the_counts_are_of_equal_layers() -> None:
    """By hand: C has three 1x1 convolutions, and fc6 of a 6x6 map reads another number of features."""
    assert likeness(network("C"), network("D")).text == "10 of 13 convolutions, 3 of 3 fully connected layers"
    flat = network(vgg("vgg16", end=lambda: head(512 * 36)), (3, 192, 192))
    assert likeness(flat, network("D")).text == "13 of 13 convolutions, 2 of 3 fully connected layers"
    more = likeness(network("E"), network("D"))
    assert more.text == "13 of 13 convolutions (the model has 16), 3 of 3 fully connected layers"
    half = network(vgg("vgg11", widths=(32, 64, 128, 256, 256), end=list), (3, 224, 224))
    assert likeness(half, network("A")).text == (
        "8 of 8 convolutions at 0.5 times the channels, 0 of 3 fully connected layers (the model has 0)"
    )


def test_without_a_head_the_reference_is_still_torchvisions() -> None:
    features = network(on_meta(lambda name: vgg(name, end=list), "vgg13"), (3, 224, 224))
    assert reference_for(None, "", features, BuildOptions()).network.name == "torchvision:vgg13"


def written(text: str, tmp_path: Path) -> str:
    path = tmp_path / "net.py"
    path.write_text(f"from torch import nn\nfrom torchvision import models\ndef net():\n    return {text}\n")
    return f"{path}:net"


THREE_LAYERS = """nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 64, 10))"""


def test_a_cnn_of_three_layers_is_no_vgg(vggscope, tmp_path: Path) -> None:
    word = written(THREE_LAYERS, tmp_path)
    ran = vggscope("diff", word, "--input", "3x32x32", "-f", "json")
    result = json.loads(ran.out)
    assert (ran.code, ran.err, result["verdict"], result["compared"]) == (1, "", "different", False)
    assert (result["differences"], result["rows"], result["numeric"]) == ([], [], None)
    # At an eighth of the channels, 512 / 8 = 64 is the widest, conv3_1 has 32 and conv4_1 has 64.
    assert result["likeness"]["convolutions"] == {"equal": 2, "ours": 2, "reference": 8}
    assert result["likeness"]["width"] == 1 / 8
    # By hand: 3x3 kernels over 3 and 32 channels, then 4,096 features for ten classes.
    assert result["params"]["ours"] == 32 * 28 + 64 * 289 + 4097 * 10
    told = " ".join(vggscope("diff", word, "--input", "3x32x32").out.split())
    assert "different: no VGG: " in told
    assert "2 of 8 convolutions (the model has 2) at 0.125 times the channels" in told
    assert told.endswith("--ref names a reference")
    # A reference that is named is compared with, layer by layer.
    named = vggscope("diff", word, "torchvision:vgg11", "--input", "3x32x32", "-f", "json")
    assert json.loads(named.out)["compared"]
    assert json.loads(named.out)["differences"]
    for form in ("markdown", "html", "csv"):
        assert vggscope("diff", word, "--input", "3x32x32", "-f", form).code == 1
    drawn = vggscope("diff", word, "--input", "3x32x32", "-o", str(tmp_path / "x.svg"))
    assert (drawn.code, (tmp_path / "x.svg").exists()) == (2, False)
    assert "is no VGG" in drawn.err


@pytest.mark.parametrize(
    "name",
    ["resnet18", "resnet50", "mobilenet_v2", "squeezenet1_0", "densenet121", "googlenet", "efficientnet_b0"],
)
def test_other_architectures_are_no_vgg(name: str) -> None:
    found = reference_for(None, "", network(f"torchvision:{name}"), BuildOptions()).likeness
    assert found is not None
    assert not found.is_same_family


PUBLISHED = [
    ("models.vgg13_bn()", "", "torchvision:vgg13_bn", "identical"),
    ("models.vgg16(num_classes=10)", "", "vgg16-10", "identical"),
    ("models.vgg16(num_classes=2622)", "", "vgg-face", "identical"),
    ("nn.Sequential(models.vgg11_bn().features, nn.Flatten(), nn.Linear(512, 10))",
     "3x32x32", "vgg11-cifar_bn", "equivalent"),
    ("nn.Sequential(models.vgg19().features, nn.Flatten(), nn.Dropout(), nn.Linear(512, 512), nn.ReLU(), nn.Dropout(),"
     " nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))", "3x32x32", "vgg19-cifar-512", "equivalent"),
    ("nn.Sequential(nn.Conv2d(3, 96, 7, 2), nn.ReLU(), nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0),"
     " nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(96, 256, 5, 2, 1), nn.ReLU(),"
     " nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0), nn.MaxPool2d(3, 2, ceil_mode=True),"
     " nn.Conv2d(256, 512, 3, 1, 1), nn.ReLU(), nn.Conv2d(512, 512, 3, 1, 1), nn.ReLU(),"
     " nn.Conv2d(512, 512, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Flatten(), nn.Linear(18432, 4096), nn.ReLU(),"
     " nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 1000))",
     "3x224x224", "cnn-m", "equivalent"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "size", "reference", "verdict"), PUBLISHED)
def test_without_ref_a_file_is_held_to_what_it_is_most_like(
    text: str, size: str, reference: str, verdict: str, vggscope, tmp_path: Path
) -> None:
    ran = vggscope("diff", written(text, tmp_path), "-f", "json", *(["--input", size] if size else []))
    result = json.loads(ran.out)
    assert (result["reference"], result["verdict"], ran.code) == (reference, verdict, 0)
    assert result["notes"][0].startswith(f"most like {reference}: ")


def test_a_second_word_is_the_reference(vggscope) -> None:
    assert vggscope("diff", "D", "E") == vggscope("diff", "D", "--ref", "E")
    both = vggscope("diff", "D", "E", "--ref", "C")
    assert (both.code, both.out) == (2, "")
    assert "two references, E and C" in both.err
    unquoted = vggscope("diff", "conv3-64", "FC-10")
    assert (unquoted.code, unquoted.out) == (2, "")
    assert 'one word: vggscope diff "conv3-64 FC-10"' in unquoted.err


def test_a_signal_has_no_vgg_to_be_like() -> None:
    with pytest.raises(ModelError, match="does not take one image"):
        diff(nn.Conv1d(1, 4, 3), input_size=(1, 100))


@pytest.mark.parametrize(
    ("word", "options", "name"),
    [
        ("C", {}, "the paper's column C"),
        ("vgg16_bn", {}, "the paper's column D with batch norm added"),
        ("A", {"num_classes": 10}, "the paper's column A with 10 classes"),
        ("A", {"num_classes": 1000, "input_size": (3, 225, 240)}, "the paper's column A"),
        ("B", {"input_size": (1, 224, 224)}, "the paper's column B with 1 input channel"),
        ("E", {"input_size": (3, 64, 64)}, "the paper's column E with torchvision's head"),
        (
            "vgg11_bn",
            {"num_classes": 10, "input_size": (3, 32, 32)},
            "the paper's column A with batch norm added, 10 classes and torchvision's head",
        ),
    ],
)
def test_only_what_the_paper_has_is_called_its_own(word: str, options: dict[str, Any], name: str) -> None:
    assert diff(word, "paper", **options).reference == name


@pytest.mark.parametrize("side", [32, 64, 224])
def test_a_model_that_stops_part_way_is_judged_by_all_layers_that_it_holds(side: int) -> None:
    """Without padding, a VGG-16 stops at its third, fourth and last stage on these images."""
    layers, before = [], 3
    for repeats, width in zip(STAGES["vgg16"], WIDTHS):
        for _ in range(repeats):
            layers += [nn.Conv2d(before, width, 3), nn.ReLU()]
            before = width
        layers.append(nn.MaxPool2d(2))
    net = nn.Sequential(*layers, *head())
    found = diff(net, input_size=(3, side, side))
    assert found.reference == "torchvision:vgg16"
    assert found.likeness is not None
    assert found.likeness.text == "13 of 13 convolutions, 3 of 3 fully connected layers"
    label = found.differences[0].label
    assert (label, found.differences[0].changes[0].attribute) == ("conv1_1", "padding")


def test_a_convolution_as_small_as_its_input_is_no_fully_connected_layer() -> None:
    """At 7x7, the third of three unpadded convolutions sees a map of its own size."""
    convolutions = [nn.Conv2d(before, 64, 3) for before in (3, 64, 64)]
    net = nn.Sequential(*convolutions, nn.Flatten(), nn.Linear(64, 5))
    kernels = [layer.kernel for layer in weight_layers(network(net, (3, 7, 7)))]
    assert kernels == [(3, 3), (3, 3), (3, 3), ()]
    dense = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.Conv2d(64, 512, 3), nn.Conv2d(512, 10, 1))
    assert [layer.kernel for layer in weight_layers(network(dense, (3, 3, 3)))] == [(3, 3), (), ()]
