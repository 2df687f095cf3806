"""Batch norms that an exporter has folded into convolutions: a diff names them, and the outputs agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import vggscope
from tests.test_onnx_run import export
from vggscope.diffing.numeric import TOLERANCES
from vggscope.graph_json import from_json, to_json


class Net(nn.Module):
    """Convolutions with a bias and without, each before a batch norm, and one with none, in a branch."""

    def __init__(self, *, norms: bool = True) -> None:
        super().__init__()
        kind = nn.BatchNorm2d if norms else nn.Identity
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, bias=not norms), kind(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), kind(8), nn.ReLU())
        self.side = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8 * 14 * 14, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        result: torch.Tensor = self.head((self.body(x) + self.side(x)).flatten(1))
        return result


def trained(**options: bool) -> nn.Module:
    torch.manual_seed(7)
    module = Net(**options)
    for tensor in module.state_dict().values():
        if tensor.dim() == 1:
            tensor.uniform_(0.5, 1.5)
    return module.eval()


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
def test_folded_norms_are_an_equivalence_that_names_them(tmp_path: Path, dynamo: bool) -> None:
    path = export(trained(), tmp_path / "x.onnx", dynamo=dynamo)
    network = vggscope.network(path)
    assert [node.name for node in network.nodes if node.folded_norm] == ["stem.0", "body.0"]
    for models in ((path, trained()), (trained(), path)):
        found = vggscope.diff(models[0], ref=models[1], input_size=(3, 16, 16), numeric=True)
        assert found.verdict == "equivalent"
        messages = [difference.message for difference in found.differences if "folded" in difference.message]
        assert len(messages) == 1
        assert "stem.1: the batch norm is folded into the file's stem.0" in messages[0]
        assert "so in 2 BatchNorm2d layers" in messages[0]
        assert found.numeric is not None
        assert found.numeric.max_rel_error < TOLERANCES["float32"]
        assert found.numeric.parts_at is None
    # A module with other values gets those of the file, the batch norms none but the bias.
    fresh = vggscope.diff(path, ref=Net(), input_size=(3, 16, 16), numeric=True).numeric
    assert fresh is not None
    assert (fresh.parts_at, fresh.max_rel_error < TOLERANCES["float32"]) == (None, True)
    again = from_json(to_json(network))
    assert [node.folded_norm for node in again.nodes] == [node.folded_norm for node in network.nodes]


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
def test_a_file_that_never_had_batch_norms_differs(tmp_path: Path, dynamo: bool) -> None:
    path = export(trained(norms=False), tmp_path / "x.onnx", dynamo=dynamo)
    found = vggscope.diff(path, ref=trained(), input_size=(3, 16, 16))
    assert found.verdict == "different"
    assert not any("folded" in difference.message for difference in found.differences)


@pytest.mark.slow
def test_weights_of_another_module_do_not_pass_as_folded(tmp_path: Path) -> None:
    path = export(trained(), tmp_path / "x.onnx")
    other = trained()
    other.stem[1].running_var.mul_(2)  # type: ignore[index,operator]
    torch.save(other.state_dict(), tmp_path / "other.pth")
    torch.save(trained().state_dict(), tmp_path / "same.pth")
    (tmp_path / "net.py").write_text("from tests.test_onnx_folded import Net\n\ndef make():\n    return Net()\n")
    for name, parts in (("same.pth", None), ("other.pth", "stem.0")):
        numeric = vggscope.diff(path, ref=f"{tmp_path}/net.py:make", weights=str(tmp_path / name)).numeric
        assert numeric is not None
        assert numeric.parts_at == parts
