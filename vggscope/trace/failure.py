"""Explain why a forward pass failed: the layer, its input shapes and the line of the user's own code."""

from __future__ import annotations

import os
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from vggscope.trace.functions import first_line, problem

if TYPE_CHECKING:
    from vggscope.trace.watch import RunningModule, Watch


def explain(watch: Watch, error: Exception) -> str:
    """Describe an error: `fc1 (Linear): 25,088 features are expected, the input has 512 (net.py, line 14: ...)`."""
    running = watch.running(error)
    layer = failing_layer(watch, error)
    if layer is not None:
        reason = problem(layer.op, layer.input_shapes, error)
    elif watch.function_error is not None and watch.function_error[0] is error:
        reason = watch.function_error[1]
    else:
        reason = first_line(error)
    frame = layer or (running[-1] if running else None)
    place = f"{frame.path or 'forward'} ({type(frame.module).__name__})" if frame else "forward"
    line = own_line(error)
    return f"{place}: {reason}" + (f" ({line})" if line else "")


def failing_layer(watch: Watch, error: Exception) -> RunningModule | None:
    """Return the running module that raised, if it is a single node; None otherwise."""
    return next((frame for frame in watch.running(error) if frame.op is not None), None)


def own_line(error: BaseException) -> str:
    """Return the traceback's last line in the user's own code: `net.py, line 14: x = self.fc(x)`.

    Without such a line, return the last one in a library other than torch; an empty string if there is none either.
    """
    standard, installed, internal = _folders()
    last_frames: dict[bool, traceback.FrameSummary] = {}
    for frame in traceback.extract_tb(error.__traceback__):
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
