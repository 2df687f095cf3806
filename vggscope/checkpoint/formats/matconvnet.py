"""Networks of MatConvNet's SimpleNN, in MAT-files: the layers with their settings, and where their weights are.

The fields are those of vl_simplenn and vl_simplenn_tidy. A convolution's filters are height x width x inputs x outputs;
a fully connected layer is a convolution over the whole map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from vggscope.checkpoint.contents import Checkpoint, Extent, Original, Place, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.matlab import Array, Wanted, read_variables
from vggscope.errors import CheckpointError, printable
from vggscope.ops.base import Shape, numel
from vggscope.record import record

MOST_LAYERS = 5_000

FORMAT = "matconvnet"

_META: Wanted = {"normalization": {"imageSize": None, "averageImage": None}, "inputSize": None}

_NET: dict[str, Wanted] = {"layers": None, "meta": _META, "params": {}}

_WANTED: Wanted = {**_NET, **(_META or {}), "net": _NET}

_WEIGHTED = ("conv", "convt", "bnorm")

_LONGEST_NAME = 200


@record
class MatLayer:
    """A layer: its name with dots for slashes, its type, the other fields, and its arrays of weights."""

    name: str
    type: str
    settings: Mapping[str, Array]
    weights: tuple[Array, ...] = ()

    @property
    def leaves(self) -> tuple[str, ...]:
        """Torch's names of the weights."""
        return ("weight", "bias", "moments") if self.type == "bnorm" else ("weight", "bias")

    @property
    def filters(self) -> Shape:
        """The shape of a convolution's filters, of which MATLAB drops closing sides of 1; empty without any."""
        shape = self.weights[0].shape if self.weights else ()
        return () if len(shape) > 4 or not numel(shape) else (*shape, *(1,) * (4 - len(shape)))

    @property
    def has_bias(self) -> bool:
        """Whether there are biases: without, MatConvNet stores an empty array."""
        return len(self.weights) > 1 and numel(self.weights[1].shape) > 0


@record
class MatNet:
    """A net: its layers in order, and the size of its images: height, width and channels.

    `mean` is subtracted from each channel, unless the file has a whole image of means: `image` is then true. Size and
    mean are empty where the file does not tell them.
    """

    layers: tuple[MatLayer, ...]
    size: tuple[int, ...]
    mean: tuple[float, ...]
    image: bool
    big_endian: bool


def read_net(file: BoundedFile) -> MatNet:
    """The net in a file. Raises CheckpointError, without the path, for a file without one."""
    variables, big_endian = read_variables(file, _WANTED)
    net = variables.get("net")
    held = variables if net is None or net.fields is None else net.fields
    layers = held.get("layers")
    if layers is None:
        remedy = "a network is the variable layers; of arrays: numpy.savez('weights.npz', **scipy.io.loadmat(FILE))"
        raise CheckpointError("it is a MATLAB file without a network of MatConvNet", remedy)
    if layers.kind == "struct":
        raise CheckpointError(
            "its network is a DagNN of MatConvNet, SimpleNN alone is read", "convert it to PyTorch first"
        )
    if layers.kind != "cell" or not layers.cells:
        raise CheckpointError("its variable layers is no list of MatConvNet's layers")
    if len(layers.cells) > MOST_LAYERS:
        raise CheckpointError(f"it has {len(layers.cells):,} layers, at most {MOST_LAYERS:,} are read")
    meta = held.get("meta")
    about = held if meta is None or meta.fields is None else {**held, **meta.fields}
    size, mean, image = _input(about)
    return MatNet(tuple(_layer(*item) for item in enumerate(layers.cells)), size, mean, image, big_endian)


def _input(about: Mapping[str, Array]) -> tuple[tuple[int, ...], tuple[float, ...], bool]:
    """The size of the images, the mean of each channel, and whether the mean is an image."""
    normalization = about.get("normalization")
    fields = (normalization.fields if normalization else None) or {}
    sizes = fields.get("imageSize", about.get("inputSize"))
    numbers = sizes.numbers if sizes else ()
    size = tuple(int(number) for number in numbers[:3]) if all(0 < n < 2**31 for n in numbers[:3]) else ()
    mean = fields.get("averageImage")
    if mean is None or mean.kind != "number":
        return size, (), False
    return size, mean.numbers if len(mean.numbers) in (1, 3) else (), numel(mean.shape) > 3


def _layer(place: int, cell: Array) -> MatLayer:
    fields = cell.fields
    if fields is None or "type" not in fields:
        raise CheckpointError(f"its layer {place + 1} has no type", "its layers are no layers of MatConvNet")
    kind = fields["type"].text
    name = fields["name"].text.replace("/", ".")[:_LONGEST_NAME] if "name" in fields else ""
    weights: tuple[Array, ...] = ()
    if kind in _WEIGHTED:
        held = fields.get("weights")
        weights = held.cells if held else tuple(fields[key] for key in ("filters", "biases") if key in fields)
    return MatLayer(name or f"layers.{place}", kind, fields, weights)


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The weights of a net. Raises CheckpointError where the file holds none, or is damaged."""
    net = read_net(file)
    found = [item for layer in net.layers for item in _tensors(layer)]
    if not found:
        raise CheckpointError("its network of MatConvNet has no weights")
    counts = Counter(tensor.name for tensor, _ in found)
    repeated = next((name for name, count in counts.items() if count > 1), None)
    if repeated is not None:
        raise CheckpointError(f"two of its layers are called {printable(repeated)}")
    storages = {tensor.place.storage: extent for tensor, extent in found if tensor.place and extent}
    return Checkpoint(path, FORMAT, tuple(tensor for tensor, _ in found), storages=storages, big_endian=net.big_endian)


def _tensors(layer: MatLayer) -> Iterator[tuple[StoredTensor, Extent | None]]:
    """The weights of a layer in torch's layout, and where the numbers of each are."""
    for leaf, array in zip(layer.leaves, layer.weights):
        if array.kind != "number" or not numel(array.shape):
            continue
        name = f"{layer.name}.{leaf}"
        original = Original(name, array.shape)
        place = Place(name, 0) if array.extent else None
        if leaf == "moments":
            yield from _moments(layer, array)
        elif leaf == "weight" and layer.type != "bnorm":
            if not layer.filters:
                raise CheckpointError(f"{printable(layer.name)}: its filters have {len(array.shape)} axes")
            height, width, inputs, outputs = layer.filters
            stride = (height * width * inputs, height * width, 1, height)
            place = place and Place(name, 0, stride)
            axes = "HWOI" if layer.type == "convt" else "HWIO"
            yield (
                StoredTensor(
                    name, (outputs, inputs, height, width), array.dtype, place, Original(name, array.shape, axes)
                ),
                array.extent,
            )
        else:
            yield StoredTensor(name, (numel(array.shape),), array.dtype, place, original), array.extent


def _moments(layer: MatLayer, array: Array) -> Iterator[tuple[StoredTensor, Extent | None]]:
    """The statistics of a batch norm: the means, and then the standard deviations, of which torch has the squares."""
    channels = numel(array.shape) // 2
    mean, variance = f"{layer.name}.running_mean", f"{layer.name}.running_var"
    place = Place(mean, 0) if array.extent else None
    yield (
        StoredTensor(mean, (channels,), array.dtype, place, Original(f"{layer.name}.moments", array.shape)),
        array.extent,
    )
    # The numbers of the standard deviations alone would be wrong.
    yield StoredTensor(variance, (channels,), array.dtype, None, Original(f"{layer.name}.moments", array.shape)), None


def about_input(net: MatNet) -> str:
    """The sentence on the images that the net reads; empty where the file does not tell.

    >>> about_input(MatNet((), (224, 224, 3), (123.68, 116.779, 103.939), False, False))
    'it reads images of 224x224x3 (height, width, channels), minus the mean 123.68, 116.779, 103.939 of each channel'
    """
    size = f" of {'x'.join(map(str, net.size))} (height, width, channels)" if len(net.size) == 3 else ""
    means = ", ".join(f"{number:.6g}" for number in net.mean)
    mean = f", minus the mean {means} of each channel" if means else ", minus a mean image" if net.image else ""
    return f"it reads images{size}{mean}" if size or mean else ""
