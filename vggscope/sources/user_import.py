"""The user's code at arm's length: what it prints goes to stderr, what it raises becomes two lines."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from vggscope.errors import ModelError
from vggscope.trace.failure import own_line
from vggscope.trace.functions import first_line


@contextmanager
def isolated_import(folder: Path, script: str) -> Iterator[None]:
    """Within this, imports are looked for in `folder` first and in the current one last, nothing is written beside
    them, `script` runs without arguments, what the libraries warn of is not shown, and stdout is stderr, for Python
    and for the programs that it starts.
    """
    before = sys.dont_write_bytecode, sys.argv
    here = str(Path.cwd())
    searched = [str(folder), *([here] if here not in (str(folder), *sys.path) else [])]
    sys.path[:] = [searched[0], *sys.path, *searched[1:]]
    sys.dont_write_bytecode, sys.argv = True, [script]
    try:
        with _descriptor_redirected(), redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torch|torchvision|timm)\b")
            warnings.simplefilter("ignore", SyntaxWarning)
            yield
    finally:
        sys.dont_write_bytecode, sys.argv = before
        for path in searched:
            with suppress(ValueError):
                sys.path.remove(path)


@contextmanager
def _descriptor_redirected() -> Iterator[None]:
    try:
        sys.stdout.flush()
        kept = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):  # a stream that is closed, or was never there
        yield
        return
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


def import_error(what: str, error: BaseException) -> ModelError:
    """As `user_error`, of a file that is imported: it may do what only a run of it should."""
    found = user_error(what, error)
    advice = ""
    if isinstance(error, (SystemExit, OSError, RuntimeError, AssertionError, EOFError)):
        advice = 'what only a run needs stands better under if __name__ == "__main__":'
    elif isinstance(error, ModuleNotFoundError) and found.remedy:
        advice = "run it from the folder that has it, or install it here"
    return ModelError(found.problem, "; ".join(filter(None, (found.remedy, advice))))


def user_error(what: str, error: BaseException) -> ModelError:
    """An error of the user's code: what did not work and why, then the line where."""
    if isinstance(error, ModelError):
        return error
    if isinstance(error, SystemExit):
        why = "it calls sys.exit"
    elif isinstance(error, SyntaxError) and error.filename:
        line = f": {error.text.strip()}" if error.text else ""
        return ModelError(
            f"{what}: {type(error).__name__}: {error.msg}", f"{error.filename}, line {error.lineno}{line}"
        )
    else:
        why = first_line(error)
    return ModelError(f"{what}: {why}", own_line(error))
