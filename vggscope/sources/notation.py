"""A line of Table 1's notation: `conv3-64 maxpool FC-10`."""

from __future__ import annotations

from vggscope.graph import Network
from vggscope.vgg.network import network_of_config
from vggscope.vgg.notation import is_notation, parse
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether any part of the word begins as the notation's words do."""
    return is_notation(word)


def load(word: str, options: BuildOptions) -> Network:
    """The line's Network. Raises NotationError for a part that cannot be read."""
    return network_of_config(" ".join(word.split()), parse(word), options)
