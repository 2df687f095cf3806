"""Every command that the documentation shows is run, and prints what is shown.

In a page a `console` block holds commands behind `$ ` and what they print; a `python` block that begins with
`# name.py` is written to that file first. Run pytest with --update-golden to fill the outputs in.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"

PAGES = [page for page in sorted(DOCS.glob("*.md")) if "\n```console\n$ " in page.read_text(encoding="utf-8")]

BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)


def ran(block: str, vggscope) -> str:
    """A console block with what its commands print now."""
    lines = []
    for line in block.splitlines():
        if line.startswith("$ "):
            words = shlex.split(line[2:])
            assert words[0] == "vggscope"
            lines += [line, *vggscope(*words[1:]).out.splitlines()]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_shows_is_what_is_printed(page: Path, vggscope, tmp_path, monkeypatch, request) -> None:
    monkeypatch.chdir(tmp_path)
    text = page.read_text(encoding="utf-8")

    def replayed(match: re.Match[str]) -> str:
        language, block = match.groups()
        name = re.match(r"# (\w+\.py)\n", block)
        if language == "python" and name:
            Path(name[1]).write_text(block, encoding="utf-8")
        if language == "console" and block.startswith("$ "):
            return f"```console\n{ran(block, vggscope)}```"
        return match[0]

    replay = BLOCK.sub(replayed, text)
    if request.config.getoption("--update-golden"):
        page.write_text(replay, encoding="utf-8")
    assert replay == page.read_text(encoding="utf-8")


def test_the_tutorial_is_among_them() -> None:
    assert "tutorial.md" in [page.name for page in PAGES]
