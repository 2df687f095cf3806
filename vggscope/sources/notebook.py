"""The definitions in a notebook's code cells, as a module: `nb.ipynb:Net`. Its other statements do not run."""

from __future__ import annotations

import ast
import json
import linecache
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from vggscope.errors import ModelError

RUN = "imports, classes, functions, and values without a call"
"""What runs of a notebook: training and downloads, which are calls, do not."""

_DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_IMPORTS = (ast.Import, ast.ImportFrom)
_ASSIGNMENTS = (ast.Assign, ast.AnnAssign)

_PYTHON_MAGIC = re.compile(r"%%(time|timeit|capture|prun)\b")
"""Magic words of a cell whose other lines are Python."""


def is_notebook(where: str) -> bool:
    """Whether a word's file is a notebook."""
    return where.endswith(".ipynb")


def definitions(path: Path) -> ModuleType:
    """The module with the imports, classes, functions and values that a notebook's code cells define.

    An error in the third code cell has the file name `nb.ipynb, code cell 3`. An import that fails is left out, as is a
    value of what is not defined here. Raises ModelError for a file that is no notebook, SyntaxError for a cell that is
    not Python, and whatever a definition raises.
    """
    module = ModuleType(path.stem if path.stem not in sys.modules else f"{path.stem} ({path})")
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    try:
        for number, source in enumerate(_cells(path), 1):
            _define(source, f"{path}, code cell {number}", module)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def is_made_by_call(path: str, name: str) -> bool:
    """Whether a code cell gives a name the value of a call, which does not run."""
    for source in _cells(Path(path)):
        for statement in ast.parse(_without_magic(source)).body:
            if isinstance(statement, _ASSIGNMENTS) and any(map(_is_call, ast.walk(statement))):
                targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
                if any(isinstance(node, ast.Name) and node.id == name for t in targets for node in ast.walk(t)):
                    return True
    return False


def _define(source: str, name: str, module: ModuleType) -> None:
    """Run those statements of a cell that are RUN. An import or a value that fails is left out."""
    # Tracebacks show the lines that are registered here.
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    for statement in ast.parse(_without_magic(source), name).body:
        if isinstance(statement, _DEFINITIONS):
            left_out: type[Exception] | tuple[()] = ()
        elif isinstance(statement, _IMPORTS):
            left_out = ImportError
        elif isinstance(statement, _ASSIGNMENTS) and not any(map(_is_call, ast.walk(statement))):
            left_out = Exception
        else:
            continue
        try:
            exec(compile(ast.Module([statement], []), name, "exec"), vars(module))  # noqa: S102 - as an import would
        except left_out:
            continue


def _is_call(node: ast.AST) -> bool:
    return isinstance(node, ast.Call)


def _cells(path: Path) -> Iterator[str]:
    """The sources of the code cells."""
    try:
        notebook = json.loads(path.read_bytes())
        cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
        sources = ["".join(cell["source"]) for cell in cells]
    except (ValueError, LookupError, TypeError, RecursionError):
        raise ModelError(f"{path.name} is no notebook of format 4", "export it as a script: name.py:Net") from None
    yield from sources


def _without_magic(source: str) -> str:
    """A cell with its magic and shell lines blanked; empty if a magic word makes the whole cell another language."""
    if source.lstrip().startswith("%%") and not _PYTHON_MAGIC.match(source.lstrip()):
        return ""
    source = re.sub(r"^(\s*)(?:[%!?].*|.*\?)$", r"\1pass", source, flags=re.MULTILINE)
    return re.sub(r"^(\s*[\w, ]+=\s*)[!%].*$", r"\1None", source, flags=re.MULTILINE)
