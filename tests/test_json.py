"""docs/json.md names every field that the commands print as JSON, and no other."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import vggscope
from tests.pages import DOCS, MARKDOWN
from vggscope.result import Result
from vggscope.tutorials import TOPICS

MODEL = """\
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.unused = nn.Linear(2, 2)

    def forward(self, x):
        return self.conv(x)
"""

TINY = ("conv3-8 maxpool FC-10", "--input", "3x32x32")

SHARD = "shards/model-00001-of-00002.safetensors"

COMMANDS: dict[str, tuple[tuple[str, ...], ...]] = {
    "summary": (
        ("summary", "D"),
        ("summary", "A", "--depth", "stage"),
        ("summary", "A", "--depth", "2"),
        ("summary", "net.py:Net", "--input", "3x8x8"),
    ),
    "operations": (
        ("summary", "D", "--backward", "--count", "all", "--gpu", "A100-80GB"),
        ("summary", "A", "--backward"),
    ),
    "diff": (
        ("diff", "C", "--ref", "B", "--training"),
        ("diff", TINY[0], "--ref", "conv5-8 FC-10", *TINY[1:], "--numeric"),
        ("diff", "net.py:Net", "--input", "3x32x32"),
    ),
    "memory": (("memory", "D", "--gpu", "1GiB"), ("memory", "A", "--mode", "inference")),
    "measure": (("memory", *TINY, "--measure"),),
    "rf": (("rf", "D", "--at", "conv5_3", "--unit", "0,0"), ("rf", *TINY, "--at", "conv1_1", "--effective")),
    "verify": (("verify", *TINY),),
    "inspect": tuple(
        ("inspect", file) for file in ("net.pth", "vgg16-397923af.pth", "tf.npz", "shards", SHARD, "whole.pth")
    ),
    "stats": (("inspect", "net.pth", "--stats"),),
    "values": (("diff", "net.pth", "--ref", "vgg16-397923af.pth", "--values"),),
    "lock": (("lock", "D"), ("lock", "net.py:Net", "--input", "3x8x8")),
    "compare": (("compare", "A", TINY[0]), ("compare", "--paper"), ("compare", "A", "net.py:Other")),
    "grid": (("compare", "A", "--grid", "--sizes", "32", "--batches", "1,2", "--optimizers", "adam"),),
    "explain": (*(("explain", topic) for topic in TOPICS), ("explain", "conv", "--torch")),
    "list": (("list",),),
}
"""For each kind of result commands that together print each field of it."""


def activations() -> Result:
    return vggscope.activations("conv3-8/p0 conv3-8 maxpool FC-1000", "photo.png", input_size=(3, 16, 16))


def sums() -> Result:
    return vggscope.summary("D").by_operator()


PYTHON = {"activations": activations, "sums": sums}
"""For each kind of result that no command prints what gives it in Python."""


def printed(value: object, path: str = "") -> Iterator[str]:
    """The paths of all that is no object, with `[]` for each of a list; of a list of numbers its own."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from printed(item, f"{path}.{key}" if path else key)
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for item in value:
            yield from printed(item, f"{path}[]")
    else:
        yield path


def sections() -> dict[str, list[list[str]]]:
    """For each heading of the page the rows of its tables: the first cell, the second."""
    found: dict[str, list[list[str]]] = {}
    tokens = MARKDOWN.parse((DOCS / "json.md").read_text(encoding="utf-8"))
    title = ""
    for place, token in enumerate(tokens):
        if token.type == "heading_open":
            title = tokens[place + 1].content
        elif token.type == "tr_open":
            cells = [tokens[place + 2].content, tokens[place + 5].content]
            found.setdefault(title, []).append(cells)
    return found


SECTIONS = sections()


def fields(cell: str) -> list[str]:
    """The paths that a cell names: `.b` behind `a[].x` is `a[].b`; what stands in brackets explains."""
    found: list[str] = []
    for word in re.findall(r"`([^`]+)`", re.sub(r"\([^)]*\)|:.*| as `.*?(?=,)", "", cell)):
        found.append(found[-1].rpartition(".")[0] + word if word.startswith(".") else word)
    return found


def documented(kind: str) -> set[str]:
    return {path for first, _ in SECTIONS[kind] for path in fields(first)}


def without_lists(paths: set[str]) -> set[str]:
    """Whether a list is empty, null or of numbers does not show in each result."""
    return {path.removesuffix("[]") for path in paths}


def leaves(paths: set[str]) -> set[str]:
    """The paths below which there is none: where one result has null another has an object."""
    found = without_lists(paths)
    return found - {path.rpartition(".")[0].removesuffix("[]") for path in found}


def said(vggscope, *words: str) -> list[dict[str, object]]:
    ran = vggscope(*words, "-f", "json")
    # A model that fails is data of `compare`, and exit code 2.
    assert ran.code in (0, 1) or '"failures": [\n' in ran.out, ran.err
    return [json.loads(line) for line in ran.out.splitlines()] if "--grid" in words else [json.loads(ran.out)]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that has more than it uses, and a checkpoint that is no column."""
    import numpy as np
    import torch
    from PIL import Image
    from safetensors.torch import save_file
    from torch import nn

    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(MODEL, encoding="utf-8")
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict(), "net.pth")
    torch.save(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict(), "vgg16-397923af.pth")
    Image.new("RGB", (8, 8), (10, 20, 30)).save("photo.png")
    torch.save(nn.Sequential(nn.Linear(2, 3)), "whole.pth")
    np.savez("tf.npz", **{"conv/kernel": np.zeros((3, 3, 3, 8), np.float32), "conv/bias": np.zeros(8, np.float32)})
    Path("shards").mkdir()
    tensors = {name: torch.zeros(4) for name in ("a.bias", "b.bias")}
    weight_map = {name: f"model-{number:05d}-of-00002.safetensors" for number, name in enumerate(tensors, 1)}
    for name, file in weight_map.items():
        save_file({name: tensors[name]}, f"shards/{file}")
    Path("shards/model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")


@pytest.mark.parametrize("kind", [*PYTHON, *(kind for kind in COMMANDS if kind not in ("explain", "lock"))])
@pytest.mark.usefixtures("files")
def test_every_field_is_named_and_no_other(kind: str, vggscope) -> None:
    results = [json.loads(PYTHON[kind]().to_json())] if kind in PYTHON else []
    results += [result for words in COMMANDS.get(kind, ()) for result in said(vggscope, *words)]
    assert {result["schema"] for result in results} == {f"vggscope/{kind}@1"}
    found = {path for result in results for path in printed(result)}
    assert leaves(found) == without_lists(documented(kind))


def test_every_field_of_a_lock_is_named() -> None:
    """Those of the records that it holds: a lock leaves out what has its default."""
    from dataclasses import fields as fields_of

    from vggscope.graph import Buffer, Input, Network, Node, Output, Parameter

    def is_written(field) -> bool:
        return field.metadata.get("written", True)

    places = {"inputs": Input, "layers": Node, "returned": Output, "tables": Buffer, "unused": Parameter}
    names = {
        f"{place}[].{field.name}" for place, kind in places.items() for field in fields_of(kind) if is_written(field)
    }
    moved = {"layers[].named_until", "layers[].output_shape", "unused[].why"}
    left_out = {"name", "nodes", "warnings", "failure", "failed", "steps", "torch_count", "given_batch"}
    top = {field.name for field in fields_of(Network) if is_written(field)} - left_out - places.keys()
    wanted = (names ^ moved) | top | {"schema", "model", "named_until"}
    assert without_lists(documented("lock")) == wanted


@pytest.mark.usefixtures("files")
def test_every_field_of_a_tutorial_is_named(vggscope) -> None:
    words = [*COMMANDS["explain"], ("explain",), ("explain", "D", "conv3_2")]
    results = [result for each in words for result in said(vggscope, *each)]
    found = {path for result in results for path in printed({**result, "data": None})}
    assert leaves(found) == without_lists(documented("explain"))


@pytest.mark.parametrize("topic", [*TOPICS, "layer"])
@pytest.mark.usefixtures("files")
def test_every_number_of_a_tutorial_is_named(topic: str, vggscope) -> None:
    rows = {first: without_lists(set(fields(second))) for first, second in SECTIONS["explain"]}
    asked = {"layer": [("explain", "D", "conv3_2")], "input": [("explain", "input", "--image", "photo.png")]}
    words = asked.get(topic, []) + ([("explain", topic)] if topic in TOPICS else [])
    found = {path for each in words for result in said(vggscope, *each) for path in printed(result["data"])}
    elsewhere = {"layer": ("layer", "middle_unit"), "paper": ("columns",)}.get(topic, ())
    top = {next((name for name in elsewhere if re.match(rf"{name}(\[\])?\.", path)), path) for path in found}
    assert leaves(top) == rows[topic]


def test_every_kind_of_result_is_there() -> None:
    from vggscope.render.formats import DOCUMENTS

    assert {*DOCUMENTS, "grid"} == {*COMMANDS, *PYTHON} <= {*SECTIONS}
