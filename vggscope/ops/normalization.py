"""Normalisation: over the batch, or over neighbouring channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from vggscope.ops.base import Kept, Op, Shape, expect_channels


@dataclass(frozen=True)
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

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        return Kept(inputs=(0,), extra=(((self.num_features,), None), ((self.num_features,), None)))


@dataclass(frozen=True)
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

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        # torch writes it out in elementary ops: the square, its padded mean, the power and the quotient each keep one.
        return Kept(inputs=(0,), extra=((output, None), (output, None)))
