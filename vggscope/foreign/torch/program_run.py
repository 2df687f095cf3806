"""A program of torch.export or TorchScript that torch runs by vggscope's own calls, with the values of its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vggscope.builders.graph_module import GraphTape, graph_module
from vggscope.checkpoint.contents import Checkpoint
from vggscope.checkpoint.data import TensorFile, open_checkpoint
from vggscope.errors import ModelError, printable
from vggscope.foreign.file_runner import FileRunner
from vggscope.graph import Node
from vggscope.trace.inputs import CallInputs

if TYPE_CHECKING:
    from torch import Tensor


class ProgramRunner(FileRunner):
    """A file's program for one comparison: its inputs, the weights of its layers, and what it computes."""

    def __init__(self, tape: GraphTape, checkpoint: Checkpoint, given: CallInputs | None) -> None:
        super().__init__(tape.network, given)
        self._module: Any = _loaded(tape, checkpoint)
        self._held: dict[str, Tensor] = self._module.state_dict()

    @property
    def module(self) -> Any:
        """The module that runs the program's calls one by one."""
        return self._module

    @property
    def engine(self) -> str:
        """What runs it, with the version."""
        import torch

        return f"torch {torch.__version__.partition('+')[0]}"

    def tensors(self, nodes: Sequence[Node]) -> Mapping[str, list[Tensor]]:
        """The weights and running statistics of these layers, by the layer's name."""
        return {node.name: [self._held[key] for key in _keys(node) if key in self._held] for node in nodes}

    def run(self, inputs: CallInputs, nodes: Sequence[Node], seed: int) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The output, and the outputs of these layers, by the layer's name.

        Raises ModelError, with the layer's name, where torch does not compute it.
        """
        import torch

        torch.default_generator.manual_seed(seed)
        made, layers = self._module.outputs_of(inputs.tensors(), [node.name for node in nodes])
        output = made[self.network.output_place] if isinstance(made, tuple) else made
        return output, layers


def _keys(node: Node) -> list[str]:
    buffers = [f"{node.module}.{leaf}" for leaf in node.op.buffers()] if node.module is not None else []
    return [*(parameter.name for parameter in node.parameters), *buffers]


def _loaded(tape: GraphTape, checkpoint: Checkpoint) -> Any:
    """The module that runs the tape, with the weights of the file.

    Raises ModelError for an op that is not run, and where the file does not hold a tensor that it reads.
    """
    import torch

    module = graph_module(tape)
    held = module.state_dict()
    with open_checkpoint(checkpoint) as file, torch.no_grad():
        stored = {tensor.name: tensor for tensor in file.checkpoint.tensors}
        for key, target in held.items():
            reason = file.obstacle(stored[key]) if key in stored else "the file does not hold it"
            if reason:
                raise ModelError(f"{printable(key)} of {tape.network.name} is not read: {reason}")
            target.copy_(_tensor(file, stored[key]).reshape(target.shape))
    return module


def _tensor(file: TensorFile, stored: Any) -> Tensor:
    import numpy as np
    import torch

    kind: torch.dtype = getattr(torch, stored.dtype)
    return torch.from_numpy(np.array(file.whole(stored), order="C")).view(kind)
