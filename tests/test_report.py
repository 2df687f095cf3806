"""Shapes, costs and receptive fields against torch, on generated columns; rows against totals."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from tests.strategies import SIDE, columns
from vggscope.analysis.summary import by_stage, summarize
from vggscope.builders.module import module
from vggscope.errors import OptionError, ShapeError
from vggscope.ops.convolution import Convolution
from vggscope.ops.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

SIZE = BuildOptions(input=(3, SIDE, SIDE))


def on_meta(network):
    with torch.device("meta"):
        return module(network).eval()


@given(columns(), st.sampled_from(["adaptive", "flatten"]))
def test_shapes_are_those_that_torch_gives(line: str, head: str) -> None:
    options = replace(SIZE, head=head) if "FC-" in line else SIZE
    network = resolve(line, options)
    seen: dict[str, tuple[int, ...]] = {}
    model = on_meta(network)
    for name, part in model.named_modules():
        part.register_forward_hook(lambda _m, _i, out, name=name: seen.update({name: tuple(out.shape)}))
    model(torch.empty(1, 3, SIDE, SIDE, device="meta"))
    ours = {node.module: network.output_shape(node) for node in network.nodes if node.module}
    assert ours == {name: seen[name] for name in ours}


@given(columns())
def test_parameters_and_macs_are_those_that_torch_counts(line: str) -> None:
    network = resolve(line, SIZE)
    totals = summarize(network).totals
    model = on_meta(network)
    assert totals.params == totals.trainable_params == sum(p.numel() for p in model.parameters())
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, SIDE, SIDE, device="meta"))
    assert totals.flops == counter.get_total_flops()


@given(columns(), st.integers(1, 9))
def test_rows_add_up_and_grow_with_the_batch(line: str, batch: int) -> None:
    network = resolve(line, SIZE)
    one, many = summarize(network), summarize(network, batch)
    for key in ("params", "macs", "flops", "activation_bytes"):
        assert sum(getattr(layer, key) for layer in one.layers) == getattr(one.totals, key)
        assert getattr(many.totals, key) == getattr(one.totals, key) * (1 if key == "params" else batch)
    staged = by_stage(one)
    assert staged.totals == one.totals
    assert sum(layer.params for layer in staged.layers) == one.totals.params
    assert staged.layers[-1].output_shape == one.layers[-1].output_shape


@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.integers(1, 7),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(1, 3),
)
def test_the_rule_is_torchs_for_convolutions(height, width, kernel, stride, padding, dilation) -> None:
    op = Convolution(1, 1, (kernel,) * 2, (stride,) * 2, (padding,) * 2, (dilation,) * 2)
    layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation)
    assert_same_shape(op, layer, (1, 1, height, width))


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 4), st.integers(0, 3), st.booleans(), st.booleans())
def test_the_rule_is_torchs_for_pools(side, kernel, stride, padding, ceil, largest) -> None:
    padding = min(padding, kernel // 2)
    kind, layer = (MaxPool2d, nn.MaxPool2d) if largest else (AvgPool2d, nn.AvgPool2d)
    op = kind((kernel,) * 2, (stride,) * 2, (padding,) * 2, ceil_mode=ceil)
    assert_same_shape(op, layer(kernel, stride, padding, ceil_mode=ceil), (1, 2, side, side + 1))


def assert_same_shape(op, layer: nn.Module, shape: tuple[int, ...]) -> None:
    try:
        # On real tensors: on the meta device torch 2.9 gives a convolution that does not fit a side of 0.
        expected = tuple(layer(torch.zeros(shape)).shape)
    except RuntimeError:
        with pytest.raises(ShapeError):
            op.output_shape(shape)
        return
    assert op.output_shape(shape) == expected


@given(st.integers(1, 30), st.integers(1, 12))
def test_adaptive_pools_average_the_regions_that_torch_averages(side: int, out: int) -> None:
    op = AdaptiveAvgPool2d((out, out))
    assert op.is_identity((side, side)) == (side == out)
    image = torch.arange(float(side)).reshape(1, 1, 1, side).expand(1, 1, side, side)
    pooled = nn.AdaptiveAvgPool2d(out)(image)
    assert tuple(pooled.shape) == op.output_shape((1, 1, side, side))
    if op.is_regular((side, side)):
        (kernel, _), (stride, _) = op.window((side, side)).kernel_size, op.window((side, side)).stride
        means = [sum(range(i * stride, i * stride + kernel)) / kernel for i in range(out)]
        assert pooled[0, 0, 0].tolist() == pytest.approx(means)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("head", ["adaptive", "flatten", "dense"])
def test_any_channels_and_classes(channels: int, head: str) -> None:
    network = resolve("D", BuildOptions(input=(channels, 224, 224), head=head, num_classes=7))
    out = on_meta(network)(torch.empty(1, channels, 224, 224, device="meta"))
    assert tuple(out.shape) == network.output_shape(network.nodes[-1])
    assert out.numel() == 7


def test_the_adaptive_head_works_from_32_up_and_says_so_below() -> None:
    assert summarize(resolve("D", BuildOptions(input=(3, 32, 32)))).layers[-1].output_shape == (1, 1000)
    with pytest.raises(ShapeError) as caught:
        summarize(resolve("D", BuildOptions(input=(3, 31, 31))))
    assert "features.30 (pool5)" in caught.value.problem
    assert "2x2" in caught.value.problem
    assert caught.value.remedy.endswith("input_size=(3, 32, 32)")


def test_the_dense_head_gives_a_class_map() -> None:
    """Section 3.2 of the paper: fc6 as a 7x7 convolution, so that a larger image gives a map of scores."""
    network = resolve("D", BuildOptions(head="dense", input=(3, 384, 512)))
    assert network.output_shape(network.nodes[-1]) == (1, 1000, 384 // 32 - 6, 512 // 32 - 6)
    with pytest.raises(ShapeError, match=r"classifier\.0 \(fc6\)"):
        summarize(resolve("D", BuildOptions(head="dense", input=(3, 100, 100))))


def test_a_network_built_for_one_size_refuses_another() -> None:
    flat = resolve("D", BuildOptions(head="flatten"))
    with pytest.raises(ShapeError) as caught:
        flat.with_input((3, 256, 256)).shapes  # noqa: B018
    assert "25,088 features are expected, the input has 32,768" in caught.value.problem
    assert "input_size=(3, 224, 224)" in caught.value.remedy


def test_the_head_options_need_a_head() -> None:
    with pytest.raises(OptionError):
        resolve("conv3-4", BuildOptions(num_classes=3))


def test_soft_max_ends_the_network_only_with_the_option() -> None:
    assert resolve("A").nodes[-1].label == "fc8"
    assert resolve("A", BuildOptions(soft_max=True)).nodes[-1].label == "prob"


@given(columns())
def test_receptive_fields_are_those_of_the_gradient(line: str) -> None:
    """Where all weights are positive, the pixels with a gradient from one unit are its receptive field."""
    words = [word for word in line.split() if word.split("/")[0] not in ("LRN", "dropout", "BN")]
    network = resolve(" ".join(word for word in words if not word.startswith(("FC", "soft"))), SIZE)
    layer = summarize(network).layers[-1]
    field = layer.receptive_field
    model = nn.Sequential(*(_linear(part) for part in module(network).features)).double()
    for parameter in model.parameters():
        nn.init.constant_(parameter, 0.01)
    image = torch.ones(1, 3, SIDE, SIDE, dtype=torch.double, requires_grad=True)
    out = model(image)
    i = out.shape[2] // 2
    out[0, 0, i, i].backward()
    touched = image.grad[0].abs().sum(dim=(0, 2)).nonzero().flatten().tolist()
    first = -field.padding[0] + i * field.stride[0]
    box = (max(first, 0), min(first + field.size[0] - 1, SIDE - 1))
    # A dilated or strided path may skip pixels inside its box; its ends are touched, but for those behind the border.
    assert (touched[0], touched[-1]) == box or min(box) < 0 or box[0] == 0 or box[1] == SIDE - 1


def _linear(part: nn.Module) -> nn.Module:
    """A max pool lets one pixel through; the mean lets all that it sees."""
    if isinstance(part, nn.MaxPool2d):
        return nn.AvgPool2d(part.kernel_size, part.stride, part.padding)
    return part
