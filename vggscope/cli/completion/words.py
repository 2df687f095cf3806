"""The words that can stand there: what each kind of option takes.

An option says beside itself what completes it (`options.completed`), by the name of a function here.
"""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint import SUFFIXES
from vggscope.sources.cache import LIBRARIES, recalled
from vggscope.sources.resolve import read
from vggscope.units import parse_shape
from vggscope.vgg.configs import CONFIGS, LITERATURE
from vggscope.vgg.options import BuildOptions
from vggscope.vgg.toml import config_names

if TYPE_CHECKING:
    from vggscope.graph import Network

OPENED = (".py", ".toml", *SUFFIXES)
"""Files that are models, or that hold some."""

LARGEST_FILE = 10**6
"""Bytes of a file that is looked into."""

MOST_ENTRIES = 10_000
"""Entries of a folder that are looked at."""

Candidate = tuple[str, str]
"""What can stand there, and what it is."""


def one_of(ctx: Any, word: str, table: str) -> list[Any]:
    """A name of a table, written as `package.module:TABLE`."""
    return _names(table)


def several(ctx: Any, word: str, table: str) -> list[str]:
    """Names of a table with commas between them."""
    return _listed(word, [name for name, _ in _names(table)])


def _names(table: str) -> list[Candidate]:
    """The names that a table has, with what it says of them: it maps them, lists them, or lists what has a name."""
    module, _, name = table.partition(":")
    found = getattr(import_module(module), name)
    about = found if isinstance(found, Mapping) else {}
    names = [entry if isinstance(entry, str) else getattr(entry, "name", "") or entry.key for entry in found]
    return [(name, _said(about.get(name))) for name in names]


def _said(value: object) -> str:
    return value if isinstance(value, str) else str(getattr(value, "about", ""))


def _listed(word: str, names: Iterable[str]) -> list[str]:
    """A list with commas, begun as `word`, with each of the names that it has not yet at its end."""
    before, comma, _ = word.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name not in before.split(",")]


def models(ctx: Any, word: str, *others: str) -> list[str]:
    """A MODEL, or one of some other words. What stands alone and leads on, as `torchvision:` and a folder do, is
    opened: so a shell sets no blank behind it.
    """
    found = _begun(word, [*others, *_model_words(word)])
    while len(found) == 1 and (opened := _begun(found[0], _opened(found[0]))) and opened != found:
        found = opened
    return found


def _model_words(word: str) -> list[str]:
    if ":" in word:
        return _opened(word)
    bn = [f"{name}_bn" for name in (*LITERATURE, *(CONFIGS if "_" in word else ()))]
    return [*CONFIGS, *LITERATURE, *bn, *(f"{name}:" for name in LIBRARIES if find_spec(name)), *_paths(word, OPENED)]


def _opened(word: str) -> list[str]:
    """What a word that leads on leads to."""
    first, colon, _ = word.partition(":")
    if colon and first in LIBRARIES:
        from vggscope.sources.catalogue import names_in

        return [f"{first}:{name}" for name in names_in(first)]
    where = word.rpartition(":")[0] or word
    if where.endswith(".py"):
        return [f"{where}:{name}" for name in _classes(where)]
    if where.lower().endswith(".toml"):
        return [f"{where}:{name}" for name in config_names(os.path.expanduser(where)) if ":" not in name]
    return _paths(word, OPENED) if word.endswith("/") else []


def _begun(word: str, found: Iterable[str]) -> list[str]:
    return [value for value in dict.fromkeys(found) if value.startswith(word)]


def _classes(path: str) -> list[str]:
    """What a Python file defines that may give a module, in its order; the file is read and not run."""
    path = os.path.expanduser(path)
    if not os.path.isfile(path) or os.path.getsize(path) > LARGEST_FILE:
        return []
    with open(path, "rb") as file:
        tree = ast.parse(file.read())
    found = [node for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
    return [node.name for node in found if node.name[0] != "_" and (isinstance(node, ast.FunctionDef) or node.bases)]


def paths(ctx: Any, word: str, *suffixes: str) -> list[str]:
    """A file that ends in one of the suffixes."""
    found = _begun(word, _paths(word, suffixes))
    while len(found) == 1 and found[0].endswith("/") and (inside := _paths(found[0], suffixes)):
        found = inside
    return found


def _paths(word: str, suffixes: Sequence[str]) -> list[str]:
    """The folders beside the path that a word begins, and the files with one of the suffixes."""
    folder, name = os.path.split(word)
    found = []
    with os.scandir(os.path.expanduser(folder) or ".") as entries:
        for entry, _ in zip(entries, range(MOST_ENTRIES)):
            hidden = entry.name.startswith(".") and not name.startswith(".")
            if entry.name.startswith(name) and not hidden and entry.name != "__pycache__":
                path = os.path.join(folder, entry.name)
                if entry.is_dir():
                    found.append(f"{path}/")
                elif entry.name.lower().endswith(tuple(suffixes)):
                    found.append(path)
    return sorted(found)


def results(ctx: Any, word: str) -> list[str]:
    """A file to write a command's result to: the suffixes that it may have, and the files that have one."""
    from vggscope.render.formats import suffixes

    return written(ctx, word, *suffixes(ctx.info_name))


def pictures(ctx: Any, word: str) -> list[str]:
    """A file to draw to."""
    from vggscope.drawing import FORMATS

    return written(ctx, word, *(f".{form}" for form in FORMATS))


def written(ctx: Any, word: str, *suffixes: str) -> list[str]:
    """A file to write, with one of the suffixes: one that is there, or a name with each of them."""
    there = paths(ctx, word, *suffixes)
    stem, dot, _ = os.path.basename(word).rpartition(".")
    name = stem if dot else os.path.basename(word)
    if not name or there:
        return there
    return [os.path.join(os.path.dirname(word), name + suffix) for suffix in suffixes]


def layers(ctx: Any, word: str) -> list[str]:
    """Layers of the command's model with commas between them, by label, or by path where no label begins so."""
    model = ctx.params.get("model") or next(iter(ctx.params.get("models") or ()), "")
    return _listed(word, _layers(model, ctx.params, word.rpartition(",")[2]))


def _layers(model: str, params: Mapping[str, Any], word: str) -> list[str]:
    network = _network(model, params)
    if network is None:
        return []
    labels = _begun(word, (node.label for node in network.nodes if node.label))
    return labels or _begun(word, (node.name for node in network.nodes))


def _network(model: str, params: Mapping[str, Any]) -> Network | None:
    """The model, where it can be read without running anything; a library's, where it is remembered."""
    library, _, name = model.partition(":")
    if library == "torchvision" and name.removesuffix("_bn") in LITERATURE:
        return read(name)  # torchvision's module tree is what a column has
    size = parse_shape(params["input"]) if params.get("input") else None
    given = {name: params[name] for name in ("head", "batch_norm", "num_classes", "soft_max") if params.get(name)}
    return recalled(model) or read(model, BuildOptions(size, **given))


def layer(ctx: Any, word: str) -> list[str]:
    """A layer of the command's model, or a module that holds some."""
    found = _layers(ctx.params.get("model") or "", ctx.params, word)
    holding = (name.rpartition(".")[0] for name in found)
    return [*_begun(word, filter(None, holding)), *found]


def topics(ctx: Any, word: str) -> list[str]:
    """What `explain` takes: a topic, a topic's model, or a model and its layer."""
    from vggscope.tutorials import TOPICS

    given = ctx.params.get("words") or ()
    if not given:
        return models(ctx, word, *TOPICS)
    if len(given) > 1:
        return []
    return models(ctx, word) if given[0] in TOPICS else _layers(given[0], ctx.params, word)


def references(ctx: Any, word: str) -> list[str]:
    """A reference: a library or the paper, for the model's counterpart there, or any MODEL."""
    return models(ctx, word, *LIBRARIES, "paper")
