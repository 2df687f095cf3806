"""Completion in a shell: the words that can follow at the cursor.

`--install-completion` writes typer's scripts. At a tab, the script runs the program with the environment variable
COMPLETION_VARIABLE set, and the shell shows what it prints. `shells` reads the question and writes the answer in each
shell's protocol, and `words` lists the values of each kind of option. typer's own completion does neither split words
at bash's colons nor escape file names, and it imports every command to list them, which takes more than twice as long.

Nothing here imports torch, torchvision or timm, or runs a user's code. Every failure is silent, since a message would
appear in the line that is being typed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vggscope.cli.completion.shells import COMPLETION_VARIABLE, SHELLS, is_fish_condition

if TYPE_CHECKING:
    from typer import Typer

    from vggscope.cli.completion.words import Candidate


def answer(app: Typer, commands: Mapping[str, str]) -> str:
    """The text to print for the shell that asks, empty on any failure. `commands` maps each command to its help."""
    try:
        read, write = SHELLS[os.environ[COMPLETION_VARIABLE].removeprefix("complete_")]
        line = read(os.environ)
        return write(line, [] if is_fish_condition() else candidates(app, commands, line.words, line.word))
    except Exception:  # any error at all: the line that is being typed must stay as it is
        return ""


def candidates(app: Typer, commands: Mapping[str, str], words: Sequence[str], word: str) -> list[Candidate]:
    """The candidates at the cursor, after `words` and in place of `word`."""
    from typer.main import get_command

    root = get_command(app)
    at = next((i for i, known in enumerate(words) if not known.startswith("-")), None)
    if at is None:
        if word.startswith("-"):
            return _options(root, words, word)
        return [(name, about) for name, about in commands.items() if name.startswith(word)]
    command: Any = root.get_command(None, words[at])  # type: ignore[attr-defined]
    return _of_command(command, list(words[at + 1 :]), word) if command is not None else []


def _of_command(command: Any, words: list[str], word: str) -> list[Candidate]:
    with_value = {
        name: param
        for param in command.params
        if param.param_type_name == "option" and not param.is_flag
        for name in param.opts
    }
    name, equals, value = word.partition("=")
    if "--" not in words:
        if equals and name in with_value:
            return [(f"{name}={text}", about) for text, about in _values(command, with_value[name], words, value)]
        if words and words[-1] in with_value:
            return _values(command, with_value[words[-1]], words[:-1], word)
        if word.startswith("-"):
            return _options(command, words, word)
    ctx = command.make_context(command.name, list(words), resilient_parsing=True)
    for param in command.params:
        if param.param_type_name == "argument" and (param.nargs == -1 or ctx.params.get(param.name) is None):
            return _values(command, param, words, word)
    return _options(command, words, word or "--")


def _values(command: Any, param: Any, words: list[str], word: str) -> list[Candidate]:
    ctx = command.make_context(command.name, list(words), resilient_parsing=True)
    # No shell can show a file name that holds a line break.
    return [(item.value, item.help or "") for item in param.shell_complete(ctx, word) if item.value.isprintable()]


def _options(command: Any, words: Sequence[str], word: str) -> list[Candidate]:
    """The long options that are not in the line yet, in the order of `--help`."""
    from vggscope.cli.help import groups_of

    ctx = command.make_context(command.name, [], resilient_parsing=True)
    return [
        (name, param.help or "")
        for _, params in groups_of(command, ctx)
        for param in params
        if param.param_type_name == "option" and not {*param.opts, *param.secondary_opts} & {*words}
        for name in (*param.opts, *param.secondary_opts)
        if name.startswith("--") and name.startswith(word)
    ]
