"""The weights in a program of torch.export (`.pt2`): lists as JSON, and the data of each tensor in a member of its own.

https://docs.pytorch.org/docs/stable/export/pt2_archive.html describes the archive. Its graph is read elsewhere.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

from vggscope.checkpoint.contents import Checkpoint, Extent, Place, StoredTensor
from vggscope.checkpoint.formats.archive import DAMAGE, REMEDY, json_of, text_of
from vggscope.checkpoint.formats.bounded_file import BoundedFile, stored_member
from vggscope.checkpoint.formats.pickle_objects import LARGEST_COUNT
from vggscope.checkpoint.formats.torch_save import LARGEST_DIRECTORY, read_inner
from vggscope.errors import CheckpointError, printable

FORMAT = "torch.export"

LISTS = (("data/weights/", "model_weights_config.json"), ("data/constants/", "model_constants_config.json"))
"""The folders of the tensors, and the lists in them: of parameters and buffers, and of constants."""

STATE_DICTS = ("serialized_state_dict.pt", "weights/model.pt")
"""The ends of the name of the member with the weights in archives of older releases: a checkpoint in the archive."""

CONSTANTS = ("serialized_constants.pt", "constants/model.pt")
"""Those of the member with the constants."""

DTYPES: Mapping[int, str] = MappingProxyType(
    {
        **{1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32", 8: "float64"},
        **{9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16"},
        **{29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz"},
        **{33: "float8_e8m0fnu", 34: "uint32", 35: "uint64"},
    }
)
"""torch's names of the numbers of ScalarType in the schema."""


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The weights, buffers and constants of a program, by the names that its graph has for them.

    Raises CheckpointError where the archive is damaged, or its lists are not of a form that is known.
    """
    file.allow(LARGEST_DIRECTORY)
    try:
        with zipfile.ZipFile(file) as archive:
            return _tensors_in(file, archive, path)
    except DAMAGE as error:
        reason = printable(str(error)) or "it ends within a member"
        raise CheckpointError(f"its zip archive is damaged or cut short: {reason}", REMEDY) from None


def _tensors_in(file: BoundedFile, archive: zipfile.ZipFile, path: str) -> Checkpoint:
    members = {info.filename: info for info in archive.infolist()}
    tensors: dict[str, StoredTensor] = {}
    storages: dict[str, Extent] = {}
    for folder, name in LISTS:
        listed = [member for member in members if member.endswith(folder + name)]
        if len(listed) != 1:
            continue
        prefix = listed[0].removesuffix(name)
        try:
            entries = json_of(text_of(file, archive, listed[0]), listed[0])["config"].items()
            tensors.update((key, _tensor(key, entry, prefix)) for key, entry in entries)
        except (LookupError, TypeError, ValueError, AttributeError):
            raise CheckpointError(f"its {printable(listed[0], 60)} is not of a form that is known", REMEDY) from None
    if not tensors:
        return _older(file, members, archive, path)
    if len(tensors) > LARGEST_COUNT:
        raise CheckpointError(f"it holds {len(tensors)} tensors, at most {LARGEST_COUNT} are read")
    for place in [tensor.place for tensor in tensors.values()]:
        info = members.get(place.storage) if place is not None else None
        if info is not None:
            is_plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
            storages[info.filename] = Extent(info.header_offset, info.file_size, "zip" if is_plain else "packed")
    held = tuple(_within(tensor, storages) for tensor in tensors.values())
    return Checkpoint(path, FORMAT, held, storages=storages)


def _older(
    file: BoundedFile, members: Mapping[str, zipfile.ZipInfo], archive: zipfile.ZipFile, path: str
) -> Checkpoint:
    """The weights in an archive of an older release: checkpoints in the archive."""
    tensors: list[StoredTensor] = []
    storages: dict[str, Extent] = {}
    for ends in (STATE_DICTS, CONSTANTS):
        held = [info for name, info in members.items() if name.endswith(ends) and "sample_inputs" not in name]
        if len(held) != 1 or held[0].compress_type != zipfile.ZIP_STORED or held[0].flag_bits & 1:
            continue
        window = stored_member(file, archive, held[0])
        try:
            inner = read_inner(file, window, path)
        except CheckpointError:
            if ends is STATE_DICTS:
                raise
            continue  # an empty dict, in which no state dict is
        name = held[0].filename
        storages.update((f"{name}/{key}", extent) for key, extent in inner.storages.items())
        for tensor in inner.tensors:
            place = tensor.place and replace(tensor.place, storage=f"{name}/{tensor.place.storage}")
            tensors.append(replace(tensor, place=place))
    if not tensors:
        raise CheckpointError("it holds no list of its weights", "write it again by torch.export.save")
    return Checkpoint(path, FORMAT, tuple(tensors), storages=storages)


def _tensor(key: str, entry: Mapping[str, Any], prefix: str) -> StoredTensor:
    meta = entry["tensor_meta"]
    sizes, strides = (tuple(_number(size) for size in meta[name]) for name in ("sizes", "strides"))
    dtype = DTYPES.get(meta["dtype"], "unknown")
    is_data = not entry.get("use_pickle") and len(sizes) == len(strides)
    storage = f"{prefix}{entry['path_name']}"
    offset = _number(meta["storage_offset"])
    place = Place(storage, offset * _WIDTHS[dtype], strides) if is_data and dtype in _WIDTHS else None
    return StoredTensor(str(key), sizes, dtype, place, is_buffer=not entry.get("is_param"))


def _number(size: Mapping[str, Any]) -> int:
    number = size["as_int"]
    if type(number) is not int or not 0 <= number < 2**48:
        raise ValueError(number)
    return number


def _within(tensor: StoredTensor, storages: Mapping[str, Extent]) -> StoredTensor:
    """The tensor without its place if its elements are not all in its storage."""
    place = tensor.place
    extent = storages.get(place.storage) if place is not None else None
    if place is None or extent is None or 0 in tensor.shape:
        return tensor
    last = sum((side - 1) * step for side, step in zip(tensor.shape, place.stride or ()))
    end = place.offset + (last + 1) * _WIDTHS[tensor.dtype]
    return tensor if end <= extent.size else replace(tensor, place=None)


_WIDTHS = {
    **{"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2, "complex64": 8, "bool": 1},
    **{"int64": 8, "int32": 4, "int16": 2, "int8": 1, "uint64": 8, "uint32": 4, "uint16": 2, "uint8": 1},
    **{"float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1},
}
"""Bytes of one element."""
