"""A running average of the weights that a checkpoint holds beside them, under keys of its own such as `ema.`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from vggscope.checkpoint.contents import WRAPPERS, Checkpoint, StoredTensor
from vggscope.errors import printable

_AVERAGE = re.compile(r"(?:^|_)(?:ema|swa|averaged)(?:_|$)")
"""In the first part of a key: an exponential moving average, stochastic weight averaging, torch's AveragedModel."""

_FEWEST = 2
"""Tensors of a network."""

_DEEPEST, _MOST_STARTS = 4, 8
"""Parts of keys before those of a network, and as many places at which they may begin."""


def without_averages(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint without the copies of its weights that are called averages, each tensor of which it has once more.

    A file with the average alone, and a whole module, are returned as they are.

    >>> keys = ("model.0.weight", "model.0.bias", "ema.module.0.weight", "ema.module.0.bias")
    >>> tensors = tuple(StoredTensor(key, (4,), "float32") for key in keys)
    >>> found = without_averages(Checkpoint("x.ckpt", "torch zip", tensors))
    >>> [tensor.name for tensor in found.tensors], found.averages
    (['model.0.weight', 'model.0.bias'], ('ema.',))
    """
    if checkpoint.is_foreign or checkpoint.modules:
        return checkpoint
    starts = [_start(tensor.name) for tensor in checkpoint.tensors]
    copies: dict[str, list[StoredTensor]] = {}
    for tensor, start in zip(checkpoint.tensors, starts):
        if start:
            copies.setdefault(start, []).append(tensor)
    if not copies:
        return checkpoint
    others = [tensor for tensor, start in zip(checkpoint.tensors, starts) if not start]
    held = {(_flat(tensor.name), tensor.shape) for tensor in others}
    averages = tuple(start for start, copy in copies.items() if _is_copy(copy, held))
    kept = tuple(tensor for tensor, start in zip(checkpoint.tensors, starts) if start not in averages)
    return replace(checkpoint, tensors=kept, averages=averages)


def with_same_averages(ours: Checkpoint, reference: Checkpoint) -> tuple[Checkpoint, Checkpoint]:
    """Two checkpoints to compare: as they are where both hold the same averages or none, else without any."""
    plain = without_averages(ours), without_averages(reference)
    return (ours, reference) if plain[0].averages == plain[1].averages else plain


def average_notes(checkpoint: Checkpoint) -> Iterator[str]:
    """The sentence on each average that was left out."""
    for start in checkpoint.averages:
        what = "has the same keys and shapes, by its name a running average of the weights"
        yield f"{printable(start, 60)}* {what}: ignored"


def _start(name: str) -> str:
    """What the keys of an average begin with; empty for another key.

    >>> _start("module.model_ema.0.weight"), _start("features.ema.weight"), _start("schema.weight")
    ('module.model_ema.', '', '')
    """
    parts = name.split(".")
    count = next((place for place, part in enumerate(parts) if part not in WRAPPERS), 0)
    is_average = len(parts) > count + 1 and _AVERAGE.search(parts[count])
    return "".join(f"{part}." for part in parts[: count + 1]) if is_average else ""


def _is_copy(copy: Sequence[StoredTensor], held: set[tuple[str, tuple[int, ...]]]) -> bool:
    """Whether each tensor of a copy, but for scalars that count, is held with the same shape under another start."""
    arrays = [tensor for tensor in copy if tensor.shape]
    if len(arrays) < _FEWEST:
        return False
    first = arrays[0].name.split(".")
    for depth in range(1, min(len(first), _DEEPEST + 1)):
        inner = "".join(f"{part}." for part in first[:depth])
        if not all(tensor.name.startswith(inner) for tensor in arrays):
            return False
        own = [(_flat(tensor.name.removeprefix(inner)), tensor.shape) for tensor in arrays]
        key, shape = own[0]
        ends = (name.removesuffix(key) for name, sides in held if name.endswith(key) and sides == shape)
        if any(all((start + name, sides) in held for name, sides in own) for start in islice(ends, _MOST_STARTS)):
            return True
    return False


def _flat(name: str) -> str:
    """A key without its dots, which some programs leave out in the keys of an average."""
    return name.replace(".", "")
