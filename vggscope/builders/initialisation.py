"""A Network's module with weights drawn from a seed, as the paper or torchvision draws them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from vggscope.builders.module import module
from vggscope.errors import OptionError, option, unknown
from vggscope.graph import Network

if TYPE_CHECKING:
    from torch import nn

INITS = ("paper", "torchvision")

LARGEST_SEED = 2**64 - 1

PAPER_DEVIATION = 0.1
"""The standard deviation in section 3.1 of the paper: "zero mean and 10^-2 variance"."""

TORCHVISION_LINEAR_DEVIATION = 0.01


def check_draw(init: str, seed: int) -> None:
    """Raise OptionError for an `init` that is none of INITS, or a seed outside 0 to 2^64-1."""
    if init not in INITS:
        raise unknown("initialisation", init, INITS, "init")
    if not 0 <= seed <= LARGEST_SEED:
        raise OptionError(f"the seed {seed} is out of range", f"{option('seed')} is 0 to {LARGEST_SEED}")


def initialised(network: Network, init: str = "torchvision", seed: int = 0) -> nn.Module:
    """The network's module on the CPU, with weights drawn from the seed.

    `paper` draws every weight from N(0, 0.1^2) and sets biases to 0 (section 3.1 of the paper). `torchvision` draws
    convolutions by Kaiming's rule for ReLU over the fan-out and linear layers from N(0, 0.01^2), and sets biases to 0;
    the same seed gives the tensors of torchvision's own constructor. Both start a batch norm as the identity.

    Raises OptionError for an unknown `init` or a seed outside 0 to 2^64-1, ModelError where the network cannot be
    built.
    """
    check_draw(init, seed)
    import torch

    # The layers' constructors draw first, as they do in torchvision.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        model = module(network)
        for layer in model.modules():
            _RULES[init](layer)
    return model


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
