"""Caffe's messages, made by protobuf itself from what caffe.proto defines, and nets written in them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

KINDS = {"int32": 5, "int64": 3, "uint32": 13, "bool": 8, "float": 2, "double": 1, "string": 9}

DEFINITION = """
BlobShape: dim*=1 int64
BlobProto: num=1 int32, channels=2 int32, height=3 int32, width=4 int32, data*=5 float, shape=7 BlobShape
BlobProto: double_data*=8 double
FillerParameter: type=1 string, value=2 float, std=6 float
NetStateRule: phase=1 Phase, min_level=2 int32, max_level=3 int32, stage+=4 string, not_stage+=5 string
ParamSpec: name=1 string, lr_mult=3 float, decay_mult=4 float
ConvolutionParameter: num_output=1 uint32, bias_term=2 bool, pad+=3 uint32, kernel_size+=4 uint32, stride+=6 uint32
ConvolutionParameter: dilation+=18 uint32, pad_h=9 uint32, pad_w=10 uint32, kernel_h=11 uint32, kernel_w=12 uint32
ConvolutionParameter: stride_h=13 uint32, stride_w=14 uint32, group=5 uint32, weight_filler=7 FillerParameter
PoolingParameter: pool=1 PoolMethod, pad=4 uint32, kernel_size=2 uint32, stride=3 uint32, global_pooling=12 bool
PoolingParameter: kernel_h=5 uint32, kernel_w=6 uint32, round_mode=13 RoundMode
InnerProductParameter: num_output=1 uint32, bias_term=2 bool, axis=5 int32
LRNParameter: local_size=1 uint32, alpha=2 float, beta=3 float, norm_region=4 NormRegion, k=5 float
DropoutParameter: dropout_ratio=1 float
ReLUParameter: negative_slope=1 float
ELUParameter: alpha=1 float
PReLUParameter: channel_shared=2 bool
BatchNormParameter: use_global_stats=1 bool, eps=3 float
ScaleParameter: axis=1 int32, num_axes=2 int32, bias_term=4 bool
EltwiseParameter: operation=1 EltwiseOp, coeff+=2 float
ConcatParameter: concat_dim=1 uint32, axis=2 int32
SliceParameter: slice_dim=1 uint32, slice_point+=2 uint32, axis=3 int32
FlattenParameter: axis=1 int32, end_axis=2 int32
ReshapeParameter: shape=1 BlobShape, axis=2 int32, num_axes=3 int32
PowerParameter: power=1 float, scale=2 float, shift=3 float
SoftmaxParameter: axis=2 int32
InputParameter: shape+=1 BlobShape
TransformationParameter: crop_size=3 uint32, mirror=2 bool, mean_file=4 string
DataParameter: source=1 string, batch_size=4 uint32
LayerParameter: name=1 string, type=2 string, bottom+=3 string, top+=4 string, phase=10 Phase, param+=6 ParamSpec
LayerParameter: blobs+=7 BlobProto, include+=8 NetStateRule, exclude+=9 NetStateRule
LayerParameter: transform_param=100 TransformationParameter, data_param=107 DataParameter
LayerParameter: batch_norm_param=139 BatchNormParameter, concat_param=104 ConcatParameter
LayerParameter: convolution_param=106 ConvolutionParameter, dropout_param=108 DropoutParameter
LayerParameter: eltwise_param=110 EltwiseParameter, elu_param=140 ELUParameter, flatten_param=135 FlattenParameter
LayerParameter: inner_product_param=117 InnerProductParameter, input_param=143 InputParameter
LayerParameter: lrn_param=118 LRNParameter, pooling_param=121 PoolingParameter, power_param=122 PowerParameter
LayerParameter: prelu_param=131 PReLUParameter, relu_param=123 ReLUParameter, reshape_param=133 ReshapeParameter
LayerParameter: scale_param=142 ScaleParameter, slice_param=126 SliceParameter, softmax_param=125 SoftmaxParameter
V1LayerParameter: bottom+=2 string, top+=3 string, name=4 string, type=5 LayerType, blobs+=6 BlobProto
V1LayerParameter: param+=1001 string, blobs_lr+=7 float, include+=32 NetStateRule, exclude+=33 NetStateRule
V1LayerParameter: concat_param=9 ConcatParameter, convolution_param=10 ConvolutionParameter
V1LayerParameter: dropout_param=12 DropoutParameter, inner_product_param=17 InnerProductParameter
V1LayerParameter: lrn_param=18 LRNParameter, pooling_param=19 PoolingParameter, relu_param=30 ReLUParameter
NetParameter: name=1 string, layers+=2 V1LayerParameter, input+=3 string, input_dim+=4 int32, input_shape+=8 BlobShape
NetParameter: layer+=100 LayerParameter
"""
"""The messages of BVLC's caffe.proto, as far as nets need them: name, number and type of each field; + is repeated, *
is repeated and packed.
"""

ENUMERATIONS = {
    "Phase": {"TRAIN": 0, "TEST": 1},
    "PoolMethod": {"MAX": 0, "AVE": 1, "STOCHASTIC": 2},
    "RoundMode": {"CEIL": 0, "FLOOR": 1},
    "NormRegion": {"ACROSS_CHANNELS": 0, "WITHIN_CHANNEL": 1},
    "EltwiseOp": {"PROD": 0, "SUM": 1, "MAX": 2},
    "LayerType": {
        **{"NONE": 0, "CONCAT": 3, "CONVOLUTION": 4, "DROPOUT": 6, "INNER_PRODUCT": 14, "LRN": 15, "POOLING": 17},
        **{"RELU": 18, "SOFTMAX": 20, "SOFTMAX_LOSS": 21, "DATA": 5, "ACCURACY": 1, "SPLIT": 22},
    },
}


@cache
def net_class() -> Any:
    """The class NetParameter."""
    file = descriptor_pb2.FileDescriptorProto(name="caffe.proto", package="caffe", syntax="proto2")
    messages: dict[str, Any] = {}
    for row in DEFINITION.strip().splitlines():
        message, _, fields = row.partition(": ")
        if message not in messages:
            messages[message] = file.message_type.add(name=message)
        for field in fields.split(", "):
            key, _, kind = field.partition(" ")
            name, _, number = key.partition("=")
            label = 3 if name[-1] in "+*" else 1
            added = messages[message].field.add(name=name.rstrip("+*"), number=int(number), label=label)
            if kind in KINDS:
                added.type = KINDS[kind]
            elif kind in ENUMERATIONS:
                added.type, added.type_name = 14, f".caffe.Of{kind}.{kind}"
            else:
                added.type, added.type_name = 11, f".caffe.{kind}"
            if name.endswith("*"):
                added.options.packed = True
    for name, values in ENUMERATIONS.items():
        # Each in a message of its own, since two have a value MAX.
        enumeration = file.message_type.add(name=f"Of{name}").enum_type.add(name=name)
        for value, number in values.items():
            enumeration.value.add(name=value, number=number)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("caffe.NetParameter"))


def binary_of(text: str) -> bytes:
    """A net in text as protobuf itself writes it in binary."""
    message = net_class()()
    text_format.Parse(text, message)
    data: bytes = message.SerializeToString()
    return data


def deploy(
    stages: Sequence[Sequence[int]], units: Sequence[int], *, is_old: bool = False, side: int = 224, batch: int = 10
) -> str:
    """A deploy file as the authors of VGG handed them round: the stages of 3x3 convolutions, then the FC layers."""
    dims = "".join(f"input_dim: {size}\n" for size in (batch, 3, side, side))
    rows = [f'name: "VGG"\ninput: "data"\n{dims}']
    last = "data"

    def add(kind: str, old: str, name: str, top: str, settings: str = "") -> None:
        nonlocal last
        opening = f"layers {{ type: {old}" if is_old else f'layer {{ type: "{kind}"'
        rows.append(f'{opening} name: "{name}" bottom: "{last}" top: "{top}" {settings} }}')
        last = top

    for stage, widths in enumerate(stages, 1):
        for number, width in enumerate(widths, 1):
            name = f"conv{stage}_{number}"
            settings = f"convolution_param {{ num_output: {width} pad: 1 kernel_size: 3 }}"
            add("Convolution", "CONVOLUTION", name, name, settings)
            add("ReLU", "RELU", f"relu{stage}_{number}", name)
        settings = "pooling_param { pool: MAX kernel_size: 2 stride: 2 }"
        add("Pooling", "POOLING", f"pool{stage}", f"pool{stage}", settings)
    for number, width in enumerate(units, len(stages) + 1):
        settings = f"inner_product_param {{ num_output: {width} }}"
        add("InnerProduct", "INNER_PRODUCT", f"fc{number}", f"fc{number}", settings)
        if width != units[-1]:
            add("ReLU", "RELU", f"relu{number}", last)
            add("Dropout", "DROPOUT", f"drop{number}", last, "dropout_param { dropout_ratio: 0.5 }")
    add("Softmax", "SOFTMAX", "prob", "prob")
    return "\n".join(rows) + "\n"
