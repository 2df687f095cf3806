"""The command line as a user meets it: formats, messages, exit codes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import subprocess
import sys

import pytest

from tests.test_environments import write_checkpoint
from vggscope.render.summary import SHOWN


def test_summary_as_a_table(vggscope, golden) -> None:
    ran = vggscope("summary", "D")
    assert (ran.code, ran.err) == (0, "")
    golden("summary-D.txt", ran.out)
    golden("summary-D-stage.txt", vggscope("summary", "D", "--depth", "stage").out)
    golden("summary-A.md", vggscope("summary", "A", "--format", "markdown").out)


def test_summary_as_json(vggscope) -> None:
    found = json.loads(vggscope("summary", "D", "--format", "json", "--batch", "4").out)
    assert list(found) == [
        *(
            "schema",
            "model",
            "input_shape",
            "dtype",
            "layers",
            "totals",
            "memory",
            "warnings",
            "batch",
            "inputs",
            "outputs",
            "failure",
            "torch_count",
            "modules",
        ),
    ]
    assert found["inputs"] == [{"name": "input", "shape": [4, 3, 224, 224], "dtype": "float32"}]
    assert found["outputs"] == [{"name": "output", "shape": [4, 1000], "dtype": "float32"}]
    assert (found["schema"], found["model"], found["dtype"]) == ("vggscope/summary@1", "D", "float32")
    assert found["input_shape"] == [4, 3, 224, 224]
    first = found["layers"][0]
    assert first == {
        "name": "features.0",
        "label": "conv1_1",
        "op": "Conv2d",
        "input_shape": [4, 3, 224, 224],
        "output_shape": [4, 64, 224, 224],
        "kernel_size": [3, 3],
        "stride": [1, 1],
        "padding": [1, 1],
        "rule": "(224-3+2*1)/1+1 = 224",
        "params": 1792,
        "macs": 4 * 86704128,
        "flops": 4 * 2 * 86704128,
        "activation_bytes": 4 * 64 * 224 * 224 * 4,
        "receptive_field": {"size": [3, 3], "stride": [1, 1], "padding": [1, 1]},
        "dtype": "float32",
        "macs_from": "rule",
        "module": "features.0",
        "line": "",
    }
    totals = found["totals"]
    assert (totals["params"], totals["trainable_params"], totals["param_bytes"]) == (
        138357544,
        138357544,
        138357544 * 4,
    )
    assert (totals["macs"], totals["flops"], totals["other_params"]) == (4 * 15470264320, 8 * 15470264320, [])
    assert (totals["macs_known"], totals["flops_known"]) == (totals["macs"], totals["flops"])
    assert set(found["memory"]) == {"inference_peak_bytes", "training_peak_bytes"}
    relu = found["layers"][1]
    assert (relu["op"], relu["kernel_size"], relu["rule"], relu["activation_bytes"]) == ("ReLU", None, None, 0)


def test_summary_as_csv_adds_up(vggscope) -> None:
    rows = list(csv.DictReader(io.StringIO(vggscope("summary", "E", "--format", "csv").out)))
    assert list(rows[0]) == [key for key in SHOWN if key != "dtype"]
    assert sum(int(row["params"]) for row in rows) == 143667240
    assert sum(int(row["macs"]) for row in rows) == 19632062464


def test_columns_are_chosen_by_name_or_heading(vggscope) -> None:
    ran = vggscope("summary", "A", "--columns", "layer,rf,kernel,flops", "--format", "csv")
    assert ran.out.splitlines()[0] == "name,receptive_field,kernel_size,flops"
    bad = vggscope("summary", "A", "--columns", "layer,size")
    assert (bad.code, bad.out) == (2, "")
    assert "no column is named 'size'" in bad.err


@pytest.mark.parametrize("width", [40, 60, 80, 100, 120, 200])
def test_a_table_fits_the_terminal(vggscope, monkeypatch, width: int) -> None:
    """No line is wider than the terminal, none wraps, and every layer keeps its row."""
    monkeypatch.setenv("COLUMNS", str(width))
    out = vggscope("summary", "D").out
    lines = out.split("\n")
    assert max(map(len, lines)) <= width
    assert sum(line.startswith(("features.", "classifier.")) for line in lines) == 38
    assert ("columns that do not fit" in out) == (width < 117)
    assert "…" not in out


def test_a_title_that_is_too_long_is_wrapped(vggscope, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    lines = vggscope("memory", "D", "--batch", "96", "--optimizer", "adam").out.split("\n")
    assert lines[:2] == ["D   train, batch 96 of 3x224x224,", "float32, adam"]


def test_a_pipe_gets_plain_text_of_a_fixed_width() -> None:
    env = {**os.environ, "FORCE_COLOR": "", "NO_COLOR": ""}
    env.pop("COLUMNS", None)
    done = subprocess.run(
        [sys.executable, "-m", "vggscope", "summary", "A"], capture_output=True, text=True, check=True, env=env
    )
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.split("\n"))) <= 120


def test_colour_follows_the_environment(vggscope, monkeypatch) -> None:
    assert "\x1b[" not in vggscope("summary", "A").out
    monkeypatch.setenv("FORCE_COLOR", "1")
    coloured = vggscope("summary", "A").out
    assert "\x1b[" in coloured
    monkeypatch.setenv("NO_COLOR", "1")
    plain = vggscope("summary", "A").out
    assert "\x1b[" not in plain
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured).split() == plain.split()


def test_ascii_output_has_no_other_character() -> None:
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "vggscope", "summary", "A"], capture_output=True, check=True, env=env)
    text = done.stdout.decode("ascii")
    assert "?" not in text
    assert "-----" in text


BAD = [
    (("summary", "Z9"), "unknown model 'Z9'", "a model is"),
    (("summary", "vgg17"), "unknown model 'vgg17', did you mean vgg1", "a model is"),
    (("summary", "conv3-64 maxpol FC-10"), "word 2, 'maxpol', cannot be read", "expected"),
    (("summary", "D", "--input", "3x0x224"), "'3x0x224' is not a size", "--input 3x224x224"),
    (("summary", "D", "--input", "-1x3x3"), "'-1x3x3' is not a size", "--input 3x224x224"),
    (("summary", "D", "--batch", "0"), "a batch of 0", "--batch is 1"),
    (("summary", "D", "--batch", "x"), "--batch", "see vggscope summary --help"),
    (("summary", "D", "--num-classes", "0"), "0 classes", "--num-classes is 1"),
    (("summary", "D", "--dtype", "int3"), "unknown dtype 'int3'", "float32"),
    (("summary", "D", "--head", "round"), "unknown head 'round'", "adaptive, flatten, dense"),
    (("summary", "D", "--format", "xml"), "unknown format 'xml'", "table, json, csv, markdown"),
    (("summary", "D", "-o", "x.foo"), "no format ends in '.foo'", "-o takes"),
    (("summary", "D", "-o", "no/such/folder/x.json"), "the folder is not there", "name a file"),
    (("summary", "D", "-o", "."), "", ""),
    (("summary", "D", "--depth", "deep"), "unknown depth 'deep'", "layer, stage"),
    (("summary",), "Missing argument", "see vggscope summary --help"),
    (("summry", "D"), "did you mean summary?", "see vggscope --help"),
    (("summary", "D", "--colums", "a"), "--colums", "see vggscope summary --help"),
    (("diagram", "E", "-o", "x.jpg"), "no picture ends in '.jpg'", ".svg, .png, .pdf, .dot"),
    (("diagram", "E", "-o", "no/such/x.svg"), "the folder is not there", "name a file"),
    (("diagram", "E", "-o", "x.svg", "--style", "cubes"), "'cubes'", "blocks"),
    (("build", "D", "-o", "x.gz"), "build cannot write '.gz'", ".py, .pth"),
    (("build", "D", "--at", "features.99"), "no module 'features.99'", "features."),
    (("build", "A", "-o", "no/such/x.py"), "the folder is not there", "name a file"),
    (("memory", "D", "--batch", "0"), "a batch of 0", "--batch is 1"),
    (("memory", "D", "--optimizer", "lion"), "unknown optimizer", "sgd-momentum"),
    (("memory", "D", "--cudnn", "none"), "--cudnn is about a card, and none is named", "--gpu names one"),
    (("memory", "D", "--measure", "--context", "1GiB"), "on a CPU the memory tracker counts", "leave out --context"),
    (("memory", "D", "--recipe", "caffe"), "unknown recipe 'caffe'", "paper, torchvision, timm"),
    (("memory", "D", "--gpu", "huge"), "unknown GPU 'huge'", "24GiB"),
    (("memory", "D", "--mode", "sleep"), "unknown mode", "inference"),
    (("inspect", "no.pth"), "no.pth", ""),
    (("diff", "A", "--ref", "Q7"), "unknown model 'Q7'", "a model is"),
    (("diff", "A", "--ref", ""), "--ref names no model", "torchvision"),
    (("summary", "columns.toml:X"), "cannot read columns.toml", "columns.toml:NAME"),
]


@pytest.mark.parametrize(
    ("words", "problem", "remedy"), BAD, ids=lambda value: " ".join(value) if isinstance(value, tuple) else ""
)
def test_bad_input_gets_two_lines_and_exit_code_2(vggscope, tmp_path, monkeypatch, words, problem, remedy) -> None:
    monkeypatch.chdir(tmp_path)
    ran = vggscope(*words)
    assert (ran.code, ran.out) == (2, "")
    lines = ran.err.rstrip("\n").split("\n")
    assert 1 <= len(lines) <= 2
    assert lines[0].startswith("vggscope: ")
    assert problem in lines[0]
    assert remedy in lines[-1]
    assert "Traceback" not in ran.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [("--debug", "summary", "Z9"), ("diff", "C", "--ref", "Z9", "--debug")])
def test_debug_shows_the_traceback(words: tuple[str, ...], vggscope) -> None:
    """The exit code stays: 1 would say that a difference was found."""
    ran = vggscope(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Traceback (most recent call last):\n")
    assert "vggscope: unknown model 'Z9'" in ran.err


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (("build", "D", "--init", "no"), "unknown initialisation 'no'"),
        (("build", "D", "--seed", "-1"), "the seed -1 is out of range"),
        (("rf", "A", "D"), "a table shows the fields of one model"),
        (("rf", "A", "D", "-o", "x.csv"), "a table shows the fields of one model"),
    ],
)
def test_invalid_options_are_errors(words: tuple[str, ...], problem: str, vggscope) -> None:
    ran = vggscope(*words)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith(f"vggscope: {problem}")


def test_without_arguments_it_shows_commands_to_try(vggscope) -> None:
    ran = vggscope()
    assert ran.code == 0
    assert ran.out.count("vggscope summary D") == 1
    assert "vggscope diff" in ran.out
    assert ran.out.count("\n") <= 10  # a start, not the whole help


def test_every_command_has_an_example_in_its_help(vggscope) -> None:
    from vggscope.cli.app import COMMANDS

    for name in COMMANDS:
        ran = vggscope(name, "--help")
        assert ran.code == 0
        assert f"Examples: vggscope {name}" in " ".join(ran.out.split())


def test_a_column_from_a_file(vggscope, tmp_path) -> None:
    path = tmp_path / "columns.toml"
    path.write_text('[columns]\nsmall = "conv3-8 maxpool FC-10"\n')
    found = json.loads(vggscope("summary", f"{path}:small", "-f", "json").out)
    assert found["model"] == "small"
    assert found["totals"]["params"] == 8 * 27 + 8 + 8 * 49 * 10 + 10
    unnamed = vggscope("summary", str(path))
    advised = unnamed.err.rpartition("as in ")[2].strip()
    assert (unnamed.code, "columns.toml holds columns: small" in unnamed.err) == (2, True)
    assert vggscope("summary", advised).code == 0
    missing = vggscope("summary", f"{path}:large")
    assert (missing.code, "it has small" in missing.err) == (2, True)
    path.write_text('[columns]\nsmall = "conv3-8"\nyear = 2014\n')
    assert vggscope("summary", f"{path}:small", "--input", "3x8x8").code == 0
    assert f"column 'year' of {path} is not text" in vggscope("summary", f"{path}:year").err
    path.write_text("[columns\n")
    assert "is not TOML" in vggscope("summary", f"{path}:small").err


def test_list_shows_the_catalogue(vggscope) -> None:
    found = json.loads(vggscope("list", "-f", "json").out)
    layers = {column["name"]: column["weight_layers"] for column in found["columns"]}
    assert layers.items() >= {"A": 11, "A-LRN": 11, "B": 13, "C": 16, "D": 16, "E": 19}.items()
    assert {"torchvision:vgg11", "torchvision:vgg16_bn"} <= {reference["name"] for reference in found["references"]}
    formats = {form["name"] for form in found["formats"]}
    assert {"table", "json", "csv", "markdown", "svg", "png", "pdf", "dot"} <= formats
    assert "blocks" in {style["name"] for style in found["styles"]}
    assert {"Conv2d", "ConvTranspose2d", "MaxPool2d", "Linear"} <= {op["name"] for op in found["ops"]}


def test_memory_as_json(vggscope) -> None:
    ran = vggscope("memory", "D", "--batch", "64", "--optimizer", "adam", "--gpu", "RTX 4090", "-f", "json")
    found = json.loads(ran.out)
    assert (ran.code, found["schema"], found["mode"], found["batch"]) == (0, "vggscope/memory@1", "train", 64)
    parts = ("parameters", "buffers", "gradients", "optimizer", "activations", "temporary", "input")
    assert sum(found[f"{part}_bytes"] for part in parts) == found["peak_bytes"]
    assert max(entry["bytes"] for entry in found["timeline"]) == found["peak_bytes"]
    assert found["assumptions"]
    assert found["fit"]["fits"] is True
    assert found["max_batch"] >= 64
    assert json.loads(vggscope("memory", "D", "-f", "json").out)["optimizer"] == "sgd-momentum"


def test_summary_and_memory_give_the_same_peak(vggscope) -> None:
    summary = json.loads(vggscope("summary", "E", "-f", "json", "--batch", "8").out)["memory"]
    memory = json.loads(vggscope("memory", "E", "-f", "json", "--batch", "8").out)
    inference = json.loads(vggscope("memory", "E", "-f", "json", "--batch", "8", "--mode", "inference").out)
    assert summary["training_peak_bytes"] == memory["peak_bytes"]
    assert summary["inference_peak_bytes"] == inference["peak_bytes"]


def test_a_step_that_does_not_fit_gets_remedies(vggscope) -> None:
    out = vggscope("memory", "D", "--gpu", "1GiB").out
    assert "does not fit 1GiB" in out
    assert "not even a batch of 1 fits: 1,230.00 MiB are missing" in out
    assert "--dtype bfloat16" in out


def test_inspect_as_json(vggscope, tmp_path) -> None:
    path = str(tmp_path / "x.safetensors")
    vggscope("build", "conv3-8 maxpool FC-10", "-o", path)
    found = json.loads(vggscope("inspect", path, "-f", "json").out)
    assert (found["schema"], found["column"], found["params"]) == ("vggscope/inspect@1", None, 8 * 27 + 8 + 3920 + 10)
    assert {layer["name"] for layer in found["layers"]} == {"features.0", "classifier.0"}
    table = vggscope("inspect", path).out
    assert "classifier.0" in table


def test_a_failing_model_is_shown_up_to_the_failure(vggscope, tmp_path) -> None:
    path = tmp_path / "net.py"
    path.write_text(
        "from torch import nn\n"
        "def net():\n"
        "    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(7, 10))\n"
    )
    ran = vggscope("summary", f"{path}:net", "--input", "3x8x8")
    assert ran.code == 2
    assert "Conv2d" in ran.out
    assert "7 features are expected, the input has 288" in ran.out
    assert ran.err.startswith("vggscope: the forward pass fails in 2 (Linear), as noted\n")
    assert ran.err.count("\n") == 2


def test_a_package_that_is_not_installed_is_named(tmp_path) -> None:
    write_checkpoint(path := tmp_path / "x.safetensors")
    hidden = "import sys; sys.modules['numpy'] = None"
    code = f"{hidden}; from vggscope.cli.app import run; sys.exit(run(['inspect', {str(path)!r}, '--stats']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vggscope: this needs numpy, which is not installed\npip install numpy\n"


def test_memory_plots_and_measures(vggscope, tmp_path) -> None:
    path = tmp_path / "memory.svg"
    assert vggscope("memory", "A", "-o", str(path)).code == 0
    assert path.read_text().count("<svg") == 1
    found = json.loads(vggscope("memory", "conv3-8 maxpool FC-10", "--measure", "-f", "json").out)
    assert found["schema"] == "vggscope/measure@1"
    assert found["predicted_bytes"] == found["measured_bytes"] > 0


def test_rf_as_json(vggscope) -> None:
    found = json.loads(vggscope("rf", "D", "--at", "conv5_3", "--unit", "6,6", "-f", "json").out)
    assert found["schema"] == "vggscope/rf@1"
    pool5 = next(layer for layer in found["layers"] if layer["label"] == "pool5")
    assert (pool5["size"], pool5["stride"], pool5["padding"]) == ([212, 212], [32, 32], [90, 90])
    (unit,) = found["units"]
    # By hand: conv5_3 has size 196, stride 16, padding 90; unit 6 starts at -90 + 6 * 16 = 6.
    assert unit["box"] == {"first": [6, 6], "last": [201, 201]}
    for words in (
        ("--at", "conv9"),
        ("--at", "conv5_3", "--unit", "99,0"),
        ("--unit", "1,1"),
        ("--at", "fc6", "--unit", "a"),
    ):
        ran = vggscope("rf", "D", *words)
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 2)


def test_rf_draws_growth_regions_and_heat(vggscope, tmp_path) -> None:
    for words in (
        ("A", "D", "-o", "growth.svg"),
        ("A", "--at", "conv3_2,conv5_2", "-o", "regions.png"),
        ("conv3-4 maxpool conv3-4", "--input", "3x16x16", "--at", "conv2_1", "--effective", "-o", "heat.svg"),
    ):
        path = tmp_path / words[-1]
        assert vggscope("rf", *words[:-1], str(path)).code == 0
        assert path.stat().st_size > 1000
    for words in (("A", "D", "--at", "conv1_1"), ("A", "--effective"), ("A", "--at", "conv1_1", "--image", "no.jpg")):
        ran = vggscope("rf", *words)
        assert (ran.code, ran.out) == (2, "")


def test_count_all_adds_the_other_operations(vggscope) -> None:
    """By hand: conv 8x4x4 has 27 MACs a value and a bias each, ReLU one operation a value, the pool three a value."""
    model = ("summary", "conv3-8 maxpool", "--input", "3x4x4", "-f", "json")
    found = json.loads(vggscope(*model, "--count", "all").out)
    conv, relu, pool = (layer["flops"] for layer in found["layers"])
    assert (conv, relu, pool) == (2 * 27 * 128 + 128, 128, 3 * 32)
    assert found["totals"]["flops"] == conv + relu + pool
    assert json.loads(vggscope(*model).out)["totals"]["flops"] == 2 * 27 * 128


def test_operations_backward_and_on_a_card(vggscope) -> None:
    found = json.loads(vggscope("summary", "D", "--backward", "--gpu", "A100-80GB", "-f", "json").out)
    assert found["schema"] == "vggscope/operations@1"
    assert found["totals"]["backward_macs"] == 30853824512
    assert {layer["bound"] for layer in found["layers"]} <= {"compute", "memory", None}
    assert vggscope("summary", "D", "--gpu", "abacus").code == 2


@pytest.mark.parametrize("model", ["A", "torchvision:resnet18"])
def test_an_input_with_channels_last_gets_the_right_order(vggscope, model: str) -> None:
    ran = vggscope("summary", model, "--input", "224x200x3")
    assert ran.code == 2
    assert ran.err.endswith("--input is channels x height x width: 3x224x200\n")


def test_list_names_ops_as_torch_does(vggscope) -> None:
    """In torch.nn, as a function of torch or of a tensor, or in torchvision.ops."""
    import torch
    import torchvision

    places = (torch.nn, torch.nn.functional, torch, torch.Tensor, torchvision.ops)
    names = [op["name"] for op in json.loads(vggscope("list", "-f", "json").out)["ops"]]
    assert [name for name in names if not any(hasattr(place, name) for place in places)] == []
    assert {"LSTM", "cat", "matmul", "BatchNorm2d"} <= {*names}
