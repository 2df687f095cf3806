"""The effect of one difference, on the input that the layer has in the reference.

`none`: the same function of this input, proved. `training_only`: the same function at evaluation. `shape`: another
output shape. `function`: all other differences.
"""

from __future__ import annotations

from collections.abc import Iterable

from vggscope.diffing.align import chosen_attributes
from vggscope.diffing.proof import returns_input, same_normal_form
from vggscope.diffing.result import EFFECTS, Change
from vggscope.errors import ShapeError
from vggscope.ops.base import Op, Shape, infer_output_shape, numel
from vggscope.ops.constant import WithConstants


def changes(ours: Op, reference: Op) -> tuple[Change, ...]:
    """The attributes that differ, without the width that follows from the input; for two ops of different kinds, `op`
    alone.
    """
    if ours.name != reference.name:
        return (Change("op", ours.name, reference.name),)
    mine, theirs = dict(chosen_attributes(ours)), dict(chosen_attributes(reference))
    if mine.keys() != theirs.keys():
        if isinstance(ours, WithConstants) != isinstance(reference, WithConstants):
            return (
                Change(
                    "constants", *(op.constants if isinstance(op, WithConstants) else () for op in (ours, reference))
                ),
            )
        # A layer with a rule, and one of which only the run is known.
        return (Change("op", *(f"{op.name} ({type(op).__name__})" for op in (ours, reference))),)
    return tuple(Change(name, value, theirs[name]) for name, value in mine.items() if value != theirs[name])


def effect_of_change(ours: Op, reference: Op, shape: Shape, output: Shape) -> str:
    """The effect of `ours` in place of `reference`, which maps an input of this shape to `output`.

    Both have one input.
    """
    known = _effect_without_shapes(ours, reference, shape, output)
    if known is not None:
        return known
    if same_normal_form(ours, reference, shape, (_shape_of(ours, shape), output)):
        return "training_only" if differs_in_training(ours, reference) else "none"
    return "function" if _shape_of(ours, shape) == output else "shape"


def effect_of_change_in_call(
    ours: Op, reference: Op, shapes: tuple[tuple[Shape, ...], tuple[Shape, ...]], outputs: tuple[Shape, Shape]
) -> str:
    """The effect of `ours` in place of `reference` if one of them has several inputs, or none.

    `shapes` are the input shapes that either one has in its network, and `outputs` the output shapes.
    """
    known = _effect_without_shapes(ours, reference, shapes[1][0], outputs[1]) if shapes[1] else None
    if known is not None:
        return known
    same_number = len(shapes[0]) == len(shapes[1])
    output = _shape_of(ours, *shapes[1]) if same_number and shapes[0] != shapes[1] else outputs[0]
    return "function" if output == outputs[1] else "shape"


def _effect_without_shapes(ours: Op, reference: Op, shape: Shape, output: Shape) -> str | None:
    """The effect of `ours` in place of `reference` if it does not depend on the output shape of `ours`, else None."""
    if same_function(ours, reference, shape, output):
        return "none"
    if ours.name == reference.name:
        fields = {change.attribute for change in changes(ours, reference)} - {"inplace"}
        if fields <= ours.training_fields:
            return "training_only"
    elif ours.active_in == reference.active_in == "training":
        return "training_only"
    return None


def differs_in_training(ours: Op, reference: Op) -> bool:
    """Whether two ops that are the same at evaluation may differ in training."""
    if "training" in (ours.active_in, reference.active_in):
        return True
    shared = ours.training_fields & reference.training_fields
    return any(getattr(ours, name) != getattr(reference, name) for name in shared)


def same_function(ours: Op, reference: Op, shape: Shape, output: Shape) -> bool:
    """Whether both ops, with the same weights, give the same values for every input of this shape."""
    if ours.is_weight_layer and reference.is_weight_layer and ours.name != reference.name:
        return _same_inner_product(ours, reference, shape)
    if ours.is_layout and reference.is_layout:
        return _shape_of(ours, shape) == output
    if ours.takes_mean and reference.takes_mean and (ours.is_adaptive or reference.is_adaptive):
        return _same_averages(ours, reference, shape)
    if ours.name != reference.name:
        return False
    return all(_is_ineffective(change, ours, reference, shape, output) for change in changes(ours, reference))


def proof_of(op: Op, shape: Shape) -> str:
    """What an op computes of an input of this shape, in words; empty if its name tells."""
    output = _shape_of(op, shape)
    return "" if output is None else op.normal_form((shape,), output).proof


def effect_of_presence(op: Op, shape: Shape, before: Op | None) -> str:
    """The effect of an op that only one network has, on an input of this shape after the op `before`."""
    if op.active_in == "training":
        return "training_only"
    is_repeated = op.is_idempotent and before is not None and before.name == op.name
    if op.is_layout or is_repeated or op.is_identity(shape[2:]):
        return "none"
    output = _shape_of(op, shape)
    if output is not None and returns_input(op, shape, output):
        return "none"
    return "function" if _shape_of(op, shape) == shape else "shape"


def effect_of_move(op: Op, passed: Iterable[tuple[Op, Op]], effects: Iterable[str]) -> str:
    """The effect of an op on the other side of the ops `passed`, which are pairs of ours and the reference's.

    `effects` are those of its presence at either position.
    """
    # A layout op is compared only with pairs of the same op. Another pair, such as a convolution for a Linear, has its
    # own effect on the layout.
    swaps = [other for pair in passed for other in pair if not op.is_layout or pair[0].name == pair[1].name]
    worst = _gravest(["none", *(_effect_of_swap(op, other) for other in swaps)])
    if worst == "function":
        # The presence of a layout op has no effect, but its position relative to these ops does.
        return _gravest(["function" if op.is_layout else "none", *effects])
    return worst


def _gravest(effects: Iterable[str]) -> str:
    return max(effects, key=list(EFFECTS).index)


def _effect_of_swap(one: Op, other: Op) -> str:
    """The effect of swapping two successive ops. A maximum commutes with monotone functions, a pointwise function with
    changes of layout.
    """
    for first, second in ((one, other), (other, one)):
        commute = (first.takes_maximum and second.is_monotone) or (first.is_layout and second.is_pointwise)
        if commute or first.returns_input:
            return "none"
    return "training_only" if "training" in (one.active_in, other.active_in) else "function"


def _is_ineffective(change: Change, ours: Op, reference: Op, shape: Shape, output: Shape) -> bool:
    """Whether a changed attribute leaves the values for this input shape as they are."""
    if change.attribute == "inplace":
        return True
    window = reference.window(shape[2:])
    if change.attribute == "ceil_mode":
        return _shape_of(ours, shape) == output
    if change.attribute in ("count_include_pad", "padding_mode"):
        return window is not None and not any(window.padding)
    if change.attribute == "dilation":
        return window is not None and set(window.kernel_size) == {1}
    return False


def _same_inner_product(ours: Op, reference: Op, shape: Shape) -> bool:
    """Whether a Linear of the flattened map equals a convolution whose kernel covers the map."""
    linear, conv = (reference, ours) if ours.is_convolution else (ours, reference)
    weight, kernel = linear.parameters()["weight"], conv.parameters()["weight"]
    window = conv.window((1, 1))
    return (
        weight[0] == kernel[0]
        and weight[1] == numel(kernel[1:]) == numel(shape[1:])
        and ("bias" in linear.parameters()) == ("bias" in conv.parameters())
        and window is not None
        and not any(window.padding)
    )


def _same_averages(ours: Op, reference: Op, shape: Shape) -> bool:
    if any(not op.is_regular(shape[2:]) for op in (ours, reference)):
        return ours == reference
    return ours.window(shape[2:]) == reference.window(shape[2:]) and _shape_of(ours, shape) == _shape_of(
        reference, shape
    )


def _shape_of(op: Op, shape: Shape, *others: Shape) -> Shape | None:
    try:
        return infer_output_shape(op.fitted(shape), shape, *others)
    except ShapeError:
        return None
