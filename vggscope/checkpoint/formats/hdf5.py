"""Files of HDF5, as Keras writes weights: `.h5`, and `.keras`, an archive with one. h5py reads the structure.

Only hard links are followed, so that no link, external file or virtual dataset leads out of the file. h5py reads the
structure through a BoundedFile, and says where in the file a dataset's elements are.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from vggscope.checkpoint.contents import Checkpoint, Extent, Original, Place, StoredTensor, natural
from vggscope.checkpoint.formats.bounded_file import BoundedFile, FileWindow, stored_member
from vggscope.checkpoint.formats.keras_names import CONTAINER, configured_names, is_unnamed, named_path
from vggscope.checkpoint.formats.numpy_files import DTYPES
from vggscope.checkpoint.formats.pickle_objects import LARGEST_RANK, LARGEST_SIDE
from vggscope.checkpoint.formats.torch_save import DAMAGE, LARGEST_DIRECTORY
from vggscope.checkpoint.layouts import in_torch_layout, torch_name
from vggscope.errors import CheckpointError, MissingTool, printable
from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

_Result = TypeVar("_Result")

MAGIC = b"\x89HDF\r\n\x1a\n"

LARGEST_COUNT = 10_000
"""Groups and datasets of one file; the largest models of Keras have a few thousand."""

_MOST_READ = 64 * 2**20
"""Bytes of structure that h5py may read: some hundred for each dataset."""

_DEEPEST = 16
"""Groups in one another; Keras nests a model in a model four deep."""

_LARGEST_ATTRIBUTE = 8 * 2**20
"""Bytes of a model's configuration."""

_MOST_OBJECTS = 400_000
"""Objects of a configuration."""

_LONGEST_NAME = 1000
"""Bytes of a layer's name."""

_WEIGHTS_MEMBER = "model.weights.h5"

_REMEDY = "copy or download it again"

_STATE = ("optimizer", "optimizer_weights", "_trainable_state", "trainer", "metrics")
"""Groups beside a model's weights."""

_NORM = ("gamma", "beta", "moving_mean", "moving_variance")


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The datasets of an HDF5 file. Raises CheckpointError where it is damaged, MissingTool without h5py."""
    return _read(FileWindow(file, 0, file.size), path, "hdf5", None)


def read_keras(file: BoundedFile, path: str) -> Checkpoint:
    """The datasets in the weights of a `.keras` archive; raises as `read` does."""
    file.allow(LARGEST_DIRECTORY)
    try:
        with zipfile.ZipFile(file) as archive:
            info = archive.NameToInfo.get(_WEIGHTS_MEMBER)
            if info is None or info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                raise CheckpointError(f"it is a zip archive without a plain {_WEIGHTS_MEMBER}, as Keras writes")
            configuration = _configuration(file, archive)
            window = stored_member(file, archive, info)
    except DAMAGE as error:
        raise CheckpointError(f"its zip archive is damaged or cut short: {printable(str(error))}", _REMEDY) from None
    return _read(window, path, "keras", configuration)


def model_configuration(file: BoundedFile) -> bytes:
    """The text of a model's configuration in a file of either kind; empty for one without, such as weights alone.

    Raises as `read` does.
    """
    file.allow(len(MAGIC))
    if file.read(len(MAGIC)) == MAGIC:
        return _in_hdf5(FileWindow(file, 0, file.size), lambda h5py, opened: _attribute(opened, "model_config"))
    file.allow(LARGEST_DIRECTORY)
    try:
        with zipfile.ZipFile(file) as archive:
            return _configuration(file, archive)
    except DAMAGE as error:
        raise CheckpointError(f"its zip archive is damaged or cut short: {printable(str(error))}", _REMEDY) from None


def _configuration(file: BoundedFile, archive: zipfile.ZipFile) -> bytes:
    """The text of the archive's `config.json`; empty without one."""
    info = archive.NameToInfo.get("config.json")
    if info is None or info.file_size > _LARGEST_ATTRIBUTE:
        return b""
    file.allow(_LARGEST_ATTRIBUTE + 2**16)
    with archive.open(info) as stream:
        return stream.read(_LARGEST_ATTRIBUTE)


def _read(window: FileWindow, path: str, layout: str, configuration: bytes | None) -> Checkpoint:
    def checkpoint(h5py: Any, opened: Any) -> Checkpoint:
        entries = sorted(_entries(h5py, opened), key=lambda item: natural(item[0]))
        found = [(name, entry) for name, entry in entries if isinstance(entry, h5py.Dataset)]
        groups = ((name, entry) for name, entry in entries if isinstance(entry, h5py.Group))
        text = _attribute(opened, "model_config") if configuration is None else configuration
        settings = _KerasSettings.of(text)
        names = {**settings.names, **dict(_stated_names(groups))}
        return _checkpoint(window, path, layout, found, replace(settings, names=names))

    return _in_hdf5(window, checkpoint)


def _in_hdf5(window: FileWindow, read: Callable[[Any, Any], _Result]) -> _Result:
    """What a function reads with h5py from the open file. Raises CheckpointError for a damaged one."""
    try:
        import h5py
    except ImportError:
        raise MissingTool("reading HDF5 and Keras files needs h5py", "pip install 'vggscope[keras]'") from None
    window.file.allow(_MOST_READ)
    try:
        with h5py.File(window, "r") as opened:
            return read(h5py, opened)
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, ArithmeticError, AttributeError) as error:
        raise CheckpointError(f"it is damaged or cut short: {printable(str(error), 120)}", _REMEDY) from None


@record
class _KerasSettings:
    """What a model's configuration tells of its weights: `kinds` are the classes of layers by name.

    `names` are the names of layers by their groups in an archive.
    `norms` are the trained tensors of each batch norm that is in no model within the model, in its order.
    `flattens_first`: a flattened map has its channels first, as all maps there, since its Flatten does not move them.

    >>> _KerasSettings.of(b'{"data_format": "channels_first"}').flattens_first, _KerasSettings.of(b"{}").flattens_first
    (True, False)
    >>> flatten = b'{"class_name": "Flatten", "config": {"name": "f", "data_format": "channels_first"}}'
    >>> _KerasSettings.of(flatten)
    _KerasSettings(kinds={'f': 'Flatten'}, names={}, norms=(), flattens_first=False)
    """

    kinds: Mapping[str, str]
    names: Mapping[str, str]
    norms: tuple[tuple[str, ...], ...]
    flattens_first: bool

    @classmethod
    def of(cls, configuration: bytes) -> _KerasSettings:
        """The settings in the text of a configuration; none in one that is none."""
        kinds: dict[str, str] = {}
        if configuration.count(b"{") > _MOST_OBJECTS:
            return cls(kinds, {}, (), False)
        formats: list[Any] = []

        def note(entry: dict[str, Any]) -> dict[str, Any]:
            kind, config = entry.get("class_name"), entry.get("config")
            if isinstance(kind, str) and isinstance(config, dict):
                kinds[str(config.get("name"))] = kind
                formats.extend([config.get("data_format")] if kind == "Flatten" else [])
            return entry

        try:
            root = json.loads(configuration or b"{}", object_hook=note)
        except (ValueError, RecursionError):
            return cls({}, {}, (), False)
        is_first = b'"channels_first"' in configuration and "channels_first" not in formats
        return cls(kinds, dict(configured_names(root)), _trained_norms(root), is_first)


def _trained_norms(root: Any) -> tuple[tuple[str, ...], ...]:
    """The names of the tensors that each batch norm of a model's own layers trains, from its configuration.

    >>> norm = {"class_name": "BatchNormalization", "config": {"scale": False}}
    >>> _trained_norms({"config": {"layers": [{"class_name": "Dense", "config": {}}, norm]}})
    (('beta',),)
    """
    model = root.get("config") if isinstance(root, dict) else None
    layers = model.get("layers") if isinstance(model, dict) else None
    entries = [entry for entry in layers if isinstance(entry, dict)] if isinstance(layers, list) else []
    configs = [entry.get("config") for entry in entries if entry.get("class_name") == "BatchNormalization"]
    parts = (("scale", "gamma"), ("center", "beta"))
    return tuple(
        tuple(leaf for key, leaf in parts if isinstance(config, dict) and config.get(key, True)) for config in configs
    )


def _attribute(opened: Any, name: str) -> bytes:
    """The text of an attribute of the root; empty without it, or where it is too long."""
    attributes = opened.attrs
    if name not in attributes or attributes.get_id(name).get_storage_size() > _LARGEST_ATTRIBUTE:
        return b""
    value = attributes[name]
    return value.encode() if isinstance(value, str) else bytes(value) if isinstance(value, bytes) else b""


def _stated_names(groups: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, str]]:
    """The groups of layers, and the names that an archive states with their numbered tensors."""
    for path, group in groups:
        layer = path.removesuffix("/vars")
        name = _attribute(group, "name") if layer != path else b""
        if 0 < len(name) <= _LONGEST_NAME:
            yield layer, name.decode(errors="replace")


def _entries(h5py: Any, opened: Any) -> Iterator[tuple[str, Any]]:
    """The path and the group or dataset of each hard link, without those of an object that stands higher up."""
    pending = [("", opened, 0)]
    seen: set[int] = set()
    count = 0
    while pending:
        path, group, depth = pending.pop()
        address = h5py.h5o.get_info(group.id).addr
        if address in seen:
            continue
        seen.add(address)
        for name in group:
            count += 1
            if count > LARGEST_COUNT or depth > _DEEPEST:
                raise CheckpointError(f"it has more than {LARGEST_COUNT} objects, or groups too deep")
            if not isinstance(group.get(name, getlink=True), h5py.HardLink):
                continue
            below = f"{path}/{name}" if path else name
            entry = group[name]
            if isinstance(entry, h5py.Group):
                pending.append((below, entry, depth + 1))
            yield below, entry


def _checkpoint(
    window: FileWindow, path: str, layout: str, found: list[tuple[str, Any]], settings: _KerasSettings
) -> Checkpoint:
    tensors: list[StoredTensor] = []
    storages: dict[str, Extent] = {}
    beside: list[str] = []
    for name, dataset in found:
        tensor = None if name.split("/")[0] in _STATE else _tensor(name, dataset)
        if tensor is None:
            beside.append(name)
            continue
        tensors.append(tensor)
        extent = _extent(window, tensor, dataset)
        if extent:
            storages[name] = extent
    if not tensors:
        raise CheckpointError("it holds no dataset of numbers")
    named = _with_names(tensors, settings)
    is_keras = any(tensor.name.endswith(("/kernel", "/kernel:0")) for tensor in named)
    orders = {name: dataset.dtype.byteorder == ">" for name, dataset in found if name in storages}
    big_endian = sum(orders.values()) * 2 > len(orders)
    # The few datasets in the other order, which no program writes, are described and not read.
    same = {name: extent for name, extent in storages.items() if orders[name] == big_endian}
    flattens_last = False if settings.flattens_first else True if is_keras else None
    converted, is_last = in_torch_layout(named, flattens_channels_last=flattens_last)
    groups = tuple(dict.fromkeys(name.split("/")[0] for name in beside))
    return Checkpoint(
        *(path, layout, tuple(converted)),
        beside=groups,
        storages=same,
        big_endian=big_endian,
        flattens_last=is_last,
        is_numbered=any(is_unnamed(tensor.name, settings.names) for tensor in tensors),
    )


def _tensor(name: str, dataset: Any) -> StoredTensor | None:
    """A dataset of numbers; None for any other."""
    dtype = (
        DTYPES.get(dataset.dtype.str[1:]) if dataset.dtype.names is None and dataset.dtype.subdtype is None else None
    )
    shape = dataset.shape
    if dtype is None or shape is None or len(shape) > LARGEST_RANK or any(side > LARGEST_SIDE for side in shape):
        return None
    return StoredTensor(name, tuple(map(int, shape)), dtype, Place(name, 0))


def _extent(window: FileWindow, tensor: StoredTensor, dataset: Any) -> Extent | None:
    """Where the elements are: None for a dataset without data in the file, `packed` for one in chunks."""
    size = numel(tensor.shape) * ELEMENT_BYTES[tensor.dtype]
    if dataset.external or dataset.is_virtual:
        return None
    offset = dataset.id.get_offset()
    if offset is None:
        return Extent(window.start, size, "packed") if dataset.chunks else None
    if offset + size > window.size:
        raise CheckpointError(f"its {printable(tensor.name)} ends after the end of the file", _REMEDY)
    return Extent(window.start + offset, size)


_PARTS = {
    "depthwise": ("depthwise_kernel", "bias"),
    "separable": ("depthwise/depthwise_kernel", "pointwise/kernel", "pointwise/bias"),
}
"""The tensors of layers with a depthwise kernel, in Keras's order; a separable convolution has two parts."""

_CELL = ("kernel", "recurrent_kernel", "bias")
"""The tensors of the cell of a recurrent layer."""

_SOLE = {"embedding": "embeddings", "prelu": "alpha"}
"""The one tensor of layers without a kernel, by the class."""

_TWO_NORMS = ("layernormalization", "groupnormalization")
"""The norms whose two tensors are a scale and a shift."""

_SEPARABLE = ("depthwise_kernel", "pointwise_kernel", "bias")
"""The names that Keras itself gives the tensors of a separable convolution."""


def _with_names(tensors: list[StoredTensor], settings: _KerasSettings) -> list[StoredTensor]:
    """The tensors with Keras's names in place of its numbers: `vars/0` is a layer's kernel, or the scale of a norm."""
    groups: dict[str, list[StoredTensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.name.rpartition("/")[0], []).append(tensor)
    names: dict[str, str] = {}
    for group, members in groups.items():
        layer = group.removesuffix("/vars")
        leaves = _leaves(layer, members, settings, is_numbered=layer != group)
        names.update((member.name, f"{layer}/{leaf}") for member, leaf in zip(members, leaves))
    paths = [names.get(tensor.name, tensor.name) for tensor in tensors]
    own = [named_path(path, settings.names) if path.startswith(f"{CONTAINER}/") else path for path in paths]
    # A damaged file may have two layers of one name.
    shown = own if len(set(own)) == len(own) else paths
    return [
        replace(tensor, name=_dotted(_short(path)), original=Original(tensor.name, tensor.shape))
        for tensor, path in zip(tensors, shown)
    ]


def _dotted(name: str) -> str:
    """A tensor's name, as a path of torch where nothing tells what the tensor is.

    >>> _dotted("dense/kernel"), _dotted("block/layers/group_normalization/0"), _dotted("words/embeddings:0")
    ('dense/kernel', 'block.layers.group_normalization.0', 'words.embeddings')
    """
    return name if torch_name(name) != name else name.replace("/", ".").removesuffix(":0")


def _leaves(
    layer: str, members: Sequence[StoredTensor], settings: _KerasSettings, *, is_numbered: bool
) -> Sequence[str]:
    """The names of a layer's tensors within it; none where the file's names stand."""
    given = [member.name.rpartition("/")[2].partition(":")[0] for member in members]
    name = layer.rpartition("/")[2]
    is_class = is_numbered and layer.split("/")[-2:-1] == [CONTAINER]
    kind = (name if is_class else settings.kinds.get(name) or name).lower().replace("_", "")
    part = "separable" if "separableconv" in kind or "pointwise_kernel" in given else ""
    part = "depthwise" if "depthwiseconv" in kind else part
    if is_numbered and part:
        return _PARTS[part]
    if is_numbered:
        return _numbered_leaves(layer, kind, [len(member.shape) for member in members], settings)
    if part == "separable" and set(given) <= set(_SEPARABLE):
        return [_PARTS[part][_SEPARABLE.index(leaf)] for leaf in given]
    return ["depthwise_kernel" if leaf == "kernel" else leaf for leaf in given] if part == "depthwise" else ()


def _numbered_leaves(layer: str, kind: str, ranks: list[int], settings: _KerasSettings) -> Sequence[str]:
    """The names of a layer's tensors by their numbers of axes; their own numbers where these do not tell."""
    count = len(ranks)
    if kind == "cell" and ranks[:2] == [2, 2] and count <= len(_CELL):
        return _CELL[:count]
    if kind.startswith("batchnormalization") and ranks in ([1] * 2, [1] * 3):
        return _norm_leaves(layer, count - 2, settings.norms)
    unnumbered = kind.rstrip("0123456789")
    if unnumbered in _SOLE and count == 1:
        return (_SOLE[unnumbered],)
    if ranks == [1] * 4 or (unnumbered in _TWO_NORMS and ranks == [1] * 2):
        return _NORM[:count]
    return ("kernel", "bias") if ranks[0] > 1 and count <= 2 else [str(number) for number in range(count)]


def _norm_leaves(layer: str, trained: int, norms: Sequence[tuple[str, ...]]) -> Sequence[str]:
    """The names of a batch norm's tensors, of which so many are trained: without a scale, a centre or both.

    An archive numbers the layers of a class within their model. In a model within another the place in the
    configuration is not known, and one trained tensor keeps its number.

    >>> _norm_leaves("layers/batch_normalization_1", 1, [("gamma",), ("beta",)])
    ('beta', 'moving_mean', 'moving_variance')
    """
    number = layer.rpartition("/batch_normalization")[2].removeprefix("_") or "0"
    is_outermost = layer.count("/") == 1 and len(number) < 9 and number.isdecimal()
    at = norms[int(number) :][:1] if is_outermost else ()
    leaves = at[0] if at and len(at[0]) == trained else ("0",) * trained
    return (*leaves, "moving_mean", "moving_variance")


def _short(name: str) -> str:
    """A tensor's name without the groups that Keras adds, and without the name of the model around a layer.

    >>> _short("model_weights/dense/sequential/dense/kernel"), _short("layers/dense/kernel")
    ('dense/kernel', 'dense/kernel')
    """
    if not name.startswith("model_weights/"):
        return name.removeprefix("layers/")
    layer, *rest = name.split("/")[1:]
    return "/".join((layer, *rest[rest.index(layer) + 1 :])) if layer in rest[:-1] else "/".join((layer, *rest))
