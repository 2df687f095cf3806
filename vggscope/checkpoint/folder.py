"""A folder as Hugging Face keeps a model: `config.json` beside the weights."""

from __future__ import annotations

import json
import os
from itertools import islice

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.errors import CheckpointError, printable

WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json"),
    *("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.safetensors.index.json"),
    *("open_clip_model.safetensors", "open_clip_pytorch_model.bin"),
)
"""The names of the weights in such a folder, in the order in which transformers looks for them, then others'."""

CONFIG = "config.json"

_LARGEST_CONFIG = 2**20
"""Bytes; transformers' largest have some ten thousand."""


def weights_in(folder: str) -> str | None:
    """The path of the weights in a folder; None where it has none under a name of WEIGHTS."""
    paths = (os.path.join(folder, name) for name in WEIGHTS)
    return next((path for path in paths if os.path.isfile(path)), None)


def claims(word: str) -> bool:
    """Whether the word is a folder with such weights or with `config.json`."""
    return os.path.isdir(word) and (os.path.isfile(os.path.join(word, CONFIG)) or weights_in(word) is not None)


def architecture_beside(path: str) -> str | None:
    """The architecture that the `config.json` beside a file of WEIGHTS names; None without any, or where it is damaged.

    transformers writes `architectures`, timm `architecture`.
    """
    if os.path.basename(path) not in WEIGHTS:
        return None
    try:
        with BoundedFile(os.path.join(os.path.dirname(path), CONFIG)) as file:
            file.allow(_LARGEST_CONFIG)
            config = json.loads(file.read())
    except (CheckpointError, OSError, ValueError, RecursionError):
        return None
    names = [config.get("architecture"), config.get("architectures")] if isinstance(config, dict) else []
    flat = [name for value in names for name in (value if isinstance(value, list) else [value])]
    return next((printable(name) for name in islice(flat, 100) if isinstance(name, str)), None)
