"""A net of MatConvNet's SimpleNN as a Network: a chain of layers, under the file's own names.

Each rule follows the function that vl_simplenn calls for the layer. Maps are height x width x channels x samples in
MatConvNet, here samples x channels x height x width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from vggscope.checkpoint.formats.matconvnet import MatLayer, MatNet, about_input
from vggscope.checkpoint.formats.matlab import described
from vggscope.errors import CheckpointError, ShapeError, option, printable
from vggscope.foreign.layer_graph import FailedLayer, Incomplete, LayerGraph, check_given, given_for, overwriting
from vggscope.graph import Network
from vggscope.ops import activation
from vggscope.ops.base import Op, Shape, infer_output_shape
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.normalization import BatchNorm2d, LocalResponseNorm
from vggscope.ops.pooling import AvgPool2d, MaxPool2d
from vggscope.ops.regularization import Dropout
from vggscope.ops.view import Pad

_INPUT = "data"

_LOSSES = ("loss", "softmaxloss")

SIDE = 224
"""The side of the image that is taken where the file tells none."""


def network_of_matconvnet(
    net: MatNet, name: str, given: Mapping[str | int, Shape] | None = None, *, soft_max: bool = False
) -> Network:
    """Return the Network of a net.

    `given` are shapes of inputs without the batch, by name or by place. A softmax that ends the net is left out unless
    `soft_max`. Raises ShapeError for inputs that the net does not take.
    """
    return _MatConvNetWalk(net, given or {}, soft_max).network(name)


@dataclass
class _MatConvNetWalk:
    """The walk through the chain of layers of a net. `last` is the node that writes the current map."""

    net: MatNet
    given: Mapping[str | int, Shape]
    soft_max: bool
    graph: LayerGraph = field(default_factory=LayerGraph)
    last: str = _INPUT
    notes: list[str] = field(default_factory=list)

    @property
    def shape(self) -> Shape:
        return self.graph.shapes[self.last]

    def network(self, name: str) -> Network:
        layers = list(self._kept())
        if not layers:
            raise CheckpointError("it has no layers that compute anything", "give a net with its layers")
        self._give_input(layers)
        try:
            for layer in layers:
                self._run(layer)
        except Incomplete as error:
            self.graph.fail(error.failed)
        about = about_input(self.net)
        notes = [about, *self.notes] if about else self.notes
        return overwriting(self.graph.network(name, {self.last: self.last}, notes))

    def _kept(self) -> Iterator[MatLayer]:
        """The layers without losses and a closing softmax."""
        layers = [layer for layer in self.net.layers if layer.type not in _LOSSES]
        for layer in self.net.layers:
            if layer.type in _LOSSES:
                name = printable(layer.name, 60)
                self.notes.append(f"{name} is left out: a loss is no part of the network")
        if layers and layers[-1].type == "softmax" and not self.soft_max:
            why = f"the loss computes the softmax at the end; {option('soft_max')} keeps it"
            self.notes.append(f"{printable(layers.pop().name, 60)} is left out: {why}")
        yield from layers

    def _give_input(self, layers: Sequence[MatLayer]) -> None:
        stated = self.net.size
        first = next((layer for layer in layers if layer.type == "conv" and layer.filters), None)
        channels = (stated[2] if len(stated) == 3 else 0) or (first.filters[2] if first else 3)
        shape = (channels, *(stated[:2] if len(stated) > 1 else (SIDE, SIDE)))
        check_given(self.given, [_INPUT])
        own = given_for(self.given, 0, _INPUT, shape)
        if own is None and len(stated) < 2:
            told = "x".join(map(str, shape))
            self.notes.append(
                f"the file does not tell the size of its images, {told} is taken; {option('input_size')} gives another"
            )
        chosen = shape if own is None else own
        if any(side < 1 for side in chosen):
            raise ShapeError("the input has an empty side", f"give {option('input_size')}")
        self.graph.give(_INPUT, (1, *chosen))

    def _run(self, layer: MatLayer) -> None:
        rule = _RULES.get(layer.type)
        if rule is None:
            raise Incomplete(
                FailedLayer(
                    f"{printable(layer.name)}: there is no rule for a layer of type {printable(layer.type) or 'none'}",
                    "the layers up to it are described",
                )
            )
        try:
            rule(self, layer)
        except (ValueError, ArithmeticError, LookupError) as error:
            raise Incomplete(FailedLayer(f"{printable(layer.name)}: {printable(str(error))}")) from None

    def add(self, layer: MatLayer, op: Op) -> None:
        """Add the layer itself."""
        self.last = self.graph.add(layer.name, op, [self.last])

    def pad(self, layer: MatLayer, pad: Sequence[int], value: float) -> None:
        """Add the padding before a layer whose own op has none such."""
        top, bottom, left, right = pad
        op = Pad((left, right, top, bottom), "constant", value)
        self.last = self.graph.add(f"{layer.name}.pad", op, [self.last], (), is_module=False)

    def channels(self) -> int:
        if len(self.shape) != 4:
            raise ValueError(f"it reads maps of channels x height x width, the input has {len(self.shape) - 1} axes")
        return self.shape[1]


def _whole(layer: MatLayer, key: str, otherwise: int, *, lowest: int) -> tuple[int, ...]:
    """The numbers of a setting: one, or two for height and width, or four for top, bottom, left and right."""
    value = layer.settings.get(key)
    numbers = value.numbers if value is not None else ()
    if value is None or not value.numbers:
        return (otherwise,)
    if any(number != int(number) or not lowest <= number < 2**31 for number in numbers) or len(numbers) not in (
        1,
        2,
        4,
    ):
        raise ValueError(f"{described(key, value)}, which makes no sense")
    return tuple(int(number) for number in numbers)


def _pair(layer: MatLayer, key: str, otherwise: int) -> tuple[int, int]:
    numbers = _whole(layer, key, otherwise, lowest=1)
    if len(numbers) > 2:
        raise ValueError(f"its {key} has {len(numbers)} numbers, the map has two sides")
    return numbers[0], numbers[-1]


def _sides(layer: MatLayer, key: str) -> tuple[int, int, int, int]:
    """What a layer adds or cuts at top, bottom, left and right."""
    numbers = _whole(layer, key, 0, lowest=0)
    if len(numbers) == 2:
        raise ValueError(f"its {key} has two numbers, one or four are read")
    return numbers[0], numbers[len(numbers) // 3], numbers[len(numbers) // 2], numbers[-1]


def _number(layer: MatLayer, key: str, otherwise: float) -> float:
    value = layer.settings.get(key)
    return value.numbers[0] if value is not None and value.numbers else otherwise


def _convolution(chain: _MatConvNetWalk, layer: MatLayer) -> None:
    channels, filters = chain.channels(), layer.filters
    if not filters:
        raise ValueError("it has no filters")
    height, width, inputs, count = filters
    if channels % inputs or count % (channels // inputs):
        raise ValueError(f"its filters read {inputs} channels, the input has {channels}")
    stride, dilation = _pair(layer, "stride", 1), _pair(layer, "dilate", 1)
    top, bottom, left, right = _sides(layer, "pad")
    padding = (top, left)
    if (top, left) != (bottom, right):
        chain.pad(layer, (top, bottom, left, right), 0.0)
        padding = (0, 0)
    groups = channels // inputs
    chain.add(layer, Convolution(channels, count, (height, width), stride, padding, dilation, groups, layer.has_bias))


def _transposed(chain: _MatConvNetWalk, layer: MatLayer) -> None:
    channels, filters = chain.channels(), layer.filters
    if not filters:
        raise ValueError("it has no filters")
    height, width, count, inputs = filters
    (groups,) = _whole(layer, "numGroups", 1, lowest=1)
    top, bottom, left, right = _sides(layer, "crop")
    if inputs != channels or inputs % groups:
        raise ValueError(f"its filters read {inputs} channels, the input has {channels}")
    if (top, left) != (bottom, right):
        raise ValueError("there is no rule for a crop that is not the same on both sides")
    stride = _pair(layer, "upsample", 1)
    chain.add(
        layer,
        TransposedConvolution(
            channels,
            count * groups,
            (height, width),
            stride,
            (top, left),
            (1, 1),
            groups,
            layer.has_bias,
            output_padding=(0, 0),
        ),
    )


def _pooling(chain: _MatConvNetWalk, layer: MatLayer) -> None:
    """A pool, whose windows are cut off at the edges of the map: a mean is that of the values in it."""
    chain.channels()
    method = layer.settings["method"].text if "method" in layer.settings else "max"
    if method not in ("max", "avg"):
        raise ValueError(f"there is no rule for pooling by {method!r}")
    kernel, stride, pad = _pair(layer, "pool", 0), _pair(layer, "stride", 1), _sides(layer, "pad")
    top, bottom, left, right = pad

    def pool(padding: tuple[int, int], ceil_mode: bool) -> Op:
        if method == "max":
            return MaxPool2d(kernel, stride, padding, ceil_mode=ceil_mode)
        return AvgPool2d(kernel, stride, padding, ceil_mode=ceil_mode, count_include_pad=not any(pad))

    added = (top + bottom, left + right)
    sizes = tuple((side + more - k) // s + 1 for side, more, k, s in zip(chain.shape[2:], added, kernel, stride))
    if min(sizes) < 1:
        raise ValueError("its window is larger than its input")
    if 2 * top <= kernel[0] and 2 * left <= kernel[1]:
        for ceil_mode in (False, True):
            op = pool((top, left), ceil_mode)
            if infer_output_shape(op, chain.shape)[2:] == sizes:
                chain.add(layer, op)
                return
    if method == "avg":
        raise ValueError(f"there is no rule for a mean with a padding of {list(pad)}")
    chain.pad(layer, pad, float("-inf"))
    chain.add(layer, pool((0, 0), False))


def _lrn(chain: _MatConvNetWalk, layer: MatLayer) -> None:
    """(kappa + alpha * the sum of squares)^beta, where torch has the mean: its alpha is N times as large."""
    chain.channels()
    value = layer.settings.get("param")
    size, kappa, alpha, beta = value.numbers if value is not None else (5, 1, 0.0001 / 5, 0.75)
    if size != int(size) or not 1 <= size < 2**31:
        raise ValueError(f"its {size:g} channels make no sense")
    if size % 2 == 0:
        name = printable(layer.name, 60)
        chain.notes.append(
            f"{name}: of {size:g} channels, MatConvNet reads one more after its own, torch one more before"
        )
    # Products of float32 are shown as the number that is meant.
    chain.add(layer, LocalResponseNorm(int(size), float(f"{alpha * size:.7g}"), float(f"{beta:.7g}"), float(kappa)))


def _norm(chain: _MatConvNetWalk, layer: MatLayer) -> None:
    chain.add(layer, BatchNorm2d(chain.channels(), _number(layer, "epsilon", 1e-5)))


def _relu(chain: _MatConvNetWalk, layer: MatLayer) -> None:
    leak = _number(layer, "leak", 0.0)
    chain.add(layer, activation.LeakyReLU(leak) if leak > 0 else activation.ReLU())


def _dropout(chain: _MatConvNetWalk, layer: MatLayer) -> None:
    rate = _number(layer, "rate", 0.5)
    if not 0 <= rate < 1:
        raise ValueError(f"its rate is {rate:g}")
    chain.add(layer, Dropout(rate))


_RULES: Mapping[str, Callable[[_MatConvNetWalk, MatLayer], None]] = {
    "bnorm": _norm,
    "conv": _convolution,
    "convt": _transposed,
    "dropout": _dropout,
    "lrn": _lrn,
    "normalize": _lrn,
    "pool": _pooling,
    "relu": _relu,
    "sigmoid": lambda chain, layer: chain.add(layer, activation.Sigmoid()),
    "softmax": lambda chain, layer: chain.add(layer, activation.Softmax(1)),
}
"""The rule of each type of layer, which adds its nodes."""
