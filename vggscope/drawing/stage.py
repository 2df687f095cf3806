"""Stages, the blocks in them and their rows: what every picture of a network is made of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, chain

from vggscope.drawing.layer import Layer, Row
from vggscope.record import record

LONGEST = 26
"""A stage of more rows than this is drawn as several."""


@record
class Block:
    """Rows that a picture draws together. `instances` are the layers of each repetition, equal to one another in what
    they do; the rows are the first's, named within `path`.
    """

    title: str
    path: str
    rows: tuple[Row, ...]
    instances: tuple[tuple[Layer, ...], ...]

    @property
    def count(self) -> int:
        return len(self.instances)


@record
class Stage:
    """Layers that a picture draws as one. `name` is unique among the network's stages."""

    name: str
    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]

    @property
    def rows(self) -> Iterator[Row]:
        """All rows, from the top down."""
        return (row for block in self.blocks for row in block.rows)


def single(layers: Sequence[Layer], path: str = "") -> Block:
    """Layers as one block without a name."""
    return Block("", path, rows(layers, path), (tuple(layers),))


def rows(layers: Sequence[Layer], path: str = "") -> tuple[Row, ...]:
    """Layers as rows, named within `path`: a minor layer joins the row whose last layer it reads."""
    found: list[list[Layer]] = []
    for layer in layers:
        if found and layer.is_minor and layer.node.inputs == (found[-1][-1].node.name,):
            found[-1].append(layer)
        else:
            found.append([layer])
    return tuple(Row(within(path, group[0].name), tuple(group)) for group in found)


def within(path: str, name: str) -> str:
    """A layer's name without the path of the module that it is shown in."""
    return name.removeprefix(f"{path}.") if path else name


def span(names: Sequence[str]) -> str:
    """The first and the last of a row of names.

    >>> span(["layer1.1", "layer1.2"]), span(["left", "right"]), span(["fc"])
    ('layer1.1–2', 'left … right', 'fc')
    """
    first, last = names[0], names[-1]
    if first == last:
        return first
    stem = first.rstrip("0123456789")
    end = last.removeprefix(stem)
    return f"{first}–{end}" if end.isdigit() and stem != first else f"{first} … {last}"


def divided(stage: Stage) -> Iterator[Stage]:
    """A long stage as several, none longer than LONGEST rows where it can be cut."""
    groups: list[list[Block]] = []
    length = LONGEST + 1
    for block in chain.from_iterable(map(_pieces, stage.blocks)):
        if length + len(block.rows) > LONGEST:
            groups.append([])
            length = 0
        groups[-1].append(block)
        length += len(block.rows)
    for number, group in enumerate(groups, 1):
        layers = tuple(layer for block in group for instance in block.instances for layer in instance)
        name = stage.name if len(groups) == 1 else f"{stage.name} ({number}/{len(groups)})"
        yield Stage(name, layers, tuple(group))


def _pieces(block: Block) -> Iterator[Block]:
    """A block that is too long cut where a single tensor passes, into pieces of even length."""
    cuts = _cuts(block.rows)
    if block.count > 1 or len(block.rows) <= LONGEST or not cuts:
        yield block
        return
    wanted = -(-len(block.rows) // -(-len(block.rows) // LONGEST))
    start = 0
    for cut, following in zip(cuts, (*cuts[1:], len(block.rows) + wanted)):
        if cut > start and following - start > wanted:
            yield _piece(block, start, cut)
            start = cut
    yield _piece(block, start, len(block.rows))


def _piece(block: Block, start: int, end: int) -> Block:
    found = block.rows[start:end]
    return Block(block.title, block.path, found, (tuple(layer for row in found for layer in row.layers),))


def _cuts(found: Sequence[Row]) -> list[int]:
    """Before which rows all that is read from the rows above is what the last of them gives."""
    place = {layer.node.name: index for index, row in enumerate(found) for layer in row.layers}
    change = [0] * (len(found) + 1)
    for index, row in enumerate(found):
        for source in (name for layer in row.layers for name in layer.node.inputs if name in place):
            # What only the last layer of the row right above gives passes no boundary but that one.
            start = place[source] + (2 if source == found[place[source]].layers[-1].node.name else 1)
            if start <= index:
                change[start] += 1
                change[index + 1] -= 1
    return [index for index, passing in enumerate(accumulate(change)) if passing == 0 and 0 < index < len(found)]
