"""Layers of torch in ONNX files that ONNX writes otherwise, against the module that was exported and onnxruntime."""

from __future__ import annotations

import io
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import vggscope


class Sequence(nn.Module):
    """A recurrent layer and a linear one, on its outputs or on its last state."""

    def __init__(self, kind: str, reads: str, **settings: Any) -> None:
        super().__init__()
        self.layer = getattr(nn, kind)(6, 8, **settings)
        self.reads = reads
        self.fc = nn.Linear(16 if settings.get("bidirectional") and reads == "outputs" else 8, 4)

    def forward(self, x: Tensor) -> Tensor:
        outputs, state = self.layer(x)
        last = state[0] if isinstance(state, tuple) else state
        return self.fc(outputs if self.reads == "outputs" else last[-1])


def export(module: nn.Module, given: Tensor, path: Path, **settings: Any) -> str:
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        torch.onnx.export(module.eval(), (given,), str(path), **settings)
    return str(path)


SETTINGS = {
    "one layer": {"batch_first": True},
    "both directions": {"num_layers": 2, "bidirectional": True, "batch_first": True},
    "steps first, no bias": {"num_layers": 2, "bias": False},
}


def check(kind: str, reads: str, settings: dict[str, Any], path: Path, *, dynamo: bool) -> None:
    """A file and a module of other weights are the same network, and with the file's weights have the same output."""
    batch_first = bool(settings.get("batch_first"))
    given = torch.randn((1, 9, 6) if batch_first else (9, 1, 6))
    word = export(Sequence(kind, reads, **settings), given, path, dynamo=dynamo)
    other = Sequence(kind, reads, **settings).eval()
    found = vggscope.diff(word, ref=other, input_data=given, batch_axis=0 if batch_first else 1, numeric=True)
    assert found.verdict in ("identical", "equivalent")
    assert all(difference.kind == "renamed" for difference in found.differences)
    assert found.params == vggscope.diff(other, ref=other, input_data=given).params
    assert found.numeric is not None
    assert found.numeric.max_rel_error < found.numeric.tolerance
    assert found.numeric.changed_weights == len(list(other.parameters()))


CASES = [
    *(("LSTM", "outputs", name) for name in SETTINGS),
    ("LSTM", "state", "both directions"),
    ("GRU", "state", "steps first, no bias"),
    ("RNN", "outputs", "both directions"),
]


@pytest.mark.parametrize(("kind", "reads", "name"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_a_recurrent_layer_is_that_of_the_module(tmp_path: Path, kind: str, reads: str, name: str) -> None:
    torch.manual_seed(0)
    check(kind, reads, SETTINGS[name], tmp_path / "model.onnx", dynamo=False)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_so_it_is_in_a_file_of_dynamo_of_a_batch_of_one(tmp_path: Path) -> None:
    check("LSTM", "outputs", SETTINGS["both directions"], tmp_path / "model.onnx", dynamo=True)


@pytest.mark.filterwarnings("ignore")
def test_its_weights_are_torchs(tmp_path: Path) -> None:
    """In the order of torch's gates, under torch's names."""
    torch.manual_seed(0)
    module = Sequence("LSTM", "outputs", **SETTINGS["both directions"])
    word = export(module, torch.randn(1, 9, 6), tmp_path / "model.onnx", dynamo=False)
    assert vggscope.inspect(word).params == sum(own.numel() for own in module.parameters())
    filled = vggscope.build(Sequence("LSTM", "outputs", **SETTINGS["both directions"]), weights=word)
    for name, tensor in module.state_dict().items():
        assert torch.equal(filled.state_dict()[name], tensor), name


@pytest.mark.filterwarnings("ignore")
def test_what_is_no_layer_of_torch_stays_as_it_is(tmp_path: Path) -> None:
    """A layer whose output another node reads before it is laid out is ONNX's."""
    import onnx

    word = export(
        Sequence("LSTM", "outputs", batch_first=True), torch.randn(1, 9, 6), tmp_path / "m.onnx", dynamo=False
    )
    model = onnx.load(word)
    layer = next(node for node in model.graph.node if node.op_type == "LSTM")
    model.graph.node.append(onnx.helper.make_node("Relu", [layer.output[0]], ["also"]))
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("also"))
    onnx.save(model, word)
    network = vggscope.network(word)
    assert [node.op.name for node in network.nodes][:2] == ["permute", "LSTM"]
    assert network.shapes[network.nodes[1].name] == (9, 1, 1, 8)


class Twins(nn.Module):
    """Two convolutions with equal biases, of which the second may be the first's own."""

    def __init__(self, *, shared: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        for layer in (self.first, self.second):
            nn.init.zeros_(layer.bias)
        if shared:
            self.second.bias = self.first.bias

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("shared", [False, True])
def test_a_tensor_written_once_makes_no_difference(tmp_path: Path, shared: bool) -> None:
    module = Twins(shared=shared)
    word = export(module, torch.zeros(1, 3, 8, 8), tmp_path / "twins.onnx", dynamo=False)
    summary, inspection = vggscope.summary(word), vggscope.inspect(word)
    assert summary.totals.params == inspection.params == 3 * 8 * 9 + 8 * 8 * 9 + 2 * 8
    assert any("first.bias is written once" in note for note in (*summary.warnings,))
    assert any("first.bias is written once" in note for note in inspection.notes)
    assert vggscope.diff(word, ref=module, input_data=torch.zeros(1, 3, 8, 8)).verdict == "equivalent"


class Clones(nn.Module):
    """Two linear layers of equal weights, as a copied layer of a transformer has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.load_state_dict(self.first.state_dict())

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


@pytest.mark.filterwarnings("ignore")
def test_nor_does_a_matrix_that_is_written_once(tmp_path: Path) -> None:
    word = export(Clones(), torch.zeros(1, 8), tmp_path / "clones.onnx", dynamo=False)
    assert vggscope.diff(word, ref=Clones(), input_size=(1, 8)).verdict == "equivalent"
    assert any("counted once" in note for note in vggscope.summary(word).warnings)
