"""The verdict of a comparison, checked by a proof.

Differences are judged one by one, each on its own layer. A proof of the whole network settles what they cannot: weights
that are shared, values of constants, and layers that are the same only together.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from vggscope.diffing.effects import differs_in_training, proof_of
from vggscope.diffing.folded import without_folded_norms
from vggscope.diffing.locate import AlignedNetworks, LayerPair, LocatedDifference, title_in
from vggscope.diffing.proof import Mismatch, Proof, may_be_equal, proof
from vggscope.diffing.result import Difference
from vggscope.diffing.sharing import with_sharing
from vggscope.graph import Network, Node

UNPROVEN = frozenset({"bias", "classes", "dropout"})
"""Differences that change the output. If one of them is ignored, the networks cannot be proven equal."""


def verified(
    causes: list[LocatedDifference], aligned: AlignedNetworks, ignore: frozenset[str]
) -> list[LocatedDifference]:
    """The differences with effects that agree with the proof.

    If the networks are proven equal, no difference changes the output. Else weights that only one of them shares are
    differences too. If none changes the output but the proof fails, the place where it fails is one more difference.
    """
    ours, reference = aligned.ours, aligned.reference
    changes_output = any(located.difference.changes_output for located in causes)
    if ours.failure is not None or reference.failure is not None or ignore & UNPROVEN:
        return with_sharing(causes, aligned)
    unfolded = without_folded_norms(aligned)
    if changes_output and not may_be_equal(*unfolded):
        return with_sharing(causes, aligned)
    found = proof(*unfolded)
    if found.mismatch is None:
        return [_proven(located, aligned, found) for located in causes]
    shared = with_sharing(causes, aligned)
    if any(located.difference.changes_output for located in shared):
        return shared
    return _with_unproven(causes, _unproven(found.mismatch, aligned))


def _with_unproven(causes: list[LocatedDifference], unproven: LocatedDifference) -> list[LocatedDifference]:
    """The differences with one more, in place of another name for the same layer if there is one."""
    for place, located in enumerate(causes):
        if located.pairs == unproven.pairs and located.difference.kind == "renamed":
            return [*causes[:place], unproven, *causes[place + 1 :]]
    return [*causes, unproven]


def _proven(located: LocatedDifference, aligned: AlignedNetworks, found: Proof) -> LocatedDifference:
    """A difference of equal networks, with the proof in its message if it was judged to change the output."""
    difference = located.difference
    if not difference.changes_output:
        return located
    nodes = [node for pair in located.pairs for node in pair if node is not None]
    acts_in_training = any(node.op.active_in == "training" for node in nodes) or any(
        mine and other and differs_in_training(mine.op, other.op) for mine, other in located.pairs
    )
    texts = "; ".join(dict.fromkeys(filter(None, _proofs(located.pairs, aligned, found))))
    texts = texts or "together with the layers around it, it computes the same with the same weights"
    effect = "training_only" if acts_in_training else "none"
    message = f"{difference.message}; the same function: {texts}"
    return replace(located, difference=replace(difference, effect=effect, message=message))


def _proofs(pairs: tuple[LayerPair, ...], aligned: AlignedNetworks, found: Proof) -> Iterator[str]:
    for pair in pairs:
        for node, network, reasons in zip(pair, (aligned.ours, aligned.reference), found.reasons):
            if node is not None:
                yield reasons.get(node.name) or _proof(node, network)


def _proof(node: Node, network: Network) -> str:
    shapes = network.input_shapes(node)
    if len(shapes) != 1:
        return node.op.normal_form(shapes, network.output_shape(node)).proof
    return proof_of(node.op, shapes[0])


def _unproven(failure: Mismatch, aligned: AlignedNetworks) -> LocatedDifference:
    """The place where a proof fails as a difference."""
    mine, other = (
        network.by_name.get(name)
        for network, name in ((aligned.ours, failure.ours), (aligned.reference, failure.reference))
    )
    there = f" (there {title_in(aligned.reference, failure.reference)})" if failure.ours != failure.reference else ""
    message = f"{title_in(aligned.ours, failure.ours)}: {failure.reason}{there}"
    label = (other.label if other else "") or (mine.label if mine else "")
    names = mine.name if mine else None, other.name if other else None
    difference = Difference("changed", *names, "function", message, label, known=failure.known)
    return LocatedDifference(difference, ((mine, other),))
