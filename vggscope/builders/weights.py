"""A Network's module with weights drawn from a seed, and the files that hold its state dict.

The tensors are held once: both writers read them where they are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from vggscope.builders.module import module
from vggscope.errors import OptionError, unknown
from vggscope.graph import Network

if TYPE_CHECKING:
    from os import PathLike
    from typing import BinaryIO

    from torch import Tensor, nn

INITS = ("paper", "torchvision")

LARGEST_SEED = 2**64 - 1

PAPER_DEVIATION = 0.1
"""Section 3.1 of the paper: "zero mean and 10^-2 variance"."""

TORCHVISION_LINEAR_DEVIATION = 0.01


def check_draw(init: str, seed: int) -> None:
    """Raise OptionError for an `init` that is none of INITS, or a seed outside 0 to 2^64-1."""
    if init not in INITS:
        raise unknown("initialisation", init, INITS, "init")
    if not 0 <= seed <= LARGEST_SEED:
        raise OptionError(f"the seed {seed} is out of range", f"--seed is 0 to {LARGEST_SEED}")


def initialised(network: Network, init: str = "torchvision", seed: int = 0) -> nn.Module:
    """The network's module on the CPU, its weights drawn; the same seed gives the same weights.

    `paper` draws every weight from N(0, 0.1^2) and sets biases to 0 (section 3.1 of the paper). `torchvision` draws
    convolutions by Kaiming's rule for ReLU over the fan-out and linear layers from N(0, 0.01^2), biases 0: with the
    same seed the tensors are those of torchvision's own constructor. A batch norm starts as the identity in both.

    Raises OptionError for an unknown `init` or a seed outside 0 to 2^64-1, ModelError where the network cannot be
    built.
    """
    check_draw(init, seed)
    import torch

    # The constructors draw as well: torchvision's come before its own initialisation, so they must here.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model = module(network)
        for layer in model.modules():
            _RULES[init](layer)
    return model


def state_dict(network: Network, init: str = "torchvision", seed: int = 0) -> dict[str, Tensor]:
    """The state dict of `initialised`."""
    return dict(initialised(network, init, seed).state_dict())


def write_pth(tensors: Mapping[str, Tensor], file: BinaryIO) -> None:
    """Write a state dict as torch.save does; it loads with `torch.load(path, weights_only=True)`.

    Raises OSError where the file cannot be written.
    """
    import torch

    try:
        torch.save(dict(tensors), file)
    except RuntimeError as error:
        # torch's writer, closing, says that the length is wrong and hides why: a disk that is full, say.
        raise _first_os_error(error) or error from None


def write_safetensors(tensors: Mapping[str, Tensor], path: str | PathLike[str]) -> None:
    """Write a state dict as safetensors, under a path because the library writes from the tensors' own memory.

    Raises OSError where the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"(?:os error|code:) (\d+)", str(error))  # before 0.6.1 it was "code: 28"
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def _first_os_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _paper(layer: nn.Module) -> None:
    from torch import nn

    for name, parameter in layer.named_parameters(recurse=False):
        if name == "bias":
            nn.init.zeros_(parameter)
        elif parameter.dim() > 1:
            nn.init.normal_(parameter, 0, PAPER_DEVIATION)


def _torchvision(layer: nn.Module) -> None:
    from torch import nn

    if isinstance(layer, nn.Conv2d):
        nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    elif isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, 0, TORCHVISION_LINEAR_DEVIATION)
    else:
        return
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


_RULES: Mapping[str, Callable[[nn.Module], None]] = MappingProxyType({"paper": _paper, "torchvision": _torchvision})
