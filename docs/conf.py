"""The documentation as a site: `make docs` builds it into docs/_build/html, a warning is an error."""

from __future__ import annotations

import sys
from pathlib import Path

from vggscope import __version__
from vggscope.cli.app import COMMANDS

HERE = Path(__file__).parent

project = "vggscope"
author = "The vggscope authors"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
source_suffix = {".md": "markdown"}

html_theme = "furo"
html_title = f"vggscope {__version__}"
html_static_path: list[str] = []

autodoc_typehints = "none"
autodoc_member_order = "bysource"

nitpick_ignore_regex = [("py:.*", ".*")]  # docstrings name things in backticks, they link to none


def _help(command: str) -> str:
    """What `vggscope COMMAND --help` prints."""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-m", "vggscope", command, "--help"], capture_output=True, text=True, check=True
    )
    return done.stdout


def _write_reference() -> None:
    """docs/cli.md, from the program itself."""
    parts = ["# Commands\n", "Written from the program: each section is what `vggscope COMMAND --help` prints.\n"]
    for command in COMMANDS:
        parts += [f"## {command}\n", f"```text\n{_help(command)}```\n"]
    (HERE / "cli.md").write_text("\n".join(parts), encoding="utf-8")


_write_reference()
