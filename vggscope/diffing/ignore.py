"""Differences that somebody does not want to hear of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vggscope.diffing.find import Found, renamed
from vggscope.errors import unknown

IGNORABLE = {
    "names": "layers that are only called otherwise",
    "dropout": "dropout that is missing, extra or of another rate",
    "inplace": "whether a layer overwrites its input",
    "bias": "whether a layer has a bias",
}
"""What `--ignore` takes."""

_ATTRIBUTES = {"inplace", "bias"}


def without(found: Iterable[Found], ignore: frozenset[str]) -> Iterator[Found]:
    """The differences that are left. Raises OptionError for a name that is none of IGNORABLE."""
    other = min(ignore - IGNORABLE.keys(), default=None)
    if other is not None:
        raise unknown("difference", other, IGNORABLE, "ignore")
    for item in found:
        difference = item.difference
        if difference.kind == "renamed" and "names" in ignore:
            continue
        if "dropout" in ignore and any(node and node.op.name.startswith("Dropout") for node in item.edits[0]):
            continue
        left = tuple(c for c in difference.changes if c.attribute not in ignore & _ATTRIBUTES)
        if difference.changes and not left:
            yield from _renamed(item, ignore)
            continue
        yield replace(item, difference=replace(difference, changes=left))


def _renamed(item: Found, ignore: frozenset[str]) -> Iterator[Found]:
    """What is left of a layer whose changes do not count: it may be called otherwise as well."""
    mine, other = item.edits[0]
    if mine is None or other is None or "names" in ignore or (mine.name, mine.module) == (other.name, other.module):
        return
    difference = renamed(mine, other)
    if difference is not None:
        yield replace(item, difference=difference)
