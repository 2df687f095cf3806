"""What an analysis, a diff or a verification gives: frozen data that can show itself."""

from __future__ import annotations

from importlib import import_module


class Result:
    """The root of everything that a command shows.

    `print(result)` is the table that the command prints. How it is drawn is render's business, which stands above and
    is looked up only when it is asked for.
    """

    schema: str

    def __str__(self) -> str:
        return str(import_module("vggscope.render.formats").write(self)).rstrip("\n")

    def to_json(self) -> str:
        """The result as the JSON that `--format json` gives (docs/json.md)."""
        return str(import_module("vggscope.render.json").write(self))

    def _repr_markdown_(self) -> str:
        """What a notebook shows."""
        return str(import_module("vggscope.render.formats").write(self, "markdown"))
