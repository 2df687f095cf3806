"""Table 1 of Simonyan and Zisserman (2014), arXiv 1409.1556: the six ConvNet configurations, to be read beside the
paper.

One line a stage, as the paper draws them; the last holds the fully connected layers, which all columns share.
"""

from __future__ import annotations

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
"""What the literature calls a column, by its number of layers with weights."""
