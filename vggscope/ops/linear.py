"""The fully connected layer."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from vggscope.errors import ShapeError, option
from vggscope.ops.axis_maps import SAME, AxisMaps, without
from vggscope.ops.base import Op, SavedTensors, Shape, TensorArgument, TorchCall, numel
from vggscope.ops.normal_form import NormalForm, bias, linear, reshape
from vggscope.record import record
from vggscope.units import count_text, kernel_text, shape_text


@record
class Linear(Op):
    """Inner products of the input with `out_features` rows of weights: <w, x> + b.

    `apart`: the input is not contiguous, so that torch adds the bias in a separate kernel. `copied`: torch copies the
    input first.
    """

    width_field: ClassVar[str] = "in_features"
    width_axis: ClassVar[int] = -1
    label_prefix = notation = "fc"
    other_formula = "bias: 1 a value"
    alignment_cost = 4.0
    is_weight_layer = True
    gradient_layout = "product of rows"

    in_features: int
    out_features: int
    bias: bool = True
    copied: bool = field(default=False, kw_only=True, compare=False, repr=False)
    apart: bool = field(default=False, kw_only=True, compare=False, repr=False)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if shape[-1] != self.in_features:
            met = f"{count_text(shape[-1])}: {shape_text(shape)}" if len(shape) > 2 else count_text(shape[-1])
            raise ShapeError(
                f"{count_text(self.in_features)} features are expected, the input has {met}",
                f"in_features of {count_text(shape[-1])} would fit, or {option('input_size')} gives another size",
            )
        return (*shape[:-1], self.out_features)

    def parameters(self) -> dict[str, Shape]:
        weight = (self.out_features, self.in_features)
        return {"weight": weight, "bias": (self.out_features,)} if self.bias else {"weight": weight}

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output) * self.in_features

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output) * self.bias

    def whole_input(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return inputs[0][-1] if inputs[0] else 0

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        rows = numel(output[:-1])
        biases = (bias(1, (rows, self.out_features), 2),) if self.bias else ()
        steps = (reshape((rows, self.in_features)), linear(rows, self.out_features, 1), *biases)
        return NormalForm((*steps, reshape(output, len(steps))))

    predicts_memory = True

    @property
    def needs_layout(self) -> bool:
        return self.apart or self.copied

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        # The rows of more than two axes are multiplied as a matrix, which is a view of them.
        return ("new view" if len(output) > 2 else "new",)

    def kernel_shape(self, inputs: tuple[Shape, ...], output: Shape) -> Shape | None:
        is_product_of_rows = self.bias and not self.apart and len(output) > 2
        return (numel(output[:-1]), output[-1]) if is_product_of_rows else None

    @property
    def adds_bias_separately(self) -> bool:
        return self.apart and self.bias

    @property
    def saves_weight_by_need(self) -> bool:
        return True

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(extra=((inputs[0], None),)) if self.copied else SavedTensors(inputs=(0,))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (without(inputs[0], {len(inputs[0]) - 1}),)


@record
class Bilinear(Op):
    """x1^T W x2 for each row of x1 and x2 and each output feature, plus a bias. Its inputs are x1, x2, W and the bias.

    A MAC is counted for each weight and row.
    """

    name = "bilinear"
    other_formula = "bias: 1 a value"

    def torch_call(self, count: int) -> TorchCall:
        return TorchCall("bilinear", tuple(map(TensorArgument, range(count))))

    def output_shape(self, *inputs: Shape) -> Shape:
        left, right, weight = inputs[:3]
        if left[:-1] != right[:-1] or (left[-1], right[-1]) != weight[1:]:
            raise ShapeError(
                f"weights of {kernel_text(weight)} do not fit {kernel_text(left)} and {kernel_text(right)}"
            )
        return (*left[:-1], weight[0])

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output[:-1]) * numel(inputs[2])

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output) * (len(inputs) > 3)

    def backward_macs(self, inputs: tuple[Shape, ...], output: Shape, needed: tuple[bool, ...], trained: bool) -> int:
        return self.macs(inputs, output) * sum(needed[:3])

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0, 1, 2))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        axis = len(output) - 1
        rows = tuple(without(shape, {axis}) for shape in inputs[:2])
        return (*rows, {0: (axis, SAME)}, *({0: (axis, SAME)} for _ in inputs[3:]))
