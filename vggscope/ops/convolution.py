"""Convolution over one, two or three spatial axes."""

from __future__ import annotations

from dataclasses import field, replace
from typing import ClassVar

from vggscope.ops.axis_maps import SAME, AxisMaps, Ranges
from vggscope.ops.base import Op, SavedTensors, Shape, Window, expect_channels, numel, window_of
from vggscope.ops.normal_form import NormalForm, bias, linear, pad, padded_shape, padding_of, permute, reshape
from vggscope.record import record
from vggscope.units import kernel_text


@record
class _Kernels(Op):
    """`out_channels` kernels over 1, 2 or 3 spatial axes, as many as `kernel_size` has."""

    width_field: ClassVar[str] = "in_channels"
    other_formula = "bias: 1 a value"

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = True
    real_products: int = field(default=1, kw_only=True, compare=False, repr=False)
    """torch computes a convolution of complex numbers as 3 of real numbers."""

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output) * self.bias

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,))


@record
class Convolution(_Kernels):
    """`out_channels` kernels that slide over the input: torch's Conv1d, Conv2d or Conv3d, by the length of
    `kernel_size`.

    Weights: out_channels x in_channels/groups x kernel. MACs: the weights of one channel for each output value.
    `same` is torch's padding="same" with an odd total, which pads one more pixel at the end than at the start.
    """

    is_convolution = True
    gradient_layout = "convolved"

    padding_mode: str = "zeros"
    same: bool = False
    channels_last: bool = field(default=False, kw_only=True, compare=False, repr=False)

    @property
    def name(self) -> str:
        return f"Conv{len(self.kernel_size)}d"

    @property
    def predicts_memory(self) -> bool:
        # torch pads the input by another kernel.
        return self.padding_mode == "zeros" and not self.same and self.real_products == 1

    @property
    def is_weight_layer(self) -> bool:
        return len(self.kernel_size) == 2

    @property
    def label_prefix(self) -> str:
        return "conv" if self.is_weight_layer else ""

    notation = label_prefix

    @property
    def alignment_cost(self) -> float:
        return 4.0 if self.is_weight_layer else super().alignment_cost

    def whole_input(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(inputs[0]) if self.is_weight_layer and set(output[2:]) == {1} else 0

    @property
    def relays_gradients(self) -> bool:
        return self.channels_last and self.in_channels > self.groups and numel(self.kernel_size) > 1

    def fitted(self, shape: Shape) -> Convolution:
        return super().fitted(shape) if self.groups == 1 else self

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        expect_channels(self.in_channels, shape, len(self.kernel_size))
        size = shape[2:] if self.same else self.window(shape[2:]).output_size(shape[2:])
        return (shape[0], self.out_channels, *size)

    def parameters(self) -> dict[str, Shape]:
        weight = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        if not self.same:
            return super().saved_for_backward(inputs, output)
        # torch pads the input by the odd pixel first, and convolves the copy.
        totals = (d * (k - 1) for d, k in zip(self.dilation, self.kernel_size))
        sides = (side + total % 2 for side, total in zip(inputs[0][2:], totals))
        return SavedTensors(extra=(((*inputs[0][:2], *sides), None),))

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return self.real_products * numel(output) * (self.in_channels // self.groups) * numel(self.kernel_size)

    def window(self, size: tuple[int, ...]) -> Window:
        return window_of(self.kernel_size, self.stride, self.padding, self.dilation)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...] | None:
        # Circular padding reads pixels of the other side. Reflected and replicated ones are in the window already.
        wraps = self.padding_mode == "circular" and any(self.padding)
        return None if wraps else super().reads(inputs, output)

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        shape = inputs[0]
        amounts = padding_of(len(shape), self._padding_of_sides())
        padded = padded_shape(shape, amounts)
        padding = pad(amounts, padded, "constant" if self.padding_mode == "zeros" else self.padding_mode, 0.0)
        if self.groups == 1 and padded[2:] == self.kernel_size and set(output[2:]) == {1} and len(shape) > 2:
            row = (shape[0], numel(padded[1:]))
            result = (shape[0], self.out_channels)
            biases = (bias(1, result, 3),) if self.bias else ()
            proof = f"the {kernel_text(self.kernel_size)} kernel covers its whole input: an inner product of all values"
            steps = (padding, reshape(row, 1), linear(shape[0], self.out_channels, 2), *biases)
            return NormalForm((*steps, reshape(output, len(steps))), proof)
        is_plain = self.groups == 1 and self.window(()).is_one_value and len(shape) > 2
        if is_plain and padded == shape:
            return self._of_each_pixel(shape, output)
        stride = tuple(step if made > 1 else 1 for step, made in zip(self.stride, output[2:]))
        dilation = tuple(step if size > 1 else 1 for step, size in zip(self.dilation, self.kernel_size))
        kernel = self.step(
            output,
            1,
            out_channels=self.out_channels,
            kernel_size=self.kernel_size,
            stride=stride,
            dilation=dilation,
            groups=self.groups,
        )
        biases = (bias(1, output, 2),) if self.bias else ()
        return NormalForm(
            (padding, replace(kernel, weights=(0,)), *biases),
            "zeros around the input are the padding of the convolution",
        )

    def _of_each_pixel(self, shape: Shape, output: Shape) -> NormalForm:
        """The normal form of a 1x1 kernel: a linear layer over the channels of each pixel."""
        axes = len(shape)
        last, first = (0, *range(2, axes), 1), (0, axes - 1, *range(1, axes - 1))
        rows, sides = numel(shape) // shape[1], (shape[0], *shape[2:])
        biases = (bias(1, (rows, self.out_channels), 3),) if self.bias else ()
        steps = (
            permute(last, (*sides, shape[1])),
            reshape((rows, shape[1]), 1),
            linear(rows, self.out_channels, 2),
            *biases,
        )
        back = (reshape((*sides, self.out_channels), len(steps)), permute(first, output, len(steps) + 1))
        return NormalForm((*steps, *back), "a 1x1 kernel is a linear layer over the channels of each pixel")

    def _padding_of_sides(self) -> tuple[tuple[int, int], ...]:
        """The padding before and after each side."""
        if not self.same:
            return tuple((side, side) for side in self.padding)
        totals = (d * (k - 1) for d, k in zip(self.dilation, self.kernel_size))
        return tuple((total // 2, total - total // 2) for total in totals)

    def arguments(self) -> dict[str, object]:
        arguments = super().arguments()
        return {**arguments, "padding": "same"} if arguments.pop("same", False) else arguments


@record
class TransposedConvolution(_Kernels):
    """The transpose of a convolution, which adds a kernel, scaled by each input value, to the output: torch's
    ConvTranspose1d, 2d or 3d.

    Output size: (W-1)*S - 2P + dilation*(K-1) + output_padding + 1. MACs: the weights of one input channel for each
    input value.
    """

    output_padding: tuple[int, ...] = (0, 0)

    @property
    def name(self) -> str:
        return f"ConvTranspose{len(self.kernel_size)}d"

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        expect_channels(self.in_channels, shape, len(self.kernel_size))
        rows = zip(shape[2:], self.kernel_size, self.stride, self.padding, self.output_padding, self.dilation)
        return (shape[0], self.out_channels, *((w - 1) * s - 2 * p + d * (k - 1) + o + 1 for w, k, s, p, o, d in rows))

    def parameters(self) -> dict[str, Shape]:
        weight = (self.in_channels, self.out_channels // self.groups, *self.kernel_size)
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return self.real_products * numel(inputs[0]) * (self.out_channels // self.groups) * numel(self.kernel_size)

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        sides = zip(output[2:], inputs[0][2:], self.kernel_size, self.stride, self.padding, self.dilation)
        regions = (Ranges(tuple(_spread(i, *side) for i in range(size))) for size, *side in sides)
        return ({0: (0, SAME), **{axis: (axis, region) for axis, region in enumerate(regions, 2)}},)


def conv2d(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, *, bias: bool = True
) -> Convolution:
    """A square two-dimensional convolution."""
    return Convolution(in_channels, out_channels, (kernel, kernel), (stride, stride), (padding, padding), bias=bias)


def _spread(position: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[int, int]:
    """The range of input positions whose kernels reach an output position: start, and end (excluded)."""
    taps = (position + padding - k * dilation for k in range(kernel))
    positions = [tap // stride for tap in taps if tap % stride == 0 and 0 <= tap // stride < size]
    return (min(positions), max(positions) + 1) if positions else (0, 0)
