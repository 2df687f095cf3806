"""A class or a function of the user's own that gives an nn.Module: `path/file.py:Net`, `package.module:make_net`.

The file is imported from where it stands, so that its own imports work, and whatever it prints goes to stderr.
"""

from __future__ import annotations

import ast
import difflib
import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, OptionError, nearest
from vggscope.graph import Network
from vggscope.record import record
from vggscope.sources.cache import LIBRARIES
from vggscope.sources.user_import import import_error, isolated_import, user_error
from vggscope.trace.build import without_data
from vggscope.trace.network import network_of
from vggscope.vgg.options import Options

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

    Make = Callable[[], nn.Module]

_WORD = re.compile(r"(?P<file>.*\.py)(?::(?P<name>.*))?|(?P<module>[^\W\d][\w.]*):(?P<attribute>[^\W\d].*)", re.DOTALL)
_CALL = re.compile(r"(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)\s*(?P<arguments>\(.*\))?", re.DOTALL)

_IMPORTS_BESIDE = re.compile(rb"^[ \t]*from \.", re.MULTILINE)


@record
class Word:
    """`where:name(arguments)`: `where` is a path to a file or a module's dotted name."""

    where: str
    name: str
    args: tuple[object, ...] = ()
    kwargs: tuple[tuple[str, object], ...] = ()

    @property
    def is_file(self) -> bool:
        return self.where.endswith(".py")


def load(word: str, options: Options) -> Network:
    """The Network of the module that the word's class or function gives.

    Raises ModelError, with the line of the user's code, where it cannot be imported or built.
    """
    read = _read(word)
    with isolated_import(_folder(read), read.where):
        make = _maker(read, options)
        try:
            module = without_data(make)
        except ModelError as error:
            if not _wants_data(error.__cause__):
                raise
            network = network_of(make(), word, options.input)
            note = "the model reads values while it is built: it was built with its weights"
            return replace(network, warnings=(*network.warnings, note))
        return network_of(module, word, options.input, rebuild=make)


def build(word: str, options: Options) -> nn.Module:
    """The module itself, allocated where the caller's device context says; raises as `load` does."""
    read = _read(word)
    with isolated_import(_folder(read), read.where):
        return _maker(read, options)()


def _wants_data(error: BaseException | None) -> bool:
    """Whether building broke off at a value that is not there: of a tensor without data, or of published weights."""
    return isinstance(error, (NotImplementedError, KeyError)) or "meta" in str(error).lower()


def _read(word: str) -> Word:
    match = _WORD.fullmatch(word)
    if match is None:
        raise ModelError(f"{word!r} names no class", "write path/file.py:Net or package.module:make_net")
    where, called = match["file"] or match["module"], match["name"] or match["attribute"] or ""
    if not called:
        return Word(where, "")
    call = _CALL.fullmatch(called.strip())
    if call is None:
        raise ModelError(f"{called!r} is no name of a class or a function", "write path/file.py:Net(num_classes=10)")
    args, kwargs = _arguments(call["arguments"] or "()")
    return Word(where, call["name"], args, kwargs)


def _arguments(text: str) -> tuple[tuple[object, ...], tuple[tuple[str, object], ...]]:
    """The literals in parentheses; nothing is evaluated."""
    try:
        call = ast.parse(f"f{text}", mode="eval").body
        # Not more than one pair of parentheses, and no **.
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and all(k.arg for k in call.keywords):
            named = tuple((str(keyword.arg), ast.literal_eval(keyword.value)) for keyword in call.keywords)
            return tuple(map(ast.literal_eval, call.args)), named
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        pass
    raise ModelError(
        f"{text} are no literal arguments",
        """numbers, lists, texts in quotes, and all in quotes for the shell: "net.py:Net(10, name='D')\"""",
    )


def _folder(word: Word) -> Path:
    """Where the word's imports start: the folder of the file, above the package that it belongs to."""
    if not word.is_file:
        return Path.cwd()
    path = Path(os.path.realpath(word.where))
    folder = path.parent
    if path.is_file() and _IMPORTS_BESIDE.search(path.read_bytes()) and not (folder / "__init__.py").exists():
        return folder.parent  # it takes its folder for a package, which need not say so
    while (folder / "__init__.py").exists():
        folder = folder.parent
    return folder


def _imported(word: Word) -> ModuleType:
    if not word.is_file:
        try:
            return importlib.import_module(word.where)
        except (Exception, SystemExit) as error:
            found = import_error(f"cannot import {word.where}", error)
            searched = "it is looked for in the current folder and among what is installed"
            near = nearest(word.where, LIBRARIES) if isinstance(error, ModuleNotFoundError) else ""
            raise ModelError(f"{found.problem}{near}", found.remedy or searched) from error
    path = Path(os.path.realpath(word.where))
    if not path.is_file():
        from vggscope.files import near_file

        raise ModelError(f"there is no file {word.where}{near_file(word.where)}", "write path/file.py:Net")
    name = ".".join(path.relative_to(_folder(word)).with_suffix("").parts)
    try:
        return importlib.import_module(name) if "." in name else _executed(name, path)
    except (Exception, SystemExit) as error:
        raise import_error(f"cannot import {word.where}", error) from error


def _executed(name: str, path: Path) -> ModuleType:
    """A file run as a module of its own, whatever else goes by its name."""
    name = name if name not in sys.modules else f"{name} ({path})"
    spec = importlib.util.spec_from_file_location(name, path)
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


def _maker(word: Word, options: Options) -> Make:
    """What makes the module, its arguments checked; it raises ModelError with the line of the user's code."""
    from torch import nn

    options.refuse_column_options(f"{word.where} is taken as it is written")
    target = _target(_imported(word), word)
    if isinstance(target, nn.Module):
        if word.args or word.kwargs or options.num_classes is not None:
            raise OptionError(f"{word.name} is a module already, it takes no arguments", "leave them out")
        return lambda: target
    kwargs = dict(word.kwargs)
    if options.num_classes is not None:
        kwargs["num_classes"] = options.num_classes
    _check_arguments(target, word, kwargs, options)

    def make() -> nn.Module:
        try:
            found = target(*word.args, **kwargs)
        except (Exception, SystemExit) as error:
            raise user_error(f"{word.name} cannot be built", error) from error
        if not isinstance(found, nn.Module):
            raise ModelError(f"{word.name} gives a {type(found).__name__}, no nn.Module", "name a model's class")
        return found

    return make


def _target(module: ModuleType, word: Word) -> Callable[..., object]:
    from torch import nn

    has = _names(module)
    if not word.name:
        raise ModelError(f"{word.where} names no class", f"it has {', '.join(has)}" if has else "it has no nn.Module")
    found: object = module
    for part in word.name.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(word.name, has, n=max(len(has), 1), cutoff=0)
            remedy = f"it has {', '.join(near)}" if near else "it has no nn.Module and no function"
            raise ModelError(f"{word.where} has no {word.name!r}", remedy)
        found = getattr(found, part)
    is_other_class = isinstance(found, type) and not issubclass(found, nn.Module)
    if is_other_class or not callable(found):
        others = [name for name in has if name != word.name]
        raise ModelError(
            f"{word.name} in {word.where} is no nn.Module", f"it has {', '.join(others)}" if others else "name another"
        )
    return found


def _names(module: ModuleType) -> list[str]:
    """The models that a file has: modules, their classes, and functions of its own."""
    from torch import nn

    def counts(value: object) -> bool:
        own = getattr(value, "__module__", None) == module.__name__
        is_class = isinstance(value, type) and issubclass(value, nn.Module)
        return isinstance(value, nn.Module) or (own and (is_class or inspect.isfunction(value)))

    return [name for name, value in vars(module).items() if not name.startswith("_") and counts(value)]


def _check_arguments(target: Callable[..., object], word: Word, kwargs: dict[str, object], options: Options) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    if options.num_classes is not None:
        taken = signature.parameters.values()
        if not any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in taken):
            raise OptionError(
                f"--num-classes: {word.name} has no argument num_classes", f"it is {word.name}{signature}"
            )
    try:
        signature.bind(*word.args, **kwargs)
    except TypeError as error:
        others = [name for name in _own_functions(target) if name != word.name]
        instead = f", or name what makes it: {', '.join(others)}" if others else ""
        raise ModelError(
            f"{word.name}{signature}: {error}",
            f"give its arguments in the word: {word.where}:{word.name}(...){instead}",
        ) from None


def _own_functions(target: Callable[..., object]) -> list[str]:
    """The functions that stand beside a class and need no argument: they may make it."""
    if not isinstance(target, type):
        return []
    found = vars(sys.modules[target.__module__]) if target.__module__ in sys.modules else {}
    functions = [f for f in found.values() if inspect.isfunction(f) and f.__module__ == target.__module__]
    functions = [f for f in functions if not f.__name__.startswith(("test", "main", "_"))]
    return [f.__name__ for f in functions if not any(_is_needed(p) for p in inspect.signature(f).parameters.values())]


def _is_needed(parameter: inspect.Parameter) -> bool:
    is_more = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not is_more
