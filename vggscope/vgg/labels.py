"""The names that the literature gives to a VGG's layers: conv1_1, relu1_1, pool1, fc6, prob.

They are read off the structure, whoever built it: a stage ends with its pool, and the fully connected layers are
numbered on from the last stage, so that five stages give fc6, fc7 and fc8. A head that is written as convolutions (an
unpadded kernel over what the last pool leaves, then 1x1, in a part of its own or with dropout behind) is named as the
FC layers it stands for.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vggscope.graph import Network, Node

_BEHIND = {
    "ReLU": "relu",
    "Sigmoid": "sigmoid",
    "BatchNorm2d": "bn",
    "LocalResponseNorm": "norm",
    "Dropout": "drop",
}
_POOLS = ("MaxPool2d", "AvgPool2d")


def labelled(network: Network) -> Network:
    """The same network with its layers named, if it is a chain with convolutions; else the network as it is.

    What its forward works out aside, to print it or to return it too, breaks no chain and is not named then.
    """
    aside = frozenset() if network.is_chain else network.side_outputs
    chain = replace(network, nodes=tuple(node for node in network.nodes if node.name not in aside))
    if not chain.is_chain or not any(_is_conv(node) for node in chain.nodes):
        return network
    ends = (network.failed,) if network.failed else ()
    labels = list(_labels((*chain.nodes, *ends)))
    named = dict(zip((node.name for node in chain.nodes), labels))
    nodes = tuple(replace(node, label=named.get(node.name, "")) for node in network.nodes)
    return replace(network, nodes=nodes, failed=replace(ends[0], label=labels[-1]) if ends else None)


def stage_of(label: str) -> str:
    """The stage that a label belongs to: `conv3_2` and `pool3` to `3`, `fc6`, `relu6` and `prob` to `classifier`.

    >>> stage_of("conv3_2"), stage_of("pool3"), stage_of("relu6"), stage_of("")
    ('3', '3', 'classifier', '')
    """
    match = re.fullmatch(r"([a-z]+)(\d*)(_\d+)?", label)
    if match is None:
        return ""
    return match[2] if match[3] or match[1] == "pool" else "classifier"


def _labels(nodes: Sequence[Node]) -> Iterator[str]:
    head = _head_start(nodes)
    stage, layer, current = 1, 0, ""
    fully_connected = 0
    for position, node in enumerate(nodes):
        op = node.op.name
        if position >= head and (_is_conv(node) or op == "Linear"):
            fully_connected += 1
            current = str(stage - (layer == 0) + fully_connected)
            yield f"fc{current}"
        elif _is_conv(node):
            layer += 1
            current = f"{stage}_{layer}"
            yield f"conv{current}"
        elif op in _POOLS and position < head and not _is_pixel(node):
            yield f"pool{stage}"
            stage, layer, current = stage + 1, 0, ""
        elif op == "Softmax":
            yield "prob"
        else:
            yield _BEHIND[op] + current if op in _BEHIND and current else ""


def _head_start(nodes: Sequence[Node]) -> int:
    """Where the fully connected layers begin, be they written as Linear or as convolutions."""
    linear = next((i for i, node in enumerate(nodes) if node.op.name == "Linear"), len(nodes))
    last_pool = max((i for i, node in enumerate(nodes[:linear]) if node.op.name in _POOLS), default=-1)
    convs = [i for i in range(last_pool + 1, linear) if _is_conv(nodes[i])]
    if last_pool < 0 or not convs or not _covers(nodes[convs[0]]):
        return linear
    behind = nodes[convs[0] : convs[1] if len(convs) > 1 else linear]
    set_apart = nodes[convs[0]].name.partition(".")[0] != nodes[last_pool].name.partition(".")[0]
    dropped = any(node.op.name == "Dropout" for node in behind)
    if (set_apart or dropped) and all(_is_pointwise(nodes[i]) for i in convs[1:]):
        return convs[0]
    return linear


def _is_conv(node: Node) -> bool:
    return node.op.name == "Conv2d"


def _covers(node: Node) -> bool:
    window = node.op.window((1, 1))
    return window is not None and window.kernel_size[0] > 1 and not any(window.padding)


def _is_pixel(node: Node) -> bool:
    """Whether a pool leaves its map as it is: with a window of one pixel it ends no stage."""
    window = node.op.window((1, 1))
    return window is not None and set(window.kernel_size) | set(window.stride) == {1}


def _is_pointwise(node: Node) -> bool:
    window = node.op.window((1, 1))
    return window is not None and set(window.kernel_size) == {1}
