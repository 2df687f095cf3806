"""A file that is written whole or not at all: to a temporary file beside it, which then takes its name."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def whole_file(path: str) -> Iterator[str]:
    """A path to write to; what is there when the context ends takes the name `path`, all at once. A link is followed.

    Raises OSError where that cannot be.
    """
    target = os.path.realpath(path)
    if os.path.isdir(target):
        raise IsADirectoryError(f"{path} is a folder")
    handle, temporary = tempfile.mkstemp(prefix=".vggscope-", suffix=".tmp", dir=os.path.dirname(target))
    os.close(handle)
    try:
        yield temporary
        os.chmod(temporary, _mode(target))
        os.replace(temporary, target)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def _mode(target: str) -> int:
    """The permissions of the file that is replaced, or those that a new file gets."""
    with suppress(OSError):
        return stat.S_IMODE(os.stat(target).st_mode)
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
