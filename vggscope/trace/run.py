"""Runs a module's forward once under the watch, and gives the Network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vggscope.labels import labelled
from vggscope.graph import Network, Parameter
from vggscope.trace.recorder import Constant, Recorder
from vggscope.trace.watch import Watch

if TYPE_CHECKING:
    from torch import Tensor, nn


def trace(module: nn.Module, input_shape: tuple[int, ...], name: str, device: str = "meta") -> Network:
    """The Network of a module at evaluation, for one input of this shape (without the batch).

    The weights are replaced by tensors without data for the run, and nothing is computed; with `device` "cpu" the
    module runs as it is. The module comes back as it was.
    """
    import torch
    from torch.utils.weak import WeakTensorKeyDictionary

    state = _state(module, device)
    origins: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
    parameters = dict(module.named_parameters())
    owned = {n: Parameter(n, tuple(p.shape), p.requires_grad) for n, p in parameters.items()}
    for key, tensor in state.items():
        if key in owned:
            origins[tensor] = Constant((owned[key],))
    paths = {id(m): path for path, m in reversed(list(module.named_modules(remove_duplicate=False)))}
    recorder = Recorder(origins, frozenset(paths.values()))
    watch = Watch(recorder, paths, device == "meta")
    batch = torch.zeros((1, *input_shape), device=device)
    recorder.begin(batch)
    with _evaluating(module), torch.no_grad(), torch.device(device), watch.watching():
        torch.func.functional_call(module, state, (batch,))
    nodes = recorder.finished()
    read = {p.name for node in nodes for p in node.parameters}
    unused = tuple((p, "not reached at evaluation") for p in owned.values() if p.name not in read)
    return labelled(Network(name, (1, *input_shape), nodes, unused, tuple(recorder.warnings)))


def _state(module: nn.Module, device: str) -> dict[str, Tensor]:
    """Parameters and buffers for the run: without data, or the parameters themselves and the buffers' copies."""
    import torch

    if device != "meta":
        return {**dict(module.named_parameters()), **{k: b.clone() for k, b in module.named_buffers()}}
    weights = {
        key: torch.nn.Parameter(torch.empty_like(p, device="meta"), requires_grad=p.requires_grad)
        for key, p in module.named_parameters()
    }
    return {**weights, **{k: torch.empty_like(b, device="meta") for k, b in module.named_buffers()}}


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """The module in evaluation mode, each part put back afterwards."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training
