"""Files that are written whole or not at all: to a temporary file beside the target, which then takes its name.

A link is followed; a target that is a device or a pipe is written to directly.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import BinaryIO

from vggscope.errors import OutputError, nearest, printable


def near_file(path: str) -> str:
    """What to add to a message on a file that is not there: the one that its folder has by nearly this name, if any."""
    try:
        found = nearest(os.path.basename(path), os.listdir(os.path.dirname(path) or "."))
    except OSError:
        return ""
    return printable(found, longest=200)


def write_file(path: str, data: bytes) -> None:
    """Write a file whole or not at all. Raises OutputError where that cannot be."""
    with open_whole(path) as file:
        file.write(data)


def replace_file(path: str, data: bytes) -> None:
    """Write a file of the program's own, whole or not at all, in a folder that is made if it is missing.

    Raises OSError if it cannot be written.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with replacement(path) as temporary, open(temporary, "wb") as file:
        file.write(data)


@contextmanager
def open_whole(path: str) -> Iterator[BinaryIO]:
    """A file to write, which takes its name only when all has been written. Raises OutputError where that cannot be."""
    with (
        _said(path),
        nullcontext(path) if is_special(path) else replacement(path) as found,
        open(found, "wb") as file,
    ):
        yield file


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """A path to write to, for code that opens files itself; what is there when the context ends takes the name `path`,
    or goes to the device or the pipe that has it.

    Raises OutputError where that cannot be.
    """
    with _said(path):
        if not is_special(path):
            with replacement(path) as temporary:
                yield temporary
            return
        import tempfile

        # Such code may put another file in the path's place.
        with tempfile.TemporaryDirectory(prefix="vggscope-") as folder:
            temporary = os.path.join(folder, os.path.basename(path))
            yield temporary
            with open(temporary, "rb") as made, open(path, "wb") as target:
                shutil.copyfileobj(made, target)


@contextmanager
def replacement(path: str) -> Iterator[str]:
    """A path to write to; what is there when the context ends takes the name `path`, all at once.

    Raises OSError where that cannot be.
    """
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{path} is a folder")
    temporary = os.path.join(os.path.dirname(target), f".vggscope-{os.urandom(8).hex()}.tmp")
    # The file is made within the try: a signal that comes in between finds it and takes it away.
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield temporary
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def is_special(path: str) -> bool:
    """Whether a path is a device, a pipe or a socket, which takes what is written to it and is not replaced."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _mode(target: str) -> int:
    """The permissions of the file that is replaced, or those that a new file gets."""
    with suppress(OSError):
        return stat.S_IMODE(os.stat(target).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def _said(path: str) -> Iterator[None]:
    """Say what cannot be written, and why. That the reader of a pipe has gone is for the program to know."""
    try:
        yield
    except BrokenPipeError:
        raise
    except IsADirectoryError:
        raise OutputError(f"cannot write {path}: it is a folder", "name a file in it") from None
    except OSError as error:
        raise _cannot_write(path, error) from None


def _cannot_write(path: str, error: OSError) -> OutputError:
    folder = os.path.dirname(os.path.realpath(path))
    reason = "the folder is not there" if not os.path.isdir(folder) else (error.strerror or str(error)).lower()
    return OutputError(f"cannot write {path}: {reason}", "name a file in a folder that you may write to")
