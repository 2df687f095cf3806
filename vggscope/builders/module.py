"""A Network as an nn.Module, with the module paths and state-dict keys of its nodes.

A column of Table 1 becomes torchvision's module tree: `features`, `avgpool` and `classifier`.
"""

from __future__ import annotations

import difflib
from collections import OrderedDict
from functools import cache
from typing import TYPE_CHECKING

from vggscope.builders.module_tree import REMEDY, ModuleCall, module_calls
from vggscope.errors import ModelError, printable
from vggscope.graph import Network
from vggscope.ops.shape import Flatten

if TYPE_CHECKING:
    from torch import Tensor, nn


def module(network: Network) -> nn.Module:
    """The module, on the caller's default device and with torch's own initialisation.

        with torch.device("meta"):
            model = module(network)  # allocates no memory

    Raises ModelError for a network that is no chain of torch.nn modules.
    """
    calls = module_calls(network)
    try:
        built: nn.Module = _vgg()(calls)
    except KeyError as error:  # torch refuses a submodule named like an attribute of nn.Module
        raise ModelError(f"{printable(network.name)} cannot be built: {printable(error.args[0])}", REMEDY) from None
    return built


def submodule(model: nn.Module, at: str, network: Network | None = None) -> nn.Module:
    """The module at a path such as `features.0`, or, with the model's Network, at a label such as `conv1_1`.

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
    """The class VGG, created on first use: this file must import without torch, and pickle must find the class."""
    if name == "VGG":
        return _vgg()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


@cache
def _vgg() -> type[nn.Module]:
    import torch
    from torch import nn

    class VGG(nn.Module):
        """The modules of a network, called one after the other."""

        __qualname__ = "VGG"

        def __init__(self, calls: tuple[ModuleCall, ...]) -> None:
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


def _built(call: ModuleCall) -> nn.Module:
    from torch import nn

    if call.node is None:
        return nn.Sequential(OrderedDict((child.name, _built(child)) for child in call.children))
    op = call.node.op
    cls = getattr(nn, op.name, None)
    if not (isinstance(cls, type) and issubclass(cls, nn.Module)):
        raise ModelError(f"{printable(call.node.title)} cannot be built: torch.nn has no {op.name}", REMEDY)
    built: nn.Module = cls(**op.arguments())
    return built
