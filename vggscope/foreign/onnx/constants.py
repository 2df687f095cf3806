"""What is known of the constants of an ONNX graph, in the words of trace/constants.py, so that a diff can compare them.

A tensor of the file has its values, or their digest. What nodes compute of tensors is described by these nodes, with {}
for each tensor of the file until a layer reads it: which of them are parameters, whose values do not count, depends on
the layer.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Mapping, Sequence
from math import prod

from vggscope.checkpoint.formats.onnx_model import STANDARD, OnnxModel, OnnxTensor, element_format
from vggscope.foreign.onnx.values import Number, OnnxCall, OnnxValue
from vggscope.graph import ConstantValue, Parameter
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.trace.constants import LARGEST_GIVEN, SHORT, UNKNOWN, constant_text, digest, joined

RANDOM = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
"""The ops whose results differ from run to run."""


def filed(tensor: OnnxTensor) -> ConstantValue:
    """A tensor of the file before it is known whether it is a parameter."""
    return ConstantValue("{}", (tensor.name,), (tensor.shape,))


def described(call: OnnxCall) -> ConstantValue:
    """What a node computes of constants, by the node and what is known of these."""
    inputs = [value for value in call.inputs if value is not None]
    arguments = arguments_of(call)
    if arguments is None:
        return UNKNOWN
    places = [place for place, value in enumerate(call.inputs) if value is not None]
    domain = "" if call.node.domain in STANDARD else f"{call.node.domain}."
    return joined(f"{domain}{call.node.op_type} {places} {arguments}", [_known(value) for value in inputs])


def arguments_of(call: OnnxCall, read: Sequence[int] | None = None) -> tuple[str, ...] | None:
    """The attributes of a node as text, and its inputs that its op does not read; None if they are not all known.

    `read` are the places of the inputs that the op reads, all if left out.
    """
    node = call.node
    if node.op_type in RANDOM or node.reads or node.holds:
        return None
    texts = []
    for key, value in sorted(call.attributes.items()):
        text = _attribute_text(value)
        if text is None:
            return None
        texts.append(f"{key}={text}")
    for place, given in enumerate(call.inputs):
        if read is None or place in read or given is None:
            continue
        if given.numbers is None or not given.is_constant:
            return None
        texts.append(f"input {place}={_of_numbers(given.shape, given.dtype, given.numbers).text}")
    return tuple(texts)


def _attribute_text(value: object) -> str | None:
    """An attribute in words; None for a graph, and for a tensor whose values are not known."""
    if isinstance(value, OnnxValue):
        return None if value.numbers is None else _of_numbers(value.shape, value.dtype, value.numbers).text
    return None if value is None or isinstance(value, OnnxTensor) else repr(value)


def _known(value: OnnxValue) -> ConstantValue:
    if value.known.text or value.numbers is None:
        return value.known
    return _of_numbers(value.shape, value.dtype, value.numbers)


@record
class OnnxConstants:
    """The constants of a graph. `tensors` are those of the file, and of its Constant nodes, by name."""

    model: OnnxModel
    tensors: Mapping[str, OnnxTensor]

    def read_as(self, value: OnnxValue, parameters: Mapping[str, Parameter]) -> ConstantValue:
        """What is known of a constant that a layer reads; `parameters` are those tensors of the file that it trains."""
        if value.numbers is not None and not parameters:
            return _of_numbers(value.shape, value.dtype, value.numbers)
        if not value.is_computed and len(parameters) == 1:
            (own,) = parameters.values()
            return ConstantValue("{}", (own.name,), (own.shape,))
        return self._resolved(value.known, parameters)

    def _resolved(self, known: ConstantValue, parameters: Mapping[str, Parameter]) -> ConstantValue:
        """A description with the values of all tensors that are no parameters in place of their {}."""
        texts = known.text.split("{}")
        names, shapes = list[str](), list[Shape]()
        for place, name in enumerate(known.names):
            own = parameters.get(name)
            value = self._contents(self.tensors[name]) if own is None else ConstantValue("{}")
            if not value.text:
                return UNKNOWN
            if own is not None:
                names.append(own.name)
                shapes.append(own.shape)
            texts[place] += value.text
        return ConstantValue("".join(texts), tuple(names), tuple(shapes))

    def _contents(self, tensor: OnnxTensor) -> ConstantValue:
        """The values of a tensor of the file; unknown where they are many, missing or damaged."""
        numbers = self.model.numbers(tensor)
        if numbers is not None:
            return _of_numbers(tensor.shape, tensor.dtype, numbers)
        if prod(tensor.shape) > LARGEST_GIVEN:
            return UNKNOWN
        key = f"contents {tensor.data} {tensor.location} {tensor.external} {tensor.shape} {tensor.dtype}"
        if key not in self.model.contents:
            self.model.contents[key] = _of_bytes(tensor, self.model.bytes_of(tensor))
        return self.model.contents[key]


def _of_bytes(tensor: OnnxTensor, data: bytes | None) -> ConstantValue:
    """A tensor by its bytes, little-endian; unknown without any."""
    if not data:
        return UNKNOWN
    count, code = prod(tensor.shape), element_format(tensor.dtype)
    if count <= SHORT:
        numbers = _unpacked(tensor.dtype, data)
        return UNKNOWN if numbers is None else _of_numbers(tensor.shape, tensor.dtype, numbers)
    first = data[: len(data) // count]
    number = float(struct.unpack(f"<{code}", first)[0]) if code and data == first * count else None
    number = None if tensor.dtype == "bool" or (number is not None and not math.isfinite(number)) else number
    return ConstantValue(constant_text(tensor.dtype, tensor.shape, digest(data)), number=number)


def _unpacked(dtype: str, data: bytes) -> Sequence[Number] | None:
    """The numbers of a few elements, both parts of complex ones; None for a dtype that is not decoded."""
    if dtype == "bfloat16":  # the upper half of a float32
        pairs = (data[place : place + 2] for place in range(0, len(data), 2))
        return [struct.unpack("<f", bytes(2) + pair)[0] for pair in pairs]
    code = element_format(_PARTS.get(dtype, dtype))
    return struct.unpack(f"<{len(data) // struct.calcsize(code)}{code}", data) if code else None


_PARTS = {"complex64": "float32", "complex128": "float64"}
"""The dtypes of the real and the imaginary part."""


def _of_numbers(shape: Shape, dtype: str, numbers: Sequence[Number]) -> ConstantValue:
    code = element_format(dtype)
    is_one = bool(numbers) and all(number == numbers[0] for number in numbers) and dtype != "bool"
    number = float(numbers[0]) if is_one and not dtype.startswith("complex") and math.isfinite(numbers[0]) else None
    if len(numbers) <= SHORT or not code:
        return ConstantValue(constant_text(dtype, shape, list(numbers)), number=number)
    try:
        data = struct.pack(f"<{len(numbers)}{code}", *numbers)
    except (struct.error, OverflowError):  # computed, and out of the range of its dtype
        return UNKNOWN
    return ConstantValue(constant_text(dtype, shape, digest(data)), number=number)
