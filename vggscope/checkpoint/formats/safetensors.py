"""Files of safetensors: 8 bytes of length, then a JSON header with each tensor's dtype, shape and data offsets.

The format is described at https://huggingface.co/docs/safetensors. The data after the header is not read.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TypeGuard

from vggscope.checkpoint.contents import Checkpoint, Extent, Place, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.pickle_objects import LARGEST_COUNT, LARGEST_RANK, LARGEST_SIDE
from vggscope.errors import CheckpointError, printable
from vggscope.ops.base import numel
from vggscope.units import ELEMENT_BYTES

LARGEST_HEADER = 16 * 2**20
"""Bytes; the format's own limit is 100 MB, far more than any checkpoint needs."""

_MAX_SIGNS = (
    (b"{", LARGEST_COUNT + 2),
    (b"[", 2 * LARGEST_COUNT + 1000),
    (b",", 16 * LARGEST_COUNT),
    (b":", 16 * LARGEST_COUNT),
)
"""How often each sign occurs at most in a header of LARGEST_COUNT tensors."""

_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "F8_E8M0": "float8_e8m0fnu",
    "F6_E3M2": "float6_e3m2",
    "F6_E2M3": "float6_e2m3",
    "F4": "float4_e2m1fn",
}
"""torch's name of each dtype, or a name in its style where torch has none."""

_SUB_BYTE_BITS = {"float6_e3m2": 6, "float6_e2m3": 6, "float4_e2m1fn": 4}
"""Bits of one element of the dtypes that torch does not have."""

Pairs = list[tuple[str, object]]
"""The members of a JSON object, equal keys included."""

Placed = tuple[StoredTensor, int, int]
"""A tensor, and the begin and end of its data in bytes after the header."""


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The checkpoint that the header describes.

    Raises CheckpointError where the header is malformed or does not fit the size of the file.
    """
    pairs = _parse(_header(file))
    counts = Counter(name for name, _ in pairs)
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is not None:
        raise CheckpointError(f"its header names {printable(repeated)} twice")
    placed = [_tensor(name, value) for name, value in pairs if name != "__metadata__"]
    if not placed:
        raise CheckpointError("it holds no tensors")
    _check_offsets(placed, file.size - file.tell())
    storages = {"": Extent(file.tell(), file.size - file.tell())}
    return Checkpoint(path, "safetensors", tuple(tensor for tensor, _, _ in placed), storages=storages)


def _header(file: BoundedFile) -> bytes:
    file.seek(0)
    file.allow(LARGEST_HEADER + 8)
    length = int.from_bytes(file.read(8), "little")
    if file.size < 8 or length > file.size - 8:
        raise CheckpointError(
            f"its header claims more than the file's {file.size} bytes: it is cut short or no safetensors",
            "copy or download it again",
        )
    if length > LARGEST_HEADER:
        raise CheckpointError(f"its header claims {length} bytes, at most {LARGEST_HEADER} are read")
    header = file.read(length)
    # Parsed, each of these signs takes many times the memory of its one byte.
    if any(header.count(sign) > most for sign, most in _MAX_SIGNS):
        raise CheckpointError(f"its header names more than {LARGEST_COUNT} tensors")
    return header


def _parse(header: bytes) -> Pairs:
    try:
        value = json.loads(
            header.decode(),
            object_pairs_hook=_Object,
            parse_int=_integer,
            parse_float=_no_number,
            parse_constant=_no_number,
        )
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else printable(str(error))
        raise CheckpointError(f"its header is not the JSON of a safetensors file: {reason}") from None
    if not isinstance(value, _Object) or len(value) > LARGEST_COUNT + 1:
        raise CheckpointError(f"its header is not a list of at most {LARGEST_COUNT} tensors")
    return value


class _Object(Pairs):
    """A JSON object. The separate type distinguishes it from a JSON array."""


def _integer(text: str) -> int:
    if len(text) > 20:
        raise ValueError(f"an integer of {len(text)} digits")
    return int(text)


def _no_number(text: str) -> float:
    raise ValueError(f"{text[:20]} is not an integer")


def _tensor(name: str, value: object) -> Placed:
    fields = dict(value) if isinstance(value, _Object) else {}
    dtype, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if re.search("[\ud800-\udfff]", name):
        raise CheckpointError(f"its tensor {printable(name)} has a name that is not valid Unicode")
    if not isinstance(dtype, str) or dtype not in _DTYPES:
        raise CheckpointError(f"its tensor {printable(name)} has no known dtype")
    if not _are_counts(shape) or len(shape) > LARGEST_RANK:
        raise CheckpointError(f"its tensor {printable(name)} has no shape that a tensor can have")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise CheckpointError(f"its tensor {printable(name)} has no valid data_offsets")
    torch_name = _DTYPES[dtype]
    bits = _SUB_BYTE_BITS.get(torch_name) or 8 * ELEMENT_BYTES[torch_name]
    size = -(-numel(tuple(shape)) * bits // 8)
    if offsets[1] - offsets[0] != size:
        raise CheckpointError(
            f"its tensor {printable(name)} has {offsets[1] - offsets[0]} bytes where its shape needs {size}"
        )
    return StoredTensor(name, tuple(shape), torch_name, Place("", offsets[0])), offsets[0], offsets[1]


def _are_counts(value: object) -> TypeGuard[list[int]]:
    return type(value) is list and all(type(count) is int and 0 <= count <= LARGEST_SIDE for count in value)


def _check_offsets(placed: list[Placed], room: int) -> None:
    """Raise CheckpointError unless the tensors' data fills `room` bytes without gaps or overlaps."""
    end = 0
    for tensor, begin, following in sorted(placed, key=lambda item: item[1:]):
        if begin != end:
            what = "overlaps another's" if begin < end else "leaves a gap before it"
            raise CheckpointError(f"the data of its tensor {printable(tensor.name)} {what}")
        end = following
    if end != room:
        verdict = "cut short" if room < end else "too long"
        raise CheckpointError(
            f"its header describes {end} bytes of data, {room} follow: it is {verdict}", "copy or download it again"
        )
