"""What is alive when: the memory of one forward pass, or of one training step, tensor by tensor.

`calls` writes a network as the calls that torch makes, `step` walks them forward and backward as autograd does,
`ledger` books every tensor as a line over the batch, `trace` puts these together. `report` reads the peak out of the
book, `allocator` replays it for what the GPU's allocator reserves, `fit` asks what a card can take.
"""

from __future__ import annotations

from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import StepConfig
from vggscope.graph import Network

_DTYPE = {2: "float16", 4: "float32", 8: "float64"}


def inference_peak(network: Network, batch: int, itemsize: int) -> int:
    """The most bytes alive in one forward pass without gradients, the input batch among them."""
    return simulate_step(network.for_batch(batch), StepConfig(mode="inference", dtype=_DTYPE[itemsize])).peak_bytes(
        batch
    )


def training_peak(network: Network, batch: int, itemsize: int) -> int:
    """The most bytes alive in a training step with SGD and momentum, the input batch and its labels among them."""
    return simulate_step(network.for_batch(batch), StepConfig(dtype=_DTYPE[itemsize])).peak_bytes(batch)
