"""A cache of the Networks of library models and of the user's own code, so that the next run needs no torch.

The user's cache folder (or the one that VGGSCOPE_CACHE names) has one file for each model and its options. The name of
a file is a digest of everything that the Network depends on, which is also its first line: the word, the options, the
installed packages, this package's own files, and the files of the user's code. A file that is damaged, or somebody
else's, is written again. Whatever goes wrong with the cache is ignored, and the model is then loaded: only the log says
why nothing can be written.

More kinds of files spare what follows from these: the figures of a model that `compare` shows, the names of all models
of a library, their published numbers of parameters, and the keys and shapes of a model's state dict.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from vggscope.files import mark_used, remove_oldest, replace_file
from vggscope.graph import Network
from vggscope.progress import remark
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from vggscope.analysis.compare import Compared

Held = TypeVar("Held")

FOLDER = "VGGSCOPE_CACHE"
"""The environment variable that names the cache folder."""

SCHEMA = "vggscope/network@1"

FIGURES = "vggscope/figures@1"

NAMES = "vggscope/names@1"

COUNTS = "vggscope/counts@1"

KEYS = "vggscope/keys@1"

LARGEST_ENTRY = 16 * 2**20
"""The largest file that is read, in bytes. The entry of the largest known model has less than a tenth of it."""

LARGEST_FOLDER = 200 * 2**20
"""How many bytes all entries may take. Those that were used longest ago are removed."""

LIBRARIES = ("torchvision", "timm")
"""The libraries whose models are stored."""

CODE = "code"
"""How the names of entries of the user's code begin."""

_ENTRY = re.compile(
    rf"({'|'.join((*LIBRARIES, CODE))})-([\w.-]{{1,100}})-[0-9a-f]{{32}}\.(network|figures|names|counts|keys)", re.ASCII
)
"""The names of entries."""


Origin = Callable[[str], "tuple[str, dict[str, str]]"]
"""Returns a name for what a word stands for, and what that depends on besides the libraries. Raises OSError or
LookupError if not all of it is known.
"""


def remembered(word: str, options: BuildOptions, load: Callable[[], Network], origin: Origin | None = None) -> Network:
    """Return the Network of a library's model (`torchvision:vgg16`) from the cache, or else from `load`.

    `origin` is that of a word of another kind, such as the user's code. The Network of any other word is always loaded,
    and one that `load` declines is not stored. Errors of `load` propagate.
    """
    from vggscope.sources.entry import packed, unpacked

    entries = _entries(word, options, origin)
    for path, head in entries:
        network = _read(path, head, unpacked)
        if network is not None:
            return network
    _declined.append(False)
    try:
        network = load()
    finally:
        is_declined = _declined.pop()
    # A forward that fails may do so for want of memory, and a file may have changed while it was run.
    if entries and network.failure is None and not is_declined and entries == _entries(word, options, origin):
        with _remarked():
            _write(*entries[0 if network.answers_any else -1], packed(network))
    return network


_declined: list[bool] = []
"""For each Network that is being loaded, whether it is not to be stored."""


def decline() -> None:
    """Do not store the Network that is being loaded: it may be another one the next time."""
    _declined[-1:] = [True] * bool(_declined)


def recalled_figures(word: str, options: BuildOptions, batch: int, dtype: str | None) -> Compared | None:
    """Return the figures of a library's model for a batch and a dtype from the cache; None if they are not there."""
    from vggscope.sources.figures import unpacked

    entry = _figures_entry(word, options, batch, dtype)
    return None if entry is None else _read(*entry, unpacked)


def remembered_figures(
    word: str, options: BuildOptions, batch: int, dtype: str | None, compute: Callable[[], Compared]
) -> Compared:
    """Return the figures of a library's model for a batch and a dtype from the cache, or else from `compute`."""
    from vggscope.sources.figures import packed

    row = recalled_figures(word, options, batch, dtype)
    if row is None:
        row = compute()
        entry = _figures_entry(word, options, batch, dtype)
        if entry is not None:
            with _remarked():
                _write(*entry, packed(row))
    return row


def remembered_names(library: str, load: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Return the names of a library's models from the cache, or else from `load`. They depend on its files alone."""
    from vggscope.sources.installed import identity, own_identity

    def entry() -> tuple[str, bytes]:
        directory, installed = folder(), identity(library)
        if directory is None or installed is None:
            raise LookupError(f"{library} is not installed, or there is no cache folder")
        head = {"schema": NAMES, "library": library, "installed": installed, "vggscope": own_identity()}
        return _entry(directory, library, "all", head, "names")

    return _remembered_json(entry, load, lambda names: tuple(map(str, names)))


def remembered_counts(library: str, load: Callable[[], dict[str, int]]) -> dict[str, int]:
    """Return the published numbers of parameters of a library's models from the cache, or else from `load`."""
    return _remembered_json(lambda: _plain_entry(f"{library}:all", COUNTS, "", "counts"), load, dict)


def _remembered_json(
    find_entry: Callable[[], tuple[str, bytes]], load: Callable[[], Held], decode: Callable[[Any], Held]
) -> Held:
    """Return what JSON holds from an entry of the cache, or else from `load`, whose result is stored if it is not
    empty. Without an entry, because `find_entry` fails, it is always loaded.
    """
    entry = None
    with suppress(Exception):
        entry = find_entry()
    held = None if entry is None else _read(*entry, lambda data: decode(json.loads(data)))
    if held is None:
        held = load()
        if entry is not None and held:
            with _remarked():
                _write(*entry, json.dumps(held).encode())
    return held


def recalled_keys(word: str, num_classes: int | None, unpack: Callable[[bytes], Held]) -> Held | None:
    """Return what `remember_keys` stored for a library's model with this number of classes; None if it is not there."""
    with suppress(Exception):
        return _read(*_plain_entry(word, KEYS, repr(num_classes), "keys"), unpack)
    return None


def remember_keys(word: str, num_classes: int | None, data: bytes) -> None:
    """Store the keys and shapes of a library's model with this number of classes, if that is possible."""
    with _remarked():
        _write(*_plain_entry(word, KEYS, repr(num_classes), "keys"), data)


def models_with_keys(library: str) -> tuple[str, ...]:
    """Return the models of a library of which the cache has some entry with keys and shapes, as words."""
    with suppress(Exception):
        matches = map(_ENTRY.fullmatch, os.listdir(folder() or ""))
        models = {match[2] for match in matches if match and match[1] == library and match[3] == "keys"}
        return tuple(f"{library}:{model}" for model in sorted(models))
    return ()


def _plain_entry(word: str, schema: str, options: str, suffix: str) -> tuple[str, bytes]:
    """Return the path and first line of an entry that depends on a library's files and ours.

    Raises OSError or LookupError if what it depends on is not known, or the user has no cache folder.
    """
    from vggscope.sources.installed import surroundings

    library, _, model = word.partition(":")
    directory = folder()
    if directory is None or not _ENTRY.fullmatch(f"{library}-{model}-{'0' * 32}.{suffix}"):
        raise LookupError(f"{word} is not stored")
    head = {"schema": schema, "model": word, "options": options, **surroundings(library)}
    return _entry(directory, library, model, head, suffix)


def recalled(word: str) -> Network | None:
    """Return a library's model from the cache, whatever its options; None if no entry holds.

    It serves uses that do not depend on them, such as completing the names of layers.
    """
    from vggscope.sources.entry import unpacked

    library, _, model = word.strip().partition(":")
    with suppress(Exception):
        directory = folder() or ""
        for name in sorted(os.listdir(directory)):
            match = _ENTRY.fullmatch(name)
            if match is None or match.groups() != (library, model, "network"):
                continue
            path = os.path.join(directory, name)
            options = json.loads(_data(path).partition(b"\n")[0])["options"]
            _, head = _network_entry(directory, library, model, _model_head(library, model), options)
            network = _read(path, head, unpacked)
            if network is not None:
                return network
    return None


@contextmanager
def unused(is_unused: bool = True) -> Iterator[None]:
    """Within this context the cache is neither read nor written, if `is_unused`."""
    _switch.append(is_unused)
    try:
        yield
    finally:
        _switch.pop()


_switch: list[bool] = []


def folder() -> str | None:
    """Return the path of the cache folder, which need not exist; None if `unused`, or without a home folder."""
    if any(_switch):
        return None
    override = os.environ.get(FOLDER)
    if override:
        return os.path.abspath(override)
    from platformdirs import user_cache_dir

    # Without a home folder the path begins with a tilde.
    path = user_cache_dir("vggscope", appauthor=False)
    return path if os.path.isabs(path) else None


def _entries(word: str, options: BuildOptions, origin: Origin | None) -> list[tuple[str, bytes]]:
    """Return the paths and first lines of the entries that may hold a word's Network, the one for any request first.

    Empty if the Network is not stored.
    """
    with suppress(Exception):
        library, model, head = _subject(word.strip(), origin)
        directory = _directory(library, model, options)
        if directory is not None:
            inputs = repr(replace(options, steps=(), batch=None, backward=False))
            asked = (f"{inputs} for any request", repr(options))
            return [_network_entry(directory, library, model, head, request) for request in asked]
    return []


def _subject(word: str, origin: Origin | None) -> tuple[str, str, dict[str, str]]:
    """Return how the names of a word's entries begin, in two parts, and what they depend on besides the options.

    Raises OSError or LookupError if not all of that is known.
    """
    from vggscope.sources.installed import surroundings

    if origin is None:
        library, _, model = word.partition(":")
        return library, model, _model_head(library, model)
    name, head = origin(word)
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:100]
    return CODE, name, {"model": word, **head, **surroundings("torch")}


def _model_head(library: str, model: str) -> dict[str, str]:
    from vggscope.sources.installed import surroundings

    return {"model": f"{library}:{model}", **surroundings(library)}


def _figures_entry(word: str, options: BuildOptions, batch: int, dtype: str | None) -> tuple[str, bytes] | None:
    """Return the path and first line of the entry that may hold a model's figures; None if they are not stored."""
    from vggscope.sources.installed import COMPARING, own_identity, surroundings

    library, _, model = word.strip().partition(":")
    directory = _directory(library, model, options)
    if directory is not None:
        with suppress(Exception):
            asked = f"{options!r} for {batch} samples in {dtype or 'its own dtype'}"
            head = {"schema": FIGURES, "model": f"{library}:{model}", "options": asked, **surroundings(library)}
            return _entry(directory, library, model, {**head, "analyses": own_identity(COMPARING)}, "figures")
    return None


def _directory(library: str, model: str, options: BuildOptions) -> str | None:
    """Return the folder for what is stored of a library's model; None if nothing is."""
    has_data = options.inputs is not None and options.inputs.data is not None
    if not options.cache or has_data or not _ENTRY.fullmatch(f"{library}-{model}-{'0' * 32}.network"):
        return None
    with suppress(Exception):
        return folder()
    return None


def _network_entry(directory: str, library: str, model: str, head: dict[str, str], options: str) -> tuple[str, bytes]:
    """Return the path and first line of a Network's entry."""
    return _entry(directory, library, model, {"schema": SCHEMA, **head, "options": options}, "network")


def _entry(directory: str, library: str, model: str, head: dict[str, str], suffix: str) -> tuple[str, bytes]:
    """Return the path of an entry and its first line, everything that it depends on."""
    from vggscope.sources.installed import digest

    line = json.dumps(head).encode()
    return os.path.join(directory, f"{library}-{model}-{digest(line)[:32]}.{suffix}"), line


def _read(path: str, head: bytes, unpack: Callable[[bytes], Held]) -> Held | None:
    """Return what an entry holds; None if the file is missing, damaged or another one."""
    from vggscope.sources.installed import digest

    with suppress(Exception):
        stored, _, rest = _data(path).partition(b"\n")
        contents, _, body = rest.partition(b"\n")
        if stored == head and contents.decode() == digest(body):
            held = unpack(body)
            mark_used(path)
            return held
    return None


@contextmanager
def _remarked() -> Iterator[None]:
    """Ignore an entry that cannot be written within the context. The log has one line for the folder that is why."""
    try:
        yield
    except OSError as error:
        place = folder()
        if place is not None and place not in _unusable:
            _unusable.add(place)
            why = "it is a file" if isinstance(error, FileExistsError) else error.strerror
            remark(f"nothing is remembered in {place}: {why}")
    except Exception:  # noqa: S110 - an entry that would not read back
        pass


_unusable: set[str] = set()
"""The folders of which the log has an error."""


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


def _write(path: str, head: bytes, body: bytes) -> None:
    """Write an entry, and make room. Raises OSError or ValueError if that is not possible."""
    from vggscope.sources.installed import digest

    data = b"\n".join((head, digest(body).encode(), body))
    if len(data) <= LARGEST_ENTRY:
        replace_file(path, data)
        remove_oldest(os.path.dirname(path), _ENTRY, LARGEST_FOLDER)
