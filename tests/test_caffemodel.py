"""Weights of Caffe: written by protobuf from the definition in caffe.proto, read without their data."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import vggscope
from tests.caffe import net_class
from tests.protobuf import varint
from tests.test_checkpoint import refused
from tests.test_other_weights import CAFFE, NOTATION, SIZE, model, same_weights
from vggscope.checkpoint.formats import caffemodel
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.load_weights import load_weights
from vggscope.checkpoint.reader import read

__all__ = ["model"]  # the fixture of the small VGG


@pytest.fixture(scope="module")
def net() -> Any:
    """The class NetParameter, made by protobuf itself."""
    return net_class()


def written(
    path: Path, net: Any, state: Mapping[str, torch.Tensor], *, is_old: bool = False, doubles: bool = False
) -> Path:
    """The state dict as Caffe saves it."""
    message = net(name="VGG")
    for path_in_torch, name in CAFFE.items():
        layer = message.layers.add(name=name) if is_old else message.layer.add(name=name)
        is_convolution = name.startswith("conv")
        if is_old:
            layer.type = 4 if is_convolution else 14
        else:
            layer.type = "Convolution" if is_convolution else "InnerProduct"
        for leaf in ("weight", "bias"):
            tensor = state[f"{path_in_torch}.{leaf}"]
            blob = layer.blobs.add()
            (blob.double_data if doubles else blob.data).extend(tensor.reshape(-1).tolist())
            if is_old:
                sides = (1,) * (4 - tensor.ndim) + tuple(tensor.shape)
                blob.num, blob.channels, blob.height, blob.width = sides
            else:
                blob.shape.dim.extend(tensor.shape)
    path.write_bytes(message.SerializeToString())
    return path


@pytest.mark.parametrize("is_old", [False, True])
def test_a_caffemodel_is_read_as_torchs(tmp_path: Path, net: Any, model: nn.Module, is_old: bool) -> None:
    path = written(tmp_path / "x.caffemodel", net, model.state_dict(), is_old=is_old)
    same_weights(path, model)
    found = vggscope.inspect(path)
    assert (found.format, found.key_style) == ("caffemodel", "Caffe-like")
    assert any("Caffe reads images as BGR" in note for note in found.notes)
    original = read(path).tensors[8].original
    assert original is not None
    assert (original.name, original.shape) == ("fc6/0", (1, 1, 32, 784) if is_old else (32, 784))


def test_doubles_and_rgb(tmp_path: Path, net: Any, model: nn.Module) -> None:
    path = written(tmp_path / "x.caffemodel", net, model.state_dict(), doubles=True)
    assert {tensor.dtype for tensor in read(path).tensors} == {"float64"}
    loaded = load_weights(vggscope.build(NOTATION, SIZE), str(path), rgb=True).state_dict()
    first = "features.0.weight"
    assert torch.equal(loaded[first], model.state_dict()[first].flip(1))


def test_norms_are_described_and_not_read(tmp_path: Path, net: Any) -> None:
    message = net()
    norm = message.layer.add(name="bn", type="BatchNorm")
    for values in ((1.0, 2.0), (3.0, 4.0), (999.0,)):
        blob = norm.blobs.add()
        blob.data.extend(values)
        blob.shape.dim.append(len(values))
    scale = message.layer.add(name="scale", type="Scale").blobs.add()
    scale.data.extend((5.0, 6.0))
    scale.shape.dim.append(2)
    (tmp_path / "x.caffemodel").write_bytes(message.SerializeToString())
    found = vggscope.inspect(tmp_path / "x.caffemodel")
    assert (found.params, found.buffers) == (2, 5)
    rows = vggscope.stats(tmp_path / "x.caffemodel").files[0].tensors
    assert [row.mean for row in rows] == [None, None, None, 5.5]


def tagged(number: int, wire: int, payload: bytes) -> bytes:
    tag = number << 3 | wire
    return varint(tag) + (varint(len(payload)) if wire == 2 else b"") + payload


def layer(*blobs: bytes, name: bytes = b"a") -> bytes:
    return tagged(100, 2, tagged(1, 2, name) + b"".join(tagged(7, 2, blob) for blob in blobs))


def shaped(*sides: int, data: bytes = b"") -> bytes:
    return tagged(7, 2, tagged(1, 2, b"".join(map(varint, sides)))) + tagged(5, 2, data)


def test_a_large_caffemodel_is_read_by_its_lengths_alone(tmp_path: Path) -> None:
    # A blob of 100 MiB: the file ends in a hole, of which the disk holds nothing.
    size = 100 * 2**20
    blob = tagged(7, 2, tagged(1, 2, varint(1024) + varint(size // 4096))) + varint(5 << 3 | 2) + varint(size)
    inside = tagged(1, 2, b"fc6") + varint(7 << 3 | 2) + varint(len(blob) + size) + blob
    path = tmp_path / "x.caffemodel"
    path.write_bytes(varint(100 << 3 | 2) + varint(len(inside) + size) + inside)
    os.truncate(path, path.stat().st_size + size)
    with BoundedFile(str(path)) as file:
        assert [tensor.shape for tensor in caffemodel.read(file, str(path)).tensors] == [(1024, 25600)]
        assert file.bytes_read < 1000


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"hello, this is text" * 20, "no file of Caffe|cut short|no blobs"),
        (b"\x0a\x03VGG", "holds no blobs"),
        (layer(shaped(2, 3, data=bytes(20))), "has 20 bytes where its shape needs 24"),
        (layer(shaped(2**63 - 1, 2**63 - 1)), "where its shape needs"),
        (layer(shaped(2**64 - 1)), "a shape that no blob has"),
        (layer(shaped(*[1] * 65)), "a shape that no blob has"),
        (layer(shaped(*[1] * 700)), "a shape that no blob has|where its shape needs"),
        (layer(shaped(1, data=bytes(4)), name=b"a") * 2, "two of its layers are called a.weight"),
        (b"\xff" * 20, "longer than protobuf's"),
        (b"\x0a" + b"\xff" * 9 + b"\x01", "cut short or damaged"),
        (b"\x0b" * 40, "no file of Caffe"),
        (tagged(100, 2, b"\x0a\x7f"), "cut short or damaged"),
        (b"\x08\x01" * 500_000, "more fields than any network"),
        (tagged(100, 2, b"\x08\x01" * 500_000), "more fields than any network"),
        (layer(*[tagged(5, 5, bytes(4))] * 250_000), "more fields than any network"),
    ],
)
def test_a_lying_caffemodel_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "x.caffemodel").write_bytes(content)
    refused(tmp_path / "x.caffemodel", reason)


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_caffemodel_is_refused(tmp_path: Path, net: Any, model: nn.Module, tenth: int) -> None:
    path = written(tmp_path / "x.caffemodel", net, model.state_dict())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * tenth // 10])
    assert "\n" not in refused(path).problem


def test_a_long_or_strange_name_is_one_line(tmp_path: Path) -> None:
    content = layer(shaped(1, data=struct.pack("<f", 2.0)), name=b"\x1b[31m\xff" + b"a" * 100_000)
    (tmp_path / "x.caffemodel").write_bytes(content)
    found = vggscope.inspect(tmp_path / "x.caffemodel")
    assert "\x1b" not in str(found)
    assert len(found.layers[0].name) <= 1000


def test_no_library_is_imported(tmp_path: Path, net: Any, model: nn.Module) -> None:
    path = written(tmp_path / "x.caffemodel", net, model.state_dict())
    code = f"""
import sys
from vggscope.checkpoint.inspection import inspect
assert inspect({str(path)!r}).num_classes == 10
print({{"torch", "numpy", "google.protobuf"}} & sys.modules.keys())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "set()\n"
