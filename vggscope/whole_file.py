"""A file that is written whole or not at all: to a temporary file beside it, which then takes its name."""

from __future__ import annotations

import os
import secrets
import stat
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
    temporary = os.path.join(os.path.dirname(target), f".vggscope-{secrets.token_hex(8)}.tmp")
    # The file is made within the try: a signal that comes in between finds it and takes it away.
    try:
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
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
