"""A network cut into the stages that its picture shows: the paper's for a chain that has them, else its modules.

A stage holds blocks: the modules within it that stand one behind the other, equal ones folded into one that counts
them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, pairwise

from vggscope.analysis.report import Report, summarize
from vggscope.columns import LITERATURE
from vggscope.graph import Network
from vggscope.labels import stage_of
from vggscope.render.diagram.layer import Layer, Row

HEAD = "classifier"
"""What the stage of the fully connected layers is called."""

LARGEST_SHARE = 0.5
"""A module with more than this share of all layers is cut into the modules within it."""


@dataclass(frozen=True)
class Block:
    """Rows that a picture draws together. `instances` are the modules' layers, equal to one another in what they do;
    the rows are the first's, named within `path`.
    """

    title: str
    path: str
    rows: tuple[Row, ...]
    instances: tuple[tuple[Layer, ...], ...]

    @property
    def count(self) -> int:
        return len(self.instances)


@dataclass(frozen=True)
class Stage:
    """Layers that a picture draws as one. `name` is unique among the network's stages."""

    name: str
    title: str
    layers: tuple[Layer, ...]
    blocks: tuple[Block, ...]

    @property
    def rows(self) -> Iterator[Row]:
        """All rows, from the top down."""
        return (row for block in self.blocks for row in block.rows)


@dataclass(frozen=True)
class Subject:
    """A network to be drawn, with its report and its stages."""

    network: Network
    fold: bool = True

    @property
    def title(self) -> str:
        """What it is called, with the literature's name behind a column's letter."""
        literature = {column: name.replace("vgg", "VGG-") for name, column in LITERATURE.items()}
        column, normalised, _ = self.network.name.partition("_bn")
        known = literature.get(column)
        if known is None:
            return self.network.name
        return f"{self.network.name} ({known}{' with batch norm' if normalised else ''})"

    @cached_property
    def report(self) -> Report:
        return summarize(self.network)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        return tuple(Layer(node, report) for node, report in zip(self.network.nodes, self.report.layers))

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        if any(layer.node.label for layer in self.layers):
            return tuple(_paper_stages(self.layers))
        return tuple(_module_stages(self.layers, self.fold))


def _paper_stages(layers: Iterable[Layer]) -> Iterator[Stage]:
    for key, pairs in groupby(_keyed(layers), key=lambda pair: pair[0]):
        title = f"stage {key}" if key.isdigit() else key
        found = tuple(layer for _, layer in pairs)
        yield Stage(title, title, found, (Block("", "", rows(found), (found,)),))


def _keyed(layers: Iterable[Layer]) -> Iterator[tuple[str, Layer]]:
    """Each layer with its stage: one that has no label of its own belongs with those before it within its module, else
    with the head that follows.
    """
    before: tuple[str, str] = ("", "")
    for layer in layers:
        top = layer.node.name.partition(".")[0]
        stage = stage_of(layer.node.label) or (before[1] if before[0] == top else HEAD)
        before = (top, stage)
        yield stage, layer


@dataclass(frozen=True)
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

    @property
    def is_layer(self) -> bool:
        return sum(not row.layer.is_minor for row in self.rows) < 2

    @property
    def signature(self) -> tuple[tuple[str, str], ...]:
        """What it does, line by line: equal for modules that a reader takes for the same."""
        return tuple((row.name, row.spec) for row in self.rows)

    @property
    def repeats(self) -> bool:
        """Whether most of the modules within do the same as their neighbour."""
        modules = [child for child in self.children if not child.is_layer]
        same = sum(one.signature == other.signature for one, other in pairwise(modules))
        return 2 * same >= max(1, len(modules) - 1)


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


def _module_stages(layers: tuple[Layer, ...], fold: bool) -> Iterator[Stage]:
    runs = [list(run) for _, run in groupby(_cut(layers, fold), key=lambda scope: _alike(scope, fold))]
    names: dict[str, int] = {}
    for position, run in enumerate(runs):
        if run[0].is_layer:
            scope = _merged(run, position, len(runs))
            name = scope.path
            blocks: tuple[Block, ...] = (Block("", "", rows(scope.layers), (scope.layers,)),)
        elif len(run) > 1:
            name, blocks = _range([scope.path for scope in run]), (_folded(run, ""),)
        else:
            name, blocks = run[0].path, tuple(_blocks(run[0], fold))
        names[name] = names.get(name, 0) + 1
        name = name if names[name] == 1 else f"{name} ({names[name]})"
        yield Stage(name, name, tuple(layer for scope in run for layer in scope.layers), blocks)


def _folded(same: list[_Scope], title: str) -> Block:
    return Block(title, same[0].path, same[0].rows, tuple(scope.layers for scope in same))


def _merged(run: list[_Scope], position: int, runs: int) -> _Scope:
    """Modules of one layer each, as one stage: those before the first large module, behind the last, or between."""
    title = run[0].path
    if len(run) > 1:
        title = "stem" if position == 0 and runs > 1 else "head" if position == runs - 1 and runs > 1 else "layers"
    return _Scope(title, tuple(layer for scope in run for layer in scope.layers))


def _cut(layers: tuple[Layer, ...], fold: bool) -> list[_Scope]:
    """The network's modules, the one that holds most of it cut again, unless it is a row of equal ones."""
    scopes = list(_Scope("", layers).children)
    while True:
        largest = max(scopes, key=lambda scope: len(scope.layers))
        is_small = len(largest.layers) <= LARGEST_SHARE * len(layers)
        if is_small or largest.is_layer or (fold and largest.repeats):
            return scopes
        place = scopes.index(largest)
        scopes[place : place + 1] = largest.children


def _blocks(scope: _Scope, fold: bool) -> Iterator[Block]:
    """The modules within a stage, if they stand one behind the other; else the stage is one block."""
    children = tuple(_opened(scope))
    runs = [list(run) for _, run in groupby(children, key=lambda child: _alike(child, fold))]
    modules = [run for run in runs if not run[0].is_layer]
    if not _in_series(children) or (len(modules) < 2 and all(len(run) == 1 for run in modules)):
        yield Block("", scope.path, scope.rows, (scope.layers,))
        return
    for run in runs:
        if run[0].is_layer:
            found = tuple(layer for child in run for layer in child.layers)
            yield Block("", scope.path, rows(found, scope.path), (found,))
        else:
            yield _folded(run, _relative(scope.path, _range([child.path for child in run])))


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


def _alike(scope: _Scope, fold: bool) -> object:
    """Equal for neighbours that make one block."""
    if scope.is_layer:
        return ""
    return scope.signature if fold else scope.path


def _in_series(children: Sequence[_Scope]) -> bool:
    """Whether each child reads the one before it."""
    for before, child in pairwise(children):
        names = {layer.node.name for layer in before.layers}
        if not any(name in names for layer in child.layers for name in layer.node.inputs):
            return False
    return True


def _range(paths: list[str]) -> str:
    """The names of modules in a row: `layer1.1–2`."""
    first, last = paths[0], paths[-1]
    if first == last:
        return first
    stem = first.rstrip("0123456789")
    end = last.removeprefix(stem)
    return f"{first}–{end}" if end.isdigit() and stem != first else f"{first} … {last}"
