"""Columns of Table 1 (`D`, `vgg16_bn`) and of the user's own file (`columns.toml:NAME`)."""

from __future__ import annotations

from dataclasses import replace

from vggscope.graph import Network
from vggscope.vgg.configs import CONFIGS, config_named, literature_title
from vggscope.vgg.network import network_of_config
from vggscope.vgg.notation import parse
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word names a column of Table 1, or a TOML file, with a column in it or without."""
    return config_named(word) is not None or ".toml:" in word.lower() or word.lower().endswith(".toml")


def load(word: str, options: BuildOptions) -> Network:
    """The column's Network. Raises ModelError where the file or the column in it cannot be read."""
    named = config_named(word)
    if named is None:
        from vggscope.vgg.toml import read_config

        path, _, name = word.rpartition(":") if ".toml:" in word.lower() else (word, "", "")
        return network_of_config(name, parse(read_config(path, name)), options)
    config, batch_norm = named[0], named[1] or options.batch_norm
    name = config + ("_bn" if batch_norm else "")
    network = network_of_config(name, CONFIGS[config].words, replace(options, batch_norm=batch_norm))
    return replace(network, title=literature_title(config, batch_norm=batch_norm))
