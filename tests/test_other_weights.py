"""Weights of other frameworks: read by their headers, in torch's layout, and refused where they are hostile."""

from __future__ import annotations

import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import vggscope
from tests.test_checkpoint import Attack, refused, zipped
from vggscope.checkpoint.data import open_tensors
from vggscope.checkpoint.formats import numpy_files, torch_tar
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.layouts import torch_name
from vggscope.checkpoint.load_weights import load_weights
from vggscope.checkpoint.reader import read
from vggscope.sources.resolve import resolve

NOTATION = "conv3-8 conv3-8 maxpool conv3-16 conv3-16 maxpool FC-32 FC-10"
SIZE = (3, 28, 28)

Arrays = dict[str, Any]

CAFFE = {
    **{"features.0": "conv1_1", "features.2": "conv1_2", "features.5": "conv2_1", "features.7": "conv2_2"},
    **{"classifier.0": "fc6", "classifier.3": "fc7"},
}
KERAS = {
    **{"features.0": "block1_conv1", "features.2": "block1_conv2", "features.5": "block2_conv1"},
    **{"features.7": "block2_conv2", "classifier.0": "fc1", "classifier.3": "predictions"},
}


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return vggscope.build(NOTATION, input_size=SIZE).eval()


def channels_last(state: Mapping[str, torch.Tensor], names: Mapping[str, str], leaves: tuple[str, str]) -> Arrays:
    """The arrays as TensorFlow has them: HWIO, inputs x outputs, and the first linear layer after a map of 7x7x16."""
    arrays: Arrays = {}
    for key, tensor in state.items():
        layer, _, leaf = key.rpartition(".")
        array = tensor.numpy()
        if array.ndim == 4:
            array = array.transpose(2, 3, 1, 0)
        elif layer == "classifier.0" and array.ndim == 2:
            array = array.reshape(-1, 16, 7, 7).transpose(2, 3, 1, 0).reshape(-1, array.shape[0])
        elif array.ndim == 2:
            array = array.T
        arrays[names[layer] + leaves[leaf == "bias"]] = np.ascontiguousarray(array)
    return arrays


def as_keras_computes(arrays: Arrays, image: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The logits of the small VGG on a channels-last image, by the arrays of TensorFlow: no code of ours takes part."""
    x = image
    for stage in ("conv1_1", "conv1_2", "pool", "conv2_1", "conv2_2", "pool"):
        if stage == "pool":
            rows, columns, channels = x.shape
            x = x.reshape(rows // 2, 2, columns // 2, 2, channels).max((1, 3))
            continue
        padded = np.pad(x, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
        x = np.maximum(np.einsum("rcihw,hwio->rco", windows, arrays[f"{stage}_W"]) + arrays[f"{stage}_b"], 0)
    hidden = np.maximum(x.reshape(-1) @ arrays["fc6_W"] + arrays["fc6_b"], 0)
    return hidden @ arrays["fc7_W"] + arrays["fc7_b"]


def same_weights(path: Path, model: nn.Module) -> None:
    """Every command on the file: the network, its weights in torch's layout, its values and its statistics."""
    state = model.state_dict()
    found = vggscope.inspect(path)
    assert found.notation is not None
    assert found.notation.replace("?", "") == NOTATION
    assert found.params == sum(value.numel() for value in state.values())
    assert vggscope.diff(str(path), NOTATION, SIZE, head="flatten").verdict != "different"
    loaded = load_weights(vggscope.build(NOTATION, input_size=SIZE), str(path)).state_dict()
    assert all(torch.equal(loaded[key], state[key]) for key in state)
    names: dict[str, Any] = {}
    exec(found.load, names)
    assert sorted(map(float, map(torch.sum, names["model"].state_dict().values()))) == pytest.approx(
        sorted(map(float, map(torch.sum, state.values())))
    )
    torch.save(state, path.parent / "torch.pth")
    diff = vggscope.values(path, path.parent / "torch.pth")
    assert diff.verdict in ("equivalent", "identical")
    assert {count.relation for count in diff.counts} <= {"equal", "untouched"}
    rows = vggscope.stats(path).files[0].tensors
    assert sorted(row.mean or 0 for row in rows) == pytest.approx(
        sorted(float(v.double().mean()) for v in state.values())
    )


# Names and layouts


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1_1_W", "conv1_1.weight"),
        ("conv1_1_b", "conv1_1.bias"),
        ("block1_conv1/block1_conv1/kernel:0", "block1_conv1.weight"),
        ("block1_conv1/block1_conv1_W_1:0", "block1_conv1.weight"),
        ("features.0.weight", "features.0.weight"),
        ("fc.fc.weight", "fc.fc.weight"),
        ("bn1/moving_variance", "bn1.running_var"),
        ("bn1/gamma_2:0", "bn1.weight"),
        ("W", "W"),
        ("kernel", "kernel"),
        ("/kernel", "/kernel"),
        ("mean", "mean"),
        ("_" * 100_000, "_" * 100_000),
        ("/" * 100_000 + "W", "/" * 100_000 + "W"),
    ],
)
def test_a_name_becomes_torchs(name: str, expected: str) -> None:
    assert torch_name(name) == expected


# NumPy


def test_arrays_of_torchs_layout_are_read_as_they_are(tmp_path: Path, model: nn.Module) -> None:
    np.savez(tmp_path / "x.npz", **{key: value.numpy() for key, value in model.state_dict().items()})
    found = read(tmp_path / "x.npz")
    assert (found.format, found.is_foreign) == ("numpy npz", True)
    assert {t.name: t.shape for t in found.tensors} == {k: tuple(v.shape) for k, v in model.state_dict().items()}
    assert all(tensor.original is None for tensor in found.tensors)
    same_weights(tmp_path / "x.npz", model)
    assert {parameter.name for parameter in resolve(str(tmp_path / "x.npz")).parameters()} == set(model.state_dict())


def test_channels_last_arrays_become_torchs(tmp_path: Path, model: nn.Module) -> None:
    arrays = channels_last(model.state_dict(), CAFFE, ("_W", "_b"))
    np.savez(tmp_path / "x.npz", **arrays)
    same_weights(tmp_path / "x.npz", model)
    by_name = {tensor.name: tensor for tensor in read(tmp_path / "x.npz").tensors}
    conv, first, last = (by_name[f"{name}.weight"].original for name in ("conv2_1", "fc6", "fc7"))
    assert conv is not None
    assert first is not None
    assert last is not None
    assert (conv.name, conv.shape, conv.axes) == ("conv2_1_W", (3, 3, 8, 16), "HWIO")
    assert (first.shape, first.axes, last.shape, last.axes) == ((784, 32), "(HWI)O", (32, 10), "IO")
    noted = " ".join(str(vggscope.inspect(tmp_path / "x.npz")).split())
    assert "reads a map with the channels last, here with the channels first, which is taken to be square" in noted
    # The network that numpy computes from TensorFlow's arrays is the one that torch computes from ours.
    image = np.random.default_rng(0).normal(size=(28, 28, 3)).astype(np.float32)
    ours = vggscope.build(NOTATION, SIZE, weights=str(tmp_path / "x.npz")).eval()
    with torch.no_grad():
        logits = ours(torch.from_numpy(image.transpose(2, 0, 1))[None])[0].numpy()
    np.testing.assert_allclose(logits, as_keras_computes(arrays, image), rtol=1e-4, atol=1e-5)


def test_orders_and_dtypes_of_arrays(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: Arrays = {
        "fortran": np.asfortranarray(rng.normal(size=(3, 4, 5))),
        "half": rng.normal(size=(2, 3)).astype("f2"),
        "long": rng.integers(0, 9, (4,)),
        "flag": np.array([True, False]),
        "scalar": np.array(3.5),
        "empty": np.zeros((0, 3)),
    }
    np.savez(tmp_path / "x.npz", **arrays, text=np.array(["a"]), anything=np.array([{}], dtype=object))
    found = read(tmp_path / "x.npz")
    assert found.beside == ("text", "anything")
    with open_tensors(tmp_path / "x.npz") as file:
        for tensor in file.checkpoint.tensors:
            assert f"torch.{tensor.dtype}" == str(torch.from_numpy(arrays[tensor.name]).dtype)
            np.testing.assert_array_equal(file.whole(tensor), arrays[tensor.name])
            flat = np.concatenate([piece.copy() for piece in file.pieces(tensor, 7)] or [np.zeros(0)])
            np.testing.assert_array_equal(flat, arrays[tensor.name].reshape(-1))


def test_big_endian_arrays_are_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.arange(6, dtype=">f4").reshape(2, 3))
    with open_tensors(tmp_path / "x.npz") as file:
        np.testing.assert_array_equal(file.whole(file.checkpoint.tensors[0]), np.arange(6).reshape(2, 3))
    np.savez(tmp_path / "y.npz", a=np.arange(6, dtype=">f4"), b=np.arange(6, dtype="<f4"))
    reasons = [row.reason for row in vggscope.stats(tmp_path / "y.npz").files[0].tensors]
    assert reasons.count(None) == 1


def test_samples_of_a_flattened_layer(tmp_path: Path, model: nn.Module) -> None:
    np.savez(tmp_path / "x.npz", **channels_last(model.state_dict(), CAFFE, ("_W", "_b")))
    expected = model.state_dict()["classifier.0.weight"].numpy()
    indices = [(0, 0), (31, 783), (5, 100), (17, 49)]
    with open_tensors(tmp_path / "x.npz") as file:
        tensor = next(tensor for tensor in file.checkpoint.tensors if tensor.name == "fc6.weight")
        np.testing.assert_array_equal(file.sample(tensor, indices), [expected[index] for index in indices])


def test_one_array_is_a_checkpoint_of_one_tensor(tmp_path: Path) -> None:
    np.save(tmp_path / "filters.npy", np.ones((8, 3, 3, 3), np.float32))
    found = vggscope.inspect(tmp_path / "filters.npy")
    assert (found.format, found.params) == ("numpy npy", 8 * 3 * 3 * 3)
    assert vggscope.stats(tmp_path / "filters.npy").files[0].tensors[0].mean == 1


def test_compressed_arrays_are_read_as_others_are(tmp_path: Path, model: nn.Module) -> None:
    arrays = channels_last(model.state_dict(), CAFFE, ("_W", "_b"))
    np.savez_compressed(tmp_path / "x.npz", **arrays)
    np.savez(tmp_path / "plain.npz", **arrays)
    assert vggscope.inspect(tmp_path / "x.npz").params == 29_746
    found = vggscope.values(tmp_path / "x.npz", tmp_path / "plain.npz")
    assert {row.relation for row in found.tensors} == {"equal"}
    built = vggscope.build(NOTATION, SIZE, weights=str(tmp_path / "x.npz")).state_dict()
    assert all(torch.equal(built[key], value) for key, value in model.state_dict().items())


def test_the_data_of_arrays_is_not_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a_W=np.zeros((512, 512, 3, 3), "f4"), b_W=np.zeros((512, 512, 3, 3), "f4"))
    with BoundedFile(str(tmp_path / "x.npz")) as file:
        assert len(numpy_files.read_npz(file, "x.npz").tensors) == 2
        assert file.bytes_read < 20_000


@pytest.mark.parametrize("save", [np.save, np.savez])
def test_a_pickle_in_an_array_does_not_run(tmp_path: Path, save: Callable[..., None]) -> None:
    marker = tmp_path / "ran"
    path = tmp_path / ("x.npy" if save is np.save else "x.npz")
    save(path, np.array([Attack(os.system, f"touch {marker}")], dtype=object))
    refused(path, "a pickled Python object|holds no arrays of numbers")
    assert not marker.exists()


def array(header: str | bytes, data: bytes = b"", version: int = 1) -> bytes:
    text = header if isinstance(header, bytes) else header.encode()
    return (
        numpy_files.MAGIC + bytes([version, 0]) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data
    )


def npz(path: Path, content: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a.npy", content)
    return path


GOOD = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (array(GOOD, bytes(47)), "has 117 bytes where its header needs 118|needs 11"),
        (array(GOOD.replace("4", "9" * 18, 1), bytes(48)), "no arrays|pickled Python|needs"),
        (array(GOOD.replace("3, 4", "3, -4"), bytes(48)), "damaged or cut short"),
        (array(GOOD.replace("3, 4", f"{2**62}, {2**62}"), bytes(48)), "where its header needs"),
        (array(GOOD.replace("3, 4", "9" * 30), bytes(48)), "a shape that no array has"),
        (array(GOOD.replace("3, 4", "1, " * 65), bytes(48)), "a shape that no array has"),
        (array(GOOD.replace("3, 4", "1 2 3"), bytes(48)), "a shape that no array has"),
        (array("{'descr': __import__('os').system('x')}", bytes(48)), "damaged or cut short"),
        (array("(" * 9000), "damaged or cut short"),
        (array("'shape': (" + ", " * 4000), "damaged or cut short"),
        (array(b"\xff" * 60), "damaged or cut short"),
        (array("x" * 20_000), "claims 20000 bytes"),
        (array(GOOD, version=9), "no array of NumPy's"),
        (numpy_files.MAGIC + b"\x02\x00" + struct.pack("<I", 2**32 - 1), "claims 4294967295 bytes"),
        (b"hello", "no array of NumPy's|neither"),
    ],
)
def test_a_lying_array_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    refused(npz(tmp_path / "x.npz", content), reason)
    (tmp_path / "x.npy").write_bytes(content)
    refused(tmp_path / "x.npy", reason)


def test_archives_of_arrays_that_cost_much_are_refused(tmp_path: Path) -> None:
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (16777216,), }"
    bomb = npz(tmp_path / "bomb.npz", array(header, bytes(4 * 2**24)), zipfile.ZIP_DEFLATED)
    assert vggscope.inspect(bomb).params == 2**24  # its header alone was inflated
    with zipfile.ZipFile(tmp_path / "many.npz", "w") as archive:
        for number in range(10_001):
            archive.writestr(f"{number}.npy", b"")
    refused(tmp_path / "many.npz", "holds 10001 arrays, at most 10000")
    twice = tmp_path / "twice.npz"
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("a.npy", array(GOOD, bytes(48)))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.npy", array(GOOD, bytes(48)))
    refused(twice, "have the same name")
    refused(npz(tmp_path / "lzma.npz", array(GOOD, bytes(48)), zipfile.ZIP_LZMA), "compressed in a way")
    refused(zipped(tmp_path / "none.npz", pickle.dumps(3)), "no state dict")


@pytest.mark.parametrize("tenth", range(10))
def test_truncated_arrays_are_refused(tmp_path: Path, tenth: int) -> None:
    np.savez(tmp_path / "x.npz", a=np.zeros((8, 3, 3, 3), "f4"), b=np.zeros(8, "f4"))
    np.save(tmp_path / "x.npy", np.zeros((8, 3, 3, 3), "f4"))
    for name in ("x.npz", "x.npy"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * tenth // 10])
        assert "\n" not in refused(tmp_path / name).problem


# Weights out of other files


def test_build_writes_weights_of_another_framework(tmp_path: Path, model: nn.Module) -> None:
    np.savez(tmp_path / "x.npz", **channels_last(model.state_dict(), CAFFE, ("_W", "_b")))
    for rgb in (False, True):
        path = tmp_path / f"{rgb}.safetensors"
        vggscope.export(NOTATION, path, SIZE, head="flatten", weights=str(tmp_path / "x.npz"), rgb=rgb)
        loaded = load_weights(vggscope.build(NOTATION, input_size=SIZE), str(path)).state_dict()
        expected = {**model.state_dict()}
        if rgb:
            expected["features.0.weight"] = expected["features.0.weight"].flip(1)
        assert all(torch.equal(loaded[key], expected[key]) for key in expected)
    with pytest.raises(vggscope.OptionError, match="without weights"):
        vggscope.export(NOTATION, tmp_path / "y.pth", SIZE, rgb=True)
    words = "conv3-8 conv3-8 maxpool FC-10"
    gray = vggscope.build(words, input_size=(1, 56, 56))
    np.savez(tmp_path / "gray.npz", **{key: value.numpy() for key, value in gray.state_dict().items()})
    with pytest.raises(vggscope.CheckpointError, match="does not read three channels"):
        vggscope.export(words, tmp_path / "y.pth", (1, 56, 56), weights=str(tmp_path / "gray.npz"), rgb=True)


# torch before 0.1.10


def tar_pth(
    path: Path,
    state: object,
    tensors: Mapping[str, torch.Tensor],
    *,
    views: object = None,
    change: Mapping[str, bytes] = MappingProxyType({}),
) -> Path:
    """A file as torch.save wrote it before 0.1.10, by hand. `state` names its tensors by Reference."""
    storages, layouts = io.BytesIO(), io.BytesIO()
    pickle.dump(len(tensors), storages, 2)
    pickle.dump(len(tensors), layouts, 2)
    for number, (key, tensor) in enumerate(tensors.items()):
        dense = tensor.detach().contiguous()
        kind = f"{ {torch.float32: 'Float', torch.int64: 'Long'}[tensor.dtype] }Storage"
        storages.write(b"\x80\x02(" + pickle.dumps(int(key), 2)[2:-1] + b"X\x03\x00\x00\x00cpuctorch\n")
        storages.write(kind.encode() + b"\nt.")
        storages.write(struct.pack("<q", dense.numel()) + dense.numpy().tobytes())
        layouts.write(b"\x80\x02(" + pickle.dumps(1000 + number, 2)[2:-1] + pickle.dumps(int(key), 2)[2:-1])
        layouts.write(f"ctorch\n{kind.replace('Storage', 'Tensor')}\nt.".encode())
        rank = dense.ndim
        layouts.write(struct.pack(f"<i4x{rank}q{rank}qq", rank, *dense.shape, *dense.stride(), 0))
    pickle.dump([] if views is None else views, storages, 2)
    saved = io.BytesIO()
    pickler = pickle.Pickler(saved, 2)
    pickler.persistent_id = lambda value: value.number if isinstance(value, Reference) else None  # type: ignore[method-assign]
    pickler.dump(state)
    members = {
        "sys_info": pickle.dumps({"protocol_version": 1000, "little_endian": True, "type_sizes": {"int": 4}}, 2),
        "pickle": saved.getvalue(),
        "storages": storages.getvalue(),
        "tensors": layouts.getvalue(),
    } | dict(change)
    with tarfile.open(path, "w:", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


class Reference:
    def __init__(self, number: object) -> None:
        self.number = number


def as_tar(path: Path, state: Mapping[str, torch.Tensor], **options: Any) -> Path:
    """The state dict as such a file."""
    names = OrderedDict((key, Reference(str(1000 + i))) for i, key in enumerate(state))
    tensors = {str(2**40 + i): tensor for i, tensor in enumerate(state.values())}
    return tar_pth(path, {"state_dict": names, "epoch": 3}, tensors, **options)


def test_a_tar_of_old_torch_is_what_torch_reads(tmp_path: Path, model: nn.Module) -> None:
    path = as_tar(tmp_path / "old.pth.tar", model.state_dict())
    theirs = torch.load(path, weights_only=False)["state_dict"]
    found = read(path)
    assert (found.format, found.wrapper, found.beside) == ("torch tar", ("state_dict",), ("epoch",))
    assert {t.name: t.shape for t in found.tensors} == {key: tuple(value.shape) for key, value in theirs.items()}
    assert all(torch.equal(theirs[key], value) for key, value in model.state_dict().items())
    same_weights(path, model)


def test_views_in_a_tar_of_old_torch(tmp_path: Path) -> None:
    whole = torch.arange(24.0)
    references = {"weight": Reference("1000"), "count": Reference(1001)}
    path = tar_pth(tmp_path / "x.pth", references, {"1": whole, "2": torch.arange(3)}, views=[(3, 1, 4, 6)])
    with open_tensors(path) as file:
        np.testing.assert_array_equal(file.whole(file.checkpoint.tensors[0]), whole.numpy())
        assert [tensor.dtype for tensor in file.checkpoint.tensors] == ["float32", "int64"]
    refused(
        tar_pth(tmp_path / "x.pth", references, {"1": whole, "2": whole}, views=[(3, 1, 20, 6)]), "beyond the storage"
    )
    refused(tar_pth(tmp_path / "x.pth", references, {"1": whole, "2": whole}, views=[(3, 1)]), "a view of a storage")


START = b"\x80\x02"
LAYOUT = START + b"(K\x00K\x01ctorch\nFloatTensor\nt."
ONE = START + b"K\x01."


@pytest.mark.parametrize(
    ("member", "data", "reason"),
    [
        ("sys_info", b"", "cut short within its sys_info"),
        ("storages", START + b"J\xff\xff\xff\x7f.", "how many storages"),
        ("storages", START + b"J\xff\xff\xff\xff.", "how many storages"),
        ("storages", ONE + START + b"N.", "describes a storage"),
        ("storages", ONE + START + b"(K\x01X\x01\x00\x00\x00aX\x01\x00\x00\x00bt.", "describes a storage"),
        ("storages", ONE + START + b"(K\x01Nctorch\nFloatStorage\nt." + b"\xff" * 8, "cut short within its pickles"),
        ("storages", ONE + b"x" * 3000, "opcode, 0x78"),
        ("storages", ONE + START + b"]" * 3000, "cut short|damaged"),
        ("tensors", START + b"K\x05.", "cut short within its pickles"),
        ("tensors", ONE + LAYOUT + struct.pack("<i4x", 65), "has 65 dimensions"),
        ("tensors", ONE + LAYOUT + struct.pack("<i4x", -1), "has -1 dimensions"),
        ("tensors", ONE + LAYOUT + struct.pack("<i4x3q", 1, -5, 1, 0), "no tensor has"),
        ("tensors", ONE + LAYOUT + struct.pack("<i4x3q", 1, 10**9, 1, 0), "no tensor has|beyond its storage"),
        ("pickle", START + b"X\x01\x00\x00\x00zQ.", "names a tensor that it does not have"),
        ("pickle", START + b"(ctorch\nSize\nNNtQ.", "a whole pickled module"),
        ("pickle", START + b"]" * 600_001 + b".", "holds more than any checkpoint"),
        ("pickle", bytes(17 * 2**20), "no state dict has so many"),
    ],
)
def test_a_lying_tar_is_refused(tmp_path: Path, model: nn.Module, member: str, data: bytes, reason: str) -> None:
    refused(as_tar(tmp_path / "x.pth", model.state_dict(), change={member: data}), reason)


@pytest.mark.parametrize("member", ["sys_info", "pickle", "storages", "tensors"])
def test_code_in_a_tar_does_not_run(tmp_path: Path, model: nn.Module, member: str) -> None:
    marker = tmp_path / "ran"
    code = pickle.dumps(Attack(os.system, f"touch {marker}"), 2)
    refused(as_tar(tmp_path / "x.pth", model.state_dict(), change={member: code}), r"asks for (posix|nt)\.system")
    assert not marker.exists()


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_tar_is_refused(tmp_path: Path, model: nn.Module, tenth: int) -> None:
    path = as_tar(tmp_path / "x.pth", model.state_dict())
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * tenth // 10])
    assert "\n" not in refused(path).problem


def test_members_of_a_tar_lead_nowhere(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.pth", "w") as archive:
        for name in ("sys_info", "pickle", "storages", "tensors"):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    refused(tmp_path / "x.pth", "a tar archive, and not one that torch wrote")
    data = bytearray((tmp_path / "x.pth").read_bytes())
    for size in (b"77777777777\0", b"\x80" + b"\xff" * 11, b"-1234567890\0", b"zzzzzzzzzzz\0"):
        data[124:136] = size
        (tmp_path / "y.pth").write_bytes(data)
        refused(tmp_path / "y.pth", "damaged or cut short")


def test_the_data_in_a_tar_is_not_read(tmp_path: Path) -> None:
    path = as_tar(
        tmp_path / "x.pth", {"0.weight": torch.zeros(512, 512, 3, 3), "2.weight": torch.zeros(512, 512, 3, 3)}
    )
    with BoundedFile(str(path)) as file:
        assert len(torch_tar.read(file, str(path)).tensors) == 2
        assert file.bytes_read < 20_000
