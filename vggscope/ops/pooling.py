"""Pooling: the maximum, mean or norm of each window, at a fixed stride or for a fixed output size."""

from __future__ import annotations

from dataclasses import replace
from math import prod
from typing import ClassVar

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import SAME, AxisMaps, Ranges, StridedWindow
from vggscope.ops.base import NOTHING, KernelCall, Op, SavedTensors, Shape, Window, numel
from vggscope.ops.normal_form import (
    IDENTITY,
    MAX_POOL,
    MEAN_POOL,
    NormalForm,
    PrimitiveStep,
    pad,
    padded_shape,
    padding_of,
)
from vggscope.record import record
from vggscope.units import kernel_text, shape_text


@record
class _Pool(Op):
    """A function of each window over the last `sides` axes."""

    label_prefix = "pool"
    alignment_cost = 3.0
    exchanges = (("window", 2.5), ("pooling", 3.0))
    sides: ClassVar[int] = 2

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        size = shape[-self.sides :]
        window = self.window(size)
        assert window is not None
        return (*_channels(shape, self.sides), *window.output_size(size))


@record
class _MaxOrMeanPool(_Pool):
    """The maximum or mean of each window, which is the input if each window is one pixel."""

    predicts_memory = True

    def kernel_shape(self, inputs: tuple[Shape, ...], output: Shape) -> Shape | None:
        return (*output[:-1], 1, output[-1]) if self.sides == 1 else None  # maps of one row

    @property
    def returns_input(self) -> bool:
        window = self.window(())
        return window is not None and window.is_one_value


@record
class MaxPool2d(_MaxOrMeanPool):
    """The maximum of each window. Autograd saves the input and an int64 index for each output."""

    word = "max pool"
    notation = "maxpool"
    other_formula = "n in the window: n-1 comparisons a value"
    takes_maximum = True
    gradient_layout = "pooled"

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    ceil_mode: bool = False

    def window(self, size: tuple[int, ...]) -> Window:
        return Window(self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return (numel(self.kernel_size) - 1) * numel(output)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,), extra=((output, 8),))

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        if self.returns_input:
            return IDENTITY
        return NormalForm((maximum_of_windows(self.window(()), inputs[0], output),))


@record
class MaxPool1d(MaxPool2d):
    """The maximum of each window of a sequence."""

    sides = 1
    label_prefix = notation = ""

    padding: tuple[int, ...] = (0,)
    dilation: tuple[int, ...] = (1,)


@record
class MaxPool3d(MaxPool2d):
    """The maximum of each window of a volume."""

    sides = 3
    label_prefix = notation = ""

    padding: tuple[int, ...] = (0, 0, 0)
    dilation: tuple[int, ...] = (1, 1, 1)


@record
class AvgPool2d(_MaxOrMeanPool):
    """The mean of each window."""

    word = "avg pool"
    notation = "avgpool"
    other_formula = "n in the window: n-1 sums and a division a value"
    takes_mean = True
    gradient_layout = "pooled"

    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...] = (0, 0)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None

    def window(self, size: tuple[int, ...]) -> Window:
        return Window(self.kernel_size, self.stride, self.padding, (1,) * self.sides, self.ceil_mode)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(self.kernel_size) * numel(output)

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        shape, window = inputs[0], self.window(())
        if self.returns_input and self.divisor_override in (None, 1):
            return IDENTITY
        sides = list(zip(shape[-self.sides :], output[-self.sides :], window.span, window.stride, window.padding))
        over = [(made - 1) * step + span - have - padding for have, made, span, step, padding in sides]
        is_full = all(more <= padding for more, padding in zip(over, window.padding))
        if not is_full or (any(self.padding) and not self.count_include_pad):
            return super().normal_form(inputs, output, numbers)
        amounts = padding_of(len(shape), tuple((p, max(more, 0)) for p, more in zip(window.padding, over)))
        padding_step = pad(amounts, padded_shape(shape, amounts), "constant", 0.0)
        return NormalForm((padding_step, mean_of_windows(window, output, 1, self.divisor_override)))

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,))


@record
class AvgPool1d(AvgPool2d):
    """The mean of each window of a sequence."""

    sides = 1
    label_prefix = notation = ""

    padding: tuple[int, ...] = (0,)


@record
class AvgPool3d(AvgPool2d):
    """The mean of each window of a volume."""

    sides = 3
    label_prefix = notation = ""

    padding: tuple[int, ...] = (0, 0, 0)


@record
class AdaptiveAvgPool2d(Op):
    """The mean of regions of the input, one for each position of an output of `output_size`.

    Output i covers the inputs from floor(i*in/out) to ceil((i+1)*in/out)-1, as in torch. For in = out it is the
    identity, for in < out it repeats values.
    """

    predicts_memory = True
    sides: ClassVar[int] = 2
    word = "avg pool"
    other_formula = "n in the region: n-1 sums and a division a value"
    alignment_cost = 1.5
    exchanges = (("adaptive", 1.25), ("pooling", 3.0))
    is_adaptive = True
    takes_mean = True
    gradient_layout = "averaged"

    output_size: tuple[int | None, ...]

    def kernel_shape(self, inputs: tuple[Shape, ...], output: Shape) -> Shape | None:
        return (*output[:-1], 1, output[-1]) if self.sides == 1 else None  # maps of one row

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        return (*_channels(shape, self.sides), *self.output_sides(shape[-self.sides :]))

    def output_sides(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The output's size along each side. None in `output_size` means the input's."""
        return tuple(have if want is None else want for want, have in zip(self.output_size, size))

    def is_identity(self, size: tuple[int, ...]) -> bool:
        return self.output_sides(size) == size

    def is_regular(self, size: tuple[int, ...]) -> bool:
        # If not, `window` gives the largest region.
        return all(isinstance(_region(have, want), StridedWindow) for have, want in zip(size, self.output_sides(size)))

    def arguments(self) -> dict[str, object]:
        # People write both sides here, and torch prints the argument as it was passed.
        return {"output_size": self.output_size}

    def window(self, size: tuple[int, ...]) -> Window:
        sides = self.output_sides(size)
        regions = tuple(max(-(-(i + 1) * w // out) - i * w // out for i in range(out)) for w, out in zip(size, sides))
        return Window(regions, tuple(w // out for w, out in zip(size, sides)), (0,) * self.sides, (1,) * self.sides)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        (shape,) = inputs
        first = len(shape) - self.sides
        sides = {axis: (axis, _region(shape[axis], output[axis])) for axis in range(first, len(shape))}
        return ({**{axis: (axis, SAME) for axis in range(first)}, **sides},)

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        size = inputs[0][-self.sides :]
        if self.is_identity(size):
            return replace(IDENTITY, proof=f"its input has that size already: {kernel_text(size)}")
        window = self.window(size)
        if not self.is_regular(size):
            return NormalForm((self.step(output, 0, size=output[-self.sides :]),))
        steps = f", stride {kernel_text(window.stride)}" if set(output[-self.sides :]) != {1} else ""
        kind = "mean" if self.takes_mean else "maximum"
        proof = f"at this size it is the {kind} of {kernel_text(window.kernel_size)} windows{steps}"
        if self.takes_mean:
            return NormalForm((mean_of_windows(window, output),), proof)
        return NormalForm((maximum_of_windows(window, inputs[0], output),), proof)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # For one pixel torch calls mean, whose backward needs no values.
        return NOTHING if set(output[-self.sides :]) == {1} else SavedTensors(inputs=(0,))

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        # One for each input value in all regions of all channels.
        regions = ((_region(have, want), want) for have, want in zip(inputs[0][-self.sides :], output[-self.sides :]))
        return numel(output[: -self.sides]) * prod(_values_along(region, want) for region, want in regions)


@record
class AdaptiveAvgPool1d(AdaptiveAvgPool2d):
    """The mean of regions of a sequence."""

    sides = 1


@record
class AdaptiveAvgPool3d(AdaptiveAvgPool2d):
    """The mean of regions of a volume."""

    sides = 3


@record
class AdaptiveMaxPool2d(AdaptiveAvgPool2d):
    """The maximum of the same regions. Autograd saves the input and an int64 index for each output."""

    word = "max pool"
    other_formula = "n in the region: n-1 comparisons a value"
    alignment_cost = 2.0
    takes_maximum = True
    takes_mean = False

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,), extra=((output, 8),))

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return super().other_operations(inputs, output) - numel(output)


@record
class AdaptiveMaxPool1d(AdaptiveMaxPool2d):
    """The maximum of regions of a sequence."""

    sides = 1


@record
class AdaptiveMaxPool3d(AdaptiveMaxPool2d):
    """The maximum of regions of a volume."""

    sides = 3


@record
class LPPool2d(_Pool):
    """The p-norm of each window, p being `norm_type`: the sum of the p-th powers, to the power 1/p.

    torch takes the mean of the powers and multiplies it by the window's area.
    """

    word = "norm pool"
    other_formula = (
        "a power of each input; n in the window: n-1 sums, a division, sign, absolute value, comparison, two products,"
        " a root: n+6 a value"
    )

    norm_type: float
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    ceil_mode: bool = False

    def window(self, size: tuple[int, ...]) -> Window:
        ones = (1,) * self.sides
        return Window(self.kernel_size, self.stride, (0,) * self.sides, ones, self.ceil_mode)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(inputs[0]) + (numel(self.kernel_size) + 6) * numel(output)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # The input and its powers; the mean, its sign, its positive part and that times the area.
        return SavedTensors(inputs=(0,), extra=((inputs[0], None), *((output, None),) * 4))

    def kernel_calls(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[KernelCall, ...]:
        # torch.nn.functional.lp_pool2d. Values: 0 the input, 1 its powers, 2 their mean, 3 its sign, 4 its absolute
        # value, 5 the positive part of that, 6 the product of 3 and 5, 7 times the window's area, and the root.
        return (
            KernelCall("pow", (0,), inputs[0], keeps=(0,), scratch=(2,)),
            KernelCall("avg_pool2d", (1,), output, keeps=(0,)),
            KernelCall("sign", (2,), output),
            KernelCall("abs", (2,), output, keeps=(0,), scratch=(1,)),
            KernelCall("relu", (4,), output, holds=(2, 3)),
            KernelCall("mul", (3, 5), output, keeps=(0, 1), holds=(2,)),
            KernelCall("mul", (6,), output, holds=(2,)),
            KernelCall("pow", (7,), output, keeps=(0,), scratch=(2,), holds=(0, 2)),
        )


@record
class LPPool1d(LPPool2d):
    """The p-norm of each window of a sequence."""

    sides = 1


@record
class FractionalMaxPool2d(_Pool):
    """The maximum of windows at random steps between 1 and 2 pixels, so that `output_size` comes out (Graham 2014).

    If `output_size` is None it is `output_ratio` times the input's, rounded down. Autograd saves the input and an int64
    index for each output. No rule gives the receptive field, since each pass draws other windows.
    """

    word = "max pool"
    other_formula = "n in the window: n-1 comparisons a value"
    takes_maximum = True
    is_random = True

    kernel_size: tuple[int, ...]
    output_size: tuple[int, ...] | None = None
    output_ratio: tuple[float, ...] | None = None

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        sides = self.output_size or tuple(int(w * ratio) for w, ratio in zip(shape[-2:], self.output_ratio or ()))
        for have, want, kernel in zip(shape[-2:], sides, self.kernel_size):
            if want + kernel - 1 > have:
                raise ShapeError(f"{want} windows of {kernel} do not fit a side of {have}: {shape_text(shape)}")
        return (*_channels(shape), *sides)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> None:
        return None

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        samples = (*output[:-2], 2)
        return SavedTensors(inputs=(0,), extra=((output, 8),), passing=(samples,))

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return (numel(self.kernel_size) - 1) * numel(output)


def maximum_of_windows(window: Window, shape: Shape, output: Shape) -> PrimitiveStep:
    """The maximum of each window as a step of a normal form, with the positions before and after each side."""
    sides = len(window.kernel_size)
    rows = zip(shape[-sides:], output[-sides:], window.span, window.stride, window.padding)
    around = tuple((p, max((made - 1) * step + span - have - p, 0)) for have, made, span, step, p in rows)
    arguments = (window.kernel_size, *_spacing(window, output), around)
    return PrimitiveStep(MAX_POOL, arguments, output)


def mean_of_windows(window: Window, output: Shape, source: int = 0, divisor: int | None = None) -> PrimitiveStep:
    """The mean of each window, all of which lie inside the input, as a step of a normal form."""
    divisor = prod(window.kernel_size) if divisor is None else divisor
    return PrimitiveStep(MEAN_POOL, (window.kernel_size, *_spacing(window, output), divisor), output, (source,))


def _spacing(window: Window, output: Shape) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The stride, 1 along a side with one window, and the dilation, 1 for a window of one position."""
    made = output[-len(window.kernel_size) :]
    stride = tuple(step if count > 1 else 1 for step, count in zip(window.stride, made))
    return stride, tuple(step if size > 1 else 1 for step, size in zip(window.dilation, window.kernel_size))


def _channels(shape: Shape, sides: int = 2) -> Shape:
    if len(shape) - sides not in (1, 2):
        axes = ("channels and a length", "channels, height and width", "channels and three sides")[sides - 1]
        raise ShapeError(f"pooling needs {axes}, the input is {shape_text(shape)}")
    return shape[:-sides]


def _values_along(region: StridedWindow | Ranges, length: int) -> int:
    """The number of positions that all `length` windows along an axis read."""
    if isinstance(region, StridedWindow):
        return region.kernel_size * length
    return sum(end - start for start, end in region.bounds)


def _region(have: int, want: int) -> StridedWindow | Ranges:
    """The part of an axis of `have` that each of `want` positions reads: a strided window if all are equal."""
    bounds = [(i * have // want, -(-(i + 1) * have // want)) for i in range(want)]
    size, step = bounds[0][1], bounds[1][0] if want > 1 else have
    regular = all(bound == (i * step, i * step + size) for i, bound in enumerate(bounds))
    return StridedWindow(size, step) if regular else Ranges(tuple(bounds))
