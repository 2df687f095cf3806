"""Which op a function of torch is: a table, read by the function's name.

`x.flatten(1)`, `torch.flatten(x, 1)` are one function; an entry takes the function's own arguments.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vggscope.ops.base import Op
from vggscope.ops.recorded import Unknown
from vggscope.ops.shape import Flatten
from vggscope.trace.recorder import Call, shape_of, tensors_in

if TYPE_CHECKING:
    from torch import Tensor

Function = Callable[..., object]

SAME_DATA = frozenset({"detach", "data", "requires_grad_", "alias"})
"""Functions that give the same values: they are passed over."""

MATRIX_PRODUCTS = frozenset({"matmul", "linear", "conv2d"})
"""Functions that cost multiply-accumulates even where they read weights alone."""


def function_name(function: Function) -> tuple[str, bool]:
    """A function's name in the tables, and whether it writes into its first argument: `add_` gives ("add", True)."""
    name = str(getattr(function, "__name__", type(function).__name__))
    if name == "__get__":
        return str(getattr(getattr(function, "__self__", None), "__name__", name)), False
    if name.startswith("__") and name.endswith("__"):
        plain = name.strip("_")
        return _OPERATORS.get(plain, (plain, plain == "setitem"))
    return (name[:-1], True) if name.endswith("_") else (name, False)


_OPERATORS: dict[str, tuple[str, bool]] = {}


def read(
    name: str, in_place: bool, args: tuple[object, ...], kwargs: dict[str, object], results: tuple[Tensor, ...]
) -> Call:
    """The call of a function as its op, its inputs and its weights."""
    inputs = tuple(tensors_in((args, kwargs)))
    maker = FUNCTIONS.get(name)
    if maker is not None:
        return Call((maker(*args, **kwargs),), inputs)
    return Call((Unknown(name, tuple(map(shape_of, inputs)), shape_of(results[0])),), inputs)


def _flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Op:
    return Flatten(start_dim, end_dim)


FUNCTIONS: dict[str, Callable[..., Op]] = {"flatten": _flatten}
