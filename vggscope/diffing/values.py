"""Compare the values of two checkpoints, tensor by tensor."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace

from vggscope.checkpoint.averages import average_notes, with_same_averages
from vggscope.checkpoint.contents import StoredTensor, unwrapped
from vggscope.checkpoint.data import TensorFile, open_tensors
from vggscope.checkpoint.flattened_maps import GraphOf
from vggscope.checkpoint.layouts import layout_note, naming_note
from vggscope.diffing.rearrangement import (
    BGR,
    FLATTEN_ORDER,
    RESHAPED,
    TRANSPOSED,
    Rearrangement,
    TensorSide,
    candidates,
    fitting,
    paired_pieces,
)
from vggscope.diffing.tensor_pairs import TensorPair, pair_tensors
from vggscope.diffing.value_distance import SAME_BITS, Distance, distance, has_equal_bits, scaling
from vggscope.errors import OptionError, printable
from vggscope.ops.base import Shape, numel
from vggscope.progress import progress
from vggscope.record import record
from vggscope.result import TableResult

RELATIONS = {
    "equal": "bit by bit, or up to the signs of zeros",
    "untouched": "equal, while others are trained, scaled or have another shape",
    "cast": "the same values in another dtype",
    "reshaped": "the same values in another shape",
    "transposed": "the same values, axes in another order",
    "flatten_order": "the same values, inputs flattened in another order",
    "bgr": "the same values, input channels reversed: BGR for RGB",
    "scaled": "the reference times one factor, up to rounding",
    "trained": "other values",
    "shape": "another shape",
    "missing": "in the reference only",
    "extra": "in the file only",
    "unread": "not compared",
}
"""How a tensor of the file relates to its counterpart in the reference."""

_BY_STEP = {BGR: "bgr", FLATTEN_ORDER: "flatten_order", TRANSPOSED: "transposed", RESHAPED: "reshaped"}
"""The relation of tensors that are equal after some steps, the gravest step first."""

_SAME = ("equal", "untouched", "cast", "reshaped", "transposed")
"""Relations under which both tensors are one weight, as far as they go without the file's layout."""

_CHANGED = ("scaled", "trained", "shape")
"""Relations that training leaves, of all parts or of a new head, or that a scaling of weights does."""

_COUNTER = "num_batches_tracked"
"""A counter of a batch norm, without effect at evaluation."""

_STATISTICS = ("running_mean", "running_var")

_UNRELATED = 0.1
"""Weights of a smaller cosine were probably trained apart from each other."""

_CLOSER = 0.1
"""How much larger the cosine with reversed channels must be for BGR weights that were trained since."""


@record
class TensorDifference:
    """A tensor and its counterpart; the fields of a side that has none are None.

    `relation` is one of RELATIONS. `steps` lead from ours to the reference: `transposed`, `bgr`, `flatten_order`,
    `reshaped`, `cast`, `signs` (of zeros). `max_abs`, `relative_norm` (the norm of the difference by that of the
    reference) and `cosine` tell how far apart the values are; None where they are unknown, and `reason` says why. Of a
    scaled tensor, `factor` times the reference is ours, and `factor_max_abs` is the largest difference then.
    """

    name: str | None
    reference: str | None
    label: str
    layer: str
    shape: Shape | None
    reference_shape: Shape | None
    dtype: str | None
    reference_dtype: str | None
    relation: str
    steps: tuple[str, ...] = ()
    max_abs: float | None = None
    relative_norm: float | None = None
    cosine: float | None = None
    reason: str | None = None
    factor: float | None = None
    factor_max_abs: float | None = None

    @property
    def elements(self) -> int:
        """The number of values of ours, or of the reference where ours is missing."""
        return numel(self.shape if self.shape is not None else self.reference_shape or ())

    @property
    def leaf(self) -> str:
        """The name within the layer."""
        return (self.name or self.reference or "").replace("/", ".").rpartition(".")[2]


@record
class RelationCount:
    """How many tensors have a relation, and how many values they hold."""

    relation: str
    tensors: int
    elements: int


@record
class ValueDiff(TableResult[TensorDifference]):
    """Two checkpoints compared by their values.

    `verdict` is `identical` (the same keys, dtypes and bits), `equivalent` (the same weights under other keys, in
    another dtype, or in another framework's layout) or `different`. `paired_by` is how most tensors found their
    counterpart: `keys`, `prefix`, `labels` or `order`. `trained` and `untouched` name layers, by label or path: those
    with any tensor that is trained, scaled or of another shape, and then those whose tensors are all the same.
    """

    rows_field = "tensors"
    named_by = ("name", "reference")

    schema: str
    model: str
    reference: str
    verdict: str
    paired_by: str
    counts: tuple[RelationCount, ...]
    trained: tuple[str, ...]
    untouched: tuple[str, ...]
    tensors: tuple[TensorDifference, ...]
    notes: tuple[str, ...]


def compare_values(
    ours: str | os.PathLike[str], reference: str | os.PathLike[str], graph_of: GraphOf | None = None
) -> ValueDiff:
    """Compare the values of two .pth, .pt or .safetensors files, which may be of different formats and key styles.

    `graph_of` is as in `open_tensors`.

    Raises CheckpointError where one is no checkpoint, is damaged or holds code, and OptionError where they have no
    tensor in common.
    """
    with ExitStack() as stack:
        files = (stack.enter_context(open_tensors(path, graph_of)) for path in (ours, reference))
        our_file, reference_file = files
        sides = with_same_averages(our_file.checkpoint, reference_file.checkpoint)
        pairing = pair_tensors(*sides)
        if not any(pair.ours and pair.reference for pair in pairing.pairs):
            raise OptionError(
                f"{os.fspath(ours)} and {os.fspath(reference)} have no tensor in common",
                "vggscope inspect shows what each holds",
            )
        with progress("comparing", len(pairing.pairs)) as advance:
            found: list[TensorDifference] = []
            for pair in pairing.pairs:
                advance(printable((pair.ours or pair.reference or _NOTHING).name))
                found.append(_difference(our_file, reference_file, pair))
    tensors = tuple(_untouched(found))
    layouts = [layout_note(side.tensors) for side in sides]
    notes = tuple(
        f"{os.fspath(path)}: {note}"
        for path, side, layout in zip((ours, reference), sides, layouts)
        for note in (layout, naming_note(side), *average_notes(side))
        if note
    )
    trained, untouched = _layers(tensors)
    return ValueDiff(
        schema="vggscope/values@1",
        model=os.fspath(ours),
        reference=os.fspath(reference),
        verdict=_verdict(tensors, is_as_filed=not any(layouts) and not any(side.averages for side in sides)),
        paired_by=pairing.by,
        counts=tuple(_counts(tensors)),
        trained=trained,
        untouched=untouched,
        tensors=tensors,
        notes=(*notes, *_notes(tensors, pairing.by)),
    )


_NOTHING = StoredTensor("", (), "")


def _difference(our_file: TensorFile, reference_file: TensorFile, pair: TensorPair) -> TensorDifference:
    ours, reference = pair.ours, pair.reference
    layer = pair.label or unwrapped((ours or reference or _NOTHING).layer)
    difference = TensorDifference(
        name=ours.name if ours else None,
        reference=reference.name if reference else None,
        label=pair.label,
        layer=layer,
        shape=ours.shape if ours else None,
        reference_shape=reference.shape if reference else None,
        dtype=ours.dtype if ours else None,
        reference_dtype=reference.dtype if reference else None,
        relation="extra" if reference is None else "missing",
    )
    if ours is None or reference is None:
        return difference
    reason = our_file.obstacle(ours) or reference_file.obstacle(reference)
    if reason:
        return replace(difference, relation="unread", reason=reason)
    sides = TensorSide(our_file, ours), TensorSide(reference_file, reference)
    possible = next(candidates(ours, reference), None)
    if possible is None:
        return replace(difference, relation="shape")
    return _related(difference, sides, possible)


def _related(
    difference: TensorDifference, sides: tuple[TensorSide, TensorSide], first: Rearrangement
) -> TensorDifference:
    """The difference with the relation of two tensors whose shapes allow `first` and perhaps other rearrangements."""
    dtypes = tuple(side.tensor.dtype for side in sides)
    as_first: Distance | None = None
    for rearrangement in fitting(*sides):
        if dtypes[0] == dtypes[1] and has_equal_bits(paired_pieces(*sides, rearrangement)):
            return _as(difference, rearrangement, SAME_BITS)
        apart = distance(paired_pieces(*sides, rearrangement), *dtypes)
        if apart.has_equal_values or apart.is_cast:
            return _as(difference, rearrangement, apart)
        if rearrangement == first:
            as_first = apart
    if as_first is None:
        as_first = distance(paired_pieces(*sides, first), *dtypes)
    return _trained(difference, sides, first, as_first)


def _as(difference: TensorDifference, rearrangement: Rearrangement, apart: Distance) -> TensorDifference:
    """The difference of tensors that are the same after a rearrangement and a cast."""
    steps = rearrangement.steps
    if apart.is_cast:
        steps = (*steps, "cast")
    elif not apart.has_equal_bits:
        steps = (*steps, "signs")
    relation = next((_BY_STEP[step] for step in _BY_STEP if step in steps), "cast" if apart.is_cast else "equal")
    return replace(difference, relation=relation, steps=steps, max_abs=apart.max_abs, relative_norm=apart.relative_norm)


def _trained(
    difference: TensorDifference, sides: tuple[TensorSide, TensorSide], first: Rearrangement, apart: Distance
) -> TensorDifference:
    """The difference of tensors of other values: as they are, or with the input channels reversed if that is nearer."""
    dtypes = tuple(side.tensor.dtype for side in sides)
    for rearrangement in candidates(sides[0].tensor, sides[1].tensor):
        if rearrangement == replace(first, flips=True) and apart.cosine is not None:
            reversed_apart = distance(paired_pieces(*sides, rearrangement), *dtypes)
            if (reversed_apart.cosine or 0.0) > apart.cosine + _CLOSER:
                first, apart = rearrangement, reversed_apart
    is_unknown = apart.max_abs is None
    scaled = scaling(paired_pieces(*sides, first), dtypes[0], dtypes[1], apart)
    return replace(
        difference,
        relation="trained" if scaled is None else "scaled",
        steps=first.steps,
        max_abs=apart.max_abs,
        relative_norm=apart.relative_norm,
        cosine=apart.cosine,
        reason="it has values that are not finite, or no dtype of numbers" if is_unknown else None,
        factor=None if scaled is None else scaled.factor,
        factor_max_abs=None if scaled is None else scaled.max_abs,
    )


def _untouched(differences: Sequence[TensorDifference]) -> Iterator[TensorDifference]:
    """The differences, the equal ones as untouched if any is changed."""
    has_changed = any(difference.relation in _CHANGED for difference in differences)
    for difference in differences:
        is_untouched = has_changed and difference.relation == "equal"
        yield replace(difference, relation="untouched") if is_untouched else difference


def _layers(tensors: Sequence[TensorDifference]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layers with a changed tensor, and those whose tensors are all the same; none of either without a change."""
    relations: dict[str, set[str]] = {}
    for tensor in tensors:
        relations.setdefault(tensor.layer, set()).add(tensor.relation)
    changed = tuple(layer for layer, found in relations.items() if not found.isdisjoint(_CHANGED))
    return changed, tuple(layer for layer, found in relations.items() if found <= set(_SAME)) if changed else ()


def _counts(tensors: Sequence[TensorDifference]) -> Iterator[RelationCount]:
    counted = Counter(tensor.relation for tensor in tensors)
    elements: Counter[str] = Counter()
    for tensor in tensors:
        elements[tensor.relation] += tensor.elements
    for relation in RELATIONS:
        if counted[relation]:
            yield RelationCount(relation, counted[relation], elements[relation])


def _verdict(tensors: Sequence[TensorDifference], *, is_as_filed: bool) -> str:
    """The verdict; `is_as_filed`: neither file was read in another layout than its own, or without an average."""
    if is_as_filed and all(t.relation == "equal" and not t.steps and t.name == t.reference for t in tensors):
        return "identical"
    same = (*_SAME, "flatten_order") if _is_other_layout(tensors) else _SAME
    is_same = (t.relation in same or t.leaf == _COUNTER for t in tensors)
    square = (t for t in tensors if t.relation == "transposed" and t.shape == t.reference_shape)
    return "equivalent" if all(is_same) and (_is_other_layout(tensors) or not any(square)) else "different"


def _is_other_layout(tensors: Sequence[TensorDifference]) -> bool:
    """Whether ours stores weights in the axes of another framework, which a shape shows."""
    return any(TRANSPOSED in tensor.steps and tensor.shape != tensor.reference_shape for tensor in tensors)


def _notes(tensors: Sequence[TensorDifference], by: str) -> Iterator[str]:
    if by == "order":
        yield "the keys have nothing in common: the tensors are paired by their order and their shapes"
    if any(BGR in tensor.steps for tensor in tensors):
        yield "the first convolution reads BGR in one file, RGB in the other: reverse its input channels or the image's"
    if _is_other_layout(tensors):
        yield "the file stores weights in another framework's order of axes"
    elif any(FLATTEN_ORDER in tensor.steps for tensor in tensors):
        yield "a flatten comes before that layer: channels first in one file, channels last in the other"
    unknown = [tensor for tensor in tensors if tensor.relation == "trained" and tensor.reason]
    if unknown:
        names = _first_names([printable(tensor.name or "") for tensor in unknown])
        yield f"NaN, infinity or no dtype of numbers in one of the files: {names}"
    yield from _frozen_statistics(tensors)
    apart = [t for t in tensors if t.relation == "trained" and t.cosine is not None and len(t.shape or ()) > 1]
    if apart and all(abs(tensor.cosine or 0.0) < _UNRELATED for tensor in apart):
        yield f"the cosine of all trained weights is below {_UNRELATED}: they were probably trained apart"


def _frozen_statistics(tensors: Sequence[TensorDifference]) -> Iterator[str]:
    """The note on batch norms whose statistics moved while their weights stayed."""
    weights = {t.layer: t.relation for t in tensors if t.leaf == "weight"}
    moved = {t.layer for t in tensors if t.leaf in _STATISTICS and t.relation == "trained" and not t.reason}
    frozen = [layer for layer in weights if layer in moved and weights[layer] == "untouched"]
    if frozen:
        shown = _first_names(frozen)
        yield f"statistics changed while the weights stayed: {shown}. A frozen batch norm needs .eval() in training"


def _first_names(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
