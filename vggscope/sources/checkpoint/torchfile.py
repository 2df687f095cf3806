"""What torch.save writes: a zip archive with a pickle in it or, before torch 1.6, pickles in a row with data behind."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Iterator

from vggscope.analysis.inspection.stored import Checkpoint, StoredTensor
from vggscope.errors import CheckpointError, printable
from vggscope.sources.checkpoint.file import BoundedFile
from vggscope.sources.checkpoint.inert import LARGEST_PICKLE, Machine
from vggscope.sources.checkpoint.records import LARGEST_COUNT, Dictionary, Tensor

LARGEST_DIRECTORY = 6 * 2**20
"""Bytes of a zip's list of members: some 90,000 tensors."""

_FIRST_LOOK = 2**18
"""Bytes of an old file that are read at first; its pickle is seldom longer."""

_ENCRYPTED = 1
"""The flag of a zip archive's member that a password locks."""

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value in the old format."""

_DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError, LookupError, OverflowError),
)
"""All that the standard library raises over an archive that is broken, encrypted or packed in an unusual way."""

_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "state_dict_ema",
    "model_ema",
    "ema",
)
"""Keys under which training scripts keep the state dict, the likeliest first."""

_DEEPEST = 3
"""How many of those lie inside one another at most."""


def read_zip(file: BoundedFile, path: str) -> Checkpoint:
    """The checkpoint in torch's zip archive.

    Raises CheckpointError where the archive is damaged, is not torch's, or its pickle is refused.
    """
    file.allow(LARGEST_DIRECTORY)
    try:
        with zipfile.ZipFile(file) as archive:
            member = _pickle_member(archive)
            file.allow(LARGEST_PICKLE + 2**16)
            with archive.open(member) as stream:
                machine = Machine(stream.read(LARGEST_PICKLE + 1))
            root = machine.load()
            _check_storages(archive, member.filename.removesuffix("data.pkl"), machine.storages, file.size)
    except _DAMAGE as error:
        reason = printable(str(error)) or "it ends within its pickle"
        raise CheckpointError(f"its zip archive is damaged or cut short: {reason}", _AGAIN) from None
    return _checkpoint(root, machine, path, "torch zip")


_AGAIN = "copy or download it again"


def _pickle_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    names = archive.namelist()
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in names):
        raise CheckpointError(
            "it is a TorchScript archive, which holds a program beside its weights",
            "write the weights alone: torch.save(torch.jit.load(FILE).state_dict(), 'weights.pth')",
        )
    found = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(found) != 1:
        raise CheckpointError(
            f"it is a zip archive with {len(found) or 'no'} data.pkl, torch.save writes one", "is it another program's?"
        )
    member = archive.getinfo(found[0])
    if member.flag_bits & _ENCRYPTED:
        raise CheckpointError("its data.pkl is encrypted, which torch does not read")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError("its data.pkl is compressed in a way that torch does not read")
    if member.file_size > LARGEST_PICKLE:
        raise CheckpointError(f"its data.pkl claims {member.file_size} bytes, no state dict has so many", _AGAIN)
    return member


def _check_storages(archive: zipfile.ZipFile, root: str, storages: dict[str, int], size: int) -> None:
    """Each storage is a member as large as the pickle says, and lies inside the file."""
    members = {info.filename: info for info in archive.infolist()}
    for key, expected in storages.items():
        info = members.get(f"{root}data/{key}")
        have = 0 if info is None else info.file_size
        if have != expected:
            raise CheckpointError(f"its data/{printable(key)} has {have} bytes where {expected} are expected", _AGAIN)
        if info is not None and info.header_offset + info.compress_size > size:
            raise CheckpointError(f"its data/{printable(key)} ends behind the end of the file", _AGAIN)


def read_legacy(file: BoundedFile, path: str) -> Checkpoint:
    """The checkpoint in the format before torch 1.6.

    Raises CheckpointError where the file is damaged, is a pickle of another kind, or is refused.
    """
    for most in (_FIRST_LOOK, LARGEST_PICKLE):
        file.seek(0)
        file.allow(most)
        machine = Machine(file.read(min(most, file.size)))
        try:
            root = _legacy_root(machine)
        except EOFError:
            continue
        expected = machine.position + sum(8 + count for count in machine.storages.values())
        if file.size < expected:
            raise CheckpointError(f"it is cut short: {file.size} bytes where {expected} are expected", _AGAIN)
        return _checkpoint(root, machine, path, "torch legacy")
    raise CheckpointError("it is cut short within its pickle, or has none that ends", _AGAIN)


def _legacy_root(machine: Machine) -> object:
    """The third of: magic number, protocol, system, object, keys of the storages. The data follows."""
    if machine.load() != _MAGIC:
        raise CheckpointError(
            "it is a plain pickle, not a file of torch.save",
            "if you trust who made it, load it in Python and torch.save(state_dict, 'weights.pth')",
        )
    machine.load()
    machine.load()
    root = machine.load()
    machine.load()
    return root


def _checkpoint(root: object, machine: Machine, path: str, layout: str) -> Checkpoint:
    names, state, beside = _state_dict(root)
    tensors = tuple(_tensors(state))
    if len(tensors) > LARGEST_COUNT:
        raise CheckpointError(f"it holds {len(tensors)} tensors, at most {LARGEST_COUNT} are read")
    guarded = tuple(sorted(machine.guarded))
    return Checkpoint(path, layout, tensors, names, beside, guarded)


def _tensors(state: Dictionary) -> Iterator[StoredTensor]:
    for name, value in state.named().items():
        if isinstance(value, Tensor):
            yield StoredTensor(name, value.shape, value.dtype)


def _state_dict(root: object) -> tuple[tuple[str, ...], Dictionary, tuple[str, ...]]:
    """The keys that lead to the dict of tensors, that dict, and the keys that lie beside it."""
    names: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    for _ in range(_DEEPEST):
        if not isinstance(root, Dictionary):
            break
        entries = root.named()
        inside = next((name for name in _WRAPPERS if _holds(entries.get(name))), None)
        if inside is None:
            break
        beside = (*beside, *(name for name in entries if name != inside))
        names, root = (*names, inside), entries[inside]
    if isinstance(root, Dictionary) and any(isinstance(value, Tensor) for value in root.named().values()):
        return names, root, beside
    raise CheckpointError(f"it holds no state dict but {_described(root)}", "torch.save(model.state_dict(), FILE)")


def _holds(value: object) -> bool:
    """Whether a value is a dict with tensors in it, or with a dict under one of the known keys."""
    if not isinstance(value, Dictionary):
        return False
    entries = value.named()
    return any(isinstance(v, Tensor) for v in entries.values()) or any(
        isinstance(entries.get(name), Dictionary) for name in _WRAPPERS
    )


def _described(root: object) -> str:
    if isinstance(root, Dictionary):
        names = [printable(name, 30) for name in root.named()]
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        return f"a dict with the keys {shown}" if names else "an empty dict"
    if isinstance(root, Tensor):
        return "one tensor"
    return "a list" if isinstance(root, (list, tuple)) else "something else"
