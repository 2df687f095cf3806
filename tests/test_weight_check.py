"""`build --weights FILE --check`: the written weights compute what the file does, or where they part is named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import vggscope
from tests import matconvnet, torch7
from vggscope.builders.save import write_onnx
from vggscope.errors import OptionError

SIZE = (1, 3, 28, 28)


@pytest.fixture(scope="module")
def model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    ).eval()


@pytest.fixture(scope="module")
def onnx_file(model: nn.Sequential, tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("onnxruntime")
    path = tmp_path_factory.mktemp("onnx") / "x.onnx"
    write_onnx(model, SIZE, path)
    return str(path)


@pytest.mark.parametrize("rgb", [False, True])
def test_an_onnx_file_is_run_by_its_own_runtime(tmp_path: Path, model: nn.Module, onnx_file: str, rgb: bool) -> None:
    done = vggscope.export(model, tmp_path / "x.pth", SIZE, weights=onnx_file, rgb=rgb, check=True)
    assert done is not None
    assert done.agrees
    assert done.sentence == (
        "checked: x.onnx, run by onnxruntime, and the written weights give the same output for a random input"
    )
    written = torch.load(tmp_path / "x.pth", weights_only=True)["0.weight"]
    assert torch.equal(written.flip(1) if rgb else written, model.state_dict()["0.weight"])


def test_the_first_layer_that_parts_is_named(tmp_path: Path, model: nn.Sequential, onnx_file: str) -> None:
    """A model with the same weights and another pool."""
    other = nn.Sequential(*model[:2], nn.AvgPool2d(2), *model[3:])
    done = vggscope.export(other, tmp_path / "x.pth", SIZE, weights=onnx_file, check=True)
    assert done is not None
    assert not done.agrees
    assert done.numeric.parts_at == "2 (pool1)"
    assert "2 (pool1) is the first layer that parts" in done.sentence


@pytest.mark.parametrize("kind", ["mat", "t7"])
@pytest.mark.parametrize("rgb", [False, True])
def test_a_network_that_vggscope_reads_is_run_by_torch(
    tmp_path: Path, model: nn.Sequential, kind: str, rgb: bool
) -> None:
    if kind == "mat":
        pytest.importorskip("scipy.io")
        path = matconvnet.write(tmp_path / "x.mat", matconvnet.small())
        word = "conv3-8 maxpool conv3-16 maxpool FC-32 FC-10"
    else:
        view = torch7.Obj("nn.View", {"size": torch7.longs(8 * 14 * 14)})
        layers = [view if isinstance(each, nn.Flatten) else torch7.layer(each) for each in model]
        path = torch7.write(tmp_path / "x.t7", torch7.container("nn.Sequential", *layers))
        word = path
    output = tmp_path / "x.safetensors"
    done = vggscope.export(word, output, SIZE, weights=path, rgb=rgb, check=True)
    assert done is not None
    assert (done.agrees, done.engine) == (True, "torch")


def test_weights_alone_are_not_checked(tmp_path: Path, model: nn.Module) -> None:
    np.savez(tmp_path / "x.npz", **{name: value.numpy() for name, value in model.state_dict().items()})
    with pytest.raises(OptionError, match="no network is run from"):
        vggscope.export(model, tmp_path / "x.pth", SIZE, weights=str(tmp_path / "x.npz"), check=True)
    table = {str(number): torch7.tensor(np.ones(3, "f4")) for number in range(3)}
    tensors = torch7.write(tmp_path / "x.t7", table)
    with pytest.raises(OptionError, match="no network is run from"):
        vggscope.export(model, tmp_path / "x.pth", SIZE, weights=tensors, check=True)
    with pytest.raises(OptionError, match="check without weights"):
        vggscope.export(model, tmp_path / "x.pth", SIZE, check=True)
    assert not (tmp_path / "x.pth").exists()
