"""Text members of an untrusted zip archive, read within bounds."""

from __future__ import annotations

import json
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.torch_save import LARGEST_DIRECTORY
from vggscope.errors import CheckpointError, printable
from vggscope.units import bytes_text

LARGEST_TEXT = 2**24
"""The most bytes of one member that are read. The graph of a model of 400 layers takes two million."""

MOST_CONTAINERS = 400_000
"""The most lists and objects of a JSON text: about 100 MB when it is parsed."""

MOST_VALUES = 1_500_000
"""The most values of a JSON text."""

DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError, LookupError, OverflowError),
)
"""What the standard library raises for an archive that is broken, encrypted or compressed by an unusual method."""

REMEDY = "copy or download it again"


@contextmanager
def opened(path: str) -> Iterator[tuple[BoundedFile, zipfile.ZipFile]]:
    """The archive in a file. Raises CheckpointError, without the path, where it is none or is damaged."""
    with BoundedFile(path) as file:
        file.allow(LARGEST_DIRECTORY)
        try:
            with zipfile.ZipFile(file) as archive:
                yield file, archive
        except DAMAGE as error:
            reason = printable(str(error)) or "it ends within a member"
            raise CheckpointError(f"its zip archive is damaged or cut short: {reason}", REMEDY) from None


def text_of(file: BoundedFile, archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member. Raises CheckpointError where it has more than LARGEST_TEXT."""
    member = archive.getinfo(name)
    shown = printable(name, 60)
    if member.file_size > LARGEST_TEXT:
        raise CheckpointError(f"its {shown} claims {bytes_text(member.file_size)}, at most 16 MiB are read")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(f"its {shown} is compressed in a way that torch does not read")
    file.allow(LARGEST_TEXT + 2**16)
    with archive.open(member) as stream:
        data = stream.read(LARGEST_TEXT + 1)
    if len(data) != member.file_size:
        raise CheckpointError(f"its {shown} has another size than the archive says", REMEDY)
    return data


def json_of(data: bytes, name: str) -> dict[str, Any]:
    """The object of a JSON text.

    Raises CheckpointError where it is none, or has more values than any graph.
    """
    shown = printable(name, 60)
    if data.count(b"{") + data.count(b"[") > MOST_CONTAINERS or data.count(b",") > MOST_VALUES:
        raise CheckpointError(f"its {shown} has more values than any graph", "it is damaged or malicious")
    try:
        values = json.loads(data)
    except (ValueError, RecursionError):
        raise CheckpointError(f"its {shown} is not valid JSON", REMEDY) from None
    if not isinstance(values, dict):
        raise CheckpointError(f"its {shown} holds no object", REMEDY)
    return values
