"""Completion in a shell: reads the shell's question, writes the answer in its protocol, and installs the script.

At a tab, the script that typer writes runs the program with the environment variable COMPLETION_VARIABLE set, and the
shell shows what it prints. `words` finds the candidates. typer's own completion does not rejoin words that bash splits
at colons, does not escape file names, and imports every command to list them.

Nothing here imports torch, torchvision or timm, or runs a user's code. Every failure is silent, since a message would
appear in the line that is being typed.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from vggscope.errors import OptionError, OutputError
from vggscope.files import write_file
from vggscope.record import record

if TYPE_CHECKING:
    from typer import Typer

    from vggscope.cli.completion.words import Candidate

PROGRAM = "vggscope"

COMPLETION_VARIABLE = "_VGGSCOPE_COMPLETE"
"""The environment variable that a shell sets to ask, for example to `complete_bash`."""


def answer(app: Typer, commands: Mapping[str, str]) -> str:
    """The text to print for the shell that asks, empty on any failure. `commands` maps each command to its help."""
    from vggscope.cli.completion.words import candidates

    try:
        read, write = SHELLS[os.environ[COMPLETION_VARIABLE].removeprefix("complete_")]
        line = read(os.environ)
        # Fish asks first whether there is anything to complete. There is: vggscope completes files too.
        asks_whether = os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args"
        return write(line, [] if asks_whether else candidates(app, commands, line.words, line.word))
    except Exception:  # any error at all: the line that is being typed must stay as it is
        return ""


@record
class TypedLine:
    """The words before the cursor, without the program's name, and the word at the cursor.

    The shell leaves `fixed`, the beginning of the word, as it is: of `torchvision:vgg`, bash replaces only `vgg`.
    `quote` is the quotation mark that the word begins with, if any.
    """

    words: tuple[str, ...]
    word: str
    fixed: str = ""
    quote: str = ""


def _read_bash(env: Mapping[str, str]) -> TypedLine:
    """Bash splits words at colons and equals signs too, and replaces what follows the last one."""
    at = int(env["COMP_CWORD"])
    words: list[str] = []
    fixed = raw = ""
    after_break = False
    for raw in [*env["COMP_WORDS"].split("\n"), ""][: at + 1]:
        is_break = raw != "" and not raw.strip(":=")
        if words and (is_break or after_break):
            fixed = words[-1] + (raw if is_break else "")
            words[-1] += "".join(_split(raw))
        else:
            fixed = ""
            words.append("".join(_split(raw)))
        after_break = is_break
    return TypedLine(tuple(words[1:-1]), words[-1], fixed, raw[:1] if raw[:1] in _ESCAPED else "")


def _read_line(env: Mapping[str, str]) -> TypedLine:
    words = _split(env["_TYPER_COMPLETE_ARGS"] + _CURSOR)
    return TypedLine(tuple(words[1:-1]), words[-1].replace(_CURSOR, ""))


def _read_powershell(env: Mapping[str, str]) -> TypedLine:
    word = env.get("_TYPER_COMPLETE_WORD_TO_COMPLETE", "")
    words = _split(env["_TYPER_COMPLETE_ARGS"])[1:]
    return TypedLine(tuple(words[:-1] if word else words), word)


_CURSOR = "\x1f"


def _split(text: str) -> list[str]:
    """The words of a line as a POSIX shell splits them; a quotation may be open at the end."""
    parts = shlex.shlex(text, posix=True)
    parts.whitespace_split = True
    parts.commenters = ""
    words: list[str] = []
    try:
        words.extend(parts)
    except ValueError:
        words.append(parts.token)
    return words


_ESCAPED = {"": r"[^\w@%+=:,./~-]", '"': r'[\\"$`]', "'": r"(?!)"}
"""The characters that bash needs a backslash before, outside quotes and inside each kind of quotes."""

_REFUSED = {"": r"(?!)", '"': "!", "'": "'"}
"""The characters that cannot be escaped there."""


def _write_bash(line: TypedLine, candidates: Sequence[Candidate]) -> str:
    """Bash inserts a line as it is, so each is escaped: no file name can run a command."""
    values = (value.removeprefix(line.fixed) for value, _ in candidates)
    possible = (value for value in values if not re.search(_REFUSED[line.quote], value))
    return "\n".join(re.sub(f"({_ESCAPED[line.quote]})", r"\\\1", value) for value in possible)


def _write_zsh(line: TypedLine, candidates: Sequence[Candidate]) -> str:
    """Zsh evaluates the answer, and reads several blanks as one."""
    if not candidates:
        return "_files"
    texts = (":".join(re.sub(r"([\\:])", r"\\\1", part) for part in pair if part) for pair in candidates)
    return f"local -a found; found=({' '.join(map(shlex.quote, texts))}); _describe -V value found"


def _write_fish(line: TypedLine, candidates: Sequence[Candidate]) -> str:
    return "\n".join("\t".join(filter(None, pair)) for pair in candidates)


def _write_powershell(line: TypedLine, candidates: Sequence[Candidate]) -> str:
    return "\n".join(
        ("'" + value.replace("'", "''") + "'" if re.search(r"[\s'()]", value) else value) + f":::{about or ' '}"
        for value, about in candidates
    )


SHELLS: Mapping[
    str, tuple[Callable[[Mapping[str, str]], TypedLine], Callable[[TypedLine, Sequence[Candidate]], str]]
] = {
    "bash": (_read_bash, _write_bash),
    "zsh": (_read_line, _write_zsh),
    "fish": (_read_line, _write_fish),
    "powershell": (_read_powershell, _write_powershell),
    "pwsh": (_read_powershell, _write_powershell),
}


def install() -> str:
    """Write the script where the shell reads it, and return a message with its path.

    Raises OptionError for an unknown shell, and OutputError where the script cannot be written.
    """
    from typer.completion import install as write_script  # type: ignore[attr-defined]

    shell = _this_shell()
    try:
        _, path = write_script(shell, PROGRAM, COMPLETION_VARIABLE)
        if shell == "zsh":
            write_file(str(path), f"{script()}\n".encode())
    except OSError as error:
        raise OutputError(f"cannot install completion for {shell}: {error}", "vggscope --show-completion") from None
    return f"installed in {path}\nit works in every {shell} that you open from now on"


def script() -> str:
    """The script for this shell. Raises OptionError for an unknown shell."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    shell = _this_shell()
    text = get_completion_script(prog_name=PROGRAM, complete_var=COMPLETION_VARIABLE, shell=shell)
    return text + _FIRST_TAB if shell == "zsh" else text


_FIRST_TAB = """

# zsh reads this file at the first tab, which needs an answer too.
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _vggscope_completion "$@"
fi"""


def _this_shell() -> str:
    from shellingham import ShellDetectionFailure, detect_shell  # type: ignore[import-untyped]

    try:
        shell = str(detect_shell()[0])
    except ShellDetectionFailure:
        shell = ""
    if shell not in SHELLS:
        raise OptionError(
            f"no completion for {shell}" if shell else "cannot tell which shell this is",
            f"there is one for {', '.join(SHELLS)}: ask from there",
        )
    return shell
