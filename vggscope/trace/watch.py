"""Sees every call of a forward pass: hooks tell which module is running, a TorchFunctionMode which function.

A module whose class is in the table of `modules` is one node, whatever it calls inside; elsewhere each function is a
node.
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
from vggscope.trace.devices import keep_on_device
from vggscope.trace.flops import counted_macs
from vggscope.trace.function_table import MATRIX_PRODUCTS, SAME_DATA
from vggscope.trace.functions import Function, function_name, misfit, read
from vggscope.trace.layout import as_kernels_lay
from vggscope.trace.meta_shortcuts import shortcut_result
from vggscope.trace.modules import is_plain, module_op
from vggscope.trace.recorder import Call, Recorder, on_meta, shape_of
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass
class Frame:
    """A module that is running, the shapes that it was called with, and its op where it is one node."""

    module: nn.Module
    path: str
    op: Op | None
    met: tuple[Shape, ...]


@dataclass
class Watch:
    """Follows one run and hands the recorder what becomes a node.

    `paths` are the registered modules' paths by id. `failed` and `broken` are the last error with the function that
    raised it and why, and with the modules that were running.
    """

    recorder: Recorder
    paths: Mapping[int, str]
    on_meta: bool
    stack: list[Frame] = field(default_factory=list)
    failed: tuple[BaseException, str] | None = None
    broken: tuple[BaseException, tuple[Frame, ...]] | None = None
    paused: bool = False

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks and mode in place, and taken away again."""
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
        from torch.overrides import TorchFunctionMode

        watch = self

        class Mode(TorchFunctionMode):
            def __torch_function__(
                self, func: Function, types: object, args: tuple[object, ...] = (), kwargs: object = None
            ) -> object:
                return watch.call(func, args, kwargs if isinstance(kwargs, dict) else {})

        hooks = (
            register_module_forward_pre_hook(self.enter),
            register_module_forward_hook(cast("Callable[..., None]", self.leave), with_kwargs=True, always_call=True),
        )
        try:
            with Mode():
                yield
        finally:
            for hook in hooks:
                hook.remove()

    @property
    def inside_node(self) -> bool:
        """Whether a module that is one node is running: nothing in it is written down."""
        return bool(self.stack) and self.stack[-1].op is not None

    @property
    def path(self) -> str:
        """The path of the innermost module that is running."""
        return self.stack[-1].path if self.stack else ""

    def enter(self, module: nn.Module, args: object) -> None:
        """A module begins."""
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
            met = tuple(map(shape_of, tensors_in(args)))
            op = self.stack[-1].op if self.inside_node else module_op(module) or _opaque(module)
            self.stack.append(Frame(module, path, op, met))

    def leave(self, module: nn.Module, args: tuple[object, ...], *more: object) -> object:
        """A module ends: it becomes a node if it is one. Gives another result where that must be told from an input.

        `more` are its keyword arguments and its result; where it has raised, torch leaves the first out.
        """
        if self.paused:
            return None
        with _unwatched():
            error = sys.exc_info()[1] if len(more) == 1 else None
            if error is not None and (self.broken is None or self.broken[0] is not error):
                self.broken = (error, tuple(self.stack))
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
                # The masks are no operands: they change neither the shape nor the cost.
                inputs = tensors_in((args[:3], [kwargs.get(name) for name in ("query", "key", "value")]))
            if frame.op is None:
                self._unseen(frame, inputs, result)
                return result
            return self._module_node(frame, frame.op, inputs, result, partial(module.forward, *args, **kwargs))

    def call(self, function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """A function of torch is called: it runs, and becomes a node where it is one."""
        with _unwatched():
            inputs = tensors_in((args, kwargs))
            if self.on_meta and not all(tensor.is_meta for tensor in inputs):
                args, kwargs = tuple(map(on_meta, args)), {key: on_meta(value) for key, value in kwargs.items()}
                inputs = tensors_in((args, kwargs))
            if self.on_meta:
                function, args, kwargs = keep_on_device(function, args, kwargs, "meta")
            known = shortcut_result(function, args, kwargs) if self.inside_node and self.on_meta else None
        if self.inside_node:
            return function(*args, **kwargs) if known is None else known
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            self.failed = (error, misfit(function, args, kwargs, error))
            raise
        with _unwatched():
            if self.on_meta:
                result = as_kernels_lay(function, result)
            return self._function_node(function, args, kwargs, inputs, result)

    def _counter(self, call: Callable[[], object]) -> Callable[[], int | None]:
        """What counts a call by running it once more, unwatched."""

        def count() -> int | None:
            self.paused = True
            try:
                return counted_macs(call)
            finally:
                self.paused = False

        return count

    def _module_node(
        self, frame: Frame, op: Op, inputs: tuple[Tensor, ...], result: object, again: Callable[[], object]
    ) -> object:
        result = _told_apart(op, inputs, result)
        distinct = tuple({id(tensor): tensor for tensor in inputs}.values())
        if isinstance(op, Unknown):
            shapes = (tuple(map(shape_of, tensors)) for tensors in (distinct, tensors_in(result)))
            op = Unknown(op.name, next(shapes), next(iter(next(shapes)), ()))
        base = frame.path or type(frame.module).__name__.lower()
        call = Call((op,), distinct, tuple(frame.module.parameters()), self._counter(again))
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
            return result  # a size, or a number
        if name in SAME_DATA and inputs:
            self.recorder.repeat(inputs[0], results)
            return result
        if name not in MATRIX_PRODUCTS and self.recorder.is_constant(inputs):
            # Of another tensor `to` takes the dtype alone.
            self.recorder.pass_on(inputs[:1] if name in ("to", "type_as") else inputs, results)
            return result
        again = partial(function, *args, **kwargs)
        op_call = read(name, in_place, args, kwargs, inputs, results)
        if self.on_meta or not in_place:
            op_call = replace(op_call, count=self._counter(again))
        if results[0] is not inputs[0] or op_call.ops[0].active_in == "training":
            result = _told_apart(op_call.ops[0], inputs, result)
            results = tensors_in(result)
        elif op_call.ops[0].allocates:
            return result  # the tensor itself: contiguous() of what is contiguous
        if isinstance(op_call.ops[0], AlwaysDropout):
            self.recorder.warn(
                f"{below(self.path, name)} is on at evaluation too: F.dropout needs training=self.training"
            )
        if self.stack and is_plain(self.stack[-1].module):
            self.recorder.add(self.path or name, op_call, results, module=self.path)
        else:
            self.recorder.add(below(self.path, name), op_call, results)
        return result

    def _unseen(self, frame: Frame, inputs: tuple[Tensor, ...], result: object) -> None:
        """A module whose inside cannot be seen, as compiled code cannot: it is one node of unknown cost."""
        unseen = [t for t in tensors_in(result) if t not in self.recorder.origins]
        if unseen and not self.recorder.is_constant(inputs):
            op = Unknown(type(frame.module).__name__, frame.met, shape_of(unseen[0]))
            call = Call((op,), inputs, tuple(frame.module.parameters()))
            self.recorder.add(frame.path, call, unseen, module=frame.path)


def below(path: str, name: str) -> str:
    """A name within a module's path."""
    return f"{path}.{name}" if path else name


def _opaque(module: nn.Module) -> Op | None:
    """TorchScript's modules cannot be looked into: each is one node of unknown cost."""
    import torch

    return Unknown(type(module).__name__, (), ()) if isinstance(module, torch.jit.ScriptModule) else None


def _told_apart(op: Op, inputs: tuple[Tensor, ...], result: object) -> object:
    """The result, as another tensor where the op gives its very input back: dropout at evaluation, an identity.

    Else another reader of that input would seem to read the op.
    """
    from torch import Tensor

    given_back = isinstance(result, Tensor) and any(result is tensor for tensor in inputs)
    in_place = not op.allocates and op.active_in == "always" and op.name != "Identity"
    return result.detach() if isinstance(result, Tensor) and given_back and not in_place else result


def _unwatched() -> AbstractContextManager[None]:
    """Within this, functions on tensors are not seen: those that the watch itself calls."""
    from torch._C import DisableTorchFunction

    return DisableTorchFunction()
