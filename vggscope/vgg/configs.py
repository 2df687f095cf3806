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


_WORD = re.compile(
    r"""(?: vgg[-_ ]?(?P<layers>\d{1,3}) [-_ ]?
          | (?:vgg[-_ ]|(?:column|configuration|config)[-_ ]?)? (?P<column>.+?) (?:[-_ ](?=bn$))? )
        (?P<batch_norm>bn)?""",
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)


def config_named(word: str) -> tuple[str, bool] | None:
    """The column of Table 1 that a word names and whether it has batch norm; None for any other word.

    >>> config_named("vgg16_bn"), config_named("VGG-19"), config_named("a_lrn"), config_named("VGG-D")
    (('D', True), ('E', False), ('A-LRN', False), ('D', False))
    """
    match = _WORD.fullmatch(word)
    if match is None:
        return None
    if match["layers"]:
        config = LITERATURE.get(f"vgg{match['layers']}")
    else:
        config = next((name for name in CONFIGS if _plain(name) == _plain(match["column"])), None)
    return (config, match["batch_norm"] is not None) if config else None


def _plain(name: str) -> str:
    return re.sub("[-_ ]", "", name).lower()


def literature_title(config: str, *, batch_norm: bool) -> str:
    """A column's name with the one of the literature; empty for a column without one.

    >>> literature_title("D", batch_norm=True), literature_title("C", batch_norm=False)
    ('D_bn (VGG-16 with batch norm)', '')
    """
    literature = CONFIGS[config].literature
    if literature is None:
        return ""
    return f"{config}{'_bn' if batch_norm else ''} (VGG-{literature[3:]}{' with batch norm' if batch_norm else ''})"
