"""The architecture of a model as a file to commit: JSON with a line for each layer, written and read back here.

The objects are those of graph_json.py. Left out are the class of a layer or of a parameter, the module of a layer that
is called once, and every field that has its default. A shared parameter has, instead of a shape, the name of the layer
that owns it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import field, replace
from math import isfinite, prod
from typing import Any

from vggscope.errors import ModelError, printable
from vggscope.graph import Buffer, ConstantValue, Input, NamedTensor, Network, Node, Output, Parameter
from vggscope.graph_json import CLASS, check_order, decode, encode
from vggscope.ops.axis_maps import Ranges
from vggscope.ops.base import Op, Shape, infer_output_shape
from vggscope.record import record
from vggscope.result import Result
from vggscope.units import ELEMENT_BYTES, shape_text

SCHEMA = "vggscope/lock@1"

LARGEST_FILE = 4 * 2**20
"""The largest file that is read, in bytes. The 2,500 layers of the largest known model take a quarter of it."""

DEEPEST = 24
"""The most lists and objects that lie in each other."""

LONGEST_TEXT = 2000
"""The most characters of a name or another text."""

LARGEST_NUMBER = 2**63
"""Larger numbers are no sizes of a tensor."""

MOST_LAYERS = 10_000
"""The most layers that are read."""

MOST_POSITIONS = 2**19
"""The most positions of layers whose receptive field is found position by position, such as transposed convolutions."""

NAMED_UNTIL = "named_until"
"""The key of what `memory` alone reads. It stands after the layers: it changes with the names of variables."""

_RECORDS: dict[str, type] = {
    "inputs": Input,
    "layers": Node,
    "returned": Output,
    "tables": Buffer,
    "constants": ConstantValue,
}
"""The lists of records in a lock, with their classes."""

_NOT_WRITTEN = (CLASS, "name", "inputs", "nodes", "returned", "tables", "unused")
"""The fields of a Network that have a place of their own in a lock."""


@record
class Lock(Result):
    """The architecture of `network`. `save("arch.json")` writes the file that is also a MODEL word.

    `network` has nothing that depends on one run, such as recorded steps and notes on how the inputs were chosen.
    """

    schema: str
    model: str
    network: Network = field(metadata={"json": False})

    @property
    def json_text(self) -> str:
        """The text of the file.

        >>> import vggscope
        >>> print(vggscope.lock("conv3-8 FC-10", input_size=(3, 8, 8)).json_text.splitlines()[7][4:54])
        {"name": "features.0", "label": "conv1_1", "op": {
        """
        return to_text(self.network)


def lock(network: Network) -> Lock:
    """Return the lock of a network.

    Raises ShapeError if its forward pass fails, and ModelError if it cannot be written so that it reads back the same.
    """
    network = replace(network.require_runnable(), steps=(), torch_count=None, given_batch=1, warnings=())
    network = replace(network, name=network.name[:LONGEST_TEXT])
    locked = Lock(SCHEMA, network.name, network)
    try:
        text = locked.json_text
        same = encode(from_text(text)) == encode(network) and len(text) <= LARGEST_FILE
    except ValueError as error:
        raise ModelError(f"{printable(network.name)} cannot be locked: {error}") from None
    if not same:
        raise ModelError(f"{printable(network.name)} cannot be locked: it is too large, or does not read back the same")
    return locked


def to_text(network: Network) -> str:
    """Return a network as the text of a lock."""
    encoded: Any = encode(network)
    lists = {
        "inputs": [_without_class(item) for item in encoded["inputs"]],
        "layers": list(_layers(network, encoded["nodes"])),
        "returned": [_without_class(item) for item in encoded.get("returned", ())],
        "tables": [_without_class(item) for item in encoded.get("tables", ())],
        "unused": [{**_without_class(item), "why": why} for item, why in encoded.get("unused", ())],
    }
    rest = {name: value for name, value in encoded.items() if name not in _NOT_WRITTEN}
    named_until = {node.name: node.named_until for node in network.nodes if node.named_until}
    values = {"schema": SCHEMA, "model": network.name, **{name: rows for name, rows in lists.items() if rows}, **rest}
    if named_until:
        values[NAMED_UNTIL] = named_until
    return "{\n" + ",\n".join(f"  {json.dumps(name)}: {_value_text(value)}" for name, value in values.items()) + "\n}\n"


def _value_text(value: object) -> str:
    """A value on one line; a list of objects with a line for each."""
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return "[\n" + ",\n".join(f"    {json.dumps(item)}" for item in value) + "\n  ]"
    return json.dumps(value)


def _without_class(encoded: Any) -> dict[str, Any]:
    return {name: value for name, value in encoded.items() if name != CLASS}


_FIRST = ("name", "label", "op", "inputs", "output_shape", "parameters", "module")
"""The order of a layer's fields; the others follow."""


def _layers(network: Network, encoded: list[Any]) -> Iterator[dict[str, Any]]:
    owners: dict[str, str] = {}
    for node, item in zip(network.nodes, encoded):
        layer = {**_without_class(item), "output_shape": list(network.shapes[node.name])}
        layer.pop(NAMED_UNTIL, None)
        layer.pop("module", None)
        if node.constants:
            layer["constants"] = [_without_class(constant) for constant in layer["constants"]]
        if node.module != node.name:
            layer["module"] = node.module
        if node.parameters:
            layer["parameters"] = {
                parameter.name: owners.get(parameter.name) or _parameter(parameter) for parameter in node.parameters
            }
        owners.update({p.name: node.name for p in node.parameters if p.name not in owners})
        known = {name: layer.pop(name) for name in _FIRST if name in layer}
        yield {**known, **layer}


def _parameter(parameter: Parameter) -> object:
    """A parameter's shape, or an object with the other fields that do not have their default."""
    encoded = _without_class(encode(parameter))
    del encoded["name"]
    return encoded["shape"] if len(encoded) == 1 else encoded


def from_text(text: str) -> Network:
    """Return the Network of a lock's text. Raises ValueError, with the place, for any other text."""
    return from_values(parse(text))


def parse(text: str) -> dict[str, Any]:
    """Return the object that a JSON text holds.

    Raises ValueError for other JSON, a key that stands twice in an object, and what no lock has: numbers that are no
    sizes, texts of thousands of characters, deep nesting.
    """
    try:
        values = json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_number, object_pairs_hook=_object
        )
    except RecursionError:
        raise ValueError(f"objects lie more than {DEEPEST} deep in each other") from None
    if not isinstance(values, dict):
        raise _wrong("it is JSON, but no object")
    _check_values(values)
    return values


def _wrong(text: str) -> ValueError:
    """The error for a value of another type than the place where it stands takes."""
    return ValueError(text)


def _integer(text: str) -> int:
    number = int(text) if len(text) <= 20 else LARGEST_NUMBER
    if not -LARGEST_NUMBER < number < LARGEST_NUMBER:
        raise ValueError(f"the number {text:.20}... is too large")
    return number


def _number(text: str) -> float:
    number = float(text)
    if not isfinite(number):
        raise ValueError(f"{text:.20} is no number")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the key {printable(twice)!r} stands twice in an object")
    return values


def _check_values(values: object) -> None:
    """Raise ValueError for a text that is too long or is no Unicode, and for objects that lie too deep."""
    level = [values]
    for _ in range(DEEPEST):
        deeper: list[Any] = []
        for value in level:
            if isinstance(value, str):
                _check_text(value)
            elif isinstance(value, dict):
                deeper += value.keys()
                deeper += value.values()
            elif isinstance(value, list):
                deeper += value
        if not deeper:
            return
        level = deeper
    raise ValueError(f"objects lie more than {DEEPEST} deep in each other")


def _check_text(text: str) -> None:
    if len(text) > LONGEST_TEXT:
        raise ValueError(f"the text {printable(text, 40)!r} has {len(text):,} characters")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{printable(text)!r} is not valid Unicode text") from None


def from_values(values: dict[str, Any]) -> Network:
    """Return the Network of a lock's object. Raises ValueError, with the place, for any other object."""
    if values.get("schema") != SCHEMA:
        raise ValueError(f"its schema is {printable(repr(values.get('schema')))}, not {SCHEMA!r}")
    try:
        network = _network(dict(values))
        _check_network(network)
        check_order(network)
        _check_shapes(network, values["layers"])
    except (ArithmeticError, AttributeError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(f"its fields do not fit together: {type(error).__name__}: {error}") from None
    return network


def _network(values: dict[str, Any]) -> Network:
    del values["schema"]
    named_until = values.pop(NAMED_UNTIL, {})
    if not isinstance(named_until, dict):
        raise _wrong(f"{NAMED_UNTIL} is no object")
    name, layers = values.pop("model", None), values.pop("layers", None)
    lists = {key: _records(key, values.pop(key, [])) for key in ("inputs", "returned", "tables")}
    nodes = tuple(_nodes(_rows("layers", layers), named_until))
    unused = [_unused(row) for row in _rows("unused", values.pop("unused", []))]
    known = {"name": name, **lists, "nodes": [], "unused": unused}
    network = decode(Network, {**values, **known, CLASS: "Network"})
    assert isinstance(network, Network)
    return replace(network, nodes=nodes)


def _rows(key: str, rows: object) -> list[dict[str, Any]]:
    """The objects of a list. Raises ValueError for anything else, and for an object that names a class."""
    if not isinstance(rows, list) or not all(isinstance(row, dict) and CLASS not in row for row in rows):
        raise ValueError(f"{key} is no list of objects" if rows is not None else f"{key} is missing")
    return rows


def _records(key: str, rows: object) -> list[dict[str, Any]]:
    return [{**row, CLASS: _RECORDS[key].__name__} for row in _rows(key, rows)]


def _unused(row: dict[str, Any]) -> list[Any]:
    row = dict(row)
    why = row.pop("why", None)
    return [{**row, CLASS: "Parameter"}, why]


def _nodes(layers: list[dict[str, Any]], named_until: dict[str, Any]) -> Iterator[Node]:
    """Yield the layers. Raises ValueError, with the layer, for one that is none."""
    if len(layers) > MOST_LAYERS:
        raise ValueError(f"it has {len(layers):,} layers, at most {MOST_LAYERS:,} are read")
    owners: dict[tuple[str, str], Any] = {}
    for number, row in enumerate(layers, 1):
        layer = dict(row)
        name = layer.get("name")
        if not isinstance(name, str):
            raise _wrong(f"layer {number} has no name")
        layer.pop("output_shape", None)
        layer.setdefault("module", name)
        layer["parameters"] = list(_parameters(name, layer.get("parameters", {}), owners))
        layer["constants"] = _records("constants", layer.get("constants", []))
        try:
            node = decode(Node, {NAMED_UNTIL: named_until.get(name, ""), **layer, CLASS: "Node"})
        except ValueError as error:
            raise ValueError(f"{printable(name)}: {error}") from None
        assert isinstance(node, Node)
        yield node


def _parameters(layer: str, given: object, owners: dict[tuple[str, str], Any]) -> Iterator[dict[str, Any]]:
    """Yield a layer's parameters; one that an earlier layer has is copied from there."""
    if not isinstance(given, dict):
        raise _wrong(f"{printable(layer)}: parameters are no object")
    for name, value in given.items():
        if isinstance(value, str):
            if (value, name) not in owners:
                raise ValueError(f"{printable(layer)}: no earlier layer {printable(value)!r} has {printable(name)!r}")
            parameter = dict(owners[value, name])
        elif isinstance(value, dict) and not {CLASS, "name"} & value.keys():
            parameter = {**value, "name": name, CLASS: "Parameter"}
        else:
            parameter = {"name": name, "shape": value, CLASS: "Parameter"}
        owners[layer, name] = dict(parameter)
        yield parameter


def _check_network(network: Network) -> None:
    """Raise ValueError for names, dtypes and sizes that no network has."""
    if not network.inputs:
        raise ValueError("it has no inputs")
    known = {*network.input_names, *(node.name for node in network.nodes)}
    names = [network.output, *(out.source for out in network.returned)]
    missing = next((name for name in names if name and name not in known), None)
    if missing is not None:
        raise ValueError(f"there is no layer {printable(missing)!r}")
    tensors: list[NamedTensor | Parameter | Buffer] = [*network.inputs, *network.returned, *network.tables]
    tensors += network.parameters()
    dtypes = {network.dtype, *(t.dtype for t in tensors), *(node.dtype for node in network.nodes)} - {""}
    if not dtypes <= ELEMENT_BYTES.keys():
        raise ValueError(f"unknown dtype {printable(next(iter(dtypes - ELEMENT_BYTES.keys())))!r}")
    for tensor in tensors:
        _check_shape(tensor.name, tensor.shape)
    for argument in (*network.inputs, *network.returned):
        _check_growth(argument.name, argument.batch_growth, argument.shape)
    kept: list[Parameter | Buffer] = [*network.tables, *network.parameters()]
    for stored in kept:
        if min(stored.stored or 0, stored.index_bytes) < 0:
            raise ValueError(f"{printable(stored.name)}: a negative size makes no sense")


def _check_shape(name: str, shape: Shape) -> None:
    if any(side < 0 for side in shape) or prod(shape) >= LARGEST_NUMBER:
        raise ValueError(f"{printable(name)}: a tensor of {shape_text(shape)} makes no sense")


def _check_growth(name: str, growth: Shape | None, shape: Shape) -> None:
    if growth is not None and len(growth) != len(shape):
        raise ValueError(f"{printable(name)}: batch_growth has {len(growth)} axes, the tensor {len(shape)}")


def _check_shapes(network: Network, layers: list[dict[str, Any]]) -> None:
    """Raise ValueError, with the layer, if an output shape is not the one that the rule of the layer's op gives."""
    shapes: dict[str, Shape] = {given.name: given.shape for given in network.inputs}
    positions = 0
    for node, layer in zip(network.nodes, layers):
        try:
            for call in (*node.weight_calls, node):
                read = tuple(shapes[name] for name in call.inputs)
                output = infer_output_shape(call.op, *read)
                _check_shape(call.name, output)
                positions += _positions(call.op, read, output, MOST_POSITIONS - positions)
                _check_op(call, read, output)
                _check_growth(call.name, call.batch_growth, output)
                shapes[call.name] = output
        except Exception as error:  # the fields of an op have their types, but any values
            (reason, *_) = str(error).splitlines() or [type(error).__name__]
            raise ValueError(f"{printable(node.name)}: {printable(reason, 200)}") from None
        if layer.get("output_shape") != list(output):
            recorded = printable(json.dumps(layer.get("output_shape")))
            raise ValueError(f"{printable(node.name)}: output_shape is {recorded}, its op gives {list(output)}")
    for out in network.returned:
        if out.source and out.shape != shapes[out.source]:
            raise ValueError(f"{printable(out.name)}: its shape is not that of {printable(out.source)}")


def _check_op(node: Node, inputs: tuple[Shape, ...], output: Shape) -> None:
    """Raise any error if the op's rules do not take its fields."""
    for op in filter(None, (node.op, node.batched_op)):
        op.parameters(), op.buffers(), op.arguments()
        op.macs(inputs, output), op.other_operations(inputs, output), op.saved_for_backward(inputs, output)
        op.window(inputs[0][2:]) if inputs else None


def _positions(op: Op, inputs: tuple[Shape, ...], output: Shape, most: int) -> int:
    """The positions for which a receptive field computes what each of them reads; 0 for an op with a regular window.

    Raises ValueError if there are more than `most`.
    """
    if op.is_pointwise or op.is_layout or not inputs:
        return 0
    if not op.is_adaptive and op.window(inputs[0][2:]) is not None:
        return 0
    count = sum(output[1:]) * max((*getattr(op, "kernel_size", ()), 1))
    if count > most:
        raise ValueError(f"its output of {shape_text(output)} is too large to compute a receptive field")
    maps = op.reads(inputs, output) or ()
    along = [place for axes in maps for place in axes.values() if place is not None]
    return count if any(isinstance(reading, Ranges) for _, reading in along) else 0
