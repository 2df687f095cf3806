"""Tensors of a program in a file: their shapes, dtypes and origins, without data and without torch.

A ProgramValue has the attributes of a torch.Tensor that `trace.function_table` reads, so that one table gives the ops
of calls that run and of calls that are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from vggscope.graph import ConstantValue, Parameter
from vggscope.ops.base import Shape

UNKNOWN = ConstantValue("")
"""A constant whose values are not known."""


@dataclass(eq=False, slots=True)
class ProgramValue:
    """One tensor of a program.

    `source` is the node or the input that it is, empty for a constant, and `parameters` are those that a constant is
    computed from. `known` says how, and `is_computed` whether that takes memory. `buffer` is the key of a buffer.
    `filed` and `strides` are the shape and the strides that the file gives; None for a tensor without gaps, in the
    order of its axes. `memory` is the same object for tensors that share their memory. `turned` is the matrix that it
    is the transpose of, for a constant.
    """

    shape: Shape
    dtype: str = "float32"
    source: str = ""
    parameters: tuple[Parameter, ...] = ()
    known: ConstantValue = UNKNOWN
    is_computed: bool = False
    buffer: str = ""
    filed: Shape | None = None
    strides: Shape | None = None
    memory: object = field(default_factory=object)
    turned: ProgramValue | None = None

    def dim(self) -> int:
        """The number of axes."""
        return len(self.shape)

    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def is_constant(self) -> bool:
        """Whether it depends on no input of the program."""
        return not self.source

    @property
    def is_contiguous(self) -> bool:
        """Whether its elements lie in the order of its axes, without gaps."""
        return self.strides is None or _is_row_major(self.filed or self.shape, self.strides)

    def takes(self, other: ProgramValue) -> None:
        """Become the same tensor as another: its origin and its memory."""
        self.source, self.parameters, self.known = other.source, other.parameters, other.known
        self.is_computed, self.buffer, self.memory = other.is_computed, other.buffer, other.memory


def values_in(value: object) -> tuple[ProgramValue, ...]:
    """The values in nested arguments, from left to right.

    >>> one, two = ProgramValue((3,)), ProgramValue((4,))
    >>> values_in(([one, 3], {"other": two})) == (one, two)
    True
    """
    if isinstance(value, ProgramValue):
        return (value,)
    if isinstance(value, (tuple, list)):
        return tuple(found for item in value for found in values_in(item))
    return values_in(tuple(value.values())) if isinstance(value, Mapping) else ()


def _is_row_major(shape: Shape, strides: Shape) -> bool:
    step = 1
    for size, stride in zip(reversed(shape), reversed(strides)):
        if size == 0:
            return True
        if size != 1 and stride != step:
            return False
        step *= size
    return True


def can_view(value: ProgramValue, shape: Shape) -> bool:
    """Whether a tensor can have another shape without a copy, by its strides.

    Axes of the tensor that follow one another in memory are one piece, and each axis of `shape` must lie within one
    piece, as in ATen's computeStride.

    >>> turned = ProgramValue((4, 3), strides=(1, 4))
    >>> can_view(turned, (12,)), can_view(turned, (2, 2, 3)), can_view(ProgramValue((3, 4)), (12,))
    (False, True, True)
    """
    if value.is_contiguous:
        return True
    assert value.strides is not None
    axes = [(size, step) for size, step in zip(value.filed or value.shape, value.strides) if size != 1]
    pieces: list[int] = []
    for place, (size, step) in enumerate(axes):
        joins = bool(place) and axes[place - 1][1] == step * size
        pieces[len(pieces) - joins :] = [pieces[-1] * size if joins else size]
    rest = iter(size for size in shape if size != 1)
    for piece in pieces:
        filled = 1
        while filled < piece:
            filled *= next(rest, piece + 1)
        if filled != piece:
            return False
    return True
