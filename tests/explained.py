"""Whether the differences of a diff explain by how many parameters the two networks differ, as a reader sees it."""

from __future__ import annotations

import re

from vggscope.diffing.result import Diff, Difference
from vggscope.diffing.wording import totals

_COUNT = re.compile(r"^([\d,]+) parameters (more|fewer)$")
_AFTER = re.compile(r"^layers after it read another width and have ([\d,]+) (more|fewer)$")
_MISSING = re.compile(r"^([\d,]+) parameters are missing$")


def assert_explained(diff: Diff) -> None:
    """The numbers in the differences add up to that of the totals, or the line of totals says what is left."""
    for difference in diff.differences:
        if difference.changes_output and difference.params is not None:
            assert _told(difference) == difference.params, difference
    total = (diff.params.ours or 0) - (diff.params.reference or 0)
    told = sum(difference.params or 0 for difference in diff.differences)
    line = totals(diff)[0][1]
    if diff.failure is None:
        assert (told == total) == ("; " not in line), (told, total, line)
    elif told != total:
        assert any("it is compared up to" in note for note in diff.notes)


def _told(difference: Difference) -> int:
    told = 0
    for text in difference.consequences:
        if match := _COUNT.match(text) or _AFTER.match(text):
            told += int(match[1].replace(",", "")) * (1 if match[2] == "more" else -1)
        elif match := _MISSING.match(text):
            told -= int(match[1].replace(",", ""))
    return told
