"""What a page shows of a module with an image beside its strongest channels: every channel as a small picture, the
histograms of the weights, the kernels that read the image, and what makes the outputs probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from math import ceil, isfinite
from typing import TYPE_CHECKING

from vggscope.execution.activations import image_tensor, recorded_calls
from vggscope.graph import INPUT, Network, Node
from vggscope.ops.base import numel
from vggscope.photo import IMAGENET_MEAN, IMAGENET_STD, crop
from vggscope.record import record
from vggscope.trace.forward import module_mode

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor, nn

SHEET_PIXELS = 450_000
"""Pixels that the sheets of all layers and images may have together, so that a page with them stays small."""

SMALLEST, LARGEST = 5, 32
"""Bounds for a side of a channel's picture, in pixels. A layer whose channels would be smaller gets no sheet."""

BINS = 40
"""Bins of a histogram."""

MOST_WEIGHTS = 30_000
"""The most weights of the convolution that reads the image that a page holds."""

KERNEL_VALUES = 40_000
"""How many weights and inputs of the other convolutions a page holds, those of all images together: enough for a small
network, or for a few layers.
"""


@record
class ChannelSheet:
    """Every channel of a layer as a small picture, side by side in rows of `columns`.

    `png` is in grey, each channel from its own least value in black to its largest in white. `size` is the (height,
    width) of one channel's picture. `means` are mean activations, negative values counted as 0.
    """

    name: str
    columns: int
    size: tuple[int, int]
    png: bytes
    means: tuple[float, ...]


@record
class WeightHistogram:
    """The weights of a layer: how many lie in each of equal bins from `low` to `high`."""

    name: str
    low: float
    high: float
    counts: tuple[int, ...]
    mean: float
    deviation: float
    zeros: int


@record
class ImageKernels:
    """The convolution that reads the image: its weights, output channels x input channels x kernel, in one row, and
    its biases, None without; with `mean` and `deviation`, by which each channel of the pixels is normalised.
    """

    name: str
    weights: tuple[float, ...]
    bias: tuple[float, ...] | None
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


@record
class LayerKernels:
    """The weights of another convolution as float32 in their order, and its biases, None without."""

    name: str
    weights: bytes
    bias: tuple[float, ...] | None
    groups: int


@record
class ImageChannels:
    """Of one image: the sheets of the layers, `pixels` as a PNG of the network's input size, the `inputs` of the layers
    of `layer_kernels` as float32, and the logarithm of the sum of the exponentials of the outputs, None if these are
    probabilities already or no vector.
    """

    sheets: tuple[ChannelSheet, ...]
    pixels: bytes
    inputs: tuple[tuple[str, bytes], ...]
    log_sum_exp: float | None


def image_channels(
    network: Network, module: nn.Module, photo: Image, kernels: Sequence[LayerKernels] = (), images: int = 1
) -> ImageChannels:
    """Run the module on an image at evaluation; `images` is how many share the pixels of the sheets. The inputs of the
    layers in `kernels` are kept.

    Raises OptionError for a network that takes no image of one or three channels.
    """
    import torch

    image = image_tensor(network, photo)
    pixels_of_layer = SHEET_PIXELS / images / max(1, sum(map(_has_sheet, network.nodes)))
    sheets: dict[str, ChannelSheet] = {}
    inputs: dict[str, bytes] = {}
    kept = {layer.name for layer in kernels}

    def record_sheet(node: Node, module: nn.Module, given: Tensor, output: Tensor) -> None:
        if node.name in kept:
            inputs[node.name] = _float32(given[0])
        if output.dim() == 4 and _has_sheet(node):
            side = min(LARGEST, int((pixels_of_layer / output.shape[1]) ** 0.5))
            if side >= SMALLEST:
                sheets[node.name] = _sheet(node.name, output[0], side)

    with torch.no_grad(), module_mode(module, training=False), recorded_calls(network, module, record_sheet):
        output = module(image)
    ordered = tuple(sheets[node.name] for node in network.nodes if node.name in sheets)
    height, width = network.input_shape[2:]
    pixels = crop(photo, height, width).convert("RGB" if network.input_shape[1] == 3 else "L")
    return ImageChannels(ordered, _png(pixels), tuple(inputs.items()), _log_sum_exp(output))


def _has_sheet(node: Node) -> bool:
    return node.op.is_convolution or node.op.family == "pooling"


def _sheet(name: str, output: Tensor, side: int) -> ChannelSheet:
    import torch
    from PIL import Image
    from torch.nn.functional import adaptive_avg_pool2d

    channels, *sides = output.shape
    height, width = (max(1, round(n * min(1.0, side / max(sides)))) for n in sides)
    small = adaptive_avg_pool2d(output, (height, width))
    low, high = small.amin((1, 2), keepdim=True), small.amax((1, 2), keepdim=True)
    steps = ((small - low) * (255 / (high - low).clamp(min=1e-30))).round().nan_to_num().clamp(0, 255).byte()
    columns = max(1, ceil((channels * height / width) ** 0.5))
    rows = ceil(channels / columns)
    cells = torch.zeros(rows * columns, height, width, dtype=torch.uint8)
    cells[:channels] = steps
    sheet = cells.reshape(rows, columns, height, width).permute(0, 2, 1, 3).reshape(rows * height, columns * width)
    picture = Image.frombytes("L", (columns * width, rows * height), bytes(sheet.flatten().tolist()))
    means = tuple(output.clamp(min=0).mean((1, 2)).tolist())
    return ChannelSheet(name, columns, (height, width), _png(picture), means)


def _png(picture: Image) -> bytes:
    file = BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _log_sum_exp(output: object) -> float | None:
    """Of an output of scores; None for probabilities, whose sum is 1, and for anything but one row of values."""
    import torch

    if not isinstance(output, torch.Tensor) or output.dim() != 2 or output.shape[1] < 2:
        return None
    row = output[0].double()
    if bool((row >= 0).all()) and abs(float(row.sum()) - 1) < 1e-3:
        return None
    value = float(row.logsumexp(0))
    return value if isfinite(value) else None


def weight_histograms(network: Network, module: nn.Module) -> tuple[WeightHistogram, ...]:
    """Return the histogram of the weights of each convolution and linear layer, without biases."""
    found: list[WeightHistogram] = []
    for node in network.nodes:
        if node.module is None or not (node.op.is_convolution or node.op.is_weight_layer):
            continue
        weight = getattr(module.get_submodule(node.module), "weight", None)
        if weight is not None and bool(weight.isfinite().all()):
            found.append(_histogram(node.name, weight.detach().float()))
    return tuple(found)


def _histogram(name: str, weight: Tensor) -> WeightHistogram:
    low, high = float(weight.min()), float(weight.max())
    if low == high:
        high = low + 1
    counts = tuple(map(int, weight.histc(BINS, low, high).tolist()))
    deviation = float(weight.std(correction=0))
    return WeightHistogram(name, low, high, counts, float(weight.mean()), deviation, int((weight == 0).sum()))


def image_kernels(network: Network, module: nn.Module) -> ImageKernels | None:
    """Return the convolution that reads the image, if its output is an inner product of zero-padded windows of it."""
    node = next((node for node in network.nodes if node.inputs == (INPUT,)), None)
    weight = None if node is None else _kernels_of(node, module)
    if node is None or weight is None or weight.numel() > MOST_WEIGHTS or weight.shape[1] != network.input_shape[1]:
        return None
    is_colour = network.input_shape[1] == 3
    mean, deviation = (IMAGENET_MEAN, IMAGENET_STD) if is_colour else ((0.0,), (1.0,))
    return ImageKernels(node.name, tuple(weight.flatten().tolist()), _biases_of(node, module), mean, deviation)


def layer_kernels(network: Network, module: nn.Module, images: int = 1) -> tuple[LayerKernels, ...]:
    """Return the kernels of the other convolutions, those with the fewest values first, while there is room."""
    sized: list[tuple[int, Node, Tensor]] = []
    for node in network.nodes:
        weight = None if node.inputs == (INPUT,) else _kernels_of(node, module)
        if weight is not None:
            sized.append((weight.numel() + images * numel(network.input_shapes(node)[0]), node, weight))
    found, room = [], KERNEL_VALUES
    for values, node, weight in sorted(sized, key=lambda each: each[0]):
        room -= values
        if room < 0:
            break
        groups = getattr(node.op, "groups", 1)
        found.append(LayerKernels(node.name, _float32(weight), _biases_of(node, module), groups))
    return tuple(found)


def _kernels_of(node: Node, module: nn.Module) -> Tensor | None:
    """The weights of a convolution whose outputs are inner products of zero-padded windows; None for other layers."""
    if node.module is None or not node.op.is_convolution or not node.op.predicts_memory:
        return None
    weight: Tensor = module.get_submodule(node.module).get_parameter("weight").detach().float()
    return weight if weight.dim() == 4 else None


def _biases_of(node: Node, module: nn.Module) -> tuple[float, ...] | None:
    bias = getattr(module.get_submodule(node.module or ""), "bias", None)
    return None if bias is None else tuple(bias.detach().float().tolist())


def _float32(values: Tensor) -> bytes:
    import torch

    return bytes(values.detach().float().contiguous().flatten().view(torch.uint8).tolist())
