"""The fully connected layer."""

from __future__ import annotations

from typing import ClassVar

from vggscope.errors import ShapeError
from vggscope.ops.base import Kept, Op, Shape, numel
from vggscope.ops.reading import Reads, without
from vggscope.record import record
from vggscope.units import count_text, shape_text


@record
class Linear(Op):
    """Inner products of the input with `out_features` rows of weights: <w, x> + b."""

    width_field: ClassVar[str] = "in_features"
    width_axis: ClassVar[int] = -1

    in_features: int
    out_features: int
    bias: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if shape[-1] != self.in_features:
            met = f"{count_text(shape[-1])}: {shape_text(shape)}" if len(shape) > 2 else count_text(shape[-1])
            raise ShapeError(f"{count_text(self.in_features)} features are expected, the input has {met}")
        return (*shape[:-1], self.out_features)

    def parameters(self) -> dict[str, Shape]:
        weight = (self.out_features, self.in_features)
        return {"weight": weight, "bias": (self.out_features,)} if self.bias else {"weight": weight}

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output) * self.in_features

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        return Kept(inputs=(0,))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[Reads, ...]:
        return (without(inputs[0], {len(inputs[0]) - 1}),)
