"""Files of Lua Torch, as torch.save is defined: in File.lua, and `write` of tensors and storages in torch7."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

_NIL, _NUMBER, _STRING, _TABLE, _TORCH, _BOOLEAN = range(6)

_KINDS = {"f4": "Float", "f8": "Double", "i8": "Long", "u1": "Byte", "f2": "Half"}


@dataclass(eq=False)
class Obj:
    """An object of a class."""

    kind: str
    fields: Mapping[Any, Any] = field(default_factory=dict)
    version: int = 1


@dataclass(eq=False)
class Storage:
    """The elements of tensors."""

    values: Any
    cuda: bool = False

    @property
    def kind(self) -> str:
        return ("Cuda" if self.cuda else "") + (
            "" if self.cuda and self.values.dtype == np.float32 else _KINDS[self.values.dtype.str[1:]]
        )


@dataclass(eq=False)
class Tensor:
    """A tensor: a view of a storage."""

    storage: Storage | None
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int = 1


def tensor(values: Any, *, cuda: bool = False) -> Tensor:
    """A tensor of its own storage."""
    array = np.ascontiguousarray(values)
    return Tensor(Storage(array.reshape(-1), cuda), array.shape, tuple(s // array.itemsize for s in array.strides))


def longs(*values: int) -> Storage:
    return Storage(np.array(values, "i8"))


class Binary:
    """Numbers of a little-endian machine, with a C `long` of 8 bytes, or of 4 as one of 32 bits has it."""

    def __init__(self, long_code: str = "i8") -> None:
        self.data = bytearray()
        self.long_code = long_code

    def integer(self, value: int) -> None:
        self.data += struct.pack("<i", value)

    def numbers(self, values: Any) -> None:
        array = np.asarray(values)
        self.data += (array.astype(self.long_code) if array.dtype == np.int64 else array).tobytes()

    def chars(self, value: bytes) -> None:
        self.data += value


class Text:
    """Numbers in ASCII, as THDiskFile writes them: blanks between the numbers of a call, then the end of a line."""

    def __init__(self) -> None:
        self.data = bytearray()

    def integer(self, value: int) -> None:
        self.data += b"%d\n" % value

    def numbers(self, values: Any) -> None:
        array = np.asarray(values).reshape(-1)
        form = {"f8": "%.17g", "f4": "%.9g", "f2": "%.9g"}.get(array.dtype.str[1:], "%d")
        if array.dtype == np.uint8:
            self.chars(array.tobytes())
        elif array.size:
            self.data += (" ".join(form % number for number in array) + "\n").encode()

    def chars(self, value: bytes) -> None:
        if value:
            self.data += value + b"\n"


class Writer:
    """Writes objects, each once."""

    def __init__(self, out: Binary | Text) -> None:
        self.out = out
        self.known: dict[int, int] = {}
        self.kept: list[Any] = []

    def string(self, value: str) -> None:
        data = value.encode()
        self.out.integer(len(data))
        self.out.chars(data)

    def write(self, value: Any) -> None:
        out = self.out
        if value is None:
            out.integer(_NIL)
        elif isinstance(value, bool):
            out.integer(_BOOLEAN)
            out.integer(value)
        elif isinstance(value, int | float):
            out.integer(_NUMBER)
            out.numbers(np.array([value], "f8"))
        elif isinstance(value, str):
            out.integer(_STRING)
            self.string(value)
        else:
            self.reference(value)

    def reference(self, value: Any) -> None:
        out, is_table = self.out, isinstance(value, dict | list)
        out.integer(_TABLE if is_table else _TORCH)
        is_known = id(value) in self.known
        number = self.known.setdefault(id(value), len(self.known) + 1)
        self.kept.append(value)
        out.integer(number)
        if is_known:
            return
        if is_table:
            items = list(value.items()) if isinstance(value, dict) else list(enumerate(value, 1))
            out.integer(len(items))
            for key, each in items:
                self.write(key)
                self.write(each)
            return
        kind = {Storage: "Storage", Tensor: "Tensor"}.get(type(value))
        self.string(f"V {value.version if isinstance(value, Obj) else 1}")
        if kind is None:
            self.string(value.kind)
            self.write(dict(value.fields))
            return
        held = value if isinstance(value, Storage) else value.storage
        self.string(f"torch.{held.kind if held else 'Float'}{kind}")
        if isinstance(value, Storage):
            out.numbers(np.array([value.values.size], "i8"))
            out.numbers(value.values)
            return
        out.integer(len(value.shape))
        out.numbers(np.array(value.shape, "i8"))
        out.numbers(np.array(value.stride, "i8"))
        out.numbers(np.array([value.offset], "i8"))
        self.write(value.storage)


def saved(value: Any, *, ascii_form: bool = False, long_code: str = "i8") -> bytes:
    """The bytes that torch.save writes."""
    out = Text() if ascii_form else Binary(long_code)
    Writer(out).write(value)
    return bytes(out.data)


def write(path: Path, value: Any, *, ascii_form: bool = False) -> str:
    path.write_bytes(saved(value, ascii_form=ascii_form))
    return str(path)


def container(kind: str, *modules: Obj, **settings: Any) -> Obj:
    return Obj(kind, {"modules": list(modules), "train": False, **settings})


def layer(module: nn.Module, package: str = "nn", *, as_matrix: bool = False) -> Obj:
    """A layer of torch as Lua Torch has it, with the gradients and outputs that lie beside the weights in its files."""
    held: dict[str, Any] = {"train": False, "_type": "torch.FloatTensor", "output": Tensor(None, (), ())}
    for leaf in ("weight", "bias", "running_mean", "running_var"):
        value = getattr(module, leaf, None)
        if value is not None:
            array = value.detach().numpy()
            is_matrix = as_matrix and array.ndim == 4
            held[leaf] = tensor(array.reshape(len(array), -1) if is_matrix else array)
            if leaf in ("weight", "bias"):
                held[f"grad{leaf.capitalize()}"] = tensor(np.zeros_like(array))
    kind, settings = _settings(module)
    return Obj(f"{package}.{kind}{'MM' if as_matrix and isinstance(module, nn.Conv2d) else ''}", held | settings)


def _settings(module: nn.Module) -> tuple[str, dict[str, Any]]:
    if isinstance(module, nn.Conv2d):
        planes = {"nInputPlane": module.in_channels, "nOutputPlane": module.out_channels, "groups": module.groups}
        window = _pairs(k=module.kernel_size, d=module.stride, pad=module.padding)
        return "SpatialConvolution", planes | window
    if isinstance(module, nn.MaxPool2d):
        window = _pairs(k=module.kernel_size, d=module.stride, pad=module.padding)
        return "SpatialMaxPooling", window | {"ceil_mode": module.ceil_mode}
    if isinstance(module, nn.AvgPool2d):
        window = _pairs(k=module.kernel_size, d=module.stride, pad=module.padding)
        return "SpatialAveragePooling", window | {"divide": True, "count_include_pad": True, "ceil_mode": False}
    if isinstance(module, nn.BatchNorm2d):
        return "SpatialBatchNormalization", {"eps": module.eps, "momentum": module.momentum, "affine": True}
    if isinstance(module, nn.Dropout):
        return "Dropout", {"p": module.p, "v2": True}
    if isinstance(module, nn.ReLU):
        return "ReLU", {"inplace": module.inplace, "threshold": 0, "val": 0}
    assert isinstance(module, nn.Linear)
    return "Linear", {}


def _pairs(**settings: Any) -> dict[str, int]:
    found = {}
    for name, value in settings.items():
        height, width = value if isinstance(value, Sequence) else (value, value)
        found |= {f"{name}H": height, f"{name}W": width}
    return found
