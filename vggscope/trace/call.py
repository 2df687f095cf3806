"""The arguments of a module's forward, from a tensor for each input of its Network."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING

from vggscope.errors import OptionError
from vggscope.graph import Network

if TYPE_CHECKING:
    from torch import Tensor, nn


def arguments(
    module: nn.Module, network: Network, tensors: Mapping[str, Tensor]
) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """Return the positional and the keyword arguments of forward for `tensors`, by the names of the inputs.

    Raises OptionError for an input that is part of a nested argument, such as a list of tensors.
    """
    if len(network.inputs) == 1:
        return tuple(tensors.values()), {}
    parameters = inspect.signature(module.forward).parameters
    named = {given.argument: tensors[given.name] for given in network.inputs}
    nested = next((name for name in named if name not in parameters), None)
    if nested is not None:
        raise OptionError(
            f"{network.name} takes {nested} as a part of another argument, and gradients need one for each input",
            "the rule gives the fields without gradients",
        )
    positional = [name for name in named if parameters[name].kind is inspect.Parameter.POSITIONAL_ONLY]
    return tuple(named.pop(name) for name in positional), named
