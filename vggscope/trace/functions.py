"""Convert a call of a torch function to an op with its inputs and weights.

`x.flatten(1)` and `torch.flatten(x, 1)` have the same name in the tables, and so have `x + y` and `torch.add(x, y)`.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from vggscope.errors import ShapeError
from vggscope.ops.activation import Overwriting
from vggscope.ops.base import Op, Shape
from vggscope.ops.elementwise import KEEPS, Elementwise
from vggscope.ops.recorded import Recorded, Unknown
from vggscope.record import changed
from vggscope.trace.function_table import ATEN_ARGUMENTS, CREATIONS, FUNCTIONS, MATRIX_PRODUCTS, WEIGHTED, WITHOUT_MACS
from vggscope.trace.layout import shares_memory
from vggscope.trace.recorder import Call, shape_of
from vggscope.trace.tensors import Function, mapped_tensors, tensors_in
from vggscope.units import shape_text

if TYPE_CHECKING:
    from torch import Tensor

_OPERATORS = {
    **{f"{side}{name}": name for name in ("add", "mul", "matmul") for side in ("", "r", "i")},
    **{f"{side}{name}": name for name in ("sub", "pow") for side in ("", "i")},
    **{f"{side}{name}": "div" for name in ("div", "truediv") for side in ("", "i")},
    **{"rsub": "rsub", "rpow": "rpow", "rdiv": "rdiv", "rtruediv": "rdiv"},
    **{"floordiv": "floor_divide", "rfloordiv": "floor_divide", "ifloordiv": "floor_divide", "mod": "remainder"},
}
"""Functions that Python's operators call. `i` marks the in-place form, `r` the form with the tensor on the right."""

_ALIASES = {
    **{"subtract": "sub", "multiply": "mul", "divide": "div", "true_divide": "div", "negative": "neg"},
    **{
        "_threshold": "threshold",
        "absolute": "abs",
        "clip": "clamp",
        "concat": "cat",
        "concatenate": "cat",
        "upsample": "interpolate",
    },
    **{"greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne"},
    **{"swapdims": "transpose", "swapaxes": "transpose", "moveaxis": "movedim"},
    **{f"{kind}max_pool{n}d_with_indices": f"{kind}max_pool{n}d" for kind in ("", "adaptive_") for n in (1, 2, 3)},
}


@lru_cache(maxsize=4096)
def function_name(function: Function) -> tuple[str, bool]:
    """Return a function's name in the tables, and whether it writes to its first argument.

    >>> import torch
    >>> function_name(torch.Tensor.add_), function_name(torch.Tensor.__rsub__), function_name(torch.flatten)
    (('add', True), ('rsub', False), ('flatten', False))
    """
    name = str(getattr(function, "__name__", type(function).__name__))
    if _is_operator(function):
        name = name.partition(".")[0]  # without the overload, as in `conv2d.default`
    if name == "__get__":
        return str(getattr(getattr(function, "__self__", None), "__name__", name)), False
    if name.startswith("__") and name.endswith("__"):
        plain = name[2:-2]
        return _OPERATORS.get(plain, plain), plain == "setitem" or (plain[0] == "i" and plain in _OPERATORS)
    plain = name.removesuffix("_")
    return _ALIASES.get(plain, plain), plain != name


def _is_operator(function: Function) -> bool:
    return getattr(function, "__module__", None) == "torch._ops.aten"


def functional_arguments(function: Function, args: tuple[object, ...]) -> tuple[object, ...]:
    """Return the positional arguments in the order of torch.nn.functional, also those of an operator of torch.ops."""
    places = ATEN_ARGUMENTS.get(function_name(function)[0]) if _is_operator(function) else None
    return args if places is None else tuple(args[place] for place in places if place < len(args))


def read(
    name: str,
    in_place: bool,
    args: tuple[object, ...],
    kwargs: dict[str, object],
    inputs: tuple[Tensor, ...],
    results: tuple[Tensor, ...],
) -> Call:
    """Return a function's Call. `inputs` are the tensors among its arguments, `results` the tensors that it returns."""
    ops = _ops_of(name, args, kwargs)
    is_nonzero = name == "where" and len(args) + len(kwargs) == 1  # the positions where the condition holds
    if not ops and name in KEEPS and not is_nonzero:
        ops = (Elementwise(name, _plain_arguments(args, kwargs)),)
    if in_place and name in MATRIX_PRODUCTS:
        ops = ()  # as `x.addmm_(a, b)`, which adds to its first argument: the ops of products return new memory
    if not ops:
        # The table's entry does not support these arguments. They do not change whether the function has a cost.
        free = name in WITHOUT_MACS or (name in FUNCTIONS and name not in MATRIX_PRODUCTS)
        kind = Recorded if free else Unknown
        op = kind(name, tuple(map(shape_of, inputs)), shape_of(results[0]), arguments_given=_described(args, kwargs))
        looks_up = name == "getitem" and looked_up_axis(args[1]) is not None
        ops = (changed(op, differentiable=name not in CREATIONS, looks_up=looks_up),)
    ops = tuple(_with_memory(op, in_place, inputs, result) for op, result in zip(ops, results))
    if name == "batch_norm" and len(inputs) == 5:
        inputs = (inputs[0], *inputs[3:], *inputs[1:3])  # the weights first, as in the module
    return Call(ops, inputs[:1], inputs[1:]) if name in WEIGHTED else Call(ops, inputs)


def looked_up_axis(index: object) -> int | None:
    """Return the axis whose positions an index of full slices and a tensor of integers names; None for any other."""
    import torch

    *before, last = index if isinstance(index, tuple) else (index,)
    is_last = isinstance(last, torch.Tensor) and last.dtype is torch.int64
    return len(before) if is_last and all(part == slice(None) for part in before) else None


def function_problem(
    function: Function, args: tuple[object, ...], kwargs: dict[str, object], error: Exception
) -> tuple[str, str]:
    """Return why a function raised, and the remedy: the mismatch that its op's rule reports, or torch's message."""
    name, _ = function_name(function)
    shapes = tuple(map(shape_of, tensors_in((args, kwargs))))
    op = next(iter(_ops_of(name, args, kwargs)), Elementwise(name) if name in KEEPS else None)
    reason, remedy = problem(op, shapes[:1] if name in WEIGHTED else shapes, error)
    return f"{name}: {reason}", remedy


def problem(op: Op | None, input_shapes: tuple[Shape, ...], error: Exception) -> tuple[str, str]:
    """Return the mismatch that an op's rule reports for these shapes, and its remedy.

    Without one it is the error's first line with the shapes, and no remedy.
    """
    try:
        if op is not None and not isinstance(op, Recorded):
            op.output_shape(*input_shapes)
    except ShapeError as mismatch:
        return mismatch.problem, mismatch.remedy
    except (ValueError, IndexError, TypeError):
        pass
    shapes = " and ".join(map(shape_text, input_shapes)) if any(input_shapes) else ""
    return first_line(error) + (f"; input shape{'s' * (len(input_shapes) > 1)} {shapes}" if shapes else ""), ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, with the error's type unless it is a RuntimeError."""
    text = next(iter(str(error).strip().splitlines()), "")
    return text if isinstance(error, RuntimeError) and text else f"{type(error).__name__}: {text}".rstrip(": ")


def _ops_of(name: str, args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[Op, ...]:
    maker = FUNCTIONS.get(name)
    if maker is None:
        return ()
    try:
        ops = maker(*args, **kwargs)
    except (TypeError, ValueError, AttributeError):
        return ()
    return ops if isinstance(ops, tuple) else (ops,)


def _with_memory(op: Op, in_place: bool, inputs: tuple[Tensor, ...], result: Tensor) -> Op:
    """Return the op with its use of memory: whether it is in place, or its output shares an input's memory."""
    if in_place and isinstance(op, (Overwriting, Elementwise)):
        return changed(op, inplace=True)
    if isinstance(op, Recorded):  # that of a view is asked with its layout
        return changed(op, shares=any(shares_memory(tensor, result) for tensor in inputs))
    return op


def _described(args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[object, ...]:
    """Return all arguments as texts, with None for each positional tensor."""
    from torch import Tensor

    def described(value: object) -> object:
        if isinstance(value, Tensor):
            return None
        plain = mapped_tensors(value, lambda tensor: None)
        return plain if plain is None or isinstance(plain, (bool, int, float, str)) else str(plain)

    named = (f"{key}={described(value)}" for key, value in sorted(kwargs.items()))
    return (*("None" if value is None else described(value) for value in args), *named)


def _plain_arguments(args: tuple[object, ...], kwargs: dict[str, object]) -> tuple[object, ...]:
    """Return the arguments that are no tensors, with None for each positional tensor; empty if all are tensors."""
    import torch

    tensors = sum(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values()))
    none = "None" if tensors > 1 else None  # with one tensor, the other arguments that are None are no tensors
    positional = [None if isinstance(value, torch.Tensor) else none if value is None else value for value in args]
    kwargs = {key: value for key, value in kwargs.items() if tensors > 1 or not isinstance(value, torch.Tensor)}
    named = [f"{key}={'x' if isinstance(value, torch.Tensor) else value}" for key, value in kwargs.items()]
    if not named and all(value is None for value in positional):
        return ()
    return (*(v if v is None or isinstance(v, (bool, int, float, str)) else str(v) for v in positional), *named)
