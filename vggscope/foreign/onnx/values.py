"""The values in an ONNX graph, and the small ones computed: shapes, axes, indices and numbers.

An exporter writes `x.view(x.size(0), -1)` as five nodes that compute a shape. They are evaluated here, and are no
layers of the Network.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod
from types import MappingProxyType
from typing import Any

from vggscope.checkpoint.formats.onnx_model import DTYPES, MOST_VALUES, OnnxNode, OnnxTensor
from vggscope.checkpoint.formats.protobuf import shortest
from vggscope.graph import ConstantValue
from vggscope.ops.base import Shape
from vggscope.ops.elementwise import broadcast
from vggscope.record import record

Number = int | float | bool
Numbers = tuple[Number, ...]

INTEGERS = frozenset(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)) | {"bool"}


@record
class OnnxValue:
    """A value of the graph, for one batch.

    - `node` is the node of the Network that computes it, or the input; empty for a constant.
    - `numbers` are the elements of a small constant, if they are known.
    - `tensors` are the tensors of the file that a constant is computed from, and `is_computed` is whether it is more
      than a view of one.
    - `known` is how a constant is computed, with {} for each tensor of the file; empty if that is not known, or if no
      tensor is read.
    - `is_whole` is whether its elements lie in the order of its axes, as torch would run it.
    """

    shape: Shape
    dtype: str
    node: str = ""
    numbers: Numbers | None = None
    tensors: tuple[OnnxTensor, ...] = ()
    is_computed: bool = False
    is_whole: bool = True
    known: ConstantValue = ConstantValue("")

    @property
    def is_constant(self) -> bool:
        return not self.node


@record
class OnnxCall:
    """A node with the values that it reads; None for an input that is left out."""

    node: OnnxNode
    inputs: tuple[OnnxValue | None, ...]
    attributes: Mapping[str, Any]
    opset: int

    def value(self, place: int) -> OnnxValue | None:
        """The input at a place, None if it is left out."""
        return self.inputs[place] if place < len(self.inputs) else None

    def shape(self, place: int = 0) -> Shape:
        """The shape of an input. Raises LookupError if it is left out."""
        value = self.value(place)
        if value is None:
            raise LookupError(place)
        return value.shape

    def numbers(self, place: int) -> Numbers | None:
        """The elements of an input that is a known constant, else None."""
        value = self.value(place)
        return None if value is None else value.numbers

    def number(self, place: int) -> Number | None:
        """The only element of an input that is a known constant."""
        numbers = self.numbers(place)
        value = self.value(place)
        if numbers is None or value is None or len(numbers) != 1:
            return None
        return shortest(numbers[0]) if value.dtype == "float32" else numbers[0]

    def integer(self, name: str, default: int = 0) -> int:
        """An attribute that is an integer."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, int) else default

    def float(self, name: str, default: float = 0.0) -> float:
        """An attribute that is a float32, as its shortest decimal number."""
        value = self.attributes.get(name, default)
        return float(shortest(value)) if isinstance(value, (int, float)) else default

    def integers(self, name: str) -> tuple[int, ...] | None:
        """An attribute that is a list of integers, None if it is left out."""
        value = self.attributes.get(name)
        return value if isinstance(value, tuple) and all(isinstance(item, int) for item in value) else None

    def text(self, name: str, default: str = "") -> str:
        """An attribute that is a text."""
        value = self.attributes.get(name, default)
        return value if isinstance(value, str) else default

    def listed(self, name: str, place: int) -> tuple[int, ...] | None:
        """A list of integers that is an attribute in old opsets and an input in new ones, None if it is left out.

        Raises LookupError for an input whose elements are not known.
        """
        value = self.value(place)
        if value is None:
            return self.integers(name)
        if value.numbers is None:
            raise LookupError(name)
        return tuple(map(int, value.numbers))


def constant(shape: Shape, dtype: str, numbers: Sequence[Number], tensors: tuple[OnnxTensor, ...] = ()) -> OnnxValue:
    """A constant with known elements."""
    return OnnxValue(shape, dtype, numbers=tuple(numbers), tensors=tensors)


def evaluate(call: OnnxCall) -> tuple[OnnxValue, ...] | None:
    """The results of a node whose inputs are known constants; None if they are not, or many, or the op has no rule.

    Raises LookupError, TypeError, ValueError or ArithmeticError for inputs that the op does not take.
    """
    kind = call.node.op_type
    if kind in ("Shape", "Size"):
        return (_shape_of(call),)
    function = _EVALUATED.get(kind)
    known = [value for value in call.inputs if value is not None]
    if function is None or any(value.numbers is None for value in known):
        return None
    if sum(len(value.numbers or ()) for value in known) > 4 * MOST_VALUES:
        return None
    results = function(call)
    if results is None:
        return None
    results = results if isinstance(results, tuple) else (results,)
    if any(prod(value.shape) > MOST_VALUES or len(value.numbers or ()) != prod(value.shape) for value in results):
        return None
    return results


def _shape_of(call: OnnxCall) -> OnnxValue:
    shape = call.shape()
    if call.node.op_type == "Size":
        return constant((), "int64", (prod(shape),))
    axes = shape[slice(call.integer("start"), call.attributes.get("end"))]
    return constant((len(axes),), "int64", axes)


def _known(call: OnnxCall, place: int = 0) -> tuple[OnnxValue, Numbers]:
    """An input with its elements. Raises LookupError if it is left out."""
    value = call.value(place)
    if value is None or value.numbers is None:
        raise LookupError(place)
    return value, value.numbers


def broadcast_numbers(shape: Shape, numbers: Numbers, to: Shape) -> Numbers:
    """The elements of a constant that is broadcast to a shape.

    >>> broadcast_numbers((2, 1), (5, 6), (2, 3))
    (5, 5, 5, 6, 6, 6)
    """
    if shape == to:
        return numbers
    if prod(to) > MOST_VALUES:
        raise ValueError("too many values")
    aligned = (1,) * (len(to) - len(shape)) + shape
    strides = [prod(aligned[axis + 1 :]) * (aligned[axis] > 1) for axis in range(len(to))]
    places = product(*map(range, to))
    return tuple(numbers[sum(map(operator.mul, place, strides))] for place in places)


def _elementwise(function: Callable[..., Any], dtype: str = "") -> Callable[[OnnxCall], OnnxValue]:
    """The rule of a function of the elements at each position."""

    def rule(call: OnnxCall) -> OnnxValue:
        pairs = [_known(call, place) for place in range(len(call.inputs))]
        shape = broadcast(tuple(value.shape for value, _ in pairs))
        rows = [broadcast_numbers(value.shape, numbers, shape) for value, numbers in pairs]
        made = dtype or pairs[-1][0].dtype
        results = tuple(function(*row) for row in zip(*rows))
        if made in INTEGERS and any(abs(result) >= 2**63 for result in results):
            raise ValueError("an integer overflows")
        return constant(shape, made, results)

    return rule


def _divided(left: Number, right: Number) -> Number:
    if isinstance(left, int) and isinstance(right, int):
        result = abs(left) // abs(right)
        return result if (left < 0) == (right < 0) else -result
    return left / right


def _power(left: Number, right: Number) -> Number:
    if abs(right) > 64 or abs(left) > 2**32:
        raise ValueError("a power of large numbers")
    result: Number = left**right
    return result


def _cast(call: OnnxCall) -> OnnxValue:
    value, numbers = _known(call)
    dtype = DTYPES.get(call.integer("to"), "")
    convert: Callable[[Number], Number] = bool if dtype == "bool" else int if dtype in INTEGERS else float
    return constant(value.shape, dtype, [convert(number) for number in numbers])


def _reshaped(call: OnnxCall) -> OnnxValue:
    value, numbers = _known(call)
    shape = reshaped(value.shape, call.listed("shape", 1) or (), keeps_zero=bool(call.integer("allowzero")))
    return constant(shape, value.dtype, numbers, value.tensors)


def reshaped(shape: Shape, target: Sequence[int], *, keeps_zero: bool = False) -> Shape:
    """The shape that ONNX's Reshape makes of a target: 0 is the input's axis, -1 what remains."""
    sizes = [shape[axis] if size == 0 and not keeps_zero else size for axis, size in enumerate(target)]
    known = prod(size for size in sizes if size != -1)
    if -1 in sizes:
        sizes[sizes.index(-1)] = prod(shape) // known if known else 0
    return tuple(sizes)


def _unsqueezed(call: OnnxCall) -> OnnxValue:
    value, numbers = _known(call)
    return constant(unsqueezed(value.shape, call.listed("axes", 1) or ()), value.dtype, numbers, value.tensors)


def unsqueezed(shape: Shape, axes: Sequence[int]) -> Shape:
    """The shape with new axes of size 1 at the places `axes` of the result."""
    rank = len(shape) + len(axes)
    if rank > 64:
        raise ValueError("too many axes")
    new = {axis % rank for axis in axes}
    rest = iter(shape)
    return tuple(1 if axis in new else next(rest) for axis in range(rank))


def _squeezed(call: OnnxCall) -> OnnxValue:
    value, numbers = _known(call)
    return constant(squeezed(value.shape, call.listed("axes", 1)), value.dtype, numbers, value.tensors)


def squeezed(shape: Shape, axes: Sequence[int] | None) -> Shape:
    """The shape without the axes, or without all of size 1."""
    if axes is None:
        return tuple(size for size in shape if size != 1)
    gone = {axis % len(shape) for axis in axes}
    return tuple(size for axis, size in enumerate(shape) if axis not in gone)


def _gathered(call: OnnxCall) -> OnnxValue:
    (data, numbers), (index, places) = _known(call), _known(call, 1)
    if not data.shape:
        raise ValueError("a number has no axes")
    axis = call.integer("axis") % len(data.shape)
    size, inner = data.shape[axis], prod(data.shape[axis + 1 :])
    taken = [int(place) % size for place in places]
    if len(taken) * prod(data.shape) > 64 * MOST_VALUES:
        raise ValueError("too many values")
    blocks = (
        numbers[(outer * size + place) * inner :][:inner] for outer in range(prod(data.shape[:axis])) for place in taken
    )
    shape = (*data.shape[:axis], *index.shape, *data.shape[axis + 1 :])
    return constant(shape, data.dtype, [number for block in blocks for number in block])


def _picked(value: OnnxValue, numbers: Numbers, places: Sequence[Sequence[int]]) -> list[Number]:
    """The elements at all combinations of positions, one list of positions for each axis."""
    if prod(map(len, places)) > MOST_VALUES:
        raise ValueError("too many values")
    strides = [prod(value.shape[axis + 1 :]) for axis in range(len(value.shape))]
    return [numbers[sum(map(operator.mul, place, strides))] for place in product(*places)]


def _concatenated(call: OnnxCall) -> OnnxValue:
    pairs = [_known(call, place) for place in range(len(call.inputs))]
    first = pairs[0][0]
    axis = call.integer("axis") % len(first.shape)
    length = sum(value.shape[axis] for value, _ in pairs)
    outer = prod(first.shape[:axis])
    rows = [
        numbers[row * (len(numbers) // outer) :][: len(numbers) // outer]
        for row in range(outer)
        for _, numbers in pairs
    ]
    shape = (*first.shape[:axis], length, *first.shape[axis + 1 :])
    return constant(shape, first.dtype, [number for row in rows for number in row])


def _transposed(call: OnnxCall) -> OnnxValue:
    value, numbers = _known(call)
    axes = call.integers("perm") or tuple(reversed(range(len(value.shape))))
    shape = tuple(value.shape[axis] for axis in axes)
    strides = [prod(value.shape[axis + 1 :]) for axis in axes]
    made = [numbers[sum(map(operator.mul, place, strides))] for place in product(*map(range, shape))]
    return constant(shape, value.dtype, made, value.tensors)


def slices(call: OnnxCall) -> dict[int, tuple[int, int, int]] | None:
    """The start, stop and step of each axis that a Slice cuts; None if they are not known."""
    rank = len(call.shape())
    try:
        starts, ends = call.listed("starts", 1), call.listed("ends", 2)
        axes, steps = call.listed("axes", 3), call.listed("steps", 4)
    except LookupError:
        return None
    if starts is None or ends is None:
        return None
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    return {axis % rank: cut for axis, *cut in zip(axes, starts, ends, steps)}  # type: ignore[misc]


def _sliced(call: OnnxCall) -> OnnxValue | None:
    value, numbers = _known(call)
    cuts = slices(call)
    if cuts is None:
        return None
    places = [range(size)[slice(*cuts.get(axis, (None,)))] for axis, size in enumerate(value.shape)]
    return constant(tuple(map(len, places)), value.dtype, _picked(value, numbers, places))


def _split(call: OnnxCall) -> tuple[OnnxValue, ...] | None:
    value, numbers = _known(call)
    sizes = piece_sizes(call)
    if len(value.shape) != 1 or sizes is None:
        return None
    starts = [sum(sizes[:number]) for number in range(len(sizes))]
    return tuple(constant((size,), value.dtype, numbers[start:][:size]) for start, size in zip(starts, sizes))


def piece_sizes(call: OnnxCall) -> tuple[int, ...] | None:
    """The sizes of the pieces into which a Split cuts its axis; None if they are not known."""
    sizes = call.listed("split", 1)
    if sizes is not None:
        return sizes
    length = call.shape()[call.integer("axis")]
    count = call.integer("num_outputs") or len(call.node.outputs)
    size = -(-length // count)
    return (*(size,) * (count - 1), length - size * (count - 1))


def _filled(call: OnnxCall) -> OnnxValue | None:
    _, sides = _known(call)
    shape = tuple(map(int, sides))
    given = call.attributes.get("value")
    if prod(shape) > MOST_VALUES or not isinstance(given, OnnxValue | None):
        return None
    number = 0.0 if given is None or not given.numbers else given.numbers[0]
    return constant(shape, "float32" if given is None else given.dtype, (number,) * prod(shape))


def _range(call: OnnxCall) -> OnnxValue | None:
    (first, start), (_, stop), (_, step) = (_known(call, place) for place in range(3))
    if first.dtype not in INTEGERS:
        return None
    numbers = range(int(start[0]), int(stop[0]), int(step[0]))
    return constant((len(numbers),), first.dtype, numbers) if len(numbers) <= MOST_VALUES else None


def _expanded(call: OnnxCall) -> OnnxValue:
    value, numbers = _known(call)
    shape = broadcast((value.shape, tuple(map(int, _known(call, 1)[1]))))
    return constant(shape, value.dtype, broadcast_numbers(value.shape, numbers, shape))


def _reduced(function: Callable[..., Any]) -> Callable[[OnnxCall], OnnxValue | None]:
    def rule(call: OnnxCall) -> OnnxValue | None:
        value, numbers = _known(call)
        if len(value.shape) != 1 or not numbers:
            return None
        return constant((1,) * call.integer("keepdims", 1), value.dtype, (function(numbers),))

    return rule


def _identity(call: OnnxCall) -> OnnxValue:
    return _known(call)[0]


_EVALUATED: Mapping[str, Callable[[OnnxCall], Any]] = MappingProxyType(
    {
        "Identity": _identity,
        "Cast": _cast,
        "Reshape": _reshaped,
        "Unsqueeze": _unsqueezed,
        "Squeeze": _squeezed,
        "Gather": _gathered,
        "Concat": _concatenated,
        "Transpose": _transposed,
        "Slice": _sliced,
        "Split": _split,
        "ConstantOfShape": _filled,
        "Range": _range,
        "Expand": _expanded,
        "Add": _elementwise(operator.add),
        "Sub": _elementwise(operator.sub),
        "Mul": _elementwise(operator.mul),
        "Div": _elementwise(_divided),
        "Mod": _elementwise(operator.mod),
        "Pow": _elementwise(_power),
        "Max": _elementwise(max),
        "Min": _elementwise(min),
        "Neg": _elementwise(operator.neg),
        "Abs": _elementwise(abs),
        "Floor": _elementwise(math.floor),
        "Ceil": _elementwise(math.ceil),
        "Sqrt": _elementwise(math.sqrt),
        "Equal": _elementwise(operator.eq, "bool"),
        "Less": _elementwise(operator.lt, "bool"),
        "LessOrEqual": _elementwise(operator.le, "bool"),
        "Greater": _elementwise(operator.gt, "bool"),
        "GreaterOrEqual": _elementwise(operator.ge, "bool"),
        "Not": _elementwise(operator.not_, "bool"),
        "And": _elementwise(lambda left, right: bool(left and right), "bool"),
        "Or": _elementwise(lambda left, right: bool(left or right), "bool"),
        "Where": _elementwise(lambda mask, left, right: left if mask else right),
        "ReduceProd": _reduced(math.prod),
        "ReduceSum": _reduced(sum),
        "ReduceMax": _reduced(max),
        "ReduceMin": _reduced(min),
    }
)
"""The ops that are evaluated on known constants."""
