"""Elementwise arithmetic: `+`, `*`, comparisons, powers, roots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import inf, isfinite, isnan
from types import MappingProxyType

from vggscope.errors import ShapeError, option
from vggscope.ops.base import (
    MAKE_EQUAL,
    MOVES_VALUES,
    NOTHING,
    DtypeArgument,
    Op,
    SavedTensors,
    Shape,
    TensorArgument,
    TorchCall,
    call_of,
    named_arguments,
    numel,
)
from vggscope.ops.normal_form import (
    IDENTITY,
    NormalForm,
    PrimitiveStep,
    add_number,
    bias,
    choose,
    clip,
    compare,
    extreme,
    fill,
    multiply,
    product,
    slopes,
    step_text,
    total,
)
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
    gradient_layout = "broadcast"

    function: str
    arguments_given: tuple[object, ...] = ()
    inplace: bool = False

    def torch_call(self, count: int) -> TorchCall | None:
        if self.function not in KEEPS:
            return None
        if self.converts and self.function not in ("clone", "contiguous"):
            return call_of("to", DtypeArgument())
        tensors = map(TensorArgument, range(count))
        given = [next(tensors) if value is None else value for value in self.arguments_given or (None,) * count]
        if self.converts:
            return call_of(self.function)  # its other argument is the memory's format
        named = named_arguments(given)
        plain = [None if value == "None" else value for value in given if not _is_named(value)]
        return TorchCall(self.function, tuple(plain), tuple(named.items()), in_place=self.inplace)

    @property
    def name(self) -> str:
        return self.function

    @property
    def predicts_memory(self) -> bool:
        if self.function == "contiguous" or (self.function == "div" and self.arguments_given.count(None) == 1):
            return not self.inplace
        if self.function == "mul" and self.inplace:
            return bool(self.arguments_given)  # a number
        if self.function == "exp" or self._bounds:
            return not self.inplace
        if self.function in ("zero", "fill"):
            return self.inplace and self._has_numbers
        if self.function == "clone":
            return not self.arguments_given
        return self.function in ("add", "mul", "sub") and (self.function == "add" or not self.inplace)

    @property
    def predicts_without_gradient(self) -> bool:
        is_plain = self.function in FIXED_DTYPES or (self.function == "masked_fill" and not self.inplace)
        return self.predicts_memory or (is_plain and self._has_numbers)

    @property
    def _has_numbers(self) -> bool:
        """Whether all arguments that are no tensors are numbers."""
        return all(value is None or _is_number(value) for value in self.arguments_given)

    @property
    def least_inputs(self) -> int:  # type: ignore[override]
        return self.arguments_given.count(None)

    @property
    def needs_layout(self) -> bool:
        return self.function == "contiguous"

    @property
    def takes_parameters(self) -> bool:  # type: ignore[override]
        return self.function in ("add", "mul")

    @property
    def _bounds(self) -> int:
        """The number of numbers that values are clamped to; 0 for any other function, and for tensors."""
        tensor, *bounds = self.arguments_given or ("",)
        if self.function not in ("clamp", "clamp_min", "clamp_max") or tensor is not None:
            return 0
        given = [*named_arguments(bounds).values(), *(value for value in bounds if not _is_named(value))]
        return len(given) if all(map(_is_number, given)) else 0

    def backward_temporaries(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[tuple[Shape, int | None], ...]:
        # A zero, and a mask for each bound.
        return (((), None), *((output, 1),) * self._bounds) if self._bounds else ()

    def input_gradients(self, inputs: tuple[Shape, ...], output: Shape) -> tuple[str, ...]:
        # The gradient of what is subtracted is negated.
        if self.function == "sub" and len(inputs) == 2 and not self.arguments_given:
            return ("same", "new")
        return super().input_gradients(inputs, output)

    @property
    def allocates(self) -> bool:
        return not self.inplace

    @property
    def compares(self) -> bool:  # type: ignore[override]
        return self.function in _TURNED

    @property
    def selects(self) -> bool:  # type: ignore[override]
        return self.function in ("where", "masked_fill", "mul")

    @property
    def converts(self) -> bool:  # type: ignore[override]
        return self.function in COPIES - {"zero", "fill"}

    @property
    def fixed_dtype(self) -> str:
        return FIXED_DTYPES.get(self.function, "")

    @property
    def gradient(self) -> str:
        if self.function in WITHOUT_GRADIENT:
            return "none"
        return "same" if self.function in ("add", "clone", "contiguous") else "new"

    @property
    def saves_factors(self) -> bool:
        return self.function == "mul"

    @property
    def sums_gradients(self) -> bool:
        return self.gradient == "new"

    @property
    def commutes(self) -> bool:  # type: ignore[override]
        return self.function in _COMMUTATIVE and not self.arguments_given

    def normal_form(
        self, inputs: tuple[Shape, ...], output: Shape, numbers: tuple[float | None, ...] = ()
    ) -> NormalForm:
        if self.function in COPIES - {"zero", "fill"} and len(inputs) == 1:
            return replace(IDENTITY, proof=f"{self.function} keeps the values")
        operands = self._operands(inputs, numbers)
        tensors = [place for place in operands if isinstance(place, _Place)]
        is_complete = len(tensors) + sum(number is not None for number in numbers) == len(inputs)
        if is_complete and self.function in ("where", "masked_fill"):
            return self._chosen(operands, inputs, output) or super().normal_form(inputs, output, numbers)
        if len(tensors) == len(operands) == 2:
            return self._of_two(inputs, output) or super().normal_form(inputs, output, numbers)
        if len(tensors) != 1 or not is_complete or inputs[tensors[0].number] != output:
            return super().normal_form(inputs, output, numbers)
        steps = self._of_one(operands, tensors[0].number, len(inputs), output)
        if steps is None:
            values = tuple(None if isinstance(value, _Place) else value for value in operands)
            step = self.step(output, tensors[0].number, function=self.function, operands=values)
            return NormalForm((replace(step, is_pointwise=True),))
        return NormalForm(steps, _texts(steps))

    def _chosen(self, operands: list[object], inputs: tuple[Shape, ...], output: Shape) -> NormalForm | None:
        """The form of a choice by a mask among values and numbers; None if one of them is broadcast."""
        if len(operands) != 3:
            return None
        mask, first, second = operands if self.function == "where" else (operands[1], operands[2], operands[0])
        steps: list[PrimitiveStep] = []
        places = []
        for operand in (mask, first, second):
            if isinstance(operand, _Place) and inputs[operand.number] == output:
                places.append(operand.number)
            elif _is_number(operand) and operand is not mask:
                places.append(len(inputs) + len(steps))
                steps.append(fill(operand, output))  # type: ignore[arg-type]
            else:
                return None
        return NormalForm((*steps, choose(output, (places[0], places[1], places[2]))))

    def _of_two(self, inputs: tuple[Shape, ...], output: Shape) -> NormalForm | None:
        """The form of a function of two tensors, in this order; None if it has none of its own."""
        if self.function in ("maximum", "minimum"):
            return NormalForm((extreme(self.function, output, (0, 1)),))
        if self.function == "sub":
            return NormalForm((multiply(-1, inputs[1], 1), total(output, (0, 2))))
        made = {"add": total, "mul": product}.get(self.function)
        return made and NormalForm((made(output, (0, 1)),))

    def form_with_constants(
        self, constants: tuple[Shape | None, ...], inputs: tuple[Shape, ...], output: Shape
    ) -> NormalForm | None:
        if self.function != "add" or self.arguments_given or len(inputs) != 2 or constants.count(None) != 1:
            return None
        place = constants.index(None)
        shape = inputs[1 - place]
        wide = [axis - len(shape) for axis, size in enumerate(shape) if size > 1]
        if inputs[place] != output or len(wide) != 1 or len(shape) > len(output):
            return None
        axis = len(output) + wide[0]
        return NormalForm((bias(axis, output, 0, 0),), "it adds a bias of each channel") if axis else None

    def _operands(self, inputs: tuple[Shape, ...], numbers: tuple[float | None, ...]) -> list[object]:
        """The arguments in order: a _Place for each tensor, but the number that a tensor holds everywhere."""
        known = numbers or (None,) * len(inputs)
        tensors = iter([_Place(place) if number is None else number for place, number in enumerate(known)])
        given = self.arguments_given or (None,) * len(inputs)
        return [next(tensors, None) if value is None else value for value in given]

    def _of_one(
        self, operands: list[object], source: int, count: int, output: Shape
    ) -> tuple[PrimitiveStep, ...] | None:
        """The steps for one tensor, of `count` inputs, and numbers; None if the function has none of its own."""
        first, *others = operands
        is_first = isinstance(first, _Place)
        named = dict(value.split("=", 1) for value in others if isinstance(value, str) and "=" in value)
        if self.function == "clamp" and is_first:
            bounds: dict[str, object] = dict(zip(("min", "max"), others))
            bounds = {key: value for key, value in bounds.items() if not isinstance(value, str)}
            bounds.update((key, _number(value)) for key, value in named.items())
            return _clipped(bounds.get("min"), bounds.get("max"), source, output)
        if self.function == "threshold":
            is_limit = len(others) > 1 and others[0] == others[1]
            return _clipped(others[0], None, source, output) if is_limit else None
        numbers = [float(value) for value in operands if _is_number(value)]  # type: ignore[arg-type]
        if len(numbers) + 1 != len(operands) or not all(map(isfinite, numbers)):
            return None
        if not numbers:
            own = {"neg": multiply(-1, output, source), "abs": slopes(-1, 1, output, source)}
            own["square"] = product(output, (source, source))
            return (own[self.function],) if self.function in own else None
        if len(numbers) > 1:
            return None
        return _with_number(self.function, is_first, numbers[0], (source, count), output)

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
        if keeps == "operands" and self.inplace and self.function == "mul":
            return SavedTensors(inputs=(1,), copies=(inputs[0],))
        return SavedTensors(output=True) if keeps == "output" else SavedTensors(inputs=tuple(range(len(inputs))))


_COMMUTATIVE = frozenset(
    {"add", "mul", "maximum", "minimum", "eq", "ne", "logical_and", "logical_or", "logical_xor", "and", "or", "xor"}
    | {"bitwise_and", "bitwise_or"}
)


_TURNED: Mapping[str, str] = MappingProxyType({"gt": "lt", "lt": "gt", "ge": "le", "le": "ge"})
"""The comparisons with a number, each with the one of swapped sides."""


@record
class _Place:
    """The number of a tensor among an op's inputs."""

    number: int


def _is_named(value: object) -> bool:
    return isinstance(value, str) and "=" in value


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _with_number(
    function: str, is_first: bool, number: float, places: tuple[int, int], output: Shape
) -> tuple[PrimitiveStep, ...] | None:
    """The steps of a function of a tensor and a number. `is_first`: the tensor comes first. `places` are those of the
    tensor and of the first step's result.
    """
    source, after = places
    if function in _TURNED:
        return (compare(function if is_first else _TURNED[function], number, output, source),)
    minus = multiply(-1, output, source)
    steps: dict[tuple[str, bool], tuple[PrimitiveStep, ...] | None] = {
        ("sub", True): (add_number(-number, output, source),),
        ("sub", False): (minus, add_number(number, output, after)),
        ("rsub", True): (minus, add_number(number, output, after)),
    }
    either = {
        "add": (add_number(number, output, source),),
        "mul": (multiply(number, output, source),),
        **dict.fromkeys(("clamp_min", "maximum"), _clipped(number, None, source, output)),
        **dict.fromkeys(("clamp_max", "minimum"), _clipped(None, number, source, output)),
    }
    if is_first and function == "div" and number and isfinite(1 / number):
        return (multiply(1 / number, output, source),)
    if is_first and function == "pow" and number == 1:
        return ()
    if is_first and function == "pow" and number == 2:
        return (product(output, (source, source)),)
    return steps.get((function, is_first), either.get(function))


def _number(text: str) -> float | str | None:
    try:
        return None if text == "None" else float(text)
    except ValueError:
        return text


def _clipped(low: object, high: object, source: int, output: Shape) -> tuple[PrimitiveStep, ...] | None:
    bounds = (-inf if low is None else low, inf if high is None else high)
    if not all(isinstance(bound, (int, float)) and not isnan(bound) for bound in bounds):
        return None
    return (clip(float(bounds[0]), float(bounds[1]), output, source),)  # type: ignore[arg-type]


def _texts(steps: tuple[PrimitiveStep, ...]) -> str:
    """What steps with numbers do, in words."""
    return f"it is {', then '.join(map(step_text, steps))}" if steps else "it returns its input"


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
            raise ShapeError(
                f"the shapes {' and '.join(map(kernel_text, shapes))} do not go together",
                MAKE_EQUAL.format(option("input_size")),
            )
        result.append(sides.pop() if sides else 1)
    return tuple(result)
