"""The line that is being written: whose word is at the cursor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typer import Typer

    from vggscope.cli.completion.words import Candidate


def candidates(app: Typer, commands: Mapping[str, str], words: Sequence[str], word: str) -> list[Candidate]:
    """What can stand at the cursor, behind these words of a command line of the app."""
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
    taking = {
        name: param
        for param in command.params
        if param.param_type_name == "option" and not param.is_flag
        for name in param.opts
    }
    name, equals, value = word.partition("=")
    if "--" not in words:
        if equals and name in taking:
            return [(f"{name}={found}", about) for found, about in _values(command, taking[name], words, value)]
        if words and words[-1] in taking:
            return _values(command, taking[words[-1]], words[:-1], word)
        if word.startswith("-"):
            return _options(command, words, word)
    ctx = command.make_context(command.name, list(words), resilient_parsing=True)
    for param in command.params:
        if param.param_type_name == "argument" and (param.nargs == -1 or ctx.params.get(param.name) is None):
            return _values(command, param, words, word)
    return _options(command, words, word or "--")


def _values(command: Any, param: Any, words: list[str], word: str) -> list[Candidate]:
    ctx = command.make_context(command.name, list(words), resilient_parsing=True)
    # A name with a line's end or the like in it could not be shown, and need not be.
    return [(item.value, item.help or "") for item in param.shell_complete(ctx, word) if item.value.isprintable()]


def _options(command: Any, words: Sequence[str], word: str) -> list[Candidate]:
    """The long options that are not there yet, as `--help` orders them."""
    from vggscope.cli.help import groups_of

    ctx = command.make_context(command.name, [], resilient_parsing=True)
    params = [param for _, params in groups_of(command, ctx) for param in params if param.param_type_name == "option"]
    names = [
        (name, param.help or "")
        for param in params
        if not {*param.opts, *param.secondary_opts} & {*words}
        for name in (*param.opts, *param.secondary_opts)
    ]
    return [(name, about) for name, about in names if name.startswith("--") and name.startswith(word)]
