"""Which network a checkpoint belongs to."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vggscope.checkpoint.averages import average_notes, without_averages
from vggscope.checkpoint.contents import WRAPPERS, Checkpoint, StoredLayer, StoredModule, layers_of, natural
from vggscope.checkpoint.conv_runs import OTHER
from vggscope.checkpoint.fc_head import HEAD_SIDE
from vggscope.checkpoint.flattened_maps import GraphOf, with_known_maps
from vggscope.checkpoint.folder import architecture_beside
from vggscope.checkpoint.formats.matconvnet import FORMAT as MATCONVNET
from vggscope.checkpoint.formats.pickle_objects import NEVER_WEIGHTS_ONLY
from vggscope.checkpoint.formats.shard_index import index_name
from vggscope.checkpoint.formats.torch7 import FORMAT as TORCH7
from vggscope.checkpoint.formats.torch_save import TORCH_SCRIPT
from vggscope.checkpoint.layouts import layout_note, naming_note
from vggscope.checkpoint.loading_code import library_target, loading_code, target_for
from vggscope.checkpoint.problems import find_problems, library_differences, listed
from vggscope.checkpoint.published import PublishedWeights, published_by_name
from vggscope.checkpoint.reader import read
from vggscope.checkpoint.structure import BEFORE, GUESSED_POOL, UNKNOWN, StoredVGG, find_vgg
from vggscope.errors import CheckpointError, NotationError, option, printable
from vggscope.ops.base import Shape, numel
from vggscope.record import record
from vggscope.result import TableResult
from vggscope.vgg.labels import kind_of_word, layer_labels
from vggscope.vgg.notation import Word, parse

GRAPHS = ("ONNX", "torch.export", MATCONVNET, TORCH7)
"""The formats of files that hold a graph beside the weights."""

LARGEST_KERNEL = 3
"""VGG's kernel size: a larger kernel usually comes with a stride, which a checkpoint does not store."""

_SIDE, _POOLS = 224, 5
"""The side in pixels of the paper's input, and the number of its pools."""


@record
class BuildPlan:
    """The notation of a network, its input (channels, height, width), and its `--head` option."""

    words: tuple[Word, ...]
    input: tuple[int, int, int]
    head: str | None


@record
class Shard:
    """A file as one of several that hold a checkpoint: the path of their index, its number and how many there are."""

    index: str
    number: int
    count: int


@record
class LibraryModel:
    """The model of torchvision or timm that a file is or is nearest to.

    `word` is `torchvision:resnet50`. `kind` is `exact` (the same keys and shapes), `other classes` (the same as those
    of the model with `num_classes`) or `nearest`. `same` are other models with the same keys and shapes. `prefix`
    precedes the model's keys in the file. `differing` has the keys of other shapes, with the file's and the model's.
    """

    word: str
    kind: str
    same: tuple[str, ...]
    prefix: str
    num_classes: int | None
    missing: tuple[str, ...] = ()
    extra: tuple[str, ...] = ()
    differing: tuple[tuple[str, Shape, Shape], ...] = ()


@record
class Inspection(TableResult[StoredLayer]):
    """What a checkpoint is; `str` of it is the table.

    `column` is the column of Table 1 that it is or comes nearest to; None for another network. `notation` is the
    network in Table 1's words, with `maxpool?` for a guessed pool and `?` for a layer of unknown kind; None for no VGG.
    `num_classes`, `input_channels` and `head_side` (the side of the feature map that the first FC layer reads) are None
    where the file does not show them. `params` counts parameters, `buffers` the elements of batch-norm statistics.
    `key_style` is `torchvision`, `timm`, `bare Sequential`, `sliced Sequential`, `Caffe-like` or `other`, after the
    wrappers that left a part in the keys: `DataParallel `, `torch.compile `, `FSDP `, `checkpoint_wrapper `. `prefix`
    precedes every key of the network, `wrapper` holds the keys that lead to the state dict. `missing` and `extra` are
    keys that differ from the column's. `load` is Python that loads the file. `named_weights` are the published weights
    whose file has this name; the data is not read, so that they are not checked.

    `shards` are the files of a checkpoint in several, whose index is `path`. `shard` is set for one of those files
    alone: network and loading code are those of all, `layers`, `params` and `dtypes` are the file's. `architecture` is
    what the `config.json` beside the weights names. `modules` are those of a whole module, each before its parts.

    `library_model` is the model of torchvision or timm that a file without a VGG is or is nearest to, such as
    `torchvision:resnet50`. `library_match` is `exact` (the same keys and shapes), `other classes` (the same but for the
    number of classes) or `nearest`; `problems`, `missing` and `extra` are then the differences. `same_keys` are other
    models with the same keys and shapes. `api.inspect` looks for it; the functions here do not.
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
    named_weights: PublishedWeights | None = None
    shards: tuple[str, ...] = ()
    shard: Shard | None = None
    architecture: str | None = None
    modules: tuple[StoredModule, ...] = ()
    library_model: str | None = None
    library_match: str | None = None
    same_keys: tuple[str, ...] = ()

    @property
    def obstacle(self) -> str:
        """Why no network can be built from the file; empty if one can."""
        if self.shard:
            return f"it has a part of the layers: name {printable(self.shard.index, 200)}"
        return self._unknown_structure

    @property
    def _unknown_structure(self) -> str:
        """What a file does not show of its network, or of a network that is no VGG; empty if it is buildable."""
        if self.notation is None:
            return "it is not a VGG"
        if UNKNOWN in self.notation.split():
            return "the names do not show where its pools are"
        try:
            words = _words(self.notation)
        except NotationError as error:
            return error.problem
        if GUESSED_POOL in self.notation and any(word.kernel > LARGEST_KERNEL for word in words):
            return "the strides of its large kernels are not in the file"
        if any(layer.label == BEFORE for layer in self.layers):
            return "it has a convolution before the column's first, whose padding is not in the file"
        is_unfit = self.head is not None and self.head_side is None
        unfit = "the map that its first FC layer reads is not square, or that layer is missing" if is_unfit else ""
        return unfit or _mismatch(words, self.layers, self.input_channels or 3)

    def build_plan(self) -> BuildPlan:
        """How to build the file's network; raises CheckpointError with the obstacle if there is one."""
        if self.notation is None or self.obstacle:
            path = printable(self.path, 200)
            raise CheckpointError(
                f"{path}: no network can be built from it: {self.obstacle}",
                f"vggscope inspect {path} describes its layers",
            )
        words = _words(self.notation)
        channels, side = self.input_channels or 3, self.head_side
        pools = sum(word.kind == "maxpool" for word in words)
        if self.head == "linear" and side is not None and (side, pools) != (HEAD_SIDE, _POOLS):
            pixels = side * 2**pools
            return BuildPlan(words, (channels, pixels, pixels), "flatten")
        head = {"linear": "adaptive", None: None}.get(self.head, "dense")
        return BuildPlan(words, (channels, _SIDE, _SIDE), head)


def _words(notation: str) -> tuple[Word, ...]:
    return parse(notation.replace(GUESSED_POOL, "maxpool"))


def _mismatch(words: tuple[Word, ...], layers: tuple[StoredLayer, ...], channels: int) -> str:
    """The first convolution that cannot read the output of the one before it; empty if all can."""
    stored = {layer.label: layer for layer in layers if layer.label}
    for word, label in zip(words, layer_labels(map(kind_of_word, words))):
        if word.kind == "conv":
            layer = stored.get(label)
            if layer and layer.shape[1] != channels:
                return f"{label} reads {layer.shape[1]} channels where {channels} come in"
            if layer and layer.shape[2:] != (word.kernel,) * 2:
                return f"the kernel of {label} is not square"
            channels = word.size
    return ""


def labels_by_order(found: Inspection, other: Inspection) -> dict[str, str]:
    """The label in `other` of each layer of `found`, which does not show its pools and so its stages, by its label.

    Both are then chains of as many convolutions and FC layers, which are in order. Empty where the labels agree, or the
    kinds of layers do not.
    """
    if UNKNOWN not in (found.notation or "").split() or other.notation is None:
        return {}
    theirs, ours = (sorted((x.label for x in side.layers if x.label), key=natural) for side in (found, other))
    # The first two letters are the kind: conv or fc.
    same = [label[:2] for label in theirs] == [label[:2] for label in ours]
    return dict(zip(theirs, ours)) if same else {}


def inspect(path: str | os.PathLike[str], graph_of: GraphOf | None = None) -> Inspection:
    """Identify the network of a .pth, .pt or .safetensors file, of several with an index, or of a folder with them.

    `graph_of` is as in `data.open_tensors`.

    Raises CheckpointError where the file is not a checkpoint, is damaged, or holds code.
    """
    return inspect_checkpoint(with_known_maps(read(path), graph_of))


def inspect_checkpoint(checkpoint: Checkpoint) -> Inspection:
    """Identify the network of a file that is already read; that of all shards for a shard with its index beside it."""
    inspection = examine(checkpoint)
    named = index_name(os.path.basename(checkpoint.path))
    return _as_shard(inspection, *named) if named else inspection


def _as_shard(part: Inspection, name: str, number: int, count: int) -> Inspection:
    """The inspection of a file whose name is that of a shard, with the network of all shards if its index lists it."""
    index = os.path.join(os.path.dirname(part.path), name)
    title = f"its name is that of shard {number} of {count}"
    if not os.path.isfile(index):
        return replace(part, notes=(*part.notes, f"{title}, but {printable(name)} is not beside it"))
    try:
        whole = examine(read(index))
    except CheckpointError as error:
        return replace(part, notes=(*part.notes, f"{title}: {error.problem}"))
    if os.path.basename(part.path) not in map(os.path.basename, whole.shards):
        return replace(part, notes=(*part.notes, f"{title}, but {printable(name)} does not list it"))
    labels = {layer.name: layer.label for layer in whole.layers}
    return replace(
        whole,
        path=part.path,
        params=part.params,
        buffers=part.buffers,
        dtypes=part.dtypes,
        layers=tuple(replace(layer, label=labels.get(layer.name, "")) for layer in part.layers),
        shards=(),
        shard=Shard(index, number, count),
    )


def examine(checkpoint: Checkpoint) -> Inspection:
    """Identify the network of a checkpoint that is already read.

    >>> from vggscope.checkpoint.contents import StoredTensor
    >>> weights = [("0", (8, 1, 3, 3)), ("3", (16, 8, 3, 3)), ("7", (10, 784))]
    >>> tensors = tuple(StoredTensor(f"{name}.weight", shape, "float32") for name, shape in weights)
    >>> examine(Checkpoint("mnist.pth", "torch zip", tensors)).notation
    'conv3-8 maxpool? conv3-16 maxpool? FC-10'
    """
    checkpoint = without_averages(checkpoint)
    layers = layers_of(checkpoint.tensors)
    vgg = find_vgg(layers)
    problems = find_problems(vgg, checkpoint.tensors)
    own = [word.stored for word in vgg.words if word.stored] if vgg else list(layers)
    prefix = _prefix(own, vgg.run.prefix if vgg else "")
    labels = {word.stored.name: word.label for word in vgg.words if word.stored} if vgg else {}
    kinds = {module.path: module.kind.rpartition(".")[2] for module in checkpoint.modules}
    inspection = Inspection(
        schema="vggscope/inspect@1",
        path=checkpoint.path,
        format=checkpoint.format,
        column=vgg.config if vgg else None,
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
        problems=problems.sentences,
        notes=tuple(_notes(checkpoint, vgg)),
        missing=problems.missing,
        extra=problems.extra,
        load="",
        layers=tuple(
            replace(layer, label=labels.get(layer.name, ""), op=kinds.get(layer.name, layer.op)) for layer in layers
        ),
        named_weights=published_by_name(checkpoint.path),
        shards=tuple(shard.path for shard in checkpoint.shards),
        architecture=architecture_beside(checkpoint.path),
        modules=checkpoint.modules,
    )
    obstacle = inspection.obstacle
    # A network of MatConvNet is a chain of layers, which is built as the file has it.
    is_buildable = not obstacle or checkpoint.format == MATCONVNET
    target = target_for(checkpoint.path, vgg, own, prefix, problems, is_buildable=is_buildable)
    is_unbuilt = bool(vgg and obstacle) and checkpoint.format not in GRAPHS
    note = (f"no network can be built from it: {obstacle}",) if is_unbuilt else ()
    return replace(inspection, load=loading_code(checkpoint, target), notes=(*inspection.notes, *note))


def of_library_model(inspection: Inspection, found: LibraryModel) -> Inspection:
    """The inspection of a file that belongs to a model of a library or is nearest to it, with code that loads it."""
    named = replace(
        inspection,
        library_model=found.word,
        library_match=found.kind,
        same_keys=found.same,
        prefix=_prefix(inspection.layers, found.prefix),
    )
    if found.kind == "nearest":
        return replace(
            named,
            missing=found.missing,
            extra=found.extra,
            problems=tuple(library_differences(found.word, found.missing, found.extra, found.differing)),
        )
    library, _, _ = found.word.partition(":")
    target = library_target(found.word, found.num_classes, inspection.layers, found.prefix, found.kind)
    taken = f"strides, paddings and activations are not in a checkpoint: they are taken from {found.word}"
    if inspection.modules:
        taken = f"that order is taken from {found.word}"
    has_program = inspection.format in (*GRAPHS, TORCH_SCRIPT)
    twins = (f"the same keys and shapes: {listed(found.same)}",) if found.same else ()
    return replace(
        named,
        num_classes=found.num_classes,
        key_style=" ".join((*_wrappers(inspection.layers), library)),
        notes=(*inspection.notes, *(() if has_program else (taken,)), *twins),
        load=loading_code(without_averages(read(inspection.path)), target),
    )


def _prefix(layers: Sequence[StoredLayer], prefix: str) -> str:
    """`prefix` with the wrappers around it, if it is the same before the paths of all layers; else empty."""
    starts = {layer.name.removesuffix(layer.path.removeprefix(prefix)) for layer in layers}
    start = starts.pop() if len(starts) == 1 else ""
    return start if not start or start.endswith(".") else ""


def _wrappers(layers: Sequence[StoredLayer]) -> Iterator[str]:
    """The wrappers that the layers' names show."""
    parts = {part for layer in layers for part in layer.name.split(".")}
    return (wrapper for part, wrapper in WRAPPERS.items() if part in parts)


def _dtypes(checkpoint: Checkpoint) -> tuple[str, ...]:
    """The dtypes of the parameters, the one with most elements first."""
    elements: Counter[str] = Counter()
    for tensor in checkpoint.tensors:
        if tensor.learned:
            elements[tensor.dtype] += numel(tensor.shape)
    return tuple(dtype for dtype, _ in elements.most_common())


def _notes(checkpoint: Checkpoint, vgg: StoredVGG | None) -> Iterator[str]:
    """Remarks on the file that are not problems."""
    yield from _framework_notes(checkpoint)
    if vgg:
        yield from _unknowns(vgg, has_settings=checkpoint.format in GRAPHS or bool(checkpoint.modules))
    named = published_by_name(checkpoint.path)
    if named:
        how = f"{option('stats')} compares the SHA-256 with that of {named.name}"
        yield f"the weights are known by the file's name alone: {how}"
    if len(_dtypes(checkpoint)) > 1:
        yield f"its parameters are of several dtypes: {listed(_dtypes(checkpoint))}"
    if checkpoint.beside:
        yield f"the file also holds {listed(checkpoint.beside)} next to the state dict: ignored"
    yield from average_notes(checkpoint)
    if checkpoint.sparse:
        yield f"sparse: {listed(checkpoint.sparse)}"
    if checkpoint.packed:
        yield f"not counted, since quantised layers pack their weights: {listed(checkpoint.packed)}"
    yield from _loading_notes(checkpoint)


def _loading_notes(checkpoint: Checkpoint) -> Iterator[str]:
    """Remarks on the code that loading the file runs."""
    unsafe = [name for name in checkpoint.guarded if name in NEVER_WEIGHTS_ONLY]
    if checkpoint.format == TORCH_SCRIPT:
        if not checkpoint.tensors:
            yield "it has no parameters: torch.jit.freeze leaves weights as constants of the code, which are not listed"
        yield "it is an archive of torch.jit.save: summary and the other commands follow its code, without running it"
    elif checkpoint.modules:
        yield "it is a whole module: torch.load runs the code of its classes, and vggscope reads their names alone"
        known = "in a Sequential, in a VGG and in models of torchvision and timm"
        yield f"the code of forward is not in the file: vggscope knows the order of the layers {known}"
    elif unsafe:
        yield f"torch.load accepts {listed(unsafe)} only with weights_only=False, which runs code that the file names"
    elif checkpoint.guarded:
        yield f"torch.load accepts it with weights_only=True only if you allow {listed(checkpoint.guarded)}"


def _framework_notes(checkpoint: Checkpoint) -> Iterator[str]:
    """Remarks on how the framework that wrote the file stores weights and reads images."""
    yield from filter(None, (layout_note(checkpoint.tensors), naming_note(checkpoint)))
    whole = (tensor for tensor in checkpoint.tensors if not (tensor.place and tensor.place.blocks))
    held = Counter(tensor.original.name for tensor in whole if tensor.original)
    several = [(name, count) for name, count in held.items() if count > 1]
    if several:
        name, count = several[0]
        more = f", and {len(several) - 1} more so" if len(several) > 1 else ""
        yield f"{printable(name, 60)} is written once for {count} layers{more}: it is listed for each"
    if checkpoint.format in GRAPHS:
        yield f"the file has the network too: vggscope summary {printable(checkpoint.path, 200)} shows its layers"
    if checkpoint.format == "caffemodel":
        yield f"Caffe reads images as BGR: build with {option('rgb')} reverses the channels of the first convolution"
    if checkpoint.format == MATCONVNET:
        yield "MatConvNet's published networks read RGB images of 0..255, minus the mean that summary shows"


def _unknowns(vgg: StoredVGG, *, has_settings: bool) -> Iterator[str]:
    """Remarks on what the weights of a VGG do not show."""
    source = f": they are taken from column {vgg.config}" if vgg.config else ""
    if not has_settings:
        yield f"ReLU, pools, dropout, strides and paddings are not in a checkpoint{source}"
    words = vgg.notation.split()
    if vgg.config in ("D", "E") and vgg.convs[0] and vgg.convs[0].name.endswith("block1_conv1"):
        reverse = f"build with {option('rgb')} reverses the channels"
        yield f"Keras's published VGGs expect BGR images of 0..255 minus the mean: {reverse}"
    if vgg.config in ("A", "A-LRN"):
        yield "LRN has no parameters: A and A-LRN differ at most in the numbers of the keys"
    if GUESSED_POOL in words:
        yield f"{GUESSED_POOL}: the names leave room for a layer without weights there, most likely a pool"
    if UNKNOWN in words:
        yield f"{UNKNOWN}: there may be a pool or another layer without weights"
    if vgg.head.kind == "linear" and vgg.head.side not in (HEAD_SIDE, None):
        reason = ": the input is not 224x224, or is pooled to that" if vgg.config else ""
        yield f"the first FC layer reads a map of {vgg.head.side}x{vgg.head.side}{reason}"
