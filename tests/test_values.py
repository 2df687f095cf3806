"""Values of checkpoints: what two files have in common, tensor by tensor, and the statistics of one, beside torch's."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import struct
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

import vggscope
from vggscope.checkpoint import published
from vggscope.checkpoint.data import numbers, open_tensors
from vggscope.checkpoint.published import published_by_name
from vggscope.diffing.values import RELATIONS, ValueDiff
from vggscope.errors import CheckpointError, OptionError

State = dict[str, Tensor]

WORD = "conv3-16 conv3-16 maxpool conv3-32 conv3-32 maxpool FC-49 FC-49 FC-10"
"""A VGG whose middle FC layer is square."""


@pytest.fixture(scope="module")
def state() -> State:
    torch.manual_seed(0)
    return dict(vggscope.build(WORD, input_size=(3, 28, 28)).state_dict())


@pytest.fixture
def compared(tmp_path: Path, state: State) -> Callable[..., ValueDiff]:
    """A function that compares a state dict with the fixture's."""
    torch.save(state, tmp_path / "reference.pth")

    def compare(ours: State, suffix: str = ".pth", **options: bool) -> ValueDiff:
        path = tmp_path / f"ours{suffix}"
        if suffix == ".safetensors":
            save_file({name: tensor.contiguous() for name, tensor in ours.items()}, path)
        else:
            torch.save(ours, path, **options)  # type: ignore[arg-type]
        return vggscope.values(path, tmp_path / "reference.pth")

    return compare


def relations(diff: ValueDiff) -> dict[str, int]:
    return {count.relation: count.tensors for count in diff.counts}


CONV1, FC6, FC7 = "features.0.weight", "classifier.0.weight", "classifier.3.weight"


def channels_last(weight: Tensor) -> Tensor:
    """The weight of an FC layer that reads a map of 32 channels flattened channels last."""
    return weight.reshape(len(weight), 32, -1).transpose(1, 2).reshape(len(weight), -1).contiguous()


def keras(state: State) -> State:
    """The weights in TensorFlow's layout, under the names of Keras's VGG."""
    names = ["block1_conv1", "block1_conv2", "block2_conv1", "block2_conv2", "fc3", "fc4", "fc5"]
    laid_out: State = {}
    for (key, weight), name in zip(((k, v) for k, v in state.items() if k.endswith("weight")), names):
        flat = channels_last(weight) if key == FC6 else weight
        kernel = flat.permute(2, 3, 1, 0) if flat.dim() == 4 else flat.t()
        laid_out[f"{name}/kernel"] = kernel.contiguous()
        laid_out[f"{name}/bias"] = state[key.replace("weight", "bias")]
    return laid_out


# Relations and verdicts.


def test_the_same_values_are_identical_in_each_format(compared, state: State) -> None:
    for options in ({}, {"suffix": ".safetensors"}, {"_use_new_zipfile_serialization": False}):
        found = compared(state, **options)
        assert (found.verdict, relations(found)) == ("identical", {"equal": len(state)})
        assert found.trained == found.untouched == ()


def test_wrappers_and_prefixes_are_equivalent(compared, state: State) -> None:
    for prefix, by in (("module.", "keys"), ("net.backbone.", "prefix"), ("module._orig_mod.", "keys")):
        found = compared({prefix + name: tensor for name, tensor in state.items()})
        assert (found.verdict, found.paired_by, relations(found)) == ("equivalent", by, {"equal": len(state)})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_cast_is_named(compared, state: State, dtype: torch.dtype) -> None:
    cast = {name: tensor.to(dtype) for name, tensor in state.items()}
    for suffix in (".pth", ".safetensors"):
        found = compared(cast, suffix)
        assert (found.verdict, relations(found)) == ("equivalent", {"cast": len(state)})
    largest = max((cast[CONV1].double() - state[CONV1].double()).abs().flatten().tolist())
    assert next(tensor.max_abs for tensor in found.tensors if tensor.name == CONV1) == pytest.approx(largest)


def test_values_that_no_cast_gives_are_trained(compared, state: State) -> None:
    half = state[CONV1].half()
    half[0, 0, 0, 0] *= 1.01
    found = compared({**state, CONV1: half})
    assert found.tensors[0].relation == "trained"


@pytest.mark.parametrize(
    ("factor", "dtype"), [(1.5, torch.float32), (-1.0, torch.float32), (1.001, torch.float32), (0.1, torch.float16)]
)
def test_a_scaled_tensor_has_its_factor(compared, state: State, factor: float, dtype: torch.dtype) -> None:
    scaled = (state[FC6] * factor).to(dtype)
    found = compared({**state, FC6: scaled})
    tensor = next(tensor for tensor in found.tensors if tensor.name == FC6)
    assert (found.verdict, tensor.relation, found.trained) == ("different", "scaled", (tensor.layer,))
    assert tensor.factor == pytest.approx(factor, rel=1e-4 if dtype == torch.float16 else 1e-7)
    left = (scaled.double() - tensor.factor * state[FC6].double()).abs().max()
    assert tensor.factor_max_abs == pytest.approx(float(left), rel=1e-6, abs=1e-300)
    assert f"scaled by {tensor.factor:.6g} (largest difference" in str(found)


def test_what_is_nearly_scaled_is_trained(compared, state: State) -> None:
    one_off, noisy = state[FC6] * 1.5, state[FC6] + 1e-8 * torch.randn(state[FC6].shape)
    one_off[0, 0] += 1e-4
    for weight in (one_off, noisy, state[FC6] * 1.5 + 1e-4 * torch.randn(state[FC6].shape)):
        found = compared({**state, FC6: weight})
        tensor = next(tensor for tensor in found.tensors if tensor.name == FC6)
        assert (tensor.relation, tensor.factor) == ("trained", None)


def test_reversed_channels_change_the_function(compared, state: State) -> None:
    found = compared({**state, CONV1: state[CONV1].flip(1)})
    assert (found.verdict, found.tensors[0].relation) == ("different", "bgr")
    assert "BGR" in found.notes[0]
    found = compared({**state, CONV1: state[CONV1].flip(1).half()})
    assert found.tensors[0].steps == ("bgr", "cast")
    noise = 1e-3 * torch.randn(state[CONV1].shape)
    found = compared({**state, CONV1: state[CONV1].flip(1) + noise})
    assert (found.tensors[0].relation, found.tensors[0].steps) == ("trained", ("bgr",))


def test_another_order_of_a_flatten_changes_the_function(compared, state: State) -> None:
    found = compared({**state, FC6: channels_last(state[FC6])})
    assert (found.verdict, relations(found)["flatten_order"]) == ("different", 1)


@pytest.mark.parametrize("side", [2, 4, 7])
def test_every_order_of_a_flatten_is_found(tmp_path: Path, side: int) -> None:
    """Few values, some of which a permutation leaves in place: 261 times any number, modulo 783, for 16 x 7 x 7."""
    torch.manual_seed(0)
    weight = torch.randn(6, 16 * side * side)
    torch.save({"w": weight}, tmp_path / "a.pth")
    torch.save({"w": weight.reshape(6, 16, -1).transpose(1, 2).reshape(6, -1).t().half()}, tmp_path / "b.pth")
    found = vggscope.values(tmp_path / "b.pth", tmp_path / "a.pth")
    assert (found.verdict, found.tensors[0].steps) == ("equivalent", ("transposed", "flatten_order", "cast"))


def test_a_square_transposed_weight_changes_the_function(compared, state: State) -> None:
    found = compared({**state, FC7: state[FC7].t()})
    assert (found.verdict, relations(found)["transposed"]) == ("different", 1)


@pytest.mark.parametrize("separator", ["/", "."])
def test_another_frameworks_layout_is_equivalent(compared, state: State, separator: str) -> None:
    laid_out = {name.replace("/", separator): tensor for name, tensor in keras(state).items()}
    found = compared(laid_out, ".safetensors")
    assert (found.verdict, relations(found)) == ("equivalent", {"equal": 7, "transposed": 6, "flatten_order": 1})
    steps = next(tensor.steps for tensor in found.tensors if tensor.reference == FC6)
    assert steps == ("transposed", "flatten_order")


def test_an_fc_layer_as_a_convolution_is_reshaped(compared, state: State) -> None:
    weight = state[FC6]
    found = compared({**state, FC6: weight.reshape(len(weight), 32, 7, 7)})
    assert (found.verdict, relations(found)["reshaped"]) == ("equivalent", 1)


def test_a_fine_tuned_head_leaves_the_rest_untouched(compared, state: State) -> None:
    last = {name: tensor + 0.01 for name, tensor in state.items() if name.startswith("classifier.6")}
    found = compared({**state, **last})
    assert (found.verdict, relations(found)) == ("different", {"untouched": len(state) - 2, "trained": 2})
    assert found.trained == ("fc5",)
    assert found.untouched == ("conv1_1", "conv1_2", "conv2_1", "conv2_2", "fc3", "fc4")
    new_head = {"classifier.6.weight": torch.zeros(5, 49), "classifier.6.bias": torch.zeros(5)}
    found = compared({**state, **new_head})
    assert (relations(found)["shape"], found.trained) == (2, ("fc5",))


def test_missing_and_extra_tensors_differ(compared, state: State) -> None:
    less = {name: tensor for name, tensor in state.items() if name != "features.2.bias"}
    found = compared({**less, "extra": torch.zeros(2)})
    assert (found.verdict, relations(found)["missing"], relations(found)["extra"]) == ("different", 1, 1)
    assert found.tensors[-1].reference == "features.2.bias"


def test_frozen_batch_norms_whose_statistics_moved_are_named(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Conv2d(4, 2, 1))
    torch.save(module.state_dict(), tmp_path / "a.pth")
    module(torch.randn(8, 3, 9, 9))
    torch.save(module.state_dict(), tmp_path / "b.pth")
    found = vggscope.values(tmp_path / "b.pth", tmp_path / "a.pth")
    assert found.verdict == "different"
    assert "statistics changed while the weights stayed: bn1_1" in found.notes[0]
    state = torch.load(tmp_path / "a.pth")
    state["1.running_mean"][0] = float("nan")
    torch.save(state, tmp_path / "nan.pth")
    (note,) = vggscope.values(tmp_path / "nan.pth", tmp_path / "a.pth").notes
    assert note.startswith("NaN, infinity or no dtype of numbers in one of the files: 1.running_mean")


def test_a_counter_of_batches_has_no_effect(tmp_path: Path) -> None:
    state = torch.nn.BatchNorm2d(4).state_dict()
    torch.save(state, tmp_path / "a.pth")
    torch.save({**state, "num_batches_tracked": torch.tensor(7)}, tmp_path / "b.pth")
    assert vggscope.values(tmp_path / "b.pth", tmp_path / "a.pth").verdict == "equivalent"


def test_signs_of_zeros_are_equal_but_not_identical(compared, tmp_path: Path) -> None:
    for name, zero in (("a", 0.0), ("b", -0.0)):
        torch.save({"x": torch.full((3,), zero)}, tmp_path / f"{name}.pth")
    found = vggscope.values(tmp_path / "a.pth", tmp_path / "b.pth")
    assert (found.verdict, found.tensors[0].relation, found.tensors[0].steps) == ("equivalent", "equal", ("signs",))


def test_other_names_are_paired_by_their_order(tmp_path: Path, state: State) -> None:
    torch.save({f"p{number}": tensor for number, tensor in enumerate(state.values())}, tmp_path / "a.pth")
    torch.save(state, tmp_path / "b.pth")
    found = vggscope.values(tmp_path / "a.pth", tmp_path / "b.pth")
    assert (found.verdict, found.paired_by) == ("equivalent", "order")


def test_stages_that_one_file_does_not_show_are_those_of_the_other(tmp_path: Path, state: State) -> None:
    """Keras's own names tell no pools, and those of torch's modules do; the last layer was replaced in one of them."""
    paths = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    kinds = ["conv2d" if state[f"{path}.weight"].ndim == 4 else "dense" for path in paths]
    plain = {path: f"{kind}_{kinds[:place].count(kind)}" for place, (path, kind) in enumerate(zip(paths, kinds))}
    renamed = {f"{plain[path]}.{leaf}": state[f"{path}.{leaf}"] for path in paths for leaf in ("weight", "bias")}
    torch.save(renamed, tmp_path / "a.pth")
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "b.safetensors")
    for files in (("a.pth", "b.safetensors"), ("b.safetensors", "a.pth")):
        found = vggscope.values(*(tmp_path / name for name in files))
        assert (found.verdict, found.paired_by) == ("equivalent", "labels")
        assert {tensor.relation for tensor in found.tensors} == {"equal"}
    last = f"{plain[paths[-1]]}.weight"
    torch.save({**renamed, last: renamed[last][:5]}, tmp_path / "a.pth")
    found = vggscope.values(tmp_path / "a.pth", tmp_path / "b.safetensors")
    assert [tensor.name for tensor in found.tensors if tensor.relation == "shape"] == [last]


def test_labels_that_two_layers_have_pair_none(tmp_path: Path) -> None:
    """Two branches with Caffe's names, and a block of squeeze and excitation, whose fc1 is no fc6."""
    torch.manual_seed(0)
    state = {f"{branch}.conv1_1.weight": torch.randn(4, 3, 3, 3) for branch in ("left", "right")}
    state["se.fc1.weight"] = torch.randn(2, 4, 1, 1)
    torch.save(state, tmp_path / "a.pth")
    torch.save({f"net.{name}": tensor for name, tensor in reversed(state.items())}, tmp_path / "b.pth")
    found = vggscope.values(tmp_path / "b.pth", tmp_path / "a.pth")
    assert (found.verdict, found.paired_by) == ("equivalent", "prefix")
    assert {tensor.label for tensor in found.tensors} == {""}


def test_files_without_a_common_tensor_are_refused(tmp_path: Path) -> None:
    torch.save({"a.weight": torch.zeros(3)}, tmp_path / "a.pth")
    torch.save({"b.weight": torch.zeros(4)}, tmp_path / "b.pth")
    with pytest.raises(OptionError, match="no tensor in common"):
        vggscope.values(tmp_path / "a.pth", tmp_path / "b.pth")


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 7, 4096, 70_000]), st.floats(1e-6, 10))
def test_distances_are_those_of_torch(tmp_path_factory, seed: int, size: int, scale: float) -> None:
    folder = tmp_path_factory.mktemp("pair")
    generator = torch.Generator().manual_seed(seed)
    reference = torch.randn(2, size, generator=generator)
    ours = reference + scale * torch.randn(2, size, generator=generator)
    torch.save({"w": ours}, folder / "a.pth")
    torch.save({"w": reference}, folder / "b.pth")
    found = vggscope.values(folder / "a.pth", folder / "b.pth").tensors[0]
    a, b = ours.double().flatten(), reference.double().flatten()
    assert found.max_abs == pytest.approx(float((a - b).abs().max()), rel=1e-12)
    assert found.relative_norm == pytest.approx(float((a - b).norm() / b.norm()), rel=1e-9)
    assert found.cosine == pytest.approx(float(torch.cosine_similarity(a, b, dim=0)), abs=1e-9)


def test_values_that_are_not_finite_have_no_distance(compared, state: State) -> None:
    broken = state[CONV1].clone()
    broken[0, 0, 0, 0] = float("nan")
    result = compared({**state, CONV1: broken})
    found = result.tensors[0]
    assert (found.relation, found.max_abs, found.cosine) == ("trained", None, None)
    assert found.reason is not None
    (note,) = result.notes
    assert note == f"NaN, infinity or no dtype of numbers in one of the files: {CONV1}"


# Reading the data.


def test_every_layout_of_a_tensor_is_read(tmp_path: Path) -> None:
    base = torch.randn(20, 30)
    tensors: dict[str, Any] = {
        "plain": torch.randn(5, 3, 7, 7),
        "channels_last": torch.randn(5, 3, 7, 7).to(memory_format=torch.channels_last),
        "transposed": base.t(),
        "slice": base[3:9, ::2],
        "stretched": torch.ones(1).expand(30, 40),
        "empty": torch.zeros(0, 3),
        "number": torch.tensor(3.5),
        "parameter": torch.nn.Parameter(torch.randn(2, 2)),
        "bool": torch.tensor([True, False]),
        "int64": torch.arange(9),
        **{str(d).removeprefix("torch."): torch.randn(6).to(d) for d in (torch.float16, torch.bfloat16, torch.float64)},
    }
    for path, options in (
        (tmp_path / "new.pth", {}),
        (tmp_path / "old.pth", {"_use_new_zipfile_serialization": False}),
    ):
        torch.save(tensors, path, **options)  # type: ignore[arg-type]
        with open_tensors(path) as file:
            for stored in file.checkpoint.tensors:
                expected = tensors[stored.name].detach().double().flatten().tolist()
                pieces = [numbers(piece, stored.dtype).tolist() for piece in file.pieces(stored, 7)]
                assert [value for piece in pieces for value in piece] == expected, stored.name
                assert numbers(file.whole(stored), stored.dtype).reshape(-1).tolist() == expected


def test_tensors_without_plain_elements_are_not_compared(tmp_path: Path) -> None:
    state = {
        "sparse": torch.eye(3).to_sparse(),
        "conj": torch.randn(3, dtype=torch.complex64).conj(),
        "w": torch.ones(2),
    }
    torch.save(state, tmp_path / "a.pth")
    found = vggscope.values(tmp_path / "a.pth", tmp_path / "a.pth")
    assert [tensor.relation for tensor in found.tensors] == ["unread", "unread", "equal"]
    assert found.verdict == "different"
    reasons = [tensor.reason for tensor in vggscope.stats(tmp_path / "a.pth").files[0].tensors]
    assert reasons[0] == "it is sparse"
    assert reasons[2] is None


def test_a_safetensors_header_that_begins_like_a_pickle_is_read(tmp_path: Path) -> None:
    """A header of 640 bytes begins with 0x80 0x02, as a pickle of protocol 2 does."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode().ljust(640)
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + struct.pack("<2f", 1, 2))
    assert vggscope.stats(path).files[0].tensors[0].maximum == 2


def test_numbers_of_the_other_byte_order_are_read(tmp_path: Path, state: State) -> None:
    torch.save(state, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as source,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_STORED) as target,
    ):
        for info in source.infolist():
            data = source.read(info)
            if info.filename.endswith("/byteorder"):
                data = b"big"
            elif "/data/" in info.filename:
                data = struct.pack(f">{len(data) // 4}I", *struct.unpack(f"<{len(data) // 4}I", data))
            target.writestr(info.filename, data)
    assert vggscope.values(tmp_path / "a.pth", tmp_path / "b.pth").verdict == "identical"


# Files that lie.


def hostile_stretched() -> Any:
    return {f"w{number}": torch.zeros(1).expand(2**28) for number in range(4)}


def test_more_data_than_the_file_has_is_refused(tmp_path: Path) -> None:
    torch.save(hostile_stretched(), tmp_path / "a.pth")
    with pytest.raises(CheckpointError, match="claim 4294967296 bytes"):
        vggscope.stats(tmp_path / "a.pth")


def test_a_tensor_spread_over_a_large_storage_is_not_read(tmp_path: Path) -> None:
    """The storage is a hole in a sparse file: it takes no room on the disk, but would in memory."""
    torch.save({"w": torch.zeros(2**25)[:: 2**24]}, tmp_path / "a.pth")
    reason = vggscope.stats(tmp_path / "a.pth").files[0].tensors[0].reason
    assert reason is not None
    assert "spread over" in reason


def test_truncated_data_is_refused(tmp_path: Path, state: State) -> None:
    for name, options in (("new.pth", {}), ("old.pth", {"_use_new_zipfile_serialization": False})):
        torch.save(state, tmp_path / name, **options)  # type: ignore[arg-type]
    save_file(state, tmp_path / "x.safetensors")
    for name in ("new.pth", "old.pth", "x.safetensors"):
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[: len(data) * 2 // 3])
        with pytest.raises(CheckpointError):
            vggscope.stats(tmp_path / name)


def test_storages_that_overlap_are_refused(tmp_path: Path) -> None:
    """Two members of the archive's directory share the bytes of one."""
    torch.save({"a": torch.zeros(400), "b": torch.ones(400)}, tmp_path / "a.pth")
    data = bytearray((tmp_path / "a.pth").read_bytes())
    with zipfile.ZipFile(tmp_path / "a.pth") as archive:
        first, second = (info for info in archive.infolist() if "/data/" in info.filename)
    entry = data.rfind(second.filename.encode()) - 46
    data[entry + 42 : entry + 46] = struct.pack("<I", first.header_offset)
    (tmp_path / "b.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="overlap"):
        vggscope.stats(tmp_path / "b.pth")


def test_compressed_data_is_not_read(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as source,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    assert vggscope.stats(tmp_path / "b.pth").files[0].tensors[0].reason == "its data is compressed or encrypted"


def test_counts_in_an_old_file_that_lie_are_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(100)}, tmp_path / "a.pth", _use_new_zipfile_serialization=False)
    data = bytearray((tmp_path / "a.pth").read_bytes())
    data[-408:-400] = struct.pack("<q", 3)
    (tmp_path / "a.pth").write_bytes(data)
    with pytest.raises(CheckpointError, match="differ"):
        vggscope.stats(tmp_path / "a.pth")


@pytest.fixture(scope="module")
def small_files(tmp_path_factory) -> list[Path]:
    folder = tmp_path_factory.mktemp("small")
    state = {"w.weight": torch.randn(4, 3, 3, 3), "e": torch.ones(1).expand(5, 6), "b": torch.randn(9).bfloat16()}
    torch.save(state, folder / "new.pth")
    torch.save(state, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "x.safetensors")
    return sorted(folder.iterdir())


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_damaged_file_is_read_or_refused(small_files: list[Path], tmp_path_factory, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(small_files))
    contents = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        contents[data.draw(st.integers(0, len(contents) - 1))] = data.draw(st.integers(0, 255))
    damaged = tmp_path_factory.getbasetemp() / f"damaged{path.suffix}"
    damaged.write_bytes(contents[: data.draw(st.sampled_from((len(contents), len(contents) - 1)))])
    for call in (lambda: vggscope.stats(damaged), lambda: vggscope.values(damaged, path)):
        with contextlib.suppress(CheckpointError, OptionError):
            call().to_json()


def test_no_torch_is_imported(tmp_path: Path) -> None:
    vggscope.export("conv3-4 conv3-4 maxpool FC-2", tmp_path / "a.safetensors", (1, 3, 8, 8))
    code = (
        "import sys, vggscope\n"
        "path = sys.argv[1]\n"
        "vggscope.inspect(path)\n"
        "assert 'numpy' not in sys.modules\n"
        "vggscope.stats(path), vggscope.values(path, path)\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.safetensors")], check=True)


# Statistics.


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(3,), (5, 7), (4, 70_000), (300, 3, 11, 11)]), st.floats(-1e3, 1e3))
def test_statistics_are_those_of_torch(tmp_path_factory, seed: int, shape: tuple[int, ...], mean: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=generator) + mean
    values.flatten()[::3] = 0
    path = tmp_path_factory.mktemp("one") / "a.pth"
    torch.save({"x.weight": values}, path)
    found, double = vggscope.stats(path).files[0].tensors[0], values.double()
    assert (found.minimum, found.maximum) == (double.min(), double.max())
    assert found.mean == pytest.approx(float(double.mean()), rel=1e-9, abs=1e-9)
    assert found.std == pytest.approx(float(double.std(correction=0)), rel=1e-9)
    assert found.zeros == int((values == 0).sum())


def test_dead_channels_are_found_across_pieces(tmp_path: Path) -> None:
    torch.manual_seed(0)
    wide, narrow = torch.randn(6, 200_000), torch.randn(70, 3, 50, 50)
    wide[2], narrow[3], narrow[5], narrow[60] = 0, 0, 2, -1
    torch.save({"fc.weight": wide, "conv.weight": narrow, "bn.weight": torch.zeros(4)}, tmp_path / "a.pth")
    first, second, third = vggscope.stats(tmp_path / "a.pth").files[0].tensors
    assert (first.channels, first.zero_channels, first.constant_channels) == (6, (2,), ())
    assert (second.channels, second.zero_channels, second.constant_channels) == (70, (3,), (5, 60))
    assert third.channels is None


def test_nan_and_infinity_are_counted_apart(tmp_path: Path) -> None:
    torch.save({"x": torch.tensor([1.0, float("nan"), float("inf"), 0.0, float("-inf")])}, tmp_path / "a.pth")
    found = vggscope.stats(tmp_path / "a.pth").files[0].tensors[0]
    assert (found.nans, found.infs, found.zeros) == (1, 2, 1)
    assert (found.minimum, found.maximum, found.mean, found.std) == (0, 1, 0.5, 0.5)
    json.loads(vggscope.stats(tmp_path / "a.pth").to_json())


def test_several_files_and_their_picture(tmp_path: Path, state: State, vggscope) -> None:
    for name in ("a.pth", "b.pth"):
        torch.save(state, tmp_path / name)
    paths = [str(tmp_path / name) for name in ("a.pth", "b.pth")]
    found = json.loads(vggscope("inspect", *paths, "--stats", "-f", "json").out)
    assert [file["path"] for file in found["files"]] == paths
    assert found["files"][0]["sha256"] == hashlib.sha256(Path(paths[0]).read_bytes()).hexdigest()
    picture = tmp_path / "x.svg"
    assert vggscope("inspect", *paths, "--stats", "-o", str(picture)).code == 0
    assert "16 filters of conv1_1 as RGB" in picture.read_text(encoding="utf-8")
    rows = vggscope("inspect", *paths, "--stats", "-f", "csv").out.splitlines()
    assert len(rows) == 1 + 2 * len(state)
    assert vggscope("inspect", *paths).code == 2


def test_filters_of_grey_images_and_of_constants_are_drawn(tmp_path: Path) -> None:
    weight = torch.zeros(5, 1, 7, 5)
    weight[0, 0, 0, 0] = float("nan")
    torch.save({"conv.weight": weight}, tmp_path / "a.pth")
    assert b"5 filters of conv.weight as grey" in vggscope.stats(tmp_path / "a.pth").picture(theme="dark").render()


def test_the_picture_shows_what_is_wrong_and_no_counters(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 8, 3)
    ).state_dict()
    state["0.weight"][[2, 5]] = 0
    state["2.weight"][0, 0, 0, 0] = float("nan")
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        torch.save(state, tmp_path / folder / "x.pth")
    drawn = vggscope.stats(tmp_path / "a" / "x.pth").picture().render().decode()
    assert ">2 dead<" in drawn
    assert ">1 NaN<" in drawn
    assert "crossed out: 2 all zero" in drawn
    assert "num_batches_tracked" not in drawn
    assert ">x.pth<" in drawn
    assert str(tmp_path) not in re.sub("<title>.*?</title>|<dc:title>.*?</dc:title>", "", drawn)
    both = vggscope.stats(tmp_path / "a" / "x.pth", tmp_path / "b" / "x.pth").picture().render().decode()
    assert f">{tmp_path}/a/x.pth<" in both


# Published weights.


def test_the_table_is_torchvisions() -> None:
    from torchvision import models

    known = {weights.file: weights for weights in published.published()}
    for name in models.list_models(models):
        for weights in models.get_model_weights(name):
            transform = weights.transforms()
            ours = known.pop(Path(weights.url).name)
            assert ours.name == str(weights)
            assert ([ours.resize], [ours.crop]) == (transform.resize_size, transform.crop_size)
            assert ours.interpolation == transform.interpolation.value
            assert list(ours.mean) == list(transform.mean)
            assert list(ours.std) == list(transform.std)
    assert not known


def test_published_weights_are_known_by_their_digest(tmp_path: Path, state: State, monkeypatch) -> None:
    path = tmp_path / "vgg16-397923af.pth"
    torch.save(state, path)
    assert published_by_name("elsewhere/vgg16-397923af (1).pth") == published_by_name(str(path))
    assert published_by_name("vgg16-397923ag.pth") is None
    inspected = vggscope.inspect(path)
    assert inspected.named_weights is not None
    assert inspected.named_weights.name == "VGG16_Weights.IMAGENET1K_V1"
    assert "by the file's name, not checked" in str(inspected)
    file = vggscope.stats(path).files[0]
    assert file.weights is None
    assert "differs" in file.claim
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    rows = (("VGG16.IMAGENET1K_V1", f"vgg16-{digest[:8]}", 256, 224),)
    monkeypatch.setattr(published, "_TABLE", rows)
    published.published.cache_clear()
    try:
        file = vggscope.stats(path).files[0]
        assert file.weights is not None
        assert (file.weights.title, file.claim) == ("torchvision's VGG16_Weights.IMAGENET1K_V1", "")
        assert "centre crop 224x224" in str(vggscope.stats(path))
    finally:
        published.published.cache_clear()


# The command line.


def test_exit_codes_of_diff_values(tmp_path: Path, state: State, vggscope) -> None:
    torch.save(state, tmp_path / "a.pth")
    torch.save({name: tensor.half() for name, tensor in state.items()}, tmp_path / "half.pth")
    torch.save({name: tensor + 1 for name, tensor in state.items()}, tmp_path / "other.pth")
    reference = ("--ref", str(tmp_path / "a.pth"), "--values")
    codes = [vggscope("diff", str(tmp_path / f"{name}.pth"), *reference).code for name in ("a", "half", "other", "no")]
    assert codes == [0, 0, 1, 2]
    assert vggscope("diff", str(tmp_path / "half.pth"), *reference, "--strict").code == 1
    for wrong in (("--ref", "torchvision"), (*reference[:2], "--numeric"), (*reference[:2], "--head", "dense")):
        ran = vggscope("diff", str(tmp_path / "a.pth"), *wrong, "--values")
        assert (ran.code, len(ran.err.splitlines())) == (2, 2)


def test_names_in_a_progress_bar_are_printable(tmp_path: Path, monkeypatch) -> None:
    shown: list[str] = []

    @contextlib.contextmanager
    def progress(what: str, steps: int) -> Iterator[Callable[[str], None]]:
        shown.append(what)
        yield shown.append

    for module in ("checkpoint.statistics", "diffing.values"):
        monkeypatch.setattr(f"vggscope.{module}.progress", progress)
    torch.save({"w\x1b[31m.weight": torch.zeros(2)}, tmp_path / "a.pth")
    vggscope.stats(tmp_path / "a.pth")
    vggscope.values(tmp_path / "a.pth", tmp_path / "a.pth")
    assert len(shown) == 5
    assert all(text.isprintable() for text in shown)


def test_every_format_shows_a_diff_of_values(tmp_path: Path, compared, state: State) -> None:
    found = compared({**state, CONV1: state[CONV1].flip(1), "extra": torch.zeros(2)})
    assert set(relations(found)) <= set(RELATIONS)
    for suffix in (".txt", ".json", ".csv", ".md", ".html"):
        found.save(tmp_path / f"x{suffix}")
        assert "features.0.weight" in (tmp_path / f"x{suffix}").read_text(encoding="utf-8")


@pytest.mark.slow
def test_two_large_files_take_little_memory(tmp_path: Path) -> None:
    """Two files of 253 MB, half of whose tensors differ: the memory of some pieces."""
    torch.manual_seed(0)
    state = {name: torch.randn(4096, 15_000 // 4) for name in ("a.weight", "b.weight", "c.weight", "d.weight")}
    torch.save(state, tmp_path / "a.pth")
    torch.save({**state, "a.weight": state["a.weight"] + 1, "b.weight": state["b.weight"].half()}, tmp_path / "b.pth")
    tracemalloc.start()
    try:
        assert vggscope.values(tmp_path / "b.pth", tmp_path / "a.pth").verdict == "different"
        vggscope.stats(tmp_path / "a.pth")
        assert tracemalloc.get_traced_memory()[1] < 16 * 2**20
    finally:
        tracemalloc.stop()


def test_a_second_file_is_the_reference_of_values(tmp_path: Path, state: State, vggscope) -> None:
    path = str(tmp_path / "a.pth")
    torch.save(state, path)
    assert vggscope("diff", path, path, "--values") == vggscope("diff", path, "--ref", path, "--values")
    alone = vggscope("diff", path, "--values")
    assert (alone.code, alone.out) == (2, "")
    assert "two checkpoints, one is given" in alone.err
