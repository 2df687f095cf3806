"""The names of the models of torchvision and timm, read from the source of the libraries without importing them."""

from __future__ import annotations

import importlib.util
import re
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path

from vggscope.errors import ModelError, printable
from vggscope.sources import stand_ins
from vggscope.sources.library_errors import missing, no_model
from vggscope.units import natural_order

_REGISTERED = re.compile(rb"^@register_model\b(?:\(name=[\"'](\w+)[\"']\))?.*?^def (\w+)", re.MULTILINE | re.DOTALL)


def check(word: str, cache: bool) -> None:
    """Raise for a word that names no single model of an installed library, without importing the library.

    Raises ModelError for a pattern and for a name that the library does not have, MissingTool where the library is not
    installed. A library that is imported already may have more models than its source: their names are checked when
    they are built.
    """
    library, _, name = word.partition(":")
    if matching(word, cache=cache) is not None:
        raise ModelError(f"{word!r} is a pattern, and one model is needed", f"write vggscope compare {word!r}")
    if library in sys.modules or stand_ins.names(library) or not importlib.util.find_spec("torch"):
        return  # without torch, that is what is missing
    if importlib.util.find_spec(library) is None:
        raise missing(library)
    known = names_in(library, cache=cache)
    # timm's names may end with a tag, such as `vgg16.tv_in1k`; it takes the former names of models too.
    if name.partition(".")[0] not in known and not is_quoted_in(library, name):
        raise no_model(library, name, known)


def names_in(library: str, *, cache: bool = True) -> tuple[str, ...]:
    """The models that the installed torchvision or timm registers, read from its source without importing it.

    Where the library is not installed, those with a stand-in. `cache` allows them to be read from the cache and written
    to it.
    """
    from vggscope.sources.cache import remembered_names

    if known := stand_ins.names(library):
        return known
    return remembered_names(library, partial(_registered, library)) if cache else _registered(library)


def _registered(library: str) -> tuple[str, ...]:
    names: set[str] = set()
    for path in _files_of_models(library):
        names.update((name or function).decode() for name, function in _REGISTERED.findall(path.read_bytes()))
    return tuple(sorted(names))


def is_quoted_in(library: str, name: str) -> bool:
    """Whether the source of an installed library's models has a name in quotes, as it has the former names of models.

    >>> is_quoted_in("torchvision", "resnet51")
    False
    """
    quoted = [f"{quote}{name}{quote}".encode(errors="replace") for quote in "'\""]
    sources = (path.read_bytes() for path in _files_of_models(library))
    return any(text in source for source in sources for text in quoted)


def _files_of_models(library: str) -> Iterator[Path]:
    spec = importlib.util.find_spec(library)
    if spec and spec.origin:
        yield from (Path(spec.origin).parent / "models").rglob("*.py")


def matching(word: str, *, cache: bool = True) -> tuple[str, ...] | None:
    """The models of an installed library that a shell-style pattern such as `timm:resnet*` names, in natural order.

    None for a word that is no pattern. `cache` is that of `names_in`. Raises ModelError for a pattern that no model
    matches, and MissingTool where the library is not installed. The library is not imported.

    >>> matching("torchvision:vgg1[16]")
    ('torchvision:vgg11', 'torchvision:vgg16')
    """
    from vggscope.sources.cache import LIBRARIES

    library, _, pattern = word.strip().partition(":")
    if library not in LIBRARIES or not re.search(r"[*?[]", pattern):
        return None
    known = names_in(library, cache=cache)
    if not known:
        raise missing(library)
    names = [name for name in known if fnmatchcase(name, pattern)]
    if not names:
        raise ModelError(f"no model of {library} matches {printable(pattern)!r}", _near(library, pattern, known))
    return tuple(f"{library}:{name}" for name in sorted(names, key=natural_order))


def _near(library: str, pattern: str, known: Sequence[str]) -> str:
    """The remedy for a pattern that matches nothing: models whose name begins with its text, holds it or is like it."""
    from difflib import get_close_matches

    text = re.sub(r"\[.*?\]|[*?[]", "", pattern).lower()
    if not text:
        return f"for example '{library}:vgg*'"
    similar = sorted((name for name in known if text in name), key=lambda name: not name.startswith(text))
    # The beginnings of names are compared: a pattern's text is usually one.
    starts = {name[: len(text)]: name for name in reversed(known)}
    similar += [starts[start] for start in get_close_matches(text, starts, n=3)]
    near = ", ".join(f"{library}:{name}" for name in list(dict.fromkeys(similar))[:3])
    return f"near it: {near}" if near else "vggscope list --refs shows models"
