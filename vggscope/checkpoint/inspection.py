"""From the tensors of a checkpoint to the network that it belongs to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vggscope.checkpoint.chain import GUESSED_POOL, UNKNOWN
from vggscope.checkpoint.head import HEAD_SIDE
from vggscope.checkpoint.loading import loading, target_for
from vggscope.checkpoint.model import Model, model, obstacle
from vggscope.checkpoint.problems import NO_DIFFERENCES, differences, listed
from vggscope.checkpoint.reader import read
from vggscope.checkpoint.runs import OTHER
from vggscope.checkpoint.stored import WRAPPERS, Checkpoint, StoredLayer, layers_of
from vggscope.checkpoint.trusted import FILLED
from vggscope.checkpoint.vgg import VGG, find_vgg
from vggscope.errors import CheckpointError, printable
from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.result import Result


@record
class Inspection(Result):
    """What a checkpoint is; `str` of it is the table.

    `column` is the column of Table 1 that it is or comes nearest to, or None for another network. `notation` is that
    column, or the file's own, in Table 1's words, with `maxpool?` where a pool is guessed and `?` where what stands
    there cannot be told; None for what is no VGG. `num_classes`, `input_channels` and `head_side` (the side of the map
    that the first FC layer reads) are None where the file does not tell. `params` counts what is learned, `buffers`
    the batch norms' statistics. `key_style` is `torchvision`, `timm`, `bare Sequential`, `sliced Sequential`,
    `Caffe-like` or `other`, behind the wrappers that left their mark in the keys: `DataParallel `, `torch.compile `,
    `FSDP `, `checkpoint_wrapper `. `prefix` is what stands before every key of the network, `wrapper` the keys that
    lead to the state dict. `missing` and `extra` are keys beside the column's. `load` is Python that loads the file.
    """

    schema: str
    path: str
    format: str
    column: str | None
    batch_norm: bool
    num_classes: int | None
    input_channels: int | None
    params: int
    buffers: int
    dtypes: tuple[str, ...]
    key_style: str
    prefix: str
    wrapper: tuple[str, ...]
    head: str | None
    head_side: int | None
    notation: str | None
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    load: str
    layers: tuple[StoredLayer, ...]

    @property
    def obstacle(self) -> str:
        """Why no network can be built from the file; empty if one can."""
        return obstacle(self.notation, self.layers, self.input_channels, (self.head, self.head_side))

    def model(self) -> Model:
        """The column to build from the file; raises CheckpointError where there is an obstacle."""
        if self.notation is None or self.obstacle:
            path = printable(self.path, 200)
            raise CheckpointError(
                f"{path}: no network can be built from it: {self.obstacle}",
                f"vggscope inspect {path} describes its layers",
            )
        return model(self.notation, self.input_channels, (self.head, self.head_side))


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Identify the network of a .pth, .pt or .safetensors file.

    Raises CheckpointError where the file is no checkpoint, is damaged, or holds code.
    """
    return examine(read(path))


def examine(checkpoint: Checkpoint) -> Inspection:
    """Which network a checkpoint belongs to, and what it has otherwise.

    >>> from vggscope.checkpoint.stored import StoredTensor
    >>> weights = [("0", (8, 1, 3, 3)), ("3", (16, 8, 3, 3)), ("7", (10, 784))]
    >>> tensors = tuple(StoredTensor(f"{name}.weight", shape, "float32") for name, shape in weights)
    >>> examine(Checkpoint("mnist.pth", "torch zip", tensors)).notation
    'conv3-8 maxpool? conv3-16 maxpool? FC-10'
    """
    layers = layers_of(checkpoint.tensors)
    vgg = find_vgg(layers)
    told = differences(vgg.found, vgg.head, vgg.links, checkpoint.tensors) if vgg and vgg.found else NO_DIFFERENCES
    own = [link.stored for link in vgg.links if link.stored] if vgg else list(layers)
    prefix = _prefix(own, vgg.run.prefix if vgg else "")
    labels = {link.stored.name: link.label for link in vgg.links if link.stored} if vgg else {}
    found = Inspection(
        schema="vggscope/inspect@1",
        path=checkpoint.path,
        format=checkpoint.format,
        column=vgg.column if vgg else None,
        batch_norm=vgg.run.batch_norm if vgg else any(layer.op == "BatchNorm2d" for layer in layers),
        num_classes=vgg.num_classes if vgg else None,
        input_channels=vgg.input_channels if vgg else None,
        params=sum(layer.params for layer in layers),
        buffers=sum(numel(tensor.shape) for tensor in checkpoint.tensors if not tensor.learned),
        dtypes=_dtypes(checkpoint),
        key_style=" ".join((*_wrappers(own), vgg.style if vgg else OTHER)),
        prefix=prefix,
        wrapper=checkpoint.wrapper,
        head=vgg.head.kind if vgg else None,
        head_side=vgg.head.side if vgg else None,
        notation=vgg.notation if vgg else None,
        problems=told.sentences,
        notes=tuple(_notes(checkpoint, vgg)),
        missing=told.missing,
        extra=told.extra,
        load="",
        layers=tuple(replace(layer, label=labels.get(layer.name, "")) for layer in layers),
    )
    target = target_for(checkpoint.path, vgg, own, prefix, told, is_buildable=not found.obstacle)
    notes = (
        (*found.notes, f"no network can be built from it: {found.obstacle}") if vgg and found.obstacle else found.notes
    )
    return replace(found, load=loading(checkpoint, target), notes=notes)


def _prefix(layers: Sequence[StoredLayer], prefix: str) -> str:
    """What stands before the paths of all layers in the file, where that is the same: `prefix` and its wrappers."""
    starts = {layer.name.removesuffix(layer.path.removeprefix(prefix)) for layer in layers}
    start = starts.pop() if len(starts) == 1 else ""
    return start if not start or start.endswith(".") else ""


def _wrappers(layers: Sequence[StoredLayer]) -> Iterator[str]:
    """What the layers were wrapped in, as far as their names tell."""
    parts = {part for layer in layers for part in layer.name.split(".")}
    return (wrapper for part, wrapper in WRAPPERS.items() if part in parts)


def _dtypes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The dtypes of what is learned, that of most elements first."""
    counted: Counter[str] = Counter()
    for tensor in checkpoint.tensors:
        if tensor.learned:
            counted[tensor.dtype] += numel(tensor.shape)
    return tuple(dtype for dtype, _ in counted.most_common())


def _notes(checkpoint: Checkpoint, vgg: VGG | None) -> Iterator[str]:
    """What a reader should know that is no fault of the file."""
    if vgg:
        yield from _what_cannot_be_told(vgg)
    if len(_dtypes(checkpoint)) > 1:
        yield f"its parameters are of several dtypes: {listed(_dtypes(checkpoint))}"
    if checkpoint.beside:
        yield f"beside the state dict the file holds {listed(checkpoint.beside)}: left aside"
    if checkpoint.sparse:
        yield f"sparse: {listed(checkpoint.sparse)}"
    if checkpoint.packed:
        yield f"not counted, since quantised layers pack their weights: {listed(checkpoint.packed)}"
    filled = [name for name in checkpoint.guarded if name in FILLED]
    if filled:
        yield f"torch.load takes {listed(filled)} only with weights_only=False, by which what a file asks for is run"
    elif checkpoint.guarded:
        yield f"torch.load takes it with weights_only=True only if told to trust {listed(checkpoint.guarded)}"


def _what_cannot_be_told(vgg: VGG) -> Iterator[str]:
    taken = f": they are taken from column {vgg.column}" if vgg.column else ""
    yield f"ReLU, pools, dropout, strides and paddings are not in a checkpoint{taken}"
    words = vgg.notation.split()
    if vgg.column in ("A", "A-LRN"):
        yield "LRN has no parameters: A and A-LRN differ at most in the numbers of the keys"
    if GUESSED_POOL in words:
        yield f"{GUESSED_POOL}: the names leave room for a layer without weights there, most likely a pool"
    if UNKNOWN in words:
        yield f"{UNKNOWN}: a pool or another layer without weights may stand there"
    if vgg.head.kind == "linear" and vgg.head.side not in (HEAD_SIDE, None):
        reason = ": the input is not 224x224, or is pooled to that" if vgg.column else ""
        yield f"the first FC layer reads a map of {vgg.head.side}x{vgg.head.side}{reason}"
