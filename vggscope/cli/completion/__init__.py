"""What a shell may complete: the words that can stand where the cursor is.

The scripts that `--install-completion` writes are typer's: at a tab the shell runs the program with ASKED and the
line's words in its environment, and shows what it prints. `shells` reads what a shell asks and writes the answer,
`line` finds out whose word is at the cursor, `words` knows what each kind of option takes. None of them imports torch,
torchvision or timm, or runs a user's code; whatever goes wrong is silent, since a message would spoil the line that is
being written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vggscope.cli.completion.line import candidates
from vggscope.cli.completion.shells import ASKED, SHELLS, is_fish_condition

if TYPE_CHECKING:
    from typer import Typer


def answer(app: Typer, commands: Mapping[str, str]) -> str:
    """What to print for the shell that asks; nothing where anything fails. `commands` says what each does."""
    try:
        read, shown = SHELLS[os.environ[ASKED].removeprefix("complete_")]
        line = read(os.environ)
        return shown(line, [] if is_fish_condition() else candidates(app, commands, line.words, line.word))
    except Exception:  # whatever it is, the line that is being written stays as it is
        return ""
