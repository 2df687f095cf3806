"""Which op a class of torch.nn is: a table, read by the class's name.

A subclass that brings its own forward is not taken for its base: what it calls is seen instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

from vggscope.ops.activation import ReLU, Sigmoid, Softmax
from vggscope.ops.base import Op
from vggscope.ops.convolution import Convolution
from vggscope.ops.linear import Linear
from vggscope.ops.normalization import BatchNorm2d, LocalResponseNorm
from vggscope.ops.pooling import AdaptiveAvgPool2d, AdaptiveMaxPool2d, AvgPool2d, MaxPool2d
from vggscope.ops.regularization import Dropout, Identity
from vggscope.ops.shape import Flatten

if TYPE_CHECKING:
    from torch import nn


def module_op(module: nn.Module) -> Op | None:
    """The op that a module is; None where it is to be looked into."""
    for kind in type(module).__mro__:
        maker = MODULES.get(kind.__name__)
        if maker is not None and kind.__module__.partition(".")[0] in ("torch", "torchvision"):
            return maker(module) if type(module).forward is getattr(kind, "forward", None) else None
    return None


def _like(op: type[Op], **settings: object) -> Callable[[nn.Module], Op]:
    """Reads an op's fields from the module's attributes of the same names; `settings` are those that have none."""

    def make(module: nn.Module) -> Op:
        found = {f.name: _plain(getattr(module, f.name)) for f in fields(op) if hasattr(module, f.name)}
        return op(**{**found, **settings})

    return make


def _sided(op: type[Op], sides: int) -> Callable[[nn.Module], Op]:
    """As `_like`, with a window's numbers written out for each side."""

    def make(module: nn.Module) -> Op:
        found = {f.name: getattr(module, f.name) for f in fields(op) if hasattr(module, f.name)}
        return op(**{key: _each(value, sides) if key in _WINDOW else _plain(value) for key, value in found.items()})

    return make


_WINDOW = ("kernel_size", "stride", "padding", "output_padding", "dilation", "output_size")


def _each(value: object, sides: int) -> object:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,) * sides


def _plain(value: object) -> object:
    """A bias or a weight as whether there is one, a list as a tuple."""
    from torch import Tensor

    if isinstance(value, Tensor):
        return True
    return tuple(value) if isinstance(value, list) else value


def _with_bias(op: type[Op]) -> Callable[[nn.Module], Op]:
    def make(module: nn.Module) -> Op:
        found = {f.name: _plain(getattr(module, f.name)) for f in fields(op) if hasattr(module, f.name)}
        return op(**{**found, "bias": getattr(module, "bias", None) is not None})

    return make


def _convolution(module: nn.Module) -> Op:
    found = {f.name: getattr(module, f.name) for f in fields(Convolution)}
    return Convolution(**{**found, "bias": found["bias"] is not None})


MODULES: dict[str, Callable[[nn.Module], Op]] = {
    "Conv2d": _convolution,
    "Linear": _with_bias(Linear),
    "BatchNorm2d": _like(BatchNorm2d),
    "LocalResponseNorm": _like(LocalResponseNorm),
    "ReLU": _like(ReLU),
    "Sigmoid": _like(Sigmoid),
    "Softmax": _like(Softmax),
    "MaxPool2d": _sided(MaxPool2d, 2),
    "AvgPool2d": _sided(AvgPool2d, 2),
    "AdaptiveAvgPool2d": _sided(AdaptiveAvgPool2d, 2),
    "AdaptiveMaxPool2d": _sided(AdaptiveMaxPool2d, 2),
    "Dropout": _like(Dropout),
    "Identity": _like(Identity),
    "Flatten": _like(Flatten),
}
