"""A reference tool: somebody else's code, or the paper, that reports a figure which vggscope computes too."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import field
from typing import TYPE_CHECKING

from vggscope.graph import Network
from vggscope.record import record
from vggscope.trace.forward import META
from vggscope.trace.inputs import CallInputs, computed_copies, copied_with
from vggscope.trace.transforms import is_transforming
from vggscope.units import count_text

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
    """A part of a difference: the amount that a tool counts and vggscope does not (negative: the reverse), in words."""

    amount: int
    what: str

    def __str__(self) -> str:
        return f"{'-' if self.amount < 0 else '+'} {count_text(abs(self.amount))} ({self.what})"


@record
class ReportedFigure:
    """A figure as a tool reports it, rounded to a multiple of `rounded_to`.

    `terms` are the parts of its difference from ours that follow from the module. `detail` describes a mismatch.
    """

    value: int
    rounded_to: int = 1
    terms: tuple[Term, ...] = ()
    detail: str = ""


class NotApplicable(Exception):
    """Raised when a tool reports no figure for this network; the text is the reason."""


Report = Callable[[Network, "nn.Module"], ReportedFigure]
Explain = Callable[[Network, int], tuple[Term, ...]]


@record
class ReferenceTool:
    """A tool by its short `name`, its full `title`, and the `package` to install for it.

    `reports` has a function for each figure. It takes the network and a copy of its module in evaluation mode, and may
    raise any exception. The copy is on the meta device; for parameters and MACs it may be on the CPU. `explain` has,
    for a figure that the tool counts by another convention, a function that computes the difference from the network.
    It takes the tool's value too, for tools with several conventions. A tool that does not run the module, `runs` is
    false, knows what is published.
    """

    name: str
    title: str
    reports: Mapping[str, Report]
    explain: Mapping[str, Explain] = field(default_factory=dict)
    package: str = ""
    runs: bool = True


def without_data(module: nn.Module) -> nn.Module:
    """Copy a module in evaluation mode to the meta device; the module itself stays as it is."""
    import torch

    return copied(module, lambda tensor: torch.empty_like(tensor, device="meta")).eval()


def copied(module: nn.Module, empty: Callable[[Tensor], Tensor]) -> nn.Module:
    """Copy a module with its attached inputs, and `empty` of each parameter and buffer in its place; shared ones stay
    shared.
    """
    from torch import nn

    memo = computed_copies(module)
    for parameter in module.parameters():
        memo[id(parameter)] = nn.Parameter(empty(parameter), requires_grad=parameter.requires_grad)
    for buffer in module.buffers():
        memo[id(buffer)] = empty(buffer)
    return copied_with(module, memo)


def on_cpu(module: nn.Module) -> nn.Module:
    """Copy a module on the meta device to the CPU, with zeros as its parameters and buffers."""
    import torch

    return copied(module, lambda tensor: torch.zeros_like(tensor, device="cpu")).eval()


def device_of(module: nn.Module) -> str:
    """The device of the copy that a tool runs: the meta device, unless its parameters are elsewhere."""
    return next((str(parameter.device) for parameter in module.parameters()), META)


def run_copy(module: nn.Module, inputs: CallInputs) -> object:
    """What the copy of a module that a tool runs returns. Tensors that forward creates are on its device too.

    On the CPU, a fused kernel is replaced by the operators that it consists of, as on the meta device.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    device = device_of(module)
    inputs = inputs.to(device)
    with torch.device(device):
        if device == META:
            return inputs.call(module)
        with _without_fused_layers(), sdpa_kernel(SDPBackend.MATH):
            return inputs.call(module)


@contextmanager
def _without_fused_layers() -> Iterator[None]:
    """Disable oneDNN within the block, whose kernel of a recurrent layer dispatches no products."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oneDNN may not know the settings of other devices
        with torch.backends.mkldnn.flags(enabled=False):
            yield


TRANSFORMS = "it does not know the transforms of torch.func, such as vmap"


def uses_transforms(module: nn.Module, inputs: CallInputs) -> bool:
    """Whether forward calls functions under a transform of torch.func. The module is a copy."""
    import torch
    from torch.overrides import TorchFunctionMode

    found = False

    class TransformMode(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., object], types: object, args: tuple[object, ...] = (), kwargs: object = None
        ) -> object:
            nonlocal found
            found = found or is_transforming()
            return func(*args, **(kwargs if isinstance(kwargs, dict) else {}))

    with torch.no_grad(), TransformMode():
        run_copy(module, inputs)
    return found


@contextmanager
def written_out() -> Iterator[None]:
    """Disable torch's fused attention and Transformer layers, which no tool can look into."""
    from torch.backends import mha

    before = mha.get_fastpath_enabled()
    mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        mha.set_fastpath_enabled(before)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Freeze all parameters: torch's module trackers fail for a view of a trainable parameter under no_grad."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trainable:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
