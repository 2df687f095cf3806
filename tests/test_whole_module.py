"""Whole modules that torch.save wrote: tensors, tree and, for a known order of layers, the network; no code runs."""

from __future__ import annotations

import functools
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models import get_model

import vggscope
from tests.peak_memory import HIGHEST
from tests.test_checkpoint import START, legacy, zipped
from vggscope.checkpoint.inspection import inspect
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError, OptionError, VggscopeError
from vggscope.foreign.torch.module import SEQUENTIALS
from vggscope.plain_data import plain_value


class Own(nn.Module):
    """A class whose forward no file holds."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 4
        self.layers = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.FractionalMaxPool2d(2, output_size=4)])
        self.scale = nn.Parameter(torch.zeros(4, 1, 1), requires_grad=False)
        self.register_buffer("table", torch.zeros(7))
        self.register_buffer("scratch", torch.zeros(9), persistent=False)


def meta(make: Callable[[], nn.Module]) -> nn.Module:
    with torch.device("meta"):
        return make()


def saved(path: Path, module: object, **options: Any) -> str:
    torch.save(module, path, **options)
    return str(path)


def shared() -> nn.Sequential:
    """A layer without weights that stands in several places, and two layers with the same weight."""
    relu, first, second = nn.ReLU(), nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(first, relu, second, relu, nn.Sequential(nn.Identity(), relu))


def frozen() -> nn.Sequential:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.LazyLinear(2))
    layers(torch.zeros(1, 3, 224, 224))
    layers[0].requires_grad_(False)
    return layers


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "vgg16": lambda: get_model("vgg16", num_classes=7),
    "vgg11_bn": lambda: get_model("vgg11_bn"),
    "alexnet": lambda: get_model("alexnet"),
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3, padding="same", bias=False),
        nn.BatchNorm2d(4),
        nn.PReLU(4),
        nn.ConvTranspose2d(4, 2, 2, groups=2),
        nn.LocalResponseNorm(3),
        nn.AvgPool2d(2),
        nn.GroupNorm(1, 2),
        nn.AdaptiveMaxPool2d(3),
        nn.Flatten(),
        nn.Linear(18, 3),
    ),
    "rows": lambda: nn.Sequential(nn.Linear(8, 6), nn.GELU(), nn.LayerNorm(6), nn.Dropout(0.2), nn.Linear(6, 2)),
    "torchvision's blocks": lambda: nn.Sequential(
        torchvision.ops.Conv2dNormActivation(3, 8), torchvision.ops.MLP(224, [8, 5])
    ),
    "shared": shared,
    "frozen": frozen,
    "half": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6()).half(),
}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("old", [False, True])
def test_the_figures_are_those_of_the_module(tmp_path: Path, name: str, old: bool) -> None:
    module = NETWORKS[name]() if name in ("frozen", "half") else meta(NETWORKS[name])
    path = saved(tmp_path / "model.pth", module, _use_new_zipfile_serialization=not old)
    ours, theirs = plain_value(vggscope.summary(path)), plain_value(vggscope.summary(module))
    told = {"model", "torch_count", "warnings"}
    assert {key: ours[key] for key in ours.keys() - told} == {key: theirs[key] for key in theirs.keys() - told}
    assert vggscope.diff(path, ref=module).verdict == "identical"
    for mode in ("train", "inference"):
        assert vggscope.memory(path, mode=mode, batch=3).peak_bytes == (
            vggscope.memory(module, mode=mode, batch=3).peak_bytes
        )


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0", "vit_b_32", "densenet121", "fasterrcnn_resnet50_fpn"])
def test_tensors_and_tree_are_those_of_the_module(tmp_path: Path, name: str) -> None:
    weights = {"weights_backbone": None} if "rcnn" in name else {}
    module = meta(lambda: get_model(name, weights=None, **weights))
    path = saved(tmp_path / "model.pth", {"epoch": 3, "model": module})
    found = read(path)
    assert (found.wrapper, found.beside) == (("model",), ("epoch",))
    assert [(t.name, t.shape) for t in found.tensors] == [(k, tuple(v.shape)) for k, v in module.state_dict().items()]
    parts = list(module.named_modules(remove_duplicate=False))
    assert [m.path for m in found.modules] == [path for path, _ in parts]
    kinds = [f"{type(part).__module__}.{type(part).__qualname__}" for _, part in parts]
    assert [m.kind for m in found.modules] == kinds
    assert inspect(path).params == sum(parameter.numel() for parameter in module.parameters())


def test_an_own_class_is_described_and_its_order_is_said_to_be_unknown(tmp_path: Path) -> None:
    path = saved(tmp_path / "own.pth", Own())
    found = inspect(path)
    assert [t.name for layer in found.layers for t in layer.tensors] == list(Own().state_dict())
    assert [(m.path, m.kind.rpartition(".")[2]) for m in found.modules][:2] == [("", "Own"), ("layers", "ModuleList")]
    assert dict(found.modules[0].settings)["width"] == 4
    assert [parameter.trainable for parameter in found.modules[0].parameters] == [False]
    assert [buffer.name for buffer in found.modules[0].buffers] == ["table", "scratch"]
    with pytest.raises(CheckpointError, match=r"Own is not in the file, and so the order .* is unknown") as caught:
        vggscope.summary(path)
    assert "torch.export" in caught.value.remedy
    with pytest.raises(CheckpointError, match=r"1 \(.*FractionalMaxPool2d\) has no rule"):
        vggscope.summary(saved(tmp_path / "pool.pth", nn.Sequential(nn.ReLU(), nn.FractionalMaxPool2d(2, 3))))
    with pytest.raises(CheckpointError, match=r"0 .*LSTM.* no rule"):
        vggscope.summary(saved(tmp_path / "lstm.pth", nn.Sequential(nn.LSTM(3, 4))))


def test_a_module_of_torchvisions_class_is_the_librarys_network(tmp_path: Path) -> None:
    """If its layers have the settings that the library gives them, and no hooks."""
    module = meta(lambda: get_model("resnet18", weights=None, num_classes=7))
    path = saved(tmp_path / "model.pth", module)
    assert vggscope.diff(path, ref=module).verdict == "identical"
    with pytest.raises(OptionError, match="the file has 7"):
        vggscope.summary(path, num_classes=5)
    module.layer2[0].conv1.stride = (1, 1)
    with pytest.raises(CheckpointError, match=r"ResNet is not in the file"):
        vggscope.summary(saved(tmp_path / "stride.pth", module))
    said = "layer2.0.conv1 has stride=(1, 1), in torchvision:resnet18 it is (2, 2)"
    assert vggscope.inspect(tmp_path / "stride.pth").problems == (said,)
    module.relu = nn.SiLU()
    assert vggscope.inspect(saved(tmp_path / "relu.pth", module)).problems == (
        "relu is of the class SiLU, in torchvision:resnet18 of ReLU",
        said,
    )
    module.relu = nn.ReLU(inplace=False)
    assert vggscope.inspect(path).problems == ()
    module.layer2[0].conv1.stride = (2, 2)
    module.fc.register_forward_hook(_hook)
    with pytest.raises(CheckpointError, match=r"ResNet is not in the file"):
        vggscope.summary(saved(tmp_path / "hook.pth", module))


def test_a_model_of_timm_without_a_classifier_has_the_librarys_settings(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    module = meta(lambda: timm.create_model("resnet10t", num_classes=0))
    found = vggscope.inspect(saved(tmp_path / "resnet10t.pth", module))
    assert (found.library_model, found.library_match, found.problems) == ("timm:resnet10t", "other classes", ())


def test_a_detector_of_other_classes_has_the_librarys_settings(tmp_path: Path) -> None:
    """`inspect` compares them with those of the library's module."""
    settings = {"weights": None, "weights_backbone": None, "num_classes": 5}
    module = meta(lambda: get_model("fasterrcnn_resnet50_fpn", **settings))
    path = saved(tmp_path / "model.pth", module)
    found = vggscope.inspect(path)
    assert (found.library_match, found.num_classes, found.problems) == ("other classes", 5, ())
    assert "num_classes=5" in found.load
    module.rpn.head.cls_logits.stride = (2, 2)
    assert vggscope.inspect(saved(tmp_path / "changed.pth", module)).problems == (
        "rpn.head.cls_logits has stride=(2, 2), in torchvision:fasterrcnn_resnet50_fpn it is (1, 1)",
    )


def _hook(*_: object) -> None:
    """A hook that a pickle can name."""


class OwnVGG(nn.Module):
    """A VGG by its keys, whose settings are not those of the paper."""

    def __init__(self, head: str = "classifier", *, activation: nn.Module | None = None, **others: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3), activation or nn.LeakyReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 16, 3, 2), nn.ELU()
        )
        self.last = head
        self.add_module(head, nn.Sequential(nn.Linear(16 * 7 * 7, 12), nn.Tanh(), nn.Dropout(0.3), nn.Linear(12, 5)))
        for name, other in others.items():
            self.add_module(name, other)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.get_submodule(self.last)(self.features(x).flatten(1))  # type: ignore[no-any-return]


SIZE = (3, 33, 33)
CODE = "the code of forward is not in the file"


@pytest.mark.parametrize(
    ("module", "note"),
    [
        (OwnVGG(), f"{CODE}: features and classifier are taken to follow one another, with a flatten between them"),
        (OwnVGG("head", loss=nn.CrossEntropyLoss()), f"{CODE}: the order of the layers is that of their keys"),
    ],
)
def test_a_vgg_of_an_own_class_has_the_settings_in_the_file(tmp_path: Path, module: nn.Module, note: str) -> None:
    """Of a state dict they would be guessed."""
    module.features.append(nn.MaxPool2d(3, 2))
    module.get_submodule(module.last)[0] = nn.Linear(16 * 3 * 3, 12)
    path = saved(tmp_path / "own.pth", module)
    assert vggscope.diff(path, ref=module, input_size=SIZE).verdict == "identical"
    summary = vggscope.summary(path, input_size=SIZE)
    assert [row.macs for row in summary.layers if row.op == "Conv2d"] == [31**2 * 8 * 27, 7**2 * 16 * 72]
    assert summary.warnings == (note,)
    assert not any("not in a checkpoint" in note for note in inspect(path).notes)


@pytest.mark.parametrize(
    ("module", "layer"),
    [
        (OwnVGG("head", gap=nn.AdaptiveAvgPool2d(1)), r"gap \(.*AdaptiveAvgPool2d\) has no place in it"),
        (OwnVGG("head"), r"features.5 is no part of it"),
        (OwnVGG("classifier", gap=nn.AdaptiveAvgPool2d(1)), r"gap \(.*AdaptiveAvgPool2d\) has no place in it"),
        (OwnVGG("head", activation=torchvision.ops.Permute([0, 1, 3, 2])), r"features.1 \(.*Permute\) has no place"),
    ],
)
def test_a_layer_whose_place_is_unknown_is_named(tmp_path: Path, module: nn.Module, layer: str) -> None:
    path = saved(tmp_path / "own.pth", module)
    with pytest.raises(CheckpointError, match=f"OwnVGG is not in the file.*{layer}"):
        vggscope.summary(path, input_size=SIZE)
    module.register_forward_hook(_hook)
    with pytest.raises(CheckpointError, match="OwnVGG has forward hooks"):
        vggscope.summary(saved(tmp_path / "hook.pth", module), input_size=SIZE)


def test_what_an_instance_adds_to_its_class_is_not_overlooked(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3))
    module[0].register_forward_hook(_hook)
    with pytest.raises(CheckpointError, match=r"0 \(torch.nn.modules.conv.Conv2d\) has forward hooks"):
        vggscope.summary(saved(tmp_path / "hook.pth", module))
    module = nn.Sequential(nn.ReLU())
    module.forward = functools.partial(_hook)  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="has its own forward"):
        vggscope.summary(saved(tmp_path / "forward.pth", module))


def test_settings_that_contradict_the_weights_are_refused(tmp_path: Path) -> None:
    for name, value in {
        "out_channels": 5,
        "kernel_size": "x",
        "groups": 0,
        "stride": (1, 2, 3),
        "in_channels": -3,
    }.items():
        module = nn.Sequential(nn.Conv2d(3, 4, 3))
        setattr(module[0], name, value)
        path = saved(tmp_path / "forged.pth", module)
        with pytest.raises(VggscopeError, match=r"settings|stride|window|axes|channels"):
            vggscope.summary(path)
    path = saved(tmp_path / "seq.pth", nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(OptionError, match="has its layers"):
        vggscope.summary(path, head="dense")
    with pytest.raises(VggscopeError, match="channels"):
        vggscope.summary(path, input_size=(4, 8, 8)).totals  # noqa: B018
    assert vggscope.network(path, input_size=(3, 32, 32)).input_shape == (1, 3, 32, 32)


def test_weights_are_loaded_without_running_the_file(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
    path = saved(tmp_path / "seq.pth", module)
    built = vggscope.build(path, weights=path)
    for key, value in module.state_dict().items():
        assert torch.equal(built.state_dict()[key], value)
    assert "vggscope.build" in inspect(path).load
    assert "torch.load" not in inspect(path).load


def test_neither_torch_nor_the_classes_are_imported(tmp_path: Path) -> None:
    path = saved(tmp_path / "vgg.pth", meta(lambda: get_model("vgg11")))
    code = f"""
        import sys, vggscope
        assert vggscope.inspect({path!r}).column == "A"
        assert vggscope.summary({path!r}).totals.params == 132_863_336
        print({{"torch", "torchvision", "pickle", "numpy"}} & sys.modules.keys())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


def test_the_known_classes_exist() -> None:
    """Their forward is that of a Sequential in the installed version, where they are in it."""
    for name in SEQUENTIALS:
        module, _, cls = name.rpartition(".")
        found = getattr(sys.modules.get(module), cls, None)
        if found is not None:
            assert found.forward is nn.Sequential.forward


# Hostile files


class Attack(nn.Module):
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        super().__init__()
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("function", "reason"),
    [(os.system, "system"), (eval, "eval"), (getattr, "getattr"), (torch.hub.load, "hub.load"), (_hook, "_hook")],
)
def test_code_among_modules_is_refused_by_name_and_does_not_run(
    tmp_path: Path, function: Callable[..., object], reason: str, old: bool
) -> None:
    marker = tmp_path / "ran"
    module = nn.Sequential(nn.Conv2d(3, 4, 3), Attack(function, f"touch {marker}"))
    path = saved(tmp_path / "x.pth", module, _use_new_zipfile_serialization=not old)
    with pytest.raises(CheckpointError, match=rf"asks for .*{reason}.*nothing was run"):
        inspect(path)
    assert not marker.exists()


KEYS = b"".join(
    b"X" + struct.pack("<I", len(name)) + name + b"0" for name in (b"_parameters", b"_buffers", b"_modules")
)
MODULE = b"cnet\nNet\n)\x81"
"""An instance of a class of somebody's."""


def _text(value: bytes) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value


def _with_parts(parts: bytes) -> bytes:
    """The attributes of a module with these parts."""
    return b"}(" + _text(b"_parameters") + b"}" + _text(b"_modules") + b"}(" + parts + b"u" + b"ub"


def _chain(depth: int, width: int) -> bytes:
    """A module whose parts are `width` times the same module, `depth` deep."""
    data = MODULE + _with_parts(b"") + b"q\x000"
    for _ in range(depth):
        parts = b"".join(_text(b"%d" % i) + b"h\x00" for i in range(width))
        data += MODULE + _with_parts(parts) + b"q\x000"
    return START + KEYS + data + b"h\x00."


HOSTILE = {
    "2^64 modules": _chain(64, 2),
    "a deep chain": _chain(5000, 1),
    "many parts": _chain(3, 3000),
    "a module in itself": START + KEYS + MODULE + b"q\x00" + _with_parts(_text(b"x") + b"h\x00") + b".",
    "long names": START
    + KEYS
    + b"".join((MODULE + _with_parts(_text(b"a" * 10**6) + MODULE + _with_parts(b"")), b".")),
    "a million attributes": START
    + KEYS
    + MODULE
    + b"}("
    + b"".join(_text(b"%d" % i) + b"N" for i in range(300_000))
    + b"ub.",
    "attributes that are no dict": START + KEYS + MODULE + b"K\x01b.",
    "a call of a class": START + KEYS + b"cnet\nNet\n)R.",
    "a storage as a class": START + KEYS + b"ctorch\nFloatStorage\n)\x81.",
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("wrap", [zipped, legacy])
def test_a_hostile_tree_is_refused(tmp_path: Path, name: str, wrap: Callable[[Path, bytes], Path]) -> None:
    path = wrap(tmp_path / "x.pth", HOSTILE[name])
    code = f"""
import resource, sys
{HIGHEST}
import vggscope
from vggscope.errors import VggscopeError
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
try:
    vggscope.summary(sys.argv[1])
except VggscopeError as error:
    print(error.problem)
print(highest() // 1024)
"""
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    *told, used = done.stdout.splitlines()
    assert told
    assert int(used) < 300_000


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_file_is_refused(tmp_path: Path, tenth: int) -> None:
    for old in (False, True):
        path = tmp_path / "x.pth"
        saved(path, nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), _use_new_zipfile_serialization=not old)
        data = path.read_bytes()
        path.write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(CheckpointError):
            vggscope.summary(str(path))


def test_a_pickle_of_a_module_with_an_unknown_opcode_is_refused(tmp_path: Path) -> None:
    torch.save(nn.Sequential(nn.ReLU()), tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        data = archive.read(next(name for name in archive.namelist() if name.endswith("data.pkl")))
    pickle.loads(data.replace(b"Q", b"0"))  # an ordinary pickle
    with pytest.raises(CheckpointError, match="opcode"):
        inspect(zipped(tmp_path / "y.pth", data[:-1] + b"i."))
