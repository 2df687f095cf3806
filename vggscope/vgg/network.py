"""A configuration of Table 1, or any line in its notation, as a Network with torchvision's module tree.

The paths are `features.N`, `avgpool` and `classifier.N`, so that torchvision's weights load.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from vggscope.errors import OptionError, option
from vggscope.graph import INPUT, Network, Node, module_node, one_input
from vggscope.ops.activation import ReLU, Softmax
from vggscope.ops.base import Op, Shape
from vggscope.ops.convolution import conv2d
from vggscope.ops.linear import Linear
from vggscope.ops.normalization import BatchNorm2d, LocalResponseNorm
from vggscope.ops.pooling import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d
from vggscope.ops.regularization import Dropout
from vggscope.ops.shape import Flatten
from vggscope.record import record, uncollected
from vggscope.vgg.labels import kind_of_word, labelled, layer_labels
from vggscope.vgg.notation import Word
from vggscope.vgg.options import BuildOptions

INPUT_SHAPE = (3, 224, 224)
"""The paper's training input: RGB crops of 224x224."""

HEAD_SIDE = 7
"""The side of the feature map that fc6 reads: 224 halved five times."""

LRN = LocalResponseNorm(size=5, alpha=5e-4, beta=0.75, k=2.0)
"""The paper's constants. torch divides alpha by the size, so the paper's 1e-4 is 5e-4 here."""


@record
class ConfigLayout:
    """What the notation cannot express.

    `side` is that of the map that the first FC layer reads. `dropout_first`: dropout stands before each hidden FC
    layer instead of after it. `attributes` are those of convolutions and pools by label: `{"pool3": {"ceil_mode":
    True}}`.
    """

    side: int = HEAD_SIDE
    dropout_first: bool = False
    attributes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)


USUAL = ConfigLayout()


@dataclass
class _Chain:
    """A chain of nodes under construction; `counts` has the number of nodes in each Sequential."""

    channels: int
    layout: ConfigLayout
    nodes: list[Node] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, sequential: str, op: Op) -> None:
        index = self.counts.get(sequential, 0)
        self.counts[sequential] = index + 1
        self.append(module_node(f"{sequential}.{index}", op, self.last))

    def append(self, node: Node) -> None:
        self.nodes.append(node)

    @property
    def last(self) -> str:
        return self.nodes[-1].name if self.nodes else INPUT


@uncollected()
def network_of_config(
    name: str, words: tuple[Word, ...], options: BuildOptions, layout: ConfigLayout = USUAL
) -> Network:
    """The Network of a configuration, under the given name.

    Raises OptionError for a head option without FC layers, and ShapeError where the input is too small for the features
    and `--head flatten` needs their output shape.
    """
    options = options.for_one_image()
    input_shape = (1, *(options.input or INPUT_SHAPE))
    words = _with_options(words, options)
    first_fc = next((i for i, word in enumerate(words) if word.kind == "fc"), len(words))
    chain = _Chain(input_shape[1], layout)
    labels = layer_labels(map(kind_of_word, words))
    for position, (word, label) in enumerate(zip(words[:first_fc], labels)):
        _add_feature(chain, word, words[position + 1 : position + 2], label)
    if first_fc < len(words):
        features = partial(_labelled_chain, name, input_shape, tuple(chain.nodes))
        _HEADS[options.head or "adaptive"](chain, words[first_fc:], features)
    if options.soft_max:
        chain.append(module_node("softmax", Softmax(dim=1), chain.last))
    return _labelled_chain(name, input_shape, tuple(chain.nodes))


def _labelled_chain(name: str, input_shape: Shape, nodes: tuple[Node, ...]) -> Network:
    return labelled(Network(name, one_input(input_shape), nodes))


def _with_options(words: tuple[Word, ...], options: BuildOptions) -> tuple[Word, ...]:
    """The words with a batch norm after each convolution and `num_classes` units in the last FC, as the options ask."""
    result: list[Word] = []
    for word, following in zip(words, (*words[1:], None)):
        result.append(word)
        if options.batch_norm and word.kind == "conv" and (following is None or following.kind != "bn"):
            result.append(Word("bn"))
    has_fc = any(word.kind == "fc" for word in result)
    if not has_fc and (options.num_classes is not None or options.head is not None):
        raise OptionError(
            f"{option('num_classes')} and {option('head')} need an FC layer, this column has none",
            "add FC-1000 to the notation",
        )
    if options.num_classes is not None:
        last = max(i for i, word in enumerate(result) if word.kind == "fc")
        result[last] = replace(result[last], size=options.num_classes)
    return tuple(result)


def _add_feature(chain: _Chain, word: Word, following: tuple[Word, ...], label: str) -> None:
    """Append the op of a word before the FC layers, and the ReLU after a convolution or after its batch norm."""
    has_norm = bool(following) and following[0].kind == "bn"
    attributes: Mapping[str, Any] = chain.layout.attributes.get(label, {})
    if word.kind == "conv":
        conv = conv2d(chain.channels, word.size, word.kernel, word.stride, word.padding)
        chain.add("features", replace(conv, **attributes) if attributes else conv)
        chain.channels = word.size
    elif word.kind == "bn":
        chain.add("features", BatchNorm2d(chain.channels))
    elif word.kind in ("maxpool", "avgpool"):
        pool = MaxPool2d if word.kind == "maxpool" else AvgPool2d
        op = pool((word.kernel,) * 2, (word.stride,) * 2, (word.padding,) * 2)
        chain.add("features", replace(op, **attributes) if attributes else op)
    elif word.kind == "lrn":
        chain.add("features", LRN)
    elif word.kind == "dropout":
        chain.add("features", Dropout())
    if word.kind in ("conv", "bn") and not (word.kind == "conv" and has_norm):
        chain.add("features", ReLU(inplace=True))


def _adaptive_head(chain: _Chain, words: tuple[Word, ...], features: Callable[[], Network]) -> None:
    side = chain.layout.side
    chain.append(module_node("avgpool", AdaptiveAvgPool2d((side, side)), chain.last))
    _linear_head(chain, words, chain.channels * side**2)


def _flatten_head(chain: _Chain, words: tuple[Word, ...], features: Callable[[], Network]) -> None:
    channels, height, width = features().shapes[chain.last][1:]
    _linear_head(chain, words, channels * height * width)


def _linear_head(chain: _Chain, words: tuple[Word, ...], features: int) -> None:
    chain.append(Node("flatten", Flatten(), (chain.last,)))
    layers: list[Op] = []
    for units in _units(words):
        layers.append(Linear(features, units))
        features = units
    _add_head(chain, layers)


def _dense_head(chain: _Chain, words: tuple[Word, ...], features: Callable[[], Network]) -> None:
    layers: list[Op] = []
    for units in _units(words):
        layers.append(conv2d(chain.channels, units, 1 if layers else chain.layout.side))
        chain.channels = units
    _add_head(chain, layers)


def _add_head(chain: _Chain, layers: Sequence[Op]) -> None:
    """Append the FC layers, each but the last with ReLU and the paper's dropout of 0.5 (section 3.1)."""
    for layer in layers:
        hidden = layer is not layers[-1]
        if hidden and chain.layout.dropout_first:
            chain.add("classifier", Dropout(0.5))
        chain.add("classifier", layer)
        if hidden:
            chain.add("classifier", ReLU(inplace=True))
        if hidden and not chain.layout.dropout_first:
            chain.add("classifier", Dropout(0.5))


def _units(words: tuple[Word, ...]) -> list[int]:
    return [word.size for word in words if word.kind == "fc"]


_HEADS = {"adaptive": _adaptive_head, "flatten": _flatten_head, "dense": _dense_head}
