"""How much a network is like a VGG, by its layers with weights.

An architecture is identified by its convolutions, with kernel size and output channels, by the changes of resolution
between them, and by the fully connected layers after them. The kind of a pool, biases, activations and batch norms make
no difference.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from math import log2, prod
from typing import NamedTuple

from vggscope.graph import Network, Node, Parameter
from vggscope.ops.base import Shape
from vggscope.record import record

MOST_LAYERS = 250
"""How many layers with weights are compared. The deepest VGG has 19."""

_GAP, _NEXT_GAP = 1.0, 0.25
"""The cost of a layer without a counterpart: of the first of a run, and of each further one."""

_WIDTH, _KERNEL, _REDUCTION = 1.0, 0.25, 0.5
"""The cost of a pair of layers that differ in this. A pair that differs in all costs less than two gaps."""


class WeightLayer(NamedTuple):
    """A convolution, or a fully connected layer, which has no `kernel`.

    `width` is the number of output channels or units, 0 for the last fully connected layer: its units are the classes.
    `reduction` is how often the resolution is halved after the convolution before it, None if the layer did not run.
    `features` is the input size of
    the first fully connected layer, 0 for any other layer. `is_separable`: a depthwise convolution and a 1x1 after it
    are one. `is_downsampling`: it has a stride and keeps the channels, as a convolution that replaces a pool.
    """

    width: int
    kernel: Shape = ()
    reduction: int | None = 0
    features: int = 0
    is_separable: bool = False
    is_downsampling: bool = False


@record
class LayerCount:
    """How many layers of a kind are equal, and how many our network and the reference have."""

    equal: int
    ours: int
    reference: int


@record
class Likeness:
    """How much a network is like a reference.

    An equal convolution has the same kernel size and the same output channels, up to the factor `width` that all
    convolutions share. An equal fully connected layer has the same units and, if it is the first, the same input; the
    number of classes does not count. `is_same_family` is false if too few convolutions are equal for a comparison layer
    by layer. `cost` is 0 if all layers are equal.
    """

    convolutions: LayerCount
    fully_connected: LayerCount
    width: float
    is_same_family: bool
    cost: float = field(metadata={"json": False})

    @property
    def text(self) -> str:
        """The counts in words: `13 of 13 convolutions, 2 of 3 fully connected layers`."""
        wide = "" if self.width == 1 else f" at {self.width:g} times the channels"
        parts = [_of(self.convolutions, "convolution") + wide]
        if self.fully_connected.reference:
            parts.append(_of(self.fully_connected, "fully connected layer"))
        return ", ".join(parts)


def _of(count: LayerCount, noun: str) -> str:
    more = "" if count.ours == count.reference else f" (the model has {count.ours})"
    return f"{count.equal} of {count.reference} {noun}{'' if count.reference == 1 else 's'}{more}"


def likeness(ours: Network, reference: Network) -> Likeness:
    """How much `ours` is like `reference`. Both are truncated at their failure, if any.

    >>> from vggscope.vgg.configs import CONFIGS
    >>> from vggscope.vgg.network import network_of_config
    >>> from vggscope.vgg.options import BuildOptions
    >>> c, d = (network_of_config(name, CONFIGS[name].words, BuildOptions()) for name in "CD")
    >>> likeness(c, d).text
    '10 of 13 convolutions, 3 of 3 fully connected layers'
    """
    theirs = weight_layers(reference)
    layers = weight_layers(ours)
    results = []
    for reading in dict.fromkeys((layers, _without_downsampling(layers))):
        for width in dict.fromkeys((1.0, _widest(reading) / _widest(theirs))):
            results.append(_likeness(ours, reading, theirs, width))
    return min(results, key=lambda result: result.cost)


def has_batch_norms(network: Network) -> bool:
    """Whether batch norms belong to its convolutions: of the layers that run, at least half as many are batch norms."""
    norms = sum(node.op.label_prefix == "bn" and len(network.output_shape(node)) == 4 for node in network.nodes)
    return norms > 0 and 2 * norms >= sum(
        bool(layer.kernel) and layer.reduction is not None for layer in weight_layers(network)
    )


def weight_layers(network: Network) -> tuple[WeightLayer, ...]:
    """The first weight layers that the network's output depends on, in execution order.

    Of a network whose forward pass fails, they are followed by those that it holds and that did not run.
    """
    layers: list[WeightLayer] = []
    previous, depthwise = network.input_shape, None
    aside = network.side_outputs
    last_map = _last_spatial(network)
    for place, node in enumerate(network.nodes):
        weight = node.op.parameters().get("weight") if node.op.is_weight_layer and node.name not in aside else None
        if weight is None or len(layers) == MOST_LAYERS:
            continue
        shape = network.input_shapes(node)[0]
        in_head = bool(layers) and not layers[-1].kernel
        if _is_fully_connected(node, weight, shape, layers) and place >= last_map:
            layers.append(WeightLayer(weight[0], features=0 if in_head else prod(weight[1:])))
        elif depthwise is not None and set(weight[2:]) == {1}:
            layers[-1], depthwise = depthwise._replace(width=weight[0], is_separable=True), None
        elif len(shape) == 4:
            window = node.op.window(shape[2:])
            downsampling = window is not None and max(window.stride) > 1 and weight[0] == shape[1]
            layer = WeightLayer(weight[0], weight[2:], _halvings(previous, shape), is_downsampling=downsampling)
            layers.append(layer)
            previous, depthwise = shape, layer if weight[1] == 1 < shape[1] else None
    if network.failure is not None:
        layers += _held(network, MOST_LAYERS - len(layers), bool(layers) and not layers[-1].kernel)
    last = max((i for i, layer in enumerate(layers) if not layer.kernel), default=None)
    return tuple(layer._replace(width=0) if i == last else layer for i, layer in enumerate(layers))


def _last_spatial(network: Network) -> int:
    """The place of the last convolution with a kernel above 1x1: a layer before it is no part of the head.

    A forward pass that fails ends before a convolution that its network holds.
    """
    if any(len(parameter.shape) == 4 and max(parameter.shape[2:]) > 1 for parameter in _not_run(network)):
        return len(network.nodes)
    places = (
        i for i, n in enumerate(network.nodes) if n.op.is_convolution and max(n.op.parameters()["weight"][2:]) > 1
    )
    return max(places, default=0)


def _not_run(network: Network) -> list[Parameter]:
    """The weights that a network holds and that did not run since its forward pass failed before."""
    if network.failure is None:
        return []
    return [parameter for parameter, _ in network.unused if parameter.name.rpartition(".")[2] == "weight"]


def _held(network: Network, most: int, in_head: bool) -> list[WeightLayer]:
    """The weight layers that did not run, in the order of the state dict."""
    layers: list[WeightLayer] = []
    for weight in (parameter.shape for parameter in _not_run(network)):
        if len(weight) == 4:
            layers.append(WeightLayer(weight[0], weight[2:], None))
        elif len(weight) == 2:
            layers.append(WeightLayer(weight[0], features=0 if in_head else weight[1]))
            in_head = True
    return layers[:most]


def _is_fully_connected(node: Node, weight: Shape, shape: Shape, before: Sequence[WeightLayer]) -> bool:
    """Whether a layer is fully connected, which may be written as a convolution over its whole input.

    A convolution of the same kernel as the one before it, and not many times as wide, is a usual one: its input is as
    small as its kernel because the image is small.
    """
    if node.op.label_prefix == "fc" or node.label.startswith("fc"):
        return True
    in_head = bool(before) and not before[-1].kernel
    is_usual = bool(before) and before[-1].kernel == weight[2:] and weight[0] <= 2 * weight[1]
    window = node.op.window(shape[2:])
    covers = weight[2:] == shape[2:] and (in_head or (max(shape[2:], default=1) > 1 and not is_usual))
    return covers and window is not None and not any(window.padding)


def _halvings(before: Shape, after: Shape) -> int:
    return round(log2(max(before[-1], 1) / max(after[-1], 1)))


def _widest(layers: Sequence[WeightLayer]) -> int:
    return max((layer.width for layer in layers if layer.kernel), default=1)


def _without_downsampling(layers: tuple[WeightLayer, ...]) -> tuple[WeightLayer, ...]:
    """The layers without the convolutions that may replace pools; the reduction before one counts for the next."""
    kept, reduction = [], 0
    for layer in layers:
        reduction += layer.reduction or 0
        if not layer.is_downsampling:
            kept.append(layer if layer.reduction is None else layer._replace(reduction=reduction))
            reduction = 0
    return tuple(kept)


def _likeness(
    ours: Network, layers: tuple[WeightLayer, ...], theirs: tuple[WeightLayer, ...], width: float
) -> Likeness:
    # A network without a head is as like to one head as to another.
    has_head = any(not layer.kernel for layer in layers)
    compared = theirs if has_head else tuple(layer for layer in theirs if layer.kernel)
    cost, equal_convolutions, equal_fully_connected = _alignment(layers, compared, width)
    convolutions = _count(layers, theirs, equal_convolutions, convolutions=True)
    longest = max(convolutions.ours, convolutions.reference)
    # Other networks have convolutions of these widths too, as MobileNet and ResNet do: of those more must be equal.
    usual = width == 1 and not any(layer.is_separable for layer in layers) and _begins_as_chain(ours, theirs)
    needed = longest * (0.5 if usual else 0.75)
    return Likeness(
        convolutions,
        _count(layers, theirs, equal_fully_connected, convolutions=False),
        width,
        0 < needed <= convolutions.equal,
        cost,
    )


def _count(
    layers: Sequence[WeightLayer], theirs: Sequence[WeightLayer], equal: int, *, convolutions: bool
) -> LayerCount:
    ours, reference = (sum(bool(layer.kernel) == convolutions for layer in side) for side in (layers, theirs))
    return LayerCount(equal, ours, reference)


def _begins_as_chain(ours: Network, theirs: Sequence[WeightLayer]) -> bool:
    """Whether no layer reads two others before the network has as many convolutions as the reference."""
    left = sum(bool(layer.kernel) for layer in theirs)
    for node in ours.nodes:
        left -= node.op.label_prefix == "conv"
        if left <= 0:
            break
        if len(set(node.inputs)) > 1:
            return False
    return True


_Sum = tuple[float, int, int]
"""The cost of an alignment, then its equal convolutions and its equal fully connected layers, negative."""


def _alignment(ours: Sequence[WeightLayer], theirs: Sequence[WeightLayer], width: float) -> _Sum:
    """The least cost of an alignment with affine gaps (Gotoh 1982), and how many convolutions and FC layers are equal.

    `theirs` have `width` times their channels.
    """
    never: _Sum = (float("inf"), 0, 0)
    # For each prefix of theirs: the best that ends with a pair, with a layer of ours alone, with one of theirs alone.
    row = [((0.0, 0, 0), never, never)]
    for _ in theirs:
        row.append((never, never, min(_plus(row[-1][0], _GAP), _plus(row[-1][2], _NEXT_GAP))))
    for layer in ours:
        above = row
        row = [(never, min(_plus(above[0][0], _GAP), _plus(above[0][1], _NEXT_GAP)), never)]
        for j, other in enumerate(theirs, 1):
            before, over, left = above[j - 1], above[j], row[-1]
            row.append(
                (
                    _paired(min(before), layer, other, width),
                    min(_plus(min(over[0], over[2]), _GAP), _plus(over[1], _NEXT_GAP)),
                    min(_plus(min(left[0], left[1]), _GAP), _plus(left[2], _NEXT_GAP)),
                )
            )
    cost, convolutions, fully_connected = min(row[-1])
    return cost, -convolutions, -fully_connected


def _plus(total: _Sum, cost: float) -> _Sum:
    return (total[0] + cost, total[1], total[2])


def _paired(total: _Sum, ours: WeightLayer, theirs: WeightLayer, width: float) -> _Sum:
    if bool(ours.kernel) != bool(theirs.kernel):
        return (float("inf"), 0, 0)
    is_convolution = bool(ours.kernel)
    same_width = ours.width == theirs.width * (width if is_convolution else 1)
    same_kernel = (ours.kernel, ours.features) == (theirs.kernel, theirs.features)
    other_reduction = ours.reduction is not None and ours.reduction != theirs.reduction
    cost = _WIDTH * (not same_width) + _KERNEL * (not same_kernel) + _REDUCTION * other_reduction
    equal = same_width and same_kernel
    return (total[0] + cost, total[1] - (equal and is_convolution), total[2] - (equal and not is_convolution))
