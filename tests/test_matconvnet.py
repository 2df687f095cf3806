"""Networks of MatConvNet: files by SciPy, values by NumPy from the arrays in the file, and hostile files."""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vggscope
from tests.matconvnet import conv, numbers, pool, relu, small, write
from tests.test_hostile_graphs import outcomes
from vggscope.checkpoint.data import open_checkpoint
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.inflated import Inflated
from vggscope.checkpoint.formats.matconvnet import read, read_net
from vggscope.checkpoint.load_weights import load_weights
from vggscope.errors import CheckpointError, VggscopeError
from vggscope.ops.view import Pad

pytest.importorskip("scipy.io")

NOTATION = "conv3-8 maxpool conv3-16 maxpool FC-32 FC-10"


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("old", [False, True])
def test_a_net_is_the_column_that_it_implements(tmp_path: Path, compressed: bool, old: bool) -> None:
    path = write(tmp_path / "x.mat", small(old=old), compressed=compressed)
    network = vggscope.network(path)
    assert [(node.name, node.label, node.op.name) for node in network.nodes] == [
        ("conv1_1", "conv1_1", "Conv2d"),
        ("relu1_1", "relu1_1", "ReLU"),
        ("pool1", "pool1", "MaxPool2d"),
        ("conv2_1", "conv2_1", "Conv2d"),
        ("relu2_1", "relu2_1", "ReLU"),
        ("pool2", "pool2", "MaxPool2d"),
        ("fc6", "fc3", "Conv2d"),
        ("relu6", "relu3", "ReLU"),
        ("fc7", "fc4", "Conv2d"),
    ]
    assert network.inputs[0].shape == (1, 3, 28, 28)
    assert vggscope.summary(path).totals.params == 3 * 9 * 8 + 8 + 8 * 9 * 16 + 16 + 16 * 49 * 32 + 32 + 32 * 10 + 10
    assert vggscope.diff(path, NOTATION, input_size=(1, 3, 28, 28)).verdict == "equivalent"
    about = [note for note in network.warnings if "images" in note]
    assert about == [
        "it reads images of 28x28x3 (height, width, channels), minus the mean 123.68, 116.779, 103.939 of each channel"
    ]
    kept = vggscope.network(path, soft_max=True)
    assert (kept.nodes[-1].name, kept.nodes[-1].op.name) == ("prob", "Softmax")


def by_hand(path: str, image: Any) -> Any:
    """What the net in a file computes of an image, height x width x channels, by the formulas of MatConvNet."""
    from scipy.io import loadmat

    x = image
    for layer in loadmat(path, simplify_cells=True)["layers"]:
        if layer["type"] == "conv":
            filters, biases = layer["weights"]
            # SciPy drops the sides of 1 here, those of fc7.
            filters = filters.reshape(*[1] * (4 - filters.ndim), *filters.shape)
            top, bottom, left, right = map(int, layer["pad"])
            padded = np.pad(x.astype("f8"), ((top, bottom), (left, right), (0, 0)))
            height, width = filters.shape[:2]
            rows, columns = padded.shape[0] - height + 1, padded.shape[1] - width + 1
            x = np.empty((rows, columns, filters.shape[3]))
            for row in range(rows):
                for column in range(columns):
                    window = padded[row : row + height, column : column + width, :, None]
                    x[row, column] = (window * filters).sum((0, 1, 2)) + biases
        elif layer["type"] == "relu":
            x = np.maximum(x, 0)
        elif layer["type"] == "pool":
            x = x.reshape(x.shape[0] // 2, 2, x.shape[1] // 2, 2, -1).max((1, 3))
    return x.reshape(-1)


@pytest.mark.parametrize("word", ["x.mat", NOTATION])
@pytest.mark.parametrize("rgb", [False, True])
def test_its_weights_compute_what_the_arrays_in_the_file_do(tmp_path: Path, word: str, rgb: bool) -> None:
    path = write(tmp_path / "x.mat", small())
    model = vggscope.build(path if word == "x.mat" else word, input_size=(1, 3, 28, 28))
    load_weights(model, path, rgb=rgb).eval()
    image = np.random.default_rng(1).standard_normal((28, 28, 3)).astype("f4")
    with torch.no_grad():
        have = model(torch.from_numpy(image.transpose(2, 0, 1)[None])).flatten().numpy()
    want = by_hand(path, image[:, :, ::-1] if rgb else image)
    np.testing.assert_allclose(have, want, rtol=1e-4, atol=1e-4)


def test_weights_are_told_in_torchs_layout(tmp_path: Path) -> None:
    found = vggscope.inspect(write(tmp_path / "x.mat", small()))
    assert (found.format, found.num_classes) == ("matconvnet", 10)
    shapes = {layer.name: layer.shape for layer in found.layers}
    assert shapes == {
        "conv1_1": (8, 3, 3, 3),
        "conv2_1": (16, 8, 3, 3),
        "fc6": (32, 16, 7, 7),
        "fc7": (10, 32, 1, 1),
    }
    assert any("RGB" in note for note in found.notes)


def test_compressed_weights_are_those_of_a_plain_file(tmp_path: Path) -> None:
    path, plain = write(tmp_path / "x.mat", small(), compressed=True), write(tmp_path / "plain.mat", small())
    ours, theirs = (vggscope.build(each, weights=each).state_dict() for each in (path, plain))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    values = vggscope.values(path, plain)
    assert {row.relation for row in values.tensors} == {"equal"}


def test_inflated_bytes_are_read_from_any_place_without_starting_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_CLOSEST", "_LARGEST_STEP"):
        monkeypatch.setattr(f"vggscope.checkpoint.formats.inflated.{name}", 2**16)
    data = np.random.default_rng(1).integers(0, 9, 2**22, "u1").tobytes()
    (tmp_path / "x").write_bytes(b"before" + zlib.compress(data) + b"after")
    with BoundedFile(str(tmp_path / "x")) as file:
        inflated = Inflated(file, 6, file.size - 11, limit=2**40)
        draw = Random(1)
        places = [0, len(data) - 50, *(draw.randrange(len(data) - 50) for _ in range(100))]
        for start in places:
            room = bytearray(50)
            inflated.fill(memoryview(room), start)
            assert room == data[start : start + 50]
        # From the start each time it would be half of the data for each place.
        assert file.bytes_inflated < len(data) + len(places) * 2 * 2**16
        with pytest.raises(CheckpointError, match="ends within its data"):
            inflated.fill(memoryview(bytearray(50)), len(data) - 49)


def test_tensors_that_overlap_in_a_compressed_variable_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mat", small(), compressed=True)
    with BoundedFile(path) as file:
        found = read(file, path)
    first, second, *_ = found.storages
    moved = {**found.storages, second: replace(found.storages[second], start=found.storages[first].start + 4)}
    with pytest.raises(CheckpointError, match="overlap"), open_checkpoint(replace(found, storages=moved)):
        pass


def test_one_output_is_an_axis_that_matlab_drops(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mat", [conv("conv1", (3, 3, 3, 1), 1)])
    assert vggscope.inspect(path).layers[0].shape == (1, 3, 3, 3)
    assert vggscope.network(path).shapes["conv1"] == (1, 1, 28, 28)


def test_a_net_in_a_struct_is_read(tmp_path: Path) -> None:
    from scipy.io import savemat

    from tests.matconvnet import cells

    savemat(tmp_path / "x.mat", {"net": {"layers": cells(small())}})
    network = vggscope.network(str(tmp_path / "x.mat"))
    assert network.inputs[0].shape == (1, 3, 224, 224)
    assert any("224x224 is taken" in note for note in network.warnings)


@pytest.mark.parametrize(
    ("layer", "op"),
    [
        ({"type": "lrn", "name": "x", "param": numbers(5, 2, 0.0001 / 5, 0.75)}, "LocalResponseNorm"),
        ({"type": "normalize", "name": "x"}, "LocalResponseNorm"),
        ({"type": "dropout", "name": "x", "rate": 0.25}, "Dropout"),
        ({"type": "relu", "name": "x", "leak": 0.1}, "LeakyReLU"),
        ({"type": "sigmoid", "name": "x"}, "Sigmoid"),
        (pool("x", method="avg"), "AvgPool2d"),
    ],
)
def test_settings_are_those_of_torch(tmp_path: Path, layer: dict[str, Any], op: str) -> None:
    node = vggscope.network(write(tmp_path / "x.mat", [layer])).nodes[0]
    assert node.op.name == op
    wanted = {
        "LocalResponseNorm": (5, 0.0001, 0.75, 2.0 if "param" in layer else 1.0),
        "Dropout": (0.25,),
        "LeakyReLU": (0.1,),
    }
    fields = ("size", "alpha", "beta", "k", "p", "negative_slope")
    assert tuple(getattr(node.op, name) for name in fields if hasattr(node.op, name)) == wanted.get(op, ())


def test_a_local_response_norm_is_matconvnets(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mat", [{"type": "lrn", "name": "x", "param": numbers(3, 2, 0.1, 0.75)}])
    x = np.random.default_rng(2).standard_normal((1, 3, 28, 28)).astype("f4")
    with torch.no_grad():
        have = vggscope.build(path)(torch.from_numpy(x)).numpy()
    squares = np.pad(x**2, ((0, 0), (1, 1), (0, 0), (0, 0)))
    sums = squares[:, :-2] + squares[:, 1:-1] + squares[:, 2:]
    np.testing.assert_allclose(have, x / (2 + 0.1 * sums) ** 0.75, rtol=1e-5)


def pooled(x: Any, size: int, stride: int, pad: tuple[int, int, int, int], mean: bool) -> Any:
    """A pool as vl_nnpool's manual defines it: of the values in each window, those of the padding left out."""
    top, bottom, left, right = pad
    padded = np.pad(x, ((top, bottom), (left, right)), constant_values=np.nan)
    rows, columns = ((side - size) // stride + 1 for side in padded.shape)
    reduce = np.nanmean if mean else np.nanmax
    return np.array(
        [
            [reduce(padded[r * stride : r * stride + size, c * stride : c * stride + size]) for c in range(columns)]
            for r in range(rows)
        ]
    )


@pytest.mark.parametrize("mean", [False, True])
@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (0, 1, 0, 1), (1, 1, 1, 1), (1, 0, 1, 0)])
@pytest.mark.parametrize("side", [12, 13])
def test_pools_with_a_padding_of_four_sides(
    tmp_path: Path, mean: bool, pad: tuple[int, int, int, int], side: int
) -> None:
    layer = pool("x", method="avg" if mean else "max", pool=numbers(3, 3), pad=numbers(*pad))
    path = write(tmp_path / "x.mat", [layer], side=side)
    x = np.random.default_rng(3).standard_normal((side, side)).astype("f4")
    want = pooled(x, 3, 2, pad, mean)
    network = vggscope.network(path)
    if network.failure is not None:
        assert mean
        assert "there is no rule for a mean with a padding" in network.failure
        return
    assert network.shapes[network.end][2:] == want.shape
    image = torch.from_numpy(x).expand(1, 3, side, side)
    *padding, op = [node.op for node in network.nodes]
    for step in padding:
        # A padding is a function, of which `build` makes no module.
        assert isinstance(step, Pad)
        image = torch.nn.functional.pad(image, step.pad, value=step.value)
    pool_of_torch = nn.MaxPool2d(op.kernel_size, op.stride) if padding else vggscope.build(path)  # type: ignore[attr-defined]
    np.testing.assert_allclose(pool_of_torch(image).numpy()[0, 0], want, rtol=1e-5, atol=1e-6)


def test_a_convolution_with_a_padding_of_four_sides_and_groups(tmp_path: Path) -> None:
    layer = conv("x", (3, 3, 1, 6), (0, 1, 0, 1), stride=numbers(2, 2))
    path = write(tmp_path / "x.mat", [layer])
    network = vggscope.network(path)
    assert network.shapes["x"] == (1, 6, 14, 14)
    assert network.by_name["x"].op.groups == 3  # type: ignore[attr-defined]


def test_a_layer_without_a_rule_ends_the_description(tmp_path: Path) -> None:
    path = write(tmp_path / "x.mat", [conv("conv1_1", (3, 3, 3, 8), 1), {"type": "pdist", "name": "far"}, relu("r")])
    network = vggscope.network(path)
    assert [node.name for node in network.nodes] == ["conv1_1"]
    assert network.failure is not None
    assert "far: there is no rule for a layer of type pdist" in network.failure


def test_the_statistics_of_a_batch_norm_are_described_and_not_read(tmp_path: Path) -> None:
    from tests.matconvnet import cells

    ones = np.ones(8, "f4")
    norm = {"type": "bnorm", "name": "bn", "weights": cells([ones, ones, np.ones((8, 2), "f4")]), "epsilon": 1e-4}
    path = write(tmp_path / "x.mat", [conv("conv1_1", (3, 3, 3, 8), 1), norm])
    node = vggscope.network(path).by_name["bn"]
    assert (node.op.name, node.op.eps) == ("BatchNorm2d", 1e-4)  # type: ignore[attr-defined]
    with pytest.raises(CheckpointError, match="running_var is not read"):
        vggscope.build(path, weights=path)


def test_the_data_of_a_large_file_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.mat"
    sides = (7, 7, 64, 512)
    path.write_bytes(file_of([matrix("layers", 1, (1, 1), layer_of("conv", sides))]))
    with BoundedFile(str(path)) as file:
        assert [tensor.shape for tensor in read(file, str(path)).tensors] == [(512, 64, 7, 7)]
        assert file.bytes_read < 2000


# A writer of elements, with which files can lie.


def element(kind: int, data: bytes, size: int | None = None) -> bytes:
    return struct.pack("<II", kind, len(data) if size is None else size) + data + b"\0" * (-len(data) % 8)


def matrix(name: str, kind: int, shape: tuple[int, ...], content: bytes, size: int | None = None) -> bytes:
    """An array whose `size`, where it is given, is not that of its content."""
    head = element(6, struct.pack("<II", kind, 0)) + element(5, struct.pack(f"<{len(shape)}i", *shape))
    return element(14, head + element(1, name.encode()) + content, size)


def text(value: str) -> bytes:
    return matrix("", 4, (1, len(value)), element(1, value.encode()))


def fields(**values: bytes) -> bytes:
    names = b"".join(name.encode().ljust(32, b"\0") for name in values)
    return element(5, struct.pack("<i", 32)) + element(1, names) + b"".join(values.values())


def struct_of(**values: bytes) -> bytes:
    return matrix("", 2, (1, 1), fields(**values))


def layer_of(kind: str, sides: tuple[int, ...], data: bytes | None = None) -> bytes:
    """A layer with filters of these sides; without data, those of zeros."""
    held = b"\0" * 4 * int(np.prod(sides)) if data is None else data
    return struct_of(type=text(kind), name=text("x"), filters=matrix("", 7, sides, element(7, held)))


def file_of(elements: list[bytes]) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + struct.pack("<H", 0x100) + b"IM" + b"".join(elements)


def packed(data: bytes) -> bytes:
    inner = zlib.compress(data, 9)
    return struct.pack("<II", 15, len(inner)) + inner


def net(*layers: bytes, count: int | None = None) -> bytes:
    return matrix("layers", 1, (1, len(layers) if count is None else count), b"".join(layers))


def test_the_writer_of_elements_writes_what_is_read(tmp_path: Path) -> None:
    for content in (net(layer_of("conv", (3, 3, 3, 8))), packed(net(layer_of("conv", (3, 3, 3, 8))))):
        (tmp_path / "x.mat").write_bytes(file_of([content]))
        assert vggscope.network(str(tmp_path / "x.mat")).shapes["x"] == (1, 8, 222, 222)


def nested(depth: int) -> bytes:
    value = text("x")
    for _ in range(depth):
        value = matrix("", 1, (1, 1), value)
    return matrix("layers", 1, (1, 1), value)


REFUSED: dict[str, Callable[[], bytes]] = {
    "without a network of MatConvNet": lambda: file_of([matrix("x", 7, (1, 1), element(7, b"\0" * 4))]),
    "DagNN": lambda: file_of([matrix("net", 2, (1, 1), fields(layers=struct_of(a=text("b"))))]),
    "version 7.3": lambda: b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + b"\x89HDF\r\n\x1a\n" * 50,
    "not that of a MATLAB file of level 5": lambda: b"MATLAB 5.0 MAT-file".ljust(128) + b"x" * 100,
    "more than 16 deep": lambda: file_of([nested(40)]),
    "has no type": lambda: file_of([net(struct_of(name=text("x")))]),
    "has 12 bytes of float32 for a shape of 3x3x3x8": lambda: file_of(
        [net(layer_of("conv", (3, 3, 3, 8), b"\0" * 12))]
    ),
    "ends within a tag|cut short": lambda: file_of([net(layer_of("conv", (1, 1, 1, 1)), count=9)]),
    "has 60,000 parts": lambda: file_of([net(count=60_000)]),
    "larger than what holds it": lambda: file_of([net(matrix("", 1, (1, 1), b"", 2**31))]),
    "a shape that no array has": lambda: file_of([matrix("layers", 1, (-1, 5), b"")]),
    "cut short or damaged": lambda: file_of([matrix("layers", 1, (1, 1), b"", 2**31)]),
    "a compressed part is damaged": lambda: file_of([struct.pack("<II", 15, 40) + b"x" * 40]),
    "ends within its data": lambda: file_of([packed(net(layer_of("conv", (9, 9, 9, 9)))[:9000])]),
    "an element of type 99": lambda: file_of([element(99, b"x" * 8)]),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_lying_file_is_refused(tmp_path: Path, reason: str) -> None:
    (tmp_path / "x.mat").write_bytes(REFUSED[reason]())
    for ask in (vggscope.network, vggscope.inspect):
        with pytest.raises(VggscopeError, match=reason):
            ask(str(tmp_path / "x.mat"))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_file_is_refused(tmp_path: Path, compressed: bool, tenth: int) -> None:
    path = tmp_path / "x.mat"
    write(path, small(), compressed=compressed)
    os.truncate(path, path.stat().st_size * tenth // 10)
    for ask in (vggscope.network, vggscope.inspect):
        with pytest.raises(VggscopeError):
            ask(str(path))


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_changed_bytes_are_refused_or_described(tmp_path: Path, compressed: bool) -> None:
    path = tmp_path / "x.mat"
    write(path, [conv("a", (1, 1, 3, 2)), pool("b"), relu("c")], compressed=compressed)
    draw, data = Random(1), path.read_bytes()
    for _ in range(400):
        changed = bytearray(data)
        for _ in range(draw.choice([1, 2, 8])):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        with suppress(VggscopeError):
            vggscope.summary(str(path))
        with suppress(VggscopeError):
            vggscope.inspect(str(path))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS bounds memory on Linux alone")
def test_hostile_files_are_refused_or_described_within_the_limits(tmp_path: Path) -> None:
    # A bomb: zeros that inflate to a thousand times the file's size.
    zeros = zlib.compressobj(9)
    head = matrix("layers", 1, (1, 1), b"")[:48] + struct.pack("<II", 14, 2**31)
    bomb = zeros.compress(head) + b"".join(zeros.compress(bytes(2**24)) for _ in range(160)) + zeros.flush()
    files = {
        "bomb": file_of([struct.pack("<II", 15, len(bomb)) + bomb]),
        "many": file_of([net(count=1)] * 60_000),
        "cells": file_of([net(*[struct.pack("<II", 14, 0)] * 49_000)]),
        "layers": file_of([net(*[struct_of(type=text("relu"), name=text("r"))] * 12_000)]),
        "chain": file_of([net(*[struct_of(type=text("relu"), name=text("r"))] * 4_900)]),
        "nested": file_of([nested(400)]),
        "deflated many": file_of([packed(net(*[struct_of(type=text("relu"))] * 12_000))]),
        "names": file_of([net(struct_of(**{f"f{number}": text("x") for number in range(2000)}))]),
    }
    paths = []
    for name, content in files.items():
        paths.append(tmp_path / f"{name}.mat")
        paths[-1].write_bytes(content)
    assert len(outcomes(paths)) == 2 * len(files)


def test_a_bomb_is_stopped_by_the_bytes_that_it_inflates_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vggscope.checkpoint.formats.matlab._MOST_INFLATED", 2**20)
    large = matrix("", 7, (1024, 1024), element(7, bytes(2**22)))
    (tmp_path / "x.mat").write_bytes(file_of([packed(net(struct_of(type=large)))]))
    with BoundedFile(str(tmp_path / "x.mat")) as file, pytest.raises(CheckpointError, match="inflates to more"):
        read_net(file)
