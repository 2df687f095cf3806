"""Flatten: several dimensions as one, in the same memory. The other views are in view.py."""

from __future__ import annotations

from vggscope.ops.axis_maps import AxisMaps, reshaped
from vggscope.ops.base import LAYOUT_EXCHANGES, MOVES_VALUES, Op, Shape, TorchCall, call_of, numel
from vggscope.ops.normal_form import NormalForm, reshape
from vggscope.record import record


@record
class Flatten(Op):
    """Dimensions `start_dim` to `end_dim` as one: CxHxW becomes a row of C*H*W features, channel by channel."""

    predicts_memory = True
    word = "flatten"
    other_formula = MOVES_VALUES
    alignment_cost = 0.5
    exchanges = LAYOUT_EXCHANGES
    is_affine = is_layout = True
    gradient = "same"
    allocates = False
    gradient_layout = "reshaped"

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        return ("view",)

    start_dim: int = 1
    end_dim: int = -1

    def torch_call(self, count: int) -> TorchCall:
        return call_of("flatten", self.start_dim, self.end_dim)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        start, end = self.start_dim % len(shape), self.end_dim % len(shape)
        return (*shape[:start], numel(shape[start : end + 1]), *shape[end + 1 :])

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        return NormalForm((reshape(output),))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (reshaped(inputs[0], output),)
