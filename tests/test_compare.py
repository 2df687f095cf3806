"""Models side by side: each figure by hand, by torch or as other commands give it."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
import torchvision

from vggscope.analysis.compare import compare, depth
from vggscope.analysis.memory.simulate import inference_peak, training_peak
from vggscope.dtypes import converted
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
    assert [bad[key] for key in ("params", "macs", "training_peak_bytes", "output_shape", "depth")] == [None] * 5
    assert any("it fails here" in warning for warning in bad["warnings"])


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


BAD = [
    ((), "no model to compare", "--paper"),
    (("Q7",), "unknown model 'Q7'", "a model is"),
    (("A", "--batch", "0"), "a batch of 0", "--batch"),
    (("A", "-o", "x.jpg"), "no format ends in '.jpg'", ".svg"),
    (("A", "--theme", "pink"), "unknown theme", "light"),
    (("A", "--format", "xml"), "unknown format", "json"),
    (("A",) * 41 + ("-o", "x.svg"), "too many to plot", "40"),
]


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
