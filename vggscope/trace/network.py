"""Any nn.Module as a Network: an input size that fits is found, and where a forward reads values it is run for real."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.errors import ModelError
from vggscope.graph import Network, channels_first
from vggscope.trace.build import without_data
from vggscope.trace.failure import own_line
from vggscope.trace.run import META, Run, run

if TYPE_CHECKING:
    from torch import nn

SIDES = (224, 32, 28)
"""The sides in pixels that are tried where no size is given: the paper's, then those of the usual small data sets. More
would be guessing: a model with a mistake may fit some other size by accident.
"""


def network_of(
    module: nn.Module,
    name: str,
    size: tuple[int, ...] | None = None,
    *,
    rebuild: Callable[[], nn.Module] | None = None,
) -> Network:
    """The Network of a module on an input of `size` (channels, height, width).

    Without `size` the usual ones are tried, and the first that passes is taken, before one that makes several samples
    of an image; where none does, the Network ends at the layer that failed and its `failure` tells why. `rebuild` makes
    the module again with its weights: a forward that reads values needs them, if `module` was made without. Raises
    ModelError where not even the first layer runs.
    """
    module = _itself(module, name)
    if size is not None:
        return _begun(_run(module, name, size, rebuild).network)
    best: Run | None = None
    torn: Run | None = None
    tried = []
    for shape in _sizes(module):
        found = _run(module, name, shape, rebuild)
        tried.append("x".join(map(str, shape)))
        if found.error is None and _tears_apart(found.network):
            torn = torn or found
        elif found.error is None:
            if len(tried) == 1:
                return found.network
            note = f"{tried[0]} does not fit, {tried[-1]} was taken; --input gives another"
            return replace(found.network, warnings=(*found.network.warnings, note))
        elif best is None or len(found.network.nodes) > len(best.network.nodes):
            best = found
        if not isinstance(found.error, (*_MISFITS, type(None))):
            break
    if torn is not None:
        return torn.network
    assert best is not None
    if len(tried) == 1:
        return _begun(best.network)
    note = f"no input size that was tried fits ({', '.join(tried)}); --input gives another"
    return _begun(replace(best.network, warnings=(*best.network.warnings, note)))


def _itself(module: nn.Module, name: str) -> nn.Module:
    """The module behind a wrapper that only says how it is to be run.

    Raises ModelError for what TorchScript has compiled, and for what has no forward.
    """
    import torch

    if isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict)):
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


def _begun(network: Network) -> Network:
    """The Network, if any layer of it ran."""
    if network.failure is not None and not network.nodes:
        turned = channels_first(network.input_shape)
        hints = network.warnings[-1:] if turned is None else (turned,)
        if "required positional argument" in network.failure:
            hints = ("forward is given one image; name a function that gives the part to look at, with one input",)
        raise ModelError(f"{network.name} fails before its first layer: {network.failure}", *hints)
    return network


def _tears_apart(network: Network) -> bool:
    """Whether more samples come out than went in, as where `view(-1, 512)` meets a map larger than meant."""
    output = network.shapes[network.end]
    return len(output) == 2 and output[0] > 1


_MISFITS = (RuntimeError, AssertionError, ValueError, IndexError)
"""The errors that a wrong input size may cause: after any other, no other size is tried."""


def _run(module: nn.Module, name: str, shape: tuple[int, ...], rebuild: Callable[[], nn.Module] | None) -> Run:
    found = run(_made_for(module, shape, rebuild), shape, name)
    if found.error is None or not found.wants_data:
        return found
    note = f"forward reads values ({own_line(found.error)}): it was run on zeros, with its weights"
    whole = rebuild() if rebuild else module
    device = next((str(p.device) for p in whole.parameters()), "cpu")
    if device == META:
        return found
    real = run(_made_for(whole, shape, None), shape, name, device)
    return Run(replace(real.network, warnings=(*real.network.warnings, note)), real.error)


def _made_for(module: nn.Module, shape: tuple[int, ...], rebuild: Callable[[], nn.Module] | None) -> nn.Module:
    """The module, or another like it whose lazy layers have met an input of this shape.

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
            made.eval()(torch.zeros((1, *shape)))
    return made


def _sizes(module: nn.Module) -> Iterator[tuple[int, ...]]:
    """Input shapes to try, from what the module's first layer takes: a map of its channels, or a row of features.

    Torch's own layers are asked first: a network may keep its own account of channels, as of those that it ends with.
    """
    import torch

    parts = [part for part in module.modules() if hasattr(part, "in_channels") or hasattr(part, "in_features")]
    torchs = (torch.nn.modules.conv._ConvNd, torch.nn.Linear)
    first = next((part for part in parts if isinstance(part, torchs)), next(iter(parts), None))
    features = getattr(first, "in_features", None)
    channels = getattr(first, "in_channels", None) or 3
    kernel = getattr(first, "kernel_size", None)
    axes = len(kernel) if isinstance(kernel, tuple) and features is None else 2
    if features:
        yield from ((depth, side, side) for side in SIDES for depth in (3, 1) if depth * side * side == features)
    yield from ((channels, *(side,) * axes) for side in SIDES)
    if features:
        yield (features,)


def parameter_count(build: Callable[[], nn.Module]) -> int:
    """How many parameters a module has, made without data; a tensor that two layers share counts once."""
    return sum(p.numel() for p in without_data(build).parameters())
