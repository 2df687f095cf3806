"""Fields of protobuf's wire format, written byte by byte: also those that no library writes."""

from __future__ import annotations


def varint(number: int) -> bytes:
    """A number of the wire format."""
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes((*parts, number))


def length(field: int, data: bytes, size: int | None = None) -> bytes:
    """A field with its length, which may be a false one."""
    return varint(field << 3 | 2) + varint(len(data) if size is None else size) + data
