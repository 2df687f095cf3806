"""What a witness is, and what it can say."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING

from vggscope.graph import Network
from vggscope.record import record

if TYPE_CHECKING:
    from torch import Tensor, nn

PARAMS = "params"
MACS = "macs"
BACKWARD_MACS = "backward_macs"
INFERENCE_PEAK = "inference_peak_bytes"
TRAINING_PEAK = "training_peak_bytes"
FIELDS = "receptive_fields"


@record
class Term:
    """A part of a difference: what a witness counts that we do not (or, negative, the reverse), and what that is."""

    amount: int
    what: str


@record
class ReportedFigure:
    """A figure as a witness gives it, rounded to a multiple of `rounded_to`.

    `terms` is what only the module tells of its difference from ours; `detail` is what was seen otherwise, in words.
    """

    value: int
    rounded_to: int = 1
    terms: tuple[Term, ...] = ()
    detail: str = ""


class NotApplicable(Exception):
    """A witness has nothing to say about this network; the text says why."""


Ask = Callable[[Network, "nn.Module"], ReportedFigure]
Explain = Callable[[Network, int], tuple[Term, ...]]


@record
class ReferenceTool:
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

    return copied(module, lambda tensor: torch.empty_like(tensor, device="meta")).eval()


def copied(module: nn.Module, empty: Callable[[Tensor], Tensor]) -> nn.Module:
    """A copy whose parameters and buffers are what `empty` makes of them; what is shared stays so."""
    from torch import nn

    memo: dict[int, object] = {}
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(empty(parameter), requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = empty(buffer)
    return copy.deepcopy(module, memo)


@contextmanager
def written_out() -> Iterator[None]:
    """Attention and Transformer layers run as they are written, not as one function, which nobody can look into."""
    from torch.backends import mha

    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """No parameter requires a gradient: torch's trackers of modules fail where a view of one that does is handed to a
    module and none is recorded.
    """
    learned = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)
