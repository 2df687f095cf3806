"""Checkpoints are read without their data, without torch and without running anything; hostile ones are refused."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pickle
import struct
import subprocess
import sys
import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn
from torchvision.models import vgg19

from tests.peak_memory import HIGHEST
from tests.strategies import MANY
from vggscope.checkpoint.contents import Checkpoint
from vggscope.checkpoint.formats import safetensors as safetensors_file
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.torch_save import read_zip
from vggscope.checkpoint.inspection import Inspection, inspect
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError, ModelError
from vggscope.sources.resolve import resolve

START = b"\x80\x02"


def zipped(path: Path, data: bytes, method: int = zipfile.ZIP_STORED, **members: bytes) -> Path:
    """A file as torch.save makes it, with this pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data, method)
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def refused(path: str | Path, reason: str | None = None) -> CheckpointError:
    """The error with which `inspect` refuses a file; its problem or remedy matches `reason`."""
    with pytest.raises(CheckpointError, match=reason) as caught:
        inspect(path)
    return caught.value


def safetensors(path: Path, header: object, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def floats(begin: int, end: int, *shape: int) -> dict[str, object]:
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [begin, end]}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same small VGG in each format."""
    features = (nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU())
    model = nn.Sequential(*features, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(392, 10))
    state = model.state_dict()
    folder = tmp_path_factory.mktemp("written")
    torch.save(state, folder / "zip.pth")
    torch.save(state, folder / "protocol4.pth", pickle_protocol=4)
    torch.save(state, folder / "legacy.pth", _use_new_zipfile_serialization=False)
    save_file(state, folder / "plain.safetensors")
    return {path.stem: path for path in folder.iterdir()}


FORMATS = ("zip", "protocol4", "legacy", "plain")


@pytest.mark.parametrize("name", FORMATS)
def test_names_shapes_and_dtypes_are_those_that_torch_loads(written: dict[str, Path], name: str) -> None:
    expected = torch.load(written["zip"], weights_only=True)
    found = read(written[name])
    assert {t.name: (t.shape, f"torch.{t.dtype}") for t in found.tensors} == {
        key: (tuple(value.shape), str(value.dtype)) for key, value in expected.items()
    }
    if name != "plain":  # a safetensors file is sorted by dtype and name
        assert [tensor.name for tensor in found.tensors] == list(expected)


def test_views_parameters_and_every_dtype(tmp_path: Path) -> None:
    wide = torch.zeros(6, 8)
    state = {
        "view": wide[1:3, ::2],
        "transposed": wide.t(),
        "expanded": torch.zeros(1).expand(1000, 1000),
        "parameter": torch.nn.Parameter(torch.zeros(2, 3)),
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 5),
        "meta": torch.empty(10**6, 10**6, device="meta"),
    }
    dtypes = ("float64", "float16", "bfloat16", "float8_e4m3fn", "uint16", "int8", "bool", "complex64")
    state |= {name: torch.zeros(3, dtype=getattr(torch, name)) for name in dtypes}
    torch.save(state, tmp_path / "x.pth")
    assert {t.name: (t.shape, f"torch.{t.dtype}") for t in read(tmp_path / "x.pth").tensors} == {
        key: (tuple(value.shape), str(value.dtype)) for key, value in state.items()
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_the_state_dict_is_found_in_what_training_scripts_save(tmp_path: Path, legacy: bool) -> None:
    model = torch.nn.Linear(3, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.zeros(2, 3)).sum().backward()
    optimizer.step()
    saved = {
        "epoch": 3,
        "best": torch.tensor(0.9),
        "optimizer": optimizer.state_dict(),
        "model": {"state_dict": model.state_dict()},
        "args": argparse.Namespace(lr=0.1, milestones={30, 60}),
        "metric": np.float64(0.5),
    }
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=not legacy)
    found = read(tmp_path / "x.pth")
    assert [tensor.name for tensor in found.tensors] == ["weight", "bias"]
    assert found.wrapper == ("model", "state_dict")
    assert found.beside == ("epoch", "best", "optimizer", "args", "metric")
    assert "argparse.Namespace" in found.guarded


def test_a_large_file_is_read_by_its_header_alone(tmp_path: Path) -> None:
    with torch.device("meta"):
        state = vgg19().state_dict()
    header, end = {}, 0
    for key, value in state.items():
        header[key] = floats(end, end + 4 * value.numel(), *value.shape)
        end += 4 * value.numel()
    path = safetensors(tmp_path / "vgg19.safetensors", header)
    os.truncate(path, path.stat().st_size + end)
    assert path.stat().st_size == 574_672_645  # 548 MiB, of which the disk holds a page or two
    with BoundedFile(str(path)) as file:
        assert len(safetensors_file.read(file, str(path)).tensors) == 38
        assert file.bytes_read < 5000
    assert inspect(path).params == 143_667_240


def test_the_data_in_a_torch_archive_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save({"0.weight": torch.zeros(512, 512, 3, 3), "2.weight": torch.zeros(512, 512, 3, 3)}, path)
    with BoundedFile(str(path)) as file:
        assert len(read_zip(file, str(path)).tensors) == 2
        assert file.bytes_read < 10_000 < file.size / 1000


def test_no_torch_is_imported(written: dict[str, Path]) -> None:
    code = f"""
        import sys
        from vggscope.checkpoint.inspection import inspect
        for path in {[str(path) for path in written.values()]!r}:
            assert inspect(path).num_classes == 10
        print({{"torch", "safetensors", "numpy", "pickle"}} & sys.modules.keys())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"


# Code in a pickle


class Attack:
    """Runs a command when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def legacy(path: Path, data: bytes) -> Path:
    """The format before zip: the magic number, the protocol, the system, the object, no storages."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2)
    path.write_bytes(magic + data + pickle.dumps([], 2))
    return path


def plain(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("wrap", [zipped, legacy, plain])
@pytest.mark.parametrize("inside", [lambda x: x, lambda x: {"weight": x}, lambda x: [{"a": (1, [x])}]])
def test_code_in_a_pickle_is_refused_by_name_and_does_not_run(
    tmp_path: Path, protocol: int, wrap: Callable[[Path, bytes], Path], inside: Callable[[object], object]
) -> None:
    marker = tmp_path / "ran"
    path = wrap(tmp_path / "x.pth", pickle.dumps(inside(Attack(os.system, f"touch {marker}")), protocol))
    assert refused(path, r"asks for (posix|nt)\.system.*nothing was run").exit_code == 2
    assert not marker.exists()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"cbuiltins\neval\n", "builtins.eval"),
        (b"c__builtin__\ngetattr\n", "builtins.getattr|__builtin__.getattr"),
        (b"\x8c\x05posix\x8c\x06system\x93", "posix.system"),
        (b"ctorch.storage\n_load_from_bytes\n", "torch.storage._load_from_bytes"),
        (b"ctorch\nload\n", "torch.load"),
        (b"ctorch.hub\nload\n", "torch.hub.load"),
        (b"cfunctools\npartial\n", "functools.partial"),
        (b"cos\n\x1b[31msystem\n", r"os\.\\x1b\[31msystem"),
        (b"ccollections\nOrderedDict.__init__.__globals__\n", "OrderedDict.__init__"),
        (b"(S'touch'\niposix\nsystem\n", "opcode, 0x53"),
        (b"(cposix\nsystem\no", "posix.system"),
        (b"(iposix\nsystem\n", "opcode, 0x69"),
        (b"\x82\x01", "opcode, 0x82"),
        (b"ccollections\nOrderedDict\n)\x81}\x92", "opcode, 0x92"),
        (b"N)R", "calls an object that is not a function"),
        (b"ctorch\nfloat32\n)R", "calls torch.float32"),
        (b"ctorch\nSize\n}b", "state"),
        (b"X\x01\x00\x00\x00aQ", "storage"),
        (b"(X\x07\x00\x00\x00storagectorch\nfloat32\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ", "storage"),
    ],
)
def test_a_pickle_is_refused_at_the_first_thing_that_no_state_dict_has(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    refused(zipped(tmp_path / "x.pth", START + data + b"."), reason)


def test_a_tensor_must_lie_inside_its_storage(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(7, 9)}, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        data = archive.read("x/data.pkl" if "x/data.pkl" in archive.namelist() else "archive/data.pkl")
    assert data.count(b"K\x07K\x09\x86") == 1
    forged = data.replace(b"K\x07K\x09\x86", b"K\x08K\x09\x86")
    refused(
        zipped(tmp_path / "y.pth", forged, **{"archive/data/0": bytes(252)}),
        "reaches beyond its storage of 63 elements",
    )
    refused(
        zipped(tmp_path / "z.pth", data, **{"archive/data/0": bytes(251)}),
        "data/0 has 251 bytes where 252 are expected",
    )


# What a hostile file may cost

ROOM = 16 * 2**20 - 1000


def _states(count: int) -> bytes:
    tensor = b"ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\nK\x03K\x04\x86K\x04K\x01\x86\x89tR"
    names = (b"layer%d.weight" % i for i in range(count))
    return START + b"}(" + b"".join(b"X" + struct.pack("<I", len(n)) + n + tensor for n in names) + b"u."


def _forged(path: Path, sign: bytes, offset: int, value: int) -> Path:
    """Another number in the last record of a zip archive's that begins with `sign`."""
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rfind(sign) + offset, value)
    path.write_bytes(data)
    return path


def _costly(folder: Path) -> dict[str, tuple[Path, str]]:
    """Files that claim or try to cost much, and what is said of each."""
    ordered = b"ccollections\nOrderedDict\n"
    long_list = b"]q\x00(" + b"N" * 1_000_000 + b"e0"
    too_much = "holds more than any checkpoint"
    pickles = {
        "lists": (START + b"]" * ROOM, too_much),
        "dicts": (START + b"}" * ROOM, too_much),
        "texts": (START + b"".join(b"\x8c\x03%03d" % (i % 1000) for i in range(ROOM // 5)), too_much),
        "nested": (START + b"]" * 590_000 + b"a" * 589_999 + b".", "only a list"),
        "copies": (START + ordered + b"q\x01" + long_list + b"h\x01h\x00\x85R0" * 200_000 + b"N.", too_much),
        "colliding keys": (
            START
            + b"}("
            + b"".join(b"\x8a\x0b" + ((2**61 - 1) * i).to_bytes(11, "little") + b"N" for i in range(500_000))
            + b"u.",
            "a dict whose keys are not strings",
        ),
        "a memo of 2^32": (START + b"Nr\xff\xff\xff\xff.", "no state dict"),
        "bytes of 2^60": (START + b"\x8e" + struct.pack("<Q", 2**60) + b".", "damaged or cut short"),
        "an integer of 10^9 bytes": (START + b"\x8b" + struct.pack("<I", 10**9) + b".", "an integer of"),
        "a dict in itself": (START + b"}q\x00X\x05\x00\x00\x00modelh\x00s.", "no state dict"),
        "10^5 tensors": (_states(100_000), "at most 50000 are read"),
    }
    found = {name: (zipped(folder / f"{i}.pth", data), text) for i, (name, (data, text)) in enumerate(pickles.items())}
    bomb = zipped(folder / "bomb.pth", bytes(64 * 2**20), zipfile.ZIP_DEFLATED)
    found["bomb"] = bomb, "claims 67108864 bytes"
    lying = zipped(folder / "lying.pth", bytes(64 * 2**20), zipfile.ZIP_DEFLATED)
    found["lying bomb"] = _forged(lying, b"PK\x01\x02", 24, 1000), "damaged"
    directory = zipped(folder / "directory.pth", b"N.")
    found["directory of 4 GB"] = _forged(directory, b"PK\x05\x06", 12, 2**32 - 2), "damaged"
    members = {f"{i:x}": b"" for i in range(80_000)}
    found["80,000 members"] = zipped(folder / "members.pth", START + b"N.", **members), "larger than any|no state dict"
    empty = floats(0, 0, 0)
    headers = {
        "10^6 keys": (
            b"{" + b",".join(b'"%d":{"dtype":"F32"}' % i for i in range(800_000)) + b"}",
            "50000 tensors|16777216",
        ),
        "a deep header": (b'{"a":' * 100_000, "50000|nested too deep"),
        "a number of 10^7 digits": (b'{"a":' + b"1" * 10**7 + b"}", "an integer of 10000000 digits"),
        "names of 1 MB": (json.dumps({"1a" * 500_000 + str(i): empty for i in range(10)}).encode(), ""),
    }
    for i, (name, (header, text)) in enumerate(headers.items()):
        found[name] = safetensors(folder / f"{i}.safetensors", header), text
    return found


MEASURE = f"""{HIGHEST}
import json, sys
from vggscope.checkpoint.inspection import inspect
from vggscope.errors import CheckpointError

before = highest()
told = []
for path in json.load(sys.stdin):
    try:
        text = f"{{len(inspect(path).layers)}} layers"
    except CheckpointError as error:
        text = error.problem
    told.append(text)
print(json.dumps([highest() - before, told]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc is Linux's")
def test_no_file_costs_more_than_300_mb(tmp_path: Path) -> None:
    cases = _costly(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", MEASURE],
        input=json.dumps([str(path) for path, _ in cases.values()]),
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    grown, told = json.loads(done.stdout)
    assert grown < 300 * 1000
    for (name, (_, expected)), text in zip(cases.items(), told):
        assert any(part in text for part in expected.split("|")), (name, text)


@pytest.mark.slow
def test_50_000_tensors_are_described(tmp_path: Path) -> None:
    found = inspect(zipped(tmp_path / "x.pth", _states(50_000)))
    assert (found.column, len(found.layers), found.params) == (None, 50_000, 600_000)


# Files that are none, or are damaged


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_file_is_refused(written: dict[str, Path], tmp_path: Path, name: str, tenth: int) -> None:
    data = written[name].read_bytes()
    path = plain(tmp_path / written[name].name, data[: len(data) * tenth // 10])
    assert "\n" not in refused(path).problem


def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pth")
    (tmp_path / "link.pth").symlink_to(tmp_path / "pipe.pth")
    (tmp_path / "loop.pth").symlink_to(tmp_path / "loop.pth")
    (tmp_path / "dangling.pth").symlink_to(tmp_path / "nothing.pth")
    (tmp_path / "empty.pth").touch()
    (tmp_path / "folder.pth").mkdir()
    expected = {
        "pipe.pth": "a named pipe",
        "link.pth": "a named pipe",
        "loop.pth": "cannot be read",
        "dangling.pth": "no such file",
        "missing.pth": "no such file",
        "empty.pth": "it is empty",
        "folder.pth": "a folder",
        "a\0b.pth": "not a path",
        "x" * 5000 + ".pth": "cannot be read",
    }
    for name, text in expected.items():
        with pytest.raises(CheckpointError, match=text):
            resolve(str(tmp_path / name))
    refused("/dev/zero", "a device")


def test_a_link_to_a_file_and_a_wrong_suffix_are_read(written: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "link.pth").symlink_to(written["zip"])
    assert inspect(tmp_path / "link.pth").format == "torch zip"
    assert inspect(plain(tmp_path / "x.pth", written["plain"].read_bytes())).format == "safetensors"
    assert inspect(plain(tmp_path / "x.safetensors", written["legacy"].read_bytes())).format in ("torch legacy",)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "damaged or cut short"),
        (b"just a text, as it happens", "neither a file of torch.save nor a safetensors file"),
        (b"PK\x03\x04" + bytes(100), "damaged or cut short"),
        (b"\x80\x02K\x05.", "a plain pickle"),
    ],
)
def test_other_files_are_called_by_their_name(tmp_path: Path, data: bytes, reason: str) -> None:
    refused(plain(tmp_path / "x.pth", data), reason)


def test_other_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "no.pth", "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(tmp_path / "no.pth", r"no data\.pkl")
    twice = zipped(tmp_path / "two.pth", START + b"N.", **{"other/data.pkl": b""})
    refused(twice, r"with 2 data\.pkl")
    nested = zipped(tmp_path / "nested.pth", twice.read_bytes())
    refused(nested, "opcode, 0x50")
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        refused(zipped(tmp_path / "packed.pth", START + b"N.", method), "compressed in a way that torch does not read")
    encrypted = _forged(zipped(tmp_path / "e.pth", START + b"N."), b"PK\x01\x02", 8, 1)
    refused(_forged(encrypted, b"PK\x03\x04", 6, 1), "encrypted")


def test_an_offset_beyond_all_files_is_refused(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("archive/data.pkl")
    member.extra = struct.pack("<HHQ", 1, 8, 2**64 - 1)
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr(member, START + b"N.")
    refused(_forged(tmp_path / "x.pth", b"PK\x01\x02", 42, 2**32 - 1), "damaged or cut short")


@pytest.mark.parametrize(
    ("header", "data", "reason"),
    [
        ({"a": floats(0, 4, 1), "b": floats(2, 6, 1)}, 6, "overlaps another's"),
        ({"a": floats(0, 4, 1), "b": floats(8, 12, 1)}, 12, "leaves a gap"),
        ({"a": floats(0, 4, 1)}, 3, "cut short"),
        ({"a": floats(0, 4, 1)}, 5, "too long"),
        ({"a": floats(0, 4, 2)}, 4, "has 4 bytes where its shape needs 8"),
        ({"a": floats(0, 4, 10**6, 10**6)}, 4, "where its shape needs 4000000000000"),
        ({"a": floats(4, 0, 1)}, 4, "no valid data_offsets"),
        ({"a": floats(-4, 0, 1)}, 4, "no valid data_offsets"),
        ({"a": floats(0, 4, -1)}, 4, "no shape that a tensor can have"),
        ({"a": floats(0, 4, *[1] * 65)}, 4, "no shape that a tensor can have"),
        ({"a": {"dtype": "F33", "shape": [1], "data_offsets": [0, 4]}}, 4, "no known dtype"),
        ({"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}}, 4, "no shape"),
        ({"a": {"dtype": "F32", "shape": [1.0], "data_offsets": [0, 4]}}, 4, "is not an integer"),
        ({"a": {"dtype": "F32", "shape": {}, "data_offsets": [0, 4]}}, 4, "no shape"),
        ({"a": 3}, 4, "no known dtype"),
        ({"__metadata__": {"format": "pt"}}, 0, "holds no tensors"),
        (b'{"a":{},"a":{}}', 0, "names a twice"),
        (b'{"a\\ud800":{}}', 0, "not valid Unicode"),
        (b'{"a":NaN}', 0, "NaN is not an integer"),
        (b"[]", 0, "not a list of at most"),
        (b"{\xff}", 0, "is not the JSON"),
        (b'{"a":', 0, "is not the JSON"),
    ],
)
def test_a_header_that_promises_what_cannot_be_is_refused(
    tmp_path: Path, header: object, data: int, reason: str
) -> None:
    refused(safetensors(tmp_path / "x.safetensors", header, bytes(data)), reason)


@pytest.mark.parametrize("length", [2**64 - 1, 2**63, 10**9, 100])
def test_a_header_longer_than_the_file_is_refused(tmp_path: Path, length: int) -> None:
    path = plain(tmp_path / "x.safetensors", struct.pack("<Q", length) + b"{}")
    refused(path, "claims more than the file's 10 bytes")


def test_a_header_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    path = plain(tmp_path / "x.safetensors", struct.pack("<Q", 2**30) + b"{}")
    os.truncate(path, 2**31)
    refused(path, "at most 16777216 are read")


def test_a_checkpoint_without_a_state_dict_says_what_it_holds(tmp_path: Path) -> None:
    held = {
        "a dict with the keys epoch, lr": {"epoch": 1, "lr": 0.1},
        "one tensor": torch.zeros(3),
        "a list": [torch.zeros(3)],
        "an empty dict": {},
    }
    for text, value in held.items():
        torch.save(value, tmp_path / "x.pth")
        refused(tmp_path / "x.pth", f"holds no state dict, only {text}")


# Any bytes at all


def _told(path: Path) -> Inspection | None:
    """The answer, or None for a refusal; anything else fails the test."""
    try:
        found = inspect(path)
    except CheckpointError as refusal:
        error = refusal
    else:
        with contextlib.suppress(ModelError):
            assert sum(1 for _ in resolve(str(path)).parameters()) <= sum(len(layer.tensors) for layer in found.layers)
        return found
    assert error.problem
    assert "\n" not in error.problem
    return None


@MANY
@given(data=st.data())
@pytest.mark.parametrize("name", FORMATS)
def test_a_damaged_file_is_described_or_refused(
    written: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, name: str, data: st.DataObject
) -> None:
    content = bytearray(written[name].read_bytes())
    reach = min(len(content), 3000)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, reach - 1)) * data.draw(st.sampled_from((1, -1)))
        content[place] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / f"damaged{written[name].suffix}"
    _told(plain(path, bytes(content)))


OPCODES = b"()]}eus aq\x00h\x00K\x01N\x85\x86\x87tRbQ\x81.X\x01\x00\x00\x00aJGC\x8c\x8e\x93\x94"


@MANY
@given(
    st.lists(st.sampled_from([OPCODES[i : i + 1] for i in range(len(OPCODES))]) | st.binary(max_size=4), max_size=60)
)
def test_any_pickle_is_described_or_refused(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.pth"
    assert _told(zipped(path, START + b"".join(parts) + b".")) is None


@MANY
@given(
    st.dictionaries(st.text(max_size=5), st.recursive(st.integers() | st.text() | st.none(), st.lists, max_leaves=5))
)
def test_any_header_is_described_or_refused(
    tmp_path_factory: pytest.TempPathFactory, header: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.safetensors"
    entries = {name: floats(0, 0, 0) | {"shape": value} for name, value in header.items()}
    found = _told(safetensors(path, entries))
    if found is not None:  # a tensor without elements is one, and needs no data
        shapes = sorted(list(tensor.shape) for layer in found.layers for tensor in layer.tensors)
        assert shapes == sorted(header.values())
        assert found.params == 0


def test_read_gives_plain_data(written: dict[str, Path]) -> None:
    found = read(str(written["zip"]))
    assert isinstance(found, Checkpoint)
    assert (found.format, found.wrapper, found.beside, found.guarded) == ("torch zip", (), (), ())
