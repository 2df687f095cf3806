"""Draw docs/images/floors.svg, the picture of docs/architecture.md: `python docs/floors.py`.

The floors are FLOORS of tests/house.py; each needs a description in ABOUT.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS.parent))

from tests.house import FLOORS  # noqa: E402

PICTURE = DOCS / "images" / "floors.svg"

ABOUT = {
    "cli": "parse the command line, call api, print; checks for a project's own tests",
    "mcp_server": "the functions of api as an assistant's tools",
    "api": "every command as a function",
    "explorer": "the interactive page",
    "render": "results as text and plots; the table of formats",
    "drawing": "diagrams: styles make shapes, writers write them",
    "tutorials": "what explain shows",
    "sources": "from a word that names a model to its Network",
    "diffing": "two Networks compared; other tools; runs on data",
    "checkpoint": "weights files and locks read safely; functions of a Network",
    "trace": "from a running nn.Module to a Network, and back",
    "graph_json": "a Network as JSON or in another dtype; what is VGG's own",
    "graph": "the Network: named operations in execution order",
    "ops": "one class per operation: shape, parameters, MACs, window",
    "result": "base class of results; the block model of text; torch's allocations as data",
    "units": "numbers as text; files; progress; photos; processes",
    "errors": "errors with remedies; frozen classes",
}
"""What each floor is for, by its first room."""

WIDTH, HEIGHT, LEFT, GAP = 880, 46, 20, 6


def picture() -> str:
    """Return the SVG: one bar per floor, the highest on top. It leaves out the entrance, `__init__.py`."""
    rows = [names for names in reversed(FLOORS) if "__init__" not in names]
    height = len(rows) * (HEIGHT + GAP) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>The floors of vggscope: a file imports from its own room and from lower floors</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for number, names in enumerate(rows):
        top = 16 + number * (HEIGHT + GAP)
        network = "graph" in names
        fill = "#fde7c7" if network else "#eaf1f8"
        about = ABOUT[names[0]]
        parts += [
            f'<rect x="{LEFT}" y="{top}" width="{WIDTH - 2 * LEFT}" height="{HEIGHT}" rx="5" fill="{fill}"'
            f' stroke="{"#c77700" if network else "#9aa7b8"}"/>',
            f'<text x="{LEFT + 14}" y="{top + 28}" font-size="14" font-weight="bold" fill="#1b2733">'
            f"{escape(' · '.join(names))}</text>",
            f'<text x="{WIDTH - LEFT - 14}" y="{top + 28}" font-size="13" fill="#3d4b5c" text-anchor="end">'
            f"{escape(about)}</text>",
        ]
    foot = height - 20
    parts += [
        f'<text x="{LEFT}" y="{foot}" font-size="12" fill="#3d4b5c">A file imports from its own room and from lower'
        " floors. Orange: the Network, which sources return and analyses read.</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
