"""Elementwise arithmetic: `+`, `*`, comparisons, powers, roots."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from vggscope.errors import ShapeError
from vggscope.ops.base import MOVES_VALUES, NOTHING, Op, SavedTensors, Shape, numel
from vggscope.record import record
from vggscope.units import kernel_text

KEEPS: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("add", "sub", "rsub", "neg", "clone", "to", "float", "half", "double", "bfloat16"), "nothing"),
        **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite"), "nothing"),
        **dict.fromkeys(("logical_and", "logical_or", "logical_not", "logical_xor", "bool", "long", "int"), "nothing"),
        **dict.fromkeys(("and", "or", "xor", "invert", "bitwise_and", "bitwise_or", "bitwise_not"), "nothing"),
        **dict.fromkeys(("floor", "ceil", "round", "trunc", "sign", "floor_divide", "type", "type_as"), "nothing"),
        **dict.fromkeys(("zero", "fill", "nan_to_num", "contiguous"), "nothing"),
        **dict.fromkeys(("mul", "div"), "operands"),
        **dict.fromkeys(("maximum", "minimum", "atan2", "addcmul", "addcdiv", "lerp", "remainder", "fmod"), "inputs"),
        **dict.fromkeys(("pow", "rpow", "abs", "square", "log", "log2", "log10", "log1p", "sin", "cos"), "inputs"),
        **dict.fromkeys(("clamp", "clamp_min", "clamp_max", "tan", "erf", "log_sigmoid", "softsign"), "inputs"),
        **dict.fromkeys(("hardshrink", "softshrink", "tanhshrink", "threshold", "asin", "acos", "atan"), "inputs"),
        **dict.fromkeys(("exp", "exp2", "expm1", "sqrt", "rsqrt", "reciprocal"), "output"),
        **dict.fromkeys(("rdiv", "logit"), "copy"),
        **dict.fromkeys(("where", "masked_fill"), "condition"),
    }
)
"""torch's functions of this kind and what autograd keeps of their call. `operands`: each for the other's gradient, a
plain number needs neither; `condition`: the mask alone; `copy`: a tensor of the output's size made on the way.
"""


FIXED_DTYPES: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "isfinite", "bool"), "bool"),
        **dict.fromkeys(("logical_and", "logical_or", "logical_not", "logical_xor"), "bool"),
        **{"long": "int64", "int": "int32", "float": "float32", "double": "float64"},
        **{"half": "float16", "bfloat16": "bfloat16"},
    }
)
"""The functions whose result has a fixed dtype, with that dtype."""


WITHOUT_GRADIENT = frozenset(
    {name for name, dtype in FIXED_DTYPES.items() if dtype == "bool"}
    | {"long", "int", "and", "or", "xor", "invert", "bitwise_and", "bitwise_or", "bitwise_not", "floor_divide"}
)


COPIES = frozenset(
    {
        *("clone", "contiguous", "zero", "fill", "to", "type", "type_as"),
        *("float", "half", "double", "bfloat16", "bool", "long", "int"),
    }
)
"""Those that copy or convert values and compute nothing."""


@record
class Elementwise(Op):
    """A function of the values at each position of one tensor, or of several that are broadcast.

    `arguments_given` are the call's arguments in order, with None for a tensor, so that x-2 is not 2-x.
    """

    broadcasts = True

    function: str
    arguments_given: tuple[object, ...] = ()
    inplace: bool = False

    @property
    def name(self) -> str:
        return self.function

    @property
    def predicts_memory(self) -> bool:
        return self.function in ("add", "mul", "sub") and (self.function == "add" or not self.inplace)

    @property
    def allocates(self) -> bool:
        return not self.inplace

    @property
    def fixed_dtype(self) -> str:
        return FIXED_DTYPES.get(self.function, "")

    @property
    def gradient(self) -> str:
        if self.function in WITHOUT_GRADIENT:
            return "none"
        return "same" if self.function in ("add", "clone") else "new"

    @property
    def sums_gradients(self) -> bool:
        return self.gradient == "new"

    def output_shape(self, *inputs: Shape) -> Shape:
        return broadcast(inputs)

    def is_identity(self, size: tuple[int, ...]) -> bool:
        return self.function == "clone"

    @property
    def other_formula(self) -> str:
        return MOVES_VALUES if self.function in COPIES else "one: 1 a value"

    def other_operations(self, inputs: tuple[Shape, ...], output: Shape) -> int:
        return 0 if self.function in COPIES else numel(output)

    def saved_for_backward(self, inputs: tuple[Shape, ...], output: Shape) -> SavedTensors:
        keeps = KEEPS[self.function]
        if keeps == "nothing" or (keeps == "operands" and len(inputs) == 1):
            return NOTHING
        if keeps == "condition":
            return SavedTensors(inputs=(0,) if self.function == "where" else (1,))
        if keeps == "copy":
            return SavedTensors(extra=((output, None),))
        return SavedTensors(output=True) if keeps == "output" else SavedTensors(inputs=tuple(range(len(inputs))))


def broadcast(shapes: tuple[Shape, ...]) -> Shape:
    """The shape that these broadcast to: aligned at the last axis, with axes of size 1 repeated.

    Raises ShapeError if two sizes differ and neither is 1.
    """
    axes = max(map(len, shapes))
    sizes = zip(*((1,) * (axes - len(shape)) + shape for shape in shapes))
    result = []
    for axis in sizes:
        sides = {size for size in axis if size != 1}
        if len(sides) > 1:
            raise ShapeError(f"the shapes {' and '.join(map(kernel_text, shapes))} do not go together")
        result.append(sides.pop() if sides else 1)
    return tuple(result)
