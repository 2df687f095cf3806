"""A map at another resolution."""

from __future__ import annotations

from dataclasses import dataclass

from vggscope.ops.base import Op, Shape


@dataclass(frozen=True)
class Upsample(Op):
    """The input interpolated to `size` (height, width), or to `scale_factor` times its own size, rounded down."""

    size: tuple[int, ...] | None = None
    scale_factor: tuple[float, ...] | None = None
    mode: str = "nearest"
    align_corners: bool | None = None

    @property
    def mixes(self) -> bool:
        return True

    def output_shape(self, *inputs: Shape) -> Shape:
        (shape,) = inputs
        scale = self.scale_factor or (1.0,) * len(shape[2:])
        size = self.size or tuple(int(have * times) for have, times in zip(shape[2:], scale))
        return (*shape[:2], *size)
