"""Modules and operators whose figures the user states, by `vggscope.register_op`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from vggscope.errors import OptionError
from vggscope.ops.base import SavedTensors, Shape
from vggscope.ops.recorded import Registered
from vggscope.record import record
from vggscope.trace.tensors import tensors_in
from vggscope.units import shape_text

if TYPE_CHECKING:
    from torch import Tensor, nn


@record
class OpCall:
    """One call of a registered module or operator: what a rule of `register_op` may read.

    `inputs` are the shapes of its tensors and `output` that of its first result, `()` in the rule for the shape. Both
    have the batch dimension. `module` is the module that is called, None for an operator.
    """

    inputs: tuple[Shape, ...]
    output: Shape
    module: nn.Module | None = None


Saved = Literal["input", "output"] | Shape
"""A tensor that autograd saves: the inputs, the output, or another one of a shape."""

MacsRule = int | Callable[[OpCall], int]
SavedRule = Sequence[Saved] | Callable[[OpCall], Sequence[Saved]]
ShapeRule = Callable[[OpCall], Shape]


class Registration:
    """The handle of a registered op: `remove()` takes it back, and so does the end of a `with` block.

    >>> import vggscope
    >>> from torch import nn
    >>> class Twice(nn.Module):
    ...     def forward(self, x):
    ...         return 2 * x
    >>> with vggscope.register_op(Twice, macs=0) as registration:
    ...     registration
    <Registration of Twice>
    """

    def __init__(self, key: object, name: str, macs: MacsRule, saved: SavedRule | None, shape: ShapeRule | None):
        self.key, self.name = key, name
        self.macs, self.saved, self.shape = macs, saved, shape

    def __repr__(self) -> str:
        return f"<Registration of {self.name}>"

    def __enter__(self) -> Registration:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()

    def remove(self) -> None:
        """Take the registration back. It may be called twice."""
        if _REGISTERED.get(self.key) is self:
            del _REGISTERED[self.key]

    def _op(self, call: OpCall) -> Registered:
        """Return the op of a call. Raises OptionError where a rule returns something else than it should."""
        macs: Any = self._asked("macs", self.macs, call)
        if not hasattr(macs, "__index__") or isinstance(macs, bool) or macs < 0:
            raise OptionError(f"macs of {self.name} gives {macs!r}", "it gives a whole number of multiply-accumulates")
        keeps = None if self.saved is None else self._saved(call)
        return Registered(self.name, call.inputs, call.output, cost=int(macs), backward_cost=None, keeps=keeps)

    def _saved(self, call: OpCall) -> SavedTensors:
        listed: Any = self._asked("saved", self.saved, call)
        shapes = [saved for saved in listed if not isinstance(saved, str)]
        if set(listed) - {"input", "output", *shapes} or not all(map(_is_shape, shapes)):
            raise OptionError(
                f"saved of {self.name} gives {listed!r}", "it lists 'input', 'output' and shapes of further tensors"
            )
        inputs = tuple(range(len(call.inputs))) if "input" in listed else ()
        return SavedTensors(inputs, "output" in listed, extra=tuple((tuple(shape), None) for shape in shapes))

    def _asked(self, what: str, rule: object, call: OpCall) -> object:
        """Return what a rule gives. Raises OptionError where it raises anything."""
        if not callable(rule):
            return rule
        try:
            return rule(call)
        except Exception as error:
            problem = f"{what} of {self.name} raises {type(error).__name__}: {error}"
            raise OptionError(problem, f"it was called with inputs {call.inputs} and output {call.output}") from error

    def _output_shape(self, call: OpCall) -> Shape:
        """Return the shape that the rule gives. Raises OptionError if it gives none."""
        shape: Any = self._asked("shape", self.shape, call)
        if not _is_shape(shape):
            raise OptionError(f"shape of {self.name} gives {shape!r}", "it gives a tuple of sizes, the batch first")
        return tuple(shape)


_REGISTERED: dict[object, Registration] = {}


def are_any() -> bool:
    """Return whether anything is registered."""
    return bool(_REGISTERED)


def _is_shape(value: object) -> bool:
    return isinstance(value, tuple) and all(hasattr(size, "__index__") and size >= 0 for size in value)


def register(kind: Any, macs: MacsRule, saved: SavedRule | None, shape: ShapeRule | None) -> Registration:
    """Register a class of modules or an operator of torch.ops. A later registration replaces an earlier one.

    Raises OptionError for anything else, and for a class of torch.nn that has a rule.
    """
    from torch import nn

    from vggscope.trace.modules import MODULES

    if isinstance(kind, type) and issubclass(kind, nn.Module):
        if kind is nn.Module or (kind.__module__.startswith("torch.nn") and kind.__name__ in MODULES):
            raise OptionError(f"{kind.__name__} has a rule already", "register a class of your own")
        key, name = kind, kind.__name__
    else:
        key = _packet(kind)
        if key is None:
            raise OptionError(
                f"{getattr(kind, '__name__', kind)!r} is no class of modules and no operator of torch.ops",
                "make it a module's class, or register it with torch.library.custom_op",
            )
        if shape is not None:
            raise OptionError(f"{key.__name__} is an operator, whose shape torch knows", "leave shape out")
        name = key.__name__
    registration = Registration(key, name, macs, saved, shape)
    _REGISTERED[key] = registration
    return registration


def _packet(function: Any) -> Any:
    """Return the operator with all its overloads; None for what is no operator."""
    import torch

    operator = getattr(function, "_opoverload", function)  # of torch.library.custom_op
    packet = getattr(operator, "overloadpacket", operator)
    return packet if isinstance(packet, torch._ops.OpOverloadPacket) else None


def registration_of(module: nn.Module) -> Registration | None:
    """Return how a module's class is registered, or the one whose forward it inherits."""
    if not _REGISTERED:
        return None
    for kind in type(module).__mro__:
        if kind in _REGISTERED:
            return _REGISTERED[kind] if type(module).forward is kind.forward else None  # type: ignore[attr-defined]
    return None


def module_op(module: nn.Module) -> Registered | None:
    """Return an op for a registered module, without what only its call tells; None for any other."""
    registration = registration_of(module)
    return None if registration is None else Registered(registration.name, (), ())


def called(op: Registered, module: nn.Module, inputs: Sequence[Tensor], output: Shape) -> Registered:
    """Return the op of a registered module after a call."""
    registration = registration_of(module)
    if registration is None:  # forward removed it
        return op
    call = OpCall(tuple(tuple(tensor.shape) for tensor in inputs), output, module)
    weights = tuple((name, tuple(tensor.shape)) for name, tensor in module.named_parameters())
    return replace(registration._op(call), weights=weights)


def operator_op(function: object, inputs: Sequence[Tensor], output: Shape) -> Registered | None:
    """Return the op of a call of a registered operator; None for any other function."""
    registration = _REGISTERED.get(_packet(function))
    if registration is None:
        return None
    return registration._op(OpCall(tuple(tuple(tensor.shape) for tensor in inputs), output))


def note(op: Registered) -> str:
    """Return the sentence on whose figures an op has."""
    kept = "" if op.keeps is None else f", and what it saves for backward {shape_text_of(op.keeps)}"
    return f"the MACs of {op.name} are those that register_op was given{kept}"


def shape_text_of(kept: SavedTensors) -> str:
    """Return what is saved, in words."""
    words = [*(["its input"] if kept.inputs else []), *(["its output"] if kept.output else [])]
    return "(" + (", ".join((*words, *(shape_text(shape) for shape, _ in kept.extra))) or "nothing") + ")"


@contextmanager
def stated_shapes() -> Iterator[None]:
    """Within the block, registered modules with a rule for the shape return an empty tensor and run no code."""
    with ExitStack() as stack:
        for registration in list(_REGISTERED.values()):
            if registration.shape is not None:
                stack.enter_context(_returning_empty(registration))
        yield


@contextmanager
def _returning_empty(registration: Registration) -> Iterator[None]:
    kind: Any = registration.key
    own = vars(kind).get("forward")

    def forward(self: nn.Module, *args: object, **kwargs: object) -> Tensor:
        tensors = tensors_in((args, kwargs))
        call = OpCall(tuple(tuple(tensor.shape) for tensor in tensors), (), self)
        return tensors[0].new_empty(registration._output_shape(call))

    kind.forward = forward
    try:
        yield
    finally:
        if own is None:
            del kind.forward
        else:
            kind.forward = own
