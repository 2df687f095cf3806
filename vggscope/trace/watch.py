"""Intercept every call of a forward pass: modules by hooks, functions by a TorchFunctionMode.

A module whose class is in the table of `modules` is one node, whatever it calls inside. In any other module, each
function call is a node.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from vggscope.errors import ShapeError
from vggscope.graph import CodePosition, Input, Node, Output
from vggscope.ops.attention import MultiheadAttention
from vggscope.ops.base import Op, Shape
from vggscope.ops.constant import WithMasks
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.embedding import Lookup
from vggscope.ops.recorded import PRE_HOOK, Recorded, Registered, Unknown
from vggscope.ops.recurrent import Recurrent, RecurrentCell
from vggscope.ops.regularization import AlwaysDropout
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Reshape, Slice, View
from vggscope.record import changed
from vggscope.trace import registered
from vggscope.trace.autocast import autocast_device, autocast_requests, result_dtypes, with_dtypes
from vggscope.trace.compiled import as_plain_python
from vggscope.trace.dtypes import require_dtypes
from vggscope.trace.flops import (
    Counted,
    OperatorMacs,
    add_convolution,
    add_linear,
    counted,
    counted_macs,
    operator_macs,
    with_macs,
)
from vggscope.trace.function_facts import (
    FunctionFacts,
    asks_gradient,
    facts_of,
    makes_sparse_gradient,
    name_without_gradient,
    requires_gradient,
)
from vggscope.trace.function_table import MATRIX_PRODUCTS, SAME_DATA
from vggscope.trace.functions import (
    function_name,
    function_problem,
    functional_arguments,
    looked_up_axis,
    read,
)
from vggscope.trace.inputs import FunctionReader, Reader
from vggscope.trace.interception import (
    custom_functions,
    dispatch_modes,
    intercepted_from_numpy,
    intercepted_modules,
    modes_within,
    saved_tensors_hooks_noticed,
)
from vggscope.trace.known_results import (
    KnownCall,
    Signature,
    forget_if_functions_changed,
    known_call,
    layer_signature,
    places_of,
    remember,
    result_to_know,
    signature_and_tensors,
    signature_of,
    told_once,
)
from vggscope.trace.layout import kernel_layout, laid_out, shares_memory
from vggscope.trace.meta_shortcuts import shortcut_result
from vggscope.trace.modules import is_layer, is_plain, module_op
from vggscope.trace.other_batches import REVEALING_NOTHING, OtherBatches
from vggscope.trace.other_calls import FollowedCall, for_batch, has_size
from vggscope.trace.recorder import Call, Count, NodeFacts, Recorder, shape_of
from vggscope.trace.recurrent_steps import RECURRENT, result_of_steps
from vggscope.trace.saved import Saved, saved_in_training
from vggscope.trace.source_line import RunningCall, current_positions, current_stack
from vggscope.trace.tensors import Function, keep_on_device, mapped_tensors, plain_kinds, tensors_in, with_values
from vggscope.trace.training_mode import TrainingReads
from vggscope.trace.transforms import is_transforming, plain_tensors_in, vmap_results, without_wrappers
from vggscope.trace.unseen import has_foreign_modes, has_global_hooks, noticing, unwatched

if TYPE_CHECKING:
    from torch import Tensor, nn


NO_MACS = OperatorMacs()
"""What a call has dispatched that has no products. It is shared and stays as it is."""

MOST_VALUES = 10**8
"""The most elements with which a call that failed without data is tried with data: 400 MB."""

_FORWARD_CONVOLUTIONS = frozenset({"conv1d", "conv2d", "conv3d"})


class WatchedCall(NamedTuple):
    """A call of a function, with what is known of the function and the tensors among the arguments.

    `signature` is None if equal calls may differ. `given` are the arguments with the sizes that depend on the batch,
    None without any.
    """

    about: FunctionFacts
    function: Function
    args: tuple[object, ...]
    kwargs: dict[str, object]
    inputs: tuple[Tensor, ...]
    signature: Signature | None = None
    given: tuple[tuple[object, ...], dict[str, object]] | None = None


@dataclass
class RunningModule:
    """A running module with the shapes of its arguments, and its op if the module is one node.

    `given` are the arguments before the module's own hooks, if it is one node and has some. `masks` are those of
    attention, by name. `running` has the calls of the user's own code around it, if it is not one node. `signature` is
    None if equal calls may differ.
    """

    module: nn.Module
    path: str
    op: Op | None
    input_shapes: tuple[Shape, ...]
    given: tuple[Tensor, ...] = ()
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    running: RunningCall | None = None
    signature: Signature | None = None


@dataclass
class Watch:
    """Intercepts the calls of one run and passes those that become nodes to the recorder.

    - `paths` are the registered modules' paths by id.
    - `function_error` is the last error that a function raised, with the reason and the remedy.
    - `module_error` is the last error that left a module, with the modules that were running.
    - `failed_reader` is the layer or the function that raised, with the position among the inputs of the one that it
      read. A layer has read nothing else.
    - `signal` is the position of an input that torch.stft reads, which takes signals; None if it reads none.
    - `gradients` is true if the parameters require gradients in this run.
    - `paused` is true while a call is repeated to count its operations.
    - `reads_values` is true if a function failed on the meta device that runs on tensors with values.
    - `differentiates` is true if forward calls torch.autograd, which needs parameters with gradients.
    - `asked_device` is true if forward reads the device of a tensor, which it may refuse.
    - `values` is the last tensor whose values forward took as an array or a list, which is `taken`.
    - `packed` are the packed weights of quantised layers, by the layer's path.
    - `dispatched` are the multiply-accumulates that torch's operators have since the current call or layer began.
    - `compares` is false in a run whose products are not compared with torch's operators, which takes longer.
    - `reads_sizes` is true if forward has read a number that may depend on the batch, such as a tensor's shape.
    - `dispatch_modes` is the number of dispatch modes that ran before forward, and `modes` that of both kinds of modes.
    - `foreign_modes` is true if the caller runs a mode of its own, whose code may change results, and `foreign_hooks`
      if it has hooks on every module.
    - `thread_call` is the name of a function of torch that forward calls in a thread of its own, empty if it does not.
    - `autocast` is the device on which forward turns autocast on for a product, and `autocast_unknown` is true if a
      call has other dtypes than torch gives there.
    - `unregistered` is true if a module with parameters ran that is not registered.
    - `asks_gradient` is true if forward asks whether a tensor requires a gradient, and `makes_leaf` if it makes one
      require it.
    - `keeps_tensors` is true if forward has stored a tensor that it computed for its next call.
    - `training_reads` tell whether forward depends on the mode of a module.
    - `hook_products` says that a hook on a gradient, or on a module's backward pass, computes products, or may; empty
      if none does.
    - `without_gradient` is an operator of another library for which no gradient is registered, empty if there is none.
    - `sparse_call` is the first function that reads or returns a sparse matrix, empty if there is none.
    - `transforms` is true if forward calls vmap, under which torch takes other kernels.
    - `draws` is true if forward draws random numbers of Python or NumPy.
    - `changes_saved` is true if forward changes what autograd saves, as torch.utils.checkpoint does.
    - `backward` stands for the gradients that `Tensor.backward` has computed.
    - `signature` is that of the layer which is about to run, None if equal calls may differ.
    - `ops_hold_sizes` is true if an op has a number that depends on the batch, so that its rules fit one sample alone.
    - `others` is what is known of other batches, None in a run that does not tell.
    - `thread` is the thread that is watched. Hooks and replaced functions are those of all threads.
    """

    recorder: Recorder
    paths: Mapping[int, str]
    on_meta: bool
    gradients: bool = False
    stack: list[RunningModule] = field(default_factory=list)
    function_error: tuple[BaseException, str, str] | None = None
    module_error: tuple[BaseException, tuple[RunningModule, ...]] | None = None
    failed_reader: tuple[int, Reader] | None = None
    signal: int | None = None
    paused: bool = False
    reads_values: bool = False
    differentiates: bool = False
    backward: Tensor | None = None
    dispatched: OperatorMacs = field(default_factory=lambda: NO_MACS)
    compares: bool = True
    autocast: str = ""
    autocast_unknown: bool = False
    reads_sizes: bool = False
    asked_device: bool = False
    dispatch_modes: int = 0
    modes: int = 0
    foreign_modes: bool = False
    foreign_hooks: bool = False
    thread_call: str = ""
    values: Tensor | None = None
    taken: object = None
    packed: Mapping[str, Sequence[Tensor]] = field(default_factory=dict)
    unregistered: bool = False
    asks_gradient: bool = False
    makes_leaf: bool = False
    keeps_tensors: bool = False
    training_reads: TrainingReads = field(default_factory=TrainingReads)
    draws: bool = False
    changes_saved: bool = False
    hook_products: str = ""
    without_gradient: str = ""
    sparse_call: str = ""
    transforms: bool = False
    signature: Signature | None = None
    ops_hold_sizes: bool = False
    others: OtherBatches | None = None
    thread: int = field(default_factory=get_ident)

    def __post_init__(self) -> None:
        self.recorder.positions = self._positions

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Install the hooks and the mode within the block."""
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
        from torch.overrides import TorchFunctionMode

        forget_if_functions_changed()
        watch, kinds = self, plain_kinds()
        self.dispatch_modes, self.modes = dispatch_modes(), modes_within()
        self.foreign_modes, self.foreign_hooks = self.dispatch_modes > 0 or has_foreign_modes(), has_global_hooks()

        class WatchMode(TorchFunctionMode):
            def __torch_function__(
                self, func: Function, types: tuple[type, ...], args: tuple[object, ...] = (), kwargs: object = None
            ) -> object:
                for kind in types:
                    if kind not in kinds:
                        watch._may_read_sizes()  # a subclass has code of its own
                return watch.call(func, args, kwargs if isinstance(kwargs, dict) else {})

        with ExitStack() as stack:
            stack.enter_context(noticing(self._may_read_sizes, self._called_in_thread))
            stack.callback(register_module_forward_pre_hook(self.enter).remove)
            leave = cast("Callable[..., None]", self.leave)
            stack.callback(register_module_forward_hook(leave, with_kwargs=True, always_call=True).remove)
            stack.enter_context(intercepted_modules(self.call_module))
            stack.enter_context(as_plain_python(self.call))
            stack.enter_context(custom_functions(self.recorder))
            stack.enter_context(saved_tensors_hooks_noticed(self._hooks_saved_tensors))
            stack.enter_context(intercepted_from_numpy(self.call))
            stack.enter_context(vmap_results(self._leave_vmap))
            stack.enter_context(self.training_reads.watching())
            stack.enter_context(autocast_requests(self._asked_for_autocast))
            stack.enter_context(registered.stated_shapes())
            stack.enter_context(WatchMode())
            yield

    def _hooks_saved_tensors(self) -> None:
        self.changes_saved |= not self.paused and get_ident() == self.thread

    def _may_read_sizes(self) -> None:
        """Note that code which is not watched may read how many samples there are."""
        self.reads_sizes = True
        if self.others is not None:
            self.others.lose()

    def _called_in_thread(self, name: str) -> None:
        self.thread_call = self.thread_call or name

    @property
    def recorded(self) -> tuple[tuple[Node, ...], tuple[Input, ...], tuple[Output, ...]]:
        """The nodes, the inputs and the outputs of the run."""
        return self.recorder.finished(), self.recorder.inputs, self.recorder.outputs

    def wants_data(self, error: Exception | None) -> bool:
        """Return whether forward runs otherwise on tensors with values than it ran on the meta device.

        It does if a call failed that reads values. It may if an error of its own code follows a look at the device.
        """
        if not self.on_meta:
            return False
        if self.reads_values or isinstance(error, NotImplementedError):
            return True
        raised_by_function = self.function_error is not None and self.function_error[0] is error
        raised_by_layer = error is not None and any(running.op is not None for running in self.running(error))
        return error is not None and self.asked_device and not raised_by_function and not raised_by_layer

    def running(self, error: Exception) -> tuple[RunningModule, ...]:
        """Return the modules that were running when an error was raised."""
        if self.module_error is not None and self.module_error[0] is error:
            return self.module_error[1]
        return tuple(self.stack)

    @property
    def inside_node(self) -> bool:
        """Whether a module that is one node is running. Calls inside it are not recorded."""
        return bool(self.stack) and self.stack[-1].op is not None

    @property
    def path(self) -> str:
        """The path of the innermost running module."""
        return self.stack[-1].path if self.stack else ""

    def call_module(
        self, call: Callable[..., object], module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> object:
        """Call a module by `call`, or record a layer that is equal to an earlier one without running it."""
        if get_ident() != self.thread:
            return call(module, *args, **kwargs)
        with unwatched():
            self.signature = self._layer_signature(module, args, kwargs)
            known = known_call(self.signature)
            result = None if known is None else self._layer_again(module, cast("Tensor", args[0]), known)
        return call(module, *args, **kwargs) if result is None else result

    def _layer_signature(
        self, module: nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> Signature | None:
        """Return the signature of a layer that reads one tensor and is one node; None if equal calls may differ."""
        if len(args) != 1 or kwargs or self.paused or self.inside_node or self.packed or not is_layer(module):
            return None
        given = args[0]
        if type(given) not in plain_kinds() or id(module) not in self.paths or registered.are_any():
            return None
        is_alone = self._may_shorten((cast("Tensor", given),), 1) and not self.foreign_hooks
        return layer_signature(module, args, kwargs, counts=self.compares) if is_alone else None

    def _layer_again(self, module: nn.Module, given: Tensor, known: KnownCall) -> Tensor | None:
        """Record a layer by an equal one, and return its result; None if its weights come from elsewhere."""
        self.recorder.refresh(self.path, (given,))
        inputs, weights = (given,), tuple(_parameters_of(module))
        origins = self.recorder.origins_of(inputs, weights)
        nodes = known.nodes.get(origins.kinds, ())
        if known.result is None or not self.recorder.is_repeatable(nodes, origins):
            return None
        result = cast("Tensor", _distinct_result(nodes[0].op.without_constants, inputs, known.result.again(inputs)))
        path = self.paths[id(module)]
        self.recorder.add_again(path or _name_of(module), nodes, (inputs, weights), origins, (result,), path)
        if result is given:
            self.recorder.wrote(given)
        self._follow_layer(module, nodes[0].op, inputs, result, inputs, {}, self.signature)
        return result

    def enter(self, module: nn.Module, args: object) -> None:
        """Push a module on the stack before its forward runs."""
        if self.paused or get_ident() != self.thread:
            return
        with unwatched():
            inside = self.inside_node
            path = self.paths.get(id(module))
            if path is None:
                path = below(self.path, type(module).__name__)
                if next(module.parameters(), None) is not None:
                    self.unregistered = True
                    self.recorder.warn(
                        f"{path} is not registered, as a module in a plain list is not: its parameters are in no state"
                        " dict, are not trained, and count neither as parameters nor in memory;"
                        " nn.ModuleList or nn.ModuleDict would register it"
                    )
            if not inside:
                self.dispatched = NO_MACS
            op = self.stack[-1].op if inside else self._op(module, path)
            has_hooks = _has_hooks(module)
            may_replace = op is not None and not inside and has_hooks
            given = plain_tensors_in(args) if may_replace else ()
            # What a hook of a layer reads is not recorded, nor what any hook inside of it reads.
            has_hidden_hooks = inside and (has_hooks or bool(module._forward_hooks))
            if may_replace or has_hidden_hooks:
                self._may_read_sizes()
            shapes = tuple(map(shape_of, tensors_in(args)))
            describes = op is None and self.recorder.describes
            running = RunningCall(sys._getframe(1), self._running_call()) if describes else None
            signature, self.signature = self.signature, None
            self.stack.append(RunningModule(module, path, op, shapes, given, running=running, signature=signature))

    def _running_call(self) -> RunningCall | None:
        """Return the innermost call of a module that is not one node."""
        return next((frame.running for frame in reversed(self.stack) if frame.running is not None), None)

    def _positions(self) -> tuple[CodePosition, ...]:
        """Return the calls of the user's own code that are running, the innermost first."""
        running = self._running_call()
        return current_positions() if running is None else running.positions()

    def _op(self, module: nn.Module, path: str) -> Op | None:
        return registered.module_op(module) or module_op(module) or self._script_op(module, path)

    def _script_op(self, module: nn.Module, path: str) -> Op | None:
        """Return an op of unknown cost for a TorchScript module, whose calls cannot be intercepted; else None."""
        import torch

        if not isinstance(module, torch.jit.ScriptModule):
            return None
        self.recorder.warn(f"{path or 'the model'} is compiled by TorchScript: its layers are one row")
        return Unknown(module.original_name, (), ())

    def leave(self, module: nn.Module, args: tuple[object, ...], *more: object) -> object:
        """Pop a module from the stack and record it if it is one node. Return its result, or a tensor that replaces it.

        `more` are the keyword arguments and the result. After an error, torch passes no keyword arguments.
        """
        if self.paused or get_ident() != self.thread:
            return None
        with unwatched():
            error = sys.exc_info()[1] if len(more) == 1 else None
            if error is not None and (self.module_error is None or self.module_error[0] is not error):
                self.module_error = (error, tuple(self.stack))
                self._may_read_sizes()  # forward may catch it, and another batch may not raise it
            frame = self.stack.pop()
            while frame.module is not module:
                frame = self.stack.pop()
            if error is not None:
                if frame.op is not None and not self.inside_node:
                    self.failed_reader = self._input_read(module, plain_tensors_in(args))
                return None
            kwargs: Any
            kwargs, result = more
            if module._backward_pre_hooks or module._backward_hooks:
                self._note_backward_hooks(module, plain_tensors_in((args, kwargs)), plain_tensors_in(result))
            if self.inside_node:
                self._parametrization(frame, result)
                return result
            inputs = plain_tensors_in((args, kwargs) if kwargs else args)
            self._record_hooks(frame, inputs)
            frame.op = _op_of_call(frame.op, args, inputs, result)
            if isinstance(frame.op, MultiheadAttention):
                inputs = plain_tensors_in((args[:3], [kwargs.get(name) for name in ("query", "key", "value")]))
                frame.masks = _masks(args, kwargs)
                frame.op = replace(frame.op, masks=tuple(frame.masks))
            self.recorder.refresh(self.path, (*inputs, *frame.masks.values()))
            if frame.op is None:
                self._compiled_node(frame, inputs, result)
                return result
            result = self._module_node(frame, frame.op, inputs, result, args, kwargs)
            self._follow_layer(module, frame.op, inputs, result, args, kwargs, frame.signature)
            return result

    def _input_read(self, module: nn.Module, tensors: tuple[Tensor, ...]) -> tuple[int, nn.Module] | None:
        """Return a layer with the position of the network's input that it reads; None if it reads anything else."""
        names = [given.name for given in self.recorder.inputs]
        origin = self.recorder.origin(tensors[0]) if len(tensors) == 1 else None
        return (names.index(origin), module) if isinstance(origin, str) and origin in names else None

    def _function_reader(self, function: Function, tensors: tuple[Tensor, ...]) -> tuple[int, FunctionReader] | None:
        """Return a function with the position of the last input that it reads; None if it reads none."""
        for place, tensor in reversed(list(enumerate(tensors))):
            found = self._input_of(tensor)
            if found is not None:
                index, is_direct = found
                beside = [shape_of(other) for other in (*tensors[:place], *tensors[place + 1 :])] if is_direct else []
                return index, FunctionReader(function_name(function)[0], next(iter(beside), None))
        return None

    def _input_of(self, tensor: Tensor) -> tuple[int, bool] | None:
        """Return the position of the input that a tensor is, or is computed from without another one or a parameter.

        The second value is whether it is the input itself. None if it is computed from anything else.
        """
        names = [given.name for given in self.recorder.inputs]
        start = origin = self.recorder.origin(tensor)
        while isinstance(origin, str) and origin not in names:
            node = self.recorder.nodes[origin]
            if node.parameters or len(node.inputs) != 1:
                return None
            (origin,) = node.inputs
        return (names.index(origin), origin == start) if isinstance(origin, str) else None

    def _record_hooks(self, frame: RunningModule, inputs: tuple[Tensor, ...]) -> None:
        """Record the inputs that a module's own hooks have replaced after `enter`, each as one node."""
        for given, tensor in zip(frame.given, inputs):
            if tensor is not given and tensor not in self.recorder.origins:
                op = Recorded(PRE_HOOK, (shape_of(given),), shape_of(tensor))
                self.recorder.add(below(frame.path, op.name), Call((op,), (given,)), (tensor,))

    def call(self, function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        """Run a function of torch and record it, unless it is inside a module that is one node."""
        if get_ident() != self.thread:
            return function(*args, **kwargs)
        about = facts_of(function)
        if about.is_custom or dispatch_modes() != self.dispatch_modes:
            self._may_read_sizes()
        given = None
        if self.others is not None and self.others.are_read and has_size((args, kwargs)):
            given, (args, kwargs) = (args, kwargs), for_batch((args, kwargs), 0)
            self.others.look_at_code()
        with unwatched():
            signature, tensors = self._signature(about, function, args, kwargs)
            known = known_call(signature)
            again = None if known is None else self._function_again(about, function, args, kwargs, tensors, known)
            if again is not None:
                call = WatchedCall(about, function, args, kwargs, tuple(tensors), signature, given)
                return self._followed(call, again)
            inputs = plain_tensors_in((args, kwargs) if kwargs else args)
            call = self._on_device(WatchedCall(about, function, args, kwargs, inputs, signature, given))
            if call.about.has_dtype_rule:
                self._check_dtypes(call.function, call.args, call.kwargs, call.inputs)
            if call.inputs and about.name == "stft":
                self.signal, _ = self._input_of(call.inputs[0]) or (self.signal, False)
            result, run = self._without_kernel(call)
            if result is not None and not about.is_custom:
                return self._recorded_call(call, result)
        return self._run(call, run, result)

    def _on_device(self, call: WatchedCall) -> WatchedCall:
        """Return a call with its tensors on the device of the run, and note what they reveal of gradients."""
        about, function, args, kwargs, inputs, *_ = call
        are_on_meta = False not in [tensor.is_meta for tensor in inputs]
        if about.concerns_gradients or not are_on_meta:
            self._note_gradients(function, args, kwargs, inputs, are_on_meta)
        if not self.on_meta:
            return call
        if not are_on_meta:
            args, kwargs = tuple(map(self._moved, args)), {key: self._moved(v) for key, v in kwargs.items()}
            signature, _ = self._signature(about, function, args, kwargs)
            inputs = plain_tensors_in((args, kwargs))
            call = call._replace(args=args, kwargs=kwargs, inputs=inputs, signature=signature)
        if about.moves or "device" in kwargs:
            function, args, kwargs = keep_on_device(function, args, kwargs, "meta")
            call = call._replace(about=facts_of(function), function=function, args=args, kwargs=kwargs, signature=None)
        return call

    def _signature(
        self, about: FunctionFacts, function: Function, args: tuple[object, ...], kwargs: dict[str, object]
    ) -> tuple[Signature | None, list[Tensor]]:
        """Return the signature of a call, None if equal calls may differ, and the tensors among its arguments."""
        if not about.may_be_known or not self._is_alone():
            return None, []
        signature, tensors = signature_and_tensors(function, args, kwargs, counts=self.compares)
        if True in [tensor.requires_grad for tensor in tensors]:
            return None, tensors
        # A call that writes to memory which it also reads may fail.
        is_risky = about.in_place and any(shares_memory(tensors[0], other) for other in tensors[1:])
        return None if is_risky else signature, tensors

    def _function_again(
        self,
        about: FunctionFacts,
        function: Function,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        tensors: list[Tensor],
        known: KnownCall,
    ) -> object:
        """Record a call of a function by an equal one, and return its result; None if that is not known."""
        if not known.nodes or self.inside_node:
            return None
        self.recorder.refresh(self.path, tensors)
        inputs = [tensors[place] for place in known.inputs]
        weights = [tensors[place] for place in known.weights]
        origins = self.recorder.origins_of(inputs, weights)
        nodes = known.nodes.get(origins.kinds, ())
        if not self.recorder.is_repeatable(nodes, origins):
            return None
        op = nodes[0].op.without_constants
        result = function(*args, **kwargs) if known.result is None else known.result.again(args)
        result = _distinct_result(op, tensors, result)
        results = tensors_in(result)
        base, module = self._place_of_function(about.name)
        self.recorder.add_again(base, nodes, (inputs, weights), origins, results, module)
        self._note_rows(op, inputs, results[0])
        if results[0] is tensors[0] and not isinstance(op, View):
            self.recorder.wrote(results[0])
        return result

    def _without_kernel(self, call: WatchedCall) -> tuple[object | None, Function]:
        """Return the result of a call if torch's kernel need not run for it, else None and the function to run."""
        about, function, args, kwargs, inputs, *_ = call
        run = self._counting(about, function, args, self._under_autocast(function, args, kwargs, inputs))
        if about.has_kernel_layout and self.on_meta and not is_transforming():
            order = kernel_layout(about.name, args)
            run = run if order is None else partial(laid_out, order, run)
        if not self._may_shorten(inputs):
            return None, run
        if about.is_view:
            return self._viewed(call), run
        return self._shortcut(call, run) if about.may_be_known and not about.is_quick else (None, run)

    def _viewed(self, call: WatchedCall) -> object:
        """Run a function of torch that makes no tensor of its own, without the mode that places new tensors."""
        function, args, kwargs = call.function, call.args, call.kwargs
        try:
            return function(*args, **kwargs)
        except Exception as error:
            self._failed(function, args, kwargs, error)
            raise

    def _run(self, call: WatchedCall, run: Function, result: object | None) -> object:
        """Run a call that has no result yet, and record it."""
        about, function, args, kwargs, inputs, *_ = call
        try:
            if about.differentiates and not self.inside_node:
                self.differentiates = True
                self._note_hook(function, args)
                result, macs = with_macs(partial(function, *args, **kwargs))
                return self._gradient_node(about.name, inputs, result, macs)
            result = run(*args, **kwargs) if result is None else result
        except Exception as error:
            self._failed(function, args, kwargs, error)
            raise
        if about.is_custom or not self.on_meta:
            self._note_result(function, about.is_custom, inputs, plain_tensors_in(result))
        if self.inside_node:
            return result
        with unwatched():
            return self._recorded_call(call, result)

    def _recorded_call(self, call: WatchedCall, result: object) -> object:
        """Record a call unless it is inside a module that is one node. Return its result, or one that replaces it."""
        if self.inside_node:
            if call.given is not None and self.others is not None:
                self.others.want_plain_sizes()  # its op would have them among its settings
            return result
        return self._followed(call, self._function_node(call, result))

    def _followed(self, call: WatchedCall, result: object) -> object:
        """Follow a recorded call for other batches. Return its result, with sizes that depend on the batch."""
        if self.others is None or not self.stack:
            return result
        about, function, args, kwargs, inputs, signature, given = call
        followed = FollowedCall(function, args, kwargs, inputs, about.name, None, signature, given)
        return self.others.after(followed, result)

    def _follow_layer(
        self,
        module: nn.Module,
        op: Op,
        inputs: tuple[Tensor, ...],
        result: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        signature: Signature | None,
    ) -> None:
        """Follow a recorded call of a module that is one node for other batches."""
        if self.others is None:
            return
        if isinstance(op, (Recurrent, RecurrentCell)) or (self.others.are_read and has_size((args, kwargs))):
            self.others.lose()

        def forward(*args: object, **kwargs: object) -> object:
            with self._repeating():
                return module.forward(*args, **kwargs)

        name = "conv2d" if isinstance(op, Convolution) else ""
        self.others.after(FollowedCall(forward, args, kwargs, inputs, name, op, signature), result)

    def _note_gradients(
        self,
        function: Function,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        inputs: tuple[Tensor, ...],
        are_on_meta: bool,
    ) -> None:
        """Note what a call reveals about the tensors that autograd differentiates by."""
        if self.inside_node:
            self.stack[-1].signature = None  # each call is to be noted
        if makes_sparse_gradient(function, args, kwargs):
            self.recorder.has_sparse_gradient(next(tensor for tensor in inputs if tensor.is_floating_point()))
        if not self.inside_node:
            self.asks_gradient |= asks_gradient(function)
            self.makes_leaf |= requires_gradient(function, args)
        if not are_on_meta:
            self._check_registered(inputs)

    def _note_hook(self, function: Function, args: tuple[object, ...]) -> None:
        """Note if a hook that a call sets on a gradient computes products: run it on a gradient of that shape."""
        import torch

        if getattr(function, "__name__", "") != "register_hook" or self.hook_products or len(args) < 2:
            return
        tensor, hook = cast("tuple[Tensor, Callable[[Tensor], object]]", args[:2])
        with unwatched(), self._repeating(), torch.no_grad():
            macs = counted_macs(partial(hook, torch.zeros_like(tensor)))
        if macs != 0:
            origin = self.recorder.origin(tensor)
            place = f" of {origin}" if isinstance(origin, str) else ""
            self.hook_products = f"the hook that forward sets on the gradient{place} computes products"

    def _note_backward_hooks(self, module: nn.Module, inputs: tuple[Tensor, ...], results: tuple[Tensor, ...]) -> None:
        """Note if a hook on a module's backward pass computes products: run it on gradients of these tensors."""
        import torch

        if self.hook_products:
            return
        read, given = (tuple(map(torch.zeros_like, tensors)) for tensors in (inputs, results))
        calls = (
            *(partial(hook, module, given) for hook in module._backward_pre_hooks.values()),
            *(partial(hook, module, read, given) for hook in module._backward_hooks.values()),
        )
        with self._repeating(), torch.no_grad():
            if any(counted_macs(call) != 0 for call in calls):
                path = self.paths.get(id(module)) or type(module).__name__
                self.hook_products = f"the hook on the backward pass of {path} computes products"

    def _note_result(
        self, function: Function, is_custom: bool, inputs: tuple[Tensor, ...], results: tuple[Tensor, ...]
    ) -> None:
        """Note an operator of another library without a gradient, and a call that reads or returns a sparse matrix.

        A torch.autograd.Function has a gradient of its own. A sparse matrix needs values, and is never on the meta
        device. Raises NotImplementedError for a nested tensor.
        """
        with unwatched():
            if is_custom and not self.recorder.has_own_backward and any(t.is_floating_point() for t in results):
                self.without_gradient = self.without_gradient or name_without_gradient(function)
            if any(tensor.is_nested for tensor in results):
                raise NotImplementedError("the shape of a nested tensor is not known; use a padded one in its place")
            if not self.sparse_call and any("sparse" in str(tensor.layout) for tensor in (*inputs, *results)):
                self.sparse_call = function_name(function)[0]

    def _check_registered(self, tensors: tuple[Tensor, ...]) -> None:
        """Note a tensor that autograd trains and that is no parameter of the model."""
        if self.unregistered or not any(
            t.requires_grad and t.is_leaf and t not in self.recorder.origins for t in tensors
        ):
            return
        self.unregistered = True
        if not any(running.path not in self.paths.values() for running in self.stack):
            self.recorder.warn(
                f"{self.path or 'forward'} reads a tensor that requires a gradient and is no registered parameter:"
                " it counts neither as a parameter nor in memory; nn.Parameter as an attribute would register it"
            )

    def _asked_for_autocast(self, device: str) -> None:
        self.autocast = self.autocast or device

    def _moved(self, value: object) -> object:
        """Return an argument with its tensors on the meta device, and remember their values."""

        def moved(tensor: Tensor) -> Tensor:
            if tensor.is_meta:
                return tensor
            result = tensor.to("meta")
            if result not in self.recorder.constants.known:
                self.recorder.constants.keep(result, tensor)
            return result

        return mapped_tensors(value, moved)

    def _counting(self, about: FunctionFacts, function: Function, args: tuple[object, ...], run: Function) -> Function:
        """Return `run`, so that its multiply-accumulates are added to `dispatched` unless the function has none."""
        if not self.inside_node:
            self.dispatched = NO_MACS
        if not about.may_multiply:
            return run
        self.autocast = self.autocast or autocast_device()
        if is_transforming():
            return run
        if not self.compares and (self.inside_node or about.is_product):
            self.dispatched = OperatorMacs(is_known=False)
            return run
        return partial(
            self._convolved if self.on_meta and _is_plain_convolution(function, args) else self._counted, run
        )

    def _counted(self, run: Function, /, *args: object, **kwargs: object) -> object:
        """Run a call and count the operators that it dispatches."""
        with operator_macs(self._own_dispatched()):
            return run(*args, **kwargs)

    def _convolved(self, run: Function, /, input: Tensor, weight: Tensor, *args: object, **kwargs: object) -> object:
        """Run a convolution and count it by its shapes."""
        result = run(input, weight, *args, **kwargs)
        add_convolution(self._own_dispatched(), input, weight, cast("Tensor", result))
        return result

    def _own_dispatched(self) -> OperatorMacs:
        """Return `dispatched`, which may be added to."""
        if self.dispatched is NO_MACS:
            self.dispatched = OperatorMacs()
        return self.dispatched

    def _check_dtypes(
        self, function: Function, args: tuple[object, ...], kwargs: dict[str, object], inputs: tuple[Tensor, ...]
    ) -> None:
        """Raise the error of a call with dtypes that only the meta device accepts."""
        if not self.on_meta or is_transforming():
            return
        try:
            require_dtypes(function, args, kwargs, inputs)
        except RuntimeError as error:
            self._failed(function, args, kwargs, error)
            raise

    def _failed(
        self, function: Function, args: tuple[object, ...], kwargs: dict[str, object], error: Exception
    ) -> None:
        """Note why a function failed, and whether it fails only without values."""
        self._may_read_sizes()  # forward may catch the error, and another batch may not raise it
        with unwatched():
            self.reads_values = self.reads_values or (self.on_meta and _runs_on_values(function, args, kwargs))
            if not self.inside_node:
                self.function_error = (error, *function_problem(function, args, kwargs, error))
                self.failed_reader = self._function_reader(function, plain_tensors_in((args, kwargs)))

    def _shortcut(self, call: WatchedCall, run: Function) -> tuple[object | None, Function]:
        """Return a result without torch's meta kernels, or from few steps of a sequence, and count its products.

        None if `run` must run, for example for its gradient graph. It is returned too, so that its result may be
        remembered.
        """
        about, function, args, kwargs, inputs, signature, _ = call
        if about.name in RECURRENT:
            return result_of_steps(function, args, self._own_dispatched()), run
        result = shortcut_result(function, args, kwargs)
        if result is not None and about.name == "linear":
            weight = args[1] if len(args) > 1 else kwargs["weight"]
            add_linear(self._own_dispatched(), inputs[0], cast("Tensor", weight))
        elif result is not None and about.name == "conv2d":
            add_convolution(self._own_dispatched(), inputs[0], inputs[1], result)
        if result is not None:
            return result, run
        known = known_call(signature)
        if known is None:
            return None, run if signature is None else partial(self._remembered, signature, function, run)
        if known.result is None:
            return None, run
        if known.result.macs != NO_MACS:
            self._own_dispatched().add(known.result.macs)
        return known.result.again(args), run

    def _may_shorten(self, inputs: tuple[Tensor, ...], own_modes: int = 0) -> bool:
        """Return whether a call of these tensors needs no more than its result, and torch alone computes it.

        `own_modes` is 1 outside of a call that the watch's own mode handles.
        """
        kinds = plain_kinds()
        return self._is_alone(own_modes) and False not in [
            type(tensor) in kinds and not tensor.requires_grad for tensor in inputs
        ]

    def _is_alone(self, own_modes: int = 0) -> bool:
        """Return whether torch alone runs the calls on the meta device, without gradients."""
        if not self.on_meta or self.gradients or is_transforming() or autocast_device():
            return False
        # A mode of the user sees the calls, and may read their sizes.
        return not self.foreign_modes and modes_within() == self.modes + own_modes

    def _remembered(
        self, signature: Signature, function: Function, run: Function, /, *args: object, **kwargs: object
    ) -> object:
        """Run a call and remember its result with the multiply-accumulates that it dispatches."""
        before, self.dispatched = self.dispatched, NO_MACS
        try:
            result = run(*args, **kwargs)
        finally:
            own, self.dispatched = self.dispatched, before
            if own is not NO_MACS:
                self._own_dispatched().add(own)
        with unwatched():
            is_same = signature_of(function, args, kwargs, counts=self.compares) == signature  # it changed no argument
            remember(signature, result_to_know(args, kwargs, result, own) if is_same else None)
        return result

    def _under_autocast(
        self, function: Function, args: tuple[object, ...], kwargs: dict[str, object], inputs: tuple[Tensor, ...]
    ) -> Function:
        """Return the function, with results in the dtypes that autocast on the CPU gives, if forward turns it on."""
        if not self.on_meta or not inputs or autocast_device() != "cpu" or is_transforming():
            return function
        dtypes = result_dtypes(function, args, kwargs)
        self.autocast_unknown |= dtypes is None
        return with_dtypes(dtypes, function) if dtypes else function

    def _gradient_node(self, name: str, inputs: tuple[Tensor, ...], result: object, macs: int | None) -> object:
        """Record a call of torch.autograd in forward. Later calls read the gradients that `backward` computes."""
        with unwatched():
            results = plain_tensors_in(result)
            if name == "backward":
                self.backward = inputs[0].detach().clone()
                results = (self.backward,)
            if results:
                shapes, output = tuple(map(shape_of, inputs)), shape_of(results[0])
                op: Op = Unknown(name, shapes, output)
                if macs is not None:
                    op = Recorded(name, shapes, output, cost=macs, backward_cost=None)
                self.recorder.add(below(self.path, name), Call((op,), inputs), results)
        return result

    def _array_node(self, name: str, result: object) -> object:
        """Record a tensor that forward makes from an array or a list, which may depend on values of another tensor."""
        assert self.values is not None
        (tensor,) = plain_tensors_in(result)
        op = Recorded(name, (shape_of(self.values),), shape_of(tensor), differentiable=False)
        self.recorder.add(below(self.path, name), Call((op,), (self.values,)), (tensor,))
        self.recorder.warn(f"{name} takes values from outside torch: what forward computes there is not counted")
        return result

    def _leave_vmap(self, inside: Tensor, outside: Tensor) -> None:
        """Record a result of vmap, which moves the axis of the samples."""
        if get_ident() != self.thread:
            return
        self.transforms = True
        with unwatched():
            if shape_of(inside) == shape_of(outside):
                self.recorder.repeat(inside, (outside,))
            elif self.recorder.is_constant((inside,)):
                self.recorder.pass_on((inside,), (outside,))
            else:
                op = Recorded("vmap", (shape_of(inside),), shape_of(outside), shares=True)
                self.recorder.add(below(self.path, "vmap"), Call((op,), (inside,)), (outside,))

    def _counter(self, function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> Count:
        """Return a function that counts the cost of a call by repeating it without recording."""

        def count(leaves: Sequence[Tensor]) -> Counted:
            with self._repeating():
                run = self._under_autocast(function, args, kwargs, tensors_in((args, kwargs)))
                return counted(run, args, kwargs, leaves)

        return count

    @contextmanager
    def _repeating(self) -> Iterator[None]:
        """Record no module within the block, in which a call is repeated."""
        self.paused = True
        try:
            yield
        finally:
            self.paused = False

    def _saver(
        self,
        function: Function,
        args: tuple[object, ...],
        kwargs: dict[str, object],
        inputs: tuple[Tensor, ...],
        module: nn.Module | None = None,
    ) -> Callable[[Op], Saved | None]:
        """Return a function that tells what autograd saves of a call, by repeating it without recording."""

        def saved(op: Op) -> Saved | None:
            in_training_only = module is None and op.active_in == "training"  # the call passes training=False
            if not self.on_meta or in_training_only or autocast_device():
                return None
            told = partial(saved_in_training, op, function, args, kwargs, inputs, module)
            with self._repeating():
                if dispatch_modes() > 0:
                    return told()
                call = signature_of(function, args, kwargs) if module is None else layer_signature(module, args, kwargs)
                places = places_of(inputs, args, kwargs)
                return told_once(None if call is None else (*call, op.allocates, *places), told)

        return saved

    def _module_node(
        self,
        frame: RunningModule,
        op: Op,
        inputs: tuple[Tensor, ...],
        result: object,
        args: tuple[object, ...],
        kwargs: dict[str, object],
    ) -> object:
        """Record a call of a module that is one node. Return its result, or a tensor that replaces it."""
        count = self._counter(frame.module.forward, args, kwargs)
        returned, result = result, _distinct_result(op, inputs, result)
        distinct = tuple({id(tensor): tensor for tensor in inputs}.values()) if len(inputs) > 1 else inputs
        if isinstance(op, (MultiheadAttention, Recurrent, RecurrentCell)) and 1 < len(inputs) != len(distinct):
            op = replace(op, roles=tuple(next(i for i, t in enumerate(distinct) if t is given) for given in inputs))
        if isinstance(op, Registered):
            op = registered.called(op, frame.module, distinct, shape_of(plain_tensors_in(result)[0]))
            self.recorder.warn(registered.note(op))
        if isinstance(op, Unknown):
            shapes = (tuple(map(shape_of, tensors)) for tensors in (distinct, plain_tensors_in(result)))
            op = Unknown(op.name, next(shapes), next(iter(next(shapes)), ()))
        base = frame.path or _name_of(frame.module)
        weights = (*without_wrappers(_parameters_of(frame.module)), *self.packed.get(frame.path, ()))
        saved = self._saver(frame.module.forward, args, kwargs, distinct, frame.module)
        computed: tuple[Tensor, ...] = ()
        constants: tuple[Tensor, ...] = ()
        if frame.masks:
            masks = tuple(frame.masks.values())
            computed = tuple(mask for mask in masks if not self.recorder.is_constant((mask,)))
            constants = tuple(mask for mask in masks if self.recorder.is_constant((mask,)))
        op = WithMasks(op, len(computed)) if computed else op
        call = Call((op,), (*distinct, *computed), weights, count, self.dispatched, saved, constants)
        if results := plain_tensors_in(result):
            nodes = self.recorder.add(base, call, results, module=frame.path)
            if frame.signature is not None and nodes:
                self._remember_layer(frame.signature, frame.module, nodes, inputs, returned)
            if inputs and results[0] is inputs[0]:
                self.recorder.wrote(results[0])
        return result

    def _remember_layer(
        self,
        signature: Signature,
        module: nn.Module,
        nodes: tuple[NodeFacts, ...],
        inputs: tuple[Tensor, ...],
        result: object,
    ) -> None:
        """Keep what is known of a call of a layer for equal calls."""
        if layer_signature(module, inputs, {}, counts=self.compares) == signature and type(result) is plain_kinds()[0]:
            known = known_call(signature) or remember(signature, result_to_know(inputs, {}, result, NO_MACS))
            known.nodes[nodes[0].kinds] = nodes

    def _function_node(self, call: WatchedCall, result: object) -> object:
        """Record a call of a function. Return its result, or a tensor that replaces it."""
        (name, in_place, *_), _, args, kwargs, inputs, *_ = call
        self.asked_device |= name in _DEVICE_READERS
        if name in _TO_VALUES:
            self.values, self.taken = next(iter(inputs), None), result
        if name in _FROM_VALUES and self.values is not None and args and _holds_values(args[0], self.taken):
            return self._array_node(name, result)
        self._note_reading(name, inputs, result)
        kwargs, inputs, out = _without_out(args, kwargs, inputs)
        if name in _READ_A_DTYPE:
            inputs = inputs[:1]
        self.recorder.refresh(self.path, inputs)
        results = inputs[:1] if name == "setitem" else plain_tensors_in(result)
        if not results or (name == "setitem" and self.recorder.has_written(args[-1], inputs[0])):
            return result  # a size or a number; or an augmented assignment, which has written to a view before
        if name in SAME_DATA and inputs:
            self.recorder.repeat(inputs[0], results)
            return result
        if name not in MATRIX_PRODUCTS and not self.dispatched.total and self.recorder.is_constant(inputs):
            self._pass_on(call._replace(inputs=inputs), results, overwrites=in_place or out is not None)
            return result
        call = call._replace(kwargs=kwargs, inputs=inputs, signature=call.signature if out is None else None)
        return self._op_node(call, results, result, out)

    def _op_node(self, call: WatchedCall, results: tuple[Tensor, ...], result: object, out: object) -> object:
        """Record a call that depends on the network's inputs by its op. Return its result, or one that replaces it."""
        about, function, args, kwargs, inputs, signature, _ = call
        arguments = functional_arguments(function, args)
        inputs = inputs if arguments is args else plain_tensors_in((arguments, kwargs))
        op_call = self._stated(function, inputs, results)
        op_call = op_call or read(about.name, about.in_place, arguments, kwargs, inputs, results)
        packed = self.packed.get(self.path, ()) if self.packed and any(map(_is_packed, args)) else ()
        count = self._counter(function, args, kwargs)
        weights = (*op_call.weights, *packed)
        saved = self._saver(function, args, kwargs, op_call.inputs)
        op_call, op = (
            op_call._replace(weights=weights, cost=count, dispatched=self.dispatched, saved=saved),
            op_call.ops[0],
        )
        returned = result
        if results[0] is not inputs[0] or op.active_in == "training":
            result = _distinct_result(op, inputs, result)
            results = plain_tensors_in(result)
        elif op.allocates and about.name not in MATRIX_PRODUCTS:
            return result  # the input itself, as contiguous() returns it
        nodes = self._add_function(about.name, op_call, results)
        if nodes and signature is not None and not about.concerns_gradients:  # else each call is noted
            self._remember_function(call, op_call, nodes, returned)
        if results[0] is out or (results[0] is inputs[0] and not isinstance(op, View)):
            self.recorder.wrote(results[0])
        return result

    def _remember_function(
        self, call: WatchedCall, op_call: Call, nodes: tuple[NodeFacts, ...], result: object
    ) -> None:
        """Keep the nodes of a call of a function for equal calls, unless the call has changed its arguments."""
        about, function, args, kwargs, inputs, signature, _ = call
        read, weights = (places_of(tensors, inputs, {}) for tensors in (op_call.inputs, op_call.weights))
        is_same = signature_of(function, args, kwargs, counts=self.compares) == signature
        if signature is None or not is_same or -1 in (*read, *weights):
            return
        known = known_call(signature)
        if known is None:
            to_know = None if about.is_quick else result_to_know(args, kwargs, result, self.dispatched)
            known = remember(signature, to_know)
        known.inputs, known.weights = read, weights
        known.nodes[nodes[0].kinds] = nodes

    def _pass_on(self, call: WatchedCall, results: tuple[Tensor, ...], *, overwrites: bool) -> None:
        """Record a call on constants alone."""
        (name, *_), function, args, kwargs, inputs, *_ = call
        base = below(self.path, name) if self.recorder.memory else ""
        if overwrites and (name == "setitem" or not call.about.in_place):
            self.recorder.weights.is_known = False
            self.recorder.pass_on(inputs, results)
        elif overwrites or not any(results[0] is tensor for tensor in inputs):
            weight_call = _weight_call(call, results) if base and self.recorder.describes else None
            pass_on = self.recorder.pass_on_overwritten if overwrites else self.recorder.pass_on
            pass_on(inputs, results, base, weight_call)
        if self.recorder.describes:
            self.recorder.constants.computed(name, function, args, kwargs, results, overwrites)

    def _stated(self, function: Function, inputs: tuple[Tensor, ...], results: tuple[Tensor, ...]) -> Call | None:
        """Return the call of an operator whose figures the user states; None for any other function."""
        if not registered.are_any():
            return None
        op = registered.operator_op(function, inputs, shape_of(results[0]))
        if op is None:
            return None
        self.recorder.warn(registered.note(op))
        return Call((op,), inputs)

    def _note_reading(self, name: str, inputs: tuple[Tensor, ...], result: object) -> None:
        """Record whether a call may tell forward how many samples there are: any result that is no tensor.

        What depends on no input is the same for any number of samples.
        """
        if self.reads_sizes or not self.stack or name in REVEALING_NOTHING or name == "setitem":
            return
        is_read = not plain_tensors_in(result) and not self.recorder.is_constant(inputs)
        self.reads_sizes = is_transforming() or is_read

    def _add_function(self, name: str, call: Call, results: Sequence[Tensor]) -> tuple[NodeFacts, ...]:
        """Record a call of a function. Return what its nodes have in common with those of equal calls, if known."""
        base, module = self._place_of_function(name)
        nodes = self.recorder.add(base, call, results, module)
        self._note_rows(call.ops[0], call.inputs, results[0])
        if isinstance(call.ops[0], AlwaysDropout):
            self.recorder.warn(
                f"{below(self.path, name)} is on at evaluation too: F.dropout needs training=self.training"
            )
            return ()
        return nodes

    def _place_of_function(self, name: str) -> tuple[str, str | None]:
        """Return the name for the node of a function, and the path of the module whose only call it is, else None."""
        if self.stack and is_plain(self.stack[-1].module):
            return self.path or name, self.path
        return below(self.path, name), None

    def _note_rows(self, op: Op, inputs: Sequence[Tensor], result: Tensor) -> None:
        """Note the running lines of a reshape that changes the number of rows."""
        if isinstance(op, (Reshape, Flatten)) and _makes_rows(inputs[0], result):
            self.recorder.lines[str(self.recorder.origin(result))] = current_stack()

    def _parametrization(self, frame: RunningModule, result: object) -> None:
        """Record the matrix products of a parametrization, which computes a layer's weight, as a node."""
        if type(frame.module).__name__ != "ParametrizationList":
            return
        names, parameters = zip(*frame.module.named_parameters())
        trained = tuple(filter(self.recorder.is_trained, parameters))
        cost = self._counter(partial(_weight_of, frame.module, names), parameters, {})(trained)
        if cost.macs != 0:
            self.dispatched = self.dispatched.without(cost.macs)
            weight = cast("Tensor", result).detach()
            name, shape = type(next(frame.module.children())).__name__, shape_of(weight)
            op: Recorded = Unknown(name, (), shape)
            if cost.macs is not None:
                op = Recorded(name, (), shape, cost=cost.macs, backward_cost=cost.backward, trains=bool(trained))
            described = replace(op, arguments_given=_parametrization_text(frame.module))
            self.recorder.add(frame.path, Call((described,), (), reads=parameters), (weight,))

    def _compiled_node(self, frame: RunningModule, inputs: tuple[Tensor, ...], result: object) -> None:
        """Record a module whose calls cannot be intercepted, such as compiled code, as one node of unknown cost."""
        # On the meta device, a result with values is a tensor that the module holds.
        results = (t for t in plain_tensors_in(result) if t.is_meta or not self.on_meta)
        unrecorded = [t for t in results if t not in self.recorder.origins]
        if unrecorded and not self.recorder.is_constant(inputs):
            op = Unknown(type(frame.module).__name__, frame.input_shapes, shape_of(unrecorded[0]))
            call = Call((op,), inputs, tuple(frame.module.parameters()))
            self.recorder.add(frame.path, call, unrecorded, module=frame.path)


def _name_of(module: nn.Module) -> str:
    """Return the name for the node of a module that is the network itself and has no path."""
    return str(getattr(module, "original_name", type(module).__name__)).lower()


def _weight_call(call: WatchedCall, results: tuple[Tensor, ...]) -> Call:
    """Return the op of a call on weights alone with what it reads."""
    name = call.about.name
    if name in ("reshape_as", "view_as"):  # the other tensor gives the shape alone
        return read("reshape", False, (call.args[0], results[0].shape), {}, call.inputs[:1], results)
    if name == "getitem" and (axis := looked_up_axis(call.args[1])) is not None:
        return Call((Lookup(axis),), call.inputs)
    known = read(name, call.about.in_place, call.args, call.kwargs, call.inputs, results)
    return known._replace(ops=tuple(changed(op, of_weight=True) if isinstance(op, Slice) else op for op in known.ops))


def _parametrization_text(module: nn.Module) -> tuple[str, ...]:
    """Return the parametrizations of a weight with their settings."""
    return tuple(map(repr, module.children()))


def _parameters_of(module: nn.Module) -> Iterable[Tensor]:
    """Return the parameters of a module, without torch's generators if it is a layer without parts."""
    if any(part is not None for part in module._modules.values()):
        return module.parameters()
    own = module._parameters.values()
    return {id(tensor): tensor for tensor in own if tensor is not None}.values()


def _masks(args: tuple[object, ...], kwargs: dict[str, object]) -> dict[str, Tensor]:
    """Return the masks that a call of MultiheadAttention passes, by name."""
    named = dict(zip(("key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal"), args[3:]))
    given = {**named, **kwargs}
    masks = {name: plain_tensors_in(given.get(name)) for name in ("key_padding_mask", "attn_mask")}
    return {name: tensors[0] for name, tensors in masks.items() if tensors}


def _weight_of(parametrization: nn.Module, names: tuple[str, ...], *parameters: Tensor) -> object:
    """Return the weight that a parametrization computes from these parameters."""
    from torch.func import functional_call

    return functional_call(parametrization, dict(zip(names, parameters)))


def _makes_rows(tensor: Tensor, result: Tensor) -> bool:
    """Return whether a reshape makes rows of another number and another size, or a single axis."""
    if result.dim() == 1:
        return tensor.dim() > 1
    return result.dim() == 2 and result.shape[0] != tensor.shape[:1].numel() and result.shape[-1:] != tensor.shape[-1:]


def _without_out(
    args: tuple[object, ...], kwargs: dict[str, object], inputs: tuple[Tensor, ...]
) -> tuple[dict[str, object], tuple[Tensor, ...], object]:
    """Return a call's keyword arguments and input tensors without the tensor `out`, and that tensor."""
    out = kwargs.get("out")
    if out is None:
        return kwargs, inputs, None
    kwargs = {key: value for key, value in kwargs.items() if key != "out"}
    return kwargs, plain_tensors_in((args, kwargs)), out


def _has_hooks(module: nn.Module) -> bool:
    """Return whether a module has hooks that may replace its input."""
    return bool(module._forward_pre_hooks or module._backward_hooks or module._backward_pre_hooks)


def _is_plain_convolution(function: Function, args: tuple[object, ...]) -> bool:
    """Return whether a call is a real convolution of a batch, given as positional arguments."""
    if getattr(function, "__name__", "") not in _FORWARD_CONVOLUTIONS or len(args) < 2:
        return False
    given, weight = cast("tuple[Tensor, Tensor]", args[:2])
    if type(given) is not plain_kinds()[0] or type(weight) not in plain_kinds():
        return False
    return given.is_floating_point() and given.dim() == weight.dim()


def _is_packed(value: object) -> bool:
    """Return whether an argument holds the packed weights of a quantised layer."""
    import torch

    return isinstance(value, torch.ScriptObject)


def _runs_on_values(function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Return whether a function that failed on the meta device runs on zeros or ones: it reads values.

    False for more elements than MOST_VALUES.
    """
    if sum(tensor.numel() for tensor in tensors_in((args, kwargs))) > MOST_VALUES:
        return False
    return any(_runs(function, with_values(args, fill), with_values(kwargs, fill)) for fill in (0, 1))


def _runs(function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            function(*args, **kwargs)
    except Exception:  # a function may raise anything
        return False
    return True


_DEVICE_READERS = frozenset({"device", "is_meta", "is_cuda", "is_cpu", "get_device"})

_READ_A_DTYPE = frozenset({"to", "type_as"})
"""Functions that read the dtype of a second tensor, not its values."""

_TO_VALUES = frozenset({"numpy", "array", "tolist"})

_FROM_VALUES = frozenset({"from_numpy", "tensor", "as_tensor", "asarray"})


def _holds_values(data: object, taken: object) -> bool:
    """Return whether data is a NumPy array, or the list that was taken from a tensor."""
    return type(data).__module__ == "numpy" or (data is taken and isinstance(data, list))


def _packed_sequences(args: tuple[object, ...]) -> int:
    """Return the number of sequences in a PackedSequence; 0 if the first argument is none."""
    batch_sizes = getattr(args[0], "batch_sizes", None) if args else None
    return 0 if batch_sizes is None or batch_sizes.is_meta else int(batch_sizes[0])


def _op_of_call(op: Op | None, args: tuple[object, ...], inputs: tuple[Tensor, ...], result: object) -> Op | None:
    """Return a module's op with what only a call of it tells: the sequences of a batch, the padding of the output."""
    if isinstance(op, Recurrent):
        return replace(op, sequences=_packed_sequences(args))
    return _with_output_padding(op, inputs, result) if isinstance(op, TransposedConvolution) else op


def _with_output_padding(op: TransposedConvolution, inputs: tuple[Tensor, ...], result: object) -> Op:
    """Return the op with the output padding of this call, which `output_size` may set."""
    if not inputs or not isinstance(size := getattr(result, "shape", None), tuple) or len(size) != inputs[0].dim():
        return op
    with suppress(ShapeError):
        sides = len(op.output_padding)
        more = [a - b for a, b in zip(size[-sides:], op.output_shape(shape_of(inputs[0]))[-sides:])]
        return replace(op, output_padding=tuple(own + extra for own, extra in zip(op.output_padding, more)))
    return op


def below(path: str, name: str) -> str:
    """Return a name below a module's path."""
    return f"{path}.{name}" if path else name


def _distinct_result(op: Op, inputs: Sequence[Tensor], result: object) -> object:
    """Return the result, as a new tensor if the op returns its input itself: dropout at evaluation, an identity.

    Otherwise another node that reads the input would seem to read this op.
    """
    import torch

    is_input = isinstance(result, torch.Tensor) and any(result is tensor for tensor in inputs)
    in_place = not op.allocates and op.active_in == "always" and op.name != "Identity"
    return result.detach() if isinstance(result, torch.Tensor) and is_input and not in_place else result
