"""The stages of a network: the paper's if its layers have the literature's names, else its modules.

A stage consists of blocks, a block of rows, a row of a layer and the minor layers after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import accumulate, chain, groupby, pairwise

from vggscope.drawing.layer import Layer, LayerRow
from vggscope.graph import INPUT
from vggscope.record import record
from vggscope.vgg.labels import stage_of

HEAD = "classifier"
"""The stage of the fully connected layers."""

LONGEST = 26
"""The most rows of a stage; a longer one is drawn as several."""

MOST_ALIKE = 8
"""The most equal rows that are drawn one by one; more are drawn once with their number. The paper's stages have at most
four.
"""

LARGEST_SHARE = 0.5
"""The largest share of all layers that a module may hold as a stage; a larger one is split into its submodules."""

FEW_ROWS = 8
"""A module of at most this many rows is not split."""


@record
class LayerBlock:
    """Rows that are drawn together, once for all repetitions. `instances` are the layers of each repetition; the rows
    are those of the first one, with names relative to `path`.
    """

    title: str
    path: str
    rows: tuple[LayerRow, ...]
    instances: tuple[tuple[Layer, ...], ...]

    @property
    def count(self) -> int:
        return len(self.instances)

    @cached_property
    def is_dense(self) -> bool:
        """Whether each repetition reads the outputs of all those before it, as in a DenseNet."""
        if self.count < 3:
            return False
        reads = {name for layer in self.instances[-1] for name in layer.node.inputs}
        return all(any(layer.node.name in reads for layer in instance) for instance in self.instances[:-1])


@record
class Stage:
    """Layers that are drawn as one card. `name` is unique in the network."""

    name: str
    layers: tuple[Layer, ...]
    blocks: tuple[LayerBlock, ...]

    @property
    def rows(self) -> Iterator[LayerRow]:
        """The rows of all blocks."""
        return (row for block in self.blocks for row in block.rows)


def stages(layers: tuple[Layer, ...], fold: bool) -> Iterator[Stage]:
    """The stages of a network's layers. With `fold`, repeated modules and many equal rows are one block."""
    whole = _paper_stages if has_paper_stages(layers) else _module_stages
    return chain.from_iterable(map(_split, whole(layers, fold)))


def has_paper_stages(layers: Sequence[Layer]) -> bool:
    """Whether any layer has the literature's name, so that the paper's stages are known."""
    return any(layer.node.label for layer in layers)


def rows(layers: Sequence[Layer], path: str = "") -> tuple[LayerRow, ...]:
    """Layers as rows, named relative to `path`. A minor layer joins the row whose last layer it reads."""
    groups: list[list[Layer]] = []
    for layer in layers:
        if groups and layer.is_minor and layer.node.inputs == (groups[-1][-1].node.name,):
            groups[-1].append(layer)
        else:
            groups.append([layer])
    return tuple(LayerRow(within(path, group[0].name), tuple(group)) for group in groups)


def within(path: str, name: str) -> str:
    """A layer's name without the path of the module that shows it."""
    return name.removeprefix(f"{path}.") if path else name


def span(names: Sequence[str]) -> str:
    """The first and the last of several names.

    >>> span(["layer1.1", "layer1.2"]), span(["left", "right"]), span(["fc"])
    ('layer1.1–2', 'left … right', 'fc')
    """
    first, last = names[0], names[-1]
    if first == last:
        return first
    stem = first.rstrip("0123456789")
    end = last.removeprefix(stem)
    return f"{first}–{end}" if end.isdigit() and stem != first else f"{first} … {last}"


def _plain_block(layers: Sequence[Layer], path: str = "") -> LayerBlock:
    """Layers as one block without a title."""
    return LayerBlock("", path, rows(layers, path), (tuple(layers),))


def _paper_stages(layers: Sequence[Layer], fold: bool) -> Iterator[Stage]:
    for key, pairs in groupby(_with_stage(layers), key=lambda pair: pair[0]):
        members = tuple(layer for _, layer in pairs)
        yield Stage(f"stage {key}" if key.isdigit() else key, members, tuple(_paper_blocks(members, fold)))


def _with_stage(layers: Iterable[Layer]) -> Iterator[tuple[str, Layer]]:
    """Each layer with its stage. A layer without a label belongs to the stage before it if that is in the same module,
    else to the head.
    """
    before: tuple[str, str] = ("", "")
    for layer in layers:
        top = layer.node.name.partition(".")[0]
        stage = stage_of(layer.node.label) or (before[1] if before[0] == top else HEAD)
        before = (top, stage)
        yield stage, layer


def _paper_blocks(layers: Sequence[Layer], fold: bool) -> Iterator[LayerBlock]:
    """A stage's rows as one block, but many equal rows as a block with their number."""
    others: list[Layer] = []
    for _, run in groupby(rows(layers), key=lambda row: row.words):
        alike = list(run)
        if fold and len(alike) > MOST_ALIKE:
            if others:
                yield _plain_block(others)
            others = []
            yield LayerBlock(span([row.name for row in alike]), "", (alike[0],), tuple(row.layers for row in alike))
        else:
            others += [layer for row in alike for layer in row.layers]
    if others:
        yield _plain_block(others)


@record
class _Module:
    """A module's successive layers: those whose paths begin with `path`."""

    path: str
    layers: tuple[Layer, ...]

    @cached_property
    def children(self) -> tuple[_Module, ...]:
        """The submodules in execution order; a layer of the module itself is a child too."""
        depth = len(self.path.split(".")) + 1 if self.path else 1
        runs = groupby(self.layers, key=lambda layer: ".".join(layer.node.name.split(".")[:depth]))
        return tuple(_Module(path, tuple(run)) for path, run in runs)

    @cached_property
    def rows(self) -> tuple[LayerRow, ...]:
        return rows(self.layers, self.path)

    @cached_property
    def is_layer(self) -> bool:
        """Whether it is a single layer with the minor layers around it."""
        return sum(not row.layer.is_minor for row in self.rows) < 2

    @cached_property
    def signature(self) -> tuple[tuple[str, ...], ...]:
        """Its rows in words: equal for modules that look the same to a reader, layer by layer."""
        return tuple((row.name, *row.words) for row in self.rows)

    @cached_property
    def is_repetitive(self) -> bool:
        """Whether most of its submodules repeat the one before."""
        modules = [child for child in self.children if not child.is_layer]
        same = sum(child.joins(before, True) for before, child in pairwise(modules))
        return 2 * same >= max(1, len(modules) - 1)

    def reads(self, before: _Module) -> bool:
        """Whether any of its layers reads one of the other module."""
        names = {layer.node.name for layer in before.layers}
        return any(name in names for layer in self.layers for name in layer.node.inputs)

    def joins(self, before: _Module, fold: bool) -> bool:
        """Whether it is drawn with the module before: both are single layers or, with `fold`, it repeats that one."""
        if self.is_layer or before.is_layer:
            return self.is_layer and before.is_layer
        return fold and self.signature == before.signature and self.reads(before)


def _module_stages(layers: tuple[Layer, ...], fold: bool) -> Iterator[Stage]:
    """A stage for each module; adjacent single layers are one stage too."""
    runs = _runs(_top_modules(layers, fold), fold)
    # A module may have the name of the network's own input.
    counts = {INPUT: 1}
    for position, run in enumerate(runs):
        members = tuple(layer for module in run for layer in module.layers)
        name = span([module.path for module in run])
        if run[0].is_layer:
            blocks: tuple[LayerBlock, ...] = (_plain_block(members),)
            if len(run) > 1 and len(runs) > 1:
                name = {0: "stem", len(runs) - 1: "head"}.get(position, name)
        elif len(run) > 1:
            blocks = (_repeated_block(run, ""),)
        else:
            blocks = tuple(_module_blocks(run[0], fold))
        counts[name] = counts.get(name, 0) + 1
        yield Stage(name if counts[name] == 1 else f"{name} [{counts[name]}]", members, blocks)


def _runs(modules: Sequence[_Module], fold: bool) -> list[list[_Module]]:
    """Successive modules grouped into those that are drawn together."""
    runs = [[modules[0]]]
    for before, module in pairwise(modules):
        if module.joins(before, fold):
            runs[-1].append(module)
        else:
            runs.append([module])
    return runs


def _repeated_block(equal: list[_Module], title: str) -> LayerBlock:
    return LayerBlock(title, equal[0].path, equal[0].rows, tuple(module.layers for module in equal))


def _top_modules(layers: tuple[Layer, ...], fold: bool) -> list[_Module]:
    """The network's modules. The largest is split into its submodules while it holds most layers and, with `fold`, is
    not repetitive.
    """
    modules = list(_Module("", layers).children)
    while True:
        largest = max(modules, key=lambda module: len(module.layers))
        is_small = len(largest.layers) <= LARGEST_SHARE * len(layers) or len(largest.rows) <= FEW_ROWS
        if is_small or largest.is_layer or (fold and largest.is_repetitive):
            return modules
        place = modules.index(largest)
        modules[place : place + 1] = largest.children


def _module_blocks(module: _Module, fold: bool) -> Iterator[LayerBlock]:
    """A block for each submodule if they form a series, else the module as one block."""
    children = tuple(_submodules(module))
    runs = _runs(children, fold)
    modules = [run for run in runs if not run[0].is_layer]
    is_series = all(child.reads(before) for before, child in pairwise(children))
    if not is_series or (len(modules) < 2 and all(len(run) == 1 for run in modules)):
        yield _plain_block(module.layers, module.path)
        return
    for run in runs:
        if run[0].is_layer:
            yield _plain_block([layer for child in run for layer in child.layers], module.path)
        else:
            yield _repeated_block(run, _title(module.path, span([child.path for child in run])))


def _title(path: str, name: str) -> str:
    """A module's name relative to `path`; before a mere number it keeps the last part of that path."""
    relative = name.removeprefix(f"{path}.")
    return f"{path.rpartition('.')[2]}.{relative}" if relative[:1].isdigit() else relative


def _submodules(module: _Module) -> Iterator[_Module]:
    """The submodules, with repetitive ones replaced by their own submodules."""
    for child in module.children:
        if child.is_repetitive or (len(module.children) == 1 and not child.is_layer):
            yield from _submodules(child)
        else:
            yield child


def _split(stage: Stage) -> Iterator[Stage]:
    """A stage in parts of at most LONGEST rows, as far as it can be split."""
    groups: list[list[LayerBlock]] = []
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


def _pieces(block: LayerBlock) -> Iterator[LayerBlock]:
    """A block that is too long in pieces of similar length, cut where a single tensor passes."""
    cuts = _cuts(block.rows)
    if block.count > 1 or len(block.rows) <= LONGEST or not cuts:
        yield block
        return
    length = -(-len(block.rows) // -(-len(block.rows) // LONGEST))
    start = 0
    for cut, following in zip(cuts, (*cuts[1:], len(block.rows) + length)):
        if cut > start and following - start > length:
            yield _piece(block, start, cut)
            start = cut
    yield _piece(block, start, len(block.rows))


def _piece(block: LayerBlock, start: int, end: int) -> LayerBlock:
    piece = block.rows[start:end]
    return LayerBlock(block.title, block.path, piece, (tuple(layer for row in piece for layer in row.layers),))


def _cuts(block_rows: Sequence[LayerRow]) -> list[int]:
    """The rows before which a cut is possible: all later rows read of the earlier ones only the last layer's output."""
    place = {layer.node.name: index for index, row in enumerate(block_rows) for layer in row.layers}
    change = [0] * (len(block_rows) + 1)
    for index, row in enumerate(block_rows):
        for source in (name for layer in row.layers for name in layer.node.inputs if name in place):
            # The output of a row's last layer may cross the boundary directly below that row.
            start = place[source] + (2 if source == block_rows[place[source]].layers[-1].node.name else 1)
            if start <= index:
                change[start] += 1
                change[index + 1] -= 1
    return [index for index, crossing in enumerate(accumulate(change)) if crossing == 0 and 0 < index < len(block_rows)]
