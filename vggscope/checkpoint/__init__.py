"""A checkpoint: its names and shapes are read, its data is not, and code in it never runs."""

from __future__ import annotations

import os

from vggscope.checkpoint.inspection import Inspection, examine
from vggscope.checkpoint.reader import read


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Which network a .pth, .pt or .safetensors file belongs to.

    Raises CheckpointError where the file is no checkpoint, is damaged, or holds code.
    """
    return examine(read(path))
