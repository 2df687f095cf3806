"""A checkpoint's tensors put into a module."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint.inspection import Inspection, examine
from vggscope.checkpoint.reader import read
from vggscope.checkpoint.stored import Checkpoint, StoredTensor
from vggscope.checkpoint.trusted import module_of
from vggscope.errors import CheckpointError, printable

if TYPE_CHECKING:
    from torch import Tensor, nn

_TRUSTED = ("argparse", "builtins", "collections", "datetime", "decimal", "numpy", "pathlib", "types", "typing", "uuid")
"""Packages whose classes, of the few that `read` lets through, torch.load is told to trust."""


def with_weights(module: nn.Module, path: str) -> nn.Module:
    """The module with the tensors of the file at `path`: those of the same keys, below a wrapper and without a prefix,
    or else those of the same layer of a VGG (conv1_1, fc6), whatever both call it. What the file has beside them is
    left aside.

    The file is read as `inspect` reads it first, so that nothing in it runs. Raises CheckpointError where its keys or
    shapes are not the module's.
    """
    checkpoint = read(path)
    found = examine(checkpoint)
    state = _tensors(checkpoint)
    wanted = module.state_dict()
    prefix = found.prefix if not state.keys() & wanted.keys() else ""
    fitting = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
    if fitting.keys() >= wanted.keys():
        fitting = {key: fitting[key] for key in wanted}
    else:
        fitting = _by_layer(found, state, wanted) or fitting
    try:
        module.load_state_dict(fitting)
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2]
        problem = f"{path} does not hold the weights of this model: {reason[:120]}..."
        raise CheckpointError(problem, f"vggscope inspect {path} tells whose they are") from None
    return module


def _by_layer(found: Inspection, state: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The file's tensors by the module's keys, each from the layer of the same label; empty where one has none, or
    where a layer of the file other than FC has no place: a network without batch norms is another than one with them.

    An FC layer may be written as a convolution on one side, as timm does: the order of its weights is the same.
    """
    parts = [t.name for layer in found.layers for t in layer.tensors if t.leaf == "weight" != t.name.split(".")[-1]]
    if parts:
        problem = f"{found.path} keeps its weights in parts ({printable(parts[0])})"
        raise CheckpointError(
            problem, f"vggscope inspect {found.path} tells how to load them; save them whole from there"
        )
    own = examine(Checkpoint("", "", tuple(StoredTensor(k, tuple(t.shape), "float32") for k, t in wanted.items())))
    theirs = {(layer.label, t.leaf): state[t.name] for layer in found.layers if layer.label for t in layer.tensors}
    if {label for label, _ in theirs if not label.startswith("fc")} - {layer.label for layer in own.layers}:
        return {}
    fitting: dict[str, Tensor] = {}
    for layer in own.layers:
        for tensor in layer.tensors:
            other = theirs.get((layer.label, tensor.leaf))
            if other is None or other.shape[:1] != tensor.shape[:1] or other.numel() != prod(tensor.shape):
                return {}
            fitting[tensor.name] = other.reshape(tensor.shape)
    return fitting


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    if checkpoint.format == "safetensors":
        from safetensors.torch import load_file

        loaded: dict[str, Tensor] = load_file(checkpoint.path)
        return loaded
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


def _trusted(names: Iterable[str]) -> Iterator[tuple[Any, str]]:
    """The classes of these names that are trusted, each with its name in the pickle."""
    for name in names:
        package = name.partition(".")[0]
        if package in _TRUSTED:
            yield getattr(import_module(module_of(name)), name.rpartition(".")[2]), name
