"""What a checkpoint says without its data: the names, shapes and dtypes of its tensors."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vggscope.checkpoint.reparametrised import is_kept, split
from vggscope.ops.base import Shape, numel
from vggscope.record import record

BUFFERS = ("running_mean", "running_var", "num_batches_tracked")
"""Tensors that a batch norm keeps but does not learn."""

WRAPPERS = {
    "module": "DataParallel",
    "_orig_mod": "torch.compile",
    "_fsdp_wrapped_module": "FSDP",
    "_checkpoint_wrapped_module": "checkpoint_wrapper",
}
"""What a module may be wrapped in, by the part that each wrapper puts into every key below it."""

_COUNTS = ("int16", "int32", "int64", "bool")
"""Dtypes of which torch has no gradient, and in which no quantised weight is kept."""

_OPS = {5: "Conv3d", 4: "Conv2d", 3: "Conv1d", 2: "Linear"}
"""The layer that most likely owns a `weight` of that many dimensions."""


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor: its key in the state dict, its shape and torch's name of its dtype."""

    name: str
    shape: Shape
    dtype: str

    @property
    def layer(self) -> str:
        """The path of the layer that owns it."""
        return split(self.name, len(self.shape))[0]

    @property
    def leaf(self) -> str:
        """Which of its layer's tensors it is: `weight`, also where it is stored as `weight_orig`, `bias` and so on."""
        return split(self.name, len(self.shape))[1]

    @property
    def learned(self) -> bool:
        """Whether it is a parameter, as far as name and dtype tell."""
        leaf = self.leaf
        return leaf not in BUFFERS and not is_kept(leaf) and self.dtype not in _COUNTS


@record
class Checkpoint:
    """A file's tensors, in the file's order.

    `format` is `torch zip`, `torch legacy` or `safetensors`. `wrapper` are the keys that lead to the state dict,
    outermost first; `beside` are the keys that lie beside it, such as `optimizer`; `guarded` are the classes that
    torch.load does not take with weights_only unless it is told to; `sparse` are the names of sparse tensors,
    `packed` those of the entries that hold several in one, as quantised layers do, which are not among `tensors`.
    """

    path: str
    format: str
    tensors: tuple[StoredTensor, ...]
    wrapper: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()
    guarded: tuple[str, ...] = ()
    sparse: tuple[str, ...] = ()
    packed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """The tensors that share a path.

    `label` is the literature's name where the layer is one of a VGG's; `op` is what it most likely is, by the shape of
    its weight, or None; `shape` is the weight's, or empty.
    """

    name: str
    label: str
    op: str | None
    shape: Shape
    params: int
    tensors: tuple[StoredTensor, ...]

    @property
    def path(self) -> str:
        """Its name without what wrappers put into it."""
        return unwrapped(self.name)

    @property
    def is_norm(self) -> bool:
        """Whether it has a scale for each channel and nothing larger."""
        return len(self.shape) == 1 and all(len(tensor.shape) <= 1 for tensor in self.tensors)


def unwrapped(name: str) -> str:
    """A path without the parts that DataParallel, torch.compile, FSDP and activation checkpointing put into it.

    >>> unwrapped("module._orig_mod.features.module.0")
    'features.0'
    """
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)


def layers_of(tensors: tuple[StoredTensor, ...]) -> tuple[StoredLayer, ...]:
    """The tensors gathered by path, in the order in which the paths first come up."""
    gathered: dict[str, list[StoredTensor]] = {}
    for tensor in tensors:
        gathered.setdefault(tensor.layer, []).append(tensor)
    return tuple(_layer(path, tuple(members)) for path, members in gathered.items())


def _layer(path: str, tensors: tuple[StoredTensor, ...]) -> StoredLayer:
    params = sum(numel(tensor.shape) for tensor in tensors if tensor.learned)
    leaves = {tensor.leaf: tensor.shape for tensor in tensors}
    shape = leaves.get("weight", ())
    op = "BatchNorm2d" if "running_mean" in leaves else _OPS.get(len(shape))
    return StoredLayer(path, "", op, shape, params, tensors)


def natural(name: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts names as people number them: features.9 before features.10.

    >>> sorted(["conv10", "conv9"], key=natural)
    ['conv9', 'conv10']
    """
    parts = re.split(r"([0-9]+)", name[:200])
    return tuple((len(part.lstrip("0")), part.lstrip("0")) if i % 2 else (0, part) for i, part in enumerate(parts))
