"""Tutorials on topics and layers: the numbers by hand and by torch, the text, the pictures, the messages."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image
from torch.nn import functional

from tests.test_diagram import assert_apart
from vggscope import api
from vggscope.document import Table
from vggscope.drawing.picture import Rectangle, Text
from vggscope.drawing.themes import theme_named
from vggscope.errors import OptionError, VggscopeError
from vggscope.render.explain.picture import MOVING, PICTURES, picture
from vggscope.sources.resolve import resolve
from vggscope.tutorials import TOPICS, convolution, explain, pooling
from vggscope.tutorials.image_file import order_of
from vggscope.tutorials.layer import explain_layer
from vggscope.tutorials.tutorial import code, number_text, run, with_torch

WITH_CODE = (
    *("conv", "pool", "relu", "linear", "lrn", "softmax", "input", "dense"),
    *("padding", "parameters", "flops", "backward", "dropout", "batchnorm", "init"),
)


def test_the_tutorials_window_sums_to_308() -> None:
    """The example's source prints 158 for (0)(-1)+(0)(-1)+(0)(1)+(0)(0)+(1)(156)+(-1)(155)+(0)(0)+(1)(153)+(1)(154)."""
    step = explain("conv").data.steps[0]
    assert step.window == ((0, 0, 0), (0, 156, 155), (0, 153, 154))
    assert step.products == "(0)(-1)+(0)(-1)+(0)(1) + (0)(0)+(156)(1)+(155)(-1) + (0)(0)+(153)(1)+(154)(1)"
    assert step.sum == 156 - 155 + 153 + 154 == 308


def test_conv_writes_every_product_out(vggscope) -> None:
    out = vggscope("explain", "conv").out
    written = re.findall(r"^(y\[\d,\d\]) +(\(.*\)) = (-?\d+)$", out, re.MULTILINE)
    assert len(written) == 25
    for _, term, total in written:
        assert eval(term.replace(")(", ")*(")) == int(total)
    assert "(5-3+2*1)/1+1 = 5" in out


sides = st.integers(1, 4)


@given(st.integers(1, 9), sides, sides, st.integers(0, 3))
def test_conv_equals_torch(size: int, kernel: int, stride: int, padding: int) -> None:
    assume(size + 2 * padding >= kernel)
    slide = convolution.slide(size, kernel, stride, padding)
    x, w = torch.tensor(slide.input), torch.tensor(slide.kernel)
    expected = functional.conv2d(x[None, None].float(), w[None, None].float(), stride=stride, padding=padding)[0, 0]
    assert expected.tolist() == [list(row) for row in slide.output]
    assert slide.rule.endswith(str(len(slide.output)))
    assert min(map(min, slide.input)) >= 0
    assert max(map(max, slide.input)) <= 255


@given(st.integers(1, 9), sides, sides, st.integers(0, 2))
def test_pools_equal_torch(size: int, kernel: int, stride: int, padding: int) -> None:
    assume(padding <= kernel // 2 and size + 2 * padding >= kernel)
    pools = pooling.pools(size, kernel, stride, padding)
    x = torch.tensor(pools.input)[None].double()
    assert functional.max_pool2d(x, kernel, stride, padding)[0].tolist() == [list(row) for row in pools.maximum]
    mean = functional.avg_pool2d(x, kernel, stride, padding)[0]
    assert torch.allclose(mean, torch.tensor(pools.average, dtype=torch.float64))


@pytest.mark.parametrize("topic", WITH_CODE)
def test_the_code_that_is_shown_runs_and_gives_the_shown_result(topic: str, capsys: pytest.CaptureFixture[str]) -> None:
    tutorial = with_torch(explain(topic))
    assert tutorial.torch is not None
    assert tutorial.torch.agrees
    assert tutorial.torch.max_abs_error < 1e-5
    assert capsys.readouterr().out == ""
    for block in tutorial.codes():
        exec(block.text, {})
        assert capsys.readouterr().out  # it prints its result to whoever copies it
    assert all(len(line) < 80 for block in tutorial.codes() for line in block.text.split("\n"))


@pytest.mark.parametrize("size", [12, 13, 40])
def test_code_for_a_large_picture_makes_the_same_picture(size: int) -> None:
    assert with_torch(explain("conv", size=size, kernel=5, stride=3)).torch.agrees  # type: ignore[union-attr]
    assert with_torch(explain("pool", size=size, kernel=3, padding=1)).torch.agrees  # type: ignore[union-attr]


def test_disagreement_is_reported(vggscope, monkeypatch) -> None:
    wrong = code("import torch\ny = torch.tensor([1.0, 2.0])", (1.0, 2.5))
    assert run(wrong) == [1.0, 2.0]
    monkeypatch.setattr(convolution, "inner_product", lambda window, kernel: 158)
    ran = vggscope("explain", "conv", "--torch")
    assert ran.code == 1
    assert "differs by" in ran.out


def test_a_pool_leaves_padding_out_of_the_maximum(vggscope) -> None:
    out = vggscope("explain", "pool", "--size", "2", "--kernel", "2", "--padding", "1").out
    assert "max(156) = 156" in out
    assert "(0+0+0+156)/4 = 39" in out


def test_the_rule_names_the_rows_that_no_window_reads(vggscope) -> None:
    out = vggscope("explain", "pool", "--size", "5").out
    assert "(5-2+2*0)/2+1 = 2.5 -> 2; rounded down: no window reads the last row and column" in " ".join(out.split())


def test_relu_and_sigmoid() -> None:
    values = {value.x: value for value in explain("relu").data.values}
    assert (values[-2.0].relu, values[2.0].relu) == (0, 2)
    assert all(0 < value.sigmoid <= 1 for value in values.values())
    x = torch.tensor(sorted(values), dtype=torch.float64, requires_grad=True)
    y = torch.sigmoid(x)
    assert torch.allclose(y, torch.tensor([values[v.item()].sigmoid for v in x], dtype=torch.float64))
    slopes = torch.autograd.grad(y.sum(), x)[0]
    assert torch.allclose(slopes, torch.tensor([values[v.item()].sigmoid_slope for v in x], dtype=torch.float64))
    assert torch.sigmoid(torch.tensor(18.0)).item() == 1.0  # the words say so


def test_the_columns_of_the_relu_table_are_separate(vggscope) -> None:
    out = vggscope("explain", "relu").out
    assert re.search(r"^ +2 +2 +1 +0\.8808 +0\.105$", out, re.MULTILINE)


def test_linear_has_the_papers_layers() -> None:
    layers = {layer.label: layer.params for layer in explain("linear").data.layers}
    assert layers == {"fc6": 25088 * 4096 + 4096, "fc7": 4096 * 4096 + 4096, "fc8": 4096 * 1000 + 1000}
    table = next(block for block in explain("linear").blocks if isinstance(block, Table))
    assert table.rows[0] == ("fc6", 25088, 4096, 102764544, "74.3%")
    assert explain("linear").data.output == (1 * 2 + 0 * -1 + -1 * 3 + 4, 2 * 2 + 1 * -1 + 1 * 3 - 2)


def test_lrn_has_the_papers_constants_and_torchs() -> None:
    data = explain("lrn").data
    c = data.constants
    assert (c.k, c.n, c.alpha, c.beta, c.torch_alpha) == (2.0, 5, pytest.approx(1e-4), 0.75, pytest.approx(5e-4))
    assert data.output[3] == 0
    assert data.output[0] == pytest.approx(10 / (2 + 1e-4 * (10**2 + 200**2 + 30**2)) ** 0.75)
    assert data.params_a == data.params_a_lrn == 132863336


def test_applying_softmax_twice_changes_the_loss() -> None:
    data = explain("softmax").data
    assert sum(data.probabilities) == pytest.approx(1)
    logits = torch.tensor(data.logits, dtype=torch.float64)
    twice = functional.cross_entropy(torch.softmax(logits, 0)[None], torch.tensor([data.target])).item()
    assert data.loss_of_probabilities == pytest.approx(twice)
    assert data.loss < twice


def test_dense_keeps_every_weight(vggscope) -> None:
    data = explain("dense").data
    assert [layer.convolution_weight for layer in data.layers] == [
        (4096, 512, 7, 7),
        (4096, 4096, 1, 1),
        (1000, 4096, 1, 1),
    ]
    assert sum(layer.params for layer in data.layers) == 123642856
    maps = {score_map.side: score_map for score_map in data.maps}
    assert maps[224].output_shape == (1, 1000, 1, 1)
    assert maps[384].output_shape == (1, 1000, 6, 6)
    assert maps[224].macs == 15470264320
    assert maps[384].macs_of_crops == 36 * 15470264320


def test_depth_compares_27_with_49_weights(vggscope) -> None:
    data = explain("depth", channels=64).data
    assert data.stack.sees == (3, 5, 7)
    assert data.single.sees == (7,)
    assert (data.stack.weights, data.single.weights) == (27 * 64**2, 49 * 64**2)
    assert data.stack.params == 27 * 64**2 + 3 * 64
    assert data.single.macs == 49 * 64**2 * 56**2
    assert data.more_percent == pytest.approx(100 * 22 / 27)
    assert "81% more than 27 C^2" in vggscope("explain", "depth").out
    five = explain("depth", kernel=5, channels=8).data
    assert (five.stack.weights_per_c2, five.single.weights_per_c2) == (18, 25)


def test_why_tools_disagree_gives_their_figures(vggscope) -> None:
    values = {count.tool: count.value for count in explain("why-tools-disagree").data.counts}
    assert values == {
        "vggscope": 15470264320,
        "torch.utils.flop_counter": 30940528640,
        "torchinfo": 15483821032,
        "fvcore": 15470289408,
    }
    out = vggscope("explain", "why-tools-disagree", "vgg16_bn").out
    assert "D_bn" in out
    assert "each weight and bias of a normalisation" in " ".join(out.split())


def test_the_paper_beside_computed_values(vggscope) -> None:
    data = explain("paper").data
    assert [(c.column, c.paper_params_millions) for c in data.columns] == [
        *(("A", 133), ("A-LRN", 133), ("B", 133), ("C", 134), ("D", 138), ("E", 144)),
    ]
    assert [c.weight_layers for c in data.columns] == [11, 11, 13, 16, 16, 19]
    assert all(column.agrees for column in data.columns)
    out = vggscope("explain", "paper").out
    assert "1,281,167 images x 74 / 256 = 370,337 iterations" in " ".join(out.split())
    stars = re.findall(r"\S+\*", out)
    assert sorted(stars) == sorted(
        ["LRN*", "conv3-64*", "conv3-128*", "conv1-256*", "conv1-512*", "conv1-512*"]
        + ["conv3-256*", "conv3-512*", "conv3-512*"] * 2
    )


ORDERS = {
    (224, 224, 3): "HWC",
    (224, 224, 4): "HWC",
    (28, 28, 1): "HWC",
    (3, 224, 224): "CHW",
    (1, 28, 28): "CHW",
    (480, 640): "HW",
    (8, 3, 32, 32): "NCHW",
    (8, 32, 32, 3): "NHWC",
    (3, 5, 3): "",
    (5, 6, 7): "",
}


@pytest.mark.parametrize(("shape", "order"), ORDERS.items())
def test_the_order_of_axes_is_recognised(vggscope, shape: tuple[int, ...], order: str) -> None:
    assert order_of(shape) == order
    out = vggscope("explain", "input", "--shape", "x".join(map(str, shape))).out
    assert (",".join(order) or "unclear") in out
    assert ("permute" in out) == order.endswith("HWC")


def saved(tmp_path: Path, name: str, mode: str = "RGB") -> tuple[Path, torch.Tensor]:
    """The path of an image file in this mode, and the RGB values that it was made from."""
    from PIL import Image

    values = torch.randint(0, 256, (12, 20, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    Image.fromarray(values.numpy()).convert(mode).save(tmp_path / name)
    return tmp_path / name, values


def test_an_image_is_preprocessed_as_the_paper_and_as_torchvision_do(tmp_path: Path) -> None:
    from torchvision.transforms.v2 import functional as transforms

    path, values = saved(tmp_path, "photo.png")
    data = explain("input", image=str(path)).data
    assert (data.shape, data.order) == ((12, 20, 3), "HWC")
    x = values.permute(2, 0, 1).double()
    paper = x - torch.tensor([123.68, 116.779, 103.939]).double()[:, None, None]
    normal = transforms.normalize(x / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    for channel, ours, theirs in zip(data.channels, paper, normal):
        assert channel.paper == pytest.approx([f(ours).item() for f in (torch.min, torch.mean, torch.max)])
        assert channel.torchvision == pytest.approx([f(theirs).item() for f in (torch.min, torch.mean, torch.max)])
    assert [pixel.raw[0] for pixel in data.pixel] == values[6, 10].tolist()


@pytest.mark.parametrize(
    ("mode", "name", "shape"),
    [
        ("L", "a.png", (12, 20)),
        ("RGBA", "a.png", (12, 20, 4)),
        ("CMYK", "a.jpg", (12, 20, 3)),
        ("P", "a.gif", (12, 20, 3)),
    ],
)
def test_images_of_other_modes(vggscope, tmp_path: Path, mode: str, name: str, shape: tuple[int, ...]) -> None:
    path, _ = saved(tmp_path, name, mode)
    data = json.loads(vggscope("explain", "input", "--image", str(path), "-f", "json").out)["data"]
    assert data["shape"] == list(shape)
    assert len(data["channels"]) == 3


def test_arrays_in_either_order_are_the_same_image(tmp_path: Path) -> None:
    import numpy as np

    _, values = saved(tmp_path, "photo.png")
    np.save(tmp_path / "hwc.npy", values.numpy())
    np.save(tmp_path / "chw.npy", values.permute(2, 0, 1).numpy())
    np.save(tmp_path / "unit.npy", values.numpy() / 255)
    hwc, chw, unit = (explain("input", image=str(tmp_path / f"{name}.npy")).data for name in ("hwc", "chw", "unit"))
    assert (hwc.order, chw.order) == ("HWC", "CHW")
    assert hwc.channels == chw.channels
    assert unit.channels[0].raw == pytest.approx(hwc.channels[0].raw)


def test_files_without_an_image_are_refused(vggscope, tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "junk.png").write_bytes(b"\x89PNG\r\n\x1a\njunk")
    np.save(tmp_path / "pickle.npy", np.array([{}], dtype=object), allow_pickle=True)
    np.save(tmp_path / "nan.npy", np.full((4, 4, 3), np.nan))
    np.save(tmp_path / "odd.npy", np.zeros((5, 6, 7)))
    for name in ("junk.png", "pickle.npy", "nan.npy", "odd.npy", "missing.png"):
        ran = vggscope("explain", "input", "--image", str(tmp_path / name))
        assert (ran.code, ran.out) == (2, "")
        assert len(ran.err.rstrip("\n").split("\n")) == 2
        assert "defect" not in ran.err


def test_a_layer_of_the_paper(vggscope) -> None:
    tutorial = json.loads(vggscope("explain", "D", "conv3_2", "-f", "json").out)
    assert (tutorial["schema"], tutorial["topic"]) == ("vggscope/explain@1", "layer")
    data = tutorial["data"]
    layer = data["layer"]
    assert layer["params"] == 256 * 256 * 9 + 256
    assert layer["macs"] == 56 * 56 * 256 * 256 * 9
    assert layer["rule"] == "(56-3+2*1)/1+1 = 56"
    assert layer["receptive_field"] == {"size": [32, 32], "stride": [4, 4], "padding": [14, 14]}
    assert [n["label"] for n in data["before"] + data["behind"]] == ["relu3_1", "relu3_2"]
    assert data["kept_bytes"] == layer["activation_bytes"] == 256 * 56 * 56 * 4
    assert data["middle_unit"]["box"] == {"first": [98, 98], "last": [129, 129]}
    out = " ".join(vggscope("explain", "D", "conv3_2").out.split())
    assert "256 x 256 x 3 x 3 + 256 = 590,080" in out
    assert "256 x 56 x 56 outputs, 256 x 3 x 3 for each = 1,849,688,064" in out


@pytest.mark.parametrize(
    "word",
    ["D", "A-LRN", "vgg16_bn", "torchvision:resnet18", pytest.param("torchvision:vit_b_16", marks=pytest.mark.slow)],
)
def test_every_kind_of_layer_can_be_explained(word: str) -> None:
    network = resolve(word)
    for node in {node.op.name: node for node in network.nodes}.values():
        tutorial = explain_layer(network, node.name)
        assert tutorial.data.layer.name == node.name  # type: ignore[attr-defined]
        assert str(tutorial).startswith(f"{network.name}   {node.title}: {node.op.name}")


def test_a_layer_is_named_by_path_too_and_options_build_the_model(vggscope) -> None:
    by_path = vggscope("explain", "D", "features.12").out
    assert by_path == vggscope("explain", "vgg16", "conv3_2").out
    out = vggscope("explain", "D", "fc6", "--head", "dense", "--input", "3x384x384").out
    assert "4096x6x6" in out
    branch = vggscope("explain", "torchvision:resnet18", "layer2.0.downsample.0").out
    assert "layer2.0.downsample.1" in branch


def test_without_arguments_it_lists_the_topics(vggscope) -> None:
    ran = vggscope("explain")
    assert ran.code == 0
    for topic in TOPICS:
        assert re.search(rf"^{topic}\b", ran.out, re.MULTILINE)


BAD = [
    (("convv",), "unknown topic 'convv', did you mean conv?", "topics are conv"),
    (("sofmax",), "did you mean softmax?", "why-tools-disagree"),
    (("D",), "which layer of D?", "vggscope explain D conv1_1"),
    (("D", "conv3_9"), "D has no layer 'conv3_9'", "conv3_"),
    (("Z9", "conv1_1"), "unknown model 'Z9'", "a model is"),
    (("D", "conv1_1", "conv1_2"), "one layer at a time", "explain D conv1_1"),
    (("D", "conv1_1", "--kernel", "3"), "--kernel is for topics", "explain D conv1_1"),
    (("D", "conv1_1", "--torch"), "no code", "--torch"),
    (("relu", "--size", "3"), "takes no --size", "no options"),
    (("conv", "D"), "topic conv takes no MODEL", "--kernel"),
    (("conv", "--size", "0"), "a size of 0", "--size is 1 to"),
    (("conv", "--stride", "0"), "a stride of 0", "--stride is 1 to"),
    (("conv", "--size", "3", "--kernel", "7", "--padding", "0"), "a window of 7 does not fit", ""),
    (("conv", "--size", "256", "--kernel", "16"), "too many to write out", "smaller --size"),
    (("pool", "--padding", "2"), "a padding of 2", "0 to 1"),
    (("depth", "--kernel", "4"), "a kernel of 4", "odd"),
    (("depth", "--channels", "0"), "0 channels", "1 to"),
    (("input", "--shape", "3"), "'3' is not an array's shape", "224x224x3"),
    (("input", "--shape", "3x4", "--image", "x.png"), "both say", "leave one"),
    (("conv", "-o", "x.jpg"), "no format ends in '.jpg'", ".svg"),
    (("lrn", "-o", "x.gif"), "lrn has no moving picture", "conv, pool"),
    (("softmax", "--animate", "-o", "x.svg"), "softmax has no moving picture", "conv, pool"),
    (("conv", "--size", "12", "-o", "x.gif"), "12x12 positions take too long to watch", "--stride"),
    (("-o", "x.svg"), "contents has no picture", "conv, pool"),
    (("conv", "--theme", "pink"), "unknown theme 'pink'", "light"),
    (("conv", "--size", "30", "-o", "x.svg"), "cannot be read", "--size"),
]


@pytest.mark.parametrize(("words", "problem", "remedy"), BAD, ids=lambda v: " ".join(v) if isinstance(v, tuple) else "")
def test_invalid_arguments_are_errors(vggscope, tmp_path, monkeypatch, words, problem, remedy) -> None:
    monkeypatch.chdir(tmp_path)
    ran = vggscope("explain", *words)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.rstrip("\n").split("\n")
    assert len(lines) <= 2
    assert problem in lines[0]
    assert remedy in lines[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("topic", TOPICS)
@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_topic_fits_the_terminal(vggscope, monkeypatch, topic: str, width: int) -> None:
    """Except code, which could not be copied if it were cut."""
    monkeypatch.setenv("COLUMNS", str(width))
    blocks = json.loads(vggscope("explain", topic, "-f", "json").out)["blocks"]
    code = {line for block in blocks if block["kind"] == "code" for line in block["text"].split("\n")}
    out = vggscope("explain", topic).out
    assert max(len(line) for line in out.split("\n") if line not in code) <= width
    assert "…" not in out or width < 80


@pytest.mark.parametrize("topic", TOPICS)
def test_a_topic_in_every_format(vggscope, topic: str) -> None:
    tutorial = json.loads(vggscope("explain", topic, "-f", "json").out)
    assert list(tutorial) == ["schema", "topic", "title", "data", "blocks", "torch"]
    assert tutorial["topic"] == topic
    assert tutorial["torch"] is None
    assert {block["kind"] for block in tutorial["blocks"]} <= {"text", "figures", "grid", "sums", "listing", "code"}
    assert vggscope("explain", topic, "-f", "markdown").out.startswith("## ")
    rows = list(csv.reader(io.StringIO(vggscope("explain", topic, "-f", "csv").out)))
    assert len(rows) > 3
    assert len(set(rows[0])) == len(rows[0])


@pytest.mark.parametrize("words", [*((topic,) for topic in TOPICS), ("D", "conv3_2"), ("D", "conv1_1")])
def test_pictures(vggscope, tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = vggscope("explain", *words, "-o", str(tmp_path / "x.svg"))
    assert (ran.code, ran.out) == (0, "")
    assert ElementTree.parse(tmp_path / "x.svg").getroot().tag.endswith("svg")
    for theme in ("dark", "paper"):
        drawn = picture(api.explain(*words), theme).picture
        texts = [shape for shape in drawn.shapes() if isinstance(shape, Text)]
        assert_apart([(text.bounds, text.text) for text in texts])
        assert not any("…" in text.text for text in texts)
        for shape in drawn.shapes():
            left, top, right, bottom = getattr(shape, "bounds", (0, 0, 0, 0))
            assert -0.5 <= left <= right <= drawn.width + 0.5
            assert -0.5 <= top <= bottom <= drawn.height + 0.5


def test_every_topic_has_a_picture() -> None:
    assert set(PICTURES) == {*TOPICS, "layer"}


def test_bars_are_as_long_as_their_numbers() -> None:
    data = explain("flops").data
    drawn = picture(explain("flops")).picture
    bars = [shape.width for shape in drawn.shapes() if isinstance(shape, Rectangle)]
    assert [width / max(bars) for width in bars] == pytest.approx([layer.macs / 1849688064 for layer in data.layers])


@pytest.mark.parametrize("topic", MOVING)
def test_a_moving_picture_shows_each_position_once(topic: str, tmp_path: Path) -> None:
    tutorial = explain(topic, size=4)
    steps = MOVING[topic](tutorial.title, tutorial.data, theme_named("light"))
    side = tutorial.data.side
    assert len(steps) == side**2
    assert len({(step.width, step.height) for step in steps}) == 1
    numbers = [[shape.text for shape in step.shapes() if isinstance(shape, Text)] for step in steps]
    whole = tutorial.data.output if topic == "conv" else tutorial.data.maximum
    for place, texts in enumerate(numbers):
        results = [number_text(value) for row in whole for value in row][: place + 1]
        assert all(texts.count(text) >= results.count(text) for text in results)
    assert len(numbers[-1]) > len(numbers[0])
    drawn = picture(tutorial, animate=True)
    root = ElementTree.fromstring(drawn.render())
    groups = [group for group in root if group.tag.endswith("}g")]
    assert [group.get("class") for group in groups] == [f"p p{place}" for place in range(1, side**2 + 1)]
    style = next(element.text or "" for element in root if element.tag.endswith("style"))
    before, condition, moving = style.partition("@media (prefers-reduced-motion:no-preference){")
    assert condition
    assert before == f".p{{visibility:hidden}}.p{side**2}{{visibility:visible}}"
    assert moving.count("@keyframes") == side**2
    assert style.count("{") == style.count("}")
    assert b"keyframes" not in picture(tutorial).render()
    assert drawn.render("gif", 40) == picture(tutorial).render("gif", 40)
    with Image.open(io.BytesIO(drawn.render("gif", 40))) as gif:
        assert gif.n_frames == side**2
        assert gif.info["loop"] == 0


def test_the_conv_picture_shows_its_numbers(vggscope, tmp_path: Path) -> None:
    vggscope("explain", "conv", "-o", str(tmp_path / "x.svg"))
    texts = [element.text for element in ElementTree.parse(tmp_path / "x.svg").iter() if element.tag.endswith("text")]
    assert texts.count("308") == 3
    assert any(text and text.startswith("y[0,0] = ") and text.endswith("= 308") for text in texts)


def test_topics_load_neither_torch_nor_numpy(tmp_path: Path) -> None:
    runs = [["explain", topic] for topic in TOPICS] + [["explain", "D", "conv3_2"], ["compare", "A", "E", "--paper"]]
    runs += [["explain", topic, "-o", str(tmp_path / "x.svg")] for topic in TOPICS]
    code = (
        f"import sys; from vggscope.cli.app import run; codes = [run(w) for w in {runs!r}]; print(codes, *sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    last = done.stdout.rstrip("\n").split("\n")[-1]
    assert last.startswith(str([0] * len(runs)))
    assert not {word.partition(".")[0] for word in last.split()} & {
        "torch",
        "torchvision",
        "numpy",
        "matplotlib",
        "PIL",
    }


def test_options_that_a_topic_does_not_take_are_refused() -> None:
    with pytest.raises(OptionError, match="takes no padding"):
        explain("depth", padding=1)
    with pytest.raises(VggscopeError, match="did you mean dense"):
        explain("dens")


@pytest.mark.parametrize("word", ["D", "torchvision:vit_b_16", "torchvision:mobilenet_v2"])
def test_the_products_of_flops_and_parameters_give_the_figures(word: str) -> None:
    """Each layer's product is its MACs; the terms of the parameters add up to the total."""
    network = resolve(word)
    flops = explain("flops", network=network).data
    assert all(eval(layer.product.replace("x", "*")) == layer.macs for layer in flops.layers)
    params = explain("parameters", network=network).data
    assert all(eval(layer.terms.replace("x", "*")) == layer.params for layer in params.layers)
    if word == "D":
        assert sum(layer.macs for layer in flops.layers) == flops.macs == 15470264320
        assert sum(layer.params for layer in params.layers) == params.params == 138357544


def test_the_factor_of_init_is_what_torch_measures() -> None:
    """The mean square after a ReLU and a linear layer with weights of std 0.01, drawn from a seed."""
    from vggscope.tutorials.init import factor

    torch.manual_seed(0)
    x = torch.randn(256, 4096)
    y = torch.relu(x) @ (0.01 * torch.randn(4096, 1024))
    assert y.square().mean() / x.square().mean() == pytest.approx(factor(4096, 0.01), rel=0.05)


def test_the_memory_lesson_has_the_parts_of_the_command() -> None:
    import vggscope as package

    for step in explain("memory").data.steps:
        report = package.memory("D", batch=step.batch, mode=step.mode)
        assert (step.peak_bytes, step.activations_bytes) == (report.peak_bytes, report.activations_bytes)


def test_the_windows_of_padding_are_those_of_a_convolution_with_ones() -> None:
    data = explain("padding").data
    for padding, counts in ((1, data.windows_padded), (0, data.windows_unpadded)):
        x = torch.zeros(1, 1, 5, 5, requires_grad=True)
        functional.conv2d(x, torch.ones(1, 1, 3, 3), padding=padding).sum().backward()
        assert x.grad is not None
        assert x.grad[0, 0].tolist() == [list(row) for row in counts]
