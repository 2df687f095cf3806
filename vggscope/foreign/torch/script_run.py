"""Follows the code of a TorchScript archive on shapes, and records its operators. Nothing of it is run.

Numbers, texts, lists and conditions are computed, as far as they depend on shapes and on the attributes of modules;
tensors are shapes alone. A condition that depends on the values of a tensor is an error.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vggscope.checkpoint.formats.pickle_objects import Instance
from vggscope.checkpoint.formats.pickle_objects import Tensor as FileTensor
from vggscope.checkpoint.formats.script_tree import class_name
from vggscope.errors import CheckpointError, ShapeError, printable
from vggscope.foreign.aten import KEEP_SHAPE, FunctionCall, translated
from vggscope.foreign.program import Program, Scope, has_no_rule, is_view, read_call
from vggscope.foreign.torch.script_code import ScriptCode
from vggscope.foreign.values import ProgramValue, values_in
from vggscope.ops.base import Op, Shape, infer_output_shape, numel
from vggscope.ops.elementwise import broadcast
from vggscope.ops.regularization import Identity, StochasticDepth

MOST_STEPS = 600_000
"""Expressions that are evaluated, items of lists that are built and tensors that are read, in all runs of a program."""

MOST_NODES = 20_000

LONGEST_LIST, LONGEST_TEXT = 50_000, 10_000

DEEPEST = 60
"""Calls in one another; each takes some of Python's stack."""

REMEDY = "torch.export.save(torch.export.export(model, (x,)), FILE) writes a program without such code"


@dataclass(eq=False)
class ScriptModule:
    """A module of the archive under the path by which it was reached."""

    path: str
    instance: Instance

    @property
    def kind(self) -> str:
        """The name of its class in the archive."""
        return self.instance.kind


@dataclass(frozen=True)
class Named:
    """A dotted name that is called, such as `torch.relu`."""

    text: str


class _Returned(Exception):
    def __init__(self, value: Any) -> None:
        super().__init__()
        self.value = value


_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "rsub": lambda value, other, alpha=1: other - alpha * value,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "floor_divide": operator.floordiv,
    "remainder": operator.mod,
    "neg": operator.neg,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "__and__": lambda a, b: a and b,
    "__or__": lambda a, b: a or b,
    "__not__": operator.not_,
    "__is__": lambda a, b: a is b,
    "__isnot__": lambda a, b: a is not b,
    "__contains__": lambda held, item: item in held,
    "any": any,
    "all": all,
    "floor": math.floor,
    "ceil": math.ceil,
    "sqrt": math.sqrt,
    "abs": abs,
    "min": min,
    "max": max,
    "Int": int,
    "Float": float,
    "Bool": bool,
    "IntImplicit": int,
    "FloatImplicit": float,
    "ScalarImplicit": lambda value: value,
    "round": round,
    "len": len,
    "copy": list,
    "list": list,
    "__range_length": lambda low, high, step: len(range(low, high, step)),
    "__derive_index": lambda index, start, step: start + index * step,
    "__getitem__": lambda held, index: held[index],
    "slice": lambda held, *bounds: held[slice(*bounds)],
    "format": lambda text, *values: text,
    "warn": lambda *_, **__: None,
}
"""Functions of numbers, texts and lists."""


def _reduced(value: ProgramValue, dim: Any = None, keepdim: bool = False) -> Shape | None:
    """The shape after a reduction of one axis, or of all; None for a function of two tensors."""
    if isinstance(dim, ProgramValue):
        return None
    if dim is None:
        return ()
    axes = {axis % max(value.dim(), 1) for axis in (dim if isinstance(dim, tuple) else (dim,))}
    kept = ((axis, side) for axis, side in enumerate(value.shape) if keepdim or axis not in axes)
    return tuple(1 if axis in axes else side for axis, side in kept)


def _largest(value: ProgramValue, k: int, dim: int = -1, *_: Any) -> Shape:
    axis = dim % value.dim()
    return (*value.shape[:axis], k, *value.shape[axis + 1 :])


def _indexed(value: ProgramValue, index: Any) -> Shape | None:
    """The shape of a tensor at positions that other tensors hold; None for any other index.

    The axes of the positions stand where the first of them was, or first if they were not side by side.
    """
    parts = index if isinstance(index, tuple) else (index,)
    places = [place for place, part in enumerate(parts) if isinstance(part, ProgramValue)]
    is_known = all(isinstance(part, ProgramValue) or part == slice(None) for part in parts)
    if not places or not is_known or any(parts[place].dtype in ("bool", "uint8") for place in places):
        return None
    positions = broadcast(tuple(parts[place].shape for place in places))
    kept = [side for axis, side in enumerate(value.shape) if axis not in places]
    first = places[0] if places == list(range(places[0], places[-1] + 1)) else 0
    return (*kept[:first], *positions, *kept[first:])


_SHAPES: Mapping[str, Callable[..., Shape | None]] = {
    **dict.fromkeys(("argmax", "argmin", "any", "all", "max", "min"), _reduced),
    "getitem": _indexed,
    "topk": _largest,
    "gather": lambda value, dim, index, *_, **__: index.shape,
    "index_select": lambda value, dim, index: _largest(value, index.numel(), dim),
}
"""The shapes that operators without a rule return."""

_CREATED = frozenset({"zeros", "ones", "empty", "rand", "randn", "full"})
"""Operators that make a tensor of a given shape."""

_FUNCTIONALS = {"__torch__.torch.nn.functional.local_response_norm": "local_response_norm"}
"""Functions that are one op, and many operators in TorchScript's code."""


@dataclass
class Budget:
    """The steps that all runs of a program have taken."""

    steps: int = 0

    def take(self, count: int = 1) -> None:
        """Count steps. Raises CheckpointError where they are more than those of any model."""
        self.steps += count
        if self.steps > MOST_STEPS:
            raise CheckpointError("its code takes more steps than that of any model", REMEDY)


@dataclass
class ScriptRun:
    """One run of a module's forward on shapes. `tensors` are the values of the file's tensors by identity."""

    code: ScriptCode
    program: Program
    tensors: Mapping[int, ProgramValue]
    constants: Sequence[ProgramValue]
    parents: frozenset[str]
    budget: Budget
    modules: dict[int, ScriptModule] = field(default_factory=dict)
    _depth: int = 0
    _set: dict[tuple[int, str], Any] = field(default_factory=dict)
    _scopes: list[Scope] = field(default_factory=lambda: [Scope()])

    def forward(self, root: Instance, inputs: Sequence[ProgramValue]) -> Any:
        """What forward of the outermost module returns.

        Raises CheckpointError for code that is not followed, and ShapeError for inputs that do not fit.
        """
        return self._checked(self._method(ScriptModule("", root), "forward", list(inputs), {}))

    # Calls

    def _method(self, module: ScriptModule, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        function = self.code.method(module.kind, name)
        if function is None:
            raise CheckpointError(f"its code has no {printable(name, 40)} of {printable(module.kind, 80)}", REMEDY)
        kind = class_name(module.kind)
        is_layer = kind.startswith("torch.nn.modules.") and module.path and module.path not in self.parents
        self._scopes.append(Scope(module.path, kind.rpartition(".")[2] if is_layer else ""))
        result = self._run(function, [module, *args], kwargs)
        self._scopes.pop()
        is_same = len(args) == 1 and result is args[0] and isinstance(result, ProgramValue) and not result.is_constant
        layer = self._unchanging(kind, module) if is_same and name.startswith("forward") else None
        return result if layer is None else self.program.layer(layer, result, module.path)

    def _unchanging(self, kind: str, module: ScriptModule) -> Op | None:
        """The op of a layer that returns its input at evaluation; None for any other module."""
        if kind == "torch.nn.modules.linear.Identity":
            return Identity()
        if kind == "torchvision.ops.stochastic_depth.StochasticDepth":
            try:
                return StochasticDepth(float(self._held(module, "p")), str(self._held(module, "mode")))
            except CheckpointError:
                return None  # a traced module has lost them
        return None

    def _run(self, function: ast.FunctionDef, args: list[Any], kwargs: dict[str, Any]) -> Any:
        self._depth += 1
        if self._depth > DEEPEST:
            raise CheckpointError(f"its code calls more than {DEEPEST} functions in one another", REMEDY)
        names = [argument.arg for argument in function.args.args]
        defaults = function.args.defaults
        given = dict(zip(names[len(names) - len(defaults) :], map(self._default, defaults)))
        variables = {**given, **dict(zip(names, args)), **kwargs}
        try:
            self._block(function.body, variables)
            result = None
        except _Returned as returned:
            result = returned.value
        self._depth -= 1
        return result

    def _default(self, value: ast.expr) -> Any:
        return self._value(value, {})

    # Statements

    def _block(self, body: Sequence[ast.stmt], variables: dict[str, Any]) -> None:
        for statement in body:
            self._statement(statement, variables)

    def _statement(self, statement: ast.stmt, variables: dict[str, Any]) -> None:
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            self._assignment(statement, variables)
        elif isinstance(statement, ast.Expr):
            self._value(statement.value, variables)
        elif isinstance(statement, ast.Return):
            raise _Returned(None if statement.value is None else self._value(statement.value, variables))
        elif isinstance(statement, ast.If):
            test = self._truth(self._value(statement.test, variables))
            self._block(statement.body if test else statement.orelse, variables)
        elif isinstance(statement, ast.While):
            while self._truth(self._value(statement.test, variables)):
                self._block(statement.body, variables)
        elif isinstance(statement, ast.For):
            self._for(statement, variables)
        elif not isinstance(statement, ast.Pass):
            raise CheckpointError(f"its code has a statement that is not read: {type(statement).__name__}", REMEDY)

    def _assignment(self, statement: ast.Assign | ast.AnnAssign, variables: dict[str, Any]) -> None:
        if statement.value is None:
            return
        value = self._value(statement.value, variables)
        for target in statement.targets if isinstance(statement, ast.Assign) else [statement.target]:
            self._assign(target, value, variables)

    def _for(self, statement: ast.For, variables: dict[str, Any]) -> None:
        items = self._value(statement.iter, variables)
        if not isinstance(items, (list, tuple, range)):
            raise CheckpointError("its code loops over the values of a tensor", REMEDY)
        for item in items:
            self.budget.take()
            self._assign(statement.target, item, variables)
            self._block(statement.body, variables)

    def _assign(self, target: ast.expr, value: Any, variables: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            variables[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            if not isinstance(value, (list, tuple)) or len(value) != len(target.elts):
                raise CheckpointError("its code unpacks a value that has other parts", REMEDY)
            for part, item in zip(target.elts, value):
                self._assign(part, item, variables)
        elif isinstance(target, ast.Attribute):
            owner = self._value(target.value, variables)
            if not isinstance(owner, ScriptModule):
                raise CheckpointError("its code sets an attribute of an object that is no module", REMEDY)
            self._set[id(owner.instance), target.attr] = value
        else:
            raise CheckpointError("its code assigns to what is no variable", REMEDY)

    def _truth(self, value: Any) -> bool:
        if isinstance(value, ProgramValue):
            raise CheckpointError(f"its code branches on the values of a tensor{self._place}", REMEDY)
        return bool(value)

    @property
    def _place(self) -> str:
        path = self._scopes[-1].path
        return f" in {printable(path, 80)}" if path else ""

    # Expressions

    def _value(self, tree: ast.expr, variables: dict[str, Any]) -> Any:
        self.budget.take()
        reader = _READERS.get(type(tree))
        if reader is None:
            raise CheckpointError(f"its code has an expression that is not read: {type(tree).__name__}", REMEDY)
        return reader(self, tree, variables)

    def _name(self, tree: ast.Name, variables: dict[str, Any]) -> Any:
        return variables[tree.id] if tree.id in variables else Named(tree.id)

    def _attribute(self, tree: ast.Attribute, variables: dict[str, Any]) -> Any:
        owner = self._value(tree.value, variables)
        if isinstance(owner, Named):
            if owner.text == "CONSTANTS":
                return self.constants[int(tree.attr[1:])]
            return Named(f"{owner.text}.{tree.attr}")
        return self._held(owner, tree.attr)

    def _held(self, owner: Any, name: str) -> Any:
        """An attribute of a module; its mode is that of evaluation."""
        if isinstance(owner, dict) and name in owner:
            return owner[name]  # a field of a NamedTuple
        if not isinstance(owner, ScriptModule):
            raise CheckpointError(f"its code reads {printable(name, 40)} of an object that is no module", REMEDY)
        if name == "training":
            return False
        key = id(owner.instance), name
        if key in self._set:
            return self._set[key]
        attributes = owner.instance.attributes.named()
        if name not in attributes:
            constant = self.code.constant(owner.kind, name)
            if constant is None:
                raise CheckpointError(f"its code reads {printable(name, 40)}, which is not in the file", REMEDY)
            return self._value(constant, {})
        value = attributes[name]
        if isinstance(value, Instance):
            path = f"{owner.path}.{name}" if owner.path else name
            return self.modules.setdefault(id(value), ScriptModule(path, value))
        return self._stored(value)

    def _stored(self, value: Any) -> Any:
        if isinstance(value, FileTensor):
            return self.tensors[id(value)]
        if isinstance(value, (list, tuple)):
            return type(value)(map(self._stored, self._checked(value)))
        return value

    def _subscript(self, tree: ast.Subscript, variables: dict[str, Any]) -> Any:
        held = self._value(tree.value, variables)
        if isinstance(held, Named):
            return held  # a type such as List[int]
        index = self._value(tree.slice, variables)
        if not isinstance(held, (list, tuple, dict)) or isinstance(index, ProgramValue):
            raise CheckpointError("its code reads a part of a value that has none", REMEDY)
        return held[index]

    def _unary(self, tree: ast.UnaryOp, variables: dict[str, Any]) -> Any:
        value = self._value(tree.operand, variables)
        if isinstance(tree.op, ast.Not):
            return not self._truth(value)
        if not isinstance(tree.op, ast.USub) or not isinstance(value, (int, float)):
            raise CheckpointError("its code has a sign that is not read", REMEDY)
        return -value

    def _compare(self, tree: ast.Compare, variables: dict[str, Any]) -> Any:
        left, right = self._value(tree.left, variables), self._value(tree.comparators[0], variables)
        function = {ast.Is: operator.is_, ast.IsNot: operator.is_not}.get(type(tree.ops[0]))
        if function is None or len(tree.ops) > 1:
            raise CheckpointError("its code has a comparison that is not read", REMEDY)
        return function(left, right)

    def _ternary(self, tree: ast.IfExp, variables: dict[str, Any]) -> Any:
        test = self._truth(self._value(tree.test, variables))
        return self._value(tree.body if test else tree.orelse, variables)

    def _list(self, tree: ast.List, variables: dict[str, Any]) -> Any:
        return self._checked([self._value(item, variables) for item in tree.elts])

    def _tuple(self, tree: ast.Tuple, variables: dict[str, Any]) -> Any:
        return self._checked(tuple(self._value(item, variables) for item in tree.elts))

    def _constant(self, tree: ast.Constant, variables: dict[str, Any]) -> Any:
        return self._checked(tree.value)

    def _dict(self, tree: ast.Dict, variables: dict[str, Any]) -> Any:
        keys = [None if key is None else self._value(key, variables) for key in tree.keys]
        if not all(isinstance(key, (str, int, float)) for key in keys):
            raise CheckpointError("its code has a dict whose keys are no texts or numbers", REMEDY)
        return self._checked(dict(zip(keys, (self._value(value, variables) for value in tree.values))))

    def _call(self, tree: ast.Call, variables: dict[str, Any]) -> Any:
        if isinstance(tree.func, ast.Attribute) and not _is_dotted(tree.func, variables):
            owner = self._value(tree.func.value, variables)
            args, kwargs = self._arguments(tree, variables)
            if not isinstance(owner, ScriptModule):
                raise CheckpointError(f"its code calls {printable(tree.func.attr, 40)} of no module", REMEDY)
            return self._method(owner, tree.func.attr, args, kwargs)
        function = self._value(tree.func, variables)
        if not isinstance(function, Named):
            raise CheckpointError("its code calls an object that is no function", REMEDY)
        if function.text in ("annotate", "unchecked_cast"):
            return self._value(tree.args[1], variables)
        if function.text == "uninitialized":
            return None
        args, kwargs = self._arguments(tree, variables)
        return self._function(function.text, args, kwargs)

    def _arguments(self, tree: ast.Call, variables: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
        args = [self._value(argument, variables) for argument in tree.args]
        named = ((word.arg or "", word.value) for word in tree.keywords)
        return args, {name: self._value(value, variables) for name, value in named}

    def _function(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        if name in _FUNCTIONALS:
            return self._operator(_FUNCTIONALS[name], args, kwargs, is_function=True)
        if name.startswith("__torch__."):
            function = self.code.function(name)
            fields = self.code.fields(name)
            if function is None and fields:
                return self._checked({**dict(zip(fields, args)), **kwargs})
            if function is None:
                raise CheckpointError(f"its code has no {printable(name, 80)}", REMEDY)
            return self._run(function, args, kwargs)
        if name in _BUILT_IN:
            return _BUILT_IN[name](self, args)
        space, _, plain = name.rpartition(".")
        if space in ("torch", "ops.prim", "ops.aten"):
            return self._torch(plain, args, kwargs)
        return self._operator(name.removeprefix("ops.").replace(".", "::"), args, kwargs)

    def _raise(self, args: list[Any]) -> None:
        text = next((value for value in args if isinstance(value, str)), "")
        raise ShapeError(f"its code raises an error{self._place}: {printable(text, 120)}", "give another input size")

    def _get(self, args: list[Any]) -> Any:
        owner, name = args
        return self._held(owner, str(name))

    def _torch(self, name: str, args: list[Any], kwargs: dict[str, Any]) -> Any:
        """A function of torch: of a tensor's shape, of numbers, or an operator."""
        first = args[0] if args else None
        if isinstance(first, ProgramValue) and name in _OF_SHAPE:
            return _OF_SHAPE[name](first, *args[1:])
        if isinstance(first, list) and name in _OF_LISTS:
            _OF_LISTS[name](first, *args[1:])
            return self._checked(first)
        if name in ("NumToTensor", "data", "unchecked_unwrap_optional", "unwrap_optional"):
            return first
        if name == "to" and isinstance(first, ProgramValue) and _dtype_of_to(first, args, kwargs) == first.dtype:
            return first
        plain = [_number(value) for value in args]
        if name in _ARITHMETIC and not values_in(plain if name not in _ON_ANY else []):
            self._check_operands(name, plain)
            return self._checked(_ARITHMETIC[name](*plain))
        return self._operator(name, args, kwargs)

    def _check_operands(self, name: str, values: Sequence[Any]) -> None:
        """Raise CheckpointError for operands of which a result could be built that is larger than any of a model."""
        is_repeat = name == "mul" and not all(isinstance(value, (int, float)) for value in values)
        if is_repeat or any(isinstance(value, range) for value in values):
            raise CheckpointError(f"its code computes {name} of what is no number{self._place}", REMEDY)

    def _checked(self, value: Any) -> Any:
        """The value. Raises CheckpointError for a number, a text or a list that is larger than any of a model."""
        waiting, count = [value], 0
        while waiting:
            item = waiting.pop()
            count += 1
            held = item.values() if isinstance(item, dict) else item if isinstance(item, (list, tuple)) else ()
            is_large = isinstance(item, int) and abs(item) >= 2**63
            is_large = is_large or (isinstance(item, str) and len(item) > LONGEST_TEXT)
            if is_large or count + len(waiting) + len(held) > LONGEST_LIST:
                raise CheckpointError("its code computes a number or a list that is larger than those of any model")
            waiting += held
        self.budget.take(count)
        return value

    # Operators

    def _operator(self, name: str, args: list[Any], kwargs: dict[str, Any], *, is_function: bool = False) -> Any:
        """Record an operator, and return its results."""
        if len(self.program.nodes) >= MOST_NODES:
            raise CheckpointError(f"it calls more than {MOST_NODES} operators, at most so many are read")
        given = tuple(tuple(value) if isinstance(value, list) and not values_in(value) else value for value in args)
        call = FunctionCall(name, False, given, kwargs) if is_function else translated(name, given, kwargs)
        if call.name in ("tensor", "arange") and not values_in((given, kwargs)):
            return self._numbers(call)
        if call.name in _CREATED and not values_in(given):
            made = ProgramValue(self._sizes(name, given), _created_dtype(kwargs, "float32"), is_computed=True)
            self.program.created(call, made)
            return made
        tensors = values_in((call.args, call.kwargs))
        if not tensors:
            raise CheckpointError(f"its code calls {printable(name, 60)} of no tensor{self._place}, unknown", REMEDY)
        results = self._results(call, tensors)
        self.budget.take(len(tensors) + len(results) + sum(len(value.parameters) for value in tensors))
        for side in (side for result in results for side in result.shape):
            if not isinstance(side, int) or not 0 <= side < 2**63:
                raise CheckpointError(f"{printable(call.name, 60)} returns a shape that no tensor has", REMEDY)
        self.program.call(call, results, self._scopes[-1])
        if call.name in _LISTS:
            return list(results)
        return tuple(results) if len(results) > 1 else results[0]

    def _numbers(self, call: FunctionCall) -> ProgramValue:
        """The constant of numbers that the code lists, or of a range of them."""
        numbers: Any = call.args[0]
        if call.name == "arange":
            ends = [value for value in call.args if isinstance(value, (int, float))]
            start, end, step = (0, *ends, 1) if len(ends) == 1 else (*ends, 1)[:3]
            shape: Shape = (max(math.ceil((end - start) / step), 0),)
            leaf: Any = sum(ends)
        else:
            shape, leaf = (), numbers
            while isinstance(leaf, (list, tuple)):
                shape = (*shape, len(leaf))
                leaf = leaf[0] if leaf else 0.0
        dtype = "bool" if isinstance(leaf, bool) else "int64" if isinstance(leaf, int) else "float32"
        made = ProgramValue(shape, _created_dtype(call.kwargs, dtype), is_computed=numel(shape) > 1)
        self.program.created(call, made)
        return made

    def _sizes(self, name: str, args: tuple[Any, ...]) -> Shape:
        sizes = args[0] if args else ()
        if not isinstance(sizes, tuple) or not all(isinstance(size, int) and 0 <= size < 2**31 for size in sizes):
            raise CheckpointError(f"its code calls {name} with sizes that no tensor has", REMEDY)
        return sizes

    def _results(self, call: FunctionCall, tensors: tuple[ProgramValue, ...]) -> list[ProgramValue]:
        """The tensors that a call returns, with the shapes that the rule of its op gives."""
        dtype = _dtype_of(call, tensors)
        results = [ProgramValue((), dtype) for _ in range(_pieces(call))]
        shape = _SHAPES[call.name](*call.args, **call.kwargs) if call.name in _SHAPES else None
        if call.name in KEEP_SHAPE or shape is not None:
            for result in results:
                result.shape = tensors[0].shape if shape is None else shape
            return results
        ops, inputs, _ = read_call(call, tensors, results, self._scopes[-1])
        if has_no_rule(ops[0]):
            if call.name == "contiguous" or call.name in _NO_NODE:
                results[0].shape = tensors[0].shape
                return results
            shown = printable(call.name, 60)
            raise CheckpointError(f"the shape of what {shown} returns{self._place} is not known", REMEDY)
        for place, result in enumerate(results):
            op = ops[min(place, len(ops) - 1)]
            result.shape = infer_output_shape(op, *(value.shape for value in inputs))
            result.filed = result.shape
            if is_view(op):
                result.strides = _view_strides(call, tensors[0], result.shape)
            elif tensors[0].strides and result.shape == tensors[0].shape and not op.is_convolution:
                result.strides = tensors[0].strides if op.is_pointwise else None
        return results


_ON_ANY = frozenset({"__is__", "__isnot__", "len", "__getitem__", "list", "format", "warn", "__contains__"})
"""Functions of lists that may hold tensors."""

_NO_NODE = frozenset({"alias", "detach", "requires_grad", "lift_fresh", "cpu", "cuda", "pin_memory"})

_LISTS = frozenset({"split", "chunk", "unbind", "tensor_split", "meshgrid"})
"""Operators that return a list."""

_OF_SHAPE: Mapping[str, Callable[..., Any]] = {
    "size": lambda value, *axis: value.shape[axis[0]] if axis else list(value.shape),
    "sym_size": lambda value, axis: value.shape[axis],
    "dim": lambda value: value.dim(),
    "numel": lambda value: value.numel(),
    "len": lambda value: value.shape[0],
    "dtype": lambda value: value.dtype,
    "device": lambda value: "cpu",
    "layout": lambda value: 0,
    "requires_grad": lambda value: any(parameter.trainable for parameter in value.parameters),
    "is_nested": lambda value: False,
    "is_cuda": lambda value: False,
    "is_quantized": lambda value: False,
    "is_sparse": lambda value: False,
    "is_floating_point": lambda value: value.dtype.startswith(("float", "bfloat")),
    "is_contiguous": lambda value, *_: value.is_contiguous,
    "shape": lambda value: list(value.shape),
    "__is__": lambda value, other: value is other,
    "__isnot__": lambda value, other: value is not other,
}
"""Functions of a tensor that its shape and dtype answer."""

_OF_LISTS: Mapping[str, Callable[..., Any]] = {
    "append": list.append,
    "extend": list.extend,
    "insert": list.insert,
    "reverse": list.reverse,
    "clear": list.clear,
}
"""Functions that change a list."""


def _is_dotted(tree: ast.expr, variables: Mapping[str, Any]) -> bool:
    """Whether an expression is a name of torch or of the file's code, such as `torch.relu`."""
    while isinstance(tree, ast.Attribute):
        tree = tree.value
    return isinstance(tree, ast.Name) and tree.id not in variables


def _number(value: Any) -> Any:
    """A constant of one known number as that number; any other value as it is."""
    known = isinstance(value, ProgramValue) and value.is_constant and value.known.number is not None
    if not known or value.shape:
        return value
    number = value.known.number
    return int(number) if value.dtype.startswith(("int", "uint")) and float(number).is_integer() else number


def _pieces(call: FunctionCall) -> int:
    """The number of tensors that a call returns."""
    args = call.args
    if call.name in ("lstm",):
        return 3
    if call.name in ("gru", "rnn_tanh", "rnn_relu", "topk", "sort", "var_mean", "std_mean"):
        return 2
    if call.name in ("max", "min") and len(args) > 1 and not isinstance(args[1], ProgramValue):
        return 2
    if call.name not in _LISTS or not args or not isinstance(args[0], ProgramValue):
        return 1
    rest = args[1:]
    axis = call.kwargs.get("dim", (rest[:1] if call.name == "unbind" else rest[1:2]) or (0,))
    side = args[0].shape[axis[0] if isinstance(axis, tuple) else axis]
    if call.name == "unbind":
        pieces = side
    elif isinstance(rest[0], tuple):
        pieces = len(rest[0])
    else:
        size = max(rest[0], 1) if call.name == "split" else -(-side // max(rest[0], 1))
        pieces = -(-side // max(size, 1))
    if not 0 < pieces <= 10_000:
        raise CheckpointError(f"its code cuts a tensor into {pieces} pieces", REMEDY)
    return pieces


_SCALAR_TYPES = {
    **{0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32", 7: "float64"},
    **{9: "complex64", 10: "complex128", 11: "bool", 15: "bfloat16"},
}
"""torch's names of the numbers of c10::ScalarType, which the code has."""


def _created_dtype(kwargs: Mapping[str, Any], default: str) -> str:
    """The dtype of a tensor that a call makes of numbers or sizes."""
    number = kwargs.get("dtype")
    return _SCALAR_TYPES.get(number, default) if type(number) is int else default


def _dtype_of_to(value: ProgramValue, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The dtype that `to` converts a tensor to: that of a number or of another tensor among its arguments."""
    for given in (kwargs.get("dtype"), *args[1:]):
        if isinstance(given, ProgramValue):
            return given.dtype
        if type(given) is int and given in _SCALAR_TYPES:
            return _SCALAR_TYPES[given]
    return value.dtype


def _dtype_of(call: FunctionCall, tensors: tuple[ProgramValue, ...]) -> str:
    """The dtype of what a call returns: that of its weights for a lookup, else of its first floating input."""
    if call.name == "to":
        return _dtype_of_to(tensors[0], call.args, call.kwargs)
    if call.name in ("argmax", "argmin", "long"):
        return "int64"
    if call.name in ("eq", "ne", "lt", "le", "gt", "ge", "logical_not", "logical_and", "logical_or", "isnan"):
        return "bool"
    floating = (value.dtype for value in tensors if value.dtype.startswith(("float", "bfloat", "complex")))
    return next(floating, tensors[0].dtype)


def _view_strides(call: FunctionCall, value: ProgramValue, shape: Shape) -> Shape | None:
    """The strides of a view that reorders or cuts axes; None where it is without gaps, in the order of its axes."""
    strides = list(value.strides or _row_major(value.shape))
    rest = call.args[1:]
    if call.name in ("transpose", "swapaxes", "t") and value.dim() > 1:
        one, two = rest[:2] if call.name != "t" else (0, 1)
        strides[one], strides[two] = strides[two], strides[one]
    elif call.name == "permute" and isinstance(rest[0], tuple):
        strides = [strides[axis] for axis in rest[0]]
    elif call.name not in ("chunk", "split") or len(strides) != len(shape):
        return None
    return tuple(strides)


def _row_major(shape: Shape) -> Shape:
    return tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


_BUILT_IN: Mapping[str, Callable[[ScriptRun, list[Any]], Any]] = {
    "getattr": ScriptRun._get,
    "range": lambda run, args: range(*map(int, args)),
    "int": lambda run, args: run._checked(int(_known(args[0]))),
    "float": lambda run, args: float(_known(args[0])),
    "bool": lambda run, args: run._truth(_number(args[0])),
    "str": lambda run, args: "",
    "ops.prim.type": lambda run, args: "cpu",
    "ops.prim.RaiseException": ScriptRun._raise,
    "torch.device": lambda run, args: "cpu",
    "torch.is_grad_enabled": lambda run, args: True,
    "torch.is_autocast_enabled": lambda run, args: False,
    "torch.is_autocast_cpu_enabled": lambda run, args: False,
}
"""Functions of TorchScript itself."""


def _known(value: Any) -> Any:
    """A number. Raises CheckpointError for a tensor whose value is not known."""
    number = _number(value)
    if isinstance(number, ProgramValue):
        raise CheckpointError("its code takes a number from a tensor, whose values are not read", REMEDY)
    return number


_READERS: Mapping[type[ast.expr], Callable[[ScriptRun, Any, dict[str, Any]], Any]] = {
    ast.Name: ScriptRun._name,
    ast.Constant: ScriptRun._constant,
    ast.Attribute: ScriptRun._attribute,
    ast.Subscript: ScriptRun._subscript,
    ast.UnaryOp: ScriptRun._unary,
    ast.Compare: ScriptRun._compare,
    ast.IfExp: ScriptRun._ternary,
    ast.List: ScriptRun._list,
    ast.Tuple: ScriptRun._tuple,
    ast.Dict: ScriptRun._dict,
    ast.Call: ScriptRun._call,
}
"""What evaluates each kind of expression."""
