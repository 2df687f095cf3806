"""`vggscope mcp` as an assistant uses it: by the SDK's own client, over the stdin and stdout of a server."""

from __future__ import annotations

import base64
import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

import vggscope
from tests.test_signatures import parameters
from vggscope import api, errors
from vggscope.cli.app import run
from vggscope.mcp_server import tools
from vggscope.mcp_server.tools import LONGEST_TEXT, TOOLS, WIDTH, Permissions, answer

NOISY = """\
import os, sys
from torch import nn

print("printed")
os.write(1, b"written to descriptor 1\\n")

class Net(nn.Sequential):
    def __init__(self, width=8):
        print("built")
        super().__init__(nn.Conv2d(3, width, 3), nn.ReLU())

def leaves():
    sys.exit(3)
"""
"""A user's file that prints when it is imported and when its class is built."""


class Client:
    """The SDK's client, connected to a server process of its own, for tests that are not asynchronous."""

    def __init__(self, portal: Any, client: Any) -> None:
        self._portal, self._client = portal, client

    def tools(self) -> list[Any]:
        return list(self._portal.call(self._client.list_tools).tools)

    def call(self, name: str, **arguments: object) -> Any:
        return self._portal.call(self._client.call_tool, name, arguments)

    def text(self, name: str, **arguments: object) -> str:
        """The text that a call returns, which has to succeed."""
        result = self.call(name, **arguments)
        assert not result.is_error, result.content
        (content,) = result.content
        return str(content.text)

    def error(self, name: str, **arguments: object) -> str:
        """The text of a call that has to fail."""
        result = self.call(name, **arguments)
        assert result.is_error, result.content
        (content,) = result.content
        return str(content.text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    (folder / "noisy.py").write_text(NOISY, encoding="utf-8")
    (folder / "pictures").mkdir()
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[Client]:
    """A client of a server that may run code and write pictures."""
    pytest.importorskip("mcp_types", reason="the extra mcp is not installed")
    import mcp
    from anyio.from_thread import start_blocking_portal
    from mcp.client.stdio import StdioServerParameters, stdio_client

    arguments = ["-m", "vggscope", "mcp", "--allow-code", "--folder", str(folder / "pictures")]
    environment = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(vggscope.__file__).parent.parent)}
    server = StdioServerParameters(command=sys.executable, args=arguments, env=environment, cwd=folder)
    with (
        start_blocking_portal() as portal,
        (folder / "stderr").open("w", encoding="utf-8") as log,
        portal.wrap_async_context_manager(mcp.Client(stdio_client(server, errlog=log))) as connected,
    ):
        yield Client(portal, connected)


def test_the_client_sees_the_tools_as_the_table_has_them(client: Client) -> None:
    from jsonschema import Draft202012Validator

    seen = client.tools()
    assert [tool.name for tool in seen] == [tool.name for tool in TOOLS]
    for tool, row in zip(seen, TOOLS):
        assert (tool.title, tool.description, tool.input_schema) == (row.title, row.about, row.input_schema)
        Draft202012Validator.check_schema(tool.input_schema)
        assert tool.annotations.read_only_hint == (row.name != "diagram")


def test_text_is_the_command_s_table_and_json_the_result_s_document(client: Client) -> None:
    report = vggscope.summary("conv3-8 maxpool FC-10")
    text = client.text("summary", model="conv3-8 maxpool FC-10")
    assert text.splitlines()[:10] == str(report).splitlines()[:10]
    result = client.call("summary", model="conv3-8 maxpool FC-10", format="json")
    assert result.structured_content == report.to_dict() == json.loads(result.content[0].text)


def test_each_tool_answers(client: Client, folder: Path) -> None:
    import torch

    torch.save(vggscope.build("vgg11", num_classes=10).features.state_dict(), folder / "weights.pth")
    assert client.text("summary", model="D", depth=1, columns=["params"]).count("123,642,856") == 1
    assert "different: 3 differences" in client.text("diff", model="C", ref="D")
    fits = client.text("memory", model="D", batch=64, optimizer="adam", gpu="24GiB")
    assert "fits 24GiB" in fits
    assert "6,6 to 201,201" in client.text("receptive_fields", model="D", at="conv5_3", unit=[6, 6])
    found = client.call("inspect", path="weights.pth", format="json").structured_content
    assert (found["column"], found["params"]) == ("A", 9_220_480)
    compared = client.call("compare", models=["A", "E"], format="json").structured_content
    assert [model["depth"] for model in compared["models"]] == [11, 19]
    assert "590,080" in client.text("explain", topic="D", layer="conv3_2")
    assert "vgg16" in client.text("catalogue")


def test_pictures_are_images_texts_or_files_in_the_folder(client: Client, folder: Path) -> None:
    (image,) = client.call("diagram", models=["A"], dpi=30).content
    assert image.mime_type == "image/png"
    assert base64.b64decode(image.data).startswith(b"\x89PNG\r\n")
    for tool, arguments in {"diagram": {"models": "A"}, "memory": {"model": "A"}}.items():
        drawn = client.text(tool, **arguments, format="svg")
        assert ElementTree.fromstring(drawn).tag == "{http://www.w3.org/2000/svg}svg"
    assert str(folder / "pictures" / "a.dot") in client.text("diagram", models=["A"], file="a.dot")
    assert (folder / "pictures" / "a.dot").read_text(encoding="utf-8").startswith("digraph")
    for outside in ("../a.svg", str(folder / "a.svg"), ".", "a.svg/../../b.svg"):
        assert "is not in" in client.error("diagram", models=["A"], file=outside)
    (folder / "pictures" / "away").symlink_to(folder)
    assert "is not in" in client.error("diagram", models=["A"], file="away/a.svg")
    assert "unknown format 'html'" in client.error("diagram", models=["A"], file="a.html")
    assert sorted(path.name for path in folder.iterdir() if path.suffix == ".svg") == []


def test_what_a_user_s_code_prints_leaves_the_protocol_alone(client: Client, folder: Path) -> None:
    assert "Conv2d" in client.text("summary", model="noisy.py:Net(width=4)", input_size=["3x8x8"])
    assert "cannot be built" in client.error("summary", model="noisy.py:leaves")
    log = (folder / "stderr").read_text(encoding="utf-8")
    assert log.count("printed") == log.count("written to descriptor 1") == 2
    assert "built" in log


MISTAKES: dict[str, tuple[dict[str, object], str]] = {
    "no such tool": ({"name": "sumary"}, "did you mean summary?"),
    "no model": ({"name": "summary"}, "summary needs the argument model"),
    "a number for a model": ({"name": "summary", "model": 16}, "no string"),
    "a text for a number": ({"name": "summary", "model": "D", "batch": "many"}, "no integer"),
    "a flag for a number": ({"name": "summary", "model": "D", "batch": True}, "no integer"),
    "a wrong item": ({"name": "receptive_fields", "model": "D", "at": [5]}, "no array"),
    "an option's name": ({"name": "summary", "model": "D", "input": "3x64x64"}, "did you mean input_size?"),
    "an unknown word": ({"name": "memory", "model": "D", "optimizer": "adm"}, "did you mean adam?"),
    "an unknown format": ({"name": "summary", "model": "D", "format": "yaml"}, "format is one of text, json"),
    "no picture": ({"name": "catalogue", "format": "png"}, "list has no picture"),
    "an unknown model": ({"name": "summary", "model": "vgg17"}, "did you mean vgg1"),
    "a small input": ({"name": "summary", "model": "D", "input_size": ["3x16x16"]}, "input_size=(3, 32, 32)"),
    "no file": ({"name": "inspect", "path": "nothing.pth"}, "there is no such file"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_two_lines_and_the_server_goes_on(client: Client, mistake: str) -> None:
    arguments, said = MISTAKES[mistake]
    text = client.error(str(arguments["name"]), **{name: value for name, value in arguments.items() if name != "name"})
    assert said in text
    assert len(text.splitlines()) <= 2
    assert "Traceback" not in text
    assert "--" not in text  # an assistant has arguments and no options


# Without a server.


SECRET = "hunter2!"


@pytest.mark.parametrize(
    "suffix", ["pth", "safetensors", "prototxt", "t7", "onnx", "caffemodel", "toml:a", "json", "npz"]
)
@pytest.mark.parametrize("text", [SECRET * 9, f"{SECRET}: {SECRET}", f"name: {SECRET}", f"name = {SECRET}"])
def test_of_a_file_that_is_no_model_nothing_is_shown(tmp_path: Path, suffix: str, text: str) -> None:
    """Neither as text nor as the number that its bytes would be."""
    (tmp_path / f"x.{suffix.partition(':')[0]}").write_text(text, encoding="utf-8")
    for given in ({"path": f"{tmp_path}/x.{suffix}"}, {"model": f"{tmp_path}/x.{suffix}"}):
        said = answer("inspect" if "path" in given else "summary", given, Permissions())
        assert said.is_error
        numbers = [int(number) for number in re.findall(r"[0-9]+", said.text.replace(str(tmp_path), ""))]
        assert "hunter" not in said.text
        assert all(number < 2**24 for number in numbers)


def test_a_defect_is_an_answer_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "write", lambda *_: 1 // 0)
    assert answer("catalogue", {}, Permissions()).text.splitlines()[0].startswith("ZeroDivisionError: ")


@pytest.mark.parametrize("word", ["noisy.py:Net", "noisy.py", "json.tool:main", "nb.ipynb:Net", " noisy.py:Net(8)"])
def test_code_does_not_run_unless_the_server_may(
    word: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    calls = {
        "summary": {"model": word},
        "diff": {"model": "D", "ref": word},
        "compare": {"models": ["A", word]},
        "explain": {"topic": "parameters", "layer": word},
        "diagram": {"models": [word]},
    }
    for tool, arguments in calls.items():
        said = answer(tool, arguments, Permissions())
        assert "is Python code, which this server does not run" in said.text
    assert capfd.readouterr() == ("", "")
    with errors.naming_options():
        assert "--allow-code" in answer("summary", {"model": word}, Permissions()).text


def test_the_page_names_each_tool() -> None:
    page = (Path(__file__).parent.parent / "docs" / "mcp.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE) == [tool.name for tool in TOOLS]
    assert f"{LONGEST_TEXT:,} characters" in page


def test_without_a_folder_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "writes no files" in answer("diagram", {"models": ["A"], "file": "a.svg"}, Permissions()).text
    assert list(tmp_path.iterdir()) == []


def test_a_long_text_is_cut_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "LONGEST_TEXT", 1000)
    whole = vggscope.summary("D")
    text = answer("summary", {"model": "D"}, Permissions()).text
    assert len(text) < 1200 < len(str(whole)) < LONGEST_TEXT
    assert text.splitlines()[-1].startswith("... ")
    assert "depth=stage" in text


def test_a_tool_s_arguments_are_those_of_its_function() -> None:
    shown = {"format", "theme", "columns", "file", "dpi"}
    for tool in TOOLS:
        function = getattr(api, tool.name)
        names = parameters(function)
        assert set(tool.arguments) - shown <= names, tool.name
        positional = list(inspect.signature(function).parameters)
        assert set(tool.required) <= set(positional)
    assert WIDTH >= 120


@pytest.mark.parametrize("package", ["mcp", "mcp_types"])
def test_without_the_sdk_one_sentence_names_the_extra(
    package: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert run(["mcp"]) == 2
    assert capsys.readouterr() == (
        "",
        "vggscope: vggscope mcp needs mcp 2, the SDK of the protocol\npip install 'vggscope[mcp]'\n",
    )


def test_a_folder_has_to_be_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["mcp", "--folder", str(tmp_path / "none")]) == 2
    assert "is no folder" in capsys.readouterr().err
