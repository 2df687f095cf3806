"""A forward pass that fails: the counts, and a remedy that helps."""

from __future__ import annotations

from pathlib import Path

import pytest

import vggscope
from vggscope.errors import ShapeError

NETS = """
import torch
from torch import nn


class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Conv2d(3, 64, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.valid = nn.Conv2d(3, 64, 3)
        self.narrow = nn.Conv2d(16, 8, 3)
        self.norm = nn.BatchNorm2d(16)
        self.fc = nn.Linear(160000, 10)


class Rows(Base):
    def forward(self, x):
        return self.fc(self.pool(self.a(x)).view(-1, 160000))


class Features(Base):
    def forward(self, x):
        return self.fc(self.pool(self.a(x)).flatten(1))


class Cube(Base):
    def forward(self, x):
        return self.a(x).reshape(7, 7, 7)


class Channels(Base):
    def forward(self, x):
        return self.narrow(self.a(x))


class Norm(Base):
    def forward(self, x):
        return self.norm(self.a(x))


class Joined(Base):
    def forward(self, x):
        return torch.cat([self.a(x), self.valid(x)], 1)


class Added(Base):
    def forward(self, x):
        return self.a(x) + self.valid(x)
"""

FIRST = "input_size gives another size"

EQUAL = "kernel, stride and padding of the layers before it make them equal, or for some models another input_size"

CASES = {
    "Rows": ("25,600 values cannot be laid out as rows of 160,000", f"25,600 would fit, or {FIRST}"),
    "Features": ("160,000 features are expected, the input has 25,600", f"in_features of 25,600 would fit, or {FIRST}"),
    "Cube": ("102,400 values cannot be laid out as 7x7x7", f"make both equal, or {FIRST}"),
    "Channels": ("16 channels are expected, the input has 64", "64 in place of 16 would fit: no input size changes it"),
    "Norm": ("16 channels are expected, the input has 64", "64 in place of 16 would fit: no input size changes it"),
    "Joined": ("cannot be joined there: 1x64x40x40 and 1x64x38x38", EQUAL),
    "Added": ("the shapes 1x64x40x40 and 1x64x38x38 do not go together", EQUAL),
}


@pytest.fixture(scope="module")
def nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("failing") / "failing_nets.py"
    path.write_text(NETS)
    return path


@pytest.mark.parametrize("name", CASES)
def test_the_counts_and_a_remedy_that_helps(nets: Path, name: str) -> None:
    problem, remedy = CASES[name]
    with pytest.raises(ShapeError) as caught:
        vggscope.memory(f"{nets}:{name}", (3, 40, 40))
    assert problem in caught.value.problem
    assert caught.value.remedy == remedy


def test_the_number_that_fits_does_fit(nets: Path) -> None:
    fixed = nets.with_name("fixed_nets.py")
    fixed.write_text(NETS.replace("160000", "25600").replace("(16", "(64"))
    for name in ("Rows", "Features", "Channels", "Norm"):
        assert vggscope.summary(f"{fixed}:{name}", (3, 40, 40)).failure is None


def test_a_failure_is_said_once(nets: Path, vggscope) -> None:
    ran = vggscope("summary", f"{nets}:Rows", "--input", "3x40x40")
    assert ran.code == 2
    assert " ".join((ran.out + ran.err).split()).count("cannot be laid out") == 1
    assert ran.err.count("25,600 would fit, or --input gives another size") == 1
