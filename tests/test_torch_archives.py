"""Programs of torch.export: their Network is that of the module, and no file can do harm."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

import vggscope as api
from vggscope.checkpoint.formats.archive import LARGEST_TEXT, MOST_CONTAINERS
from vggscope.errors import CheckpointError, OptionError, ShapeError, VggscopeError
from vggscope.foreign.torch.export import UNTOLD_TIES, WEIGHTS
from vggscope.graph import Network

MODELS = ("vgg11", "resnet18", "mobilenet_v2")


def exported(module: nn.Module, path: Path, *shape: int, dynamic: bool = True, core: bool = False) -> str:
    """Write a module as a program of torch.export, and return the path."""
    dims = ({0: torch.export.Dim("batch")},) if dynamic else None
    program = torch.export.export(module.eval(), (torch.zeros(shape),), dynamic_shapes=dims)
    torch.export.save(program.run_decompositions() if core else program, path)
    return str(path)


def graph_of(path: str) -> tuple[str, dict[str, Any]]:
    with zipfile.ZipFile(path) as archive:
        name = next(name for name in archive.namelist() if name.endswith("models/model.json"))
        return name, json.loads(archive.read(name))


def rewritten(path: str, target: Path, change: Callable[[dict[str, Any]], object], name: str = "") -> str:
    """Write an archive with the graph alone, after a change of its JSON."""
    old, values = graph_of(path)
    change(values)
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr(name or old, json.dumps(values))
    return str(target)


class Mixed(nn.Module):
    """Layers and functions of many kinds, a buffer, and two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.LocalResponseNorm(5, alpha=2e-4, k=2.0)
        self.up = nn.ConvTranspose2d(8, 8, 2, 2)
        self.prelu = nn.PReLU()
        self.group = nn.GroupNorm(2, 8)
        self.unused = nn.Linear(3, 4)
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1))

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.norm(self.conv((x - self.mean) / 2))
        z = self.prelu(self.up(nn.functional.interpolate(y, scale_factor=2)))
        first, second = torch.cat([z, self.group(z)], 1).chunk(2, 1)
        rows = first.flatten(2).transpose(1, 2)
        return {"map": second, "rows": torch.softmax(rows @ rows.transpose(1, 2), -1).mean((1, 2))}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(256, 2))
    return exported(net, tmp_path_factory.mktemp("small") / "small.pt2", 2, 3, 8, 8)


def figures(network: Network) -> dict[str, Any]:
    """The figures of a network that do not depend on the names of functions."""
    summary = api.summary(network)
    return {
        "parameters": {p.name: (p.shape, p.trainable, p.dtype) for p in network.parameters()},
        "totals": (summary.totals.params, summary.totals.macs, summary.totals.activation_bytes),
        "fields": {layer.name: layer.receptive_field for layer in summary.layers if layer.params},
        "layers": [(layer.name, layer.op, layer.input_shape, layer.output_shape) for layer in summary.layers],
        "outputs": [(out.name, out.shape, out.dtype) for out in network.outputs],
        "memory": [api.memory(network, batch=batch, mode=mode).peak_bytes for batch in (1, 8) for mode in MODES],
    }


MODES: tuple[Any, ...] = ("train", "inference")


@pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "static"])
@pytest.mark.parametrize("name", MODELS)
def test_the_network_is_that_of_the_module(name: str, dynamic: bool, tmp_path: Path) -> None:
    module = getattr(torchvision.models, name)(weights=None).eval()
    path = exported(module, tmp_path / f"{name}.pt2", 2 if dynamic else 1, 3, 64, 64, dynamic=dynamic)
    read, traced = api.network(path), api.network(module, input_size=(1, 3, 64, 64))
    assert read.name == f"{name}.pt2"
    assert figures(read) == figures(traced)
    assert api.diff(read, ref=traced).verdict == "identical"
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(torch.zeros(1, 3, 64, 64))
    assert 2 * (api.summary(read).totals.macs or 0) == counter.get_total_flops()


def test_a_side_that_is_a_multiple_is_solved(tmp_path: Path) -> None:
    """torch writes such a side as 2*h, and the file has no value of h."""
    module = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3))
    half, dim = torch.export.Dim("half", min=8, max=64), torch.export.Dim
    shapes = ({0: dim("batch"), 2: 2 * half, 3: dim("width", min=8)},)
    program = torch.export.export(module.eval(), (torch.zeros(2, 3, 32, 34),), dynamic_shapes=shapes)
    torch.export.save(program, path := str(tmp_path / "sides.pt2"))
    assert api.network(path).input_shape == (1, 3, 32, 34)
    for size in ((1, 3, 32, 34), (1, 3, 20, 19)):
        traced = api.network(module, input_size=size)
        assert figures(api.network(path, input_size=size[1:])) == figures(traced)
        assert api.diff(path, ref=traced, input_size=size[1:]).verdict == "identical"
    with pytest.raises(OptionError, match="sides such as those of 3x32x34, not of 3x21x20"):
        api.network(path, input_size=(3, 21, 20))


def test_a_fixed_batch_is_known_for_one_sample_too(tmp_path: Path) -> None:
    module = torchvision.models.resnet18(weights=None).eval()
    path = exported(module, tmp_path / "four.pt2", 4, 3, 64, 64, dynamic=False)
    assert figures(api.network(path)) == figures(api.network(module, input_size=(1, 3, 64, 64)))
    with pytest.raises(ShapeError, match="conv1: 3 channels are expected, the input has 1"):
        api.network(path, input_size=(3, 64, 64), batch_axis=1)


@pytest.mark.slow
def test_core_operators_have_the_same_costs(tmp_path: Path) -> None:
    module = torchvision.models.resnet18(weights=None).eval()
    read = api.network(exported(module, tmp_path / "core.pt2", 2, 3, 64, 64, core=True))
    ours, theirs = (api.summary(net).totals for net in (read, api.network(module, input_size=(1, 3, 64, 64))))
    assert (ours.params, ours.macs) == (theirs.params, theirs.macs)
    assert read.warnings == ()


def test_layers_and_functions_of_many_kinds(tmp_path: Path) -> None:
    module = Mixed().eval()
    read = api.network(exported(module, tmp_path / "mixed.pt2", 2, 3, 8, 8))
    traced = api.network(module, input_size=(1, 3, 8, 8))
    assert [(n.name, n.op) for n in read.nodes if n.parameters] == [
        (n.name, n.op) for n in traced.nodes if n.parameters
    ]
    assert read.by_name["norm"].op == traced.by_name["norm"].op
    assert api.summary(read).totals.macs == api.summary(traced).totals.macs
    assert [(out.name, out.shape) for out in read.outputs] == [(out.name, out.shape) for out in traced.outputs]
    assert [parameter.name for parameter, _ in read.unused] == ["unused.weight", "unused.bias"]
    assert [buffer.name for buffer in read.tables] == ["mean"]


class Tied(nn.Module):
    """An output layer with the weights of the first layer, which torch.export's signature names twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 6, bias=False)
        self.last = nn.Linear(6, 6)
        self.last.weight = self.first.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.first(x)))


def test_tied_weights_count_once(tmp_path: Path) -> None:
    module = Tied()
    path = exported(module, tmp_path / "tied.pt2", 2, 6)
    with zipfile.ZipFile(path) as archive:
        if not any(name.endswith(WEIGHTS) for name in archive.namelist()):
            pytest.skip("this torch writes no list of the weights")
    totals = api.summary(path).totals
    assert totals.params == totals.trainable_params == sum(p.numel() for p in module.parameters()) == 42
    assert not api.network(path).unused


@pytest.mark.parametrize("member", ["serialized_state_dict.pt", "x/data/weights/model.pt", ""])
def test_ties_in_older_archives_are_those_of_the_checkpoint_in_it(tmp_path: Path, member: str) -> None:
    module = Tied()
    path = exported(module, tmp_path / "tied.pt2", 2, 6)
    with zipfile.ZipFile(path) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("model.json"))
        text = archive.read(name)
    state = io.BytesIO()
    torch.save(module.state_dict(), state)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("serialized_exported_program.json", text)
        if member:
            archive.writestr(member, state.getvalue())
    totals = api.summary(path).totals
    assert totals.params == (42 if member else 42 + 36)
    assert (UNTOLD_TIES in api.network(path).warnings) == (not member)


@pytest.mark.slow
def test_a_transformer_has_its_costs(tmp_path: Path) -> None:
    module = torchvision.models.vit_b_16(weights=None, image_size=32).eval()
    for core in (False, True):
        read = api.network(exported(module, tmp_path / f"vit{core}.pt2", 2, 3, 32, 32, core=core))
        # torch's counter knows neither MultiheadAttention's operator without gradients nor the CPU's attention.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            module(torch.zeros(1, 3, 32, 32))
        assert 2 * (api.summary(read).totals.macs or 0) == counter.get_total_flops()
        assert read.batched(read.end, 5) == (5, 1000)


def test_an_unknown_operator_is_kept(small: str, tmp_path: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        relu = values["graph_module"]["graph"]["nodes"][2]
        assert relu["target"].startswith("torch.ops.aten.relu")
        relu["target"] = "torch.ops.mine.swirl.default"

    network = api.network(rewritten(small, tmp_path / "swirl.pt2", change))
    summary = api.summary(network)
    assert network.nodes[2].op.is_unknown
    assert summary.layers[2].macs is None
    assert summary.totals.macs is None
    assert network.shapes[network.nodes[2].name] == (1, 4, 8, 8)
    assert any("the cost of mine::swirl is unknown" in warning for warning in network.warnings)


def test_the_layout_of_torch_before_2_7_is_read(small: str, tmp_path: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        for node in values["graph_module"]["graph"]["nodes"]:
            for given in node["inputs"]:
                del given["kind"]

    old = rewritten(small, tmp_path / "old.pt2", change, "serialized_exported_program.json")
    assert figures(api.network(old)) == figures(api.network(small))


def test_other_sizes(small: str, tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    path = exported(module, tmp_path / "pooled.pt2", 2, 3, 8, 8)
    read = api.network(path, input_size=(1, 3, 20, 16))
    assert [read.shapes[node.name] for node in read.nodes] == [(1, 4, 18, 14), (1, 4, 1, 1), (1, 4), (1, 2)]
    assert "exported at 3x8x8" in read.warnings[0]
    assert read.batched(read.nodes[0].name, 3) == (3, 4, 18, 14)
    with pytest.raises(ShapeError, match="256 features are expected"):
        api.network(small, input_size=(1, 3, 20, 16))
    with pytest.raises(OptionError, match="takes 3x8x8"):
        api.network(small, input_size=(1, 5))


@pytest.mark.slow
@pytest.mark.parametrize("word", ["A", "D_bn", "A-LRN"])
def test_build_writes_what_is_read_back(word: str, tmp_path: Path) -> None:
    network = api.network(word, (3, 32, 32))
    path = tmp_path / "built.pt2"
    api.export(network, str(path))
    read = api.network(str(path))
    assert figures(read) == figures(network)
    assert [node.label for node in read.nodes] == [node.label for node in network.nodes]


def test_weights_are_not_read_and_torch_is_not_imported(small: str, tmp_path: Path) -> None:
    bare = rewritten(small, tmp_path / "bare.pt2", lambda values: None)
    assert figures(api.network(bare)) == figures(api.network(small))
    code = "import sys, vggscope; vggscope.summary(sys.argv[1]); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code, bare], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


def test_every_truncation_is_refused(small: str, tmp_path: Path) -> None:
    data, cut = Path(small).read_bytes(), tmp_path / "cut.pt2"
    for tenth in range(10):
        cut.write_bytes(data[: len(data) * tenth // 10])
        with pytest.raises(CheckpointError, match=r"cut\.pt2: "):
            api.network(str(cut))


def _archive(target: Path, text: bytes) -> str:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/models/model.json", text)
    return str(target)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (b"[" * 300_000, "not valid JSON"),
        (b'{"a":' * 50_000, "not valid JSON"),
        (b"[" + b"{}," * (MOST_CONTAINERS + 1), "more values"),
        (b" " * (LARGEST_TEXT + 1), "at most 16 MiB"),
        (b"[]", "holds no object"),
        (b"{}", "lacks"),
        (b'{"graph_module": 3}', "not of a form"),
    ],
    ids=["lists", "objects", "values", "bomb", "list", "empty", "number"],
)
def test_a_hostile_text_is_refused(text: bytes, match: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=match):
        api.network(_archive(tmp_path / "bad.pt2", text))


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set one value, by the keys that lead to it."""

    def change(values: dict[str, Any]) -> None:
        *keys, last = [int(key) if key.lstrip("-").isdigit() else key for key in path.split("/")]
        inner: Any = values["graph_module"]
        for key in keys:
            inner = inner[key]
        inner[last] = value

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("graph/nodes/0/inputs/0/arg", {"as_tensor": {"name": "linear"}}),  # a circle
        ("graph/nodes/0/inputs/0/arg", {"as_tensor": {"name": "nothing"}}),
        ("graph/nodes/0/inputs/0/arg", 3),
        ("graph/nodes/0/inputs", [[]]),
        ("graph/nodes/0/outputs", [{"as_tensors": [{"name": "conv2d"}] * 100_000}]),
        ("graph/nodes/0/outputs", [None]),
        ("graph/nodes", [3]),
        ("graph/nodes", [{}] * 100_000),
        ("graph/tensor_values/conv2d/sizes", [{"as_int": -1}]),
        ("graph/tensor_values/conv2d/sizes", [{"as_int": 2**62}] * 4),
        ("graph/tensor_values/conv2d/sizes", [{"as_int": 1}] * 100_000),
        ("graph/tensor_values/x/sizes", [{"as_expr": {"expr_str": "9**9**9**9", "hint": {"as_int": 2}}}]),
        ("graph/tensor_values/input/sizes", [{"as_expr": {"expr_str": "Pow(9, Pow(9, 99))"}}]),
        ("graph/tensor_values/conv2d/dtype", "float"),
        ("graph/tensor_values/conv2d", None),
        ("signature/input_specs", []),
        ("signature/output_specs", []),
        ("module_call_graph", [{"fqn": ["a"]}]),
    ],
)
def test_a_changed_graph_is_described_or_refused(path: str, value: object, small: str, tmp_path: Path) -> None:
    try:
        changed = rewritten(small, tmp_path / "changed.pt2", _set(path, value))
    except KeyError:
        return  # torch names this tensor otherwise in this version
    with suppress(VggscopeError):  # any other error fails
        api.summary(changed)


def test_pieces_of_a_huge_tensor_are_not_made(small: str, tmp_path: Path) -> None:
    def change(values: dict[str, Any]) -> None:
        relu = values["graph_module"]["graph"]["nodes"][2]
        relu["target"] = "torch.ops.aten.split.Tensor"
        relu["inputs"].append({"name": "split_size", "arg": {"as_int": 1}, "kind": 1})
        relu["inputs"].append({"name": "dim", "arg": {"as_int": 1}, "kind": 1})
        name = relu["inputs"][0]["arg"]["as_tensor"]["name"]
        values["graph_module"]["graph"]["tensor_values"][name]["sizes"][1] = {"as_int": 10**9}

    network = api.network(rewritten(small, tmp_path / "split.pt2", change))
    assert len(network.nodes) == 5
    assert network.warnings


def test_an_archive_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt2"
    torch.save({"a": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match=r"no graph of torch\.export"):
        api.network(str(path))
    path.write_bytes(io.BytesIO(b"no archive").getvalue())
    with pytest.raises(CheckpointError, match="damaged or cut short"):
        api.network(str(path))


class Attends(nn.Module):
    def __init__(self, heads: int = 4, weights: bool = False) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(16, heads, batch_first=True)
        self.head = nn.Linear(16, 4)
        self.weights = weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.attention(x, x, x, need_weights=self.weights)[0])


@pytest.mark.parametrize(
    ("in_file", "module", "is_equal"),
    [
        (Attends(), Attends(), True),
        (Attends(), Attends(heads=2), False),
        # With weights returned torch multiplies and takes the softmax one by one.
        (Attends(weights=True), Attends(weights=True), False),
    ],
    ids=["fused", "other heads", "in products"],
)
def test_an_attention_that_is_written_as_its_operations(
    tmp_path: Path, in_file: nn.Module, module: nn.Module, is_equal: bool
) -> None:
    """It is proven equal where the file has torch's fused attention, else said to be unmatched."""
    torch.export.save(torch.export.export(in_file.eval(), (torch.zeros(1, 5, 16),)), tmp_path / "x.pt2")
    for pair in ((str(tmp_path / "x.pt2"), module.eval()), (module.eval(), str(tmp_path / "x.pt2"))):
        found = api.diff(pair[0], ref=pair[1], input_data=torch.zeros(1, 5, 16))
        assert found.verdict == ("equivalent" if is_equal else "different")
        told = "these compute the same" if is_equal else "these are not matched, so it is not known"
        assert any(note.startswith("attention is one layer of") and told in note for note in found.notes)
        assert not any("another network" in note for note in found.notes)


class Swaps(nn.Module):
    """Axes swapped by another of torch's names, and by an operator without a rule."""

    def __init__(self, has_rule: bool) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 5)
        self.has_rule = has_rule

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.fc(torch.swapaxes(x, 1, 2))
        return y if self.has_rule else torch.diff(y, dim=1)


def test_shapes_of_another_batch_are_not_those_of_the_file(tmp_path: Path) -> None:
    """An operator whose shape the file alone tells fixes the batch: at another it would be wrong."""
    swaps, diffs = Swaps(True).eval(), Swaps(False).eval()
    one = api.network(exported(swaps, tmp_path / "swaps.pt2", 2, 6, 4, dynamic=False))
    assert (one.single, one.shapes[one.end]) == (None, (1, 4, 5))
    assert api.summary(one).totals == api.summary(api.network(swaps, input_size=(1, 6, 4))).totals
    two = api.network(exported(diffs, tmp_path / "diffs.pt2", 2, 6, 4, dynamic=False))
    assert (two.input_shape, two.shapes[two.end]) == ((2, 6, 4), (2, 3, 5))
    assert "fixed batch" in (two.single or "")
    with pytest.raises(ShapeError, match=r"the shape of what diff returns is known for the sizes in the file alone"):
        api.network(str(tmp_path / "diffs.pt2"), input_size=(6, 7))
