"""Packages that are not there, terminals of every kind, and a system that gives a program little."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest

COMMANDS: dict[str, tuple[str, ...]] = {
    "summary": ("summary", "D"),
    "summary to a file": ("summary", "A", "-o", "{folder}/x-summary-to-a-file.md"),
    "memory": ("memory", "D", "--gpu", "24GiB"),
    "rf": ("rf", "D"),
    "diff of the same": ("diff", "C", "--ref", "paper"),
    "diff": ("diff", "C", "--ref", "D"),
    "compare": ("compare", "A", "B"),
    "explain": ("explain", "conv"),
    "list": ("list",),
    "inspect": ("inspect", "{folder}/given.safetensors"),
    "lock": ("lock", "A", "-o", "{folder}/x-lock.json"),
    "stats": ("inspect", "{folder}/given.safetensors", "--stats"),
    "values": ("diff", "{folder}/given.safetensors", "--ref", "{folder}/given.safetensors", "--values"),
    "summary of a checkpoint": ("summary", "{folder}/given.safetensors"),
    "svg": ("diagram", "A", "-o", "{folder}/x-svg.svg"),
    "dot": ("diagram", "A", "-o", "{folder}/x-dot.dot"),
    "tex": ("diagram", "A", "-o", "{folder}/x-tex.tex"),
    "png": ("diagram", "A", "-o", "{folder}/x-png.png"),
    "memory's plot": ("memory", "A", "-o", "{folder}/x-memory-s-plot.pdf"),
    "report": ("report", "A", "-o", "{folder}/x-report.html"),
    "source": ("build", "A", "-o", "{folder}/x-source.py"),
    "print": ("build", "A"),
    "torchvision's": ("summary", "torchvision:vgg11"),
    "timm's": ("summary", "timm:vgg11"),
    "verify": ("verify", "conv3-8 FC-10", "--input", "3x8x8"),
    "numeric": ("diff", "conv3-8 FC-10", "--ref", "conv3-8 FC-10", "--numeric", "--input", "3x8x8"),
    "safetensors": ("build", "conv3-8 FC-10", "-o", "{folder}/x-safetensors.safetensors"),
    "onnx": ("build", "conv3-8 FC-10", "-o", "{folder}/x-onnx.onnx"),
    "branches": ("diagram", "torchvision:resnet18", "--style", "layers", "-o", "{folder}/x-branches.svg"),
}
"""A command line for each thing that the program does."""

_TORCH = {"print", "torchvision's", "timm's", "verify", "numeric", "safetensors", "onnx", "branches"}

NEEDS: dict[str, set[str]] = {
    "torch": _TORCH,
    "torchvision": {"torchvision's", "branches"},
    "timm": {"timm's"},
    "pygraphviz": {"branches"},
    "matplotlib": {"png", "memory's plot"},
    "jinja2": {"report"},
    "numpy": {"stats", "values", "png", "memory's plot"},
    "safetensors": {"safetensors"},
    "onnx": {"onnx"},
}
"""For each package the commands that do not work without it. matplotlib itself needs numpy."""

MAY_NEED = {"numpy": _TORCH, "safetensors": {"timm's"}, "torchvision": {"verify", "timm's"}}
"""Where other people's packages decide: timm needs torchvision and safetensors, torch is sparing without numpy."""

PROGRAM = """
import contextlib, io, json, sys
blocked, commands = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(blocked))
from vggscope.cli.app import run
found = {}
for name, words in commands.items():
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(words)
    found[name] = [code, out.getvalue(), err.getvalue()]
print(json.dumps(found))
"""


def write_checkpoint(path: Path) -> None:
    """The weights of `conv3-8 maxpool conv3-8 maxpool FC-10`, all zero, written by hand."""
    shapes = {
        "features.0.weight": (8, 3, 3, 3),
        "features.0.bias": (8,),
        "features.3.weight": (8, 8, 3, 3),
        "features.3.bias": (8,),
        "classifier.0.weight": (10, 8 * 7 * 7),
        "classifier.0.bias": (10,),
    }
    header, end = {}, 0
    for name, shape in shapes.items():
        start, end = end, end + 4 * math.prod(shape)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(end))


def without(packages: tuple[str, ...], names: set[str], folder: Path) -> dict[str, tuple[int, str, str]]:
    """What commands do in one process in which packages cannot be imported."""
    write_checkpoint(folder / "given.safetensors")
    commands = {name: [word.format(folder=folder) for word in COMMANDS[name]] for name in sorted(names)}
    env = {**os.environ, "VGGSCOPE_CACHE": str(folder / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([packages, commands])],
        capture_output=True,
        text=True,
        check=True,
        env=env,
        cwd=folder,
    )
    found: dict[str, tuple[int, str, str]] = json.loads(done.stdout)
    return found


def check_works(name: str, found: tuple[int, str, str], folder: Path) -> None:
    code, out, err = found
    assert code == (1 if name == "diff" else 0), (name, err)
    written = files_of(name, folder)
    assert [path for path in written if path.stat().st_size] == written
    assert written or out, name


@pytest.mark.parametrize("package", NEEDS)
def test_without_a_package_what_needs_it_names_it(package: str, tmp_path: Path) -> None:
    for name, result in without((package,), NEEDS[package], tmp_path).items():
        check_names(package, name, result, tmp_path)


GROUPS = (
    ("torch",),
    ("torchvision", "timm"),
    ("numpy",),
    ("pygraphviz", "matplotlib", "jinja2", "safetensors", "onnx"),
)
"""Packages that are left out at once, so that torch is imported in few processes."""


@pytest.mark.slow
@pytest.mark.parametrize("packages", GROUPS, ids=", ".join)
def test_without_packages_the_rest_works(packages: tuple[str, ...], tmp_path: Path) -> None:
    needs = set().union(*(NEEDS[package] | MAY_NEED.get(package, set()) for package in packages))
    assert {package for group in GROUPS for package in group} == NEEDS.keys()
    for name, result in without(packages, COMMANDS.keys() - needs, tmp_path).items():
        check_works(name, result, tmp_path)


def check_names(package: str, name: str, result: tuple[int, str, str], folder: Path) -> None:
    code, out, err = result
    assert (code, out) == (2, ""), name
    assert err.startswith("vggscope: "), name
    assert err.count("\n") == 2, (name, err)
    # pip fetches numpy with matplotlib.
    missing = "(numpy|matplotlib)" if package == "numpy" else package
    assert re.search(rf"pip install .*{missing}", err), (name, err)
    assert not [path for path in files_of(name, folder) if path.exists()]


def files_of(name: str, folder: Path) -> list[Path]:
    """The files that a command writes."""
    return [Path(word.format(folder=folder)) for word in COMMANDS[name] if word.startswith("{folder}/x")]


def spoken(*words: str, env: Mapping[str, str | None] | None = None, flags: tuple[str, ...] = (), **options: object):
    """Run the program with a changed environment; a variable that is None is left out."""
    changed = {**os.environ, **(env or {})}
    kept = {name: value for name, value in changed.items() if value is not None}
    command = [sys.executable, *flags, "-m", "vggscope", *words]
    return subprocess.run(command, capture_output=True, check=False, env=kept, **options)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "words", [("summary", "A"), ("diff", "C", "--ref", "D"), ("list",), ("memory", "A"), ("rf", "A")]
)
def test_a_c_locale_gets_ascii(words: tuple[str, ...]) -> None:
    env = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
    done = spoken(*words, env=env)
    assert done.returncode == (1 if words[0] == "diff" else 0), done.stderr
    assert done.stdout.isascii()
    assert done.stderr == b""


def test_an_ascii_stdout_shows_other_letters_as_question_marks(tmp_path: Path) -> None:
    path = tmp_path / "größe.toml"
    path.write_text('[columns]\n"größe" = "conv3-8 FC-10"\n', encoding="utf-8")
    done = spoken("summary", f"{path}:größe", env={"PYTHONIOENCODING": "ascii"})
    assert done.returncode == 0
    assert done.stdout.startswith(b"gr??e ")
    missing = spoken("summary", f"{path}:süd", env={"PYTHONIOENCODING": "ascii"})
    assert missing.returncode == 2
    assert missing.stderr.isascii()


def on_a_terminal(*words: str, columns: int = 80, env: Mapping[str, str] | None = None) -> str:
    """What the program writes to a terminal of that many columns."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    kept = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM")}
    command = [sys.executable, "-m", "vggscope", *words]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env={**kept, "TERM": "xterm", **(env or {})})
    os.close(theirs)
    data = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:
            break
        if not part:
            break
        data += part
    os.close(ours)
    assert process.wait(30) == 0
    return data.decode().replace("\r\n", "\n")


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
@pytest.mark.parametrize("columns", [40, 300])
@pytest.mark.parametrize("words", [("summary", "D"), ("memory", "D"), ("diff", "C", "--ref", "paper"), ("list",)])
def test_no_line_is_wider_than_the_terminal(words: tuple[str, ...], columns: int) -> None:
    text = re.sub(r"\x1b\[[0-9;]*m", "", on_a_terminal(*words, columns=columns))
    assert max(map(len, text.split("\n"))) <= columns


@pytest.mark.skipif(os.name != "posix", reason="a pseudo-terminal")
def test_a_terminal_gets_colour_unless_it_is_dumb_or_asks_for_none() -> None:
    assert "\x1b[" in on_a_terminal("summary", "A")
    for env in ({"TERM": "dumb"}, {"NO_COLOR": "1"}):
        assert "\x1b" not in on_a_terminal("summary", "A", env=env)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder in which nobody can write")
@pytest.mark.parametrize("words", [("summary", "A"), ("diagram", "A", "-o", "{folder}/x.png"), ("list",)])
def test_neither_a_home_nor_a_folder_to_write_in_is_needed(words: tuple[str, ...], tmp_path: Path) -> None:
    env = {"HOME": None, "VGGSCOPE_CACHE": None, "XDG_CACHE_HOME": None, "USER": None, "LOGNAME": None}
    done = spoken(*(word.format(folder=tmp_path) for word in words), env=env, cwd="/proc")
    assert done.returncode == 0, done.stderr
    assert done.stderr.count(b"\n") <= 1
    assert b"wrote" in done.stderr or not done.stderr


@cache
def spoken_plainly(*words: str) -> subprocess.CompletedProcess[bytes]:
    done: subprocess.CompletedProcess[bytes] = spoken(*words)
    return done


@pytest.mark.slow
@pytest.mark.parametrize("flags", [("-O",), ("-OO",), ("-W", "error"), ("-X", "dev", "-W", "error"), ("-I",)])
def test_every_way_to_start_python_gives_the_same(flags: tuple[str, ...]) -> None:
    for words, code in ((("summary", "A"), 0), (("diff", "C", "--ref", "D"), 1), (("summary", "Z9"), 2)):
        done, expected = spoken(*words, flags=flags), spoken_plainly(*words)
        assert done.returncode == code, done.stderr
        assert (done.stdout, done.stderr) == (expected.stdout, expected.stderr)


def test_an_argument_that_is_no_literal_is_refused_without_asserts() -> None:
    from vggscope.errors import ModelError
    from vggscope.sources.code import parse

    for call in ("Net(1)(2)", "Net(1)+(2)", "Net(**{})", "Net(**{'a': 1})", "Net(x)", "Net(1"):
        with pytest.raises(ModelError):
            parse(f"x.py:{call}")
    assert parse("x.py:Net(1, a=2)").kwargs == (("a", 2),)
    done = spoken("summary", "x.py:Net(1)+(2)", flags=("-O",))
    assert done.returncode == 2
    assert b"are not literals" in done.stderr
