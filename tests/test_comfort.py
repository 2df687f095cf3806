"""Help, examples, near words and the man page: what a person meets who asks the program about itself."""

from __future__ import annotations

import re
import runpy
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from vggscope.cli.app import COMMANDS, GROUPS, app
from vggscope.cli.help import START, parted

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "man" / "vggscope.1"
MANUAL = runpy.run_path(str(ROOT / "docs" / "manual.py"))
ENVIRONMENT = MANUAL["ENVIRONMENT"]


def commands() -> dict[str, Any]:
    root = get_command(app)
    return {name: root.get_command(None, name) for name in COMMANDS}  # type: ignore[attr-defined]


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_help_fits_the_terminal(vggscope, monkeypatch, width) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for words in ([], ["--help"], *([name, "--help"] for name in COMMANDS)):
        ran = vggscope(*words)
        assert ran.code == 0
        assert ran.err == ""
        widest = max(ran.out.split("\n"), key=len)
        # A name that is longer than its column has a line of its own.
        assert len(widest) <= min(width, 80) or " " not in widest.strip(), widest
        assert "│" not in ran.out
        assert "\x1b" not in ran.out


def test_help_has_every_command_in_its_group_with_a_line(vggscope) -> None:
    out = vggscope("--help").out
    for title, group in GROUPS.items():
        section = re.search(rf"^{title}:\n((?:  .+\n)+)", out, re.MULTILINE)
        assert section is not None
        assert [line.split()[0] for line in section[1].splitlines()] == list(group)
        for about in group.values():
            assert about in section[1]  # none is cut off, none wraps
    assert {name for group in GROUPS.values() for name in group} == set(COMMANDS)


def test_a_commands_help_has_its_own_options_before_those_that_it_shares(vggscope) -> None:
    headings = re.findall(r"^(\S.*):$", vggscope("summary", "--help").out, re.MULTILINE)
    assert headings == [
        *("Examples", "Arguments", "Options"),
        *("How the model is built", "Batch and numbers", "Where the result goes"),
    ]
    assert vggscope("summary", "--help").out.startswith("Usage: vggscope summary [OPTIONS] MODEL\n")
    own = vggscope("diff", "--help").out.partition("Options:")[2].partition("How the model is built:")[0]
    assert "--ref" in own
    assert "--input" not in own


def examples() -> list[tuple[str, str]]:
    """The examples of every page, and of the start."""
    found = [(name, example) for name, command in commands().items() for example in parted(command.help)[1]]
    return [*found, *((shlex.split(example)[1], example) for example in START)]


def test_every_command_has_two_examples() -> None:
    of = [name for name, _ in examples()]
    assert all(of.count(name) >= 2 for name in COMMANDS)


@pytest.mark.parametrize(("name", "example"), examples(), ids=lambda value: value)
def test_an_example_is_read_as_a_command_line(name, example) -> None:
    """Its options are there and their values are of the right kind."""
    program, command, *words = shlex.split(example)
    assert (program, command) == ("vggscope", name)
    commands()[name].make_context(name, words)


RUN = [
    example
    for _, example in examples()
    if not re.search(r"my_vgg|\.pth|weights\.|verify|resnet|--refs|\.html|table1|--at features|vggscope mcp", example)
]


@pytest.mark.slow
@pytest.mark.parametrize("example", RUN)
def test_an_example_runs(vggscope, tmp_path, monkeypatch, example) -> None:
    monkeypatch.chdir(tmp_path)
    ran = vggscope(*shlex.split(example)[1:])
    assert ran.code == (1 if "diff C" in example else 0), ran.err


def test_an_example_that_wraps_is_still_one_command(vggscope, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    out = vggscope("compare", "--help").out
    joined = out.replace("\\\n", " ")
    wanted = parted(commands()["compare"].help)[1][-1]
    assert wanted in re.sub(r" +", " ", joined)


def test_without_arguments_the_program_shows_commands_to_try(vggscope) -> None:
    ran = vggscope()
    assert (ran.code, ran.err) == (0, "")
    assert all(example in ran.out for example in START)
    assert "vggscope --help" in ran.out
    assert "Usage" not in ran.out
    assert len(ran.out.splitlines()) <= 10


NEAR = [
    (("summry", "D"), "did you mean summary?"),
    (("expalin", "conv"), "did you mean explain?"),
    (("lrn",), "for example vggscope explain lrn"),
    (("summary", "D", "--colums", "op"), "no option --colums, did you mean --columns?"),
    (("diff", "A", "--reff", "D"), "did you mean --ref?"),
    (("--input", "3x32x32", "summary", "D"), "a command's options come after it"),
    (("summary",), "for example vggscope summary D"),
    (("summary", "D", "--batch"), "--batch needs a value\nsee vggscope summary --help"),
    (("explain", "conv", "--size", "2", "--kernel", "5"), "a --kernel of up to 4 fits, or a --size from 3 on"),
    (("report", "D"), "for example vggscope report D -o vgg16.html"),
    (("summary", "conv3-64", "FC-10"), "a line of notation is one word"),
    (("summary", "vgg17"), "did you mean vgg19?"),
    (("summary", "resnet50d"), "did you mean timm:resnet50d?"),
    (("summary", "torchvision.models.resnet18"), "did you mean torchvision:resnet18?"),
    (("summary", "my_vgg.Net"), "did you mean my_vgg.py:Net?"),
    (("summary", "torchvision"), "did you mean torchvision:vgg16?"),
    (("summary", "torchvison:vgg16"), "did you mean torchvision?"),
    (("summary", "my_vg.py:Net"), "did you mean my_vgg.py?"),
    (("summary", "colums.toml:small"), "did you mean columns.toml?"),
    (("summary", "columns.toml:smal"), "did you mean small?"),
    (("inspect", "vgg.pht"), "did you mean vgg.pth?"),
    (("rf", "D", "--at", "conv53"), "near it: conv5_3"),
    (("explain", "D", "conv3_9"), "near it: conv3_3"),
    (("build", "D", "--at", "feature"), "the nearest are features"),
    (("explain", "covn"), "did you mean conv?"),
    (("summary", "D", "--format", "jsn"), "did you mean json?"),
    (("summary", "D", "--columns", "layr"), "did you mean layer?"),
    (("summary", "D", "--head", "adaptve"), "did you mean adaptive?"),
    (("summary", "D", "--dtype", "flaot32"), "did you mean float32?"),
    (("summary", "D", "--gpu", "H10"), "did you mean H100?"),
    (("memory", "D", "--gpu", "RTX 409"), "did you mean RTX 4090?"),
    (("memory", "D", "--mode", "trian"), "did you mean train?"),
    (("memory", "D", "--optimizer", "adamm"), "did you mean adam?"),
    (("memory", "D", "--parallel", "zero"), "did you mean zero1?"),
    (("diagram", "E", "-o", "x.svg", "--style", "block"), "did you mean blocks?"),
    (("diagram", "E", "-o", "x.svg", "--theme", "drak"), "did you mean dark?"),
    (("memory", "D", "-o", "x.svg", "--theme", "ligth"), "did you mean light?"),
    (("diff", "A", "--ref", "torchvison"), "did you mean torchvision?"),
    (("diff", "A", "--ref", "papper"), "did you mean paper?"),
    (("diff", "A", "--ref", "D", "--ignore", "dropot"), "did you mean dropout?"),
]


@pytest.mark.parametrize(("words", "said"), NEAR, ids=lambda value: " ".join(value) if isinstance(value, tuple) else "")
def test_a_mistyped_word_gets_a_suggestion(vggscope, tmp_path, monkeypatch, words, said) -> None:
    (tmp_path / "my_vgg.py").touch()
    (tmp_path / "vgg.pth").touch()
    (tmp_path / "columns.toml").write_text('[columns]\nsmall = "conv3-8 FC-10"\n')
    monkeypatch.chdir(tmp_path)
    ran = vggscope(*words)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err
    assert 1 <= ran.err.count("\n") <= 2


def test_an_unrelated_word_gets_no_suggestion(vggscope) -> None:
    for words in (("xyzzy",), ("summary", "xyzzy"), ("summary", "D", "--head", "round"), ("explain", "xyzzy")):
        ran = vggscope(*words)
        assert ran.code == 2
        assert "did you mean" not in ran.err


# The man page.


def test_the_man_page_is_generated_from_the_program(request) -> None:
    text = MANUAL["manual"]()
    if request.config.getoption("--update-golden"):
        PAGE.write_text(text, encoding="utf-8")
    assert text == PAGE.read_text(encoding="utf-8")


def test_text_is_escaped_for_roff() -> None:
    assert MANUAL["_escaped"](".so it's a \\ -1 ü") == r"\&.so it\(aqs a \e \-1 \[u00FC]"


def test_the_man_page_has_the_usual_sections() -> None:
    text = PAGE.read_text(encoding="utf-8").replace("\\-", "-").replace("\\%", "")
    sections = re.findall(r'^\.SH "(.+)"$', text, re.MULTILINE)
    assert sections == [
        *("NAME", "SYNOPSIS", "DESCRIPTION", "MODELS", "OPTIONS", "COMMANDS"),
        *("EXIT STATUS", "ENVIRONMENT", "FILES", "EXAMPLES", "SEE ALSO"),
    ]
    for name, command in commands().items():
        assert f'.SS "vggscope {name}' in text
        for param in command.params:
            assert max(param.opts, key=len) in text or param.param_type_name == "argument"


def test_the_man_page_names_every_variable_that_the_program_reads() -> None:
    read = set()
    for path in (ROOT / "vggscope").rglob("*.py"):
        read |= set(re.findall(r"environ(?:\.get\(|\[)\"(\w+)\"|\"(\w+)\" in os\.environ", path.read_text("utf-8")))
    named = {name for pair in read for name in pair if name and not name.startswith("_")}
    assert named <= set(ENVIRONMENT)
    assert {"NO_COLOR", "FORCE_COLOR", "VGGSCOPE_CACHE", "COLUMNS"} <= set(ENVIRONMENT)


LINTERS = {
    "mandoc": ["mandoc", "-Tlint", str(PAGE)],
    "groff": ["groff", "-ww", "-man", "-Tutf8", "-z", str(PAGE)],
    "man": ["man", "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", str(PAGE)],
}


@pytest.mark.parametrize("linter", list(LINTERS))
def test_linters_accept_the_man_page(linter) -> None:
    if shutil.which(linter) is None:
        pytest.skip(f"no {linter} here")
    done = subprocess.run(LINTERS[linter], capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert linter == "man" or done.stdout == ""


def test_examples_and_options_can_be_copied_from_the_man_page() -> None:
    """As it is shown: options are whole and begin with hyphens, quotes are straight, examples are those of `--help`."""
    if shutil.which("mandoc") is None:
        pytest.skip("no mandoc here")
    done = subprocess.run(["mandoc", "-Tutf8", "-O", "width=80", str(PAGE)], capture_output=True, text=True, check=True)
    shown = re.sub(r".\x08", "", done.stdout)
    assert max(map(len, shown.split("\n"))) <= 80
    flat = re.sub(r"\s+", " ", shown.replace("\\\n", " "))
    for _, example in examples():
        assert example in flat
    assert not set("‐−‘’“”") & set(shown)
