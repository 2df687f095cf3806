"""Nonlinearities: each output depends on the input at its own place alone (soft-max: on its own position's classes)."""

from __future__ import annotations

from dataclasses import dataclass

from vggscope.ops.base import Kept, Op, Shape


@dataclass(frozen=True)
class ReLU(Op):
    """max(0, x). In place it overwrites its input; autograd keeps the output either way."""

    inplace: bool = False

    @property
    def allocates(self) -> bool:
        return not self.inplace

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        return Kept(output=True)


@dataclass(frozen=True)
class Sigmoid(Op):
    """1/(1+exp(-x)), between 0 and 1, both excluded. Autograd keeps the output."""

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        return Kept(output=True)


@dataclass(frozen=True)
class Softmax(Op):
    """exp(x) over its sum along `dim`. Autograd keeps the output."""

    dim: int

    def kept(self, inputs: tuple[Shape, ...], output: Shape) -> Kept:
        return Kept(output=True)
