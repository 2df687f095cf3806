"""Layers that share weights in one of two aligned networks and not in the other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby

from vggscope.diffing.locate import AlignedNetworks, LocatedDifference, names_of
from vggscope.diffing.result import SHARING, Change, Difference
from vggscope.graph import Node, Parameter
from vggscope.record import record

_SHARED, _OWN = "shared", "own"


@record
class LayerSharing:
    """A layer of ours and its counterpart, of which one shares weights and the other does not, in words."""

    mine: Node
    other: Node
    change: Change
    text: str


def with_sharing(causes: list[LocatedDifference], aligned: AlignedNetworks) -> list[LocatedDifference]:
    """The differences with those of weights that only one network shares, in place of other names for these layers.

    Successive layers that share are one difference: a block that is called twice.
    """
    places = {names_of(pair): place for place, pair in enumerate(aligned.layer_pairs())}
    found = [_as_one(run) for run in _runs(causes, aligned)]
    sharing = {names_of(pair) for located in found for pair in located.pairs}
    merged = [
        located
        for located in causes
        if located.difference.kind != "renamed" or sharing.isdisjoint(map(names_of, located.pairs))
    ]
    for located in found:
        start = _start(located, places)
        later = (i for i, cause in enumerate(merged) if _start(cause, places) > start)
        merged.insert(next(later, len(merged)), located)
    return merged


def _start(located: LocatedDifference, places: dict[tuple[str | None, str | None], int]) -> int:
    """Where a difference begins in the alignment. A relocated layer is at its position in the reference."""
    names = [names for pair in located.pairs for names in (names_of(pair), (None, names_of(pair)[1]))]
    return min((places[name] for name in names if name in places), default=len(places))


def counterparts(causes: list[LocatedDifference], aligned: AlignedNetworks) -> list[tuple[Node, Node]]:
    """The layers with weights of both networks that correspond, in the order of the reference: those at another
    position too.
    """
    reached = aligned if aligned.ours.failure is None else aligned.up_to_failure()
    pairs = [(mine, other) for mine, other in reached.layer_pairs() if mine and other]
    pairs += relocated(causes)
    order = {node.name: place for place, node in enumerate(aligned.reference.nodes)}
    weighted = [(mine, other) for mine, other in pairs if mine.parameters and other.parameters]
    return sorted(weighted, key=lambda pair: order[pair[1].name])


def relocated(causes: list[LocatedDifference]) -> Iterator[tuple[Node, Node]]:
    """Our layers at another position than in the reference, with their counterparts."""
    for located in causes:
        if [change.attribute for change in located.difference.changes][:1] == ["order"]:
            for (_, other), (mine, _) in zip(located.pairs[::2], located.pairs[1::2]):
                if mine is not None and other is not None:
                    yield mine, other


def reference_weights(causes: list[LocatedDifference], aligned: AlignedNetworks) -> dict[str, Parameter]:
    """The reference's parameter for each of ours, by name; of one that several layers share, that of the first."""
    found: dict[str, Parameter] = {}
    for mine, other in counterparts(causes, aligned):
        for ours, theirs in corresponding(mine, other):
            found.setdefault(ours.name, theirs)
    return found


def corresponding(mine: Node, other: Node) -> list[tuple[Parameter, Parameter]]:
    """The parameters of two layers that correspond: by their place, or by name if one layer has more."""
    if len(mine.parameters) == len(other.parameters):
        return list(zip(mine.parameters, other.parameters))
    theirs = {parameter.name.rpartition(".")[2]: parameter for parameter in other.parameters}
    leaves = [(parameter, parameter.name.rpartition(".")[2]) for parameter in mine.parameters]
    return [(parameter, theirs[leaf]) for parameter, leaf in leaves if leaf in theirs]


def _runs(causes: list[LocatedDifference], aligned: AlignedNetworks) -> Iterator[list[LayerSharing]]:
    """The layers that share in one network alone; those without another layer with weights between are together."""
    correspondence = _Correspondence(aligned)
    found = [correspondence.sharing(mine, other) for mine, other in counterparts(causes, aligned)]
    for change, run in groupby(found, key=lambda sharing: sharing and sharing.change):
        if change is not None:
            yield [sharing for sharing in run if sharing is not None]


class _Correspondence:
    """Which parameters of two networks correspond, as far as their layers have been followed.

    Of a file that may hold one tensor for several layers, nobody knows which layers share it.
    """

    def __init__(self, aligned: AlignedNetworks) -> None:
        self.unknown = aligned.ours.written_once | aligned.reference.written_once
        self.reference_of: dict[str, str] = {}
        self.ours_of: dict[str, str] = {}

    def sharing(self, mine: Node, other: Node) -> LayerSharing | None:
        """Why two layers read weights that do not correspond, if they do not; they correspond from now on."""
        found = None
        for ours, theirs in corresponding(mine, other):
            if self.unknown.isdisjoint((ours.name, theirs.name)):
                found = found or self._sharing(mine, other, ours.name, theirs.name)
                self.reference_of.setdefault(ours.name, theirs.name)
                self.ours_of.setdefault(theirs.name, ours.name)
        return found

    def _sharing(self, mine: Node, other: Node, ours: str, theirs: str) -> LayerSharing | None:
        if self.reference_of.get(ours, theirs) == theirs and self.ours_of.get(theirs, ours) == ours:
            return None
        if theirs not in self.ours_of:
            text = f"it shares {ours} with an earlier layer, the reference has {theirs} there, a tensor of its own"
            return LayerSharing(mine, other, Change(SHARING, _SHARED, _OWN), text)
        if ours not in self.reference_of:
            text = f"it has {ours}, a tensor of its own, the reference shares {theirs} with an earlier layer"
            return LayerSharing(mine, other, Change(SHARING, _OWN, _SHARED), text)
        text = f"it shares {ours} with an earlier layer, the reference shares {theirs} with another one"
        return LayerSharing(mine, other, Change(SHARING, ours, theirs), text)


def _as_one(run: list[LayerSharing]) -> LocatedDifference:
    first, *others = map(_message, run)
    mine, other = run[0].mine, run[0].other
    text = f"{first}; so in {len(run)} layers" if others else first
    label = other.label or mine.label
    difference = Difference(
        "changed", mine.name, other.name, "function", text, label, (run[0].change,), follows=tuple(others)
    )
    return LocatedDifference(difference, tuple((sharing.mine, sharing.other) for sharing in run))


def _message(sharing: LayerSharing) -> str:
    there = f" (there {sharing.other.title})" if sharing.mine.name != sharing.other.name else ""
    return f"{sharing.mine.title}: {sharing.text}{there}"


def is_sharing(difference: Difference) -> bool:
    """Whether a difference is about weights that one network shares and the other does not."""
    return [change.attribute for change in difference.changes] == [SHARING]


def shared_weights(located: LocatedDifference, weights: dict[str, Parameter]) -> dict[str, tuple[Parameter, ...]]:
    """The parameters of the reference's layers of one difference, if they are shared as in ours, by the layers' names.

    `weights` has the reference's parameter for each of ours.
    """
    found = {}
    for mine, other in located.pairs:
        if mine is not None and other is not None:
            taken = {
                theirs.name: _as_in_ours(weights[ours.name], theirs) for ours, theirs in corresponding(mine, other)
            }
            found[other.name] = tuple(taken.get(parameter.name, parameter) for parameter in other.parameters)
    return found


def _as_in_ours(shared: Parameter, theirs: Parameter) -> Parameter:
    """The parameter of an earlier layer, or a new one for a layer that has its own in ours."""
    return shared if shared.name != theirs.name else replace(theirs, name=f"{theirs.name} (own)")
