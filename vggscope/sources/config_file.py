"""A column in the user's own TOML file: `columns.toml:NAME`."""

from __future__ import annotations

from vggscope.graph import Network
from vggscope.vgg.network import network_of_config
from vggscope.vgg.notation import parse
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word names a TOML file and something in it."""
    return ".toml:" in word.lower()


def load(word: str, options: BuildOptions) -> Network:
    """The column's Network. Raises ModelError where the file or the column cannot be read."""
    from vggscope.vgg.toml import read_config

    path, _, name = word.rpartition(":")
    return network_of_config(name, parse(read_config(path, name)), options)
