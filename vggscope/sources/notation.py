"""A line of Table 1's notation, `conv3-64 maxpool FC-10`, or the configuration list of code, `64, 'M', 128, 'M'`."""

from __future__ import annotations

from dataclasses import replace

from vggscope.errors import NotationError
from vggscope.graph import Network
from vggscope.vgg.network import network_of_config
from vggscope.vgg.notation import is_config_list, is_notation, parse, respelled, spelled
from vggscope.vgg.options import BuildOptions

_FEATURES_ALONE = "a list of widths has no FC layers: add FC-4096 FC-4096 FC-1000 for those of the paper"


def claims(word: str) -> bool:
    """Whether any part of the word begins as the notation's words do, or the word is a configuration list."""
    return is_notation(word)


def load(word: str, options: BuildOptions) -> Network:
    """The line's Network. Raises NotationError for a part that cannot be read."""
    try:
        words = parse(word)
    except NotationError as error:
        line = respelled(word)
        raise NotationError(error.problem, f'write "{line}"' if line else error.remedy) from None
    network = network_of_config(" ".join(spelled(word)), words, options)
    return replace(network, warnings=(*network.warnings, _FEATURES_ALONE)) if is_config_list(word) else network
