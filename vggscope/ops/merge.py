"""Ops that join several tensors."""

from __future__ import annotations

from itertools import accumulate

from vggscope.errors import ShapeError, option
from vggscope.ops.axis_maps import SAME, AxisMaps, Shifted, throughout
from vggscope.ops.base import MAKE_EQUAL, MOVES_VALUES, Op, Shape, TensorArgument, TorchCall
from vggscope.ops.normal_form import NormalForm, join, reshape
from vggscope.record import record
from vggscope.units import kernel_text


@record
class Concatenation(Op):
    """Tensors joined along `dim` (torch.cat), as the channels of two branches."""

    predicts_memory = takes_parameters = True
    other_formula = MOVES_VALUES
    name = "cat"
    gradient = "part"
    gradient_layout = "part"

    dim: int = 0

    def torch_call(self, count: int) -> TorchCall:
        return TorchCall("cat", (tuple(map(TensorArgument, range(count))), self.dim))

    def output_shape(self, *inputs: Shape) -> Shape:
        axis = self.dim % len(inputs[0])
        rests = {(*shape[:axis], *shape[axis + 1 :]) for shape in inputs}
        if len(rests) > 1:
            shapes = " and ".join(map(kernel_text, inputs))
            raise ShapeError(
                f"tensors that differ in more than axis {self.dim} cannot be joined there: {shapes}",
                MAKE_EQUAL.format(option("input_size")),
            )
        return (*inputs[0][:axis], sum(shape[axis] for shape in inputs), *inputs[0][axis + 1 :])

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        places = tuple(range(len(inputs)))
        if any(len(shape) != len(output) for shape in inputs):
            return super().normal_form(inputs, output, numbers)
        proof = "the pieces are joined again in the order in which they were cut"
        return NormalForm((join(self.dim % len(output), output, places),), proof)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        axis = self.dim % len(output)
        starts = accumulate((shape[axis] for shape in inputs), initial=0)
        return tuple({**throughout(shape, set()), axis: (axis, Shifted(start))} for shape, start in zip(inputs, starts))


@record
class Stack(Op):
    """Tensors of one shape along a new axis `dim`."""

    predicts_memory = True
    other_formula = MOVES_VALUES
    name = "stack"
    gradient = "part"
    gradient_layout = "part along an axis"

    dim: int = 0

    def torch_call(self, count: int) -> TorchCall:
        return TorchCall("stack", (tuple(map(TensorArgument, range(count))), self.dim))

    def output_shape(self, *inputs: Shape) -> Shape:
        if len(set(inputs)) > 1:
            raise ShapeError(f"only equal shapes can be stacked: {' and '.join(map(kernel_text, inputs))}")
        axis = self.dim % (len(inputs[0]) + 1)
        return (*inputs[0][:axis], len(inputs), *inputs[0][axis:])

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        axis = self.dim % len(output)
        one = (*output[:axis], 1, *output[axis + 1 :])
        count = len(inputs)
        parts = (reshape(one, place) for place in range(count))
        return NormalForm((*parts, join(axis, output, tuple(range(count, 2 * count)))))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        new = self.dim % len(output)
        return tuple({axis: (axis + (axis >= new), SAME) for axis in range(len(shape))} for shape in inputs)
