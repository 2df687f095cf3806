"""Files of torch.save before torch 0.1.10: a tar archive with `sys_info`, `storages`, `tensors` and `pickle`.

`storages` has a pickle and the data of each storage in turn, `tensors` a pickle and the layout of each tensor, and
`pickle` the saved object, which names the tensors by number: `legacy_load` in torch/serialization.py reads it. torch
loads these files with weights_only=False alone, which runs the code in them.

Numbers from the file are keys as texts: a file may choose integers whose hashes collide.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from vggscope.checkpoint.contents import Checkpoint, Extent, Place
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.pickle_objects import (
    LARGEST_RANK,
    LARGEST_SIDE,
    Dictionary,
    Global,
    Tensor,
    storage_dtype,
)
from vggscope.checkpoint.formats.pickle_scanner import LARGEST_PICKLE, PickleScanner
from vggscope.checkpoint.formats.torch_save import checkpoint_of
from vggscope.errors import CheckpointError
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

_BLOCK = 512
"""Bytes of a header of a tar archive; the members are padded to a multiple."""

_MOST_MEMBERS = 50
"""Members that are looked at; torch wrote four."""

LARGEST_COUNT = 10_000
"""Storages and tensors of one file; each takes as long to read as ten of later formats. Networks then had hundreds."""

_MEMBERS = ("sys_info", "storages", "tensors", "pickle")

_WINDOW = 1024
"""Bytes that are read for the pickle before a storage's data, which has some hundred."""

_REMEDY = "copy or download it again"

_DAMAGED = "it is damaged or cut short within its"


@record
class _Storage:
    """A storage: its key among the storages, its dtype, its first element there and how many it has."""

    key: str
    dtype: str
    offset: int
    count: int


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The checkpoint in a tar archive. Raises CheckpointError where it is another's, damaged, or refused."""
    members = _members(file)
    if not all(name in members for name in _MEMBERS):
        raise CheckpointError("it is a tar archive, and not one that torch wrote", "unpack it first")
    system = _pickle(file, members["sys_info"])
    try:
        storages, extents = _storages(file, members["storages"])
        tensors = _tensors(file, members["tensors"], storages)
        root, scanner = _scanned(file, members["pickle"], tensors)
    except (EOFError, struct.error):
        raise CheckpointError(f"{_DAMAGED} pickles", _REMEDY) from None
    checkpoint = checkpoint_of(root, scanner, path, "torch tar")
    big_endian = isinstance(system, Dictionary) and system.named().get("little_endian") is False
    return replace(checkpoint, storages=extents, big_endian=big_endian)


def _members(file: BoundedFile) -> dict[str, tuple[int, int]]:
    """The first byte and the size of each member."""
    members: dict[str, tuple[int, int]] = {}
    file.allow(_MOST_MEMBERS * _BLOCK)
    position = 0
    for _ in range(_MOST_MEMBERS):
        file.seek(position)
        header = file.read(_BLOCK)
        if len(header) < _BLOCK or not header.strip(b"\0"):
            break
        size = _number(header[124:136])
        start = position + _BLOCK
        if size is None or start + size > file.size:
            raise CheckpointError("it is a tar archive that is damaged or cut short", _REMEDY)
        name = header[:100].rstrip(b"\0").decode("latin-1").removeprefix("./")
        if header[156:157] in (b"0", b"\0"):
            members.setdefault(name, (start, size))
        position = start + -(-size // _BLOCK) * _BLOCK
    return members


def _number(field: bytes) -> int | None:
    """A size, in octal digits or, for eight gigabytes and more, in bytes after a first one of 0x80."""
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def _pickle(file: BoundedFile, member: tuple[int, int]) -> object:
    """The object of a member that is one small pickle."""
    file.seek(member[0])
    file.allow(_WINDOW * 64)
    try:
        return PickleScanner(file.read(min(member[1], _WINDOW * 64))).load()
    except EOFError:
        raise CheckpointError(f"{_DAMAGED} sys_info", _REMEDY) from None


class _Reader:
    """Reads the pickles and bytes of a member in turn, a window at a time. EOFError: they reach beyond its end."""

    def __init__(self, file: BoundedFile, member: tuple[int, int]) -> None:
        self._file = file
        self.position, size = member
        self.end = self.position + size
        # Windows overlap, so that each of LARGEST_COUNT pickles may take one.
        file.allow(LARGEST_COUNT * 2 * _WINDOW)

    def load(self, window: int = _WINDOW) -> object:
        scanner = PickleScanner(self._bytes(min(window, self.end - self.position)))
        value = scanner.load()
        self.position += scanner.position
        return value

    def take(self, count: int) -> bytes:
        data = self._bytes(count)
        self.skip(count)
        return data

    def skip(self, count: int) -> None:
        self.position += count
        if self.position > self.end:
            raise EOFError

    def _bytes(self, count: int) -> bytes:
        if count < 0 or self.position + count > self.end:
            raise EOFError
        self._file.seek(self.position)
        return self._file.read(count)


def _count(value: object, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= LARGEST_COUNT:
        raise CheckpointError(f"it does not say how many {what} it has, at most {LARGEST_COUNT} are read")
    return value


def _storages(file: BoundedFile, member: tuple[int, int]) -> tuple[dict[str, _Storage], dict[str, Extent]]:
    """The storages by number, those that are views of others included, and where the data of each is."""
    reader = _Reader(file, member)
    storages: dict[str, _Storage] = {}
    extents: dict[str, Extent] = {}
    for _ in range(_count(reader.load(), "storages")):
        parts = reader.load()
        dtype = storage_dtype(parts[2]) if isinstance(parts, tuple) and len(parts) == 3 else None
        if dtype is None or not isinstance(parts, tuple) or not _is_number(parts[0]):
            raise CheckpointError("it describes a storage in a way that torch did not")
        count = int.from_bytes(reader.take(8), "little")
        size = count * ELEMENT_BYTES[dtype]
        key = str(parts[0])
        extents[key] = Extent(reader.position - 8, size, "count")
        storages[key] = _Storage(key, dtype, 0, count)
        reader.skip(size)
    views = reader.load(LARGEST_PICKLE)
    for view in views if isinstance(views, list) else ():
        if not isinstance(view, tuple) or len(view) != 4 or not all(map(_is_number, view)):
            raise CheckpointError("it describes a view of a storage in a way that torch did not")
        target, root, offset, count = view
        whole = storages.get(str(root))
        if whole is None or min(offset, count) < 0 or offset + count > whole.count:
            raise CheckpointError("a view of a storage in it reaches beyond the storage")
        storages[str(target)] = replace(whole, offset=whole.offset + offset, count=count)
    return storages, extents


def _tensors(file: BoundedFile, member: tuple[int, int], storages: dict[str, _Storage]) -> dict[str, Tensor]:
    """The tensors by number."""
    reader = _Reader(file, member)
    tensors: dict[str, Tensor] = {}
    for _ in range(_count(reader.load(), "tensors")):
        parts = reader.load()
        if not isinstance(parts, tuple) or len(parts) != 3 or not all(map(_is_number, parts[:2])):
            raise CheckpointError("it describes a tensor in a way that torch did not")
        rank = struct.unpack("<i", reader.take(8)[:4])[0]
        if not 0 <= rank <= LARGEST_RANK:
            raise CheckpointError(f"a tensor in it has {rank} dimensions")
        numbers = struct.unpack(f"<{2 * rank + 1}q", reader.take(8 * (2 * rank + 1)))
        tensors[str(parts[0])] = _tensor(storages.get(str(parts[1])), numbers[:rank], numbers[rank:-1], numbers[-1])
    return tensors


def _tensor(held: _Storage | None, shape: tuple[int, ...], stride: tuple[int, ...], offset: int) -> Tensor:
    if min((*shape, *stride, offset)) < 0 or max((*shape, *stride, offset)) > LARGEST_SIDE or held is None:
        raise CheckpointError("a tensor in it has a shape, a stride or a storage that no tensor has")
    last = offset + sum((side - 1) * step for side, step in zip(shape, stride))
    if 0 not in shape and last >= held.count:
        raise CheckpointError(f"a tensor in it reaches beyond its storage of {held.count} elements")
    place = Place(held.key, (held.offset + offset) * ELEMENT_BYTES[held.dtype], stride)
    return Tensor(held.dtype, shape, place=place)


def _scanned(file: BoundedFile, member: tuple[int, int], tensors: dict[str, Tensor]) -> tuple[object, PickleScanner]:
    """The saved object, and the scanner that read it."""

    def tensor(number: object) -> object:
        if isinstance(number, tuple):
            kind = number[0].name if number and isinstance(number[0], Global) else "a class"
            raise CheckpointError(f"it holds a whole pickled module ({kind}), which only its own code can read")
        found = tensors.get(str(number)) if isinstance(number, int | str) else None
        if found is None:
            raise CheckpointError("its pickle names a tensor that it does not have")
        return found

    if member[1] > LARGEST_PICKLE:
        raise CheckpointError(f"its pickle claims {member[1]} bytes, no state dict has so many", _REMEDY)
    file.seek(member[0])
    file.allow(LARGEST_PICKLE)
    scanner = PickleScanner(file.read(member[1]), tensor)
    return scanner.load(), scanner


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
