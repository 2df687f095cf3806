"""Ops without a rule for the output shape: it was recorded when they ran."""

from __future__ import annotations

import re
from dataclasses import field
from operator import ge
from typing import Any

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import AxisMaps, pointwise, reshaped, tiled
from vggscope.ops.base import NOTHING, Op, SavedTensors, Shape
from vggscope.ops.embedding import Lookup
from vggscope.ops.normal_form import NormalForm, PrimitiveStep, choose, cut, fill, reshape
from vggscope.record import record
from vggscope.units import shape_text

READS_NO_VALUES = frozenset(
    {
        *("zeros_like", "ones_like", "empty_like", "full_like", "rand_like", "randn_like"),
        *("new_zeros", "new_ones", "new_empty", "new_full"),
    }
)
"""Functions that take only the shape and the dtype of their input."""


_FILLED_WITH = {"zeros_like": 0.0, "new_zeros": 0.0, "ones_like": 1.0, "new_ones": 1.0}
"""The functions whose result holds one number everywhere, with that number."""

_NUMBER = re.compile(r"-?\d+")
_AXES = re.compile(r"(?:dims=)?[(\[]?-?\d+(?:, -?\d+)*,?[)\]]?")
_VIEW_PART = r"(slice\((None|-?\d+), (None|-?\d+), (None|-?\d+)\)|-?\d+|Ellipsis)"
_VIEW_INDEX = re.compile(rf"\(?{_VIEW_PART}(, {_VIEW_PART})*,?\)?")
_LISTED = re.compile(r"\((?P<before>(?:slice\(None, None, None\), )*)\[(?P<places>\d+(?:, \d+)*)\],?\)")
"""The texts of a flip's axes, and of an index: that of a view, and full slices with a list."""

RANDOM = frozenset(
    {
        *("rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson", "uniform", "random"),
        *("rand_like", "randn_like", "randint_like", "exponential", "cauchy", "geometric", "log_normal"),
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"),
        *("feature_alpha_dropout", "rrelu", "gumbel_softmax", "fractional_max_pool3d"),
        *("empty", "empty_like", "new_empty", "empty_strided"),
    }
)
"""Functions whose result differs from call to call, those that return memory as it was among them."""


def _not_compared(default: Any) -> Any:
    """Return a field of an op that is no argument of its function."""
    return field(default=default, kw_only=True, compare=False, repr=False)


PRE_HOOK = "forward_pre_hook"
"""The function of a row that stands for all that a forward pre-hook computes."""


def is_pre_hook(op: Op) -> bool:
    """Return whether an op stands for what a forward pre-hook computes."""
    return isinstance(op, Recorded) and op.function == PRE_HOOK


@record
class Recorded(Op):
    """A torch function, with the shapes of its inputs and of its output when it ran.

    For inputs of other shapes its output shape is not known. `cost` is its multiply-accumulates by torch's counter,
    `backward_cost` those of its backward pass to the inputs `differentiated`, or to any if that is None. `trains`: it
    reads a parameter that is trained. `shares`: the output uses the first input's memory. `differentiable`: the output
    can have a gradient. `looks_up`: it is `x[:, index]` for a tensor of integers. `arguments_given` are the call's
    arguments in order, with None for a tensor; None if they are not known.
    """

    is_recorded = True
    notes = frozenset({"shares", "cost", "recorded_inputs"})

    function: str
    recorded_inputs: tuple[Shape, ...]
    recorded_output: Shape
    shares: bool = False
    cost: int = 0
    backward_cost: int | None = _not_compared(0)
    differentiated: tuple[bool, ...] | None = _not_compared(None)
    trains: bool = _not_compared(False)
    differentiable: bool = _not_compared(True)
    looks_up: bool = _not_compared(False)
    arguments_given: tuple[object, ...] | None = field(default=None, kw_only=True, repr=False)

    @property
    def is_determined(self) -> bool:
        return self.arguments_given is not None

    @property
    def is_random(self) -> bool:  # type: ignore[override]
        return self.function in RANDOM

    @property
    def name(self) -> str:
        return self.function

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        number = _FILLED_WITH.get(self.function)
        if number is not None and self.is_determined:
            return NormalForm((fill(number, output),))
        cuts = self._reversals(output) if self.is_determined else None
        if cuts is not None and inputs == (output,):
            return NormalForm(cuts, "it reverses the order along an axis")
        if self.function in ("view_as", "reshape_as"):
            return NormalForm((reshape(output),))
        value = self.arguments_given[2] if self._sets_masked and self.arguments_given else None
        if inputs == (output, output) and isinstance(value, (int, float)) and not isinstance(value, bool):
            return NormalForm((fill(value, output), choose(output, (1, 2, 0))))
        return super().normal_form(inputs, output, numbers)

    def _reversals(self, shape: Shape) -> tuple[PrimitiveStep, ...] | None:
        """The steps of a flip, and of an index such as x[:, [2, 1, 0]]; None for any other call."""
        first, *others = self.arguments_given or (None,)
        text = ", ".join(map(str, others))
        axes: list[int] = []
        if self.function == "flip" and _AXES.fullmatch(text):
            axes = [int(axis) % len(shape) for axis in _NUMBER.findall(text)]
        index = _LISTED.fullmatch(text) if self.function == "getitem" else None
        if index is not None and first is None:
            axis = index["before"].count("slice")
            places = tuple(map(int, _NUMBER.findall(index["places"])))
            axes = [axis] if axis < len(shape) and places == tuple(reversed(range(shape[axis]))) else []
        cuts = (cut(axis, shape[axis] - 1, -1, -1, shape, number) for number, axis in enumerate(axes))
        return tuple(cuts) if axes and len(set(axes)) == len(axes) else None

    @property
    def _sets_masked(self) -> bool:
        """Whether it sets the values under a mask to a number, as `x[mask] = 0`."""
        given = self.arguments_given
        return self.function == "setitem" and given is not None and given[:2] == (None, None) and len(given) == 3

    @property
    def selects(self) -> bool:  # type: ignore[override]
        return self._sets_masked

    @property
    def predicts_memory(self) -> bool:
        return self.function in READS_NO_VALUES or self.looks_up

    @property
    def gradient_layout(self) -> str:  # type: ignore[override]
        return Lookup.gradient_layout if self.looks_up else super().gradient_layout

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        return Lookup().input_gradients(inputs, output) if self.looks_up else super().input_gradients(inputs, output)

    @property
    def predicts_without_gradient(self) -> bool:
        return self.predicts_memory or self._sets_number

    @property
    def _sets_number(self) -> bool:
        """Whether it sets the values of a view to a number, as `x[:, 1:] = 0`."""
        given = self.arguments_given
        if self.function != "setitem" or given is None or len(given) != 3 or given[0] is not None:
            return False
        is_number = isinstance(given[2], (int, float)) and not isinstance(given[2], bool)
        return is_number and bool(_VIEW_INDEX.fullmatch(str(given[1])))

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        if self._sets_number:
            return SavedTensors(passing=((),))  # the number as a tensor
        return Lookup().saved_for_backward(inputs, output) if self.looks_up else NOTHING

    @property
    def differentiates(self) -> bool:  # type: ignore[override]
        return self.function in ("grad", "backward")

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        if self.function in READS_NO_VALUES:
            return ()
        if self.function in ("reshape_as", "view_as"):
            return (reshaped(inputs[0], output),)
        if self.function in ("expand_as", "broadcast_to"):
            return (pointwise(inputs[0], output),)
        return (tiled(inputs[0], output),) if self.function in ("repeat", "tile") else None

    @property
    def counted_by(self) -> str:
        return "torch" if self.cost else "rule"

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        return self.cost

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        if not (any(needed) or trained or self.trains):
            return 0
        if self.differentiated is None:
            return self.backward_cost
        covered = len(needed) == len(self.differentiated) and all(map(ge, self.differentiated, needed))
        return self.backward_cost if covered and (self.backward_cost == 0 or needed == self.differentiated) else None

    @property
    def gradient(self) -> str:
        return "new" if self.differentiable else "none"

    @property
    def allocates(self) -> bool:
        return not self.shares

    def output_shape(self, *inputs: Shape) -> Shape:
        if inputs != self.recorded_inputs:
            then, now = (" and ".join(map(shape_text, shapes)) for shapes in (self.recorded_inputs, inputs))
            raise ShapeError(f"{self.function} was traced on {then}, its output for {now} is not known")
        return self.recorded_output


@record
class Registered(Recorded):
    """A module or an operator whose cost the user states, and what autograd saves of it unless `keeps` is None.

    `weights` are its parameters. It stands for what forward computes, which a diff does not know.
    """

    keeps: SavedTensors | None = _not_compared(None)
    weights: tuple[tuple[str, Shape], ...] = _not_compared(())

    @property
    def counted_by(self) -> str:
        return "register_op"

    @property
    def predicts_memory(self) -> bool:
        return self.keeps is not None

    def parameters(self) -> dict[str, Shape]:
        return dict(self.weights)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return NOTHING if self.keeps is None else self.keeps


@record
class Unknown(Recorded):
    """A function or a module without a rule: its shapes are recorded, its MACs are not known."""

    is_unknown = True

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int | None:
        return None

    def backward_macs(
        self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool
    ) -> int | None:
        has_gradient = self.differentiable and (any(needed) or trained or self.trains)
        return None if has_gradient else 0


@record
class Uncounted(Unknown):
    """A layer without a rule in a file that does not tell its parameters either."""

    hides_parameters = True


@record
class CallResult(Op):
    """A second or later result of a call that returns several tensors, such as the indices of `topk`."""

    function: str
    position: int
    shape: Shape

    @property
    def further_result(self) -> int:  # type: ignore[override]
        return self.position

    @property
    def name(self) -> str:
        return self.function

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> None:
        return None

    def output_shape(self, *inputs: Shape) -> Shape:
        return self.shape
