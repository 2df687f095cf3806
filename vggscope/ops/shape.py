"""Flatten: several dimensions as one. The other views are in view.py."""

from __future__ import annotations

from dataclasses import field

from vggscope.ops.axis_maps import AxisMaps, reshaped
from vggscope.ops.base import LAYOUT_EXCHANGES, MOVES_VALUES, Op, Shape, TorchCall, call_of, numel
from vggscope.ops.normal_form import NormalForm, reshape
from vggscope.record import record


@record
class Flatten(Op):
    """Dimensions `start_dim` to `end_dim` as one: CxHxW becomes a row of C*H*W features, channel by channel.

    `shares`: the output uses the memory of its input, whose layout allows a view.
    """

    predicts_memory = True
    word = "flatten"
    other_formula = MOVES_VALUES
    alignment_cost = 0.5
    exchanges = LAYOUT_EXCHANGES
    is_affine = is_layout = True
    gradient = "same"
    gradient_layout = "reshaped"
    notes = frozenset({"shares"})

    start_dim: int = 1
    end_dim: int = -1
    shares: bool = field(default=True, kw_only=True, compare=False, repr=False)

    @property
    def allocates(self) -> bool:
        return not self.shares

    @property
    def needs_layout(self) -> bool:
        return not self.shares

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        return ("view",)

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
