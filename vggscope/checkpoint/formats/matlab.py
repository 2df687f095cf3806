"""MAT-files of level 5, as MATLAB and SciPy write them: the values of variables, without the data of large arrays.

The format is that of MathWorks' "MAT-File Format". A file is a header of 128 bytes and a sequence of elements, each a
tag with a type and a size. A variable is an element of type miMATRIX, or one that holds it compressed by zlib. Arrays
have their first axis innermost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import TypeAlias

from vggscope.checkpoint.contents import Extent
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.inflated import Inflated
from vggscope.checkpoint.formats.pickle_objects import LARGEST_RANK, LARGEST_SIDE
from vggscope.errors import CheckpointError, printable
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

MAGIC = b"MATLAB "

_HEADER = 128
_VERSION_7_3 = b"MATLAB 7.3"

_MOST_ARRAYS = 50_000
"""Arrays that are looked at; a network of MatConvNet has some hundred, and two thousand names of classes."""

_MOST_READ = 16 * 2**20
"""Bytes of tags, names, texts and short arrays that are read."""

_MOST_INFLATED = 2**30
"""Bytes that compressed variables may have beyond twice the size of the file."""

_DEEPEST = 16
"""Cells and structs in one another."""

_LONGEST = 1000
"""Characters of a text, and of a name."""

_MOST_NUMBERS = 64
"""Elements of an array whose numbers are kept: the settings of layers have four at most."""

_INT8, _UINT8, _INT32, _UINT32, _MATRIX, _COMPRESSED, _UTF8 = 1, 2, 5, 6, 14, 15, 16

_STORED = {
    **{1: ("int8", "b"), 2: ("uint8", "B"), 3: ("int16", "h"), 4: ("uint16", "H"), 5: ("int32", "i")},
    **{6: ("uint32", "I"), 7: ("float32", "f"), 9: ("float64", "d"), 12: ("int64", "q"), 13: ("uint64", "Q")},
}
"""The dtype of the elements of an array, and struct's letter for one, by the type in its tag."""

_CELL, _STRUCT, _CHAR = 1, 2, 4

_CLASSES = {
    **{6: "float64", 7: "float32", 8: "int8", 9: "uint8", 10: "int16", 11: "uint16"},
    **{12: "int32", 13: "uint32", 14: "int64", 15: "uint64"},
}
"""The dtype of an array of numbers by its class."""

_COMPLEX = 0x0800

_REMEDY = "copy or download it again"

Wanted: TypeAlias = "Mapping[str, Wanted] | None"
"""The variables, and fields in them, that are read; None for all. The others are skipped."""


@record
class Array:
    """A value: `kind` is `cell`, `struct`, `text`, `number` or `other`, which is not looked into.

    - `cells` are the parts of a cell array, the first axis innermost, and `fields` those of a struct of one element.
    - `numbers` are those of a short array. `extent` is where the data is, unless it is stored in a smaller type.
    """

    kind: str
    shape: Shape
    text: str = ""
    numbers: tuple[float, ...] = ()
    dtype: str = ""
    extent: Extent | None = None
    cells: tuple[Array, ...] = ()
    fields: Mapping[str, Array] | None = None


EMPTY = Array("other", (0, 0))


class _Plain:
    """Bytes of the file itself."""

    def __init__(self, file: BoundedFile, position: int) -> None:
        self._file = file
        self.position = position

    def read(self, size: int) -> bytes:
        self._file.seek(self.position)
        data = self._file.read(size)
        if len(data) < size:
            raise CheckpointError(f"it is cut short at byte {self.position}", _REMEDY)
        self.position += size
        return data

    def skip(self, size: int) -> None:
        self.position += size


_Source: TypeAlias = "_Plain | Inflated"


def read_variables(file: BoundedFile, wanted: Wanted) -> tuple[dict[str, Array], bool]:
    """The wanted variables, and whether the numbers in the file are big-endian.

    Raises CheckpointError, without the path, for a damaged file, and for one of another version.
    """
    file.seek(0)
    file.allow(_MOST_READ)
    head = file.read(_HEADER)
    if head.startswith(_VERSION_7_3):
        raise CheckpointError("it is a MATLAB file of version 7.3 (HDF5)", "save it in MATLAB with the option '-v7'")
    order = {b"IM": "<", b"MI": ">"}.get(head[126:128])
    if order is None:
        raise CheckpointError("its header is not that of a MATLAB file of level 5", _REMEDY)
    elements = _MatElements(file, order)
    return dict(elements.variables(wanted)), order == ">"


class _MatElements:
    """Reads the elements of a file within its bounds."""

    def __init__(self, file: BoundedFile, order: str) -> None:
        self._file = file
        self._order = order
        self._arrays = 0

    def variables(self, wanted: Wanted) -> Iterator[tuple[str, Array]]:
        position = _HEADER
        while position + 8 <= self._file.size:
            kind, size = self._numbers(_Plain(self._file, position).read(8), "II")
            position += 8
            if position + size > self._file.size:
                raise CheckpointError(f"it is cut short or damaged at byte {position}", _REMEDY)
            if kind == _MATRIX:
                yield from self._variable(_Plain(self._file, position), size, wanted)
            elif kind == _COMPRESSED:
                limit = _MOST_INFLATED + 2 * self._file.size
                source = Inflated(self._file, position, size, limit=limit)
                inner, whole = self._numbers(source.read(8), "II")
                if inner != _MATRIX:
                    raise CheckpointError("a compressed variable is no array", _REMEDY)
                yield from self._variable(source, whole, wanted)
            else:
                raise CheckpointError(f"it has an element of type {kind} at byte {position - 8}", _REMEDY)
            position += size

    def _variable(self, source: _Source, size: int, wanted: Wanted) -> Iterator[tuple[str, Array]]:
        end = source.position + size
        flags, shape, name = self._header(source, end)
        if name and (wanted is None or name in wanted):
            yield name, self._value(source, end, flags, shape, None if wanted is None else wanted[name], 0)

    def _numbers(self, data: bytes, letters: str) -> tuple[int, ...]:
        return struct.unpack(self._order + letters, data)

    def _tag(self, source: _Source, end: int) -> tuple[int, int, int]:
        """The type and the size of the element that follows, and the position after it. Its data is next."""
        if source.position + 8 > end:
            raise CheckpointError("an array in it ends within a tag", _REMEDY)
        head = source.read(4)
        (first,) = self._numbers(head, "I")
        if first >> 16:
            # The small form has the size beside the type, and the data in four bytes.
            kind, size, after = first & 0xFFFF, first >> 16, source.position + 4
            if size > 4:
                raise CheckpointError("a tag in it has a size that none has", _REMEDY)
        else:
            kind = first
            (size,) = self._numbers(source.read(4), "I")
            # A matrix is padded already.
            after = source.position + (size if kind == _MATRIX else -(-size // 8) * 8)
        if source.position + size > end:
            raise CheckpointError("an array in it is larger than what holds it", _REMEDY)
        return kind, size, min(after, end)

    def _element(self, source: _Source, end: int, most: int) -> tuple[int, bytes]:
        """The type and the data of a short element, which is passed."""
        kind, size, after = self._tag(source, end)
        if size > most:
            raise CheckpointError(f"a header in it has {size} bytes, at most {most} are read", _REMEDY)
        data = source.read(size)
        source.skip(after - source.position)
        return kind, data

    def _header(self, source: _Source, end: int) -> tuple[int, Shape, str]:
        """The flags, the shape and the name of an array."""
        self._arrays += 1
        if self._arrays > _MOST_ARRAYS:
            raise CheckpointError(f"it has more than {_MOST_ARRAYS:,} arrays", "it is damaged or malicious")
        kind, flags = self._element(source, end, 8)
        if kind != _UINT32 or len(flags) != 8:
            raise CheckpointError("an array in it has no flags", _REMEDY)
        kind, sides = self._element(source, end, 4 * LARGEST_RANK)
        if kind != _INT32 or len(sides) % 4:
            raise CheckpointError("an array in it has no shape", _REMEDY)
        shape = self._numbers(sides, "i" * (len(sides) // 4))
        if len(shape) < 2 or any(not 0 <= side <= LARGEST_SIDE for side in shape):
            raise CheckpointError("an array in it has a shape that no array has", _REMEDY)
        _, name = self._element(source, end, _LONGEST)
        return self._numbers(flags, "II")[0], shape, name.decode("latin-1")

    def _value(self, source: _Source, end: int, flags: int, shape: Shape, wanted: Wanted, depth: int) -> Array:
        """What follows an array's header. The position is anywhere before `end` afterwards."""
        kind = flags & 0xFF
        if depth > _DEEPEST:
            raise CheckpointError(f"it has cells in each other more than {_DEEPEST} deep", "it is damaged or malicious")
        if kind == _CELL:
            cells = [self._inner(source, end, wanted, depth) for _ in range(self._count(shape, 1))]
            return Array("cell", shape, cells=tuple(cells))
        if kind == _STRUCT:
            return self._struct(source, end, shape, wanted, depth)
        if kind == _CHAR:
            return Array("text", shape, text=self._text(source, end))
        if kind in _CLASSES and not flags & _COMPLEX:
            return self._array(source, end, _CLASSES[kind], shape)
        return Array("other", shape)

    def _count(self, shape: Shape, parts: int) -> int:
        count = numel(shape) * parts
        if count > _MOST_ARRAYS:
            raise CheckpointError(f"a cell in it has {count:,} parts, at most {_MOST_ARRAYS:,} are read", _REMEDY)
        return count

    def _inner(self, source: _Source, end: int, wanted: Wanted, depth: int) -> Array:
        """An array within another one, which is passed."""
        kind, size, after = self._tag(source, end)
        if kind != _MATRIX:
            raise CheckpointError("a cell in it holds no array", _REMEDY)
        if not size:
            return EMPTY
        flags, shape, _ = self._header(source, after)
        value = self._value(source, after, flags, shape, wanted, depth + 1)
        source.skip(after - source.position)
        return value

    def _struct(self, source: _Source, end: int, shape: Shape, wanted: Wanted, depth: int) -> Array:
        _, data = self._element(source, end, 4)
        width = self._numbers(data, "i")[0] if len(data) == 4 else 0
        if not 0 < width <= _LONGEST:
            raise CheckpointError("a struct in it has no names", _REMEDY)
        _, data = self._element(source, end, 2**16)
        names = [data[at : at + width].partition(b"\0")[0].decode("latin-1") for at in range(0, len(data), width)]
        if numel(shape) != 1:
            return Array("struct", shape)
        fields: dict[str, Array] = {}
        for name in names:
            if wanted is not None and name not in wanted:
                _, _, after = self._tag(source, end)
                source.skip(after - source.position)
                continue
            fields[name] = self._inner(source, end, None if wanted is None else wanted[name], depth)
        return Array("struct", shape, fields=fields)

    def _text(self, source: _Source, end: int) -> str:
        kind, size, _ = self._tag(source, end)
        data = source.read(min(size, 2 * _LONGEST))
        if kind in (_INT8, _UINT8, _UTF8):
            return data.decode("utf-8", "replace")
        return data.decode("utf-16-le" if self._order == "<" else "utf-16-be", "replace")

    def _array(self, source: _Source, end: int, dtype: str, shape: Shape) -> Array:
        kind, size, _ = self._tag(source, end)
        if kind not in _STORED:
            raise CheckpointError(f"an array in it has data of type {kind}", _REMEDY)
        stored, letter = _STORED[kind]
        count = numel(shape)
        if size != count * ELEMENT_BYTES[stored]:
            sides = "x".join(map(str, shape))
            raise CheckpointError(f"an array in it has {size} bytes of {stored} for a shape of {sides}", _REMEDY)
        within = Extent(source.start, source.size) if isinstance(source, Inflated) else None
        where = Extent(source.position, size, within=within)
        numbers: tuple[float, ...] = ()
        if count <= _MOST_NUMBERS:
            numbers = struct.unpack(f"{self._order}{count}{letter}", source.read(size))
        return Array("number", shape, numbers=numbers, dtype=dtype, extent=where if stored == dtype else None)


def described(name: str, value: Array) -> str:
    """A value in a message.

    >>> described("pad", Array("number", (1, 3), numbers=(1.0, 0.0, 1.0)))
    'pad is [1 0 1]'
    """
    numbers = " ".join(f"{number:g}" for number in value.numbers[:8])
    return f"{printable(name, 60)} is {printable(value.text, 60) or f'[{numbers}]'}"
