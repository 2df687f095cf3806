"""Columns of Table 1, by the paper's name or the literature's: `D`, `vgg16`, `vgg16_bn`."""

from __future__ import annotations

from dataclasses import replace

from vggscope.graph import Network
from vggscope.vgg.configs import CONFIGS, config_named
from vggscope.vgg.network import network_of_config
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word names a column."""
    return config_named(word) is not None


def load(word: str, options: BuildOptions) -> Network:
    """The column's Network."""
    named = config_named(word)
    assert named is not None
    config, batch_norm = named[0], named[1] or options.batch_norm
    name = config + ("_bn" if batch_norm else "")
    return network_of_config(name, CONFIGS[config].words, replace(options, batch_norm=batch_norm))
