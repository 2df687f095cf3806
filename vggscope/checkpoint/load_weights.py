"""Loads a checkpoint's tensors into a module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint.averages import without_averages
from vggscope.checkpoint.contents import Checkpoint, StoredTensor
from vggscope.checkpoint.data import TensorFile, open_checkpoint
from vggscope.checkpoint.flattened_maps import Segments, flattened_maps
from vggscope.checkpoint.formats.pickle_objects import module_of
from vggscope.checkpoint.inspection import Inspection, examine, labels_by_order
from vggscope.checkpoint.layouts import as_flattened, may_be_flattened
from vggscope.checkpoint.problems import listed
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError, VggscopeError, option, printable
from vggscope.graph import Network
from vggscope.ops.base import Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

_COUNTER = "num_batches_tracked"

_TRUSTED = ("argparse", "builtins", "collections", "datetime", "decimal", "numpy", "pathlib", "types", "typing", "uuid")
"""Packages whose classes torch.load may use, of the few that `read` accepts."""


def load_weights(
    module: nn.Module, path: str, *, rgb: bool = False, network: Callable[[], Network] | None = None
) -> nn.Module:
    """Load the weights in the file at `path` into the module, and return it.

    `network` returns the module's Network. A linear layer that reads a flattened map has its weights in another order
    in a framework with the channels last; the Network tells the sides of the map, which is taken for a square without
    it. `rgb` reverses the input channels of the first convolution, which then takes an RGB image in place of BGR.

    A tensor goes to the same key, without what stands before all of the module's keys in the file; else to the layer of
    a VGG with the same label (conv1_1, fc6), whatever the keys are. Further tensors of the file are ignored, also a
    running average of the weights beside them. `read` accepts the file first, so code in it does not run. Raises
    CheckpointError where keys or shapes do not match the module's, or match in several places, or a layer may read a
    map of unknown sides.
    """
    import torch

    checkpoint = read(path)
    inspection = examine(checkpoint)
    wanted = module.state_dict()
    shapes = {tensor.name: tensor.shape for tensor in checkpoint.tensors}
    prefix = _prefix(inspection, shapes, wanted, without_averages(checkpoint).averages)
    names: dict[str, str] = {key.removeprefix(prefix): key for key in shapes}
    # Other frameworks do not count the batches.
    needed = [key for key in wanted if key in names or not key.endswith(_COUNTER)]
    if names.keys() >= set(needed):
        names = {key: names[key] for key in needed}
    else:
        names = _by_label(inspection, shapes, wanted) or names
    kept = {key for key in wanted if key.endswith(_COUNTER) and key not in names}
    reason = _mismatch(names, shapes, {key: tensor for key, tensor in wanted.items() if key not in kept})
    if reason:
        problem = f"{path} does not hold the weights of this model: {reason}"
        raise CheckpointError(problem, f"vggscope inspect {path} shows which network they belong to")
    maps = _maps(checkpoint, shapes, names, wanted, network)
    with _reading(checkpoint, as_in_file=maps is not None) as read_tensor, torch.no_grad():
        order = {tensor.name: place for place, tensor in enumerate(checkpoint.tensors)}
        # In the file's order, since compressed data are read forwards.
        for key, name in sorted(names.items(), key=lambda item: order[item[1]]):
            # One at a time: no more than the module and one tensor are held.
            _copy(read_tensor(name), wanted[key], (maps or {}).get(key, ()))
    if rgb:
        _reverse_channels(module, path)
    return module


def _prefix(
    inspection: Inspection, shapes: Mapping[str, Shape], wanted: Iterable[str], averages: tuple[str, ...]
) -> str:
    """What stands before the module's keys in the file. Raises CheckpointError where several prefixes fit."""
    keys = [key for key in wanted if not key.endswith(_COUNTER)]
    if not keys or shapes.keys() & set(keys):
        return ""
    starts = [name.removesuffix(keys[0]) for name in shapes if name.endswith(f".{keys[0]}")]
    fitting = [
        start for start in starts if not start.startswith(averages) and all(start + key in shapes for key in keys)
    ]
    if len(fitting) > 1 and inspection.prefix not in fitting:
        problem = f"{inspection.path} holds the weights of this model several times: {printable(listed(fitting))}"
        raise CheckpointError(problem, "save those that you want in a file of their own")
    return fitting[0] if len(fitting) == 1 else inspection.prefix


def _maps(
    checkpoint: Checkpoint,
    shapes: Mapping[str, Shape],
    names: Mapping[str, str],
    wanted: Mapping[str, Tensor],
    network: Callable[[], Network] | None,
) -> dict[str, Segments] | None:
    """The flattened maps that the module's layers read, by key; None where the file's reader has reordered the weights.

    A fully connected layer that is a convolution in the module reads the map of its kernel. Raises CheckpointError
    where a layer may read a map of unknown sides.
    """
    linear = [key for key, name in names.items() if len(shapes[name]) == 2]
    if not checkpoint.flattens_last or not linear:
        return None
    try:
        shown = None if network is None else network()
    except VggscopeError:
        shown = None
    if shown is not None and shown.failure is None:
        dense = {key: (tuple(wanted[key].shape[1:]),) for key in linear if prod(wanted[key].shape[2:]) > 1}
        return {**flattened_maps(shown), **dense}
    unsure = may_be_flattened(checkpoint.tensors)
    if unsure is not None:
        raise CheckpointError(
            f"{checkpoint.path}: {printable(unsure.name)} may read a flattened map, whose sides are not known",
            f"give {option('input_size')}",
        )
    return None


def _copy(tensor: Tensor, target: Tensor, segments: Segments) -> None:
    """Copy the values of a tensor of the file.

    `segments` are the features along the last axis, if there are flattened maps among them: the file has those pixel by
    pixel.
    """
    if not segments:
        target.copy_(tensor.reshape(target.shape))
        return
    rows = target.view(-1, sum(map(prod, segments)))
    given = tensor.reshape(rows.shape)
    start = 0
    for channels, *sides in segments:
        stop = start + channels * prod(sides)
        theirs = given[:, start:stop].reshape(-1, *sides, channels).movedim(-1, 1)
        rows[:, start:stop].view(theirs.shape).copy_(theirs)
        start = stop


def _mismatch(names: Mapping[str, str], shapes: Mapping[str, Shape], wanted: Mapping[str, Tensor]) -> str:
    """Why the file's tensors `names` are not those of the module; empty if they are."""
    missing, extra = ([key for key in one if key not in other] for one, other in ((wanted, names), (names, wanted)))
    if missing or extra:
        lacks = f"it lacks {listed(missing)}" if missing else ""
        has = f"the model has no {listed(extra)}" if extra else ""
        return printable("; ".join(filter(None, (lacks, has))), 200)
    for key, tensor in wanted.items():
        have, want = shapes[names[key]], tuple(tensor.shape)
        if prod(have) != prod(want) or have[:1] != want[:1]:
            shapes_text = ["x".join(map(str, shape)) for shape in (have, want)]
            return f"{printable(key)} is {shapes_text[0]}, the model's is {shapes_text[1]}"
    return ""


@contextmanager
def _reading(checkpoint: Checkpoint, *, as_in_file: bool) -> Iterator[Callable[[str], Tensor]]:
    """A function that returns the file's tensor of a key, while the file is open.

    `as_in_file`: the inputs of linear layers have the file's order.
    """
    if not (checkpoint.is_foreign or checkpoint.modules):
        yield _tensors(checkpoint).__getitem__
        return
    with open_checkpoint(checkpoint) as file:
        described = map(as_flattened, checkpoint.tensors) if as_in_file else checkpoint.tensors
        stored = {tensor.name: tensor for tensor in described}
        yield lambda name: _tensor(file, stored[name])


def _tensor(file: TensorFile, stored: StoredTensor) -> Tensor:
    """A tensor in torch's layout of a file that torch does not load without running code."""
    import numpy as np
    import torch

    obstacle = file.obstacle(stored)
    if obstacle:
        raise CheckpointError(f"{file.checkpoint.path}: {printable(stored.name)} is not read: {obstacle}")
    array = np.array(file.whole(stored), order="C")
    dtype: torch.dtype = getattr(torch, stored.dtype)
    return torch.from_numpy(array).view(dtype)


def _reverse_channels(module: nn.Module, path: str) -> None:
    """Reverse the input channels of the first convolution. Raises CheckpointError where it reads no image."""
    import torch

    first = next((weight for weight in module.parameters() if weight.ndim == 4), None)
    if first is None or first.shape[1] != 3:
        raise CheckpointError(f"{path}: its first convolution does not read three channels", "leave out the option")
    with torch.no_grad():
        first.copy_(first.flip(1))


def _by_label(inspection: Inspection, shapes: Mapping[str, Shape], wanted: Mapping[str, Tensor]) -> dict[str, str]:
    """The keys of the file's tensors by the module's, matched by label.

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
    labels = labels_by_order(inspection, own)
    stored = {
        (labels.get(layer.label, layer.label), t.leaf): t.name
        for layer in inspection.layers
        if layer.label
        for t in layer.tensors
    }
    if {label for label, _ in stored if not label.startswith("fc")} - {layer.label for layer in own.layers}:
        return {}
    fitting: dict[str, str] = {}
    for layer in own.layers:
        for tensor in layer.tensors:
            match = stored.get((layer.label, tensor.leaf))
            if match is None and tensor.leaf == _COUNTER:
                continue
            if match is None or shapes[match][:1] != tensor.shape[:1] or prod(shapes[match]) != prod(tensor.shape):
                return {}
            fitting[tensor.name] = match
    return fitting


def _tensors(checkpoint: Checkpoint) -> dict[str, Tensor]:
    """The file's tensors by key, read by safetensors, or by torch.load with weights_only=True."""
    if checkpoint.shards:
        # A shard may hold more tensors than the index takes from it.
        states = ((shard, _tensors(shard)) for shard in checkpoint.shards)
        return {tensor.name: state[tensor.name] for shard, state in states for tensor in shard.tensors}
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
    """The classes of trusted packages among these, each with its name in the pickle."""
    for name in names:
        package = name.partition(".")[0]
        if package in _TRUSTED:
            yield getattr(import_module(module_of(name)), name.rpartition(".")[2]), name
