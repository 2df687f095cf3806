"""Figures that torch has confirmed, kept in tests/reference/, so that a run does not measure all of them again.

A recorded figure is used if the installed packages have the versions that the file names. Otherwise a test measures, as
it does for one key in `LIVE_SHARE` on every run. `pytest FILE --update-reference` measures every figure of a test file
and writes the references again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import pytest

FOLDER = Path(__file__).parent / "reference"

LIVE_SHARE = 16

Figure = TypeVar("Figure", int, str)

_written: list[Recorded] = []


class Recorded:
    """The figures of one file in tests/reference/, which hold for these versions of some packages."""

    updating = False

    def __init__(self, name: str, *packages: str) -> None:
        self.path = FOLDER / f"{name}.json"
        self.versions = {package: version(package) for package in packages}
        self.new: dict[str, Any] = {}

    @cached_property
    def figures(self) -> Mapping[str, Any]:
        """The recorded figures by key; empty if other versions are installed."""
        if not self.path.exists():
            return {}
        file = json.loads(self.path.read_text(encoding="utf-8"))
        return file["figures"] if file["versions"] == self.versions else {}

    def confirm(self, key: str, figures: Mapping[str, object], check: Callable[[], None]) -> None:
        """Compare figures with the recorded ones, which passed `check`; else call `check`, which asks torch."""
        if self._is_taken_from_file(key) and self.figures[key] == figures:
            return
        check()
        self._record(key, figures)

    def measured(self, key: str, measure: Callable[[], Figure]) -> Figure:
        """Return a recorded figure, or else what `measure` returns."""
        if self._is_taken_from_file(key):
            figure: Figure = self.figures[key]
            return figure
        figure = measure()
        self._record(key, figure)
        return figure

    def _is_taken_from_file(self, key: str) -> bool:
        is_live = zlib.crc32(key.encode()) % LIVE_SHARE == 0
        return not self.updating and key in self.figures and not is_live

    def _record(self, key: str, figure: object) -> None:
        if self.updating:
            self.new[key] = figure
            if self not in _written:
                _written.append(self)
        elif self.figures and self.figures.get(key) != figure:
            pytest.fail(
                f"{key} passes with {figure}, and {self.path.name} has {self.figures.get(key)}: run --update-reference"
            )

    def write(self) -> None:
        """Write the file again with the new figures, and without those of other versions."""
        figures = dict(sorted({**self.figures, **self.new}.items()))
        self.path.parent.mkdir(exist_ok=True)
        lines = ",\n".join(f"{json.dumps(key)}: {json.dumps(figure)}" for key, figure in figures.items())
        text = f'{{"versions": {json.dumps(self.versions)},\n"figures": {{\n{lines}\n}}}}\n'
        self.path.write_text(text, encoding="utf-8")


def write_all() -> None:
    """Write each file that has new figures."""
    for recorded in _written:
        recorded.write()
