"""Activations of an image: the strongest channels of each layer, and how the strongest unit of each is computed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vggscope.errors import OptionError, option
from vggscope.execution.inner_product import InnerProduct, PoolWindow, inner_product
from vggscope.graph import Network, Node
from vggscope.ops.base import Shape
from vggscope.photo import IMAGENET_MEAN, IMAGENET_STD, crop
from vggscope.record import record
from vggscope.result import TableResult
from vggscope.trace.forward import module_mode

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

CHANNELS, UNITS = 6, 10
"""How many channels of a layer with maps are listed, and how many units of a layer with a vector."""

IMAGENET_CLASSES = 1000

MAP_PIXELS = 375_000
"""Pixels that the maps of all layers may have together, so that a page with them stays small."""

SMALLEST, LARGEST = 12, 56
"""Bounds for the longer side of a map, in pixels."""

MANY_MAPS = 60
"""In a network with more layers with maps than this, only convolutions and pooling layers are listed."""

METHOD = (
    f"Of each layer the {CHANNELS} channels with the largest mean activation, negative values counted as 0, strongest"
    " first. The image is scaled to the network's input and normalised by ImageNet's mean and standard deviation."
)


@record
class ActivationMap:
    """A channel's map, averaged down to at most `LARGEST` pixels a side.

    `pixels` are rows of steps from 0, which is the value `low`, to 255, which is `high`.
    """

    low: float
    high: float
    pixels: tuple[tuple[int, ...], ...]


@record
class ChannelActivation:
    """One channel of a layer.

    `mean` is its mean activation, negative values counted as 0. `unit` is the (row, column) of its largest value,
    `value` that value, and `product` how the layer computes it; None for a layer that is neither a convolution nor a
    pooling layer.
    """

    channel: int
    mean: float
    unit: tuple[int, int]
    value: float
    product: InnerProduct | PoolWindow | None
    map: ActivationMap


@record
class UnitActivation:
    """One unit of a layer whose output is a vector, and its value."""

    unit: int
    value: float


@record
class LayerActivations:
    """The strongest `channels` of a layer's output, or its strongest `units` if the output is a vector."""

    name: str
    label: str
    op: str
    channels: tuple[ChannelActivation, ...]
    units: tuple[UnitActivation, ...]


@record
class Activations(TableResult[LayerActivations]):
    """The activations of one image in a network.

    `classes` are the names of the output's units if these are ImageNet's classes, else None.
    """

    schema: str
    model: str
    input_shape: Shape
    layers: tuple[LayerActivations, ...]
    classes: tuple[str, ...] | None


def activations(network: Network, module: nn.Module, photo: Image, images: int = 1) -> Activations:
    """Run the module on an image at evaluation and return the strongest activations of each of its layers.

    `METHOD` says which are listed and how the image is prepared. The module's mode stays as it is. `images` is how many
    share `MAP_PIXELS`.

    Raises OptionError for a network that takes no image of one or three channels.
    """
    import torch

    image = image_tensor(network, photo)
    recorder = _Recorder(network, MAP_PIXELS / images)
    with torch.no_grad(), module_mode(module, training=False), recorded_calls(network, module, recorder.record):
        module(image)
    layers = (recorder.layers[node.name] for node in network.nodes if node.name in recorder.layers)
    return Activations("vggscope/activations@1", network.name, network.input_shape, tuple(layers), classes(network))


def image_tensor(network: Network, photo: Image) -> Tensor:
    """Return the centre of an image as the network's input, normalised by ImageNet's mean and standard deviation.

    Raises OptionError for a network that takes no image of one or three channels.
    """
    import torch

    if len(network.input_shape) != 4 or network.input_shape[1] not in (1, 3):
        raise OptionError(f"{network.name} takes no image of one or three channels", f"leave {option('weights')} out")
    channels, height, width = network.input_shape[1:]
    image = crop(photo, height, width).convert("RGB" if channels == 3 else "L")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(height, width, channels)
    scaled = pixels.permute(2, 0, 1).float() / 255
    if channels == 3:
        scaled = (scaled - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    return scaled[None]


@contextmanager
def recorded_calls(
    network: Network, module: nn.Module, record: Callable[[Node, nn.Module, Tensor, Tensor], None]
) -> Iterator[None]:
    """Within, `record` is called with each node that a module's call is, that module, its input and its output.

    A module that is called several times has several nodes, in the order of its calls.
    """
    nodes: dict[str, list[Node]] = {}
    for node in network.nodes:
        if node.module is not None:
            nodes.setdefault(node.module, []).append(node)

    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def called(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            if nodes[path] and hasattr(output, "shape") and inputs:
                record(nodes[path].pop(0), module, inputs[0], output)

        return called

    handles = [part.register_forward_hook(hook(path)) for path, part in module.named_modules() if path in nodes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Recorder:
    """Collects the activations of the layers during a forward pass."""

    def __init__(self, network: Network, pixels_of_maps: float) -> None:
        self.layers: dict[str, LayerActivations] = {}
        maps = [node for node in network.nodes if len(network.output_shape(node)) == 4]
        self._listed = {node.name for node in maps if len(maps) <= MANY_MAPS or _is_main(node)}
        pixels = pixels_of_maps / max(1, len(self._listed) * CHANNELS)
        self._side = int(min(max(pixels**0.5, SMALLEST), LARGEST))

    def record(self, node: Node, module: nn.Module, image: Tensor, output: Tensor) -> None:
        channels: tuple[ChannelActivation, ...] = ()
        units: tuple[UnitActivation, ...] = ()
        if output.dim() == 4 and image.dim() == 4 and node.name in self._listed:
            channels = tuple(self._channels(node, module, image[0], output[0]))
        elif output.dim() == 2:
            values, places = (each[:UNITS].tolist() for each in output[0].sort(descending=True, stable=True))
            units = tuple(UnitActivation(unit, value) for unit, value in zip(places, values))
        else:
            return
        self.layers[node.name] = LayerActivations(node.name, node.label, node.op.name, channels, units)

    def _channels(self, node: Node, module: nn.Module, image: Tensor, output: Tensor) -> Iterator[ChannelActivation]:
        means = output.clamp(min=0).mean((1, 2))
        for channel in means.sort(descending=True, stable=True).indices[:CHANNELS].tolist():
            values = output[channel]
            row, column = divmod(int(values.argmax()), values.shape[1])
            yield ChannelActivation(
                channel=channel,
                mean=float(values.clamp(min=0).mean()),
                unit=(row, column),
                value=float(values[row, column]),
                product=inner_product(node, module, image, channel, (row, column)),
                map=_map(values, self._side),
            )


def _is_main(node: Node) -> bool:
    return node.op.is_convolution or node.op.family == "pooling"


def _map(values: Tensor, side: int) -> ActivationMap:
    from torch.nn.functional import adaptive_avg_pool2d

    height, width = (max(1, round(n * min(1.0, side / max(values.shape)))) for n in values.shape)
    small = adaptive_avg_pool2d(values[None], (height, width))[0]
    low, high = float(small.min()), float(small.max())
    steps = ((small - low) * (255 / ((high - low) or 1))).round().byte()
    return ActivationMap(low, high, tuple(map(tuple, steps.tolist())))


def classes(network: Network) -> tuple[str, ...] | None:
    """The names of ImageNet's classes if the output has as many units, read from torchvision; else None."""
    if not network.nodes or network.shapes[network.end][1:] != (IMAGENET_CLASSES,):
        return None
    from torchvision.models import VGG16_Weights

    return tuple(VGG16_Weights.IMAGENET1K_V1.meta["categories"])
