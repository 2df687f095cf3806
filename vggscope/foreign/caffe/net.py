"""Nets of Caffe, in text (`.prototxt`) and in binary (`.caffemodel`), with the shapes of their blobs.

The messages and the numbers of their fields are those of BVLC's caffe.proto. Nets of both generations of layers are
read: `layers` (V1LayerParameter) and `layer` (LayerParameter). The data of blobs is passed over.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from types import MappingProxyType
from typing import Any

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.protobuf import Field, Message, ProtobufFile, Schema, shortest
from vggscope.errors import CheckpointError
from vggscope.foreign.caffe.protobuf_text import LARGEST, parse
from vggscope.ops.base import Shape
from vggscope.record import record

MOST_LAYERS = 5_000
"""The most layers of a net. GoogLeNet has 170, and no published one a thousand."""

MOST_FIELDS = 200_000
"""The most fields of a net in binary that are looked at: 40 for each layer."""

MOST_SIDES = 32
"""The most axes of a blob: Caffe's own limit."""


def _numbered(*names: str) -> dict[int, Field]:
    """Fields of numbers: `kind name=number`, the kind being int, float, ints, floats or text."""
    kinds = {"int": ("int", False), "float": ("float", False), "ints": ("int", True), "floats": ("float", True)}
    kinds |= {"text": ("text", False), "texts": ("text", True)}
    found = {}
    for name in names:
        kind, _, rest = name.partition(" ")
        key, _, number = rest.partition("=")
        found[int(number)] = Field(key, *kinds[kind])
    return found


_SHAPE: Schema = _numbered("ints dim=1")
_RULE: Schema = _numbered("int phase=1", "int min_level=2", "int max_level=3", "texts stage=4", "texts not_stage=5")
_BLOB: Schema = {
    **_numbered("int num=1", "int channels=2", "int height=3", "int width=4"),
    7: Field("shape", _SHAPE),
}

_PARAMETERS: Mapping[str, tuple[int, int, Schema]] = MappingProxyType(
    {
        "batch_norm_param": (139, 0, _numbered("int use_global_stats=1", "float eps=3")),
        "bias_param": (141, 0, _numbered("int axis=1", "int num_axes=2")),
        "concat_param": (104, 9, _numbered("int concat_dim=1", "int axis=2")),
        "convolution_param": (
            106,
            10,
            _numbered(
                *("int num_output=1", "int bias_term=2", "ints pad=3", "ints kernel_size=4", "ints stride=6"),
                *("ints dilation=18", "int pad_h=9", "int pad_w=10", "int kernel_h=11", "int kernel_w=12"),
                *("int stride_h=13", "int stride_w=14", "int group=5", "int axis=16"),
            ),
        ),
        "data_param": (107, 11, _numbered("int crop_size=5")),
        "dropout_param": (108, 12, _numbered("float dropout_ratio=1")),
        "dummy_data_param": (
            109,
            26,
            {6: Field("shape", _SHAPE, True)}
            | _numbered("ints num=2", "ints channels=3", "ints height=4", "ints width=5"),
        ),
        "eltwise_param": (110, 24, _numbered("int operation=1", "floats coeff=2")),
        "elu_param": (140, 0, _numbered("float alpha=1")),
        "flatten_param": (135, 0, _numbered("int axis=1", "int end_axis=2")),
        "image_data_param": (115, 15, _numbered("int new_height=9", "int new_width=10", "int crop_size=5")),
        "inner_product_param": (
            117,
            17,
            _numbered("int num_output=1", "int bias_term=2", "int axis=5", "int transpose=6"),
        ),
        "input_param": (143, 0, {1: Field("shape", _SHAPE, True)}),
        "lrn_param": (
            118,
            18,
            _numbered("int local_size=1", "float alpha=2", "float beta=3", "int norm_region=4", "float k=5"),
        ),
        "memory_data_param": (119, 22, _numbered("int channels=2", "int height=3", "int width=4")),
        "pooling_param": (
            121,
            19,
            _numbered(
                *("int pool=1", "int pad=4", "int pad_h=9", "int pad_w=10", "int kernel_size=2", "int kernel_h=5"),
                *("int kernel_w=6", "int stride=3", "int stride_h=7", "int stride_w=8", "int global_pooling=12"),
                "int round_mode=13",
            ),
        ),
        "power_param": (122, 21, _numbered("float power=1", "float scale=2", "float shift=3")),
        "prelu_param": (131, 0, _numbered("int channel_shared=2")),
        "relu_param": (123, 30, _numbered("float negative_slope=1")),
        "reshape_param": (133, 0, {1: Field("shape", _SHAPE)} | _numbered("int axis=2", "int num_axes=3")),
        "scale_param": (142, 0, _numbered("int axis=1", "int num_axes=2", "int bias_term=4")),
        "slice_param": (126, 31, _numbered("int slice_dim=1", "ints slice_point=2", "int axis=3")),
        "softmax_param": (125, 39, _numbered("int axis=2")),
        "transform_param": (100, 36, _numbered("int crop_size=3", "int force_color=6", "int force_gray=7")),
    }
)
"""The settings of each type of layer: their number in a LayerParameter, in a V1LayerParameter (0: none), and their
fields.
"""

_LAYER: Schema = {
    **_numbered("text name=1", "text type=2", "texts bottom=3", "texts top=4", "int phase=10"),
    6: Field("param", _numbered("text name=1", "float lr_mult=3"), True),
    7: Field("blobs", _BLOB, True),
    8: Field("include", _RULE, True),
    9: Field("exclude", _RULE, True),
    **{number: Field(key, schema) for key, (number, _, schema) in _PARAMETERS.items()},
}

_OLD_LAYER: Schema = {
    **_numbered("text name=4", "int type=5", "texts bottom=2", "texts top=3", "texts param=1001", "floats blobs_lr=7"),
    1: Field("layer", _numbered("text name=1")),
    6: Field("blobs", _BLOB, True),
    32: Field("include", _RULE, True),
    33: Field("exclude", _RULE, True),
    **{number: Field(key, schema) for key, (_, number, schema) in _PARAMETERS.items() if number},
}

_NET: Schema = {
    **_numbered("text name=1", "texts input=3", "ints input_dim=4"),
    2: Field("layers", _OLD_LAYER, True),
    8: Field("input_shape", _SHAPE, True),
    100: Field("layer", _LAYER, True),
}

_OLD_TYPES = {
    **{35: "AbsVal", 1: "Accuracy", 30: "ArgMax", 2: "BNLL", 3: "Concat", 37: "ContrastiveLoss", 4: "Convolution"},
    **{5: "Data", 39: "Deconvolution", 6: "Dropout", 32: "DummyData", 7: "EuclideanLoss", 25: "Eltwise", 38: "Exp"},
    **{8: "Flatten", 9: "HDF5Data", 10: "HDF5Output", 28: "HingeLoss", 11: "Im2col", 12: "ImageData"},
    **{13: "InfogainLoss", 14: "InnerProduct", 15: "LRN", 29: "MemoryData", 16: "MultinomialLogisticLoss"},
    **{34: "MVN", 17: "Pooling", 26: "Power", 18: "ReLU", 19: "Sigmoid", 27: "SigmoidCrossEntropyLoss"},
    **{36: "Silence", 20: "Softmax", 21: "SoftmaxWithLoss", 22: "Split", 33: "Slice", 23: "TanH"},
    **{24: "WindowData", 31: "Threshold"},
}
"""The types of a V1LayerParameter as a LayerParameter names them."""

_OLD_WORDS = {
    **{kind.upper(): number for number, kind in _OLD_TYPES.items()},
    **{"CONTRASTIVE_LOSS": 37, "DUMMY_DATA": 32, "EUCLIDEAN_LOSS": 7, "HDF5_DATA": 9, "HDF5_OUTPUT": 10},
    **{"HINGE_LOSS": 28, "IMAGE_DATA": 12, "INFOGAIN_LOSS": 13, "INNER_PRODUCT": 14, "MEMORY_DATA": 29},
    **{"MULTINOMIAL_LOGISTIC_LOSS": 16, "SIGMOID_CROSS_ENTROPY_LOSS": 27, "SOFTMAX_LOSS": 21, "WINDOW_DATA": 24},
}

TRAIN, TEST = 0, 1

_WORDS = {
    "type": _OLD_WORDS,
    "phase": {"TRAIN": TRAIN, "TEST": TEST},
    "pool": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "operation": {"PROD": 0, "SUM": 1, "MAX": 2},
    "norm_region": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "round_mode": {"CEIL": 0, "FLOOR": 1},
}


@record
class CaffeLayer:
    """A layer: its name, its type as a LayerParameter has it, the blobs that it reads and writes, and its settings.

    - `learned` are the names and the learning rates of its tensors, as far as the net tells.
    - `blobs` are the shapes of its tensors; empty for a net without them.
    """

    name: str
    type: str
    bottoms: tuple[str, ...]
    tops: tuple[str, ...]
    settings: Mapping[str, Message]
    learned: tuple[tuple[str, float], ...] = ()
    blobs: tuple[Shape, ...] = ()


@record
class CaffeNet:
    """A net: its inputs, with their shapes as far as it tells them, and the layers that run at test time."""

    name: str
    inputs: tuple[tuple[str, Shape | None], ...]
    layers: tuple[CaffeLayer, ...]


def read_text(file: BoundedFile) -> CaffeNet:
    """The net in a file of text. Raises CheckpointError, without the path, for any other."""
    if file.size > LARGEST:
        raise CheckpointError(f"it has {file.size:,} bytes, at most {LARGEST:,} are read of a net in text")
    file.allow(file.size)
    file.seek(0)
    data = file.read()
    if b"\0" in data:
        raise CheckpointError("it is no text", "a .caffemodel is the binary form of a net")
    return _net(parse(data.decode("utf-8", "replace"), _NET, _WORDS), is_filtered=False)


def read_binary(file: BoundedFile) -> CaffeNet:
    """The net in a file of weights. Raises CheckpointError, without the path, for a damaged file."""
    # Caffe writes the layers that ran, and no others.
    return _net(ProtobufFile(file, MOST_FIELDS).decode(_NET), is_filtered=True)


_WEIGHTED = frozenset(
    {"BatchNorm", "Bias", "Convolution", "Deconvolution", "Embed", "InnerProduct", "PReLU", "Scale", "LSTM", "RNN"}
)
"""The types of layers that have blobs. A Scale or a Bias of two inputs has none."""


def with_weights(net: CaffeNet, weights: CaffeNet) -> tuple[CaffeNet, tuple[str, ...]]:
    """The net with the shapes of the blobs in a file of weights, and the layers whose blobs that file has not.

    Caffe finds the blobs of a layer by the layer's name. The net is as it was where most layers have none.
    """
    blobs = {layer.name: layer.blobs for layer in weights.layers if layer.blobs}
    wanted = [one for one in net.layers if one.type in _WEIGHTED and len(one.bottoms) < 2]
    missing = tuple(layer.name for layer in wanted if layer.name not in blobs)
    if 2 * len(missing) > len(wanted) or not wanted:
        return net, missing
    layers = (replace(layer, blobs=blobs.get(layer.name, layer.blobs)) for layer in net.layers)
    return replace(net, layers=tuple(layers)), missing


def _net(message: Message, *, is_filtered: bool) -> CaffeNet:
    new, old = message.get("layer", []), message.get("layers", [])
    if new and old:
        raise CheckpointError("it has layers of both generations", "upgrade_net_proto_text of Caffe converts it")
    if len(new) + len(old) > MOST_LAYERS:
        raise CheckpointError(f"it has {len(new) + len(old):,} layers, at most {MOST_LAYERS:,} are read")
    if any("layer" in layer for layer in old):
        raise CheckpointError(
            "its layers are of Caffe's first generation", "upgrade_net_proto_text of Caffe converts the net"
        )
    layers = [layer for layer in (*new, *old) if is_filtered or _runs_at_test(layer)]
    return CaffeNet(message.get("name", ""), tuple(_inputs(message)), tuple(_layer(one, bool(old)) for one in layers))


def _inputs(message: Message) -> Iterator[tuple[str, Shape | None]]:
    names, dims = message.get("input", []), message.get("input_dim", [])
    shapes = [_sides(shape) for shape in message.get("input_shape", [])]
    if not shapes:
        shapes = [tuple(dims[start : start + 4]) for start in range(0, len(dims) - len(dims) % 4, 4)]
    for place, name in enumerate(names):
        yield name, shapes[place] if place < len(shapes) else None


def _runs_at_test(layer: Message) -> bool:
    """Whether a layer is part of the net at test time, in no stage."""
    include, exclude = layer.get("include", []), layer.get("exclude", [])
    if include:
        return any(map(_is_met, include))
    return not any(map(_is_met, exclude)) and layer.get("phase", TEST) == TEST


def _is_met(rule: Message) -> bool:
    is_level = rule.get("min_level", 0) <= 0 <= rule.get("max_level", 0)
    return rule.get("phase", TEST) == TEST and is_level and not rule.get("stage")


def _layer(message: Message, is_old: bool) -> CaffeLayer:
    kind = message.get("type", "")
    if is_old:
        kind = _OLD_TYPES.get(kind, f"type {kind}" if kind else "")
    settings = {key: _as_written(value) for key, value in message.items() if key in _PARAMETERS}
    return CaffeLayer(
        message.get("name", ""),
        kind,
        tuple(message.get("bottom", [])),
        tuple(message.get("top", [])),
        settings,
        tuple(_learned(message, is_old)),
        tuple(map(_blob, message.get("blobs", []))),
    )


def _as_written(value: Any) -> Any:
    """Settings with each float32 as the shortest number that is stored so: 0.1 in text and in binary."""
    if isinstance(value, dict):
        return {key: _as_written(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_as_written(inner) for inner in value]
    return shortest(value) if isinstance(value, float) else value


def _learned(message: Message, is_old: bool) -> Iterator[tuple[str, float]]:
    """The name and the learning rate of each tensor of a layer that tells one."""
    if not is_old:
        for one in message.get("param", []):
            yield one.get("name", ""), one.get("lr_mult", 1.0)
        return
    names, rates = message.get("param", []), message.get("blobs_lr", [])
    for place in range(max(len(names), len(rates))):
        yield names[place] if place < len(names) else "", rates[place] if place < len(rates) else 1.0


def _blob(message: Message) -> Shape:
    if "shape" in message:
        return _sides(message["shape"])
    return tuple(int(message.get(key, 1)) for key in ("num", "channels", "height", "width"))


def _sides(message: Mapping[str, Any]) -> Shape:
    sides: Sequence[int] = message.get("dim", ())
    if len(sides) > MOST_SIDES or any(abs(side) > 2**40 for side in sides) or prod(sides) > 2**48:
        raise CheckpointError("it has a shape that no blob has", "it is damaged or malicious")
    return tuple(sides)
