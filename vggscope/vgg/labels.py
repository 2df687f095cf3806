"""The literature's names of a VGG's layers: conv1_1, relu1_1, pool1, fc6, prob.

They follow from the structure alone: a stage ends with its pool, and the fully connected layers are numbered on from
the last stage, so that five stages give fc6, fc7 and fc8. A head written as convolutions gets the names of the FC
layers that it replaces: a kernel over the output of the last pool, which nothing pads, then 1x1 convolutions, in a
separate module or with dropout in between.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.record import changed

if TYPE_CHECKING:
    from vggscope.graph import Network, Node
    from vggscope.vgg.notation import Word

_WORD_KINDS = {"maxpool": "pool", "avgpool": "pool", "lrn": "norm", "dropout": "drop", "softmax": "prob"}


def layer_labels(kinds: Iterable[str]) -> list[str]:
    """The label of each layer of a chain, empty where the literature has none.

    A kind is the text that its labels begin with: `conv`, `fc`, `pool`, `prob`, or `relu`, `bn`, `norm`, `drop` for a
    layer that is numbered as the conv or fc before it. An empty kind has no label.

    >>> layer_labels(["conv", "relu", "pool", "conv", "bn", "", "fc", "drop", "prob"])
    ['conv1_1', 'relu1_1', 'pool1', 'conv2_1', 'bn2_1', '', 'fc3', 'drop3', 'prob']
    """
    labels = []
    stage, layer, fully_connected, number = 1, 0, 0, ""
    for kind in kinds:
        if kind == "conv":
            layer += 1
            number = f"{stage}_{layer}"
        elif kind == "fc":
            fully_connected += 1
            number = str(stage - (layer == 0) + fully_connected)
        if kind == "pool":
            labels.append(f"pool{stage}")
            stage, layer, number = stage + 1, 0, ""
        elif kind == "prob":
            labels.append("prob")
        else:
            labels.append(kind + number if kind and number else "")
    return labels


def kind_of_word(word: Word) -> str:
    """The kind of a word of the notation, for `layer_labels`."""
    return _WORD_KINDS.get(word.kind, word.kind)


def labelled(network: Network) -> Network:
    """The network with its layers labelled, if it is a chain with convolutions; else the network itself.

    Side outputs do not break the chain and get no label.
    """
    aside = frozenset() if network.is_chain else network.side_outputs
    inside = tuple(node for node in network.nodes if node.name not in aside)
    chain = replace(network, nodes=inside) if aside else network
    if not chain.is_chain or not any(_is_conv(node) for node in chain.nodes):
        return network
    ends = (network.failed,) if network.failed else ()
    labels = layer_labels(_kinds((*chain.nodes, *ends)))
    named = dict(zip((node.name for node in chain.nodes), labels))
    nodes = tuple(_with_label(node, named.get(node.name, "")) for node in network.nodes)
    return replace(network, nodes=nodes, failed=replace(ends[0], label=labels[-1]) if ends else None)


def _with_label(node: Node, label: str) -> Node:
    return changed(node, label=label)


def stage_of(label: str) -> str:
    """The stage that a label belongs to: `conv3_2` and `pool3` to `3`, `fc6`, `relu6` and `prob` to `classifier`.

    >>> stage_of("conv3_2"), stage_of("pool3"), stage_of("relu6"), stage_of("")
    ('3', '3', 'classifier', '')
    """
    match = re.fullmatch(r"([a-z]+)(\d*)(_\d+)?", label)
    if match is None:
        return ""
    return match[2] if match[3] or match[1] == "pool" else "classifier"


def _kinds(nodes: Sequence[Node]) -> Iterator[str]:
    """The kind of each node of a chain, for `layer_labels`."""
    head = _head_start(nodes)
    for position, node in enumerate(nodes):
        prefix = node.op.label_prefix
        if node.op.is_weight_layer:
            yield "fc" if position >= head else "conv"
        elif prefix == "pool":
            # A pool that returns its input ends no stage.
            yield prefix if position < head and not node.op.returns_input else ""
        else:
            yield prefix


def _head_start(nodes: Sequence[Node]) -> int:
    """The index of the first fully connected layer, written as Linear or as a convolution."""
    linear = next((i for i, node in enumerate(nodes) if node.op.label_prefix == "fc"), len(nodes))
    last_pool = max((i for i, node in enumerate(nodes[:linear]) if node.op.label_prefix == "pool"), default=-1)
    convs = [i for i in range(last_pool + 1, linear) if _is_conv(nodes[i])]
    if last_pool < 0 or not convs or not _is_unpadded(nodes[convs[0]]):
        return linear
    if any(node.op.is_padding for node in nodes[last_pool : convs[0]]):
        return linear
    until_next = nodes[convs[0] : convs[1] if len(convs) > 1 else linear]
    is_own_module = nodes[convs[0]].name.partition(".")[0] != nodes[last_pool].name.partition(".")[0]
    has_dropout = any(node.op.label_prefix == "drop" for node in until_next)
    if (is_own_module or has_dropout) and all(_is_pointwise(nodes[i]) for i in convs[1:]):
        return convs[0]
    return linear


def _is_conv(node: Node) -> bool:
    return node.op.label_prefix == "conv"


def _is_unpadded(node: Node) -> bool:
    window = node.op.window((1, 1))
    return window is not None and window.kernel_size[0] > 1 and not any(window.padding)


def _is_pointwise(node: Node) -> bool:
    window = node.op.window((1, 1))
    return window is not None and set(window.kernel_size) == {1}
