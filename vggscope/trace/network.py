"""Trace any nn.Module: choose inputs that fit, and run forward on real data if it reads values."""

from __future__ import annotations

import copy
import gc
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import chain
from threading import RLock
from types import MappingProxyType
from typing import TYPE_CHECKING

from vggscope.errors import MissingTool, ModelError, names_options, option
from vggscope.graph import Failure, Network, channels_first, dtype_remedy, failure_remedy
from vggscope.inputs import Inputs
from vggscope.ops.base import Shape
from vggscope.progress import step
from vggscope.record import changed
from vggscope.recorded_step import BY_RULES, StepRequest
from vggscope.trace.build import without_data
from vggscope.trace.forward import META, random_state
from vggscope.trace.inputs import (
    CallInputs,
    FunctionReader,
    InputSpec,
    Reader,
    candidates,
    computed_copies,
    defines_forward,
    example_of,
    first_layer,
    fits_signature,
    fixes_input_size,
    floating_dtype,
    forward_signature,
    required_arguments,
    specified,
    takes_images,
    takes_positions,
)
from vggscope.trace.kept_outside import restoring_outside
from vggscope.trace.other_forms import KEYWORDS_REMEDY, NESTED_REMEDY, argument_form, other_form, runs_with_numbers
from vggscope.trace.parts import listed_once, tensors_of
from vggscope.trace.quantized import has_quantized_tensors
from vggscope.trace.run import Run, run
from vggscope.trace.source_line import forward_line, own_line
from vggscope.trace.training_graph import with_training

if TYPE_CHECKING:
    from torch import nn

    from vggscope.trace.step import StepFailure


OLDEST_TORCH = "2.9"
"""The oldest release of torch that is tested. In old ones global forward hooks see no keyword arguments."""

ANY_BATCH = 64
"""The batch that stands for those to come where a caller needs figures for every batch."""


def require_torch() -> None:
    """Raise MissingTool if torch is older than OLDEST_TORCH: pip refuses it, but other installers may not."""
    import torch

    if torch.__version__ < OLDEST_TORCH:
        raise MissingTool(
            f"torch {torch.__version__} is too old: vggscope needs {OLDEST_TORCH} or newer to run a model",
            f"pip install 'torch>={OLDEST_TORCH}' torchvision; or save the model as ONNX, which needs none",
        )


_TRACING = RLock()
"""Held by the thread that traces: a trace replaces functions and hooks that all threads share."""


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Let other threads wait with their traces for the end of the block."""
    with _TRACING:
        yield


@contextmanager
def collecting_new_objects() -> Iterator[None]:
    """Let passes of the garbage collector visit only what the block makes.

    A pass over all objects of a process that has imported torch takes longer than a trace.
    """
    freezes = gc.get_freeze_count() == 0  # else the caller has frozen objects, which must stay so
    if freezes:
        gc.freeze()
    try:
        yield
    finally:
        if freezes:
            gc.unfreeze()


@one_at_a_time()
@collecting_new_objects()
def network_of(
    module: nn.Module,
    name: str,
    spec: InputSpec | None = None,
    *,
    rebuild: Callable[[], nn.Module] | None = None,
    steps: Sequence[StepRequest] = (),
    batch: int | None = None,
    backward: bool = False,
    memory: bool = True,
) -> Network:
    """Return the Network of a module on the inputs that `spec` describes.

    Without `spec`, uses the module's own example input, or the first that fits of several inputs for the kind of the
    first layer. An input that comes out as more samples than went in is the last choice. If none fits, the Network
    ends at the layer that failed, and its `failure` is the reason. `rebuild` builds the module with its weights, if
    `module` has none: a forward that reads values needs them. `steps` are those that torch is recorded in, if the
    rules do not predict their memory. A forward that reads sizes is run on `batch` samples too, or on ANY_BATCH if the
    caller names no batch. `backward` asks for the costs of the backward pass: a forward that reads its mode is run in
    training mode too. Without `memory`, the Network predicts no memory: what that analysis alone reads is left out, and
    forward is not run in training mode to see whether that uses a parameter that evaluation does not.

    Raises ModelError if forward fails before its first layer, or returns no tensor that depends on its input, and
    MissingTool with a torch that is too old.
    """
    require_torch()
    attached = example_of(module)
    module = unwrapped(module, name)
    example = attached or example_of(module) if spec is None else None
    wanted = [request.samples or ANY_BATCH * request.for_any_batch for request in steps]
    samples = max(*wanted, batch or 0, 1) if steps or batch else ANY_BATCH
    run_on = partial(_run, module, name, rebuild, samples, memory=memory)
    with restoring_outside(module):
        with listed_once(module):
            result = _on_given(module, run_on, spec, example)
        network = _checked(module, result)
        if backward:
            with step(f"running {name} in training mode"):
                network = with_training(network, result)
        network = _with_steps(network, result, steps)
    if not all(network.predicts_step(StepRequest(trains, on_gpu=False)) for trains in (False, True)):
        return network
    return changed(network, answers_any=not (result.reads_sizes or result.reads_mode))


def _on_given(module: nn.Module, run_on: Callable[..., Run], spec: InputSpec | None, example: CallInputs | None) -> Run:
    """Return the run on the inputs that a caller specifies, else on the module's own example, else on some that fit."""
    inputs = example if spec is None else specified(module, spec)
    if inputs is None:
        return _first_that_fits(module, run_on)
    result = _noted(run_on(inputs, is_example=spec is None), inputs.note)
    if isinstance(result.error, _SHAPE_ERRORS):
        other = _with_batch_in_size(module, spec) or _with_length(module, spec)
        retried = run_on(other) if other is not None else result
        return result if retried.error is not None else retried
    return result


def _with_batch_in_size(module: nn.Module, spec: InputSpec | None) -> CallInputs | None:
    """Return sizes that were taken without the batch, with it; None for other sizes.

    They are sequences of rows, (batch, steps, features). A convolution tells by its own number of axes.
    """
    if not isinstance(spec, Inputs) or spec.data is not None or not hasattr(first_layer(module), "in_features"):
        return None
    if any(size.batched is not None or len(size.shape) < 3 for size in spec.sizes):
        return None
    return specified(module, replace(spec, sizes=tuple(replace(size, batched=True) for size in spec.sizes)))


def _with_length(module: nn.Module, spec: InputSpec | None) -> CallInputs | None:
    """Return a single number that was taken as the side of an image as a length; None for other sizes.

    A signal may become an image in forward, as by torch.stft.
    """
    if not isinstance(spec, Inputs) or len(spec.sizes) != 1 or not takes_images(module):
        return None
    if len(spec.sizes[0].shape) != 1 or spec.sizes[0].dtype:
        return None
    dtype = str(floating_dtype(module)).removeprefix("torch.")
    return specified(module, replace(spec, sizes=(replace(spec.sizes[0], dtype=dtype),)))


def _with_steps(network: Network, result: Run, requests: Sequence[StepRequest]) -> Network:
    """Return the network with what torch allocates in the requested steps, as far as they can be run."""
    if network.sparse_gradients:
        requests = [request for request in requests if not request.trains]
    requests = [request for request in requests if not network.predicts_step(request)]
    if network.failure is not None or not requests:
        return network
    from vggscope.trace.step import failed_step, recorded_steps, step_name

    with step(f"recording the memory of {network.name}"):
        runs = [
            failed_step(result.training_error, result.inputs, request)
            if request.trains and result.training_error is not None
            else recorded_steps(result.module, network, result.inputs, request, result.has_data)
            for request in requests
        ]
    steps = tuple(chain.from_iterable(steps for steps, *_ in runs))
    failed: dict[tuple[StepFailure, str], list[str]] = {}
    for request, (recorded, failure, _) in zip(requests, runs):
        if failure is not None:
            memory = "that of larger batches, extended" if recorded else BY_RULES
            failed.setdefault((failure, memory), []).append(step_name(request))
    failures = tuple(
        f"{failure.text(tuple(dict.fromkeys(names)))}; {'its' if len(set(names)) == 1 else 'their'} memory is {memory}"
        for (failure, memory), names in failed.items()
    )
    choices = dict.fromkeys(choice for *_, choice in runs if choice and not network.reads_values)
    return replace(network, steps=steps, warnings=(*network.warnings, *failures, *choices))


def _first_that_fits(
    module: nn.Module, run_on: Callable[[CallInputs], Run], readers: Mapping[int, Reader] = MappingProxyType({})
) -> Run:
    """Return the run on the first inputs that fit, else the one that came furthest.

    `readers` are the layers and functions that refused an input that they read, by its position. It gets a size for
    them. What torch.stft reads gets the size of a signal.
    """
    best: Run | None = None
    note = ""
    batch_mixed: Run | None = None
    tried: list[str] = []
    errors: set[str] = set()
    for inputs in candidates(module, readers):
        result = run_on(inputs)
        tried.append(inputs.text)
        errors.add(_without_input_shape(result.network.failure or str(result.error)))
        found = _other_readers(module, result, readers, is_first=len(tried) == 1)
        other = _first_that_fits(module, run_on, found) if found is not None else None
        if other is not None and (other.error is None or _is_by_layer(result, found, readers)):
            return other
        if result.error is None and _mixes_batch(result.network):
            batch_mixed = batch_mixed or _noted(result, inputs.note)
        elif result.error is None:
            if len(tried) == 1:
                return _noted(result, inputs.note)
            note = f"{tried[0]} does not fit, {tried[-1]} was taken; {option('input_size')} gives another"
            return _noted(result, note)
        elif best is None or len(result.network.nodes) > len(best.network.nodes):
            best, note = result, inputs.note
        if not isinstance(result.error, (*_SHAPE_ERRORS, type(None))):
            break
    if batch_mixed is not None:
        return batch_mixed
    assert best is not None
    if len(tried) == 1:
        return _noted(best, note)
    is_same = len(errors) == 1
    return _noted(_without_other_size(best) if is_same else best, _none_fits(module, tried, is_same=is_same))


def _without_input_shape(failure: str) -> str:
    """Return a failure without the shape of the layer's input, to compare it with that at another input size."""
    return re.sub(r": \d+(x\d+)*(?= \(|$)", "", failure)


def _without_other_size(run: Run) -> Run:
    """Return the run with a remedy that advises no other input size."""
    failure = run.network.failure
    if not isinstance(failure, Failure):
        return run
    advice = failure.advice.removesuffix(f", or {option('input_size')} gives another size")
    failure = Failure(failure, failure.kind, advice, hides_rest=failure.hides_rest)
    return replace(run, network=replace(run.network, failure=failure))


def _none_fits(module: nn.Module, tried: list[str], *, is_same: bool) -> str:
    """Return the sizes that were tried, and what to give instead. `is_same`: each size fails with the same error."""
    sizes = ("; " if any(", " in sizes for sizes in tried) else ", ").join(tried)
    if is_same:
        return f"it fails in the same way at every input size that was tried ({sizes}); change the layer"
    remedy = _each_argument(module) or f"{option('input_size')} gives another"
    return f"no input size that was tried fits ({sizes}); {remedy}"


def _each_argument(module: nn.Module) -> str:
    """Return how to give an input for each argument of forward; empty if it requires only one."""
    names = [argument.name for argument in required_arguments(module)]
    if len(names) < 2:
        return ""
    once = f"give {option('input_size')} once for each of"
    return f"{once if names_options() else 'give input_data with'} {', '.join(names)}"


def _other_readers(
    module: nn.Module, result: Run, readers: Mapping[int, Reader], *, is_first: bool
) -> dict[int, Reader] | None:
    """Return the readers with another one, for which a size was not tried; None if the run tells of none.

    That is torch.stft, the layer that refused an input, or, in the first run, the function that refused one beside
    another.
    """
    if result.signal is not None and result.signal not in readers:
        return {**readers, result.signal: FunctionReader("stft")}
    if not isinstance(result.error, _SHAPE_ERRORS) or result.failed_reader is None:
        return None
    place, reader = result.failed_reader
    if isinstance(reader, FunctionReader):
        is_known = is_first and len(required_arguments(module)) > 1
    else:
        is_known = reader is not first_layer(module) and fixes_input_size(reader)
    return {**readers, place: reader} if is_known and place not in readers else None


def _is_by_layer(result: Run, found: Mapping[int, Reader] | None, readers: Mapping[int, Reader]) -> bool:
    """Return whether a run fails, and the reader that was found in it is a layer."""
    new = [reader for place, reader in (found or {}).items() if place not in readers]
    return result.error is not None and not any(isinstance(reader, FunctionReader) for reader in new)


def _noted(result: Run, note: str) -> Run:
    if not note:
        return result
    return replace(result, network=replace(result.network, warnings=(*result.network.warnings, note)))


def unwrapped(module: nn.Module, name: str) -> nn.Module:
    """Return the module inside DataParallel or torch.compile wrappers.

    Raises ModelError for a container without a forward.
    """
    import torch

    if type(module) in (torch.nn.ModuleList, torch.nn.ModuleDict):
        raise ModelError(
            f"{name} gives a {type(module).__name__}, which has no forward", "name the module that calls it"
        )

    if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        return unwrapped(module.module, name)
    compiled = getattr(module, "_orig_mod", None)
    return unwrapped(compiled, name) if isinstance(compiled, torch.nn.Module) else module


def _checked(module: nn.Module, result: Run) -> Network:
    """Return the Network of a run.

    Raises ModelError if no layer ran, or if forward returned no tensor that depends on its input.
    """
    network = result.network
    if network.failure is None:
        if result.returns == "tensors":
            return network
        remedies = {
            "None": "add a return statement",
            "no tensor": "return what forward computes",
            "a generator": "return a list: a generator computes nothing before it is read",
        }
        what = result.returns if result.returns in remedies else "a tensor that no input went into"
        hint = remedies.get(result.returns, "return what forward computes")
        line = forward_line(module)
        raise ModelError(f"forward of {network.name} returns {what}{f' ({line})' if line else ''}", hint)
    assert isinstance(network.failure, Failure)
    reads_items = bool(network.nodes) and network.nodes[0].op.name == "getitem"
    is_told = any(node.parameters for node in network.nodes) and not reads_items
    advice = "" if is_told else _advice(module, result, network.failure)
    if not advice and network.failure.kind == "size" and result.inputs.names:
        advice = _each_argument(module)
    if network.failure.kind == "size":
        advice = _number_hint(result) or advice
    own = network.failure.advice
    # That forward takes another form of input says more than which number would fit.
    first, second = (advice, own) if network.failure.kind == "size" else (own, advice)
    failure = Failure(network.failure, network.failure.kind, first or second)
    if not network.nodes:
        hints = (advice,) if advice else network.warnings[-1:] or (failure_remedy(failure),)
        raise ModelError(f"{network.name} fails before its first layer has run: {failure}", *hints)
    return replace(network, failure=failure)


def _number_hint(result: Run) -> str:
    """Return how to give a number for each sample, if an input is a single one and forward takes that; else empty."""
    network = result.network
    single = next((given for given in network.inputs if not given.shape), None)
    if single is None or not runs_with_numbers(result):
        return ""
    one = f"{single.label} is one number for all samples"
    if names_options():
        label = single.label if len(network.inputs) > 1 else next(iter(result.inputs.kwargs), "")
        name = f"{label}=" if label else ""
        return f"{one}: {option('input_size', f'{name}:{single.dtype or network.dtype}')} gives one for each"
    return f"{one}: the size (1,) in input_size gives one for each"


def _advice(module: nn.Module, result: Run, failure: Failure) -> str:
    """Return the remedy for a failure before the first layer with weights; empty for the remedy of its kind."""
    if not fits_signature(module, result.inputs):
        return _argument_hint(module, result)
    if isinstance(result.error, NotImplementedError) and not defines_forward(module):
        return "define forward in the class, or name the module that calls it"
    ran = bool(result.network.nodes)
    advice = "" if ran else _layout_hint(module, result.network.input_shape)
    if not advice and failure.kind in ("dtype", "mixed dtypes"):
        return "" if ran else dtype_remedy()
    if not advice and isinstance(result.error, (*_SHAPE_ERRORS, *_KIND_ERRORS)):
        advice = other_form(result)
    if not ran and isinstance(result.error, AttributeError) and type(result.error.obj).__name__ == "Tensor":
        advice = f"if forward reads .{result.error.name} of its argument, {NESTED_REMEDY}"
    is_noted = ran or bool(result.network.warnings)
    if not (advice or failure.advice or is_noted) and isinstance(result.error, _SHAPE_ERRORS):
        advice = _size_hint(module, result.network.input_shape)
    return advice


def _layout_hint(module: nn.Module, given: Shape) -> str:
    """Return the remedy for an image whose channels are its last axis, else an empty text."""
    channels = getattr(first_layer(module), "in_channels", given[-1:])
    is_last = takes_images(module) and channels in (given[-1:], *given[-1:])
    return (channels_first(given) or "") if is_last else ""


def _size_hint(module: nn.Module, given: Shape) -> str:
    """Return how to give another size, with one that the first layer may accept."""
    likeliest = next(iter(candidates(module)), CallInputs())
    sizes = [tuple(tensor.shape[1:]) for tensor in likeliest.tensors()]
    is_other = len(sizes) > 1 or (len(sizes) == 1 and sizes != [given[-len(sizes[0]) :]])
    example = f", as in {likeliest.options}" if is_other and likeliest.options else ""
    return f"{option('input_size')} gives another size{example}"


def _argument_hint(module: nn.Module, result: Run) -> str:
    """Return forward's signature, and options that pass tensors as its arguments."""
    signature = forward_signature(module)
    known = argument_form(result, signature, next(iter(candidates(module)), CallInputs()))
    nested = NESTED_REMEDY if takes_positions(module) else KEYWORDS_REMEDY
    return known or f"it takes {signature}: {_each_argument(module) or nested}"


def _mixes_batch(network: Network) -> bool:
    """Return whether the output has more samples than the input, as `view(-1, 512)` of too large a map has."""
    output = network.shapes[network.end]
    return len(output) == 2 and output[0] > 1 and any(t.batch_axis is not None for t in network.inputs)


_SHAPE_ERRORS = (RuntimeError, AssertionError, ValueError, IndexError)
"""Errors that a wrong input size may cause. After any other error, no further size is tried."""

_KIND_ERRORS = (TypeError, KeyError)
"""Errors that a tensor in place of a list or a dict may cause."""


def _run(
    module: nn.Module,
    name: str,
    rebuild: Callable[[], nn.Module] | None,
    samples: int,
    inputs: CallInputs,
    *,
    memory: bool,
    is_example: bool = False,
) -> Run:
    """Run a module without data, or with its weights if forward reads values.

    `is_example`: the inputs are the module's own example, which has values if the module is built with weights.
    """
    if has_quantized_tensors(module):
        note = f"its weights are quantised: it was run on {_values_of(inputs)}"
        return _noted(run(module, inputs.to("cpu"), name, "cpu", memory=memory), note)
    with step(f"running {name}"):
        result = run(_initialised(module, inputs, rebuild), inputs, name, samples=samples, memory=memory)
    if not result.wants_data:
        return result
    line = own_line(result.error) if result.error else ""
    with_weights = _rebuilt(rebuild) if rebuild else module
    device = next((str(p.device) for p in with_weights.parameters()), "cpu")
    if device == META:
        return result
    if is_example:
        inputs = example_of(with_weights) or inputs
    inputs = inputs.to(device)
    read = f"forward reads values{f' ({line})' if line else ''}"
    note = f"{read}: it was run on {_values_of(inputs)}, with its weights"
    with step(f"running {name} with its weights"):
        with_data = run(_initialised(with_weights, inputs, None), inputs, name, device, memory=memory)
        result = _noted(with_data, note)
    return replace(result, network=replace(result.network, reads_values=True))


def _values_of(inputs: CallInputs) -> str:
    """Return what a forward that reads values reads: zeros where only sizes are known."""
    has_values = any(not tensor.is_meta and bool(tensor.any()) for tensor in inputs.tensors())
    return "the given values" if has_values else "zeros"


def _rebuilt(rebuild: Callable[[], nn.Module]) -> nn.Module:
    """Return the module with weights. Random ones are the same each time, and so is what forward does with them."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return rebuild()


def _initialised(module: nn.Module, inputs: CallInputs, rebuild: Callable[[], nn.Module] | None) -> nn.Module:
    """Return the module, or a copy of it whose lazy layers are initialised by a call on these inputs.

    Raises ModelError if the module cannot be copied.
    """
    import torch
    from torch.nn.parameter import is_lazy

    if not any(map(is_lazy, tensors_of(module))):
        return module
    device = META if rebuild else "cpu"
    with torch.device(device):
        try:
            initialised = rebuild() if rebuild else copy.deepcopy(module, computed_copies(module))
        except ValueError as error:
            raise ModelError(
                "a lazy layer of the model is not initialised", "call the model once on a batch"
            ) from error
        # The run that follows raises the same error again and reports it.
        with suppress(Exception), torch.no_grad(), random_state():
            inputs.to(device).call(initialised.eval())
    return initialised


def parameter_count(build: Callable[[], nn.Module]) -> int:
    """Return the number of parameters of the module that `build` returns. A shared tensor counts once."""
    return sum(p.numel() for p in without_data(build).parameters())
