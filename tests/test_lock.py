"""Locked architectures: what `lock` writes reads back, `diff` finds each drift, and no file can do harm."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vggscope as api
from tests.conftest import GOLDEN
from tests.peak_memory import RESOLVING
from vggscope.errors import VggscopeError
from vggscope.graph_json import FAMILIES, encode
from vggscope.lock_file import LARGEST_FILE, from_text, lock, to_text
from vggscope.ops.base import Op

NET = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, kernel=3, share=True, tied=True):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, kernel, padding=kernel // 2)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.other = self.conv2 if share else nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.fc1 = nn.Linear(512, 512)
        self.fc2 = nn.Linear(512, 512)
        if tied:
            self.fc2.weight = self.fc1.weight
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.conv1(x).relu()
        x = self.norm(x + self.other(self.conv2(x)))
        x = torch.flatten(nn.functional.max_pool2d(x, 4), 1)
        return {"logits": self.fc2(self.fc1(x)), "map": x}


def make(**options):
    return Net(**options), torch.zeros(1, 3, 32, 32)


class Two(nn.Module):
    def __init__(self, width=6):
        super().__init__()
        self.embed = nn.Embedding(100, width)
        self.mix = nn.Linear(width + 4, 5)

    def forward(self, tokens, extra):
        return self.mix(torch.cat([self.embed(tokens), extra], -1))
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "net.py").write_text(NET)
    monkeypatch.chdir(tmp_path)
    return tmp_path


WORDS = ("A", "C", "D_bn", "conv3-8 LRN maxpool FC-10 soft-max", "torchvision:resnet18", "torchvision:vit_b_16")


@pytest.mark.parametrize("word", [*WORDS, pytest.param("torchvision:googlenet", marks=pytest.mark.slow)])
def test_a_lock_reads_back_as_the_same_network(word: str) -> None:
    network = api.network(word)
    locked = from_text(api.lock(network).json_text)
    assert locked == network
    assert encode(replace(locked, warnings=network.warnings)) == encode(replace(network, torch_count=None))
    assert to_text(locked) == api.lock(network).json_text


class Signals(nn.Module):
    """Layers that are recorded, cut up and run along a sequence; a variable names a result that no layer reads."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 8)
        self.rnn = nn.LSTM(8, 8, batch_first=True)
        self.up = nn.ConvTranspose1d(8, 4, 4, 2, 1)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        x, state = self.rnn(self.embed(tokens))
        assert len(state) == 2
        x = torch.roll(self.up(x.transpose(1, 2)), 3, -1) * torch.arange(24.0)
        return nn.functional.interpolate(x, size=20).chunk(2, 1)[0].cumsum(-1)


def test_a_model_of_sequences_is_locked(folder: Path) -> None:
    tokens = torch.zeros(1, 12, dtype=torch.int64)
    api.lock(Signals(), input_data=tokens).save("arch.json")
    assert api.diff(Signals(), ref="arch.json", input_data=tokens).verdict == "identical"
    assert api.diff(Signals(), ref="arch.json").verdict == "identical"


def test_the_file_has_a_line_for_each_layer_and_names_what_defines_it(folder: Path) -> None:
    text = api.lock("net.py:make").json_text
    rows = {row["name"]: row for row in json.loads(text)["layers"]}
    for name, row in rows.items():
        assert sum(json.loads(line.strip().rstrip(",")) == row for line in text.splitlines() if '"op"' in line) == 1, (
            name
        )
    assert rows["conv1"] == {
        "name": "conv1",
        "op": {
            "class": "convolution.Convolution",
            "in_channels": 3,
            "out_channels": 8,
            "kernel_size": [3, 3],
            "padding": [1, 1],
        },
        "inputs": ["input"],
        "output_shape": [1, 8, 32, 32],
        "parameters": {"conv1.weight": [8, 3, 3, 3], "conv1.bias": [8]},
    }
    assert rows["conv2:2"]["parameters"] == {"conv2.weight": "conv2", "conv2.bias": "conv2"}
    assert rows["fc2"]["parameters"] == {"fc1.weight": "fc1", "fc2.bias": [512]}
    assert [row["name"] for row in json.loads(text)["unused"]] == ["head.weight", "head.bias"]


def test_diff_is_quiet_until_the_model_drifts(vggscope, folder: Path) -> None:
    assert vggscope("lock", "net.py:make", "-o", "arch.json").code == 0
    ran = vggscope("diff", "net.py:make", "--ref", "arch.json", "--strict")
    assert (ran.code, ran.out.splitlines()[2][:9]) == (0, "identical")
    ran = vggscope("diff", "net.py:make(kernel=5)", "--ref", "arch.json")
    assert ran.code == 1
    assert "~ conv1: kernel_size 5, the reference has 3" in ran.out
    for word, layer in (("net.py:make(share=False)", "other"), ("net.py:make(tied=False)", "fc2")):
        ran = vggscope("diff", word, "--ref", "arch.json")
        assert (ran.code, layer in ran.out) == (1, True), ran.out
    with pytest.raises(VggscopeError, match=r"no such file, did you mean arch\.json"):
        api.diff("A", ref="arhc.json")


def test_a_model_without_inputs_is_run_on_those_of_the_lock(folder: Path) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
    api.lock(model, input_size=(3, 48, 40)).save("arch.json")
    assert api.diff(model, ref="arch.json").verdict == "identical"
    assert api.lock(model, like="arch.json").network.input_shape == (1, 3, 48, 40)
    assert api.lock(model).network.input_shape != (1, 3, 48, 40)


def test_several_inputs_with_their_dtypes_are_kept(vggscope, folder: Path) -> None:
    given = ("--input", "tokens=7:int64", "--input", "extra=7x4")
    assert vggscope("lock", "net.py:Two", *given, "-o", "arch.json").code == 0
    rows = json.loads(Path("arch.json").read_text())["inputs"]
    assert rows == [
        {"name": "tokens", "shape": [1, 7], "dtype": "int64"},
        {"name": "extra", "shape": [1, 7, 4]},
    ]
    assert vggscope("diff", "net.py:Two", "--ref", "arch.json").code == 0
    assert vggscope("diff", "net.py:Two(width=8)", "--ref", "arch.json").code == 1


COMMANDS = (
    ("summary",),
    ("summary", "--backward"),
    ("memory",),
    ("rf",),
    ("compare",),
    ("diagram", "-o", "x.svg"),
    ("diff", "--ref", "A"),
    ("lock",),
    ("explain", "why-tools-disagree"),
    ("report", "-o", "x.html"),
    ("build",),
)


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command[0])
def test_every_command_says_of_the_lock_what_it_says_of_the_model(vggscope, folder: Path, command) -> None:
    name, *options = command
    topic = [options.pop(0)] if name == "explain" else []
    api.lock("A").save("arch.json")
    locked, model = (vggscope(name, *topic, word, *options) for word in ("arch.json", "A"))
    assert (locked.code, locked.err.count("vggscope: ")) == (model.code, 0), locked.err
    if name not in ("lock", "diff", "explain", "compare", "build"):
        assert locked.out.splitlines()[1:] == model.out.splitlines()[1:]
    if name == "build":
        assert locked.out == model.out


def test_another_input_and_options_are_taken_or_refused_in_words(vggscope, folder: Path) -> None:
    api.lock("A").save("arch.json")
    ran = vggscope("summary", "arch.json", "--input", "3x64x64")
    assert ran.code == 0
    assert "the layers were locked at 3x224x224" in ran.out
    refused = {
        ("--input", "3x16x16"): "the smallest square input that fits is --input 3x32x32",
        ("--batch-norm",): "--batch-norm: arch.json has its layers",
        ("--num-classes", "10"): "--num-classes 10: the file's output is 1000",
    }
    for options, message in refused.items():
        ran = vggscope("summary", "arch.json", *options)
        assert (ran.code, len(ran.err.splitlines())) == (2, 2)
        assert message in ran.err
    assert vggscope("summary", "arch.json", "--num-classes", "1000").code == 0


def test_a_model_that_fails_is_not_locked(folder: Path) -> None:
    with pytest.raises(VggscopeError, match="fails"):
        api.lock(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Linear(7, 5)), input_size=(3, 8, 8))
    assert not Path("arch.json").exists()


def test_a_lock_depends_on_the_model_and_nothing_else(folder: Path) -> None:
    """Not on the weights, on the batch, on training mode or on where the run's input came from."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.LazyLinear(4))
    model(torch.zeros(1, 3, 9, 9))
    text = api.lock(model, input_size=(3, 9, 9)).json_text
    assert api.lock(model.eval(), input_size=(16, 3, 9, 9)).json_text == text
    assert api.lock(model, input_data=torch.ones(2, 3, 9, 9)).json_text == text


# Files from other versions


def ops() -> dict[str, dict[str, str | None]]:
    """The default of each field of each op, None for a field without."""
    modules = (import_module(f"vggscope.ops.{family}") for family in sorted(FAMILIES))
    classes = [value for module in modules for value in vars(module).values() if isinstance(value, type)]
    return {
        f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}": {
            field.name: None if field.default is MISSING else repr(field.default) for field in fields(cls)
        }
        for cls in classes
        if issubclass(cls, Op) and cls.__module__ != Op.__module__
    }


def test_a_lock_of_an_older_version_reads_as_it_was_meant(request: pytest.FixtureRequest) -> None:
    """An op or a field may be added. One that goes, or another default, needs another number of SCHEMA."""
    file = GOLDEN / "lock-ops.json"
    if request.config.getoption("--update-golden"):
        rows = (f"  {json.dumps(name)}: {json.dumps(row)}" for name, row in sorted(ops().items()))
        file.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    now = ops()
    for name, before in json.loads(file.read_text()).items():
        assert name in now, f"{name}: locks hold this op"
        assert {field: now[name].get(field, "is gone") for field in before} == before, name
        assert {field for field, default in now[name].items() if default is None} <= before.keys(), name


# Files that are none


def parts() -> dict[str, Any]:
    return json.loads(api.lock("conv3-8 maxpool FC-10", input_size=(3, 8, 8)).json_text)


def edited(change: Callable[[dict[str, Any]], object]) -> str:
    values = parts()
    change(values)
    return json.dumps(values)


def first(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda values: values["layers"][0].__setitem__(name, value)


def op(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda values: values["layers"][0]["op"].__setitem__(name, value)


def top(name: str, value: object) -> Callable[[dict[str, Any]], object]:
    return lambda values: values.__setitem__(name, value)


HOSTILE: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "Expecting value"),
    "truncated": (json.dumps(parts())[:-100], "line 1 column"),
    "no object": ("[1, 2]", "no object"),
    "another schema": (json.dumps({"schema": "vggscope/lock@2"}), "'vggscope/lock@2', not 'vggscope/lock@1'"),
    "another file": (json.dumps({"name": "my-app", "version": "1.0"}), "schema is None"),
    "no text": (b"\xff\xfe\x00", "codec"),
    "deep lists": ("[" * 200_000 + "]" * 200_000, "deep"),
    "deep objects": ('{"a":' * 5000 + "1" + "}" * 5000, "deep"),
    "deep ops": (
        edited(op("op", json.loads('{"op":' * 60 + "1" + "}" * 60))),
        "deep",
    ),
    "too large": ('{"schema": "' + "x" * LARGEST_FILE + '"}', "more than 4.00 MiB"),
    "a million objects": ("[" + "{}," * (LARGEST_FILE // 3 - 10) + "{}]", "no object"),
    "a million keys": ("{" + ",".join(f'"{n}":0' for n in range(300_000)) + "}", "schema is None"),
    "a huge number": (edited(op("in_channels", 10**30)), "too large"),
    "a number of a million digits": ('{"schema": ' + "9" * 10**6 + "}", "too large"),
    "infinity": ('{"schema": 1e999}', "no number"),
    "not a number": ('{"schema": NaN}', "no number"),
    "a key twice": ('{"schema": 1, "schema": "vggscope/lock@1"}', "'schema' stands twice"),
    "a long name": (edited(first("name", "x" * 10**5)), "100,000 characters"),
    "half a character": (edited(first("name", "\ud800")), "not valid Unicode"),
    "no layers": (edited(lambda values: values.pop("layers")), "layers is missing"),
    "layers of numbers": (edited(top("layers", [1])), "layers is no list of objects"),
    "no inputs": (edited(top("inputs", [])), "no inputs"),
    "a field that no layer has": (edited(first("weights", 1)), "Node has no 'weights'"),
    "a field that no network has": (edited(top("steps", [[1]])), "steps"),
    "an op of another module": (edited(op("class", "os.system")), "no class of the graph or the ops"),
    "an op of the package that is none": (edited(op("class", "base.Op")), "no class of the graph or the ops"),
    "a layer with a class": (edited(first("class", "Network")), "no list of objects"),
    "a parameter's text": (edited(first("parameters", {"x": "no such layer"})), "no earlier layer 'no such layer'"),
    "a parameter's class": (edited(first("parameters", {"x": {"class": "Network"}})), "is no tuple[int, ...]"),
    "text for a number": (edited(op("out_channels", "8")), "features.0: op: out_channels: '8' is no int"),
    "truth for a number": (edited(op("out_channels", True)), "True is no int"),
    "another shape": (
        edited(first("output_shape", [1, 8, 4, 4])),
        "output_shape is [1, 8, 4, 4], its op gives [1, 8, 8, 8]",
    ),
    "a stride of 0": (edited(op("stride", [0, 0])), "features.0: "),
    "no groups": (edited(op("groups", 0)), "features.0: "),
    "no kernel": (edited(op("kernel_size", [])), "features.0: "),
    "a tensor too large": (edited(op("out_channels", 2**62)), "features.0: "),
    "a negative size": (edited(top("inputs", [{"name": "input", "shape": [1, 3, -8, 8]}])), "makes no sense"),
    "an unknown dtype": (edited(top("dtype", "float\x1b[31m")), r"unknown dtype 'float\\x1b[31m'"),
    "a receptive field of 16 million positions": (
        edited(
            lambda values: (
                op(
                    "class",
                    "convolution.TransposedConvolution",
                )(values),
                op("kernel_size", [3, 3])(values),
                top("inputs", [{"name": "input", "shape": [1, 3, 2**24, 8]}])(values),
            )
        ),
        "too large to compute a receptive field",
    ),
    "windows of 10^12 positions": (
        edited(
            lambda values: values["layers"].append(
                {
                    "name": "pool",
                    "op": {"class": "pooling.AdaptiveAvgPool2d", "output_size": [10**12, 7]},
                    "inputs": ["features.0"],
                    "output_shape": [1, 8, 10**12, 7],
                }
            )
        ),
        "too large to compute a receptive field",
    ),
    "a summary": (api.summary("A").to_json(), "is a summary: it lacks which layers a layer reads"),
    "too many layers": (edited(lambda values: values["layers"].extend([{}] * 10_000)), "at most 10,000 are read"),
    "a circle": (edited(first("inputs", ["features.0"])), "does not come before it"),
    "two of a name": (edited(lambda values: values["layers"].append(values["layers"][0])), "name of another node"),
    "an output from nowhere": (edited(top("output", "nowhere")), "there is no layer 'nowhere'"),
    "an axis too many": (edited(first("batch_growth", [1])), "batch_growth has 1 axes"),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if "million" in n else ()) for n in HOSTILE])
def test_a_file_that_is_no_lock_is_refused_in_two_lines(vggscope, folder: Path, name: str) -> None:
    content, message = HOSTILE[name]
    _write(Path("arch.json"), content)
    ran = vggscope("summary", "arch.json")
    assert (ran.code, ran.out) == (2, "")
    assert len(ran.err.splitlines()) == 2
    assert message in ran.err, ran.err
    assert "defect" not in ran.err
    assert ran.err.replace("\n", "").isprintable()


def _write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_no_lock_costs_more_than_300_mb(folder: Path) -> None:
    large = [content for content, _ in HOSTILE.values() if len(content) > 10**6]
    assert len(large) > 3
    paths = [folder / f"{number}.json" for number in range(len(large))]
    for path, content in zip(paths, large):
        _write(path, content)
    words = [sys.executable, "-c", RESOLVING]
    ran = subprocess.run(words, input=json.dumps([str(p) for p in paths]), capture_output=True, text=True, check=True)
    assert 0 < int(ran.stdout) < 300 * 1000


def numbers(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in the values, as the list or object that holds it and its key."""
    for key in value.keys() if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], (dict, list)):
            yield from numbers(value[key])


ODD: tuple[object, ...] = (0, -1, 1, 7, 2**40, 0.5, "", "features.0", None, True, [], {}, [1], [0, 0], [3, 3, 3])


def test_a_spoilt_lock_is_read_or_refused_but_never_breaks_a_command(folder: Path) -> None:
    drawn = random.Random(1)
    api.lock("net.py:make").save("good.json")
    text = Path("good.json").read_text()
    refused: set[int] = set()
    for _ in range(300):
        values = json.loads(text)
        holder, key = drawn.choice(list(numbers(values)))
        holder[key] = drawn.choice(ODD)
        Path("arch.json").write_text(json.dumps(values))
        try:
            network = api.network("arch.json")
            str(api.summary(network))
            str(api.receptive_fields(network))
            str(api.diff(network, ref="good.json"))
            str(api.memory(network))
        except VggscopeError as error:
            refused.add(str(error).count("\n"))
    assert refused <= {0, 1}


def test_names_of_a_lock_are_escaped(vggscope, folder: Path) -> None:
    name = "conv\x1b[31m\u202e"
    values = parts()
    values["layers"][0].update(name=name, module=None)
    values["layers"][1]["inputs"] = [name]
    values.pop("named_until", None)
    Path("arch.json").write_text(json.dumps(values))
    for command in ("summary", "lock", "rf"):
        ran = vggscope(command, "arch.json")
        assert ran.code == 0
        assert "conv\\x1b[31m\\u202e" in ran.out
        assert "\x1b" not in ran.out


def test_a_long_line_of_notation_is_locked(folder: Path) -> None:
    word = "conv3-8 " * 300 + "FC-10"
    api.lock(word, input_size=(3, 8, 8)).save("arch.json")
    assert api.diff(word, ref="arch.json", input_size=(3, 8, 8)).verdict == "identical"


def test_a_network_that_would_not_read_back_is_not_written() -> None:
    network = api.network("conv3-8 FC-10", (3, 8, 8))
    nodes = (replace(network.nodes[0], label="x" * 3000), *network.nodes[1:])
    with pytest.raises(VggscopeError, match="cannot be locked: the text 'xxx"):
        lock(replace(network, nodes=nodes))


def test_the_pipe_is_not_read(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "arch.json")
    with pytest.raises(VggscopeError, match=r"arch\.json is no file"):
        api.network(str(tmp_path / "arch.json"))


def test_a_summary_serves_diff_as_far_as_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vggscope) -> None:
    monkeypatch.chdir(tmp_path)
    Path("summary.json").write_text(api.summary("C", (3, 64, 64)).to_json())
    same = api.diff("C", ref="summary.json")
    assert (same.verdict, same.differences, same.reference) == ("alike", (), "summary.json")
    assert same.params.ours == same.params.reference == api.summary("C").totals.params
    assert vggscope("diff", "C", "--ref", "summary.json").code == 0
    assert vggscope("diff", "C", "--ref", "summary.json", "--strict").code == 1
    other = api.diff("D", ref="summary.json")
    assert other.verdict == "different"
    assert [d.label for d in other.differences] == ["conv3_3", "conv4_3", "conv5_3"]
    assert {d.effect for d in other.differences} == {"function"}
    assert "kernel_size 3, the reference has 1; padding 1, the reference has 0" in other.differences[0].message
    fewer = api.diff("A", ref="summary.json")
    assert {d.kind for d in fewer.differences} == {"missing", "renamed"}  # later layers have other numbers
    assert vggscope("diff", "C", "--ref", "summary.json", "-o", "diff.svg").code == 0
    for option in ("--numeric", "--ignore", "--patch"):
        ran = vggscope("diff", "C", "--ref", "summary.json", option, *(["names"] if option == "--ignore" else []))
        assert (ran.code, "summary.json is a summary" in ran.err) == (2, True)


@pytest.mark.parametrize(
    "layers", [None, [], [3], [{"name": "a"}], [{"name": "a", "label": "", "op": "b", "params": 1, "input_shape": "x"}]]
)
def test_a_summary_that_is_none_is_refused(tmp_path: Path, layers: object) -> None:
    path = tmp_path / "summary.json"
    path.write_text(json.dumps({"schema": "vggscope/summary@1", "layers": layers}))
    with pytest.raises(VggscopeError, match="is no summary"):
        api.diff("A", ref=str(path))
