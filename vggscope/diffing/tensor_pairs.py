"""Pairs the tensors of two checkpoints, whatever their keys are."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence

from vggscope.checkpoint.contents import Checkpoint, StoredTensor, unwrapped
from vggscope.checkpoint.inspection import Inspection, examine, labels_by_order
from vggscope.record import record

_KERAS_LEAVES = {
    "kernel": "weight",
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""torch's name of a tensor within its layer, by Keras's."""

_KERAS_HEAD = {"fc1": "fc6", "fc2": "fc7", "predictions": "fc8"}
"""The literature's label of an FC layer, by its name in Keras's VGG."""

Label = tuple[str, str]
"""A layer's label in the literature, such as `conv1_1`, and a tensor's name within the layer."""


@record
class TensorPair:
    """A tensor of ours and one of the reference; None on a side that has no counterpart. `label` may be empty."""

    ours: StoredTensor | None
    reference: StoredTensor | None
    label: str


@record
class Pairing:
    """All pairs: those of our tensors in the file's order, then those of the reference alone.

    `by` is how most were found: `keys`, `prefix`, `labels` or `order`.
    """

    pairs: tuple[TensorPair, ...]
    by: str


def pair_tensors(ours: Checkpoint, reference: Checkpoint) -> Pairing:
    """Pair the tensors by their keys without wrappers and a common prefix, else by the literature's labels of a VGG,
    and what is left, if it has the same shapes one by one, by its order.
    """
    matching = _TensorMatching(ours.tensors, reference.tensors)
    our_labels, reference_labels = _labels_of_both(examine(ours), examine(reference))
    for by, our_key, reference_key in _keys(ours, reference):
        if matching.fits(our_key, reference_key):
            matching.add(by, our_key, reference_key)
    matching.add("labels", our_labels.get, reference_labels.get)
    for by, our_key, reference_key in _keys(ours, reference):
        matching.add(by, our_key, reference_key)
    matching.add_by_order()
    label_of = {tensor.name: label for tensor, (label, _) in our_labels.items()}
    label_of_reference = {tensor.name: label for tensor, (label, _) in reference_labels.items()}
    pairs: list[TensorPair] = []
    for tensor in ours.tensors:
        found = matching.found.get(tensor)
        label = label_of.get(tensor.name) or (label_of_reference.get(found.name) if found else None)
        pairs.append(TensorPair(tensor, found, label or ""))
    taken = set(matching.found.values())
    pairs += [TensorPair(None, t, label_of_reference.get(t.name, "")) for t in reference.tensors if t not in taken]
    return Pairing(tuple(pairs), matching.most_common)


Key = Callable[[StoredTensor], Hashable]


class _TensorMatching:
    """The pairs found so far."""

    def __init__(self, ours: Sequence[StoredTensor], reference: Sequence[StoredTensor]) -> None:
        self.found: dict[StoredTensor, StoredTensor] = {}
        self._ours, self._reference = list(ours), list(reference)
        self._counts: Counter[str] = Counter()

    @property
    def most_common(self) -> str:
        return next((by for by, _ in self._counts.most_common(1)), "keys")

    def fits(self, our_key: Key, reference_key: Key) -> bool:
        """Whether the keys of one side are all among the other's, and most that are equal have one shape."""
        ours = {our_key(tensor): tensor for tensor in self._ours}
        reference = {reference_key(tensor): tensor for tensor in self._reference}
        common = ours.keys() & reference.keys()
        same = sum(sorted(ours[key].shape) == sorted(reference[key].shape) for key in common)
        return len(common) == min(len(ours), len(reference)) and 2 * same > len(common)

    def add(self, by: str, our_key: Key, reference_key: Key) -> None:
        """Pair the tensors left whose keys, other than None, are equal."""
        waiting = {key: tensor for tensor in self._reference if (key := reference_key(tensor)) is not None}
        for tensor in self._ours:
            key = our_key(tensor)
            if key is not None and key in waiting:
                self._pair(by, tensor, waiting.pop(key))
        self._forget()

    def add_by_order(self) -> None:
        """Pair the tensors left if there are as many on either side, with the same shapes in the same order."""
        sides = [[sorted(tensor.shape) for tensor in tensors] for tensors in (self._ours, self._reference)]
        if sides[0] == sides[1]:
            for tensor, other in zip(self._ours, self._reference):
                self._pair("order", tensor, other)
            self._forget()

    def _pair(self, by: str, ours: StoredTensor, reference: StoredTensor) -> None:
        self.found[ours] = reference
        self._counts[by] += 1

    def _forget(self) -> None:
        taken = set(self.found.values())
        self._ours = [tensor for tensor in self._ours if tensor not in self.found]
        self._reference = [tensor for tensor in self._reference if tensor not in taken]


def _keys(ours: Checkpoint, reference: Checkpoint) -> Iterator[tuple[str, Key, Key]]:
    """The ways to compare keys: as they are without wrappers, then without the prefix that one side has more.

    Keras counts the names of layers on from model to model (`conv2d_7`), so that two archives of it are compared first
    by the numbers that the layers have in their class.
    """
    theirs = {_plain(tensor) for tensor in reference.tensors}
    mine = {_plain(tensor) for tensor in ours.tensors}
    if mine != theirs and _is_keras_archive(ours) and _is_keras_archive(reference):
        yield "keys", _filed, _filed
    yield "keys", _plain, _plain
    our_prefix, reference_prefix = _prefix(mine, theirs), _prefix(theirs, mine)
    if our_prefix or reference_prefix:
        yield "prefix", _without(our_prefix), _without(reference_prefix)


def _is_keras_archive(checkpoint: Checkpoint) -> bool:
    return any(tensor.original and "/vars/" in tensor.original.name for tensor in checkpoint.tensors)


def _filed(tensor: StoredTensor) -> str:
    return tensor.original.name if tensor.original else tensor.name


def _plain(tensor: StoredTensor) -> str:
    """The key without wrappers; a part of a parametrized weight under the weight's name."""
    return f"{unwrapped(tensor.layer)}.{_leaf(tensor)}"


def _without(prefix: str) -> Key:
    return lambda tensor: _plain(tensor).removeprefix(prefix)


def _leaf(tensor: StoredTensor) -> str:
    leaf = re.sub(r":\d+$", "", tensor.leaf.rpartition("/")[2])
    return _KERAS_LEAVES.get(leaf, leaf)


def _prefix(keys: set[str], others: set[str]) -> str:
    """What most keys have before a key of the others; empty for most as they are."""
    prefixes: Counter[str] = Counter()
    for key in keys:
        parts = key.split(".")
        ends = (".".join(parts[place:]) for place in range(min(len(parts), 16)))
        end = next((end for end in ends if end in others), None)
        if end is not None:
            prefixes[key.removesuffix(end)] += 1
    return prefixes.most_common(1)[0][0] if prefixes else ""


def _labels_of_both(
    ours: Inspection, reference: Inspection
) -> tuple[dict[StoredTensor, Label], dict[StoredTensor, Label]]:
    """`labels_of` both files; a layer has the same label in both where only one of them shows its stages."""
    here, there = labels_by_order(ours, reference), labels_by_order(reference, ours)
    return (
        {tensor: (here.get(label, label), leaf) for tensor, (label, leaf) in labels_of(ours).items()},
        {tensor: (there.get(label, label), leaf) for tensor, (label, leaf) in labels_of(reference).items()},
    )


def labels_of(inspection: Inspection) -> dict[StoredTensor, Label]:
    """The label and the name within the layer of each tensor that belongs to a VGG, by its shapes or its own name.

    A label that two tensors have is left out: the file has several such networks.
    """
    tensors = [(layer.label, tensor) for layer in inspection.layers for tensor in layer.tensors]
    # Blocks of squeeze and excitation have an fc1 too.
    is_keras = any(re.search(r"(?:^|[./])block1_conv1[./]", tensor.name) for _, tensor in tensors)
    labels = {
        tensor: (found, _leaf(tensor)) for label, tensor in tensors if (found := label or _label_in(tensor, is_keras))
    }
    counts = Counter(labels.values())
    return {tensor: label for tensor, label in labels.items() if counts[label] == 1}


def _label_in(tensor: StoredTensor, is_keras: bool) -> str:
    """The literature's label in a name: `block1_conv1/kernel` is conv1_1's; empty without one."""
    path = unwrapped(tensor.layer) or tensor.name.rpartition("/")[0]
    path = path if "/" not in tensor.name else tensor.name.rpartition("/")[0]
    for word in reversed(re.split(r"[./]", path)[-3:]):
        block = re.fullmatch(r"block(\d{1,2})_conv(\d{1,2})", word)
        if block:
            return f"conv{block[1]}_{block[2]}"
        if re.fullmatch(r"conv\d{1,2}_\d{1,2}|fc(?:[3-9]|1\d)", word):
            return word
        if is_keras and word in _KERAS_HEAD:
            return _KERAS_HEAD[word]
    return ""
