"""Files of torch.save: a zip archive with a pickle in it or, before torch 1.6, pickles and then the data."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace

from vggscope.checkpoint.contents import Checkpoint, Extent, StoredModule, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile, FileWindow
from vggscope.checkpoint.formats.module_tree import is_module, tree_of
from vggscope.checkpoint.formats.pickle_objects import LARGEST_COUNT, Dictionary, Instance, Opaque, Tensor
from vggscope.checkpoint.formats.pickle_scanner import LARGEST_PICKLE, PickleScanner
from vggscope.checkpoint.formats.script_tree import script_modules, script_tensors, script_text
from vggscope.errors import CheckpointError, printable

LARGEST_DIRECTORY = 6 * 2**20
"""Bytes of a zip's list of members: about 90,000 tensors."""

_FIRST_READ = 2**18
"""Bytes of a legacy file that are read at first; its pickle is seldom longer."""

ENCRYPTED = 1
"""The flag of an encrypted member of a zip archive."""

_MAGIC = 0x1950A86A20F9469CFC6C
"""The first value in the legacy format."""

_REMEDY = "copy or download it again"

DAMAGE = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(EOFError, OSError, ValueError, RuntimeError, LookupError, OverflowError),
)
"""What the standard library raises for an archive that is broken, encrypted or compressed by an unusual method."""

_OTHER_ARCHIVES = (
    ((".h5",), "a Keras archive", "convert it to a PyTorch state dict first"),
    (
        ("archive_format",),
        "a program of torch.export",
        "vggscope summary FILE.pt2 reads its layers; for the weights alone:"
        " torch.save(torch.export.load(FILE).state_dict, 'weights.pth')",
    ),
    ((".pth", ".pt", ".safetensors"), "a zip archive with a checkpoint in it", "unpack it first"),
)
"""Other zip archives: the endings of a member's name, what the archive is, and the remedy."""

TORCH_SCRIPT = "TorchScript"
"""The format of an archive of torch.jit.save."""

_STATE_DICT_KEYS = (
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
"""Keys under which training scripts store the state dict, the likeliest first."""

_MAX_DEPTH = 3
"""The most such keys that lead to a state dict."""

_MOST_TREES, _MOST_KEYS = 8, 100
"""Whole modules in one file, and the keys of a dict that may hold them."""


def read_zip(file: BoundedFile, path: str) -> Checkpoint:
    """The checkpoint in a zip archive of torch.save.

    Raises CheckpointError where the archive is damaged, is not torch's, or its pickle is refused.
    """
    file.allow(LARGEST_DIRECTORY)
    try:
        with zipfile.ZipFile(file) as archive:
            member = _pickle_member(archive)
            folder = member.filename.removesuffix("data.pkl")
            is_script = folder + "constants.pkl" in archive.NameToInfo
            root, scanner = scanned(file, archive, member, is_script=is_script)
            storages = _storages(archive, folder, scanner.storages, file.size)
            big_endian = _is_big_endian(archive, folder)
            modules = script_modules(root, _classes_of(file, archive, folder)) if is_script else ()
    except DAMAGE as error:
        reason = printable(str(error)) or "it ends within its pickle"
        raise CheckpointError(f"its zip archive is damaged or cut short: {reason}", _REMEDY) from None
    if is_script:
        tensors = tuple(script_tensors(root, modules))
        checkpoint = Checkpoint(path, TORCH_SCRIPT, tensors, modules=modules)
    else:
        checkpoint = checkpoint_of(root, scanner, path, "torch zip")
    return replace(checkpoint, storages=storages, big_endian=big_endian)


def read_inner(file: BoundedFile, window: FileWindow, path: str) -> Checkpoint:
    """The checkpoint of torch.save that is a member of another archive, uncompressed. Raises as `read_zip` does."""
    file.allow(LARGEST_DIRECTORY)
    with zipfile.ZipFile(window) as archive:
        member = _pickle_member(archive)
        root, scanner = scanned(file, archive, member)
        folder = member.filename.removesuffix("data.pkl")
        inner = _storages(archive, folder, scanner.storages, window.size)
        big_endian = _is_big_endian(archive, folder)
    storages = {key: replace(extent, start=window.start + extent.start) for key, extent in inner.items()}
    return replace(checkpoint_of(root, scanner, path, "torch zip"), storages=storages, big_endian=big_endian)


def places_in(file: BoundedFile, archive: zipfile.ZipFile) -> dict[str, list[str]]:
    """Where each tensor of a state dict is, by name: its storage, its place in that, and its shape.

    `archive` is one of torch.save within the file. Raises as `read_zip` does, and what zipfile raises.
    """
    root, scanner = scanned(file, archive, _pickle_member(archive))
    checkpoint = checkpoint_of(root, scanner, "", "torch zip")
    return {t.name: [str(t.shape), t.dtype, str(t.place)] for t in checkpoint.tensors if t.place is not None}


def scanned(
    file: BoundedFile, archive: zipfile.ZipFile, member: zipfile.ZipInfo, *, is_script: bool = False
) -> tuple[object, PickleScanner]:
    """The value in a member with a pickle, and the scanner that read it."""
    file.allow(LARGEST_PICKLE + 2**16)
    with archive.open(member) as stream:
        scanner = PickleScanner(stream.read(LARGEST_PICKLE + 1), is_script=is_script)
    file.bytes_inflated += member.file_size
    return scanner.load(), scanner


def _classes_of(file: BoundedFile, archive: zipfile.ZipFile, folder: str) -> Callable[[str], str]:
    """The function that returns the text of the member in which a class of TorchScript is; empty if there is none."""

    def text(kind: str) -> str:
        name = f"{folder}code/{kind.rpartition('.')[0].replace('.', '/')}.py"
        member = archive.NameToInfo.get(name)
        if member is None:
            return ""
        return script_text(file, archive, member)

    return text


def _pickle_member(archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    names = archive.namelist()
    pickles = [name for name in names if name.endswith("/data.pkl") and name.count("/") == 1]
    if len(pickles) != 1:
        for endings, kind, remedy in _OTHER_ARCHIVES:
            if any(name.endswith(endings) for name in names):
                raise CheckpointError(f"it is {kind}", remedy)
        raise CheckpointError(
            f"it is a zip archive with {len(pickles) or 'no'} data.pkl, torch.save writes one",
            "is it another program's?",
        )
    member = archive.getinfo(pickles[0])
    if member.flag_bits & ENCRYPTED:
        raise CheckpointError("its data.pkl is encrypted, which torch does not read")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise CheckpointError("its data.pkl is compressed in a way that torch does not read")
    if member.file_size > LARGEST_PICKLE:
        raise CheckpointError(f"its data.pkl claims {member.file_size} bytes, no state dict has so many", _REMEDY)
    return member


def _storages(archive: zipfile.ZipFile, root: str, storages: dict[str, int], size: int) -> dict[str, Extent]:
    """Where each storage is.

    Raises CheckpointError unless each is a member of the size in the pickle, within the file.
    """
    members = {info.filename: info for info in archive.infolist()}
    extents: dict[str, Extent] = {}
    for key, expected in storages.items():
        info = members.get(f"{root}data/{key}")
        size_in_zip = 0 if info is None else info.file_size
        if size_in_zip != expected:
            raise CheckpointError(
                f"its data/{printable(key)} has {size_in_zip} bytes where {expected} are expected", _REMEDY
            )
        if info is not None and info.header_offset + info.compress_size > size:
            raise CheckpointError(f"its data/{printable(key)} ends after the end of the file", _REMEDY)
        if info is not None:
            is_plain = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & ENCRYPTED
            extents[key] = Extent(info.header_offset, expected, "zip" if is_plain else "packed")
    return extents


def _is_big_endian(archive: zipfile.ZipFile, root: str) -> bool:
    """Whether the archive says so; it says nothing if an early version wrote it."""
    name = f"{root}byteorder"
    if name not in archive.NameToInfo:
        return False
    with archive.open(name) as stream:
        return stream.read(8) == b"big"


def read_legacy(file: BoundedFile, path: str) -> Checkpoint:
    """The checkpoint in the format before torch 1.6.

    Raises CheckpointError where the file is damaged, is a pickle of another kind, or is refused.
    """
    for most in (_FIRST_READ, LARGEST_PICKLE):
        file.seek(0)
        file.allow(most)
        scanner = PickleScanner(file.read(min(most, file.size)))
        try:
            system, root, keys = _legacy_pickles(scanner)
        except EOFError:
            continue
        expected = scanner.position + sum(8 + count for count in scanner.storages.values())
        if file.size < expected:
            raise CheckpointError(f"it is cut short: {file.size} bytes where {expected} are expected", _REMEDY)
        checkpoint = checkpoint_of(root, scanner, path, "torch legacy")
        big_endian = isinstance(system, Dictionary) and system.named().get("little_endian") is False
        return replace(checkpoint, storages=_legacy_storages(keys, scanner), big_endian=big_endian)
    raise CheckpointError("it is cut short within its pickle, or has none that ends", _REMEDY)


def _legacy_pickles(scanner: PickleScanner) -> tuple[object, object, object]:
    """The last three of the five pickles: magic number, protocol, system, saved object, storage keys."""
    if scanner.load() != _MAGIC:
        raise CheckpointError(
            "it is a plain pickle, not a file of torch.save",
            "if you trust who made it, load it in Python and torch.save(state_dict, 'weights.pth')",
        )
    scanner.load()
    return scanner.load(), scanner.load(), scanner.load()


def _legacy_storages(keys: object, scanner: PickleScanner) -> dict[str, Extent]:
    """Where each storage is: they follow the pickles in the order of the keys."""
    extents: dict[str, Extent] = {}
    start = scanner.position
    for key in keys if isinstance(keys, list) else ():
        size = scanner.storages.get(key) if isinstance(key, str) else None
        if size is None or key in extents:
            return {}
        extents[key] = Extent(start, size, "count")
        start += 8 + size
    return extents


def checkpoint_of(root: object, scanner: PickleScanner, path: str, layout: str) -> Checkpoint:
    """The checkpoint in a saved object. Raises CheckpointError where it holds no state dict."""
    trees: dict[int, tuple[StoredModule, ...]] = {}
    root = _with_states(root, _MAX_DEPTH, trees)
    is_whole = isinstance(root, Dictionary) and id(root) in trees
    names, state, beside = ((), root, ()) if is_whole else _state_dict(root)
    assert isinstance(state, Dictionary)
    modules = trees.get(id(state), ())
    buffers = {buffer.name for module in modules for buffer in module.buffers}
    entries = state.named().items()
    tensors = tuple(
        StoredTensor(name, value.shape, value.dtype, value.place, is_buffer=name in buffers)
        for name, value in entries
        if isinstance(value, Tensor)
    )
    if len(tensors) > LARGEST_COUNT:
        raise CheckpointError(f"it holds {len(tensors)} tensors, at most {LARGEST_COUNT} are read")
    guarded = tuple(sorted(scanner.guarded))
    sparse = tuple(name for name, value in entries if isinstance(value, Tensor) and value.is_sparse)
    # A quantised layer stores its weight and bias as a tuple.
    tuples = ((name, value) for name, value in entries if isinstance(value, tuple))
    packed = tuple(name for name, parts in tuples if any(isinstance(part, Tensor) for part in parts))
    return Checkpoint(path, layout, tensors, names, beside, guarded, sparse, packed, modules=modules)


def _with_states(value: object, depth: int, trees: dict[int, tuple[StoredModule, ...]]) -> object:
    """The value with the state dict in place of a whole module, also in dicts down to `depth`.

    `trees` collects the modules of each state dict, by its id.
    """
    if isinstance(value, Instance) and is_module(value):
        if len(trees) >= _MOST_TREES:
            raise CheckpointError(f"it holds more than {_MOST_TREES} whole modules")
        tree = tree_of(value)
        trees[id(tree.state)] = tuple(tree.modules)
        return tree.state
    if not isinstance(value, Dictionary) or depth == 0 or len(value.entries) > _MOST_KEYS:
        return value
    entries = [(key, _with_states(item, depth - 1, trees)) for key, item in value.entries]
    is_same = all(new is old for (_, new), (_, old) in zip(entries, value.entries))
    return value if is_same else Dictionary(entries)


def _state_dict(root: object) -> tuple[tuple[str, ...], Dictionary, tuple[str, ...]]:
    """The keys that lead to the state dict, the state dict, and the other keys next to them."""
    top = root
    names: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    for depth in range(_MAX_DEPTH, 0, -1):
        inside = _state_dict_key(root, depth)
        if inside is None or not isinstance(root, Dictionary):
            break
        entries = root.named()
        beside = (*beside, *(name for name in entries if name != inside))
        names, root = (*names, inside), entries[inside]
    if isinstance(root, Dictionary) and _tensors_in(root, 0, {}):
        return names, root, beside
    raise CheckpointError(*_no_state_dict(top))


def _state_dict_key(root: object, depth: int) -> str | None:
    """The key that leads towards the state dict: a usual one, or the one with most tensors below it.

    None where the dict itself has as many tensors, or there are none.
    """
    if not isinstance(root, Dictionary):
        return None
    entries, counted = root.named(), dict[tuple[int, int], int]()
    known = next((name for name in _STATE_DICT_KEYS if _tensors_in(entries.get(name), depth - 1, counted)), None)
    if known is not None:
        return known
    most = max(entries, key=lambda name: _tensors_in(entries[name], depth - 1, counted), default=None)
    return most if most and _tensors_in(entries[most], depth - 1, counted) > _tensors_in(root, 0, counted) else None


def _tensors_in(value: object, depth: int, counted: dict[tuple[int, int], int]) -> int:
    """The most tensors that a dict, or one of those nested in it down to `depth`, holds.

    `counted` caches the result for each dict: a file may hold the same one a million times.
    """
    if not isinstance(value, Dictionary):
        return 0
    place = (id(value), depth)
    if place not in counted:
        entries = value.named().values()
        below = (_tensors_in(entry, depth - 1, counted) for entry in entries) if depth else ()
        counted[place] = max(sum(isinstance(entry, Tensor) for entry in entries), *below, 0)
    return counted[place]


def _no_state_dict(root: object) -> tuple[str, str]:
    """The problem with a file that has no state dict, and the remedy."""
    contents, remedy = "something else", "torch.save(model.state_dict(), FILE)"
    if isinstance(root, Dictionary):
        names = [printable(name, 30) for name in root.named()]
        shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
        contents = f"a dict with the keys {shown}" if names else "an empty dict"
        if root.entries and not names:
            contents = "a dict whose keys are not strings"
        elif {"state", "param_groups"} <= set(names):
            contents = "an optimizer's state (state, param_groups)"
        elif any(isinstance(value, Opaque) and "numpy" in value.name for value in root.named().values()):
            contents = f"NumPy arrays, {contents}"
            remedy = "torch.save({name: torch.from_numpy(array) for name, array in arrays.items()}, 'weights.pth')"
    elif isinstance(root, Tensor):
        contents = "one tensor"
    elif isinstance(root, list | tuple):
        place = next((i for i, item in enumerate(root) if _tensors_in(item, _MAX_DEPTH, {})), None)
        contents = "a list" if isinstance(root, list) else "a tuple"
        if place is not None:
            contents += f" whose item {place} has one"
            remedy = f"torch.save(torch.load(FILE, weights_only=True)[{place}], 'weights.pth')"
    return f"it holds no state dict, only {contents}", remedy
