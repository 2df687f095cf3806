"""The data of a checkpoint's tensors, read by NumPy piece by piece; no code in the file runs.

A file may claim more data than it has: members of an archive that overlap, tensors that share a storage, one number
stretched to a large shape. So the work that a file asks for is bounded before any of it is done.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from math import prod
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint.contents import Checkpoint, Extent, StoredTensor
from vggscope.checkpoint.flattened_maps import GraphOf, with_known_maps
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.inflated import Inflated
from vggscope.checkpoint.reader import explained, read
from vggscope.errors import CheckpointError, printable
from vggscope.ops.base import Shape, numel

if TYPE_CHECKING:
    from numpy import ndarray

    Array = ndarray[Any, Any]

PIECE = 2**16
"""Elements that are read at once: a few arrays of so many fit a core's cache."""

LARGEST_WHOLE = 4 * 2**30
"""Bytes of the largest tensor that is read as a whole, which takes as much memory."""

FREE_BYTES = 2**30
"""Bytes that a file's tensors may have beyond twice its size, as tensors of one stretched number do."""

LARGEST_INFLATED = 2**62
"""The last byte of what a part of a file inflates to. What is read of it is bounded by the tensors' claims."""

_CODES = {
    **{"float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "u2"},
    **{"int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1", "bool": "u1"},
    **{"uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1"},
    **{"complex64": "u8", "float8_e4m3fn": "u1", "float8_e5m2": "u1"},
    **{"float8_e4m3fnuz": "u1", "float8_e5m2fnuz": "u1", "float8_e8m0fnu": "u1"},
}
"""NumPy's code for the bytes of one element, by torch's name of the dtype."""

FLOATS = ("float64", "float32", "float16", "bfloat16")
"""The floating-point dtypes whose numbers are read, the most precise first."""

NUMBERS = (*FLOATS, "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8", "bool")
"""The dtypes whose numbers are read. Of the others only the bytes are."""

_UNREAD = {"packed": "its data is compressed or encrypted", "text": "its data is text, save the file in binary"}
"""Why the data of an extent is not read, by its header."""

_LOCAL_HEADER, _SIGNATURE = 30, b"PK\x03\x04"
"""The fixed part of the header before the data of a member of a zip archive: its length, and its first bytes."""


class TensorFile:
    """An open checkpoint whose data can be read. `checkpoint` describes its tensors."""

    def __init__(self, file: BoundedFile, path: str, checkpoint: Checkpoint) -> None:
        self._file = file
        self._path = path
        self.checkpoint = checkpoint
        claimed = sum(self.size(tensor) for tensor in self.checkpoint.tensors if not self.obstacle(tensor))
        if claimed > 2 * file.size + FREE_BYTES:
            raise CheckpointError(
                f"its tensors claim {claimed} bytes of data, the file has {file.size}",
                "its tensors share data: save each as its own, by tensor.clone()",
            )
        used = {tensor.place.storage for tensor in self.checkpoint.tensors if tensor.place}
        extents = {key: extent for key, extent in self.checkpoint.storages.items() if key in used}
        self._places = _places(file, extents)
        self._inflated: Inflated | None = None
        self._buffer = bytearray()

    def obstacle(self, tensor: StoredTensor) -> str:
        """Why a tensor's data is not read; empty if it is."""
        if tensor.name in self.checkpoint.sparse:
            return "it is sparse"
        if tensor.dtype not in _CODES:
            return f"{tensor.dtype} is not read"
        if tensor.place is None:
            return "its elements are not stored one by one"
        extent = self.checkpoint.storages.get(tensor.place.storage)
        if extent is None:
            return "its data is not in the file"
        if extent.header in _UNREAD:
            return _UNREAD[extent.header]
        is_readable = _is_contiguous(tensor) or self._is_readable(tensor)
        return "" if is_readable else f"its elements are spread over {_span(tensor) * self.item_size(tensor)} bytes"

    def item_size(self, tensor: StoredTensor) -> int:
        """Bytes of one element."""
        return int(_CODES[tensor.dtype][1:])

    def size(self, tensor: StoredTensor) -> int:
        """Bytes of all elements of a tensor."""
        return numel(tensor.shape) * self.item_size(tensor)

    def pieces(self, tensor: StoredTensor, count: int = PIECE) -> Iterator[Array]:
        """The elements in row-major order as flat arrays of `count`; each is valid until the next is taken.

        Raises CheckpointError where the file cannot be read.
        """
        import numpy as np

        with explained(self._path):
            total, item, code = numel(tensor.shape), self.item_size(tensor), self._code(tensor)
            if not _is_contiguous(tensor):
                flat = self.whole(tensor).flat
                for begin in range(0, total, count):
                    yield flat[begin : begin + count]
                return
            if len(self._buffer) < count * item:
                self._buffer = bytearray(count * item)
            buffer = memoryview(self._buffer)
            for begin in range(0, total, count):
                room = min(count, total - begin) * item
                self._fill(tensor, buffer[:room], begin * item)
                yield _native(np.frombuffer(buffer[:room], code))

    def whole(self, tensor: StoredTensor) -> Array:
        """All elements in the tensor's shape. Raises CheckpointError where it is too large or cannot be read."""
        import numpy as np
        from numpy.lib.stride_tricks import as_strided

        with explained(self._path):
            item = self.item_size(tensor)
            span = numel(tensor.shape) if _is_contiguous(tensor) else _span(tensor)
            if span * item > LARGEST_WHOLE:
                raise CheckpointError(f"{printable(tensor.name)} has {span * item} bytes, too many to read at once")
            array = np.empty(span, self._code(tensor))
            if span:
                self._fill(tensor, array.view(np.uint8).data, 0)
            strides = tuple(step * item for step in _strides(tensor))
            laid_out = as_strided(_native(array), _view(tensor), strides, writeable=False).reshape(tensor.shape)
            blocks = list(_blocks(tensor))
            return laid_out.reshape(len(blocks), -1)[blocks].reshape(tensor.shape) if blocks and span else laid_out

    def sample(self, tensor: StoredTensor, indices: Sequence[Shape]) -> Array:
        """The elements at a few indices. Raises CheckpointError where the file cannot be read."""
        import numpy as np

        with explained(self._path):
            item = self.item_size(tensor)
            data = bytearray(item * len(indices))
            # In the order of the file: compressed data are read forwards.
            for offset, place in sorted((_offset(tensor, index), place) for place, index in enumerate(indices)):
                self._fill(tensor, memoryview(data)[place * item : (place + 1) * item], offset * item)
            return _native(np.frombuffer(data, self._code(tensor)))

    def digest(self, advance: int = 2**20) -> str:
        """The SHA-256 of the whole file, in hexadecimal. Raises CheckpointError where it cannot be read."""
        from hashlib import sha256

        with explained(self._path):
            total, buffer = sha256(), memoryview(bytearray(advance))
            for begin in range(0, self._file.size, advance):
                part = buffer[: min(advance, self._file.size - begin)]
                self._file.fill(part, begin)
                total.update(part)
            return total.hexdigest()

    def _code(self, tensor: StoredTensor) -> str:
        return (">" if self.checkpoint.big_endian else "<") + _CODES[tensor.dtype]

    def _fill(self, tensor: StoredTensor, buffer: memoryview, offset: int) -> None:
        """Fill a buffer with the bytes from `offset` on, counted from the tensor's first element."""
        assert tensor.place is not None
        part, start = self._places[tensor.place.storage]
        source: BoundedFile | Inflated = self._file if part is None else self._inflate(part)
        source.fill(buffer, start + tensor.place.offset + offset)

    def _inflate(self, part: Extent) -> Inflated:
        """What a part of the file inflates to. The last one that was asked for is kept."""
        kept = self._inflated
        if kept is None or kept.start != part.start:
            is_member = part.header == "zip"
            kept = Inflated(self._file, part.start, part.size, limit=LARGEST_INFLATED, raw=is_member)
            self._inflated = kept
        return kept

    def _is_readable(self, tensor: StoredTensor) -> bool:
        """Whether a tensor with gaps, or in another order, is small enough to read all that it spans."""
        span, item = _span(tensor), self.item_size(tensor)
        return span * item <= (LARGEST_WHOLE if span <= 2 * numel(tensor.shape) else 64 * 2**20)


class ShardedTensorFile(TensorFile):
    """An open checkpoint in several files, `shards`. `file` is their index, of which the digest is."""

    def __init__(self, file: BoundedFile, path: str, checkpoint: Checkpoint, shards: Sequence[TensorFile]) -> None:
        super().__init__(file, path, replace(checkpoint, tensors=()))
        self.checkpoint = checkpoint
        self._shard_of = {tensor.name: shard for shard in shards for tensor in shard.checkpoint.tensors}

    def obstacle(self, tensor: StoredTensor) -> str:
        return self._shard_of[tensor.name].obstacle(tensor)

    def pieces(self, tensor: StoredTensor, count: int = PIECE) -> Iterator[Array]:
        return self._shard_of[tensor.name].pieces(tensor, count)

    def whole(self, tensor: StoredTensor) -> Array:
        return self._shard_of[tensor.name].whole(tensor)

    def sample(self, tensor: StoredTensor, indices: Sequence[Shape]) -> Array:
        return self._shard_of[tensor.name].sample(tensor, indices)


@contextmanager
def open_tensors(path: str | os.PathLike[str], graph_of: GraphOf | None = None) -> Iterator[TensorFile]:
    """Open a checkpoint to read its data. `graph_of` returns the network in a file, which tells the sides of maps.

    Raises CheckpointError as `reader.read` does, and where data overlap.
    """
    with open_checkpoint(with_known_maps(read(path), graph_of)) as tensors:
        yield tensors


@contextmanager
def open_checkpoint(checkpoint: Checkpoint) -> Iterator[TensorFile]:
    """Open a checkpoint that is read already. Raises CheckpointError where it cannot be read, or its data overlap."""
    path = checkpoint.path
    with ExitStack() as stack:
        with explained(path):
            file = stack.enter_context(BoundedFile(path))
        shards = [_opened(stack, shard.path, shard) for shard in checkpoint.shards]
        with explained(path):
            tensors = (
                ShardedTensorFile(file, path, checkpoint, shards) if shards else TensorFile(file, path, checkpoint)
            )
        yield tensors


def _opened(stack: ExitStack, path: str, checkpoint: Checkpoint) -> TensorFile:
    with explained(path):
        return TensorFile(stack.enter_context(BoundedFile(path)), path, checkpoint)


def numbers(raw: Array, dtype: str) -> Array:
    """The numbers of raw elements of one of NUMBERS: in float64 for integers and float64, else in float32."""
    import numpy as np

    if dtype == "bfloat16":
        wide: Array = (raw.astype(np.uint32) << 16).view(np.float32)
        return wide
    if dtype in ("float32", "float16"):
        return raw.astype(np.float32, copy=False)
    return raw.astype(np.float64, copy=False)


def _native(array: Array) -> Array:
    """The array with the bytes of each number in this machine's order."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _places(file: BoundedFile, extents: Mapping[str, Extent]) -> dict[str, tuple[Extent | None, int]]:
    """The byte at which the data of each storage begins, in the file or in what a compressed part inflates to.

    The part begins with its data. Raises CheckpointError where data overlap or do not fit.
    """
    readable = {key: extent for key, extent in extents.items() if extent.header not in _UNREAD}
    parts = {extent.within: key for key, extent in readable.items() if extent.within is not None}
    starts = {key: _data_start(file, extent) for key, extent in readable.items()}
    part_starts = {part: _data_start(file, part) for part in parts}
    plain = [(starts[key], extent.size, key) for key, extent in readable.items() if extent.within is None]
    _check_apart([*plain, *((part_starts[part], part.size, key) for part, key in parts.items())], file.size)
    inner: dict[Extent, list[tuple[int, int, str]]] = {}
    for key, extent in readable.items():
        if extent.within is not None:
            inner.setdefault(extent.within, []).append((starts[key], extent.size, key))
    places: dict[str, tuple[Extent | None, int]] = {key: (None, start) for start, _, key in plain}
    for part, spans in inner.items():
        _check_apart(spans, LARGEST_INFLATED)
        data = replace(part, start=part_starts[part])
        places.update({key: (data, start) for start, _, key in spans})
    return places


def _check_apart(spans: Sequence[tuple[int, int, str]], end_of_all: int) -> None:
    """Raise CheckpointError where spans, each a start, a size and the key of its storage, overlap or end too late."""
    end, before = 0, ""
    for start, size, key in sorted(spans):
        if start < end and size:
            raise CheckpointError(f"its data/{printable(before)} and data/{printable(key)} overlap", "it is malicious")
        end, before = start + size, key
    if end > end_of_all:
        raise CheckpointError(f"its data/{printable(before)} ends after the end of the file", "download it again")


def _data_start(file: BoundedFile, extent: Extent) -> int:
    if extent.header == "zip":
        head = memoryview(bytearray(_LOCAL_HEADER))
        file.fill(head, extent.start)
        if head[:4] != _SIGNATURE:
            raise CheckpointError("its zip archive is damaged: a member has no header", "copy or download it again")
        lengths = (int.from_bytes(head[place : place + 2], "little") for place in (26, 28))
        return extent.start + _LOCAL_HEADER + sum(lengths)
    if extent.header == "count":
        count = memoryview(bytearray(8))
        file.fill(count, extent.start)
        elements = (int.from_bytes(count, order) for order in ("little", "big"))
        if extent.size not in (number * width for number in elements for width in (1, 2, 4, 8, 16)):
            raise CheckpointError("the sizes in its pickle and before its data differ", "copy or download it again")
        return extent.start + len(count)
    return extent.start


def _view(tensor: StoredTensor) -> Shape:
    """The shape of the axes that the strides belong to."""
    return tensor.place.view if tensor.place is not None and tensor.place.view is not None else tensor.shape


def _offset(tensor: StoredTensor, index: Shape) -> int:
    """The place of an element among those from the first on."""
    view, blocks = _view(tensor), _blocks(tensor)
    if blocks:
        rows = tensor.shape[0] // len(blocks)
        index = (blocks[index[0] // rows] * rows + index[0] % rows, *index[1:])
    if view != tensor.shape:
        flat = sum(i * prod(tensor.shape[axis + 1 :]) for axis, i in enumerate(index))
        index = tuple(flat // prod(view[axis + 1 :]) % side for axis, side in enumerate(view))
    return sum(i * step for i, step in zip(index, _strides(tensor)))


def _blocks(tensor: StoredTensor) -> tuple[int, ...]:
    """The places in the file of equal parts of the first axis; empty if they are in their order."""
    return tensor.place.blocks if tensor.place is not None else ()


def _strides(tensor: StoredTensor) -> Shape:
    """The strides in elements, of the axes of the view."""
    if tensor.place is not None and tensor.place.stride is not None:
        return tensor.place.stride
    return tuple(prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))


def _is_contiguous(tensor: StoredTensor) -> bool:
    """Whether the elements follow one another in row-major order."""
    if _blocks(tensor):
        return False
    expected = 1
    for side, step in zip(reversed(_view(tensor)), reversed(_strides(tensor))):
        if side != 1 and step != expected:
            return not numel(tensor.shape)
        expected *= side
    return True


def _span(tensor: StoredTensor) -> int:
    """The elements from the first to the last of the tensor's, those between them included."""
    if not numel(tensor.shape):
        return 0
    return 1 + sum((side - 1) * step for side, step in zip(_view(tensor), _strides(tensor)))
