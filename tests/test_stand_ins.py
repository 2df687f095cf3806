"""Locked architectures in place of a library that is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest

import vggscope
from vggscope.errors import MissingTool, ModelError
from vggscope.sources import stand_ins
from vggscope.sources.library_names import matching, names_in

WORD = "torchvision:squeezenet1_1"


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> vggscope.Summary:
    """The summary with torchvision, whose models from then on are those of a folder with a single lock."""
    real = vggscope.summary(WORD, cache=False)
    (tmp_path / "torchvision").mkdir()
    vggscope.lock(WORD).save(tmp_path / "torchvision/squeezenet1_1.json")
    monkeypatch.setenv(stand_ins.FOLDER, str(tmp_path))
    monkeypatch.setattr(stand_ins, "_is_installed", lambda library: False)
    return real


def test_a_lock_stands_in_for_the_librarys_model(real: vggscope.Summary) -> None:
    shown = vggscope.summary(WORD, cache=False)
    assert shown.layers == real.layers
    assert shown.model == WORD
    assert shown.warnings == ()
    assert vggscope.diff(WORD, ref=WORD).verdict == "identical"


def test_another_size_is_worked_out_and_noted(real: vggscope.Summary) -> None:
    small = vggscope.summary(WORD, input_size=(3, 96, 96), cache=False)
    assert small.totals.params == real.totals.params
    assert small.totals.macs < real.totals.macs
    assert "locked at 3x224x224" in small.warnings[0]


def test_the_names_are_those_of_the_files(real: vggscope.Summary) -> None:
    assert names_in("torchvision") == ("squeezenet1_1",)
    assert matching("torchvision:squeeze*") == (WORD,)
    with pytest.raises(ModelError, match="no stand-in for squeezenet1_0, did you mean squeezenet1_1"):
        vggscope.summary("torchvision:squeezenet1_0", cache=False)


def test_what_builds_the_model_still_needs_the_library(real: vggscope.Summary, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torchvision.models", None)
    with pytest.raises(MissingTool, match="torchvision is not installed"):
        vggscope.diff(WORD, ref=WORD, numeric=True)


def test_an_installed_library_is_used_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(stand_ins.FOLDER, str(tmp_path))
    assert stand_ins.names("torchvision") == ()
