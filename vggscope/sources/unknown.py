"""The error for a word that no source claims: what the word is, if it names something, or the nearest model."""

from __future__ import annotations

import os
import re
from fnmatch import fnmatchcase

from vggscope.errors import ModelError, nearest, printable
from vggscope.files import is_address
from vggscope.sources.cache import LIBRARIES
from vggscope.sources.library_names import names_in
from vggscope.units import natural_order
from vggscope.vgg.configs import CONFIGS, LITERATURE
from vggscope.vgg.families import FAMILIES
from vggscope.vgg.notation import respelled

_MODEL_FILES = (".py", ".ipynb", ".toml", ".pth", ".pt", ".safetensors", ".onnx", ".pt2", ".json")
"""Suffixes of files that a folder's error names, in this order."""

_MOST_FILES = 3

_HUB = "hf-hub:"
"""What timm writes before the name of a model on the Hugging Face Hub."""


_KINDS = (
    "a model is a column or its name (D, vgg16), torchvision:resnet50, my_vgg.py:Net, a file (weights.pth, model.onnx)"
    ' or notation ("conv3-64 maxpool FC-10"); vggscope summary --help lists all kinds'
)
"""The usual kinds of models; all of them would fill the terminal."""


def unknown_model(word: str) -> ModelError:
    """The error for a word."""
    shown = printable(word, longest=60)
    if elsewhere := _elsewhere(word):
        return ModelError(f"{shown} is {elsewhere[0]}", elsewhere[1])
    if several := several_models(word):
        return ModelError(f"{shown!r} names {len(several)} models", f"write vggscope compare {' '.join(several)}")
    if pattern := meant_pattern(word):
        return ModelError(f"unknown model {shown!r}, did you mean {pattern}?", f"write vggscope compare {pattern!r}")
    if line := respelled(word):
        return ModelError(f"unknown model {shown!r}", f'write "{line}"')
    near = meant(word)
    if near:
        return ModelError(
            f"unknown model {shown!r}{near}", "a model is also a file or your own class, see vggscope list"
        )
    return ModelError(f"unknown model {shown!r}", _KINDS)


def _elsewhere(word: str) -> tuple[str, str] | None:
    """What a word names that is no model but leads to one, and how; None for any other word."""
    if os.path.isdir(word):
        return "a folder without weights", _files_in(word)
    if is_address(word):
        return "an address", "vggscope reads files alone: download it, and name the file"
    if word.startswith(_HUB):
        name = printable(word.removeprefix(_HUB), longest=100)
        return "a model of the Hugging Face Hub", f"hf download {name} prints the folder to name"
    return None


def meant(word: str) -> str:
    """The suffix of a message on a word that is no model: the model that it may mean; empty for none."""
    return _in_a_file(word) or nearest(word, _published()) or _in_a_library(word)


def meant_pattern(word: str) -> str:
    """The pattern with its library that a word may mean: `torchvision:resnet*` for `resnet*`; empty for none."""
    for library in LIBRARIES if re.fullmatch(r"\w*[*?[][\w*?[\]!-]*", word) else ():
        if any(fnmatchcase(name, word) for name in names_in(library)):
            return f"{library}:{word}"
    return ""


def several_models(word: str) -> tuple[str, ...]:
    """The published models that a word lists with commas or blanks, such as `D,E`; empty for any other word."""
    names = tuple(filter(None, re.split(r"[\s,;+]+", word)))
    known = {name.lower() for name in (*_published(), *names_in("torchvision"))}
    return names if len(names) > 1 and all(name.lower() in known for name in names) else ()


def _published() -> tuple[str, ...]:
    batch_norm = (f"{name}_bn" for name in LITERATURE)
    return (*CONFIGS, *LITERATURE, *batch_norm, *FAMILIES, "torchvision:vgg16", "timm:vgg16")


def _files_in(folder: str) -> str:
    """The remedy for a folder: files in it that may be models."""
    names = [name for name in sorted(os.listdir(folder), key=natural_order) if name.lower().endswith(_MODEL_FILES)]
    first = sorted(names, key=lambda name: _MODEL_FILES.index(os.path.splitext(name.lower())[1]))[:_MOST_FILES]
    paths = " or ".join(printable(os.path.join(folder, name), longest=200) for name in first)
    return f"name a file in it: {paths}" if paths else "name a file: my_vgg.py:Net, vgg16.pth"


def _in_a_file(word: str) -> str:
    """The suffix that names a class of a file in the current folder, for a word in Python's notation: `my_vgg.Net`."""
    module, _, name = word.rpartition(".")
    is_file = module.replace(".", "").isidentifier() and os.path.isfile(f"{module.replace('.', '/')}.py")
    return f", did you mean {module.replace('.', '/')}.py:{printable(name)}?" if is_file else ""


def _in_a_library(word: str) -> str:
    """The suffix that names a library's model whose name stands in the word (`models.resnet50()`), or is near it."""
    names = re.findall(r"[a-z]\w+", word.lower(), re.ASCII)
    # People write resnet-50 and mobilenet-v2 for resnet50 and mobilenet_v2.
    names = [*(re.sub(r"[-\s]+", joint, word.lower().strip()) for joint in ("", "_")), *names]
    for library in LIBRARIES:
        known = dict.fromkeys(names_in(library))
        for name in names:
            if name in known:
                return f", did you mean {library}:{name}?"
    return nearest(names[-1], names_in("torchvision")) if names else ""
