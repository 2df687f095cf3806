"""What a witness is, and what it can say."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vggscope.graph import Network

if TYPE_CHECKING:
    from torch import nn

PARAMS = "params"
MACS = "macs"
BACKWARD_MACS = "backward_macs"


@dataclass(frozen=True)
class Claim:
    """A figure as a witness gives it, rounded to a multiple of `rounded_to`."""

    value: int
    rounded_to: int = 1


@dataclass(frozen=True)
class Term:
    """A part of a difference: what a witness counts that we do not (or, negative, the reverse), and what that is."""

    amount: int
    what: str


class Abstains(Exception):
    """A witness has nothing to say about this network; the text says why."""


Ask = Callable[[Network, "nn.Module"], Claim]
Explain = Callable[[Network, int], tuple[Term, ...]]


@dataclass(frozen=True)
class Witness:
    """Somebody who has counted: `title` is the name that people know, `package` what is to be installed for it.

    `ask` has a function for each figure that it knows. It gets the network and a module of it without data, on the
    meta device and in evaluation mode, and may raise whatever it likes. `explain` has, for a figure that is counted
    otherwise than by us, the function that works the difference out from the network; the number that it gets is the
    witness's own, for the case that there are several conventions.
    """

    name: str
    title: str
    ask: Mapping[str, Ask]
    explain: Mapping[str, Explain] = field(default_factory=dict)
    package: str = ""


def without_data(module: nn.Module) -> nn.Module:
    """A copy at evaluation whose tensors are on the meta device: it takes no memory, and the module stays as it is."""
    import torch

    memo: dict[int, object] = {}
    for parameter in module.parameters():
        empty = torch.empty_like(parameter, device="meta")
        memo[id(parameter)] = torch.nn.Parameter(empty, requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = torch.empty_like(buffer, device="meta")
    return copy.deepcopy(module, memo).eval()
