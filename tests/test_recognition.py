"""Checkpoints of torchvision's and timm's models are recognised, by the libraries' own state dicts."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from inspect import signature
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import models

import vggscope
from tests.recorded import Recorded
from vggscope.checkpoint.loading_code import WITH_BACKBONE
from vggscope.errors import ModelError, OptionError
from vggscope.sources import cache, recognition
from vggscope.sources.recognition import FEWEST, MOST
from vggscope.sources.timm_sizes import INDEX, ModelSize, index
from vggscope.suppress import suppress_output
from vggscope.trace.build import without_data

State = dict[str, torch.Tensor]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VGGSCOPE_CACHE", str(tmp_path / "cache"))
    return tmp_path


def state_of(build: Callable[..., torch.nn.Module], **arguments: object) -> State:
    """A model's state dict with any values."""
    # Not on the meta device, on which older models of timm cannot be built.
    return dict(build(**arguments).state_dict())


def saved(path: Path, state: object) -> Path:
    torch.save(state, path)
    return path


@pytest.mark.parametrize(
    ("word", "build"),
    [
        ("torchvision:resnet18", models.resnet18),
        ("torchvision:densenet121", models.densenet121),
        ("torchvision:squeezenet1_1", models.squeezenet1_1),
        ("torchvision:googlenet", lambda: models.googlenet(init_weights=False)),
    ],
)
def test_a_model_of_torchvision_is_found_by_its_tensors(
    folder: Path, word: str, build: Callable[..., torch.nn.Module]
) -> None:
    found = vggscope.inspect(saved(folder / "x.pth", state_of(build)))
    assert (found.library_model, found.library_match, found.num_classes) == (word, "exact", 1000)
    assert found.column is None
    assert found.problems == ()
    assert str(found).splitlines()[2] == word


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_model_with_other_classes_and_the_code_that_loads_it(folder: Path, suffix: str) -> None:
    state = state_of(models.mobilenet_v3_small, num_classes=10)
    path = folder / f"x{suffix}"
    if suffix == ".pth":
        saved(path, {"state_dict": {f"module.{key}": value for key, value in state.items()}})
    else:
        save_file(state, path)  # which sorts the keys
    found = vggscope.inspect(path)
    assert (found.library_model, found.library_match) == ("torchvision:mobilenet_v3_small", "other classes")
    assert found.num_classes == 10
    assert str(found).splitlines()[2] == "torchvision:mobilenet_v3_small with 10 classes"
    scope: dict[str, torch.nn.Module] = {}
    exec(found.load, scope)
    assert scope["model"].state_dict().keys() == state.keys()


def test_the_part_of_a_larger_module_has_its_prefix(folder: Path) -> None:
    state = {f"model.net.{key}": value for key, value in state_of(models.resnet18).items()}
    found = vggscope.inspect(saved(folder / "x.ckpt", {"state_dict": state}))
    assert (found.library_model, found.library_match, found.prefix) == ("torchvision:resnet18", "exact", "model.net.")
    assert "removeprefix('model.net.')" in found.load


def test_a_near_miss_is_the_nearest_and_says_what_differs(folder: Path) -> None:
    state = state_of(models.resnet18)
    state["layer2.0.conv1.weight"] = torch.empty(128, 64, 5, 5)
    state["scale"] = state.pop("layer1.0.bn1.bias")
    found = vggscope.inspect(saved(folder / "x.pth", state))
    assert (found.library_model, found.library_match) == ("torchvision:resnet18", "nearest")
    assert found.problems == (
        "layer2.0.conv1.weight is 128x64x5x5, not 128x64x3x3",
        "missing: layer1.0.bn1.bias",
        "extra: scale; torchvision:resnet18 has no place for it",
    )
    assert (found.missing, found.extra) == (("layer1.0.bn1.bias",), ("scale",))
    assert str(found).splitlines()[2] == "nearest to torchvision:resnet18"
    with pytest.raises(vggscope.errors.CheckpointError):
        vggscope.summary(str(folder / "x.pth"))


def test_no_class_count_makes_up_for_another_shape(folder: Path) -> None:
    state = state_of(models.resnet18, num_classes=10)
    state["layer1.0.conv1.weight"] = torch.empty(10, 64, 3, 3)
    found = vggscope.inspect(saved(folder / "x.pth", state))
    assert (found.library_model, found.library_match) == ("torchvision:resnet18", "nearest")


@pytest.mark.parametrize("hint", ["config", "file", "folder"])
def test_a_model_of_timm_is_found_by_what_names_it(folder: Path, hint: str) -> None:
    inside = folder / ("convnext_atto.d2_in1k" if hint == "folder" else "x")
    inside.mkdir()
    path = inside / ("convnext_atto.d2_in1k-3.safetensors" if hint == "file" else "model.safetensors")
    save_file(state_of(timm.create_model, model_name="convnext_atto", num_classes=7), path)
    if hint == "config":
        (inside / "config.json").write_text(json.dumps({"architecture": "convnext_atto"}))
    found = vggscope.inspect(path)
    assert (found.library_model, found.library_match) == ("timm:convnext_atto", "other classes")
    assert found.num_classes == 7


def test_a_name_proves_nothing(folder: Path) -> None:
    path = saved(folder / "resnet50.a1_in1k.pth", {"conv1.weight": torch.empty(8, 3, 7, 7)})
    found = vggscope.inspect(path)
    assert (found.library_model, found.library_match, found.same_keys) == (None, None, ())
    assert str(found).splitlines()[2] == "unknown network: 1 Conv2d"


@pytest.mark.parametrize("name", ["resnet18'); x('", "timm:resnet18", "resnet18\x1b[31m", "../..", "__", "-" * 90])
def test_hostile_names_of_architectures(folder: Path, name: str) -> None:
    save_file({"a.weight": torch.zeros(2, 2)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps({"architecture": name}))
    found = vggscope.inspect(folder)
    assert found.library_model is None
    assert "\x1b" not in str(found)


def test_the_network_of_a_recognised_file_is_the_librarys(folder: Path) -> None:
    path = saved(folder / "x.pth", state_of(models.resnet18, num_classes=10))
    summary = vggscope.summary(str(path))
    reference = vggscope.summary(models.resnet18(num_classes=10), input_size=(1, 3, 224, 224))
    assert (summary.totals.params, summary.totals.macs) == (reference.totals.params, reference.totals.macs)
    assert any("taken from torchvision:resnet18" in warning for warning in summary.warnings)
    assert vggscope.diff(str(path), ref=models.resnet18(num_classes=10)).verdict == "identical"
    with pytest.raises(OptionError, match="the file has 10"):
        vggscope.summary(str(path), num_classes=5)


def test_the_reference_of_a_recognised_file_is_the_librarys_model(folder: Path) -> None:
    path = str(saved(folder / "x.pth", state_of(models.squeezenet1_1, num_classes=10)))
    for ref in ("torchvision", None):
        found = vggscope.diff(path, ref=ref)
        assert (found.reference, found.verdict) == ("torchvision:squeezenet1_1", "identical")
        assert "the keys and shapes are those of torchvision:squeezenet1_1" in found.notes
    with pytest.raises(ModelError, match="timm has no counterpart of torchvision:squeezenet1_1") as caught:
        vggscope.diff(path, ref="timm")
    assert "ref='torchvision:squeezenet1_1'" in caught.value.remedy


def test_the_code_that_loads_a_detector_downloads_no_backbone(folder: Path) -> None:
    for name in models.list_models():
        takes_backbone = "weights_backbone" in signature(models.get_model_builder(name)).parameters
        assert name.startswith(WITH_BACKBONE) == takes_backbone, name
    state = state_of(models.detection.ssdlite320_mobilenet_v3_large, weights=None, weights_backbone=None)
    found = vggscope.inspect(saved(folder / "x.pth", state))
    assert found.library_model == "torchvision:ssdlite320_mobilenet_v3_large"
    assert "get_model('ssdlite320_mobilenet_v3_large', weights_backbone=None)" in found.load


def test_a_half_precision_file_has_its_dtype(folder: Path) -> None:
    state = {
        key: value.half() if value.is_floating_point() else value for key, value in state_of(models.resnet18).items()
    }
    assert vggscope.network(str(saved(folder / "x.pth", state))).dtype == "float16"


PROGRAM = """
import sys, vggscope
found = vggscope.inspect(sys.argv[1])
print(found.library_model, found.library_match, "torch" in sys.modules)
"""


@pytest.mark.slow
def test_the_second_inspection_needs_no_torch(folder: Path) -> None:
    path = saved(folder / "x.pth", state_of(models.resnet18, num_classes=10))
    for imported in (True, False):
        ran = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == f"torchvision:resnet18 other classes {imported}"


@pytest.mark.slow
def test_a_vgg_needs_no_torch(folder: Path) -> None:
    path = saved(folder / "x.pth", state_of(models.vgg11))
    ran = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "None None False"


@pytest.mark.slow
def test_a_file_of_few_or_too_many_tensors_needs_no_torch(folder: Path) -> None:
    for count in (FEWEST - 1, MOST + 1):
        path = saved(folder / "x.pth", {f"{number}.weight": torch.empty(8, 3, 7, 7) for number in range(count)})
        ran = subprocess.run([sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=True)
        assert ran.stdout.strip() == "None None False"


def test_the_models_have_tensors_between_the_bounds() -> None:
    """The table has timm's models; of torchvision's, AlexNet and the VGGs are the smallest by far."""
    _, of_timm = index()
    counts = [model.tensors - model.head_tensors for model in of_timm]
    assert max(model.tensors for model in of_timm) < MOST // 2
    assert min(*counts, len(state_of(models.alexnet)), len(state_of(models.squeezenet1_0))) == 2 * FEWEST


def test_remembered_models_of_timm_are_candidates_and_twins(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recognition, "has_unchanged_libraries", lambda: True)
    for name in ("efficientnet_b0", "tf_efficientnet_b0"):  # they pad differently, and have the same state dict
        assert recognition._keys(f"timm:{name}", None) is not None
    assert cache.models_with_keys("timm") == ("timm:efficientnet_b0", "timm:tf_efficientnet_b0")
    found = vggscope.inspect(saved(folder / "x.pth", state_of(timm.create_model, model_name="tf_efficientnet_b0")))
    assert (found.library_model, found.library_match) == ("timm:efficientnet_b0", "exact")
    assert found.same_keys == ("timm:efficientnet_blur_b0", "timm:tf_efficientnet_b0")
    assert any(
        "the same keys and shapes: timm:efficientnet_blur_b0, timm:tf_efficientnet_b0" in note for note in found.notes
    )


@pytest.mark.parametrize("classes", [1000, 7, 0])
def test_a_model_of_timm_is_found_without_a_hint(folder: Path, classes: int) -> None:
    """By its size, with its own classes, with others and without its classifier."""
    path = saved(folder / "x.pth", state_of(timm.create_model, model_name="lcnet_035", num_classes=classes))
    found = vggscope.inspect(path)
    kind = "exact" if classes == 1000 else "other classes"
    assert (found.library_model, found.library_match, found.num_classes) == ("timm:lcnet_035", kind, classes)


def test_models_of_timm_with_the_same_keys_are_all_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They pad differently, and no weight shows it."""
    state = state_of(timm.create_model, model_name="tf_mobilenetv3_small_075")
    found = vggscope.inspect(saved(folder / "x.pth", state))
    assert "timm:tf_mobilenetv3_small_075" in (found.library_model, *found.same_keys)
    assert any("the same keys and shapes" in note for note in found.notes) == bool(found.same_keys)


def test_an_unknown_file_says_what_it_was_compared_with(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(folder / "x.pth", {f"{name}.weight": torch.empty(8, 3, 7, 7) for name in "abcdefgh"})
    note = next(note for note in vggscope.inspect(path).notes if "no model of torchvision or timm has its keys" in note)
    assert "of timm those of as many parameters and tensors" in note
    _, models = index()
    monkeypatch.setattr(recognition, "names_in", lambda library, cache=True: tuple(f"new_{i}" for i in range(40)))
    assert any("40 newer models" in note for note in vggscope.inspect(path).notes)
    monkeypatch.setattr(recognition, "names_in", lambda library, cache=True: ())
    model = models[-1]
    likely = {"a": torch.empty(model.elements - model.tensors + 1, device="meta")}
    likely |= {f"b{number}": torch.empty(1, device="meta") for number in range(model.tensors - 1)}
    notes = vggscope.inspect(saved(folder / "y.pth", likely)).notes
    assert any(f"timm:{model.name}" in note and "timm is not installed" in note for note in notes)


def sizes_of(name: str) -> ModelSize:
    """The numbers of a model, from its module."""
    with suppress_output():
        module = without_data(partial(timm.create_model, name))
        state = {key: value for key, value in module.state_dict().items() if not key.endswith("num_batches_tracked")}
        head = module.get_classifier()
    heads = [
        value for part in (head if isinstance(head, tuple | list) else [head]) for value in part.state_dict().values()
    ]
    classes, elements = getattr(module, "num_classes", None), sum(value.numel() for value in heads)
    own = (classes or 0, elements, len(heads)) if classes and heads else (0, 0, 0)
    return ModelSize(name, sum(value.numel() for value in state.values()), len(state), *own)


@pytest.mark.slow
def test_the_sizes_that_come_with_vggscope_are_those_of_timm() -> None:
    """One in a hundred models; `--update-reference` writes all of them again, which takes minutes."""
    version, models = index()
    if Recorded.updating:
        rows = [f"{timm.__version__}"]
        for name in timm.list_models():
            with suppress(AttributeError):  # pruned models are not built without data
                size = sizes_of(name)
                rows.append(" ".join(str(getattr(size, field)) for field in ModelSize.__dataclass_fields__))
        INDEX.write_text("\n".join(rows) + "\n", encoding="utf-8")
        return
    if version != timm.__version__:
        pytest.skip(f"the numbers are of timm {version}")
    assert len(models) > 0.98 * len(timm.list_models())
    for model in models[::100]:
        assert sizes_of(model.name) == model


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", ["model.pt2", "model.pt"])
def test_a_program_of_a_librarys_model_is_recognised(folder: Path, name: str) -> None:
    """It has an order of its own, so that none is taken from the model."""
    model = models.squeezenet1_1(num_classes=10).eval()
    image = torch.zeros(1, 3, 64, 64)
    if name.endswith(".pt2"):
        torch.export.save(torch.export.export(model, (image,)), folder / name)
    else:
        torch.jit.trace(model, image, check_trace=False).save(folder / name)
    found = vggscope.inspect(folder / name)
    assert (found.library_model, found.library_match) == ("torchvision:squeezenet1_1", "other classes")
    assert not any("taken from" in note for note in found.notes)
    result = vggscope.diff(str(folder / name), ref="torchvision")
    assert (result.reference, result.verdict) == ("torchvision:squeezenet1_1", "identical")
