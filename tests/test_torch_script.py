"""TorchScript archives: their code is followed on shapes and never run; the figures are those of the eager module."""

from __future__ import annotations

import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import get_model

import vggscope
from tests.peak_memory import HIGHEST
from vggscope.checkpoint.inspection import inspect
from vggscope.checkpoint.reader import read
from vggscope.errors import CheckpointError, ShapeError, VggscopeError
from vggscope.foreign.torch.script_code import parsed
from vggscope.plain_data import plain_value


def compiled(module: nn.Module, path: Path, how: str, *example: Tensor) -> str:
    """A file of torch.jit.save."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.jit is deprecated
        module.eval()
        script = torch.jit.trace(module, example, check_trace=False) if how == "trace" else torch.jit.script(module)
        torch.jit.save(torch.jit.freeze(script) if how == "freeze" else script, str(path))
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["script", "trace"])
@pytest.mark.parametrize("name", ["vgg11", "vgg11_bn", "resnet18", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_the_figures_are_those_of_the_module(tmp_path: Path, name: str, how: str) -> None:
    module = get_model(name, num_classes=10)
    path = compiled(module, tmp_path / "model.pt", how, torch.zeros(1, 3, 64, 64))
    ours = plain_value(vggscope.summary(path, input_size=(3, 64, 64)))
    theirs = plain_value(vggscope.summary(module, input_size=(3, 64, 64)))
    told = {"model", "torch_count", "warnings"}
    assert {key: ours[key] for key in ours.keys() - told} == {key: theirs[key] for key in theirs.keys() - told}
    assert vggscope.diff(path, ref=module, input_size=(3, 64, 64)).verdict == "identical"
    assert vggscope.memory(path, batch=4).peak_bytes == vggscope.memory(module, batch=4).peak_bytes
    assert vggscope.network(path).input_shape == (1, 3, 224, 224)


class Looping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList([nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)])
        self.times = 2
        self.last = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = functional.relu(part(x)) + x
        for _ in range(self.times):
            x = x * 2
        if x.shape[1] > 3:
            x = x[:, :3]
        batch, _, height, width = x.shape
        return self.last(x).permute(0, 2, 3, 1).reshape(batch, height * width * 3)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(50, 8)
        self.layer = nn.LSTM(8, 6, batch_first=True, bidirectional=True)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.layer(self.words(x))
        return self.head(states[:, -1])


class Several(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.map = nn.ConvTranspose2d(3, 4, 2, 2)
        self.norm = nn.InstanceNorm2d(4)
        self.act = nn.PReLU()
        self.lrn = nn.LocalResponseNorm(3)
        self.row = nn.Linear(5, 2)

    def forward(self, x: Tensor, row: Tensor) -> dict[str, Tensor]:
        x = functional.interpolate(
            self.act(self.norm(self.map(x))), scale_factor=2.0, mode="bilinear", align_corners=False
        )
        one, two = self.lrn(x).chunk(2, 1)
        return {"maps": torch.cat([one.softmax(1), two], 1), "row": self.row(row), "best": x.argmax(1)}


OWN: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "loops": (Looping, (torch.zeros(1, 3, 8, 8),)),
    "recurrent": (Recurrent, (torch.zeros(1, 12, dtype=torch.int64),)),
    "several": (Several, (torch.zeros(1, 3, 8, 8), torch.zeros(1, 5))),
    "attention": (lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (torch.zeros(1, 10, 16),)),
}


@pytest.mark.parametrize("name", OWN)
def test_loops_conditions_and_several_tensors_are_followed(tmp_path: Path, name: str) -> None:
    make, example = OWN[name]
    module = make().eval()
    path = compiled(module, tmp_path / "own.pt", "script")
    ours, theirs = (vggscope.summary(word, input_data=example) for word in (path, module))
    assert (ours.totals.macs, ours.totals.params) == (theirs.totals.macs, theirs.totals.params)
    expected = module(*example)
    values = list(expected.values()) if isinstance(expected, dict) else [expected]
    assert [output.shape for output in ours.outputs] == [tuple(value.shape) for value in values]
    if name in ("loops", "several"):
        assert vggscope.diff(path, ref=module, input_data=example).verdict == "identical"


class Sequence(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LSTM(8, 5, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


def test_a_sequence_of_four_axes_is_an_error_as_torchs_own(tmp_path: Path) -> None:
    module = Sequence()
    with pytest.raises(ValueError, match="2D or 3D"):
        module(torch.zeros(1, 2, 7, 8))
    for how in ("script", "trace"):
        path = compiled(module, tmp_path / f"{how}.pt", how, torch.zeros(1, 7, 8))
        assert vggscope.network(path, input_size=(7, 8)).shapes["layer"] == (1, 7, 5)
        with pytest.raises(ShapeError, match=r"2 or 3 axes|2D or 3D"):
            vggscope.network(path, input_size=(2, 7, 8))


class Pooling(nn.Module):
    """Pools without a stride, whose code has an empty list for it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.conv(functional.avg_pool2d(x, (2, 3))), 2)
        return functional.avg_pool1d(x.flatten(2), 3)


@pytest.mark.parametrize("how", ["script", "trace"])
def test_the_stride_of_a_functional_pool_is_its_window(tmp_path: Path, how: str) -> None:
    module, x = Pooling().eval(), torch.zeros(1, 3, 30, 42)
    path = compiled(module, tmp_path / "pool.pt", how, x)
    totals = [vggscope.summary(word, input_size=tuple(x.shape)) for word in (path, module)]
    assert [each.outputs[0].shape for each in totals] == [tuple(module(x).shape)] * 2
    assert totals[0].totals.macs == totals[1].totals.macs


def test_inspect_shows_the_tensors_and_the_modules(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    module[0].requires_grad_(False)
    path = compiled(module, tmp_path / "model.pt", "script")
    found = read(path)
    assert {t.name: t.shape for t in found.tensors} == {k: tuple(v.shape) for k, v in module.state_dict().items()}
    assert [m.kind for m in found.modules][1:] == [
        "torch.nn.modules.conv.Conv2d",
        "torch.nn.modules.batchnorm.BatchNorm2d",
    ]
    assert inspect(path).params == sum(parameter.numel() for parameter in module.parameters())
    assert vggscope.summary(path).totals.trainable_params == 8
    built = vggscope.build(path, weights=path)
    assert torch.equal(built.state_dict()["0.weight"], module[0].weight)


def test_what_is_not_followed_is_named(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if bool(x.sum() > 0) else -x

    class Strict(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if x.shape[1] != 5:
                raise ValueError("five channels are needed")
            return x * 2

    class Odd(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.histc(x) * 2

    refused = {
        (Branching, CheckpointError): "branches on the values of a tensor|takes a number",
        (Strict, ShapeError): "five channels are needed",
        (Odd, CheckpointError): "the shape of what histc returns is not known",
    }
    for (make, kind), reason in refused.items():
        with pytest.raises(kind, match=reason):
            vggscope.summary(compiled(make(), tmp_path / "odd.pt", "script"), input_size=(3, 4, 4))
    with pytest.raises(ShapeError, match="does not tell the sizes of"):
        vggscope.summary(compiled(Odd(), tmp_path / "odd.pt", "script"))
    frozen = compiled(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "frozen.pt", "freeze")
    assert "torch.jit.freeze leaves weights as constants of the code" in vggscope.inspect(frozen).notes[0]
    plain = compiled(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "plain.pt", "script")
    assert not any("freeze" in note for note in vggscope.inspect(plain).notes)
    summary = vggscope.summary(frozen, input_size=(3, 8, 8))
    assert "constants of its code hold 112 values" in summary.warnings[0]
    assert summary.totals.macs == 4 * 27 * 6 * 6


@pytest.mark.slow
def test_no_torch_is_imported(tmp_path: Path) -> None:
    path = compiled(get_model("vgg11"), tmp_path / "vgg.pt", "trace", torch.zeros(1, 3, 32, 32))
    code = (
        "import sys, vggscope; vggscope.summary(sys.argv[1]); print({'torch', 'pickle', 'numpy'} & sys.modules.keys())"
    )
    command = [sys.executable, "-c", code, path]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "set()\n"


# Hostile files

HEAD = """\
class Net(Module):
  __parameters__ = []
  __buffers__ = []
  def forward(self: __torch__.Net,
    x: Tensor) -> Tensor:
"""
DATA = b"\x80\x02c__torch__\nNet\n)\x81}(X\x08\x00\x00\x00trainingI00\nub.".replace(b"I00\n", b"\x89")


def script(path: Path, body: str, *, head: str = HEAD, data: bytes = DATA, method: int = zipfile.ZIP_STORED) -> Path:
    """An archive with this body of forward."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data.pkl", data, method)
        archive.writestr("m/constants.pkl", b"\x80\x02).")
        archive.writestr("m/code/__torch__.py", head + body, method)
    return path


HOSTILE = {
    "an endless loop": "    while True:\n      y = 1\n    return x\n",
    "a long loop": "    for _0 in range(1000000000000):\n      y = 1\n    return x\n",
    "endless calls": "    return (self).forward(x, )\n",
    "a doubling list": "    a = [1, 1]\n" + "    a = [a, a]\n" * 60 + "    return torch.cat(a, 1)\n",
    "a doubling number": "    a = 3\n" + "    a = torch.mul(a, a)\n" * 60 + "    return torch.mul(x, a)\n",
    "a repeated list": "    a = torch.mul([1], 10000000000)\n    return x\n",
    "a range as a list": "    a = torch.list(range(1000000000000))\n    return x\n",
    "the largest of a range": "    a = torch.max(range(1000000000000))\n    return x\n",
    "a list in itself": "    a = [1]\n    b = torch.append(a, a)\n    return x\n",
    "deep brackets": "    return " + "(" * 150 + "x" + ")" * 150 + "\n",
    "many signs": "    return torch.mul(x, " + "-" * 15000 + "1)\n",
    "a long name": "    return x" + ".a" * 9000 + "\n",
    "a long statement": "    return [" + "1, " * 20000 + "]\n",
    "an integer of 10,000 digits": "    return torch.mul(x, " + "1" * 10000 + ")\n",
    "many pieces": "    a = torch.split(x, 1, 3)\n" * 50 + "    b = torch.unbind(x, 5)\n    return x\n",
    "a large tensor": "    return torch.add(x, torch.zeros([99999999999, 99999999999]))\n",
    "a large view": "    return torch.view(x, [99999999999, -7])\n",
    "many operators": "    for _0 in range(1000000):\n      x = torch.relu(x)\n    return x\n",
    "imports": "    import os\n    return x\n",
    "a call of Python": '    return __import__("os").system("true")\n',
    "an unknown operator": "    return ops.evil.run(x)\n",
    "an attribute of a text": '    return torch.add(x, "a".__class__)\n',
    "a lambda": "    return (lambda: x)()\n",
    "a comprehension": "    return [y for y in x]\n",
    "no Python": "    return $\n",
    "a null byte": "    return \0\n",
    "much code": "    y = torch.relu(x)\n" * 40_000 + "    return x\n",
    "nothing": "    return x\n",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_refused_within_bounds(tmp_path: Path, name: str) -> None:
    path = script(tmp_path / "x.pt", HOSTILE[name], method=zipfile.ZIP_DEFLATED)
    code = f"""
import resource, sys
{HIGHEST}
import vggscope
from vggscope.errors import VggscopeError
resource.setrlimit(resource.RLIMIT_CPU, (5, 5))
try:
    vggscope.summary(sys.argv[1], input_size=(3, 224, 224))
except VggscopeError as error:
    print(error.problem.partition("\\n")[0])
print(highest() // 1024)
"""
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told, used = done.stdout.splitlines()
    assert "x.pt" in told
    assert int(used) < 300


@pytest.mark.parametrize("how", ["bomb", "lying", "a call", "no class", "a foreign class", "a large pickle"])
def test_hostile_archives_are_refused(tmp_path: Path, how: str) -> None:
    datas = {
        "a call": b"\x80\x02c__torch__\nNet\n(K\x01tR.",
        "no class": b"\x80\x02}.",
        "a foreign class": b"\x80\x02cposix\nsystem\n)\x81}b.",
        "a large pickle": b"\x80\x02" + b"]" * (16 * 2**20),
    }
    body = " " * (2 * 2**20) if how in ("bomb", "lying") else "    return x\n"
    path = script(tmp_path / "x.pt", body, data=datas.get(how, DATA), method=zipfile.ZIP_DEFLATED)
    if how == "lying":
        data = bytearray(path.read_bytes())
        place = data.rfind(b"PK\x01\x02")
        data[place + 24 : place + 28] = (1000).to_bytes(4, "little")
        path.write_bytes(data)
    with pytest.raises(VggscopeError):
        vggscope.summary(str(path), input_size=(3, 8, 8))


@pytest.mark.parametrize("tenth", range(10))
def test_a_truncated_archive_is_refused(tmp_path: Path, tenth: int) -> None:
    path = Path(compiled(nn.Sequential(nn.Conv2d(3, 4, 3)), tmp_path / "model.pt", "script"))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * tenth // 10])
    with pytest.raises(CheckpointError):
        vggscope.summary(str(path))


@pytest.mark.parametrize(
    "text", ["x = 'a'\n", "x = 1 \\\n + 2\n", 'x = """\n"""\n', "x = [" + "1," * 11_000 + "]\n", "def\n"]
)
def test_text_that_torch_does_not_print_is_refused(text: str) -> None:
    with pytest.raises(CheckpointError):
        parsed(text, "code.py")
