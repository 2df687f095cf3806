"""Loads a checkpoint's tensors into a module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint.contents import Checkpoint, StoredTensor, natural
from vggscope.checkpoint.data import open_tensors
from vggscope.checkpoint.formats.pickle_objects import module_of
from vggscope.checkpoint.inspection import Inspection, examine
from vggscope.checkpoint.reader import read
from vggscope.checkpoint.structure import UNKNOWN
from vggscope.errors import CheckpointError, printable

if TYPE_CHECKING:
    from torch import Tensor, nn

_TRUSTED = ("argparse", "builtins", "collections", "datetime", "decimal", "numpy", "pathlib", "types", "typing", "uuid")
"""Packages whose classes torch.load may use, of the few that `read` accepts."""


def load_weights(module: nn.Module, path: str, *, rgb: bool = False) -> nn.Module:
    """Load the weights in the file at `path` into the module, and return it.

    `rgb` reverses the input channels of the first convolution, which then takes an RGB image in place of BGR.

    A tensor goes to the same key, without a wrapper or prefix of the file's; else to the VGG layer of the same label
    (conv1_1, fc6), whatever the keys are. Further tensors of the file are ignored. `read` accepts the file first, so
    code in it does not run. Raises CheckpointError where keys or shapes do not match the module's.
    """
    checkpoint = read(path)
    inspection = examine(checkpoint)
    state = _tensors(checkpoint)
    wanted = module.state_dict()
    prefix = inspection.prefix if not state.keys() & wanted.keys() else ""
    fitting = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    if fitting.keys() >= wanted.keys():
        fitting = {key: fitting[key] for key in wanted}
    else:
        fitting = _by_label(inspection, state, wanted) or fitting
    try:
        module.load_state_dict(fitting)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2]
        problem = f"{path} does not hold the weights of this model: {reason[:120]}..."
        raise CheckpointError(problem, f"vggscope inspect {path} shows which network they belong to") from None
    if rgb:
        _reverse_channels(module, path)
    return module


def _reverse_channels(module: nn.Module, path: str) -> None:
    """Reverse the input channels of the first convolution. Raises CheckpointError where it reads no image."""
    import torch

    first = next((weight for weight in module.parameters() if weight.ndim == 4), None)
    if first is None or first.shape[1] != 3:
        raise CheckpointError(f"{path}: its first convolution does not read three channels", "leave out the option")
    with torch.no_grad():
        first.copy_(first.flip(1))


def _by_label(inspection: Inspection, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors by the module's keys, matched by label.

    Empty where a tensor has no match, or where a layer of the file other than FC has none: a file with batch norms does
    not fit a module without. An FC layer may be a convolution on one side, as in timm: its weights have the same order.
    """
    tensors = (tensor for layer in inspection.layers for tensor in layer.tensors)
    parts = [tensor.name for tensor in tensors if tensor.leaf == "weight" != tensor.name.split(".")[-1]]
    if parts:
        problem = f"{inspection.path} keeps its weights in parts ({printable(parts[0])})"
        remedy = f"load it as vggscope inspect {inspection.path} shows, remove the parametrization, save it again"
        raise CheckpointError(problem, remedy)
    own = examine(Checkpoint("", "", tuple(StoredTensor(k, tuple(t.shape), "float32") for k, t in wanted.items())))
    labels = _label_in_module(inspection, own)
    stored = {
        (labels.get(layer.label, layer.label), t.leaf): state[t.name]
        for layer in inspection.layers
        if layer.label
        for t in layer.tensors
    }
    if {label for label, _ in stored if not label.startswith("fc")} - {layer.label for layer in own.layers}:
        return {}
    fitting: dict[str, Tensor] = {}
    for layer in own.layers:
        for tensor in layer.tensors:
            match = stored.get((layer.label, tensor.leaf))
            if match is None and tensor.leaf == "num_batches_tracked":
                # Other frameworks do not count the batches.
                fitting[tensor.name] = wanted[tensor.name]
                continue
            if match is None or match.shape[:1] != tensor.shape[:1] or match.numel() != prod(tensor.shape):
                return {}
            fitting[tensor.name] = match.reshape(tensor.shape)
    return fitting


def _label_in_module(found: Inspection, own: Inspection) -> dict[str, str]:
    """The label in the module of each layer of the file, where the file does not show its pools and so its stages.

    Both are then chains of the same layers, which are in order. Empty where the labels agree, or the layers do not.
    """
    theirs, ours = (
        sorted((layer for layer in side.layers if layer.label), key=lambda layer: natural(layer.label))
        for side in (found, own)
    )
    if UNKNOWN not in (found.notation or "").split() or own.notation is None:
        return {}
    same = [(layer.label[:2], layer.shape) for layer in theirs] == [(layer.label[:2], layer.shape) for layer in ours]
    return {layer.label: other.label for layer, other in zip(theirs, ours)} if same else {}


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The file's tensors by key, read by safetensors, by torch.load with weights_only=True, or as NumPy's arrays."""
    if checkpoint.shards:
        # A shard may hold more tensors than the index takes from it.
        states = ((shard, _tensors(shard)) for shard in checkpoint.shards)
        return {tensor.name: state[tensor.name] for shard, state in states for tensor in shard.tensors}
    if checkpoint.format == "safetensors":
        from safetensors.torch import load_file

        loaded: dict[str, Tensor] = load_file(checkpoint.path)
        return loaded
    if checkpoint.is_foreign or checkpoint.modules:
        return _tensors_of_arrays(checkpoint.path)
    import pickle

    import torch

    try:
        with torch.serialization.safe_globals(list(_trusted(checkpoint.guarded))):
            state = torch.load(checkpoint.path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = printable(str(error).partition("WeightsUnpickler error: ")[2].strip().partition("\n")[0], 200)
        raise CheckpointError(
            f"{checkpoint.path}: torch.load refuses it: {reason}", "torch.save its state dict alone, and give that file"
        ) from None
    for key in checkpoint.wrapper:
        state = state[key]
    names = {tensor.name for tensor in checkpoint.tensors}
    return {name: value.to_dense() for name, value in state.items() if name in names}


def _tensors_of_arrays(path: str) -> dict[str, Tensor]:
    """The tensors of a file that torch does not load without running code, in torch's layout."""
    import numpy as np
    import torch

    state: dict[str, Tensor] = {}
    with open_tensors(path) as file:
        for tensor in file.checkpoint.tensors:
            obstacle = file.obstacle(tensor)
            if obstacle:
                raise CheckpointError(f"{path}: {printable(tensor.name)} is not read: {obstacle}")
            array = np.array(file.whole(tensor), order="C")
            dtype: torch.dtype = getattr(torch, tensor.dtype)
            state[tensor.name] = torch.from_numpy(array).view(dtype)
    return state


def _trusted(names: Iterable[str]) -> Iterator[tuple[Any, str]]:
    """The classes of trusted packages among these, each with its name in the pickle."""
    for name in names:
        package = name.partition(".")[0]
        if package in _TRUSTED:
            yield getattr(import_module(module_of(name)), name.rpartition(".")[2]), name
