"""Normalisation: over the batch, or over neighbouring channels."""

from __future__ import annotations

from typing import ClassVar

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import AxisMaps, throughout
from vggscope.ops.base import KernelCall, Op, SavedTensors, Shape, expect_channels
from vggscope.record import record
from vggscope.units import kernel_text, shape_text


@record
class BatchNorm2d(Op):
    """Each channel shifted and scaled to mean 0 and variance 1 over the batch, then by a learned scale and shift.

    Autograd keeps the input and each channel's saved mean and inverse deviation.
    """

    width_field: ClassVar[str] = "num_features"

    num_features: int
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        expect_channels(self.num_features, inputs[0], 2)
        return inputs[0]

    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_features,), "bias": (self.num_features,)} if self.affine else {}

    def buffers(self) -> dict[str, Shape]:
        if not self.track_running_stats:
            return {}
        return {"running_mean": (self.num_features,), "running_var": (self.num_features,), "num_batches_tracked": ()}

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,), statistics=((self.num_features,), (self.num_features,)))


@record
class LocalResponseNorm(Op):
    """Each value divided by a power of the squares in the `size` channels around it (Krizhevsky et al. 2012, section
    3.3).

    The paper's constants are k=2, n=5, alpha=1e-4, beta=0.75 with alpha times the sum of squares; torch multiplies
    alpha by the mean over n, so that torch's alpha for the same function is 5e-4.
    """

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # The input; the padded squares, their mean and its power, which `kernel_calls` tells one by one.
        return SavedTensors(inputs=(0,), extra=((self._padded(output), None), (output, None), (output, None)))

    def kernel_calls(self, output: Shape) -> tuple[KernelCall, ...]:
        # torch.nn.functional.local_response_norm. Values: 0 the input, 1 its square, 2 padded, 3 averaged over the
        # neighbours, 4 times alpha, 5 plus k, 6 to the power beta, and the input divided by that.
        return (
            KernelCall("mul", (0, 0), output, keeps=(0,)),
            KernelCall("pad", (1,), self._padded(output)),
            KernelCall("avg_pool3d", (2,), output, keeps=(0,)),
            KernelCall("mul", (3,), output),
            KernelCall("add", (4,), output, passes_gradient=True, holds=(3,)),
            KernelCall("pow", (5,), output, keeps=(0,), scratch=(2,), holds=(3,)),
            KernelCall("div", (0, 6), output, keeps=(0, 1), scratch=(0, 3)),
        )

    def _padded(self, shape: Shape) -> Shape:
        return (shape[0], shape[1] + self.size - 1, *shape[2:])


@record
class BatchNorm1d(BatchNorm2d):
    """The same on rows of features, or on sequences of them."""

    def output_shape(self, *inputs: Shape) -> Shape:
        expect_channels(self.num_features, inputs[0], 0 if len(inputs[0]) == 2 else 1)
        return inputs[0]


@record
class BatchNorm3d(BatchNorm2d):
    """The same on volumes."""

    def output_shape(self, *inputs: Shape) -> Shape:
        expect_channels(self.num_features, inputs[0], 3)
        return inputs[0]


@record
class LayerNorm(Op):
    """Each sample's values over the last axes, of the shape `normalized_shape`, shifted and scaled to mean 0 and
    variance 1, then by a learned scale and shift for each of them. Autograd keeps the input, the means and the inverse
    deviations.
    """

    normalized_shape: tuple[int, ...]
    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise ShapeError(f"{kernel_text(self.normalized_shape)} is normalised, the input is {shape_text(shape)}")
        return shape

    def parameters(self) -> dict[str, Shape]:
        if not self.elementwise_affine:
            return {}
        weight = {"weight": self.normalized_shape}
        return {**weight, "bias": self.normalized_shape} if self.bias else weight

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        means = output[: len(output) - len(self.normalized_shape)]
        return SavedTensors(inputs=(0,), extra=((means, None), (means, None)))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        axes = len(output)
        return (throughout(output, set(range(axes - len(self.normalized_shape), axes))),)


@record
class RMSNorm(Op):
    """Each sample's values over the last axes divided by their root mean square, then scaled by a learned weight for
    each of them.
    """

    normalized_shape: tuple[int, ...]
    eps: float | None = None
    elementwise_affine: bool = True

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        axes = len(output)
        return (throughout(output, set(range(axes - len(self.normalized_shape), axes))),)

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise ShapeError(f"{kernel_text(self.normalized_shape)} is normalised, the input is {shape_text(shape)}")
        return shape

    def parameters(self) -> dict[str, Shape]:
        return {"weight": self.normalized_shape} if self.elementwise_affine else {}

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,), extra=((output[: len(output) - len(self.normalized_shape)], None),))


@record
class GroupNorm(Op):
    """Each sample's channels in `num_groups` groups, each group shifted and scaled to mean 0 and variance 1."""

    width_field: ClassVar[str] = "num_channels"

    num_groups: int
    num_channels: int
    eps: float = 1e-5
    affine: bool = True

    def output_shape(self, *inputs: Shape) -> Shape:
        expect_channels(self.num_channels, inputs[0], len(inputs[0]) - 2)
        return inputs[0]

    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_channels,), "bias": (self.num_channels,)} if self.affine else {}

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        groups = (output[0], self.num_groups)
        return SavedTensors(inputs=(0,), extra=((groups, None), (groups, None)))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (throughout(output, set(range(1, len(output)))),)


@record
class InstanceNorm2d(Op):
    """Each channel of each sample shifted and scaled to mean 0 and variance 1."""

    width_field: ClassVar[str] = "num_features"

    num_features: int
    eps: float = 1e-5
    momentum: float = 0.1
    affine: bool = False
    track_running_stats: bool = False

    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_features,), "bias": (self.num_features,)} if self.affine else {}

    def buffers(self) -> dict[str, Shape]:
        if not self.track_running_stats:
            return {}
        return {"running_mean": (self.num_features,), "running_var": (self.num_features,), "num_batches_tracked": ()}

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # torch takes it for a batch norm of as many channels as all samples have, with weight and bias repeated.
        channels = (output[:2], None)
        if not self.affine:
            return SavedTensors(inputs=(0,), extra=(channels, channels))
        return SavedTensors(inputs=(0,), extra=(channels, channels, channels), passing=(output[:2],))

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (throughout(output, set() if self.track_running_stats else set(range(2, len(output)))),)


@record
class Normalize(Op):
    """Each row along `dim` divided by its Euclidean length, or by `eps` where that is more (torch's F.normalize)."""

    dim: int = 1
    eps: float = 1e-12

    @property
    def name(self) -> str:
        return "normalize"

    def _lengths(self, shape: Shape) -> Shape:
        return tuple(1 if axis == self.dim % len(shape) else size for axis, size in enumerate(shape))

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        lengths = (self._lengths(output), None)
        return SavedTensors(inputs=(0,), extra=(lengths, lengths))

    def kernel_calls(self, output: Shape) -> tuple[KernelCall, ...]:
        # Values: 0 the input, 1 the lengths, 2 those at least eps, 3 the same for each value, and the quotient.
        lengths = self._lengths(output)
        return (
            KernelCall("vector_norm", (0,), lengths, keeps=(0,)),
            KernelCall("clamp_min", (1,), lengths, keeps=(0,)),
            KernelCall("expand", (2,), output, shares=True),
            KernelCall("div", (0, 3), output, keeps=(0, 1), scratch=(0, 3), holds=(0,)),
        )

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (throughout(output, {self.dim % len(output)}),)
