"""Record what torch allocates in one step of a module: forward, loss and backward, run on tensors without data.

The rules of `ops/` predict the allocations of a Network that has no module. For a module that runs, torch itself tells
them: a dispatch mode sees each operator, and a weak reference tells when a storage is freed. Under FakeTensorMode the
tensors have no data. They claim to be on the CPU, because a fake CUDA device fails in the backward pass;
`trace/gpu_kernels.py` replaces the functions for which torch takes another kernel on a GPU.
"""

from __future__ import annotations

import gc
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import ref

from vggscope.graph import Network
from vggscope.recorded_step import BEFORE, RecordedStep, StepRequest, StorageEvent
from vggscope.trace.compiled import without_compiler
from vggscope.trace.dataless import DatalessOperators, operator_mode
from vggscope.trace.forward import (
    META,
    module_mode,
    random_numbers_drawn,
    random_state,
    replaced_tensors,
    replacement_tensors,
)
from vggscope.trace.functions import first_line, function_name
from vggscope.trace.gpu_kernels import gpu_kernel
from vggscope.trace.gradient_layouts import contiguous
from vggscope.trace.gradient_sums import is_gradient_sum_in_place, unshared
from vggscope.trace.inputs import CallInputs
from vggscope.trace.kept_outside import note_run, restore_outside
from vggscope.trace.parts import tensors_of
from vggscope.trace.preserve import copy_containers, preserved, stored_tensors
from vggscope.trace.tensors import converted_dtype, dtype_named, tensors_in
from vggscope.trace.unseen import in_own_thread, unwatched, without_disabling
from vggscope.trace.watch import below

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

SECOND, THIRD = 2, 3
"""The batches from which the growth of each storage follows. One sample may take other kernels."""


NO_NODE = -1
"""The sequence number outside a node of autograd."""


class StorageUse(NamedTuple):
    """The bytes of a storage, whether they are values of the step's floating-point dtype, and where it was made."""

    size: int
    scales: bool
    event: str
    layer: str


class StorageChange(NamedTuple):
    """An allocation of a storage, or its free, in an event of a layer."""

    event: str
    layer: str
    number: int
    is_free: bool


@dataclass
class Recording:
    """One run: the storages by number, the changes in order, and the storages of the parameters' gradients.

    `trained` are the names of the parameters that have a gradient, `replaced` those of the buffers that are now another
    tensor. `chooses` says that forward may run other layers in each call, empty if it does not.
    """

    storages: list[StorageUse]
    changes: list[StorageChange]
    gradients: frozenset[int]
    trained: tuple[str, ...]
    replaced: frozenset[str] = frozenset()
    chooses: str = ""


class StepFailure(NamedTuple):
    """Why a step could not be recorded: the batch, what torch does with it (`fails` or `allocates`), and the reason."""

    batch: str
    does: str
    reason: str

    def text(self, steps: Sequence[str]) -> str:
        """Return a sentence on steps that fail alike, given their names."""
        does = self.does if len(steps) == 1 else self.does.removesuffix("s")
        return f"{' and '.join(steps)}{self.batch} {does} {self.reason}"


def recorded_steps(
    module: nn.Module, network: Network, inputs: CallInputs, request: StepRequest, has_data: bool
) -> tuple[tuple[RecordedStep, ...], StepFailure | None, str]:
    """Return the requested step, for one batch or for any, what could not be run, and a sentence or an empty one.

    The sentence is on a step that is one of several.

    The module is left as it was. `has_data` runs it on its own weights, which a forward that reads values needs.
    """

    def record(samples: int) -> Recording:
        given = inputs if network.single is not None else inputs.for_samples(samples)
        try:
            return _record(module, network, given, request, has_data)
        except Exception as error:  # what runs without data may differ in training
            if has_data or any(tensor.is_meta for tensor in tensors_of(module)):
                raise
            recording = _record(module, network, given, request, True)
            reads_values = type(error).__module__.startswith("torch._subclasses")
            return replace(recording, chooses="reads values") if reads_values else recording

    samples = 1 if network.single is not None else request.samples or inputs.batch
    steps: list[RecordedStep] = []
    failure: StepFailure | None = None
    choice = ""
    if not request.for_any_batch or samples == 1:
        try:
            recording = record(samples)
            steps.append(_step(network, request, samples, recording))
            choice = _choice_text(request, recording)
        except Exception as error:  # the model's code may raise anything
            failure = _failure(samples, error)
        if (steps and not request.for_any_batch) or network.single is not None:
            return tuple(steps), failure, choice
    try:
        pair = record(SECOND), record(THIRD)
    except Exception as error:
        return tuple(steps), failure or _failure(SECOND, error), choice
    choice = choice or _choice_text(request, pair[0])
    if _is_alike(*pair):
        return (*steps, _step(network, request, None, *pair)), failure, choice
    return tuple(steps), failure or StepFailure("", "allocates", "otherwise for 2 samples than for 3"), choice


def failed_step(
    error: Exception, inputs: CallInputs, request: StepRequest
) -> tuple[tuple[RecordedStep, ...], StepFailure, str]:
    """Return what `recorded_steps` returns for a step that raises this error on every batch."""
    samples = request.samples or inputs.batch
    return (), _failure(SECOND if request.for_any_batch and samples > 1 else samples, error), ""


def _choice_text(request: StepRequest, recording: Recording) -> str:
    """Return a sentence on a training step that may run other layers in each call, else an empty one."""
    if not recording.chooses or not request.trains:
        return ""
    return (
        f"forward {recording.chooses} in training and may run other layers in each call:"
        " the memory of a training step is that of one call"
    )


def step_name(request: StepRequest) -> str:
    """Return what a request asks for in words."""
    return "a training step" if request.trains else "a forward pass"


def _failure(samples: int, error: Exception) -> StepFailure:
    batch = "one sample" if samples == 1 else f"{samples} samples"
    return StepFailure(f" on {batch}", "fails", f"in torch: {first_line(error)}")


def _step(
    network: Network, request: StepRequest, samples: int | None, recording: Recording, larger: Recording | None = None
) -> RecordedStep:
    events = tuple(_events(recording, larger))
    dtype = request.dtype or network.dtype
    return RecordedStep(request, samples, dtype, events, recording.trained, recording.replaced)


def _is_alike(two: Recording, three: Recording) -> bool:
    """Whether two runs changed the same storages in the same order."""
    return two.changes == three.changes and two.gradients == three.gradients


def _events(recording: Recording, larger: Recording | None = None) -> Iterator[StorageEvent]:
    """Yield the events of a run, with sizes linear in the batch if a run with one more sample is given."""
    kinds = _kinds(recording)
    for phase, layer, number, is_free in recording.changes:
        event = phase if layer or phase != "backward" else "loss"
        if is_free:
            yield StorageEvent(event, layer, number)
            continue
        size, scales, *_ = recording.storages[number]
        growth = larger.storages[number].size - size if larger is not None else 0
        yield StorageEvent(event, layer, number, kinds[number], size - SECOND * growth, growth, scales)


def _kinds(recording: Recording) -> list[str]:
    """Return what each storage is used for, in the words of the memory report.

    A tensor of the forward pass that is freed before the next layer runs is temporary.
    """
    kinds = ["temporary"] * len(recording.storages)
    outlives = set(range(len(kinds)))
    for event, layer, number, is_free in recording.changes:
        made = recording.storages[number]
        if is_free and (event, layer) == (made.event, made.layer):
            outlives.discard(number)
    for number, made in enumerate(recording.storages):
        if number in recording.gradients:
            kinds[number] = "gradients"
        elif made.event == BEFORE:
            kinds[number] = "buffers"
        elif made.event in ("forward", "loss") and number in outlives:
            kinds[number] = "activations"
    return kinds


def _record(module: nn.Module, network: Network, inputs: CallInputs, request: StepRequest, has_data: bool) -> Recording:
    """Return the storages of one step. Raises what the model's code raises."""
    import torch

    restore_outside()
    operators = None if has_data else DatalessOperators(module)
    with (
        preserved(module, with_data=has_data),
        module_mode(module, request.trains),
        random_state(),
        without_compiler(),
        torch.set_grad_enabled(request.trains),
        nullcontext() if operators is None else operators.mode,
    ):
        copy_containers(module)
        copied = _Copies(request.dtype, operators)
        with nullcontext() if operators is None else operators.active():
            state = replacement_tensors(module, copied.of_state)
            given = inputs.map(copied)
        step = _WatchedStep(module, network, state, given, request, operators)
        drawn = random_numbers_drawn()
        with replaced_tensors(module, state):  # in the backward pass too, where torch.utils.checkpoint runs it again
            recording = step.run()
        draws = random_numbers_drawn() != drawn
        return replace(recording, chooses="draws random numbers") if draws else recording


class _Copies:
    """Makes tensors for a step: without data, or copies that it may change. Floating-point ones get its dtype."""

    def __init__(self, dtype: str | None, operators: DatalessOperators | None) -> None:
        self.floating, self.operators = dtype_named(dtype) if dtype else None, operators

    def of_state(self, tensor: Tensor) -> Tensor:
        """Return a copy of a parameter, or of a buffer."""
        from torch.nn import Parameter

        copied: Any = self(tensor)
        if not isinstance(tensor, Parameter):
            return copied  # type: ignore[no-any-return]
        if self.operators is None:
            return Parameter(copied, tensor.requires_grad)
        # What Parameter does to a tensor of another class, without an operator.
        copied.requires_grad, copied._is_param = tensor.requires_grad, True
        return copied  # type: ignore[no-any-return]

    def __call__(self, tensor: Tensor) -> Tensor:
        import torch

        dtype = converted_dtype(tensor, self.floating)
        if self.operators is None and not tensor.is_meta:
            return tensor.detach().to("cpu", dtype, copy=True)
        if tensor.layout is not torch.strided:
            return torch.zeros(tensor.shape, dtype=dtype, device="cpu")
        strides = contiguous(tuple(tensor.shape)).strides if tensor.is_contiguous() else tensor.stride()
        if self.operators is not None:
            return self.operators.empty_strided(tensor.shape, strides, dtype)
        return torch.empty_strided(tensor.shape, strides, dtype=dtype, device="cpu").zero_()


class _WatchedStep:
    """One step of a module, for which `state` and `inputs` exist before."""

    def __init__(
        self,
        module: nn.Module,
        network: Network,
        state: dict[str, Tensor],
        inputs: CallInputs,
        request: StepRequest,
        operators: DatalessOperators | None,
    ) -> None:
        self.module, self.place, self.state, self.inputs = module, network.output_place, state, inputs
        self.request, self.operators = request, operators
        self.storages = _Storages(dtype_named(request.dtype or network.dtype))
        if request.on_gpu:
            unshared()  # runs a small backward pass the first time, which no mode below may see
        self.layers = _Layers(module, network, self.storages, on_gpu=request.on_gpu)
        self._labels: Tensor | None = None
        self._last_loss: Tensor | None = None
        self._has_labels = False

    def run(self) -> Recording:
        """Return what the step allocates; if it keeps tensors for the next, such as a table, what the second does."""
        for tensor in (*self.state.values(), *self.inputs.tensors()):
            self.storages.ignore(tensor)
        collects = gc.isenabled()
        gc.disable()  # what the collector frees in a step depends on the program around it
        try:
            with self.layers.watching(self.operators), self.storages.watching(self.layers, self.operators):
                self._passes()
                if self.storages.has_kept(self._gradients().values()):
                    for tensor in self.state.values():
                        tensor.grad = None
                    gc.collect()
                    self.storages.restart()
                    self._passes()
        finally:
            if collects:
                gc.enable()
        recording = replace(self.storages.recording(self._gradients()), replaced=self._replaced())
        if self.operators is not None:
            self.storages.close()
            note_run(self.storages.tensors)
        return recording

    def _replaced(self) -> frozenset[str]:
        """Return the buffers whose storages the module no longer holds after a first step."""
        import torch

        held = (*tensors_of(self.module), *stored_tensors(self.module))
        storages = {id(tensor.untyped_storage()) for tensor in held if tensor.layout is torch.strided}
        dense = {name: tensor for name, tensor in self.state.items() if tensor.layout is torch.strided}
        return frozenset(name for name, tensor in dense.items() if id(tensor.untyped_storage()) not in storages)

    def _gradients(self) -> dict[str, Tensor]:
        return {name: t.grad for name, t in self.state.items() if t.is_leaf and t.grad is not None}

    def _passes(self) -> None:
        for _ in range(self.request.passes):
            self._pass()
        self.storages.stop()
        self._last_loss = None

    def _pass(self) -> None:
        import torch

        self.layers.start("forward")
        if not self.request.trains:
            self._call()
            return
        # As the variable of a training loop: it names the previous loss until this one is computed.
        self._last_loss = self._loss(self._output())
        self.layers.start("backward")
        if self._last_loss.requires_grad:
            torch.autograd.backward(self._last_loss)

    def _loss(self, output: Tensor) -> Tensor:
        if not self._has_labels:
            with self.storages.ignoring():
                self._labels, self._has_labels = class_labels(output), True
        self.layers.start("loss")
        return loss_of(output, self._labels)

    def _call(self) -> object:
        return self.inputs.call(self.module)

    def _output(self) -> Tensor:
        """Return the tensor that the loss reads. The others are freed, as in `loss(model(x).logits, y)`."""
        return tensors_in(self._call())[self.place]


def class_labels(output: Tensor) -> Tensor | None:
    """Return class labels for the positions of an output whose axis 1 is the classes; None if it has no such axis."""
    import torch

    if output.dim() < 2 or not output.is_floating_point():
        return None
    return torch.zeros(output.shape[0], *output.shape[2:], dtype=torch.long, device=output.device)


def loss_of(output: Tensor, labels: Tensor | None) -> Tensor:
    """Return the cross-entropy of the output, or the sum of its absolute values if it has no axis of classes.

    A scalar is the loss itself.
    """
    from torch.nn.functional import cross_entropy

    if labels is not None:
        return cross_entropy(output, labels)
    return output if not output.dim() and output.is_floating_point() else output.abs().sum()


def _execute(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, None]:
    return operator(*args, **kwargs), None


class _Layers:
    """The layer that runs, by the names of the network's nodes, in forward and, by sequence numbers, in backward.

    A call of a module or function that is no node belongs to the module around it.
    """

    def __init__(self, module: nn.Module, network: Network, storages: _Storages, *, on_gpu: bool) -> None:
        from torch._C._autograd import _get_sequence_nr

        self._storages, self.on_gpu = storages, on_gpu
        self._sequence_number = _get_sequence_nr
        self._paths = {id(m): path for path, m in reversed(list(module.named_modules(remove_duplicate=False)))}
        self._nodes: dict[str, tuple[str, ...]] = {}
        for node in network.nodes:
            base = node.name.partition(":")[0] if node.module is None else node.module
            self._nodes[base] = (*self._nodes.get(base, ()), node.name)
        self._modules = {node.module for node in network.nodes if node.module is not None}
        self._pending: dict[str, deque[str]] = {}
        self._stack: list[str] = []
        self._node_depth = 0
        self._unwatched: list[Any] = []
        self._starts, self._layers = [0], [""]

    def start(self, event: str) -> None:
        """Begin the forward pass, the loss or the backward pass."""
        self._storages.event, self._storages.layer = event, ""
        if event == "forward":
            self._pending = defaultdict(deque, {base: deque(names) for base, names in self._nodes.items()})
        self._mark("")

    @contextmanager
    def watching(self, operators: DatalessOperators | None) -> Iterator[None]:
        """Follow the calls of modules and functions within the block."""
        from torch import Tensor
        from torch._subclasses.fake_tensor import DataDependentOutputException
        from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook
        from torch.overrides import TorchFunctionMode

        layers = self
        unchecked: Any = {Tensor.apply_, Tensor.map_, Tensor.map2_}  # they read memory without an operator

        class LayerMode(TorchFunctionMode):
            def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                layers._enter_function(func)
                if operators is not None and func in unchecked:
                    raise DataDependentOutputException(func)
                kernel = gpu_kernel(func) if layers.on_gpu else func
                result = kernel(*args, **(kwargs or {}))
                if result is None and args and operators is not None:  # `x.data = y` returns None
                    operators.tensors.refresh(args[0])
                return result

        with ExitStack() as stack:
            stack.callback(register_module_forward_pre_hook(self._enter).remove)
            stack.callback(register_module_forward_hook(self._leave, always_call=True).remove)
            stack.enter_context(in_own_thread())
            stack.enter_context(without_disabling())
            stack.enter_context(LayerMode())
            yield

    def layer_of(self, node: int) -> str:
        """Return the layer of the forward pass that made a node of autograd, by its sequence number."""
        return self._layers[bisect_right(self._starts, node) - 1]

    def _enter(self, module: nn.Module, _: object) -> None:
        path = self._paths.get(id(module), "")
        self._stack.append(path)
        if self._node_depth or path in self._modules:
            self._node_depth += 1
        if self._node_depth == 1:
            self._begin(self._next(path) or path)
        if not module.training and _has_fast_path(module):
            self._unwatched.append(_without_function_modes())

    def _leave(self, module: nn.Module, *_: object) -> None:
        if not module.training and _has_fast_path(module) and self._unwatched:
            self._unwatched.pop().__exit__(None, None, None)
        self._stack.pop()
        if self._node_depth:
            self._node_depth -= 1
            if not self._node_depth:
                self._begin(self._stack[-1] if self._stack else "")

    def _enter_function(self, function: Any) -> None:
        if not self._node_depth:
            name = self._next(below(self._stack[-1] if self._stack else "", function_name(function)[0]))
            if name:
                self._begin(name)

    def _next(self, base: str) -> str:
        """Return the name of the node of the next call with this base name; empty if there is none."""
        names = self._pending.get(base)
        if not names:
            return ""
        return names[0] if len(names) == 1 else names.popleft()

    def _begin(self, layer: str) -> None:
        if self._storages.event == "forward":
            self._storages.layer = layer
            self._mark(layer)

    def _mark(self, layer: str) -> None:
        """Note that the backwards of the calls that follow belong to a layer."""
        self._starts.append(self._sequence_number())
        self._layers.append(layer)


def _has_fast_path(module: nn.Module) -> bool:
    """Whether torch runs the module as one fused kernel at evaluation, unless a function mode is active."""
    from torch import nn

    return isinstance(module, (nn.TransformerEncoder, nn.TransformerEncoderLayer, nn.MultiheadAttention))


def _without_function_modes() -> Any:
    guard = unwatched()
    guard.__enter__()
    return guard


class _Storages:
    """The storages that are alive, by number, and the log of their changes."""

    def __init__(self, floating: torch.dtype) -> None:
        from torch._C import _current_autograd_node

        self.event, self.layer = "", ""
        self._autograd_node = _current_autograd_node
        self._floating = floating
        self._storages: list[StorageUse] = []
        self._changes: list[StorageChange] = []
        self._numbers: dict[int, int] = {}
        self._references: dict[int, ref[Any]] = {}
        self._ignored: list[object] = []
        self._stopped = self._ignores = False
        self._node, self._before_node = NO_NODE, 0

    def ignore(self, tensor: Tensor) -> None:
        """Leave out the storage of a tensor that exists before the step."""
        storage = tensor.untyped_storage()
        self._ignored.append(storage)
        self._numbers[id(storage)] = -1

    @contextmanager
    def ignoring(self) -> Iterator[None]:
        """Leave out the storages that are made within the block."""
        self._ignores = True
        try:
            yield
        finally:
            self._ignores = False

    @contextmanager
    def watching(self, layers: _Layers, operators: DatalessOperators | None) -> Iterator[None]:
        """Record the storages of the results of all operators within the block."""
        from torch import ops

        execute: Any = operators.run if operators is not None else _execute
        add, add_in_place = ops.aten.add.Tensor, ops.aten.add_.Tensor

        def run(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
            node = self._enter_node()
            if node != NO_NODE and self.event == "backward":
                self.layer = layers.layer_of(node)
            if operator is add and node != NO_NODE and layers.on_gpu and self._is_older_than_node(args[0]):
                operator = add_in_place if is_gradient_sum_in_place(args[0]) else add
            result, new = execute(operator, args, kwargs)
            for tensor in self._unknown_in(result) if new is None else new:
                if tensor is not None:
                    self._add(tensor)
            return result

        with operator_mode(run):
            yield

    def _enter_node(self) -> int:
        """Return the sequence number of autograd's current node, and note the first storage that it may allocate."""
        current = self._autograd_node()
        node: int = NO_NODE if current is None else current._sequence_nr()
        if node != self._node:
            self._node, self._before_node = node, len(self._storages)
        return node

    def _is_older_than_node(self, tensor: Tensor) -> bool:
        """Whether a tensor was allocated in the step, before autograd's current node ran."""
        return 0 <= self._numbers.get(id(tensor.untyped_storage()), -1) < self._before_node

    def _unknown_in(self, result: Any) -> Iterator[Tensor]:
        """Yield the tensors of a result whose storages are new, without those that torch computes derivatives of.

        A storage that has been resized is a new one.
        """
        for tensor in tensors_in(result):
            storage = tensor.untyped_storage()
            number = self._numbers.get(id(storage))
            if number is None and tensor.device.type != META:
                yield tensor
            elif number is not None and number >= 0 and storage.nbytes() != self._storages[number].size:
                yield tensor
                self._free(number)  # torch copies what the old memory holds before that

    def _add(self, tensor: Tensor) -> None:
        """Note a new storage."""
        storage = tensor.untyped_storage()
        key = id(storage)
        if self._ignores:
            self.ignore(tensor)
            return
        number = self._numbers[key] = len(self._storages)
        self._storages.append(StorageUse(storage.nbytes(), tensor.dtype == self._floating, self.event, self.layer))
        self._changes.append(StorageChange(self.event, self.layer, number, is_free=False))

        def freed(_: object) -> None:
            self._numbers.pop(key, None)
            self._free(number)

        self._references[number] = ref(storage, freed)

    def _free(self, number: int) -> None:
        """Note that memory is freed."""
        self._references.pop(number, None)
        if not self._stopped:
            self._changes.append(StorageChange(self.event, self.layer, number, is_free=True))

    def stop(self) -> None:
        """End the log: what is alive stays so."""
        self._stopped = True

    def close(self) -> None:
        """Let torch refuse the data of the storages that are alive: a hook may keep one, which has no memory."""
        import torch

        for reference in list(self._references.values()):
            storage = reference()
            if storage is not None:
                torch._C._set_storage_data_ptr_access_error_msg(storage._cdata, "a recorded step has no data")

    def tensors(self) -> list[Tensor]:
        """The tensors without data that are new, if a storage of the step is alive."""
        from torch._subclasses.fake_tensor import FakeTensor

        is_alive = any(reference() is not None for reference in self._references.values())
        return [value for value in gc.get_objects() if type(value) is FakeTensor] if is_alive else []

    def has_kept(self, gradients: Iterable[Tensor]) -> bool:
        """Whether storages of the step are alive besides those of the gradients."""
        return bool(self._references.keys() - self._numbers_of(gradients))

    def restart(self) -> None:
        """Begin the log anew, with the storages that are alive as those that exist before the step."""
        self._stopped = False
        for number in self._references:
            self._storages[number] = self._storages[number]._replace(event=BEFORE, layer="")
        self._changes = [StorageChange(BEFORE, "", number, is_free=False) for number in sorted(self._references)]

    def recording(self, gradients: Mapping[str, Tensor]) -> Recording:
        """Return the log, for these gradients of parameters by name."""
        return Recording(
            self._storages, in_order(self._changes), self._numbers_of(gradients.values()), tuple(gradients)
        )

    def _numbers_of(self, tensors: Iterable[Tensor]) -> frozenset[int]:
        return frozenset(self._numbers.get(id(tensor.untyped_storage()), -1) for tensor in tensors) - {-1}


def in_order(changes: Iterable[StorageChange]) -> list[StorageChange]:
    """Return changes with storages that are freed at once in the order of their numbers.

    Torch may free them in any, as what autocast has kept: by the addresses of the weights.
    """
    alike = groupby(changes, key=lambda change: (change.event, change.layer, change.is_free))
    return list(chain.from_iterable(sorted(group) for _, group in alike))
