"""Files of Lua Torch: written by the format's definition (tests/torch7.py), compared with the same layers of torch."""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import vggscope
from tests.test_hostile_graphs import outcomes
from tests.torch7 import Binary, Obj, Storage, Writer, container, layer, longs, saved, tensor, write
from tests.torch7 import Tensor as LuaTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.torch7 import read
from vggscope.checkpoint.load_weights import load_weights
from vggscope.errors import CheckpointError, ShapeError, VggscopeError


@pytest.fixture(scope="module")
def chain() -> nn.Sequential:
    """`conv3-8 maxpool conv3-16 maxpool FC-32 FC-10` for images of 32x32."""
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 16, 3, padding=1, groups=2), nn.BatchNorm2d(16), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(16 * 64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10)),
    ).eval()


def lua(model: nn.Sequential, package: str = "nn", **options: Any) -> Obj:
    """The chain in Lua Torch, with a View in place of its Flatten and a softmax at the end."""
    flat = model[8].in_features
    view = Obj("nn.View", {"size": longs(flat), "numElements": flat})
    layers = [view if isinstance(each, nn.Flatten) else layer(each, package, **options) for each in model]
    return container("nn.Sequential", *layers, Obj("nn.LogSoftMax"))


@pytest.mark.parametrize("ascii_form", [False, True])
def test_a_module_is_the_same_chain_of_torch(tmp_path: Path, chain: nn.Sequential, ascii_form: bool) -> None:
    path = write(tmp_path / "x.t7", lua(chain, "cudnn" if ascii_form else "nn"), ascii_form=ascii_form)
    found = vggscope.diff(path, chain, input_size=(1, 3, 32, 32))
    assert (found.verdict, found.differences) == ("identical", ())
    network = vggscope.network(path)
    assert network.inputs[0].shape == (1, 3, 32, 32)
    assert any("3x32x32 is taken" in note for note in network.warnings)
    assert vggscope.network(path, input_size=(1, 3, 32, 32), soft_max=True).nodes[-1].op.name == "LogSoftmax"
    inspection = vggscope.inspect(path)
    assert inspection.format == "Torch7"
    if not ascii_form:
        # The first bytes tell it under any name.
        other = write(tmp_path / "x.net", lua(chain))
        assert vggscope.diff(other, chain, input_size=(1, 3, 32, 32)).verdict == "identical"
    assert vggscope.memory(path, batch=3).peak_bytes == vggscope.memory(chain, (1, 3, 32, 32), batch=3).peak_bytes
    assert {tensor.name: tensor.shape for each in inspection.layers for tensor in each.tensors} == {
        key: tuple(value.shape) for key, value in chain.state_dict().items() if value.dim()
    }


@pytest.mark.parametrize("as_matrix", [False, True])
def test_its_weights_compute_what_torch_does(tmp_path: Path, chain: nn.Sequential, as_matrix: bool) -> None:
    path = write(tmp_path / "x.t7", {"model": lua(chain, as_matrix=as_matrix), "epoch": 3})
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(load_weights(vggscope.build(path), path).eval()(image), chain(image))
    inspection = vggscope.inspect(path)
    assert inspection.wrapper == ("model",)
    assert any("epoch" in note for note in inspection.notes)


class Residual(nn.Module):
    """A residual block whose shortcut halves the map and pads its channels, and one that joins two branches."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.Conv2d(8, 8, 3, 1, 1)
        self.pool, self.relu = nn.AvgPool2d(1, 2), nn.ReLU(inplace=True)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 6, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = nn.functional.pad(self.pool(x), (0, 0, 0, 0, 0, 5))
        y = self.relu(self.b(self.norm(self.a(x))) + shortcut)
        return torch.cat((self.left(y), self.right(y)), 1)


def lua_residual(model: Residual) -> Obj:
    main = container("nn.Sequential", layer(model.a, "cudnn"), layer(model.norm, "cudnn"), layer(model.b, "cudnn"))
    grow = Obj("nn.Padding", {"dim": 1, "pad": 5, "nInputDim": 3, "value": 0, "index": 1})
    shortcut = container("nn.Sequential", layer(model.pool), grow)
    branches = container("nn.Concat", layer(model.left), layer(model.right), dimension=2)
    add = Obj("nn.CAddTable", {"inplace": False})
    return container(
        "nn.Sequential", container("nn.ConcatTable", main, shortcut), add, layer(model.relu, "cudnn"), branches
    )


def test_a_graph_of_containers_is_that_of_torch(tmp_path: Path) -> None:
    model = Residual().eval()
    path = write(tmp_path / "x.t7", lua_residual(model))
    found = vggscope.diff(path, model, input_size=(1, 3, 16, 16))
    assert found.verdict == "equivalent", found.differences
    ours, theirs = (vggscope.summary(each, input_size=(1, 3, 16, 16)).totals for each in (path, model))
    assert (ours.params, ours.macs) == (theirs.params, theirs.macs)


def network_of(folder: Path, *modules: Obj, input_size: tuple[int, ...] = (1, 3, 32, 32)) -> vggscope.Network:
    return vggscope.network(write(folder / "x.t7", container("nn.Sequential", *modules)), input_size=input_size)


@pytest.mark.parametrize(
    ("sizes", "told", "shape"),
    [
        ((3072,), None, (1, 3072)),
        ((-1,), 3, (1, 3072)),
        ((-1,), None, (1, 3072)),
        ((-1, 3072), None, (1, 3072)),
        ((48, -1), 3, (1, 48, 64)),
        ((12, 16, 16), None, (1, 12, 16, 16)),
    ],
)
def test_a_view_is_that_of_one_sample(
    tmp_path: Path, sizes: tuple[int, ...], told: int | None, shape: tuple[int, ...]
) -> None:
    view = Obj("nn.View", {"size": longs(*sizes), "numInputDims": told})
    network = network_of(tmp_path, view)
    assert (network.failure, network.shapes[network.end]) == (None, shape)


def test_what_early_versions_compute_is_kept(tmp_path: Path) -> None:
    """A Dropout of version 1 scales at evaluation, and a pool without `divide` sums."""
    dropout = Obj("nn.Dropout", {"p": 0.25})
    pool = Obj("nn.SpatialAveragePooling", {"kW": 2, "kH": 3, "dW": 2, "dH": 2})
    network = network_of(tmp_path, dropout, pool)
    assert [(node.op.name, getattr(node.op, "arguments_given", None)) for node in network.nodes] == [
        ("Dropout", None),
        ("mul", (None, 0.75)),
        ("AvgPool2d", None),
        ("mul", (None, 6.0)),
    ]


@pytest.mark.parametrize("kind", ["nn.gModule", "nn.SpatialDivisiveNormalization", "my.Net"])
def test_a_class_without_a_rule_ends_the_description(tmp_path: Path, chain: nn.Sequential, kind: str) -> None:
    network = network_of(tmp_path, layer(chain[0]), Obj(kind), layer(chain[1]))
    assert [node.op.name for node in network.nodes] == ["Conv2d"]
    assert f"1: there is no rule for {kind}" in (network.failure or "")


def test_a_module_that_stands_twice_has_its_weights_once(tmp_path: Path) -> None:
    once = layer(nn.Linear(8, 8))
    path = write(tmp_path / "x.t7", container("nn.Sequential", once, Obj("nn.Sigmoid"), once))
    report = vggscope.summary(path)
    assert (report.totals.params, report.totals.macs) == (72, 128)
    assert vggscope.inspect(path).params == 72
    tied = layer(nn.Linear(8, 8))
    tied.fields["weight"].storage = once.fields["weight"].storage  # type: ignore[attr-defined]
    path = write(tmp_path / "y.t7", container("nn.Sequential", once, tied))
    assert vggscope.summary(path).totals.params == 64 + 8 + 8


def test_tables_of_tensors_are_a_checkpoint(tmp_path: Path) -> None:
    """Tensors of a GPU, of two in one storage, and of a table in a table."""
    shared = Storage(np.arange(60, dtype="f4"), cuda=True)
    state = {
        "conv1": {"weight": tensor(np.ones((8, 3, 3, 3), "f4")), "bias": LuaTensor(shared, (8,), (1,), 5)},
        "turned": LuaTensor(shared, (4, 5), (1, 4), 21),
        "list": [tensor(np.ones(2, "f8"))],
    }
    path = write(tmp_path / "x.t7", state)
    inspection = vggscope.inspect(path)
    assert inspection.format == "Torch7 table"
    held = [(each.name, each.shape, each.dtype) for held in inspection.layers for each in held.tensors]
    assert held == [
        ("conv1.weight", (8, 3, 3, 3), "float32"),
        ("conv1.bias", (8,), "float32"),
        ("turned", (4, 5), "float32"),
        ("list.1", (2,), "float64"),
    ]
    module = nn.ParameterDict({"turned": nn.Parameter(torch.zeros(4, 5))})
    module["conv1"] = nn.Conv2d(3, 8, 3)
    module["list"] = nn.ParameterList([nn.Parameter(torch.zeros(2))])
    with BoundedFile(path) as file:
        stored = {each.name: each for each in read(file, path).tensors}
    from vggscope.checkpoint.data import open_tensors

    with open_tensors(path) as tensors:
        np.testing.assert_array_equal(tensors.whole(stored["conv1.bias"]), np.arange(4, 12))
        np.testing.assert_array_equal(tensors.whole(stored["turned"]), np.arange(20, 40).reshape(5, 4).T)


def test_the_data_of_ascii_and_old_deviations_are_described_and_not_read(tmp_path: Path, chain: nn.Sequential) -> None:
    path = write(tmp_path / "x.t7", lua(chain), ascii_form=True)
    with pytest.raises(CheckpointError, match="its data is text"):
        vggscope.build(path, weights=path)
    norm = layer(nn.BatchNorm2d(3))
    norm.fields["running_std"] = norm.fields.pop("running_var")  # type: ignore[attr-defined]
    path = write(tmp_path / "y.t7", container("nn.Sequential", layer(nn.Conv2d(3, 3, 1)), norm))
    with pytest.raises(CheckpointError, match="running_var is not read"):
        vggscope.build(path, weights=path)


def test_the_data_of_a_large_file_is_not_read(tmp_path: Path) -> None:
    """A file with holes for 400 MB of weights."""
    out = Binary()
    large = LuaTensor(Storage(np.zeros(0, "f4")), (10_000, 10_000), (10_000, 1))
    Writer(out).write(Obj("nn.Linear", {"weight": large}))
    # The storage is the last thing in it: its size, and then no data.
    head = bytes(out.data[:-8]) + struct.pack("<q", 10**8)
    path = tmp_path / "x.t7"
    path.write_bytes(head)
    os.truncate(path, len(head) + 4 * 10**8)
    assert vggscope.summary(str(path)).totals.params == 10**8
    with BoundedFile(str(path)) as file:
        read(file, str(path))
        assert file.bytes_read < 20_000


def test_the_input_size_is_asked_for_where_no_layer_tells_it(tmp_path: Path) -> None:
    path = write(tmp_path / "x.t7", container("nn.Sequential", Obj("nn.Tanh")))
    with pytest.raises(ShapeError, match="does not tell the size"):
        vggscope.network(path)


def lying(change: Callable[[bytearray], None]) -> Callable[[], bytes]:
    """A file with a linear layer, changed."""

    def make() -> bytes:
        data = bytearray(saved(Obj("nn.Linear", {"weight": tensor(np.ones((2, 3), "f4"))})))
        change(data)
        return bytes(data)

    return make


def place(data: bytearray, text: bytes) -> int:
    """The byte after a name."""
    return data.index(text) + len(text)


def put(text: bytes, offset: int, form: str, value: int) -> Callable[[bytearray], None]:
    return lambda data: struct.pack_into(form, data, place(data, text) + offset, value)


REFUSED: dict[str, Callable[[], bytes]] = {
    "its numbers are big-endian": lambda: struct.pack(">iii", 4, 1, 3) + b"V 1",
    "a value of a type that Lua Torch does not write": lambda: struct.pack("<iii", 77, 1, 3),
    "a table of 2,000,000,000 values": lambda: struct.pack("<iii", 3, 1, 2 * 10**9),
    "a size of -1": lambda: struct.pack("<iii", 2, -1, 0),
    "ends at byte": lambda: struct.pack("<ii", 2, 2**31 - 1) + bytes(300),
    "has 33 dimensions": lying(put(b"FloatTensor", 0, "<i", 33)),
    "a shape or a stride that no tensor has": lying(put(b"FloatTensor", 4, "<q", -2)),
    "reaches beyond its storage of 6 elements": lying(put(b"FloatTensor", 4, "<q", 2000)),
    "is cut short or damaged": lying(put(b"FloatStorage", 0, "<q", 2**40)),
    "a storage in it has -1 elements": lying(put(b"FloatStorage", 0, "<q", -1)),
    "is no name of a class": lying(lambda data: data.__setitem__(slice(19, 28), b"nn.L\x1b[31m"[:9])),
    "claims 6 numbers and has 5": lambda: saved(
        Obj("nn.Linear", {"weight": tensor(np.ones((2, 3), "f4"))}), ascii_form=True
    ).replace(b"1 1 1 1 1 1", b"1 1 1 1 1"),
    "in place of a number": lambda: b"4\n1\n3\nV 1\nx9\n",
    "several modules": lambda: saved({"a": Obj("nn.Tanh"), "b": Obj("nn.Tanh")}),
    "without tensors|no layers|does not tell": lambda: saved(container("nn.Sequential")),
    "more than 20,000 tensors": lambda: saved([longs(number) for number in range(20_001)]),
    "stored in a way that is not known": lambda: saved(Obj("tds.Hash"))[:-12] + struct.pack("<i", 0),
}


def test_a_file_of_a_32_bit_machine_is_read(tmp_path: Path, chain: nn.Sequential) -> None:
    """Torch's File writes a `long` as the machine has it: sizes, strides, offset and count take 4 bytes there."""
    narrow = saved(lua(chain), long_code="i4")
    (tmp_path / "narrow.t7").write_bytes(narrow)
    (tmp_path / "wide.t7").write_bytes(saved(lua(chain)))
    assert len(narrow) < (tmp_path / "wide.t7").stat().st_size
    words = [str(tmp_path / name) for name in ("narrow.t7", "wide.t7")]
    assert vggscope.diff(words[0], ref=words[1], input_size=(1, 3, 32, 32)).verdict == "identical"
    assert vggscope.values(*words).verdict == "identical"


@pytest.mark.parametrize("reason", REFUSED)
def test_a_lying_file_is_refused(tmp_path: Path, reason: str) -> None:
    (tmp_path / "x.t7").write_bytes(REFUSED[reason]())
    for ask in (vggscope.network, vggscope.inspect):
        with pytest.raises(VggscopeError, match=reason):
            ask(str(tmp_path / "x.t7"))


@pytest.mark.parametrize("ascii_form", [False, True])
def test_a_file_that_is_cut_short_or_changed_is_refused_or_described(
    tmp_path: Path, chain: nn.Sequential, ascii_form: bool
) -> None:
    data, path = saved(lua(chain), ascii_form=ascii_form), tmp_path / "x.t7"
    for tenth in range(10):
        path.write_bytes(data[: len(data) * tenth // 10])
        for ask in (vggscope.network, vggscope.inspect):
            with pytest.raises(VggscopeError):
                ask(str(path))
    draw = Random(1)
    data = saved(container("nn.Sequential", layer(nn.Conv2d(1, 2, 1)), Obj("nn.Tanh")), ascii_form=ascii_form)
    for _ in range(100):
        changed = bytearray(data)
        for _ in range(draw.choice([1, 2, 8])):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        path.write_bytes(changed)
        for ask in (vggscope.summary, vggscope.inspect):
            with suppress(VggscopeError):
                ask(str(path))


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_AS bounds memory on Linux alone")
def test_hostile_files_are_refused_or_described_within_the_limits(tmp_path: Path, chain: nn.Sequential) -> None:
    circle = container("nn.Sequential", layer(chain[0]))
    circle.fields["modules"].append(circle)
    doubling = Obj("nn.Tanh")
    for _ in range(40):
        doubling = container("nn.Sequential", doubling, doubling)
    nested = Obj("nn.Tanh")
    for _ in range(20_000):
        nested = container("nn.Sequential", nested)
    small = Storage(np.ones(1, "f4"))
    kinds: dict[str, Any] = {
        "circle": circle,
        "doubling": doubling,
        "texts": {f"{number:0200}": "x" * 200 for number in range(70_000)},
        "tensors": {str(number): LuaTensor(small, (1,), (1,)) for number in range(19_000)},
        "sides": [longs(*range(16)) for _ in range(19_000)],
    }
    paths = [Path(write(tmp_path / f"{name}.t7", value)) for name, value in kinds.items()]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(200_000)
    try:
        paths.append(Path(write(tmp_path / "nested.t7", nested)))
    finally:
        sys.setrecursionlimit(limit)
    text = tmp_path / "text.t7"
    text.write_bytes(b"4\n1\n3\nV 1\n18\ntorch.FloatStorage\n" + b"9" * 14 + b"\n" + b"1 " * 10**7)
    assert len(outcomes([*paths, text])) == 2 * len(paths) + 2
