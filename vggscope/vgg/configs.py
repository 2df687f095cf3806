"""Table 1 of Simonyan and Zisserman (2014), arXiv 1409.1556: the six ConvNet configurations.

One line holds one stage, as the paper draws them. The last line holds the fully connected layers, which all columns
share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

CONFIGS: Mapping[str, str] = MappingProxyType(
    {
        "A": """
            conv3-64 maxpool
            conv3-128 maxpool
            conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
        "A-LRN": """
            conv3-64 LRN maxpool
            conv3-128 maxpool
            conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
        "B": """
            conv3-64 conv3-64 maxpool
            conv3-128 conv3-128 maxpool
            conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
        "C": """
            conv3-64 conv3-64 maxpool
            conv3-128 conv3-128 maxpool
            conv3-256 conv3-256 conv1-256 maxpool
            conv3-512 conv3-512 conv1-512 maxpool
            conv3-512 conv3-512 conv1-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
        "D": """
            conv3-64 conv3-64 maxpool
            conv3-128 conv3-128 maxpool
            conv3-256 conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
        "E": """
            conv3-64 conv3-64 maxpool
            conv3-128 conv3-128 maxpool
            conv3-256 conv3-256 conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
    }
)

LITERATURE: Mapping[str, str] = MappingProxyType({"vgg11": "A", "vgg13": "B", "vgg16": "D", "vgg19": "E"})
"""The literature's name of a column: vgg and its number of layers with weights."""


def config_named(word: str) -> tuple[str, bool] | None:
    """The column of Table 1 that a word names and whether it has batch norm; None for any other word.

    >>> config_named("vgg16_bn"), config_named("a-lrn")
    (('D', True), ('A-LRN', False))
    """
    name, batch_norm = re.subn(r"[_-]bn$", "", word, flags=re.IGNORECASE)
    config = next((known for known in CONFIGS if known.lower() == name.lower()), LITERATURE.get(name.lower()))
    return (config, bool(batch_norm)) if config else None
