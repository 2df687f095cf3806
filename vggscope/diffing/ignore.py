"""Differences that somebody does not want to hear of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vggscope.diffing.locate import Aligned, LayerPair, LocatedDifference, renamed
from vggscope.errors import unknown
from vggscope.graph import Network, Node

IGNORABLE = {
    "names": "layers that are only called otherwise",
    "dropout": "dropout that is missing, extra or of another rate",
    "inplace": "whether a layer overwrites its input",
    "bias": "whether a layer has a bias",
    "classes": "how many classes the last layer has",
}
"""What `--ignore` takes."""

_ATTRIBUTES = {"inplace", "bias"}
_WIDTHS = {"out_features", "out_channels"}


def without(
    found: Iterable[LocatedDifference], ignore: frozenset[str], aligned: Aligned
) -> Iterator[LocatedDifference]:
    """The differences that are left. Raises OptionError for a name that is none of IGNORABLE."""
    other = min(ignore - IGNORABLE.keys(), default=None)
    if other is not None:
        raise unknown("difference", other, IGNORABLE, "ignore")
    classes = last_weights(aligned.ours, aligned.reference) if "classes" in ignore else None
    for item in found:
        difference = item.difference
        if difference.kind == "renamed" and "names" in ignore:
            continue
        if "dropout" in ignore and any(node and node.op.name.startswith("Dropout") for node in item.edits[0]):
            continue
        ignored = ignore & _ATTRIBUTES
        if item.edits[0] == classes:
            ignored |= _WIDTHS
        left = tuple(c for c in difference.changes if c.attribute not in ignored)
        if difference.changes and not left:
            yield from _renamed(item, ignore)
            continue
        yield replace(item, difference=replace(difference, changes=left))


def last_weights(ours: Network, reference: Network) -> LayerPair:
    """The last layers with weights of both, which give the classes."""
    return _last(ours), _last(reference)


def _last(network: Network) -> Node | None:
    return next((node for node in reversed(network.nodes) if node.op.name in ("Linear", "Conv2d")), None)


def _renamed(item: LocatedDifference, ignore: frozenset[str]) -> Iterator[LocatedDifference]:
    """What is left of a layer whose changes do not count: it may be called otherwise as well."""
    mine, other = item.edits[0]
    if mine is None or other is None or "names" in ignore or (mine.name, mine.module) == (other.name, other.module):
        return
    difference = renamed(mine, other)
    if difference is not None:
        yield replace(item, difference=difference)
