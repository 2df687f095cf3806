"""The bytes that a compressed part of an untrusted file inflates to, a piece at a time."""

from __future__ import annotations

import zlib
from bisect import bisect_right
from typing import Any

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.errors import CheckpointError

_PIECE = 2**14
"""Compressed bytes that are read at once."""

_LARGEST_STEP = 2**20
"""Bytes that are inflated at once where they are passed over."""

_POINTS = 128
"""The most states of zlib that are kept, of about 60 KB each."""

_CLOSEST = 4 * 2**20
"""The least bytes between two states."""

_REMEDY = "copy or download it again"


class Inflated:
    """The bytes that `size` bytes from `start` on inflate to, which have a position as those of a file have.

    zlib runs forwards alone. A copy of its state is kept every few MiB, so that a step back inflates no more than those
    again. `raw`: the part is a stream of deflate, as in a zip archive, without the header of zlib. More than `limit`
    bytes in all, those of other parts of the file included, are refused with CheckpointError, and so is damage.
    """

    def __init__(self, file: BoundedFile, start: int, size: int, *, limit: int, raw: bool = False) -> None:
        self.start, self.size, self.position = start, size, 0
        self._file = file
        self._next, self._end, self._limit = start, start + size, limit
        self._inflate = zlib.decompressobj(-15 if raw else 15)
        self._between = _CLOSEST
        self._points: list[tuple[int, int, Any]] = [(0, start, self._inflate.copy())]

    def read(self, size: int) -> bytes:
        """The next bytes. Raises CheckpointError where there are not so many."""
        parts = []
        while size:
            part = self._some(size)
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def skip(self, size: int) -> None:
        """Pass the next bytes."""
        while size:
            size -= len(self._some(min(size, _LARGEST_STEP)))

    def fill(self, buffer: memoryview, offset: int) -> None:
        """Fill a buffer with the bytes from `offset` on."""
        self._go_to(offset)
        filled = 0
        while filled < len(buffer):
            part = self._some(min(len(buffer) - filled, _LARGEST_STEP))
            buffer[filled : filled + len(part)] = part
            filled += len(part)

    def _go_to(self, offset: int) -> None:
        place = bisect_right(self._points, offset, key=lambda point: point[0]) - 1
        position, following, state = self._points[place]
        if offset < self.position or position > self.position:
            self.position, self._next, self._inflate = position, following, state.copy()
        self.skip(offset - self.position)

    def _some(self, most: int) -> bytes:
        """The next bytes, at least one and not more than `most`."""
        while True:
            packed = self._inflate.unconsumed_tail
            if not packed and self._next < self._end:
                room = memoryview(bytearray(min(_PIECE, self._end - self._next)))
                self._file.fill(room, self._next)
                self._next += len(room)
                packed = bytes(room)
            try:
                data = self._inflate.decompress(packed, most)
            except zlib.error as error:
                raise CheckpointError(f"a compressed part is damaged: {error}", _REMEDY) from None
            if data:
                break
            if self._inflate.eof or (not self._inflate.unconsumed_tail and self._next >= self._end):
                raise CheckpointError("a compressed part ends within its data", _REMEDY)
        self.position += len(data)
        self._file.bytes_inflated += len(data)
        if self._file.bytes_inflated > self._limit:
            raise CheckpointError("it inflates to more than any network", "it is damaged or malicious")
        if self.position - self._points[-1][0] >= self._between and not self._inflate.eof:
            self._keep_point()
        return data

    def _keep_point(self) -> None:
        self._points.append((self.position, self._next, self._inflate.copy()))
        if len(self._points) > _POINTS:
            # Half as many, twice as far apart, last until twice as many bytes are inflated.
            del self._points[1::2]
            self._between *= 2
