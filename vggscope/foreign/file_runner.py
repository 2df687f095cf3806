"""What the runners of files have in common: the Network of the file, and the inputs of a comparison."""

from __future__ import annotations

from vggscope.graph import Network
from vggscope.trace.inputs import CallInputs, from_data
from vggscope.vgg.options import BuildOptions


class FileRunner:
    """A file that is run with its own weights for one comparison, on `given` where the caller has data."""

    holds_weights = True

    def __init__(self, network: Network, given: CallInputs | None) -> None:
        self.network = network
        self._given = given

    @property
    def dtype(self) -> str:
        """The floating-point type that it computes in."""
        return self.network.dtype

    def inputs(self) -> CallInputs:
        """The inputs that were given, or else zeros of the sizes and types of the Network's."""
        import torch

        if self._given is not None:
            return self._given
        types = (getattr(torch, given.dtype or self.network.dtype) for given in self.network.inputs)
        zeros = (torch.zeros(given.shape, dtype=kind) for given, kind in zip(self.network.inputs, types))
        return CallInputs(tuple(zeros))


def given_data(options: BuildOptions) -> CallInputs | None:
    """The tensors that the options hold as inputs, for one sample; None without any."""
    inputs = options.inputs
    return None if inputs is None or inputs.data is None else from_data(inputs.data, inputs.batch_axis).for_samples(1)
