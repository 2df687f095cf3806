"""The input that receptive fields are measured in, and those of its axes that pixels lie along."""

from __future__ import annotations

from vggscope.errors import OptionError, printable
from vggscope.graph import Input, Network, Node
from vggscope.ops.axis_maps import StridedWindow


def spatial_input(network: Network) -> str:
    """The name of the first input with spatial axes; of the first input if none has them.

    >>> import vggscope
    >>> spatial_input(vggscope.network("D"))
    'input'
    """
    names = (given.name for given in network.inputs if pixel_axes(network, given.name))
    return next(names, network.inputs[0].name)


def named_input(network: Network, of: str | None) -> Input:
    """The input of this name, or the first with spatial axes.

    Raises OptionError, with the names of the inputs that fit, for an unknown one and for one without spatial axes.
    """
    if of is None:
        name = spatial_input(network)
        return next(given for given in network.inputs if given.name == name)
    chosen = next((given for given in network.inputs if of in (given.label, given.name)), None)
    names = " and ".join(given.label for given in network.inputs)
    if chosen is None:
        is_or_are = "input is" if len(network.inputs) == 1 else "inputs are"
        raise OptionError(f"{network.name} has no input {printable(of)!r}", f"its {is_or_are} {printable(names)}")
    if not pixel_axes(network, chosen.name):
        fitting = [given.label for given in network.inputs if pixel_axes(network, given.name)]
        remedy = f"name {printable(' or '.join(fitting))}" if fitting else "no input of this model has any"
        raise OptionError(f"the input {printable(of)} has no spatial axes", remedy)
    return chosen


def pixel_axes(network: Network, name: str) -> tuple[int, ...]:
    """The axes of an input along which its pixels, samples or tokens lie: all but the batch and the channels.

    The channels are the axis that the first layer with weights combines. Without such a layer they are the first axis
    after the batch.

    >>> import vggscope
    >>> pixel_axes(vggscope.network("D"), "input")
    (2, 3)
    """
    given = next(given for given in network.inputs if given.name == name)
    axes = [axis for axis in range(len(given.shape)) if axis != given.batch_axis]
    channels = _channels_axis(network, name, axes)
    return tuple(axis for axis in axes if axis != channels)


def _channels_axis(network: Network, name: str, axes: list[int]) -> int | None:
    """The axis that the first layer with weights combines; None if that combines another one, such as a new axis."""
    shape = network.shapes[name]
    places: dict[str, dict[int, int]] = {name: {axis: axis for axis in axes}}  # of the input's axes in each tensor
    for node in network.nodes:
        source = next((source for source in node.inputs if source in places), None)
        if source is None:
            continue
        if node.op.is_lookup:
            return None
        features = node.op.features_axis
        if features is not None:
            features %= max(len(network.shapes[source]), 1)
            followed = next((axis for axis, place in places[source].items() if place == features), None)
            is_merged = followed is None and len(places[source]) < len(axes)
            return (axes[0] if len(axes) > 1 else None) if is_merged else followed
        places[node.name] = _moved(network, node, source, places[source])
    return axes[0] if axes and len(shape) > 1 else None


def _moved(network: Network, node: Node, source: str, places: dict[int, int]) -> dict[int, int]:
    """The places of the input's axes after a node, without those that it merges or reduces."""
    maps = node.op.reads(network.input_shapes(node), network.output_shape(node))
    axis_maps = next((read for name, read in zip(node.inputs, maps or ()) if name == source), {})
    moved = {}
    for axis, place in places.items():
        along = axis_maps.get(place)
        if along is not None and along[0] is not None and isinstance(along[1], StridedWindow):
            moved[axis] = along[0]
    return moved
