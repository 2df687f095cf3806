"""Tensors of other frameworks under the names and in the layout that torch would give them.

TensorFlow and Keras store the kernel of a convolution as HWIO and the weights of a linear layer as inputs x outputs.
There a linear layer after a flattened map reads it pixel by pixel, with the channels last; torch's reads it channel by
channel. Each of these is a permutation of axes, so that strides describe a tensor's data and nothing is moved.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from math import isqrt, prod

from vggscope.checkpoint.contents import Checkpoint, Original, StoredTensor, natural
from vggscope.errors import printable
from vggscope.ops.base import Shape
from vggscope.units import kernel_text

_LEAVES = {
    **dict.fromkeys(("weight", "weights", "kernel", "filter", "filters", "w", "gamma", "scale"), "weight"),
    **dict.fromkeys(("bias", "biases", "b", "beta", "offset"), "bias"),
    **dict.fromkeys(("running_mean", "moving_mean", "mean"), "running_mean"),
    **dict.fromkeys(("running_var", "moving_variance", "variance", "var"), "running_var"),
    **{"depthwise_kernel": "weight", "num_batches_tracked": "num_batches_tracked"},
    "recurrent_kernel": "recurrent_kernel",
}
"""torch's name of a tensor within its layer, by other frameworks'."""

_TORCH_ENDS = tuple(f".{leaf}" for leaf in set(_LEAVES.values()))

_LEAF = re.compile(rf"[/._]({'|'.join(_LEAVES)})(?:_\d{{1,9}})?(?::\d{{1,9}})?$", re.IGNORECASE)

_LONGEST_LEAF = 60
"""Characters in which the name within the layer ends, with its separator and its numbers."""

_TORCH = {5: "OIDHW", 4: "OIHW", 3: "OIW", 2: "OI"}
_CHANNELS_LAST = {5: "DHWIO", 4: "HWIO", 3: "WIO", 2: "IO"}
"""The axes of a weight by its number of dimensions: torch's, and those of TensorFlow and Keras."""

_DEPTHWISE = {4: "HWIM", 3: "WIM"}
"""The axes of Keras's depthwise kernel: M filters for each input channel."""


BESIDE = "(HWI.)O"
"""The axes of a linear layer's weights whose inputs are a flattened map and other features."""

_FLATTENED = re.compile(r"\(D?H?WI\)")
"""The axes of a flattened map with the channels last, among those of a linear layer's weights."""


def in_torch_layout(
    tensors: Sequence[StoredTensor], *, flattens_channels_last: bool | None = None
) -> tuple[list[StoredTensor], bool]:
    """The tensors of a file whose layout is not declared, under torch's names and shapes, and whether its linear layers
    read flattened maps with the channels last.

    The axes of convolutions and of linear layers are those that fit the biases, or else the next layer's. Where
    convolutions are HWIO, linear layers are taken to read flattened maps channels last, unless
    `flattens_channels_last` says otherwise.
    """
    named = _named(tensors)
    biases = {tensor.layer: tensor.shape for tensor in named if tensor.leaf == "bias"}
    weights = [tensor for tensor in named if tensor.leaf == "weight" and len(tensor.shape) in _TORCH]
    # Keras, TensorFlow and Flax name their weights so, and always have the axes of channels last.
    depthwise = {own.name for tensor, own in zip(tensors, named) if "depthwise_kernel" in tensor.name}
    kernels = {
        len(tensor.shape)
        for tensor in tensors
        if re.search(r"[/.](?:(?:depth|point)wise_)?kernel(?:_\d+)?(?::\d+)?$", tensor.name)
    }
    votes = {rank: _is_channels_last([w for w in weights if len(w.shape) == rank], biases) for rank in _TORCH}
    # Square matrices without a bias do not tell: they are as the convolutions are.
    last_ranks = {rank for rank, vote in votes.items() if vote or (vote is None and rank == 2 and votes[4])} | kernels
    permuted = [permute(tensor, _axes(tensor, last_ranks, depthwise)) for tensor in named]
    is_last = 4 in last_ranks if flattens_channels_last is None else flattens_channels_last
    return (with_flatten(permuted) if is_last else permuted), is_last


def layout_note(tensors: Sequence[StoredTensor]) -> str:
    """The sentence on the axes of a file that are not torch's; empty for none."""
    axes = {t.original.axes: len(t.original.shape) for t in tensors if t.original and t.original.axes}
    plain = {name: rank for name, rank in axes.items() if name in (*_CHANNELS_LAST.values(), *_DEPTHWISE.values())}
    flattened = next((t for t in tensors if t.original and _FLATTENED.search(t.original.axes)), None)
    theirs, ours = " and ".join(plain), " and ".join(_TORCH[rank] for rank in plain.values())
    sentences = [f"its weights are {theirs}, shown as torch's {ours}"] if plain else []
    if flattened:
        assert flattened.original is not None
        sides = flattened.original.sides
        of = f" of {kernel_text(sides)}" if sides else ""
        guess = "" if sides else ", which is taken to be square"
        name = printable(flattened.name)
        sentences.append(f"{name} reads a map{of} with the channels last, here with the channels first{guess}")
    beside = next((t for t in tensors if t.original and t.original.axes == BESIDE), None)
    if beside:
        order = "reads a map beside other features, and its columns are in the file's order, channels last"
        sentences.append(f"{printable(beside.name)} {order}")
    return "; ".join(sentences)


def naming_note(checkpoint: Checkpoint) -> str:
    """The sentence on layers whose names the file does not tell; empty for none."""
    how = "its layers are numbered by class: it does not tell their names"
    return how if checkpoint.is_numbered else ""


def torch_name(name: str) -> str:
    """The key that torch would give a tensor of this name.

    >>> torch_name("block1_conv1/block1_conv1/kernel:0"), torch_name("conv1_1_W"), torch_name("features.0.weight")
    ('block1_conv1.weight', 'conv1_1.weight', 'features.0.weight')
    """
    if name.endswith(_TORCH_ENDS) and "/" not in name:
        return name
    match = _LEAF.search(name, max(len(name) - _LONGEST_LEAF, 1))
    parts = [part for part in re.split(r"[/.]", name[: match.start()]) if part] if match else []
    # Keras repeats a layer's name: once for its group, and once in the tensor's own name.
    once = [part for part, after in zip(parts, [*parts[1:], ""]) if part != after]
    return ".".join((*once, _LEAVES[match[1].lower()])) if match and once else name


def permute(tensor: StoredTensor, axes: str) -> StoredTensor:
    """The tensor whose axes in the file are these, with torch's axes; unchanged for none."""
    rank = len(tensor.shape)
    place = tensor.place
    stride = place.stride if place and place.stride is not None else _row_major(tensor.shape)
    if axes in _DEPTHWISE.values():
        *sides, channels, filters = tensor.shape
        shape: Shape = (channels * filters, 1, *sides)
        view = (channels, filters, *sides)
        moved = tuple(stride[axis] for axis in (rank - 2, rank - 1, *range(rank - 2)))
        new_place = place and replace(place, stride=moved, view=view)
    elif axes:
        order = [axes.index(axis) for axis in _TORCH[rank]]
        shape = tuple(tensor.shape[axis] for axis in order)
        new_place = place and replace(place, stride=tuple(stride[axis] for axis in order))
    else:
        return tensor
    original = tensor.original or Original(tensor.name, tensor.shape)
    return replace(tensor, shape=shape, place=new_place, original=replace(original, axes=axes))


def with_flatten(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """The tensors with the inputs of the first linear layer after a channels-last map in torch's order.

    It is the one whose inputs are a square of pixels times the outputs of the last convolution.
    """
    weights = [tensor for tensor in tensors if tensor.leaf == "weight"]
    convolutions = [tensor for tensor in weights if len(tensor.shape) == 4]
    if not convolutions:
        return list(tensors)
    by_name = sorted(convolutions, key=lambda tensor: natural(tensor.name))
    channels = max(convolutions, by_name, key=_links)[-1].shape[0]
    linear = [tensor for tensor in weights if len(tensor.shape) == 2]
    outputs = {tensor.shape[0] for tensor in linear}
    first = next((t for t in linear if t.shape[1] not in outputs and _side(t.shape[1], channels) > 1), None)
    first = first or next((t for t in linear if _side(t.shape[1], channels) > 1), None)
    return [_flattened(tensor, channels) if tensor is first else tensor for tensor in tensors]


def as_flattened(tensor: StoredTensor) -> StoredTensor:
    """The tensor of a linear layer with its inputs in the file's order, where they were taken for those of a map."""
    place = tensor.place
    if tensor.original is None or not _FLATTENED.search(tensor.original.axes) or place is None or place.stride is None:
        return tensor
    axes = "IO" if tensor.original.axes.endswith("O") else ""
    original = replace(tensor.original, axes=axes, sides=())
    return replace(tensor, place=replace(place, stride=place.stride[:2], view=None), original=original)


def as_map(tensor: StoredTensor, channels: int, sides: Shape) -> StoredTensor:
    """The tensor, of which the file has the last axis pixel by pixel, with that axis channel by channel.

    `sides` are those of the map. The tensor may have an axis of units before it.
    """
    place = tensor.place
    if place is not None:
        *units, step = place.stride if place.stride is not None else _row_major(tensor.shape)
        pixels = tuple(step * channels * prod(sides[axis + 1 :]) for axis in range(len(sides)))
        view = (*tensor.shape[:-1], channels, *sides)
        place = replace(place, stride=(*units, step, *pixels), view=view)
    original = tensor.original or Original(tensor.name, tensor.shape)
    if len(tensor.shape) == 2:
        flat = f"({'DHW'[-len(sides) :]}I)"
        axes = f"{flat}O" if original.axes == "IO" else f"O{flat}"
        original = replace(original, axes=axes, sides=sides)
    return replace(tensor, place=place, original=original)


def may_be_flattened(tensors: Sequence[StoredTensor]) -> StoredTensor | None:
    """A linear layer that may read a flattened map whose sides the file does not tell; None without one."""
    weights = [tensor for tensor in tensors if tensor.leaf == "weight"]
    channels = {tensor.shape[0] for tensor in weights if len(tensor.shape) == 4}
    linear = [tensor for tensor in weights if len(tensor.shape) == 2]
    if any(tensor.original is not None and _FLATTENED.search(tensor.original.axes) for tensor in linear):
        return None
    outputs = {tensor.shape[0] for tensor in linear}
    first = (tensor for tensor in linear if tensor.shape[1] not in outputs)
    return next((t for t in first if any(t.shape[1] > n > 0 and t.shape[1] % n == 0 for n in channels)), None)


def _flattened(tensor: StoredTensor, channels: int) -> StoredTensor:
    """A linear layer's weights whose inputs are a square map, in the file with the channels last."""
    side = _side(tensor.shape[1], channels)
    mapped = as_map(tensor, channels, (side, side))
    assert mapped.original is not None
    return replace(mapped, original=replace(mapped.original, sides=()))


def _side(inputs: int, channels: int) -> int:
    """The side of a square map with these channels; 0 for any other number of inputs."""
    side = isqrt(inputs // channels) if channels else 0
    return side if side * side * channels == inputs else 0


def _named(tensors: Sequence[StoredTensor]) -> list[StoredTensor]:
    """The tensors under torch's names; those whose names would be equal keep their own."""
    names = [torch_name(tensor.name) for tensor in tensors]
    counts = Counter(names)
    return [
        tensor
        if name == tensor.name or counts[name] > 1
        else replace(tensor, name=name, original=tensor.original or Original(tensor.name, tensor.shape))
        for tensor, name in zip(tensors, names)
    ]


def _axes(tensor: StoredTensor, last_ranks: set[int], depthwise: set[str]) -> str:
    """The axes in the file; empty for those of torch. `depthwise` are the names of depthwise kernels."""
    if tensor.leaf != "weight" or len(tensor.shape) not in last_ranks:
        return ""
    is_depthwise = tensor.name in depthwise and len(tensor.shape) in _DEPTHWISE
    return (_DEPTHWISE if is_depthwise else _CHANNELS_LAST)[len(tensor.shape)]


def _is_channels_last(weights: Sequence[StoredTensor], biases: dict[str, Shape]) -> bool | None:
    """Whether the last axis of these weights, all of one rank, is the outputs and the one before it the inputs.

    None where they do not tell.
    """
    first = last = 0
    for weight in weights:
        outputs = biases.get(weight.layer, ())
        first += outputs == weight.shape[:1]
        last += outputs == weight.shape[-1:]
    if first == last:
        shapes = [weight.shape for weight in weights]
        first = sum(before[0] == after[1] for before, after in pairwise(shapes))
        last = sum(before[-1] == after[-2] for before, after in pairwise(shapes))
    if first == last:
        # A kernel is smaller than its channels.
        first = sum(prod(weight.shape[2:]) for weight in weights)
        last = sum(prod(weight.shape[:-2]) for weight in weights)
        first, last = last, first
    return None if first == last else last > first


def _links(convolutions: Iterable[StoredTensor]) -> int:
    """How many convolutions read the outputs of the one before."""
    return sum(before.shape[0] == after.shape[1] for before, after in pairwise(convolutions))


def _row_major(shape: Shape) -> Shape:
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))
