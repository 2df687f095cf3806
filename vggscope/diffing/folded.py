"""Batch norms that an exporter has folded into the convolutions of a file.

At evaluation a batch norm multiplies each channel by a number and adds one, so that the convolution before it can do
both. A file of ONNX then has the convolution alone. It computes the same, with other values in its weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vggscope.diffing.locate import AlignedNetworks, LocatedDifference
from vggscope.graph import Network, Node, Parameter
from vggscope.record import record


@record
class FoldedNorm:
    """A convolution of a file with a batch norm folded in, and the convolution and the batch norm that the other has.

    `is_in_reference`: the other network is the reference.
    """

    folded: Node
    convolution: Node
    norm: Node
    is_in_reference: bool


def folded_norms(aligned: AlignedNetworks) -> Iterator[FoldedNorm]:
    """The batch norms of one network that are in the weights of the other one's convolutions.

    The file tells which convolutions have one. Its counterpart is the convolution before a batch norm that reads that
    convolution alone, and that has no counterpart itself.
    """
    pairs = [*aligned.layer_pairs()]
    alone = {node.name for pair in pairs if None in pair for node in pair if node is not None}
    for mine, other in pairs:
        if mine is None or other is None or mine.folded_norm == other.folded_norm:
            continue
        folded, convolution, network = (
            (mine, other, aligned.reference) if mine.folded_norm else (other, mine, aligned.ours)
        )
        readers = network.consumers[convolution.name]
        norm = network.by_name.get(readers[0]) if len(readers) == 1 else None
        has_bias = len(folded.parameters) == 2 and convolution.op.is_convolution
        if norm is not None and norm.op.folding and norm.name in alone and has_bias:
            yield FoldedNorm(folded, convolution, norm, network is aligned.reference)


def with_folded_norms(
    differences: Iterable[LocatedDifference], aligned: AlignedNetworks
) -> Iterator[LocatedDifference]:
    """The differences, with those that folding explains as such: they act in training alone."""
    found = [*folded_norms(aligned)]
    norms = {(fold.norm.name, fold.is_in_reference): fold for fold in found}
    convolutions = {(fold.folded.name, fold.convolution.name) for fold in found}
    for located in differences:
        mine, other = located.pairs[0]
        difference = located.difference
        fold = None
        if mine is None or other is None:
            node = mine or other
            fold = norms.get((node.name, mine is None)) if node is not None else None
        if fold is not None:
            title = fold.norm.title
            text = f"{title}: the batch norm is folded into the file's {fold.folded.title}, whose bias stands for it"
            yield replace(located, difference=replace(difference, effect="training_only", message=text))
        elif mine and other and ((mine.name, other.name) in convolutions or (other.name, mine.name) in convolutions):
            is_bias_alone = [change.attribute for change in difference.changes] == ["bias"]
            effect = "training_only" if is_bias_alone else difference.effect
            yield replace(located, difference=replace(difference, effect=effect))
        else:
            yield located


def without_folded_norms(aligned: AlignedNetworks) -> tuple[Network, Network]:
    """Both networks without the batch norms that are folded into the other's convolutions."""
    found = [*folded_norms(aligned)]
    return (
        _without(aligned.ours, [fold for fold in found if not fold.is_in_reference]),
        _without(aligned.reference, [fold for fold in found if fold.is_in_reference]),
    )


def _without(network: Network, folds: list[FoldedNorm]) -> Network:
    if not folds:
        return network
    moved = {fold.norm.name: fold.convolution.name for fold in folds}
    convolutions = {fold.convolution.name for fold in folds}
    nodes = []
    for node in network.nodes:
        if node.name in moved:
            continue
        own = replace(node, inputs=tuple(moved.get(name, name) for name in node.inputs))
        nodes.append(_with_bias(own) if node.name in convolutions else own)
    returned = tuple(replace(one, source=moved.get(one.source, one.source)) for one in network.returned)
    output = None if network.output is None else moved.get(network.output, network.output)
    return replace(network, nodes=tuple(nodes), returned=returned, output=output)


def _with_bias(node: Node) -> Node:
    """A convolution with the bias that a batch norm folded into it gives it."""
    if len(node.parameters) > 1:
        return node
    op = replace(node.op, bias=True)  # type: ignore[call-arg]
    return replace(node, op=op, parameters=(*node.parameters, Parameter(f"{node.name}.bias", op.parameters()["bias"])))
