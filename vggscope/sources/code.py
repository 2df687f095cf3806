"""A class or function of the user's that makes an nn.Module: `path/file.py:Net`, `package.module:make_net`."""

from __future__ import annotations

import ast
import difflib
import inspect
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, OptionError, option
from vggscope.graph import Network
from vggscope.inputs import Inputs
from vggscope.record import record
from vggscope.sources.notebook import RUN, is_made_by_call, is_notebook
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

_WORD = re.compile(
    r"(?P<file>.*\.(?:py|ipynb))(?::(?P<name>.*))?|(?P<module>[^\W\d][\w.]*):(?P<attribute>[^\W\d].*)", re.DOTALL
)
_CALL = re.compile(r"(?P<name>[^\W\d]\w*(?:\.[^\W\d]\w*)*)\s*(?P<arguments>\(.*\))?", re.DOTALL)


@record
class ModelCall:
    """A word `where:name(arguments)`: `where` is a path to a file or a module's dotted name."""

    where: str
    name: str
    args: tuple[object, ...] = ()
    kwargs: tuple[tuple[str, object], ...] = ()


def claims(word: str) -> bool:
    """Whether the word names a Python file, or something in a module."""
    return re.search(r"\.(py|ipynb)(:|$)", word) is not None or re.match(r"[^\W\d][\w.]*:[^\W\d]", word) is not None


def check(word: str, cache: bool) -> None:
    """Raise ModelError for a word whose file or package is not there. `cache` is that of a library's names."""
    from vggscope.sources.user_import import require_source

    require_source(parse(word).where)


def origin(word: str) -> tuple[str, dict[str, str]]:
    """Return the name of the file that a word names, and what its model depends on besides the libraries.

    Raises LookupError if that is not known: where code may read more than files and libraries, in a notebook, in a
    package that is installed, and where a file's text is replaced.
    """
    from vggscope.sources.closed_code import sources_of
    from vggscope.sources.installed import digest, identity
    from vggscope.sources.user_import import has_replaced_sources, import_root

    call = parse(word)
    where, sources = call.where, None
    if where.endswith(".py") and not has_replaced_sources():
        sources = sources_of(where, str(import_root(where)), repr((call.args, call.kwargs)))
    packages = {name: identity(name) for name in sources.packages} if sources is not None else {}
    if sources is None or None in packages.values():
        raise LookupError(f"what {word} depends on is not known")
    searched = os.getcwd(), sys.path  # a message names files as seen from the current folder
    known = {name: text for name, text in packages.items() if text is not None}
    return os.path.basename(where), {"code": digest(repr((sources.texts, searched)).encode()), **known}


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the module that the word's class or function makes.

    Raises ModelError, with the line of the user's code, where that cannot be imported or built.
    """
    from vggscope.sources.cache import decline
    from vggscope.sources.user_import import isolated_import
    from vggscope.trace.build import without_data
    from vggscope.trace.network import network_of
    from vggscope.trace.random_reads import random_reads
    from vggscope.trace.source_line import noting_built_modules

    call, reads = parse(word), random_reads()
    traced = partial(
        network_of,
        name=word,
        spec=options.given,
        steps=options.steps,
        batch=options.batch,
        backward=options.backward,
    )
    with isolated_import(call.where), noting_built_modules():
        with reads:
            name, factory = _factory(call, options)

        def make() -> nn.Module:
            with reads:
                return factory()

        notes: tuple[str, ...] = () if call.name else (f"{call.where} names no class: its only one, {name}, was taken",)
        notes += (f"of {call.where} these were run: {RUN}",) if is_notebook(call.where) else ()
        try:
            module = without_data(make)
        except ModelError as error:
            if not _reads_values(error.__cause__):
                raise
            network = traced(make())
            notes = (*notes, "the model reads values while it is built: it was built with its weights")
            reads.found = True
        else:
            network = traced(module, rebuild=make)
        if reads.found or network.reads_values:
            decline()
        return replace(network, warnings=(*network.warnings, *notes))


def build(word: str, options: BuildOptions) -> nn.Module:
    """The module itself, on the caller's default device; raises as `load` does."""
    from vggscope.sources.user_import import isolated_import

    call = parse(word)
    with isolated_import(call.where):
        return _factory(call, options)[1]()


def _reads_values(error: BaseException | None) -> bool:
    """Whether building failed for lack of a value: of a tensor without data, or of published weights."""
    return isinstance(error, (NotImplementedError, KeyError)) or "meta" in str(error).lower()


def parse(word: str) -> ModelCall:
    """The parts of a word. Raises ModelError where it is none, or its arguments are not literals."""
    match = _WORD.fullmatch(word)
    if match is None:
        raise ModelError(f"{word!r} names no class", "write path/file.py:Net or package.module:make_net")
    where, called = match["file"] or match["module"], match["name"] or match["attribute"] or ""
    if not called:
        return ModelCall(where, "")
    call = _CALL.fullmatch(called.strip())
    if call is None:
        raise ModelError(
            f"{called!r} is not the name of a class or a function",
            'write "path/file.py:Net(num_classes=10)", in quotes for the shell',
        )
    args, kwargs = _arguments(call["arguments"] or "()")
    return ModelCall(where, call["name"], args, kwargs)


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
        f"the arguments {text} are not literals",
        """numbers, lists, texts in quotes, and all in quotes for the shell: "net.py:Net(10, name='D')\"""",
    )


def _factory(call: ModelCall, options: BuildOptions) -> tuple[str, Callable[[], nn.Module]]:
    """The name of what makes the module, and a function that makes it, or raises ModelError with the user's line.

    Raises ModelError or OptionError at once where the arguments do not fit.
    """
    from torch import nn

    from vggscope.sources.user_import import imported

    options.refuse_column_options(f"{call.where} is built as it is written")
    code = imported(call.where)
    call = _named(code, call)
    target = _target(code, call)
    if isinstance(target, nn.Module):
        if call.args or call.kwargs or options.num_classes is not None:
            raise OptionError(f"{call.name} is a module already, it takes no arguments", "leave them out")
        return call.name, lambda: target
    kwargs = dict(call.kwargs)
    if options.num_classes is not None:
        kwargs["num_classes"] = options.num_classes
    _check_arguments(target, call, kwargs, options)

    def make() -> nn.Module:
        try:
            made = target(*call.args, **kwargs)
        except (Exception, SystemExit) as error:
            raise _build_error(call, error) from error

        return _checked_module(made, call.name)

    return call.name, make


def _build_error(call: ModelCall, error: BaseException) -> ModelError:
    from vggscope.sources.user_import import user_error

    explained = user_error(f"{call.name} cannot be built", error)
    if not (is_notebook(call.where) and isinstance(error, NameError)):
        return explained
    return ModelError(explained.problem, f"{explained.remedy}; of a notebook these are run: {RUN}")


def _checked_module(made: object, name: str) -> nn.Module:
    """Return the module that a user's class or function made, with the inputs that a function may return beside it.

    Raises ModelError for anything but a module, or a module and its inputs.
    """
    from torch import nn

    from vggscope.trace.inputs import attach

    if isinstance(made, tuple) and len(made) == 2 and isinstance(made[0], nn.Module):
        return attach(made[0], Inputs(data=made[1]))
    if not isinstance(made, nn.Module):
        raise ModelError(f"{name} returns {type(made).__name__}, not an nn.Module", "name a model's class")
    return made


def _named(code: ModuleType, call: ModelCall) -> ModelCall:
    """Return the call with the name of the file's only model if it has none.

    That is the only class or object of nn.Module, else the only function without required arguments. Raises ModelError
    if there are several, or none.
    """
    from torch import nn

    if call.name:
        return call
    members, names = vars(code), _model_names(code)
    models = [name for name in names if isinstance(members[name], (type, nn.Module))]
    makers = [name for name in names if name not in models and not _needs_arguments(members[name])]
    if len(models) == 1 and not _needs_arguments(members[models[0]]):
        return replace(call, name=models[0])
    if len(makers) == 1 and all(_needs_arguments(members[name]) for name in models):
        return replace(call, name=makers[0])
    words = " or ".join(f"{call.where}:{name}" for name in (*models, *makers))
    raise ModelError(f"{call.where} names no class", f"write {words}" if words else "it has no nn.Module")


def _target(module: ModuleType, call: ModelCall) -> Callable[..., object]:
    """The class, function or module object that the word names."""
    from torch import nn

    names = _model_names(module)
    target: object = module
    for part in call.name.split("."):
        if not hasattr(target, part):
            near = difflib.get_close_matches(call.name, names, n=max(len(names), 1), cutoff=0)
            remedy = f"it has {', '.join(near)}" if near else "it has no nn.Module and no function"
            if is_notebook(call.where) and is_made_by_call(call.where, part):
                raise ModelError(
                    f"{part} in {call.where} is the value of a call, and of a notebook no call is run",
                    f"name its class or function: {remedy}",
                )
            raise ModelError(f"{call.where} has no {call.name!r}", remedy)
        target = getattr(target, part)
    is_other_class = isinstance(target, type) and not issubclass(target, nn.Module)
    if is_other_class or not callable(target):
        others = [name for name in names if name != call.name]
        raise ModelError(
            f"{call.name} in {call.where} is not an nn.Module",
            f"it has {', '.join(others)}" if others else "name another",
        )
    return target


def _model_names(module: ModuleType) -> list[str]:
    """The names of nn.Module objects in a file, and of its own nn.Module classes and functions."""
    from torch import nn

    def is_model(value: object) -> bool:
        own = getattr(value, "__module__", None) == module.__name__
        is_class = isinstance(value, type) and issubclass(value, nn.Module)
        return isinstance(value, nn.Module) or (own and (is_class or inspect.isfunction(value)))

    return [name for name, value in vars(module).items() if not name.startswith("_") and is_model(value)]


def _check_arguments(
    target: Callable[..., object], call: ModelCall, kwargs: dict[str, object], options: BuildOptions
) -> None:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return
    if options.num_classes is not None:
        parameters = signature.parameters.values()
        if not any(p.name == "num_classes" or p.kind is p.VAR_KEYWORD for p in parameters):
            raise OptionError(
                f"{option('num_classes')}: {call.name} has no argument num_classes", f"it is {call.name}{signature}"
            )
    try:
        signature.bind(*call.args, **kwargs)
    except TypeError as error:
        others = [name for name in _factories_beside(target) if name != call.name]
        instead = f", or name what makes it: {', '.join(others)}" if others else ""
        raise ModelError(
            f"{call.name}{signature}: {error}",
            f'give its arguments in the word, in quotes for the shell: "{call.where}:{call.name}(...)"{instead}',
        ) from None


def _factories_beside(target: Callable[..., object]) -> list[str]:
    """The functions in a class's file that need no argument: they may make an instance of it."""
    if not isinstance(target, type):
        return []
    members = vars(sys.modules[target.__module__]) if target.__module__ in sys.modules else {}
    functions = [f for f in members.values() if inspect.isfunction(f) and f.__module__ == target.__module__]
    functions = [f for f in functions if not f.__name__.startswith(("test", "main", "_"))]
    return [f.__name__ for f in functions if not any(map(_is_required, inspect.signature(f).parameters.values()))]


def _needs_arguments(target: object) -> bool:
    """Whether a class or function cannot be called without arguments. A module object is not called."""
    if not (isinstance(target, type) or inspect.isfunction(target)):
        return False
    try:
        return any(map(_is_required, inspect.signature(target).parameters.values()))
    except (TypeError, ValueError):
        return False


def _is_required(parameter: inspect.Parameter) -> bool:
    is_variadic = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    return parameter.default is parameter.empty and not is_variadic
