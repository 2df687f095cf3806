"""A size that depends on the batch, as forward sees it in a run on one sample.

Where forward reads a size that grows with the batch, it gets a number that is several at once: the size for one sample,
for two, and for other batches. What Python computes from it is computed for each of them. A comparison has one answer
if it is the same for all. Where it is not, and where anything takes the number for a plain one, `lose` is called, and
the size for one sample is used: what forward does for other batches is then not known from this run. A number that
becomes a key ends the run, because what it is a key of may outlive it.
"""

from __future__ import annotations

import dis
import linecache
import math
import operator
import sys
from collections.abc import Callable
from functools import cache, lru_cache
from types import CodeType
from typing import Any

Number = int | float
"""A size, or what is computed from sizes."""

_UNARY: dict[str, Callable[[Any], Any]] = {
    **{f"__{name}__": getattr(operator, name) for name in ("neg", "pos", "abs", "invert")},
    **{f"__{name}__": getattr(math, name) for name in ("floor", "ceil", "trunc")},
    "__round__": round,
}

_BINARY: dict[str, Callable[[Any, Any], Any]] = {
    f"__{name}__": getattr(operator, name)
    for name in ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "lshift", "rshift", "xor")
} | {"__divmod__": divmod, "__and__": operator.and_, "__or__": operator.or_}
"""Those operators of which there is a form with the other number on the left, too."""

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    f"__{name}__": getattr(operator, name) for name in ("eq", "ne", "lt", "le", "gt", "ge")
}

_CONVERSIONS: dict[str, Callable[..., Any]] = {
    **{"__index__": operator.index, "__int__": int, "__float__": float, "__complex__": complex},
    **{name: operator.methodcaller(name) for name in ("bit_length", "conjugate", "as_integer_ratio")},
    **{"__reduce_ex__": lambda number, protocol: (type(number), (number,))},
}
"""What makes a plain number, or a decision, of a number."""

_TEXTS: dict[str, Callable[..., str]] = {"__repr__": repr, "__str__": str, "__format__": format}
"""What makes a text of a number, which may be the name of an attribute, or a part of a message."""


class NeedsPlainSizes(BaseException):
    """Forward uses a size as a key. Code that catches each Exception shall not catch it."""


@cache
def batch_size_kind() -> type[Any]:
    """Return the class of these numbers.

    It is a kind of torch.SymInt, which the functions of torch accept as a size, and says of itself that it is an int,
    as isinstance asks. Python and the other libraries do not take it for an int without `__index__`.
    """
    from torch import SymInt

    class BatchSize(SymInt):
        """A size for each of several batches. `values` has them in order, and the first is that for one sample."""

        def __init__(self, values: tuple[Number, ...], lose: Callable[[], None]) -> None:
            self.values = values
            self.lose = lose

        @property  # type: ignore[misc]
        def __class__(self) -> type:
            return type(self.values[0])

        def __bool__(self) -> bool:
            return bool(_decided(self, tuple(map(bool, self.values))))

        def __hash__(self) -> int:
            self.lose()
            raise NeedsPlainSizes

        def __getattr__(self, name: str) -> Any:
            found = getattr(self.values[0], name)  # not every number has it
            self.lose()
            return found

        def __copy__(self) -> BatchSize:
            return self

        def __deepcopy__(self, memo: object) -> BatchSize:
            return self

    for name, method in _methods().items():
        setattr(BatchSize, name, method)
    return BatchSize


def _methods() -> dict[str, Callable[..., Any]]:
    """Return the methods that Python calls for operators and conversions, by name."""
    reflected = {f"__r{name[2:]}": _reflected(function) for name, function in _BINARY.items()}
    return {
        **{name: _computed(function) for name, function in (_UNARY | _BINARY | reflected).items()},
        **{name: _compared(function) for name, function in _COMPARISONS.items()},
        **{name: _converted(function) for name, function in _CONVERSIONS.items()},
        **{name: _written(function) for name, function in _TEXTS.items()},
    }


def batch_size(values: tuple[Number, ...], lose: Callable[[], None]) -> Any:
    """Return the number that has these values, a plain one if they are equal.

    >>> lost = []
    >>> size = batch_size((1, 2, 9), lambda: lost.append(True))
    >>> (4 * size + 1).values, isinstance(size, int), size > 0, lost
    ((5, 9, 37), True, True, [])
    >>> [*range(size)], lost
    ([0], [True])
    """
    first = values[0]
    if all(type(value) is type(first) and value == first for value in values):
        return first
    return batch_size_kind()(values, lose)


def _computed(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that computes a number for each batch."""

    def method(self: Any, *others: Any) -> Any:
        given: list[Any] = [_values(other, len(self.values)) for other in others]
        if None in given:
            return NotImplemented
        numbers = list(zip(self.values, *given))
        first = function(*numbers[0])
        try:
            results = [first, *(function(*others) for others in numbers[1:])]
        except (ArithmeticError, ValueError):
            self.lose()
            return first
        if isinstance(first, tuple):
            return tuple(batch_size(values, self.lose) for values in zip(*results))
        return batch_size(tuple(results), self.lose)

    return method


def _reflected(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return a function of two numbers with these exchanged."""
    return lambda own, other: function(other, own)


def _compared(function: Callable[[Any, Any], bool]) -> Callable[[Any, Any], Any]:
    """Return a method that compares the numbers of each batch."""

    def method(self: Any, other: Any) -> Any:
        values = _values(other, len(self.values))
        if values is None:
            return NotImplemented
        return _decided(self, tuple(map(function, self.values, values)))

    return method


def _converted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a method that takes the size for one sample as a plain number."""

    def method(self: Any, *args: Any) -> Any:
        self.lose()
        return function(self.values[0], *args)

    return method


def _written(function: Callable[..., str]) -> Callable[..., str]:
    """Return a method that writes the size for one sample."""

    def method(self: Any, *args: Any) -> str:
        frame = sys._getframe(1)
        if not _is_in_message(frame.f_code, frame.f_lasti):
            self.lose()
        return function(self.values[0], *args)

    return method


@lru_cache(maxsize=1024)
def _is_in_message(code: CodeType, instruction: int) -> bool:
    """Return whether the text that an instruction makes is but a part of the message of a call of `torch._assert`.

    It is composed whether or not the assertion holds. False before Python 3.11, whose code does not know its columns.
    """
    further = iter([step for step in dis.get_instructions(code) if step.offset > instruction])
    for step in further:
        if step.opname.startswith("CALL"):
            place = getattr(step, "positions", None)
            if place is None or None in place or next(further).opname != "POP_TOP":
                return False
            text = linecache.getline(code.co_filename, place.lineno).encode()[place.col_offset :]
            return text.startswith((b"torch._assert(", b"_assert("))
        if not step.opname.startswith(_COMPOSING):
            return False
    return False


_COMPOSING = ("LOAD_", "FORMAT_", "CONVERT_", "BUILD_STRING", "PRECALL", "PUSH_NULL", "EXTENDED_ARG", "KW_NAMES")
"""The instructions by which Python puts a message together."""


@lru_cache(maxsize=4096)
def asks_for_types(code: CodeType) -> bool:
    """Return whether code may ask of which class a number is: the class of these numbers is another one."""
    return not {"type", "issubclass", "SymInt"}.isdisjoint(code.co_names)


def _decided(size: Any, answers: tuple[bool, ...]) -> bool:
    """Return the answer for one sample."""
    if len(set(answers)) > 1:
        size.lose()
    return answers[0]


def _values(number: Any, count: int) -> tuple[Number, ...] | None:
    """Return the values of a number for each batch; None for what is no number."""
    if type(number) is batch_size_kind():
        values: tuple[Number, ...] = number.values
        return values
    return (number,) * count if type(number) in (int, float, bool) else None
