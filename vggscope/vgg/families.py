"""Published networks beside Table 1: its descendants for other data, and the group's networks before it.

The notation has the layers of each. `ConfigLayout` has what the notation cannot express: pools that round up, dilation,
the place of dropout. `_bn` after a word adds a batch norm after each convolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from vggscope.record import record
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.network import INPUT_SHAPE, USUAL, ConfigLayout
from vggscope.vgg.notation import Word, parse


@record
class Family:
    """A network: its title, where it was published, its notation, and how it is built if no option says otherwise."""

    title: str
    source: str
    notation: str
    input: tuple[int, ...] = INPUT_SHAPE
    head: str | None = None
    layout: ConfigLayout = USUAL

    @property
    def words(self) -> tuple[Word, ...]:
        """The words of its notation."""
        return parse(self.notation)


@record
class _Variant:
    """What replaces the FC layers of a column of Table 1. `title` and `source` are as a Family's."""

    title: str
    source: str
    head_words: str
    input: tuple[int, ...] = INPUT_SHAPE
    head: str | None = None
    layout: ConfigLayout = USUAL


_CIFAR = (3, 32, 32)

_VARIANTS: Mapping[str, _Variant] = MappingProxyType(
    {
        "10": _Variant("with ten classes", "Simonyan and Zisserman 2014", "FC-4096 FC-4096 FC-10"),
        "dense": _Variant(
            "fully convolutional, as at test time",
            "Simonyan and Zisserman 2014, section 3.2",
            "FC-4096 FC-4096 FC-1000",
            head="dense",
        ),
        "cifar": _Variant(
            "for 32x32, one FC layer", "github.com/kuangliu/pytorch-cifar, 2017", "FC-10", _CIFAR, "flatten"
        ),
        "cifar-512": _Variant(
            "for 32x32, FC layers of 512 units after dropout",
            "github.com/chengyangfu/pytorch-vgg-cifar10, 2017",
            "FC-512 FC-512 FC-10",
            _CIFAR,
            "flatten",
            ConfigLayout(dropout_first=True),
        ),
        "cifar-4096": _Variant(
            "for 32x32, FC layers of 4096 units",
            "github.com/weiaicunzai/pytorch-cifar100, 2017",
            "FC-4096 FC-4096 FC-10",
            _CIFAR,
            "flatten",
        ),
    }
)
"""The FC layers that columns of Table 1 are given, by the end of the word: `vgg16-cifar`."""

_DEVIL = "Chatfield, Simonyan, Vedaldi and Zisserman 2014, arXiv 1405.3531"

_ROUNDED_UP = MappingProxyType({"ceil_mode": True})
"""A pool whose last window may leave the map. Caffe's pools do."""


def _columns() -> Iterator[tuple[str, Family]]:
    """Each variant of each column that the literature has a name for."""
    for ending, variant in _VARIANTS.items():
        for config in CONFIGS.values():
            if config.literature is None:
                continue
            notation = f"{_features(config.notation)} {variant.head_words}"
            title = f"{config.literature.replace('vgg', 'VGG-')} {variant.title}"
            yield (
                f"{config.literature}-{ending}",
                Family(title, variant.source, notation, variant.input, variant.head, variant.layout),
            )


def _features(notation: str) -> str:
    return " ".join(notation.partition("FC-")[0].split())


_D = _features(CONFIGS["D"].notation)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        **dict(_columns()),
        "vgg-face": Family(
            "VGG-16 for the faces of 2,622 people",
            "Parkhi, Vedaldi and Zisserman 2015, Deep Face Recognition",
            f"{_D} FC-4096 FC-4096 FC-2622",
        ),
        # The layers of the published weights, whose pools are Caffe's.
        "cnn-f": Family(
            "CNN-F (fast), also called VGG-F",
            _DEVIL,
            """conv11-64/s4p0 LRN maxpool3 conv5-256 LRN maxpool3
            conv3-256 conv3-256 conv3-256 maxpool3 FC-4096 FC-4096 FC-1000""",
            head="flatten",
            layout=ConfigLayout(6, attributes=dict.fromkeys(("pool1", "pool2", "pool3"), _ROUNDED_UP)),
        ),
        "cnn-m": Family(
            "CNN-M (medium), also called VGG-M",
            _DEVIL,
            """conv7-96/s2p0 LRN maxpool3 conv5-256/s2p1 LRN maxpool3
            conv3-512 conv3-512 conv3-512 maxpool3 FC-4096 FC-4096 FC-1000""",
            head="flatten",
            layout=ConfigLayout(6, attributes=dict.fromkeys(("pool1", "pool2", "pool3"), _ROUNDED_UP)),
        ),
        # The paper pads conv2 by 1; the published weights run without, which gives fc6 the same 6x6 map.
        "cnn-s": Family(
            "CNN-S (slow), also called VGG-S",
            _DEVIL,
            """conv7-96/s2p0 LRN maxpool3/s3 conv5-256/p0 maxpool
            conv3-512 conv3-512 conv3-512 maxpool3/s3 FC-4096 FC-4096 FC-1000""",
            head="flatten",
            layout=ConfigLayout(6, attributes=dict.fromkeys(("pool1", "pool2", "pool3"), _ROUNDED_UP)),
        ),
        "ssd300": Family(
            "VGG-16 as the backbone of SSD300, to its fc7",
            "Liu et al. 2016, SSD: Single Shot MultiBox Detector, arXiv 1512.02325",
            f"{_D.removesuffix('maxpool')} maxpool3/s1p1 conv3-1024/p6 conv1-1024",
            (3, 300, 300),
            layout=ConfigLayout(attributes={"pool3": _ROUNDED_UP, "conv6_1": {"dilation": (6, 6)}}),
        ),
        "fcn32s": Family(
            "VGG-16 as the backbone of FCN-32s, to its scores for 21 classes",
            "Long, Shelhamer and Darrell 2015, Fully Convolutional Networks for Semantic Segmentation, arXiv 1411.4038",
            f"{_D.replace('conv3-64', 'conv3-64/p100', 1)} FC-4096 FC-4096 FC-21",
            (3, 500, 500),
            "dense",
            ConfigLayout(attributes={f"pool{stage}": _ROUNDED_UP for stage in range(1, 6)}),
        ),
    }
)


def family_named(word: str) -> tuple[str, bool] | None:
    """The key in FAMILIES that a word names and whether it adds batch norm; None for any other word.

    >>> family_named("VGG-16-CIFAR_bn"), family_named("cnn-m"), family_named("vgg16")
    (('vgg16-cifar', True), ('cnn-m', False), None)
    """
    name, batch_norm = re.subn(r"[_-]?bn$", "", re.sub(r"^vgg[-_ ](?=\d)", "vgg", word.lower()))
    return (name, bool(batch_norm)) if name in FAMILIES else None
