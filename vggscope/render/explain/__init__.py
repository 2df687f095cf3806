"""A tutorial as a Document. `picture` draws the topics that have a picture."""

from __future__ import annotations

from vggscope.document import Block, Document, Facts, Note, Table, data_table
from vggscope.tutorials.tutorial import Agreement, NumberGrid, Tutorial


def document(tutorial: Tutorial) -> Document:
    """The tutorial's blocks, with the numbers of its grids as tables for CSV, and the comparison with torch."""
    blocks: list[Block] = []
    for block in tutorial.blocks:
        blocks += [block, block.table] if isinstance(block, NumberGrid) else [block]
    if tutorial.torch is not None:
        blocks.append(_agreement(tutorial.torch))
    if not any(isinstance(block, Table) for block in blocks):
        pairs = (pair for block in tutorial.blocks if isinstance(block, Facts) for pair in block.items)
        blocks.append(data_table(("name", "text"), pairs))
    return Document(tutorial.title, tuple(blocks))


def line(tutorial: Tutorial) -> str:
    """The topic and the title."""
    return f"{tutorial.topic}: {tutorial.title}"


def _agreement(torch: Agreement) -> Note:
    if torch.agrees:
        return Note(
            f"torch {torch.torch_version} gives the same; largest difference {torch.max_abs_error:.3g}", "verdict"
        )
    return Note(f"torch {torch.torch_version} differs by {torch.max_abs_error:.3g}", "warning")
