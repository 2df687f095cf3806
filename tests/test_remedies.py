"""The remedy of a difference: what a person writes in the named line mends it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vggscope.api import diff
from vggscope.diffing.result import Difference

REFERENCE = "conv3-8 maxpool conv3-8 FC-16 FC-10"

HEAD = "\n        self.head = nn.Sequential(\n            "

LAYERS = f"""
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(True), nn.MaxPool2d(2, 2),
            nn.Conv2d(8, 8, 3, padding=1),
            nn.ReLU(True),  # the last one
        ){HEAD}nn.Linear(392, 16), nn.ReLU(True), nn.Dropout(),
            nn.Linear(16, 10))

    def forward(self, x):
        return self.head(self.features(x).flatten(1))
"""

MISTAKES = [
    # A layer that is missing within a line, at its end, after a line of its own, before a comment.
    (
        "1), nn.ReLU(True), nn.Max",
        "1), nn.Max",
        "write nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),",
    ),
    ("16), nn.ReLU(True), nn.Drop", "16), nn.Drop", "write nn.Linear(392, 16), nn.ReLU(inplace=True), nn.Dropout(),"),
    ("            nn.ReLU(True),  # the last one\n", "", "add nn.ReLU(inplace=True), after this line"),
    (
        "1),\n            nn.ReLU(True),  # the",
        "1)  # the",
        "write nn.Conv2d(8, 8, 3, padding=1), and after it nn.ReLU(inplace=True)  # the last one",
    ),
]
"""What is wrong in the code, and the remedy."""


def followed(text: str, difference: Difference) -> str:
    """The code after somebody has done what the remedy says, in the line that it names."""
    lines = text.split("\n")
    number = int(difference.line.rpartition(":")[2]) - 1
    indent = re.match(" *", lines[number])[0]
    if match := re.fullmatch("add (.*) after this line", difference.remedy):
        lines.insert(number + 1, indent + match[1])
    elif match := re.fullmatch("write (.*) and after it (.*)", difference.remedy):
        lines[number : number + 1] = [indent + match[1], indent + match[2]]
    else:
        lines[number] = indent + difference.remedy.removeprefix("write ")
    return "\n".join(lines)


@pytest.mark.parametrize(("old", "new", "remedy"), MISTAKES)
def test_a_layer_that_is_missing_is_written_where_it_belongs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert old in LAYERS
    wrong = LAYERS.replace(old, new, 1)
    Path("wrong.py").write_text(wrong)
    (difference,) = (
        d for d in diff("wrong.py:Net", ref=REFERENCE, input_size=(3, 14, 14)).differences if d.changes_output
    )
    assert difference.remedy == remedy
    Path("mended.py").write_text(followed(wrong, difference))
    assert diff("mended.py:Net", ref=REFERENCE, input_size=(3, 14, 14)).verdict == "equivalent"


CALLS = """
import torch.nn.functional as F
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)])
        self.fcs = nn.ModuleList([nn.Linear(8 * 7 * 7, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 10)])

    def forward(self, x):
        for conv in self.convs:
            x = F.max_pool2d(conv(x).relu(), 2)
        x = F.relu(x.flatten(1))
        for fc in self.fcs:
            x = F.dropout(F.relu(fc(x)), 0.5)
        return x


class Right(Net):
    def forward(self, x):
        for conv in self.convs:
            x = F.max_pool2d(conv(x).relu(), 2)
        x = F.relu(x.flatten(1))
        for fc in self.fcs[:2]:
            x = F.dropout(F.relu(fc(x)), 0.5, self.training)
        return F.relu(self.fcs[2](x))


class Threes(Net):
    def forward(self, x):
        for conv in self.convs:
            x = F.max_pool2d(conv(x).relu(), 3, 2, 1)
        x = F.relu(x.flatten(1))
        for fc in self.fcs[:2]:
            x = F.dropout(F.relu(fc(x)), 0.5, self.training)
        return F.relu(self.fcs[2](x))
"""


def remedies(word: str, reference: str) -> list[str]:
    result = diff(word, ref=reference, input_size=(3, 28, 28))
    return [difference.remedy for difference in result.differences if difference.changes_output]


def test_a_remedy_speaks_of_the_call_in_its_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line of a loop calls a function for other layers too."""
    monkeypatch.chdir(tmp_path)
    Path("calls.py").write_text(CALLS)
    dropout, last = remedies("calls.py:Net", "calls.py:Right")
    assert dropout == "write F.dropout(F.relu(fc(x)), 0.5, training=self.training)"
    assert last.startswith("leave out the call of F.dropout for dropout:3")
    for remedy in remedies("calls.py:Threes", "calls.py:Right"):
        assert remedy in ("write x = F.max_pool2d(conv(x).relu(), 2, 2)", "write F.max_pool2d(conv(x).relu(), 2, 2)")
    for remedy in remedies("calls.py:Net", "calls.py:Right") + remedies("calls.py:Right", "calls.py:Net"):
        assert "Dropout(" not in remedy


ARGUMENTS = [
    # Ours, the reference's, and what to write: what has torch's default is left out, unless an argument comes after it.
    ("nn.MaxPool2d(3, 2, 1)", "nn.MaxPool2d(2, 2)", "nn.MaxPool2d(2, 2)"),
    ("nn.MaxPool2d(3, 2, padding=1)", "nn.MaxPool2d(2, 2)", "nn.MaxPool2d(2, 2)"),
    ("nn.AvgPool2d(3, 2, 1, False)", "nn.AvgPool2d(2, 2, ceil_mode=True)", "nn.AvgPool2d(2, 2, 0, True)"),
    ("nn.Conv2d(8, 8, 3, 1, 1, 1, 2)", "nn.Conv2d(8, 8, 3, 1, 1)", "nn.Conv2d(8, 8, 3, 1, 1, 1)"),
    ("nn.Conv2d(8, 8, 3, 1, 2, 2)", "nn.Conv2d(8, 8, 3, 1, 1)", "nn.Conv2d(8, 8, 3, 1, 1)"),
    ("nn.Conv2d(8, 8, 3, bias=False, padding=1)", "nn.Conv2d(8, 8, 3, 1, 1)", "nn.Conv2d(8, 8, 3, padding=1)"),
    ("nn.Conv2d(8, 8, 4)", "nn.Conv2d(8, 8, 4, padding='same')", "nn.Conv2d(8, 8, 4, padding='same')"),
    ("nn.LeakyReLU(0.2)", "nn.LeakyReLU()", "nn.LeakyReLU()"),
    ("nn.BatchNorm2d(8, 0.01)", "nn.BatchNorm2d(8)", "nn.BatchNorm2d(8)"),
]


@pytest.mark.parametrize(("ours", "reference", "remedy"), ARGUMENTS)
def test_arguments_with_defaults_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ours: str, reference: str, remedy: str
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = "from torch import nn\n\n\ndef net():\n    return nn.Sequential(\n        nn.Conv2d(3, 8, 1),\n"
    frame += "        {},\n    )\n"
    Path("ours.py").write_text(frame.format(ours))
    Path("reference.py").write_text(frame.format(reference))
    result = diff("ours.py:net", ref="reference.py:net", input_size=(3, 28, 28), patch=True)
    assert [difference.remedy for difference in result.differences if difference.changes_output] == [f"write {remedy},"]
    assert f"+        {remedy},\n" in result.patch
