"""Weights of Keras in HDF5: read in torch's layout without their data, and refused where they are hostile."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

import vggscope
from tests.peak_memory import HIGHEST
from tests.test_checkpoint import refused
from tests.test_other_weights import KERAS, NOTATION, SIZE, Arrays, channels_last, model
from vggscope.checkpoint.data import open_tensors
from vggscope.checkpoint.formats import hdf5
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.reader import read

__all__ = ["model"]  # the fixture of the small VGG


def h5(path: Path, arrays: Mapping[str, Any], **attributes: str) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
        file.attrs.update(attributes)
    return path


def keras_arrays(model: nn.Module, ends: tuple[str, str] = ("kernel:0", "bias:0")) -> Arrays:
    """The weights as Keras 2 names them: `block1_conv1/block1_conv1/kernel:0`."""
    flat = channels_last(model.state_dict(), KERAS, (f"/{ends[0]}", f"/{ends[1]}"))
    return {f"{name.partition('/')[0]}/{name}": values for name, values in flat.items()}


def keras_archive(path: Path, weights: Path, config: str = "{}", method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", config)
        archive.write(weights, "model.weights.h5")
    return path


def keras3_arrays(model: nn.Module) -> Arrays:
    """The weights as Keras 3 names them: by class and number."""
    order = ("conv2d", "conv2d_1", "conv2d_2", "conv2d_3", "dense", "dense_1")
    numbered = dict(zip(KERAS.values(), order))
    flat = channels_last(model.state_dict(), KERAS, ("/0", "/1"))
    parts = ((*name.split("/"), values) for name, values in flat.items())
    return {f"layers/{numbered[layer]}/vars/{number}": values for layer, number, values in parts}


def fits_in_torch(path: Path, model: nn.Module) -> None:
    """The tensors are the model's, layer by layer, whatever their names."""
    state = list(model.state_dict().values())
    with open_tensors(path) as file:
        tensors = {tensor.name: tensor for tensor in file.checkpoint.tensors}
        layers = dict.fromkeys(tensor.layer for tensor in file.checkpoint.tensors)
        found = [file.whole(tensors[f"{layer}.{leaf}"]) for layer in layers for leaf in ("weight", "bias")]
    assert all(np.array_equal(ours, theirs.numpy()) for ours, theirs in zip(found, state, strict=True))
    loaded = vggscope.build(NOTATION, SIZE, weights=str(path)).state_dict().values()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(loaded, state, strict=True))


@pytest.mark.parametrize("ends", [("kernel:0", "bias:0"), ("kernel", "bias")])
@pytest.mark.parametrize("below", ["", "model_weights/"])
def test_an_h5_of_keras_is_read_in_torchs_layout(
    tmp_path: Path, model: nn.Module, ends: tuple[str, str], below: str
) -> None:
    arrays = {below + name: values for name, values in keras_arrays(model, ends).items()}
    path = h5(tmp_path / "x.h5", arrays | {"optimizer_weights/Adam/m:0": np.zeros(3, "f4")})
    found = read(path)
    assert (found.format, found.beside) == ("hdf5", ("optimizer_weights",))
    fits_in_torch(path, model)
    first = next(tensor for tensor in found.tensors if tensor.name == "fc1.weight").original
    assert first is not None
    assert (first.name, first.shape) == (f"{below}fc1/fc1/{ends[0]}", (784, 32))
    assert first.axes == "(HWI)O"


def test_a_keras_archive_is_read_in_torchs_layout(tmp_path: Path, model: nn.Module) -> None:
    weights = h5(tmp_path / "model.weights.h5", keras3_arrays(model))
    for path in (weights, keras_archive(tmp_path / "x.keras", weights)):
        fits_in_torch(path, model)
        assert vggscope.inspect(path).params == 29_746
        assert [layer.name for layer in vggscope.inspect(path).layers][::5] == ["conv2d", "dense_1"]


def test_a_map_with_the_channels_first_is_not_reordered(tmp_path: Path, model: nn.Module) -> None:
    arrays = keras_arrays(model)
    arrays["fc1/fc1/kernel:0"] = model.state_dict()["classifier.0.weight"].numpy().T
    path = h5(tmp_path / "x.h5", arrays, model_config='{"data_format": "channels_first"}'.replace(": ", ": "))
    fits_in_torch(path, model)


def test_a_keras_vgg16_is_column_d(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in vggscope.build("D").state_dict().items()}
    with h5py.File(tmp_path / "vgg16.h5", "w") as file:
        space = {1: lambda s: s, 2: lambda s: s[::-1], 4: lambda s: (s[2], s[3], s[1], s[0])}
        blocks = [
            f"block{block}_conv{conv}" for block, count in enumerate((2, 2, 3, 3, 3), 1) for conv in range(1, count + 1)
        ]
        names = [*blocks, "fc1", "fc2", "predictions"]
        layers = dict(zip(dict.fromkeys(key.rpartition(".")[0] for key in shapes), names))
        for key, shape in shapes.items():
            layer, _, leaf = key.rpartition(".")
            name = f"{layers[layer]}/{layers[layer]}/{'kernel' if leaf == 'weight' else 'bias'}:0"
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            links = h5py.h5p.create(h5py.h5p.LINK_CREATE)
            links.set_create_intermediate_group(True)
            dataspace = h5py.h5s.create_simple(space[len(shape)](shape))
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, dataspace, dcpl=properties, lcpl=links)
    found = vggscope.inspect(tmp_path / "vgg16.h5")
    assert (found.column, found.problems, found.params) == ("D", (), 138_357_544)
    assert any("expect BGR" in note for note in found.notes)
    assert vggscope.diff(str(tmp_path / "vgg16.h5"), "torchvision").verdict in ("identical", "equivalent")
    with BoundedFile(str(tmp_path / "vgg16.h5")) as file:
        assert file.size > 500 * 2**20
        hdf5.read(file, "vgg16.h5")
        assert file.bytes_read < 2**20


def test_links_and_other_files_are_not_followed(tmp_path: Path) -> None:
    h5(tmp_path / "secret.h5", {"a/kernel": np.ones((3, 3), "f4")})
    (tmp_path / "raw").write_bytes(bytes(36))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["own/kernel"] = np.ones((2, 2), "f4")
        file["out"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "/a")
        file["soft"] = h5py.SoftLink("/own")
        file["own/loop"] = file["/"]
        file.create_dataset("raw/kernel", (3, 3), "f4", external=[(str(tmp_path / "raw"), 0, 36)])
        layout = h5py.VirtualLayout((3, 3), "f4")
        layout[:] = h5py.VirtualSource(str(tmp_path / "secret.h5"), "a/kernel", (3, 3))
        file.create_virtual_dataset("virtual/kernel", layout)
        file.create_dataset("chunked/kernel", data=np.ones((3, 3), "f4"), compression="gzip")
        file["text"] = "abc"
        file["compound"] = np.zeros(2, [("a", "f4")])
    found = read(tmp_path / "x.h5")
    assert {tensor.layer for tensor in found.tensors} == {"own", "raw", "virtual", "chunked"}
    assert set(found.beside) == {"text", "compound"}
    reasons = {row.name: row.reason for row in vggscope.stats(tmp_path / "x.h5").files[0].tensors}
    assert reasons["own.weight"] is None
    assert reasons["raw.weight"] == reasons["virtual.weight"] == "its data is not in the file"
    assert reasons["chunked.weight"] == "its data is compressed or encrypted"


@pytest.mark.slow
def test_an_h5_with_too_many_or_too_deep_groups_is_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "many.h5", "w") as file:
        for number in range(10_001):
            file.create_group(str(number))
    refused(tmp_path / "many.h5", "more than 10000 objects")
    with h5py.File(tmp_path / "deep.h5", "w") as file:
        file["/".join("a" * 40)] = np.ones(3)
    refused(tmp_path / "deep.h5", "groups too deep")
    with h5py.File(tmp_path / "none.h5", "w") as file:
        file["text"] = "abc"
    refused(tmp_path / "none.h5", "no dataset of numbers")


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_h5_or_keras_archive_is_refused(tmp_path: Path, model: nn.Module, tenth: int) -> None:
    weights = h5(tmp_path / "model.weights.h5", keras3_arrays(model))
    for path in (weights, keras_archive(tmp_path / "x.keras", weights)):
        data = path.read_bytes()
        cut = path.with_stem(f"cut{tenth}")
        cut.write_bytes(data[: len(data) * tenth // 10])
        assert "\n" not in refused(cut).problem


def test_a_lying_keras_archive_is_refused(tmp_path: Path, model: nn.Module) -> None:
    weights = h5(tmp_path / "model.weights.h5", keras3_arrays(model))
    refused(
        keras_archive(tmp_path / "x.keras", weights, method=zipfile.ZIP_DEFLATED), r"without a plain model\.weights"
    )
    weights.write_bytes(b"not HDF5" * 100)
    refused(keras_archive(tmp_path / "y.keras", weights), "damaged or cut short")
    with zipfile.ZipFile(tmp_path / "z.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    refused(tmp_path / "z.keras", r"without a plain model\.weights")


FLIPS = f"""{HIGHEST}
import random, sys
from pathlib import Path
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError

path, numbers = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
whole, told = path.read_bytes(), 0
read(path)
structure = [i for i in range(min(len(whole), 40_000))]
for _ in range(150):
    data = bytearray(whole)
    for _ in range(numbers.randint(1, 6)):
        place = numbers.choice(structure) if numbers.random() < 0.8 else -numbers.randint(1, 20_000)
        data[place] = numbers.choice((0, 1, 255, numbers.randrange(256)))
    (path.parent / "flipped.h5").write_bytes(data)
    try:
        read(path.parent / "flipped.h5")
    except CheckpointError:
        told += 1
print(told, highest())
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the memory of a process is measured in KiB on Linux")
@pytest.mark.parametrize("seed", range(2))
def test_a_damaged_h5_is_described_or_refused(tmp_path: Path, model: nn.Module, seed: int) -> None:
    path = h5(tmp_path / "x.h5", {name: values[:2] for name, values in keras_arrays(model).items()})
    done = subprocess.run(
        [sys.executable, "-c", FLIPS, str(path), str(seed)], capture_output=True, text=True, timeout=240, check=True
    )
    told, most = map(int, done.stdout.split())
    assert told > 5
    assert most < 300 * 1000  # KiB, Python, NumPy and HDF5 included


def test_without_h5py_the_extra_is_named(tmp_path: Path, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    path = h5(tmp_path / "x.h5", keras_arrays(model))
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(vggscope.MissingTool, match=r"needs h5py\npip install 'vggscope\[keras\]'"):
        vggscope.inspect(path)
