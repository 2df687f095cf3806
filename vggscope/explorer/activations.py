"""What a network's weights make of an image: the strongest channels of each layer, and the inner product behind one
unit of each.

The maps are small and of 256 steps, so that they fit a page; the figures beside them are those that torch gave.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vggscope.errors import OptionError
from vggscope.explorer.inner_product import inner_product, short
from vggscope.graph import Network, Node
from vggscope.ops.convolution import Convolution
from vggscope.photo import IMAGENET_MEAN, IMAGENET_STD, crop

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

CHANNELS, UNITS = 6, 10
"""How many channels of a map are shown, and units of a vector."""

IMAGENET = 1000
"""How many classes it has."""

BUDGET = 500_000
"""Bytes that all maps together may take."""

SMALLEST, LARGEST = 12, 56
"""Pixels of a map's longer side in the page."""

MANY = 60
"""In a network with more maps than this, only those of convolutions and pools are shown."""

HOW = (
    f"Of each layer the {CHANNELS} channels with the largest mean activation, negative values counted as 0, strongest"
    " first. The image is scaled to the network's input and normalised by ImageNet's mean and standard deviation."
)


def activations(network: Network, module: nn.Module, photo: Image) -> dict[str, object]:
    """`layers`: for each layer, by its place, its strongest channels, or the strongest units of a vector; `classes`:
    their names, where the network's output is ImageNet's.

    Raises OptionError for a network that takes no image of one or three channels.
    """
    import torch

    seen = _Seen(network)
    module.eval()
    with torch.no_grad(), _watched(network, module, seen.look):
        module(_tensor(network, photo))
    return {"layers": seen.layers, "classes": classes(network), "how": HOW}


def _tensor(network: Network, photo: Image) -> Tensor:
    import torch

    if len(network.input_shape) != 4 or network.input_shape[1] not in (1, 3):
        raise OptionError(f"{network.name} takes no image of one or three channels", "leave --weights out")
    channels, height, width = network.input_shape[1:]
    image = crop(photo, height, width).convert("RGB" if channels == 3 else "L")
    pixels = torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).reshape(height, width, channels)
    scaled = pixels.permute(2, 0, 1).float() / 255
    if channels == 3:
        scaled = (scaled - torch.tensor(IMAGENET_MEAN)[:, None, None]) / torch.tensor(IMAGENET_STD)[:, None, None]
    return scaled[None]


@contextmanager
def _watched(
    network: Network, module: nn.Module, look: Callable[[int, nn.Module, Tensor, Tensor], None]
) -> Iterator[None]:
    """Have `look` called with each node's place, input and output; a module's calls are its nodes in order."""
    places: dict[str, list[int]] = {}
    for place, node in enumerate(network.nodes):
        if node.module is not None:
            places.setdefault(node.module, []).append(place)

    def hook(path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def called(module: nn.Module, given: tuple[Tensor, ...], made: Tensor) -> None:
            if places[path] and hasattr(made, "shape") and given:
                look(places[path].pop(0), module, given[0], made)

        return called

    handles = [found.register_forward_hook(hook(path)) for path, found in module.named_modules() if path in places]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Seen:
    """What has been seen of a forward pass so far."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.layers: dict[int, dict[str, object]] = {}
        maps = [node for node in network.nodes if len(network.output_shape(node)) == 4]
        self.shown = {node.name for node in maps if len(maps) <= MANY or _leads(network, node)}
        pixels = BUDGET * 0.75 / max(1, len(self.shown) * CHANNELS)
        self.side = int(min(max(pixels**0.5, SMALLEST), LARGEST))

    def look(self, place: int, module: nn.Module, given: Tensor, made: Tensor) -> None:
        node = self.network.nodes[place]
        if made.dim() == 4 and node.name in self.shown and given.dim() == 4:
            self.layers[place] = self._maps(node, module, given[0], made[0])
        elif made.dim() == 2:
            values, units = made[0].sort(descending=True, stable=True)
            self.layers[place] = {
                "units": [[int(unit), short(float(v))] for unit, v in zip(units[:UNITS], values[:UNITS])]
            }

    def _maps(self, node: Node, module: nn.Module, given: Tensor, made: Tensor) -> dict[str, object]:
        means = made.clamp(min=0).mean((1, 2))
        strongest = means.sort(descending=True, stable=True).indices[:CHANNELS].tolist()
        return {"channels": [self._channel(node, module, given, made[c], c) for c in strongest]}

    def _channel(self, node: Node, module: nn.Module, given: Tensor, made: Tensor, channel: int) -> dict[str, object]:
        row, column = divmod(int(made.argmax()), made.shape[1])
        return {
            "channel": channel,
            "mean": short(float(made.clamp(min=0).mean())),
            **_picture(made, self.side),
            "unit": [row, column],
            "value": short(float(made[row, column])),
            "product": inner_product(node, module, given, channel, (row, column)),
        }


def _leads(network: Network, node: Node) -> bool:
    """Whether a layer is worth showing where there are many."""
    return isinstance(node.op, Convolution) or "Pool" in node.op.name


def _picture(made: Tensor, side: int) -> dict[str, object]:
    """A map of at most that many pixels a side, in 256 steps from its lowest to its highest value."""
    from torch.nn.functional import adaptive_avg_pool2d

    height, width = (max(1, round(n * min(1.0, side / max(made.shape)))) for n in made.shape)
    small = adaptive_avg_pool2d(made[None], (height, width))[0]
    low, high = float(small.min()), float(small.max())
    steps = ((small - low) * (255 / ((high - low) or 1))).round().byte()
    return {
        "size": [height, width],
        "low": short(low),
        "high": short(high),
        "map": b64encode(bytes(steps.flatten().tolist())).decode(),
    }


def classes(network: Network) -> list[str] | None:
    """The names of ImageNet's classes, where the output has as many units and torchvision is there to tell them."""
    if not network.nodes or network.shapes[network.end][1:] != (IMAGENET,):
        return None
    from torchvision.models import VGG16_Weights

    return list(VGG16_Weights.IMAGENET1K_V1.meta["categories"])
