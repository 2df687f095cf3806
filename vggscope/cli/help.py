"""The text of `--help`, and the messages on a command line that cannot be parsed."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vggscope.errors import OptionError, printable

OWN = "Options"
"""The heading of the options that only this command takes."""

START = {
    "vggscope summary D": "what is in VGG-16, layer by layer",
    "vggscope diagram E -o vgg19.svg": "what VGG-19 looks like",
    "vggscope diff my_vgg.py:VGG": "whether your own is right",
    "vggscope explain conv": "a convolution worked by hand",
}
"""Commands to try first, with what they show."""


def version() -> str:
    """The text that `--version` prints."""
    from vggscope._version import __version__

    return f"vggscope {__version__}"


def start(ctx: Any) -> str:
    """The text that the program prints without a command."""
    formatter = ctx.make_formatter()
    formatter.write_text("vggscope looks into VGG networks, and any PyTorch model.")
    with formatter.section("Try"):
        _write_rows(formatter, START.items(), max(map(len, START)))
    formatter.write_paragraph()
    formatter.write_text("All commands: vggscope --help. One of them: vggscope summary --help. Models: vggscope list.")
    return str(formatter.getvalue())


def write_commands(group: Any, groups: Mapping[str, Mapping[str, str]], ctx: Any, formatter: Any) -> None:
    """Write the help of the program: its commands in groups, then its options."""
    group.format_usage(ctx, formatter)
    _write_text(formatter, group.help)
    for title, commands in groups.items():
        with formatter.section(title):
            _write_rows(formatter, commands.items(), max(len(name) for names in groups.values() for name in names))
    _write_options(group, ctx, formatter)
    formatter.write_paragraph()
    formatter.write_text("What a command takes: vggscope COMMAND --help. What MODEL may be: vggscope summary --help.")


def write_command(command: Any, ctx: Any, formatter: Any) -> None:
    """Write the help of a command: its purpose, examples, arguments and options."""
    text, examples = parted(command.help or "")
    command.format_usage(ctx, formatter)
    _write_text(formatter, text)
    with formatter.section("Examples"):
        for example in examples:
            formatter.write("".join(f"{line}\n" for line in example_lines(example, formatter.width)))
    _write_options(command, ctx, formatter)


def parted(docstring: str) -> tuple[str, tuple[str, ...]]:
    r"""Split a command's docstring into its text and its examples.

    >>> parted("Draw a model.\n\nExample: vggscope diagram E -o vgg19.svg")
    ('Draw a model.', ('vggscope diagram E -o vgg19.svg',))
    """
    examples = tuple(re.findall(r"^Example: (.+)$", docstring, re.MULTILINE))
    return re.sub(r"^Example: .+\n*", "", docstring, flags=re.MULTILINE).strip(), examples


def groups_of(command: Any, ctx: Any) -> Iterator[tuple[str, list[Any]]]:
    """A command's arguments and options by heading: its own before those that it shares with other commands."""
    groups: dict[str, list[Any]] = {"Arguments": [], OWN: []}
    for param in command.get_params(ctx):
        if param.param_type_name == "argument":
            groups["Arguments"].append(param)
        elif not param.hidden:
            groups.setdefault(param.rich_help_panel or OWN, []).append(param)
    yield from ((heading, params) for heading, params in groups.items() if params)


def _write_options(command: Any, ctx: Any, formatter: Any) -> None:
    groups = [
        (heading, [param.get_help_record(ctx) for param in params]) for heading, params in groups_of(command, ctx)
    ]
    widest = max(len(name) for _, rows in groups for name, _ in rows)
    for heading, rows in groups:
        with formatter.section(heading):
            _write_rows(formatter, rows, widest)


def _write_text(formatter: Any, text: str) -> None:
    formatter.write_paragraph()
    with formatter.indentation():
        formatter.write_text(text)


def _write_rows(formatter: Any, rows: Any, widest: int) -> None:
    """Write names and explanations in two columns, as wide in all sections of a page."""
    first = min(widest, max(formatter.width // 2 - 6, 12))
    rows = [(name.ljust(first), text) for name, text in rows]
    formatter.write_dl(rows, col_max=first)


def example_lines(example: str, width: int, indent: str = "  ") -> list[str]:
    r"""An example on lines of at most `width` columns, joined by backslashes. An option and its value share a line.

    >>> print(*example_lines("vggscope diagram E -o vgg19.svg", 24), sep="\n")
      vggscope diagram E \
        -o vgg19.svg
    """
    lines = [indent]
    for part in re.findall(r"--?[a-z-]+ [^\s-]\S*|\"[^\"]*\"|\S+", example):
        if lines[-1].strip() and len(lines[-1]) + len(part) + 2 > width:
            lines[-1] += "\\"
            lines.append(indent * 2)
        lines[-1] += f"{part} "
    return [line.rstrip(" ") for line in lines]


_MEANT_COMMANDS = {
    "help": "--help",
    "version": "--version",
    **dict.fromkeys(("show", "info", "params", "count"), "summary"),
    **dict.fromkeys(("draw", "plot"), "diagram"),
    **dict.fromkeys(("export", "generate"), "build"),
    **dict.fromkeys(("check", "test"), "verify"),
}
"""Words that other tools use as commands, with the command or option that does this here."""

_MEANT_OPTIONS = {
    **dict.fromkeys(("--batch-size", "--batch_size", "--batchsize", "--bs"), "--batch"),
    **dict.fromkeys(("--input-size", "--input_size", "--image-size", "--size", "--shape"), "--input"),
    "--layer": "--at",
    "--reference": "--ref",
    "--precision": "--dtype",
    "--file": "--output",
}
"""Options of other tools, with the option that is the same here."""

_COLOUR_OPTIONS = frozenset(f"--{no}{word}" for no in ("", "no-") for word in ("color", "colour", "colors", "colours"))


def require_model(word: str, commands: Sequence[str]) -> None:
    """Raise OptionError unless a word that is no command is a model. It names the nearest command, or `explain`."""
    from vggscope.sources.resolve import is_model
    from vggscope.sources.unknown import meant, meant_pattern, several_models, unknown_model
    from vggscope.tutorials import TOPICS

    if word in TOPICS:
        raise OptionError(f"{word!r} is a topic, no command", f"for example vggscope explain {word}")
    if is_model(word):
        return
    meant_command = _MEANT_COMMANDS.get(word.lower())
    near = [meant_command] if meant_command else difflib.get_close_matches(word.lower(), commands, n=1)
    if near:
        raise OptionError(f"unknown command {word!r}, did you mean {near[0]}?", "see vggscope --help")
    if meant(word) or meant_pattern(word) or several_models(word):
        raise unknown_model(word)
    raise OptionError(f"{word!r} is neither a command nor a model", f"commands are {', '.join(commands)}")


def usage_error(error: Any, command: str = "") -> tuple[str, str]:
    """The problem and the remedy of an error of typer's. `command` is the command, if the error names none."""
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else f"vggscope {command}".rstrip()
    problem, remedy = " ".join(str(error.format_message()).split()), f"see {path} --help"
    option = getattr(error, "option_name", None)
    if number := re.search(r"Invalid value for '(--[\w-]+)'[^:]*: (.*) is not a valid (int|float)", problem):
        kind = "a whole number" if number[3] == "int" else "a number"
        problem = f"{number[1]} is {kind}, not {printable(number[2])}"
    elif "No such option" in problem and option:
        known = _options(ctx)
        near = [name for name in known if name == _MEANT_OPTIONS.get(option)]
        near = near or difflib.get_close_matches(option, known, n=1, cutoff=0.65)
        problem = f"no option {option}" + (f", did you mean {near[0]}?" if near else "")
        if option in _COLOUR_OPTIONS:
            problem, remedy = f"no option {option}", f"NO_COLOR=1 {path} ... for plain text, FORCE_COLOR=1 for colour"
        elif path == "vggscope" and not near:
            remedy = "a command's options come after it: vggscope COMMAND MODEL --option"
    elif "requires an argument" in problem and option:
        problem = f"{option} needs a value"
    elif "Missing " in problem and ctx is not None:
        _, examples = parted(ctx.command.help or "")
        remedy = f"for example {examples[0]}; {remedy}" if examples else remedy
    elif "extra argument" in problem and (line := _notation(ctx, problem)):
        remedy = f'a line of notation is one word: {path} "{line}"'
    elif "extra argument" in problem and path.endswith("summary") and ctx is not None:
        remedy = f"several models: vggscope compare {ctx.params.get('model')} {problem.rpartition('(')[2].rstrip(')')}"
    return problem, remedy


def _options(ctx: Any) -> list[str]:
    params = ctx.command.get_params(ctx) if ctx is not None else []
    return [name for param in params for name in (*param.opts, *param.secondary_opts) if name.startswith("--")]


def _notation(ctx: Any, problem: str) -> str:
    """The line of notation that MODEL and the arguments after it, which stand in parentheses in the problem, are."""
    from vggscope.vgg.notation import is_notation, respelled

    model = ctx.params.get("model") if ctx is not None else None
    if not isinstance(model, str):
        return ""
    line = f"{model} {problem.rpartition('(')[2].rstrip(')')}"
    return respelled(line) or ("conv3-64 maxpool FC-10" if is_notation(line) else "")
