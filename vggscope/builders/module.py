"""A Network as torch's nn.Module, with the module paths and state-dict keys that its nodes name.

For a column that is torchvision's tree: `features`, `avgpool` and `classifier`, with flatten as a function between.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING

from vggscope.builders.tree import REMEDY, Part, parts
from vggscope.errors import ModelError, printable
from vggscope.graph import Network
from vggscope.ops.shape import Flatten

if TYPE_CHECKING:
    from torch import Tensor, nn


def module(network: Network) -> nn.Module:
    """The module, its tensors allocated where the caller's device context says and initialised as torch does.

        with torch.device("meta"):
            model = module(network)  # no memory is taken

    Raises ModelError for a network that is no chain of torch.nn modules.
    """
    calls = parts(network)
    try:
        built: nn.Module = _vgg()(calls)
    except KeyError as error:  # torch refuses a module by the name of one of its own attributes
        raise ModelError(f"{printable(network.name)} cannot be built: {printable(error.args[0])}", REMEDY) from None
    return built


def part(model: nn.Module, at: str, network: Network | None = None) -> nn.Module:
    """The module at a path such as `features.0`, or, where the network is given, at a label such as `conv1_1`.

    Raises ModelError with the nearest names where there is none.
    """
    labels = {node.label: node.module for node in network.nodes if node.label and node.module} if network else {}
    modules: dict[str, nn.Module] = dict(model.named_modules())
    path = labels.get(at, at)
    if not path or path not in modules:
        names = [*filter(None, modules), *labels]
        nearest = difflib.get_close_matches(at, names, n=3) or names[:3]
        raise ModelError(f"no module {at!r}", f"the nearest are {', '.join(nearest)}" if nearest else "")
    return modules[path]


def __getattr__(name: str) -> object:
    """`VGG`, made when it is first asked for: this file is read without torch, yet a model can be pickled."""
    if name == "VGG":
        return _vgg()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _vgg() -> type[nn.Module]:
    import torch
    from torch import nn

    class VGG(nn.Module):
        """The parts of a network, called one after the other."""

        __qualname__ = "VGG"

        def __init__(self, calls: tuple[Part, ...]) -> None:
            super().__init__()
            self._calls = calls
            for call in calls:
                if call.name:
                    self.add_module(call.name, _built(call))

        def forward(self, x: Tensor) -> Tensor:
            for call in self._calls:
                if call.name:
                    x = self.get_submodule(call.name)(x)
                elif call.node and isinstance(call.node.op, Flatten):
                    x = torch.flatten(x, call.node.op.start_dim, call.node.op.end_dim)
            return x

    return VGG


def _built(part: Part) -> nn.Module:
    from torch import nn

    if part.node is None:
        return nn.Sequential(OrderedDict((child.name, _built(child)) for child in part.parts))
    op = part.node.op
    found = getattr(nn, op.name, None)
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ModelError(f"{printable(part.node.title)} cannot be built: torch.nn has no {op.name}", REMEDY)
    built: nn.Module = found(**op.arguments())
    return built
