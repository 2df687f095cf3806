"""The arguments of a module's forward, from a tensor for each input of its Network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from vggscope.errors import OptionError
from vggscope.graph import Network
from vggscope.trace.inputs import CallInputs, example_of, inputs_of

if TYPE_CHECKING:
    from torch import Tensor, nn


def arguments(module: nn.Module, network: Network, tensors: Mapping[str, Tensor]) -> CallInputs:
    """Return the arguments of forward with `tensors`, by the names of the inputs, in place of the module's own.

    Raises OptionError for a nested argument, such as a list of tensors, of a module that carries no example of it.
    """
    call = inputs_of(module, network)
    nested = next((given.label for given in network.inputs if not given.label.isidentifier()), None)
    is_known = nested is None or example_of(module) is not None
    if not is_known or len(call.tensors()) != len(network.inputs):
        raise OptionError(
            f"{network.name} takes {nested or network.inputs[0].label} as a part of another argument",
            "give the module with its inputs: a function that returns (module, inputs)",
        )
    values = iter([tensors[given.name] for given in network.inputs])
    return call.map(lambda _: next(values))
