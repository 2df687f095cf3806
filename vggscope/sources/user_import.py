"""Imports of the user's own code: their output goes to stderr, their errors become messages of two lines."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
import warnings
from collections.abc import Iterator, Mapping, Set
from contextlib import contextmanager, redirect_stdout, suppress
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, nearest
from vggscope.files import near_file
from vggscope.sources.cache import LIBRARIES
from vggscope.sources.notebook import definitions, is_notebook
from vggscope.sources.resolve import note_other_code
from vggscope.trace.functions import first_line
from vggscope.trace.source_line import own_line

if TYPE_CHECKING:
    from types import CodeType, ModuleType

_SUFFIXES = (".py", ".ipynb")

_SEARCHED = "it is looked for in the current folder and among what is installed"

_RELATIVE_IMPORT = re.compile(rb"^[ \t]*from \.", re.MULTILINE)


def file_of(word: str) -> str | None:
    """The full path of the Python file that a word names; None for a dotted name, and for a file of a package.

    >>> file_of("package.module:Net") is None, os.path.basename(file_of("net.py:Net(10)") or "")
    (True, 'net.py')
    """
    match = re.fullmatch(r"(.*\.(?:py|ipynb))(?::.*)?", word, re.DOTALL)
    path = os.path.realpath(match[1]) if match else None
    return None if path is None or os.path.exists(os.path.join(os.path.dirname(path), "__init__.py")) else path


@contextmanager
def isolated_import(where: str) -> Iterator[None]:
    """Within this context, import the file or module `where` as if it ran on its own.

    Its imports are searched in its own folder first and in the current one last. Modules that were imported from the
    folder of another file are out of sight, since its own may have the same names. It sees no command-line arguments,
    writes no bytecode, and prints to stderr, also from programs that it starts. Warnings of torch, torchvision and timm
    are hidden.
    """
    import torch  # noqa: F401 - first, so that no torch.py or numpy.py in the folder is taken for it

    note_other_code()
    before = sys.dont_write_bytecode, sys.argv
    folder, here = str(import_root(where)), str(Path.cwd())
    searched = [folder, *([here] if here not in (folder, *sys.path) else [])]
    sys.path[:] = [searched[0], *sys.path, *searched[1:]]
    sys.dont_write_bytecode, sys.argv = True, [where]
    _show_modules_of(folder)
    known = set(sys.modules)
    try:
        with _descriptor_redirected(), redirect_stdout(sys.stderr), warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(torch|torchvision|timm|vggscope)\b")
            warnings.simplefilter("ignore", SyntaxWarning)
            yield
    finally:
        _note_modules_of(folder, known)
        sys.dont_write_bytecode, sys.argv = before
        for path in searched:
            with suppress(ValueError):
                sys.path.remove(path)


_MODULES: dict[str, dict[str, ModuleType]] = {}
"""The modules that were imported from each folder, by their names."""

_HIDDEN: dict[str, dict[str, ModuleType]] = {}
"""Those that are not in sys.modules while another folder's file is imported."""


def _show_modules_of(folder: str) -> None:
    """Take the modules of other folders out of sys.modules, and put those of this folder back."""
    for other, modules in _MODULES.items():
        for name, module in modules.items():
            if other != folder and sys.modules.get(name) is module:
                _HIDDEN.setdefault(other, {})[name] = sys.modules.pop(name)
    for name, module in _HIDDEN.pop(folder, {}).items():
        sys.modules.setdefault(name, module)


def _note_modules_of(folder: str, known: Set[str]) -> None:
    """Note the modules in a folder, and in packages in it, that are not among these known ones, nor parts of them."""
    modules = _MODULES.setdefault(folder, {})
    for name in sys.modules.keys() - known:
        top = name.partition(".")[0]
        outermost = sys.modules.get(top)
        place = next(iter(getattr(outermost, "__path__", ())), None) or getattr(outermost, "__file__", None)
        is_own = isinstance(place, str) and os.path.dirname(place) == folder
        if is_own and (top not in known or top in modules):
            modules[name] = sys.modules[name]


@contextmanager
def _descriptor_redirected() -> Iterator[None]:
    """Send file descriptor 1 to stderr."""
    try:
        sys.stdout.flush()
        stdout = os.dup(1)
        os.dup2(2, 1)
    except (OSError, ValueError, AttributeError):  # stdout is closed or missing
        yield
        return
    try:
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)


def imported(where: str) -> ModuleType:
    """The module at a path that ends in .py or .ipynb, or of a dotted name; to be called within `isolated_import`.

    Raises ModelError, with the line of the user's code, where it cannot be imported.
    """
    if not where.endswith(_SUFFIXES):
        try:
            return importlib.import_module(where)
        except (Exception, SystemExit) as error:
            cause = _import_error(where, error)
            near = nearest(where, LIBRARIES) if isinstance(error, ModuleNotFoundError) else ""
            raise ModelError(f"{cause.problem}{near}", cause.remedy or _SEARCHED) from error
    require_source(where)
    path = Path(os.path.realpath(where))
    name = ".".join(path.relative_to(import_root(where)).with_suffix("").parts)
    try:
        if is_notebook(where):
            return definitions(path)
        return importlib.import_module(name) if "." in name else _executed(name, path)
    except (Exception, SystemExit) as error:
        raise _import_error(where, error) from error


def require_source(where: str) -> None:
    """Raise ModelError where there is no file of this path, or no package of this dotted name, without running code."""
    if where.endswith(_SUFFIXES):
        if not os.path.isfile(os.path.realpath(where)):
            raise ModelError(f"there is no file {where}{near_file(where)}", "write path/file.py:Net")
        return
    package = where.partition(".")[0]
    if package not in sys.modules and not (find_spec(package) or PathFinder.find_spec(package, [os.getcwd()])):
        problem = f"cannot import {where}: ModuleNotFoundError: No module named {package!r}"
        raise ModelError(f"{problem}{nearest(package, LIBRARIES)}", _SEARCHED)


def import_root(where: str) -> Path:
    """The folder that holds the file's outermost package, or the file itself; the current one for a dotted name."""
    if not where.endswith(_SUFFIXES):
        return Path.cwd()
    path = Path(os.path.realpath(where))
    folder = path.parent
    if path.is_file() and _RELATIVE_IMPORT.search(path.read_bytes()) and not (folder / "__init__.py").exists():
        return folder.parent  # a relative import makes the folder a package, even without __init__.py
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


_REPLACED: dict[str, str] = {}
"""Texts that are read in place of those of files, by the full paths of the files."""


@contextmanager
def replaced_sources(texts: Mapping[str, str]) -> Iterator[None]:
    """Within this context, files named by a word have these texts, by their full paths."""
    before = dict(_REPLACED)
    _REPLACED.update(texts)
    try:
        yield
    finally:
        _REPLACED.clear()
        _REPLACED.update(before)


def has_replaced_sources() -> bool:
    """Whether a file has another text than its own."""
    return bool(_REPLACED)


class _ReplacedLoader(SourceFileLoader):
    """Loads a module from a text that is not its file's."""

    def get_code(self, fullname: str) -> CodeType:
        code: CodeType = self.source_to_code(_REPLACED[self.path].encode(), self.path)
        return code


def _executed(name: str, path: Path) -> ModuleType:
    """The module that a file defines, under another name if a module of that name is already imported."""
    name = name if name not in sys.modules else f"{name} ({path})"
    loader = _ReplacedLoader(name, str(path)) if str(path) in _REPLACED else None
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_error(where: str, error: BaseException) -> ModelError:
    """`user_error` for an import, with advice on code that should not run at import."""
    cause = user_error(f"cannot import {where}", error)
    advice = ""
    if isinstance(error, (SystemExit, OSError, RuntimeError, AssertionError, EOFError)):
        advice = 'code that only a run needs belongs under if __name__ == "__main__":'
    elif hidden := _hidden_package(where, error):
        advice = f"{hidden}.py in its folder has the name of a package: rename it"
    elif isinstance(error, ModuleNotFoundError) and cause.remedy:
        advice = "run it from the folder that has it, or install it here"
    return ModelError(cause.problem, "; ".join(filter(None, (cause.remedy, advice))))


def _hidden_package(where: str, error: BaseException) -> str:
    """The module that lacks what an import wants, if a file of that name lies in the folder of `where`; else empty."""
    match = re.search(r"module '(\w+)' has no attribute", str(error))
    name = error.name if isinstance(error, ImportError) else match and match[1]
    top = (name or "").partition(".")[0]
    return top if top and (import_root(where) / f"{top}.py").is_file() else ""


def user_error(what: str, error: BaseException) -> ModelError:
    """An error of the user's code as a ModelError: what failed and why, then the line where."""
    if isinstance(error, ModelError):
        return error
    if isinstance(error, SystemExit):
        why = "it calls sys.exit"
    elif isinstance(error, SyntaxError) and error.filename:
        line = f": {error.text.strip()}" if error.text else ""
        return ModelError(
            f"{what}: {type(error).__name__}: {error.msg}", f"{error.filename}, line {error.lineno}{line}"
        )
    else:
        why = first_line(error)
    return ModelError(f"{what}: {why}", own_line(error))
