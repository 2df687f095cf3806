"""Which op a class of torch.nn is: a table, read by the class's name.

A subclass that brings its own forward is not taken for its base: what it calls is seen instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from vggscope.ops import activation
from vggscope.ops.attention import MultiheadAttention
from vggscope.ops.base import Op
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.embedding import Embedding
from vggscope.ops.linear import Linear
from vggscope.ops.normalization import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm2d,
    LayerNorm,
    LocalResponseNorm,
    RMSNorm,
)
from vggscope.ops.pooling import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from vggscope.ops.recurrent import Recurrent
from vggscope.ops.regularization import Dropout, Dropout2d, Identity, StochasticDepth
from vggscope.ops.shape import Flatten
from vggscope.ops.view import ChannelShuffle, PixelShuffle
from vggscope.trace.function_table import convolution_padding

if TYPE_CHECKING:
    from torch import nn

Maker = Callable[["nn.Module"], "Op | None"]


def module_op(module: nn.Module) -> Op | None:
    """The op that a module is; None where it is to be looked into."""
    for kind in type(module).__mro__:
        maker = MODULES.get(kind.__name__)
        if maker is not None and kind.__module__.partition(".")[0] in ("torch", "torchvision"):
            return maker(module) if type(module).forward is getattr(kind, "forward", None) else None
        if kind.__name__ == "DropPath" and kind.__module__.startswith("timm."):
            return StochasticDepth(float(getattr(module, "drop_prob", None) or 0), "row")
    return None


def is_plain(module: nn.Module) -> bool:
    """Whether a module is torch's own and has no parts: what it calls is the one thing that it is."""
    kind = type(module)
    return kind.__module__.startswith("torch.nn.modules") and not any(True for _ in module.children())


def _attributes(op: type[Op], module: nn.Module) -> dict[str, object]:
    """An op's fields by the module's attributes of the same names; a weight as whether there is one."""
    found = {}
    for field in fields(op):
        value = getattr(module, field.name, field)
        if value is not field:
            found[field.name] = _plain(field.name, value)
    return found


def _plain(name: str, value: object) -> object:
    if name == "bias":
        return value is not None and value is not False
    return tuple(value) if isinstance(value, list) else value


def _like(op: type[Op]) -> Maker:
    return lambda module: op(**_attributes(op, module))


def _sided(op: type[Op], sides: int) -> Maker:
    """As `_like`, with a window's numbers written out for each side."""

    def make(module: nn.Module) -> Op:
        found = _attributes(op, module)
        return op(**{k: (v,) * sides if k in _WINDOW and not isinstance(v, tuple) else v for k, v in found.items()})

    return make


_WINDOW = ("kernel_size", "stride", "padding", "dilation", "output_size")


def _convolution(module: nn.Module) -> Op:
    found = _attributes(Convolution, module)
    padding, same = convolution_padding(module.padding, module.kernel_size, module.dilation)  # type: ignore[arg-type]
    return Convolution(**{**found, "padding": padding, "same": same})  # type: ignore[arg-type]


def _attention(module: nn.Module) -> Op:
    added = {"bias": module.in_proj_bias is not None, "add_bias_kv": module.bias_k is not None}
    return MultiheadAttention(**{**_attributes(MultiheadAttention, module), **added})  # type: ignore[arg-type]


def _recurrent(module: nn.Module) -> Op | None:
    """RNN_TANH and RNN_RELU are both an RNN; an LSTM that projects its states is not known."""
    if getattr(module, "proj_size", 0):
        return None
    found = {**_attributes(Recurrent, module), "mode": str(module.mode).partition("_")[0]}
    return Recurrent(**found)  # type: ignore[arg-type]


MODULES: dict[str, Maker] = {
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), _convolution),
    **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), _like(TransposedConvolution)),
    "Linear": _like(Linear),
    "Embedding": _like(Embedding),
    "MultiheadAttention": _attention,
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent),
    "BatchNorm1d": _like(BatchNorm1d),
    "BatchNorm2d": _like(BatchNorm2d),
    "BatchNorm3d": _like(BatchNorm3d),
    "LayerNorm": _like(LayerNorm),
    "RMSNorm": _like(RMSNorm),
    "GroupNorm": _like(GroupNorm),
    "InstanceNorm2d": _like(InstanceNorm2d),
    "LocalResponseNorm": _like(LocalResponseNorm),
    "ReLU": _like(activation.ReLU),
    "ReLU6": _like(activation.ReLU6),
    "Hardtanh": _like(activation.Hardtanh),
    "LeakyReLU": _like(activation.LeakyReLU),
    "ELU": _like(activation.ELU),
    "SELU": _like(activation.SELU),
    "SiLU": _like(activation.SiLU),
    "Mish": _like(activation.Mish),
    "Hardswish": _like(activation.Hardswish),
    "Hardsigmoid": _like(activation.Hardsigmoid),
    "GELU": _like(activation.GELU),
    "Softplus": _like(activation.Softplus),
    "Sigmoid": _like(activation.Sigmoid),
    "Tanh": _like(activation.Tanh),
    "PReLU": _like(activation.PReLU),
    "GLU": _like(activation.GLU),
    "MaxPool2d": _sided(MaxPool2d, 2),
    "AvgPool2d": _sided(AvgPool2d, 2),
    "AdaptiveAvgPool2d": _sided(AdaptiveAvgPool2d, 2),
    "AdaptiveMaxPool2d": _sided(AdaptiveMaxPool2d, 2),
    "Dropout": _like(Dropout),
    "Dropout2d": _like(Dropout2d),
    "StochasticDepth": _like(StochasticDepth),
    "Identity": _like(Identity),
    "Flatten": _like(Flatten),
    "PixelShuffle": _like(PixelShuffle),
    "ChannelShuffle": _like(ChannelShuffle),
}
