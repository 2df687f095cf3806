"""What is alive when: the memory of one forward pass, or of one training step, tensor by tensor.

The walk follows the network's nodes as autograd would: an output lives until its last reader has run and nothing
keeps it, what an op keeps for its backward lives until that backward has run, a gradient until it has been used. An
op that works in place, or gives a view, shares its input's storage and takes nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vggscope.network import INPUT, Network, Node
from vggscope.ops.base import numel


@dataclass
class _Heap:
    """Bytes alive now, and the most that ever were."""

    alive: int = 0
    peak: int = 0
    sizes: dict[str, int] = field(default_factory=dict)

    def allocate(self, name: str, size: int) -> None:
        self.sizes[name] = size
        self.alive += size
        self.peak = max(self.peak, self.alive)

    def free(self, name: str) -> None:
        self.alive -= self.sizes.pop(name, 0)


def inference_peak(network: Network, batch: int, itemsize: int) -> int:
    """The most bytes alive in one forward pass without gradients: weights, the input batch and the activations still
    needed.
    """
    heap = _Heap()
    heap.allocate("weights", _weights(network, itemsize))
    storages = _storages(network, training=False)
    last_use = _last_uses(network, storages)
    heap.allocate(INPUT, _bytes(network, INPUT, batch, itemsize))
    for position, node in enumerate(network.nodes):
        _allocate_output(heap, network, node, storages, batch, itemsize)
        for storage in {storages[name] for name in node.inputs} - {INPUT}:
            if last_use[storage] == position:
                heap.free(storage)
    return heap.peak


def training_peak(network: Network, batch: int, itemsize: int) -> int:
    """The most bytes alive in a training step with SGD and momentum, after the first: weights, momentum, gradients,
    activations.

    The loss is a cross-entropy on the network's output, in a second step, with gradients set to None between steps.
    """
    heap = _Heap()
    weights = sum(numel(parameter.shape) for parameter in network.parameters()) * itemsize
    heap.allocate("weights", _weights(network, itemsize))
    heap.allocate("momentum", weights)
    storages = _storages(network, training=True)
    heap.allocate(INPUT, _bytes(network, INPUT, batch, itemsize))
    keeps = [_kept_storages(network, node, storages) for node in network.nodes]
    still_kept = {
        storage: max(i for i, kept in enumerate(keeps) if storage in kept) for kept in keeps for storage in kept
    }
    last_use = _last_uses(network, storages)
    for position, node in enumerate(network.nodes):
        _allocate_output(heap, network, node, storages, batch, itemsize)
        for index, (shape, width) in enumerate(
            node.op.kept(network.input_shapes(node), network.output_shape(node)).extra
        ):
            heap.allocate(f"{node.name}#{index}", numel(shape) * batch * (width or itemsize))
        for storage in {storages[name] for name in node.inputs} - {INPUT}:
            if last_use[storage] == position and storage not in still_kept:
                heap.free(storage)
    _backward(heap, network, keeps, batch, itemsize)
    return heap.peak


def _backward(heap: _Heap, network: Network, keeps: list[set[str]], batch: int, itemsize: int) -> None:
    """From the loss to the first layer with weights: gradients appear, what was kept goes."""
    last = network.nodes[-1].name
    logits = _bytes(network, last, batch, itemsize)
    heap.allocate("log-softmax", logits)
    heap.allocate(f"grad {last}", logits)
    heap.free("log-softmax")
    first_trained = next((i for i, node in enumerate(network.nodes) if node.parameters), 0)
    for position in range(len(network.nodes) - 1, first_trained - 1, -1):
        node = network.nodes[position]
        if position > first_trained:
            for name in dict.fromkeys(node.inputs):
                if name != INPUT and f"grad {name}" not in heap.sizes:
                    heap.allocate(f"grad {name}", _bytes(network, name, batch, itemsize))
        for parameter in node.parameters:
            heap.allocate(f"grad {parameter.name}", numel(parameter.shape) * itemsize)
        heap.free(f"grad {node.name}")
        for index in range(2):
            heap.free(f"{node.name}#{index}")
        for storage in keeps[position]:
            if not any(storage in kept for kept in keeps[:position]):
                heap.free(storage)


def _weights(network: Network, itemsize: int) -> int:
    """Parameters and buffers in bytes; a batch norm's counter is an int64."""
    buffers = sum(
        numel(shape) * (itemsize if shape else 8) for node in network.nodes for shape in node.op.buffers().values()
    )
    return sum(numel(parameter.shape) for parameter in network.parameters()) * itemsize + buffers


def _storages(network: Network, training: bool) -> dict[str, str]:
    """The node whose output each node's output lies in: its own, or for a view or an op in place its input's."""
    storages = {INPUT: INPUT}
    for node in network.nodes:
        shares = not node.op.allocates or (node.op.active_in == "training" and not training)
        storages[node.name] = storages[node.inputs[0]] if shares and node.inputs else node.name
    return storages


def _last_uses(network: Network, storages: dict[str, str]) -> dict[str, int]:
    last = {}
    for position, node in enumerate(network.nodes):
        for name in node.inputs:
            last[storages[name]] = position
    if network.nodes:
        last[storages[network.nodes[-1].name]] = len(network.nodes)
    return last


def _kept_storages(network: Network, node: Node, storages: dict[str, str]) -> set[str]:
    kept = node.op.kept(network.input_shapes(node), network.output_shape(node))
    names = [node.inputs[i] for i in kept.inputs] + ([node.name] if kept.output else [])
    return {storages[name] for name in names} - {INPUT}


def _allocate_output(
    heap: _Heap, network: Network, node: Node, storages: dict[str, str], batch: int, itemsize: int
) -> None:
    if storages[node.name] == node.name:
        heap.allocate(node.name, _bytes(network, node.name, batch, itemsize))


def _bytes(network: Network, name: str, batch: int, itemsize: int) -> int:
    return numel(network.shapes[name]) * batch * itemsize
