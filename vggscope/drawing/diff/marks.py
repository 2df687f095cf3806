"""The marks of differences: a sign and a number for each, by which the list and the drawing refer to each other.

Each sign has a colour and an outline, so that no colour is needed to tell the badges apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection

from vggscope.diffing.result import EFFECTS, Diff, Difference
from vggscope.diffing.wording import SIGNS
from vggscope.drawing.fonts import text_width
from vggscope.drawing.picture import Polygon, Rectangle, Shape, Text
from vggscope.drawing.theme import SMALL, Theme
from vggscope.record import record

HEIGHT, POINT = 12.0, 4.0
"""In points: the height of a badge, and the length of its pointed ends."""

_POINTED = {
    "~": ((0, 1, 0), (1, -1, 0), (1, 0, 0.5), (1, -1, 1), (0, 1, 1), (0, 0, 0.5)),
    "!": ((0, 0, 0), (1, -1, 0), (1, 0, 0.5), (1, -1, 1), (0, 0, 1)),
}
"""The corners of outlines with pointed ends: the share of the width, points inward, the share of the height."""

MOST_LISTED = 12
"""The most differences that a picture lists, the gravest first; the rest is counted."""

MEANINGS = {"~": "changed", "+": "only in the model", "-": "only in the reference", "!": "fails to run"}
"""What each sign of a numbered mark means."""

QUIET = "hollow: the output stays the same"
"""What a quiet mark means."""

_FOLDERS = re.compile(r"^[^\n]*[/\\](?=[^/\\\s]+\.\w+(:|$))")
"""The folders before a file, in the word of a model."""


@record
class Mark:
    """The mark of a row or a difference: its sign, and its number in the list if it has one there. `quiet` marks leave
    the output as it is.
    """

    sign: str
    number: int | None = None
    quiet: bool = False

    @property
    def text(self) -> str:
        """The sign, as wide as a digit, and the number."""
        sign = self.sign.replace("-", "−")
        return sign if self.number is None else f"{sign} {self.number}"

    @property
    def width(self) -> float:
        """The width of its badge, in points."""
        return text_width(self.text, SMALL, bold=True) + 2 * (POINT + 1)


def short_names(diff: Diff) -> tuple[str, str]:
    """The names of both networks, files without their folders unless that makes them the same."""
    ours, reference = (_FOLDERS.sub("", name) for name in (diff.model, diff.reference))
    return (ours, reference) if ours != reference else (diff.model, diff.reference)


def is_harmless(difference: Difference) -> bool:
    """Whether a difference has no effect, in training either."""
    return difference.effect == "none"


def ranked(diff: Diff) -> list[int]:
    """The indices of the differences, the gravest effect first; those in name alone are left out."""
    gravest = list(EFFECTS)[::-1]
    numbered = [index for index, difference in enumerate(diff.differences) if difference.kind != "renamed"]
    return sorted(numbered, key=lambda index: gravest.index(diff.differences[index].effect))


def marks(diff: Diff) -> dict[int, Mark]:
    """The mark of each difference by its index. Numbers follow `ranked`."""
    signs: dict[int, set[str]] = {}
    for row in diff.rows:
        if row.difference is not None:
            signs.setdefault(row.difference, set()).add(row.sign)
    found = {index: Mark("=", quiet=True) for index in range(len(diff.differences))}
    for number, index in enumerate(ranked(diff), 1):
        difference = diff.differences[index]
        fails = signs.get(index) == {"!"}
        sign = "!" if fails else SIGNS[difference.kind]
        found[index] = Mark(sign, number, quiet=not fails and not difference.changes_output)
    return found


def harmless_text(diff: Diff, indices: Collection[int]) -> str:
    """The differences without effect at these indices in one line, counted by layers: `36 harmless differences: 23 in
    name, 13 in inplace`.
    """
    layers = Counter(row.difference for row in diff.rows)
    counts: Counter[str] = Counter()
    for index in sorted(indices):
        counts[_matter(diff.differences[index])] += max(1, layers[index])
    total = counts.total()
    matters = ", ".join(f"{count:,} {matter}" for matter, count in counts.most_common())
    return f"{total:,} harmless difference{'' if total == 1 else 's'}: {matters}"


def _matter(difference: Difference) -> str:
    """What a harmless difference is about."""
    if difference.kind == "renamed":
        return "in name"
    if difference.kind == "changed":
        attributes = " and ".join(change.attribute for change in difference.changes)
        return "in another op" if attributes == "op" else f"in {attributes or 'writing'}"
    return "extra" if difference.kind == "inserted" else "missing"


def badge(mark: Mark, x: float, middle: float, theme: Theme) -> tuple[Shape, ...]:
    """A mark's badge with its left end at `x`, vertically centred on `middle`; hollow for a quiet mark."""
    color = theme.signs[mark.sign]
    fill = theme.page if mark.quiet else color
    ink = color if mark.quiet else theme.ink_on(color)
    text = Text(x + mark.width / 2, middle + 2.9, mark.text, SMALL, ink, bold=True, anchor="middle")
    return (_outline(mark.sign, x, middle - HEIGHT / 2, mark.width, fill, color), text)


def _outline(sign: str, x: float, y: float, width: float, fill: str, stroke: str) -> Shape:
    if sign in _POINTED:
        corners = ((x + width * across + POINT * inward, y + HEIGHT * down) for across, inward, down in _POINTED[sign])
        return Polygon(tuple(corners), fill, stroke, 1.0)
    radius = {"+": HEIGHT / 2, "-": 0.0}.get(sign, 2.5)
    return Rectangle(x, y, width, HEIGHT, fill, stroke, 1.0, radius, dashed=sign == "?")
