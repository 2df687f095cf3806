"""Operations: MACs per layer as torch's counter has them, forward and backward; the rest by hand."""

from __future__ import annotations

import json

import pytest
import torch
import torchvision
from hypothesis import given
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

import vggscope
from tests.strategies import SIDE, columns, examples
from vggscope.analysis.cards import CARDS, roof_of
from vggscope.analysis.cost import backward_costs, backward_macs, costs
from vggscope.analysis.operations import LayerOperations, Operations, operations
from vggscope.builders.module import module
from vggscope.errors import OptionError
from vggscope.graph import Network
from vggscope.ops.activation import GELU, ReLU, Sigmoid, Softmax
from vggscope.ops.attention import Einsum, MultiheadAttention, ScaledDotProductAttention
from vggscope.ops.base import Op, Shape
from vggscope.ops.convolution import Convolution, TransposedConvolution, conv2d
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.linear import Linear
from vggscope.ops.normalization import BatchNorm2d, GroupNorm, LayerNorm, LocalResponseNorm
from vggscope.ops.pooling import (
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AvgPool2d,
    AvgPool3d,
    FractionalMaxPool2d,
    LPPool2d,
    MaxPool1d,
    MaxPool2d,
)
from vggscope.ops.recorded import Recorded
from vggscope.ops.reduction import Reduction
from vggscope.ops.sampling import Upsample
from vggscope.ops.view import Permute, PixelUnshuffle
from vggscope.sources.resolve import resolve
from vggscope.trace.build import without_data
from vggscope.trace.run import trace
from vggscope.vgg.options import BuildOptions


def counted(model: nn.Module, shape: Shape) -> tuple[dict[str, int], dict[str, int]]:
    """What torch's counter books under each module's path, "" being all, in MACs: forward, then backward."""
    batch = torch.empty(shape, device="meta")
    with FlopCounterMode(display=False) as forward:
        output = model(batch)
    with FlopCounterMode(display=False) as both:
        model(batch).sum().backward()
    del output
    first, second = ({path: sum(flops.values()) // 2 for path, flops in mode.get_flop_counts().items()}
                     for mode in (forward, both))  # fmt: skip
    root = type(model).__name__
    paths = {path.removeprefix(root).lstrip("."): path for path in second if path.startswith(root)}
    return (
        {name: first.get(path, 0) for name, path in paths.items()},
        {name: second[path] - first.get(path, 0) for name, path in paths.items()},
    )


def agree(network: Network, model: nn.Module, batch: int = 1) -> None:
    """Each layer's figures are torch's."""
    forward, backward = counted(model, (batch, *network.input_shape[1:]))
    ours, back = costs(network, batch), backward_costs(network, batch)
    layers = [node.name for node in network.nodes if ours[node.name].macs]
    assert {name: ours[name].macs for name in layers} == {name: forward[name] for name in layers}
    if network.is_chain:  # between branches torch books the one's gradients under the other
        assert {name: back[name] for name in layers} == {name: backward[name] for name in layers}
    assert backward_macs(network, batch) == backward[""]


def on_meta(network: Network) -> nn.Module:
    with torch.device("meta"):
        return module(network).eval()


class TestAgainstTorch:
    @pytest.mark.parametrize("column", ["A", "A-LRN", "B", "C", "D", "E"])
    @pytest.mark.parametrize(
        "options", [BuildOptions(), BuildOptions(batch_norm=True, input=(3, 64, 96), head="flatten")]
    )
    def test_columns(self, column: str, options: BuildOptions) -> None:
        network = resolve(column, options)
        agree(network, on_meta(network), batch=2)

    def test_the_first_convolution_has_no_input_gradient(self) -> None:
        network = resolve("D")
        back, ours = backward_costs(network), costs(network)
        assert back["features.0"] == ours["features.0"].macs == 64 * 27 * 224**2
        assert back["features.2"] == 2 * 64 * 64 * 9 * 224**2
        assert backward_macs(network) == 2 * 15_470_264_320 - 64 * 27 * 224**2

    @examples(25)
    @given(columns())
    def test_any_column(self, line: str) -> None:
        network = resolve(line, BuildOptions(input=(3, SIDE, SIDE)))
        agree(network, on_meta(network))

    @pytest.mark.parametrize("name", ["resnet18", "densenet121", "squeezenet1_1"])
    def test_branches(self, name: str) -> None:
        model = without_data(lambda: torchvision.models.get_model(name, weights=None)).to("meta").eval()
        agree(trace(model, (3, 64, 64), name), model)

    def test_frozen_layers(self) -> None:
        model = torchvision.models.vgg11(num_classes=10).to("meta").eval().requires_grad_(False)
        model.classifier[6].requires_grad_(True)
        model.features[8].requires_grad_(True)
        network = trace(model, (3, 64, 64), "frozen")
        agree(network, model)
        back = backward_costs(network)
        assert [name for name, macs in back.items() if macs] == [
            "features.8", "features.11", "features.13", "features.16", "features.18",
            "classifier.0", "classifier.3", "classifier.6",
        ]  # fmt: skip
        assert back["features.8"] == costs(network)["features.8"].macs  # its weights alone
        assert back["features.11"] == costs(network)["features.11"].macs  # its input alone

    def test_products_of_functions(self) -> None:
        class Products(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = nn.Linear(6, 8)

            def forward(self, x: Tensor) -> Tensor:
                x = self.first(x)
                return functional.softmax(x @ x.transpose(1, 2), 2) @ x

        model = Products().to("meta").eval()
        network = trace(model, (5, 6), "products")
        assert costs(network)["matmul"].macs == 5 * 5 * 8
        batch = torch.empty(1, 5, 6, device="meta")
        output = model(batch).sum()
        with FlopCounterMode(display=False) as counter:
            output.backward()
        assert backward_macs(network) == counter.get_total_flops() // 2 == 5 * 6 * 8 + 4 * 5 * 5 * 8

    @pytest.mark.parametrize("frozen", ["", "query", "key", "value", "query key", "all"])
    def test_attention(self, frozen: str) -> None:
        """Three tensors meet; a gradient goes on to those whose layer is trained."""

        class Attending(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.query, self.key, self.value = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)
                self.last = nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Tensor:
                read = functional.scaled_dot_product_attention(self.query(x), self.key(x[:, :3]), self.value(x[:, :3]))
                return self.last(read)

        self.attends(Attending(), frozen)

    @pytest.mark.parametrize("frozen", ["", "query", "value", "attention", "query attention", "all"])
    def test_multihead_attention(self, frozen: str) -> None:
        class Attending(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.query, self.key, self.value = nn.Linear(6, 8), nn.Linear(6, 12), nn.Linear(6, 10)
                self.attention = nn.MultiheadAttention(8, 2, kdim=12, vdim=10, batch_first=True)
                self.last = nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Tensor:
                few = x[:, :3]
                return self.last(self.attention(self.query(x), self.key(few), self.value(few), need_weights=False)[0])

        self.attends(Attending(), frozen)

    def attends(self, model: nn.Module, frozen: str) -> None:
        model = model.to("meta").eval()
        for name in ["query", "key", "value"] if frozen == "all" else frozen.split():
            model.get_submodule(name).requires_grad_(False)
        network = trace(model, (5, 6), "attending")
        output = model(torch.empty(2, 5, 6, device="meta")).sum()
        with FlopCounterMode(display=False) as counter:
            output.backward()
        assert backward_macs(network, 2) == counter.get_total_flops() // 2

    def test_a_learned_query_needs_a_gradient_and_a_detached_tensor_none(self) -> None:
        class Pooled(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.latent, self.into = nn.Parameter(torch.zeros(1, 1, 6)), nn.Linear(6, 8)
                self.query, self.last = nn.Linear(6, 8), nn.Linear(8, 2)

            def forward(self, x: Tensor) -> Tensor:
                x = self.into(x).detach()
                return self.last(functional.scaled_dot_product_attention(self.query(self.latent), x, x))

        model = Pooled().to("meta").eval()
        network = trace(model, (5, 6), "pooled")
        output = model(torch.empty(1, 5, 6, device="meta")).sum()
        with FlopCounterMode(display=False) as counter:
            output.backward()
        assert backward_macs(network) == counter.get_total_flops() // 2


MAP = (1, 4, 6, 6)
VALUES = 4 * 6 * 6
HAND: list[tuple[Op, tuple[Shape, ...], int]] = [
    (conv2d(4, 8, 3, 1, 1), (MAP,), 8 * 36),
    (Convolution(4, 8, (3, 3), bias=False), (MAP,), 0),
    (TransposedConvolution(4, 2, (2, 2), (2, 2)), (MAP,), 2 * 12 * 12),
    (Linear(5, 7), ((1, 3, 5),), 3 * 7),
    (ReLU(), (MAP,), VALUES),
    (Sigmoid(), (MAP,), 4 * VALUES),
    (GELU(), (MAP,), 5 * VALUES),
    (GELU(approximate="tanh"), (MAP,), 9 * VALUES),
    (MaxPool2d((3, 2), (2, 2)), (MAP,), 5 * 4 * 2 * 3),
    (AvgPool2d((2, 2), (2, 2)), (MAP,), 4 * 4 * 3 * 3),
    (AdaptiveAvgPool2d((1, 1)), (MAP,), VALUES),
    (AdaptiveAvgPool2d((3, 2)), (MAP,), VALUES),
    # 6 in 4: rows 0-1, 1-2, 3-4, 4-5, so that 8 are read.
    (AdaptiveAvgPool2d((4, 6)), (MAP,), 4 * 8 * 6),
    (AdaptiveMaxPool2d((4, 6)), (MAP,), 4 * 8 * 6 - 4 * 4 * 6),
    (MaxPool1d((3,), (2,)), ((1, 4, 9),), 2 * 4 * 4),
    (AvgPool3d((2, 2, 2), (2, 2, 2)), ((1, 2, 4, 4, 6),), 8 * 2 * 2 * 2 * 3),
    # 5 in 2: positions 0-2 and 2-4, so that 6 are read.
    (AdaptiveMaxPool1d((2,)), ((1, 4, 5),), 4 * 6 - 4 * 2),
    (AdaptiveAvgPool3d((1, 1, 1)), ((1, 2, 4, 4, 6),), 192),
    # 144 powers; of 9 windows in each of 4 channels: 3 sums, 7 more.
    (LPPool2d(2.0, (2, 2), (2, 2)), (MAP,), VALUES + 36 * 10),
    (FractionalMaxPool2d((2, 2), (4, 4)), (MAP,), 4 * 16 * 3),
    (PixelUnshuffle(2), (MAP,), 0),
    (BatchNorm2d(4), (MAP,), 2 * VALUES),
    (LocalResponseNorm(5), (MAP,), 10 * VALUES),
    (LayerNorm((6,)), ((1, 3, 6),), 3 * (7 * 6 + 2)),
    (LayerNorm((6,), elementwise_affine=False), ((1, 3, 6),), 3 * (5 * 6 + 2)),
    (GroupNorm(2, 4), (MAP,), 2 * (7 * VALUES // 2 + 2)),
    (Softmax(1), ((1, 10),), 48),
    (Softmax(1), (MAP,), 36 * (5 * 4 - 2)),
    (Elementwise("add"), (MAP, MAP), VALUES),
    (Elementwise("contiguous"), (MAP,), 0),
    (Permute((0, 2, 3, 1)), (MAP,), 0),
    (Reduction("mean", (2, 3)), (MAP,), VALUES),
    (Reduction("sum", (2, 3)), (MAP,), VALUES - 4),
    (Einsum("abc,acd->abd"), ((1, 3, 4), (1, 4, 5)), 0),
    (Einsum("abc,abc->abc"), ((1, 3, 4), (1, 3, 4)), 12),
    (Upsample(scale_factor=(2.0, 2.0), mode="bilinear"), (MAP,), 7 * 4 * VALUES),
    (Upsample(scale_factor=(2.0,), mode="linear"), ((1, 4, 6),), 3 * 4 * 12),
    (Upsample(scale_factor=(2.0,) * 3, mode="trilinear"), ((1, 4, 3, 3, 3),), 15 * 4 * 6**3),
    (Upsample(scale_factor=(2.0, 2.0), mode="bicubic"), (MAP,), 31 * 4 * VALUES),
    (Upsample(scale_factor=(2.0,)), ((1, 4, 6),), 0),
    # 2 heads, 3 queries, 5 keys: scale 5, comparisons 4, differences 5, exp 5, sums 4, divisions 5.
    (ScaledDotProductAttention(), ((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4)), 2 * 3 * 28),
    (ScaledDotProductAttention(), ((1, 2, 3, 4), (1, 2, 5, 4), (1, 2, 5, 4), (3, 5)), 2 * 3 * (28 + 5)),
    (MultiheadAttention(8, 2, batch_first=True), ((1, 5, 8),), 2 * 5 * 28 + 4 * 5 * 8),
]  # fmt: skip


@pytest.mark.parametrize(("op", "inputs", "expected"), HAND, ids=[op.name for op, _, _ in HAND])
def test_formulas_by_hand(op: Op, inputs: tuple[Shape, ...], expected: int) -> None:
    assert op.other_operations(inputs, op.output_shape(*inputs)) == expected


@pytest.mark.parametrize(("op", "inputs", "expected"), HAND, ids=[op.name for op, _, _ in HAND])
def test_a_known_count_has_a_formula(op: Op, inputs: tuple[Shape, ...], expected: int) -> None:
    assert op.other_formula


def test_an_unknown_count_is_none_not_zero() -> None:
    assert Recorded("sort", (MAP,), MAP).other_operations((MAP,), MAP) is None
    model = nn.Sequential(nn.Conv2d(3, 4, 3), Sorted())
    found = operations(trace(model, (3, 8, 8), "odd"), count="all")
    assert (found.layers[1].other, found.layers[1].flops, found.totals.flops) == (None, None, None)
    assert found.totals.macs == 4 * 27 * 36
    assert {formula.op: formula.formula for formula in found.formulas}["sort"] == "not known"


class Sorted(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sort(2)[0] + 1


class TestTorchvision:
    @pytest.mark.parametrize("name", [
        "convnext_tiny", "efficientnet_b0", "mobilenet_v3_small", "shufflenet_v2_x0_5", "vit_b_32", "googlenet",
    ])  # fmt: skip
    def test_every_op_has_a_formula(self, name: str) -> None:
        arguments = {"init_weights": False} if name == "googlenet" else {}
        network = trace(without_data(lambda: torchvision.models.get_model(name, weights=None, **arguments)),
                        (3, 224, 224), name)  # fmt: skip
        found = operations(network, count="all")
        assert found.totals.flops is not None
        assert found.totals.flops > 2 * (found.totals.macs or 0)


class TestAll:
    def test_the_paper_s_d(self) -> None:
        maps = [(64, 224, 2), (128, 112, 2), (256, 56, 3), (512, 28, 3), (512, 14, 3)]
        values = sum(channels * side**2 * layers for channels, side, layers in maps)
        pooled = sum(channels * (side // 2) ** 2 for channels, side, _ in maps)
        found = operations(resolve("D"), count="all")
        biases, activations = values + 4096 + 4096 + 1000, values + 4096 + 4096
        assert found.totals.other == biases + activations + 3 * pooled + 512 * 49
        assert found.totals.flops == 2 * 15_470_264_320 + (found.totals.other or 0)

    def test_macs_alone_leave_it_out(self) -> None:
        found = operations(resolve("D"))
        assert found.totals.flops == 30_940_528_640
        assert found.totals.backward_flops == 61_707_649_024
        assert found.formulas == ()

    def test_a_batch_scales_all_but_the_parameters_bytes(self) -> None:
        one, many = (operations(resolve("vgg11_bn"), batch, count="all").totals for batch in (1, 5))
        assert (many.macs, many.other, many.flops, many.backward_macs) == tuple(
            5 * (value or 0) for value in (one.macs, one.other, one.flops, one.backward_macs)
        )
        parameters = 4 * 132_868_840
        assert many.bytes - parameters == 5 * (one.bytes - parameters)


def layer(found: Operations, label: str) -> LayerOperations:
    return next(layer for layer in found.layers if label in (layer.label, layer.name))


class TestRoofline:
    def test_bytes_and_intensity(self) -> None:
        found = operations(resolve("D"))
        first = layer(found, "conv1_1")
        assert first.bytes == 4 * (3 * 224**2 + 64 * 27 + 64 + 64 * 224**2)
        assert first.intensity == pytest.approx(2 * 86_704_128 / first.bytes)
        assert layer(found, "relu1_1").bytes == 2 * 4 * 64 * 224**2
        assert [layer(found, name).bytes for name in ("flatten", "drop6")] == [0, 0]
        assert operations(resolve("D"), dtype="float16").totals.bytes * 2 == found.totals.bytes

    def test_time_and_its_bound(self) -> None:
        found = operations(resolve("D"), card="A100-80GB")
        convolution, fc = layer(found, "conv3_2"), layer(found, "fc6")
        assert (convolution.bound, convolution.time_ns) == ("compute", round(2 * 1_849_688_064 / 19.5e12 * 1e9))
        assert (fc.bound, fc.time_ns) == ("memory", round(fc.bytes / 2.039e12 * 1e9))
        flatten = layer(found, "flatten")
        assert (flatten.bound, flatten.time_ns) == (None, 0)
        assert found.totals.time_ns == sum(layer.time_ns or 0 for layer in found.layers)
        # With a batch of 64, fc6's weights are read once for all: it waits for arithmetic.
        assert layer(operations(resolve("D"), 64, card="a100 80gb"), "fc6").bound == "compute"

    def test_every_card_has_a_roof(self) -> None:
        for card in CARDS:
            if card.float32_tflops is None:
                with pytest.raises(OptionError, match="no figure is known"):
                    roof_of(card.name, "float32")
                continue
            roof = roof_of(card.name, "float32")
            assert 3 < roof.ridge < 120
            if card.float16_tflops is not None:
                assert roof_of(card.name, "float16").flops >= 1.9 * roof.flops

    @pytest.mark.parametrize(("card", "dtype", "text"), [
        ("RTX 9999", "float32", "unknown card 'RTX 9999'"),
        ("V100-16GB", "bfloat16", "no figure is known for bfloat16 on V100-16GB"),
        ("GTX 1080 Ti", "float16", "no figure is known for float16 on GTX 1080 Ti"),
        ("H100", "float64", "no figure is known for float64 on H100"),
    ])  # fmt: skip
    def test_no_such_card(self, card: str, dtype: str, text: str) -> None:
        with pytest.raises(OptionError) as raised:
            operations(resolve("A"), dtype=dtype, card=card)
        assert raised.value.problem == text

    def test_no_such_count(self) -> None:
        with pytest.raises(OptionError, match="unknown count 'most'"):
            operations(resolve("A"), count="most")


class TestShown:
    def test_the_table(self) -> None:
        lines = str(vggscope.operations("D", count="all", card="RTX 4090", dtype="float16")).splitlines()
        assert lines[0] == "D   input 3x224x224, float16"
        heads = " ".join(lines[2].split())
        assert heads == "layer label MACs FLOPs FLOPs, backward moved FLOPs/byte least time bound by"
        assert lines[4].split()[:4] == ["features.0", "conv1_1", "86.70", "M"]
        assert any(line.startswith("MaxPool2d          n in the window: n-1 comparisons a value") for line in lines)
        assert "165.20 TFLOP/s and 1.01 TB/s" in " ".join(lines)

    def test_json(self) -> None:
        found = json.loads(vggscope.operations("D", (8, 3, 224, 224), card="T4").to_json())
        assert (found["schema"], found["input_shape"]) == ("vggscope/operations@1", [8, 3, 224, 224])
        assert found["totals"]["flops"] == 8 * 30_940_528_640
        assert found["roof"] == {"card": "T4", "flops": 8_100_000_000_000, "bytes": 320_000_000_000}
        assert found["layers"][0]["bound"] == "memory"
