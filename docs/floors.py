"""Draw docs/images/floors.svg, the picture of docs/architecture.md: `python docs/floors.py`.

The floors are those that tests/house.py holds the code to; a floor without its words here is an error.
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

DOCS = Path(__file__).parent
HOUSE = DOCS.parent / "tests" / "house.py"
PICTURE = DOCS / "images" / "floors.svg"

ABOUT = {
    "cli": "parse, call, write: only here is anything printed",
    "api": "what the commands do, as functions",
    "render": "results made text, pictures, pages",
    "lessons": "what explain tells",
    "sources": "a word that names a model, made a Network",
    "trace": "a module's forward run once without data, written down as a Network",
    "diffing": "two Networks compared; the same numbers asked of other people's code",
    "analysis": "pure functions of a Network; a Network made a module, source, weights",
    "notation": "Table 1's words, its six columns, the literature's names",
    "graph": "Network: named operations in the order in which they run",
    "ops": "what an operation is: shape, parameters, MACs, window, what is kept",
    "result": "what every result can do",
    "units": "numbers made text and back, files, how far something has come",
    "errors": "every way to say no; frozen classes",
}
"""What stands on a floor, by its first name."""

WIDTH, HEIGHT, LEFT, GAP = 880, 46, 20, 6


def floors() -> list[tuple[str, ...]]:
    """The names of each floor, from the top down, the package's own entrance left out."""
    for node in ast.parse(HOUSE.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "FLOORS":
            found: tuple[tuple[str, ...], ...] = ast.literal_eval(node.value)
            return [names for names in reversed(found) if "__init__" not in names]
    raise SystemExit(f"{HOUSE} has no FLOORS")


def picture() -> str:
    """The picture: a floor a bar, the highest on top."""
    rows = floors()
    height = len(rows) * (HEIGHT + GAP) + 60
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        ' font-family="Helvetica, Arial, sans-serif" role="img">',
        "<title>The floors of vggscope: a file imports from its own floor's folder and from below</title>",
        f'<rect width="{WIDTH}" height="{height}" rx="8" fill="#ffffff"/>',
    ]
    for number, names in enumerate(rows):
        top = 16 + number * (HEIGHT + GAP)
        network = "graph" in names
        fill = "#fde7c7" if network else "#eaf1f8"
        about = ABOUT.get(names[0])
        if about is None:
            raise SystemExit(f"say in ABOUT of {Path(__file__).name} what stands on the floor of {names[0]}")
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
        f'<text x="{LEFT}" y="{foot}" font-size="12" fill="#3d4b5c">A file imports from its own folder and from the'
        " floors below. Orange: what sources make and analyses read.</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
