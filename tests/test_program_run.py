"""Programs in files of torch.export and TorchScript, run by vggscope's own calls: the numbers are those of torch."""

from __future__ import annotations

import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import vggscope
from vggscope.builders.graph_module import graph_module, tape_of
from vggscope.diffing.result import Numeric
from vggscope.errors import ModelError, OptionError, VggscopeError
from vggscope.inputs import Inputs, InputSize
from vggscope.sources.resolve import runner_of
from vggscope.suppress import suppress_output
from vggscope.trace.inputs import CallInputs
from vggscope.vgg.options import BuildOptions

KINDS = ("export", "core", "trace", "script")


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.fc = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.bn1(self.conv1(x)))
        x = functional.relu(self.conv2(x) + x, inplace=True)
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 4, 3, padding=1)
        self.middle = nn.Conv2d(4, 8, 3, padding=1)
        self.up = nn.ConvTranspose2d(8, 4, 2, 2)
        self.out = nn.Conv2d(12, 2, 1)
        self.act = nn.PReLU(4)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.act(self.down(x))
        low = torch.relu(self.middle(functional.max_pool2d(skip, 2)))
        wide = functional.interpolate(low[:, :4], scale_factor=2.0, mode="bilinear", align_corners=False)
        return self.out(torch.cat([skip, self.up(low), wide], 1)).clamp(-1, 1)


class Inception(nn.Module):
    """Branches of dense connections, with norms of other kinds and a pool that rounds up."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 3, padding=1)
        self.group, self.norm, self.lrn = nn.GroupNorm(2, 8), nn.InstanceNorm2d(8, affine=True), nn.LocalResponseNorm(3)
        self.mix = nn.Conv2d(27, 6, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        both = torch.cat([self.a(x), self.b(x)], 1)
        first, second = both.chunk(2, 1)
        rest = torch.cat([self.group(both), self.norm(both), self.lrn(both), x], 1)
        out = functional.avg_pool2d(self.mix(rest), 3, 2, ceil_mode=True)
        return out * torch.sigmoid(out) - 2 * out.mean((2, 3), keepdim=True), (first - second).abs().amax(1)


class Transformer(nn.Module):
    """Patches with a class token and positions, and attention written by hand and by torch's function."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 8, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.place = nn.Parameter(torch.randn(1, 5, 8))
        self.norm, self.qkv, self.head = nn.LayerNorm(8), nn.Linear(8, 24), nn.Linear(8, 3)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.register_buffer("order", torch.tensor([4, 3, 2, 1, 0]))

    def forward(self, x: Tensor) -> Tensor:
        rows = self.patch(x).flatten(2).transpose(1, 2)
        rows = torch.cat([self.token.expand(rows.shape[0], -1, -1), rows], 1) + self.place[:, self.order]
        b, n, _ = rows.shape
        q, k, v = self.qkv(self.norm(rows)).reshape(b, n, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        weights = torch.softmax(q @ k.transpose(-2, -1) * 0.5, -1)
        rows = rows + (weights @ v).transpose(1, 2).reshape(b, n, 8)
        rows = rows + self.attention(rows, rows, rows, need_weights=False)[0]
        return self.head(functional.gelu(rows[:, 0]))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 6)
        self.lstm = nn.LSTM(6, 5, 2, batch_first=True, bidirectional=True)
        self.gru = nn.GRU(10, 4, batch_first=True)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows, _ = self.lstm(self.table(x))
        rows, last = self.gru(rows)
        return self.fc(last[0]) + self.fc(rows[:, -1])


class Masks(nn.Module):
    """Constants that forward computes: a table that it writes to in place, indices, numbers and another dtype."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(6, 6)
        self.bias_table = nn.Parameter(torch.randn(7))
        self.register_buffer("index", torch.arange(36).reshape(6, 6) % 7)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros(6, 6)
        mask[:2] = 1
        mask[2:, 3:].fill_(3)
        scores = self.fc(x) + self.bias_table[self.index].sum(0) + mask.mean(1)
        scores = scores.masked_fill(scores > 1, -2.0)
        return torch.where(scores > 0, scores.double().float(), -scores)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[int], Tensor]]] = {
    "residual": (Residual, lambda batch: torch.randn(batch, 3, 8, 8)),
    "unet": (UNet, lambda batch: torch.randn(batch, 3, 8, 8)),
    "inception": (Inception, lambda batch: torch.randn(batch, 3, 8, 8)),
    "transformer": (Transformer, lambda batch: torch.randn(batch, 3, 8, 8)),
    "recurrent": (Recurrent, lambda batch: torch.randint(0, 11, (batch, 7))),
    "masks": (Masks, lambda batch: torch.randn(batch, 6)),
}


def model(name: str) -> nn.Module:
    """A module whose norms have statistics and weights of their own."""
    torch.manual_seed(3)
    module = MODELS[name][0]().eval()
    with torch.no_grad():
        for tensor in module.state_dict().values():
            if tensor.dim() == 1 and tensor.is_floating_point():
                tensor.uniform_(0.3, 1.4)
    return module


def written(module: nn.Module, path: Path, kind: str, example: Tensor) -> str:
    """A file of the module."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        if kind == "trace":
            torch.jit.trace(module, example, check_trace=False).save(str(path := path.with_suffix(".pt")))
        elif kind == "script":
            torch.jit.script(module).save(str(path := path.with_suffix(".pt")))
        else:
            program = torch.export.export(module, (example,))
            program = program.run_decompositions() if kind == "core" else program
            torch.export.save(program, path := path.with_suffix(".pt2"))
    return str(path)


def layers_of(module: nn.Module, example: Tensor) -> tuple[Any, dict[str, Tensor]]:
    """What a module returns, and what each of its layers returned first."""
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: object, output: Any) -> None:
            found.setdefault(name, (output if isinstance(output, Tensor) else output[0]).detach().clone())

        return hook

    hooks = [part.register_forward_hook(keep(name)) for name, part in module.named_modules() if name]
    with torch.no_grad():
        result = module(example.clone())
    for hook in hooks:
        hook.remove()
    return result, found


def error(mine: Tensor, theirs: Tensor) -> float:
    assert (mine.shape, mine.dtype) == (theirs.shape, theirs.dtype)
    return float((mine - theirs).abs().max() / theirs.abs().max())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", MODELS)
def test_a_program_computes_what_its_module_does(tmp_path: Path, name: str, kind: str) -> None:
    module, example = model(name), MODELS[name][1](1)
    path = written(module, tmp_path / "x", kind, example)
    options = BuildOptions(inputs=Inputs((), data=example))
    runner = runner_of(path, options)
    assert runner is not None
    result, layers = layers_of(module, example)
    with torch.no_grad():
        made, found = runner.run(CallInputs((example,)), runner.network.nodes, 0)
    expected = result if isinstance(result, Tensor) else result[runner.network.output_place]
    assert error(made, expected) < 1e-5
    # A program has some layers in parts, of which the first has the layer's name.
    kinds = {node.name: node.op.name for node in runner.network.nodes}
    shared = [layer for layer, part in module.named_modules() if kinds.get(layer) == type(part).__name__]
    assert shared
    for layer in shared:
        assert error(found[layer], layers[layer]) < 1e-5, layer


def compared(model: Any, ref: Any, **options: Any) -> Numeric:
    """How the outputs of two models differ on an image of 8 pixels a side."""
    found = vggscope.diff(model, ref=ref, input_size=(3, 8, 8), numeric=True, **options).numeric
    assert found is not None
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_compared_with_its_module(tmp_path: Path, kind: str) -> None:
    module, example = model("residual"), torch.zeros(1, 3, 8, 8)
    path = written(module, tmp_path / "x", kind, example)
    for pair in ((path, module), (module, path)):
        found = compared(*pair)
        assert found.max_rel_error <= found.tolerance
        assert (found.changed_weights, found.parts_at, found.our_unmatched, found.reference_unmatched) == (
            0,
            None,
            (),
            (),
        )
        assert found.engines == (f"torch {torch.__version__.partition('+')[0]}",) * 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_that_differs_names_its_layer(tmp_path: Path, kind: str) -> None:
    module, example = model("residual"), torch.zeros(1, 3, 8, 8)
    first = written(module, tmp_path / "first", kind, example)
    with torch.no_grad():
        module.get_parameter("conv2.weight")[2, 1, 0, 2] += 0.5
    second = written(module, tmp_path / "second", kind, example)
    found = compared(first, second)
    assert (found.changed_weights, found.parts_at) == (None, "conv2")
    assert (found.parts_error or 0) > found.tolerance
    torch.save(module.state_dict(), tmp_path / "second.pth")
    assert compared(first, module, weights=str(tmp_path / "second.pth")).parts_at == "conv2"
    replaced = compared(first, model("residual"), weights=str(tmp_path / "second.pth"))
    assert replaced.parts_at == "conv2"
    found = compared(first, module)
    assert (found.changed_weights, found.parts_at) == (1, None)


def test_a_file_runs_in_its_own_dtype(tmp_path: Path) -> None:
    path = written(model("residual"), tmp_path / "x", "export", torch.zeros(1, 3, 8, 8))
    with pytest.raises(OptionError, match=r"x\.pt2 computes in float32: a file is run in its own dtypes"):
        compared(path, model("residual"), float64=True)
    module = model("residual").bfloat16()
    half = written(module, tmp_path / "half", "export", torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16))
    found = compared(half, module)
    assert found.dtype == "bfloat16"
    assert found.max_rel_error <= found.tolerance


def changed(path: str, target: Path, change: Callable[[dict[str, Any]], None]) -> str:
    """A copy of a program of torch.export with another graph."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(target, "w") as made:
        for name in source.namelist():
            data = source.read(name)
            if name.endswith("models/model.json"):
                values = json.loads(data)
                change(values["graph_module"]["graph"])
                data = json.dumps(values).encode()
            made.writestr(name, data)
    return str(target)


@pytest.mark.parametrize(
    ("operator", "named"),
    [
        ("torch.ops.mine.swirl.default", "mine::swirl"),
        ("torch.ops.aten.from_file.default", "from_file"),
        ("torch.ops.aten._print.default", "_print"),
        ("torch.ops.aten.rand_like.default", "rand_like"),
        ("torch.ops.higher_order.cond", "higher_order::cond"),
    ],
)
def test_an_operator_that_is_not_run_is_named(tmp_path: Path, operator: str, named: str) -> None:
    def change(graph: dict[str, Any]) -> None:
        call = next(node for node in graph["nodes"] if node["target"].startswith("torch.ops.aten.relu"))
        call["target"] = operator

    path = written(model("unet"), tmp_path / "x", "export", torch.zeros(1, 3, 8, 8))
    with pytest.raises(ModelError) as caught:
        compared(changed(path, tmp_path / "y.pt2", change), path)
    assert caught.value.problem.startswith("y.pt2 cannot be run: ")
    assert f"is a call of {named}, for which there is no call of torch's to run" in caught.value.problem


def test_a_constant_that_no_machine_holds_is_refused(tmp_path: Path) -> None:
    class Wide(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.zeros(3, 2).sum()

    path = written(Wide(), tmp_path / "x", "trace", torch.zeros(1, 2))
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "y.pt", "w") as made:
        for name in source.namelist():
            made.writestr(name, source.read(name).replace(b"torch.zeros([3, 2]", b"torch.zeros([2000000000, 2]"))
    with pytest.raises(VggscopeError, match=r"makes a constant of 4000000000 elements"):
        vggscope.diff(str(tmp_path / "y.pt"), ref=path, input_data=torch.zeros(1, 2), numeric=True)


@pytest.mark.parametrize("kind", ["export", "trace"])
def test_weights_of_a_program_are_loaded_and_checked(tmp_path: Path, kind: str) -> None:
    column = vggscope.build("conv3-8 maxpool FC-10", input_size=(3, 8, 8), head="flatten").eval()
    path = written(column, tmp_path / "x", kind, torch.zeros(1, 3, 8, 8))
    check = vggscope.export(
        "conv3-8 maxpool FC-10", tmp_path / "y.pth", (3, 8, 8), weights=path, check=True, head="flatten"
    )
    assert check is not None
    assert (check.agrees, check.engine) == (True, "torch")
    state = torch.load(tmp_path / "y.pth")
    assert all(torch.equal(state[key], tensor) for key, tensor in column.state_dict().items())
    assert vggscope.values(path, tmp_path / "y.pth").verdict == "identical"


def test_any_network_of_a_file_is_run(tmp_path: Path) -> None:
    """A locked architecture has ops and no code: what it computes is what the module does."""
    torch.manual_seed(0)
    module = model("residual")
    vggscope.lock(module, input_size=(1, 3, 8, 8)).save(tmp_path / "arch.json")
    found = compared(module, str(tmp_path / "arch.json"))
    assert found.max_rel_error <= found.tolerance
    assert not found.reference_unmatched
    run = graph_module(tape_of(vggscope.network(str(tmp_path / "arch.json"))))
    run.load_state_dict(module.state_dict())
    example = torch.randn(1, 3, 8, 8)
    with torch.no_grad():
        assert error(run(example), module(example)) < 1e-6


class Rows(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("kind", ["onnx", "pt2", "json"])
def test_a_size_with_the_batch_is_that_of_the_file(tmp_path: Path, kind: str, batch: int) -> None:
    """In Python a size with as many axes as the file's input has the batch first; else it must be the file's own."""
    path, module, example = tmp_path / f"rows.{kind}", Rows().eval(), torch.zeros(batch, 5, 16)
    if kind == "onnx":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter without dynamo is deprecated
            torch.onnx.export(module, (example,), str(path), dynamo=False)
    elif kind == "pt2":
        torch.export.save(torch.export.export(module, (example,)), path)
    else:
        vggscope.lock(module, input_data=example).save(path)
    for size in ((5, 16), (1, 5, 16), [(1, 5, 16)], (3, 5, 16)):
        read = vggscope.network(str(path), input_size=size)
        assert (read.input_shape, read.shapes[read.end]) == ((1, 5, 16), (1, 5, 4))
        assert read.given_batch == (3 if size[0] == 3 else 1)
    own = InputSize((1 if kind == "json" else batch, 5, 16))
    assert vggscope.network(str(path), input_size=[own]).input_shape == (1, 5, 16)
    with pytest.raises(VggscopeError):
        vggscope.network(str(path), input_size=[InputSize((7, 5, 16))])
    with pytest.raises(VggscopeError):
        vggscope.network(str(path), input_size=(1, 5, 17))


def test_a_reference_has_the_inputs_that_its_program_fixes(tmp_path: Path) -> None:
    path = written(model("unet"), tmp_path / "x", "export", torch.zeros(1, 3, 12, 8))
    found = vggscope.diff(model("unet"), ref=path, numeric=True)
    assert found.numeric is not None
    assert found.numeric.input_shape == (1, 3, 12, 8)
    assert found.numeric.max_rel_error <= found.numeric.tolerance


CODE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        x = torch.relu(self.one(x))
        return self.fc((x + self.two(x)).mean((2, 3)))


class Two(Net):
    def forward(self, x, y):
        return super().forward(x) + super().forward(y)


class Chooses(Net):
    def forward(self, x):
        return super().forward(x) if x.sum() < 1 else x
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    """A module of the class in `net.py`, which is no chain, with its weights in `net.pt2`."""
    monkeypatch.chdir(tmp_path)
    Path("net.py").write_text(CODE)
    torch.manual_seed(5)
    module = vggscope.build("net.py:Net").eval()
    torch.export.save(torch.export.export(module, (torch.zeros(1, 3, 8, 8),)), "net.pt2")
    return module


@pytest.mark.parametrize("suffix", ["pth", "safetensors", "onnx", "pt2"])
def test_your_own_module_is_written_with_the_weights_of_a_file(net: nn.Module, suffix: str) -> None:
    check = vggscope.export("net.py:Net", f"out.{suffix}", (3, 8, 8), weights="net.pt2", check=True)
    assert check is not None
    assert check.agrees
    state = vggscope.build("net.py:Net", weights=f"out.{suffix}").state_dict()
    assert all(torch.equal(state[key], tensor) for key, tensor in net.state_dict().items())


def test_what_is_not_written_of_your_own_module_is_said(net: nn.Module, vggscope: Any) -> None:
    given = ("--weights", "net.pt2", "--input", "3x8x8")
    assert vggscope("build", "net.py:Net", *given, "-o", "net2.py").err.splitlines() == [
        "vggscope: --weights net.pt2: a .py holds no weights",
        "write .pth, .safetensors or .onnx",
    ]
    told = vggscope("build", "net.py:Two", *given, "--input", "3x8x8", "-o", "two.onnx")
    assert (told.code, told.err.splitlines()[0]) == (
        2,
        "vggscope: net.py:Two takes more than one batch of samples, which alone is written",
    )
    assert not Path("two.onnx").exists()
    told = vggscope("build", "net.py:Chooses", *given, "-o", "chooses.pt2")
    assert told.code == 2
    assert told.err.startswith("vggscope: torch does not export net.py:Chooses: ")
    assert vggscope("build", "net.py:Two", *given, "--input", "3x8x8", "-o", "two.pth").code == 0


class Steps(nn.Module):
    """A recurrent network that reads the steps along the first axis, and returns the last step or all of them."""

    def __init__(self, kind: type[nn.RNNBase], last: bool) -> None:
        super().__init__()
        self.rows, self.fc, self.last = kind(6, 5), nn.Linear(5, 2), last

    def forward(self, x: Tensor) -> Tensor:
        rows = self.rows(x)[0]
        return self.fc(rows[-1] if self.last else rows)


@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("suffix", ["pt2", "open.pt2", "onnx"])
def test_the_steps_of_a_sequence_are_no_batch(tmp_path: Path, suffix: str, kind: type[nn.RNNBase], last: bool) -> None:
    module, path = Steps(kind, last).eval(), str(tmp_path / f"x.{suffix}")
    example = torch.zeros(7, 3, 6)
    with warnings.catch_warnings(), suppress_output():
        warnings.simplefilter("ignore")  # of weights that the exporters set
        if suffix == "onnx":
            torch.onnx.export(module, (example,), path, dynamo=True, verbose=False)
        else:
            opened: Any = {"dynamic_shapes": ({1: torch.export.Dim("batch")},)} if suffix == "open.pt2" else {}
            torch.export.save(torch.export.export(module, (example,), **opened), path)
    read = vggscope.network(path)
    expected = vggscope.network(module, input_size=[InputSize((7, 6))], batch_axis=1)
    if suffix == "onnx" and kind is nn.RNN:
        # The exporter writes each step, and first states of the batch, whose product with 5x5 weights it computes.
        assert (read.input_shape, bool(read.single)) == ((7, 3, 6), True)
        assert vggscope.summary(read).totals.macs == 3 * ((vggscope.summary(expected).totals.macs or 0) - 25)
        return
    assert (read.input_shape, read.single) == ((7, 1, 6), None)
    assert read.shapes[read.end] == expected.shapes[expected.end]
    assert vggscope.summary(read).totals.macs == vggscope.summary(expected).totals.macs
    assert any("the batch is taken to be axis 1 of its input" in note for note in read.warnings)
    told = vggscope.network(path, input_size=[InputSize((7, 6))], batch_axis=1)
    assert (told.nodes, told.input_shape) == (read.nodes, read.input_shape)
    # Where the caller says that the batch is first, it is not believed: the figures are those of the file.
    first = vggscope.network(path, input_size=[InputSize((3, 6))])
    assert "is not known" in (first.single or "")


def test_a_batch_on_another_axis_is_named_by_the_caller(tmp_path: Path) -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x.transpose(0, 1))

    path = str(tmp_path / "x.pt2")
    torch.export.save(torch.export.export(Turned().eval(), (torch.zeros(3, 2, 8, 8),)), path)
    assert vggscope.network(path).single is not None
    read = vggscope.network(path, input_size=[InputSize((3, 8, 8))], batch_axis=1)
    assert (read.input_shape, read.shapes[read.end], read.single) == ((3, 1, 8, 8), (1, 4, 6, 6), None)
    assert vggscope.summary(read).totals.macs == 4 * 3 * 9 * 36
    none = vggscope.network(path, input_size=[InputSize((3, 2, 8, 8))], batch_axis=None)
    assert (none.shapes[none.end], none.single) == ((2, 4, 6, 6), "the program was read without a batch")
