"""A cache of the Networks of library models, so that the next run needs no torch.

The user's cache folder (or the one that VGGSCOPE_CACHE names) has one file for each model and its options. The name of
a file is a digest of everything that the Network depends on, which is also its first line: the word, the options, the
installed packages, and this package's own files. A file that is damaged, or somebody else's, is written again. Whatever
goes wrong with the cache is ignored without a message: the model is then loaded.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from vggscope.files import mark_used, remove_oldest, replace_file
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions

FOLDER = "VGGSCOPE_CACHE"
"""The environment variable that names the cache folder."""

SCHEMA = "vggscope/network@1"

LARGEST_ENTRY = 16 * 2**20
"""The largest file that is read, in bytes. The entry of the largest known model has less than a tenth of it."""

LARGEST_FOLDER = 200 * 2**20
"""How many bytes all entries may take. Those that were used longest ago are removed."""

LIBRARIES = ("torchvision", "timm")
"""The libraries whose models are stored."""

_ENTRY = re.compile(rf"({'|'.join(LIBRARIES)})-([\w.-]{{1,100}})-[0-9a-f]{{32}}\.network", re.ASCII)
"""The names of entries."""


def remembered(word: str, options: BuildOptions, load: Callable[[], Network]) -> Network:
    """Return the Network of a library's model (`torchvision:vgg16`) from the cache, or else from `load`.

    The Network of any other word is always loaded. Errors of `load` propagate.
    """
    entries = _entries(word, options)
    for path, head in entries:
        network = _read(path, head)
        if network is not None:
            return network
    network = load()
    # A forward that fails may do so for want of memory.
    if entries and network.failure is None:
        with suppress(Exception):
            _write(*entries[0 if network.answers_any else -1], network)
    return network


def recalled(word: str) -> Network | None:
    """Return a library's model from the cache, whatever its options; None if no entry holds.

    It serves uses that do not depend on them, such as completing the names of layers.
    """
    library, _, model = word.strip().partition(":")
    with suppress(Exception):
        directory = folder() or ""
        for name in sorted(os.listdir(directory)):
            match = _ENTRY.fullmatch(name)
            if match is None or match.groups() != (library, model):
                continue
            path = os.path.join(directory, name)
            options = json.loads(_data(path).partition(b"\n")[0])["options"]
            network = _read(path, _head(library, model, options))
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


def _entries(word: str, options: BuildOptions) -> list[tuple[str, bytes]]:
    """Return the paths and first lines of the entries that may hold a word's Network, the one for any request first.

    Empty if the Network is not stored.
    """
    library, _, model = word.strip().partition(":")
    has_data = options.inputs is not None and options.inputs.data is not None
    if not options.cache or has_data or not _ENTRY.fullmatch(f"{library}-{model}-{'0' * 32}.network"):
        return []
    with suppress(Exception):
        directory = folder()
        if directory is not None:
            inputs = repr(replace(options, steps=(), batch=None, backward=False))
            heads = [_head(library, model, asked) for asked in (f"{inputs} for any request", repr(options))]
            return [(_path(directory, library, model, head), head) for head in heads]
    return []


def _head(library: str, model: str, options: str) -> bytes:
    """Return the first line of an entry: everything that it depends on.

    Raises OSError or LookupError if that is not known.
    """
    from vggscope.sources.installed import surroundings

    head = {"schema": SCHEMA, "model": f"{library}:{model}", "options": options, **surroundings(library)}
    return json.dumps(head).encode()


def _path(directory: str, library: str, model: str, head: bytes) -> str:
    from vggscope.sources.installed import digest

    return os.path.join(directory, f"{library}-{model}-{digest(head)[:32]}.network")


def _read(path: str, head: bytes) -> Network | None:
    """Return the Network of an entry; None if the file is missing, damaged or another one."""
    from vggscope.sources.entry import unpacked
    from vggscope.sources.installed import digest

    with suppress(Exception):
        stored, _, rest = _data(path).partition(b"\n")
        contents, _, body = rest.partition(b"\n")
        if stored == head and contents.decode() == digest(body):
            network = unpacked(body)
            mark_used(path)
            return network
    return None


def _data(path: str) -> bytes:
    """Return the bytes of an entry. Raises OSError if there is none, ValueError if it is not the user's own file."""
    # To open a pipe would wait for its writer. A link leads to what is no entry.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        is_own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
        if not stat.S_ISREG(status.st_mode) or not is_own or status.st_size > LARGEST_ENTRY:
            raise ValueError(f"{path} is no entry")
        return file.read(LARGEST_ENTRY)


def _write(path: str, head: bytes, network: Network) -> None:
    """Write an entry, and make room. Raises OSError or ValueError if that is not possible."""
    from vggscope.sources.entry import packed
    from vggscope.sources.installed import digest

    body = packed(network)
    data = b"\n".join((head, digest(body).encode(), body))
    if len(data) <= LARGEST_ENTRY:
        replace_file(path, data)
        remove_oldest(os.path.dirname(path), _ENTRY, LARGEST_FOLDER)
