"""Files of NumPy: an array (.npy), or several in a zip archive (.npz). Pickled objects in them are not read.

An array begins with a header, the text of a dict with its dtype, its order and its shape:
https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. The text is matched, not evaluated.
"""

from __future__ import annotations

import os
import re
import zipfile
from typing import IO

from vggscope.checkpoint.contents import Checkpoint, Extent, Place, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.pickle_objects import LARGEST_RANK, LARGEST_SIDE
from vggscope.checkpoint.formats.torch_save import DAMAGE, ENCRYPTED, LARGEST_DIRECTORY
from vggscope.checkpoint.layouts import in_torch_layout
from vggscope.errors import CheckpointError, printable
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

MAGIC = b"\x93NUMPY"

LARGEST_COUNT = 10_000
"""Arrays in one archive; each takes as long to open as ten tensors of a pickle."""

_LARGEST_HEADER = 10_000
"""Bytes of one header; NumPy refuses longer ones too."""

DTYPES = {
    **{"f2": "float16", "f4": "float32", "f8": "float64", "c8": "complex64", "c16": "complex128"},
    **{"i1": "int8", "i2": "int16", "i4": "int32", "i8": "int64", "b1": "bool"},
    **{"u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64"},
}
"""torch's name of each dtype, by NumPy's code."""

_DESCRIPTION = re.compile(r"'descr': *'([<>|=])([a-zA-Z]\d{0,4})'")
_ORDER = re.compile(r"'fortran_order': *(True|False)")
_SHAPE = re.compile(r"'shape': *\(([\dL, ]*)\)")

_REMEDY = "copy or download it again"


@record
class _Header:
    """An array's header: where its data begins, its dtype or None for another kind of object, and its layout."""

    size: int
    dtype: str | None
    shape: Shape
    is_fortran: bool
    is_big_endian: bool


def read_npz(file: BoundedFile, path: str) -> Checkpoint:
    """The arrays of an archive. Raises CheckpointError where it is damaged or an array is not where it says."""
    file.allow(LARGEST_DIRECTORY)
    tensors: list[StoredTensor] = []
    storages: dict[str, Extent] = {}
    beside: list[str] = []
    orders: dict[str, bool] = {}
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > LARGEST_COUNT:
                raise CheckpointError(f"it holds {len(members)} arrays, at most {LARGEST_COUNT} are read")
            for info in members:
                name = info.filename.removesuffix(".npy")
                header = None if name == info.filename else _member_header(file, archive, info)
                if header is None or header.dtype is None:
                    beside.append(name)
                    continue
                tensors.append(_tensor(name, header, info.filename))
                is_plain = info.compress_type == zipfile.ZIP_STORED
                member = Extent(info.header_offset, info.compress_size, "zip")
                storages[info.filename] = member if is_plain else Extent(0, info.file_size, within=member)
                orders[info.filename] = header.is_big_endian
    except DAMAGE as error:
        reason = printable(str(error)) or "it ends within an array"
        raise CheckpointError(f"its zip archive is damaged or cut short: {reason}", _REMEDY) from None
    if len({tensor.name for tensor in tensors}) < len(tensors):
        raise CheckpointError("two of its arrays have the same name")
    return _checkpoint(path, "numpy npz", tensors, storages, orders, tuple(beside))


def read_npy(file: BoundedFile, path: str) -> Checkpoint:
    """The one array of a file, under the name of the file."""
    file.seek(0)
    file.allow(2 * _LARGEST_HEADER)
    header = _header(file)
    if header.dtype is None:
        raise CheckpointError(
            "it is a pickled Python object, not an array of numbers; nothing was run",
            "if you trust who made it, numpy.load(FILE, allow_pickle=True) it and numpy.savez its arrays",
        )
    _check_size(header, file.size, "it")
    tensor = _tensor(os.path.basename(path).partition(".")[0] or "array", header, "")
    storages = {"": Extent(0, file.size)}
    return _checkpoint(path, "numpy npy", [tensor], storages, {"": header.is_big_endian}, ())


def _checkpoint(
    path: str,
    layout: str,
    tensors: list[StoredTensor],
    storages: dict[str, Extent],
    orders: dict[str, bool],
    beside: tuple[str, ...],
) -> Checkpoint:
    if not tensors:
        raise CheckpointError("it holds no arrays of numbers")
    big_endian = sum(orders.values()) * 2 > len(orders)
    # The few arrays in the other order, which no program writes, are described and not read.
    same = {key: extent for key, extent in storages.items() if orders[key] == big_endian}
    converted, is_last = in_torch_layout(tensors)
    return Checkpoint(
        path, layout, tuple(converted), beside=beside, storages=same, big_endian=big_endian, flattens_last=is_last
    )


def _member_header(file: BoundedFile, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> _Header:
    what = f"its array {printable(info.filename)}"
    if info.flag_bits & ENCRYPTED:
        raise CheckpointError(f"{what} is encrypted")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError(f"{what} is compressed in a way that NumPy does not write")
    if info.header_offset + info.compress_size > file.size:
        raise CheckpointError(f"{what} ends after the end of the file", _REMEDY)
    file.allow(4 * _LARGEST_HEADER)
    with archive.open(info) as stream:
        header = _header(stream)
    _check_size(header, info.file_size, what)
    return header


def _header(stream: BoundedFile | IO[bytes]) -> _Header:
    """The header at the stream's position. Raises CheckpointError where there is none."""
    start = stream.read(8)
    if start[:6] != MAGIC or start[6:7] not in (b"\x01", b"\x02", b"\x03"):
        raise CheckpointError("it holds a file named .npy that is no array of NumPy's")
    width = 2 if start[6] == 1 else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > _LARGEST_HEADER:
        raise CheckpointError(f"an array's header claims {length} bytes, at most {_LARGEST_HEADER} are read")
    data = stream.read(length)
    text = data.decode("latin-1")
    order, shape = _ORDER.search(text), _SHAPE.search(text)
    if len(data) < length or order is None or shape is None:
        raise CheckpointError("an array's header is damaged or cut short", _REMEDY)
    description = _DESCRIPTION.search(text)
    dtype = DTYPES.get(description[2]) if description else None
    is_big_endian = description is not None and description[1] == ">"
    return _Header(8 + width + length, dtype, _sides(shape[1]), order[1] == "True", is_big_endian)


def _sides(text: str) -> Shape:
    """The shape in the text of a tuple, as Python 2 wrote it too."""
    sides = [side.strip().removesuffix("L") for side in text.split(",") if side.strip()]
    if len(sides) > LARGEST_RANK or not all(side.isdigit() and len(side) < 20 for side in sides):
        raise CheckpointError("an array's header has a shape that no array has")
    shape = tuple(map(int, sides))
    if any(side > LARGEST_SIDE for side in shape):
        raise CheckpointError("an array's header has a shape that no array has")
    return shape


def _check_size(header: _Header, size: int, what: str) -> None:
    """Raise CheckpointError unless an array of numbers has as many bytes as its header says."""
    if header.dtype is not None:
        expected = header.size + numel(header.shape) * ELEMENT_BYTES[header.dtype]
        if size != expected:
            raise CheckpointError(f"{what} has {size} bytes where its header needs {expected}", _REMEDY)


def _tensor(name: str, header: _Header, storage: str) -> StoredTensor:
    assert header.dtype is not None
    stride = None
    if header.is_fortran:
        stride = tuple(numel(header.shape[:axis]) for axis in range(len(header.shape)))
    return StoredTensor(name, header.shape, header.dtype, Place(storage, header.size, stride))
