"""The lists of a file from which a loop builds convolutions and pools, as `[64, "M", 128, "M"]`, and edits of them.

A list is known by what it spells: the widths of our convolutions with a mark for each pool, in order, or another of
`SPELLINGS`. The same spelling of the layers after a difference is mended then says which elements have to change. No
code runs: `[64] * 2 + ["M"]` and a name that is assigned once are followed in the syntax tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from difflib import SequenceMatcher
from itertools import groupby, pairwise
from typing import NamedTuple
from weakref import WeakKeyDictionary

from vggscope.diffing.code_edits import CodeFile, Edit, Edits
from vggscope.diffing.user_code import UserCode
from vggscope.graph import CodePosition, Node

FEWEST = 3
"""The fewest elements by which a list is recognised."""

_MOST_ELEMENTS = 1000
"""Longer lists are not followed."""

_MOST_COMPARED = 200
"""The longest lists in which the elements that differ are looked for one by one, since that takes their square."""

_DEEPEST = 100
"""Lists deeper than this are not followed."""

_NAME = 12
"""The depth that a name adds: names may refer to each other, many times."""


class ListedLayer(NamedTuple):
    """A convolution of a width, or a pool, which has none; `kind` is its op."""

    width: int | None
    kind: str


class ListElement(NamedTuple):
    """An element of a list: its value, which is a ComputedValue for code that is no constant, and its expression."""

    value: object
    node: ast.expr


class ComputedValue(NamedTuple):
    """The value of an expression that is computed, such as `2 * width`."""

    text: str


MARK = ""
"""A pool in a spelling, whatever string or None stands for it in the list."""

ListedLayers = Sequence[ListedLayer]

Spelling = Callable[[ListedLayers, int], list[object]]
"""The elements that layers are written as; the number is that of the input channels."""


def _widths_and_marks(layers: ListedLayers, _: int) -> list[object]:
    return [MARK if layer.width is None else layer.width for layer in layers]


def _pairs_and_marks(layers: ListedLayers, channels: int) -> list[object]:
    """Input and output channels of each convolution."""
    found: list[object] = []
    for layer in layers:
        found.append(MARK if layer.width is None else (channels, layer.width))
        channels = channels if layer.width is None else layer.width
    return found


def _widths(layers: ListedLayers, _: int) -> list[object]:
    return [layer.width for layer in layers if layer.width is not None]


def _channels(layers: ListedLayers, channels: int) -> list[object]:
    return [channels, *_widths(layers, channels)]


def _pairs(layers: ListedLayers, channels: int) -> list[object]:
    return list(pairwise(_channels(layers, channels)))


def _stages(layers: ListedLayers) -> list[list[int]] | None:
    """The widths between the pools; None if the last stage has no pool."""
    if not layers or layers[-1].width is not None:
        return None
    groups = groupby(layers, key=lambda layer: layer.width is None)
    return [[layer.width or 0 for layer in group] for is_pool, group in groups if not is_pool]


def _counts(layers: ListedLayers, _: int) -> list[object]:
    return [len(stage) for stage in _stages(layers) or ()]


def _stage_widths(layers: ListedLayers, _: int) -> list[object]:
    stages = _stages(layers) or []
    return [stage[0] for stage in stages] if all(len(set(stage)) == 1 for stage in stages) else []


def _rows(*columns: str) -> Spelling:
    """Tuples of a stage: its number of convolutions, their width, and the channels that it reads."""

    def spelling(layers: ListedLayers, channels: int) -> list[object]:
        counts, widths = _counts(layers, channels), _stage_widths(layers, channels)
        read = [channels, *widths]
        of = {"count": counts, "width": widths, "read": read}
        return [tuple(of[column][i] for column in columns) for i in range(min(len(counts), len(widths)))]

    return spelling


def _pool_positions(first: int) -> Spelling:
    """After which convolutions a pool comes, the first convolution being number `first`."""

    def spelling(layers: ListedLayers, _: int) -> list[object]:
        convolutions = [sum(layer.width is not None for layer in layers[:i]) for i in range(len(layers))]
        return [convolutions[i] - 1 + first for i, layer in enumerate(layers) if layer.width is None]

    return spelling


SPELLINGS: tuple[Spelling, ...] = (
    _widths_and_marks,
    _pairs_and_marks,
    _widths,
    _channels,
    _pairs,
    _rows("count", "width"),
    _rows("width", "count"),
    _rows("read", "width", "count"),
    _rows("count", "read", "width"),
    _counts,
    _stage_widths,
    _pool_positions(0),
    _pool_positions(1),
)
"""The ways in which lists write convolutions and pools, the most telling first."""


# The lists of a file


class _ListScope:
    """The lists that names stand for, in one file."""

    def __init__(self, source: CodeFile) -> None:
        self.source = source
        self.parts: dict[tuple[ast.AST, str], list[ast.expr]] = {}
        changed: set[tuple[ast.AST, str]] = set()
        for node in ast.walk(source.tree):
            for name, value, is_more in _assigned(node):
                key = self._around(node), name
                if is_more == (key in self.parts) and value is not None and self._is_plain(node):
                    self.parts.setdefault(key, []).append(value)
                else:
                    changed.add(key)
        for key in changed:
            self.parts.pop(key, None)

    def _around(self, node: ast.AST) -> ast.AST:
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)
        parent = self.source.parents.get(node, self.source.tree)
        while not isinstance(parent, (*kinds, ast.Module)):
            parent = self.source.parents[parent]
        return parent

    def _is_plain(self, node: ast.AST) -> bool:
        """Whether a statement runs once each time that its function runs: it is in no loop and no branch."""
        return isinstance(
            self.source.parents.get(node), (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
        )

    def parts_of(self, name: ast.Name) -> list[ast.expr]:
        """The expressions that make up the list of a name; empty if it is not known."""
        scope = self._around(name)
        while (scope, name.id) not in self.parts:
            if isinstance(scope, ast.Module):
                return []
            scope = self._around(scope)
        return self.parts[scope, name.id]

    def elements(self, node: ast.expr, depth: int = 0) -> list[ListElement] | None:
        """The elements of an expression that is a list or a tuple; None for any other."""
        if depth > _DEEPEST:
            return None
        found: list[ListElement] | None = None
        if isinstance(node, (ast.List, ast.Tuple)):
            found = self._joined(
                self.elements(e.value, depth + 1) if isinstance(e, ast.Starred) else [ListElement(_value(e), e)]
                for e in node.elts
            )
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
            found = self._joined(self.elements(side, depth + 1) for side in (node.left, node.right))
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            left, times = self.elements(node.left, depth + 1), _value(node.right)
            if left is not None and type(times) is int and 0 <= times * len(left) <= _MOST_ELEMENTS:
                found = left * times
        elif isinstance(node, ast.Name) and (parts := self.parts_of(node)):
            found = self._joined(self.elements(part, depth + _NAME) for part in parts)
        return found if found is None or len(found) <= _MOST_ELEMENTS else None

    def _joined(self, lists: Iterable[list[ListElement] | None]) -> list[ListElement] | None:
        """The elements of several lists in one; None if one of them is not known."""
        found: list[ListElement] = []
        for elements in lists:
            if elements is None:
                return None
            found += elements
        return found

    def lists(self) -> Iterator[list[ListElement]]:
        """All lists of the file, each also with the elements of its inner lists in one."""
        for node in ast.walk(self.source.tree):
            is_list = isinstance(node, (ast.List, ast.Tuple, ast.BinOp)) and isinstance(
                getattr(node, "ctx", ast.Load()), ast.Load
            )
            if not is_list or not isinstance(node, ast.expr):
                continue
            yield from self._with_flat(self.elements(node))
        for parts in self.parts.values():
            if len(parts) > 1:
                yield from self._with_flat(self._joined(map(self.elements, parts)))

    def _with_flat(self, elements: list[ListElement] | None) -> Iterator[list[ListElement]]:
        if elements:
            yield elements
            inner = [self.elements(element.node) for element in elements]
            if any(inner):
                yield [e for element, within in zip(elements, inner) for e in (within or [element])]


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr | None, bool]]:
    """The names that a statement assigns, with the value; `is_more` for one that `+=` adds to what is there."""
    if isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
        yield node.targets[0].id, node.value, False
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node.value, False
    elif isinstance(node, ast.AugAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node.value if isinstance(node.op, ast.Add) else None, True
    elif isinstance(node, (ast.Assign, ast.For)):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        names = (inner for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name))
        yield from ((inner.id, None, False) for inner in names)


def _value(node: ast.expr) -> object:
    if isinstance(node, ast.Constant):
        return node.value
    if isinstance(node, (ast.List, ast.Tuple)):
        return tuple(map(_value, node.elts))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return ComputedValue("-")
    return ComputedValue(ast.unparse(node))


# A list that spells our layers


def _is_spelled(elements: Sequence[ListElement], spelled: Sequence[object], *, is_start: bool) -> bool:
    """Whether elements have the values of a spelling; with `is_start`, whether they begin with them."""
    if len(spelled) < FEWEST or (len(elements) < len(spelled) if is_start else len(elements) != len(spelled)):
        return False
    pairs = [(element.value, value) for element, value in zip(elements, spelled)]
    known = [value for value, wanted in pairs if not isinstance(value, ComputedValue)]
    if len(known) < len(pairs) and (MARK not in spelled or not known):
        return False
    return all(map(_is_value, *zip(*pairs)))


def _is_value(value: object, wanted: object) -> bool:
    if isinstance(value, ComputedValue):
        return wanted != MARK
    if wanted == MARK:
        return value is None or (isinstance(value, str) and not re.search(r"\d\d$", value))
    if isinstance(value, str):  # "C64" or "conv3-64"
        return re.search(rf"(?<!\d){wanted}$", value) is not None
    return type(value) is type(wanted) and value == wanted


class ListChange(NamedTuple):
    """A change of a list: the edits, none if the list is computed or shared, its place, and the change in words."""

    edits: Edits
    position: CodePosition
    text: str


class _Spelled(NamedTuple):
    """A list that spells our convolutions and pools."""

    source: CodeFile
    elements: list[ListElement]
    spelling: Spelling


class _WidthLists:
    """The lists of our code that spell our convolutions and pools, and their changes."""

    def __init__(self, code: UserCode) -> None:
        self.compared = code.compared
        self.layers = list(filter(None, (_layer(mine) for _, (mine, _) in code.compared if mine is not None)))
        self.channels = code.ours.input_shape[1] if len(code.ours.input_shape) > 1 else 0
        self.spelled = list(self._spelled(code)) if len(self.layers) >= FEWEST else []

    def _spelled(self, code: UserCode) -> Iterator[_Spelled]:
        failed = code.ours.failed
        is_whole = failed is None or _layer(failed) is None
        for source in code.sources.values():
            lists = list(_ListScope(source).lists())
            for spelling in SPELLINGS if is_whole else SPELLINGS[:1]:
                ours = spelling(self.layers, self.channels)
                for elements in lists:
                    if _is_spelled(elements, ours, is_start=not is_whole):
                        yield _Spelled(source, elements, spelling)

    def changes(self, place: int) -> Iterator[ListChange]:
        """The changes of lists that mend a difference, the likeliest first."""
        after = self._mended(place) if self.spelled else None
        if after is None or after == self.layers:
            return
        for source, elements, spelling in self.spelled:
            ours, theirs = spelling(self.layers, self.channels), spelling(after, self.channels)
            if ours != theirs:
                kinds = [layer.kind for layer in after] if len(theirs) == len(after) else []
                marks = {layer.kind: e for layer, e in zip(self.layers, elements) if layer.width is None}
                if change := _change(source, elements, ours, theirs, kinds, marks):
                    yield change

    def _mended(self, place: int) -> list[ListedLayer] | None:
        """Our convolutions and pools without a difference; None if other layers with weights are part of it."""
        found: list[ListedLayer] = []
        for difference, (mine, other) in self.compared:
            node = other if difference == place else mine
            layer = _layer(node) if node is not None else None
            if layer is not None:
                found.append(layer)
            elif difference == place and any(n.op.is_weight_layer and _layer(n) is None for n in (mine, other) if n):
                return None
        return found


_OF_CODE: WeakKeyDictionary[UserCode, _WidthLists] = WeakKeyDictionary()
"""The lists of each code whose differences are being mended: all its differences look for them."""


def list_changes(code: UserCode, place: int) -> Iterator[ListChange]:
    """The changes of lists that mend a difference, the likeliest first."""
    if code not in _OF_CODE:
        _OF_CODE[code] = _WidthLists(code)
    return _OF_CODE[code].changes(place)


def edits_of_lists(code: UserCode, place: int) -> Iterator[Edits]:
    """The edits of lists that mend a difference, the likeliest first."""
    return (change.edits for change in list_changes(code, place) if change.edits)


def _layer(node: Node) -> ListedLayer | None:
    """A node as a convolution or a pool of the features; None for any other."""
    if node.op.is_convolution:
        weight = node.op.parameters().get("weight")
        return ListedLayer(weight[0], node.op.name) if weight else None
    return ListedLayer(None, node.op.name) if node.op.label_prefix == "pool" and not node.op.is_adaptive else None


def _change(
    source: CodeFile,
    elements: list[ListElement],
    ours: list[object],
    theirs: list[object],
    kinds: list[str],
    marks: dict[str, ListElement],
) -> ListChange | None:
    """The change of a list of our spelling to that of the reference."""
    edits: list[Edit] = []
    texts: list[str] = []
    is_written = True
    at: ast.expr | None = None
    for start, end, first, last in _differing(ours, theirs):
        new = [_text(source, elements, theirs[k], kinds[k] if kinds else "", marks) for k in range(first, last)]
        old = elements[start:end]
        at = at or (old[0] if old else elements[max(0, start - 1)]).node
        texts.append(_sentence(source, elements, start, end, new))
        done = _edits(source, elements, start, end, new)
        is_written = is_written and done is not None
        edits += done or []
    if at is None:
        return None
    position = CodePosition(source.file, at.lineno, at.col_offset, at.end_lineno or at.lineno, at.end_col_offset or 0)
    if is_written and not _is_part_of_several(source, edits):
        return ListChange(tuple(edits), position, "")
    why = "the list is part of others too" if is_written else "the list is computed"
    return ListChange((), position, f"{'; '.join(texts)} ({why})")


def _differing(ours: list[object], theirs: list[object]) -> Iterator[tuple[int, int, int, int]]:
    """Where two spellings differ: the first element and the one after the last, of ours and of the other."""
    shortest = min(len(ours), len(theirs))
    start = next((i for i in range(shortest) if ours[i] != theirs[i]), shortest)
    same = next((i for i in range(shortest - start) if ours[-1 - i] != theirs[-1 - i]), shortest - start)
    here, there = (list(map(str, side[start : len(side) - same])) for side in (ours, theirs))
    if max(len(here), len(there)) > _MOST_COMPARED:
        yield start, start + len(here), start, start + len(there)
        return
    for tag, *places in SequenceMatcher(None, here, there, autojunk=False).get_opcodes():
        if tag != "equal":
            first, last, first_other, last_other = (start + place for place in places)
            yield first, last, first_other, last_other


def _text(
    source: CodeFile, elements: list[ListElement], value: object, kind: str, marks: dict[str, ListElement]
) -> str:
    """The code of an element with this value, as the list writes others."""
    if value == MARK:
        mark = marks.get(kind) or next(iter(marks.values()), None)
        return source.segment(mark.node) if mark else '"M"'
    same = next((element for element in elements if element.value == value and element.value is not None), None)
    if same is not None:
        return source.segment(same.node)
    spelled = next((e for e in elements if isinstance(e.value, str) and re.search(r"\d+$", e.value)), None)
    if isinstance(value, int) and spelled is not None and not any(type(e.value) is int for e in elements):
        return re.sub(r"\d+(?=['\"]$)", str(value), source.segment(spelled.node))
    if isinstance(value, tuple) and any(isinstance(element.node, ast.List) for element in elements):
        return repr(list(value))
    return repr(value)


def _edits(source: CodeFile, elements: list[ListElement], start: int, end: int, new: list[str]) -> list[Edit] | None:
    """The edits of the elements from `start` to `end`; None where an element stands for several."""
    nodes = [element.node for element in elements]
    touched = nodes[start:end] or nodes[max(0, start - 1) : start + 1]
    if any(nodes.count(node) > 1 or not source.siblings(node) for node in touched):
        return None
    old = nodes[start:end]
    edits = [source.replaced(node, text) for node, text in zip(old, new)]
    if len(new) > len(old):
        edits_of_more = _inserted(source, nodes, start, len(old), new)
        return None if edits_of_more is None else [*edits[: len(old) - 1], *edits_of_more] if old else edits_of_more
    removed = [source.removed(node) for node in old[len(new) :]]
    return None if None in removed else [*edits, *(edit for edit in removed if edit is not None)]


def _inserted(source: CodeFile, nodes: list[ast.expr], start: int, old: int, new: list[str]) -> list[Edit] | None:
    """More elements than there were: after the one before them, or with the last of those that they replace."""
    if old:
        return [source.replaced(nodes[start + old - 1], ", ".join(new[old - 1 :]))]
    if start:
        return [source.inserted(nodes[start - 1], new)]
    return [source.replaced(nodes[0], ", ".join((*new, source.segment(nodes[0]))))]


def _sentence(source: CodeFile, elements: list[ListElement], start: int, end: int, new: list[str]) -> str:
    """A change in words: `add "M" after element 4 (128)`."""
    old = ", ".join(source.segment(element.node) for element in elements[start:end])
    if not old:
        near = source.segment(elements[start - 1].node) if start else ""
        return f"add {', '.join(new)} {f'after element {start} ({near})' if start else 'as the first element'}"
    where = f"element {start + 1}" if end == start + 1 else f"elements {start + 1} to {end}"
    return f"write {', '.join(new)} for {where} ({old})" if new else f"leave out {where} ({old})"


# Lists that several lists contain


def is_part_of_several(code: UserCode, edits: Edits) -> bool:
    """Whether edits change a list that several other lists contain: that would mend one and break another."""
    return any(
        _is_part_of_several(source, [e for e in edits if e.file == source.file]) for source in code.sources.values()
    )


def _is_part_of_several(source: CodeFile, edits: Sequence[Edit]) -> bool:
    if not edits:
        return False
    uses: dict[str, int] = {}
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Name) and isinstance(source.parents.get(node), (ast.BinOp, ast.Starred)):
            uses[node.id] = uses.get(node.id, 0) + 1
    for node in ast.walk(source.tree):
        for name, value, _ in _assigned(node):
            if uses.get(name, 0) > 1 and isinstance(value, (ast.List, ast.Tuple, ast.BinOp)):
                start, end = source.span(value)
                if any(start <= edit.start and edit.end <= end for edit in edits):
                    return True
    return False
