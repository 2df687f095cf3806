"""An ONNX file as records: its graph, functions and tensors, without the data of the weights.

The schema is onnx/onnx.proto3 of github.com/onnx/onnx, of which the fields that a Network needs are decoded. The data
of a tensor is read only when its values are asked for, as those of a shape are, and only if they are few.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import field, replace
from math import prod
from types import MappingProxyType
from typing import Any

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.protobuf import Field, Message, ProtobufFile, Schema, Span
from vggscope.errors import CheckpointError, printable
from vggscope.graph import ConstantValue
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

MOST_NODES = 20_000
"""The most nodes that are read. Those of the largest exported models have 10,000."""

MOST_VALUES = 4096
"""The most values of a tensor that are read: shapes, axes and numbers have fewer."""

MOST_BYTES = 2**30
"""The most bytes of larger constants that are read, of all together."""

LARGEST_SIZE = 2**63
"""A tensor with so many elements makes no sense."""

DTYPES: Mapping[int, str] = MappingProxyType(
    {
        **{1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 9: "bool"},
        **{10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128"},
        **{16: "bfloat16", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz"},
        **{21: "uint4", 22: "int4", 24: "float8_e8m0fnu", 25: "uint2", 26: "int2"},
    }
)
"""torch's names of the element types in TensorProto.DataType. Missing are text (8) and float4e2m1 (23)."""

_PACKED = {"uint4": 2, "int4": 2, "uint2": 4, "int2": 4}
"""The types of which a byte holds several elements."""

_FORMATS = {
    **{"float32": "f", "uint8": "B", "int8": "b", "uint16": "H", "int16": "h", "int32": "i", "int64": "q"},
    **{"bool": "?", "float16": "e", "float64": "d", "uint32": "I", "uint64": "Q"},
}
"""How `struct` reads one element of raw_data."""

_METADATA: Schema = {1: Field("key", "text"), 2: Field("value", "span")}
_EXTERNAL: Schema = {1: Field("key", "text"), 2: Field("value", "text")}

_TENSOR: Schema = {
    1: Field("dims", "int", repeated=True),
    2: Field("dtype", "int"),
    **{number: Field(key, "span") for number, key in {4: "f", 5: "i", 7: "q", 9: "raw", 10: "d", 11: "u"}.items()},
    8: Field("name", "text"),
    13: Field("external", _EXTERNAL, repeated=True),
    14: Field("location", "int"),
}
_SPARSE: Schema = {1: Field("values", _TENSOR), 2: Field("indices", _TENSOR)}

_DIMENSION: Schema = {1: Field("value", "int"), 2: Field("symbol", "text")}
_TYPE: Schema = {
    1: Field("tensor", {1: Field("dtype", "int"), 2: Field("shape", {1: Field("dim", _DIMENSION, repeated=True)})})
}
_VALUE: Schema = {1: Field("name", "text"), 2: Field("type", _TYPE)}

_ATTRIBUTE: dict[int, Field] = {
    1: Field("name", "text"),
    2: Field("f", "float"),
    3: Field("i", "int"),
    4: Field("s", "text"),
    5: Field("t", _TENSOR),
    7: Field("floats", "float", repeated=True),
    8: Field("ints", "int", repeated=True),
    9: Field("strings", "text", repeated=True),
    10: Field("tensors", _TENSOR, repeated=True),
    22: Field("sparse", _SPARSE),
    23: Field("sparses", _SPARSE, repeated=True),
    20: Field("type", "int"),
    21: Field("reference", "text"),
}

_NODE: Schema = {
    1: Field("inputs", "text", repeated=True),
    2: Field("outputs", "text", repeated=True),
    3: Field("name", "text"),
    4: Field("op_type", "text"),
    5: Field("attributes", _ATTRIBUTE, repeated=True),
    7: Field("domain", "text"),
    9: Field("metadata", _METADATA, repeated=True),
}

_GRAPH: Schema = {
    1: Field("nodes", _NODE, repeated=True),
    2: Field("name", "text"),
    5: Field("initializers", _TENSOR, repeated=True),
    11: Field("inputs", _VALUE, repeated=True),
    12: Field("outputs", _VALUE, repeated=True),
    13: Field("values", _VALUE, repeated=True),
    15: Field("sparse", _SPARSE, repeated=True),
}
_ATTRIBUTE[6] = Field("graph", _GRAPH)
_ATTRIBUTE[11] = Field("graphs", _GRAPH, repeated=True)

_OPSET: Schema = {1: Field("domain", "text"), 2: Field("version", "int")}

_FUNCTION: Schema = {
    1: Field("name", "text"),
    4: Field("inputs", "text", repeated=True),
    5: Field("outputs", "text", repeated=True),
    7: Field("nodes", _NODE, repeated=True),
    10: Field("domain", "text"),
    11: Field("defaults", _ATTRIBUTE, repeated=True),
}

_MODEL: Schema = {
    1: Field("ir_version", "int"),
    7: Field("graph", _GRAPH),
    8: Field("opsets", _OPSET, repeated=True),
    25: Field("functions", _FUNCTION, repeated=True),
}

_KINDS = {1: "f", 2: "i", 3: "s", 4: "t", 5: "graph", 6: "floats", 7: "ints", 8: "strings"}
"""The key of an attribute's value, by AttributeProto.AttributeType."""

_SCOPES = "pkg.torch.onnx.name_scopes"
"""The metadata in which torch's exporter notes the module path of a node."""

STANDARD = ("", "ai.onnx")
"""The names of the domain of ONNX's own ops."""


@record
class OnnxTensor:
    """A tensor of the file. `dtype` is torch's name, empty for a type that torch does not have.

    `data` is where its values lie in the file, with their encoding: `raw`, or the key of a typed field. It is None if
    they lie in another file or nowhere. `location` is that other file's path, and `external` the part of it; a length
    of -1 is that of the values.
    """

    name: str
    shape: Shape
    dtype: str
    data: tuple[str, Span] | None = None
    location: str = ""
    external: Span | None = None

    @property
    def stored(self) -> int | None:
        """The number of bytes of elements that share a byte; None for other types."""
        per_byte = _PACKED.get(self.dtype)
        return None if per_byte is None else -(-prod(self.shape) // per_byte)


@record
class ValueInfo:
    """What the file says of a value: a size, a symbol or None (unknown) for each axis; None without any axes stated."""

    name: str
    axes: tuple[int | str | None, ...] | None
    dtype: str


@record
class OnnxNode:
    """A node of the graph. `reads` are the values of an outer graph that its own graphs read, and `holds` the tensors
    that these have, each after the name of its graph; `scope` is the path of the torch module that it was exported
    from, and `exported` the name of the call in that, empty if the file does not tell.
    """

    name: str
    op_type: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(compare=False, default_factory=dict)
    references: tuple[tuple[str, str], ...] = ()
    scope: str = ""
    reads: tuple[str, ...] = ()
    exported: str = ""
    holds: tuple[OnnxTensor, ...] = ()

    @property
    def title(self) -> str:
        """The node for a message: its op, and its name if it has one."""
        op = self.op_type if self.domain in STANDARD else f"{self.domain}.{self.op_type}"
        return printable(f"{self.name} ({op})" if self.name else op)


@record
class OnnxFunction:
    """A function of the file, which nodes call by its domain and name. `defaults` are the values of its attributes."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[OnnxNode, ...]
    defaults: Mapping[str, Any]


@record
class OnnxModel:
    """The graph of a file. `opset` is the version of ONNX's own ops.

    `inner_locations` are the files in which tensors other than `initializers` lie: those of attributes, of inner graphs
    and of sparse tensors. `path` is the file's own. `contents` is what is known of larger constants, by their place.
    """

    file: ProtobufFile
    opset: int
    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[OnnxNode, ...]
    initializers: Mapping[str, OnnxTensor]
    values: Mapping[str, ValueInfo]
    functions: Mapping[tuple[str, str], OnnxFunction]
    inner_locations: frozenset[str] = frozenset()
    path: str = field(default="", compare=False)
    contents: dict[str, ConstantValue] = field(default_factory=dict, compare=False)
    _known: dict[str, tuple[int | float | bool, ...] | None] = field(default_factory=dict, compare=False)
    _spent: list[int] = field(default_factory=lambda: [0], compare=False)

    def numbers(self, tensor: OnnxTensor) -> tuple[int | float | bool, ...] | None:
        """The values of a small tensor; None for those that are many, elsewhere, or of a type without a format."""
        count = prod(tensor.shape)
        if tensor.data is None or count > MOST_VALUES:
            return None if count or tensor.location else ()
        key, span = tensor.data
        place = f"{key} {span.start} {span.length} {tensor.dtype} {count}"
        if place not in self._known:  # kept: they are asked for again when the file is closed
            try:
                self._known[place] = _numbers(self.file, key, span, tensor.dtype, count)
            except struct.error:
                self._known[place] = None
        return self._known[place]

    def bytes_of(self, tensor: OnnxTensor) -> bytes | None:
        """The elements of a tensor as bytes, little-endian; None where they are missing or damaged.

        The caller bounds their number. No more than MOST_BYTES are read of all tensors.
        """
        count = prod(tensor.shape)
        size = tensor.stored if tensor.stored is not None else count * ELEMENT_BYTES.get(tensor.dtype, 0)
        self._spent[0] += size
        if self._spent[0] > MOST_BYTES:
            return None
        try:
            if tensor.location:
                return _external_bytes(self.path, tensor, size)
            key, span = tensor.data or ("", Span(0, 0))
            if key == "raw" or {"f": "float32", "d": "float64"}.get(key) == tensor.dtype:
                return self.file.bytes_of(span) if span.length == size else None
            code = "H" if tensor.dtype in ("float16", "bfloat16") else element_format(tensor.dtype)
            numbers = self.file.integers(span) if key and code and span.length <= 10 * count else []
            return struct.pack(f"<{count}{code}", *numbers)
        except (CheckpointError, OSError, struct.error):
            return None


def _external_bytes(path: str, tensor: OnnxTensor, size: int) -> bytes | None:
    """The part of another file that a tensor's data is. Raises CheckpointError or OSError for one that has none."""
    span = tensor.external
    if span is None or span.length not in (-1, size):
        return None
    data = bytearray(size)
    with BoundedFile(file_beside(path, tensor.location)) as file:
        file.fill(memoryview(data), span.start)
    return bytes(data)


def file_beside(path: str, location: str) -> str:
    """The path of a file of external data. Raises CheckpointError for a location or a link that leads out of the folder
    of the file, or, where that is itself a link, of the folder that it leads to.
    """
    parts = location.replace("\\", "/").split("/")
    is_outside = location.startswith(("/", "\\")) or ".." in parts or ":" in location or "\0" in location
    beside = os.path.join(os.path.dirname(path), *parts)
    if not is_outside:
        folders = (os.path.realpath(os.path.dirname(path) or "."), os.path.dirname(os.path.realpath(path)))
        target = os.path.realpath(beside)
        is_outside = not any(target.startswith(os.path.join(folder, "")) for folder in folders)
    if is_outside:
        problem = f"its weights are to be in {printable(location, 120)}, outside its folder"
        raise CheckpointError(problem, "it is damaged or malicious")
    return beside


def element_format(dtype: str) -> str:
    """How `struct` packs an element; empty for a dtype that it does not know.

    >>> element_format("int64"), element_format("bfloat16")
    ('q', '')
    """
    return _FORMATS.get(dtype, "")


def read_model(file: BoundedFile) -> OnnxModel:
    """The model of an open file. It reads the values of constants while that is open.

    Raises CheckpointError, without the path, where it is none or too large.
    """
    source = ProtobufFile(file)
    message = source.decode(_MODEL)
    if "graph" not in message:
        raise CheckpointError("it holds no ONNX graph", "write it with torch.onnx.export or onnx.save")
    graph = message["graph"]
    if len(graph.get("nodes", ())) > MOST_NODES:
        raise CheckpointError(f"it has {len(graph['nodes']):,} nodes, at most {MOST_NODES:,} are read")
    reader = _MessageReader(source)
    tensors = {t.name: t for t in map(_tensor, graph.get("initializers", ()))}
    tensors |= {t.name: t for t in (_tensor(item.get("values", {})) for item in graph.get("sparse", ()))}
    if len(tensors) < len(graph.get("initializers", ())):
        raise CheckpointError("two of its initializers have the same name", "it is damaged")
    opsets = {item.get("domain", ""): item.get("version", 1) for item in message.get("opsets", ())}
    return OnnxModel(
        source,
        opset=next((opsets[name] for name in STANDARD if name in opsets), 1),
        inputs=tuple(v for v in map(_value_info, graph.get("inputs", ())) if v.name not in tensors),
        outputs=tuple(map(_value_info, graph.get("outputs", ()))),
        nodes=tuple(map(reader.node, graph.get("nodes", ()))),
        initializers=tensors,
        values={v.name: v for v in map(_value_info, graph.get("values", ()))},
        functions=dict(map(reader.function, message.get("functions", ()))),
        inner_locations=frozenset(
            place
            for key, value in ({**message, **graph, "graph": ()}).items()
            if key != "initializers"
            for place in _locations(value)
        ),
        path=file.path,
    )


def _locations(value: object) -> Iterator[str]:
    """The files in which the tensors of a message lie."""
    if isinstance(value, list):
        for item in value:
            yield from _locations(item)
    elif isinstance(value, dict):
        if value.get("external") or value.get("location"):
            yield _external(value)[0]
        for item in value.values():
            yield from _locations(item)


class _MessageReader:
    """Converts messages to records. A node's metadata is read from the file."""

    def __init__(self, source: ProtobufFile) -> None:
        self._source = source

    def node(self, message: Message) -> OnnxNode:
        attributes = message.get("attributes", ())
        scope, exported = self._scope(message)
        graphs = [item["graph"] for item in attributes if "graph" in item]
        return OnnxNode(
            message.get("name", ""),
            message.get("op_type", ""),
            message.get("domain", ""),
            tuple(message.get("inputs", ())),
            tuple(message.get("outputs", ())),
            dict(map(_attribute, attributes)),
            tuple((item.get("name", ""), item["reference"]) for item in attributes if item.get("reference")),
            scope,
            tuple(dict.fromkeys(name for graph in graphs for name in _outer_reads(graph))),
            exported,
            tuple(
                tensor
                for item in attributes
                if "graph" in item
                for tensor in _held(item["graph"], item.get("name", ""))
            ),
        )

    def function(self, message: Message) -> tuple[tuple[str, str], OnnxFunction]:
        function = OnnxFunction(
            tuple(message.get("inputs", ())),
            tuple(message.get("outputs", ())),
            tuple(map(self.node, message.get("nodes", ()))),
            dict(map(_attribute, message.get("defaults", ()))),
        )
        return (message.get("domain", ""), message.get("name", "")), function

    def _scope(self, message: Message) -> tuple[str, str]:
        """The path of the module that a node was exported from, and the name of the call in it."""
        for entry in message.get("metadata", ()):
            span = entry.get("value")
            if entry.get("key") == _SCOPES and span is not None and span.length <= MOST_VALUES:
                # A list of paths, each within the one before; the last is the node's own name.
                paths = re.findall(r"'([^']*)'", self._source.bytes_of(span).decode("utf-8", "replace"))
                return (paths[-2], paths[-1]) if len(paths) > 1 else ("", "")
        return _scope_in_name(message.get("name", ""), message.get("op_type", "")), ""


def _scope_in_name(name: str, op_type: str) -> str:
    """The module path in a name of torch's TorchScript exporter, such as /layer1/layer1.0/conv1/Conv."""
    first, *parts = name.split("/")
    if first or not parts or not re.fullmatch(rf"{re.escape(op_type)}(_\d+)?", parts[-1]):
        return ""
    path, before = "", ""
    for part in parts[:-1]:
        # A Sequential's child repeats the name of the Sequential.
        own = part.removeprefix(f"{before}.") if before else part
        path = f"{path}.{own}" if path else own
        before = part
    return path


def _outer_reads(graph: Message) -> Iterator[str]:
    """The values that a node's own graph reads and does not compute."""
    known = {item.get("name") for item in (*graph.get("inputs", ()), *graph.get("initializers", ()))}
    for node in graph.get("nodes", ()):
        inner = (item["graph"] for item in node.get("attributes", ()) if "graph" in item)
        for name in (*node.get("inputs", ()), *(read for child in inner for read in _outer_reads(child))):
            if name and name not in known:
                yield name
        known.update(node.get("outputs", ()))


def _held(graph: Message, prefix: str) -> Iterator[OnnxTensor]:
    """The initializers and constants of a node's own graph, and of the graphs in that."""
    for item in graph.get("initializers", ()):
        yield replace(_tensor(item), name=f"{prefix}.{item.get('name', '')}")
    for place, node in enumerate(graph.get("nodes", ())):
        for item in node.get("attributes", ()):
            if "graph" in item:
                yield from _held(item["graph"], f"{prefix}.{place}.{item.get('name', '')}")
            elif "t" in item and node.get("op_type") == "Constant":
                yield replace(_tensor(item["t"]), name=f"{prefix}.{next(iter(node.get('outputs', ())), place)}")


def _attribute(message: Message) -> tuple[str, Any]:
    """The name and the value of an attribute. Files of old tools do not name its type."""
    name = message.get("name", "")
    number = message.get("type", 0)
    key = _KINDS.get(number) or next((key for key in _KINDS.values() if key in message), "i")
    if key == "t":
        return name, _tensor(message.get("t", {}))
    if key == "graph" or (number and number not in _KINDS):
        return name, None  # lists of tensors and of graphs, which no rule reads
    empty: object = () if key in ("floats", "ints", "strings") else {"f": 0.0, "i": 0, "s": ""}[key]
    value = message.get(key, empty)
    return name, tuple(value) if isinstance(value, list) else value


def _tensor(message: Message) -> OnnxTensor:
    name, shape = message.get("name", ""), tuple(message.get("dims", ()))
    if any(side < 0 for side in shape) or prod(shape) >= LARGEST_SIZE:
        raise CheckpointError(f"{printable(name)}: a tensor of {printable(str(shape))} makes no sense", "it is damaged")
    dtype = DTYPES.get(message.get("dtype", 0), "")
    data = next(((key, message[key]) for key in ("raw", "f", "i", "q", "d", "u") if key in message), None)
    if not message.get("location"):
        return OnnxTensor(name, shape, dtype, data)
    location, span = _external(message)
    return OnnxTensor(name, shape, dtype, location=location, external=span)


def _external(message: Message) -> tuple[str, Span | None]:
    """The file in which a tensor's data lies, and the part of it; None if the numbers make no sense."""
    entries = {item.get("key", ""): item.get("value", "") for item in message.get("external", ())}
    location = entries.get("location") or "another file"
    numbers = [entries.get("offset") or "0", entries.get("length") or "-1"]
    if not all(re.fullmatch(r"-1|[0-9]{1,18}", number) for number in numbers) or numbers[0] == "-1":
        return location, None
    return location, Span(*map(int, numbers))


def _value_info(message: Message) -> ValueInfo:
    tensor = message.get("type", {}).get("tensor", {})
    axes = None
    if "shape" in tensor:
        axes = tuple(_axis(item) for item in tensor["shape"].get("dim", ()))
    return ValueInfo(message.get("name", ""), axes, DTYPES.get(tensor.get("dtype", 0), ""))


def _axis(message: Message) -> int | str | None:
    value = message.get("value")
    if value is not None and 0 <= value < 2**40:
        return int(value)
    return message.get("symbol") or None


def _numbers(file: ProtobufFile, key: str, span: Span, dtype: str, count: int) -> tuple[int | float | bool, ...] | None:
    """The values of a tensor in its file; None if the length is not that of `count` values."""
    if key == "raw":
        width = struct.calcsize(f"<{_FORMATS[dtype]}") if dtype in _FORMATS else 0
        if not width or span.length != count * width:
            return None
        return struct.unpack(f"<{count}{_FORMATS[dtype]}", file.bytes_of(span))
    if span.length > 10 * count:
        return None
    if key in ("f", "d"):
        return struct.unpack(f"<{count}{key}", file.bytes_of(span)) if dtype in ("float32", "float64") else None
    values = file.integers(span)
    if len(values) != count or dtype in ("float16", "bfloat16"):
        return None
    return tuple(map(bool, values)) if dtype == "bool" else tuple(values)


def names_parameter(name: str) -> bool:
    """Whether the name of a tensor is that of a parameter, and not one that an exporter made up.

    torch.onnx writes parameters under their keys in the state dict, and other constants as `val_3` (dynamo) or
    `onnx::Mul_12` and `/Constant_1_output_0` (TorchScript).

    >>> names_parameter("encoder.pos_embedding"), names_parameter("val_3"), names_parameter("onnx::Mul_12")
    (True, False, False)
    """
    is_made_up = name.startswith(("val_", "onnx::", "/", "_tensor_constant", "lifted_", "scalar_tensor", "_lifted"))
    return bool(name) and not is_made_up and not name.isdigit() and not _RESULT.fullmatch(name)


_RESULT = re.compile(
    "(aten_)?(index|unsqueeze|view|permute|transpose|t|slice|select|expand|reshape|cat|stack|add|sub|mul|div|neg|pow|sum"
    r"|mean|where|convert_element_type|arange|full|zeros|ones|clone|repeat|gather|index_select|to|_to_copy|masked_fill|squeeze"
    r"|linear|matmul|mm|bmm|addmm|einsum|exp|log|sqrt|rsqrt|sin|cos|tanh|sigmoid|softmax|flatten|split|outer|tril|triu|abs"
    r"|zeros_like|ones_like|full_like|new_zeros|new_ones|new_full)(_default)?(_\d+)?"
)
"""How dynamo names a constant that it has computed: after the function."""
