"""A file of Lua Torch, `model.t7`: a module of nn, or the weights in tables. No data of tensors is read."""

from __future__ import annotations

import os

from vggscope.errors import printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word has the suffix of Lua Torch's files."""
    return word.lower().endswith(".t7")


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the file's module, named after the file; of its weights where it holds no module.

    Raises ModelError where the file cannot be read, OptionError for an option that contradicts it, and ShapeError where
    the module does not take the inputs in `options`.
    """
    from vggscope.checkpoint.network import network_of_checkpoint

    network = graph(word, options)
    return network_of_checkpoint(word, options) if network is None else network


def graph(word: str, options: BuildOptions) -> Network | None:
    """The Network of the file's module; None for a file of tensors alone. Raises as `load` does."""
    from vggscope.foreign.torch7.network import network_of_torch7_file

    return network_of_torch7_file(word, printable(os.path.basename(word)), options)
