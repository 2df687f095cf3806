"""A cache of the Networks of library models, so that the next run needs no torch.

The user's cache folder (or the one that VGGSCOPE_CACHE names) has one file for each model, input size and number of
classes. An entry is valid for the versions of the library, of torch and of this package, and for the contents of the
file that defines the model. A damaged or stale entry is written again. A cache that cannot be read or written is
ignored without a message.
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
from vggscope.vgg.options import BuildOptions

FOLDER = "VGGSCOPE_CACHE"
"""The environment variable that names the cache folder."""

SCHEMA = "vggscope/reference@1"

LARGEST_ENTRY = 16 * 2**20
"""The largest file that is read, in bytes. The entry of the largest known model has less than a tenth of it."""

LIBRARIES = ("torchvision", "timm")
"""The libraries whose models are stored."""

SHAPING = (
    *("ops", "sources", "trace", "vgg", "choices.py", "errors.py", "files.py", "graph.py", "graph_json.py"),
    *("inputs.py", "record.py", "recorded_step.py", "result.py", "suppress.py", "units.py"),
)
"""The rooms and files whose code shapes the Network of a library's model: all that the sources of LIBRARIES import. An
entry does not hold any more when one of these files changes.
"""


@record
class Entry:
    """The file for a library's model with these options."""

    path: str
    library: str
    model: str
    options: BuildOptions


def remembered(word: str, options: BuildOptions, load: Callable[[], Network]) -> Network:
    """Return the Network of a library's model (`torchvision:vgg16`) from the cache, or else from `load`.

    The Network of any other word is always loaded. Errors of `load` propagate.
    """
    entry = _entry(word, options)
    if entry is None:
        return load()
    network = _read(entry)
    if network is None:
        network = load()
        if network.failure is None:
            with suppress(OSError, ValueError, LookupError):
                _write(entry, network)
    return network


def recalled(word: str) -> Network | None:
    """Return a library's model from the cache, whatever its input size; None if no entry is valid.

    It serves uses that do not depend on the size, such as completing the names of layers.
    """
    library, _, model = word.strip().partition(":")
    directory = folder()
    if library in LIBRARIES and directory and os.path.isdir(directory):
        for name in sorted(os.listdir(directory)):
            match = re.fullmatch(rf"{library}-{re.escape(model)}-(own|\d+x\d+x\d+)-(own|\d+)\.json", name, re.ASCII)
            if match:
                size = None if match[1] == "own" else tuple(map(int, match[1].split("x")))
                options = BuildOptions(size, num_classes=None if match[2] == "own" else int(match[2]))
                network = _read(Entry(os.path.join(directory, name), library, model, options))
                if network is not None:
                    return network
    return None


def folder() -> str | None:
    """Return the path of the cache folder, which need not exist; None for a user without a home folder."""
    override = os.environ.get(FOLDER)
    if override:
        return os.path.abspath(override)
    from platformdirs import user_cache_dir

    # Without a home folder the path begins with a tilde.
    path = user_cache_dir("vggscope", appauthor=False)
    return path if os.path.isabs(path) else None


def _entry(word: str, options: BuildOptions) -> Entry | None:
    """The entry for a word; None if the word names no library's model, or there is no cache folder."""
    library, _, model = word.strip().partition(":")
    if (
        (options.inputs is not None and options.input is None)
        or library not in LIBRARIES
        or not re.fullmatch(r"[\w.-]{1,100}", model, re.ASCII)
    ):
        return None
    directory = folder()
    size = "x".join(map(str, options.input)) if options.input else "own"
    name = f"{library}-{model}-{size}-{options.num_classes or 'own'}.json"
    return Entry(os.path.join(directory, name), library, model, options) if directory else None


def _read(entry: Entry) -> Network | None:
    """The Network of an entry; None if the file is missing, damaged or stale."""
    with suppress(OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        # To open a pipe would wait for its writer.
        if not stat.S_ISREG(os.stat(entry.path).st_mode):
            return None
        with open(entry.path, "rb") as file:
            data = file.read(LARGEST_ENTRY + 1)
        head, _, body = data.partition(b"\n")
        stored = json.loads(head)
        if len(data) <= LARGEST_ENTRY and stored == _head(entry, stored.get("defined_in"), body):
            return from_json(body.decode())
    return None


def _write(entry: Entry, network: Network) -> None:
    """Write an entry. Raises OSError, ValueError or LookupError if that is not possible."""
    body = to_json(network).encode()
    head = json.dumps(_head(entry, _defining_file(entry), body)).encode()
    replace_file(entry.path, head + b"\n" + body)


def _head(entry: Entry, defined_in: str, body: bytes) -> dict[str, str]:
    """The first line of an entry: everything that it depends on.

    Raises OSError or ValueError if the defining file cannot be read, and LookupError if the library is not installed.
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
        "vggscope": _own_digest(),
        "defined_in": defined_in,
        "source": _digest(source),
        "contents": _digest(body),
    }


def _own_digest() -> str:
    """Return the version of the package, and a digest of the sizes and times of the files that shape a Network."""
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    files = []
    for name in SHAPING:
        path = os.path.join(package, name)
        if name.endswith(".py"):
            files.append((name, os.stat(path)))
        else:
            with os.scandir(path) as entries:
                files += [(f"{name}/{entry.name}", entry.stat()) for entry in entries if entry.name.endswith(".py")]
    known = sorted((name, status.st_size, status.st_mtime_ns) for name, status in files)
    return f"{__version__} {_digest(repr(known).encode())}"


def _folder_of(library: str) -> str:
    """The folder of an installed library, which is not imported. Raises LookupError if it is not installed."""
    from importlib.util import find_spec

    spec = find_spec(library)
    if spec is None or not spec.submodule_search_locations:
        raise LookupError(f"{library} is not installed")
    return os.path.realpath(spec.submodule_search_locations[0])


def _defining_file(entry: Entry) -> str:
    """The path, relative to the library, of the file that defines a model. Imports the library."""
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


def _inside(directory: str, path: str) -> str:
    """The full path of a Python file in a folder. Raises ValueError for a path that leads elsewhere."""
    full = os.path.realpath(os.path.join(directory, path))
    if not full.startswith(directory + os.sep) or not full.endswith(".py"):
        raise ValueError(f"{path!r} is not a file of the library")
    return full


def _digest(data: bytes) -> str:
    from hashlib import sha256

    return sha256(data).hexdigest()
