"""Check architectures in your tests, with pytest or without it.

    from vggscope.testing import assert_architecture

    def test_architecture() -> None:
        assert_architecture(VGG(), "arch.json")

pytest loads this file as a plugin, which adds `--update-architectures`: the files are written instead of compared.
"""

from __future__ import annotations

import os
from dataclasses import field
from typing import TYPE_CHECKING

from vggscope.record import record

if TYPE_CHECKING:
    import pytest
    from torch import nn
    from typing_extensions import Unpack

    from vggscope.api import InputSizes
    from vggscope.choices import ModelOptions
    from vggscope.graph import Network

OPTION = "--update-architectures"


@record
class PytestRun:
    """A run of pytest: its root folder, whether it writes architectures, and those that it has written."""

    root: str
    updates: bool
    written: list[str] = field(default_factory=list)


_runs: list[PytestRun] = []
"""The run of pytest that is under way comes last; a plugin's own tests run pytest inside of pytest."""


def assert_architecture(
    model: str | nn.Module | Network,
    path: str | os.PathLike[str],
    input_size: InputSizes | None = None,
    *,
    strict: bool = False,
    **options: Unpack[ModelOptions],
) -> None:
    """Fail, with the differences, if a model's architecture is not the one that the file `path` holds.

    `vggscope lock` writes the file, and so does `pytest --update-architectures`. A relative path begins at pytest's
    root folder. Without `input_size` the model is run on the input of the file. `strict` also refuses what computes the
    same but is written otherwise, such as other names. `options` are those of `vggscope.diff`.

    Raises AssertionError, and the errors of `vggscope.diff`.

    >>> import tempfile, vggscope
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     vggscope.lock("A").save(path := f"{folder}/arch.json")
    ...     assert_architecture("A", path)
    """
    __tracebackhide__ = True
    from vggscope.api import diff

    run = _runs[-1] if _runs else None
    file = os.path.join(run.root if run else "", os.fspath(path))
    if run is not None and run.updates:
        _update(run, model, file, input_size, options)
        return
    if not os.path.exists(file):
        raise AssertionError(f"{path} is not there: pytest {OPTION} writes it, or vggscope lock MODEL -o {path}")
    found = diff(model, file, input_size, **options)
    if found.verdict not in (("identical",) if strict else ("identical", "equivalent")):
        raise AssertionError(f"the architecture is not that of {path}; if it should be, pytest {OPTION}\n\n{found}")


def _update(
    run: PytestRun,
    model: str | nn.Module | Network,
    file: str,
    input_size: InputSizes | None,
    options: ModelOptions,
) -> None:
    """Write the model's architecture to the file, on the file's input if the caller gives none."""
    from vggscope.api import lock

    lock(model, input_size, like=file if os.path.exists(file) else None, **options).save(file)
    run.written.append(os.path.relpath(file, run.root))


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option that writes architectures."""
    group = parser.getgroup("vggscope")
    group.addoption(OPTION, action="store_true", help="Write the files that assert_architecture compares models with.")


def pytest_configure(config: pytest.Config) -> None:
    """Begin a run."""
    _runs.append(PytestRun(str(config.rootpath), bool(config.getoption(OPTION))))


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the run."""
    _runs.pop()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the files that were written."""
    if _runs[-1].written:
        terminalreporter.section("architectures")
        for path in dict.fromkeys(_runs[-1].written):
            terminalreporter.write_line(f"wrote {path}")
