"""Nonlinearities: each output value depends on the input value at its position. A soft-max reads all along an axis."""

from __future__ import annotations

from dataclasses import field, replace
from math import inf
from typing import ClassVar

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import AxisMaps, Ranges, throughout
from vggscope.ops.base import Op, SavedTensors, Shape, numel
from vggscope.ops.normal_form import (
    IDENTITY,
    NormalForm,
    PrimitiveStep,
    add_number,
    clip,
    multiply,
    product,
    reshape,
    slopes,
)
from vggscope.record import record
from vggscope.units import shape_text


@record
class Activation(Op):
    """A function of each value. `keeps` is what autograd saves for backward, the `input` or the `output`."""

    predicts_memory = True
    is_pointwise = True
    exchanges: ClassVar[tuple[tuple[str, float], ...]] = (("activation", 2.5),)
    keeps: ClassVar[str] = "input"

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(output=True) if self.keeps == "output" else SavedTensors(inputs=(0,))


@record
class Overwriting(Activation):
    """A function of each value that can overwrite its input.

    `keeps_in_place` is what autograd saves then: the `output`, or a `copy` of the input.
    """

    keeps_in_place: ClassVar[str] = "output"

    inplace: bool = field(default=False, kw_only=True)

    @property
    def allocates(self) -> bool:
        return not self.inplace

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        if self.inplace:
            return SavedTensors(output=True) if self.keeps_in_place == "output" else SavedTensors(copies=(output,))
        return super().saved_for_backward(inputs, output)


@record
class ReLU(Overwriting):
    """max(0, x). Autograd saves the output, in place or not."""

    label_prefix = "relu"
    other_formula = "comparison: 1 a value"
    per_value = 1
    follows_a_layer = True
    is_monotone = True
    is_idempotent = True
    keeps = "output"
    gradient_layout = "elementwise of the output"

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return NormalForm((clip(0, inf, output),))


@record
class ReLU6(Overwriting):
    """min(max(0, x), 6)."""

    other_formula = "comparisons: 2 a value"
    per_value = 2
    is_monotone = True
    is_idempotent = True
    keeps_in_place = "copy"

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return NormalForm((clip(0, 6, output),), "ReLU6 is min(max(x, 0), 6)")


@record
class Hardtanh(Overwriting):
    """x, clamped to the range from `min_val` to `max_val`."""

    other_formula = "comparisons: 2 a value"
    per_value = 2
    is_monotone = True
    keeps_in_place = "copy"

    min_val: float = -1.0
    max_val: float = 1.0

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        proof = f"Hardtanh is min(max(x, {self.min_val:g}), {self.max_val:g})"
        return NormalForm((clip(self.min_val, self.max_val, output),), proof)


@record
class LeakyReLU(Overwriting):
    """x if x is positive, else `negative_slope` x."""

    other_formula = "comparison, product: 2 a value"
    per_value = 2

    negative_slope: float = 0.01

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        if self.negative_slope == 0:
            return NormalForm((clip(0, inf, output),), "LeakyReLU with slope 0 is max(x, 0), a ReLU")
        if self.negative_slope == 1:
            return replace(IDENTITY, proof="LeakyReLU with slope 1 returns its input")
        return NormalForm((slopes(self.negative_slope, 1, output),))


@record
class ELU(Overwriting):
    """x if x is positive, else alpha (exp(x) - 1)."""

    other_formula = "comparison, exp, -1, product: 4 a value"
    per_value = 4

    alpha: float = 1.0


@record
class SELU(Overwriting):
    """ELU with the scale and the alpha that keep mean and variance (Klambauer et al. 2017)."""

    other_formula = "comparison, exp, -1, two products: 5 a value"
    per_value = 5
    is_monotone = True


@record
class SiLU(Overwriting):
    """x sigmoid(x), also called swish."""

    other_formula = "sigmoid, product: 5 a value"
    per_value = 5
    keeps_in_place = "copy"
    gradient_layout = "elementwise"

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return NormalForm((Sigmoid().step(output, 0), product(output, (0, 1))), "SiLU is x * sigmoid(x)")


@record
class Mish(Overwriting):
    """x tanh(softplus(x))."""

    other_formula = "exp, +1, log, tanh, product: 5 a value"
    per_value = 5
    keeps_in_place = "copy"

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        steps = (Softplus().step(output, 0), Tanh().step(output, 1), product(output, (0, 2)))
        return NormalForm(steps, "Mish is x * tanh(softplus(x))")


@record
class Hardswish(Overwriting):
    """x ReLU6(x+3)/6, a piecewise approximation of SiLU."""

    other_formula = "+3, two comparisons, product, division: 5 a value"
    per_value = 5
    keeps_in_place = "copy"

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        steps = (*_hard_sigmoid(output), product(output, (0, 3)))
        return NormalForm(steps, "Hardswish is x * min(max(x + 3, 0), 6) / 6")


@record
class Hardsigmoid(Overwriting):
    """ReLU6(x+3)/6, a piecewise linear approximation of the sigmoid."""

    other_formula = "+3, two comparisons, division: 4 a value"
    per_value = 4
    is_monotone = True
    keeps_in_place = "copy"

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return NormalForm(_hard_sigmoid(output), "Hardsigmoid is min(max(x + 3, 0), 6) / 6")


def _hard_sigmoid(shape: Shape) -> tuple[PrimitiveStep, ...]:
    return add_number(3, shape), clip(0, 6, shape, 1), multiply(1 / 6, shape, 2)


@record
class GELU(Activation):
    """x times the normal distribution's cumulative share at x; `approximate` is `none` or `tanh`."""

    other_formula = "division, erf, +1, two products: 5 a value; as tanh 9"
    gradient_layout = "elementwise"

    approximate: str = "none"

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return (5 if self.approximate == "none" else 9) * numel(output)


@record
class Softplus(Activation):
    """log(1 + exp(beta x))/beta, linear above `threshold`."""

    other_formula = "product, exp, +1, log, division: 5 a value"
    per_value = 5
    is_monotone = True

    beta: float = 1.0
    threshold: float = 20.0


@record
class Sigmoid(Activation):
    """1/(1+exp(-x)), between 0 and 1. Autograd saves the output."""

    label_prefix = "sigmoid"
    other_formula = "sign, exp, +1, division: 4 a value"
    per_value = 4
    is_monotone = True
    keeps = "output"
    gradient_layout = "elementwise"


@record
class Tanh(Activation):
    """The hyperbolic tangent, between -1 and 1. Autograd saves the output."""

    other_formula = "tanh: 1 a value"
    per_value = 1
    is_monotone = True
    keeps = "output"


@record
class Softmax(Activation):
    """exp(x) divided by its sum along `dim`. Autograd saves the output."""

    word = "soft-max"
    label_prefix = "prob"
    notation = "softmax"
    other_formula = "a row of n: n-1 comparisons, n differences, n exp, n-1 sums, n divisions: 5n-2"
    exchanges = ()
    is_pointwise = False
    keeps = "output"
    gradient_layout = "contiguous"

    dim: int

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (throughout(output, {self.dim % len(output)}),)

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        if not output:
            return super().normal_form(inputs, output, numbers)
        axis = self.dim % len(output)
        rows = (numel(output[:axis]), output[axis], numel(output[axis + 1 :]))
        return NormalForm((reshape(rows), self.step(rows, 1, dim=1), reshape(output, 2)))

    def _rows(self, output: Shape) -> int:
        """The number of rows along `dim`."""
        return numel(output) // max(output[self.dim], 1)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return self._rows(output) * (5 * output[self.dim] - 2)


@record
class LogSoftmax(Softmax):
    """The logarithm of the soft-max along `dim`. Autograd saves the output."""

    word = label_prefix = notation = ""
    other_formula = "a row of n: n-1 comparisons, n differences, n exp, n-1 sums, a log, n differences: 5n-1"

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return self._rows(output) * (5 * output[self.dim] - 1)


@record
class PReLU(Activation):
    """x if x is positive, else a learned slope times x: one slope, or one per channel."""

    other_formula = "comparison, product: 2 a value"
    per_value = 2
    is_pointwise = False

    num_parameters: int = 1

    @property
    def sums_gradients(self) -> bool:
        return True

    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_parameters,)}

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        if len(numbers) == 1 and numbers[0] is not None:
            return NormalForm((slopes(numbers[0], 1, output),), "PReLU with a constant slope is a LeakyReLU")
        return super().normal_form(inputs, output, numbers)


@record
class GLU(Activation):
    """The first half along `dim` times the sigmoid of the second."""

    other_formula = "sigmoid, product: 5 a value"
    per_value = 5
    exchanges = ()
    is_pointwise = False

    dim: int = -1

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        axis = self.dim % len(shape)
        if shape[axis] % 2:
            raise ShapeError(f"axis {self.dim} is cut in halves, the input is {shape_text(shape)}")
        return (*shape[:axis], shape[axis] // 2, *shape[axis + 1 :])

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        axis = self.dim % len(output)
        halves = Ranges(tuple((i, i + output[axis] + 1) for i in range(output[axis])))
        return ({**throughout(output, set()), axis: (axis, halves)},)
