"""A net of Caffe as a Network: its layers at test time, under the file's own names.

Each rule follows the layer's SetUp and Reshape in Caffe's sources. What Caffe calls a blob, with N x C x H x W as its
axes, is a tensor of torch in the same order.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod

from vggscope.checkpoint.formats.protobuf import Message
from vggscope.errors import CheckpointError, ShapeError, option, printable
from vggscope.foreign.caffe.net import CaffeLayer, CaffeNet
from vggscope.foreign.layer_graph import (
    LONGEST_NAME,
    FailedLayer,
    Incomplete,
    LayerGraph,
    check_given,
    given_for,
)
from vggscope.graph import Network, Parameter
from vggscope.ops import activation
from vggscope.ops.base import Op, Shape
from vggscope.ops.constant import WithConstants
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.linear import Linear
from vggscope.ops.merge import Concatenation
from vggscope.ops.normalization import BatchNorm1d, BatchNorm2d, LocalResponseNorm
from vggscope.ops.pooling import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from vggscope.ops.regularization import Dropout
from vggscope.ops.shape import Flatten
from vggscope.ops.view import Reshape, Slice

INPUT_TYPES = frozenset(
    {"Input", "Data", "ImageData", "HDF5Data", "MemoryData", "DummyData", "WindowData", "AnnotatedData", "VideoData"}
)
"""The types of layers that make inputs."""

_CHECKS = frozenset({"Accuracy", "Silence", "HDF5Output"})
"""The types of layers, besides losses, that only watch the net."""

SIDE = 224
"""The side of the image that is taken where the file tells none."""


def network_of_caffe(
    net: CaffeNet, name: str, given: Mapping[str | int, Shape] | None = None, *, soft_max: bool = False
) -> Network:
    """Return the Network of a net, under the net's own names.

    `given` are shapes of inputs without the batch, by name or by place. A Softmax that ends the net is left out unless
    `soft_max`. Raises CheckpointError, without the path, for a net that is none, and ShapeError for inputs that it
    does not take.
    """
    return _Walk(net, given or {}, soft_max).network(name)


@dataclass
class _Walk:
    """The walk through the layers of a net."""

    net: CaffeNet
    given: Mapping[str | int, Shape]
    soft_max: bool
    graph: LayerGraph = field(default_factory=LayerGraph)
    shared: dict[str, Parameter] = field(default_factory=dict)
    dropped: dict[str, list[str]] = field(default_factory=dict)
    merged: set[int] = field(default_factory=set)
    owners: dict[str, CaffeLayer] = field(default_factory=dict)
    readers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    writers: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))

    def network(self, name: str) -> Network:
        layers = self._kept()
        if not layers:
            raise CheckpointError("it has no layers that compute anything", "give a net with its layers")
        self._give_inputs(layers)
        for place, layer in enumerate(layers):
            for bottom in dict.fromkeys(layer.bottoms):
                self.readers[bottom].append(place)
            for top in dict.fromkeys(layer.tops):
                self.writers[top].append(place)
        try:
            for place, layer in enumerate(layers):
                if place not in self.merged:
                    self._run(layer, layers, place)
        except Incomplete as error:
            self.graph.fail(error.failed)
        return self.graph.network(name, self._outputs(layers), self._notes())

    def _kept(self) -> list[CaffeLayer]:
        """The layers without inputs, losses and a closing Softmax."""
        kept = []
        for layer in self.net.layers:
            if layer.type in INPUT_TYPES:
                continue
            if "Loss" in layer.type or layer.type in _CHECKS:
                self.dropped.setdefault("a loss or a measure of the output is no part of the network", []).append(
                    layer.name
                )
                continue
            kept.append(layer)
        read = {bottom for layer in kept for bottom in layer.bottoms}
        ends = [layer for layer in kept if layer.type == "Softmax" and not read & set(layer.tops)]
        if self.soft_max or len(kept) == len(ends):
            return kept
        for layer in ends:
            why = f"the loss computes the Softmax at the end; {option('soft_max')} keeps it"
            self.dropped.setdefault(why, []).append(layer.name)
        return [layer for layer in kept if layer not in ends]

    def _notes(self) -> Iterator[str]:
        for why, names in self.dropped.items():
            listed = ", ".join(printable(name, 60) for name in names[:4])
            more = f" and {len(names) - 4} more" if len(names) > 4 else ""
            yield f"{listed}{more} {'is' if len(names) == 1 else 'are'} left out: {why}"

    # inputs

    def _give_inputs(self, layers: Sequence[CaffeLayer]) -> None:
        """Add the inputs that the layers read, with the shapes in the file or those that are given."""
        read = {bottom for layer in layers for bottom in layer.bottoms}
        stated = {name: shape for name, shape in self._stated_inputs() if name in read}
        written = {top for layer in layers for top in layer.tops}
        if not stated:
            free = [bottom for layer in layers for bottom in layer.bottoms if bottom not in written]
            stated = dict.fromkeys(free[:1])
        if not stated:
            raise CheckpointError("its layers read no input", "the net has a circle, or is damaged")
        check_given(self.given, list(stated))
        for place, (name, shape) in enumerate(stated.items()):
            own = given_for(self.given, place, name, None if shape is None else shape[1:])
            chosen = own if own is not None else self._chosen(name, shape, layers)
            if any(side < 1 for side in chosen):
                raise ShapeError(
                    f"the file's input {printable(name)} has an empty side", f"give {option('input_size')}"
                )
            self.graph.give(name, (1, *chosen))

    def _stated_inputs(self) -> Iterator[tuple[str, Shape | None]]:
        """The inputs, with their shapes as far as the file tells them. A side of 0 is one that it does not tell."""
        yield from self.net.inputs
        for layer in self.net.layers:
            if layer.type in INPUT_TYPES:
                shapes = _input_shapes(layer)
                for place, top in enumerate(layer.tops):
                    yield (
                        top,
                        shapes[min(place, len(shapes) - 1)] if shapes and (place == 0 or len(shapes) > 1) else None,
                    )

    def _chosen(self, name: str, shape: Shape | None, layers: Sequence[CaffeLayer]) -> Shape:
        """The shape of an input that nobody gives, without the batch; with a note on the sides that are a guess."""
        if shape is not None and shape[:1] and shape[0] > 1:
            self.graph.warnings.append(
                f"the file fixes a batch of {shape[0]} for {printable(name, 60)}, the figures are those of one sample"
            )
        if shape is not None and all(shape[1:]):
            return shape[1:]
        channels = (shape[1] if shape and len(shape) > 1 else 0) or _channels_of(name, layers)
        sides = tuple(side or SIDE for side in (shape or ())[2:]) or (SIDE, SIDE)
        chosen = (channels, *sides)
        told = "x".join(map(str, chosen))
        self.graph.warnings.append(
            f"the file does not tell the shape of {printable(name, 60)}, {told} is taken; {option('input_size')} gives "
            "another"
        )
        return chosen

    # layers

    def _run(self, layer: CaffeLayer, layers: Sequence[CaffeLayer], place: int) -> None:
        graph = self.graph
        absent = next((bottom for bottom in layer.bottoms if bottom not in graph.sources), None)
        if absent is not None:
            raise CheckpointError(
                f"{printable(layer.name)} reads {printable(absent)}, which no layer before it writes",
                "the net has a circle, or is damaged",
            )
        inputs = [graph.sources[bottom] for bottom in layer.bottoms]
        if layer.type == "Split":
            graph.sources.update(dict.fromkeys(layer.tops, inputs[0]) if inputs else {})
            return
        if layer.type == "Slice":
            self._slice(layer, inputs)
            return
        scale = self._scale_after(layers, place) if layer.type == "BatchNorm" else None
        if scale is not None and inputs:
            self.merged.add(scale)
            self._batch_norm(layer, layers[scale], inputs)
            return
        rule = _RULES.get(layer.type)
        if rule is None or not inputs:
            raise Incomplete(
                FailedLayer(
                    f"{printable(layer.name)}: there is no rule for a layer of type {printable(layer.type) or 'none'}",
                    "the layers up to it are described",
                )
            )
        try:
            source = rule(_Call(self, layer, inputs))
        except (ValueError, ArithmeticError, LookupError) as error:
            raise Incomplete(FailedLayer(f"{printable(layer.name)}: {printable(str(error))}")) from None
        graph.sources.update(dict.fromkeys(layer.tops, source))

    def _scale_after(self, layers: Sequence[CaffeLayer], place: int) -> int | None:
        """The place of the Scale that alone reads a BatchNorm, scaling and shifting each channel; None without one."""
        norm = layers[place]
        if len(norm.tops) != 1 or len(norm.bottoms) != 1:
            return None
        top = norm.tops[0]
        readers, writers = self.readers[top], self.writers[top]
        # The layer that writes the blob next, in place, is the last one that reads this value.
        following = bisect_right(writers, place)
        end = writers[following] if following < len(writers) else len(layers)
        first, last = bisect_right(readers, place), bisect_right(readers, end)
        if last - first != 1:
            return None
        scale = layers[readers[first]]
        settings = scale.settings.get("scale_param", {})
        is_plain = scale.type == "Scale" and scale.bottoms == (top,) and len(scale.tops) == 1
        is_plain = is_plain and settings.get("axis", 1) == 1 and settings.get("num_axes", 1) == 1
        return readers[first] if is_plain and settings.get("bias_term", 0) else None

    def _batch_norm(self, norm: CaffeLayer, scale: CaffeLayer, inputs: Sequence[str]) -> None:
        """A BatchNorm and its Scale, which torch has as one layer: the learned tensors are those of the Scale."""
        op = _norm_of(_Call(self, norm, list(inputs)), affine=True)
        path = _path(scale.name)
        parameters = [
            self.parameter(scale, place, f"{path}.{leaf}", shape)
            for place, (leaf, shape) in enumerate(op.parameters().items())
        ]
        source = self.graph.add(_path(norm.name), op, inputs, parameters)
        self.graph.sources.update(dict.fromkeys((*norm.tops, *scale.tops), source))

    def _slice(self, layer: CaffeLayer, inputs: Sequence[str]) -> None:
        shape = self.graph.shapes[inputs[0]] if inputs else ()
        settings = layer.settings.get("slice_param", {})
        axis: int = settings["axis"] if "axis" in settings else settings.get("slice_dim", 1)
        count = len(layer.tops)
        if not -len(shape) <= axis < len(shape) or not axis % len(shape) or not count:
            raise Incomplete(FailedLayer(f"{printable(layer.name)}: its input cannot be cut along axis {axis}"))
        axis %= len(shape)
        points = settings.get("slice_point") or [shape[axis] * place // count for place in range(1, count)]
        ends = [0, *points, shape[axis]]
        if len(ends) != count + 1 or any(low >= high for low, high in pairwise(ends)):
            raise Incomplete(FailedLayer(f"{printable(layer.name)}: its slices do not make up a side of {shape[axis]}"))
        for low, high, top in zip(ends, ends[1:], layer.tops):
            index = (*((None, None, None),) * axis, (low, high, None))
            self.graph.sources[top] = self.graph.add(_path(layer.name), Slice(index), inputs[:1], is_module=False)

    def parameter(self, layer: CaffeLayer, place: int, name: str, shape: Shape) -> Parameter:
        """A learned tensor of a layer: the one that the net shares under its name, if it has one."""
        if self.owners.setdefault(name, layer) is not layer:
            raise CheckpointError(f"two of its layers with weights are called {printable(layer.name)}", "rename one")
        shared, rate = layer.learned[place] if place < len(layer.learned) else ("", 1.0)
        own = Parameter(name, shape, trainable=rate != 0)
        known = self.shared.setdefault(shared, own) if shared else own
        if known.shape != shape:
            raise Incomplete(FailedLayer(f"{printable(layer.name)}: its shared {printable(shared)} has another shape"))
        if place < len(layer.blobs) and prod(layer.blobs[place]) != prod(shape):
            held, needed = ("x".join(map(str, sides)) for sides in (layer.blobs[place], shape))
            self.graph.warnings.append(
                f"{printable(name, 60)}: the file holds {held}, with this input the layer needs {needed}"
            )
        return known

    def _outputs(self, layers: Sequence[CaffeLayer]) -> dict[str, str]:
        """The nodes whose blobs no layer reads."""
        read = Counter(bottom for layer in layers for bottom in layer.bottoms if bottom not in layer.tops)
        tops = dict.fromkeys(top for layer in layers for top in layer.tops if not read[top])
        sources = {top: self.graph.sources[top] for top in tops if top in self.graph.sources}
        return {top: source for top, source in sources.items() if source in self.graph.nodes} or self._last()

    def _last(self) -> dict[str, str]:
        last = next(reversed(self.graph.nodes), None)
        return {} if last is None else {last: last}


@dataclass
class _Call:
    """A layer with its inputs: the nodes, and the walk that it is part of."""

    walk: _Walk
    layer: CaffeLayer
    inputs: Sequence[str]

    @property
    def shape(self) -> Shape:
        """The shape of the first input."""
        return self.walk.graph.shapes[self.inputs[0]]

    @property
    def is_in_place(self) -> bool:
        return self.layer.tops[:1] == self.layer.bottoms[:1]

    def settings(self, name: str) -> Message:
        return self.layer.settings.get(name, {})

    def axis(self, settings: Message, otherwise: int = 1) -> int:
        """The axis that the settings name. Raises ValueError where the input has none of that number."""
        axis, rank = settings.get("axis", otherwise), len(self.shape)
        if not -rank <= axis < rank:
            raise ValueError(f"its input of {rank} axes has no axis {axis}")
        return int(axis % rank)

    def add(self, op: Op, inputs: Sequence[str] | None = None) -> str:
        """Add the layer itself."""
        path = _path(self.layer.name)
        parameters = [
            self.walk.parameter(self.layer, place, f"{path}.{leaf}", shape)
            for place, (leaf, shape) in enumerate(op.parameters().items())
        ]
        return self.walk.graph.add(path, op, self.inputs[:1] if inputs is None else inputs, parameters)

    def add_step(self, op: Op, inputs: Sequence[str]) -> str:
        """Add a step before or after the layer itself."""
        return self.walk.graph.add(f"{_path(self.layer.name)}.{op.name.lower()}", op, inputs, (), is_module=False)

    def add_constant(self, function: str, leaf: str, place: int, source: str, shape: Shape) -> str:
        """Add a sum or a product with a learned tensor of the layer."""
        walk = self.walk
        path = _path(self.layer.name)
        parameter = walk.parameter(self.layer, place, f"{path}.{leaf}", shape)
        op = WithConstants(Elementwise(function), (None, shape))
        return walk.graph.add(f"{path}.{function}", op, [source], [parameter], is_module=False)


def _path(name: str) -> str:
    """The name of a layer as a path of modules, as the reader of its weights gives it."""
    return name[:LONGEST_NAME].replace("/", ".")


def _input_shapes(layer: CaffeLayer) -> list[Shape]:
    """The shapes of an input layer's tops; a side that the file does not tell is 0."""
    own = layer.settings
    if layer.type == "Input":
        return [tuple(shape.get("dim", ())) for shape in own.get("input_param", {}).get("shape", [])]
    if layer.type == "DummyData":
        dummy = own.get("dummy_data_param", {})
        shapes = [tuple(shape.get("dim", ())) for shape in dummy.get("shape", [])]
        columns = [dummy.get(key, []) for key in ("num", "channels", "height", "width")]
        return shapes or [tuple(row) for row in zip(*columns)]
    if layer.type == "MemoryData":
        data = own.get("memory_data_param", {})
        return [(1, *(data.get(key, 0) for key in ("channels", "height", "width")))]
    image, transform = own.get("image_data_param", {}), own.get("transform_param", {})
    crop = transform.get("crop_size", 0) or image.get("crop_size", 0) or own.get("data_param", {}).get("crop_size", 0)
    channels = 1 if transform.get("force_gray") else 3 if transform.get("force_color") else 0
    return [(1, channels, crop or image.get("new_height", 0), crop or image.get("new_width", 0))]


def _channels_of(name: str, layers: Sequence[CaffeLayer]) -> int:
    """The channels that the first convolution of an input reads by its weights; 3 where the net does not tell."""
    for layer in layers:
        if name in layer.bottoms and layer.type == "Convolution" and layer.blobs and len(layer.blobs[0]) == 4:
            group: int = layer.settings.get("convolution_param", {}).get("group", 1)
            return max(layer.blobs[0][1] * group, 1)
    return 3


def _pair(settings: Message, key: str, keys: tuple[str, str], otherwise: int | None) -> tuple[int, int]:
    """A setting for height and width, of which a net has one number, one for each, or two fields."""
    if keys[0] in settings or keys[1] in settings:
        return settings.get(keys[0], otherwise or 0), settings.get(keys[1], otherwise or 0)
    own = settings.get(key)
    numbers = own if isinstance(own, list) else [] if own is None else [own]
    if not numbers:
        if otherwise is None:
            raise ValueError(f"it has no {key}")
        return otherwise, otherwise
    if len(numbers) > 2:
        raise ValueError(f"its {key} has {len(numbers)} numbers, the map has two sides")
    return numbers[0], numbers[-1]


def _checked(*, kernel: Shape, stride: Shape, padding: Shape = (0, 0), dilation: Shape = (1, 1)) -> None:
    if (
        min((*kernel, *stride, *dilation)) < 1
        or min(padding) < 0
        or max((*kernel, *stride, *padding, *dilation)) > 2**31
    ):
        raise ValueError("its kernel, stride, padding or dilation make no sense")


def _convolution(call: _Call) -> str:
    settings = call.settings("convolution_param")
    channels, count = _maps(call, settings), settings.get("num_output", 0)
    kernel = _pair(settings, "kernel_size", ("kernel_h", "kernel_w"), None)
    stride = _pair(settings, "stride", ("stride_h", "stride_w"), 1)
    padding = _pair(settings, "pad", ("pad_h", "pad_w"), 0)
    dilation = _pair(settings, "dilation", ("", ""), 1)
    groups, bias = settings.get("group", 1), bool(settings.get("bias_term", 1))
    _checked(kernel=kernel, stride=stride, padding=padding, dilation=dilation)
    if groups < 1 or count < 1 or channels % groups or count % groups:
        raise ValueError(f"{groups} groups do not divide its {channels} input and {count} output channels")
    if call.layer.type == "Deconvolution":
        return call.add(
            TransposedConvolution(
                channels, count, kernel, stride, padding, dilation, groups, bias, output_padding=(0, 0)
            )
        )
    return call.add(Convolution(channels, count, kernel, stride, padding, dilation, groups, bias))


def _maps(call: _Call, settings: Message) -> int:
    """The channels of the input. Raises ValueError unless it is maps with the channels at axis 1."""
    if len(call.shape) != 4 or call.axis(settings) != 1:
        raise ValueError(f"it reads maps of channels x height x width, the input has {len(call.shape) - 1} axes")
    return call.shape[1]


def _pooling(call: _Call) -> str:
    settings = call.settings("pooling_param")
    _maps(call, {})
    kind = settings.get("pool", 0)
    if kind not in (0, 1):
        raise ValueError("there is no rule for stochastic pooling")
    if settings.get("global_pooling"):
        return call.add(AdaptiveAvgPool2d((1, 1)) if kind else AdaptiveMaxPool2d((1, 1)))
    kernel = _pair(settings, "kernel_size", ("kernel_h", "kernel_w"), None)
    stride = _pair(settings, "stride", ("stride_h", "stride_w"), 1)
    padding = _pair(settings, "pad", ("pad_h", "pad_w"), 0)
    _checked(kernel=kernel, stride=stride, padding=padding)
    # Caffe rounds up, and drops a last window that would start in the padding, as torch does with ceil_mode.
    rounds_up = settings.get("round_mode", 0) == 0
    needs_it = any((side + 2 * p - k) % s for side, k, s, p in zip(call.shape[2:], kernel, stride, padding))
    if rounds_up and not any(padding):
        last = [-(-(side - k) // s) * s for side, k, s in zip(call.shape[2:], kernel, stride)]
        if any(start >= side for start, side in zip(last, call.shape[2:])):
            raise ValueError("its last window lies outside of its input")
    return call.add((AvgPool2d if kind else MaxPool2d)(kernel, stride, padding, ceil_mode=rounds_up and needs_it))


def _inner_product(call: _Call) -> str:
    settings = call.settings("inner_product_param")
    axis, count = call.axis(settings), settings.get("num_output", 0)
    _not_the_batch(axis)
    if count < 1:
        raise ValueError("it has no outputs")
    source, shape = call.inputs[0], call.shape
    if len(shape) > axis + 1:
        source = call.add_step(Flatten(axis), [source])
    features = prod(shape[axis:])
    return call.add(Linear(features, count, bool(settings.get("bias_term", 1))), [source])


def _not_the_batch(axis: int) -> None:
    if axis == 0:
        raise ValueError("it joins the samples of a batch")


def _lrn(call: _Call) -> str:
    settings = call.settings("lrn_param")
    if settings.get("norm_region", 0):
        raise ValueError("there is no rule for a local response norm within a channel")
    size = settings.get("local_size", 5)
    if size < 1 or len(call.shape) < 3:
        raise ValueError(f"its {size} channels make no sense")
    return call.add(
        LocalResponseNorm(size, settings.get("alpha", 1.0), settings.get("beta", 0.75), settings.get("k", 1.0))
    )


def _norm_of(call: _Call, *, affine: bool) -> BatchNorm2d:
    eps = call.settings("batch_norm_param").get("eps", 1e-5)
    if len(call.shape) not in (2, 4):
        raise Incomplete(FailedLayer(f"{printable(call.layer.name)}: it normalises maps or rows, its input is neither"))
    return (BatchNorm2d if len(call.shape) == 4 else BatchNorm1d)(call.shape[1], eps, affine=affine)


def _scale(call: _Call) -> str:
    """A product with a learned tensor or a second input, whose axes are those from `axis` on; and a bias."""
    is_bias = call.layer.type == "Bias"
    settings = call.settings("bias_param" if is_bias else "scale_param")
    axis, count = call.axis(settings), settings.get("num_axes", 1)
    shape = call.shape
    function, leaf = ("add", "bias") if is_bias else ("mul", "weight")
    if len(call.inputs) > 1:
        second, source = call.walk.graph.shapes[call.inputs[1]], call.inputs[1]
        after = len(shape) - len(second)
        if axis or after < 0 or second != shape[: len(second)]:
            raise ValueError("its second input does not have the first axes of its first one")
        source = call.add_step(Reshape((-1, *second[1:], *(1,) * after)), [source]) if after else source
        result, sides, place = call.add_step(Elementwise(function), [call.inputs[0], source]), second[1:], 0
    else:
        sides = shape[axis:] if count == -1 else shape[axis : axis + count]
        after = len(shape) - axis - len(sides)
        result = call.add_constant(function, leaf, 0, call.inputs[0], (*sides, *(1,) * after))
        place = 1
    if not is_bias and settings.get("bias_term", 0):
        result = call.add_constant("add", "bias", place, result, (*sides, *(1,) * after))
    return result


def _eltwise(call: _Call) -> str:
    settings = call.settings("eltwise_param")
    kind = settings.get("operation", 1)
    if len(call.inputs) < 2 or kind not in (0, 1, 2):
        raise ValueError("it reads two inputs or more")
    inputs = list(call.inputs)
    if kind == 1:
        factors = [*settings.get("coeff", []), *[1.0] * len(inputs)][: len(inputs)]
        inputs = [
            source if factor == 1 else call.add_step(Elementwise("mul", (None, factor)), [source])
            for source, factor in zip(inputs, factors)
        ]
    function = ("mul", "add", "maximum")[kind]
    result = inputs[0]
    for source in inputs[1:]:
        result = call.walk.graph.add(_path(call.layer.name), Elementwise(function), [result, source], is_module=False)
    return result


def _concatenation(call: _Call) -> str:
    settings = call.settings("concat_param")
    axis = call.axis(settings, settings.get("concat_dim", 1))
    _not_the_batch(axis)
    return call.walk.graph.add(_path(call.layer.name), Concatenation(axis), call.inputs, is_module=False)


def _flatten(call: _Call) -> str:
    settings = call.settings("flatten_param")
    axis, end = call.axis(settings), settings.get("end_axis", -1)
    _not_the_batch(axis)
    if not axis <= (end + len(call.shape) if end < 0 else end) < len(call.shape):
        raise ValueError("its axes are none of its input's")
    return call.add(Flatten(axis, end))


def _reshape(call: _Call) -> str:
    """The sides of the settings in place of `num_axes` axes from `axis` on, 0 being the input's own."""
    settings, shape = call.settings("reshape_param"), call.shape
    rank = len(shape)
    start, count = settings.get("axis", 0), settings.get("num_axes", -1)
    start = start + rank + 1 if start < 0 else start
    end = rank if count == -1 else start + count
    if not 0 <= start <= end <= rank:
        raise ValueError("its axes are none of its input's")
    wanted = settings.get("shape", {}).get("dim", [])
    sides = [shape[start + place] if side == 0 else side for place, side in enumerate(wanted)]
    before, after = shape[:start], shape[end:]
    if sides.count(-1) == 1:
        rest = prod(side for side in (*before, *sides, *after) if side != -1)
        sides[sides.index(-1)] = prod(shape) // rest if rest else 0
    target = (*before, *sides, *after)
    if any(side < 1 for side in target) or prod(target) != prod(shape) or target[0] != 1:
        raise ValueError("its shape does not have the elements of its input, or mixes the batch")
    return call.add_step(Reshape((-1, *target[1:])), call.inputs[:1])


def _softmax(call: _Call) -> str:
    return call.add(activation.Softmax(call.axis(call.settings("softmax_param"))))


def _relu(call: _Call) -> str:
    slope = call.settings("relu_param").get("negative_slope", 0.0)
    inplace = call.is_in_place
    return call.add(activation.LeakyReLU(slope, inplace=inplace) if slope else activation.ReLU(inplace=inplace))


def _prelu(call: _Call) -> str:
    is_shared = bool(call.settings("prelu_param").get("channel_shared", 0))
    return call.add(activation.PReLU(1 if is_shared or len(call.shape) < 2 else call.shape[1]))


def _elu(call: _Call) -> str:
    return call.add(activation.ELU(call.settings("elu_param").get("alpha", 1.0), inplace=call.is_in_place))


def _dropout(call: _Call) -> str:
    ratio = call.settings("dropout_param").get("dropout_ratio", 0.5)
    if not 0 <= ratio < 1:
        raise ValueError(f"its ratio is {ratio}")
    return call.add(Dropout(ratio, inplace=call.is_in_place))


def _power(call: _Call) -> str:
    """(shift + scale * x) ^ power."""
    settings = call.settings("power_param")
    result = call.inputs[0]
    steps = (("mul", settings.get("scale", 1.0), 1.0), ("add", settings.get("shift", 0.0), 0.0))
    for function, number, neutral in (*steps, ("pow", settings.get("power", 1.0), 1.0)):
        if number != neutral:
            result = call.add_step(Elementwise(function, (None, number)), [result])
    return result


def _plain(make: Callable[[], Op]) -> Callable[[_Call], str]:
    return lambda call: call.add(make())


def _function(name: str) -> Callable[[_Call], str]:
    return lambda call: call.add_step(Elementwise(name), call.inputs[:1])


_RULES: Mapping[str, Callable[[_Call], str]] = {
    "AbsVal": _function("abs"),
    "BNLL": _plain(activation.Softplus),
    "BatchNorm": lambda call: call.add(_norm_of(call, affine=False)),
    "Bias": _scale,
    "Concat": _concatenation,
    "Convolution": _convolution,
    "Deconvolution": _convolution,
    "Dropout": _dropout,
    "ELU": _elu,
    "Eltwise": _eltwise,
    "Flatten": _flatten,
    "InnerProduct": _inner_product,
    "LRN": _lrn,
    "PReLU": _prelu,
    "Pooling": _pooling,
    "Power": _power,
    "ReLU": _relu,
    "Reshape": _reshape,
    "Scale": _scale,
    "Sigmoid": _plain(activation.Sigmoid),
    "Softmax": _softmax,
    "TanH": _plain(activation.Tanh),
}
"""The rule of each type of layer. A rule adds its nodes and returns the one that writes the layer's output."""
