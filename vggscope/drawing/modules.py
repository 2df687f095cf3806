"""A network cut into its modules: those large enough to be a stage, and within them those that repeat."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import groupby, pairwise

from vggscope.drawing.layer import Layer, Row
from vggscope.drawing.stage import Block, Stage, rows, single, span
from vggscope.graph import INPUT
from vggscope.record import record

LARGEST_SHARE = 0.5
"""A module with more than this share of all layers is cut into the modules within it."""

FEW_ROWS = 8
"""A module of no more rows than this is not cut."""


@record
class _Scope:
    """A module's layers in a row: those whose paths begin with `path`."""

    path: str
    layers: tuple[Layer, ...]

    @cached_property
    def children(self) -> tuple[_Scope, ...]:
        """The modules within, in the order that they run; a layer of its own is its own child."""
        depth = len(self.path.split(".")) + 1 if self.path else 1
        runs = groupby(self.layers, key=lambda layer: ".".join(layer.node.name.split(".")[:depth]))
        return tuple(_Scope(path, tuple(run)) for path, run in runs)

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        return rows(self.layers, self.path)

    @cached_property
    def is_layer(self) -> bool:
        """Whether it is a single layer, with the minor ones around it."""
        return sum(not row.layer.is_minor for row in self.rows) < 2

    @cached_property
    def signature(self) -> tuple[tuple[str, str], ...]:
        """What it does, line by line: equal for modules that a reader takes for the same."""
        return tuple((row.name, row.spec) for row in self.rows)

    @cached_property
    def repeats(self) -> bool:
        """Whether most of the modules within do the same as their neighbour."""
        modules = [child for child in self.children if not child.is_layer]
        same = sum(child.follows(before, True) for before, child in pairwise(modules))
        return 2 * same >= max(1, len(modules) - 1)

    def reads(self, before: _Scope) -> bool:
        """Whether anything in it reads what comes out of the other."""
        names = {layer.node.name for layer in before.layers}
        return any(name in names for layer in self.layers for name in layer.node.inputs)

    def follows(self, before: _Scope, fold: bool) -> bool:
        """Whether it is drawn with the one before: single layers are, and with `fold` what repeats it."""
        if self.is_layer or before.is_layer:
            return self.is_layer and before.is_layer
        return fold and self.signature == before.signature and self.reads(before)


def module_stages(layers: tuple[Layer, ...], fold: bool) -> Iterator[Stage]:
    """The modules of a network, each a stage; single layers beside one another are one too."""
    runs = _runs(_cut(layers, fold), fold)
    # A module may be called as the network's own input is.
    names = {INPUT: 1}
    for position, run in enumerate(runs):
        found = tuple(layer for scope in run for layer in scope.layers)
        name = span([scope.path for scope in run])
        if run[0].is_layer:
            blocks: tuple[Block, ...] = (single(found),)
            if len(run) > 1 and len(runs) > 1:
                name = {0: "stem", len(runs) - 1: "head"}.get(position, name)
        elif len(run) > 1:
            blocks = (_folded(run, ""),)
        else:
            blocks = tuple(_blocks(run[0], fold))
        names[name] = names.get(name, 0) + 1
        yield Stage(name if names[name] == 1 else f"{name} [{names[name]}]", found, blocks)


def _runs(scopes: Sequence[_Scope], fold: bool) -> list[list[_Scope]]:
    """Neighbours that are drawn together."""
    runs = [[scopes[0]]]
    for before, scope in pairwise(scopes):
        if scope.follows(before, fold):
            runs[-1].append(scope)
        else:
            runs.append([scope])
    return runs


def _folded(same: list[_Scope], title: str) -> Block:
    return Block(title, same[0].path, same[0].rows, tuple(scope.layers for scope in same))


def _cut(layers: tuple[Layer, ...], fold: bool) -> list[_Scope]:
    """The network's modules, the one that holds most of it cut again, unless it is a row of equal ones."""
    scopes = list(_Scope("", layers).children)
    while True:
        largest = max(scopes, key=lambda scope: len(scope.layers))
        is_small = len(largest.layers) <= LARGEST_SHARE * len(layers) or len(largest.rows) <= FEW_ROWS
        if is_small or largest.is_layer or (fold and largest.repeats):
            return scopes
        place = scopes.index(largest)
        scopes[place : place + 1] = largest.children


def _blocks(scope: _Scope, fold: bool) -> Iterator[Block]:
    """The modules within a stage, if they stand one behind the other; else the stage is one block."""
    children = tuple(_opened(scope))
    runs = _runs(children, fold)
    modules = [run for run in runs if not run[0].is_layer]
    in_series = all(child.reads(before) for before, child in pairwise(children))
    if not in_series or (len(modules) < 2 and all(len(run) == 1 for run in modules)):
        yield single(scope.layers, scope.path)
        return
    for run in runs:
        if run[0].is_layer:
            yield single([layer for child in run for layer in child.layers], scope.path)
        else:
            yield _folded(run, _relative(scope.path, span([child.path for child in run])))


def _relative(path: str, name: str) -> str:
    """A module's name within `path`; a mere number keeps the last part of that path before it."""
    within = name.removeprefix(f"{path}.")
    return f"{path.rpartition('.')[2]}.{within}" if within[:1].isdigit() else within


def _opened(scope: _Scope) -> Iterator[_Scope]:
    """The modules within, those that are rows of equal ones opened in turn."""
    for child in scope.children:
        if child.repeats or (len(scope.children) == 1 and not child.is_layer):
            yield from _opened(child)
        else:
            yield child
