"""The line of the user's own code in which an error was raised, a call runs, or a module's forward begins."""

from __future__ import annotations

import ast
import inspect
import linecache
import os
import sys
import sysconfig
import traceback
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from vggscope.graph import CodePosition

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from torch import nn

MOST_POSITIONS = 4
"""How many calls of the user's own code are kept of a stack, from the innermost on."""

PACKAGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
"""The folder of vggscope itself."""

_RECORDING = tuple(f"{os.sep}trace{os.sep}{name}.py" for name in ("interception", "recorder", "source_line", "watch"))
"""The files whose frames are inside a call of the user's own code, as those of hooks are."""

Stack = tuple[tuple[str, int], ...]
"""The files and line numbers of a stack."""

_BUILT: WeakKeyDictionary[nn.Module, tuple[CodePosition, ...]] = WeakKeyDictionary()
"""Where the modules were built that `noting_built_modules` saw."""


def own_line(error: BaseException) -> str:
    """Return the traceback's last line in the user's own code: `net.py, line 14: x = self.fc(x)`.

    Without such a line, return the last one in a library other than torch; an empty string if there is none either.
    """
    return _own_line(traceback.extract_tb(error.__traceback__))


def current_stack() -> Stack:
    """Return the running lines, the innermost first."""
    return tuple((frame.f_code.co_filename, line) for frame, line in traceback.walk_stack(sys._getframe(1)))


def line_in(stack: Stack) -> str:
    """Return the line of the user's own code in a stack, as `own_line` does."""
    for file in {file for file, _ in stack}:
        linecache.checkcache(file)
    return _own_line(traceback.FrameSummary(file, line, "", lookup_line=False) for file, line in reversed(stack))


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


def current_positions(most: int = MOST_POSITIONS) -> tuple[CodePosition, ...]:
    """Return the calls of the user's own code that are running, the innermost first."""
    return _positions(sys._getframe(1), None, most)


class RunningCall:
    """The call of a module that is running. The calls around it stand still, and are looked up once.

    `frame` is that of torch which runs the call.
    """

    def __init__(self, frame: FrameType | None, around: RunningCall | None) -> None:
        self.frame, self.around = frame, around
        self._outside: tuple[CodePosition, ...] | None = None

    def positions(self) -> tuple[CodePosition, ...]:
        """Return the calls of the user's own code that are running, the innermost first."""
        return self._from(sys._getframe(1))

    def _from(self, frame: FrameType | None) -> tuple[CodePosition, ...]:
        positions, is_end = _positions_until(frame, self.frame)
        if is_end or len(positions) >= MOST_POSITIONS:
            return tuple(positions[:MOST_POSITIONS])
        if self._outside is None:
            assert self.frame is not None
            outer = self.frame.f_back
            self._outside = _positions(outer, None, MOST_POSITIONS) if self.around is None else self.around._from(outer)
        return (*positions, *self._outside)[:MOST_POSITIONS]


def _positions_until(frame: FrameType | None, last: FrameType | None) -> tuple[list[CodePosition], bool]:
    """Return the calls in a frame and those around it before `last`, and whether they end before it."""
    positions: list[CodePosition] = []
    while frame is not None and frame is not last:
        code = frame.f_code
        role = _ROLES.get(code.co_filename) or _role(code.co_filename)
        if role == "end":
            return positions, True
        if role == "own":
            positions.append(_position(code.co_filename, code, frame.f_lasti, frame.f_lineno))
        frame = frame.f_back
    return positions, frame is None


def error_positions(error: BaseException) -> tuple[CodePosition, ...]:
    """Return the calls of the user's own code that an error passed through, the innermost first."""
    positions: list[CodePosition] = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        role = _ROLES.get(code.co_filename) or _role(code.co_filename)
        if role == "own":
            positions.append(_position(code.co_filename, code, step.tb_lasti, step.tb_lineno))
        elif role == "end":
            positions.clear()
        step = step.tb_next
    return tuple(positions[: -MOST_POSITIONS - 1 : -1])


def _positions(frame: FrameType | None, built: object, most: int) -> tuple[CodePosition, ...]:
    """Return the calls in a frame and those around it, without those in constructors of the object `built`.

    They end at the frame of vggscope that runs the user's code.
    """
    positions: list[CodePosition] = []
    while frame is not None:
        code = frame.f_code
        role = _ROLES.get(code.co_filename) or _role(code.co_filename)
        if role != "other":
            if role == "end":
                break
            if built is None or not _constructs(frame, built):
                positions.append(_position(code.co_filename, code, frame.f_lasti, frame.f_lineno))
                if len(positions) == most:
                    break
        frame = frame.f_back
    return tuple(positions)


_ROLES: dict[str, str] = {}
"""The role of each file that was seen: of a hundred frames in a stack, few are in a new one."""


def _role(filename: str) -> str:
    """Return `own` for the user's code, `end` for vggscope's code that runs it, and `other`."""
    is_end = filename.startswith(PACKAGE) and not filename.endswith(_RECORDING)
    role = _ROLES[filename] = "own" if _is_own(filename) else "end" if is_end else "other"
    return role


def _constructs(frame: FrameType, built: object) -> bool:
    code = frame.f_code
    return code.co_name == "__init__" and bool(code.co_varnames) and frame.f_locals.get(code.co_varnames[0]) is built


@lru_cache(maxsize=4096)
def _position(filename: str, code: CodeType, instruction: int, line: int) -> CodePosition:
    """Return the position of an instruction. Equal code in two files has two names."""
    file = os.path.realpath(filename)
    lines: Any = getattr(code, "co_positions", None)  # from Python 3.11 on
    place = next(islice(lines(), instruction // 2, None), None) if lines else None
    if place is None or None in place:
        return CodePosition(file, line)
    first, last, column, end = place
    return CodePosition(file, first, column, last, end)


@lru_cache(maxsize=4096)
def _is_own(filename: str) -> bool:
    """Whether a file is the user's own code, not that of Python, of torch or of an installed package."""
    if filename.startswith("<"):
        return False
    standard, installed, internal = _folders()
    path = Path(filename).resolve()
    is_library = not {"site-packages", "dist-packages"}.isdisjoint(path.parts)
    return not is_library and not str(path).startswith((*standard, *installed, *internal))


@contextmanager
def noting_built_modules() -> Iterator[None]:
    """Within this context, note where each module is built."""
    from torch import nn

    initialise = nn.Module.__init__

    def initialise_noted(module: nn.Module, *args: Any, **kwargs: Any) -> None:
        initialise(module, *args, **kwargs)
        with suppress(Exception):  # a class of the user's may not be hashable
            _BUILT[module] = _positions(sys._getframe(1), module, MOST_POSITIONS)

    nn.Module.__init__ = initialise_noted  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        nn.Module.__init__ = initialise  # type: ignore[method-assign]


def built_positions(module: nn.Module) -> dict[str, tuple[CodePosition, ...]]:
    """Return where each module inside was built, by its path, as far as it was noted.

    A module that was not noted, such as a copy, has the positions of the module around it.
    """
    found: dict[str, tuple[CodePosition, ...]] = {}
    if not _BUILT:
        return found
    for path, part in module.named_modules(remove_duplicate=False):
        with suppress(Exception):
            found[path] = _BUILT.get(part) or found.get(path.rpartition(".")[0], ())
    return found


def defined_positions(module: nn.Module) -> dict[str, tuple[CodePosition, ...]]:
    """Return where the user's own classes assign each module inside, by its path, as their source shows.

    It serves a module that was built before: `self.conv = nn.Conv2d(...)` is the position of `conv`. An element of a
    container that is written out has a position of its own, others have that of the container.
    """
    found: dict[str, tuple[CodePosition, ...]] = {}
    values: dict[str, ast.expr] = {}
    for path, part in module.named_modules(remove_duplicate=False):
        around, _, name = path.rpartition(".")
        if around in values and name.isdigit():
            elements = _written_elements(values[around])
            if int(name) < len(elements):
                value = values[path] = elements[int(name)]
                found[path] = (_position_of(found[around][0].file, value),)
        if path not in found and around in found:
            found[path] = found[around]
        kind: Any = type(part)
        file, assigned = _assigned(kind)
        for attribute, value in assigned.items():
            inner = f"{path}.{attribute}".lstrip(".")
            values[inner], found[inner] = value, (_position_of(file, value),)
    return found


def _position_of(file: str, node: ast.expr) -> CodePosition:
    end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
    return CodePosition(file, node.lineno, node.col_offset, end_line, end_column)


def _written_elements(value: ast.expr) -> list[ast.expr]:
    """Return the elements of a container that its code lists one by one, as in `nn.Sequential(a, b)`."""
    elements = value.args if isinstance(value, ast.Call) else []
    if len(elements) == 1 and isinstance(elements[0], (ast.List, ast.Tuple)):
        elements = elements[0].elts
    return [] if any(isinstance(element, ast.Starred) for element in elements) else elements


@lru_cache(maxsize=1024)
def _assigned(kind: type) -> tuple[str, dict[str, ast.expr]]:
    """Return the file of a class of the user's, and what its constructor assigns to each attribute."""
    constructor = vars(kind).get("__init__")
    code = getattr(constructor, "__code__", None)
    if code is None or not _is_own(code.co_filename):
        return "", {}
    with suppress(OSError, SyntaxError, ValueError, RecursionError):
        with open(code.co_filename, encoding="utf-8") as file:
            tree = ast.parse(file.read())
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.name == "__init__" and node.lineno == code.co_firstlineno:
                return os.path.realpath(code.co_filename), dict(_assignments(node))
    return "", {}


def _assignments(function: ast.FunctionDef) -> Iterator[tuple[str, ast.expr]]:
    own = function.args.args[0].arg if function.args.args else ""
    for node in (node for node in ast.walk(function) if isinstance(node, ast.Assign)):
        for target in node.targets:
            if isinstance(target, ast.Attribute) and isinstance(target.value, ast.Name) and target.value.id == own:
                yield target.attr, node.value
