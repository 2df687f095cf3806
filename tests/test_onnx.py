"""ONNX graphs as models: their figures are those of the module or of a formula; hostile files are refused."""

from __future__ import annotations

import io
import json
import math
import os
import re
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from itertools import pairwise
from pathlib import Path
from random import Random

import onnx
import pytest
import torch
from onnx import TensorProto, helper, shape_inference
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import vggscope
from tests.counting import growth
from tests.peak_memory import RESOLVING
from tests.protobuf import length, varint
from vggscope.builders.module import module
from vggscope.builders.save import write_onnx
from vggscope.checkpoint.formats import onnx_model
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.onnx_model import read_model
from vggscope.errors import ModelError, ShapeError
from vggscope.graph import Network
from vggscope.vgg.configs import CONFIGS


class Branches(nn.Module):
    """A residual block, a gate, a head of tokens, and functions of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.branch = nn.Conv2d(8, 8, 3, padding=1, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(8, 8, 1), nn.Sigmoid())
        self.scale = nn.Parameter(torch.rand(1, 8, 1, 1))
        self.norm = nn.LayerNorm(8)
        self.project = nn.Linear(8, 6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = x + self.branch(x) * self.scale
        x = x * self.gate(x)
        x = torch.cat([nn.functional.max_pool2d(x, 2), nn.functional.avg_pool2d(x, 2)], 1)[:, :8]
        x = self.up(x)
        tokens = self.project(self.norm(x.flatten(2).transpose(1, 2)))
        weights = torch.softmax(tokens @ tokens.transpose(1, 2) / 2.0, -1)
        head: torch.Tensor = self.head((weights @ tokens).mean(1))
        return head


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 5, padding=2), nn.Hardswish(), nn.MaxPool2d(3, stride=2, padding=1)),
        )
        self.classifier = nn.Linear(16 * 64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        output: torch.Tensor = self.classifier(self.features(x).view(x.size(0), -1))
        return output


MODELS = {"branches": Branches, "chain": Chain}


def export(model: nn.Module, path: Path, *, dynamo: bool, opset: int | None = None, batch: bool = True) -> Path:
    """Write a module with one of torch's exporters. Its values differ, so that none is written once for two."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.uniform_(parameter)
    x = torch.zeros(2 if batch else 1, 3, 32, 32)
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            shapes = ({0: torch.export.Dim("batch")},) if batch else None
            torch.onnx.export(
                model.eval(), (x,), path, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False
            )
        else:
            axes = {"input": {0: "batch"}} if batch else None
            torch.onnx.export(
                model.eval(), (x,), path, input_names=["input"], dynamic_axes=axes, opset_version=opset, dynamo=False
            )
    return path


def torch_macs(model: nn.Module) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(torch.zeros(1, 3, 32, 32))
    return int(counter.get_total_flops()) // 2


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("dynamo", [True, False])
def test_figures_are_those_of_the_module(tmp_path: Path, name: str, dynamo: bool) -> None:
    model = MODELS[name]()
    path = export(model, tmp_path / "x.onnx", dynamo=dynamo)
    network = vggscope.network(str(path))
    assert network.failure is None
    assert network.single is None
    report = vggscope.summary(network)
    assert report.totals.macs == torch_macs(model)
    # The exporters join the batch norm of 16 parameters with the convolution before it, which has a bias already.
    joined = 16 if name == "branches" else 0
    assert report.totals.params == sum(p.numel() for p in model.parameters()) - joined
    assert network.batched(network.end, 5) == tuple(model(torch.zeros(5, 3, 32, 32)).shape)
    wide = vggscope.summary(network, batch=4)
    assert wide.totals.macs == 4 * torch_macs(model)


@pytest.mark.slow
@pytest.mark.parametrize("opset", [9, 11, 13, 17, 20])
def test_every_opset_of_the_exporter_gives_the_same_figures(tmp_path: Path, opset: int) -> None:
    model = Chain()
    network = vggscope.network(str(export(model, tmp_path / "x.onnx", dynamo=False, opset=opset)))
    report = vggscope.summary(network)
    assert (report.totals.macs, report.totals.params) == (torch_macs(model), sum(p.numel() for p in model.parameters()))
    assert [node.name for node in network.nodes][:3] == ["features.0", "features.1", "features.2"]
    # Before opset 14 a Hardswish is two nodes, and the network no chain.
    assert network.nodes[0].label == ("conv1_1" if opset >= 14 else "")


@pytest.mark.slow
def test_a_file_of_fixed_batch_is_known_for_that_or_for_all(tmp_path: Path) -> None:
    fixed = vggscope.network(str(export(Chain(), tmp_path / "x.onnx", dynamo=False, batch=False)))
    assert fixed.shapes[fixed.end] == (1, 10)
    if fixed.single is not None:
        with pytest.raises(ShapeError, match="batch"):
            vggscope.summary(fixed, batch=2)


@pytest.mark.slow
@pytest.mark.parametrize("dynamo", [True, False])
def test_a_diff_with_the_exported_module_finds_equal_functions(tmp_path: Path, dynamo: bool) -> None:
    path = export(Chain(), tmp_path / "x.onnx", dynamo=dynamo)
    found = vggscope.diff(str(path), ref=vggscope.network(Chain(), input_size=(1, 3, 32, 32)))
    assert found.verdict in ("equivalent", "identical")
    assert found.params.ours == found.params.reference


def small(word: str) -> str:
    """A column of Table 1 with a sixteenth of its channels."""
    notation = CONFIGS[word].notation
    return re.sub(r"(?<=-)(\d+)", lambda match: str(max(int(match[1]) // 16, 10)), notation)


@pytest.mark.slow
@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("column", CONFIGS)
def test_a_column_that_we_wrote_reads_back_with_the_same_figures(tmp_path: Path, column: str, batch_norm: bool) -> None:
    network = vggscope.network(small(column), input_size=(3, 224, 224), batch_norm=batch_norm)
    write_onnx(module(network), network.input_shape, tmp_path / "x.onnx")
    read = vggscope.network(str(tmp_path / "x.onnx"))
    ours, theirs = vggscope.summary(network), vggscope.summary(read)
    assert [p.name for p in network.parameters()] == [p.name for p in read.parameters()]
    assert [p.shape for p in network.parameters()] == [p.shape for p in read.parameters()]
    assert theirs.totals.macs == ours.totals.macs
    # torch's exporter leaves out the dropouts, which compute nothing at evaluation.
    layers = {layer.name: layer for layer in theirs.layers}
    for layer in ours.layers:
        if "Dropout" not in layer.op:
            other = layers[layer.name]
            assert (layer.output_shape, layer.macs, layer.receptive_field) == (
                other.output_shape,
                other.macs,
                other.receptive_field,
            )
    assert {layer.name for layer in ours.layers} - layers.keys() <= {
        layer.name for layer in ours.layers if "Dropout" in layer.op
    }
    assert theirs.memory.inference_peak_bytes == ours.memory.inference_peak_bytes
    assert vggscope.diff(read, ref=network).verdict in ("identical", "equivalent")


@pytest.mark.slow
def test_a_local_response_norm_is_one_layer(tmp_path: Path) -> None:
    """torch's exporter writes it as nine nodes."""
    norms = nn.LocalResponseNorm(5, alpha=1e-3, beta=0.6, k=2.0), nn.LocalResponseNorm(4)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *norms, nn.ReLU()).eval()
    path = str(export(model, tmp_path / "x.onnx", dynamo=True))
    network = vggscope.network(path)
    assert [node.op.name for node in network.nodes] == ["Conv2d", *["LocalResponseNorm"] * 2, "ReLU"]
    found = vggscope.diff(path, ref=model, input_size=(1, 3, 32, 32), numeric=True)
    assert found.verdict == "equivalent"
    assert {difference.changes[0].attribute for difference in found.differences} == {"inplace"}
    assert found.numeric is not None
    assert found.numeric.parts_at is None


NORM = """
y = torch.nn.functional.pad((x * x).view(-1, 1, 3, 8, 8), (0, 0, 0, 0, {before}, {after}))
y = torch.nn.functional.avg_pool3d(y, ({size}, 1, {wide}), stride=1, padding=(0, 0, {wide} // 2)).squeeze(1)
result = {numerator} / (y * 0.1 + 1.0).pow(0.5)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("is_norm", "changed"),
    [
        (True, {}),
        (False, {"before": 1, "after": 3}),
        (False, {"wide": 3}),
        (False, {"numerator": "torch.relu(x)"}),
    ],
)
def test_what_is_like_a_local_response_norm_is_none(tmp_path: Path, is_norm: bool, changed: dict[str, object]) -> None:
    code = NORM.format(**{"before": 2, "after": 2, "size": 5, "wide": 1, "numerator": "x", **changed})

    class Normed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            names = {"torch": torch, "x": x}
            exec(code, names)
            result: torch.Tensor = names["result"]
            return result

    batch = torch.export.Dim("batch")
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        torch.onnx.export(
            Normed().eval(),
            (torch.zeros(2, 3, 8, 8),),
            tmp_path / "x.onnx",
            dynamo=True,
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    network = vggscope.network(str(tmp_path / "x.onnx"))
    assert network.failure is None
    assert ("LocalResponseNorm" in [node.op.name for node in network.nodes]) == is_norm


# Graphs made by hand


def graph(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Sequence[int | str]] = ((1, 3, 8, 8),),
    tensors: Sequence[onnx.TensorProto] = (),
    outputs: Sequence[str] = ("y",),
    opset: int = 20,
    **more: object,
) -> onnx.ModelProto:
    """A model whose inputs are x, x1, x2, ... of float32."""
    given = [
        helper.make_tensor_value_info("x" if i == 0 else f"x{i}", TensorProto.FLOAT, shape)
        for i, shape in enumerate(inputs)
    ]
    results = [onnx.ValueInfoProto(name=name) for name in outputs]
    made = helper.make_graph(nodes, "g", given, results, list(tensors), **more)
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def weight(name: str, *shape: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.FLOAT, shape, [0.5] * torch.Size(shape).numel())


def integers(name: str, *values: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, [len(values)], values)


def written(model: onnx.ModelProto, folder: Path) -> str:
    path = folder / "made.onnx"
    path.write_bytes(model.SerializeToString())
    return str(path)


def network_of(model: onnx.ModelProto, folder: Path) -> Network:
    return vggscope.network(written(model, folder))


NODE = helper.make_node
ONE_NODE = {
    "conv": (
        NODE("Conv", ["x", "w", "b"], ["y"], strides=[2, 1], pads=[1, 0, 1, 0]),
        [weight("w", 4, 3, 3, 2), weight("b", 4)],
    ),
    "conv dilated, grouped": (NODE("Conv", ["x", "w"], ["y"], dilations=[2, 2], group=3), [weight("w", 6, 1, 3, 3)]),
    "conv, uneven pads": (NODE("Conv", ["x", "w"], ["y"], pads=[0, 1, 2, 0]), [weight("w", 4, 3, 3, 3)]),
    "conv same": (NODE("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER", strides=[3, 3]), [weight("w", 4, 3, 3, 3)]),
    "transposed": (
        NODE("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], output_padding=[1, 1]),
        [weight("w", 3, 4, 3, 3)],
    ),
    "max pool": (NODE("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1), []),
    "max pool, uneven": (NODE("MaxPool", ["x"], ["y"], kernel_shape=[3, 3], pads=[0, 0, 1, 1], strides=[2, 2]), []),
    "average pool": (NODE("AveragePool", ["x"], ["y"], kernel_shape=[2, 3], strides=[2, 1]), []),
    "global": (NODE("GlobalAveragePool", ["x"], ["y"]), []),
    "lrn": (NODE("LRN", ["x"], ["y"], size=3), []),
    "flatten": (NODE("Flatten", ["x"], ["y"], axis=2), []),
    "reshape": (NODE("Reshape", ["x", "s"], ["y"]), [integers("s", 0, -1, 4)]),
    "transpose": (NODE("Transpose", ["x"], ["y"], perm=[0, 2, 3, 1]), []),
    "slice": (
        NODE("Slice", ["x", "a", "b", "c", "d"], ["y"]),
        [integers("a", -1, 1), integers("b", -9, 7), integers("c", 2, 3), integers("d", -2, 3)],
    ),
    "squeeze": (NODE("Squeeze", ["x", "s"], ["y"]), [integers("s", 0)]),
    "unsqueeze": (NODE("Unsqueeze", ["x", "s"], ["y"]), [integers("s", 1, -1)]),
    "expand": (NODE("Expand", ["x", "s"], ["y"]), [integers("s", 2, 1, 3, 1, 1)]),
    "pad": (NODE("Pad", ["x", "s"], ["y"], mode="reflect"), [integers("s", 0, 0, 1, 2, 0, 0, 3, 0)]),
    "resize": (
        NODE("Resize", ["x", "", "s"], ["y"], mode="linear"),
        [helper.make_tensor("s", TensorProto.FLOAT, [4], [1, 1, 2, 1.5])],
    ),
    "gather": (NODE("Gather", ["x", "s"], ["y"], axis=1), [integers("s", 2, 0)]),
    "mean": (NODE("ReduceMean", ["x", "s"], ["y"], keepdims=0), [integers("s", 2, -1)]),
    "argmax": (NODE("ArgMax", ["x"], ["y"], axis=1), []),
    "top k": (NODE("TopK", ["x", "s"], ["y", "i"], axis=2), [integers("s", 3)]),
    "tile": (NODE("Tile", ["x", "s"], ["y"]), [integers("s", 1, 2, 3, 1)]),
    "shuffle": (NODE("SpaceToDepth", ["x"], ["y"], blocksize=2), []),
    "norm": (NODE("LayerNormalization", ["x", "w"], ["y"], axis=2), [weight("w", 8, 8)]),
    "instance norm": (NODE("InstanceNormalization", ["x", "w", "b"], ["y"]), [weight("w", 3), weight("b", 3)]),
    "product": (NODE("MatMul", ["x", "w"], ["y"]), [weight("w", 8, 5)]),
    "clip": (NODE("Clip", ["x", "", "s"], ["y"]), [helper.make_tensor("s", TensorProto.FLOAT, [], [3.0])]),
    "cast": (NODE("Cast", ["x"], ["y"], to=TensorProto.FLOAT16), []),
    "prelu": (NODE("PRelu", ["x", "w"], ["y"]), [weight("w", 3, 1, 1)]),
    "sum": (NODE("Sum", ["x", "w", "x", "x"], ["y"]), [weight("w", 1, 1, 8)]),
    "einsum": (NODE("Einsum", ["x", "w"], ["y"], equation="bchw,wo->bcho"), [weight("w", 8, 5)]),
}


@pytest.mark.parametrize("name", ONE_NODE)
def test_the_shape_of_an_op_is_that_of_onnx(tmp_path: Path, name: str) -> None:
    node, tensors = ONE_NODE[name]
    model = graph([node], tensors=tensors)
    inferred = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph.output[0]
    expected = tuple(side.dim_value for side in inferred.type.tensor_type.shape.dim)
    network = network_of(model, tmp_path)
    assert network.failure is None
    assert network.outputs[0].shape == expected
    dtype = {TensorProto.FLOAT: "", TensorProto.INT64: "int64", TensorProto.FLOAT16: "float16"}
    assert network.outputs[0].dtype == dtype[inferred.type.tensor_type.elem_type]
    assert vggscope.summary(network).totals.macs is not None


def macs_of(model: onnx.ModelProto, folder: Path) -> int | None:
    return vggscope.summary(network_of(model, folder)).totals.macs


def test_multiply_accumulates_are_those_of_the_formulas(tmp_path: Path) -> None:
    def macs(node: onnx.NodeProto, tensors: Sequence[onnx.TensorProto], *inputs: Sequence[int]) -> int | None:
        return macs_of(graph([node], inputs or ((1, 3, 8, 8),), tensors), tmp_path)

    assert macs(*ONE_NODE["conv"]) == 4 * (4 * 7) * 3 * 3 * 2
    assert macs(*ONE_NODE["conv, uneven pads"]) == 4 * (8 * 7) * 3 * 9
    assert macs(*ONE_NODE["transposed"]) == 3 * 64 * 4 * 9
    assert macs(*ONE_NODE["product"]) == 3 * 8 * 8 * 5
    gemm = NODE("Gemm", ["x", "w", "b"], ["y"], transB=1)
    assert macs(gemm, [weight("w", 7, 6), weight("b", 7)], (1, 6)) == 6 * 7
    assert macs(NODE("Gemm", ["x", "w", "b"], ["y"]), [weight("w", 6, 7), weight("b", 7)], (1, 6)) == 6 * 7
    assert macs(NODE("MatMul", ["x", "x1"], ["y"]), [], (1, 4, 5), (1, 5, 6)) == 4 * 5 * 6
    lstm = NODE("LSTM", ["x", "w", "r"], ["y"], hidden_size=5)
    path = written(graph([lstm], [(7, 1, 3)], [weight("w", 1, 20, 3), weight("r", 1, 20, 5)]), tmp_path)
    sequence = vggscope.network(path, input_size=(7, 3), batch_axis=1)
    assert vggscope.summary(sequence).totals.macs == 7 * 4 * 5 * (3 + 5)


def test_weights_that_nodes_compute_count_once_where_they_are_used(tmp_path: Path) -> None:
    def tensor(name: str, *shape: int, dtype: int = TensorProto.FLOAT) -> onnx.TensorProto:
        size = math.prod(shape) * {TensorProto.FLOAT: 4, TensorProto.FLOAT16: 2, TensorProto.INT8: 1}[dtype]
        return helper.make_tensor(name, dtype, shape, bytes(size), raw=True)

    node, scale = helper.make_node, helper.make_tensor("s", TensorProto.FLOAT, [], [0.1])
    half = helper.make_tensor("val_1", TensorProto.FLOAT, [], [0.5])
    size = helper.make_tensor("n", TensorProto.INT64, [2], [8, 40])
    zero = helper.make_tensor("z", TensorProto.INT8, [], [0])
    given = [
        *(tensor("a", 40, 8), tensor("b", 40, 4), tensor("c", 40, 4), tensor("d", 8, 40, dtype=TensorProto.FLOAT16)),
        *(tensor("e", 8, 40), tensor("f", 40), tensor("g", 8, 40, dtype=TensorProto.INT8), tensor("h", 40, 2)),
        *(scale, half, size, zero, tensor("small", 40, 1), tensor("wide", 20), tensor("narrow", 20)),
    ]
    weights = [
        *(
            node("Transpose", ["a"], ["wa"]),
            node("Reshape", ["a", "n"], ["wr"]),
            node("Concat", ["b", "c"], ["bc"], axis=1),
        ),
        *(node("Transpose", ["bc"], ["wb"]), node("Cast", ["d"], ["wd"], to=1), node("Mul", ["e", "f"], ["ef"])),
        *(node("Mul", ["ef", "val_1"], ["we"]), node("DequantizeLinear", ["g", "s", "z"], ["wg"])),
        *(node("Concat", ["small", "small", "h", "b"], ["sh"], axis=1), node("Transpose", ["sh"], ["wh"])),
        node("QuantizeLinear", ["e", "s", "z"], ["qe"]),
        *(node("DequantizeLinear", ["qe", "s", "z"], ["wq"]), node("Concat", ["wide", "narrow"], ["bias"], axis=0)),
    ]
    used = ("wa", "wr", "wb", "wd", "we", "wg", "wh", "wq")
    products = [node("MatMul", ["x", name], [f"y{name}"]) for name in used]
    nodes = [
        *weights,
        *products,
        node("Sum", [f"y{name}" for name in used], ["sum"]),
        node("Add", ["sum", "bias"], ["y"]),
    ]
    report = vggscope.summary(written(graph(nodes, [(1, 8)], given), tmp_path))
    counted = [layer.params for layer in report.layers if layer.op == "matmul"]
    # What an earlier layer has counted is not counted again: a, e and b.
    assert counted == [320, 0, 320, 320, 320 + 40, 320, 40 + 80, 0]
    assert sum(other.params for other in report.totals.other_params) == 40
    assert report.totals.trainable_params == sum(counted) + 40 - 320  # int8 is not trained


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_states_of_zeros_are_no_parameters(tmp_path: Path, kind: str) -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(nn, kind)(6, 5, batch_first=True)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            output: torch.Tensor = self.layer(x)[0]
            return output

    made = Recurrent().eval()
    path = str(tmp_path / "x.onnx")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(made, (torch.zeros(1, 4, 6),), path, dynamo=True)
    assert vggscope.summary(path).totals.params == sum(parameter.numel() for parameter in made.parameters())


@pytest.mark.parametrize("dynamo", [True, False])
def test_norms_have_the_weights_of_the_module(tmp_path: Path, dynamo: bool) -> None:
    norms = [
        nn.InstanceNorm2d(4),
        nn.BatchNorm2d(4, affine=False),
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
    ]
    net = nn.Sequential(*norms, nn.BatchNorm2d(4), nn.LayerNorm(8, elementwise_affine=False), nn.LayerNorm(8)).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter)
    path = str(tmp_path / "norms.onnx")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(1, 4, 8, 8),), path, dynamo=dynamo)
    assert vggscope.summary(path).totals.params == sum(parameter.numel() for parameter in net.parameters()) == 40


def test_a_stated_shape_holds_for_the_batch_of_the_file_alone(tmp_path: Path) -> None:
    model = graph(
        [helper.make_node("Fancy", ["x"], ["h"], domain="org"), helper.make_node("Relu", ["h"], ["y"])], [(2, 8)]
    )
    model.graph.value_info.append(helper.make_tensor_value_info("h", 1, (2, 5)))
    network = vggscope.network(written(model, tmp_path))
    assert (network.inputs[0].shape, network.shapes[network.end]) == ((2, 8), (2, 5))
    assert network.single is not None


def test_weights_of_a_nodes_own_graphs_are_counted(tmp_path: Path) -> None:
    def inner(name: str, nodes: list[onnx.NodeProto], output: str, *weights: onnx.TensorProto) -> onnx.GraphProto:
        return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info(output, 1, (1, 4))], weights)

    node, weights = helper.make_node, [helper.make_tensor(n, 1, (8, 4), bytes(128), raw=True) for n in "vw"]
    then = inner("t", [node("MatMul", ["x", "w"], ["a"])], "a", weights[1])
    other = inner("e", [node("MatMul", ["x", "v"], ["b"])], "b")
    nodes = [
        *(node("ReduceSum", ["x"], ["s"], keepdims=0), node("Cast", ["s"], ["c"], to=TensorProto.BOOL)),
        node("If", ["c"], ["y"], then_branch=then, else_branch=other),
    ]
    model = graph(nodes, [(1, 8)], [weights[0]])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", 1, (1, 4)))
    totals = vggscope.summary(written(model, tmp_path)).totals
    assert (totals.params, totals.macs) == (64, None)


def test_quantised_networks_have_the_figures_of_the_network(tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)).eval()
    path = str(tmp_path / "float.onnx")
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(1, 3, 8, 8),), path, dynamo=False)

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            name = onnx.load(path).graph.input[0].name
            self.rest = iter([{name: torch.rand(1, 3, 8, 8).numpy()}])

        def get_next(self) -> object:
            return next(self.rest, None)

    for form in ("QDQ", "QOperator", ""):
        made = str(tmp_path / f"{form}.onnx")
        if form:
            quantization.quantize_static(path, made, Reader(), quant_format=quantization.QuantFormat[form])
        else:
            quantization.quantize_dynamic(path, made)
        totals = vggscope.summary(made).totals
        if form == "QOperator":  # its linear layer is an op of onnxruntime's own, of an unknown shape
            assert (totals.params, totals.params_known, totals.macs_known) == (None, 4 * 27 + 4, 36 * 27 * 4)
        else:
            assert totals.params == sum(parameter.numel() for parameter in net.parameters()), form
            assert totals.macs == 36 * 27 * 4 + 144 * 5, form


def test_padding_that_depends_on_the_size_is_not_kept_at_another(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Relu", ["x"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["y"], kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER"),
    ]
    network = vggscope.network(written(graph(nodes, [("n", 3, "h", "w")]), tmp_path), (3, 8, 8))
    assert vggscope.network(network, (3, 10, 10)).shapes[network.end] == (1, 3, 5, 5)
    with pytest.raises(ShapeError, match="has other padding on 3x9x9"):
        vggscope.network(network, (3, 9, 9))


def test_shape_computations_are_no_layers(tmp_path: Path) -> None:
    nodes = [
        NODE("Shape", ["x"], ["s"]),
        NODE("Gather", ["s", "zero"], ["n"]),
        NODE("Concat", ["n", "minus"], ["t"], axis=0),
        NODE("Reshape", ["x", "t"], ["f"]),
        NODE("Gemm", ["f", "w"], ["y"], transB=1),
    ]
    tensors = [integers("zero", 0), integers("minus", -1), weight("w", 5, 192)]
    network = network_of(graph(nodes, [("N", 3, 8, 8)], tensors), tmp_path)
    assert [node.op.name for node in network.nodes] == ["Flatten", "Linear"]
    assert network.batched(network.end, 6) == (6, 5)
    assert network.single is None


def test_a_shape_that_holds_the_batch_is_known_for_that_batch_alone(tmp_path: Path) -> None:
    nodes = [NODE("Reshape", ["x", "s"], ["f"]), NODE("Gemm", ["f", "w"], ["y"], transB=1)]
    network = network_of(graph(nodes, tensors=[integers("s", 1, 192), weight("w", 5, 192)]), tmp_path)
    assert network.single is not None
    with pytest.raises(ShapeError):
        vggscope.summary(network, batch=2)


def test_old_files_list_weights_as_inputs(tmp_path: Path) -> None:
    node, tensors = ONE_NODE["conv"]
    model = graph([node, NODE("Dropout", ["y"], ["z"], ratio=0.3)], tensors=tensors, outputs=["z"], opset=7)
    model.ir_version = 3
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, (4, 3, 3, 2)))
    model.graph.input.append(helper.make_tensor_value_info("b", TensorProto.FLOAT, (4,)))
    network = network_of(model, tmp_path)
    assert [given.name for given in network.inputs] == ["input"]
    assert [parameter.name for parameter in network.parameters()] == ["w", "b"]
    assert network.nodes[1].op.active_in == "training"


def test_functions_of_the_file_are_expanded(tmp_path: Path) -> None:
    inner = [
        NODE("Conv", ["a", "k"], ["c"]),
        helper.make_node("LeakyRelu", ["c"], ["out"]),
    ]
    reference = onnx.AttributeProto(name="alpha", type=onnx.AttributeProto.FLOAT, ref_attr_name="slope")
    inner[1].attribute.append(reference)
    function = helper.make_function(
        "mine", "block", ["a", "k"], ["out"], inner, [helper.make_opsetid("", 20)], ["slope"]
    )
    nodes = [
        NODE("block", ["x", "w"], ["m"], domain="mine", slope=0.25),
        NODE("block", ["m", "v"], ["y"], domain="mine", slope=0.5),
    ]
    model = graph(nodes, tensors=[weight("w", 4, 3, 3, 3), weight("v", 5, 4, 3, 3)])
    model.functions.append(function)
    network = network_of(model, tmp_path)
    assert [node.op.name for node in network.nodes] == ["Conv2d", "LeakyReLU"] * 2
    assert [getattr(node.op, "negative_slope", None) for node in network.nodes] == [None, 0.25, None, 0.5]
    assert network.outputs[0].shape == (1, 5, 4, 4)


def test_an_op_without_a_rule_is_kept_and_its_cost_is_unknown(tmp_path: Path) -> None:
    nodes = [
        *(NODE("Conv", ["x", "w"], ["c"]), NODE("Magic", ["c", "m"], ["u"], domain="com.acme")),
        NODE("Relu", ["u"], ["y"]),
    ]
    tensors = [weight("w", 4, 3, 3, 3), weight("m", 9)]
    stated = helper.make_tensor_value_info("u", TensorProto.FLOAT, ("N", 7, 5))
    network = network_of(graph(nodes, [("N", 3, 8, 8)], tensors, value_info=[stated]), tmp_path)
    report = vggscope.summary(network)
    assert (report.totals.macs, report.totals.macs_known) == (None, 4 * 36 * 27)
    assert report.totals.params == 4 * 27 + 9
    assert any("com.acme.Magic" in warning and "unknown" in warning for warning in report.warnings)
    assert network.batched(network.end, 3) == (3, 7, 5)
    unstated = network_of(graph(nodes, tensors=tensors), tmp_path)
    assert unstated.failure is not None
    assert "does not state the shape" in unstated.failure
    assert [node.op.name for node in unstated.nodes] == ["Conv2d"]


def pooled(folder: Path, name: str, side: int = 3) -> str:
    """A pooling whose windows overlap unevenly, which the exporter writes as a table of positions."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.AdaptiveAvgPool2d((side, side)), nn.Flatten())
    with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
        image = (torch.zeros(1, 3, 8, 8),)
        torch.onnx.export(module.eval(), image, folder / name, dynamo=True, external_data=False, verbose=False)
    return str(folder / name)


@pytest.mark.slow
def test_an_export_with_a_table_of_positions_equals_itself_and_its_lock(tmp_path: Path) -> None:
    path, other = pooled(tmp_path, "x.onnx"), tmp_path / "copy.onnx"
    other.write_bytes(Path(path).read_bytes())
    lock = tmp_path / "x.json"
    lock.write_text(json.dumps(vggscope.lock(path).to_dict()))
    assert [vggscope.diff(path, ref=str(ref)).verdict for ref in (path, other, lock)] == ["identical"] * 3
    assert vggscope.diff(path, ref=pooled(tmp_path, "y.onnx", side=5)).verdict == "different"


def constant(dtype: int, values: torch.Tensor, name: str = "val_1") -> onnx.TensorProto:
    return helper.make_tensor(name, dtype, values.shape, values.view(torch.uint8).numpy().tobytes(), raw=True)


LARGE = torch.linspace(-2, 2, 3 * 50 * 50).reshape(3, 50, 50)
NEXT = LARGE.clone()
NEXT[2, 49, 49] += 1e-6
SMALL = torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)
HALVES = SMALL.to(torch.bfloat16)


@pytest.mark.parametrize(
    ("dtype", "values", "others"),
    [(TensorProto.FLOAT, LARGE, NEXT), (TensorProto.FLOAT, SMALL, SMALL + 1), (TensorProto.BFLOAT16, HALVES, -HALVES)],
)
@pytest.mark.parametrize("computing", [(), ("Sigmoid",), ("Tanh", "Exp")])
def test_constants_are_compared_by_their_values(
    tmp_path: Path, dtype: int, values: torch.Tensor, others: torch.Tensor, computing: tuple[str, ...]
) -> None:
    def added(name: str, values: torch.Tensor, ops: tuple[str, ...]) -> str:
        names = ["val_1", *(f"val_{place}" for place in range(2, len(ops) + 2))]
        nodes = [NODE(op, [before], [after]) for op, (before, after) in zip(ops, pairwise(names))]
        shapes = [helper.make_tensor_value_info(after, dtype, values.shape) for after in names[1:]]
        made = graph(
            [*nodes, NODE("Add", ["x", names[-1]], ["y"])],
            [("N", *(3, 50, 50))],
            [constant(dtype, values)],
            value_info=shapes,
        )
        (tmp_path / name).mkdir(exist_ok=True)
        return written(made, tmp_path / name)

    path = added("a", values, computing)
    assert vggscope.diff(path, ref=added("b", values, computing)).verdict == "identical"
    for other in (added("c", others, computing), added("d", values, (*computing, "Neg"))):
        (found,) = vggscope.diff(path, ref=other).differences
        assert (found.effect, found.known) == ("function", True)


def test_a_constant_beside_the_file_is_that_in_it_and_a_missing_one_is_unknown(tmp_path: Path) -> None:
    made = graph([NODE("Add", ["x", "val_1"], ["y"])], [("N", 3, 50, 50)], [constant(TensorProto.FLOAT, LARGE)])
    within = written(made, tmp_path)
    beside = str(tmp_path / "beside.onnx")
    onnx.save(made, beside, save_as_external_data=True, location="data", size_threshold=0)
    assert vggscope.diff(within, ref=beside).verdict == "identical"
    (tmp_path / "data").unlink()
    diff = vggscope.diff(within, ref=beside)
    assert [(d.effect, d.known) for d in diff.differences] == [("function", False)]
    assert "it is not known whether they compute the same" in str(diff)
    assert "another function" not in str(diff).replace("may be another function", "")
    assert vggscope.diff(beside, ref=beside).verdict == "identical"  # one file, whatever it lacks
    os.mkfifo(tmp_path / "data")  # opening it would wait for ever
    assert vggscope.diff(within, ref=beside).verdict == "different"


def test_no_more_of_the_constants_is_read_than_a_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [constant(TensorProto.FLOAT, LARGE, name) for name in ("val_1", "val_2")]
    nodes = [NODE("Add", ["x", "val_1"], ["u"]), NODE("Mul", ["u", "val_2"], ["y"])]
    path = written(graph(nodes, [("N", 3, 50, 50)], tensors), tmp_path)
    whole = [node.constants[0].text for node in vggscope.network(path).nodes]
    assert whole[0] == whole[1] != ""
    monkeypatch.setattr(onnx_model, "MOST_BYTES", 4 * LARGE.numel())
    assert [node.constants[0].text for node in vggscope.network(path).nodes] == [whole[0], ""]


def test_random_constants_and_attributes_are_compared(tmp_path: Path) -> None:
    def compared(one: onnx.NodeProto, other: onnx.NodeProto) -> list[bool]:
        paths = []
        for place, node in enumerate((one, other)):
            (tmp_path / str(place)).mkdir(exist_ok=True)
            stated = helper.make_tensor_value_info("u", TensorProto.FLOAT, ("N", 3, 8, 8))
            nodes = [node, NODE("Relu", ["u"], ["y"])]
            paths.append(written(graph(nodes, [("N", 3, 8, 8)], value_info=[stated]), tmp_path / str(place)))
        return [difference.known for difference in vggscope.diff(paths[0], ref=paths[1]).differences]

    def magic(strength: int) -> onnx.NodeProto:
        return NODE("Magic", ["x"], ["u"], domain="com.acme", strength=strength)

    assert compared(magic(1), magic(1)) == []
    assert compared(magic(1), magic(2)) == [True]
    noise = NODE("RandomNormalLike", ["x"], ["u"])
    assert compared(noise, noise) == [False]


def test_open_axes_are_chosen_or_given(tmp_path: Path) -> None:
    path = written(graph([NODE("GlobalMaxPool", ["x"], ["y"])], [("N", 3, "H", "W")]), tmp_path)
    assert vggscope.network(path).input_shape == (1, 3, 224, 224)
    assert any("open" in warning for warning in vggscope.network(path).warnings)
    assert vggscope.network(path, input_size=(1, 3, 64, 32)).input_shape == (1, 3, 64, 32)
    with pytest.raises(ShapeError, match="fixes"):
        vggscope.network(path, input_size=(1, 4, 64, 64))


def test_neither_torch_nor_onnx_is_imported(tmp_path: Path) -> None:
    path = written(graph([ONE_NODE["conv"][0]], tensors=ONE_NODE["conv"][1]), tmp_path)
    code = f"""
        import sys
        from vggscope.sources.resolve import resolve
        assert len(resolve({path!r}).nodes) == 1
        print({{"torch", "onnx", "google.protobuf", "numpy"}} & sys.modules.keys())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


# Weights are not read


def test_the_weights_of_a_large_file_are_not_read(tmp_path: Path) -> None:
    model = graph([NODE("Gemm", ["x", "w"], ["y"], transB=1)], [(1, 25088)])
    header = length(8, b"w") + b"\x08" + varint(4096) + b"\x08" + varint(25088) + b"\x10\x01"
    size = 4096 * 25088 * 4
    tensor = header + varint(9 << 3 | 2) + varint(size)
    inner = model.graph.SerializeToString() + varint(5 << 3 | 2) + varint(len(tensor) + size) + tensor
    path = tmp_path / "large.onnx"
    path.write_bytes(b"\x08\x09" + length(8, b"\x10\x14") + varint(7 << 3 | 2) + varint(len(inner) + size) + inner)
    os.truncate(path, path.stat().st_size + size)
    assert path.stat().st_size > 390 * 2**20
    assert vggscope.summary(str(path)).totals.params == 4096 * 25088
    with BoundedFile(str(path)) as file:
        read_model(file)
        assert file.bytes_read < 20_000


def test_external_data_is_named_and_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for ever
    for location, told in {
        "pipe": "in pipe",
        "../../etc/passwd": "outside its folder",
        "/etc/passwd": "outside",
    }.items():
        tensor = onnx.TensorProto(
            name="w", data_type=TensorProto.FLOAT, dims=[4, 3, 3, 3], data_location=TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value=location)
        network = network_of(graph([NODE("Conv", ["x", "w"], ["y"])], tensors=[tensor]), tmp_path)
        assert network.nodes[0].parameters[0].shape == (4, 3, 3, 3)
        unread = "not read" if "outside" in told else "read only where"
        assert any(told in warning and unread in warning for warning in network.warnings)


# Hostile files


def refused(data: bytes, folder: Path, reason: str) -> None:
    path = folder / "hostile.onnx"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=reason) as caught:
        vggscope.network(str(path))
    assert "\n" not in caught.value.problem


def _bomb(depth: int) -> onnx.ModelProto:
    """Functions, each of which calls the next one ten times."""
    model = graph([NODE("f0", ["x"], ["y"], domain="d")])
    for number in range(depth):
        last = number == depth - 1
        calls = [
            NODE(
                "Relu" if last else f"f{number + 1}",
                ["a" if i == 0 else f"v{i}"],
                ["out" if i == 9 else f"v{i + 1}"],
                domain="" if last else "d",
            )
            for i in range(10)
        ]
        model.functions.append(
            helper.make_function("d", f"f{number}", ["a"], ["out"], calls, [helper.make_opsetid("", 20)])
        )
    return model


def test_damaged_and_hostile_graphs_are_refused(tmp_path: Path) -> None:
    relu = NODE("Relu", ["x"], ["y"])
    refused(b"", tmp_path, "empty")
    refused(b"<html>", tmp_path, "wire type|cut short|no ONNX graph|beyond")
    refused(b"\x08\x09", tmp_path, "no ONNX graph")
    refused(length(7, b"", 2**62), tmp_path, "beyond the end")
    refused(b"\x3a" + b"\xff" * 20, tmp_path, "does not end|beyond")
    refused(length(7, length(1, length(1, b"x", 100))), tmp_path, "beyond the end")
    circle = [NODE("Add", ["x", "b"], ["a"]), NODE("Relu", ["a"], ["b"]), NODE("Relu", ["b"], ["y"])]
    refused(graph(circle).SerializeToString(), tmp_path, "no node before it writes")
    refused(graph([relu, relu]).SerializeToString(), tmp_path, "two nodes write y")
    refused(graph([relu], outputs=["nothing"]).SerializeToString(), tmp_path, "no outputs")
    twice = graph([relu], tensors=[weight("w", 2), weight("w", 3)])
    refused(twice.SerializeToString(), tmp_path, "same name")
    huge = onnx.TensorProto(name="w", data_type=1, dims=[2**40, 2**40])
    refused(graph([relu], tensors=[huge]).SerializeToString(), tmp_path, "makes no sense")
    negative = onnx.TensorProto(name="w", data_type=1, dims=[-5])
    refused(graph([relu], tensors=[negative]).SerializeToString(), tmp_path, "makes no sense")
    refused(_bomb(8).SerializeToString(), tmp_path, "more than 20,000 nodes")
    endless = graph([NODE("f", ["x"], ["y"], domain="d")])
    call = NODE("f", ["a"], ["out"], domain="d")
    endless.functions.append(helper.make_function("d", "f", ["a"], ["out"], [call], []))
    refused(endless.SerializeToString(), tmp_path, "without end")
    nested = b""
    for _ in range(2000):
        nested = length(1, length(5, length(6, nested)))  # node, attribute, graph
    refused(length(7, nested), tmp_path, "nested too deep")
    refused(length(7, length(5, length(1, b"\x01" * 3_000_000))), tmp_path, "more than any model's graph")
    refused(length(7, length(1, b"") * 600_000), tmp_path, "nodes, at most")
    (tmp_path / "folder.onnx").mkdir()
    with pytest.raises(ModelError, match="a folder"):
        vggscope.network(str(tmp_path / "folder.onnx"))
    with pytest.raises(ModelError, match="no such file"):
        vggscope.network(str(tmp_path / "missing.onnx"))


def test_the_work_is_proportional_to_the_nodes_and_outputs(tmp_path: Path) -> None:
    def chain(count: int) -> str:
        names = ["x", *(f"v{i}" for i in range(count))]
        nodes = [NODE("Relu", [name], [following]) for name, following in pairwise(names)]
        path = tmp_path / f"{count}.onnx"
        path.write_bytes(graph(nodes, outputs=names[1:]).SerializeToString())
        return str(path)

    assert growth(vggscope.network, chain(200), chain(1600), 8) < 1.5


def test_a_constant_may_not_claim_more_values_than_it_has(tmp_path: Path) -> None:
    shape = onnx.TensorProto(name="s", data_type=TensorProto.INT64, dims=[1], raw_data=b"\xff" * 3)
    network = network_of(graph([NODE("Reshape", ["x", "s"], ["y"])], tensors=[shape]), tmp_path)
    assert network.failure is not None
    large = integers("s", 1, 3, 2**40, 2**40)
    expanded = network_of(graph([NODE("Expand", ["x", "s"], ["y"])], [(1, 3, 1, 1)], [large]), tmp_path)
    assert expanded.failure is not None or expanded.nodes


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return export(Branches(), tmp_path_factory.mktemp("hostile") / "x.onnx", dynamo=False).read_bytes()


@pytest.mark.slow
def test_a_truncated_file_is_refused(model_file: bytes, tmp_path: Path) -> None:
    for tenth in range(10):
        refused(model_file[: len(model_file) * tenth // 10], tmp_path, ".")


@pytest.mark.slow
def test_changed_bytes_are_refused_or_described(model_file: bytes, tmp_path: Path) -> None:
    draw = Random(1)
    path = tmp_path / "changed.onnx"
    for _ in range(300):
        data = bytearray(model_file)
        for _ in range(draw.choice([1, 2, 8])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data)
        with suppress(ModelError, ShapeError):  # any other error fails the test
            vggscope.summary(vggscope.network(str(path)))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_no_file_costs_more_than_300_mb(tmp_path: Path) -> None:
    entry = length(1, length(1, b"x") + length(2, b"y"))
    data = {
        "nodes": length(7, entry * 25_000),
        "fields": length(7, length(5, b"\x08\x01" * 2_000_000)),
        "attributes": length(7, length(1, length(5, length(1, b"a") + b"\x18\x01") * 400_000)),
        "texts": length(7, length(1, length(1, b"x" * 4000) * 20_000)),
        "floats": length(7, length(1, length(5, length(7, bytes(16 * 2**20))))),
        "functions": _bomb(12).SerializeToString(),
        "chain": graph(
            [NODE("Add", ["x" if i == 0 else f"v{i}"] * 2, ["y" if i == 9999 else f"v{i + 1}"]) for i in range(10_000)]
        ).SerializeToString(),
    }
    for name, content in data.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", RESOLVING],
        input=json.dumps([str(tmp_path / f"{name}.onnx") for name in data]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert int(done.stdout) < 300 * 1000
