"""What to tell of a forward pass that broke off: the layer, what it met there, and the line of the user's own code."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

from vggscope.trace.functions import first_line, problem

if TYPE_CHECKING:
    from vggscope.trace.watch import Frame, Watch


def explain(watch: Watch, error: Exception) -> str:
    """One line: `fc1 (Linear): 25,088 features are expected, the input has 512 (net.py, line 14: ...)`."""
    running = _running(watch, error)
    layer = failing_layer(watch, error)
    if layer is not None:
        what = problem(layer.op, layer.met, error)
    elif watch.failed is not None and watch.failed[0] is error:
        what = watch.failed[1]
    else:
        what = first_line(error)
    frame = layer or (running[-1] if running else None)
    place = f"{frame.path or 'forward'} ({type(frame.module).__name__})" if frame else "forward"
    line = own_line(error)
    return f"{place}: {what}" + (f" ({line})" if line else "")


def failing_layer(watch: Watch, error: Exception) -> Frame | None:
    """The module that is one node and was running when the error came."""
    return next((frame for frame in _running(watch, error) if frame.op is not None), None)


def _running(watch: Watch, error: Exception) -> tuple[Frame, ...]:
    return watch.broken[1] if watch.broken is not None and watch.broken[0] is error else tuple(watch.stack)


def own_line(error: BaseException) -> str:
    """A traceback's last line in the user's own code: `net.py, line 14: x = self.fc(x)`.

    Where no line is the user's, the last in a library that is not torch; empty for none.
    """
    python, installed, ours = _folders()
    found: dict[bool, traceback.FrameSummary] = {}
    for frame in traceback.extract_tb(error.__traceback__):
        path = str(Path(frame.filename).resolve())
        is_library = path.startswith(installed)
        is_foreign = frame.filename.startswith("<") or path.startswith(ours)
        if not is_foreign and (is_library or not path.startswith(python)):
            found[is_library] = frame
    last = found.get(False) or found.get(True)
    return f"{_short(last.filename)}, line {last.lineno}: {last.line}" if last else ""


def _folders() -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The folders of Python, of what is installed in it, and of torch and vggscope."""
    import torch

    paths = {kind: str(Path(path).resolve()) for kind, path in sysconfig.get_paths().items()}
    ours = (str(Path(__file__).resolve().parent.parent), str(Path(torch.__file__).resolve().parent))
    return (paths["stdlib"], paths["platstdlib"]), (paths["purelib"], paths["platlib"]), ours


def _short(filename: str) -> str:
    """A file below the current folder by its path from there."""
    path, here = Path(filename).resolve(), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else filename
