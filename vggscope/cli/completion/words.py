"""The candidates at the cursor of a command line, and the values of each kind of option.

`options.option` names the function here that lists an option's values, or the table for `one_of`.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, get_args

from vggscope.checkpoint import SUFFIXES
from vggscope.choices import PictureFormat, WordOptions
from vggscope.graph import Network
from vggscope.inputs import Inputs, parse_input
from vggscope.sources.cache import LIBRARIES, recalled
from vggscope.sources.resolve import read
from vggscope.vgg.configs import CONFIGS, LITERATURE
from vggscope.vgg.options import BuildOptions
from vggscope.vgg.toml import config_names

if TYPE_CHECKING:
    from typer import Typer

MODEL_SUFFIXES = (".py", ".ipynb", ".toml", ".json", *SUFFIXES)
"""Suffixes of files that are or define models."""

LARGEST_FILE = 10**6
"""A larger Python file, in bytes, is not read."""

MOST_ENTRIES = 10_000
"""No more entries of a folder are read."""

Candidate = tuple[str, str]
"""A word, and its explanation or an empty text."""


def candidates(app: Typer, commands: Mapping[str, str], words: Sequence[str], word: str) -> list[Candidate]:
    """The candidates at the cursor, after `words` and in place of `word`."""
    from typer.main import get_command

    root = get_command(app)
    at = next((i for i, known in enumerate(words) if not known.startswith("-")), None)
    if at is None:
        if word.startswith("-"):
            return _options(root, words, word)
        return [(name, about) for name, about in commands.items() if name.startswith(word)]
    command: Any = root.get_command(None, words[at])  # type: ignore[attr-defined]
    return _of_command(command, list(words[at + 1 :]), word) if command is not None else []


def _of_command(command: Any, words: list[str], word: str) -> list[Candidate]:
    with_value = {
        name: param
        for param in command.params
        if param.param_type_name == "option" and not param.is_flag
        for name in param.opts
    }
    name, equals, value = word.partition("=")
    if "--" not in words:
        if equals and name in with_value:
            return [(f"{name}={text}", about) for text, about in _values(command, with_value[name], words, value)]
        if words and words[-1] in with_value:
            return _values(command, with_value[words[-1]], words[:-1], word)
        if word.startswith("-"):
            return _options(command, words, word)
    ctx = _context(command, words)
    for param in command.params:
        if param.param_type_name == "argument" and (param.nargs == -1 or ctx.params.get(param.name) is None):
            return _values(command, param, words, word)
    return _options(command, words, word or "--")


def _context(command: Any, words: Sequence[str]) -> Any:
    return command.make_context(command.name, list(words), resilient_parsing=True)


def _values(command: Any, param: Any, words: list[str], word: str) -> list[Candidate]:
    items = param.shell_complete(_context(command, words), word)
    # No shell can show a file name that holds a line break.
    return [(item.value, item.help or "") for item in items if item.value.isprintable()]


def _options(command: Any, words: Sequence[str], word: str) -> list[Candidate]:
    """The long options that are not in the line yet, in the order of `--help`."""
    from vggscope.cli.help import groups_of

    return [
        (name, param.help or "")
        for _, params in groups_of(command, _context(command, []))
        for param in params
        if param.param_type_name == "option" and not {*param.opts, *param.secondary_opts} & {*words}
        for name in (*param.opts, *param.secondary_opts)
        if name.startswith("--") and name.startswith(word)
    ]


def one_of(ctx: Any, word: str, table: str) -> list[Any]:
    """The names of a table, `package.module:TABLE`, with their explanations: its keys, entries, or entries' names."""
    module, _, attribute = table.partition(":")
    entries = getattr(import_module(module), attribute)
    about = entries if isinstance(entries, Mapping) else {}
    names = [entry if isinstance(entry, str) else getattr(entry, "name", "") or entry.key for entry in entries]
    explained = ((name, about.get(name)) for name in names)
    return [(name, text if isinstance(text, str) else getattr(text, "about", "")) for name, text in explained]


def several(ctx: Any, word: str, table: str) -> list[str]:
    """Names of a table with commas between them."""
    return _extend_list(word, [name for name, _ in one_of(ctx, word, table)])


def _extend_list(word: str, names: Iterable[str]) -> list[str]:
    """The list with commas that `word` begins, continued by each name that is not in it yet."""
    before, comma, _ = word.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name not in before.split(",")]


def models(ctx: Any, word: str, *others: str) -> list[str]:
    """A MODEL, or one of the words `others`."""
    if ":" in word:
        return _entered(word, _inside(word), _inside)
    from vggscope.vgg.families import FAMILIES

    bn = [f"{name}_bn" for name in (*LITERATURE, *(CONFIGS if "_" in word else ()))]
    libraries = [f"{name}:" for name in LIBRARIES if find_spec(name)]
    known = [*others, *CONFIGS, *LITERATURE, *bn, *FAMILIES, *libraries, *_paths(word, MODEL_SUFFIXES)]
    return _entered(word, known, _inside)


def _entered(word: str, known: Iterable[str], inside: Callable[[str], list[str]]) -> list[str]:
    """The known words that begin with `word`.

    A single one that leads to others, such as `torchvision:` or a folder, is replaced by those: a shell would add a
    blank after it.
    """
    names = _starting_with(word, known)
    while len(names) == 1 and (inner := _starting_with(names[0], inside(names[0]))) and inner != names:
        names = inner
    return names


def _inside(word: str) -> list[str]:
    """The models of a library or a file, or the files of a folder."""
    first, colon, _ = word.partition(":")
    if colon and first in LIBRARIES:
        from vggscope.sources.library_names import names_in

        return [f"{first}:{name}" for name in names_in(first)]
    path = word.rpartition(":")[0] or word
    if path.endswith(".py"):
        return [f"{path}:{name}" for name in _classes(path)]
    if path.lower().endswith(".toml"):
        return [f"{path}:{name}" for name in config_names(os.path.expanduser(path)) if ":" not in name]
    return _paths(word, MODEL_SUFFIXES) if word.endswith("/") else []


def _starting_with(word: str, names: Iterable[str]) -> list[str]:
    return [name for name in dict.fromkeys(names) if name.startswith(word)]


def _classes(path: str) -> list[str]:
    """The public functions and derived classes that a Python file defines. The file is parsed, not run."""
    path = os.path.expanduser(path)
    if not os.path.isfile(path) or os.path.getsize(path) > LARGEST_FILE:
        return []
    with open(path, "rb") as file:
        tree = ast.parse(file.read())
    nodes = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    return [node.name for node in nodes if node.name[0] != "_" and (isinstance(node, ast.FunctionDef) or node.bases)]


def paths(ctx: Any, word: str, *suffixes: str) -> list[str]:
    """A file with one of the suffixes. A single folder is replaced by what is in it."""
    return _entered(word, _paths(word, suffixes), lambda path: _paths(path, suffixes) if path.endswith("/") else [])


def _paths(word: str, suffixes: Sequence[str]) -> list[str]:
    """The folders whose path begins with `word`, and the files with one of the suffixes."""
    folder, start = os.path.split(word)
    names = []
    with os.scandir(os.path.expanduser(folder) or ".") as entries:
        for entry, _ in zip(entries, range(MOST_ENTRIES)):
            hidden = entry.name.startswith(".") and not start.startswith(".")
            if entry.name.startswith(start) and not hidden and entry.name != "__pycache__":
                path = os.path.join(folder, entry.name)
                if entry.is_dir():
                    names.append(f"{path}/")
                elif entry.name.lower().endswith(tuple(suffixes)):
                    names.append(path)
    return sorted(names)


def results(ctx: Any, word: str) -> list[str]:
    """A file for the command's result."""
    from vggscope.render.formats import suffixes

    return written(ctx, word, *suffixes(ctx.info_name))


def pictures(ctx: Any, word: str) -> list[str]:
    """A file for a diagram."""
    return written(ctx, word, *(f".{name}" for name in get_args(PictureFormat)))


def depths(ctx: Any, word: str) -> list[str]:
    """A depth of modules."""
    return _starting_with(word, ("1", "2", "3", "4", "5"))


def fonts(ctx: Any, word: str) -> list[str]:
    """A font that is installed on this machine."""
    from vggscope.drawing.installed_fonts import families

    return [name for name in families() if name.lower().startswith(word.lower())]


def written(ctx: Any, word: str, *suffixes: str) -> list[str]:
    """A file to write: one that exists, or the name that `word` begins with each of the suffixes."""
    existing = paths(ctx, word, *suffixes)
    stem, dot, _ = os.path.basename(word).rpartition(".")
    name = stem if dot else os.path.basename(word)
    if not name or existing:
        return existing
    return [os.path.join(os.path.dirname(word), name + suffix) for suffix in suffixes]


def layers(ctx: Any, word: str) -> list[str]:
    """Layers of the command's model, with commas between them."""
    model = ctx.params.get("model") or next(iter(ctx.params.get("models") or ()), "")
    return _extend_list(word, _layers(model, ctx.params, word.rpartition(",")[2]))


def _layers(model: str, params: Mapping[str, Any], word: str) -> list[str]:
    """The layers whose label begins with `word`, or else those whose path does."""
    network = _network(model, params)
    if network is None:
        return []
    labels = _starting_with(word, (node.label for node in network.nodes if node.label))
    return labels or _starting_with(word, (node.name for node in network.nodes))


def _network(model: str, params: Mapping[str, Any]) -> Network | None:
    """The Network of a model; None for a library's that is not cached, and for one whose code would have to run."""
    library, _, name = model.partition(":")
    if library == "torchvision" and name.removesuffix("_bn") in LITERATURE:
        return read(name)  # its module tree is that of the configuration
    inputs = Inputs(tuple(map(parse_input, params["input"]))) if params.get("input") else None
    options = {name: params[name] for name in WordOptions.__annotations__ if params.get(name)}
    return recalled(model) or read(model, BuildOptions(inputs=inputs, **options))


def layer(ctx: Any, word: str) -> list[str]:
    """A layer of the command's model, or a module that contains layers."""
    names = _layers(ctx.params.get("model") or "", ctx.params, word)
    parents = (name.rpartition(".")[0] for name in names)
    return [*_starting_with(word, filter(None, parents)), *names]


def inputs(ctx: Any, word: str) -> list[str]:
    """An input of the command's model."""
    network = _network(next(iter(ctx.params.get("models") or ()), ""), ctx.params)
    return _starting_with(word, (tensor.label for tensor in network.inputs)) if network is not None else []


def topics(ctx: Any, word: str) -> list[str]:
    """An argument of `explain`: a topic, a topic's model, a model, or a model's layer."""
    from vggscope.tutorials import TOPICS

    before = ctx.params.get("words") or ()
    if not before:
        return models(ctx, word, *TOPICS)
    if len(before) > 1:
        return []
    return models(ctx, word) if before[0] in TOPICS else _layers(before[0], ctx.params, word)


def references(ctx: Any, word: str) -> list[str]:
    """A reference model: a library or the paper, for the model's counterpart there, or any MODEL."""
    return models(ctx, word, *LIBRARIES, "paper")
