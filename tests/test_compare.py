"""Models side by side: each figure by hand, by torch or as other commands give it."""

from __future__ import annotations

import csv
import fnmatch
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from torch import nn

import vggscope as api
from vggscope.analysis.compare import SORTS, Uncompared, compare, comparison, depth
from vggscope.analysis.fleet import Fleet
from vggscope.analysis.memory.simulate import inference_peak, training_peak
from vggscope.dtypes import converted
from vggscope.errors import ModelError, OptionError
from vggscope.render.compare import column_keys
from vggscope.render.compare_plot import PANELS, USUAL
from vggscope.sources.library_names import matching
from vggscope.sources.resolve import resolve

EXACT = {
    "A": (11, 132863336, 7609090048),
    "B": (13, 133047848, 11308466176),
    "C": (16, 133638952, 11770888192),
    "D": (16, 138357544, 15470264320),
    "E": (19, 143667240, 19632062464),
}
"""Depth, parameters and MACs at 3x224x224."""

NAMED_BY_DEPTH = {"vgg11": 11, "vgg19_bn": 19, "resnet18": 18, "resnet34": 34, "resnet50": 50, "densenet121": 121}


def models(vggscope, *words: str) -> list[dict]:
    ran = vggscope("compare", *words, "-f", "json")
    assert ran.code == 0
    found = json.loads(ran.out)
    assert found["schema"] == "vggscope/compare@1"
    return found["models"]


def test_the_columns(vggscope) -> None:
    found = {row["model"]: row for row in models(vggscope, *EXACT)}
    for name, (layers, params, macs) in EXACT.items():
        row = found[name]
        assert (row["depth"], row["weight_layers"], row["params"]) == (layers, layers, params)
        assert (row["macs"], row["flops"]) == (macs, 2 * macs)
        assert row["output_shape"] == [1, 1000]
    assert found["D"]["last_convolution"]["label"] == "conv5_3"
    assert found["D"]["last_convolution"]["receptive_field"]["size"] == [196, 196]


@pytest.mark.parametrize(("name", "layers"), NAMED_BY_DEPTH.items())
def test_depth_is_the_number_in_a_models_name(name: str, layers: int) -> None:
    assert depth(resolve(f"torchvision:{name}")) == layers


def test_weight_layers_are_torchs_modules(vggscope) -> None:
    (row,) = models(vggscope, "torchvision:resnet18")
    module = torchvision.models.resnet18(weights=None)
    kinds = [type(part).__name__ for part in module.modules()]
    assert row["weight_layers"] == kinds.count("Conv2d") + kinds.count("Linear") == 21
    assert row["params"] == sum(parameter.numel() for parameter in module.parameters())
    assert row["depth"] == 18


def test_memory_grows_with_the_batch_as_elsewhere(vggscope) -> None:
    (row,) = models(vggscope, "A", "--batch", "8", "--dtype", "float16")
    assert row["input_shape"] == [8, 3, 224, 224]
    assert row["output_shape"] == [8, 1000]
    assert row["inference_peak_bytes"] == inference_peak(converted(resolve("A"), "float16"), 8)
    assert row["training_peak_bytes"] == training_peak(converted(resolve("A"), "float16"), 8)
    summary = json.loads(vggscope("summary", "A", "--batch", "8", "--dtype", "float16", "-f", "json").out)
    assert row["activation_bytes"] == summary["totals"]["activation_bytes"]


def test_fc_layers_written_as_convolutions_are_not_the_last_convolution(vggscope) -> None:
    (dense,) = models(vggscope, "D", "--head", "dense")
    assert dense["last_convolution"]["label"] == "conv5_3"
    assert dense["depth"] == 16


def test_without_convolutions_there_is_no_field(vggscope, tmp_path: Path) -> None:
    path = tmp_path / "columns.toml"
    path.write_text('[columns]\nflat = "FC-10 FC-2"\n')
    (row,) = models(vggscope, f"{path}:flat")
    assert (row["last_convolution"], row["depth"]) == (None, 2)
    assert "?" in vggscope("compare", f"{path}:flat").out


FIELDS = {
    # 3x3 windows of strides 2, 1, 1 and 2, 2, 1, ... : 1 + the sum of (kernel - 1) x the stride before it, by hand.
    "timm:resnet14t": ("layer4.0.add", 79),
    "timm:resnet10t": ("layer4.0.add", 199),
    "timm:resnetv2_50": ("stages.3.blocks.2.conv3", 427),
    "torchvision:resnet18": ("layer4.1.conv2", 435),
    "D": ("features.28", 196),
}
"""The layer with the largest field on the last map, and its side. 435 is Araujo et al.'s (Distill 2019, ResNet-18)."""


@pytest.mark.parametrize(("word", "layer", "side"), [(word, *field) for word, field in FIELDS.items()])
def test_the_field_is_the_largest_on_the_last_map(word: str, layer: str, side: int) -> None:
    (row,) = api.compare(word).models
    assert row.last_map is not None
    assert (row.last_map.name, row.field_size, row.sees_all) == (layer, (side, side), False)
    assert row.last_map == api.receptive_fields(word)[layer]


def farthest_gradient(net: nn.Module, layer: str, side: int) -> int:
    """The side of the square around the pixels that the middle unit of a layer depends on, by autograd."""
    found: list[torch.Tensor] = []
    net.get_submodule(layer).register_forward_hook(lambda module, given, output: found.append(output))
    image = torch.rand(1, 3, side, side, requires_grad=True)
    net.eval()(image)
    height, width = found[0].shape[2:]
    found[0][0, :, height // 2, width // 2].sum().backward()
    assert image.grad is not None
    rows = image.grad[0].abs().sum((0, 2)).nonzero()
    return int(rows.max() - rows.min()) + 1


def test_the_field_is_what_gradients_reach() -> None:
    """ResNet-14-T's last activation reads the sum of its last block; its shortcut sees 63 pixels."""
    net = timm.create_model("resnet14t", act_layer=nn.Identity, zero_init_last=False)
    net.maxpool = nn.AvgPool2d(3, 2, 1)  # the gradient of a maximum goes to one pixel of its window
    assert farthest_gradient(net, "layer4.0", 255) == FIELDS["timm:resnet14t"][1]


SQUEEZE = """
from torch import nn


class Squeeze(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.gate = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 2)

    def forward(self, x):
        x = self.conv(x)
        x = x * self.gate(self.pool(x)).sigmoid()
        return self.head(self.pool(x).flatten(1))


class Pooled(Squeeze):
    def forward(self, x):
        return self.head(self.gate(self.pool(self.conv(x))).flatten(1))


class Sorted(Squeeze):
    def forward(self, x):
        return self.head(self.pool(self.gate(self.conv(x).sort(2).values)).flatten(1))
"""


def test_a_field_of_the_whole_image_is_said_and_comes_first(vggscope, tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    path.write_text(SQUEEZE)
    words = ("E", f"{path}:Squeeze", f"{path}:Pooled", "timm:vit_tiny_patch16_224", "FC-10 FC-2")
    ran = vggscope("compare", *words, "--columns", "field,model", "--sort", "field", "-f", "csv")
    assert [line.partition(",")[0] for line in ran.out.splitlines()] == [
        *("receptive_field", "whole image", "whole image", "252x252", "3x3", ""),
    ]
    squeezed = {row["model"]: row["last_map"] for row in models(vggscope, *words)}
    assert (squeezed[words[1]]["name"], squeezed[words[1]]["whole"]) == ("mul", True)
    assert (squeezed[words[2]]["name"], squeezed[words[2]]["size"]) == ("conv", [3, 3])
    assert squeezed["FC-10 FC-2"] is None


def test_a_field_that_is_unknown_has_a_reason(vggscope, tmp_path: Path) -> None:
    path = tmp_path / "nets.py"
    path.write_text(SQUEEZE)
    out = " ".join(vggscope("compare", "FC-10 FC-2", f"{path}:Sorted", "--columns", "field").out.split())
    assert "note: FC-10 FC-2: field unknown: no layer with weights has a map" in out
    assert f"{path}:Sorted: field unknown: no rule tells what sort" in out.replace(" :", ":")
    assert "unknown" not in vggscope("compare", "FC-10 FC-2", f"{path}:Sorted", "--columns", "params").out
    deeplab = api.compare("torchvision:deeplabv3_resnet50").models[0]
    assert (deeplab.field_size, deeplab.sees_all) == ((1227, 1227), True)


def test_a_failing_model_has_no_figures(vggscope, tmp_path: Path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\n"
        "class Net(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(7, 2))\n"
    )
    ran = vggscope("compare", "A", f"{path}:Net", "-f", "json")
    assert ran.code == 2
    good, bad = json.loads(ran.out)["models"]
    assert good["params"] == EXACT["A"][1]
    unknown = ("macs", "training_peak_bytes", "output_shape", "depth", "weight_layers", "last_map")
    assert [bad[key] for key in unknown] == [None] * 6
    layers = (nn.Conv2d(3, 8, 3), nn.Linear(7, 2))
    assert bad["params"] == sum(p.numel() for layer in layers for p in layer.parameters()) == 240
    assert any("it fails here" in warning for warning in bad["warnings"])
    assert ran.err.startswith(f"vggscope: {path}:Net: 2 (Linear): 7 features are expected")
    ran = vggscope("compare", "A", f"{path}:Net", "--columns", "params")
    assert ran.err.startswith(f"vggscope: {path}:Net: the forward pass fails in 2 (Linear), as noted\n")


def test_the_papers_tables(vggscope) -> None:
    found = json.loads(vggscope("compare", "--paper", "-f", "json").out)
    assert [row["model"] for row in found["models"]] == ["A", "A-LRN", "B", "C", "D", "E"]
    paper = {row["column"]: row for row in found["paper"]}
    assert {name: row["paper_params_millions"] for name, row in paper.items()} == {
        **{"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144},
    }
    assert {name: row["paper_weight_layers"] for name, row in paper.items()} == {
        **{"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19},
    }
    assert all(row["agrees"] and row["weight_layers"] == row["paper_weight_layers"] for row in paper.values())
    assert all(paper[name]["params"] == EXACT[name][1] for name in EXACT)
    out = vggscope("compare", "--paper", "D").out
    assert out.count("soft-max") == 6
    assert "138 M      138,357,544" in out


def test_csv_has_raw_numbers(vggscope) -> None:
    rows = list(csv.DictReader(io.StringIO(vggscope("compare", "D", "E", "-f", "csv").out)))
    assert [(row["model"], int(row["params"]), row["receptive_field"]) for row in rows] == [
        ("D", 138357544, "196x196"),
        ("E", 143667240, "252x252"),
    ]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_table_fits(vggscope, monkeypatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    out = vggscope("compare", "A", "D", "E", "torchvision:resnet18").out
    assert max(map(len, out.split("\n"))) <= width
    assert "torchvision:resnet18" in out
    assert ("weight layers" in out.split("\n")[2]) == (width == 120)


@pytest.mark.parametrize("form", ["svg", "png", "pdf"])
def test_plots(vggscope, tmp_path: Path, form: str) -> None:
    one, two = tmp_path / f"one.{form}", tmp_path / f"two.{form}"
    for path in (one, two):
        ran = vggscope("compare", "A", "D", "-o", str(path))
        assert (ran.code, ran.out) == (0, "")
    data = one.read_bytes()
    assert data.startswith({"svg": b"<?xml", "png": b"\x89PNG", "pdf": b"%PDF"}[form])
    assert data == two.read_bytes()


def test_a_plot_marks_unknown_figures(tmp_path: Path) -> None:
    from vggscope.render.compare_plot import plot

    network = resolve("FC-10 FC-2")
    assert plot(compare([network]), "dark").render("png").startswith(b"\x89PNG")


def titles_of(figure: str) -> list[str]:
    """The titles of the panels in an SVG, in order."""
    known = [panel.title for panel in PANELS]
    return [text for text in re.findall(r">([^<>]+)</text>", figure) if text in known]


def test_a_plot_has_panels_of_the_named_columns(vggscope, tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    assert vggscope("compare", "A", "D", "-o", str(path)).code == 0
    assert titles_of(path.read_text()) == [panel.title for panel in PANELS[:USUAL]]
    for columns in ("depth", "activations,model,MACs", "weight_layers,field,inference,training"):
        assert vggscope("compare", "A", "D", "--columns", columns, "-o", str(path)).code == 0
        titles = titles_of(path.read_text())
        assert len(titles) == len(columns.replace("model,", "").split(","))
        assert titles == [
            panel.title for key in column_keys(columns.split(",")) for panel in PANELS if panel.column == key
        ]


def test_every_column_with_numbers_has_a_panel() -> None:
    assert {panel.column for panel in PANELS} == {*SORTS} - {"model"}


def test_a_plot_says_how_models_were_chosen(vggscope, tmp_path: Path) -> None:
    path = tmp_path / "x.svg"
    words = ("compare", *EXACT, "--sort", "macs", "--top", "2", "-o", str(path))
    assert vggscope(*words).code == 0
    assert ">2 of 5 models, sorted by MACs, descending: input 3×224×224, batch 1, float32<" in path.read_text()
    assert vggscope(*words, "--chart", "bubbles").code == 0
    assert ">2 of 5 models by MACs, parameters, memory and depth<" in path.read_text()
    assert ">input 3×224×224, batch 1, float32, sorted by MACs, descending<" in path.read_text()


@pytest.mark.parametrize(
    ("chart", "told"),
    [
        ("bars", ">forward pass fails: b; figure unknown (?): FC-10 FC-2; cannot be built: c<"),
        ("bubbles", "; not drawn, as a figure is unknown: b; cannot be built: c<"),
    ],
)
def test_a_plot_names_the_models_without_figures(chart: str, told: str) -> None:
    from vggscope.render.compare_plot import plot

    rows = compare([resolve("A"), resolve("FC-10 FC-2")]).models
    failing = replace(rows[0], model="b", failure="it fails", macs=None, inference_peak_bytes=None)
    found = comparison([*rows, failing, Uncompared("c", "no file", "")])
    assert told in plot(found, chart=chart).render("svg").decode()


BAD = [
    ((), "no model to compare", "--paper"),
    (("Q7",), "unknown model 'Q7'", "a model is"),
    (("A", "--batch", "0"), "a batch of 0", "--batch"),
    (("A", "-o", "x.jpg"), "no format ends in '.jpg'", ".svg"),
    (("A", "--theme", "pink"), "unknown theme", "light"),
    (("A", "--format", "xml"), "unknown format", "html, jsonl"),
    (("A", "-o", "x.xml"), "no format ends in '.xml'", ".pdf, .jsonl"),
    (("A", "--columns", "output,input", "-o", "x.svg"), "a plot has no panel for output_shape, input_shape", "params"),
    (("A", "--columns", "params", "--chart", "bubbles", "-o", "x.svg"), "bubbles has no columns", "--columns"),
    (("A",) * 41 + ("-o", "x.svg"), "too many to plot", "40"),
]


def test_models_that_are_too_many_to_plot_are_not_computed(vggscope, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(Fleet, "__next__", lambda fleet: pytest.fail("a model is computed"))
    ran = vggscope("compare", "torchvision:*", "-o", str(tmp_path / "x.png"))
    assert (ran.code, "too many to plot" in ran.err) == (2, True)


@pytest.mark.parametrize(
    ("words", "problem", "remedy"), BAD, ids=lambda v: " ".join(v[:4]) if isinstance(v, tuple) else ""
)
def test_invalid_arguments_are_errors(vggscope, tmp_path, monkeypatch, words, problem, remedy) -> None:
    monkeypatch.chdir(tmp_path)
    ran = vggscope("compare", *words)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.rstrip("\n").split("\n")
    assert problem in lines[0]
    assert remedy in lines[-1]
    assert list(tmp_path.iterdir()) == []


# Patterns.


@pytest.mark.parametrize("pattern", ["vgg1*", "*res?e*t1*", "resnet[15]0*", "*"])
@pytest.mark.parametrize(
    ("library", "listed"), [("timm", timm.list_models), ("torchvision", torchvision.models.list_models)]
)
def test_a_pattern_names_the_models_that_the_library_lists(library: str, listed, pattern: str) -> None:
    found = matching(f"{library}:{pattern}")
    assert found is not None
    assert sorted(found) == sorted(f"{library}:{name}" for name in fnmatch.filter(listed(), pattern))


def test_models_are_in_the_order_named_and_patterns_in_natural_order() -> None:
    words = ("E", "torchvision:resnet34", "torchvision:resnet[135]*", "A", "A")
    fleet = api.fleet(*words)
    resnets = [f"torchvision:resnet{number}" for number in (34, 18, 50, 101, 152)]
    assert fleet.names == ("E", *resnets, "A", "A")


def test_a_pattern_gives_the_rows_of_its_models() -> None:
    names = [f"torchvision:vgg{number}" for number in (11, 13, 16, 19)]
    pattern = api.compare("torchvision:vgg1[1369]")
    assert pattern == api.compare(*names)
    assert [model.params for model in pattern.models] == [EXACT[name][1] for name in ("A", "B", "D", "E")]


NOTHING = [
    ("torchvision:resnt*", "torchvision:resnet101"),
    ("torchvision:VGG*", "torchvision:vgg11"),
    ("timm:*vgg9*", "timm:vgg"),
    ("timm:[]*", "timm:vgg*"),
    ("torchvision:*\x1b[31m*", "vggscope list --refs"),
]


@pytest.mark.parametrize(("pattern", "near"), NOTHING)
def test_a_pattern_that_matches_nothing_suggests_near_names(pattern: str, near: str, vggscope) -> None:
    ran = vggscope("compare", "A", pattern)
    assert (ran.code, ran.out) == (2, "")
    problem, remedy = ran.err.splitlines()
    assert "matches" in problem
    assert near in remedy
    assert "\x1b" not in ran.err


def test_a_pattern_of_a_library_that_is_not_installed(monkeypatch) -> None:
    monkeypatch.setattr("vggscope.sources.library_names.names_in", lambda library, **_: ())
    with pytest.raises(api.MissingTool, match="timm is not installed"):
        api.compare("timm:*")


# Sorting and choosing.


def test_models_are_sorted_by_each_figure() -> None:
    everything = api.compare("E", "FC-10 FC-2", "A", "C", "A")
    for key in ("params", "macs", "activation_bytes", "inference_peak_bytes", "training_peak_bytes", "depth"):
        found = api.compare("E", "FC-10 FC-2", "A", "C", "A", sort=key)  # type: ignore[arg-type]
        assert found.models == tuple(sorted(everything.models, key=lambda model: -getattr(model, key)))
        assert (found.sort, found.order, found.left_out) == (key, "descending", 0)


def test_unknown_figures_come_last_in_both_orders() -> None:
    for order, expected in {"ascending": ["A", "E"], "descending": ["E", "A"]}.items():
        found = api.compare("FC-10 FC-2", "E", "A", sort="receptive_field", order=order)  # type: ignore[arg-type]
        assert [model.model for model in found.models] == [*expected, "FC-10 FC-2"]


def test_names_are_sorted_by_the_value_of_their_numbers() -> None:
    found = api.compare("torchvision:vgg1[13]", "torchvision:resnet1[08]*", "A", sort="model")
    names = ["A", "torchvision:resnet18", "torchvision:resnet101", "torchvision:vgg11", "torchvision:vgg13"]
    assert [model.model for model in found.models] == names


def test_the_first_of_an_order(vggscope) -> None:
    ran = vggscope("compare", *EXACT, "--sort", "macs", "--top", "2", "--columns", "model,MACs")
    assert ran.code == 0
    title, _, heading, _, first, second, *legend = ran.out.splitlines()
    assert title.startswith("2 of 5 models")
    assert heading.split() == ["model", "MACs"]
    assert [first.split()[0], second.split()[0]] == ["E", "D"]
    assert not any("receptive" in text or "KiB" in text for text in legend)
    assert "sorted  by MACs, descending" in ran.out
    found = json.loads(vggscope("compare", *EXACT, "--sort", "macs", "--top", "2", "-f", "json").out)
    assert [found[name] for name in ("sort", "order", "left_out")] == ["macs", "descending", 3]
    out = vggscope(
        "compare", *EXACT, "--sort", "MACs", "--order", "ascending", "--columns", "params,model", "-f", "csv"
    ).out
    assert out.splitlines() == ["params,model", *(f"{EXACT[name][1]},{name}" for name in ("A", "B", "C", "D", "E"))]


# Failures.

FACTORIES = r"""
import os
import sys
import time

from torch import nn


def good(width=8):
    return nn.Sequential(nn.Conv2d(3, width, 3))


def raises():
    raise ValueError("no \x1b[31mdata\nhere")


def dies():
    os._exit(3)


def reads():
    sys.stdin.read()
    print("on stdout")
    return good()


def waits(path):
    with open(path, "w") as file:
        file.write(str(os.getpid()))
    # A single long sleep is not interrupted by a signal that arrives just before it begins.
    while True:
        time.sleep(0.01)
"""


@pytest.fixture
def factories(tmp_path: Path) -> str:
    path = tmp_path / "nets.py"
    path.write_text(FACTORIES, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_model_that_cannot_be_built_does_not_stop_the_rest(jobs: str, factories: str, vggscope) -> None:
    words = ("A", f"{factories}:raises", f"{factories}:good", "timm:vgg99", f"{factories}:good(16)")
    ran = vggscope("compare", *words, "--jobs", jobs, "--columns", "params")
    assert ran.code == 2
    assert [line.split()[0] for line in ran.out.splitlines()[4:7]] == ["132.86", "224", "448"]
    assert "raises: " in ran.out
    assert "no model 'vgg99' (near it: vgg" in " ".join(ran.out.split())
    assert "\x1b" not in ran.out
    assert ran.err == "vggscope: 2 models cannot be compared, as noted\n"
    ran = vggscope("compare", *words, "--jobs", jobs, "-f", "json")
    found = json.loads(ran.out)
    assert [model["params"] for model in found["models"]] == [EXACT["A"][1], 224, 448]
    first, second = found["failures"]
    assert (first["model"], second["model"]) == (words[1], words[3])
    assert "no \x1b[31mdata" in first["failure"] or "no \\x1b[31mdata" in first["failure"]
    assert first["failure"].count("\n") == 0
    assert second["remedy"].startswith("near it: vgg")
    assert [line.partition(": ")[0] for line in ran.err.splitlines()] == ["vggscope", words[1], words[3]]


def test_only_failures(factories: str, vggscope, tmp_path: Path) -> None:
    """A single model's error is the command's; of several, each is told."""
    with pytest.raises(ModelError, match="no model 'vgg99'"):
        api.compare("timm:vgg99")
    found = api.compare("timm:vgg99", f"{factories}:raises")
    assert (found.models, len(found.failures)) == ((), 2)
    assert str(found).startswith("none of 2 models can be compared\n\nfailed: timm:vgg99: ")
    assert vggscope("compare", "timm:vgg99", f"{factories}:raises", "-o", str(tmp_path / "x.svg")).code == 2


def test_a_word_that_names_no_model_is_an_error_before_anything_is_computed(factories: str, vggscope) -> None:
    ran = vggscope("compare", f"{factories}:waits('/nowhere')", "Q7")
    assert (ran.code, ran.out) == (2, "")
    assert "unknown model 'Q7'" in ran.err


# Several processes.


@pytest.mark.slow
def test_processes_give_what_one_gives(factories: str) -> None:
    words = ("A", *(f"{factories}:good({width})" for width in range(1, 5)), "torchvision:alexnet")
    first, second, third = api.compare(*words, jobs=3), api.compare(*words), api.compare(*words, cache=False)
    assert first.to_json() == second.to_json() == third.to_json()


@pytest.mark.slow
def test_code_in_a_process_may_read_and_print(factories: str) -> None:
    found = api.compare(f"{factories}:reads", f"{factories}:good", jobs=2)
    assert [model.params for model in found.models] == [224, 224]


@pytest.mark.slow
def test_a_process_that_dies_is_a_failure_and_another_takes_its_place(factories: str) -> None:
    words = [f"{factories}:{name}" for name in ("dies", "good", "dies", "good(2)", "good(3)")]
    found = api.compare(*words, jobs=2)
    assert [model.params for model in found.models] == [224, 56, 84]
    assert {failure.failure for failure in found.failures} == {"the process ended with exit code 3"}


def test_few_models_take_one_process() -> None:
    from vggscope.vgg.options import BuildOptions

    named = [f"torchvision:vgg{number}" for number in (11, 13, 16, 19)] * 3
    assert api.api._run_apart(named[:4], BuildOptions(), None) == []
    assert api.api._run_apart(["A", *named], BuildOptions(), 1) == []
    assert api.api._run_apart(["A", *named], BuildOptions(), 64) == list(range(1, 13))
    assert 1 <= api.api._processes(12, None) <= 3
    assert [api.api._processes(count, 64) for count in (0, 1, 12, 100)] == [1, 1, 12, 64]


@pytest.mark.slow
def test_modules_stay_in_this_process() -> None:
    net = torchvision.models.alexnet()
    found = api.compare(net, "torchvision:alexnet", "torchvision:alexnet", jobs=2)
    assert [model.params for model in found.models] == [sum(p.numel() for p in net.parameters())] * 3


def test_modules_of_one_class_have_names_of_their_own() -> None:
    small, large = torchvision.models.resnet18(), torchvision.models.resnet34()
    found = api.compare(small, large, "A", large, api.network("A"), sort="params", order="ascending")
    params = [sum(p.numel() for p in net.parameters()) for net in (small, large)]
    names = {
        "ResNet": params[0],
        "ResNet 2": params[1],
        "ResNet 3": params[1],
        "A": EXACT["A"][1],
        "A 2": EXACT["A"][1],
    }
    assert [model.model for model in found] == list(names)
    assert {name: found[name].params for name in names} == names
    (largest,) = api.compare(small, large, sort="params", top=1)
    assert largest.model == "ResNet 2"
    assert api.fleet(small, large).names == ("ResNet", "ResNet 2")


def test_a_module_that_fails_has_the_name_of_its_row() -> None:
    halfway = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Linear(5, 2))
    found = api.compare(
        nn.Sequential(nn.Conv2d(3, 4, 3)), halfway, nn.Sequential(nn.Linear(5, 2)), input_size=(3, 8, 8)
    )
    assert [(model.model, model.failure is None) for model in found] == [("Sequential", True), ("Sequential 2", False)]
    assert [failure.model for failure in found.failures] == ["Sequential 3"]


# Lines.


@pytest.mark.parametrize("jobs", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_line_for_each_model(jobs: str, factories: str, vggscope, tmp_path: Path) -> None:
    words = ("A", f"{factories}:good", f"{factories}:raises", "D")
    path = tmp_path / "x.jsonl"
    printed = vggscope("compare", *words, "--jobs", jobs, "-f", "jsonl", "--columns", "params")
    written = vggscope("compare", *words, "--jobs", jobs, "-o", str(path))
    assert (printed.code, written.code, written.out) == (2, 2, "")
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert sorted(path.read_text().splitlines()) == sorted(printed.out.splitlines())
    assert {row["schema"] for row in rows} == {"vggscope/compared@1"}
    by_name = {row["model"]: row for row in rows}
    models = json.loads(vggscope("compare", *words, "-f", "json").out)["models"]
    for model in models:
        assert by_name.pop(model["model"]) == {"schema": "vggscope/compared@1", "batch": 1, **model}
    (failed,) = by_name.values()
    assert (failed["model"], set(failed)) == (words[2], {"schema", "batch", "model", "failure", "remedy"})


BAD_MANY = [
    (("A", "--sort", "mac"), "did you mean macs?", "--sort is one of model, params, macs, activations, inference, tr"),
    (("A", "--sort", "mac"), "did you mean macs?", "training, depth, weight_layers, field"),
    (("A", "--sort", "mcas"), "unknown figure to sort by 'mcas', did you mean macs?", "params"),
    (("A", "--top", "3"), "--top without --sort", "--sort macs"),
    (("A", "--sort", "macs", "--order", "down"), "unknown order", "ascending"),
    (("A", "--sort", "macs", "--top", "0"), "first 0 models", "--top"),
    (("A", "--jobs", "0"), "0 processes", "--jobs"),
    (("A", "--columns", "parms"), "no column is named 'parms', did you mean params?", "macs"),
    (("A", "--columns", ","), "names no column", "--columns"),
    (("A", "-f", "jsonl", "--sort", "macs"), "--sort with lines", "leave out"),
    (("A", "--grid", "--top", "1"), "--top with --grid", "leave out"),
]


@pytest.mark.parametrize(
    ("words", "problem", "remedy"), BAD_MANY, ids=lambda v: " ".join(v) if isinstance(v, tuple) else ""
)
def test_options_of_many_models_that_make_no_sense(vggscope, words, problem: str, remedy: str) -> None:
    ran = vggscope("compare", *words)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.rstrip("\n").split("\n")
    assert problem in lines[0]
    assert remedy in lines[-1]


def test_the_same_errors_in_python() -> None:
    with pytest.raises(OptionError, match="top without sort"):
        api.compare("A", top=3)
    with pytest.raises(OptionError, match=r"jobs is 1 to 1000, a whole number"):
        api.compare("A", jobs=1.5)  # type: ignore[arg-type]


# Interruptions.

MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from vggscope.cli.app import main; main()"
)
"""The program. The children of a process in a shell's background ignore SIGINT."""


@contextmanager
def interrupted(number: int, folder: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """The program, which gets a signal as soon as a model writes its process id to a file of the folder."""
    command = [sys.executable, "-c", MAIN, "compare", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            while process.poll() is None and not any(path.stat().st_size for path in folder.glob("*.pid")):
                time.sleep(0.01)
            process.send_signal(number)
            yield process
        finally:
            process.kill()


def is_running(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("jobs", ["1", "2"])
def test_an_interruption_keeps_what_is_done_and_ends_the_processes(jobs: str, factories: str, tmp_path: Path) -> None:
    waits = [f"{factories}:waits('{tmp_path / name}.pid')" for name in "abc"]
    words = ("A", "E", f"{factories}:raises", *waits, "--jobs", jobs, "--sort", "params", "--columns", "model,params")
    with interrupted(signal.SIGINT, tmp_path, *words) as process:
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert [line.split()[0] for line in out.splitlines()[4:6]] == ["E", "A"]
    missing = re.search(r"interrupted: (\d) of 6 models are missing", " ".join(out.split()))
    assert missing is not None
    # With two processes, a model may be waiting in one while the other has not built `raises` yet.
    assert int(missing[1]) in ((3,) if jobs == "1" else (3, 4))
    assert f"vggscope: interrupted: {missing[1]} of 6 models are missing" in err
    assert "Traceback" not in err
    assert not any(is_running(int(path.read_text())) for path in tmp_path.glob("*.pid") if path.read_text())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize(
    ("number", "words", "code"),
    [("SIGTERM", ("A",), 143), ("SIGINT", (), 130)],
    ids=["terminated", "interrupted before anything is done"],
)
def test_other_interruptions_end_it_without_output(
    number: str, words, code: int, factories: str, tmp_path: Path
) -> None:
    waits = [f"{factories}:waits('{tmp_path / name}.pid')" for name in "ab"]
    with interrupted(getattr(signal, number), tmp_path, *words, *waits, "--jobs", "2") as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (code, "", "")
    assert not any(is_running(int(path.read_text())) for path in tmp_path.glob("*.pid") if path.read_text())


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interruption_keeps_the_lines_of_a_file(factories: str, tmp_path: Path) -> None:
    target, waits = tmp_path / "x.jsonl", f"{factories}:waits('{tmp_path / 'a'}.pid')"
    with interrupted(signal.SIGINT, tmp_path, "A", "E", waits, "--jobs", "1", "-o", str(target)) as process:
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"vggscope: {target} is partial; interrupted: 1 of 3 models are missing" in err
    assert [json.loads(line)["model"] for line in target.read_text().splitlines()] == ["A", "E"]


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("form", ["csv", "json", "svg"])
def test_an_interruption_says_that_a_file_is_partial(form: str, factories: str, tmp_path: Path) -> None:
    target, waits = tmp_path / f"x.{form}", f"{factories}:waits('{tmp_path / 'a'}.pid')"
    with interrupted(signal.SIGINT, tmp_path, "A", "E", waits, "--jobs", "1", "-o", str(target)) as process:
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err.splitlines()[-1].startswith(f"vggscope: {target} is partial; interrupted: 1 of 3 models are missing: ")
    assert target.stat().st_size > 0


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
def test_on_a_terminal_an_interruption_takes_the_bar_away_and_is_told_once(factories: str, tmp_path: Path) -> None:
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 60, 0, 0))
    waits = [f"{factories}:waits('{tmp_path / name}.pid')" for name in ("a" * 50, "b" * 50)]
    command = [sys.executable, "-c", MAIN, "compare", "A", "E", *waits, "--jobs", "2", "--columns", "params"]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs)
    os.close(theirs)
    while process.poll() is None and not any(path.stat().st_size for path in tmp_path.glob("*.pid")):
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    shown = b""
    with suppress(OSError):  # Linux: the other end is closed
        while text := os.read(ours, 65536):
            shown += text
    os.close(ours)
    assert process.wait(60) == 130
    bars, table = shown.decode().rsplit("\x1b[2K", 1)
    lines = [re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", part) for part in re.split(r"[\r\n]", bars)]
    assert max(map(len, lines)) <= 60 - len("^C^C")
    assert "comparing" not in table
    assert "2 models" in table
    assert " ".join(table.split()).count("interrupted: 2 of 4 models are missing") == 1


def test_in_python_an_interruption_is_pythons(factories: str, monkeypatch) -> None:
    """KeyboardInterrupt is raised, and the fleet has what is done."""
    fleet = api.fleet("A", "E", "D")
    next(fleet)

    def interrupt(task: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vggscope.api._compared_model", interrupt)
    with pytest.raises(KeyboardInterrupt):
        list(fleet)
    assert fleet.missing == ("E", "D")
    assert [model.model for model in fleet.comparison().models] == ["A"]
    assert "2 of 3 models are missing: E, D" in str(fleet.comparison())


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
def test_a_terminal_shows_progress_and_a_pipe_has_the_lines_alone() -> None:
    import pty

    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "vggscope", "compare", "A", "D", "E", "-f", "jsonl"]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=theirs, text=True, check=True, timeout=60)
    finally:
        os.close(theirs)
    shown = b""
    with suppress(OSError):  # Linux: the other end is closed
        while text := os.read(ours, 65536):
            shown += text
    os.close(ours)
    assert [json.loads(line)["model"] for line in done.stdout.splitlines()] == ["A", "D", "E"]
    assert b"comparing" in shown
    assert b"schema" not in shown
    quiet = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert (quiet.stdout, quiet.stderr) == (done.stdout, "")
