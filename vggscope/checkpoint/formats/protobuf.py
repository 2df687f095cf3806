"""Reads messages of a protobuf file by their wire format, and skips the data of tensors.

A file of any size is read through a small window. A schema names the fields that are decoded; all others, and the data
of tensors, are passed over without being read. The encoding: protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.errors import CheckpointError

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""The wire types. Groups (3 and 4) are deprecated, and no format that is read here has them."""

WINDOW = 8192
"""Bytes that are read at once. A tensor's header takes a hundred."""

MOST_FIELDS = 1_000_000
"""The most fields that are decoded, and that are looked at. A graph of 10,000 nodes has a third of them."""

MOST_TEXT = 2**25
"""The most bytes of text that are decoded."""

LONGEST_TEXT = 4000
"""The most bytes of one text; more are left out."""

DEEPEST = 24
"""The most messages that lie in each other: an If in an If takes three more."""

DAMAGED = "it is damaged or cut short"


class Span(NamedTuple):
    """A part of the file that is not decoded: its first byte, and how many they are."""

    start: int
    length: int


class Field(NamedTuple):
    """A field of a message: the key of its value, and how it is decoded.

    `kind` is `int`, `float`, `text`, `span`, or the schema of a message. A field that is not `repeated` keeps the last
    value, as protobuf does.
    """

    key: str
    kind: str | Mapping[int, Field]
    repeated: bool = False


Schema = Mapping[int, Field]
Message = dict[str, Any]


class ProtobufFile:
    """The messages of an open file, of which at most `most_fields` fields are looked at.

    `decode` raises CheckpointError, without the path, where the file is damaged or holds more than the limits.
    """

    def __init__(self, file: BoundedFile, most_fields: int = MOST_FIELDS) -> None:
        self._file = file
        self.size = file.size
        self._window = b""
        self._start = 0
        self._fields = most_fields
        self._walked = most_fields
        self._text = MOST_TEXT

    def decode(self, schema: Schema, span: Span | None = None, depth: int = 0) -> Message:
        """The message in a part of the file, by default the whole file."""
        if depth > DEEPEST:
            raise CheckpointError("its messages are nested too deep", "it is damaged or malicious")
        place, end = (0, self.size) if span is None else (span.start, span.start + span.length)
        message: Message = {}
        while place < end:
            self._walked -= 1
            if self._walked < 0:
                raise _too_much()
            number, wire, place = self._tag(place, end)
            field = schema.get(number)
            if wire == LENGTH:
                length, place = self._varint(place, end)
                if length > end - place:
                    raise CheckpointError("a length reaches beyond the end of its message", DAMAGED)
                if field is not None:
                    self._read_span(message, field, Span(place, length), depth)
                place += length
            elif wire == VARINT:
                value, place = self._varint(place, end)
                if field is not None and field.kind == "int":
                    self._add(message, field, _signed(value))
            else:
                place = self._read_fixed(message, field, wire, place, end)
        if place > end:
            raise CheckpointError("a field reaches beyond the end of its message", DAMAGED)
        return message

    def integers(self, span: Span) -> list[int]:
        """The packed integers in a part of the file. The caller bounds its length."""
        place, end = span.start, span.start + span.length
        values = []
        while place < end:
            value, place = self._varint(place, end)
            values.append(_signed(value))
        return values

    def bytes_of(self, span: Span) -> bytes:
        """The bytes of a part of the file. The caller bounds their number."""
        data = bytearray(span.length)
        if span.start + span.length > self.size:
            raise CheckpointError("it ends within its data", DAMAGED)
        self._file.fill(memoryview(data), span.start)
        return bytes(data)

    def _tag(self, place: int, end: int) -> tuple[int, int, int]:
        """The number and the wire type of a field, and the place after them."""
        tag, place = self._varint(place, end)
        if tag >= 2**32:
            raise CheckpointError("it has a field of a number that is too large", DAMAGED)
        return tag >> 3, tag & 7, place

    def _read_span(self, message: Message, field: Field, span: Span, depth: int) -> None:
        """Decode a field whose length is given: a text, packed numbers or a message."""
        if field.kind == "span":
            self._add(message, field, span)
        elif field.kind == "text":
            self._text -= min(span.length, LONGEST_TEXT)
            data = self.bytes_of(Span(span.start, min(span.length, LONGEST_TEXT)))
            self._add(message, field, data.decode("utf-8", "replace"))
        elif field.kind == "int":
            if span.length > self._fields:
                raise _too_much()
            for value in self.integers(span):
                self._add(message, field, value)
        elif field.kind == "float":
            if span.length > 4 * self._fields:
                raise _too_much()
            for number in self._floats(span, span.start + span.length):
                self._add(message, field, number)
        else:
            assert not isinstance(field.kind, str)
            if not field.repeated and field.key in message:
                # Protobuf would join the two; no writer does it, and one of them would be overlooked.
                raise CheckpointError(f"a message in it has two of {field.key!r}, which it has once", DAMAGED)
            self._add(message, field, self.decode(field.kind, span, depth + 1))

    def _read_fixed(self, message: Message, field: Field | None, wire: int, place: int, end: int) -> int:
        """Decode a number of four or eight bytes, and return the place after it."""
        if wire not in (FIXED32, FIXED64):
            raise CheckpointError(f"it has a field of the unknown wire type {wire}", DAMAGED)
        width = 4 if wire == FIXED32 else 8
        if field is not None and field.kind == "float" and wire == FIXED32:
            self._add(message, field, self._floats(Span(place, width), end)[0])
        return place + width

    def _add(self, message: Message, field: Field, value: object) -> None:
        self._fields -= 1
        if self._fields < 0 or self._text < 0:
            raise _too_much()
        if field.repeated:
            message.setdefault(field.key, []).append(value)
        else:
            message[field.key] = value

    def _floats(self, span: Span, end: int) -> tuple[float, ...]:
        if span.length % 4 or span.start + span.length > end:
            raise CheckpointError("a number is cut short", DAMAGED)
        return struct.unpack(f"<{span.length // 4}f", self.bytes_of(span))

    def _varint(self, place: int, end: int) -> tuple[int, int]:
        """The number at a place, and the place after it. Raises CheckpointError if it does not end before `end`."""
        at = place - self._start
        if not 0 <= at <= len(self._window) - 10:
            self._load(place)
            at = 0
        window = self._window
        value, shift = 0, 0
        for byte in window[at : at + 10]:
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                place += shift // 7
                if place > end:
                    break
                return value & (2**64 - 1), place
        raise CheckpointError("a number does not end", DAMAGED)

    def _load(self, place: int) -> None:
        if place >= self.size:
            raise CheckpointError("it ends within a message", DAMAGED)
        self._window = self.bytes_of(Span(place, min(WINDOW, self.size - place)))
        self._start = place


def _signed(value: int) -> int:
    """A number as int64: protobuf writes a negative one as its two's complement."""
    return value - 2**64 if value >= 2**63 else value


def _too_much() -> CheckpointError:
    return CheckpointError("it holds more than any model's graph", "it is damaged or malicious")


def shortest(value: float) -> float:
    """A float32 as the shortest decimal number that rounds to it, as people wrote it.

    >>> shortest(0.10000000149011612), shortest(9.999999747378752e-06)
    (0.1, 1e-05)
    """
    if not isinstance(value, float) or not math.isfinite(value):
        return value
    try:
        data = struct.pack("<f", value)
        texts = (float(f"{value:.{digits}g}") for digits in range(1, 10))
        return next((text for text in texts if struct.pack("<f", text) == data), value)
    except OverflowError:
        return value
