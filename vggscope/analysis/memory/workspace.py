"""The workspaces of cuDNN: memory that a convolution takes for a moment, beside the tensors of the step.

The model has one rule, fitted to published measurements (benchmarks/gpu_rows.py, docs/memory.md). A card whose tensor
cores compute float32 convolutions as TF32 wants NHWC tensors, so the backward of a convolution copies its input and its
output. The rule holds for dense convolutions with a window larger than 1x1, on maps larger than 32x32: depthwise and
1x1 convolutions, and small maps, show no such copies in the measurements.
"""

from __future__ import annotations

from vggscope.analysis.memory.allocation_log import BatchLinear
from vggscope.analysis.memory.calls import HALF, size_per_sample
from vggscope.analysis.memory.step_config import AMP, StepConfig
from vggscope.dtypes import converted
from vggscope.graph import Network, Node
from vggscope.ops.base import numel

CUDNN = ("heuristic", "benchmark", "none")
"""How cuDNN chooses its algorithms: by heuristics (torch's default), by `torch.backends.cudnn.benchmark`, which tries
all of them, or not at all, for a figure without workspaces.

With `benchmark` the rule holds for older cards too. Only three such runs are published, all on a P100.
"""

LARGEST_SMALL_MAP = 32
LARGEST_WIDTH = 4
"""Bytes of a float32: float64 has no tensor cores that need another layout."""


def workspaces(network: Network, config: StepConfig, cudnn: str, *, converts_layout: bool) -> dict[str, BatchLinear]:
    """The workspace of each convolution's backward, by layer. `converts_layout` is that of the card."""
    if not config.trains or cudnn == "none" or not (converts_layout or cudnn == "benchmark"):
        return {}
    network = converted(network, config.converts_to)
    return {node.name: _workspace(network, node, config) for node in network.nodes if _copies(network, node)}


def _copies(network: Network, node: Node) -> bool:
    """Whether the rule holds for a node."""
    kernel = getattr(node.op, "kernel_size", None)
    if node.op.family != "convolution" or kernel is None or getattr(node.op, "groups", 1) != 1:
        return False
    shape, window = network.input_shapes(node)[0], numel(tuple(kernel))
    return (
        len(shape) == 4
        and window > 1
        and max(shape[2:]) > LARGEST_SMALL_MAP
        and network.element_bytes(node.name) <= LARGEST_WIDTH
    )


def _workspace(network: Network, node: Node, config: StepConfig) -> BatchLinear:
    """The size of a copy of the input and the output."""
    width = HALF if config.dtype == AMP else network.element_bytes(node.name)
    elements = numel(network.input_shapes(node)[0]) + numel(network.output_shape(node))
    if node.name in network.batchless:
        return BatchLinear(elements * width, 0)
    return size_per_sample((elements,), width)


def largest_workspace(sizes: dict[str, BatchLinear], batch: int) -> int:
    """The bytes of the largest workspace; 0 if there is none."""
    return max((size.at(batch) for size in sizes.values()), default=0)
