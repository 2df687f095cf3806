"""Checkpoints in several files and folders as Hugging Face keeps them: read as one, refused if they lead elsewhere."""

from __future__ import annotations

import json
import pickle
import zipfile
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from safetensors.torch import save_file

import vggscope
from tests.test_checkpoint import START, Attack, refused, zipped
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.load_weights import load_weights
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError, ModelError
from vggscope.sources.resolve import resolve

State = Mapping[str, torch.Tensor]

INDEX = "model.safetensors.index.json"


def sharded(folder: Path, state: State, cuts: Iterable[int] = (5,), suffix: str = "safetensors") -> Path:
    """A folder with the state dict in shards that end at these keys, and the path of their index."""
    folder.mkdir(exist_ok=True)
    keys, weight_map = list(state), dict[str, str]()
    limits = [0, *cuts, len(keys)]
    base, save = ("model", save_file) if suffix == "safetensors" else ("pytorch_model", torch.save)
    for number, (begin, end) in enumerate(pairwise(limits), 1):
        name = f"{base}-{number:05d}-of-{len(limits) - 1:05d}.{suffix}"
        save({key: state[key].clone() for key in keys[begin:end]}, folder / name)
        weight_map |= dict.fromkeys(keys[begin:end], name)
    return index(folder / f"{base}.{suffix}.index.json", weight_map)


def index(path: Path, weight_map: object) -> Path:
    path.write_text(json.dumps({"metadata": {"total_size": 1.5e9}, "weight_map": weight_map}, indent=2))
    return path


@pytest.fixture(scope="module")
def small() -> dict[str, torch.Tensor]:
    module = vggscope.build("conv3-8 conv3-8 maxpool conv3-16 maxpool FC-32 FC-10", input_size=(3, 28, 28))
    return dict(module.state_dict())


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards_are_read_as_one_checkpoint(tmp_path: Path, small: State, suffix: str) -> None:
    path = sharded(tmp_path, small, (3, 5), suffix)
    found = vggscope.inspect(path)
    assert {t.name: t.shape for layer in found.layers for t in layer.tensors} == {k: v.shape for k, v in small.items()}
    assert len(found.shards) == 3
    assert found.notation == "conv3-8 conv3-8 maxpool? conv3-16 maxpool? FC-32 FC-10"
    network = resolve(str(path))
    assert {p.name for p in network.parameters()} == small.keys()
    names: dict[str, Any] = {}
    exec(found.load, names)
    loaded = names["model"].state_dict()
    assert all(torch.equal(loaded[key], small[key]) for key in small)


def test_what_hugging_face_writes_is_read(tmp_path: Path, small: dict[str, torch.Tensor]) -> None:
    save_torch_state_dict(small, tmp_path, max_shard_size=70_000)
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["VGG"], "model_type": "vgg"}))
    found = vggscope.inspect(tmp_path)
    assert (found.path, found.architecture) == (str(tmp_path / INDEX), "VGG")
    assert (found.params, len(found.shards)) == (sum(value.numel() for value in small.values()), 2)
    assert resolve(str(tmp_path)).name == INDEX
    module = vggscope.build("conv3-8 conv3-8 maxpool conv3-16 maxpool FC-32 FC-10", input_size=(3, 28, 28))
    load_weights(module, str(tmp_path))
    assert all(torch.equal(value, small[key]) for key, value in module.state_dict().items())


def test_values_of_shards_are_those_of_one_file(tmp_path: Path, small: dict[str, torch.Tensor]) -> None:
    save_file(small, tmp_path / "whole.safetensors")
    path = sharded(tmp_path / "parts", small, (4,), "bin")
    assert vggscope.values(path, tmp_path / "whole.safetensors").verdict == "identical"
    rows = {row.name: row for row in vggscope.stats(path).files[0].tensors}
    assert all(rows[key].maximum == pytest.approx(float(value.max())) for key, value in small.items())


@pytest.mark.slow
def test_a_shard_alone_is_recognised_by_its_index(tmp_path: Path) -> None:
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in vggscope.build("A", num_classes=10).state_dict().items()}
    sharded(tmp_path, {key: torch.zeros(1).expand(shape) for key, shape in shapes.items()}, (9,), "bin")
    part = tmp_path / "pytorch_model-00002-of-00002.bin"
    found = vggscope.inspect(part)
    assert (found.column, found.problems) == ("A", ())
    assert found.shard is not None
    assert (found.shard.number, found.shard.count) == (2, 2)
    assert found.params < 128_807_306 == vggscope.inspect(tmp_path / "pytorch_model.bin.index.json").params
    assert "shard 2 of 2 of column A" in str(found)
    with pytest.raises(CheckpointError, match=r"it has a part of the layers: name .*index\.json"):
        resolve(str(part))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda folder: (folder / INDEX).unlink(), f"shard 1 of 2, but {INDEX} is not beside it"),
        (lambda folder: index(folder / INDEX, {"a": "b"}), "its shard b is missing"),
        (lambda folder: (folder / "model-00002-of-00002.safetensors").unlink(), "00002.safetensors is missing"),
    ],
)
def test_a_shard_without_its_index_says_so(
    tmp_path: Path, small: State, change: Callable[[Path], object], note: str
) -> None:
    sharded(tmp_path, small)
    change(tmp_path)
    found = vggscope.inspect(tmp_path / "model-00001-of-00002.safetensors")
    assert found.shard is None
    assert any(note in text for text in found.notes)


def test_a_missing_shard_is_named_with_what_it_holds(tmp_path: Path, small: State) -> None:
    path = sharded(tmp_path, small)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    refused(path, "model-00002-of-00002.safetensors is missing, which has 5 of its 10 tensors")


@pytest.mark.parametrize(
    "name", ["../x.safetensors", "/etc/passwd", "sub/x.bin", "..", ".", "", "..\\x", "C:x", "a\0b", "x/../y"]
)
def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, small: State, name: str) -> None:
    save_file(small, tmp_path / "x.safetensors")
    folder = tmp_path / "folder"
    folder.mkdir()
    refused(index(folder / INDEX, {"a": name}), "is not a file beside it; nothing was read")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"{}", "JSON without a weight_map"),
        (b'{"weight_map": {}}', "names 0 tensors"),
        (b'{"weight_map": {"a": 3}}', "something other than a text"),
        (b'{"weight_map": {"a": "\\ud800"}}', "something other than a text"),
        (b'{"weight_map": {"\\ud800": "x"}}', "not valid Unicode"),
        (b'{"weight_map": {"a": "x"', "its JSON is damaged"),
        (b'{"a":' * 900, "nested too deep|damaged"),
        (b'{"a":' * 100_000, "more than an index"),
        (b'{"a":' + b"[" * 10**6, "more than an index"),
        (b'{"a":' + b"1" * 10**7 + b"}", "without a weight_map"),
        (b'{"weight_map": {' + b",".join(b'"%d":"x%d"' % (i, i) for i in range(1001)) + b"}}", "1001 shards"),
        (b'{"weight_map": {' + b",".join(b'"%d":"x"' % i for i in range(50_001)) + b"}}", "50001 tensors"),
        (b'{"a": "' + b"x" * 2**24 + b'"}', "at most 16777216"),
    ],
)
def test_an_index_that_none_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / INDEX).write_bytes(content)
    refused(tmp_path / INDEX, reason)


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_index_or_shard_is_refused(tmp_path: Path, small: State, tenth: int) -> None:
    for name in (INDEX, "model-00002-of-00002.safetensors"):
        path = sharded(tmp_path, small)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * tenth // 10])
        assert "\n" not in refused(path).problem


def test_code_in_a_shard_does_not_run(tmp_path: Path) -> None:
    import os

    marker = tmp_path / "ran"
    zipped(tmp_path / "evil.bin", pickle.dumps({"a": Attack(os.system, f"touch {marker}")}, 2))
    refused(index(tmp_path / INDEX, {"a": "evil.bin"}), "evil.bin: its pickle asks for posix.system")
    assert not marker.exists()


def test_an_index_is_no_shard(tmp_path: Path, small: State) -> None:
    path = sharded(tmp_path, small)
    refused(index(tmp_path / "x.index.json", {"a": INDEX, "b": "x.index.json"}), "neither a file of torch.save")
    refused(index(path, {"b": "model-00001-of-00002.safetensors"}), "does not hold b, as the index says")


def test_many_large_shards_are_refused_at_once(tmp_path: Path) -> None:
    bomb = START + b"]" * (8 * 2**20)
    zipped(tmp_path / "0", START + b"}X\x01\x00\x00\x00aN" + b"N0" * (4 * 2**20) + b"s.", zipfile.ZIP_DEFLATED)
    for number in range(1, 40):
        (tmp_path / f"{number}").symlink_to(tmp_path / "0")
    zipped(tmp_path / "bomb", bomb, zipfile.ZIP_DEFLATED)
    refused(index(tmp_path / INDEX, {f"a{i}": f"{i}" for i in range(40)}), "holds more than any checkpoint")
    refused(index(tmp_path / INDEX, {"a": "bomb"}), "holds more than any checkpoint")


def test_the_headers_of_all_shards_together_are_bounded(tmp_path: Path) -> None:
    for number in range(10):
        save_file({f"{number}": torch.zeros(1), "b" * 2_000_000: torch.zeros(1)}, tmp_path / f"{number}.safetensors")
    few = index(tmp_path / INDEX, {f"{number}": f"{number}.safetensors" for number in range(3)})
    assert len(read(few).tensors) == 3
    refused(index(few, {f"{number}": f"{number}.safetensors" for number in range(10)}), "more than any checkpoint")


def test_only_headers_of_shards_are_read(tmp_path: Path) -> None:
    path = sharded(tmp_path, {"a.weight": torch.zeros(4096, 4096), "b.weight": torch.zeros(4096, 4096)}, (1,))
    read_bytes = []
    original = BoundedFile.__exit__

    def closed(self: BoundedFile, *exception: object) -> None:
        read_bytes.append(self.bytes_read)
        original(self, *exception)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BoundedFile, "__exit__", closed)
        read(path)
    assert sum(read_bytes) < 3000


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"architectures": [3, {"a": 1}]}', b"[" * 100_000, b"\xff"])
def test_a_damaged_config_beside_the_weights_is_ignored(tmp_path: Path, small: Any, content: bytes) -> None:
    save_file(small, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(content)
    assert vggscope.inspect(tmp_path).architecture is None


def test_a_folder_without_weights_is_refused_with_the_nearest_file(tmp_path: Path, small: Any) -> None:
    (tmp_path / "config.json").write_text("{}")
    save_file(small, tmp_path / "epoch3.safetensors")
    with pytest.raises(CheckpointError, match=r"a folder, not a file\nname a file in it: .*epoch3"):
        resolve(str(tmp_path))
    with pytest.raises(ModelError, match="unknown model"):
        resolve(str(tmp_path.parent / "nowhere"))
