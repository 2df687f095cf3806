"""The code that builds and runs our network: the files, and the expressions of each layer in them. No code runs."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from vggscope.diffing.code_edits import CodeFile, parsed, source_text
from vggscope.diffing.locate import LayerPair
from vggscope.diffing.result import Diff
from vggscope.diffing.sharing import is_sharing
from vggscope.graph import CodePosition, Network, Node

Compared = tuple[Diff, Network, Network]
"""A Diff with our network and the reference."""

Found = tuple[CodeFile, ast.expr]
"""An expression with its file."""


def read_sources(network: Network) -> dict[str, CodeFile]:
    """The files of code that build and run a network, by their full paths; without those that cannot be read."""
    names = dict.fromkeys(place.file for node in all_nodes(network) for place in (*node.built_at, *node.called_at))
    sources = {}
    for name in names:
        try:
            text, _ = source_text(name)
            sources[name] = parsed(name, text)
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return sources


def all_nodes(network: Network) -> tuple[Node, ...]:
    """The nodes of a network with the one that fails."""
    return (*network.nodes, *([network.failed] if network.failed else []))


class UserCode:
    """Two compared networks with the files of our code. `partners` names our layer of each layer of the reference."""

    def __init__(self, compared: Compared, sources: Mapping[str, CodeFile]) -> None:
        self.diff, self.ours, self.reference = compared
        self.sources = sources
        self.partners = {
            row.reference_layer.name: row.our_layer.name
            for row in self.diff.rows
            if row.our_layer is not None and row.reference_layer is not None
        }

    def pairs(self, place: int) -> list[LayerPair]:
        """The layers of a difference, ours and the reference's."""
        difference = self.diff.differences[place]
        found = self._pairs_of.get(place)
        return found or [(self.node(difference.ours), self.reference.by_name.get(difference.reference or ""))]

    @cached_property
    def compared(self) -> list[tuple[int | None, LayerPair]]:
        """The pairs of layers that were compared, in order, each with the place of its difference."""
        found = []
        for row in self.diff.rows:
            names = [layer.name if layer else None for layer in (row.our_layer, row.reference_layer)]
            if row.sign not in "!?":
                found.append((row.difference, (self.node(names[0]), self.reference.by_name.get(names[1] or ""))))
        return found

    @cached_property
    def _pairs_of(self) -> dict[int | None, list[LayerPair]]:
        pairs: dict[int | None, list[LayerPair]] = {}
        for place, pair in self.compared:
            pairs.setdefault(place, []).append(pair)
        return pairs

    def node(self, name: str | None) -> Node | None:
        """Our layer with this name, which may be the one that fails."""
        failed = self.ours.failed
        return failed if failed is not None and failed.name == name else self.ours.by_name.get(name or "")

    def before(self, other: Node) -> Node | None:
        """Our layer that is paired with the nearest layer before a layer of the reference."""
        names = other.inputs
        while names:
            if names[0] in self.partners:
                return self.node(self.partners[names[0]])
            node = self.reference.by_name.get(names[0])
            names = node.inputs if node is not None else ()
        return None

    def title(self, node: Node) -> str:
        """Our layer with its label in the reference, which a missing layer before it does not shift."""
        reference = next((other for other, ours in self.partners.items() if ours == node.name), "")
        label = self.reference.by_name[reference].label if reference in self.reference.by_name else ""
        return replace(node, label=label or node.label).title

    def is_order(self, place: int) -> bool:
        """Whether a difference is a layer in another position."""
        return [change.attribute for change in self.diff.differences[place].changes][:1] == ["order"]

    def is_sharing(self, place: int) -> bool:
        """Whether a difference is about weights that one network shares and the other does not."""
        return is_sharing(self.diff.differences[place])

    def source(self, position: CodePosition) -> Found | None:
        """The expression at a position."""
        source = self.sources.get(position.file)
        node = source.expression(position) if source else None
        return (source, node) if source and node is not None else None

    def at(self, positions: Sequence[CodePosition], depth: int = 0) -> Found | None:
        """The expression of one of the calls that build or run a layer, the innermost at depth 0."""
        return self.source(positions[depth]) if depth < len(positions) else None

    def constants(self, mine: Node) -> Iterator[tuple[CodeFile, list[ast.expr]]]:
        """The constants of lists and calls: those in the calls that build a layer first, then all of its files."""
        seen: set[int] = set()
        for position in mine.built_at:
            if found := self.source(position):
                source, node = found
                elements = [element for element in source.elements(node) if id(element) not in seen]
                seen.update(map(id, elements))
                yield source, elements
        for file in self.files(mine):
            source = self.sources[file]
            yield source, [element for element in source.elements(source.tree) if id(element) not in seen]

    def files(self, mine: Node) -> list[str]:
        """The files that build and run a layer."""
        names = dict.fromkeys(position.file for position in (*mine.built_at, *mine.called_at))
        return [file for file in names if file in self.sources]

    def sharing(self, positions: Sequence[CodePosition]) -> set[str]:
        """The layers that one of these calls builds or runs."""
        return {name for place in set(positions) for name in self._layers_at.get(place, ())}

    @cached_property
    def _layers_at(self) -> dict[CodePosition, list[str]]:
        layers: dict[CodePosition, list[str]] = {}
        for node in all_nodes(self.ours):
            for place in (*node.built_at[:1], *node.called_at[:1]):
                layers.setdefault(place, []).append(node.name)
        return layers

    @cached_property
    def running_at(self) -> dict[CodePosition, set[str]]:
        """The layers that run while each call of our code does."""
        layers: dict[CodePosition, set[str]] = {}
        for node in self.ours.nodes:
            for place in node.called_at:
                layers.setdefault(place, set()).add(node.name)
        return layers

    @cached_property
    def runs(self) -> Counter[str | None]:
        """How often each of our modules runs, by its path."""
        return Counter(node.module for node in self.ours.nodes)

    @cached_property
    def owners(self) -> dict[str, str]:
        """The first of our layers that reads each parameter, by the parameter's name."""
        owners: dict[str, str] = {}
        for node in self.ours.nodes:
            for parameter in node.parameters:
                owners.setdefault(parameter.name, node.name)
        return owners
