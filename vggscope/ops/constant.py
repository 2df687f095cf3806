"""Ops some of whose inputs are constants or masks, or whose weights are computed by other nodes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from operator import attrgetter
from typing import Any

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import AxisMaps
from vggscope.ops.base import Item, Op, SavedTensors, Shape
from vggscope.ops.normal_form import NormalForm
from vggscope.record import record


@record
class WithConstants(Op):
    """`op` with the shapes of its constant inputs filled in.

    `constants` has one entry for each input of `op`, which is None for an activation. `fixed` are the positions of the
    constants that depend on no parameter.
    """

    op: Op
    constants: tuple[Shape | None, ...]
    fixed: tuple[int, ...] = ()

    @property
    def reads_numbers(self) -> bool:  # type: ignore[override]
        return bool(self.fixed)

    @property
    def least_inputs(self) -> int:  # type: ignore[override]
        return max(self.op.least_inputs - len(self.constants) + self.constants.count(None), 0)

    @property
    def predicts_memory(self) -> bool:
        # A tensor that depends on no parameter may be one that forward makes.
        return self.op.takes_parameters and not self.fixed

    @property
    def needs_layout(self) -> bool:
        # Of a parameter as large as the output, no gradient is summed.
        return self.op.needs_layout or self.op.sums_gradients

    def own_inputs(self, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes of all inputs of `op`, constants included. Raises ShapeError for another number of inputs."""
        rest = iter(inputs)
        if self.constants.count(None) != len(inputs):
            raise ShapeError(f"{self.op.name} reads {self.constants.count(None)} values here, not {len(inputs)}")
        return tuple(next(rest) if constant is None else constant for constant in self.constants)

    def with_constants(self, sources: Sequence[Item], constants: Iterator[Item]) -> list[Item]:
        own = iter(sources)
        return self.op.with_constants(
            [next(own if shape is None else constants) for shape in self.constants], constants
        )

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        own, rest = self.own_inputs(inputs), iter(numbers)
        values = tuple(next(rest, None) if shape is not None else None for shape in self.constants)
        activations = [place for place, shape in enumerate(self.constants) if shape is None]
        form = self.op.normal_form(own, output, values)
        places = {place for step in form.steps for place in step.inputs if place < len(own)}
        is_alone = all(step.inputs for step in form.steps) and places <= set(activations)
        if activations and own[activations[0]] == output and is_alone and any(v is not None for v in values):
            moved = {place: number for number, place in enumerate(activations)}
            shift = len(activations) - len(own)
            steps = (
                replace(step, inputs=tuple(moved.get(place, place + shift) for place in step.inputs))
                for step in form.steps
            )
            return replace(form, steps=tuple(steps))
        known = self.op.form_with_constants(self.constants, own, output)
        if known is not None:
            return known
        constants = sorted(self.constants, key=lambda shape: shape is not None) if self.op.commutes else self.constants
        return _single_step(self.op, output, "constants", tuple(constants))

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        saved = self.op.saved_for_backward(self.own_inputs(inputs), output)
        activations = [position for position, constant in enumerate(self.constants) if constant is None]
        return saved._replace(inputs=tuple(activations.index(i) for i in saved.inputs if i in activations))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        reads = self.op.reads(self.own_inputs(inputs), output)
        return reads and tuple(read for read, constant in zip(reads, self.constants) if constant is None)


@record
class WithComputedWeights(Op):
    """`op`, of which the last inputs are weights that other nodes compute, as in F.conv2d(x, weight * style).

    `matrices` has one entry for each of these inputs: whether it is a factor of the op's products, as a bias is not.
    """

    predicts_memory = False
    gradient_layout = "usual"

    op: Op
    matrices: tuple[bool, ...]

    def own_inputs(self, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes of the inputs of `op`, without the weights."""
        return inputs[: len(inputs) - len(self.matrices)]

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return _single_step(self.op, output, "computed", self.matrices)

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        own = len(needed) - len(self.matrices)
        trained = trained or any(need and matrix for need, matrix in zip(needed[own:], self.matrices))
        return self.op.backward_macs(self.own_inputs(inputs), output, needed[:own], trained)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        own = self.own_inputs(inputs)
        saved = self.op.saved_for_backward(own, output)
        weights = (len(own) + place for place, matrix in enumerate(self.matrices) if matrix)
        return saved._replace(inputs=(*saved.inputs, *weights))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        # Every position of the output reads all of each weight.
        reads = self.op.reads(self.own_inputs(inputs), output)
        return reads and (*reads, *({} for _ in self.matrices))


@record
class WithWeightInputs(WithComputedWeights):
    """`op`, of which the last inputs are weights that forward computes from weights alone, as its memory needs them."""

    gradient_layout = "weight inputs"

    @property
    def predicts_memory(self) -> bool:  # type: ignore[override]
        return self.op.predicts_memory and not self.op.adds_bias_separately

    @property
    def needs_layout(self) -> bool:
        return True

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        saved = super().saved_for_backward(inputs, output)
        if self.op.family != "normalization":
            return saved
        # A normalisation saves its weight, which is a vector, and not its bias.
        return saved._replace(inputs=(*saved.inputs, len(self.own_inputs(inputs))))


@record
class StoredWeight(Op):
    """A parameter or a buffer, as what calls on weights alone read. `key` is its name in the state dict."""

    predicts_memory = needs_layout = True
    allocates = False
    gradient = "same"
    gradient_layout = "stored"

    key: str
    shape: Shape

    @property
    def stored_as(self) -> str:
        return self.key

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.shape


@record
class RewrittenWeight(Op):
    """A weight that forward computes, after a call has overwritten a view of it. Its inputs are both."""

    predicts_memory = needs_layout = is_rewritten = returns_input = True
    allocates = False
    gradient = "same"
    gradient_layout = "rewritten"


def with_weight_inputs(op: Op, inputs: Sequence[str], weights: Sequence[str]) -> tuple[Op, tuple[str, ...], int]:
    """Return the op that reads weights as inputs, all its inputs, and how many parameters it reads besides.

    `weights` has a name, or an empty text for a parameter that is none, for each constant of the op and then for each
    weight of the layer.
    """
    parameters = 0
    if op.is_recorded and not op.without_constants.predicts_memory:
        return op, tuple(inputs), len(weights)
    if isinstance(op, WithConstants):
        count = len(op.constants) - op.constants.count(None)
        given, own = iter(weights[:count]), iter(inputs)
        names = [next(own if shape is None else given, "") for shape in op.constants]
        kept = tuple(None if name else shape for name, shape in zip(names, op.constants))
        fixed = tuple(place for place in op.fixed if kept[place] is not None)
        parameters = len(kept) - kept.count(None) - len(fixed)
        inputs, weights = [name for name in names if name], weights[count:]
        op = replace(op, constants=kept, fixed=fixed) if any(shape is not None for shape in kept) else op.op
    computed = [name for name in weights if name]
    if computed:
        matrices = tuple(len(shape) > 1 for name, shape in zip(weights, op.parameters().values()) if name)
        op = WithWeightInputs(op, matrices)
    return op, (*inputs, *computed), parameters + len(weights) - len(computed)


@record
class WithMasks(Op):
    """`op`, of which the last `count` inputs are masks. Neither its output's shape nor its cost depends on them."""

    predicts_memory = False
    gradient_layout = "usual"

    op: Op
    count: int

    def own_inputs(self, inputs: tuple[Shape, ...]) -> tuple[Shape, ...]:
        """The shapes of the inputs of `op`, without the masks."""
        return inputs[: len(inputs) - self.count]

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return _single_step(self.op, output, "masks", self.count)

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        return self.op.backward_macs(self.own_inputs(inputs), output, needed[: len(needed) - self.count], trained)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return self.op.saved_for_backward(self.own_inputs(inputs), output)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        # Every position of the output reads all of each mask.
        reads = self.op.reads(self.own_inputs(inputs), output)
        return reads and (*reads, *({} for _ in range(self.count)))


def _single_step(op: Op, output: Shape, kind: str, inputs: object) -> NormalForm:
    """The op as one step that equals only a step of the same op with the same inputs of this kind."""
    step = op.step(output)
    arguments = (*step.arguments, kind, inputs)
    return NormalForm((replace(step, arguments=arguments, commutes=False, is_pointwise=False, is_monotone=False),))


_OF_INPUTS = (
    *("macs", "other_operations", "whole_input", "backward_macs", "kernel_calls"),
    *("backward_temporaries", "kernel_shape"),
)
"""The methods of an op whose first argument is the shapes of its inputs."""


def _delegate(wrapper: type[Op]) -> None:
    """Give a wrapper the methods, properties and class attributes of its op that it does not define itself."""
    own = {*vars(wrapper), "width_field", "width_axis"}  # its fields are not those of the op
    given: dict[str, object] = {name: _of_own_inputs(name) for name in _OF_INPUTS}
    given["output_shape"] = lambda self, *inputs: self.op.output_shape(*self.own_inputs(inputs))
    given["fitted"] = lambda self, shape: replace(self, op=self.op.fitted(shape))
    given["with_constants"] = lambda self, sources, constants: self.op.with_constants(sources, constants)
    given["torch_call"] = lambda self, count: self.op.torch_call(count)
    given["without_constants"] = property(attrgetter("op.without_constants"))
    given["unwrapped"] = lambda self, inputs: self.op.unwrapped(self.own_inputs(inputs))
    for name in vars(Op):
        if not name.startswith("_") and name not in own:
            setattr(wrapper, name, given.get(name) or property(attrgetter(f"op.{name}")))


def _of_own_inputs(name: str) -> Callable[..., Any]:
    """A method that asks the op about its own inputs."""

    def method(self: Any, inputs: tuple[Shape, ...], *more: object) -> Any:
        return getattr(self.op, name)(self.own_inputs(inputs), *more)

    return method


_delegate(WithConstants)
_delegate(WithComputedWeights)
_delegate(WithMasks)
