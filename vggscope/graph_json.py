"""Write a Network as JSON and read it back, exactly.

A record becomes an object with the name of its class and those of its fields that do not have their default. Only the
classes of graph.py and of ops/ are read, and only with values of the types that their fields declare, so a file cannot
create any other object or run code. lock_file.py writes the same objects in a form for readers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import MappingProxyType, NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from vggscope import ops
from vggscope.errors import printable
from vggscope.graph import Buffer, ConstantValue, Input, NamedTensor, Network, Node, Output, Parameter, TorchCount
from vggscope.ops.base import Op

FAMILIES = frozenset(module.name for module in iter_modules(ops.__path__)) - {"axis_maps", "base", "normal_form"}
"""The modules of ops/ whose ops are written and read."""

GraphRecord = Network | NamedTensor | Node | ConstantValue | Parameter | Buffer | TorchCount

GRAPH_RECORDS = get_args(GraphRecord)

GRAPH: Mapping[str, type[GraphRecord]] = MappingProxyType(
    {kind.__name__: kind for kind in (*GRAPH_RECORDS, Input, Output) if kind is not NamedTensor}
)

CLASS = "class"
"""The key of an object's class: `Node`, or the module and class of an op, as in `pooling.MaxPool2d`."""

_Scalar = (int, float, str, NoneType)


def to_json(network: Network) -> str:
    """Return a Network as JSON. Raises ValueError if the JSON would not read back as the same Network.

    >>> from vggscope.sources.resolve import resolve
    >>> network = resolve("A")
    >>> from_json(to_json(network)) == network
    True
    """
    text = json.dumps(encode(network), separators=(",", ":"))
    if from_json(text) != network:
        raise ValueError(f"{network.name} reads back as another network")
    return text


def from_json(text: str) -> Network:
    """Return the Network that a JSON text holds. Raises ValueError for any other text."""
    try:
        network = decode(Network, json.loads(text))
        assert isinstance(network, Network)
        check_order(network)
    except (ArithmeticError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"no network: {error}") from None
    return network


def check_order(network: Network) -> None:
    """Raise ValueError unless the names are unique and all inputs name earlier nodes."""
    before = set(network.input_names)
    for node in network.with_weight_calls.nodes:
        if node.name in before or not before.issuperset(node.inputs):
            raise ValueError(f"{node.name!r} has the name of another node, or reads one that does not come before it")
        before.add(node.name)


def encode(value: object) -> object:
    """Return a record of the graph as what json.dumps takes. Raises ValueError for any other object."""
    if isinstance(value, _Scalar):
        return value
    if isinstance(value, tuple):
        return [encode(item) for item in value]
    if isinstance(value, (Op, Network, NamedTensor, Node, ConstantValue, Parameter, Buffer, TorchCount)):
        return {CLASS: _class_name(type(value)), **{f.name: encode(getattr(value, f.name)) for f in _written(value)}}
    raise ValueError(f"{type(value).__name__} is not written")


def _written(value: Op | GraphRecord) -> Iterator[Field[object]]:
    """The fields that do not have their default, without those that belong to one run."""
    for field in fields(value):
        if not field.metadata.get("written", True):
            continue
        own = getattr(value, field.name)
        if own != field.default or type(own) is not type(field.default):
            yield field


def _class_name(cls: type) -> str:
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}" if issubclass(cls, Op) else cls.__name__


@cache
def _class_named(name: str) -> type[Op | GraphRecord]:
    if name in GRAPH:
        return GRAPH[name]
    family, _, name = name.partition(".")
    if family in FAMILIES:
        module = import_module(f"vggscope.ops.{family}")
        cls = vars(module).get(name)
        if isinstance(cls, type) and issubclass(cls, Op) and cls.__module__ == module.__name__:
            return cls
    raise _mismatch(name, "class of the graph or the ops")


@cache
def _fields(name: str) -> dict[str, object]:
    """The type of each field of a class."""
    cls = _class_named(name)
    hints = get_type_hints(cls)
    return {field.name: hints[field.name] for field in fields(cls) if field.metadata.get("written", True)}


@cache
def _required(name: str) -> frozenset[str]:
    """The fields of a class without a default. A file from before a field was added lacks others."""
    return frozenset(f.name for f in fields(_class_named(name)) if f.default is MISSING)


def decode(kind: object, value: object) -> object:
    """Convert a JSON value to a field's type. Raises ValueError if it is not of that type."""
    origin = get_origin(kind)
    if origin in (Union, UnionType):
        return _decode_either(get_args(kind), value)
    if origin is tuple and isinstance(value, list):
        return _decode_tuple(get_args(kind), value)
    if kind is object:
        return tuple(decode(object, item) for item in value) if isinstance(value, list) else _scalar(value)
    if isinstance(kind, type) and issubclass(kind, (Op, *GRAPH_RECORDS)):
        return _decode_record(kind, value)
    if type(value) is kind or (kind is float and type(value) is int):
        return _scalar(value)
    raise _mismatch(value, _type_text(kind))


def _mismatch(value: object, wanted: str) -> ValueError:
    return ValueError(f"{printable(repr(value), 60)} is no {wanted}")


def _type_text(kind: object) -> str:
    """A type as a message names it: `int`, `tuple[int, ...]`."""
    return kind.__name__ if isinstance(kind, type) and get_origin(kind) is None else str(kind)


def _scalar(value: object) -> object:
    if not isinstance(value, _Scalar):
        raise _mismatch(value, "plain value")
    return value


def _decode_either(kinds: tuple[object, ...], value: object) -> object:
    for kind in kinds:
        with suppress(ValueError):
            return decode(kind, value)
    raise _mismatch(value, " or ".join(map(_type_text, kinds)))


def _decode_tuple(kinds: tuple[object, ...], values: list[object]) -> tuple[object, ...]:
    if kinds[-1:] == (Ellipsis,):
        return tuple(decode(kinds[0], value) for value in values)
    if len(kinds) != len(values):
        raise _mismatch(values, f"row of {len(kinds)}")
    return tuple(decode(kind, value) for kind, value in zip(kinds, values))


def _decode_record(kind: type, value: object) -> object:
    named = value.get(CLASS) if isinstance(value, dict) else None
    if not isinstance(value, dict) or not isinstance(named, str):
        raise _mismatch(value, kind.__name__)
    cls = _class_named(named)
    if not issubclass(cls, kind):
        raise _mismatch(named, kind.__name__)
    kinds = _fields(named)
    given = value.keys() - {CLASS}
    if not given <= kinds.keys():
        raise ValueError(f"{named} has no {printable(min(given - kinds.keys()))!r}")
    if not _required(named) <= given:
        raise ValueError(f"{named} needs {min(_required(named) - given)!r}")
    create: Callable[..., object] = cls
    return create(**{name: _decode_field(name, kinds[name], item) for name, item in value.items() if name != CLASS})


def _decode_field(name: str, kind: object, value: object) -> object:
    """Convert the value of a field. Raises ValueError, with the field's name, if it is not of that type."""
    try:
        return decode(kind, value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
