"""Recorded figures: taken from the file for its versions, asked of torch otherwise, written by `--update-reference`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import recorded
from tests.recorded import Recorded


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recorded:
    """A reference whose file has the figures of two keys."""
    monkeypatch.setattr(recorded, "FOLDER", tmp_path)
    monkeypatch.setattr(recorded, "_written", [])
    monkeypatch.setattr(Recorded, "updating", False)
    file = Recorded("sizes", "torch")
    file.new = {"a": 1, "b": {"macs": 2}}
    file.write()
    return Recorded("sizes", "torch")


def refuse() -> int:
    raise AssertionError("torch was asked")


def test_a_recorded_figure_is_not_measured_again(reference: Recorded) -> None:
    assert reference.measured("a", refuse) == 1
    reference.confirm("b", {"macs": 2}, refuse)


def test_another_figure_is_checked_and_then_asks_for_a_new_file(reference: Recorded) -> None:
    with pytest.raises(AssertionError, match="torch was asked"):
        reference.confirm("b", {"macs": 3}, refuse)
    with pytest.raises(pytest.fail.Exception, match="--update-reference"):
        reference.confirm("b", {"macs": 3}, lambda: None)
    with pytest.raises(pytest.fail.Exception, match="--update-reference"):
        reference.measured("c", lambda: 5)


def test_other_versions_are_measured(reference: Recorded) -> None:
    reference.versions = {"torch": "0"}
    assert reference.measured("a", lambda: 7) == 7
    reference.confirm("b", {"macs": 3}, lambda: None)


def test_one_key_in_sixteen_is_measured_on_every_run(reference: Recorded) -> None:
    keys = [f"key {number}" for number in range(320)]
    reference.new = dict.fromkeys(keys, 1)
    reference.write()
    asked: list[str] = []
    again = Recorded("sizes", "torch")
    for key in keys:
        assert again.measured(key, lambda key=key: asked.append(key) or 1) == 1
    assert 10 <= len(asked) <= 30


def test_an_update_measures_all_and_keeps_the_other_keys(reference: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Recorded, "updating", True)
    assert reference.measured("a", lambda: 7) == 7
    recorded.write_all()
    assert json.loads(reference.path.read_text())["figures"] == {"a": 7, "b": {"macs": 2}}
