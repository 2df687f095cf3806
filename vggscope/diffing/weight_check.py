"""Whether weights that were written for a model compute what the file that they come from computes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from vggscope.diffing.numeric import Build, Runner, measure
from vggscope.diffing.result import Numeric
from vggscope.errors import printable
from vggscope.graph import Network, Node
from vggscope.record import record
from vggscope.trace.inputs import CallInputs

if TYPE_CHECKING:
    from torch import Tensor, nn


@record
class WeightCheck:
    """The error between the outputs of a model with a file's weights and those of the file's own network.

    `engine` is what ran the file: `onnxruntime`, or `torch` where vggscope built the network that it reads in the file.
    """

    file: str
    engine: str
    numeric: Numeric

    @property
    def agrees(self) -> bool:
        """Whether the outputs differ by no more than rounding."""
        return self.numeric.max_rel_error <= self.numeric.tolerance

    @property
    def sentence(self) -> str:
        """The outcome in words."""
        ran = f"{printable(self.file)}, run by {self.engine},"
        if self.agrees:
            return f"checked: {ran} and the written weights give the same output for a random input"
        where = "no layer that both sides show parts before the output"
        if self.numeric.parts_at is not None:
            where = f"{self.numeric.parts_at} is the first layer that parts, by {self.numeric.parts_error:.2g}"
        error = f"{self.numeric.max_rel_error:.2g} of its largest value"
        return f"{ran} and the written weights do not give the same output: they differ by {error}; {where}"


def check_weights(
    written: tuple[Network, nn.Module], source: tuple[Network, Build], file: str, *, rgb: bool = False, seed: int = 0
) -> WeightCheck:
    """Run a model with a file's weights, and what runs the file, on one random input.

    `rgb`: the model takes the channels of an image in the other order than the file. Raises ModelError where one of the
    two does not run.
    """
    from torch import nn

    network, module = written
    built = source[1]()
    engine = "torch" if isinstance(built, nn.Module) else built.engine.partition(" ")[0]
    # A module has its channels reversed as the written one has.
    run = _ReversedChannels(built) if rgb and not isinstance(built, nn.Module) else built
    numeric = measure(network, source[0], lambda: module, lambda: run, seed, copies=False)
    return WeightCheck(file, engine, numeric)


class _ReversedChannels:
    """A runner that is given the channels of each image in reverse order."""

    holds_weights = True

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    @property
    def network(self) -> Network:
        return self._runner.network

    @property
    def engine(self) -> str:
        return self._runner.engine

    @property
    def dtype(self) -> str:
        return self._runner.dtype

    def inputs(self) -> CallInputs:
        return self._runner.inputs()

    def tensors(self, nodes: Sequence[Node]) -> Mapping[str, list[Tensor]]:
        return self._runner.tensors(nodes)

    def run(self, inputs: CallInputs, nodes: Sequence[Node], seed: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        reverse = inputs.map(lambda tensor: tensor.flip(1) if tensor.dim() == 4 and tensor.shape[1] == 3 else tensor)
        return self._runner.run(reverse, nodes, seed)
