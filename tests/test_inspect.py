"""Which network a checkpoint belongs to: read off real models' names and shapes, and what a network made of it has."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import pytest
import timm as installed_timm
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision import models
from torchvision.models.detection import ssd300_vgg16

from vggscope.api import network
from vggscope.builders.module import module
from vggscope.checkpoint.contents import Checkpoint, StoredTensor
from vggscope.checkpoint.inspection import Inspection, examine, inspect
from vggscope.errors import CheckpointError, OptionError
from vggscope.graph import Network
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

State = Mapping[str, Any]

PARAMS = {"A": 132863336, "B": 133047848, "C": 133638952, "D": 138357544, "E": 143667240}
"""At 1000 classes, without batch norm (facts of the paper's columns, equal to torchvision's)."""

CONVS = {"A": 8, "B": 10, "C": 13, "D": 13, "E": 16}


def meta(make: Callable[[], Any]) -> State:
    """A model's state dict without memory."""
    with torch.device("meta"):
        state: State = make().state_dict()
    return state


def torchvision(name: str, **arguments: int) -> State:
    return meta(lambda: models.get_model(name, **arguments))


def timm(name: str, **arguments: int) -> State:
    return meta(lambda: installed_timm.create_model(name, **arguments))


def ours(word: str, **options: Any) -> State:
    """A column as vggscope builds it."""
    return meta(lambda: module(resolve(word, BuildOptions(**options))))


def examined(state: State) -> Inspection:
    tensors = (StoredTensor(key, tuple(v.shape), str(v.dtype).removeprefix("torch.")) for key, v in state.items())
    return examine(Checkpoint("x.pth", "torch zip", tuple(tensors)))


def saved(path: Path, state: State, *wrapper: str) -> Path:
    """A file with these names and shapes; each tensor is one number, stretched."""
    content: Any = {key: torch.zeros((), dtype=value.dtype).expand(value.shape) for key, value in state.items()}
    for key in reversed(wrapper):
        content = {key: content}
    torch.save(content, path)
    return path


def renamed(state: State, names: Mapping[str, str]) -> State:
    """The state dict with other paths for its layers."""
    return {f"{names[key.rpartition('.')[0]]}.{key.rpartition('.')[2]}": value for key, value in state.items()}


def without(state: State, *paths: str) -> State:
    return {key: value for key, value in state.items() if key.rpartition(".")[0] not in paths}


def only(state: State, prefix: str, last: int = 1000) -> State:
    """The layers in one Sequential, up to a number."""
    return {k: v for k, v in state.items() if k.startswith(prefix) and int(k.split(".")[1]) <= last}


VGG16 = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
"""The numbers of vgg16's convolutions in `features`, and what Caffe calls them."""

LABELS = [f"conv{stage}_{i}" for stage, convs in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, convs + 1)]

CAFFE = {f"features.{i}": label for i, label in zip(VGG16, LABELS)} | {
    f"classifier.{i}": label for i, label in zip((0, 3, 6), ("fc6", "fc7", "fc8"))
}


# The columns


@pytest.mark.parametrize(("name", "column"), [("vgg11", "A"), ("vgg13", "B"), ("vgg16", "D"), ("vgg19", "E")])
@pytest.mark.parametrize("suffix", ["", "_bn"])
def test_torchvisions_and_timms_models_are_known(name: str, column: str, suffix: str) -> None:
    for state, style, head in (
        (torchvision(name + suffix), "torchvision", "linear"),
        (timm(name + suffix), "timm", "pre_logits"),
    ):
        found = examined(state)
        assert (found.column, found.batch_norm, found.num_classes, found.input_channels) == (
            column,
            bool(suffix),
            1000,
            3,
        )
        assert (found.key_style, found.head, found.head_side, found.prefix) == (style, head, 7, "")
        assert (found.problems, found.missing, found.extra) == ((), (), ())
        assert found.dtypes == ("float32",)
        learned = {key: v for key, v in state.items() if "running" not in key and "tracked" not in key}
        assert found.params == sum(v.numel() for v in learned.values())
        assert found.buffers == sum(v.numel() for v in state.values()) - found.params
        if not suffix:
            assert found.params == PARAMS[column]
        labels = [layer.label for layer in found.layers]
        assert labels[0] == "conv1_1"
        assert sum(label.startswith("conv") for label in labels) == CONVS[column]
        assert sum(label.startswith("bn") for label in labels) == (CONVS[column] if suffix else 0)
        assert sorted(label for label in labels if label.startswith("fc")) == ["fc6", "fc7", "fc8"]


@pytest.mark.parametrize("word", ["A", "A-LRN", "B", "C", "D", "E"])
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("head", ["adaptive", "dense"])
def test_every_column_that_we_build_is_known_again(word: str, batch_norm: bool, head: str) -> None:
    found = examined(ours(word, batch_norm=batch_norm, head=head, num_classes=7, input=(1, 224, 224)))
    assert (found.column, found.batch_norm, found.num_classes, found.input_channels) == (word, batch_norm, 7, 1)
    assert (found.head, found.problems) == ("linear" if head == "adaptive" else "dense", ())


def test_only_numbers_tell_a_from_a_lrn() -> None:
    state = ours("A-LRN")
    assert examined(state).column == "A-LRN"
    names = {key.rpartition(".")[0]: f"layer{i:02}" for i, key in enumerate(state)}
    found = examined(renamed(state, names))
    assert found.column == "A"
    assert any("LRN has no parameters" in note for note in found.notes)
    assert any("are not in a checkpoint: they are taken from column A" in note for note in found.notes)


# Styles


def test_a_bare_sequential() -> None:
    state = {key.removeprefix("features."): value for key, value in only(torchvision("vgg13_bn"), "features.").items()}
    found = examined(state)
    assert (found.column, found.batch_norm, found.key_style, found.head, found.num_classes) == (
        *("B", True, "bare Sequential"),
        *(None, None),
    )
    assert found.problems == ("features only: the FC layers fc6, fc7 and fc8 are missing",)


def test_caffes_names() -> None:
    found = examined(renamed(torchvision("vgg16"), CAFFE))
    assert (found.column, found.key_style, found.num_classes, found.problems) == ("D", "Caffe-like", 1000, ())
    assert all(layer.label == layer.name for layer in found.layers)


def test_names_of_no_style_are_taken_in_order() -> None:
    state = renamed(torchvision("vgg16"), {path: f"block_{chr(97 + i)}" for i, path in enumerate(CAFFE)})
    for order in (list(state), sorted(state)):
        found = examined({key: state[key] for key in order})
        assert (found.column, found.key_style, found.num_classes, found.problems) == ("D", "other", 1000, ())


@pytest.mark.parametrize("prefix", ["module.", "module.backbone.", "net."])
def test_prefixes(prefix: str) -> None:
    found = examined({prefix + key: value for key, value in torchvision("vgg11").items()})
    parallel = "DataParallel " if prefix.startswith("module.") else ""
    assert (found.column, found.prefix, found.key_style) == ("A", prefix, f"{parallel}torchvision")
    assert found.problems == ()


def test_the_order_of_a_safetensors_file_does_no_harm(tmp_path: Path) -> None:
    state = torchvision("vgg19_bn")
    found = examined({key: state[key] for key in sorted(state)})
    assert (found.column, found.num_classes, found.problems) == ("E", 1000, ())
    state = timm("vgg19")
    found = examined({key: state[key] for key in sorted(state)})
    assert (found.column, found.num_classes, found.problems) == ("E", 1000, ())


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes(dtype: str) -> None:
    state = {key: value.to(getattr(torch, dtype)) for key, value in torchvision("vgg11").items()}
    assert examined(state).dtypes == (dtype,)
    mixed = {key: value if "features" in key else state[key] for key, value in torchvision("vgg11").items()}
    assert examined(mixed).dtypes == (dtype, "float32")
    assert f"its parameters are of several dtypes: {dtype}, float32" in examined(mixed).notes


# What is missing, too much or otherwise


def test_missing_and_extra_keys() -> None:
    state = {
        **without(torchvision("vgg16"), "features.19", "classifier.3"),
        "fc.weight": torch.empty(3, 5, device="meta"),
        "ema": torch.empty(3, device="meta"),
    }
    del state["features.5.bias"]
    found = examined(state)
    assert found.column == "D"
    assert found.missing == (
        *("features.19.weight", "features.19.bias", "features.5.bias"),
        *("classifier.3.weight", "classifier.3.bias"),
    )
    assert found.extra == ("fc.weight", "ema")
    assert found.problems == (
        f"missing: {', '.join(found.missing)}",
        "extra: fc.weight, ema; column D has no place for them",
    )


def test_many_names_are_cut_short() -> None:
    found = examined({k: v for k, v in torchvision("vgg16").items() if not k.endswith("bias")})
    assert len(found.missing) == 16
    assert found.problems == (f"missing: {', '.join(found.missing[:6])} and 10 more",)


def test_wrong_shapes() -> None:
    state = dict(torchvision("vgg16"))
    state["features.5.weight"] = torch.empty(100, 64, 3, 3, device="meta")
    state["features.7.bias"] = torch.empty(5, device="meta")
    found = examined(state)
    assert found.column == "D"
    assert found.problems == (
        "features.5.weight is 100x64x3x3, conv2_1 of column D is 128x64x3x3",
        "features.5.bias is 128, not 100",
        "features.7.bias is 5, not 128",
    )
    with pytest.raises(CheckpointError, match="conv2_2 reads 128 channels where 100 come in"):
        found.build_plan()


@pytest.mark.parametrize(
    ("last", "column", "problem"),
    [
        (28, "D", "features only: the FC layers fc6, fc7 and fc8 are missing"),
        (21, "D", "cut: the last convolution is conv4_3; conv5_1 and all that follow are missing"),
        (14, None, "cut: its 7 convolutions are the first of D and E; the rest is missing"),
        (7, None, "cut: its 4 convolutions are the first of B, C, D and E; the rest is missing"),
    ],
)
def test_a_vgg_that_is_cut(last: int, column: str | None, problem: str) -> None:
    found = examined(only(torchvision("vgg16"), "features.", last))
    assert (found.column, found.problems) == (column, (problem,))
    assert found.notation
    assert found.notation.count("conv") == VGG16.index(last) + 1


def test_another_head() -> None:
    def small() -> nn.Module:
        model = models.vgg16()
        del model.avgpool
        model.classifier = nn.Linear(512, 10)
        return model

    def transferred() -> nn.Module:
        model = models.vgg16()
        model.classifier[6] = nn.Sequential(nn.Linear(4096, 256), nn.ReLU(), nn.Dropout(), nn.Linear(256, 5))
        return model

    found = examined(meta(small))
    assert (found.column, found.num_classes, found.head_side) == ("D", 10, 1)
    assert found.problems == ("its head is FC-10, column D has FC-4096 FC-4096 FC-1000",)
    found = examined(meta(transferred))
    assert (found.column, found.num_classes, found.head_side, found.extra) == ("D", 5, 7, ())
    assert found.problems == ("its head is FC-4096 FC-4096 FC-256 FC-5, column D has FC-4096 FC-4096 FC-1000",)


def test_a_missing_last_layer_leaves_the_classes_unknown() -> None:
    found = examined(without(torchvision("vgg16"), "classifier.6"))
    assert (found.column, found.num_classes) == ("D", None)
    assert found.missing == ("classifier.6.weight", "classifier.6.bias")
    found = examined(timm("vgg16", num_classes=0))
    assert (found.num_classes, found.missing) == (None, ("head.fc.weight", "head.fc.bias"))


def test_a_vgg_inside_a_larger_network() -> None:
    state = meta(lambda: ssd300_vgg16(weights=None, weights_backbone=None))
    found = examined(state)
    assert (found.column, found.prefix) == ("D", "backbone.")
    assert "backbone.scale_weight" in found.extra
    assert set(found.extra) == {key for key in state if not key.startswith("backbone.features.")}


# Networks of another make


def test_a_column_of_another_make_is_read_into_notation() -> None:
    shapes = [("0", (8, 1, 3, 3)), ("2", (8, 8, 3, 3)), ("5", (16, 8, 3, 3)), ("9", (10, 784))]
    state = {f"{name}.weight": torch.empty(shape, device="meta") for name, shape in shapes}
    found = examined(state)
    assert (found.column, found.notation) == (None, "conv3-8 conv3-8 maxpool? conv3-16 maxpool? FC-10")
    assert (found.num_classes, found.input_channels, found.params) == (10, 1, 72 + 576 + 1152 + 7840)
    assert any(note.startswith("maxpool?: the names leave room") for note in found.notes)
    staged = renamed(state, {"0": "conv1_1", "2": "conv1_2", "5": "conv2_1", "9": "fc3"})
    assert examined(staged).notation == found.notation
    unnumbered = renamed(state, {"0": "first", "2": "second", "5": "third", "9": "last"})
    assert examined(unnumbered).notation == "conv3-8 ? conv3-8 ? conv3-16 ? FC-10"
    with pytest.raises(CheckpointError, match="do not show where its pools are"):
        examined(unnumbered).build_plan()


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "mobilenet_v2", "densenet121", "squeezenet1_0", "googlenet"])
def test_what_is_no_vgg_is_described_by_its_layers(name: str) -> None:
    arguments = {"init_weights": False} if name == "googlenet" else {}
    state = torchvision(name, **arguments)
    found = examined(state)
    assert (found.column, found.notation, found.num_classes, found.problems) == (None, None, None, ())
    assert sorted(tensor.name for layer in found.layers for tensor in layer.tensors) == sorted(state)
    assert sum(layer.params for layer in found.layers) == found.params
    assert {layer.op for layer in found.layers} & {"Conv2d", "Linear"}
    with pytest.raises(CheckpointError, match="it is not a VGG"):
        found.build_plan()


def test_alexnet_is_read_but_not_built() -> None:
    found = examined(torchvision("alexnet"))
    assert found.column is None
    assert found.notation == (
        "conv11-64 maxpool? conv5-192 maxpool? conv3-384 conv3-256 conv3-256 maxpool? FC-4096 FC-4096 FC-1000"
    )
    with pytest.raises(CheckpointError, match="the strides of its large kernels are not in the file"):
        found.build_plan()


SHAPES = st.lists(st.integers(0, 9) | st.just(2**40), max_size=5).map(tuple)
NAMES = st.from_regex(
    r"(module\.)?(features|classifier|conv[12]_|fc)?\.?[0-9]{0,2}\.(weight|bias|running_mean)", fullmatch=True
)


@given(st.dictionaries(NAMES, SHAPES, min_size=1))
def test_any_names_and_shapes_are_described(shapes: dict[str, tuple[int, ...]]) -> None:
    tensors = tuple(StoredTensor(name, shape, "float32") for name, shape in shapes.items())
    found = examine(Checkpoint("x.pth", "torch zip", tensors))
    learned = [t.shape for t in tensors if not t.name.endswith("running_mean")]
    assert found.params == sum(map(prod, learned))
    assert len([t for layer in found.layers for t in layer.tensors]) == len(tensors)


# A checkpoint as a MODEL


def owned(network: Network) -> dict[str, tuple[int, ...]]:
    return {parameter.name: parameter.shape for parameter in network.parameters()}


def shapes_of(state: State) -> dict[str, tuple[int, ...]]:
    return {k: tuple(v.shape) for k, v in state.items() if "running" not in k and "tracked" not in k}


def test_torchvisions_file_is_torchvisions_network(tmp_path: Path) -> None:
    found = resolve(str(saved(tmp_path / "x.pth", torchvision("vgg16_bn", num_classes=7))))
    column = resolve("vgg16_bn", BuildOptions(num_classes=7))
    assert (found.name, found.nodes, found.warnings, found.unused) == ("x.pth", column.nodes, (), ())


@pytest.mark.parametrize(
    "make",
    [
        lambda: torchvision("vgg11"),
        lambda: timm("vgg11_bn", num_classes=5, in_chans=1),
        lambda: timm("vgg13", num_classes=0),
        lambda: renamed(torchvision("vgg16"), CAFFE),
        lambda: {f"module.{key}": value for key, value in ours("C").items()},
        lambda: only(torchvision("vgg16"), "features.", 14),
        lambda: without(torchvision("vgg16"), "classifier.6"),
        lambda: ours("D", head="dense", batch_norm=True),
        lambda: ours("D", head="flatten", input=(1, 96, 96), num_classes=3),
        lambda: ours("conv3-4 conv3-4 maxpool conv3-8 maxpool FC-16 FC-10", head="flatten", input=(1, 28, 28)),
    ],
)
def test_the_network_owns_the_files_parameters_and_builds_its_keys(tmp_path: Path, make: Callable[[], State]) -> None:
    state = make()
    found = resolve(str(saved(tmp_path / "x.pth", state)))
    assert owned(found) == shapes_of(state)
    assert found.output_shape(found.nodes[-1])[0] == 1
    built = meta(lambda: module(found))
    assert {k: tuple(v.shape) for k, v in built.items()} == {k: tuple(v.shape) for k, v in state.items()}


@pytest.mark.parametrize("library", ["torchvision", "timm"])
@pytest.mark.parametrize("name", ["vgg11", "vgg16_bn"])
def test_a_librarys_file_is_the_network_that_its_model_runs(tmp_path: Path, library: str, name: str) -> None:
    with torch.device("meta"):
        model = {"torchvision": models.get_model, "timm": installed_timm.create_model}[library](name)
    assert resolve(str(saved(tmp_path / "x.pth", model.state_dict()))).nodes == network(model).nodes


def test_the_commands_take_a_file(tmp_path: Path, vggscope: Callable[..., Any]) -> None:
    path = str(saved(tmp_path / "x.pth", torchvision("vgg11")))
    done = vggscope("summary", path)
    assert (done.code, done.err) == (0, "")
    assert "132,863,336" in done.out
    done = vggscope("diff", path, "--ref", "torchvision")
    assert (done.code, "identical: " in done.out) == (0, True)
    wrapped = saved(tmp_path / "y.pth", {f"module.{k}": v for k, v in torchvision("vgg11").items()})
    done = vggscope("diff", str(wrapped), "--ref", "torchvision", "--all")
    assert (done.code, "module.features.0 is features.0 in the reference" in done.out) == (0, True)
    done = vggscope("summary", str(saved(tmp_path / "resnet.pth", torchvision("resnet18"))))
    assert (done.code, "11,689,512" in done.out) == (0, True)
    done = vggscope("summary", str(saved(tmp_path / "z.pth", torch.nn.Linear(4, 2).state_dict())))
    assert done.code == 2
    assert done.err.splitlines() == [
        f"vggscope: {tmp_path / 'z.pth'}: no network can be built from it: it is not a VGG",
        f"vggscope inspect {tmp_path / 'z.pth'} describes its layers",
    ]


def test_what_is_missing_or_extra_is_said(tmp_path: Path) -> None:
    state = {**without(torchvision("vgg16"), "features.19"), "ema.weight": torch.empty(3, 5, device="meta")}
    found = resolve(str(saved(tmp_path / "x.pth", state)))
    assert found.warnings[0] == "missing: features.19.weight, features.19.bias"
    assert [(p.name, p.shape, why) for p, why in found.unused] == [
        ("ema.weight", (3, 5), "no layer of column D owns it")
    ]
    assert sum(map(prod, owned(found).values())) == PARAMS["D"] + 15
    assert [node.name for node in found.nodes] == [node.name for node in resolve("D").nodes]


def test_the_input_is_the_one_that_the_weights_fit(tmp_path: Path) -> None:
    small = saved(tmp_path / "x.pth", ours("D", head="flatten", input=(3, 32, 32), num_classes=10))
    found = resolve(str(small))
    assert (found.input_shape, found.output_shape(found.nodes[-1])) == ((1, 3, 32, 32), (1, 10))
    grey = saved(tmp_path / "y.pth", torchvision("vgg11"))
    assert resolve(str(grey), BuildOptions(input=(3, 64, 64))).input_shape == (1, 3, 64, 64)
    for options in (
        BuildOptions(num_classes=5),
        BuildOptions(batch_norm=True),
        BuildOptions(input=(1, 224, 224)),
        BuildOptions(head="dense"),
    ):
        with pytest.raises(OptionError, match="the file"):
            resolve(str(grey), options)
    assert resolve(str(grey), BuildOptions(num_classes=1000, head="flatten")).nodes[-1].name == "classifier.6"


# The code that loads it


def run(code: str) -> Any:
    """Run the lines on the meta device, where 500 MB of weights take no memory, and give what they made."""
    told: dict[str, Any] = {}
    with torch.device("meta"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        exec(code, told)
    return told["model"]


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: torchvision("vgg11"), "torchvision.models.vgg11()"),
        (lambda: torchvision("vgg16_bn", num_classes=7), "torchvision.models.vgg16_bn(num_classes=7)"),
        (
            lambda: {f"module.{k}": v for k, v in torchvision("vgg13").items()},
            "{key.removeprefix('module.'): value for key, value in state.items()}",
        ),
        (lambda: ours("E", input=(1, 224, 224)), "torch.nn.Conv2d(1, 64, 3, padding=1)"),
        (lambda: only(torchvision("vgg16"), "features."), "model = model.features"),
        (
            lambda: timm("vgg19_bn", num_classes=3, in_chans=4),
            "timm.create_model('vgg19_bn', num_classes=3, in_chans=4)",
        ),
        (lambda: timm("vgg11", num_classes=0), "timm.create_model('vgg11', num_classes=0)"),
        (lambda: ours("C", num_classes=4), "vggscope.build('"),
        (lambda: ours("A-LRN"), "vggscope.build('"),
        (lambda: renamed(torchvision("vgg16"), CAFFE), "vggscope.build('"),
        (lambda: without(torchvision("vgg16"), "classifier.6"), "strict=False"),
    ],
)
def test_the_code_loads_the_file(tmp_path: Path, make: Callable[[], State], expected: str) -> None:
    state = make()
    found = inspect(saved(tmp_path / "x.pth", state, "state_dict"))
    assert found.wrapper == ("state_dict",)
    assert expected in found.load
    model = run(found.load)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert len(state) <= len(shapes)
    assert [tuple(v.shape) for v in state.values()] == list(shapes.values())[: len(state)]


def test_the_code_for_safetensors_and_for_a_namespace(tmp_path: Path) -> None:
    state = {key: torch.zeros(value.shape) for key, value in ours("conv3-4 maxpool conv3-8 maxpool FC-10").items()}
    save_file(state, tmp_path / "x.safetensors")
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1)}, tmp_path / "x.pth")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.pth"):
        code = inspect(path).load
        assert ("load_file" in code) == (path.suffix == ".safetensors")
        assert ("safe_globals([argparse.Namespace])" in code) == (path.suffix == ".pth")
        assert {k: v.shape for k, v in run(code).state_dict().items()} == {k: v.shape for k, v in state.items()}


def test_the_code_quotes_what_comes_from_the_file(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s "here"'
    folder.mkdir()
    wrapped = {f"a'].b.{key}": value for key, value in torchvision("vgg11").items()}
    found = inspect(saved(folder / "x.pth", wrapped, "model"))
    assert found.prefix == "a'].b."
    assert len(run(found.load).state_dict()) == 22
