"""The stages of a picture in DOT: clusters in the rows of the picture, each with a node for each tensor of another
stage that it reads, as the picture shows its shape at the top of the card.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from vggscope.drawing.picture import Frame, Link, Part, Rectangle
from vggscope.record import record


@record
class StageRows:
    """The rows of stages of a picture, none where each row has one stage: Graphviz draws a column itself.

    `stages` has the stage of each node, and `last` the last node of each stage.
    """

    rows: Sequence[Sequence[str]]
    stages: Mapping[str, str]
    last: Mapping[str, str]

    def is_entry(self, link: Link) -> bool:
        """Whether a link begins outside the stage in which it ends."""
        return bool(self.rows) and self.stages.get(link.target, "") not in ("", self.stages.get(link.source))


@record
class Entry:
    """A tensor that a stage reads, by the node that computes it."""

    stage: str
    source: str
    label: str

    @property
    def name(self) -> str:
        """The name of its node."""
        return f"{self.source} in {self.stage}"


@record
class Edge:
    """An edge with its attributes, as names and values that need no quotes or are to be quoted."""

    link: Link
    attributes: Mapping[str, str]


def stage_rows(parts: Sequence[Part], first: Mapping[str, str]) -> StageRows:
    """The rows. `first` has the first part of the stack that each part lies in, which is the node of all."""
    frames: dict[str, Frame] = {}
    stages: dict[str, str] = {}
    last: dict[str, str] = {}
    for part in parts:
        box = next((shape for shape in part.shapes if isinstance(shape, Rectangle)), None)
        if part.cluster and box is not None:
            stage = part.cluster[0]
            stages[part.name], last[stage] = stage, first.get(part.name, part.name)
            before = frames.get(stage, Frame(box.x, box.y, 0, 0))
            top = min(before.y, box.y)
            frames[stage] = Frame(0, top, 0, max(before.bottom, box.y + box.height) - top)
    rows: list[list[str]] = []
    bottom = 0.0
    for stage, frame in frames.items():
        if rows and frame.y < bottom:
            rows[-1].append(stage)
        else:
            rows.append([stage])
        bottom = frame.bottom
    return StageRows(rows if any(len(row) > 1 for row in rows) else (), stages, last)


def entries(links: Sequence[Link], rows: StageRows) -> list[Entry]:
    """What each stage reads of others, each tensor once."""
    read = (Entry(rows.stages[link.target], link.source, link.label) for link in links if rows.is_entry(link))
    return list({(entry.stage, entry.source): entry for entry in read}.values())


def within_stages(links: Sequence[Link], rows: StageRows) -> Iterator[Link]:
    """The links, those from another stage as links from the entry."""
    for link in links:
        if rows.is_entry(link):
            entry = Entry(rows.stages[link.target], link.source, "")
            yield replace(link, source=entry.name, label="")
        else:
            yield link


def edges_between(listed: Sequence[Entry], rows: StageRows) -> Iterator[Edge]:
    """The edges from stage to stage. They do not move the stages, which `edges_of_rows` holds in place."""
    row_of = {stage: number for number, row in enumerate(rows.rows) for stage in row}
    for entry in listed:
        before = rows.stages.get(entry.source)
        ends = {"lhead": f"cluster {entry.stage}", **({"ltail": f"cluster {before}"} if before else {})}
        free = {} if before is None else {"constraint": "false"}
        if before is not None and row_of[before] < row_of[entry.stage]:
            free = {"weight": "0"}
        yield Edge(Link(entry.source, entry.name, ()), {**ends, **free})


def heads(listed: Sequence[Entry], rows: StageRows) -> dict[str, str]:
    """The uppermost node of each stage: its first entry, or its first node."""
    found: dict[str, str] = {}
    for entry in listed:
        found.setdefault(entry.stage, entry.name)
    for name, stage in rows.stages.items():
        found.setdefault(stage, name)
    return found


def edges_of_rows(top: Mapping[str, str], rows: StageRows) -> Iterator[Edge]:
    """Edges that are not drawn: they order the stages of a row, hold each row below the one before it, and the first
    stages of all rows in a column.
    """
    for row in rows.rows:
        for left, right in pairwise(row):
            yield Edge(Link(top[left], top[right], ()), {"style": "invis"})
    for above, below in pairwise(rows.rows):
        yield Edge(Link(top[above[0]], top[below[0]], ()), {"style": "invis", "weight": "100"})
        for stage in above:
            yield Edge(Link(rows.last[stage], top[below[0]], ()), {"style": "invis", "weight": "0"})
