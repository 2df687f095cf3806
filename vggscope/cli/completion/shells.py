"""The shells: how each asks, how it wants to be answered, and the script that makes it ask."""

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
    from vggscope.cli.completion.words import Candidate

PROGRAM = "vggscope"

ASKED = "_VGGSCOPE_COMPLETE"
"""The environment variable by which a shell asks, as `complete_bash`."""


@record
class Line:
    """The words before the cursor, without the program's name, and the one at it.

    `kept` is how much of that the shell takes for a word of its own, before what it replaces. `quote` is the quotation
    mark that it begins with, if any.
    """

    words: tuple[str, ...]
    word: str
    kept: str = ""
    quote: str = ""


def is_fish_condition() -> bool:
    """Whether fish asks if it should ask: it should, since files are completed here too."""
    return os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args"


def _read_bash(env: Mapping[str, str]) -> Line:
    """Bash parts words at colons and equals signs too, and replaces what is behind the last."""
    at = int(env["COMP_CWORD"])
    words: list[str] = []
    kept = raw = ""
    joined = False
    for raw in [*env["COMP_WORDS"].split("\n"), ""][: at + 1]:
        breaks = raw != "" and not raw.strip(":=")
        if words and (breaks or joined):
            kept = words[-1] + (raw if breaks else "")
            words[-1] += _unquoted(raw)
        else:
            kept = ""
            words.append(_unquoted(raw))
        joined = breaks
    return Line(tuple(words[1:-1]), words[-1], kept, raw[:1] if raw[:1] in _ESCAPED else "")


def _read_line(env: Mapping[str, str]) -> Line:
    words = _split(env["_TYPER_COMPLETE_ARGS"] + _CURSOR)
    return Line(tuple(words[1:-1]), words[-1].replace(_CURSOR, ""))


def _read_powershell(env: Mapping[str, str]) -> Line:
    word = env.get("_TYPER_COMPLETE_WORD_TO_COMPLETE", "")
    words = _split(env["_TYPER_COMPLETE_ARGS"])[1:]
    return Line(tuple(words[:-1] if word else words), word)


_CURSOR = "\x1f"


def _split(text: str) -> list[str]:
    """A line's words as a POSIX shell parts them; quotes may be open at its end."""
    parts = shlex.shlex(text, posix=True)
    parts.whitespace_split = True
    parts.commenters = ""
    found: list[str] = []
    try:
        found.extend(parts)
    except ValueError:
        found.append(parts.token)
    return found


def _unquoted(raw: str) -> str:
    return "".join(_split(raw))


_ESCAPED = {"": r"[^\w@%+=:,./~-]", '"': r'[\\"$`]', "'": r"(?!)"}
"""What bash does not take as it stands but behind a backslash: outside quotes, and inside each kind."""

_REFUSED = {"": r"(?!)", '"': "!", "'": "'"}
"""What it does not take there at all."""


def _bash(line: Line, found: Sequence[Candidate]) -> str:
    """What bash sets in as it is: escaped, so that no file's name can be taken for more than a name."""
    rests = (value.removeprefix(line.kept) for value, _ in found)
    taken = (rest for rest in rests if not re.search(_REFUSED[line.quote], rest))
    return "\n".join(re.sub(f"({_ESCAPED[line.quote]})", r"\\\1", rest) for rest in taken)


def _zsh(line: Line, found: Sequence[Candidate]) -> str:
    """What zsh evaluates. It takes several blanks for one."""
    if not found:
        return "_files"
    escaped = (
        f"{_backslashed(value)}:{_backslashed(about)}" if about else _backslashed(value) for value, about in found
    )
    return f"local -a found; found=({' '.join(map(shlex.quote, escaped))}); _describe -V value found"


def _backslashed(text: str) -> str:
    return re.sub(r"([\\:])", r"\\\1", text)


def _fish(line: Line, found: Sequence[Candidate]) -> str:
    return "\n".join(f"{value}\t{about}" if about else value for value, about in found)


def _powershell(line: Line, found: Sequence[Candidate]) -> str:
    return "\n".join(f"{_powershell_word(value)}:::{about or ' '}" for value, about in found)


def _powershell_word(value: str) -> str:
    return "'" + value.replace("'", "''") + "'" if re.search(r"[\s'()]", value) else value


SHELLS: Mapping[str, tuple[Callable[[Mapping[str, str]], Line], Callable[[Line, Sequence[Candidate]], str]]] = {
    "bash": (_read_bash, _bash),
    "zsh": (_read_line, _zsh),
    "fish": (_read_line, _fish),
    "powershell": (_read_powershell, _powershell),
    "pwsh": (_read_powershell, _powershell),
}


def install() -> str:
    """Write the script where the shell finds it, and say where. Raises OptionError where this is no shell that we know,
    OutputError where it cannot be written.
    """
    from typer.completion import install as written  # type: ignore[attr-defined]

    shell = _this_shell()
    try:
        _, path = written(shell, PROGRAM, ASKED)
        if shell == "zsh":
            write_file(str(path), f"{script()}\n".encode())
    except OSError as error:
        raise OutputError(f"cannot install completion for {shell}: {error}", "vggscope --show-completion") from None
    return f"installed in {path}\nit works in every {shell} that you open from now on"


def script() -> str:
    """The script for this shell. Raises OptionError where this is no shell that we know."""
    from typer.completion import get_completion_script  # type: ignore[attr-defined]

    shell = _this_shell()
    made = get_completion_script(prog_name=PROGRAM, complete_var=ASKED, shell=shell)
    return made + _AT_ONCE if shell == "zsh" else made


_AT_ONCE = """

# zsh reads this file at the first tab, which wants an answer too.
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
