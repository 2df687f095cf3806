"""A checkpoint's tensors put into a module."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vggscope.errors import CheckpointError
from vggscope.sources.checkpoint import inspect

if TYPE_CHECKING:
    from torch import Tensor, nn


def with_weights(module: nn.Module, path: str) -> nn.Module:
    """The module with the tensors of the file at `path`, its keys taken from below a wrapper and without a prefix.

    The file is read as `inspect` reads it first, so that nothing in it runs. Raises CheckpointError where its keys or
    shapes are not the module's.
    """
    found = inspect(path)
    state = _tensors(path, found.format, found.wrapper)
    wanted = module.state_dict().keys()
    prefix = found.prefix if not state.keys() & wanted else ""
    try:
        module.load_state_dict({key.removeprefix(prefix): tensor for key, tensor in state.items()})
    except RuntimeError as error:
        reason = " ".join(str(error).split()).partition(": ")[2]
        problem = f"{path} does not hold the weights of this model: {reason[:120]}..."
        raise CheckpointError(problem, f"vggscope inspect {path} tells whose they are") from None
    return module


def _tensors(path: str, form: str, wrapper: tuple[str, ...]) -> dict[str, Tensor]:
    if form == "safetensors":
        from safetensors.torch import load_file

        loaded: dict[str, Tensor] = load_file(path)
        return loaded
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    for key in wrapper:
        state = state[key]
    return dict(state)
