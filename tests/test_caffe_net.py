"""Nets of Caffe as models: figures by hand, by torch and by protobuf's own reader; hostile files are refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest
import torch
from google.protobuf import text_format
from torch import nn

import vggscope
from tests.caffe import binary_of, deploy, net_class
from tests.counting import growth
from tests.peak_memory import RESOLVING
from tests.protobuf import varint
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.errors import ModelError, OptionError, ShapeError
from vggscope.foreign.caffe.net import read_binary, read_text
from vggscope.graph import Network

D = ((64, 64), (128, 128), (256,) * 3, (512,) * 3, (512,) * 3)
HEAD = (4096, 4096, 1000)


def text_of(*layers: str, shape: str = "dim: 1 dim: 3 dim: 32 dim: 32") -> str:
    """A chain of layers, each `name type settings`, on one input."""
    rows = [f'layer {{ name: "data" type: "Input" top: "data" input_param {{ shape {{ {shape} }} }} }}']
    last = "data"
    for layer in layers:
        name, kind, *settings = layer.split(" ", 2)
        rows.append(f'layer {{ name: "{name}" type: "{kind}" bottom: "{last}" top: "{name}" {"".join(settings)} }}')
        last = name
    return "\n".join(rows)


def weights_of(**shapes: tuple[tuple[int, ...], ...]) -> bytes:
    """Weights without a net: layers with blobs of these shapes."""
    message = net_class()()
    for name, sides in shapes.items():
        layer = message.layer.add(name=name, type="Convolution")
        for shape in sides:
            blob = layer.blobs.add()
            blob.data.extend([0.5] * torch.Size(shape).numel())
            blob.shape.dim.extend(shape)
    data: bytes = message.SerializeToString()
    return data


def test_a_net_and_its_weights_in_two_files_are_read_together(tmp_path: Path) -> None:
    convolution = "Convolution convolution_param { num_output: 4 kernel_size: 3 pad: 1 }"
    net, weights = tmp_path / "small_deploy.prototxt", tmp_path / "small.caffemodel"
    net.write_text(text_of(f"a {convolution}", f"b {convolution}"))
    (tmp_path / "solver.prototxt").write_text('net: "train_val.prototxt"')
    own = {"a": ((4, 3, 3, 3), (4,)), "b": ((4, 4, 3, 3), (4,))}
    for held, what in (
        (own, "has the weights of all its layers"),
        ({"a": own["a"]}, "has no weights of b"),
        (
            own | {"b": ((4, 4, 5, 5), (4,))},
            "b.weight: the file holds 4x4x5x5, with this input the layer needs 4x4x3x3",
        ),
    ):
        weights.write_bytes(weights_of(**held))
        for word in (net, weights):
            network = vggscope.network(str(word))
            assert [(node.name, node.op.name) for node in network.nodes] == [("a", "Conv2d"), ("b", "Conv2d")]
            assert any(what in note for note in network.warnings), network.warnings
            assert any("beside it" in note for note in network.warnings)
    weights.write_bytes(weights_of(**own))
    built = vggscope.build(str(net), weights=str(weights)).state_dict()
    assert all(bool((value == 0.5).all()) for value in built.values())
    weights.write_bytes(weights_of(other=own["a"]))
    assert not any("beside it" in note for note in vggscope.network(str(net)).warnings)
    weights.write_bytes(b"\xff" * 20)
    assert any("small.caffemodel, beside it, is not read" in note for note in vggscope.network(str(net)).warnings)


def network_of(text: str, folder: Path, **options: object) -> Network:
    """The Network of a net in text, which is that of the same net in protobuf's own binary form."""
    (folder / "x.prototxt").write_text(text)
    (folder / "x.caffemodel").write_bytes(binary_of(text))
    network = vggscope.network(str(folder / "x.prototxt"), **options)  # type: ignore[arg-type]
    with BoundedFile(str(folder / "x.prototxt")) as in_text, BoundedFile(str(folder / "x.caffemodel")) as in_binary:
        assert read_text(in_text).layers == read_binary(in_binary).layers
    return network


@pytest.mark.parametrize("is_old", [False, True])
def test_a_deploy_file_is_column_d(tmp_path: Path, is_old: bool) -> None:
    network = network_of(deploy(D, HEAD, is_old=is_old), tmp_path)
    column = vggscope.network("D", head="flatten")
    ours, theirs = vggscope.summary(network).totals, vggscope.summary(column).totals
    assert (ours.params, ours.macs) == (theirs.params, theirs.macs)
    # Caffe's two dropouts are in place, torchvision's are not.
    assert ours.activation_bytes + 2 * 4096 * 4 == theirs.activation_bytes
    assert vggscope.diff(network, column).verdict == "equivalent"
    assert vggscope.diff(network, "torchvision").verdict == "equivalent"
    assert [node.label for node in network.nodes if node.parameters] == [n.label for n in column.nodes if n.parameters]
    assert vggscope.memory(network).peak_bytes > 0
    ours_rf, theirs_rf = (vggscope.receptive_fields(each).layers for each in (network, column))
    assert [row.size for row in ours_rf] == [row.size for row in theirs_rf]
    assert any("fixes a batch of 10" in note for note in network.warnings)
    assert any("prob is left out" in note for note in network.warnings)


def test_soft_max_keeps_the_end(tmp_path: Path) -> None:
    network = network_of(deploy(D, HEAD), tmp_path, soft_max=True)
    assert network.nodes[-1].op.name == "Softmax"
    assert vggscope.diff(network, vggscope.network("D", head="flatten", soft_max=True)).verdict == "equivalent"
    with pytest.raises(OptionError, match="has its layers"):
        vggscope.network(str(tmp_path / "x.prototxt"), head="dense")


def test_the_size_of_the_input_is_the_callers(tmp_path: Path) -> None:
    network = network_of(deploy(D, HEAD), tmp_path, input_size=(3, 64, 64))
    assert network.shapes["pool5"] == (1, 512, 2, 2)
    assert network.by_name["fc6"].parameters[0].shape == (4096, 512 * 2 * 2)
    with pytest.raises(ShapeError, match="axes beside the batch"):
        vggscope.network(str(tmp_path / "x.prototxt"), input_size=(1, 2, 3, 64, 64))


@pytest.mark.parametrize(
    ("layer", "module"),
    [
        ("c Convolution convolution_param { num_output: 6 kernel_size: 5 stride: 3 pad: 1 }", nn.Conv2d(3, 6, 5, 3, 1)),
        (
            "c Convolution convolution_param {num_output: 6 kernel_h: 5 kernel_w: 3 pad_h: 2 stride_h: 1 stride_w: 2}",
            nn.Conv2d(3, 6, (5, 3), (1, 2), (2, 0)),
        ),
        (
            "c Convolution convolution_param { num_output: 6 kernel_size: 3 dilation: 2 group: 3 bias_term: false }",
            nn.Conv2d(3, 6, 3, dilation=2, groups=3, bias=False),
        ),
        (
            "c Convolution convolution_param { num_output: 4 kernel_size: [3, 1] pad: 1 pad: 0 }",
            nn.Conv2d(3, 4, (3, 1), padding=(1, 0)),
        ),
        (
            "d Deconvolution convolution_param { num_output: 6 kernel_size: 4 stride: 2 pad: 1 }",
            nn.ConvTranspose2d(3, 6, 4, 2, 1),
        ),
        ("p Pooling pooling_param { kernel_size: 3 stride: 2 }", nn.MaxPool2d(3, 2, ceil_mode=True)),
        ("p Pooling pooling_param { kernel_size: 3 stride: 2 pad: 1 }", nn.MaxPool2d(3, 2, 1, ceil_mode=True)),
        ("p Pooling pooling_param { kernel_size: 2 stride: 2 }", nn.MaxPool2d(2)),
        ("p Pooling pooling_param { kernel_size: 3 stride: 2 round_mode: FLOOR }", nn.MaxPool2d(3, 2)),
        (
            "p Pooling pooling_param { pool: AVE kernel_size: 5 stride: 3 pad: 2 }",
            nn.AvgPool2d(5, 3, 2, ceil_mode=True),
        ),
        ("p Pooling pooling_param { pool: AVE global_pooling: true }", nn.AdaptiveAvgPool2d(1)),
        ("n LRN lrn_param { local_size: 5 alpha: 0.0005 beta: 0.75 k: 2 }", nn.LocalResponseNorm(5, 5e-4, 0.75, 2)),
        ("n LRN", nn.LocalResponseNorm(5, 1.0, 0.75, 1.0)),
        ("r ReLU relu_param { negative_slope: 0.1 }", nn.LeakyReLU(0.1)),
        ("r PReLU", nn.PReLU(3)),
        ("r PReLU prelu_param { channel_shared: true }", nn.PReLU(1)),
        ("r ELU elu_param { alpha: 0.5 }", nn.ELU(0.5)),
        ("r Sigmoid", nn.Sigmoid()),
        ("r TanH", nn.Tanh()),
        ("r BNLL", nn.Softplus()),
        ("f Flatten", nn.Flatten()),
        ("d Dropout dropout_param { dropout_ratio: 0.3 }", nn.Dropout(0.3)),
        ("b BatchNorm batch_norm_param { eps: 0.001 }", nn.BatchNorm2d(3, 1e-3, affine=False)),
        ("s Softmax softmax_param { axis: -1 }", nn.Softmax(-1)),
    ],
)
def test_a_layer_is_torchs(tmp_path: Path, layer: str, module: nn.Module) -> None:
    network = network_of(text_of(layer), tmp_path, soft_max=True)
    (node,) = network.nodes
    expected = vggscope.network(nn.Sequential(module.eval()), input_size=(1, 3, 32, 32))
    assert network.shapes[node.name] == tuple(module(torch.zeros(1, 3, 32, 32)).shape)
    assert vggscope.diff(network, expected).verdict in ("identical", "equivalent")
    assert vggscope.summary(network).totals.macs == vggscope.summary(expected).totals.macs


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.left = nn.Conv2d(8, 8, 1)
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.fc = nn.Linear(16 * 8 * 8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        joined = torch.cat([self.left(x) * self.scale, torch.max_pool2d(x, 3, 1, 1)], 1)
        first, second = joined[:, :4], joined[:, 4:]
        joined = torch.cat([second, first], 1)
        out: torch.Tensor = self.fc(torch.max_pool2d(joined, 2).flatten(1))
        return out


BRANCHES = """
name: "branches" # a comment
input: "data" input_shape { dim: 1 dim: 3 dim: 16 dim: 16 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  param { lr_mult: 1 decay_mult: 1 } param { lr_mult: 2 } convolution_param { num_output: 8 kernel_size: 3 pad: 1
  weight_filler { type: "gaussian" std: 1e-2 } } }
layer { name: "norm" type: "BatchNorm" bottom: "conv" top: "conv" batch_norm_param { use_global_stats: true } }
layer { name: "scale" type: "Scale" bottom: "conv" top: "conv" scale_param { bias_term: true } }
layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }
layer { name: "block/left" type: "Convolution" bottom: "conv" top: "left"
  convolution_param < num_output: 8; kernel_size: 1 > }
layer { name: "block/scale" type: "Scale" bottom: "left" top: "left" }
layer { name: "right" type: "Pooling" bottom: "conv" top: "right" pooling_param { kernel_size: 3 pad: 1 } }
layer { name: "cat" type: "Concat" bottom: "left" bottom: "right" top: "cat" }
layer { name: "cut" type: "Slice" bottom: "cat" top: "first" top: "second" slice_param { slice_point: 4 } }
layer { name: "again" type: "Concat" bottom: "second" bottom: "first" top: "again" concat_param { axis: 1 } }
layer { name: "pool" type: "Pooling" bottom: "again" top: "pool" pooling_param { kernel_size: 2 stride: 2 } }
layer { name: "fc" type: "InnerProduct" bottom: "pool" top: "fc" inner_product_param { num_output: 5 } }
"""


def test_branches_are_those_of_a_module(tmp_path: Path) -> None:
    network = network_of(BRANCHES, tmp_path)
    diff = vggscope.diff(network, Branches().eval(), input_size=(1, 3, 16, 16))
    assert diff.verdict == "equivalent", str(diff)
    assert {parameter.name for parameter in network.parameters()} >= {"scale.weight", "block.left.weight", "fc.bias"}


TRAIN_VAL = """
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TRAIN } transform_param { crop_size: 28 } }
layer { name: "data" type: "Data" top: "data" top: "label" include { phase: TEST } transform_param { crop_size: 24 } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" param { lr_mult: 0 } param { lr_mult: 0 }
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "extra" type: "Convolution" bottom: "conv" top: "conv2" include { phase: TRAIN }
  convolution_param { num_output: 4 kernel_size: 3 } }
layer { name: "fc" type: "InnerProduct" bottom: "conv" top: "fc" inner_product_param { num_output: 2 } }
layer { name: "accuracy" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" include { phase: TEST } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" exclude { stage: "deploy" } }
"""


def test_the_layers_of_the_test_phase_run(tmp_path: Path) -> None:
    (tmp_path / "x.prototxt").write_text(TRAIN_VAL)
    network = vggscope.network(str(tmp_path / "x.prototxt"))
    assert [node.name for node in network.nodes] == ["conv", "fc.flatten", "fc"]
    assert network.input_shape == (1, 3, 24, 24)
    assert any("3x24x24 is taken" in note for note in network.warnings)
    assert any("accuracy, loss are left out" in note for note in network.warnings)
    assert vggscope.summary(network).totals.trainable_params == 4 * 22 * 22 * 2 + 2


def test_shared_weights_count_once(tmp_path: Path) -> None:
    setting = 'param { name: "w" } param { name: "b" } convolution_param { num_output: 3 kernel_size: 3 pad: 1 }'
    network = network_of(text_of(f"one Convolution {setting}", f"two Convolution {setting}"), tmp_path)
    assert vggscope.summary(network).totals.params == 3 * 3 * 9 + 3
    other = setting.replace("kernel_size: 3 pad: 1", "kernel_size: 1")
    failed = network_of(text_of(f"one Convolution {setting}", f"two Convolution {other}"), tmp_path)
    assert "another shape" in (failed.failure or "")


def test_a_file_of_weights_holds_its_net(tmp_path: Path) -> None:
    text = deploy(((8, 8), (16, 16)), (32, 10), side=28)
    message = net_class()()
    text_format.Parse(text, message)
    shapes = {p.name: p.shape for p in network_of(text, tmp_path).parameters()}
    for layer in message.layer:
        for leaf in ("weight", "bias"):
            if f"{layer.name}.{leaf}" in shapes:
                shape = shapes[f"{layer.name}.{leaf}"]
                layer.blobs.add().CopyFrom(type(layer.blobs.add())(data=[0.5] * torch.Size(shape).numel()))
                del layer.blobs[-2]
                layer.blobs[-1].shape.dim.extend(shape)
    path = tmp_path / "x.caffemodel"
    path.write_bytes(message.SerializeToString())
    network = vggscope.network(str(path))
    assert vggscope.diff(network, str(tmp_path / "x.prototxt")).verdict == "identical"
    assert (
        vggscope.diff(network, "conv3-8 conv3-8 maxpool conv3-16 conv3-16 maxpool FC-32 FC-10").verdict == "equivalent"
    )
    assert not any("needs" in note for note in network.warnings)
    smaller = vggscope.network(str(path), input_size=(3, 20, 20))
    assert any("fc3.weight: the file holds 32x784" in note for note in smaller.warnings)


def test_what_has_no_rule_ends_the_layers(tmp_path: Path) -> None:
    convolution = "c Convolution convolution_param { num_output: 6 kernel_size: 5 }"
    python = "p Python python_param { module: 'os' layer: 'system' }"
    (tmp_path / "x.prototxt").write_text(text_of(convolution, python, "r ReLU"))
    network = vggscope.network(str(tmp_path / "x.prototxt"))
    assert [node.name for node in network.nodes] == ["c"]
    assert network.failure == "p: there is no rule for a layer of type Python"
    for layer, reason in {
        "c Convolution convolution_param { num_output: 4 kernel_size: 50 }": "does not fit",
        "c Convolution convolution_param { num_output: 4 }": "no kernel_size",
        "c Convolution convolution_param { num_output: 4 kernel_size: 3 group: 2 }": "2 groups do not divide",
        "c Convolution convolution_param { num_output: 4 kernel_size: 3 stride: 0 }": "make no sense",
        "n LRN lrn_param { norm_region: WITHIN_CHANNEL }": "within a channel",
        "p Pooling pooling_param { pool: STOCHASTIC kernel_size: 2 }": "stochastic",
        "p Pooling pooling_param { kernel_size: 1 stride: 33 }": "outside of its input",
        "i InnerProduct inner_product_param { num_output: 4 axis: 9 }": "no axis 9",
        "r Reshape reshape_param { shape { dim: 2 dim: -1 } }": "mixes the batch",
        "f Flatten flatten_param { axis: 0 }": "joins the samples",
        "c Convolution convolution_param { num_output: 4000000000 kernel_size: 30000 pad: 30000 }": "any machine holds",
    }.items():
        (tmp_path / "x.prototxt").write_text(text_of(layer))
        assert reason in str(vggscope.network(str(tmp_path / "x.prototxt")).failure)


# Hostile files


def refused(data: bytes, path: Path, reason: str) -> None:
    path.write_bytes(data)
    with pytest.raises(ModelError, match=reason) as caught:
        vggscope.network(str(path))
    assert "\n" not in caught.value.problem


def test_damaged_and_hostile_texts_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.prototxt"
    rest = "top: 'b' name: 'c' convolution_param { num_output: 1 kernel_size: 1 } }"
    twice = f"layer {{ type: 'Convolution' bottom: 'a' {rest} " * 2 + "layer { type: 'ReLU' bottom: 'b' top: 'b' }"
    many = "bottom: 'a' " * 60_000
    for text, reason in {
        "": "empty",
        "layer {": "line 1: } or a field is expected",
        "layer { name: 'a' type: 'ReLU' bottom: 'b' top: 'a' } }": "a field is expected",
        "layer: 5": "layer takes a message",
        "name: 3": "name takes a text in quotes",
        "input_dim: MAX": "input_dim takes a whole number",
        'name: "never ends': "no word, number, text or mark",
        "<html><body>": "a field is expected",
        "layer " + "{ layer " * 3000: "nested too deep",
        "x { " * 3000: "nested too deep",
        "input_dim: " + "9" * 400: "input_dim takes a whole number",
        "a: 1 " * 200_000: "more than any model's graph",
        "x" * (9 * 2**20): "bytes, at most",
        f"name: '{'x' * 100_000}'": "no word, number",
        "layer {} " * 6000: "layers, at most",
        "name: 'only a name'": "no layers that compute",
        "layer { type: 'ReLU' bottom: 'a' top: 'b' } layer { type: 'ReLU' bottom: 'c' top: 'd' }": "no layer before it",
        "layer { type: 'ReLU' bottom: 'a' top: 'a' }": "read no input|does not tell",
        "layers { layer { name: 'old' type: 'conv' } }": "first generation",
        "layer {} layers {}": "both generations",
        "input: 'a' input_shape { dim: 99999999999999999 }": "no blob has|make no sense",
        twice: "two of its layers",
        f"layer {{ type: 'Eltwise' top: 'b' name: 'e' {many} }}": "more than 20,000 layers",
    }.items():
        with suppress(AssertionError):
            refused(text.encode(), path, reason)
            continue
        pytest.fail(f"{text[:60]!r} is not refused for {reason!r}")
    refused(b"\x0a\x03VGG\0", path, "no text")


def chain(count: int) -> str:
    return text_of(*(f"l{number} {'BatchNorm' if number % 2 else 'Scale'}" for number in range(count)))


def test_the_work_is_proportional_to_the_layers(tmp_path: Path) -> None:
    def file(count: int) -> str:
        path = tmp_path / f"{count}.prototxt"
        path.write_text(chain(count))
        return str(path)

    assert growth(vggscope.network, file(200), file(1600), 8) < 1.5


def test_the_weights_of_a_large_file_are_not_read(tmp_path: Path) -> None:
    text = deploy(((8,),), (4096,), side=200)
    message = net_class()()
    text_format.Parse(text, message)
    (fc,) = (layer for layer in message.layer if layer.type == "InnerProduct")
    fc.blobs.add().shape.dim.extend((4096, 80_000))
    rest = message.SerializeToString()
    path = tmp_path / "large.caffemodel"
    # A blob of 1.2 GiB after the net: the file ends in a hole, of which the disk holds nothing.
    size = 4096 * 80_000 * 4
    blob = b"\x2a" + varint(size)
    inner = b"\x3a" + varint(len(blob) + size) + blob
    path.write_bytes(rest + b"\xa2\x06" + varint(len(inner) + size) + inner)
    os.truncate(path, path.stat().st_size + size)
    with BoundedFile(str(path)) as file:
        read_binary(file)
        assert file.bytes_read < 50_000


@pytest.mark.parametrize("form", [str.encode, binary_of])
def test_a_truncated_file_is_refused_or_described(tmp_path: Path, form: Callable[[str], bytes]) -> None:
    data = form(deploy(((8, 8), (16, 16)), (32, 10), side=28))
    path = tmp_path / ("x.prototxt" if form is str.encode else "x.caffemodel")
    for tenth in range(10):
        path.write_bytes(data[: len(data) * tenth // 10])
        # A text, or a message, that ends between two layers is a whole one.
        with suppress(ModelError):
            assert len(vggscope.network(str(path)).nodes) < 16


@pytest.mark.slow
@pytest.mark.parametrize("form", [str.encode, binary_of])
def test_changed_bytes_are_refused_or_described(tmp_path: Path, form: Callable[[str], bytes]) -> None:
    draw, data = Random(1), form(BRANCHES)
    path = tmp_path / ("x.prototxt" if form is str.encode else "x.caffemodel")
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(draw.choice([1, 2, 8])):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        with suppress(ModelError, ShapeError):  # any other error fails the test
            vggscope.summary(vggscope.network(str(path)))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_no_file_costs_more_than_300_mb(tmp_path: Path) -> None:
    files = {
        "tokens.prototxt": b"a: 1 " * 200_000,
        "texts.prototxt": b"input: '" + b"x" * (8 * 2**20 - 20) + b"'",
        "list.prototxt": b"input_dim: [" + b"1, " * 120_000 + b"1]",
        "messages.prototxt": b"layer { include {} } " * 4900,
        "bottoms.prototxt": b"layer { type: 'Concat' name: 'c' top: 'b' " + b"bottom: 'a' " * 60_000 + b"}",
        "eltwise.prototxt": b"layer { type: 'Eltwise' name: 'c' top: 'b' " + b"bottom: 'a' " * 60_000 + b"}",
        "deep.prototxt": chain(4900).encode(),
        "fields.caffemodel": b"\x08\x01" * 8_000_000,
        "layers.caffemodel": b"\xa2\x06\x02\x1a\x00" * 1_000_000,
        "floats.caffemodel": b"\xa2\x06" + varint(5 * 4_000_000) + b"\x2d\0\0\0\0" * 4_000_000,
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", RESOLVING],
        input=json.dumps([str(tmp_path / name) for name in files]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert int(done.stdout) < 300 * 1000
