"""Ops that act during training alone, and the one that never does anything."""

from __future__ import annotations

from dataclasses import dataclass

from vggscope.ops.base import Kept, Op, Shape


@dataclass(frozen=True)
class Dropout(Op):
    """Each value set to 0 with probability `p` during training, the rest scaled by 1/(1-p); nothing at evaluation."""

    p: float = 0.5
    inplace: bool = False

    @property
    def allocates(self) -> bool:
        return not self.inplace

    @property
    def active_in(self) -> str:
        return "training"

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        return Kept(extra=((output, None),))


@dataclass(frozen=True)
class Identity(Op):
    """The input, untouched."""

    @property
    def allocates(self) -> bool:
        return False
