"""Files of Lua Torch (`torch.save`), usually called `.t7`: their objects, without the data of tensors.

The format is that of File.lua, and of the `write` methods of tensors and storages, in github.com/torch/torch7. Each
value follows the number of its type. Tables and objects of a class have a number of their own, which stands for them
where they occur again. A file is in binary, as a little-endian machine of 64 or 32 bits writes it, or in ASCII. Nothing
in a file is run: a function of Lua is passed over.

Numbers from the file are keys as texts: a file may choose numbers whose hashes collide.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import TypeAlias, TypeVar

from vggscope.checkpoint.contents import Checkpoint, Extent, Original, Place, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.errors import CheckpointError, printable
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

FORMAT, TABLE_FORMAT = "Torch7", "Torch7 table"
"""The formats of a file with a module of nn, and of one with tables of tensors alone."""

BINARY = re.compile(rb"\x04\0\0\0\x01\0\0\0.\0\0\0(?:V \d|nn\.|cudnn\.|torch\.)", re.DOTALL)
"""How a file in binary begins whose first value is an object of a class."""

ASCII = re.compile(rb"[34]\n1\n\d{1,9}\n")
"""How a file in ASCII begins whose first value is an object or a table."""

_MOST_VALUES = 150_000
"""Values of one file: numbers, texts, tables and objects. A ResNet-200 has 30,000."""

_MOST_TENSORS = 20_000
"""Tensors and storages of one file, those of gradients and outputs included. A ResNet-200 has 10,000."""

_MOST_READ = 128 * 2**20
"""Bytes of a file in binary that are read, beside the data of tensors."""

_LONGEST = 200
"""Characters of a text that are kept."""

_MOST_NUMBERS = 16
"""Elements of a storage of integers whose numbers are kept: the sides of a View."""

_MOST_AXES = 32

_WINDOW = 2**13
"""Bytes of a file in binary that are read at once."""

_PIECE = 2**20
"""Bytes of a file in ASCII that are read at once."""

_NIL, _NUMBER, _TEXT, _TABLE, _OBJECT, _BOOLEAN, _OLD_FUNCTION, _LEGACY_FUNCTION, _FUNCTION = range(9)

_DTYPES = {
    **{"Byte": "uint8", "Char": "int8", "Short": "int16", "Int": "int32", "Long": "int64"},
    **{"Half": "float16", "Float": "float32", "Double": "float64"},
}
"""torch's dtype by the name of a tensor's type in Lua Torch."""

_TENSOR_CLASS = re.compile(rf"torch\.(?:Cuda)?({'|'.join(_DTYPES)})?(Tensor|Storage)")

MODEL_KEYS = ("model", "net", "network")
"""The usual keys of the network in a table that was saved, the first one taken first."""

PARAMETERS = ("weight", "bias")
"""The tensors of a module that Module:parameters() of nn returns."""

BUFFERS = ("running_mean", "running_var")

_OLD_DEVIATION = "running_std"
"""What batch norms before version 2 store: 1 / sqrt(variance + eps)."""

_Number = TypeVar("_Number", int, float)

_REMEDY = "copy or download it again"


@dataclass(frozen=True, slots=True)
class T7Storage:
    """The elements of tensors: its key among the storages, and its numbers if it has a few integers."""

    key: str
    dtype: str
    count: int
    numbers: tuple[int, ...] = ()


@dataclass(slots=True)
class T7Tensor:
    """A tensor. `offset` is that of its first element in the storage; `storage` is None for one without elements."""

    dtype: str
    shape: Shape
    stride: Shape
    offset: int
    storage: T7Storage | None = None


@dataclass(slots=True)
class T7Table:
    """A table of Lua: the values of names, and those of whole numbers from 1 on. Other keys are left out."""

    named: dict[str, T7Value] = field(default_factory=dict)
    numbered: dict[str, T7Value] = field(default_factory=dict)

    def parts(self) -> Iterator[T7Value]:
        """The values of 1, 2, ... up to the first number that is missing."""
        for number in range(1, len(self.numbered) + 1):
            if str(number) not in self.numbered:
                return
            yield self.numbered[str(number)]


@dataclass(slots=True)
class T7Object:
    """An object of a class, such as `nn.SpatialConvolution`, and the version with which its class was written."""

    kind: str
    version: int
    fields: T7Table = field(default_factory=T7Table)

    @property
    def name(self) -> str:
        """The class without its package: those of cudnn and inn have the names of nn's.

        >>> T7Object("cudnn.ReLU", 1).name
        'ReLU'
        """
        return self.kind.rpartition(".")[2]

    def get(self, name: str) -> T7Value:
        """The value of a field; None without one."""
        return self.fields.named.get(name)

    @property
    def modules(self) -> list[T7Object] | None:
        """The parts of a container; None for a module that is none."""
        held = self.get("modules")
        return [part for part in held.parts() if isinstance(part, T7Object)] if isinstance(held, T7Table) else None


class T7Function:
    """A function of Lua, whose code is not read."""


T7Value: TypeAlias = "float | str | bool | T7Table | T7Object | T7Tensor | T7Storage | T7Function | None"


@record
class T7File:
    """The value in a file, and where the data of its storages is. `text` is true for a file in ASCII."""

    value: T7Value
    storages: Mapping[str, Extent]
    text: bool


@record
class T7Model:
    """The module of a file: the keys of the tables that hold it, and what stands beside it in them."""

    module: T7Object
    wrapper: tuple[str, ...]
    beside: tuple[str, ...]


def read_objects(file: BoundedFile) -> T7File:
    """The value in a file. Raises CheckpointError, without the path, for a file that is damaged or none of torch."""
    file.seek(0)
    file.allow(16)
    head = file.read(12)
    if len(head) < 8:
        raise CheckpointError("it is cut short", _REMEDY)
    if ASCII.match(head):
        return _whole(_TextSource(file))
    if head[:3] == b"\0\0\0" and head[3:4] in (b"\3", b"\4"):
        raise CheckpointError("its numbers are big-endian, which is not read", "save it on a little-endian machine")
    try:
        return _whole(_BinarySource(file))
    except CheckpointError:
        # The file does not tell how long a C `long` was where it was written. A damaged one does not end as it should.
        narrow = _BinarySource(file, long_bytes=4)
        with suppress(CheckpointError):
            found = _whole(narrow)
            if narrow.position == file.size:
                return found
        raise


def _whole(source: _BinarySource | _TextSource) -> T7File:
    reader = _T7Reader(source)
    value = reader.load()
    return T7File(value, reader.storages, isinstance(source, _TextSource))


class _BinarySource:
    """The numbers of a file in binary, with a C `long` of 8 bytes, or of 4 as on a machine of 32 bits or Windows."""

    def __init__(self, file: BoundedFile, long_bytes: int = 8) -> None:
        self._file = file
        self._long = {8: "q", 4: "i"}[long_bytes], long_bytes
        self.long_dtype = f"int{8 * long_bytes}"
        self._window, self._start = b"", 0
        self.position = 0
        file.allow(_MOST_READ)

    def integer(self) -> int:
        return int(struct.unpack("<i", self._bytes(4))[0])

    def longs(self, count: int) -> tuple[int, ...]:
        code, size = self._long
        return struct.unpack(f"<{count}{code}", self._bytes(size * count))

    def double(self) -> float:
        return float(struct.unpack("<d", self._bytes(8))[0])

    def text(self, size: int) -> str:
        """The characters, of which the first _LONGEST are kept."""
        start = self.position
        data = self._bytes(min(size, _LONGEST))
        self._skip(start + size)
        return data.decode("utf-8", "replace")

    def data(self, dtype: str, count: int) -> tuple[Extent, tuple[int, ...]]:
        """Where the elements of a storage are, and the numbers of a few integers."""
        element = self._long[1] if dtype == "int64" else ELEMENT_BYTES[dtype]
        start, size = self.position, count * element
        numbers = self.longs(count) if dtype == "int64" and count <= _MOST_NUMBERS else ()
        self._skip(start + size)
        return Extent(start, size), numbers

    def _skip(self, position: int) -> None:
        if position > self._file.size:
            raise CheckpointError(f"it is cut short or damaged: something in it ends at byte {position}", _REMEDY)
        self.position = position

    def _bytes(self, count: int) -> bytes:
        place = self.position - self._start
        if not 0 <= place <= len(self._window) - count:
            self._file.seek(self.position)
            self._window, self._start, place = self._file.read(max(count, _WINDOW)), self.position, 0
            if len(self._window) < count:
                raise CheckpointError(f"it is cut short at byte {self._file.size}", _REMEDY)
        self.position += count
        return self._window[place : place + count]


class _TextSource:
    """The numbers of a file in ASCII, in which a blank or the end of a line follows each."""

    long_dtype = "int64"

    def __init__(self, file: BoundedFile) -> None:
        self._file = file
        self._piece, self._place = b"", 0
        file.seek(0)
        file.allow(file.size)

    def integer(self) -> int:
        number = self._number(int)
        self._end_line()
        return number

    def longs(self, count: int) -> tuple[int, ...]:
        numbers = tuple(self._number(int) for _ in range(count))
        if count:
            self._end_line()
        return numbers

    def double(self) -> float:
        number = self._number(float)
        self._end_line()
        return number

    def text(self, size: int) -> str:
        """The characters, of which the first _LONGEST are kept."""
        kept = self._raw(size)
        if size:
            self._end_line()
        return kept.decode("utf-8", "replace")

    def data(self, dtype: str, count: int) -> tuple[Extent, tuple[int, ...]]:
        """Where the elements of a storage are, which are not read, and the numbers of a few integers."""
        numbers: tuple[int, ...] = ()
        if dtype in ("int8", "uint8"):
            self._raw(count)
            if count:
                self._end_line()
        elif dtype == "int64" and count <= _MOST_NUMBERS:
            numbers = self.longs(count)
        elif count:
            self._pass_line(count)
        return Extent(0, count * ELEMENT_BYTES[dtype], "text"), numbers

    def _fill(self) -> bool:
        """Go on to the next piece, if this one is passed; whether there is anything left."""
        if self._place == len(self._piece):
            self._piece, self._place = self._file.read(_PIECE), 0
        return bool(self._piece)

    def _number(self, kind: type[_Number]) -> _Number:
        token = bytearray()
        while self._fill():
            letter = self._piece[self._place]
            if letter in b" \n\r\t":
                if token:
                    break
            else:
                token.append(letter)
                if len(token) > 40:
                    break
            self._place += 1
        try:
            return kind(token.decode("ascii"))
        except (ValueError, OverflowError):
            shown = printable(token.decode("latin-1"), 40)
            problem = f"{shown} stands in it in place of a number" if token else "it is cut short"
            raise CheckpointError(problem, _REMEDY) from None

    def _end_line(self) -> None:
        if self._fill() and self._piece[self._place] == ord("\n"):
            self._place += 1

    def _raw(self, size: int) -> bytes:
        """Pass as many bytes, and return the first of them."""
        kept = b""
        while size:
            if not self._fill():
                raise CheckpointError("it is cut short", _REMEDY)
            taken = min(size, len(self._piece) - self._place)
            if len(kept) < _LONGEST:
                kept += self._piece[self._place : self._place + min(taken, _LONGEST - len(kept))]
            self._place += taken
            size -= taken
        return kept

    def _pass_line(self, count: int) -> None:
        """Pass the numbers of a storage, which are a line."""
        blanks = 0
        while self._fill():
            end = self._piece.find(b"\n", self._place)
            stop = len(self._piece) if end < 0 else end
            blanks += self._piece.count(b" ", self._place, stop)
            self._place = stop if end < 0 else stop + 1
            if end >= 0:
                break
        if blanks != count - 1:
            raise CheckpointError(f"a storage in it claims {count} numbers and has {blanks + 1}", _REMEDY)


class _OpenTable:
    """A table whose parts are being read."""

    def __init__(self, table: T7Table, count: int) -> None:
        self.value = table
        self._left = 2 * count
        self._key: T7Value = None

    def take(self, value: T7Value) -> bool:
        """Take the next key or value; whether it was the last one."""
        self._left -= 1
        if self._left % 2:
            self._key = value
        elif isinstance(self._key, str):
            self.value.named[self._key] = value
        elif isinstance(self._key, float) and self._key.is_integer() and 0 < self._key < 2**31:
            self.value.numbered[str(int(self._key))] = value
        return not self._left


class _OpenObject:
    """An object of a class, whose fields follow as a table."""

    def __init__(self, value: T7Object) -> None:
        self.value = value

    def take(self, value: T7Value) -> bool:
        if not isinstance(value, T7Table):
            raise CheckpointError(
                f"an object of {printable(self.value.kind, 60)} in it is stored in a way that is not known",
                "give the model alone, or convert it to PyTorch first",
            )
        self.value.fields = value
        return True


class _OpenTensor:
    """A tensor, whose storage follows."""

    def __init__(self, value: T7Tensor) -> None:
        self.value = value

    def take(self, value: T7Value) -> bool:
        tensor = self.value
        if not tensor.shape:
            return True
        count, dtype = (value.count, value.dtype) if isinstance(value, T7Storage) else (0, tensor.dtype)
        last = tensor.offset + sum((side - 1) * step for side, step in zip(tensor.shape, tensor.stride))
        if dtype != tensor.dtype or (0 not in tensor.shape and last >= count):
            raise CheckpointError(f"a tensor in it reaches beyond its storage of {count} elements", _REMEDY)
        tensor.storage = value if isinstance(value, T7Storage) else None
        return True


class _OpenFunction:
    """A function, whose outer variables follow."""

    value = T7Function()

    def take(self, value: T7Value) -> bool:
        return True


_Open: TypeAlias = "_OpenTable | _OpenObject | _OpenTensor | _OpenFunction"


class _T7Reader:
    """Reads values one by one, those within others too, without recursion."""

    def __init__(self, source: _BinarySource | _TextSource) -> None:
        self._source = source
        self._known: dict[str, T7Value] = {}
        self._count = self._tensors = 0
        self.storages: dict[str, Extent] = {}

    def load(self) -> T7Value:
        """The next value with all that it holds."""
        waiting: list[_Open] = []
        while True:
            value = self._next()
            if isinstance(value, _OpenTable | _OpenObject | _OpenTensor | _OpenFunction):
                waiting.append(value)
                continue
            while waiting and waiting[-1].take(value):
                value = waiting.pop().value
            if not waiting:
                return value

    def _next(self) -> T7Value | _Open:
        source = self._source
        self._count += 1
        if self._count > _MOST_VALUES:
            raise CheckpointError(f"it has more than {_MOST_VALUES:,} values", "it is damaged or malicious")
        kind = source.integer()
        if kind in (_NIL, _NUMBER, _BOOLEAN, _TEXT):
            return self._plain(kind)
        if kind == _OLD_FUNCTION:
            return self._function()
        if kind not in (_TABLE, _OBJECT, _FUNCTION, _LEGACY_FUNCTION):
            raise CheckpointError("it has a value of a type that Lua Torch does not write", _REMEDY)
        key = str(source.integer())
        if key in self._known:
            return self._known[key]
        opened = self._table() if kind == _TABLE else self._object(key) if kind == _OBJECT else self._function()
        self._known[key] = opened.value if isinstance(opened, _OPEN) else opened
        return opened

    def _plain(self, kind: int) -> T7Value:
        if kind == _NUMBER:
            return self._source.double()
        if kind == _TEXT:
            return self._source.text(self._size())
        return self._source.integer() == 1 if kind == _BOOLEAN else None

    def _size(self) -> int:
        size = self._source.integer()
        if size < 0:
            raise CheckpointError(f"something in it has a size of {size}", _REMEDY)
        return size

    def _table(self) -> T7Value | _Open:
        count = self._size()
        if self._count + 2 * count > _MOST_VALUES:
            raise CheckpointError(f"it has a table of {count:,} values", "it is damaged or malicious")
        return _OpenTable(T7Table(), count) if count else T7Table()

    def _function(self) -> _OpenFunction:
        self._source.text(self._size())
        return _OpenFunction()

    def _object(self, key: str) -> T7Value | _Open:
        """What follows the number of an object of a class."""
        text = self._source.text(self._size())
        number = re.fullmatch(r"V (\d{1,6})", text)
        version, kind = (int(number[1]), self._source.text(self._size())) if number else (0, text)
        match = _TENSOR_CLASS.fullmatch(kind)
        if match is None:
            if not re.fullmatch(r"[A-Za-z_][\w.]*", kind, re.ASCII):
                raise CheckpointError(f"{printable(kind, 60)} in it is no name of a class", _REMEDY)
            return _OpenObject(T7Object(kind, version))
        dtype = _DTYPES[match[1] or "Float"]
        self._tensors += 1
        if self._tensors > _MOST_TENSORS:
            raise CheckpointError(f"it has more than {_MOST_TENSORS:,} tensors", "it is damaged or malicious")
        return self._tensor(dtype) if match[2] == "Tensor" else self._storage(key, dtype)

    def _tensor(self, dtype: str) -> _OpenTensor:
        rank = self._source.integer()
        if not 0 <= rank <= _MOST_AXES:
            raise CheckpointError(f"a tensor in it has {rank} dimensions", _REMEDY)
        shape, stride = self._source.longs(rank), self._source.longs(rank)
        (offset,) = self._source.longs(1)
        if any(not 0 <= number < 2**48 for number in (*shape, *stride)) or not 0 <= offset <= 2**48:
            raise CheckpointError("a tensor in it has a shape or a stride that no tensor has", _REMEDY)
        return _OpenTensor(T7Tensor(self._stored(dtype), shape, stride, max(offset - 1, 0)))

    def _stored(self, dtype: str) -> str:
        return self._source.long_dtype if dtype == "int64" else dtype

    def _storage(self, key: str, dtype: str) -> T7Storage:
        (count,) = self._source.longs(1)
        if not 0 <= count < 2**48:
            raise CheckpointError(f"a storage in it has {count} elements", _REMEDY)
        self.storages[key], numbers = self._source.data(dtype, count)
        return T7Storage(key, self._stored(dtype), count, numbers)


_OPEN = (_OpenTable, _OpenObject, _OpenTensor, _OpenFunction)


def model_in(value: T7Value) -> T7Model | None:
    """The module of nn in a file: the value itself, or one in a table; None for a file without one.

    Raises CheckpointError for a table of several without a usual key.
    """
    wrapper: list[str] = []
    beside: list[str] = []
    while isinstance(value, T7Table) and len(wrapper) < 4:
        held = {**value.named, **value.numbered}
        own = {key: each for key, each in held.items() if isinstance(each, T7Object)}
        usual = next((key for key in MODEL_KEYS if isinstance(held.get(key), T7Object | T7Table)), None)
        if usual is None and len(own) > 1:
            names = ", ".join(printable(key, 40) for key in list(own)[:4])
            raise CheckpointError(f"it holds several modules: {names}", "save the one that is wanted alone")
        key = usual or next(iter(own), None)
        if key is None:
            return None
        wrapper.append(key)
        beside += (other for other in held if other != key)
        value = held[key]
    return T7Model(value, tuple(wrapper), tuple(beside)) if isinstance(value, T7Object) else None


def modules_of(root: T7Object) -> Iterator[tuple[str, T7Object]]:
    """The modules of a tree, each before its parts, under the first path at which it stands.

    The parts of a container have the numbers from 0 on, as those of torch.nn.Sequential, where Lua counts from 1. Those
    of a DataParallelTable are replicas of the first.
    """
    seen: set[int] = set()
    waiting = [("", root)]
    while waiting:
        path, module = waiting.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield path, module
        parts = module.modules or []
        if module.name == "DataParallelTable":
            parts = parts[:1]
        waiting += reversed([(_below(path, str(place)), part) for place, part in enumerate(parts)])


def _below(path: str, name: str) -> str:
    # A tree that is nested without end has long paths, which would be quadratic in memory.
    if len(path) > 10 * _LONGEST:
        raise CheckpointError("its modules are nested too deep", "it is damaged or malicious")
    return f"{path}.{name}" if path else name


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The weights of a module, or the tensors of tables. Raises CheckpointError where the file holds none."""
    found = read_objects(file)
    model = model_in(found.value)
    if model is not None:
        tensors = [tensor for place, module in modules_of(model.module) for tensor in _weights(place, module)]
    else:
        tensors = list(_tensors(found.value))
    if not tensors:
        raise CheckpointError("it is a file of Lua Torch without tensors", "give the file of a model")
    used = {tensor.place.storage for tensor in tensors if tensor.place}
    return Checkpoint(
        path,
        TABLE_FORMAT if model is None else FORMAT,
        tuple(tensors),
        wrapper=() if model is None else model.wrapper,
        beside=() if model is None else model.beside,
        storages={key: extent for key, extent in found.storages.items() if key in used},
    )


def _weights(path: str, module: T7Object) -> Iterator[StoredTensor]:
    """The parameters and the statistics of one module, in torch's layout."""
    for leaf in (*PARAMETERS, *BUFFERS):
        value = module.get(leaf)
        if isinstance(value, T7Tensor) and value.shape:
            yield _stored(_below(path, leaf), value, weight_shape(module) if leaf == "weight" else None)
    deviation = module.get(_OLD_DEVIATION)
    if isinstance(deviation, T7Tensor) and deviation.shape and module.get("running_var") is None:
        # Its numbers are none of a variance's.
        name = _below(path, "running_var")
        yield StoredTensor(name, deviation.shape, deviation.dtype, None, Original(_OLD_DEVIATION, deviation.shape))


def weight_shape(module: T7Object) -> Shape | None:
    """The shape of a convolution's weights where the file has them as a matrix; None for any other weights."""
    weight = module.get("weight")
    sides = [module.get(name) for name in ("kH", "kW")]
    if not isinstance(weight, T7Tensor) or len(weight.shape) != 2 or module.get("nInputPlane") is None:
        return None
    kernel = tuple(int(side) for side in sides if isinstance(side, float) and side.is_integer() and 0 < side < 2**31)
    outputs, inputs = weight.shape
    if len(kernel) != 2 or inputs % prod(kernel):
        return None
    return (outputs, inputs // prod(kernel), *kernel)


def _stored(name: str, tensor: T7Tensor, shape: Shape | None = None) -> StoredTensor:
    """A tensor, of another shape with the same elements if one is given."""
    place = None
    if tensor.storage is not None:
        offset = tensor.offset * ELEMENT_BYTES[tensor.dtype]
        view = tensor.shape if shape is not None else None
        place = Place(tensor.storage.key, offset, tensor.stride, view)
    return StoredTensor(name, shape or tensor.shape, tensor.dtype, place, Original(name, tensor.shape))


def _tensors(value: T7Value) -> Iterator[StoredTensor]:
    """The tensors in tables, under the keys that lead to them."""
    seen: set[int] = set()
    waiting: list[tuple[str, T7Value]] = [("", value)]
    while waiting:
        path, held = waiting.pop()
        if isinstance(held, T7Tensor) and held.shape and numel(held.shape):
            yield _stored(path or "tensor", held)
        table = held.fields if isinstance(held, T7Object) else held
        if isinstance(table, T7Table) and id(table) not in seen:
            seen.add(id(table))
            parts = [*table.named.items(), *table.numbered.items()]
            waiting += reversed([(_below(path, key), part) for key, part in parts])
