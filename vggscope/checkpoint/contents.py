"""The contents of a checkpoint without the data: its tensors' names, shapes and dtypes, and the layers they form."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from vggscope.graph import Buffer, Parameter
from vggscope.ops.base import Shape, numel
from vggscope.record import record

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""The buffers of a batch norm."""

WRAPPERS = {
    "module": "DataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "checkpoint_wrapper",
}
"""Wrappers of a module, by the part that each adds to every key below it."""

_UNLEARNED = ("int16", "int32", "int64", "bool")
"""Dtypes that hold neither trained nor quantised weights."""

_OPS = {5: "Conv3d", 4: "Conv2d", 3: "Conv1d", 2: "Linear"}
"""The most likely op of a `weight`, by its number of dimensions."""

# torch stores a parametrized weight in parts, from which the module computes it in each forward:
#
# torch.nn.utils                   weight_norm     weight_g, weight_v
#                                  spectral_norm   weight_orig, weight_u, weight_v
#                                  prune           weight_orig, weight_mask
# torch.nn.utils.parametrizations  weight_norm     parametrizations.weight.original0, parametrizations.weight.original1
#                                  spectral_norm   parametrizations.weight.original, parametrizations.weight.0._u, ._v

_NEW = "parametrizations"

_PARTS = {f"{leaf}_{part}": leaf for leaf in ("weight", "bias") for part in ("g", "u", "v", "mask")}
"""The parts beside the one of the weight's own shape, and the tensor that each belongs to."""

_CALLS = {
    ("weight_g", "weight_v"): "torch.nn.utils.weight_norm(layer)",
    ("weight_orig", "weight_u"): "torch.nn.utils.spectral_norm(layer)",
    ("weight_mask", "weight_orig"): "torch.nn.utils.prune.identity(layer, 'weight')",
    (f"{_NEW}.weight.original0",): "torch.nn.utils.parametrizations.weight_norm(layer)",
    (f"{_NEW}.weight.0._u",): "torch.nn.utils.parametrizations.spectral_norm(layer)",
}
"""The call that parametrizes a layer, by the keys that it leaves in the state dict."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor's elements are: the key of their storage, the byte of the first one in it, and the strides.

    Strides are in elements; None is row-major order without gaps. They are those of the axes of `view`, if that is set:
    the tensor is then that view, flattened to its own shape in row-major order. `blocks` are the places, in the file,
    of equal parts of the first axis; empty if they are in their order.
    """

    storage: str
    offset: int
    stride: Shape | None = None
    view: Shape | None = None
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Original:
    """A tensor as another framework's file has it: its name, its shape, and its axes such as `HWIO`.

    I and O are input and output channels or features, H, W and D the axes of an image. `(HWI)O` are the weights of a
    linear layer whose inputs are a flattened map with the channels last. Empty axes are torch's. `sides` are those of
    that map if the file tells them; else it is taken for a square.
    """

    name: str
    shape: Shape
    axes: str = ""
    sides: Shape = field(default=(), metadata={"json": False})


@dataclass(frozen=True, slots=True)
class Extent:
    """The `size` bytes of a storage from byte `start` of the file on, after a header of its own, if any.

    `header` is `zip` (a member of a zip archive), `count` (8 bytes with the number of elements), `packed` (a compressed
    or encrypted member), `text` (numbers in ASCII) or empty.
    `within` is set for bytes of what a part of the file inflates to, which they are counted in: a member of a zip
    archive, compressed by deflate, or else a stream of zlib.
    """

    start: int
    size: int
    header: str = ""
    within: Extent | None = None


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: its key in the state dict, its shape, and torch's name of its dtype.

    `place` is None where its elements are not stored one by one, as those of a sparse tensor. `original` is set for a
    file of another framework: `name` and `shape` are then those that torch would give the tensor. `is_buffer` is set
    where a file tells buffers from parameters.
    """

    name: str
    shape: Shape
    dtype: str
    place: Place | None = field(default=None, compare=False, repr=False, metadata={"json": False})
    original: Original | None = None
    is_buffer: bool = field(default=False, compare=False, repr=False, metadata={"json": False})

    @property
    def layer(self) -> str:
        """The path of the layer that owns it."""
        return split(self.name, len(self.shape))[0]

    @property
    def leaf(self) -> str:
        """Its name within the layer, such as `weight` (also where it is stored as `weight_orig`) or `bias`."""
        return split(self.name, len(self.shape))[1]

    @property
    def learned(self) -> bool:
        """Whether it is a parameter, as far as the file, or else name and dtype, tell."""
        if self.is_buffer:
            return False
        leaf = self.leaf
        return leaf not in BUFFERS and not (leaf in _PARTS and not leaf.endswith("_g")) and self.dtype not in _UNLEARNED


@record
class StoredModule:
    """A module of a tree that was saved whole.

    `path` is empty for the outermost. `kind` is the dotted name of its class, which is not loaded. `settings` are its
    attributes that are plain values: numbers, texts and tuples of them. `parameters` and `buffers` are its own tensors;
    the name of one that several modules share is the first. `first` is the path under which the same module stands
    before, if there is one. `changed` says what the instance has that its class has not, such as a hook.
    """

    path: str
    kind: str
    settings: tuple[tuple[str, object], ...] = ()
    parameters: tuple[Parameter, ...] = field(default=(), repr=False)
    buffers: tuple[Buffer, ...] = field(default=(), repr=False)
    first: str | None = None
    changed: str = ""

    json_names = ("path", "kind", "settings_text")

    @property
    def settings_text(self) -> str:
        """The settings as arguments, without those that are None or False and without the mode.

        >>> StoredModule("0", "torch.nn.modules.pooling.MaxPool2d", (("training", True), ("stride", 2))).settings_text
        'stride=2'
        """
        shown = (item for item in self.settings if item[0] != "training" and item[1] not in (None, False, "zeros"))
        return ", ".join(f"{name}={value!r}" for name, value in shown)


@record
class Checkpoint:
    """A file's tensors, in the file's order.

    `format` is `torch zip`, `torch legacy` or `safetensors`. `wrapper` holds the keys that lead to the state dict,
    outermost first; `beside` the other keys next to them, such as `optimizer`. `guarded` names the classes that
    torch.load rejects with weights_only=True unless they are allowed. `sparse` names the sparse tensors. `packed` names
    the entries that hold several tensors in one, as quantised layers do; they are not among `tensors`. `storages` says
    where the data of each storage is; `big_endian` is the order of the bytes of each number. `shards` are the files of
    a checkpoint in several: `path` is then that of their index. `flattens_last`: a linear layer of it that reads a
    flattened map reads it with the channels last. `is_numbered`: layers are named by class and number, since the file
    does not tell their own names. `modules` are those of a whole module, each before its parts; empty for a state dict.
    `averages` are what the keys of running averages of the same weights begin with, which are not among `tensors`.
    """

    path: str
    format: str
    tensors: tuple[StoredTensor, ...]
    wrapper: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    guarded: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()
    packed: tuple[str, ...] = ()
    storages: Mapping[str, Extent] = field(default_factory=dict, compare=False, repr=False)
    big_endian: bool = False
    shards: tuple[Checkpoint, ...] = field(default=(), compare=False, repr=False)
    modules: tuple[StoredModule, ...] = field(default=(), repr=False)
    flattens_last: bool = field(default=False, repr=False)
    is_numbered: bool = field(default=False, repr=False)
    averages: tuple[str, ...] = ()

    @property
    def is_foreign(self) -> bool:
        """Whether another framework wrote it, so that torch and safetensors do not load it."""
        return self.format not in ("torch zip", "torch legacy", "safetensors")


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """The tensors that share a path.

    `label` is the literature's name if the layer belongs to a VGG, else empty. `op` is the most likely op by the shape
    of the weight, or None. `shape` is the weight's, or empty.
    """

    name: str
    label: str
    op: str | None
    shape: Shape
    params: int
    tensors: tuple[StoredTensor, ...]

    @property
    def path(self) -> str:
        """Its name without the parts that wrappers add."""
        return unwrapped(self.name)

    @property
    def is_vector(self) -> bool:
        """Whether no tensor of it has more than one axis."""
        return all(len(tensor.shape) <= 1 for tensor in self.tensors)

    @property
    def is_norm(self) -> bool:
        """Whether it has one scale per channel and no larger tensor."""
        return len(self.shape) == 1 and self.is_vector


def unwrapped(name: str) -> str:
    """A path without the parts that DataParallel, torch.compile, FSDP and activation checkpointing add.

    >>> unwrapped("module._orig_mod.features.module.0")
    'features.0'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def layers_of(tensors: tuple[StoredTensor, ...]) -> tuple[StoredLayer, ...]:
    """The tensors grouped by path, in the order in which the paths first appear."""
    by_path: dict[str, list[StoredTensor]] = {}
    for tensor in tensors:
        by_path.setdefault(tensor.layer, []).append(tensor)
    return tuple(_layer(path, tuple(members)) for path, members in by_path.items())


def _layer(path: str, tensors: tuple[StoredTensor, ...]) -> StoredLayer:
    params = sum(numel(tensor.shape) for tensor in tensors if tensor.learned)
    leaves = {tensor.leaf: tensor.shape for tensor in tensors}
    shape = leaves.get("weight", ())
    op = "BatchNorm2d" if "running_mean" in leaves else _OPS.get(len(shape))
    return StoredLayer(path, "", op, shape, params, tensors)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A sort key that orders numbers in names by value: features.9 before features.10.

    >>> sorted(["conv10", "conv9"], key=natural)
    ['conv9', 'conv10']
    """
    parts = re.split(r"([0-9]+)", name[:200])
    return tuple((len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, part) for i, part in enumerate(parts))


def split(key: str, rank: int) -> tuple[str, str]:
    """The path of a key's layer, and the name of the tensor within it.

    The name is `weight` for the part of the weight's own shape, whatever it is called, and `weight_g`, `weight_mask`
    and so on for the others. `rank` is the tensor's number of dimensions.

    >>> split("conv1.weight_orig", 4), split("conv1.weight_mask", 4)
    (('conv1', 'weight'), ('conv1', 'weight_mask'))
    >>> split("conv1.parametrizations.weight.original0", 4)
    ('conv1', 'weight_g')
    """
    path, dot, rest = key.partition(f"{_NEW}.")
    if dot and (not path or path.endswith(".")) and "." in rest:
        leaf, _, part = rest.partition(".")
        part = {"original": "", "original0": "_g", "original1": ""}.get(part, part.rpartition(".")[2])
        return path[:-1], leaf + part
    path, _, leaf = key.rpartition(".")
    if leaf in ("weight_orig", "bias_orig") or (leaf == "weight_v" and rank > 1):
        leaf = leaf.partition("_")[0]
    return path, leaf


def whole(leaf: str) -> str:
    """The tensor that a part belongs to: `weight` for `weight_g`; any other leaf unchanged."""
    return _PARTS.get(leaf, leaf)


def parametrizing_call(path: str, keys: Collection[str]) -> str | None:
    """The call on `layer` that makes it accept these keys; empty for a plain weight, None for unknown parts."""
    leaves = {key[len(path) :].lstrip(".") for key in keys}
    known = next((call for names, call in _CALLS.items() if leaves.issuperset(names)), None)
    is_plain = all(split(key, 2)[1] == key.rpartition(".")[2] for key in keys)
    return known or ("" if is_plain else None)
