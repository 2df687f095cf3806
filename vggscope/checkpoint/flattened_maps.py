"""Which features of a network are a flattened map, to reorder the weights of a framework that flattens otherwise.

torch flattens a map channel by channel, Keras and TensorFlow pixel by pixel.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from math import prod

from vggscope.checkpoint.contents import Checkpoint, Original, StoredTensor
from vggscope.checkpoint.layouts import BESIDE, as_flattened, as_map
from vggscope.graph import Network, Node
from vggscope.ops.base import Shape, numel

Segments = tuple[Shape, ...]
"""Features one after the other: a map of channels and sides, flattened channel by channel, or `(count,)` others."""


def flattened_maps(network: Network, *, as_filed: bool = False) -> dict[str, Segments]:
    """The features that each tensor of weights has one number, row or column for, where a flattened map is among them.

    The keys are those of the state dict. Features that are already flattened pixel by pixel, after a permutation of the
    map, are none of a map; with `as_filed` they are, if they were flattened before, as a layer of Keras is written that
    reads the features in the file's order.

    >>> import vggscope
    >>> flattened_maps(vggscope.network("D"))
    {'classifier.0.weight': ((512, 7, 7),)}
    """
    shapes = network.shapes
    features: dict[str, Segments] = {}
    orders: dict[str, tuple[int, ...]] = {}
    found: dict[str, Segments] = {}
    unfolded: dict[str, Shape] = {}
    for node in network.nodes:
        output = shapes[node.name]
        if not node.inputs:
            continue
        source, shape = node.inputs[0], shapes[node.inputs[0]]
        orders[node.name] = _order(node, orders.get(source, ()), shape == output)
        own = features.get(source, ())
        if as_filed and _is_in_file_order(node, features, unfolded, shapes):
            continue
        if own and shape == output and len(node.inputs) == 1:
            features[node.name] = own
            leaves = {f"{node.module}.{leaf}": sides for leaf, sides in node.op.buffers().items()}
            named = {**leaves, **{parameter.name: parameter.shape for parameter in node.parameters}}
            found.update({name: own for name, sides in named.items() if sides == shape[1:]})
        elif own and node.op.family == "linear":
            found.update({p.name: own for p in node.parameters if len(p.shape) == 2 and p.shape[1] == shape[1]})
        elif len(output) == 2 and len(node.inputs) == 1 and len(shape) > 2 and shape[0] == output[0]:
            order = orders.get(source, ()) or tuple(range(len(shape)))
            is_map = numel(shape) == numel(output) and shape[1] > 1 and prod(shape[2:]) > 1
            if is_map and order == tuple(range(len(shape))):
                features[node.name] = (shape[1:],)
        elif any(name in features for name in node.inputs):
            features.update(_joined(node, features, shapes))
    return found


GraphOf = Callable[[str], "Network | None"]
"""A function that returns the network in a file; None where the file holds none that is known to its end."""


def with_known_maps(checkpoint: Checkpoint, graph_of: GraphOf | None) -> Checkpoint:
    """The checkpoint with the weights of flattened maps in torch's order, by the sides that the file's graph tells.

    Without a graph it is as it was read: one layer is taken to read a square map.
    """
    if graph_of is None or not checkpoint.flattens_last:
        return checkpoint
    network = graph_of(checkpoint.path)
    if network is None:
        return checkpoint
    maps, names = flattened_maps(network, as_filed=True), _names(checkpoint, network)
    tensors = (
        _mapped(tensor, maps.get(names[tensor.name])) if tensor.name in names else tensor
        for tensor in checkpoint.tensors
    )
    return replace(checkpoint, tensors=tuple(tensors))


def _names(checkpoint: Checkpoint, network: Network) -> dict[str, str]:
    """The names in the network of the file's tensors: their own, or those of matrices that alone have their shape.

    Where a file does not tell the names of its layers, they are those of their classes, with numbers.
    """
    shapes = {parameter.name: parameter.shape for parameter in network.parameters()}
    for node in network.nodes:
        shapes.update((f"{node.module}.{leaf}", shape) for leaf, shape in node.op.buffers().items())
    own = {tensor.name: tensor.name for tensor in checkpoint.tensors if shapes.get(tensor.name) == tensor.shape}
    matrices = [tensor for tensor in checkpoint.tensors if tensor.leaf == "weight" and len(tensor.shape) == 2]
    if all(tensor.name in own for tensor in matrices):
        return own
    counts = Counter(tensor.shape for tensor in matrices)
    named = {shape: name for name, shape in shapes.items()}
    alike = Counter(shapes.values())
    unique = (tensor for tensor in matrices if counts[tensor.shape] == alike[tensor.shape] == 1)
    return {tensor.name: named[tensor.shape] for tensor in unique}


def _mapped(tensor: StoredTensor, segments: Segments | None) -> StoredTensor:
    """The tensor by the features of its last axis. Maps beside other features stay in the file's order."""
    plain = as_flattened(tensor)
    if segments is not None and len(segments) > 1:
        original = plain.original or Original(plain.name, plain.shape)
        return replace(plain, original=replace(original, axes=BESIDE))
    return plain if segments is None else as_map(plain, segments[0][0], segments[0][1:])


def _is_in_file_order(
    node: Node, features: dict[str, Segments], unfolded: dict[str, Shape], shapes: Mapping[str, Shape]
) -> bool:
    """Whether a node gives a flattened map its sides again, moves its channels last or flattens it once more."""
    source, output = node.inputs[0], shapes[node.name]
    own = features.get(source, ())
    if len(own) == 1 and len(own[0]) > 1 and output[1:] == own[0]:
        unfolded[node.name] = own[0]
    elif source in unfolded and node.op.permutation == (0, *range(2, len(output)), 1):
        unfolded[node.name] = unfolded[source]
    elif source in unfolded and len(output) == 2:
        features[node.name] = (unfolded[source],)
    else:
        return False
    return True


def _order(node: Node, order: tuple[int, ...], keeps_shape: bool) -> tuple[int, ...]:
    """The place in a map of each axis of the output; empty for the axes in their own order."""
    moved = node.op.permutation
    if moved:
        before = order or tuple(range(len(moved)))
        after = tuple(before[axis] for axis in moved)
        return () if after == tuple(range(len(moved))) else after
    return order if keeps_shape and not node.op.is_convolution else ()


def _joined(node: Node, features: Mapping[str, Segments], shapes: Mapping[str, Shape]) -> dict[str, Segments]:
    """The features of a concatenation, or of an op of several inputs with the same features."""
    output, inputs = shapes[node.name], [shapes[name] for name in node.inputs]
    if len(output) != 2 or any(len(shape) != 2 for shape in inputs):
        return {}
    segments = [features.get(name, ((shape[1],),)) for name, shape in zip(node.inputs, inputs)]
    if len(inputs) > 1 and all(shape == output for shape in inputs):
        return {node.name: segments[0]} if len(set(segments)) == 1 else {}
    if sum(shape[1] for shape in inputs) == output[1]:
        return {node.name: tuple(segment for one in segments for segment in one)}
    return {}
