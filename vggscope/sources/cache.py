"""What a library's model turned out to be, remembered: the next run reads it and needs no torch.

One file for each model, input and number of classes lies in the user's cache folder (VGGSCOPE_CACHE names another).
An entry holds for the versions of the library, of torch and of this program and for the contents of the file that
defines the model. One that is damaged, stale or not ours counts as none and is written anew. A cache that cannot be
read or written is no cache: nothing is said of it.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress

from vggscope._version import __version__
from vggscope.files import replace_file
from vggscope.graph import Network
from vggscope.graph_json import from_json, to_json
from vggscope.record import record
from vggscope.vgg.options import Options

FOLDER = "VGGSCOPE_CACHE"
"""The environment variable that names the cache folder."""

SCHEMA = "vggscope/reference@1"

LARGEST_ENTRY = 16 * 2**20
"""Bytes from which on a file is no entry; that of the largest model known is below a tenth of it."""

LIBRARIES = ("torchvision", "timm")
"""Whose models are remembered."""


@record
class Entry:
    """Where a library's model is remembered, made with these options."""

    path: str
    library: str
    model: str
    options: Options


def remembered(word: str, options: Options, load: Callable[[], Network]) -> Network:
    """The Network of a library's model (`torchvision:vgg16`), from the cache or else by `load`, whose errors pass.

    Any other word's is loaded.
    """
    entry = _entry(word, options)
    if entry is None:
        return load()
    found = _read(entry)
    if found is None:
        found = load()
        if found.failure is None:
            with suppress(OSError, ValueError, LookupError):
                _write(entry, found)
    return found


def recalled(word: str) -> Network | None:
    """A library's model as it was remembered for any input: for what does not depend on that, as its layers' names."""
    library, _, model = word.strip().partition(":")
    within = folder()
    if library in LIBRARIES and within and os.path.isdir(within):
        for name in sorted(os.listdir(within)):
            made = re.fullmatch(rf"{library}-{re.escape(model)}-(own|\d+x\d+x\d+)-(own|\d+)\.json", name, re.ASCII)
            if made:
                size = None if made[1] == "own" else tuple(map(int, made[1].split("x")))
                options = Options(size, num_classes=None if made[2] == "own" else int(made[2]))
                found = _read(Entry(os.path.join(within, name), library, model, options))
                if found is not None:
                    return found
    return None


def folder() -> str | None:
    """The cache folder, which need not be there; None where this user has none."""
    given = os.environ.get(FOLDER)
    if given:
        return os.path.abspath(given)
    from platformdirs import user_cache_dir

    # Without a home the path begins with a tilde.
    found = user_cache_dir("vggscope", appauthor=False)
    return found if os.path.isabs(found) else None


def _entry(word: str, options: Options) -> Entry | None:
    """The entry for a word, where it names a model that is remembered."""
    library, _, model = word.strip().partition(":")
    if library not in LIBRARIES or not re.fullmatch(r"[\w.-]{1,100}", model, re.ASCII):
        return None
    within = folder()
    size = "x".join(map(str, options.input)) if options.input else "own"
    name = f"{library}-{model}-{size}-{options.num_classes or 'own'}.json"
    return Entry(os.path.join(within, name), library, model, options) if within else None


def _read(entry: Entry) -> Network | None:
    """What an entry has, if it is whole and still holds."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # Opening a pipe would wait for its writer.
        if not stat.S_ISREG(os.stat(entry.path).st_mode):
            return None
        with open(entry.path, "rb") as file:
            data = file.read(LARGEST_ENTRY + 1)
        head, _, body = data.partition(b"\n")
        found = json.loads(head)
        if len(data) <= LARGEST_ENTRY and found == _head(entry, found.get("defined_in"), body):
            return from_json(body.decode())
    return None


def _write(entry: Entry, network: Network) -> None:
    """Write an entry. Raises OSError, ValueError or LookupError where that cannot be."""
    body = to_json(network).encode()
    head = json.dumps(_head(entry, _defining_file(entry), body)).encode()
    replace_file(entry.path, head + b"\n" + body)


def _head(entry: Entry, defined_in: str, body: bytes) -> dict[str, str]:
    """An entry's first line: all that it depends on.

    Raises OSError or ValueError where that cannot be told, LookupError where the library is not installed.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        versions = {name: version(name) for name in (entry.library, "torch")}
    except PackageNotFoundError as error:
        raise LookupError(f"{error.name} is not installed") from None
    with open(_inside(_folder_of(entry.library), defined_in), "rb") as file:
        source = file.read()
    return {
        "schema": SCHEMA,
        "model": f"{entry.library}:{entry.model}",
        "options": repr(entry.options),
        **versions,
        "vggscope": _ourselves(),
        "defined_in": defined_in,
        "source": _digest(source),
        "contents": _digest(body),
    }


def _ourselves() -> str:
    """Our own version, and which of our files have changed within it: what is traced depends on them."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    known = []
    for name in ("ops", "trace", "sources"):
        with os.scandir(os.path.join(package, name)) as files:
            known += [(f.name, f.stat().st_size, f.stat().st_mtime_ns) for f in files if f.name.endswith(".py")]
    return f"{__version__} {_digest(repr(sorted(known)).encode())}"


def _folder_of(library: str) -> str:
    """Where a library is installed, found without importing it. Raises LookupError where it is not."""
    from importlib.util import find_spec

    spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"{library} is not installed")
    return os.path.realpath(spec.submodule_search_locations[0])


def _defining_file(entry: Entry) -> str:
    """The file with the function that makes a model, seen from its library's folder. The library is imported."""
    from inspect import getsourcefile, unwrap

    builder: Callable[..., object]
    if entry.library == "timm":
        from timm import model_entrypoint

        builder = model_entrypoint(entry.model)
    else:
        from torchvision.models import get_model_builder

        builder = get_model_builder(entry.model)
    path = os.path.realpath(getsourcefile(unwrap(builder)) or "")
    return os.path.relpath(path, _folder_of(entry.library)).replace(os.sep, "/")


def _inside(within: str, path: str) -> str:
    """A path below a folder. Raises ValueError for any other."""
    full = os.path.realpath(os.path.join(within, path))
    if not full.startswith(within + os.sep) or not full.endswith(".py"):
        raise ValueError(f"{path!r} is no file of the library")
    return full


def _digest(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()
