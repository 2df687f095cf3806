"""Normalisation: over the batch, or over neighbouring channels."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar

from vggscope.errors import ShapeError
from vggscope.ops.axis_maps import AxisMaps, throughout
from vggscope.ops.base import (
    KernelCall,
    Op,
    SavedTensors,
    Shape,
    TensorArgument,
    TorchCall,
    call_of,
    expect_channels,
    numel,
)
from vggscope.ops.normal_form import BATCH_NORM, NormalForm, PrimitiveStep, reshape
from vggscope.record import record
from vggscope.units import kernel_text, shape_text

_MEAN_AND_VARIANCE = (
    "mean, difference, square, variance, scale: 5 a value, a learned tensor 1 more; eps, root: 2 a group"
)


@record
class _ChannelNorm(Op):
    """Each of `num_features` channels shifted and scaled, by its own mean and variance or the running ones."""

    width_field: ClassVar[str] = "num_features"
    exchanges = (("normalization", 3.0),)

    num_features: int
    eps: float = 1e-5
    momentum: float | None = 0.1
    affine: bool = True
    track_running_stats: bool = True

    def parameters(self) -> dict[str, Shape]:
        return {"weight": (self.num_features,), "bias": (self.num_features,)} if self.affine else {}

    def buffers(self) -> dict[str, Shape]:
        if not self.track_running_stats:
            return {}
        return {"running_mean": (self.num_features,), "running_var": (self.num_features,), "num_batches_tracked": ()}


@record
class BatchNorm2d(_ChannelNorm):
    """Each channel shifted and scaled to mean 0 and variance 1 over the batch, then by a learned scale and shift.

    Autograd saves the input, and the mean and the inverse deviation of each channel.
    """

    word = "BN"
    label_prefix = notation = "bn"
    other_formula = "scale, shift: 2 a value"
    per_value = 2
    training_fields = frozenset({"momentum"})
    follows_a_layer = True
    is_affine = True
    spatial: ClassVar[int] = 2
    gradient_layout = "elementwise"

    batch_statistics: bool = field(default=False, kw_only=True, repr=False)
    """Whether the mean and variance are those of the batch at evaluation too, in spite of running statistics."""

    def torch_call(self, count: int) -> TorchCall | None:
        if not self.batch_statistics:
            return None
        learned = (TensorArgument(1), TensorArgument(2)) if self.affine else (None, None)
        return call_of("batch_norm", None, None, *learned, True, 0.0, self.eps)

    predicts_memory = True

    @property
    def folding(self) -> str:
        if not self.is_fixed:
            return ""
        weight, bias = ("weight * ", "bias") if self.affine else ("", "0")
        return (
            f"with s = {weight}1/sqrt(running_var + {self.eps:g}) of each channel, its weights times s"
            f" and the bias {bias} + (its bias - running_mean) * s"
        )

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        if len(output) < 2:
            return super().normal_form(inputs, output, numbers)
        maps = (*output[:2], numel(output[2:]))
        step = PrimitiveStep(BATCH_NORM, (self.eps, self.affine, self.is_fixed), maps, (1,), reads_weights=True)
        return NormalForm((reshape(maps), step, reshape(output, 2)))

    def output_shape(self, *inputs: Shape) -> Shape:
        expect_channels(self.num_features, inputs[0], self.spatial)
        return inputs[0]

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        statistics = ((self.num_features,), (self.num_features,))
        if not self.is_fixed:
            return SavedTensors(inputs=(0,), batch_statistics=statistics)
        return SavedTensors(inputs=(0,), statistics=statistics)

    def trains_on(self, shape: Shape) -> bool:
        return numel(shape) > self.num_features  # torch refuses one value per channel

    @property
    def is_fixed(self) -> bool:
        """Whether evaluation takes the running mean and variance, not those of the batch."""
        return self.track_running_stats and not self.batch_statistics

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (throughout(output, set() if self.is_fixed else set(range(2, len(output)))),)


@record
class LocalResponseNorm(Op):
    """Each value divided by a power of the squares in the `size` channels around it (Krizhevsky et al. 2012, section
    3.3).

    The paper's constants are k=2, n=5, alpha=1e-4, beta=0.75 with alpha times the sum of squares; torch multiplies
    alpha by the mean over n, so that torch's alpha for the same function is 5e-4.
    """

    predicts_memory = True
    word = "LRN"
    label_prefix = "norm"
    notation = "lrn"
    other_formula = "n channels: a square, n-1 sums, a division, alpha, k, a power, a division: n+5 a value"
    exchanges = (("normalization", 3.0),)

    size: int
    alpha: float = 1e-4
    beta: float = 0.75
    k: float = 1.0

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return (self.size + 5) * numel(output)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # The input; the padded squares, their mean and its power. `kernel_calls` has them one by one.
        return SavedTensors(inputs=(0,), extra=((self._padded(output), None), (output, None), (output, None)))

    def kernel_calls(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[KernelCall, ...]:
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
    """Batch normalisation of rows of features, or of sequences of them."""

    label_prefix = notation = ""

    def output_shape(self, *inputs: Shape) -> Shape:
        expect_channels(self.num_features, inputs[0], 0 if len(inputs[0]) == 2 else 1)
        return inputs[0]


@record
class BatchNorm3d(BatchNorm2d):
    """Batch normalisation of volumes."""

    label_prefix = notation = ""
    spatial = 3


@record
class _LastAxesNorm(Op):
    """Each sample's values over the last axes, of the shape `normalized_shape`, divided by a statistic of theirs."""

    normalized_shape: tuple[int, ...]

    def arguments(self) -> dict[str, object]:
        # A number would be the last axis alone.
        return (
            {**super().arguments(), "normalized_shape": self.normalized_shape} if self._is_map else super().arguments()
        )

    @property
    def _is_map(self) -> bool:
        return len(self.normalized_shape) > 1

    @property
    def features_axis(self) -> int | None:
        return -1 if len(self.normalized_shape) == 1 else None

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        if shape[-len(self.normalized_shape) :] != self.normalized_shape:
            raise ShapeError(f"{kernel_text(self.normalized_shape)} is normalised, the input is {shape_text(shape)}")
        return shape

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        axes = len(output)
        return (throughout(output, set(range(axes - len(self.normalized_shape), axes))),)


@record
class LayerNorm(_LastAxesNorm):
    """Each sample's values over the last axes, of the shape `normalized_shape`, shifted and scaled to mean 0 and
    variance 1, then by a learned scale and shift for each of them. Autograd keeps the input, the means and the inverse
    deviations.
    """

    predicts_memory = needs_layout = True
    other_formula = _MEAN_AND_VARIANCE
    exchanges = (("normalization", 3.0),)
    gradient_layout = "normalized rows"

    eps: float = 1e-5
    elementwise_affine: bool = True
    bias: bool = True

    def parameters(self) -> dict[str, Shape]:
        if not self.elementwise_affine:
            return {}
        weight = {"weight": self.normalized_shape}
        return {**weight, "bias": self.normalized_shape} if self.bias else weight

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        means = output[: len(output) - len(self.normalized_shape)]
        return SavedTensors(inputs=(0,), extra=((means, None), (means, None)))

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return _mean_and_variance(self, output, numel(output) // numel(self.normalized_shape))

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        size = numel(self.normalized_shape)
        rows = (numel(output) // size, size)
        step = self.step(rows, 1, eps=self.eps, affine=self.elementwise_affine, bias=self.bias)
        return NormalForm((reshape(rows), step, reshape(output, 2)))


@record
class RMSNorm(_LastAxesNorm):
    """Each sample's values over the last axes divided by their root mean square, then scaled by a learned weight for
    each of them.
    """

    eps: float | None = None
    elementwise_affine: bool = True

    def parameters(self) -> dict[str, Shape]:
        return {"weight": self.normalized_shape} if self.elementwise_affine else {}

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        return SavedTensors(inputs=(0,), extra=((output[: len(output) - len(self.normalized_shape)], None),))


@record
class GroupNorm(Op):
    """Each sample's channels in `num_groups` groups, each group shifted and scaled to mean 0 and variance 1."""

    width_field: ClassVar[str] = "num_channels"
    predicts_memory = needs_layout = True
    other_formula = _MEAN_AND_VARIANCE
    exchanges = (("normalization", 3.0),)
    gradient_layout = "normalized groups"

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

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return _mean_and_variance(self, output, output[0] * self.num_groups)

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        maps = (*output[:2], numel(output[2:]))
        return NormalForm((reshape(maps), self.step(maps, 1, **self._values()), reshape(output, 2)))

    def _values(self) -> dict[str, object]:
        return {"num_groups": self.num_groups, "eps": self.eps, "affine": self.affine}

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (throughout(output, set(range(1, len(output)))),)


@record
class InstanceNorm2d(_ChannelNorm):
    """Each channel of each sample shifted and scaled to mean 0 and variance 1."""

    other_formula = _MEAN_AND_VARIANCE

    affine: bool = False
    track_running_stats: bool = False

    def torch_call(self, count: int) -> TorchCall:
        return call_of("instance_norm", *self._statistics, *self._learned, not self.track_running_stats, 0.0, self.eps)

    @property
    def _learned(self) -> tuple[object, ...]:
        return (TensorArgument(1), TensorArgument(2)) if self.affine else (None, None)

    @property
    def _statistics(self) -> tuple[object, ...]:
        first = 3 if self.affine else 1
        return (TensorArgument(first), TensorArgument(first + 1)) if self.track_running_stats else (None, None)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        # torch runs a batch norm over the channels of all samples, with weight and bias repeated.
        channels = (output[:2], None)
        if not self.affine:
            return SavedTensors(inputs=(0,), extra=(channels, channels))
        return SavedTensors(inputs=(0,), extra=(channels, channels, channels), passing=(output[:2],))

    def trains_on(self, shape: Shape) -> bool:
        return numel(shape[2:]) > 1

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return _mean_and_variance(self, output, output[0] * output[1])

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (throughout(output, set() if self.track_running_stats else set(range(2, len(output)))),)


@record
class Normalize(Op):
    """Each row along `dim` divided by its Euclidean length, or by `eps` where that is more (torch's F.normalize)."""

    other_formula = "a row of n: n squares, n-1 sums, a root, a comparison, n divisions: 3n+1"
    gradient_layout = "divided by lengths"
    name = "normalize"

    dim: int = 1
    eps: float = 1e-12

    def torch_call(self, count: int) -> TorchCall:
        return call_of("normalize", 2.0, self.dim, self.eps)

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        length = output[self.dim]
        return (3 * length + 1) * (numel(output) // length)

    @property
    def predicts_memory(self) -> bool:
        return self.dim != 0  # the lengths of columns are the same for every batch

    def lengths(self, shape: Shape) -> Shape:
        """The shape of the lengths of the rows of a tensor of this shape."""
        return tuple(1 if axis == self.dim % len(shape) else size for axis, size in enumerate(shape))

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        lengths = (self.lengths(output), None)
        return SavedTensors(inputs=(0,), extra=(lengths, lengths))

    def kernel_calls(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[KernelCall, ...]:
        # Values: 0 the input, 1 the lengths, 2 those at least eps, 3 the same for each value, and the quotient.
        lengths = self.lengths(output)
        return (
            KernelCall(
                "vector_norm",
                (0,),
                lengths,
                (0,),
                keeps_result=True,
                backward_temporaries=((output, None), (lengths, 1)),
            ),
            KernelCall("clamp_min", (1,), lengths, (0,), backward_temporaries=(((), None), (lengths, 1))),
            KernelCall("expand", (2,), output, shares=True, passes_gradient=lengths == output),
            KernelCall("div", (0, 3), output, keeps=(0, 1), scratch=(0, 3), holds=(0,)),
        )

    def reads(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[AxisMaps, ...]:
        return (throughout(output, {self.dim % len(output)}),)


def _mean_and_variance(op: Op, output: Shape, groups: int) -> int:
    """The operations of a normalisation that takes mean and variance of each of `groups` groups of values."""
    return (5 + len(op.parameters())) * numel(output) + 2 * groups
