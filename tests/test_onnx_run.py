"""ONNX files run by onnxruntime beside modules: the errors are those of a comparison by hand."""

from __future__ import annotations

import io
import subprocess
import sys
import warnings
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn

import vggscope
from vggscope.diffing.numeric import TOLERANCES
from vggscope.errors import ModelError, OptionError

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, approximate="none", eps=1e-5):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.BatchNorm2d(8, eps), nn.MaxPool2d(2),
            nn.Conv2d(8, 4, 3, bias=False), nn.GELU(approximate=approximate),
        )
        self.classifier = nn.Linear(4 * 6 * 6, 10)

    def forward(self, x):
        return self.classifier(self.features(x).flatten(1))

def tanh():
    return Net("tanh")
"""


def made(**options: object) -> nn.Module:
    """The module of CODE with seeded weights and running statistics."""
    names: dict[str, object] = {}
    exec(CODE, names)
    torch.manual_seed(3)
    module: nn.Module = names["Net"](**options)  # type: ignore[operator]
    norm = module.features[2]  # type: ignore[index]
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.5, 1.5)
    return module.eval()


def export(
    module: nn.Module, path: Path, *, dynamo: bool = False, batch: int = 0, dtype: torch.dtype = torch.float32
) -> str:
    """Write a module with one of torch's exporters, for a fixed batch if one is given."""
    x = torch.zeros(batch or 2, 3, 16, 16, dtype=dtype)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = None if batch else ({0: torch.export.Dim("batch")},)
            torch.onnx.export(module, (x,), path, dynamo=True, dynamic_shapes=shapes, external_data=True, verbose=False)
        else:
            axes = None if batch else {"x": {0: "batch"}}
            torch.onnx.export(module, (x,), path, input_names=["x"], dynamic_axes=axes, dynamo=False)
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the module's code, its weights, and its files of both exporters."""
    path = tmp_path_factory.mktemp("run")
    (path / "net.py").write_text(CODE)
    torch.save(made().state_dict(), path / "net.pth")
    export(made(), path / "net.onnx")
    export(made(), path / "dynamo.onnx", dynamo=True)
    return path


def by_hand(path: str, module: nn.Module, seed: int = 0) -> float:
    """The largest difference of the outputs on the input that the documentation tells."""
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).float()
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        return float((torch.from_numpy(output) - module(x)).abs().max())


@pytest.mark.parametrize("file", ["net.onnx", "dynamo.onnx"])
def test_the_error_is_that_of_a_comparison_by_hand(folder: Path, file: str) -> None:
    module = made()
    found = vggscope.diff(str(folder / file), ref=module, input_size=(3, 16, 16), numeric=True)
    assert found.verdict == "equivalent"
    numeric = found.numeric
    assert numeric is not None
    # onnxruntime fuses nodes, but not those whose values are also outputs: the last digits may differ.
    assert numeric.max_abs_error == pytest.approx(by_hand(str(folder / file), module), abs=1e-6)
    assert numeric.max_abs_error < 1e-5
    assert (numeric.parts_at, numeric.changed_weights, numeric.dtype) == (None, 0, "float32")
    assert [engine.split()[0] for engine in numeric.engines] == ["onnxruntime", "torch"]


def test_the_weights_of_the_file_are_copied_to_the_module_on_either_side(folder: Path) -> None:
    file, word = str(folder / "net.onnx"), f"{folder}/net.py:Net"
    one, other = (vggscope.diff(a, ref=b, numeric=True).numeric for a, b in ((file, word), (word, file)))
    assert one is not None
    assert other is not None
    # Two convolutions, one with a bias, a linear layer, and a norm with its two statistics.
    assert one.changed_weights == other.changed_weights == 9
    assert max(one.max_rel_error, other.max_rel_error) < TOLERANCES["float32"]
    assert other.engines == one.engines[::-1]


def test_the_first_layer_that_parts_is_named_with_its_error(folder: Path) -> None:
    module = made(approximate="tanh")
    found = vggscope.diff(str(folder / "net.onnx"), ref=module, input_size=(3, 16, 16), numeric=True)
    numeric = found.numeric
    assert numeric is not None
    assert numeric.parts_at is not None
    assert numeric.parts_at.startswith("features.5")
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64).float()
    with torch.no_grad():
        exact = nn.functional.gelu(module.features[:5](x))  # type: ignore[index]
        tanh = nn.functional.gelu(module.features[:5](x), approximate="tanh")  # type: ignore[index]
    assert numeric.parts_error == pytest.approx(float((exact - tanh).abs().max() / tanh.abs().max()), rel=1e-2)
    assert numeric.parts_error > numeric.tolerance


def test_where_outputs_agree_layers_of_other_sizes_are_no_mismatch(tmp_path: Path) -> None:
    """The projection within an attention is a row of the file alone, and is aligned with another linear layer."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), nn.Linear(16, 3)).eval()
    path = str(tmp_path / "encoder.onnx")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (torch.zeros(1, 5, 16),), path, dynamo=False)
    numeric = vggscope.diff(path, ref=module, input_size=(5, 16), numeric=True).numeric
    assert numeric is not None
    assert numeric.max_rel_error < numeric.tolerance
    assert (numeric.parts_at, numeric.parts_error) == (None, None)


def test_another_epsilon_of_a_norm_shows(folder: Path) -> None:
    found = vggscope.diff(str(folder / "net.onnx"), ref=made(eps=1e-3), input_size=(3, 16, 16), numeric=True).numeric
    assert found is not None
    assert found.parts_at is not None
    assert found.parts_at.startswith("features.2")


def test_weights_of_a_checkpoint_are_compared_as_they_are(folder: Path) -> None:
    file, word = str(folder / "net.onnx"), f"{folder}/net.py:Net"
    same = vggscope.diff(file, ref=word, weights=str(folder / "net.pth")).numeric
    assert same is not None
    assert (same.parts_at, same.changed_weights) == (None, None)
    state = made().state_dict()
    state["features.4.weight"] += 0.1
    torch.save(state, folder / "other.pth")
    for models in ((file, word), (word, file)):
        stale = vggscope.diff(models[0], ref=models[1], weights=str(folder / "other.pth")).numeric
        assert stale is not None
        assert stale.parts_at is not None
        assert stale.parts_at.startswith("features.4")


def test_two_files_run_with_their_own_weights(folder: Path) -> None:
    files = str(folder / "net.onnx"), str(folder / "dynamo.onnx")
    found = vggscope.diff(files[0], ref=files[1], numeric=True).numeric
    assert found is not None
    assert found.max_rel_error < TOLERANCES["float32"]
    assert (found.changed_weights, len(set(found.engines))) == (None, 1)
    with pytest.raises(OptionError, match="both files"):
        vggscope.diff(files[0], ref=files[1], weights=str(folder / "net.pth"))


def test_a_file_of_a_fixed_batch_gets_that_batch(folder: Path) -> None:
    path = export(made(), folder / "fixed.onnx", batch=3)
    found = vggscope.diff(path, ref=made(), input_size=(3, 16, 16), numeric=True).numeric
    assert found is not None
    assert found.max_rel_error < TOLERANCES["float32"]
    assert found.parts_at is None


def test_a_file_in_half_precision_is_compared_within_its_rounding(folder: Path) -> None:
    path = export(made().half(), folder / "half.onnx", batch=1, dtype=torch.float16)
    found = vggscope.diff(path, ref=made(), input_size=(3, 16, 16), numeric=True).numeric
    assert found is not None
    assert (found.dtype, found.tolerance) == ("float16", TOLERANCES["float16"])
    assert 0 < found.max_rel_error < found.tolerance
    with pytest.raises(OptionError, match="own dtypes"):
        vggscope.diff(path, ref=made(), input_size=(3, 16, 16), numeric=True, float64=True)


# Files of strangers


def test_an_op_of_a_custom_library_is_not_run(tmp_path: Path) -> None:
    node = helper.make_node("Magic", ["x"], ["y"], domain="com.acme")
    infos = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 8, 8]) for name in ("x", "y")]
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    graph = helper.make_graph([node], "g", infos[:1], infos[1:])
    path = tmp_path / "made.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString())
    with pytest.raises(ModelError, match=r"onnxruntime does not run made\.onnx"):
        vggscope.diff(str(path), ref=nn.Identity(), input_size=(3, 8, 8), numeric=True)


def with_external(folder: Path, location: str, *, inner: bool = False) -> str:
    """A convolution whose weights lie elsewhere: as an initializer, or in the attribute of a Constant."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4, 3, 3, 3], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    constant = [helper.make_node("Constant", [], ["w"], value=tensor)] if inner else []
    nodes = [*constant, helper.make_node("Conv", ["x", "w"], ["y"])]
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 8, 8])]
    graph = helper.make_graph(nodes, "g", infos, [onnx.ValueInfoProto(name="y")], [] if inner else [tensor])
    path = folder / "made.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    return str(path)


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "..\\secret", "a/../../secret"])
def test_weights_outside_the_folder_are_not_read(
    tmp_path: Path, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret").write_bytes(bytes(4 * 108))
    inside = tmp_path / "inside"
    inside.mkdir()
    monkeypatch.chdir(inside)
    for inner in (False, True):
        path = with_external(inside, location, inner=inner)
        with pytest.raises(vggscope.VggscopeError, match=r"outside its folder|attributes or inner graphs"):
            vggscope.diff(path, ref=nn.Conv2d(3, 4, 3, bias=False), input_size=(3, 8, 8), numeric=True)


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(4 * 108))
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "data").symlink_to(tmp_path / "secret")
    with pytest.raises(vggscope.VggscopeError, match="outside its folder"):
        vggscope.diff(
            with_external(inside, "data"), ref=nn.Conv2d(3, 4, 3, bias=False), input_size=(3, 8, 8), numeric=True
        )


def test_a_second_graph_cannot_hide_tensors(tmp_path: Path) -> None:
    """Protobuf joins two graphs of a model, so that a reader of the last one would overlook the first."""
    path = Path(with_external(tmp_path, "/etc/passwd"))
    data = path.read_bytes()
    path.write_bytes(data + data)
    with pytest.raises(ModelError, match="two of 'graph'"):
        vggscope.network(str(path))


@pytest.mark.slow
def test_without_onnxruntime_the_error_names_it(folder: Path) -> None:
    code = (
        "import sys; sys.modules['onnxruntime'] = None; from vggscope.cli.app import run;"
        "sys.exit(run(['diff', 'net.onnx', '--ref', 'net.py:Net', '--numeric']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'vggscope[onnxruntime]'" in done.stderr


def test_the_layers_that_keep_their_own_weights_are_named(tmp_path: Path) -> None:
    """Layers without a counterpart, and those of another size, on both sides."""
    module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(576, 10)).eval()
    normed = nn.Sequential(*module[:3], nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(576, 12)).eval()
    for ours in (module, export(module, tmp_path / "net.onnx")):
        found = vggscope.diff(ours, ref=normed, input_size=(3, 16, 16), numeric=True)
        assert found.numeric is not None
        assert [title.split()[0] for title in found.numeric.our_unmatched] == ["4"]
        assert [title.split()[0] for title in found.numeric.reference_unmatched] == ["3", "5"]
        assert "weights without a counterpart, kept as they were" in " ".join(str(found).split())
        same = vggscope.diff(ours, ref=module, input_size=(3, 16, 16), numeric=True).numeric
        assert same is not None
        assert (same.our_unmatched, same.reference_unmatched) == ((), ())
