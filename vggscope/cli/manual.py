"""The man page, vggscope(1), written from the program itself.

`man/vggscope.1` is what `manual()` gives; a test holds them together, and `pytest --update-golden` writes it anew.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from typer.main import get_command

from vggscope._version import __version__
from vggscope.cli.app import GROUPS, app
from vggscope.cli.help import OWN, START, example_lines, groups_of, parted
from vggscope.sources.cache import FOLDER
from vggscope.sources.resolve import SOURCES

DATE = "2026-11-24"
"""Of this text."""

EXAMPLE_WIDTH = 72
"""Columns of an example: with the page's indent it fits 80."""

EXIT_STATUS = {
    "0": "Done. Of `diff`: identical, or equivalent unless --strict is given; of `verify`: all agree.",
    "1": "`diff` found a difference, `verify` a disagreement, `explain --torch` that torch says otherwise.",
    "2": "Anything wrong: usage, bad input, a file that cannot be written, a package that is missing. Two lines on"
    " standard error say what was wrong and what would work; --debug adds a traceback.",
    "130, 143": "Interrupted, terminated: a file that was being written is as it was before.",
}

ENVIRONMENT = {
    "NO_COLOR": "If it is set and not empty, output has no colour.",
    "FORCE_COLOR": "If it is set and not empty, output has colour where it goes to a pipe or a file too.",
    "COLUMNS": "How wide output is, in characters. Left out, that of the terminal; a pipe gets 120.",
    "TERM": "If it is dumb, output has no colour.",
    FOLDER: "The folder in which libraries' models are remembered.",
}

FILES = {
    "~/.cache/vggscope": f"What libraries' models turned out to be, so that a second diff loads no torch; it may be"
    f" deleted at any time. {FOLDER} names another, and other systems have other places for it.",
    "columns.toml": "Networks of your own, for a MODEL such as columns.toml:small: a table [columns] of NAME ="
    ' "notation".',
}

SEE_ALSO = (
    "The paper: Karen Simonyan and Andrew Zisserman, Very Deep Convolutional Networks for Large-Scale Image"
    " Recognition, arXiv 1409.1556 (2014)."
)


def manual() -> str:
    """The page, as roff with the man macros."""
    root: Any = get_command(app)
    ctx = root.make_context("vggscope", [], resilient_parsing=True)
    commands = {name: root.get_command(ctx, name) for group in GROUPS.values() for name in group}
    shared = _shared(commands)
    return "".join(
        f"{line}\n"
        for line in (
            f'.TH VGGSCOPE 1 {DATE} "vggscope {__version__}" "User Commands"',
            ".ad l",
            *_section("NAME", [rf"vggscope \- {_escaped('look into VGG networks, and any PyTorch model')}"]),
            *_section("SYNOPSIS", [r".B vggscope", r"\fICOMMAND\fR [\fIARGUMENTS\fR] [\fIOPTIONS\fR]"]),
            *_section("DESCRIPTION", _text(root.help)),
            *_terms(dict(item for group in GROUPS.values() for item in group.items())),
            *_section("MODELS", _text("A MODEL is one word:")),
            *_terms({source.example: source.title for source in SOURCES}),
            *_section("OPTIONS", _text("Of the program itself; they stand before the command.")),
            *_options(root.get_params(ctx), ctx),
            *(line for heading, (params, of) in shared.items() for line in _shared_group(heading, params, of)),
            *_section("COMMANDS", []),
            *(line for name, command in commands.items() for line in _command(name, command, shared)),
            *_section("EXIT STATUS", _terms(EXIT_STATUS)),
            *_section("ENVIRONMENT", _terms(ENVIRONMENT)),
            *_section("FILES", _terms(FILES)),
            *_section("EXAMPLES", _terms(START)),
            *_section("SEE ALSO", [r".BR dot (1)", ".PP", *_text(SEE_ALSO)]),
        )
    )


def _shared(commands: Mapping[str, Any]) -> dict[str, tuple[list[Any], Any]]:
    """The groups of options that several commands take, each once, with a context that it can be shown in."""
    counted: dict[str, int] = {}
    found: dict[str, tuple[list[Any], Any]] = {}
    for name, command in commands.items():
        ctx = _context(name, command)
        for heading, params in groups_of(command, ctx):
            if heading not in (OWN, "Arguments"):
                counted[heading] = counted.get(heading, 0) + 1
                found.setdefault(heading, (params, ctx))
    return {heading: group for heading, group in found.items() if counted[heading] > 1}


def _shared_group(heading: str, params: list[Any], ctx: Any) -> Iterator[str]:
    yield f".SS {_quoted(heading)}"
    yield from _options(params, ctx)


def _command(name: str, command: Any, shared: Mapping[str, object]) -> Iterator[str]:
    ctx = _context(name, command)
    text, examples = parted(command.help)
    arguments = [param for param in command.params if param.param_type_name == "argument"]
    usage = (param.metavar if param.required else f"[{param.metavar}]" for param in arguments)
    yield f".SS {_quoted(' '.join(('vggscope', name, *usage)))}"
    for position, paragraph in enumerate(text.split("\n\n")):
        yield from ([".PP"] if position else [])
        yield from _text(paragraph)
    for example in examples:
        yield from (".PP", ".EX", *map(_escaped, example_lines(example, EXAMPLE_WIDTH, indent="    ")), ".EE")
    taken = []
    for heading, params in groups_of(command, ctx):
        if heading in shared:
            taken += [max(param.opts, key=len) for param in params]
        else:
            yield from _options([param for param in params if not _is_said_once(param)], ctx)
    if taken:
        yield ".PP"
        yield from _text(f"It takes {', '.join(taken)} too.")


def _is_said_once(param: Any) -> bool:
    """Whether the page says elsewhere what a parameter is, for all commands."""
    return "--help" in param.opts or str(param.metavar).startswith("MODEL")


def _context(name: str, command: Any) -> Any:
    return command.make_context(name, [], resilient_parsing=True)


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield f".SH {_quoted(title)}"
    yield from lines


def _options(params: Iterable[Any], ctx: Any) -> Iterator[str]:
    for param in params:
        name, about = param.get_help_record(ctx)
        name = param.metavar if param.param_type_name == "argument" else name
        yield ".TP"
        yield re.sub(r"(?<!\S)(\\-\S*[^\s,])", r"\\fB\1\\fR", _italic(_escaped(name)))
        yield from _text(re.sub(r"\s+\[required\]$", "", about))


def _italic(name: str) -> str:
    """An option with its value, or an argument, set apart."""
    return re.sub(r"(?<![\w\\-])([A-Z][\w|.,]*(?:x[A-Z]\w*)*)", r"\\fI\1\\fR", name)


def _terms(terms: Mapping[str, str]) -> Iterator[str]:
    for name, about in terms.items():
        yield ".TP"
        yield rf"\fB{_escaped(name)}\fR"
        yield from _text(about)


def _text(text: str) -> list[str]:
    """Running text, in lines that a person can edit too."""
    text = re.sub(r"`([^`]*)`", r"\1", " ".join(text.split()))
    lines = textwrap.wrap(text, 64, break_long_words=False, break_on_hyphens=False)
    return [" ".join(map(_whole, _escaped(line).split(" "))) for line in lines]


def _whole(word: str) -> str:
    """A word that roff does not part at the end of a line, if it is an option: it could not be searched for."""
    return rf"\%{word}" if r"\-" in word else word


def _quoted(text: str) -> str:
    return '"' + _escaped(text).replace('"', r"\(dq") + '"'


def _escaped(text: str) -> str:
    r"""Text as roff reads it: nothing in it is a request or an escape, and a hyphen can be copied as one.

    >>> print(_escaped(".so it's a \\ -1"))
    \&.so it\(aqs a \e \-1
    """
    for plain, roff in (("\\", r"\e"), ("-", r"\-"), ("'", r"\(aq"), ("`", r"\(ga"), ("^", r"\(ha"), ("~", r"\(ti")):
        text = text.replace(plain, roff)
    text = re.sub(r"[^\x00-\x7f]", lambda found: rf"\[u{ord(found[0]):04X}]", text)
    return rf"\&{text}" if text.startswith(".") else text
