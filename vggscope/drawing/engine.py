"""Graphviz as a layout engine for graphs that branch: it places boxes of given sizes and routes the arrows.

It gets no text and no font, so that the layout is the same on every machine with the same Graphviz. Coordinates are
points, with y downward from the top left.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from vggscope.drawing.picture import Frame, Point
from vggscope.errors import MissingTool, option
from vggscope.record import record

ENGINES = ("bundled", "system")
"""Which Graphviz: the one bundled with pygraphviz, or `dot` on PATH."""

CLUSTER_MARGIN = 8.0
"""The space between a cluster's frame and its boxes, in points."""

ARROW_MARGIN = 4.0
"""The space between a cluster's frame and an arrow in it, in points."""

_TITLE_SPACE = '<<table border="0" cellborder="0" fixedsize="true" width="20" height="10"><tr><td></td></tr></table>>'
"""An empty label: the space for a cluster's title."""


@record
class Layout:
    """The frames of boxes and clusters by name, and each edge's Bézier curve. The layout begins at 0, 0."""

    boxes: Mapping[str, Frame]
    clusters: Mapping[str, Frame]
    curves: Mapping[tuple[str, str], tuple[Point, ...]]
    width: float
    height: float
    engine: str = ""
    """The name and version of the Graphviz that was used; empty if none was needed."""


def lay_out(
    sizes: Mapping[str, tuple[float, float]],
    edges: Sequence[tuple[str, str]],
    clusters: Mapping[str, Sequence[str]],
    engine: str,
) -> Layout:
    """Lay out boxes from the top down. `sizes` are widths and heights by name, `clusters` groups of boxes. A group
    whose boxes are all in one before it lies within that.

    Raises MissingTool if the engine is not installed.
    """
    names = {name: f"n{index}" for index, name in enumerate(sizes)}
    source = _source(sizes, edges, clusters, names)
    graph, version = _ENGINES[engine](source)
    layout = _read(json.loads(graph), {short: name for name, short in names.items()}, list(clusters), version)
    frames = dict(layout.clusters)
    for key in reversed(frames):
        frames[key] = _with_arrows(key, clusters, replace(layout, clusters=frames))
    return replace(layout, clusters=frames)


def _with_arrows(key: str, clusters: Mapping[str, Sequence[str]], layout: Layout) -> Frame:
    """A cluster's frame, as wide as the arrows to its boxes and the clusters in it, where nothing else is beside it:
    Graphviz lets an arrow from above, such as a shortcut, bend out of the frame.
    """
    frame, members = layout.clusters[key], set(clusters[key])
    within = [layout.clusters[other] for other in clusters if members > set(clusters[other])]
    edges = [edge for box in within for edge in (box.x - ARROW_MARGIN, box.right + ARROW_MARGIN)]
    for (_, target), curve in layout.curves.items():
        if target in members:
            inside = [x for x, y in along(curve) if frame.y <= y <= frame.bottom]
            edges += [x + side for x in inside for side in (-ARROW_MARGIN, ARROW_MARGIN)]
    left = min([frame.x, *(max(x, -ARROW_MARGIN) for x in edges)])
    right = max([frame.right, *(min(x, layout.width + ARROW_MARGIN) for x in edges)])
    wider = Frame(left, frame.y, right - left, frame.height)
    beside = [box for name, box in layout.boxes.items() if name not in members]
    beside += [other for name, other in layout.clusters.items() if members.isdisjoint(clusters[name])]
    return frame if any(_overlap(wider, box) for box in beside) else wider


def along(curve: Sequence[Point]) -> Iterator[Point]:
    """Points on a curve of cubic Bézier pieces: eight on each."""
    for start in range(0, len(curve) - 3, 3):
        for step in range(9):
            t = step / 8
            weights = ((1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3)
            points = curve[start : start + 4]
            yield sum(w * x for w, (x, _) in zip(weights, points)), sum(w * y for w, (_, y) in zip(weights, points))


def _overlap(one: Frame, other: Frame) -> bool:
    return one.x < other.right and other.x < one.right and one.y < other.bottom and other.y < one.bottom


def check(engine: str) -> None:
    """Raise MissingTool if `dot` is needed and not on PATH."""
    if engine == "system" and shutil.which("dot") is None:
        raise MissingTool(
            f"{option('engine', 'system')} needs Graphviz's `dot`, which is not on PATH",
            f"install Graphviz, or leave {option('engine')} out",
        )


def _source(
    sizes: Mapping[str, tuple[float, float]],
    edges: Sequence[tuple[str, str]],
    clusters: Mapping[str, Sequence[str]],
    names: Mapping[str, str],
) -> str:
    lines = [
        "digraph {",
        "  graph [ranksep=0.3 nodesep=0.2 margin=0 pad=0]",
        '  node [shape=box fixedsize=true label=""]',
        "  edge [arrowhead=none tailport=s]",
    ]
    lines += [f"  {names[n]} [width={w / 72:.4f} height={h / 72:.4f}]" for n, (w, h) in sizes.items()]
    groups = [[names[name] for name in members] for members in clusters.values()]
    lines += [_subgraph(index, groups) for index, around in enumerate(_around(groups)) if around is None]
    lines += [f"  {names[start]} -> {names[end]} [weight={weight}]" for (start, end), weight in _weights(edges)]
    return "\n".join([*lines, "}"])


def _around(groups: Sequence[Sequence[str]]) -> list[int | None]:
    """For each group the last one before it that has all of its boxes, or None."""
    sets = [frozenset(members) for members in groups]
    return [
        next((before for before in reversed(range(index)) if members <= sets[before]), None)
        for index, members in enumerate(sets)
    ]


def _subgraph(index: int, groups: Sequence[Sequence[str]]) -> str:
    """A group with those within it."""
    within = [inner for inner, around in enumerate(_around(groups)) if around == index]
    inside = " ".join([*(_subgraph(inner, groups) for inner in within), *groups[index]])
    return f"  subgraph cluster_{index} {{ margin={CLUSTER_MARGIN} labelloc=t label={_TITLE_SPACE} {inside} }}"


def _weights(edges: Sequence[tuple[str, str]]) -> list[tuple[tuple[str, str], int]]:
    """The weight of each edge: higher ones are shorter and straighter. A chain's edges have the highest."""
    leaving, entering = Counter(start for start, _ in edges), Counter(end for _, end in edges)
    return [((start, end), 20 if leaving[start] == entering[end] == 1 else 1) for start, end in edges]


def _bundled(source: str) -> tuple[bytes, str]:
    try:
        import pygraphviz
    except ImportError:
        raise MissingTool(
            "this network branches, and the Graphviz that lays it out is not installed",
            f"pip install pygraphviz, or install Graphviz and add {option('engine', 'system')}",
        ) from None
    graph = pygraphviz.AGraph(string=source)
    try:
        # pygraphviz warns about large graphs on sys.stderr.
        with contextlib.redirect_stderr(io.StringIO()):
            drawn: bytes = graph.draw(format="json0", prog="dot")
    finally:
        graph.close()
    return drawn, f"Graphviz {pygraphviz.__graphviz_version__}"


def _system(source: str) -> tuple[bytes, str]:
    check("system")
    import graphviz

    drawn: bytes = graphviz.Source(source, engine="dot").pipe(format="json0", quiet=True)
    return drawn, f"Graphviz {'.'.join(map(str, graphviz.version()))}"


_ENGINES: dict[str, Callable[[str], tuple[bytes, str]]] = {"bundled": _bundled, "system": _system}


def _read(graph: dict[str, Any], names: Mapping[str, str], clusters: Sequence[str], engine: str) -> Layout:
    """The layout in Graphviz's JSON, whose y runs upward."""
    left, low, right, high = _numbers(graph["bb"])
    boxes, frames, by_id = {}, {}, {}
    for item in graph.get("objects", []):
        if "nodes" in item or "bb" in item:
            x1, y1, x2, y2 = _numbers(item["bb"])
            frames[clusters[int(item["name"].rpartition("_")[2])]] = Frame(x1 - left, high - y2, x2 - x1, y2 - y1)
            continue
        x, y = _numbers(item["pos"])
        width, height = float(item["width"]) * 72, float(item["height"]) * 72
        by_id[item["_gvid"]] = names[item["name"]]
        boxes[names[item["name"]]] = Frame(x - left - width / 2, high - y - height / 2, width, height)
    curves = {}
    for edge in graph.get("edges", []):
        numbers = [_numbers(pair) for pair in edge["pos"].split()]
        curves[by_id[edge["tail"]], by_id[edge["head"]]] = tuple((x - left, high - y) for x, y in numbers)
    return Layout(boxes, frames, curves, right - left, high - low, engine)


def _numbers(text: str) -> list[float]:
    return [float(number) for number in text.split(",")]
