"""Convolution over one, two or three spatial axes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vggscope.ops.base import Kept, Op, Shape, Window, expect_channels, numel


@dataclass(frozen=True)
class Convolution(Op):
    """A bank of `out_channels` kernels slid over the input: torch's Conv1d, Conv2d or Conv3d, by the length of
    `kernel_size`.

    Weights: out_channels x in_channels/groups x kernel. MACs: one weight's worth for each output position.
    """

    width_field: ClassVar[str] = "in_channels"

    in_channels: int
    out_channels: int
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...] = (1, 1)
    padding: tuple[int, ...] = (0, 0)
    dilation: tuple[int, ...] = (1, 1)
    groups: int = 1
    bias: bool = True
    padding_mode: str = "zeros"

    @property
    def name(self) -> str:
        return f"Conv{len(self.kernel_size)}d"

    def fitted(self, shape: Shape) -> Convolution:
        return super().fitted(shape) if self.groups == 1 else self

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        expect_channels(self.in_channels, shape, len(self.kernel_size))
        return (shape[0], self.out_channels, *self.window(shape[2:]).output_size(shape[2:]))

    def parameters(self) -> dict[str, Shape]:
        weight = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        return {"weight": weight, "bias": (self.out_channels,)} if self.bias else {"weight": weight}

    def macs(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return numel(output) * (self.in_channels // self.groups) * numel(self.kernel_size)

    def window(self, size: tuple[int, ...]) -> Window:
        return Window(self.kernel_size, self.stride, self.padding, self.dilation)

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        return Kept(inputs=(0,))


def conv2d(
    in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0, *, bias: bool = True
) -> Convolution:
    """A square two-dimensional convolution."""
    return Convolution(in_channels, out_channels, (kernel, kernel), (stride, stride), (padding, padding), bias=bias)
