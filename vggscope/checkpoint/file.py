"""A file that a stranger wrote: opened only if it is a regular one, and read by the spoonful."""

from __future__ import annotations

import io
import os
import stat
from itertools import islice

from vggscope.checkpoint import SUFFIXES
from vggscope.errors import CheckpointError, printable

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)

_FLAGS = (
    os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
)  # without O_NONBLOCK, to open a named pipe that replaced the file since it was looked at would wait for ever


class BoundedFile:
    """A regular file that gives no more bytes than it was allowed to.

    A parser that believes a length in the file is stopped here, before memory is taken for it. `bytes_read` is what
    has been read in all.
    """

    def __init__(self, path: str) -> None:
        self._raw = _open(path)
        self.size = os.fstat(self._raw.fileno()).st_size
        self.bytes_read = 0
        self._left = 0

    def __enter__(self) -> BoundedFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the file back."""
        self._raw.close()

    def allow(self, budget: int) -> None:
        """Let `budget` more bytes be read from here on."""
        self._left = budget

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes, or all that follow.

        Raises CheckpointError where that is more than what is left of the budget.
        """
        following = max(self.size - self.tell(), 0)
        wanted = following if size is None or size < 0 else min(size, following)
        if wanted > self._left:
            raise CheckpointError("its headers are larger than any checkpoint's", "it is damaged, or made to harm")
        found = self._raw.read(wanted) or b""
        self._left -= len(found)
        self.bytes_read += len(found)
        return found

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a place in the file."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """The place in the file."""
        return self._raw.tell()

    def seekable(self) -> bool:
        """Always: it is a regular file."""
        return True


_PATH = "give the path of a .pth, .pt or .safetensors file"


def _inside(folder: str) -> str:
    """Which checkpoint to name in a folder, as a model's hub fills it."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, 1000) if entry.name.lower().endswith(SUFFIXES)]
    except OSError:
        return _PATH
    return f"name a file in it: {printable(os.path.join(folder, min(names)), 200)}" if names else _PATH


def _open(path: str) -> io.FileIO:
    """The file; raises CheckpointError where there is none that can be read, or it is no regular file."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise CheckpointError("it is a folder, not a file", _inside(path))
        _check(status)
        raw = io.FileIO(os.open(path, _FLAGS | getattr(os, "O_CLOEXEC", 0)), "rb")
    except FileNotFoundError:
        from vggscope.files import near_file

        raise CheckpointError(f"there is no such file{near_file(path)}", _PATH) from None
    except OSError as error:
        raise CheckpointError(f"it cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise CheckpointError("that is no path", _PATH) from None
    try:
        _check(os.fstat(raw.fileno()))
    except CheckpointError:
        raw.close()
        raise
    return raw


def _check(status: os.stat_result) -> None:
    for is_kind, kind in _KINDS:
        if is_kind(status.st_mode):
            raise CheckpointError(f"it is {kind}, not a file", _PATH)
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError("it is not a regular file", _PATH)
    if not status.st_size:
        raise CheckpointError("it is empty", "copy or download it again")
