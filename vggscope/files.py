"""Write files whole or not at all: to a temporary file beside the target, which is then renamed.

Links are followed. A device or a pipe is written to directly.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from typing import BinaryIO

from vggscope.errors import OutputError, nearest, printable

HOUR = 3600
"""Seconds."""

_TEMPORARY = re.compile(r"\.vggscope-[0-9a-f]{16}\.tmp")
"""The names of temporary files."""


def is_address(word: str) -> bool:
    """Whether a word is an address of the network, `https://...`, and no path."""
    return re.match(r"[a-z][a-z0-9+.-]+://", word, re.IGNORECASE) is not None


def near_file(path: str) -> str:
    """The suffix of a message on a missing file: the file of the nearest name in its folder, empty for none.

    >>> near_file("https://example.org/vgg16.pth")
    ': vggscope reads files alone; download it, and name vgg16.pth'
    """
    if path.lower().startswith("file://"):
        return printable(f": write the path alone, {path[len('file://') :]}", longest=200)
    if is_address(path):
        name = os.path.basename(path.partition("?")[0]) or "the file"
        return printable(f": vggscope reads files alone; download it, and name {name}", longest=200)
    try:
        suggestion = nearest(os.path.basename(path), os.listdir(os.path.dirname(path) or "."))
    except OSError:
        return ""
    return printable(suggestion, longest=200)


def write_file(path: str, data: bytes) -> None:
    """Write a file whole or not at all. Raises OutputError where it cannot be written."""
    with open_whole(path) as file:
        file.write(data)


def replace_file(path: str, data: bytes) -> None:
    """Write a file of the program's own, whole or not at all, in a folder that is made if it is missing.

    Only the user may read it. A link in its place is replaced. Raises OSError if the file cannot be written.
    """
    os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
    with _temporary(os.path.dirname(path)) as temporary:
        with open(temporary, "wb") as file:
            file.write(data)
        os.replace(temporary, path)


def mark_used(path: str) -> None:
    """Set a file's time to now, for `remove_oldest`, at most once an hour, and not if that is forbidden."""
    with suppress(OSError):
        if time.time() - os.stat(path).st_mtime > HOUR:
            os.utime(path)


def remove_oldest(folder: str, names: re.Pattern[str], most: int) -> None:
    """Remove the oldest of the files that `names` matches until all together have at most nine tenths of `most` bytes,
    if they have more than `most`.

    The temporary files that a killed process has left are removed after an hour.
    """
    with os.scandir(folder) as entries:
        known = [(entry, entry.stat(follow_symlinks=False)) for entry in entries if not entry.is_dir()]
    files = [(status.st_mtime, status.st_size, entry.path) for entry, status in known if names.fullmatch(entry.name)]
    left = [e.path for e, status in known if _TEMPORARY.fullmatch(e.name) and time.time() - status.st_mtime > HOUR]
    total = sum(size for _, size, _ in files)
    if total > most:
        for _, size, path in sorted(files):
            left.append(path)
            total -= size
            if total <= most * 9 // 10:
                break
    for path in left:
        with suppress(OSError):
            os.unlink(path)


@contextmanager
def open_whole(path: str) -> Iterator[BinaryIO]:
    """Open a file to write, which gets its name when the context ends. Raises OutputError on failure."""
    with (
        _errors_explained(path),
        nullcontext(_descriptor(path) or path) if is_special(path) else replacement(path) as target,
        open(target, "wb", closefd=isinstance(target, str)) as file,
    ):
        yield file


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """Yield a temporary path, for code that opens files itself.

    When the context ends, the file there is renamed to `path`, or copied to it if `path` is a device or a pipe. Raises
    OutputError where it cannot be written.
    """
    with _errors_explained(path):
        if not is_special(path):
            with replacement(path) as temporary:
                yield temporary
            return
        import tempfile

        # The code may replace the file at the path, which a device must not be.
        with tempfile.TemporaryDirectory(prefix="vggscope-") as folder:
            temporary = os.path.join(folder, os.path.basename(path))
            yield temporary
            descriptor = _descriptor(path)
            with (
                open(temporary, "rb") as source,
                open(descriptor or path, "wb", closefd=descriptor is None) as target,
            ):
                shutil.copyfileobj(source, target)


@contextmanager
def replacement(path: str) -> Iterator[str]:
    """Yield a temporary path, and rename the file there to `path` when the context ends.

    Raises OSError where it cannot be written.
    """
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{path} is a folder")
    with _temporary(os.path.dirname(target)) as temporary:
        yield temporary
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)


@contextmanager
def _temporary(folder: str) -> Iterator[str]:
    """Yield the path of a new file in a folder, which only the user may read. It is removed if it is still there when
    the context ends. Raises OSError if it cannot be made.
    """
    temporary = os.path.join(folder, f".vggscope-{os.urandom(8).hex()}.tmp")
    # The file is made within the try block, so that a signal between the two lines removes it.
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield temporary
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def is_special(path: str) -> bool:
    """Whether a path is a device, a pipe or a socket, which must not be replaced.

    So is that of an open file, such as /dev/stdout, which others may write to as well.
    """
    if _descriptor(path) is not None:
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _descriptor(path: str) -> int | None:
    """The number of the open file that a path names, as /dev/stdout and /dev/fd/3 do; None for any other path."""
    named = {"/dev/stdout": 1, "/dev/stderr": 2}.get(path)
    match = re.fullmatch(r"/(?:dev|proc/self)/fd/([1-9]\d{0,5})", path, re.ASCII)
    number = named if match is None else int(match[1])
    if number is None or not os.path.lexists(path):
        return None
    return number


def _mode(target: str) -> int:
    """The permissions of the file to replace, or those of a new file."""
    with suppress(OSError):
        return stat.S_IMODE(os.stat(target).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def _errors_explained(path: str) -> Iterator[None]:
    """Raise OutputError for an OSError, but for BrokenPipeError, with which the command line ends quietly."""
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
