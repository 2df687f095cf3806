"""Intercept every call of a forward pass: modules by hooks, functions by a TorchFunctionMode.

A module whose class is in the table of `modules` is one node, whatever it calls inside. In any other module, each
function call is a node.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, cast

from vggscope.ops.attention import MultiheadAttention
from vggscope.ops.base import Op, Shape
from vggscope.ops.recorded import Unknown
from vggscope.ops.regularization import AlwaysDropout
from vggscope.trace.flops import counted_macs
from vggscope.trace.function_table import MATRIX_PRODUCTS, SAME_DATA
from vggscope.trace.functions import function_name, function_problem, read
from vggscope.trace.layout import with_kernel_layout
from vggscope.trace.meta_shortcuts import shortcut_result
from vggscope.trace.modules import is_plain, module_op
from vggscope.trace.recorder import Call, Recorder, shape_of
from vggscope.trace.tensors import Function, keep_on_device, on_meta, tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class RunningModule:
    """A running module with the shapes of its arguments, and its op if the module is one node."""

    module: nn.Module
    path: str
    op: Op | None
    input_shapes: tuple[Shape, ...]


@dataclass
class Watch:
    """Intercepts the calls of one run and passes those that become nodes to the recorder.

    - `paths` are the registered modules' paths by id.
    - `function_error` is the last error that a function raised, with the reason.
    - `module_error` is the last error that left a module, with the modules that were running.
    - `paused` is true while a call is repeated to count its operations.
    """

    recorder: Recorder
    paths: Mapping[int, str]
    on_meta: bool
    stack: list[RunningModule] = field(default_factory=list)
    function_error: tuple[BaseException, str] | None = None
    module_error: tuple[BaseException, tuple[RunningModule, ...]] | None = None
    paused: bool = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Install the hooks and the mode within the block."""
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
        from torch.overrides import TorchFunctionMode

        watch = self

        class WatchMode(TorchFunctionMode):
            def __torch_function__(
                self, func: Function, types: object, args: tuple[object, ...] = (), kwargs: object = None
            ) -> object:
                return watch.call(func, args, kwargs if isinstance(kwargs, dict) else {})

        hooks = (
            register_module_forward_pre_hook(self.enter),
            register_module_forward_hook(cast("Callable[..., None]", self.leave), with_kwargs=True, always_call=True),
        )
        try:
            with WatchMode():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def inside_node(self) -> bool:
        """Whether a module that is one node is running. Calls inside it are not recorded."""
        return bool(self.stack) and self.stack[-1].op is not None

    @property
    def path(self) -> str:
        """The path of the innermost running module."""
        return self.stack[-1].path if self.stack else ""

    def enter(self, module: nn.Module, args: object) -> None:
        """Push a module on the stack before its forward runs."""
        if self.paused:
            return
        with _unwatched():
            path = self.paths.get(id(module))
            if path is None:
                path = below(self.path, type(module).__name__)
                if next(module.parameters(), None) is not None:
                    self.recorder.warn(
                        f"{path} is not registered, as a module in a plain list is not: its parameters are in no state"
                        " dict and are not trained; nn.ModuleList or nn.ModuleDict would register it"
                    )
            op = self.stack[-1].op if self.inside_node else module_op(module) or _script_op(module)
            self.stack.append(RunningModule(module, path, op, tuple(map(shape_of, tensors_in(args)))))

    def leave(self, module: nn.Module, args: tuple[object, ...], *more: object) -> object:
        """Pop a module from the stack and record it if it is one node. Return its result, or a tensor that replaces it.

        `more` are the keyword arguments and the result. After an error, torch passes no keyword arguments.
        """
        if self.paused:
            return None
        with _unwatched():
            error = sys.exc_info()[1] if len(more) == 1 else None
            if error is not None and (self.module_error is None or self.module_error[0] is not error):
                self.module_error = (error, tuple(self.stack))
            frame = self.stack.pop()
            while frame.module is not module:
                frame = self.stack.pop()
            if error is not None:
                return None
            kwargs, result = cast("tuple[dict[str, object], object]", more)
            if self.inside_node:
                return result
            inputs = tensors_in((args, kwargs))
            if isinstance(frame.op, MultiheadAttention):
                # The masks are no inputs of the node: they change neither the shape nor the cost.
                inputs = tensors_in((args[:3], [kwargs.get(name) for name in ("query", "key", "value")]))
            if frame.op is None:
                self._compiled_node(frame, inputs, result)
                return result
            return self._module_node(frame, frame.op, inputs, result, partial(module.forward, *args, **kwargs))

    def call(self, function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Run a function of torch and record it, unless it is inside a module that is one node."""
        with _unwatched():
            inputs = tensors_in((args, kwargs))
            if self.on_meta and not all(tensor.is_meta for tensor in inputs):
                args, kwargs = tuple(map(on_meta, args)), {key: on_meta(value) for key, value in kwargs.items()}
                inputs = tensors_in((args, kwargs))
            if self.on_meta:
                function, args, kwargs = keep_on_device(function, args, kwargs, "meta")
            shortcut = shortcut_result(function, args, kwargs) if self.inside_node and self.on_meta else None
        if self.inside_node:
            return function(*args, **kwargs) if shortcut is None else shortcut
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.function_error = (error, function_problem(function, args, kwargs, error))
            raise
        with _unwatched():
            if self.on_meta:
                result = with_kernel_layout(function, result)
            return self._function_node(function, args, kwargs, inputs, result)

    def _counter(self, call: Callable[[], object]) -> Callable[[], int | None]:
        """Return a function that counts the multiply-accumulates of a call by repeating it without recording."""

        def count() -> int | None:
            self.paused = True
            try:
                return counted_macs(call)
            finally:
                self.paused = False

        return count

    def _module_node(
        self, frame: RunningModule, op: Op, inputs: tuple[Tensor, ...], result: object, repeat: Callable[[], object]
    ) -> object:
        result = _distinct_result(op, inputs, result)
        distinct = tuple({id(tensor): tensor for tensor in inputs}.values())
        if isinstance(op, Unknown):
            shapes = (tuple(map(shape_of, tensors)) for tensors in (distinct, tensors_in(result)))
            op = Unknown(op.name, next(shapes), next(iter(next(shapes)), ()))
        base = frame.path or type(frame.module).__name__.lower()
        call = Call((op,), distinct, tuple(frame.module.parameters()), self._counter(repeat))
        if results := tensors_in(result):
            self.recorder.add(base, call, results, module=frame.path)
        return result

    def _function_node(
        self,
        function: Function,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        inputs: tuple[Tensor, ...],
        result: object,
    ) -> object:
        name, in_place = function_name(function)
        results = inputs[:1] if name == "setitem" else tensors_in(result)
        if not results:
            return result  # a size or a number
        if name in SAME_DATA and inputs:
            self.recorder.repeat(inputs[0], results)
            return result
        if name not in MATRIX_PRODUCTS and self.recorder.is_constant(inputs):
            # `to` and `type_as` read the dtype of a second tensor, not its values.
            self.recorder.pass_on(inputs[:1] if name in ("to", "type_as") else inputs, results)
            return result
        op_call = read(name, in_place, args, kwargs, inputs, results)
        if self.on_meta or not in_place:
            op_call = replace(op_call, count=self._counter(partial(function, *args, **kwargs)))
        if results[0] is not inputs[0] or op_call.ops[0].active_in == "training":
            result = _distinct_result(op_call.ops[0], inputs, result)
            results = tensors_in(result)
        elif op_call.ops[0].allocates:
            return result  # the input itself, as contiguous() returns it
        if isinstance(op_call.ops[0], AlwaysDropout):
            self.recorder.warn(
                f"{below(self.path, name)} is on at evaluation too: F.dropout needs training=self.training"
            )
        if self.stack and is_plain(self.stack[-1].module):
            self.recorder.add(self.path or name, op_call, results, module=self.path)
        else:
            self.recorder.add(below(self.path, name), op_call, results)
        return result

    def _compiled_node(self, frame: RunningModule, inputs: tuple[Tensor, ...], result: object) -> None:
        """Record a module whose calls cannot be intercepted, such as compiled code, as one node of unknown cost."""
        unrecorded = [t for t in tensors_in(result) if t not in self.recorder.origins]
        if unrecorded and not self.recorder.is_constant(inputs):
            op = Unknown(type(frame.module).__name__, frame.input_shapes, shape_of(unrecorded[0]))
            call = Call((op,), inputs, tuple(frame.module.parameters()))
            self.recorder.add(frame.path, call, unrecorded, module=frame.path)


def below(path: str, name: str) -> str:
    """Return a name below a module's path."""
    return f"{path}.{name}" if path else name


def _script_op(module: nn.Module) -> Op | None:
    """Return an op of unknown cost for a TorchScript module, whose calls cannot be intercepted; else None."""
    import torch

    return Unknown(type(module).__name__, (), ()) if isinstance(module, torch.jit.ScriptModule) else None


def _distinct_result(op: Op, inputs: tuple[Tensor, ...], result: object) -> object:
    """Return the result, as a new tensor if the op returns its input itself: dropout at evaluation, an identity.

    Otherwise another node that reads the input would seem to read this op.
    """
    from torch import Tensor

    is_input = isinstance(result, Tensor) and any(result is tensor for tensor in inputs)
    in_place = not op.allocates and op.active_in == "always" and op.name != "Identity"
    return result.detach() if isinstance(result, Tensor) and is_input and not in_place else result


def _unwatched() -> AbstractContextManager[None]:
    """Do not intercept functions within the block, because the watch itself calls them."""
    from torch._C import DisableTorchFunction

    return DisableTorchFunction()
