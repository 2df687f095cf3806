"""Opens an untrusted file, if it is a regular one, and reads it within a budget of bytes."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from itertools import islice
from typing import Any

from vggscope.checkpoint import SUFFIXES
from vggscope.errors import CheckpointError, printable

_NOT_REGULAR = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
)

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
"""O_NONBLOCK keeps `open` from hanging if a named pipe replaces the file after its check."""

_PATH_REMEDY = "give the path of a .pth, .pt or .safetensors file"


class BoundedFile:
    """A regular file from which no more bytes than a budget can be read.

    It stops a parser that trusts a length in the file, before memory is allocated for it. `bytes_read` counts all bytes
    read, and `bytes_inflated` those that a parser has decompressed.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self._raw = _open(path)
        self.size = os.fstat(self._raw.fileno()).st_size
        self.bytes_read = 0
        self.bytes_inflated = 0
        self._left = 0

    def __enter__(self) -> BoundedFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self._raw.close()

    def allow(self, budget: int) -> None:
        """Set the budget: the number of bytes that may still be read."""
        self._left = budget

    def read(self, size: int | None = -1) -> bytes:
        """The next `size` bytes, or fewer at the end; all that follow for a negative `size`.

        Raises CheckpointError where they exceed the rest of the budget.
        """
        following = max(self.size - self.tell(), 0)
        wanted = following if size is None or size < 0 else min(size, following)
        if wanted > self._left:
            raise CheckpointError("its headers are larger than any checkpoint's", "it is damaged or malicious")
        data = self._raw.read(wanted) or b""
        self._left -= len(data)
        self.bytes_read += len(data)
        return data

    def fill(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer with the bytes from `offset` on. The caller bounds its size: it is not part of the budget.

        Raises CheckpointError where the file ends before.
        """
        self._raw.seek(offset)
        filled = 0
        while filled < len(buffer):
            count = self._raw.readinto(buffer[filled:])
            if not count:
                raise CheckpointError("it ends within its data: it has changed meanwhile", "copy or download it again")
            filled += count
        self.bytes_read += filled

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position in the file, and return it."""
        return self._raw.seek(offset, whence)

    def tell(self) -> int:
        """The position in the file."""
        return self._raw.tell()

    def seekable(self) -> bool:
        """True: a regular file is seekable."""
        return True


class FileWindow(io.RawIOBase):
    """The `size` bytes of a file from `start` on, as a parser of a file in the file reads them."""

    def __init__(self, file: BoundedFile, start: int, size: int) -> None:
        super().__init__()
        self.file = file
        self.start, self.size = start, size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self.size - self._position), 0)
        # A damaged address may be larger than any that a file can be asked for.
        if not count:
            return 0
        self.file.seek(self.start + self._position)
        data = self.file.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def stored_member(file: BoundedFile, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> FileWindow:
    """The bytes of a member of a zip archive that is not compressed. Raises CheckpointError where it is cut short."""
    file.allow(2**16)
    with archive.open(info) as stream:
        stream.read(1)
    file.seek(info.header_offset)
    header = file.read(30)
    start = info.header_offset + 30 + sum(int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
    if start + info.file_size > file.size:
        named = printable(info.filename, 60)
        raise CheckpointError(f"its {named} ends after the end of the file", "copy or download it again")
    return FileWindow(file, start, info.file_size)


def _folder_remedy(folder: str) -> str:
    """The remedy for a folder without weights under a usual name: the first checkpoint in it, if there is one."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in islice(entries, 1000) if entry.name.lower().endswith(SUFFIXES)]
    except OSError:
        return _PATH_REMEDY
    return f"name a file in it: {printable(os.path.join(folder, min(names)), 200)}" if names else _PATH_REMEDY


def _open(path: str) -> io.FileIO:
    """The open file. Raises CheckpointError where it cannot be read or is not a regular file."""
    try:
        status = os.stat(path)
        if stat.S_ISDIR(status.st_mode):
            raise CheckpointError("it is a folder, not a file", _folder_remedy(path))
        _check(status)
        raw = io.FileIO(os.open(path, _FLAGS | getattr(os, "O_CLOEXEC", 0)), "rb")
    except FileNotFoundError:
        from vggscope.files import near_file

        raise CheckpointError(f"there is no such file{near_file(path)}", _PATH_REMEDY) from None
    except OSError as error:
        raise CheckpointError(f"it cannot be read: {error.strerror or error}") from None
    except ValueError:
        raise CheckpointError("that is not a path", _PATH_REMEDY) from None
    try:
        _check(os.fstat(raw.fileno()))
    except CheckpointError:
        raw.close()
        raise
    return raw


def _check(status: os.stat_result) -> None:
    for is_kind, kind in _NOT_REGULAR:
        if is_kind(status.st_mode):
            raise CheckpointError(f"it is {kind}, not a file", _PATH_REMEDY)
    if not stat.S_ISREG(status.st_mode):
        raise CheckpointError("it is not a regular file", _PATH_REMEDY)
    if not status.st_size:
        raise CheckpointError("it is empty", "copy or download it again")
