"""Write man/vggscope.1 from the program: `python docs/manual.py`, or `pytest --update-golden tests/test_comfort.py`.

The page has one section for all commands, with the options that several commands share once. click-man cannot read the
click that typer brings along, and what docutils' writer produces changes with its version.
"""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from typer.main import get_command

from vggscope._version import __version__
from vggscope.cli.app import COMMANDS, app
from vggscope.cli.help import OWN, START, example_lines, groups_of, parted
from vggscope.sources.cache import FOLDER
from vggscope.sources.resolve import SOURCES

PAGE = Path(__file__).parent.parent / "man" / "vggscope.1"

DATE = "2026-11-29"
"""The day on which the page last changed."""

EXAMPLE_WIDTH = 72
"""Columns of an example, which fits 80 with the page's indent."""

EXIT_STATUS = {
    "0": "Done. Of `diff`: identical, or equivalent unless --strict is set; of `verify`: all tools agree.",
    "1": "`diff` found a difference, `verify` a disagreement, `explain --torch` that torch computes something else.",
    "2": "Anything wrong: usage, bad input, a file that cannot be written, a package that is missing. Two lines on"
    " standard error state the problem and the remedy; --debug adds a traceback.",
    "130, 143": "Interrupted, terminated: a file that was being written is as it was before.",
}

ENVIRONMENT = {
    "NO_COLOR": "If set and not empty, output has no colour.",
    "FORCE_COLOR": "If set and not empty, output has colour in a pipe or a file too.",
    "COLUMNS": "The width of output in characters. By default it is that of the terminal, and 120 in a pipe.",
    "TERM": "If it is dumb, output has no colour.",
    FOLDER: "The folder in which libraries' models are remembered.",
}

FILES = {
    "~/.cache/vggscope": "What is known of libraries' models, so that a second command loads no torch; it may be"
    f" deleted at any time. {FOLDER} names another folder, and other systems have other places for it.",
    "columns.toml": "Networks of your own, for a MODEL such as columns.toml:small: a table [columns] of NAME ="
    ' "notation".',
}

SEE_ALSO = (
    "The paper: Karen Simonyan and Andrew Zisserman, Very Deep Convolutional Networks for Large-Scale Image"
    " Recognition, arXiv 1409.1556 (2014)."
)


def manual() -> str:
    """The page, in roff with the man macros."""
    root: Any = get_command(app)
    ctx = root.make_context("vggscope", [], resilient_parsing=True)
    commands = {name: root.get_command(ctx, name) for name in COMMANDS}
    contexts = {name: command.make_context(name, [], resilient_parsing=True) for name, command in commands.items()}
    groups = {name: dict(groups_of(command, contexts[name])) for name, command in commands.items()}
    uses = Counter(heading for own in groups.values() for heading in own if heading not in (OWN, "Arguments"))
    shared = [heading for heading, number in uses.items() if number > 1]
    lines = [
        f'.TH VGGSCOPE 1 {DATE} "vggscope {__version__}" "User Commands"',
        ".ad l",
        *_section("NAME", [rf"vggscope \- {_escaped('look into VGG networks, and any PyTorch model')}"]),
        *_section("SYNOPSIS", [r".B vggscope", r"\fICOMMAND\fR [\fIARGUMENTS\fR] [\fIOPTIONS\fR]"]),
        *_section("DESCRIPTION", [*_text(root.help), *_terms(COMMANDS)]),
        *_section("MODELS", [*_text("A MODEL is one word:"), *_terms({s.example: s.title for s in SOURCES})]),
        *_section("OPTIONS", _text("Of the program itself; they stand before the command.")),
        *_options(root.get_params(ctx), ctx),
    ]
    for heading in shared:
        name = next(name for name in groups if heading in groups[name])
        lines += [f".SS {_quoted(heading)}", *_options(groups[name][heading], contexts[name])]
    lines += _section("COMMANDS", [])
    for name, command in commands.items():
        lines += _command(name, command, groups[name], contexts[name], shared)
    lines += [
        *_section("EXIT STATUS", _terms(EXIT_STATUS)),
        *_section("ENVIRONMENT", _terms(ENVIRONMENT)),
        *_section("FILES", _terms(FILES)),
        *_section("EXAMPLES", _terms(START)),
        *_section("SEE ALSO", [".BR dot (1)", ".PP", *_text(SEE_ALSO)]),
    ]
    return "\n".join(lines) + "\n"


def _command(
    name: str, command: Any, groups: Mapping[str, list[Any]], ctx: Any, shared: Iterable[str]
) -> Iterator[str]:
    text, examples = parted(command.help)
    arguments = groups.get("Arguments", [])
    usage = (param.metavar if param.required else f"[{param.metavar}]" for param in arguments)
    yield f".SS {_quoted(' '.join(('vggscope', name, *usage)))}"
    for position, paragraph in enumerate(text.split("\n\n")):
        yield from ([".PP"] if position else [])
        yield from _text(paragraph)
    for example in examples:
        yield from (".PP", ".EX", *map(_escaped, example_lines(example, EXAMPLE_WIDTH, indent="    ")), ".EE")
    for heading, params in groups.items():
        if heading not in shared:
            yield from _options([param for param in params if not _is_explained_once(param)], ctx)
    taken = [max(param.opts, key=len) for heading, params in groups.items() if heading in shared for param in params]
    if taken:
        yield ".PP"
        yield from _text(f"It takes {', '.join(taken)} too.")


def _is_explained_once(param: Any) -> bool:
    """Whether another section explains a parameter for all commands."""
    return "--help" in param.opts or str(param.metavar).startswith("MODEL")


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield f".SH {_quoted(title)}"
    yield from lines


def _options(params: Iterable[Any], ctx: Any) -> Iterator[str]:
    for param in params:
        name, about = param.get_help_record(ctx)
        name = _escaped(param.metavar if param.param_type_name == "argument" else name)
        values_in_italics = re.sub(r"(?<![\w\\-])([A-Z][\w|.,]*(?:x[A-Z]\w*)*)", r"\\fI\1\\fR", name)
        yield from (".TP", re.sub(r"(?<!\S)(\\-\S*[^\s,])", r"\\fB\1\\fR", values_in_italics))
        yield from _text(re.sub(r"\s+\[required\]$", "", about))


def _terms(terms: Mapping[str, str]) -> Iterator[str]:
    for name, about in terms.items():
        yield from (".TP", rf"\fB{_escaped(name)}\fR", *_text(about))


def _text(text: str) -> list[str]:
    r"""Running text in lines that a person can edit; `\%` keeps roff from hyphenating an option."""
    text = re.sub(r"`([^`]*)`", r"\1", " ".join(text.split()))
    lines = textwrap.wrap(text, 64, break_long_words=False, break_on_hyphens=False)
    return [re.sub(r"(?<!\S)(?=\S*\\-)", r"\\%", _escaped(line)) for line in lines]


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', r"\(dq") + '"'


def _escaped(text: str) -> str:
    """Text as roff reads it: nothing in it is a request or an escape, and a reader can copy its hyphens."""
    for plain, roff in (("\\", r"\e"), ("-", r"\-"), ("'", r"\(aq"), ("`", r"\(ga"), ("^", r"\(ha"), ("~", r"\(ti")):
        text = text.replace(plain, roff)
    text = re.sub(r"[^\x00-\x7f]", lambda match: rf"\[u{ord(match[0]):04X}]", text)
    return rf"\&{text}" if text.startswith(".") else text


if __name__ == "__main__":
    PAGE.write_text(manual(), encoding="utf-8")
