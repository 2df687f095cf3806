"""The catalogue laid out: one table for each kind of thing there is to choose."""

from __future__ import annotations

from vggscope.document import Block, Column, Document, Facts, Table
from vggscope.sources.catalogue import Catalogue, Choice
from vggscope.units import count_text


def document(catalogue: Catalogue) -> Document:
    """Columns first, then what they can be held against, then the rest."""
    blocks: list[Block] = [
        _columns(catalogue),
        _references(catalogue),
        _choices("op", catalogue.ops),
        _choices("format", catalogue.formats),
        _choices("style", catalogue.styles),
        Facts(tuple((package.name, package.version or "not installed") for package in catalogue.packages)),
    ]
    return Document("what there is to choose from", tuple(blocks))


def line(catalogue: Catalogue) -> str:
    """How many of each."""
    return f"{len(catalogue.columns)} columns, {len(catalogue.references)} references, {len(catalogue.ops)} ops"


def _columns(catalogue: Catalogue) -> Table:
    shown = (
        Column("name", "column"),
        Column("literature", "name", lambda name: name or "", priority=1),
        Column("weight_layers", "weight layers", right=True, priority=2),
        Column("notation", "notation", wrap=True),
    )
    rows = tuple((c.name, c.literature, c.weight_layers, c.notation) for c in catalogue.columns)
    return Table(shown, rows)


def _references(catalogue: Catalogue) -> Block:
    """A line of names, or a table where the parameters are known."""
    if not any(reference.params for reference in catalogue.references):
        names = ", ".join(reference.name for reference in catalogue.references)
        return Facts((("references", names or "none: torchvision is not installed"),))
    shown = (Column("name", "reference"), Column("params", "parameters", count_text, right=True))
    return Table(shown, tuple((reference.name, reference.params) for reference in catalogue.references))


def _choices(title: str, choices: tuple[Choice, ...]) -> Table:
    shown = (Column("name", title), Column("about", "", wrap=True))
    return Table(shown, tuple((choice.name, choice.about) for choice in choices))
