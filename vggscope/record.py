"""Frozen data: what `dataclass(frozen=True)` gives, in a tenth of the time that it takes to make the class.

A dataclass writes and compiles the methods of each class anew, half a millisecond a class, and a command loads dozens
of classes before it does anything. Here all classes share their methods. `dataclasses.field`, `fields` and `replace`
work as ever, and so does whatever else knows dataclasses.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import MISSING, Field, FrozenInstanceError, dataclass, field, fields
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from typing_extensions import dataclass_transform
else:

    def dataclass_transform(**_: object) -> Callable[[object], object]:
        """For type checkers alone; typing has it from Python 3.11 on."""
        return lambda decorator: decorator


Class = TypeVar("Class", bound=type)


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def record(cls: Class) -> Class:
    """Make a class of annotated fields a frozen one: equal where its fields are equal, with a repr that names them.
    What the class or a base defines itself is kept.

    >>> @record
    ... class Point:
    ...     x: int
    ...     y: int = 0
    >>> Point(3), Point(3) == Point(3, 0), Point(3) == (3, 0)
    (Point(x=3, y=0), True, False)
    """
    own = {name for base in cls.__mro__[:-1] for name in vars(base)}
    made: Any = dataclass(init=False, repr=False, eq=False, match_args=False)(cls)
    made.__record__ = _Shape(fields(made))
    for method in (_init, _repr, _eq, _hash, _setattr, _delattr):
        name = f"__{method.__name__.lstrip('_')}__"
        if name not in own:
            setattr(made, name, method)
    found: Class = made
    return found


class _Shape:
    """What the shared methods have to know of a class: worked out once, when it is made."""

    def __init__(self, known: tuple[Field[Any], ...]) -> None:
        self.positional = tuple(f.name for f in known if not f.kw_only)
        self.names = tuple(f.name for f in known)
        self.defaults = {f.name: f.default for f in known if f.default is not MISSING}
        self.factories = {f.name: f.default_factory for f in known if f.default_factory is not MISSING}
        self.shown = tuple(f.name for f in known if f.repr)
        self.compared = tuple(f.name for f in known if f.compare)


def _init(self: Any, *values: object, **named: object) -> None:
    shape: _Shape = self.__record__
    state = self.__dict__
    if len(values) > len(shape.positional):
        raise TypeError(f"{type(self).__name__} takes {len(shape.positional)} values, {len(values)} were given")
    state.update(zip(shape.positional, values))
    for name in named:
        if name in state or name not in shape.names:
            raise TypeError(f"{type(self).__name__} got {name!r} twice" if name in state else _unknown(self, name))
    state.update(named)
    if len(state) < len(shape.names):
        _fill(self, shape, state)
    if hasattr(self, "__post_init__"):
        self.__post_init__()


def _fill(self: object, shape: _Shape, state: dict[str, object]) -> None:
    """The fields that were not given, from their defaults, in the order in which they are declared."""
    for name in shape.names:
        if name not in state:
            if name in shape.defaults:
                state[name] = shape.defaults[name]
            elif name in shape.factories:
                state[name] = shape.factories[name]()
            else:
                raise TypeError(f"{type(self).__name__} needs a value for {name!r}")


def _unknown(self: object, name: str) -> str:
    return f"{type(self).__name__} has no field {name!r}"


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__record__.shown)
    return f"{type(self).__qualname__}({shown})"


def _eq(self: Any, other: Any) -> bool:
    if type(other) is not type(self):
        return False
    shape: _Shape = self.__record__
    mine, theirs = self.__dict__, other.__dict__
    return all(mine[name] == theirs[name] for name in shape.compared)


def _hash(self: Any) -> int:
    state = self.__dict__
    return hash((type(self), *(state[name] for name in self.__record__.compared)))


def _setattr(self: object, name: str, value: object) -> None:
    raise FrozenInstanceError(f"cannot assign to field {name!r}")


def _delattr(self: object, name: str) -> None:
    raise FrozenInstanceError(f"cannot delete field {name!r}")
