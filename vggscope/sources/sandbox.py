"""The user's code at arm's length: what it prints goes to stderr, what it raises becomes two lines."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from pathlib import Path

from vggscope.errors import ModelError
from vggscope.trace.failure import own_line
from vggscope.trace.functions import first_line


@contextmanager
def apart(folder: Path) -> Iterator[None]:
    """Within this, imports are looked for in `folder` first, nothing is written beside them, and stdout is stderr, for
    Python and for the programs that it starts.
    """
    before = sys.dont_write_bytecode
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        with _descriptor_redirected(), redirect_stdout(sys.stderr):
            yield
    finally:
        sys.dont_write_bytecode = before
        with suppress(ValueError):
            sys.path.remove(str(folder))


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
