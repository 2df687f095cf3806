"""Locked architectures in place of a library that is not installed.

The folder that VGGSCOPE_LIBRARIES names holds a file for each model, `torchvision/resnet50.json`, which
`vggscope lock torchvision:resnet50` wrote. With it a machine without torch, or a browser, knows the library's models.
"""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace

from vggscope.errors import ModelError, nearest
from vggscope.graph import Network
from vggscope.sources.locked import read, sized
from vggscope.vgg.options import BuildOptions

FOLDER = "VGGSCOPE_LIBRARIES"
"""The environment variable that names the folder."""

_SUFFIX = ".json"


def names(library: str) -> tuple[str, ...]:
    """The models of a library that have a file; empty where the library is installed, or no folder is named."""
    folder = os.environ.get(FOLDER)
    if not folder or _is_installed(library):
        return ()
    try:
        files = os.listdir(os.path.join(folder, library))
    except OSError:
        return ()
    return tuple(sorted(name.removesuffix(_SUFFIX) for name in files if name.endswith(_SUFFIX)))


def load(word: str, options: BuildOptions) -> Network | None:
    """The Network of a library's model from its file; None where the library is installed or has no files.

    Raises ModelError for a name without a file, and as `read` and `sized` do.
    """
    library, _, name = word.partition(":")
    known = names(library)
    if not known:
        return None
    if name not in known:
        raise ModelError(
            f"{library} is not installed, and has no stand-in for {name}{nearest(name, known)}",
            f"pip install {library}",
        )
    path = os.path.join(os.environ[FOLDER], library, name + _SUFFIX)
    return sized(replace(read(path), name=word), options)


def _is_installed(library: str) -> bool:
    return importlib.util.find_spec(library) is not None
