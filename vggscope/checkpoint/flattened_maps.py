"""Which features of a network are a flattened map, to reorder the weights of a framework that flattens otherwise.

torch flattens a map channel by channel, Keras and TensorFlow pixel by pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from vggscope.graph import Network, Node
from vggscope.ops.base import Shape, numel

Segments = tuple[Shape, ...]
"""Features one after the other: a map of channels and sides, flattened channel by channel, or `(count,)` others."""


def flattened_maps(network: Network) -> dict[str, Segments]:
    """The features that each tensor of weights has one number, row or column for, where a flattened map is among them.

    The keys are those of the state dict. Features that are already flattened pixel by pixel, after a permutation of the
    map, are none of a map.

    >>> import vggscope
    >>> flattened_maps(vggscope.network("D"))
    {'classifier.0.weight': ((512, 7, 7),)}
    """
    shapes = network.shapes
    features: dict[str, Segments] = {}
    orders: dict[str, tuple[int, ...]] = {}
    found: dict[str, Segments] = {}
    for node in network.nodes:
        output = shapes[node.name]
        if not node.inputs:
            continue
        source, shape = node.inputs[0], shapes[node.inputs[0]]
        orders[node.name] = _order(node, orders.get(source, ()), shape == output)
        own = features.get(source, ())
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
