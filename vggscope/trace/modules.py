"""The op of each known class of torch.nn, by the class's name.

A subclass that overrides forward is not treated as its base class: the functions that it calls become nodes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

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
from vggscope.ops.pooling import (
    AdaptiveAvgPool1d,
    AdaptiveAvgPool2d,
    AdaptiveAvgPool3d,
    AdaptiveMaxPool1d,
    AdaptiveMaxPool2d,
    AdaptiveMaxPool3d,
    AvgPool1d,
    AvgPool2d,
    AvgPool3d,
    MaxPool1d,
    MaxPool2d,
    MaxPool3d,
)
from vggscope.ops.recurrent import GATES, Recurrent, RecurrentCell
from vggscope.ops.regularization import Dropout, Dropout2d, Identity, StochasticDepth
from vggscope.ops.shape import Flatten
from vggscope.ops.view import ChannelShuffle, PixelShuffle
from vggscope.record import field_names
from vggscope.trace.function_table import convolution_padding

if TYPE_CHECKING:
    from torch import nn

Maker = Callable[["nn.Module"], "Op | None"]


def module_op(module: nn.Module) -> Op | None:
    """Return the op of a module; None if the calls inside it are the nodes."""
    kind: Any = type(module)
    maker = _maker(kind, getattr(kind, "forward", None))  # that of TorchScript has no class attribute
    return None if maker is None else maker(module)


def is_layer(module: nn.Module) -> bool:
    """Return whether a module's class has an op, so that it is one node."""
    kind: Any = type(module)
    return _maker(kind, getattr(kind, "forward", None)) is not None


@lru_cache(maxsize=4096)
def _maker(own: type[nn.Module], forward: object) -> Maker | None:
    """Return what makes the op of the modules of a class; None if the calls inside them are the nodes."""
    for kind in own.__mro__:
        maker = MODULES.get(kind.__name__)
        if maker is not None and kind.__module__.partition(".")[0] in ("torch", "torchvision"):
            return maker if forward is getattr(kind, "forward", None) else None
        if kind.__name__ in FUSED and kind.__module__.startswith("torch.ao.nn.intrinsic.quantized"):
            return FUSED[kind.__name__]
        if kind.__name__ == "DropPath" and kind.__module__.startswith("timm."):
            return _drop_path
    return None


def _drop_path(module: nn.Module) -> Op:
    """Return the op of timm's DropPath."""
    return StochasticDepth(float(getattr(module, "drop_prob", None) or 0), "row")


def is_plain(module: nn.Module) -> bool:
    """Return whether a module is torch's own and has no children, so that the function it calls is the whole layer."""
    kind = type(module)
    return kind.__module__.startswith("torch.nn.modules") and all(part is None for part in module._modules.values())


def _attributes(op: type[Op], module: nn.Module) -> dict[str, object]:
    """Return an op's fields from the module's attributes of the same names; a bias becomes True or False."""
    values: dict[str, object] = {}
    kinds: Any = op, type(module)
    own, of_class = vars(module), _of_class(*kinds)
    for name in field_names(op):
        if name in of_class:
            if (value := getattr(module, name, _MISSING)) is not _MISSING:
                values[name] = value
        elif name in own:
            values[name] = own[name]
        else:  # nn.Module would search the same places, and raise a long error
            for registered in (module._parameters, module._buffers, module._modules):
                if name in registered:
                    values[name] = registered[name]
                    break
    if "bias" in values:
        values["bias"] = values["bias"] is not None and values["bias"] is not False
    return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


_MISSING = object()


@lru_cache(maxsize=4096)
def _of_class(op: type[Op], kind: type[nn.Module]) -> frozenset[str]:
    """Return the fields of an op that the class of a module defines too, or may compute."""
    torch = sys.modules.get("torch")
    if torch is None or not issubclass(kind, torch.nn.Module):
        return frozenset(field_names(op))  # the attributes of a module in a file, which is read without torch
    getter = torch.nn.Module.__getattr__
    computes = kind.__getattr__ is not getter or kind.__getattribute__ is not object.__getattribute__
    return frozenset(name for name in field_names(op) if computes or hasattr(kind, name))


def _like(op: type[Op]) -> Maker:
    return lambda module: op(**_attributes(op, module))


def _window(op: type[MaxPool2d | AvgPool2d | AdaptiveAvgPool2d]) -> Maker:
    """As `_like`, with a single number for a window repeated for each side."""

    def make(module: nn.Module) -> Op:
        values: dict[str, Any] = _attributes(op, module)
        for name, value in values.items():
            if name in _SIDED and not isinstance(value, tuple):
                values[name] = (value,) * op.sides
        return op(**values)

    return make


_SIDED = ("kernel_size", "stride", "padding", "dilation", "output_size")


def _convolution(module: nn.Module) -> Op:
    values = _attributes(Convolution, module)
    padding, same = convolution_padding(module.padding, module.kernel_size, module.dilation)  # type: ignore[arg-type]
    return Convolution(**{**values, "padding": padding, "same": same})  # type: ignore[arg-type]


def _attention(module: nn.Module) -> Op:
    biases = {"bias": module.in_proj_bias is not None, "add_bias_kv": module.bias_k is not None}
    return MultiheadAttention(**{**_attributes(MultiheadAttention, module), **biases})  # type: ignore[arg-type]


def _recurrent(module: nn.Module) -> Op:
    """Return the op of a recurrent layer. RNN_TANH and RNN_RELU are both "RNN"."""
    values = {**_attributes(Recurrent, module), "mode": str(module.mode).partition("_")[0]}
    return Recurrent(**values)  # type: ignore[arg-type]


def _recurrent_cell(module: nn.Module) -> Op:
    gates = module.weight_ih.shape[0] // module.hidden_size  # type: ignore[operator,index]
    mode = next(mode for mode, number in GATES.items() if number == gates)
    return RecurrentCell(**{**_attributes(RecurrentCell, module), "mode": mode})  # type: ignore[arg-type]


FUSED: dict[str, Maker] = {
    **dict.fromkeys(("ConvReLU1d", "ConvReLU2d", "ConvReLU3d"), _convolution),
    **dict.fromkeys(("LinearReLU", "LinearLeakyReLU", "LinearTanh"), _like(Linear)),
}
"""Quantised layers that end with an activation, which is no row of its own."""

MODULES: dict[str, Maker] = {
    **dict.fromkeys(("Conv1d", "Conv2d", "Conv3d"), _convolution),
    **dict.fromkeys(("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"), _like(TransposedConvolution)),
    "Linear": _like(Linear),
    "Embedding": _like(Embedding),
    "MultiheadAttention": _attention,
    **dict.fromkeys(("RNN", "GRU", "LSTM"), _recurrent),
    **dict.fromkeys(("RNNCell", "GRUCell", "LSTMCell"), _recurrent_cell),
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
    **{pool.__name__: _window(pool) for pool in (MaxPool1d, MaxPool2d, MaxPool3d)},
    **{pool.__name__: _window(pool) for pool in (AvgPool1d, AvgPool2d, AvgPool3d)},
    **{pool.__name__: _window(pool) for pool in (AdaptiveAvgPool1d, AdaptiveAvgPool2d, AdaptiveAvgPool3d)},
    **{pool.__name__: _window(pool) for pool in (AdaptiveMaxPool1d, AdaptiveMaxPool2d, AdaptiveMaxPool3d)},
    "Dropout": _like(Dropout),
    "Dropout2d": _like(Dropout2d),
    "StochasticDepth": _like(StochasticDepth),
    "Identity": _like(Identity),
    "Flatten": _like(Flatten),
    "PixelShuffle": _like(PixelShuffle),
    "ChannelShuffle": _like(ChannelShuffle),
}
