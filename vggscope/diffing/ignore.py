"""Differences that somebody does not want to hear of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from vggscope.diffing.find import Found
from vggscope.errors import OptionError

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
    unknown = sorted(ignore - IGNORABLE.keys())
    if unknown:
        raise OptionError(f"--ignore {unknown[0]!r} is unknown", f"it takes {', '.join(IGNORABLE)}")
    for item in found:
        difference = item.difference
        if difference.kind == "renamed" and "names" in ignore:
            continue
        if "dropout" in ignore and any(node and node.op.name.startswith("Dropout") for node in item.edits[0]):
            continue
        left = tuple(c for c in difference.changes if c.attribute not in ignore & _ATTRIBUTES)
        if difference.changes and not left:
            continue
        yield replace(item, difference=replace(difference, changes=left))
