"""Table 1 of Simonyan and Zisserman (2014), arXiv 1409.1556: the six ConvNet configurations.

One line holds one stage, as the paper draws them. The last line holds the fully connected layers, which all columns
share.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from vggscope.record import record
from vggscope.vgg.notation import Word, parse


@record
class PaperFigures:
    """What the paper states of a column: its weight layers (Table 1) and its parameters in millions (Table 2)."""

    weight_layers: int
    params_millions: int


@record
class Config:
    """A column: its notation, its name in the literature, and the paper's figures; None if it has none."""

    notation: str
    literature: str | None = None
    published: PaperFigures | None = None

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of its notation."""
        return parse(self.notation)


CONFIGS: Mapping[str, Config] = MappingProxyType(
    {
        "A": Config(
            """
            conv3-64 maxpool
            conv3-128 maxpool
            conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
            "vgg11",
            PaperFigures(11, 133),
        ),
        "A-LRN": Config(
            """
            conv3-64 LRN maxpool
            conv3-128 maxpool
            conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
            None,
            PaperFigures(11, 133),
        ),
        "B": Config(
            """
            conv3-64 conv3-64 maxpool
            conv3-128 conv3-128 maxpool
            conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
            "vgg13",
            PaperFigures(13, 133),
        ),
        "C": Config(
            """
            conv3-64 conv3-64 maxpool
            conv3-128 conv3-128 maxpool
            conv3-256 conv3-256 conv1-256 maxpool
            conv3-512 conv3-512 conv1-512 maxpool
            conv3-512 conv3-512 conv1-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
            None,
            PaperFigures(16, 134),
        ),
        "D": Config(
            """
            conv3-64 conv3-64 maxpool
            conv3-128 conv3-128 maxpool
            conv3-256 conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
            "vgg16",
            PaperFigures(16, 138),
        ),
        "E": Config(
            """
            conv3-64 conv3-64 maxpool
            conv3-128 conv3-128 maxpool
            conv3-256 conv3-256 conv3-256 conv3-256 maxpool
            conv3-512 conv3-512 conv3-512 conv3-512 maxpool
            conv3-512 conv3-512 conv3-512 conv3-512 maxpool
            FC-4096 FC-4096 FC-1000 soft-max""",
            "vgg19",
            PaperFigures(19, 144),
        ),
    }
)

LITERATURE: Mapping[str, str] = MappingProxyType(
    {config.literature: column for column, config in CONFIGS.items() if config.literature}
)
"""The column that the literature calls vgg and its number of weight layers."""


def config_named(word: str) -> tuple[str, bool] | None:
    """The column of Table 1 that a word names and whether it has batch norm; None for any other word.

    >>> config_named("vgg16_bn"), config_named("a-lrn")
    (('D', True), ('A-LRN', False))
    """
    name, batch_norm = re.subn(r"[_-]bn$", "", word, flags=re.IGNORECASE)
    config = next((known for known in CONFIGS if known.lower() == name.lower()), LITERATURE.get(name.lower()))
    return (config, bool(batch_norm)) if config else None
