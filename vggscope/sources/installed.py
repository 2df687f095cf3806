"""What a remembered Network depends on besides its word: installed packages, Python, and the files of this package."""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib.util import find_spec

from vggscope._version import __version__
from vggscope.errors import names_options

SHAPING = (
    *("ops", "sources", "trace", "vgg", "choices.py", "errors.py", "files.py", "graph.py", "graph_json.py"),
    *("inputs.py", "lock_file.py", "plain_data.py", "progress.py", "record.py", "recorded_step.py", "result.py"),
    *("suppress.py", "units.py"),
)
"""The rooms and files whose code shapes the Network of a library's model: all that the sources of libraries import. An
entry does not hold any more when one of these files changes.
"""

COMPARING = ("analysis", "dtypes.py")
"""The rooms and files that, beside those of SHAPING, give the figures of a comparison."""

PACKAGES = {"timm": ("torch", "torchvision", "timm")}
"""The packages on which the entries of a library depend, if not on torch and torchvision alone.

timm uses torchvision.
"""

READ_FOLDERS = {"torch": ("", "nn", "nn/modules")}
"""The folders of a package in which changed files are looked for, if that is not its whole tree."""

VARIABLES = ("TORCH", "PYTORCH", "TIMM", "FORK_LAST3", "CUDA", "ATEN", "NPY", "NUMPY")
"""How the environment variables begin that these packages and numpy read."""

COMPILER = "TORCHINDUCTOR"
"""How the variables of torch's compiler begin, which no trace calls. It sets one itself when it is imported."""


def surroundings(library: str) -> dict[str, str]:
    """Return what the Network of a library's model depends on besides its word, as names and texts.

    Raises LookupError if the library or torch is missing, or one of their packages is not installed from a wheel, and
    OSError if a file cannot be read.
    """
    packages = PACKAGES.get(library, ("torch", "torchvision"))
    versions = {name: text for name in packages if (text := identity(name)) is not None}
    unknown = [name for name in packages if name not in versions]
    if not {library, "torch"} <= versions.keys() or any(folder_of(name) is not None for name in unknown):
        raise LookupError(f"{library} needs {', '.join(unknown)}, which is not installed from a wheel")
    variables = sorted(
        (name, value)
        for name, value in os.environ.items()
        if name.startswith(VARIABLES) and not name.startswith(COMPILER)
    )
    return {
        **versions,
        "python": f"{sys.implementation.cache_tag} {sys.version_info[2]} {sys.flags.optimize} {sys.platform}",
        "environment": digest(repr(variables).encode()),
        "vggscope": own_identity(),
        # The remedy in a warning is written for the command line or for Python.
        "words": "options" if names_options() else "arguments",
    }


@cache
def identity(package: str) -> str | None:
    """Return the version of an installed package with a digest of what is installed; None if that is not known.

    It is known from the list of its files and their digests that pip and others write last, `RECORD`, and from the
    files that are newer than it. A package that is under development has no such list, or is not beside it.
    """
    folder = folder_of(package)
    if folder is None:
        return None
    parent, prefix = os.path.dirname(folder), f"{package}-"
    found = [name for name in os.listdir(parent) if name.startswith(prefix) and name.endswith(".dist-info")]
    if len(found) != 1:
        return None
    path = os.path.join(parent, found[0], "RECORD")
    try:
        with open(path, "rb") as file:
            record, status = file.read(), os.fstat(file.fileno())
    except FileNotFoundError:
        return None
    if f"{package}/__init__.py,".encode() not in record:
        return None
    changed = _newer_files(folder, READ_FOLDERS.get(package), status.st_mtime_ns)
    version = found[0].removeprefix(prefix).removesuffix(".dist-info")
    return " ".join((version, digest(record), *([digest(repr(changed).encode())] if changed else [])))


def folder_of(package: str) -> str | None:
    """Return the folder of an installed package, which is not imported; None without one."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError):
        return None
    places = (spec.submodule_search_locations if spec is not None else None) or ()
    return next((os.path.realpath(place) for place in places), None)


def _newer_files(folder: str, inner: tuple[str, ...] | None, installed: int) -> list[tuple[str, int, int]]:
    """Return the Python files that were changed after a time, with their sizes and times."""
    folders = [folder] if inner is None else [os.path.join(folder, name) for name in inner]
    newer = []
    for place in folders:  # grows if the whole tree is read
        with os.scandir(place) as entries:
            for entry in entries:
                if entry.name.endswith(".py"):
                    status = entry.stat()
                    if status.st_mtime_ns > installed:
                        newer.append((os.path.relpath(entry.path, folder), status.st_size, status.st_mtime_ns))
                elif inner is None and entry.is_dir():
                    folders.append(entry.path)
    return sorted(newer)


@cache
def own_identity(parts: tuple[str, ...] = SHAPING) -> str:
    """Return the version of this package, and a digest of the files of some of its rooms, those of SHAPING by default.

    It is that of the first call: a file that changes later is not the one that was imported.
    """
    from hashlib import sha256

    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    hashed = sha256()
    for name in sorted(parts):
        path = os.path.join(package, name)
        for file in [path] if name.endswith(".py") else _python_files(path):
            with open(file, "rb") as opened:
                text = opened.read()
            hashed.update(f"{os.path.relpath(file, package)} {len(text)}\n".encode())
            hashed.update(text)
    return f"{__version__} {hashed.hexdigest()}"


def _python_files(folder: str) -> list[str]:
    """Return the Python files of a folder and of those in it, in a fixed order."""
    return sorted(os.path.join(place, n) for place, _, names in os.walk(folder) for n in names if n.endswith(".py"))


def digest(data: bytes) -> str:
    """Return the SHA-256 of data, in hexadecimal.

    >>> digest(b"")[:8]
    'e3b0c442'
    """
    from hashlib import sha256

    return sha256(data).hexdigest()
