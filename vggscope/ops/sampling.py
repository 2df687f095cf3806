"""Resampling of a map to another resolution."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from math import ceil, floor

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import SAME, AxisMaps, Ranges
from vggscope.ops.base import Op, Shape, TorchCall, call_of, numel
from vggscope.ops.normal_form import IDENTITY, NormalForm
from vggscope.record import record
from vggscope.units import kernel_text, shape_text

_VALUES_READ = {"linear": 2, "bilinear": 4, "trilinear": 8, "bicubic": 16}
"""The input values that each output value is a weighted sum of; one in the other modes."""


@record
class Upsample(Op):
    """The input interpolated to `size`, one number for each side, or to `scale_factor` times its own, rounded down."""

    other_formula = (
        "linear: 2 products and a sum a value; bilinear: 4 and 3; trilinear: 8 and 7; bicubic: 16 and 15; nearest: none"
    )

    size: tuple[int, ...] | None = None
    scale_factor: tuple[float, ...] | None = None
    mode: str = "nearest"
    align_corners: bool | None = None
    recompute_scale_factor: bool | None = None
    antialias: bool = False

    def torch_call(self, count: int) -> TorchCall:
        return call_of(
            "interpolate",
            self.size,
            self.scale_factor,
            self.mode,
            self.align_corners,
            self.recompute_scale_factor,
            antialias=self.antialias,
        )

    @property
    def predicts_memory(self) -> bool:
        # torch takes an area for an adaptive pool.
        return self.mode != "area"

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        have, made = inputs[0][2:], output[2:]
        scale = None if self.recompute_scale_factor else self.scale_factor
        is_exact = scale is None or all(size * times == end for size, times, end in zip(have, scale, made))
        if is_exact and have == made and not self.antialias:
            return replace(IDENTITY, proof=f"its input has that size already: {kernel_text(have)}")
        step = self.step(
            output,
            0,
            scale=None if is_exact else scale,
            mode=self.mode,
            align_corners=bool(self.align_corners),
            antialias=self.antialias,
        )
        return NormalForm((step,))

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        scale = self.scale_factor or (1.0,) * len(shape[2:])
        sides = len(self.size or scale)
        if sides != len(shape) - 2:
            raise ShapeError(f"an input of {shape_text(shape)} has no {sides} sides to resize")
        size = self.size or tuple(int(have * times) for have, times in zip(shape[2:], scale))
        return (*shape[:2], *size)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        read = _VALUES_READ.get(self.mode, 1)
        return (2 * read - 1) * numel(output) if read > 1 else 0

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        (shape,) = inputs
        if self.scale_factor and any(
            have * scale != made for have, scale, made in zip(shape[2:], self.scale_factor, output[2:])
        ):
            return None  # torch uses the factor as it was passed, which does not fit the sizes
        sides = {axis: (axis, self._regions(shape[axis], output[axis])) for axis in range(2, len(shape))}
        return ({0: (0, SAME), 1: (1, SAME), **sides},)

    def _regions(self, have: int, made: int) -> Ranges:
        """The positions of an axis of `have` from which each of `made` positions is interpolated."""
        aside = 1 if self.mode == "bicubic" else 0
        bounds = []
        for i in range(made):
            place = self._place(i, have, made)
            last = floor(place) if self.mode.startswith("nearest") else ceil(place)
            bounds.append((max(floor(place) - aside, 0), min(last + aside, have - 1) + 1))
        return Ranges(tuple(bounds))

    def _place(self, i: int, have: int, made: int) -> Fraction:
        if self.mode == "nearest":
            return Fraction(i * have, made)
        if self.align_corners:
            return Fraction(i * (have - 1), max(made - 1, 1))
        middle = Fraction((2 * i + 1) * have, 2 * made)
        return middle if self.mode == "nearest-exact" else max(middle - Fraction(1, 2), Fraction(0))
