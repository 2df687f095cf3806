"""Weights of Caffe: a `.caffemodel` is a protobuf message, a NetParameter. Its fields are walked and the data skipped.

The numbers of the fields are those of caffe.proto. A layer is a LayerParameter, or in older files a V1LayerParameter;
each has blobs, and a blob a shape and its numbers. A blob has no name: its place in the layer says what it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from vggscope.checkpoint.contents import Checkpoint, Extent, Original, Place, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.pickle_objects import LARGEST_RANK, LARGEST_SIDE
from vggscope.errors import CheckpointError, printable
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

_MOST_FIELDS = 100_000
"""Fields of a file that are looked at; the largest networks of Caffe have some ten thousand."""

_MOST_READ = 16 * 2**20
"""Bytes of tags, lengths, names and shapes that are read."""

_WINDOW = 32
"""Bytes that are read at a time: a field's tag and length have 20 at most."""

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
"""The wire types."""

_NET_OLD_LAYERS, _NET_LAYERS = 2, 100
_LAYER, _OLD_LAYER = (1, 2, 7), (4, 5, 6)
"""The numbers of a layer's name, type and blobs."""

_BLOB_SIDES, _BLOB_DATA, _BLOB_SHAPE, _BLOB_DOUBLES = (1, 2, 3, 4), 5, 7, 8
_SHAPE_SIDES = 1

_LONGEST_NAME = 1000

_OLD_TYPES = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution"}
"""The types of a V1LayerParameter that have blobs."""

_CONVOLUTIONS = ("Convolution", "Deconvolution")

_LEAVES = {
    "BatchNorm": ("running_mean", "running_var", "num_batches_tracked"),
    "Scale": ("weight", "bias"),
    "PReLU": ("weight",),
}
"""What each blob of a layer is, by the layer's type; of any other it is the weight and the bias."""

_REMEDY = "copy or download it again"


@record
class _Field:
    """A field: its number, its value for an integer, else the first byte and the size of its bytes."""

    number: int
    wire: int
    value: int
    start: int
    size: int


class _Walker:
    """Reads the fields of messages within the bounds of the file."""

    def __init__(self, file: BoundedFile) -> None:
        self._file = file
        self._fields = 0
        file.allow(_MOST_READ)

    def fields(self, start: int, size: int) -> Iterator[_Field]:
        """The fields of the message at `start`. Raises CheckpointError where they do not fill its `size` bytes."""
        position, end = start, start + size
        while position < end:
            self._fields += 1
            if self._fields > _MOST_FIELDS:
                raise CheckpointError("it has more fields than any network of Caffe", "it is damaged or malicious")
            head = self.bytes(position, min(_WINDOW, end - position))
            tag, used = _varint(head, 0)
            wire, value, length = tag & 7, 0, 0
            if wire == _VARINT:
                value, used = _varint(head, used)
            elif wire == _BYTES:
                length, used = _varint(head, used)
            elif wire in (_FIXED32, _FIXED64):
                length = 4 if wire == _FIXED32 else 8
            else:
                raise CheckpointError(f"it is no file of Caffe, or is damaged at byte {position}", _REMEDY)
            position += used
            if position + length > end:
                raise CheckpointError(f"it is cut short or damaged at byte {position}", _REMEDY)
            yield _Field(tag >> 3, wire, value, position, length)
            position += length

    def bytes(self, start: int, size: int) -> bytes:
        self._file.seek(start)
        return self._file.read(size)

    def text(self, field: _Field) -> str:
        return self.bytes(field.start, min(field.size, _LONGEST_NAME)).decode("utf-8", "replace")


def _varint(data: bytes, place: int) -> tuple[int, int]:
    """The number at a place, of ten bytes at most, and the place after it."""
    value = 0
    for shift in range(10):
        if place >= len(data):
            raise CheckpointError("it is cut short within a number", _REMEDY)
        byte = data[place]
        value |= (byte & 0x7F) << (7 * shift)
        place += 1
        if byte < 0x80:
            return value, place
    raise CheckpointError("it has a number longer than protobuf's", _REMEDY)


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The blobs of all layers. Raises CheckpointError where it is no NetParameter, is damaged or costs too much."""
    walker = _Walker(file)
    tensors: list[StoredTensor] = []
    storages: dict[str, Extent] = {}
    for field in walker.fields(0, file.size):
        if field.wire == _BYTES and field.number in (_NET_LAYERS, _NET_OLD_LAYERS):
            for tensor, extent in _layer(walker, field):
                key = str(len(tensors))
                if extent:
                    storages[key] = extent
                tensors.append(replace(tensor, place=Place(key, 0)))
    if not tensors:
        raise CheckpointError("it holds no blobs of Caffe's layers")
    counts = Counter(tensor.name for tensor in tensors)
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is not None:
        raise CheckpointError(f"two of its layers are called {printable(repeated)}")
    return Checkpoint(path, "caffemodel", tuple(tensors), storages=storages)


def _layer(walker: _Walker, layer: _Field) -> Iterator[tuple[StoredTensor, Extent | None]]:
    """The blobs of a layer, and where the numbers of each are."""
    is_old = layer.number == _NET_OLD_LAYERS
    number_of_name, number_of_type, number_of_blobs = _OLD_LAYER if is_old else _LAYER
    name, kind, blobs = "", "", []
    for field in walker.fields(layer.start, layer.size):
        if field.wire == _BYTES and field.number == number_of_name:
            name = walker.text(field)
        elif field.number == number_of_type:
            kind = walker.text(field) if field.wire == _BYTES else _OLD_TYPES.get(field.value, "")
        elif field.wire == _BYTES and field.number == number_of_blobs:
            blobs.append(field)
    leaves = _LEAVES.get(kind, ("weight", "bias"))
    for place, blob in enumerate(blobs):
        leaf = leaves[place] if place < len(leaves) else f"blob{place}"
        tensor, extent = _blob(walker, blob, f"{name}/{place}")
        shape = tensor.shape if kind in _CONVOLUTIONS and leaf == "weight" else _without_ones(tensor.shape, leaf)
        # The statistics of a norm are to be divided by its third blob: their numbers alone would be wrong.
        where = None if kind == "BatchNorm" else extent
        yield replace(tensor, name=f"{name.replace('/', '.')}.{leaf}", shape=shape), where


def _blob(walker: _Walker, blob: _Field, name: str) -> tuple[StoredTensor, Extent | None]:
    sides: dict[int, int] = {}
    shape: Shape | None = None
    pieces: list[_Field] = []
    for field in walker.fields(blob.start, blob.size):
        if field.number in _BLOB_SIDES and field.wire == _VARINT:
            sides[field.number] = field.value
        elif field.number == _BLOB_SHAPE and field.wire == _BYTES:
            shape = _shape(walker, field)
        elif field.number in (_BLOB_DATA, _BLOB_DOUBLES):
            pieces.append(field)
    if shape is None:
        shape = tuple(sides.get(number, 1) for number in _BLOB_SIDES) if sides else ()
    if len(shape) > LARGEST_RANK or any(side > LARGEST_SIDE for side in shape):
        raise CheckpointError(f"its blob {printable(name)} has a shape that no blob has")
    dtype = "float64" if any(piece.number == _BLOB_DOUBLES for piece in pieces) else "float32"
    held, needed = sum(piece.size for piece in pieces), numel(shape) * ELEMENT_BYTES[dtype]
    if held != needed:
        raise CheckpointError(f"its blob {printable(name)} has {held} bytes where its shape needs {needed}", _REMEDY)
    extent = Extent(pieces[0].start, needed) if len(pieces) == 1 else None
    return StoredTensor(name, shape, dtype, None, Original(name, shape)), extent


def _shape(walker: _Walker, field: _Field) -> Shape:
    """The sides in a BlobShape, packed or one by one."""
    sides: list[int] = []
    for part in walker.fields(field.start, field.size):
        if part.number == _SHAPE_SIDES and part.wire == _VARINT:
            sides.append(part.value)
        elif part.number == _SHAPE_SIDES and part.wire == _BYTES and part.size <= 10 * LARGEST_RANK:
            data, place = walker.bytes(part.start, part.size), 0
            while place < len(data):
                side, place = _varint(data, place)
                sides.append(side)
        if len(sides) > LARGEST_RANK:
            raise CheckpointError("a blob in it has a shape that no blob has")
    return tuple(sides)


def _without_ones(shape: Shape, leaf: str) -> Shape:
    """A blob's shape without the leading axes of 1 that older files give to matrices and vectors.

    >>> _without_ones((1, 1, 4096, 25088), "weight"), _without_ones((1, 1, 1, 64), "bias")
    ((4096, 25088), (64,))
    """
    extra = 4 - (2 if leaf == "weight" else 1)
    return shape[extra:] if len(shape) == 4 and set(shape[:extra]) == {1} else shape
