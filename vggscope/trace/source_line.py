"""The line of the user's own code in which an error was raised, a call runs, or a module's forward begins."""

from __future__ import annotations

import inspect
import os
import sysconfig
import traceback
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn


def own_line(error: BaseException) -> str:
    """Return the traceback's last line in the user's own code: `net.py, line 14: x = self.fc(x)`.

    Without such a line, return the last one in a library other than torch; an empty string if there is none either.
    """
    return _own_line(traceback.extract_tb(error.__traceback__))


def current_line() -> str:
    """Return the line of the user's own code that is running, as `own_line` does."""
    frames = traceback.StackSummary.extract(traceback.walk_stack(None), lookup_lines=False)
    return _own_line(reversed(frames))


def forward_line(module: nn.Module) -> str:
    """Return the file and the line of a module's forward: `net.py, line 12`; empty for one without Python code."""
    code = getattr(inspect.unwrap(type(module).forward), "__code__", None)
    if code is None or code.co_filename.startswith("<"):
        return ""
    return f"{_short(code.co_filename)}, line {code.co_firstlineno}"


def _own_line(frames: Iterable[traceback.FrameSummary]) -> str:
    standard, installed, internal = _folders()
    last_frames: dict[bool, traceback.FrameSummary] = {}
    for frame in frames:
        path = str(Path(frame.filename).resolve())
        is_library = path.startswith(installed)
        is_internal = frame.filename.startswith("<") or path.startswith(internal)
        if not is_internal and (is_library or not path.startswith(standard)):
            last_frames[is_library] = frame
    last = last_frames.get(False) or last_frames.get(True)
    return f"{_short(last.filename)}, line {last.lineno}: {last.line}" if last else ""


def _folders() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Return the folders of the standard library, of installed packages, and of torch and vggscope."""
    import torch

    paths = {kind: str(Path(path).resolve()) for kind, path in sysconfig.get_paths().items()}
    # With the separator: torchvision's folder begins with torch's.
    internal = tuple(
        f"{folder}{os.sep}" for folder in (Path(__file__).resolve().parents[1], Path(torch.__file__).parent)
    )
    return (paths["stdlib"], paths["platstdlib"]), (paths["purelib"], paths["platlib"]), internal


def _short(filename: str) -> str:
    """Return a path relative to the current folder, or to that of installed packages, if it is below one."""
    path = Path(filename).resolve()
    folders = (Path.cwd(), *map(Path, _folders()[1]))
    return next((str(path.relative_to(folder)) for folder in folders if path.is_relative_to(folder)), filename)
