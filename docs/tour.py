"""The notebook as a page of the site: its text, its code, and the outputs that are stored in it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

NOTEBOOK = Path(__file__).parent / "notebook.ipynb"


def tour() -> str:
    """The page."""
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    title, *rest = [part for cell in cells for part in _cell(cell)]
    return "\n\n".join([title, "[This page as a notebook](notebook.ipynb)", *rest]) + "\n"


def _cell(cell: dict) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        yield source
        return
    yield f"```python\n{source}\n```"
    for output in cell["outputs"]:
        data = output.get("data", {"text/plain": output.get("text", "")})
        html = "".join(data.get("text/html", data.get("image/svg+xml", "")))
        if html:
            # What stands before an SVG is for a file of its own.
            yield f"````{{raw}} html\n{html[max(html.find('<svg '), 0) :]}\n````"
        elif "".join(data["text/plain"]):
            yield f"```text\n{''.join(data['text/plain']).rstrip()}\n```"
