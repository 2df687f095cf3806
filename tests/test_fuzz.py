"""Whatever is typed, the program ends with 0, 1 or 2 and a sentence: no traceback, no defect.

The whole suite tries the same thousand examples of each on every run, `make fuzz` others and more.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from tests.strategies import MANY, examples, lines
from vggscope.errors import VggscopeError
from vggscope.vgg.notation import parse, write


def run(*words: str) -> tuple[int, str, str]:
    """What a command line gives: exit code, stdout, stderr."""
    from vggscope.cli.app import run as run_here

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run_here(list(words))
    return code, out.getvalue(), err.getvalue()


def check(*words: str) -> tuple[int, str, str]:
    code, out, err = run(*words)
    assert code in (0, 1, 2), (words, code)
    assert "Traceback" not in err
    assert "defect" not in err, (words, err)
    assert err.count("\n") <= 2, (words, err)
    if code == 2:
        assert err.startswith("vggscope: "), (words, err)
    return code, out, err


TEXT = st.text(st.characters(exclude_characters="\0"), max_size=30)

NUMBERS = st.one_of(
    st.integers(0, 300).map(str),
    st.integers(-(10**9), 10**9).map(str),
    st.sampled_from(["0", "1", "1e3", "1.5", "nan", "inf", "-0", "٣", "1_000", "0x10", "9" * 5000, ""]),
)

TOKENS = st.one_of(
    st.sampled_from(["maxpool", "avgpool", "LRN", "BN", "dropout", "soft-max", "softmax", "FC-10", "conv3-8"]),
    st.builds("conv{}-{}".format, NUMBERS, NUMBERS),
    st.builds("{}{}/s{}p{}".format, st.sampled_from(["conv3-8", "maxpool", "avgpool5"]), st.just(""), NUMBERS, NUMBERS),
    st.builds("FC-{}".format, NUMBERS),
    st.builds("maxpool{}/p{}".format, NUMBERS, NUMBERS),
    TEXT,
)

NOTATION = st.lists(TOKENS, max_size=8).map(" ".join)

PREFIXES = (
    "torchvision:",
    "timm:",
    "x.toml:",
    "x.py:",
    "package:",
    "A",
    "vgg16",
    "D_bn",
    "/",
    "../",
    "-",
    "--",
    "@",
    "~",
)

WORDS = st.one_of(
    lines(),
    NOTATION,
    TEXT,
    st.builds("{}{}".format, st.sampled_from(PREFIXES), TEXT),
    st.builds(
        "{}{}".format, TEXT, st.sampled_from([".pth", ".safetensors", ".py", ".py:Net", ".toml:x", ".pt", ".ckpt"])
    ),
    st.builds("nothing.py:Net({})".format, TEXT),
)

SIZES = st.one_of(TEXT, st.builds("{}x{}x{}".format, NUMBERS, NUMBERS, NUMBERS))

CHOICES = st.sampled_from(
    ["table", "json", "csv", "markdown", "layer", "stage", "train", "adam", "amp", "dense", "flatten"]
)

OPTIONS = {
    "summary": ("--input", "--head", "--num-classes", "--batch", "--dtype", "--format", "--columns", "--depth"),
    "memory": (
        "--input",
        "--batch",
        "--mode",
        "--optimizer",
        "--dtype",
        "--accumulate",
        "--gpus",
        "--parallel",
        "--gpu",
    ),
    "diff": ("--ref", "--input", "--ignore", "--format"),
    "rf": ("--input", "--at", "--unit", "--format"),
    "compare": ("--input", "--batch", "--dtype", "--format"),
    "explain": ("--size", "--kernel", "--stride", "--padding", "--shape", "--format"),
    "diagram": ("--style", "--theme", "--annotate", "--heat", "--direction", "--width", "--engine"),
}
"""For each command options with a value."""


@MANY
@given(NOTATION)
@example("conv1000000-1000000 " * 3)
@example("conv3-64/s1000000p1000000 maxpool1000000/p500000")
@example("maxpool/s1 " * 30)
@example("conv999999-1/p0")
def test_notation_is_read_or_refused(line: str) -> None:
    try:
        words = parse(line)
    except VggscopeError:
        return
    assert parse(write(words)) == words


@MANY
@given(WORDS)
@example("conv3-8 FC-\u0661")
@example("\ud800.pth")
@example("\ud800.py")
@example("\udcff.py:Net")
@example("\udcff.toml:x")
@example("\udcff.safetensors")
@example("a" * 5000)
@example("/" * 5000 + ".pth")
@example("x.py:Net(" + "(" * 500)
@example("x.py:Net(" + "[" * 5000 + "]" * 5000 + ")")
@example("/dev/zero.toml:x")
@example(".:x")
@example("..py:x")
@example("timm:../../x")
@example("os:system")
@example("soft-max")
def test_any_model_word_is_resolved_or_refused(word: str) -> None:
    check("summary", "--", word)


@MANY
@given(st.sampled_from(sorted(OPTIONS)), st.data())
def test_any_value_of_an_option_is_taken_or_refused(command: str, data: st.DataObject) -> None:
    words = []
    for option in data.draw(st.lists(st.sampled_from(OPTIONS[command]), max_size=3, unique=True)):
        words.append(f"{option}={data.draw(st.one_of(NUMBERS, SIZES, CHOICES, TEXT))}")
    if command == "diff" and not any(word.startswith("--ref") for word in words):
        words.append("--ref=paper")
    if command == "diagram":
        words += ["-o", "/dev/null/x.svg"]
    models = ["conv", "image", "pool"] if command == "explain" else ["A", "conv3-8 maxpool FC-10"]
    check(command, data.draw(st.sampled_from(models)), *words)


@MANY
@given(
    st.lists(
        st.one_of(TEXT, st.sampled_from(["summary", "--help", "-o", "--format", "json", "--", "A", "list"])), max_size=4
    )
)
def test_any_command_line_is_run_or_refused(words: list[str]) -> None:
    # `build x -o NAME` and the like would write what they are told to.
    assume(not any(word.startswith(("-o", "--o")) for word in words))
    check(*words)


@settings(MANY, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300))
@example(b"[columns]\nx = 3")
@example(b"columns = 3")
@example(b"[columns]\nx = " + b"[" * 3000)
@example(b"\xff\xfe")
def test_any_toml_is_read_or_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(data)
    check("summary", f"{path}:x")


def same(value: object, read: object) -> bool:
    """Whether a JSON value is what a result holds, field by field."""
    if is_dataclass(value) and isinstance(read, dict):
        return list(read) == [f.name for f in fields(value) if f.metadata.get("json", True)] and all(
            same(getattr(value, n), v) for n, v in read.items()
        )
    if isinstance(value, (tuple, list)) and isinstance(read, list):
        return len(value) == len(read) and all(map(same, value, read))
    if isinstance(value, dict) and isinstance(read, dict):
        return {str(key) for key in value} == set(read) and all(same(item, read[str(k)]) for k, item in value.items())
    return type(value) is type(read) and value == read


def results(line: str) -> Iterator[object]:
    import vggscope

    size = (3, 64, 64)
    yield vggscope.summary(line, size)
    yield vggscope.memory(line, size, batch=2, gpu="1GiB")
    yield vggscope.diff(line, "conv3-4 maxpool FC-10", size)
    yield vggscope.receptive_fields(line, size)


@examples(200)
@given(lines())
def test_every_result_is_its_json(line: str) -> None:
    try:
        found = list(results(line))
    except VggscopeError:
        return
    for result in found:
        assert same(result, json.loads(result.to_json()))


@pytest.mark.parametrize(
    "command", ["memory", "rf", "diff", "compare", "diagram", "build", "verify", "report", "explain", "inspect"]
)
def test_every_command_refuses_what_is_no_model(command: str, tmp_path: Path) -> None:
    for word in (
        "",
        " ",
        "\t",
        "no such thing",
        "x.pth",
        "x.py:Net",
        "timm:nothing",
        "conv3-8 conv",
        "\x1b[31m",
        "a" * 3000,
    ):
        output = ("-o", str(tmp_path / "x.svg")) if command == "diagram" else ()
        output = ("-o", str(tmp_path / "x.html")) if command == "report" else output
        code, out, _ = check(command, *output, "--", word)
        assert (code, out) == (2, "")
    assert list(tmp_path.iterdir()) == []
