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
