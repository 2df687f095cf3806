"""Any nn.Module as a Network: an input size that fits is found, and where a forward reads values it is run for real."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.errors import ModelError
from vggscope.graph import Network, channels_first
from vggscope.inputs import Inputs, InputSize
from vggscope.ops.base import Shape
from vggscope.trace.build import without_data
from vggscope.trace.failure import own_line
from vggscope.trace.inputs import (
    CallInputs,
    candidates,
    example_of,
    from_data,
    from_sizes,
    required_arguments,
    wanted_by,
)
from vggscope.trace.run import META, Run, run

if TYPE_CHECKING:
    from torch import nn

Given = CallInputs | Inputs | Shape
"""What a caller gives for a forward: arguments, sizes or data, or the shape of one input without the batch axis."""


def network_of(
    module: nn.Module,
    name: str,
    given: Given | None = None,
    *,
    rebuild: Callable[[], nn.Module] | None = None,
) -> Network:
    """The Network of a module on what is `given`.

    Without it the module's own example is used, else inputs by the kind of the first layer, of which the first that
    passes is taken, before one that makes several samples of an image. Where none passes, the Network ends at the layer
    that failed and its `failure` tells why. `rebuild` makes the module again with its weights: a forward that reads
    values needs them, if `module` was made without. Raises ModelError where not even the first layer runs, or where
    forward returns nothing.
    """
    module = _itself(module, name)
    inputs = _inputs_for(module, given)
    if inputs is not None:
        return _checked(module, _noted(_run(module, name, inputs, rebuild), inputs.note))
    return _first_that_passes(module, name, rebuild)


def _inputs_for(module: nn.Module, given: Given | None) -> CallInputs | None:
    if given is None:
        return example_of(module)
    if isinstance(given, CallInputs):
        return given
    if not isinstance(given, Inputs):
        return from_sizes(module, [InputSize(given)])
    if given.data is not None:
        return from_data(given.data, given.batch_axis)
    return from_sizes(module, given.sizes, given.batch_axis)


def _first_that_passes(module: nn.Module, name: str, rebuild: Callable[[], nn.Module] | None) -> Network:
    best: Run | None = None
    mixed: Run | None = None
    tried: list[str] = []
    for inputs in candidates(module):
        result = _run(module, name, inputs, rebuild)
        tried.append(inputs.text)
        if result.error is None and _mixes_batch(result.network):
            mixed = mixed or result
        elif result.error is None:
            if len(tried) == 1:
                return _checked(module, _noted(result, inputs.note))
            note = f"{tried[0]} does not fit, {tried[-1]} was taken; --input gives another"
            return _checked(module, _noted(result, note))
        elif best is None or len(result.network.nodes) > len(best.network.nodes):
            best = result
        if not isinstance(result.error, (*_MISFITS, type(None))):
            break
    if mixed is not None:
        return mixed.network
    assert best is not None
    if len(tried) > 1:
        best = _noted(best, f"no input size that was tried fits ({', '.join(tried)}); --input gives another")
    return _checked(module, best)


def _noted(result: Run, note: str) -> Run:
    if not note:
        return result
    return replace(result, network=replace(result.network, warnings=(*result.network.warnings, note)))


def _itself(module: nn.Module, name: str) -> nn.Module:
    """The module behind a wrapper that only says how it is to be run.

    Raises ModelError for what TorchScript has compiled, and for what has no forward.
    """
    import torch

    if type(module) in (torch.nn.ModuleList, torch.nn.ModuleDict):
        raise ModelError(
            f"{name} gives a {type(module).__name__}, which has no forward", "name the module that calls it"
        )

    if isinstance(module, torch.jit.ScriptModule):
        raise ModelError(
            f"{name} is compiled by TorchScript and cannot be looked into", "give the module it is made of"
        )
    if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        return _itself(module.module, name)
    compiled = getattr(module, "_orig_mod", None)
    return _itself(compiled, name) if isinstance(compiled, torch.nn.Module) else module


def _checked(module: nn.Module, result: Run) -> Network:
    """The Network of a run, if any layer ran and forward returned a tensor that depends on its input."""
    network = result.network
    if network.failure is None:
        if result.returns == "tensors":
            return network
        what = {"None": "None", "no tensor": "no tensor"}.get(result.returns, "a tensor that no input went into")
        hint = "add a return statement" if result.returns == "None" else "return what forward computes"
        raise ModelError(f"forward of {network.name} returns {what}", hint)
    if not network.nodes:
        turned = channels_first(network.input_shape)
        hints = network.warnings[-1:] if turned is None else (turned,)
        if isinstance(result.error, TypeError) and "argument" in network.failure:
            hints = (_wanted(module),)
        raise ModelError(f"{network.name} fails before its first layer: {network.failure}", *hints)
    return network


def _wanted(module: nn.Module) -> str:
    """What forward takes, and a line that gives it."""
    arguments = required_arguments(module)
    sizes = " ".join(f"--input {f'{a.name}=' if a.kind is a.KEYWORD_ONLY else ''}3x224x224" for a in arguments)
    return f"it takes {wanted_by(module)}: give each argument's size without the batch, as in {sizes}"


def _mixes_batch(network: Network) -> bool:
    """Whether more samples come out than went in, as where `view(-1, 512)` gets a map larger than meant."""
    output = network.shapes[network.end]
    return len(output) == 2 and output[0] > 1


_MISFITS = (RuntimeError, AssertionError, ValueError, IndexError)
"""The errors that a wrong input size may cause: after any other, no other size is tried."""


def _run(module: nn.Module, name: str, inputs: CallInputs, rebuild: Callable[[], nn.Module] | None) -> Run:
    result = run(_made_for(module, inputs, rebuild), inputs, name)
    if result.error is None or not result.wants_data:
        return result
    note = f"forward reads values ({own_line(result.error)}): it was run on zeros, with its weights"
    whole = rebuild() if rebuild else module
    device = next((str(p.device) for p in whole.parameters()), "cpu")
    if device == META:
        return result
    return _noted(run(_made_for(whole, inputs, None), inputs, name, device), note)


def _made_for(module: nn.Module, inputs: CallInputs, rebuild: Callable[[], nn.Module] | None) -> nn.Module:
    """The module, or another like it whose lazy layers have been called on these inputs.

    Raises ModelError where it cannot be copied for that.
    """
    import torch
    from torch.nn.parameter import is_lazy

    if not any(map(is_lazy, (*module.parameters(), *module.buffers()))):
        return module
    device = META if rebuild else "cpu"
    with torch.device(device):
        try:
            made = rebuild() if rebuild else copy.deepcopy(module)
        except ValueError as error:
            raise ModelError("a lazy layer of the model has met no input", "call the model once on a batch") from error
        # An error here comes again in the run that follows, which tells it.
        with suppress(Exception), torch.no_grad():
            made.eval()(*inputs.map(lambda t: t.to(device)).args, **inputs.map(lambda t: t.to(device)).kwargs)
    return made


def parameter_count(build: Callable[[], nn.Module]) -> int:
    """How many parameters a module has, made without data; a tensor that two layers share counts once."""
    return sum(p.numel() for p in without_data(build).parameters())
