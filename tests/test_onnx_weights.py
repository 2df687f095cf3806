"""Weights in ONNX files: their names and shapes are the module's, and so are the values that are loaded from them."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import vggscope
from tests.protobuf import length, varint
from tests.test_onnx import export
from vggscope.builders.save import write_onnx
from vggscope.checkpoint.load_weights import load_weights
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError

NOTATION = "conv3-8 maxpool conv3-12 conv3-12 maxpool FC-20 FC-10"
SIZE = (3, 32, 32)


def made(*, batch_norm: bool = False) -> nn.Module:
    """The module of NOTATION with values that all differ."""
    torch.manual_seed(5)
    module = vggscope.build(NOTATION, input_size=SIZE, batch_norm=batch_norm, head="flatten").eval()
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return module


def same_weights(module: nn.Module, other: nn.Module) -> bool:
    left, right = module.state_dict(), other.state_dict()
    return left.keys() == right.keys() and all(torch.equal(left[key], right[key]) for key in left)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
def test_the_weights_of_an_exported_module_are_read_back(tmp_path: Path, dynamo: bool) -> None:
    module = made()
    path = str(export(module, tmp_path / "x.onnx", dynamo=dynamo))  # it draws the parameters anew
    found = vggscope.inspect(path)
    assert (found.format, found.num_classes, found.params) == ("ONNX", 10, sum(p.numel() for p in module.parameters()))
    loaded = vggscope.build(NOTATION, input_size=SIZE, head="flatten", weights=path)
    assert same_weights(loaded, module)
    assert same_weights(vggscope.build(path, weights=path), module)
    vggscope.export(NOTATION, tmp_path / "x.safetensors", SIZE, head="flatten", weights=path)
    assert vggscope.values(tmp_path / "x.safetensors", path).verdict == "identical"


def test_running_statistics_are_read_and_counters_left_as_they_are(tmp_path: Path) -> None:
    module = made(batch_norm=True)
    write_onnx(module, (1, *SIZE), tmp_path / "x.onnx")
    path = str(tmp_path / "x.onnx")
    loaded = vggscope.build(NOTATION, input_size=SIZE, head="flatten", batch_norm=True, weights=path)
    assert same_weights(loaded, module)
    with pytest.raises(CheckpointError, match=r"the model has no features\.1\.weight"):
        vggscope.build(NOTATION, input_size=SIZE, head="flatten", weights=str(tmp_path / "x.onnx"))


def model_of(nodes: list[onnx.NodeProto], arrays: dict[str, np.ndarray], inputs: list[int]) -> onnx.ModelProto:
    infos = [helper.make_tensor_value_info("x", TensorProto.FLOAT, inputs)]
    tensors = [numpy_helper.from_array(np.ascontiguousarray(array), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", infos, [onnx.ValueInfoProto(name="y")], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def numbers(*shape: int) -> np.ndarray:
    return np.arange(np.prod(shape), dtype=np.float32).reshape(shape)


LINEAR = {
    "inputs x outputs": ([helper.make_node("Gemm", ["x", "w", "b"], ["y"])], True),
    "outputs x inputs": ([helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1)], False),
    "turned": (
        [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]), helper.make_node("Gemm", ["x", "t", "b"], ["y"])],
        False,
    ),
    "turned and transB": (
        [
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("Gemm", ["x", "t", "b"], ["y"], transB=1),
        ],
        True,
    ),
    "turned twice": (
        [
            helper.make_node("Transpose", ["w"], ["t"]),
            helper.make_node("Transpose", ["t"], ["u"]),
            helper.make_node("Identity", ["u"], ["v"]),
            helper.make_node("Gemm", ["x", "v", "b"], ["y"], transB=1),
        ],
        False,
    ),
}


@pytest.mark.parametrize("case", LINEAR)
def test_a_linear_layer_is_read_in_torchs_layout(tmp_path: Path, case: str) -> None:
    nodes, is_transposed = LINEAR[case]
    nodes[-1].name = "fc"
    weight, bias = numbers(5, 5), numbers(5)
    model = model_of(nodes, {"w": weight.T if is_transposed else weight, "b": bias}, [1, 5])
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    module = nn.Module()
    module.fc = nn.Linear(5, 5)
    load_weights(module, str(tmp_path / "x.onnx"))
    assert torch.equal(module.fc.weight, torch.from_numpy(weight))
    assert torch.equal(module.fc.bias, torch.from_numpy(bias))


def test_a_tensor_that_is_written_once_for_two_layers_is_in_both(tmp_path: Path) -> None:
    """As the exporter writes biases that are all zero."""
    nodes = [
        helper.make_node("Conv", ["x", "a.weight", "a.bias"], ["p"], name="/a/Conv"),
        helper.make_node("Conv", ["p", "b.weight", "a.bias"], ["y"], name="/b/Conv"),
    ]
    arrays = {"a.weight": numbers(3, 3, 1, 1), "a.bias": numbers(3), "b.weight": numbers(3, 3, 1, 1) + 9}
    (tmp_path / "x.onnx").write_bytes(model_of(nodes, arrays, [1, 3, 4, 4]).SerializeToString())
    names = [tensor.name for tensor in read(tmp_path / "x.onnx").tensors]
    assert names == ["a.weight", "a.bias", "b.weight", "b.bias"]
    module = nn.Sequential()
    module.add_module("a", nn.Conv2d(3, 3, 1))
    module.add_module("b", nn.Conv2d(3, 3, 1))
    load_weights(module, str(tmp_path / "x.onnx"))
    assert torch.equal(module.b.bias, torch.arange(3.0))  # type: ignore[union-attr]
    assert torch.equal(module.b.weight.flatten(), torch.arange(9.0) + 9)  # type: ignore[union-attr]


def test_quantised_weights_and_those_of_inner_graphs_are_named_and_not_counted(tmp_path: Path) -> None:
    quantised = {"a.weight_q": numbers(3, 3, 1, 1).astype(np.int8), "a.weight_scale": np.float32([0.5])}
    arrays = {**quantised, "zero": np.zeros(1, np.int8), "shape": np.int64([1, -1]), "b.weight": numbers(4, 3, 1, 1)}
    inner = [helper.make_node("Conv", ["p", "w"], ["q"])]
    tensors = [numpy_helper.from_array(numbers(5, 4, 1, 1), "w"), numpy_helper.from_array(np.float32(2), "one")]
    branches = [helper.make_graph(inner, name, [], [onnx.ValueInfoProto(name="q")], tensors) for name in ("yes", "no")]
    nodes = [
        helper.make_node("DequantizeLinear", ["a.weight_q", "a.weight_scale", "zero"], ["w"]),
        helper.make_node("Conv", ["x", "w"], ["p"]),
        helper.make_node("Conv", ["p", "b.weight"], ["r"]),
        helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
    ]
    (tmp_path / "x.onnx").write_bytes(model_of(nodes, arrays, [1, 3, 4, 4]).SerializeToString())
    found = vggscope.inspect(tmp_path / "x.onnx")
    assert [tensor.name for layer in found.layers for tensor in layer.tensors] == ["b.weight"]
    assert "not counted, since quantised layers pack their weights: a.weight_q" in found.notes
    assert any("also holds else_branch.w, then_branch.w next to" in note for note in found.notes)


@pytest.mark.parametrize(("scale", "shift"), [("val_1", "onnx::Add_2"), ("b.scale", "b.shift")])
def test_constants_without_a_name_are_said_not_to_be_counted(tmp_path: Path, scale: str, shift: str) -> None:
    """torch's exporters write an untrained GroupNorm with such constants, and any expression of parameters."""
    arrays = {"a.weight": numbers(3, 3, 1, 1), scale: numbers(3, 1, 1) + 2, shift: numbers(3, 1, 1)}
    nodes = [
        helper.make_node("Conv", ["x", "a.weight"], ["p"]),
        helper.make_node("Mul", ["p", scale], ["q"]),
        helper.make_node("Add", ["q", shift], ["y"]),
    ]
    (tmp_path / "x.onnx").write_bytes(model_of(nodes, arrays, [1, 3, 4, 4]).SerializeToString())
    summary = vggscope.summary(str(tmp_path / "x.onnx"))
    note = f"2 constants with 6 values ({scale}), which the file does not name, may be parameters"
    is_named = scale == "b.scale"
    assert summary.totals.params == 9 + 6 * is_named
    assert any(warning.startswith(note) for warning in summary.warnings) is not is_named


def convolution() -> onnx.ModelProto:
    arrays = {"a.weight": numbers(3, 3, 1, 1)}
    return model_of([helper.make_node("Conv", ["x", "a.weight"], ["y"])], arrays, [1, 3, 4, 4])


def test_a_tensor_that_lies_about_its_size_is_refused(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "a.weight"], ["y"])], {"a.weight": numbers(3, 3, 1, 1)}, [1, 3, 4, 4]
    )
    model.graph.initializer[0].dims[0] = 4
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(CheckpointError, match=r"a\.weight has 36 bytes where its shape needs 48"):
        vggscope.inspect(tmp_path / "x.onnx")


def test_external_weights_are_read_within_their_file(tmp_path: Path) -> None:
    model = model_of(
        [helper.make_node("Conv", ["x", "a.weight"], ["y"])], {"a.weight": numbers(3, 3, 1, 1)}, [1, 3, 4, 4]
    )
    onnx.save(model, tmp_path / "x.onnx", save_as_external_data=True, location="data", size_threshold=0)
    module = nn.Module()
    module.a = nn.Conv2d(3, 3, 1, bias=False)
    load_weights(module, str(tmp_path / "x.onnx"))
    assert torch.equal(module.a.weight.flatten(), torch.arange(9.0))
    os.truncate(tmp_path / "data", 20)
    assert vggscope.inspect(tmp_path / "x.onnx").params == 9  # the data is not read
    with pytest.raises(CheckpointError, match="ends after the end of the file"):
        load_weights(module, str(tmp_path / "x.onnx"))
    (tmp_path / "data").unlink()
    with pytest.raises(CheckpointError, match="no such file"):
        load_weights(module, str(tmp_path / "x.onnx"))


def test_inspecting_does_not_read_the_weights(tmp_path: Path) -> None:
    model = model_of([helper.make_node("Gemm", ["x", "fc.weight"], ["y"], transB=1)], {}, [1, 25088])
    size = 4096 * 25088 * 4
    header = length(8, b"fc.weight") + b"\x08" + varint(4096) + b"\x08" + varint(25088) + b"\x10\x01"
    tensor = header + varint(9 << 3 | 2) + varint(size)
    inner = model.graph.SerializeToString() + varint(5 << 3 | 2) + varint(len(tensor) + size) + tensor
    path = tmp_path / "large.onnx"
    path.write_bytes(b"\x08\x08" + length(8, b"\x10\x11") + varint(7 << 3 | 2) + varint(len(inner) + size) + inner)
    os.truncate(path, path.stat().st_size + size)
    code = "import resource, sys, vggscope; print(vggscope.inspect(sys.argv[1]).params)"
    limit = 2**28  # less than the weights
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert int(done.stdout) == 4096 * 25088


def test_a_program_of_torch_export_is_inspected(tmp_path: Path) -> None:
    module = made(batch_norm=True)
    torch.export.save(torch.export.export(module, (torch.zeros(1, *SIZE),)), tmp_path / "x.pt2")
    found = vggscope.inspect(tmp_path / "x.pt2")
    assert found.format == "torch.export"
    assert found.params == sum(parameter.numel() for parameter in module.parameters())
    stored = {tensor.name: tensor.shape for layer in found.layers for tensor in layer.tensors}
    assert stored == {key: tuple(tensor.shape) for key, tensor in module.state_dict().items()}
