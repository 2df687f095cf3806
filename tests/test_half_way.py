"""A model whose forward pass fails: figures are known up to the failure, none is invented, and the exit code says
that something is wrong.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vggscope as api

NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.fc = nn.Linear(10, 2)

    def forward(self, x):
        return self.fc(self.conv(x).flatten(1))
"""
"""A 3x3 convolution maps 3x32x32 to 4x30x30: 3,600 features where ten are expected."""

REASON = "10 features are expected, the input has 3,600"


@pytest.fixture
def word(tmp_path: Path) -> str:
    (tmp_path / "net.py").write_text(NET)
    return f"{tmp_path / 'net.py'}:Net"


@pytest.mark.parametrize("words", [("summary",), ("summary", "--backward"), ("rf",), ("compare",)])
def test_known_figures_are_shown_and_the_exit_code_is_two(words: tuple[str, ...], word: str, vggscope) -> None:
    ran = vggscope(*words, word, "--input", "3x32x32", "-f", "json")
    assert ran.code == 2
    assert REASON in ran.err
    assert ran.err.count("\n") == 2
    assert "4, 30, 30" in ran.out or "conv" in ran.out
    json.loads(ran.out)


@pytest.mark.parametrize(
    "words",
    [("memory",), ("memory", "--measure"), ("verify",), ("build",), ("build", "-o", "net.py"), ("report", "-o")],
)
def test_a_command_that_needs_the_whole_model_fails(
    words: tuple[str, ...], word: str, vggscope, tmp_path: Path
) -> None:
    target = [str(tmp_path / "out.html")] if words[-1] == "-o" else []
    words = tuple(str(tmp_path / "out.py") if part == "net.py" else part for part in words)
    ran = vggscope(*words, *target, word, "--input", "3x32x32")
    assert (ran.code, ran.out) == (2, "")
    assert REASON in ran.err
    assert ran.err.count("\n") == 2
    assert [path.name for path in tmp_path.glob("out*")] == []


@pytest.mark.parametrize("words", [("summary",), ("rf",), ("compare",), ("diff", "--ref", "A")])
def test_a_text_gives_the_reason_once(words: tuple[str, ...], word: str, vggscope) -> None:
    ran = vggscope(*words, word, "--input", "3x32x32")
    assert (ran.out + ran.err).replace("\n", " ").count("features are expected") == 1
    if words[0] != "diff":
        assert ran.err.splitlines()[0] == "vggscope: the forward pass fails in fc (Linear), as noted"


def test_its_picture_states_where_it_fails(word: str, vggscope, tmp_path: Path) -> None:
    ran = vggscope("diagram", word, "--input", "3x32x32", "-o", str(tmp_path / "x.svg"))
    assert ran.code == 2
    assert REASON in ran.err
    assert "forward pass fails here" in (tmp_path / "x.svg").read_text()


def test_the_peaks_of_a_step_that_fails_are_unknown(word: str) -> None:
    report = api.summary(word, (3, 32, 32))
    assert (report.memory.inference_peak_bytes, report.memory.training_peak_bytes) == (None, None)
    assert "peak memory" not in str(report)
    assert any(REASON in note for note in api.receptive_fields(word, (3, 32, 32)).notes)


@pytest.mark.parametrize(
    ("words", "layer", "other"),
    [
        (("D", "--head", "dense", "--input", "3x64x64"), "classifier.0", None),
        (("D", "--input", "3x8x8"), "features.23", "features.23"),
        (("A", "--ref", "paper", "--input", "3x8x8"), "features.15", "features.15"),
        (("conv3-8 maxpool conv3-8 maxpool", "--ref", "B", "--input", "3x2x2"), "features.5", "features.9"),
    ],
)
def test_a_diff_at_an_input_that_does_not_fit(words: tuple[str, ...], layer: str, other: str | None, vggscope) -> None:
    """The window of fc6 is 7x7, and 64 halved five times is 2; 8 halved three times is 1, and no pool of 2x2 fits."""
    ran = vggscope("diff", *words, "-f", "json")
    assert (ran.code, ran.err) == (1, "")
    result = json.loads(ran.out)
    assert result["verdict"] == "different"
    last = result["differences"][-1]
    assert (last["kind"], last["effect"], last["ours"], last["reference"]) == ("changed", "shape", layer, other)
    assert any("does not run at this input" in note for note in result["notes"])
    failed = [row for row in result["rows"] if row["sign"] == "!"]
    assert [row["our_layer"]["name"] for row in failed] == [layer]
    assert result["rows"][0]["ours"].startswith("features.0 (conv1_1) Conv2d")


def test_a_diff_with_itself_and_by_numbers(word: str, vggscope) -> None:
    ran = vggscope("diff", word, "--ref", word, "--input", "3x32x32", "--numeric", "-f", "json")
    result = json.loads(ran.out)
    assert (ran.code, result["verdict"], result["numeric"]) == (1, "different", None)
    assert [(d["ours"], d["reference"]) for d in result["differences"]] == [("fc", "fc")]
    # 4 x 3 x 3 x 3 + 4 of the convolution, 10 x 2 + 2 of the layer that fails
    assert result["params"] == {"ours": 134, "reference": 134}


def test_a_failure_of_both_networks_is_not_attributed_to_a_difference(vggscope) -> None:
    result = json.loads(vggscope("diff", "E", "--input", "1x16x16", "-f", "json").out)
    assert [d["ours"] for d in result["differences"]] == ["features.0", "features.36"]
    assert result["differences"][0]["follows"] == []


def test_a_reference_that_does_not_run_is_an_error(word: str, vggscope) -> None:
    ran = vggscope("diff", "A", "--ref", word, "--input", "3x32x32")
    assert (ran.code, ran.out) == (2, "")
    assert REASON in ran.err
