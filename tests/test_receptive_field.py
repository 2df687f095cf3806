"""Receptive fields: the rule against Araujo et al.'s tables, and against what autograd says that each unit reads."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import pytest
import torch
import torchvision
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import vggscope
from tests.strategies import SIDE, columns, examples
from vggscope.analysis.receptive_field.extents import Irregular
from vggscope.analysis.receptive_field.result import Box, describe, layer_named
from vggscope.analysis.receptive_field.view import PixelView, ReceptiveField, UnknownView, receptive_fields, views
from vggscope.builders.module import module
from vggscope.cross_checks.autograd import differences, measure, measured_layers, units
from vggscope.cross_checks.reference_tool import without_data
from vggscope.errors import OptionError, ShapeError
from vggscope.execution.effective_field import effective_field
from vggscope.graph import INPUT, Network, module_node, one_input
from vggscope.ops.convolution import Convolution
from vggscope.ops.pooling import AvgPool2d, MaxPool2d
from vggscope.render.formats import draw, write
from vggscope.render.rf_plot import growth, regions
from vggscope.sources.resolve import resolve
from vggscope.trace.build import without_data as build_without_data
from vggscope.trace.inputs import attach, from_data
from vggscope.trace.run import run, trace
from vggscope.vgg.options import BuildOptions

POOL5 = {
    "A": (150, 32, 59),
    "A-LRN": (150, 32, 59),
    "B": (156, 32, 62),
    "C": (156, 32, 62),
    "D": (212, 32, 90),
    "E": (268, 32, 118),
}
"""Size, stride and padding after the last pool; those of A and D are in google-research/receptive_field's table."""


def square(size: int, stride: int, padding: int) -> ReceptiveField:
    return ReceptiveField((size, size), (stride, stride), (padding, padding))


def on_meta(network: Network) -> nn.Module:
    with torch.device("meta"):
        return module(network).eval()


def field(network: Network, layer: str) -> ReceptiveField | None:
    return receptive_fields(network)[layer_named(network, layer).name]


class TestColumns:
    @pytest.mark.parametrize("column", POOL5)
    def test_the_published_fields(self, column: str) -> None:
        network = resolve(column)
        size, stride, padding = POOL5[column]
        assert field(network, "pool5") == square(size, stride, padding)
        # The paper's dense fc6 is a 7x7 convolution over pool5: six strides more.
        assert field(network, "fc6") == field(network, "fc8") == square(size + 6 * 32, 32, padding)
        assert field(resolve(column, BuildOptions(head="dense")), "fc6") == square(size + 6 * 32, 32, padding)

    @pytest.mark.parametrize("column", POOL5)
    @pytest.mark.parametrize("options", [BuildOptions(), BuildOptions(batch_norm=True, input=(3, 96, 64))])
    def test_every_layer_equals_autograd(self, column: str, options: BuildOptions) -> None:
        network = resolve(column, options)
        layers = measured_layers(network)
        assert set(layers) == {node.name for node in network.nodes} - {"flatten"}
        assert differences(network, on_meta(network), layers) == []

    def test_at_the_border_the_rule_is_clipped(self) -> None:
        network = resolve("D")
        by_rule, exact = views(network), views(network, exact=True)
        for name in measured_layers(network):
            for side, true in zip(by_rule[name].sides, exact[name].sides):
                clipped = [side.extent.span(unit) for unit in range(side.extent.units)]
                assert [(max(a, 0), min(b, 223)) for a, b in clipped] == list(true.extent.spans)

    @pytest.mark.parametrize("input", [(3, 300, 280), (3, 32, 32), (3, 225, 50)])
    def test_an_adaptive_pool_of_any_size(self, input: tuple[int, ...]) -> None:
        network = resolve("conv3-4 maxpool conv3-4 maxpool conv3-4 maxpool FC-3", BuildOptions(input=input))
        assert differences(network, on_meta(network), measured_layers(network)) == []

    def test_regions_that_are_no_windows(self) -> None:
        layers = {layer.name: layer for layer in describe(resolve("D", BuildOptions(input=(3, 300, 224)))).layers}
        pool, fc = layers["avgpool"], layers["classifier.0"]
        # 9 rows for 7: regions of 2 and one of 3, so 212 + 32 or 64.
        assert (pool.size, pool.stride, pool.padding) == ((276, 212), None, None)
        assert pool.note == "regions of 244 to 276 x 212 pixels, not at equal steps"
        assert (fc.size, fc.padding) == ((212 + 8 * 32, 404), (90, 90))
        assert field(resolve("D", BuildOptions(input=(3, 300, 224))), "avgpool") is None

    def test_an_even_cut_is_a_window(self) -> None:
        # After 64x64 pool5 is 2x2, and each of its units is repeated; 8 rows for 7 overlap at equal steps.
        assert field(resolve("D", BuildOptions(input=(3, 32, 32))), "avgpool") == square(212, 0, 90)
        assert field(resolve("D", BuildOptions(input=(3, 256, 256))), "avgpool") == square(244, 32, 90)


@given(columns())
def test_any_column_equals_autograd(line: str) -> None:
    network = resolve(line, BuildOptions(input=(3, SIDE, SIDE)))
    assert differences(network, on_meta(network), measured_layers(network)) == []


SIDES = st.tuples(st.integers(1, 4), st.integers(1, 4))


@st.composite
def windows(draw: st.DrawFn) -> Network:
    """Convolutions and pools whose windows differ in height and width: kernel, stride, padding, dilation."""
    nodes, channels, before = [], 2, INPUT
    for place in range(draw(st.integers(1, 5))):
        kernel, dilation = draw(SIDES), draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
        stride = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
        padding = tuple(draw(st.integers(0, side // 2)) for side in kernel)
        kind = draw(st.sampled_from(["conv", "conv", "grouped", "max", "avg"]))
        ceil = draw(st.booleans())
        if kind in ("conv", "grouped"):
            op = Convolution(channels, 4, kernel, stride, padding, dilation, groups=2 if kind == "grouped" else 1)
            channels = 4
        elif kind == "max":
            op = MaxPool2d(kernel, stride, padding, dilation, ceil)
        else:
            op = AvgPool2d(kernel, stride, padding, ceil)
        nodes.append(module_node(f"layer{place}", op, before))
        before = nodes[-1].name
    return Network("windows", one_input((1, 2, 23, 30)), tuple(nodes))


def fits(network: Network) -> bool:
    try:
        return all(min(shape) > 0 for shape in network.shapes.values())
    except ShapeError:
        return False


@examples(80)
@given(windows().filter(fits))
def test_any_windows_equal_autograd(network: Network) -> None:
    assert differences(network, on_meta(network), measured_layers(network)) == []


class Branches(nn.Module):
    """A convolution of stride `stride`, then branches side by side that are added, or joined channel upon channel."""

    def __init__(self, stride: int, kernels: list[list[int]], joined: bool) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, stride, 1)
        self.branches = nn.ModuleList(
            nn.Sequential(*(nn.Conv2d(4, 4, k, 1, k // 2) for k in branch), nn.MaxPool2d(3, 2, 1)) for branch in kernels
        )
        self.joined = joined
        self.last = nn.Conv2d(4 * len(kernels) if joined else 4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        found = [branch(x) for branch in self.branches]
        return self.last(torch.cat(found, 1) if self.joined else sum(found[1:], found[0]))


@examples(50)
@given(
    st.integers(1, 2),
    st.lists(st.lists(st.sampled_from([1, 3, 5]), max_size=3), min_size=1, max_size=3),
    st.booleans(),
)
def test_any_branches_equal_autograd(stride: int, kernels: list[list[int]], joined: bool) -> None:
    model = Branches(stride, kernels, joined).eval()
    network = trace(model, (2, 20, 26), "branches")
    assert differences(network, without_data(model), measured_layers(network)) == []
    widest = max(sum(k - 1 for k in branch) for branch in kernels)
    assert field(network, "last").size == (3 + (widest + 2 + 2 * 2) * stride,) * 2
    assert all(layer.aligned for layer in describe(network).layers)


@pytest.mark.parametrize(
    "name",
    [
        "alexnet",
        "resnet18",
        "resnet50",
        pytest.param("densenet121", marks=pytest.mark.slow),
        "googlenet",
        "mobilenet_v2",
    ],
)
def test_torchvisions_networks_equal_autograd(name: str) -> None:
    arguments = {"init_weights": False} if name == "googlenet" else {}
    model = build_without_data(lambda: torchvision.models.get_model(name, weights=None, **arguments)).eval()
    network = trace(model, (3, 64, 64), name)
    layers = tuple(node.name for node in network.nodes if node.module)
    assert differences(network, without_data(model), layers) == []


def test_new_pools_as_autograd_has_them() -> None:
    model = nn.Sequential(
        *(
            nn.Conv2d(3, 4, 3, 2, 1),
            nn.LPPool2d(2.0, 2, 1),
            nn.PixelUnshuffle(2),
            nn.Conv2d(16, 4, 3),
            nn.LPPool2d(3.0, 3),
        ),
        *(nn.FractionalMaxPool2d(2, output_size=2), nn.Conv2d(4, 4, 1)),
    )
    network = trace(model, (3, 50, 50), "pools")
    assert differences(network, model.to("meta"), measured_layers(network)) == []
    fields = receptive_fields(network)
    assert (fields["1"].size, fields["2"].size, fields["4"].size) == ((5, 5), (7, 7), (23, 23))
    assert (fields["5"], fields["6"]) == (None, None)
    assert views(network)["6"] == UnknownView("no rule tells what FractionalMaxPool2d at 5 (pool3) reads")


def test_autograd_itself_on_positive_weights() -> None:
    """The check against plain autograd: real weights in double precision, and a mean for each maximum."""
    network = resolve("A", BuildOptions(input=(3, 64, 64)))
    model = module(network).double()
    for name, part in list(model.features.named_children()):
        if isinstance(part, nn.MaxPool2d):
            model.features[int(name)] = nn.AvgPool2d(2)
    for parameter in model.parameters():
        nn.init.constant_(parameter, 1 / parameter[0].numel() if parameter.dim() > 1 else 0.1)
    image = torch.ones(1, 3, 64, 64, dtype=torch.double, requires_grad=True)
    output = image
    for position, part in enumerate(model.features):
        output = part(output)
        if isinstance(part, nn.ReLU):
            continue
        name = f"features.{position}"
        place = ((2, output.shape[2] // 3), (3, output.shape[3] - 1))
        (gradient,) = torch.autograd.grad(output[0, :, place[0][1], place[1][1]].sum(), image, retain_graph=True)
        rows, columns = (gradient[0].sum(0) > 0).nonzero().T
        plain = ((int(rows.min()), int(rows.max())), (int(columns.min()), int(columns.max())))
        unit = describe(network, [name], (place[0][1], place[1][1])).units[0]
        assert unit.reads == unit.clipped == Box((plain[0][0], plain[1][0]), (plain[0][1], plain[1][1]))
        assert measure(on_meta(network), network, {name: [place]}) == {name: {place: plain}}


class Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "a crop": lambda x: x[:, :, 1:7, 2:],
    "every second": lambda x: x[..., ::2, 1::2],
    "one row": lambda x: x[:, :, 3],
    "a piece": lambda x: x.chunk(2, 2)[1].relu(),
    "pieces": lambda x: x.split([3, 5], 3)[1].relu(),
    "uneven pieces": lambda x: x.tensor_split(3, 3)[1].relu(),
    "cut at places": lambda x: x.tensor_split((1, -2), 2)[1].relu(),
    "roll": lambda x: x.roll((2, -1), (2, 3)),
    "pad": lambda x: functional.pad(x, (1, 0, 2, 3)),
    "channels last": lambda x: x.permute(0, 2, 3, 1).mean(3),
    "transposed": lambda x: x.transpose(2, 3).contiguous(),
    "side by side": lambda x: torch.cat([x, x[:, :, :2]], 2),
    "stack": lambda x: torch.stack([x, x], 2).sum(2),
    "nearest": lambda x: functional.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x: functional.interpolate(x, size=(5, 11)),
    "bilinear": lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
    "bilinear to the corners": lambda x: functional.interpolate(x, size=(15, 9), mode="bilinear", align_corners=True),
    "pixels from channels": lambda x: functional.pixel_shuffle(x, 2),
    "spread": lambda x: functional.conv_transpose2d(x, torch.ones(4, 2, 3, 2), stride=(2, 1), padding=(1, 0)),
    "a row of tokens": lambda x: x.flatten(2).transpose(1, 2),
    "tokens and one more": lambda x: torch.cat([torch.ones(len(x), 1, 4), x.flatten(2).transpose(1, 2)], 1),
    "soft-max over the width": lambda x: x.softmax(3),
    "scaled by the whole": lambda x: x * functional.adaptive_avg_pool2d(x, 1).sigmoid(),
    "mean of rows": lambda x: x.mean(2, keepdim=True) + x,
    "through a product": lambda x: torch.ones(6, 8) @ x,
    "product from the right": lambda x: x @ torch.ones(8, 3),
    "a group normalised": lambda x: functional.group_norm(x, 2),
    "channel by channel": nn.InstanceNorm2d(4),
    "repeated": lambda x: x.repeat(1, 1, 2, 3),
    "shaped like another": lambda x: (x.flatten(2) + 1).reshape_as(x),
    "beside zeros": lambda x: torch.cat([x, torch.zeros_like(x)], 2),
    "columns pooled": lambda x: functional.adaptive_max_pool2d(x, (8, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_equal_autograd(name: str) -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), Apply(FUNCTIONS[name])).eval()
    network = trace(model, (4, 8, 8), name)
    view = views(network, exact=True)[network.nodes[-1].name]
    assert isinstance(view, PixelView)
    counts = {side.axis: side.extent.units for side in view.sides if side.axis is not None}
    places = [tuple(zip(counts, positions)) for positions in product(*map(range, counts.values()))]
    measured = measure(without_data(model), network, {"1": places})["1"]
    for place in places:
        positions = dict(place)
        spans = [side.extent.span(positions.get(side.axis, 0)) for side in view.sides]
        assert measured[place] == (None if None in spans else tuple(spans)), place
    assert set(units(view)) <= set(places)


class TestGraphs:
    def test_branches_with_different_centres(self) -> None:
        class Shifted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.narrow, self.wide = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 2)

            def forward(self, x: Tensor) -> Tensor:
                return self.wide(x) + self.narrow(x)[:, :, 1:, 1:]

        layers = {layer.name: layer for layer in describe(trace(Shifted(), (3, 9, 9), "shifted")).layers}
        merged = layers["add"]
        assert (merged.size, merged.stride, merged.padding) == ((2, 2), (1, 1), (0, 0))
        assert merged.aligned is False
        assert merged.note == "branches meet whose windows are not centred alike"
        assert [layer.aligned for name, layer in layers.items() if name != "add"] == [True] * (len(layers) - 1)

    def test_attention_covers_the_image(self) -> None:
        model = build_without_data(lambda: torchvision.models.vit_b_32(weights=None))
        layers = {layer.name: layer for layer in describe(trace(model, (3, 224, 224), "vit")).layers}
        assert layers["conv_proj"].size == (32, 32)
        attention = layers["encoder.layers.encoder_layer_0.self_attention"]
        assert (attention.size, attention.stride, attention.map) == ((224, 224), (0, 0), (50,))
        assert attention.note == "whole image"

    def test_an_unknown_field_has_a_reason(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), Apply(lambda x: x.unfold(2, 2, 2).sum(4)), nn.Conv2d(4, 4, 1))
        first, unknown, _, after = describe(trace(model, (3, 8, 8), "odd")).layers
        assert first.size == (3, 3)
        assert (unknown.size, after.size, after.stride) == (None, None, None)
        assert unknown.note == after.note == "no rule tells what unfold at 1.unfold reads"

    def test_rows_of_features_have_no_field(self) -> None:
        (layer,) = describe(trace(nn.Linear(5, 3), (5,), "row")).layers
        assert (layer.size, layer.note) == (None, "the input has no spatial axes")

    def test_one_and_three_sides(self) -> None:
        sequence = trace(nn.Sequential(nn.Conv1d(2, 4, 5, 2), nn.Conv1d(4, 4, 3)), (2, 40), "sequence")
        assert field(sequence, "1") == ReceptiveField((9,), (2,), (0,))
        volume = trace(nn.Sequential(nn.Conv3d(1, 2, (1, 3, 5), padding=(0, 1, 2))), (1, 4, 9, 9), "volume")
        assert field(volume, "0") == ReceptiveField((1, 3, 5), (1, 1, 1), (0, 1, 2))


class TestUnits:
    def test_the_region_of_a_unit(self) -> None:
        (unit,) = describe(resolve("D"), ["conv5_3"], (6, 6)).units
        assert (unit.box, unit.clipped, unit.reads) == (Box((6, 6), (201, 201)),) * 3
        assert (unit.pixels, unit.padding_pixels) == (196**2, 0)

    def test_the_share_of_padding(self) -> None:
        (unit,) = describe(resolve("D"), ["pool5"], (0, 3)).units
        assert (unit.box.first, unit.box.last) == ((-90, 6), (121, 217))
        assert unit.clipped == unit.reads == Box((0, 6), (121, 217))
        assert unit.padding_pixels == 90 * 212

    def test_rows_that_no_window_reaches(self) -> None:
        # 7 rows pooled in twos leave one behind; padding of 1 in front of the next window lies where it would be.
        network = resolve("maxpool conv3-4", BuildOptions(input=(3, 7, 7)))
        (unit,) = describe(network, ["features.1"], (2, 0)).units
        assert unit.clipped == Box((2, 0), (6, 3))
        assert unit.reads == Box((2, 0), (5, 3))
        assert str(describe(network, ["features.1"], (2, 0))).splitlines()[2].split()[-1] == "reads"

    def test_the_middle_unit_of_several_layers(self) -> None:
        found = describe(resolve("D"), ["conv3_3", "features.30", "flatten", "fc8"]).units
        assert [(unit.title, unit.unit, unit.map) for unit in found] == [
            ("conv3_3", (28, 28), (56, 56)),
            ("pool5", (3, 3), (7, 7)),
            ("flatten", (3, 3), (7, 7)),
            ("fc8", (0, 0), (1, 1)),
        ]
        assert found[1].reads == found[2].reads == Box((6, 6), (217, 217))
        assert found[3].box == Box((-90, -90), (313, 313))

    @pytest.mark.parametrize(("at", "unit", "text"), [
        ("conv5_4", None, "D has no layer 'conv5_4'\nnear it: conv5_3, conv5_2, conv5_1"),
        ("zzz", None, "D has no layer 'zzz'\nits layers are conv1_1, relu1_1, conv1_2 and so on"),
        ("conv5_3", (14, 0), "conv5_3 has no unit 14,0: its map is 14x14\nunits go from 0,0 to 13,13"),
        ("conv5_3", (0, -1), "conv5_3 has no unit 0,-1: its map is 14x14\nunits go from 0,0 to 13,13"),
        ("pool5", (3,), "unit 3 does not fit a map of 7x7\nwrite row,column: unit=(6, 6)"),
    ])  # fmt: skip
    def test_what_is_not_there(self, at: str, unit: tuple[int, ...] | None, text: str) -> None:
        with pytest.raises(OptionError) as raised:
            describe(resolve("D"), [at], unit)
        assert str(raised.value) == text

    def test_no_unit_of_an_unknown_field(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), Apply(lambda x: x.unfold(2, 2, 2).sum(4)))
        with pytest.raises(OptionError, match=r"1\.unfold has no receptive field: no rule tells what unfold"):
            describe(trace(model, (3, 8, 8), "odd"), ["1.unfold"])


class TestShown:
    def test_the_table_of_layers(self) -> None:
        lines = str(vggscope.receptive_fields("D")).splitlines()
        assert lines[2].split() == ["layer", "label", "op", "map", "field", "stride", "padding", "note"]
        assert lines[4].split() == ["features.0", "conv1_1", "Conv2d", "224x224", "3", "1", "1"]
        assert lines[34].split() == ["features.30", "pool5", "MaxPool2d", "7x7", "212", "32", "90"]
        assert lines[37].split() == ["classifier.0", "fc6", "Linear", "1x1", "404", "32", "90", "whole", "image"]

    @pytest.mark.parametrize(("column", "note"), [
        ("D", "conv5_1 to conv5_3 (three 3x3) see 7x7 of their input, as one 7x7 convolution would: 27 C^2 weights"
              " against 49 C^2, 81% more; with C = 512 that is 7,077,888 against 12,845,056, and two nonlinearities"
              " between them"),
        ("C", "conv5_1 to conv5_3 (3x3, 3x3, 1x1) see 5x5 of their input, as one 5x5 convolution would: 19 C^2 weights"
              " against 25 C^2, 32% more; with C = 512 that is 4,980,736 against 6,553,600, and two nonlinearities"
              " between them"),
    ])  # fmt: skip
    def test_the_note_on_small_kernels(self, column: str, note: str) -> None:
        assert 3 * 9 * 512**2 == 7_077_888
        assert 49 * 512**2 == 12_845_056
        assert vggscope.receptive_fields(column).notes == (note,)

    def test_without_a_stack_there_is_no_note(self) -> None:
        assert vggscope.receptive_fields("conv3-8 conv3-16 maxpool conv3-16").notes == ()

    def test_json(self) -> None:
        found = json.loads(vggscope.receptive_fields("D", at="pool5", unit=(0, 0)).to_json())
        assert (found["schema"], found["model"], found["input_shape"]) == ("vggscope/rf@1", "D", [1, 3, 224, 224])
        pool5 = next(layer for layer in found["layers"] if layer["label"] == "pool5")
        assert {key: pool5[key] for key in ("name", "op", "size", "stride", "padding", "map", "note")} == {
            "name": "features.30", "op": "MaxPool2d", "size": [212, 212], "stride": [32, 32], "padding": [90, 90],
            "map": [7, 7], "note": None,
        }  # fmt: skip
        assert found["units"][0]["box"] == {"first": [-90, -90], "last": [121, 121]}
        assert found["units"][0]["padding_pixels"] == 212**2 - 122**2

    def test_csv_of_units(self) -> None:
        head, row = write(vggscope.receptive_fields("D", at="fc6"), "csv").splitlines()
        values = dict(zip(head.split(","), row.split(",")))
        assert (values["label"], values["first_row"], values["last_column"]) == ("fc6", "-90", "313")


class TestEffective:
    def network_and_module(self) -> tuple[Network, nn.Module]:
        network = resolve("conv3-8 conv3-8 maxpool conv3-8 conv3-8 FC-3", BuildOptions(input=(3, 32, 32)))
        torch.manual_seed(3)
        return network, module(network).train()

    def test_the_energy_by_hand(self) -> None:
        """With one sample of a linear network, the heat is the squared derivative itself."""
        network = resolve("conv3-1", BuildOptions(input=(1, 9, 9)))
        model = module(network)
        model.features[0].weight.data = torch.arange(1.0, 10.0).reshape(1, 1, 3, 3)
        model.features[0].bias.data.fill_(1000)  # above zero everywhere: ReLU passes all
        found = effective_field(network, model, "relu1_1", (4, 4), samples=1)
        squares = [[row * row for row in range(start, start + 3)] for start in (1, 4, 7)]
        whole = sum(map(sum, squares))
        assert [row[3:6] for row in found.heat[3:6]] == [
            tuple(pytest.approx(square / whole, rel=1e-5) for square in row) for row in squares
        ]
        assert sum(map(sum, found.heat)) == pytest.approx(1)
        assert found.field.boxes[1].box == found.field.box == Box((3, 3), (5, 5))
        # The middle alone holds 25 of 285.
        assert (found.field.boxes[0].box, found.field.boxes[0].share) == (Box((3, 3), (5, 5)), pytest.approx(1))

    def test_the_centre_has_most_of_the_energy(self) -> None:
        network, model = self.network_and_module()
        seen: list[int] = []
        found = effective_field(network, model, "conv2_2", samples=3, progress=seen.append)
        half, most = found.field.boxes
        assert seen == [0, 1, 2]
        assert found.field.box == Box((10, 10), (23, 23))  # 14 pixels, padding 6, stride 2
        assert (half.percent, most.percent) == (50, 95)
        assert half.share >= 0.5
        assert most.share >= 0.95
        assert half.box.pixels < most.box.pixels < found.field.box.pixels
        outside = sum(sum(row) for place, row in enumerate(found.heat) if not 10 <= place <= 23)
        assert outside == 0
        assert effective_field(network, model, "conv2_2", samples=3) == found

    def test_the_module_is_left_as_it_was(self) -> None:
        network, model = self.network_and_module()
        effective_field(network, model, "fc3", samples=1)
        assert all(part.training for part in model.modules())
        assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
        assert not any(part._forward_hooks for part in model.modules())

    @pytest.mark.parametrize(("at", "samples", "text"), [
        ("conv9", 1, "has no layer 'conv9'"),
        ("flatten", 1, "flatten is not a module whose units have one position each"),
        ("conv1_1", 0, "0 samples make no sense"),
    ])  # fmt: skip
    def test_what_cannot_be_measured(self, at: str, samples: int, text: str) -> None:
        with pytest.raises(OptionError, match=text):
            effective_field(*self.network_and_module(), at, samples=samples)

    def test_weights_of_nothing(self) -> None:
        network, model = self.network_and_module()
        for parameter in model.parameters():
            nn.init.zeros_(parameter)
        with pytest.raises(OptionError, match="no gradient reaches the image from conv2_1"):
            effective_field(network, model, "conv2_1", samples=1)

    def test_the_table(self) -> None:
        network, model = self.network_and_module()
        found = effective_field(network, model, "conv2_2", samples=2)
        fields = replace(describe(network, ["conv2_2"]), effective=found.field)
        assert "the effective field of conv2_2, unit 8,8: where the energy of its gradients lies" in str(fields)
        assert json.loads(fields.to_json())["effective"]["boxes"][1]["percent"] == 95


class TestPictures:
    @pytest.mark.parametrize(("form", "start"), [("png", b"\x89PNG"), ("pdf", b"%PDF"), ("svg", b"<?xml")])
    def test_growth(self, form: str, start: bytes) -> None:
        drawn = growth([vggscope.receptive_fields(column) for column in ("A", "B", "C", "D")])
        assert drawn.render(form).startswith(start)
        assert drawn.render(form) == drawn.render(form)

    def test_growth_names_lines_and_layers(self) -> None:
        first, *others = (vggscope.receptive_fields(column) for column in ("A", "B", "C"))
        several = draw(first, ".svg", beside=others).decode()
        assert [text in several for text in (">A  342<", ">B, C  348<", ">the image: 224<")] == [True] * 3
        one = draw(vggscope.receptive_fields("D"), ".svg", theme="paper").decode()
        assert [f">{layer}<" in one for layer in ("conv1_1", "pool5", "fc6", "relu1_1")] == [True, True, True, False]

    def test_growth_has_a_line_for_each_size_of_an_input(self) -> None:
        first, *others = (vggscope.receptive_fields(word) for word in ("A", "D", "timm:resnet14t"))
        several = draw(first, ".svg", beside=others).decode()
        assert ">the image of A, D: 224<" in several
        assert ">the image of timm:resnet14t: 176<" in several
        assert ">the image: 224<" not in several
        far = draw(first, ".svg", beside=[vggscope.receptive_fields("conv3-4", (3, 4000, 4000))]).decode()
        assert ("of A: 224<" in far, "4000" in far) == (True, False)

    def test_regions_on_a_photo(self) -> None:
        from PIL import Image

        fields = vggscope.receptive_fields("D", at=["conv3_3", "pool5"], unit=(0, 6))
        drawn = draw(fields, ".svg", image=Image.new("RGB", (50, 80), "red")).decode()
        assert "pool5, unit 0,6: 212x212, 66.9% padding" in drawn
        assert "conv3_3, unit 0,6: 40x40, 45.0% padding" in drawn
        assert "<image" in drawn
        assert "<image" not in draw(fields, ".svg").decode()

    def test_a_heat_map(self) -> None:
        network = resolve("conv3-4 conv3-4", BuildOptions(input=(3, 16, 16)))
        heat = effective_field(network, module(network), "conv1_2", samples=1)
        fields = replace(describe(network), effective=heat.field, heat=heat.heat)
        drawn = draw(fields, ".svg", theme="dark").decode()
        assert "by the rule: 5x5" in drawn
        assert "energy of the gradients, 1 image of noise" in drawn

    def test_a_heat_map_lies_over_a_photo(self) -> None:
        """Around the field the photo is as it is."""
        from PIL import Image

        network = resolve("conv3-4 conv3-4", BuildOptions(input=(3, 64, 64)))
        heat = effective_field(network, module(network), "conv1_2", samples=1)
        fields = replace(describe(network), effective=heat.field, heat=heat.heat)
        red = Image.new("RGB", (64, 64), (255, 0, 0))
        assert b"<image" in draw(fields, ".svg", image=red)
        for photo, is_there in ((red, True), (None, False)):
            picture = Image.open(io.BytesIO(draw(fields, ".png", image=photo))).convert("RGB")
            found = [color for _, color in picture.getcolors(10**6)]
            assert ((255, 0, 0) in found) == is_there

    def test_what_cannot_be_drawn(self) -> None:
        fields = vggscope.receptive_fields("D")
        sequence = describe(trace(nn.Conv1d(2, 3, 3), (2, 9), "sequence"), ["conv1d"])
        for drawing, text in (
            (lambda: regions(fields), "no layer is named"),
            (lambda: regions(sequence), "an input of 2x9 is not an image"),
            (lambda: growth([fields] * 13), "13 models are too many"),
            (lambda: growth([describe(trace(nn.Linear(5, 3), (5,), "row"))]), "row has no known receptive field"),
            (lambda: growth([fields]).render("gif"), "no plot is written as 'gif'"),
            (lambda: growth([fields], theme="pink"), "unknown theme 'pink'"),
        ):
            with pytest.raises(OptionError, match=text):
                drawing()


def run_on(model: nn.Module, *inputs: Tensor) -> tuple[Network, nn.Module]:
    """The Network of a module on these inputs, and the module on the meta device."""
    bare = without_data(model.eval())
    return run(bare, from_data(inputs).for_samples(1), type(model).__name__).network, bare


def mismatches(model: nn.Module, *inputs: Tensor, of: str | None = None, layers: tuple[str, ...] = ()) -> list[str]:
    network, bare = run_on(model, *inputs)
    assert network.failure is None
    measured = layers or measured_layers(network, of)
    assert measured
    return differences(network, bare, measured, of)


@st.composite
def stacks(draw: st.DrawFn) -> tuple[nn.Module, int]:
    """Convolutions, pools, transposed convolutions and upsampling over one, two or three sides."""
    sides = draw(st.integers(1, 3))
    each = st.tuples(*[st.integers(1, 3)] * sides)
    steps = st.tuples(*[st.integers(1, 2)] * sides)
    layers: list[nn.Module] = []
    for _ in range(draw(st.integers(1, 4))):
        kernel, stride = draw(each), draw(steps)
        padding = tuple(side // 2 for side in kernel)
        kinds = {
            "Conv": lambda k, s, p: (4, 4, k, s, p, draw(steps)),
            "MaxPool": lambda k, s, p: (k, s, p, 1, False, draw(st.booleans())),
            "AvgPool": lambda k, s, p: (k, s, p, draw(st.booleans())),
            "ConvTranspose": lambda k, s, p: (4, 4, k, s, tuple(min(side, 1) for side in p)),
            "AdaptiveAvgPool": lambda k, s, p: (tuple(2 + side for side in k),),
            "AdaptiveMaxPool": lambda k, s, p: (tuple(3 + side for side in k),),
        }
        kind = draw(st.sampled_from([*kinds, "Upsample"]))
        if kind == "Upsample":
            linear = ("linear", "bilinear", "trilinear")[sides - 1]
            layers.append(nn.Upsample(scale_factor=2, mode=draw(st.sampled_from(["nearest", linear]))))
        else:
            layers.append(getattr(nn, f"{kind}{sides}d")(*kinds[kind](kernel, stride, padding)))
    return nn.Sequential(*layers), sides


@examples(30)
@given(stacks())
def test_any_stack_over_one_to_three_sides_equals_autograd(drawn: tuple[nn.Module, int]) -> None:
    model, sides = drawn
    image = torch.zeros(1, 4, *(17, 14, 11)[:sides])
    try:
        with torch.no_grad():
            assume(model(image).numel() < 10**5)
    except RuntimeError:
        assume(False)  # a kernel is larger than its input
    assert mismatches(model, image) == []


class Siamese(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.MaxPool2d(2))
        self.head = nn.Conv2d(8, 4, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.head(torch.cat([self.tower(left), self.tower(right)], 1))


class Conditioned(nn.Module):
    """A map of features, scaled by a vector that comes first."""

    def __init__(self) -> None:
        super().__init__()
        self.vector, self.first, self.last = nn.Linear(5, 4), nn.Conv2d(3, 4, 3, 2), nn.Conv2d(4, 4, 3)

    def forward(self, condition: Tensor, image: Tensor) -> Tensor:
        return self.last(self.first(image) * self.vector(condition)[:, :, None, None])


class Flow(nn.Module):
    """Two frames of one size, side by side in the channels, and coarse features of the second."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.coarse, self.last = nn.Conv2d(6, 4, 5, 2, 2), nn.Conv2d(3, 4, 7, 4, 3), nn.Conv2d(8, 2, 3)

    def forward(self, frame: Tensor, following: Tensor) -> Tensor:
        coarse = functional.interpolate(self.coarse(following), scale_factor=2)
        return self.last(torch.cat([self.both(torch.cat([frame, following], 1)), coarse], 1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1) for c in (3, 4, 4))
        self.pool, self.up = nn.MaxPool2d(2), nn.ModuleList(nn.ConvTranspose2d(4, 4, 2, 2) for _ in range(2))
        self.merge = nn.ModuleList(nn.Conv2d(8, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first = self.down[0](x)
        second = self.down[1](self.pool(first))
        x = self.up[0](self.down[2](self.pool(second)))
        x = self.up[1](self.merge[0](torch.cat([x, second], 1)))
        return self.merge[1](torch.cat([x, first], 1))


class WaveNet(nn.Module):
    """Dilated convolutions with gates and skips (van den Oord et al. 2016, section 2)."""

    def __init__(self) -> None:
        super().__init__()
        self.into = nn.Conv1d(1, 4, 1)
        self.dilated = nn.ModuleList(nn.Conv1d(4, 8, 2, dilation=2**i) for i in range(5))

    def forward(self, x: Tensor) -> Tensor:
        x = self.into(x)
        for i, layer in enumerate(self.dilated):
            value, gate = layer(x).chunk(2, 1)
            x = x[:, :, 2**i :] + value.tanh() * gate.sigmoid()
        return x


def images(*sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    return tuple(torch.zeros(1, *size) for size in sizes)


class TestInputs:
    @pytest.mark.parametrize("of", [None, "left", "right"])
    def test_a_shared_tower(self, of: str | None) -> None:
        inputs = images((3, 32, 32), (3, 40, 32))[:1] * 2
        assert mismatches(Siamese(), *inputs, of=of) == []
        fields = describe(run_on(Siamese(), *inputs)[0], of=of)
        assert (fields.of, fields.axes, fields.sides) == (of or "left", (2, 3), (32, 32))
        sizes = {layer.name: layer.size for layer in fields.layers}
        assert (sizes["tower.0"], sizes["tower.0:2"]) == ((None, (3, 3)) if of == "right" else ((3, 3), None))
        assert sizes["head"] == (13, 13)  # 3 and a pool of two: 5; two more units at stride 4

    def test_the_first_input_with_sides_is_the_default(self) -> None:
        inputs = images((5,), (3, 32, 32))
        assert mismatches(Conditioned(), *inputs) == []
        network, _ = run_on(Conditioned(), *inputs)
        assert describe(network).of == "image"
        for of, text in (
            ("mask", "Conditioned has no input 'mask'\nits inputs are condition and image"),
            ("condition", "the input condition has no spatial axes\nname image"),
        ):
            with pytest.raises(OptionError) as raised:
                describe(network, of=of)
            assert str(raised.value) == text

    @pytest.mark.parametrize("of", ["frame", "following"])
    def test_pairs_of_frames(self, of: str) -> None:
        assert mismatches(Flow(), *images((3, 32, 40), (3, 32, 40)), of=of) == []

    def test_one_to_three_sides_of_known_networks(self) -> None:
        assert mismatches(UNet(), *images((3, 32, 32))) == []
        assert mismatches(WaveNet(), *images((1, 100))) == []
        video = torchvision.models.video.r3d_18(weights=None)
        assert (
            mismatches(video, *images((3, 8, 24, 24)), layers=("stem.0", "layer1.1.conv2.0", "layer2.0.conv1.0")) == []
        )
        wave = describe(run_on(WaveNet(), *images((1, 100)))[0])
        assert (wave.layers[-1].size, wave.axes) == ((32,), (2,))
        assert json.loads(wave.to_json())["layers"][-1]["size"] == [32]

    @pytest.mark.parametrize(
        ("model", "given", "axes"),
        [
            (nn.Conv1d(4, 2, 3), torch.zeros(1, 4, 9), (2,)),
            (nn.Linear(9, 2), torch.zeros(1, 4, 9), (1,)),
            (nn.LSTM(9, 2, batch_first=True), torch.zeros(1, 4, 9), (1,)),
            (nn.Sequential(nn.LayerNorm(9), nn.Linear(9, 2)), torch.zeros(1, 4, 4, 9), (1, 2)),
            (
                nn.Sequential(Apply(lambda x: x.permute(0, 3, 1, 2)), nn.Conv2d(3, 2, 3)),
                torch.zeros(1, 8, 8, 3),
                (1, 2),
            ),
            (nn.Sequential(Apply(lambda x: x[:, None]), nn.Conv1d(1, 2, 3)), torch.zeros(1, 9), (1,)),
            (nn.Embedding(7, 4), torch.zeros(1, 9, dtype=torch.int64), (1,)),
            (nn.Sequential(nn.Flatten(), nn.Linear(36, 2)), torch.zeros(1, 4, 3, 3), (2, 3)),
            (nn.Linear(9, 2), torch.zeros(1, 9), ()),
        ],
    )
    def test_the_sides_are_all_axes_but_batch_and_channels(
        self, model: nn.Module, given: Tensor, axes: tuple[int, ...]
    ) -> None:
        network, bare = run_on(model, given)
        assert describe(network).axes == axes
        if axes and given.is_floating_point() and not isinstance(model, nn.LSTM):
            assert differences(network, bare, tuple(n.name for n in network.nodes if n.module)[-1:]) == []

    def test_a_sequence_step_by_step(self) -> None:
        fields = describe(run_on(nn.LSTM(4, 2, batch_first=True), torch.zeros(1, 9, 4))[0], ["lstm"], (3,))
        assert fields.units[0].box == Box((0,), (3,))
        both = nn.LSTM(4, 2, batch_first=True, bidirectional=True)
        assert describe(run_on(both, torch.zeros(1, 9, 4))[0]).layers[0].whole

    def test_tokens_by_changing_one(self) -> None:
        model = nn.Sequential(nn.Embedding(9, 4), Apply(lambda x: x.transpose(1, 2)), nn.Conv1d(4, 2, 3, dilation=2))
        tokens = torch.arange(9)[None]
        (unit,) = describe(run_on(model, tokens)[0], ["2"], (1,)).units
        with torch.no_grad():
            before = model(tokens)[0, :, 1]
            changed = [
                i for i in range(9) if not model(tokens.index_fill(1, torch.tensor(i), 8))[0, :, 1].equal(before)
            ]
        assert (unit.box.first, unit.box.last) == ((1,), (5,)) == ((changed[0],), (changed[-1],))


class TestWhole:
    def test_all_layers_after_the_first_attention(self) -> None:
        import timm

        model = timm.create_model("vit_tiny_patch16_224", img_size=64, depth=2)
        network, bare = run_on(model, torch.zeros(1, 3, 64, 64))
        layers = describe(network).layers
        names = [layer.name for layer in layers]
        attention = names.index("blocks.0.attn.scaled_dot_product_attention")
        assert all(layer.whole and layer.size == (64, 64) for layer in layers[attention:])
        assert not any(layer.whole for layer in layers[:attention])
        before = layers[attention - 1]
        assert (before.size, before.map) == ((16, 16), (17,))
        assert before.note == "regions of 16 x 16 pixels; 1 of 17 units depends on none"
        some = ("patch_embed.proj", "blocks.0.attn.q_norm", "blocks.0.attn.proj", "blocks.1.mlp.fc2", "fc_norm", "head")
        assert differences(network, bare, tuple(name for name in some if name in names)) == []

    def test_the_first_piece_has_its_own_map(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), Apply(lambda x: x[:, :, :2].chunk(3, 3)[0]), nn.Conv2d(4, 2, 1))
        layers = describe(run_on(model, torch.zeros(1, 3, 8, 8))[0]).layers
        assert [layer.map for layer in layers] == [(6, 6), (2, 6), (2, 2), (2, 2)]

    def test_a_flatten_alone_does_not_widen_the_field(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.Flatten(), nn.Linear(72, 4), nn.ReLU())
        layers = describe(run_on(model, torch.zeros(1, 3, 8, 8))[0]).layers
        assert [(layer.size, layer.whole) for layer in layers] == [((3, 3), False)] * 2 + [((8, 8), True)] * 2

    @pytest.mark.parametrize(
        "pooled",
        [nn.AdaptiveAvgPool2d(1), Apply(lambda x: x.mean((2, 3))), Apply(lambda x: x.amax((2, 3), True) + x)],
    )
    def test_global_pools(self, pooled: nn.Module) -> None:
        layers = describe(run_on(nn.Sequential(nn.Conv2d(3, 4, 3), pooled), torch.zeros(1, 3, 8, 8))[0]).layers
        assert [layer.whole for layer in layers] == [False, *[True] * (len(layers) - 1)]
        assert json.loads(describe(run_on(pooled, torch.zeros(1, 3, 8, 8))[0]).to_json())["layers"][0]["whole"] is True

    def test_tokens_that_become_a_map_again(self) -> None:
        tokens = Apply(lambda x: x.flatten(2).transpose(1, 2))
        back = Apply(lambda x: x.transpose(1, 2).unflatten(2, (4, 6)))
        model = nn.Sequential(nn.Conv2d(3, 4, 2, 2), tokens, nn.Linear(4, 4), back, nn.Conv2d(4, 4, 3))
        image = torch.zeros(1, 3, 8, 12)
        assert mismatches(model, image) == []
        fields = describe(run_on(model, image)[0], ["2"], (1, 2))
        assert (fields.layers[-1].size, fields.layers[-1].stride, fields.layers[3].map) == ((6, 6), (2, 2), (4, 6))
        assert fields.units[0].box == Box((2, 4), (3, 5))


class Attention(nn.Module):
    """Attention of the tokens in windows of 4 x 4, or of all, written out: softmax(Q K^T) V."""

    def __init__(self, window: int | None = None) -> None:
        super().__init__()
        self.window = window
        self.patches, self.norm, self.qkv = nn.Conv2d(3, 8, 2, 2), nn.LayerNorm(8), nn.Linear(8, 24)
        self.out, self.last = nn.Linear(8, 8), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).permute(0, 2, 3, 1)
        n, height, width, _ = x.shape
        rows, columns = (self.window, self.window) if self.window else (height, width)
        cut = x.reshape(n, height // rows, rows, width // columns, columns, 8).transpose(2, 3)
        tokens = self.norm(cut.reshape(-1, rows * columns, 8))
        q, k, v = self.qkv(tokens).reshape(-1, rows * columns, 3, 2, 4).permute(2, 0, 3, 1, 4)
        read = (q @ k.transpose(-2, -1)).softmax(-1) @ v
        read = self.out(read.transpose(1, 2).reshape(-1, rows * columns, 8))
        back = read.reshape(n, height // rows, width // columns, rows, columns, 8).transpose(2, 3)
        return self.last((back.reshape(n, height, width, 8) + x).permute(0, 3, 1, 2))


class Patches(nn.Module):
    """Patches cut out by views, as einops' rearrange does, and a convolution over the map of patches."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.last = nn.Linear(48, 8), nn.Conv2d(8, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        cut = x.reshape(n, 3, height // 4, 4, width // 4, 4).permute(0, 2, 4, 3, 5, 1)
        tokens = self.project(cut.reshape(n, height * width // 16, 48))
        return self.last(tokens.transpose(1, 2).reshape(n, 8, height // 4, width // 4))


class TestSplitSides:
    def test_attention_in_windows(self) -> None:
        image = torch.zeros(1, 3, 16, 24)
        assert mismatches(Attention(4), image) == []
        layers = {layer.name: layer for layer in describe(run_on(Attention(4), image)[0]).layers}
        assert (layers["qkv"].size, layers["qkv"].note) == ((2, 2), "a side of the input lies along several axes")
        assert layers["out"].size == (8, 8)
        assert (layers["add"].size, layers["add"].map) == ((8, 8), (8, 12))
        assert layers["last"].note == "regions of 8 to 16 x 8 to 16 pixels, not at equal steps"
        assert layers["matmul"].size is None
        assert not any(layer.whole for layer in layers.values())

    def test_attention_of_all_tokens(self) -> None:
        image = torch.zeros(1, 3, 16, 24)
        assert mismatches(Attention(), image) == []
        layers = describe(run_on(Attention(), image)[0]).layers
        names = [layer.name for layer in layers]
        assert all(layer.whole for layer in layers[names.index("softmax") :])
        assert not any(layer.whole for layer in layers[: names.index("softmax")])

    def test_patches_cut_by_views(self) -> None:
        image = torch.zeros(1, 3, 16, 24)
        assert mismatches(Patches(), image) == []
        layers = {layer.name: layer for layer in describe(run_on(Patches(), image)[0]).layers}
        assert (layers["project"].size, layers["project"].stride, layers["last"].size) == ((4, 4), (4, 4), (12, 12))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["mobilevit_s", "swin_tiny_patch4_window7_224", "twins_svt_small"])
    def test_transformers_with_windows_end_with_the_whole_image(self, name: str) -> None:
        import timm

        network = trace(build_without_data(lambda: timm.create_model(name)), (3, 224, 224), name)
        assert describe(network).layers[-1].whole


class TestOtherInputs:
    @pytest.mark.parametrize(("sides", "unit", "place"), [(1, (3,), "6"), (3, (1, 2, 3), "1,6,6")])
    def test_the_effective_field(self, sides: int, unit: tuple[int, ...], place: str) -> None:
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[sides - 1]
        model = nn.Sequential(conv(2, 3, 3), conv(3, 3, 3))
        network = trace(model, (2, *(9,) * sides), "net")
        measured = effective_field(network, model, "1", unit, samples=1)
        assert measured.field.box == Box(unit, tuple(place + 4 for place in unit))
        assert measured.heat == ()
        fields = replace(describe(network, ["1"], unit), effective=measured.field, heat=measured.heat)
        assert "1 input of noise" in str(fields)
        with pytest.raises(
            OptionError, match=r"an input of 2x9.* is not an image\nits regions can be listed, not drawn"
        ):
            draw(fields, ".svg")
        with pytest.raises(OptionError, match=rf"unit=\({place.replace(',', ', ')}"):
            describe(network, ["1"], (0, 0))
        assert ">the input: 9<" in draw(describe(network), ".svg").decode()

    def test_the_effective_field_of_one_of_two_inputs(self) -> None:
        network, _ = run_on(Siamese(), *images((3, 32, 32), (3, 32, 32)))
        measured = effective_field(network, Siamese(), "head", (2, 2), samples=1, of="right")
        assert measured.field.box == Box((8, 8), (20, 20))
        assert sum(map(sum, measured.heat)) == pytest.approx(1)

    def test_the_inputs_of_a_list(self) -> None:
        class Pair(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 2, 3)

            def forward(self, frames: list[Tensor]) -> Tensor:
                return self.conv(frames[0]) + self.conv(frames[1])

        frames = ([*images((3, 9, 9), (3, 9, 9))],)
        network, bare = run_on(Pair(), *frames)
        assert differences(network, attach(bare, from_data(frames)), ("conv:2",), "frames[1]") == []
        model = attach(Pair(), from_data(frames))
        assert effective_field(network, model, "conv:2", of="frames[1]").field.box == Box((3, 3), (5, 5))
        with pytest.raises(OptionError, match=r"Pair takes frames\[0\] as a part of another argument"):
            effective_field(network, Pair(), "conv:2", of="frames[1]")
        with pytest.raises(
            OptionError, match=r"conv has no .*depend on the input\nname another layer, or another input"
        ):
            describe(network, ["conv"], of="frames[1]")

    def test_tokens_have_no_gradient(self) -> None:
        model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 4))
        network, _ = run_on(model, torch.zeros(1, 9, dtype=torch.int64))
        with pytest.raises(OptionError, match="the input is int64, which has no gradient"):
            effective_field(network, model, "1")

    def test_csv_has_a_column_for_each_side(self) -> None:
        network = trace(nn.Conv1d(2, 3, 3), (2, 9), "net")
        head = write(describe(network, ["conv1d"]), "csv").splitlines()[0]
        assert head.startswith("name,label,unit_position,map_position,first_position,last_position")


def test_the_cost_follows_the_layers_and_not_the_units() -> None:
    """No layer of a transformer with rotary embeddings lists its units one by one."""
    import timm

    model = build_without_data(lambda: timm.create_model("vit_small_patch16_rope_224", img_size=64, depth=2))
    network = trace(model, (3, 64, 64), "rope")
    extents = [side.extent for view in views(network).values() if isinstance(view, PixelView) for side in view.sides]
    assert not any(isinstance(extent, Irregular) for extent in extents)


class TwoImages(nn.Module):
    """A tower that is called on two images."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 4, 3))

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return self.tower(one) - self.tower(other)


def test_a_tower_on_two_inputs_has_its_field_in_each() -> None:
    """3 + (3 - 1) x 2 = 7 after the second convolution, whichever input it reads."""
    summary = vggscope.summary(TwoImages(), [(1, 3, 16, 16)] * 2)
    sizes = {row.name: row.receptive_field and row.receptive_field.size for row in summary.layers}
    assert sizes["tower.2"] == sizes["tower.2:2"] == sizes["sub"] == (7, 7)
    assert "7×7 px" in vggscope.diagram(TwoImages(), input_size=[(1, 3, 16, 16)] * 2).render("svg").decode()


NEW_AXES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "stft": lambda x: torch.stft(x[:, 0], 8, return_complex=True, window=torch.ones(8))[:, None].abs(),
    "unfold": lambda x: x.unfold(-1, 8, 4),
    "view_as_real": lambda x: torch.view_as_real(x * 1j),
    "fft_rfft2": lambda x: torch.fft.rfft2(x[..., None].expand(-1, -1, -1, 6)).abs(),
    "diag_embed": torch.diag_embed,
    "unflatten": lambda x: x.unflatten(-1, (8, -1)),
}


@pytest.mark.parametrize("name", NEW_AXES)
def test_a_function_that_makes_axes_has_no_known_field(name: str) -> None:
    """No field is read from an axis that the input has not."""

    class MakesAxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.Conv1d(1, 1, 3, padding=1), nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.after(NEW_AXES[name](self.before(x)))

    report = vggscope.receptive_fields(MakesAxes(), (1, 64))
    fields = {layer.name: layer.size for layer in report.layers}
    assert (fields["before"], fields["after"]) == ((3,), None)
    assert [layer.note for layer in report.layers if layer.note and layer.size is None] != []


def test_a_norm_by_the_statistics_of_the_batch_reads_the_whole_map() -> None:
    norm = nn.BatchNorm2d(4, track_running_stats=False)
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), norm)
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    module.eval()(x)[0, 0, 8, 8].backward()
    assert x.grad is not None
    assert x.grad.ne(0).all()
    assert vggscope.receptive_fields(module, input_size=(3, 16, 16)).layers[-1].whole
