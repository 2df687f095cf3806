"""The Document of the catalogue: one table for each kind of choice."""

from __future__ import annotations

from vggscope.document import Block, Column, Document, Facts, Table
from vggscope.sources.catalogue import Catalogue, Choice
from vggscope.units import count_text


def document(catalogue: Catalogue) -> Document:
    """The columns of Table 1, other published networks, the reference models, then the other choices."""
    blocks: list[Block] = [
        _columns(catalogue),
        _families(catalogue),
        _references(catalogue),
        _choices("op", catalogue.ops),
        _choices("format", catalogue.formats),
        _choices("style", catalogue.styles),
        Facts(tuple((package.name, package.version or "not installed") for package in catalogue.packages)),
    ]
    return Document("what there is to choose from", tuple(blocks))


def line(catalogue: Catalogue) -> str:
    """The number of columns, other networks, references and ops."""
    counts = {
        "columns": catalogue.columns,
        "other networks": catalogue.families,
        "references": catalogue.references,
        "ops": catalogue.ops,
    }
    return ", ".join(f"{len(entries)} {name}" for name, entries in counts.items())


def _columns(catalogue: Catalogue) -> Table:
    columns = (
        Column("name", "column"),
        Column("literature", "name", lambda name: name or "", priority=1),
        Column("weight_layers", "weight layers", right=True, priority=2),
        Column("notation", "notation", wrap=True),
    )
    rows = tuple((c.name, c.literature, c.weight_layers, c.notation) for c in catalogue.columns)
    return Table(columns, rows)


def _families(catalogue: Catalogue) -> Table:
    columns = (
        Column("name", "published"),
        Column("title", "title", wrap=True),
        Column("source", "source", wrap=True, priority=1),
    )
    return Table(columns, tuple((family.name, family.title, family.source) for family in catalogue.families))


def _references(catalogue: Catalogue) -> Block:
    """A line of names, or a table if the parameters are known."""
    if not any(reference.params for reference in catalogue.references):
        names = ", ".join(reference.name for reference in catalogue.references)
        return Facts((("references", names or "none: torchvision is not installed"),))
    columns = (Column("name", "reference"), Column("params", "parameters", count_text, right=True))
    return Table(columns, tuple((reference.name, reference.params) for reference in catalogue.references))


def _choices(title: str, choices: tuple[Choice, ...]) -> Table:
    columns = (Column("name", title), Column("about", "", wrap=True))
    return Table(columns, tuple((choice.name, choice.about) for choice in choices))
