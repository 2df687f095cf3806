"""Checkpoints as public code writes them: whose they are, and that the lines printed for each load it when run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest

from tests.test_inspect import CAFFE, VGG16, renamed, run, saved, torchvision, without
from vggscope.analysis.inspection.inspect import Inspection
from vggscope.sources.checkpoint import inspect

State = Mapping[str, Any]


def prefixed(state: State, *prefixes: str) -> State:
    """The state dict with something before each key."""
    return {"".join(prefixes) + key: value for key, value in state.items()}


def loaded(found: Inspection) -> tuple[list[str], list[str]]:
    """The keys that are missing and those that are too much as torch tells them once the printed lines were run."""
    lines = found.load.splitlines()
    lines[-1] = f"told = {lines[-1]}\nmodel.told = told"
    told = run("\n".join(lines)).told
    return list(told.missing_keys), list(told.unexpected_keys)


def small() -> Any:
    """A VGG of two convolutions and two FC layers for images of 28x28."""
    import vggscope

    return vggscope.build("conv3-8 maxpool conv3-16 maxpool FC-32 FC-10", input_size=(3, 28, 28))


# Wrappers that leave a part in the keys


@pytest.mark.parametrize(
    ("part", "style"),
    [
        ("module.", "DataParallel"),
        ("_orig_mod.", "torch.compile"),
        ("_fsdp_wrapped_module.", "FSDP"),
        ("_checkpoint_wrapped_module.", "checkpoint_wrapper"),
    ],
)
@pytest.mark.parametrize("outer", ["", "module.", "model."])
def test_a_wrapper_inside_the_network_is_stepped_over(tmp_path: Path, part: str, style: str, outer: str) -> None:
    # pytorch/examples/imagenet wraps only the features of a VGG: features.module.0.weight beside classifier.0.weight
    state = {outer + key.replace("features.", f"features.{part}"): v for key, v in torchvision("vgg16").items()}
    found = inspect(saved(tmp_path / "x.pth.tar", state, "state_dict"))
    assert (found.column, found.num_classes, found.problems) == ("D", 1000, ())
    assert found.key_style.split() == [*dict.fromkeys(["DataParallel"] * (outer == "module.") + [style]), "torchvision"]
    assert "torchvision.models.vgg16()" in found.load
    assert loaded(found) == ([], [])


def test_wrappers_in_one_another(tmp_path: Path) -> None:
    for parts in ("_orig_mod.module.", "module._orig_mod."):
        found = inspect(saved(tmp_path / "x.pth", prefixed(torchvision("vgg11"), parts)))
        assert (found.column, found.key_style) == ("A", "DataParallel torch.compile torchvision")
        assert found.prefix == parts
        assert loaded(found) == ([], [])


# Names of other people's


def rcnn() -> State:
    """jwyang/faster-rcnn.pytorch: the features and the FC layers under two names, without fc8."""
    state = without(torchvision("vgg16"), "classifier.6")
    return {k.replace("features.", "RCNN_base.").replace("classifier.", "RCNN_top."): v for k, v in state.items()}


def convmodules(batch_norm: bool) -> State:
    """mmpretrain: each convolution in a ConvModule, without a bias before a batch norm; pools between them."""
    import torch

    found: dict[str, Any] = {}
    number, channels = 0, 3
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512):
        name, norm = f"backbone.features.{number}.conv", f"backbone.features.{number}.bn"
        number += 1
        if not width:
            continue
        found[f"{name}.weight"] = torch.empty(width, channels, 3, 3, device="meta")
        if batch_norm:
            leaves = ("weight", "bias", "running_mean", "running_var")
            found |= {f"{norm}.{leaf}": torch.empty(width, device="meta") for leaf in leaves}
        else:
            found[f"{name}.bias"] = torch.empty(width, device="meta")
        channels = width
    return found | {f"backbone.{k}": v for k, v in torchvision("vgg16").items() if k.startswith("classifier")}


def cifar(*places: int) -> State:
    """chengyangfu/pytorch-vgg-cifar10 and its like: FC layers of 512 on a map of 1x1, numbered with their dropout."""
    import torch

    state = {k: v for k, v in torchvision("vgg16_bn").items() if k.startswith("features")}
    for number, units in zip(places, (512, 512, 10)):
        state[f"classifier.{number}.weight"] = torch.empty(units, 512, device="meta")
        state[f"classifier.{number}.bias"] = torch.empty(units, device="meta")
    return state


VGG_FACE = {path: label.replace("conv", "conv_") for path, label in CAFFE.items()}
"""prlz77/vgg-face.pytorch."""

UDACITY = {f"features.{i}": f"features.{i}" for i in VGG16} | {
    f"classifier.{i}": f"classifier.fc{n}" for n, i in enumerate((0, 3, 6), 1)
}


@pytest.mark.parametrize(
    ("make", "column", "classes", "style"),
    [
        (rcnn, "D", None, "bare Sequential"),
        (lambda: convmodules(False), "D", 1000, "other"),
        (lambda: convmodules(True), "D", 1000, "other"),
        (lambda: cifar(1, 4, 6), "D", 10, "torchvision"),
        (lambda: cifar(0, 3, 6), "D", 10, "torchvision"),
        (lambda: renamed(torchvision("vgg16", num_classes=2622), VGG_FACE), "D", 2622, "Caffe-like"),
        (lambda: renamed(torchvision("vgg16", num_classes=102), UDACITY), "D", 102, "torchvision"),
        (lambda: prefixed(renamed(torchvision("vgg16"), CAFFE), "vgg_net."), "D", 1000, "Caffe-like"),
    ],
)
def test_every_key_of_the_file_finds_its_place(
    tmp_path: Path, make: Callable[[], State], column: str, classes: int | None, style: str
) -> None:
    state = make()
    found = inspect(saved(tmp_path / "x.pth", state))
    assert (found.column, found.num_classes, found.key_style) == (column, classes, style)
    assert not found.extra
    assert loaded(found) == ([], [])


def test_a_network_of_its_own_under_two_names_is_built_with_them(tmp_path: Path) -> None:
    # Eric-mingjie/network-slimming: feature.N and classifier, the widths cut as each layer bears
    names = {"features.0": "feature.0", "features.3": "feature.3", "classifier.0": "fc.0", "classifier.3": "fc.3"}
    found = inspect(saved(tmp_path / "x.pth", renamed(small().state_dict(), names)))
    assert (found.prefix, found.num_classes) == ("", 10)
    assert loaded(found) == ([], [])


# Weights kept in parts


def spectral(layer: Any) -> None:
    from torch.nn.utils import spectral_norm

    spectral_norm(layer)


def weight(layer: Any) -> None:
    from torch.nn.utils import weight_norm

    weight_norm(layer)


def spectral_parametrization(layer: Any) -> None:
    from torch.nn.utils.parametrizations import spectral_norm

    spectral_norm(layer)


def weight_parametrization(layer: Any) -> None:
    from torch.nn.utils.parametrizations import weight_norm

    weight_norm(layer)


def pruned(layer: Any) -> None:
    from torch.nn.utils import prune

    prune.l1_unstructured(layer, "weight", amount=0.3)  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("make", [spectral, weight, spectral_parametrization, weight_parametrization, pruned])
def test_a_weight_in_parts_is_that_weight(tmp_path: Path, make: Callable[[Any], None]) -> None:
    import torch
    from torch import nn

    model = small().eval()
    plain = sum(parameter.numel() for parameter in model.parameters())
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            make(layer)
    image = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    torch.save(model.state_dict(), tmp_path / "x.pth")
    found = inspect(tmp_path / "x.pth")
    assert (found.notation, found.num_classes) == ("conv3-8 maxpool? conv3-16 maxpool? FC-32 FC-10", 10)
    assert found.params == sum(parameter.numel() for parameter in model.parameters())
    assert found.params == plain + (8 + 16 + 32 + 10 if make in (weight, weight_parametrization) else 0)
    assert found.buffers == sum(buffer.numel() for buffer in model.buffers())
    told: dict[str, Any] = {}
    exec(found.load, told)
    torch.testing.assert_close(told["model"].eval()(image), model(image))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_column_whose_weights_are_in_parts(tmp_path: Path) -> None:
    import torch
    from torch.nn.utils import prune

    import vggscope

    with torch.device("meta"):
        model = vggscope.build("A")
        for layer in list(model.modules()):
            if hasattr(layer, "weight"):
                prune.identity(layer, "weight")  # type: ignore[no-untyped-call]
    found = inspect(saved(tmp_path / "x.pth", model.state_dict()))
    assert (found.column, found.params, found.problems) == ("A", 132_863_336, ())
    assert found.buffers == 132_863_336 - sum(v.numel() for k, v in model.state_dict().items() if "bias" in k)
    assert loaded(found) == ([], [])
    assert sum(prod(p.shape) for p in vggscope.network(str(tmp_path / "x.pth")).parameters()) == 132_863_336
