"""Checkpoints as public code writes them: which network each is, and that the code printed for each loads it."""

from __future__ import annotations

import argparse
import collections
import datetime
import decimal
import json
import random
import tarfile
import types
from collections.abc import Callable, Mapping
from copy import deepcopy
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch._weights_only_unpickler import Unpickler
from torch.nn.utils import prune
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torchvision.models import resnet18

import vggscope
from tests.counting import calls, growth
from tests.test_checkpoint import refused
from tests.test_inspect import CAFFE, VGG16, renamed, run, saved, torchvision, without
from vggscope.checkpoint.contents import Checkpoint, StoredTensor
from vggscope.checkpoint.inspection import Inspection, examine, inspect
from vggscope.checkpoint.load_weights import load_weights
from vggscope.checkpoint.network import POOLED
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError, ShapeError

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


def inspected(folder: Path, content: object) -> Inspection:
    """The inspection of a file of torch.save with this content."""
    torch.save(content, folder / "x.pth")
    return inspect(folder / "x.pth")


def small() -> Any:
    """A VGG of two convolutions and two FC layers for images of 28x28."""
    return vggscope.build("conv3-8 maxpool conv3-16 maxpool FC-32 FC-10", input_size=(3, 28, 28))


def lightning(module: nn.Module) -> dict[str, Any]:
    """What the Trainer of PyTorch Lightning 2.6 saves of a LightningModule, with an optimizer and callbacks."""
    counts = {"total": {"ready": 1, "completed": 1}, "current": {"ready": 1, "completed": 1}}
    loop = {"state_dict": {}, "batch_progress": {**counts, "is_last_batch": False}}
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    sum(parameter.sum() for parameter in module.parameters()).backward()
    optimizer.step()
    best = {
        "monitor": "val",
        "best_model_score": torch.tensor(0.5),
        "kth_value": torch.tensor(1.0),
        "best_k_models": {},
    }
    return {
        "epoch": 0,
        "global_step": 2,
        "pytorch-lightning_version": "2.6.6",
        "state_dict": module.state_dict(),
        "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": counts}, "validate_loop": loop, "test_loop": loop},
        "callbacks": {"ModelCheckpoint{'monitor': 'val', 'mode': 'min'}": best},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
        "hparams_name": "kwargs",
        "hyper_parameters": {"lr": 0.1, "widths": (8, 16), "name": "vgg"},
    }


class Lit(nn.Module):
    """A LightningModule's parts: the network as `model`, and a loss with weights of the classes."""

    def __init__(self, *, weighted: bool) -> None:
        super().__init__()
        self.model = small()
        self.loss = nn.CrossEntropyLoss(weight=torch.ones(10) if weighted else None)


@pytest.mark.parametrize("weighted", [False, True])
def test_a_checkpoint_of_lightning(tmp_path: Path, weighted: bool) -> None:
    """The weights of a loss beside the network are extra, and change nothing of the network."""
    found = inspected(tmp_path, lightning(Lit(weighted=weighted)))
    assert (found.wrapper, found.prefix, found.num_classes) == (("state_dict",), "model.", 10)
    assert found.notation == "conv3-8 maxpool? conv3-16 maxpool? FC-32 FC-10"
    assert found.extra == (("loss.weight",) if weighted else ())
    assert any("optimizer_states" in note for note in found.notes)
    assert loaded(found) == ([], ["loss.weight"] if weighted else [])
    assert vggscope.summary(str(tmp_path / "x.pth")).totals.params == 26_842 + 10 * weighted


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


def test_convolutions_without_a_bias_before_a_batch_norm(tmp_path: Path) -> None:
    for state in (convmodules(True), {k: v for k, v in torchvision("vgg16_bn").items() if not is_bias(k, v)}):
        found = inspect(saved(tmp_path / "x.pth", state))
        sentence = "its 13 convolutions have no bias, as is usual before a batch norm"
        assert found.problems == (sentence,)
        assert len(found.missing) == 13
        assert "strict=False" not in found.load
        assert loaded(found) == ([], [])


def is_bias(key: str, tensor: Any) -> bool:
    """Whether it is the bias of a convolution of vgg16_bn."""
    number = int(key.split(".")[1])
    convs = (0, 3, 7, 10, 14, 17, 20, 24, 27, 30, 34, 37, 40)
    return key.startswith("features") and number in convs and bool(tensor.dim() == 1)


def test_a_network_of_its_own_under_two_names_is_built_with_them(tmp_path: Path) -> None:
    # Eric-mingjie/network-slimming: feature.N and classifier, the widths cut as each layer bears
    names = {"features.0": "feature.0", "features.3": "feature.3", "classifier.0": "fc.0", "classifier.3": "fc.3"}
    found = inspect(saved(tmp_path / "x.pth", renamed(small().state_dict(), names)))
    assert (found.prefix, found.num_classes) == ("", 10)
    assert loaded(found) == ([], [])


# Weights kept in parts


def pruned(layer: Any) -> None:
    prune.l1_unstructured(layer, "weight", amount=0.3)  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    "make",
    [
        nn.utils.spectral_norm,
        nn.utils.weight_norm,
        nn.utils.parametrizations.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        pruned,
    ],
)
def test_a_weight_in_parts_is_that_weight(tmp_path: Path, make: Callable[[Any], None]) -> None:
    model = small().eval()
    plain = sum(parameter.numel() for parameter in model.parameters())
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            make(layer)
    image = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found = inspected(tmp_path, model.state_dict())
    assert (found.notation, found.num_classes) == ("conv3-8 maxpool? conv3-16 maxpool? FC-32 FC-10", 10)
    assert found.params == sum(parameter.numel() for parameter in model.parameters())
    assert found.params == plain + (8 + 16 + 32 + 10 if make.__name__ == "weight_norm" else 0)
    assert found.buffers == sum(buffer.numel() for buffer in model.buffers())
    told: dict[str, Any] = {}
    exec(found.load, told)
    torch.testing.assert_close(told["model"].eval()(image), model(image))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_column_whose_weights_are_in_parts(tmp_path: Path) -> None:
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


# What lies beside the weights


def beside() -> dict[str, Any]:
    """What training scripts save beside the state dict, by the class that torch.load must be allowed to use for it."""
    return {
        "": {"epoch": 3, "best": torch.tensor(0.9), "cfg": [64, "M"], "device": torch.device("cpu"), "rng": b"x"},
        "argparse.Namespace": argparse.Namespace(lr=0.1, milestones={30, 60}),
        "types.SimpleNamespace": types.SimpleNamespace(lr=0.1),
        "numpy.dtypes.Float64DType": np.float64(71.5),
        "numpy.dtypes.Int64DType": np.int64(3),
        "numpy.ndarray": np.arange(3.0),
        "numpy.dtypes.UInt32DType": np.random.RandomState(0).get_state(),
        "datetime.datetime": datetime.datetime(2020, 1, 1),
        "pathlib.PosixPath": Path("/data"),
        "decimal.Decimal": decimal.Decimal("0.1"),
        "builtins.frozenset": frozenset({1}),
        "None": random.Random(0).getstate(),
    }


@pytest.mark.parametrize("name", beside())
@pytest.mark.parametrize("legacy", [False, True])
def test_other_entries_beside_the_weights_are_ignored(tmp_path: Path, name: str, legacy: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save(
        {"state_dict": small().state_dict(), "it": beside()[name]}, path, _use_new_zipfile_serialization=not legacy
    )
    guarded = read(path).guarded
    assert (name in guarded) == ("." in name)
    found = inspect(path)
    assert (found.wrapper, found.num_classes) == (("state_dict",), 10)
    assert ("safe_globals" in found.load) == bool(guarded)
    assert "weights_only=True" in found.load
    told: dict[str, Any] = {}
    exec(found.load, told)
    assert told["model"].load_state_dict(told["state"]).missing_keys == []


def test_a_class_that_torch_never_fills_asks_for_trust(tmp_path: Path) -> None:
    if not hasattr(Unpickler, "_check_set_item_target"):
        pytest.skip("this torch fills every class that it may use")
    history = collections.defaultdict(list, {"loss": [0.5]})
    torch.save({"state_dict": small().state_dict(), "history": history}, tmp_path / "x.pth")
    with (
        pytest.raises(Exception, match="Weights only load failed"),
        torch.serialization.safe_globals([collections.defaultdict, list]),
    ):
        torch.load(tmp_path / "x.pth", weights_only=True)
    found = inspect(tmp_path / "x.pth")
    assert "weights_only=False" in found.load
    assert "only if you trust who made it" in found.load
    assert any("collections.defaultdict only with weights_only=False" in note for note in found.notes)
    assert loaded(found) == ([], [])


@pytest.mark.parametrize(
    "wrapper",
    [("ema_state_dict",), ("generator",), ("checkpoint", "weights_of_mine"), ("model", "backbone")],
)
def test_the_state_dict_is_where_most_tensors_are(tmp_path: Path, wrapper: tuple[str, ...]) -> None:
    content: Any = {k: torch.zeros(()).expand(v.shape) for k, v in torchvision("vgg11").items()}
    for key in reversed(wrapper):
        content = {"best": torch.tensor(0.5), "other": {"a.weight": torch.zeros(2, 2)}, key: content, "optimizer": {}}
    found = inspected(tmp_path, content)
    assert (found.wrapper, found.column) == (wrapper, "A")
    assert loaded(found) == ([], [])


@pytest.mark.parametrize("keys", [("model", "ema"), ("net", "model_ema"), ("online_model", "ema_model")])
def test_an_average_beside_the_weights_is_named_and_ignored(tmp_path: Path, keys: tuple[str, str]) -> None:
    """As Lightning saves a module that holds a network and torch's AveragedModel of it."""
    own, average = keys
    net = resnet18(num_classes=7)
    averaged = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.5), use_buffers=True)
    for parameter in net.parameters():
        parameter.data.add_(0.25)
    averaged.update_parameters(net)
    both = nn.ModuleDict({average: averaged, own: net})
    torch.save({"state_dict": both.state_dict(), "epoch": 3}, tmp_path / "last.ckpt")
    torch.save(net.state_dict(), tmp_path / "net.pth")
    found = vggscope.inspect(tmp_path / "last.ckpt")
    parameters = sum(parameter.numel() for parameter in net.parameters())
    assert (found.library_model, found.library_match, found.params) == (
        *("torchvision:resnet18", "other classes"),
        parameters,
    )
    said = f"{average}.* has the same keys and shapes, by its name a running average of the weights: ignored"
    assert said in found.notes
    told: dict[str, Any] = {}
    exec(found.load, told)
    assert all(torch.equal(told["model"].state_dict()[key], value) for key, value in net.state_dict().items())
    compared = vggscope.values(tmp_path / "last.ckpt", tmp_path / "net.pth")
    assert {tensor.relation for tensor in compared.tensors} == {"equal"}
    assert {tensor.name.partition(".")[0] for tensor in compared.tensors} == {own}
    assert f"{tmp_path / 'last.ckpt'}: {said}" in compared.notes


@pytest.mark.parametrize("prefix", ["model.", "net.backbone.", "module."])
def test_weights_are_loaded_from_behind_any_prefix(tmp_path: Path, prefix: str) -> None:
    """Also where the network is no VGG, and other tensors or an average stand beside it."""
    net = nn.Sequential(nn.Conv2d(3, 4, 5, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    state = {
        key: torch.rand_like(value) if value.is_floating_point() else value for key, value in net.state_dict().items()
    }
    beside = {"head.weight": torch.rand(3, 2), **prefixed(net.state_dict(), "ema.module.")}
    torch.save({"state_dict": {**beside, **prefixed(state, prefix)}}, tmp_path / "x.ckpt")
    found = load_weights(deepcopy(net), str(tmp_path / "x.ckpt")).state_dict()
    assert all(torch.equal(found[key], value) for key, value in state.items())
    torch.save({**prefixed(state, "one."), **prefixed(state, "two.")}, tmp_path / "y.pth")
    with pytest.raises(CheckpointError, match=r"several times: one\., two\."):
        load_weights(deepcopy(net), str(tmp_path / "y.pth"))


def test_averages_of_both_files_are_compared(tmp_path: Path) -> None:
    net = small()
    both = nn.ModuleDict({"net": net, "ema": AveragedModel(net)})
    torch.save(both.state_dict(), tmp_path / "a.pth")
    assert vggscope.values(tmp_path / "a.pth", tmp_path / "a.pth").verdict == "identical"
    other = {key: value + 1 if key.startswith("ema.module") else value for key, value in both.state_dict().items()}
    torch.save(other, tmp_path / "b.pth")
    found = vggscope.values(tmp_path / "a.pth", tmp_path / "b.pth")
    changed = {tensor.name.partition(".")[0] for tensor in found.tensors if tensor.relation == "trained"}
    assert changed == {"ema"}
    plain = {key: value for key, value in both.state_dict().items() if key.startswith("net.")}
    torch.save(plain, tmp_path / "c.pth")
    assert vggscope.values(tmp_path / "a.pth", tmp_path / "c.pth").verdict == "equivalent"
    loaded = load_weights(small(), str(tmp_path / "b.pth")).state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in net.state_dict().items())
    assert torch.equal(load_weights(both, str(tmp_path / "b.pth")).state_dict()[last := list(other)[-1]], other[last])


def test_an_average_without_dots_in_its_keys_is_one(tmp_path: Path) -> None:
    """As latent-diffusion's LitEma names its buffers."""
    own = {f"model.{key}": value for key, value in small().state_dict().items()}
    average = {f"model_ema.{key[6:].replace('.', '')}": value for key, value in own.items()}
    torch.save({**own, **average, "model_ema.decay": torch.tensor(0.9)}, tmp_path / "x.ckpt")
    found = inspect(tmp_path / "x.ckpt")
    assert {layer.name.partition(".")[0] for layer in found.layers} == {"model"}


def test_what_only_has_the_name_of_an_average_is_kept(tmp_path: Path) -> None:
    own = {f"model.{key}": value for key, value in small().state_dict().items()}
    changed = {f"ema.{key[6:]}": value for key, value in own.items()}
    last = list(changed)[-1]
    changed[last] = torch.zeros(2, *changed[last].shape)
    for content in ({**own, **changed}, changed):
        torch.save(content, tmp_path / "x.pth")
        found = inspect(tmp_path / "x.pth")
        assert {layer.name.partition(".")[0] for layer in found.layers} == {key.partition(".")[0] for key in content}
        assert not any("average" in note for note in found.notes)


def test_a_tensor_beside_a_state_dict_is_no_state_dict_and_a_dict_in_it_no_wrapper(tmp_path: Path) -> None:
    state = {**small().state_dict(), "extra_state": {"amax": torch.tensor(1.0)}}
    torch.save(state, tmp_path / "x.pth")
    assert inspect(tmp_path / "x.pth").wrapper == ()


@pytest.mark.filterwarnings("ignore:.*[Ss]parse:UserWarning")
@pytest.mark.parametrize("layout", ["to_sparse", "to_sparse_csr"])
def test_sparse_tensors(tmp_path: Path, layout: str) -> None:
    model = small()
    torch.nn.init.zeros_(model.classifier[0].bias)
    state = model.state_dict() | {"classifier.0.weight": getattr(model.classifier[0].weight.detach(), layout)()}
    found = inspected(tmp_path, state)
    assert found.params == sum(p.numel() for p in model.parameters())
    assert "sparse: classifier.0.weight" in found.notes
    told: dict[str, Any] = {}
    exec(found.load, told)
    assert torch.equal(told["model"].classifier[0].weight, model.classifier[0].weight)


def test_counters_are_no_parameters(tmp_path: Path) -> None:
    averaged = torch.optim.swa_utils.AveragedModel(small())
    found = inspected(tmp_path, averaged.state_dict())
    assert found.params == sum(p.numel() for p in averaged.parameters())
    assert found.dtypes == ("float32",)


# Files that are no state dict


def test_the_way_out_of_other_files(tmp_path: Path) -> None:
    model = small()
    state = model.state_dict()
    for content, problem, way in (
        ([state, 3], "a list whose item 0 has one", "torch.load(FILE, weights_only=True)[0]"),
        ((3, {"model": state}), "a tuple whose item 1 has one", "[1]"),
        ({1: state}, "a dict whose keys are not strings", "state_dict()"),
        (torch.optim.SGD(model.parameters()).state_dict(), "an optimizer's state", "model.state_dict()"),
        ({k: v.numpy() for k, v in state.items()}, "NumPy arrays", "torch.from_numpy"),
    ):
        torch.save(content, tmp_path / "x.pth")
        error = refused(tmp_path / "x.pth")
        assert problem in error.problem
        assert way in error.remedy
    np.savez(tmp_path / "x.npz", **{k: v.numpy() for k, v in state.items()})
    with tarfile.open(tmp_path / "x.pth.tar", "w") as archive:
        archive.add(tmp_path / "x.npz", "x.npz")
    (tmp_path / "index.json").write_text(json.dumps({"weight_map": {"a.weight": "model-1-of-2.safetensors"}}))
    for name, problem in (
        ("x.pth.tar", "a tar archive, and not one that torch wrote"),
        ("index.json", "its shard model-1-of-2.safetensors is missing"),
    ):
        refused(tmp_path / name, problem)


def test_an_onnx_file_and_an_exported_program(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    node = helper.make_node("Relu", ["x"], ["y"])
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in ("x", "y")]
    made = helper.make_model(helper.make_graph([node], "g", ends[:1], ends[1:]), producer_name="pytorch")
    for name in ("net.pth", "net.onnx"):
        (tmp_path / name).write_bytes(made.SerializeToString())
    assert ".onnx" in refused(tmp_path / "net.pth", "an ONNX file").remedy
    assert (vggscope.inspect(tmp_path / "net.onnx").format, vggscope.inspect(tmp_path / "net.onnx").params) == (
        "ONNX",
        0,
    )
    model = small().eval()
    torch.export.save(torch.export.export(model, (torch.zeros(1, 3, 28, 28),)), tmp_path / "x.pt2")
    assert {tensor.name for tensor in read(tmp_path / "x.pt2").tensors} == set(model.state_dict())
    (tmp_path / "x.pt2").rename(tmp_path / "x.pth")
    assert "torch.export.load" in refused(tmp_path / "x.pth", r"a program of torch.export").remedy


def test_a_dict_met_a_million_times_costs_no_more_than_once(tmp_path: Path) -> None:
    """Dicts of 3000 keys in one another, each key the same dict: walked through one by one it would take for ever."""
    inner: Any = {f"k{i}": 0 for i in range(3000)}
    for _ in range(3):
        inner = {f"k{i}": inner for i in range(3000)}
    torch.save(inner, tmp_path / "x.pth")
    assert calls(refused, tmp_path / "x.pth", "no state dict") < 10**6


# As a model


@pytest.mark.parametrize("name", ["pytorch_model.bin", "vgg16.th", "vgg16.weight", "best", "conv3-8"])
def test_any_file_is_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(small().state_dict(), name)
    assert vggscope.summary(name).totals.params == sum(p.numel() for p in small().parameters())


@pytest.mark.parametrize("names", ["Caffe", "timm", "DataParallel features", "with more"])
def test_weights_are_given_to_the_same_layers(tmp_path: Path, names: str) -> None:
    """A network's weights under other people's names, put into ours: the outputs are that network's."""
    torch.manual_seed(0)
    with torch.device("meta"):
        ours = vggscope_build("A", 10)
    full = {k: torch.randn(1).expand(v.shape) for k, v in ours.state_dict().items()}
    numbers = [0, 3, 6, 8, 11, 13, 16, 18]
    labels = ["1_1", "2_1", "3_1", "3_2", "4_1", "4_2", "5_1", "5_2"]
    fc = {"classifier.0": "fc6", "classifier.3": "fc7", "classifier.6": "fc8"}
    pre = {"classifier.0": "pre_logits.fc1", "classifier.3": "pre_logits.fc2", "classifier.6": "head.fc"}
    same = {f"features.{i}": f"features.{i}" for i in numbers}
    stored: dict[str, Callable[[], State]] = {
        "Caffe": lambda: renamed(full, {f"features.{i}": f"conv{x}" for i, x in zip(numbers, labels)} | fc),
        "timm": lambda: {
            k: v.reshape(4096, -1, *((7, 7) if "fc1" in k else (1, 1)))
            if k.endswith(("fc1.weight", "fc2.weight"))
            else v
            for k, v in renamed(full, same | pre).items()
        },
        "DataParallel features": lambda: {k.replace("features.", "features.module."): v for k, v in full.items()},
        "with more": lambda: full | {"criterion.weight": torch.ones(3)},
    }
    torch.save({"state_dict": dict(stored[names]()), "epoch": 3}, tmp_path / "x.pth")
    found = load_weights(vggscope_build("A", 10), str(tmp_path / "x.pth")).state_dict()
    assert all(torch.equal(found[key], value) for key, value in full.items())


def vggscope_build(word: str, num_classes: int) -> Any:
    return vggscope.build(word, num_classes=num_classes)


# Features for style and perceptual losses


def slices(name: str, *ends: int) -> State:
    """A VGG's features cut into several Sequentials that keep their numbers."""
    found: dict[str, Any] = {}
    for key, value in torchvision(name).items():
        path, number, leaf = (*key.split("."), "")[:3]
        place = next((i for i, end in enumerate(ends, 1) if path == "features" and int(number) < end), None)
        if place:
            found[f"slice{place}.{number}.{leaf}"] = value
    return found


def adain(column: tuple[Any, ...]) -> Any:
    """naoto0804/pytorch-AdaIN: a 1x1 convolution, then VGG-19 with a reflection pad before each convolution."""
    layers: list[nn.Module] = [nn.Conv2d(3, 3, 1)]
    channels = 3
    for width in column:
        if width == "M":
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        else:
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(channels, width, 3), nn.ReLU()]
            channels = width
    return nn.Sequential(*layers)


def test_features_in_slices(tmp_path: Path) -> None:
    # richzhang/PerceptualSimilarity cuts vgg16 after relu1_2, relu2_2 and so on
    lpips = prefixed(slices("vgg16", 4, 9, 16, 23, 30), "net.")
    found = inspect(saved(tmp_path / "x.pth", lpips))
    assert (found.column, found.key_style, found.prefix) == ("D", "sliced Sequential", "net.")
    assert found.problems == ("features only: the FC layers fc6, fc7 and fc8 are missing",)
    assert loaded(found) == ([], [])
    # clovaai/CRAFT-pytorch cuts vgg16_bn before conv5_3 and goes on with convolutions of its own, counted anew
    own = {"slice5.1.weight": torch.empty(1024, 512, 3, 3, device="meta")}
    craft = prefixed({**slices("vgg16_bn", 12, 19, 29, 39), **own}, "module.basenet.")
    found = inspect(saved(tmp_path / "x.pth", craft))
    assert (found.column, found.batch_norm, found.key_style) == ("D", True, "DataParallel sliced Sequential")
    assert found.problems[0] == "cut: the last convolution is conv5_2; conv5_3 and all that follow are missing"
    assert found.extra == ("module.basenet.slice5.1.weight",)
    assert loaded(found) == ([], ["module.basenet.slice5.1.weight"])


def test_a_convolution_of_the_colours_before_a_column(tmp_path: Path) -> None:
    column = (64, 64, "M", 128, 128, "M", 256, 256, 256, 256, "M", 512, 512, 512, 512, "M", 512, 512, 512, 512)
    with torch.device("meta"):
        model = adain(column)
    found = inspect(saved(tmp_path / "vgg_normalised.pth", model.state_dict()))
    assert (found.column, found.input_channels, found.extra) == ("E", 3, ())
    assert found.problems == (
        "features only: the FC layers fc6, fc7 and fc8 are missing",
        "0, a 1x1 convolution of the colours, comes before conv1_1",
        "the numbers leave room for one more layer before each convolution, most likely a pad",
    )
    assert found.notation is not None
    assert found.notation.startswith("conv1-3 conv3-64 conv3-64 maxpool conv3-128")
    # What the file is without cannot be guessed: another padding is another function.
    assert "a convolution before the column's first" in found.obstacle
    assert "model = ...  # of the class" in found.load
    encoder = inspect(saved(tmp_path / "encoder.pth", model[:31].state_dict()))
    assert encoder.problems[0] == "cut: the last convolution is conv4_1; conv4_2 and all that follow are missing"


def test_one_that_begins_as_a_column_does_and_ends_otherwise(tmp_path: Path) -> None:
    # harritaylor/torchvggish: conv1_1 to conv4_2 of column A for one channel, then FC layers on a map of 4x6
    state = dict(ours("conv3-64 maxpool conv3-128 maxpool conv3-256 conv3-256 maxpool conv3-512 conv3-512", 1))
    for number, (reads, units) in zip((0, 2, 4), ((512 * 4 * 6, 4096), (4096, 4096), (4096, 128))):
        state[f"embeddings.{number}.weight"] = torch.empty(units, reads, device="meta")
        state[f"embeddings.{number}.bias"] = torch.empty(units, device="meta")
    found = inspect(saved(tmp_path / "vggish.pth", state))
    assert (found.column, found.num_classes, found.input_channels, found.head_side) == (None, 128, 1, None)
    assert found.notation is not None
    assert found.notation.endswith("conv3-512 conv3-512 maxpool? FC-4096 FC-4096 FC-128")
    assert "not square" in found.obstacle


def ours(word: str, channels: int) -> State:
    with torch.device("meta"):
        state: State = vggscope.build(word, input_size=(channels, 96, 64)).state_dict()
    return state


@pytest.mark.slow
def test_as_many_slices_as_tensors_are_no_trouble() -> None:
    """To join them one by one, each looked up among all before it, would be quadratic."""
    tensors = tuple(StoredTensor(f"s{i}.{i}.weight", (4, 4, 3, 3), "float32") for i in range(10_000))
    few, many = (Checkpoint("x.pth", "torch zip", tensors[:count]) for count in (1_000, 10_000))
    assert growth(examine, few, many, 10) < 1.2


@pytest.mark.parametrize("columns", ["40", "80", "200"])
def test_the_lines_to_load_it_are_whole_in_a_narrow_terminal(
    tmp_path: Path, vggscope: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, columns: str
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    path = tmp_path / ("a long name of a checkpoint, " * 3 + ".pth.tar")
    torch.save({"state_dict": small().state_dict(), "epoch": 3}, path)
    shown = vggscope("inspect", str(path)).out.partition("to load it:\n")[2]
    lines = [line.removeprefix("    ") for line in shown.splitlines()]
    assert "\n".join(lines).strip() == inspect(path).load.strip()


def test_weights_in_parts_are_not_taken_for_weights(tmp_path: Path) -> None:
    """A pruned weight is weight_orig times its mask: put into the model it is pruned no more."""
    model = small()
    for layer in model.modules():
        if hasattr(layer, "weight"):
            pruned(layer)
    torch.save(model.state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"in parts \(features.0.weight_orig\)"):
        load_weights(small(), str(tmp_path / "x.pth"))


def test_packed_weights_of_quantised_layers_are_named(tmp_path: Path) -> None:
    weight, bias = torch.zeros(10, 784), torch.zeros(10)
    state = {"features.0.weight": torch.zeros(8, 3, 3, 3), "fc._packed_params._packed_params": (weight, bias)}
    found = inspected(tmp_path, state)
    assert found.params == 8 * 27
    assert any("pack their weights: fc._packed_params._packed_params" in note for note in found.notes)


def test_the_error_for_a_folder_names_its_files(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    refused(tmp_path, r"give the path of a .pth")
    (tmp_path / "vgg16.safetensors").write_text("")
    refused(tmp_path, r"it is a folder, not a file\nname a file in it: .*vgg16.safetensors")


@pytest.mark.parametrize(("side", "fits"), [(28, None), (32, (3, 32, 32))])
def test_a_linear_layer_keeps_its_features_for_another_input(
    tmp_path: Path, side: int, fits: tuple[int, int, int] | None
) -> None:
    """FC layers that read 7x7 may follow a pool to it; any others fit one input."""
    words = "conv3-8 maxpool conv3-16 maxpool FC-32 FC-10"
    module = vggscope.build(words, input_size=(3, side, side), head="flatten")
    torch.save(module.state_dict(), path := str(tmp_path / "small.pth"))
    own, other = vggscope.summary(path), (3, 36, 36)
    assert own.totals.macs == vggscope.summary(module, input_size=(3, side, side)).totals.macs
    if fits is None:
        pooled = vggscope.summary(path, input_size=other)
        assert pooled.totals.macs == vggscope.summary(words, input_size=other).totals.macs
        assert set(pooled.warnings) - set(own.warnings) == {POOLED}
    else:
        with pytest.raises(ShapeError, match="1,024 features are expected, the input has 1,296") as caught:
            vggscope.summary(path, input_size=other).totals  # noqa: B018
        assert str(fits) in caught.value.remedy


@pytest.mark.parametrize(("name", "kind"), [("net.prototxt", "an architecture of Caffe"), ("my.toml", "columns")])
def test_a_file_without_weights_is_named_for_what_it_is(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).write_text('name: "net"\n' if name == "net.prototxt" else '[columns]\ntiny = "FC-5"\n')
    with pytest.raises(CheckpointError) as raised:
        vggscope.inspect(tmp_path / name)
    assert kind in raised.value.problem
    assert "no weights" in raised.value.problem
    assert "summary" in raised.value.remedy
