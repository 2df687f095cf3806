"""The changes of the user's code that mend a difference: where the code is, and what to write there.

A difference has several candidates, since the code may build a layer by a call, a loop over a list, or a function. The
first one is shown as a line of code. A patch consists of candidates after which the two networks were compared again
and agreed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from difflib import unified_diff
from itertools import islice, pairwise
from os import fsencode
from os import path as os_path

from vggscope.diffing.align import chosen_attributes
from vggscope.diffing.code_edits import CodeFile, Edit, parsed, source_text, without_overlap
from vggscope.diffing.locate import LayerPair
from vggscope.diffing.result import Change, Diff, Difference
from vggscope.diffing.wording import op_text
from vggscope.errors import OptionError
from vggscope.graph import CodePosition, Network, Node
from vggscope.ops.base import Op, Shape

_WITHOUT_CODE = ("inputs", "values", "order", "constants")
"""Attributes that the code of one layer does not show."""

MOST_RUNS = 20
"""How many candidates are tried for a patch: each traces the model again. The tested mistakes take 11 at most."""

MOST_DIRECT = 6
"""How many times all first candidates are applied, one after the other: a change of a width needs a second one."""

Edits = tuple[Edit, ...]

Compared = tuple[Diff, Network, Network]
"""A Diff with our network and the reference."""

State = tuple[Compared, CodeFile]
"""A comparison with the text of our file."""


def read_sources(network: Network) -> dict[str, CodeFile]:
    """The files of code that build and run a network, by their full paths; without those that cannot be read."""
    names = dict.fromkeys(place.file for node in _all_nodes(network) for place in (*node.built_at, *node.called_at))
    sources = {}
    for name in names:
        try:
            text, _ = source_text(name)
            sources[name] = parsed(name, text)
        except (OSError, ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return sources


def _all_nodes(network: Network) -> tuple[Node, ...]:
    """The nodes of a network with the one that fails."""
    return (*network.nodes, *([network.failed] if network.failed else []))


def with_code(diff: Diff, ours: Network, reference: Network) -> Diff:
    """The Diff with the user's line of each difference, and the change of the code that would mend it."""
    if not diff.differences or not any(node.position for node in _all_nodes(ours)):
        return diff
    mender = Mender((diff, ours, reference), read_sources(ours))
    return replace(diff, differences=tuple(mender.explained(i, d) for i, d in enumerate(diff.differences)))


class Mender:
    """Finds the edits that mend the differences of two networks in the files of our code."""

    def __init__(self, compared: Compared, sources: Mapping[str, CodeFile]) -> None:
        self.diff, self.ours, self.reference = compared
        self.sources = sources
        self.partners = {
            row.reference_layer.name: row.our_layer.name
            for row in self.diff.rows
            if row.our_layer is not None and row.reference_layer is not None
        }

    def explained(self, place: int, difference: Difference) -> Difference:
        """A difference with its line and its remedy."""
        if difference.kind == "renamed":
            return difference
        position = self._shown_position(place)
        if position is None:
            return difference
        line = f"{shown_path(position.file)}:{position.line}"
        remedy = self._remedy(place, difference) if difference.effect != "none" else ""
        return replace(difference, line=line, remedy=remedy)

    def _shown_position(self, place: int) -> CodePosition | None:
        """Where our layer of a difference is, or the layer before a missing one."""
        for mine, other in self.pairs(place):
            node = mine or (other and self._before(other))
            if node is not None and node.position is not None:
                return node.position
        return None

    def _remedy(self, place: int, difference: Difference) -> str:
        """What to write in the line of a difference; where a loop builds other layers there too, the layer alone."""
        pairs = self.pairs(place)
        edits = next(self.direct_candidates(place), ()) if self._is_alone(pairs) else ()
        if edits and len({edit.file for edit in edits}) == 1 and self.sources[edits[0].file].changes(edits):
            line = self.sources[edits[0].file].line_after(edits)
            return f"write {line}" if line else "delete this line"
        mine, other = pairs[0]
        if other is None:
            return f"leave out {op_text(mine.op)}" if mine is not None else ""
        if mine is None:
            return self._added(other)
        attribute = difference.changes[0].attribute if difference.changes else ""
        is_code = attribute not in _WITHOUT_CODE and mine.op != other.op and _has_code(other)
        return f"write {_code(other, mine)}" if is_code else ""

    def _added(self, other: Node) -> str:
        """The layer to add and the layer that it follows; empty if no class or function of torch.nn makes it."""
        before = self._before(other)
        return f"add {_code(other, before)}{f' after {before.title}' if before else ''}" if _has_code(other) else ""

    def _is_alone(self, pairs: list[LayerPair]) -> bool:
        """Whether the code of these layers makes no others."""
        nodes = [node for mine, other in pairs if (node := mine or (other and self._before(other))) is not None]
        places = {node.position for node in nodes}
        return len({n.name for n in nodes}) == sum(node.position in places for node in _all_nodes(self.ours))

    def pairs(self, place: int) -> list[LayerPair]:
        """The layers of a difference, ours and the reference's."""
        difference = self.diff.differences[place]
        names = [
            (row.our_layer.name if row.our_layer else None, row.reference_layer.name if row.reference_layer else None)
            for row in self.diff.rows
            if row.difference == place and row.sign not in "!?"
        ]
        found = [(self._ours(a), self.reference.by_name.get(b or "")) for a, b in names]
        return found or [(self._ours(difference.ours), self.reference.by_name.get(difference.reference or ""))]

    def _ours(self, name: str | None) -> Node | None:
        failed = self.ours.failed
        return failed if failed is not None and failed.name == name else self.ours.by_name.get(name or "")

    def _before(self, other: Node) -> Node | None:
        """Our layer that is paired with the nearest layer before a layer of the reference."""
        names = other.inputs
        while names:
            if names[0] in self.partners:
                return self._ours(self.partners[names[0]])
            node = self.reference.by_name.get(names[0])
            names = node.inputs if node is not None else ()
        return None

    def candidates(self, place: int) -> Iterator[Edits]:
        """The edits that may mend a difference, the likeliest first."""
        yield from self.direct_candidates(place)
        pairs = self.pairs(place)
        mine, other = pairs[0]
        if self._is_order(place):
            if node := next((mine for mine, _ in pairs if mine is not None), None):
                yield from self._swapped_constants(node)
        elif mine is not None and other is not None:
            yield from self._other_numbers(mine, pairs)
        elif mine is not None:
            yield from self._list_edits(mine, [node for node, _ in pairs if node], inserts=False)
        elif other is not None and (before := self._before(other)) is not None:
            yield from self._list_edits(before, [node for _, node in pairs if node], inserts=True)

    def direct_candidates(self, place: int) -> Iterator[Edits]:
        """The edits of the calls that make and run the layers of a difference."""
        pairs = self.pairs(place)
        found: Iterator[Edits] = iter(())
        if self._is_order(place):
            found = self._swaps(pairs)
        elif all(mine and other for mine, other in pairs):
            found = self._changes(pairs)
        elif all(mine for mine, _ in pairs):
            found = self._removals([mine for mine, _ in pairs if mine])
        elif all(other for _, other in pairs):
            found = self._additions([other for _, other in pairs if other])
        yield from (edits for edits in found if edits and without_overlap(edits) == list(edits))

    def _is_order(self, place: int) -> bool:
        return [change.attribute for change in self.diff.differences[place].changes][:1] == ["order"]

    def _source(self, position: CodePosition) -> tuple[CodeFile, ast.expr] | None:
        source = self.sources.get(position.file)
        node = source.expression(position) if source else None
        return (source, node) if source and node is not None else None

    def _at(self, positions: Sequence[CodePosition], depth: int = 0) -> tuple[CodeFile, ast.expr] | None:
        return self._source(positions[depth]) if depth < len(positions) else None

    # A layer with other arguments, or another op

    def _changes(self, pairs: list[LayerPair]) -> Iterator[Edits]:
        if all(mine and other and mine.op == other.op for mine, other in pairs):
            yield from self._unshared(pairs)
            return
        for whole in (False, True):
            groups = [self._change(mine, other, whole=whole) for mine, other in pairs if mine and other]
            edits = tuple(dict.fromkeys(edit for group in groups if group for edit in group))
            if edits and all(group is not None for group in groups):
                yield edits

    def _change(self, mine: Node, other: Node, *, whole: bool) -> list[Edit] | None:
        """The edits of the call that makes a layer; `whole` writes all arguments anew. None if it is not found."""
        found = self._at(mine.built_at if mine.module is not None else mine.called_at)
        if found is None or not isinstance(found[1], ast.Call):
            return None
        source, call = found[0], found[1]
        if mine.op.name == other.op.name and type(mine.op) is not type(other.op) and not mine.op.is_dropout:
            return None
        if whole or mine.op.name != other.op.name:
            edit = _other_call(source, call, mine, other, whole=whole)
            return edit and [edit]
        edits = [
            _other_argument(source, call, mine, other, change.attribute) for change in _differing(mine.op, other.op)
        ]
        known = [edit for edit in edits if edit is not None]
        return known if len(known) == len(edits) else None

    def _other_numbers(self, mine: Node, pairs: list[LayerPair]) -> Iterator[Edits]:
        """The constants that may be the number of a layer: those in the calls that build it first, then all."""
        both = [(one, other) for one, other in pairs if one and other]
        numbers = dict.fromkeys(pair for one, other in both for pair in _numbers(one.op, other.op))
        for source, elements in self._constants(mine):
            for ours, theirs in islice(numbers, 3):
                for element in elements:
                    if isinstance(element, ast.Constant) and type(element.value) is int and element.value == ours:
                        yield (source.replaced(element, str(theirs)),)

    def _constants(self, mine: Node) -> Iterator[tuple[CodeFile, list[ast.expr]]]:
        seen: set[int] = set()
        for position in mine.built_at:
            if found := self._source(position):
                source, node = found
                elements = [element for element in source.elements(node) if id(element) not in seen]
                seen.update(map(id, elements))
                yield source, elements
        for file in dict.fromkeys(position.file for position in (*mine.built_at, *mine.called_at)):
            if file in self.sources:
                source = self.sources[file]
                yield source, [element for element in source.elements(source.tree) if id(element) not in seen]

    # A layer that the reference has not

    def _removals(self, nodes: list[Node]) -> Iterator[Edits]:
        for remove in (self._without_element, self._without_call):
            edits = [remove(node) for node in nodes]
            if all(edits):
                yield tuple(dict.fromkeys(edit for edit in edits if edit))

    def _without_element(self, node: Node) -> Edit | None:
        found = self._at(node.built_at)
        return found[0].removed(found[1]) if found and not _is_in_loop(*found) else None

    def _without_call(self, node: Node) -> Edit | None:
        """The value that a call takes, in place of the call."""
        found = self._at(node.called_at)
        if found is None:
            return None
        source, call = found
        value: ast.expr | None = None
        if isinstance(call, ast.BinOp):
            value = call.right if isinstance(call.left, ast.Constant) else call.left
        elif isinstance(call, ast.Call) and (node.module is None or len(call.args) == 1):
            is_method = isinstance(call.func, ast.Attribute) and node.module is None and _is_value(call.func.value)
            value = (
                call.func.value if is_method and isinstance(call.func, ast.Attribute) else next(iter(call.args), None)
            )
        return source.unwrapped(call, value) if value is not None else None

    # A layer that ours has not

    def _additions(self, others: list[Node]) -> Iterator[Edits]:
        groups = _runs(others, self.reference)
        for add in (self._unused_module, self._element, self._wrapped):
            edits = [add(group) for group in groups]
            if all(edits):
                yield tuple(dict.fromkeys(edit for edit in edits if edit))
        yield from self._copies(others)

    def _element(self, others: list[Node]) -> Edit | None:
        """The layers as elements after the one before them, as in a Sequential."""
        if not all(map(_has_code, others)):
            return None
        before = self._before(others[0])
        found = self._at(before.built_at) if before else None
        if found is None or not found[0].siblings(found[1]) or not isinstance(found[1], ast.Call):
            return None
        source, call = found
        return source.inserted(call, [_with_width(_code(other, before), source, call, before) for other in others])

    def _wrapped(self, others: list[Node]) -> Edit | None:
        """The layers as functions around the call before them."""
        before = self._before(others[0])
        found = self._at(before.called_at) if before else None
        if found is None or any(other.op.parameters() or not _has_code(other) for other in others):
            return None
        source, call = found
        text = source.segment(call)
        for other in others:
            text = _around(other, text, source)
        return source.replaced(call, text)

    def _unused_module(self, others: list[Node]) -> Edit | None:
        """The layers as calls of modules that the model holds and does not run, and of functions."""
        before = self._before(others[0])
        found = self._at(before.called_at) if before else None
        if found is None or before is None or not any(other.op.parameters() for other in others):
            return None
        source, call = found
        text, taken = source.segment(call), set[str]()
        for other in others:
            name = next((name for name in self._unused_like(other, before) if name not in taken), None)
            if name is not None:
                text = f"self.{name}({text})"
                taken.add(name)
            elif other.op.parameters() or not _has_code(other):
                return None
            else:
                text = _around(other, text, source)
        return source.replaced(call, text)

    def _unused_like(self, other: Node, near: Node) -> list[str]:
        """The modules beside a node of ours that it does not run and that have the parameters of `other`, by name."""
        around = (near.module or near.name).rpartition(".")[0]
        shapes: dict[str, dict[str, Shape]] = {}
        for parameter, _ in self.ours.unused:
            path, _, leaf = parameter.name.rpartition(".")
            shapes.setdefault(path, {})[leaf] = parameter.shape
        wanted = dict(other.op.parameters())
        paths = [path for path, held in shapes.items() if wanted and held == wanted]
        return [path.rpartition(".")[2] for path in paths if path.rpartition(".")[0] == around]

    def _unshared(self, pairs: list[LayerPair]) -> Iterator[Edits]:
        """The call of a module that runs a second time, of a module that does not run instead."""
        for mine, other in pairs:
            found = self._at(mine.called_at) if mine and mine.module is not None else None
            if mine is None or other is None or found is None or not isinstance(found[1], ast.Call):
                continue
            called = found[1].func
            for name in self._unused_like(other, mine) if isinstance(called, ast.Attribute) else ():
                yield (found[0].replaced(called, f"self.{name}"),)

    def _copies(self, others: list[Node]) -> Iterator[Edits]:
        """A copy of the code that builds a layer equal to the missing one, after that of the layer before it."""
        before = self._before(others[0])
        if before is None:
            return
        equal = [
            n
            for n in self.ours.nodes
            if chosen_attributes(n.op) == chosen_attributes(others[0].op) and n.op == others[0].op
        ]
        for depth in range(1, len(before.built_at)):
            found = self._at(before.built_at, depth)
            if found is None or not found[0].siblings(found[1]):
                continue
            texts = (copied[0].segment(copied[1]) for node in equal if (copied := self._at(node.built_at, depth)))
            for text in islice(dict.fromkeys(texts), 2):
                yield (found[0].inserted(found[1], [text]),)

    def _list_edits(self, node: Node, layers: Sequence[Node], *, inserts: bool) -> Iterator[Edits]:
        """Elements of lists that stand for layers: one more or less of a width, or another count."""
        weights = [layer for layer in layers if layer.op.is_weight_layer]
        widths = {layer.op.parameters()["weight"][0] for layer in weights if "weight" in layer.op.parameters()}
        for source, elements in self._constants(node):
            for element in elements:
                if isinstance(element, ast.Constant) and type(element.value) is int and element.value in widths:
                    edit = source.inserted(element, [str(element.value)]) if inserts else source.removed(element)
                    if edit is not None and isinstance(source.parents[element], (ast.List, ast.Tuple)):
                        yield (edit,)
            for element in elements:
                if isinstance(element, ast.Constant) and type(element.value) is int and 0 < element.value < 16:
                    count = element.value + (len(weights) or 1) * (1 if inserts else -1)
                    if count >= 0:
                        yield (source.replaced(element, str(count)),)
        for file in dict.fromkeys(position.file for position in (*node.built_at, *node.called_at)):
            yield from self._row_edits(file, widths, inserts=inserts)

    def _row_edits(self, file: str, widths: set[int], *, inserts: bool) -> Iterator[Edits]:
        """A tuple of a list that stands for a layer, such as its widths (256, 256), once more or left out."""
        source = self.sources.get(file)
        for row, values in source.rows(source.tree) if source else ():
            if source and values[-1:] and values[-1] in widths:
                edit = source.inserted(row, [source.segment(row)]) if inserts else source.removed(row)
                if edit is not None:
                    yield (edit,)

    # Layers in another order

    def _swaps(self, pairs: list[LayerPair]) -> Iterator[Edits]:
        moved = [mine for mine, _ in pairs if mine is not None]
        others = [other for _, other in pairs if other is not None]
        edits: list[Edit] = []
        for mine, other in zip(moved, others):
            if not (swap := self._swapped(mine, self._neighbour(mine, other))):
                return
            edits += swap
        yield tuple(dict.fromkeys(edits))

    def _neighbour(self, mine: Node, other: Node) -> Node | None:
        """Our layer next to a moved one, in the direction in which the reference has it."""
        before = self._before(other)
        if before is not None and before.inputs == (mine.name,):
            return before
        return self.ours.by_name.get(mine.inputs[0]) if len(mine.inputs) == 1 else None

    def _swapped(self, node: Node, other: Node | None) -> list[Edit]:
        """The names of two calls, one of which is the argument of the other, swapped; or two elements of a list."""
        after, before = self._at(node.called_at), self._at(other.called_at) if other else None
        if after and before and after[0] is before[0] and isinstance(after[1], ast.Call):
            source, one, another = after[0], after[1], before[1]
            if isinstance(another, ast.Call) and (another in one.args[:1] or one in another.args[:1]):
                return _exchanged(source, one.func, another.func)
        after, before = self._at(node.built_at), self._at(other.built_at) if other else None
        if after and before and after[0] is before[0] and before[1] in after[0].siblings(after[1]):
            return _exchanged(after[0], after[1], before[1])
        return []

    def _swapped_constants(self, node: Node) -> Iterator[Edits]:
        """Two successive constants of a list, swapped."""
        for source, elements in self._constants(node):
            for one, other in pairwise(elements):
                if source.parents[one] is source.parents[other] and source.segment(one) != source.segment(other):
                    yield tuple(_exchanged(source, one, other))


def _other_call(source: CodeFile, call: ast.Call, mine: Node, other: Node, *, whole: bool) -> Edit | None:
    """Call another class or function in place of the one of a layer; `whole` with other arguments too."""
    if other.op.is_layout and mine.module is None and isinstance(call.func, ast.Attribute):
        value = call.func.value if _is_value(call.func.value) else next(iter(call.args), None)
        return source.replaced(call, f"{source.segment(value)}.flatten(1)") if value is not None else None
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    prefix = source.segment(call.func)[: -len(name)] if name else ""
    if whole:
        return source.replaced(call, f"{prefix}{op_text(other.op)}") if mine.module is not None else None
    if not _takes_arguments(call, _argument_names(mine), _argument_names(other)):
        if mine.module is not None or not call.args:
            return None
        return source.replaced(call, f"{prefix}{_function_call(other, source.segment(call.args[0]))}")
    return source.replaced(call.func, f"{prefix}{_function(other) if mine.module is None else other.op.name}")


def _takes_arguments(call: ast.Call, ours: list[str], others: list[str]) -> bool:
    """Whether another function takes the arguments of a call in the same meaning; `ours` and `others` are the names."""
    names = [keyword.arg for keyword in call.keywords]
    positions = range(len(call.args))
    return all(name in others for name in names) and all(ours[i : i + 1] == others[i : i + 1] for i in positions)


def _other_argument(source: CodeFile, call: ast.Call, mine: Node, other: Node, attribute: str) -> Edit | None:
    """Give the call of a layer an argument as in the reference."""
    names = _argument_names(mine)
    if attribute == "active_in":
        return source.with_argument(call, names, "training", "self.training")
    value = other.op.arguments().get(attribute)
    edit = source.with_argument(call, names, attribute, None if value is None else repr(value))
    if edit is None and value is None:  # the default, at a place where an argument must stand
        edit = source.with_argument(call, names, attribute, repr(getattr(other.op, attribute)))
    return edit


def _exchanged(source: CodeFile, one: ast.expr, other: ast.expr) -> list[Edit]:
    return [source.replaced(one, source.segment(other)), source.replaced(other, source.segment(one))]


def shown_path(file: str) -> str:
    """A path relative to the current folder if it is below that, else the full path."""
    relative = (
        os_path.relpath(file) if os_path.splitdrive(file)[0] == os_path.splitdrive(os_path.abspath("."))[0] else file
    )
    return file if relative.startswith(os_path.pardir) else relative


def _argument_names(node: Node) -> list[str]:
    """The positional arguments of torch's class or function, in order: `inplace` is the last one of each."""
    names = sorted((field.name for field in fields(node.op) if field.repr), key="inplace".__eq__)
    if node.module is not None:
        return names
    return ["input", "p", "training", "inplace"] if node.op.is_dropout else ["input", *names]


def _differing(ours: Op, reference: Op) -> list[Change]:
    """The attributes that differ, with the width that follows from the input."""
    names = [field.name for field in fields(ours) if field.compare and field.name != "inplace"]
    found = [Change(n, getattr(ours, n), getattr(reference, n, None)) for n in names]
    if ours.active_in != reference.active_in:
        found.append(Change("active_in", ours.active_in, reference.active_in))
    return [change for change in found if change.ours != change.reference]


def _numbers(ours: Op, reference: Op) -> list[tuple[int, int]]:
    """The numbers that differ, of a window each once."""
    found = []
    for change in _differing(ours, reference) if ours.name == reference.name else []:
        sides = [v if isinstance(v, tuple) else (v,) for v in (change.ours, change.reference)]
        found += [(a, b) for a, b in zip(*sides) if type(a) is int and type(b) is int]
    return list(dict.fromkeys(found))


def _function(node: Node) -> str:
    """The name of an op in torch.nn.functional: max_pool2d of MaxPool2d, leaky_relu of LeakyReLU."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[a-z])(?=ReLU)", "_", node.op.name).lower()


def _has_code(other: Node) -> bool:
    """Whether a class or a function of torch.nn makes a layer: its op is named as the class."""
    return other.module is not None or other.op.is_layout or other.op.name[:1].isupper()


def _code(other: Node, near: Node | None) -> str:
    """A layer of the reference as code: a module, unless it is a function near a function."""
    return (
        op_text(other.op)
        if near is not None and near.module is None and not other.op.parameters()
        else f"nn.{op_text(other.op)}"
    )


def _with_width(text: str, source: CodeFile, call: ast.expr, before: Node | None) -> str:
    """The code of a layer with its input width as the call of the layer before writes its own: `cout` for 64.

    A function or a loop makes layers of several widths by one call.
    """
    shape = before.op.parameters().get("weight") if before is not None else None
    if before is None or not shape or not isinstance(call, ast.Call):
        return text
    names = _argument_names(before)
    widths = [name for name in names if name.endswith(("_channels", "_features"))]
    given: dict[str | None, ast.expr] = dict(zip(names, call.args))
    given.update((keyword.arg, keyword.value) for keyword in call.keywords)
    width = given.get(widths[-1]) if widths else None
    if width is None or isinstance(width, (ast.Constant, ast.Starred)):
        return text
    written = source.segment(width)
    return re.sub(rf"(?<=\(){shape[0]}\b", lambda _: written, text, count=1)


def _around(other: Node, text: str, source: CodeFile) -> str:
    """A call of a function around an expression."""
    functional = next(
        (
            alias
            for alias in ("F", "functional")
            if f" as {alias}\n" in source.text or f"import {alias}\n" in source.text
        ),
        "nn.functional",
    )
    if other.op.is_dropout:
        return f"{functional}.dropout({text}, {getattr(other.op, 'p', 0.5)!r}, self.training)"
    if other.op.is_layout:
        return f"{text}.flatten(1)"
    return f"{functional}.{_function_call(other, text)}"


def _function_call(node: Node, text: str) -> str:
    """The call of the function of an op in torch.nn.functional on an expression."""
    arguments = (f"{key}={value!r}" for key, value in node.op.arguments().items() if key != "inplace")
    return f"{_function(node)}({', '.join((text, *arguments))})"


def _runs(nodes: list[Node], network: Network) -> list[list[Node]]:
    """The nodes in groups of which each directly follows the one before it."""
    groups: list[list[Node]] = []
    for node in nodes:
        if groups and node.inputs == (groups[-1][-1].name,):
            groups[-1].append(node)
        else:
            groups.append([node])
    return groups


def _is_value(node: ast.expr) -> bool:
    """Whether an expression may be a tensor of which a method is called: not a module's name, such as `F`."""
    return not (isinstance(node, ast.Name) and node.id in ("F", "nn", "torch", "functional")) and not (
        isinstance(node, ast.Attribute) and node.attr == "functional"
    )


def _is_in_loop(source: CodeFile, node: ast.AST) -> bool:
    """Whether a loop or a comprehension is around an expression in its function."""
    while node in source.parents and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        node = source.parents[node]
        if isinstance(node, (ast.For, ast.While, ast.comprehension, ast.ListComp, ast.GeneratorExp)):
            return True
    return False


# The patch


def mended_text(start: Compared, file: str, rerun: Callable[[Mapping[str, str]], Compared | None]) -> str | None:
    """The text of `file` after which the two networks agree; None if no candidate leads there.

    `rerun` compares the networks with files of these texts in place of their own. It returns None for code that does
    not run.
    """
    sources = read_sources(start[1])
    if file not in sources:
        return None
    return _Search(file, rerun).from_state(start, sources[file])


class _Search:
    """The search for a text of one file."""

    def __init__(self, file: str, rerun: Callable[[Mapping[str, str]], Compared | None]) -> None:
        self.file, self.rerun, self.runs = file, rerun, 0
        self.seen: set[str] = set()

    def from_state(self, compared: Compared, source: CodeFile) -> str | None:
        """The text after which the networks agree at evaluation, and in training as far as that can be reached."""
        while _counting(compared[0], "shape", "function"):
            mended = self._direct(compared, source, "shape", "function") or self._better(compared, source)
            if mended is None:
                return None
            compared, source = mended
        trained = self._direct(compared, source, "training_only")
        return source.text if trained is None else trained[1].text

    def _direct(self, compared: Compared, source: CodeFile, *effects: str) -> State | None:
        """The state after the first candidates of all differences, again and again, if no such effect is left then."""
        for _ in range(MOST_DIRECT):
            mender = Mender(compared, {self.file: source})
            edits = [edit for i in _counting(compared[0], *effects) for edit in next(mender.direct_candidates(i), ())]
            state = self._run(source, without_overlap(edits))
            if state is None:
                return None
            compared, source = state
            if not _counting(compared[0], "shape", "function", *effects):
                return state
        return None

    def _better(self, compared: Compared, source: CodeFile) -> State | None:
        """The state after the first candidate of a single difference that leaves fewer of them."""
        mender = Mender(compared, {self.file: source})
        for place in _counting(compared[0], "shape", "function"):
            for edits in mender.candidates(place):
                state = self._run(source, edits)
                if state is not None and _cost(state[0][0]) < _cost(compared[0]):
                    return state
        return None

    def _run(self, source: CodeFile, edits: Sequence[Edit]) -> State | None:
        """The comparison after edits; None for none, for a text that was tried, and for code that does not run."""
        if not edits or any(edit.file != self.file for edit in edits) or self.runs >= MOST_RUNS:
            return None
        try:
            changed = CodeFile(self.file, source.applied(edits))
        except (SyntaxError, ValueError):
            return None
        if changed.text in self.seen or changed.text == source.text:
            return None
        self.seen.add(changed.text)
        self.runs += 1
        compared = self.rerun({self.file: changed.text})
        return None if compared is None else (compared, changed)


def _counting(diff: Diff, *effects: str) -> list[int]:
    """The places of the differences with one of these effects."""
    return [i for i, difference in enumerate(diff.differences) if difference.effect in effects]


def _cost(diff: Diff) -> tuple[int, int, int]:
    """What is left to mend: whether it fails, rows that differ or are not reached, and differences."""
    counting = _counting(diff, "shape", "function")
    rows = sum(row.sign in "!?" or row.difference in counting for row in diff.rows)
    return rows, len(counting), int(diff.failure is not None)


def patch_text(file: str, text: str) -> str:
    """The unified patch from a file to a text, for `git apply` in the current folder; empty for the same text.

    Raises OptionError if the patch quotes a character that the file stores otherwise than a patch, which is UTF-8.
    """
    before, encoding = source_text(file)
    name = shown_path(file).replace(os_path.sep, "/").lstrip("/")
    names = _quoted(f"a/{name}"), _quoted(f"b/{name}")
    # A byte order mark is no part of the code, but of the first line.
    mark = "\ufeff" if encoding == "utf-8-sig" else ""
    patch = "".join(_with_line_ends(unified_diff(_lines(mark + before), _lines(mark + text), *names)))
    if not encoding.startswith("utf-8") and not patch.isascii():
        raise OptionError(f"{shown_path(file)} is encoded in {encoding}, a patch in UTF-8", "save the file as UTF-8")
    return patch


def _quoted(name: str) -> str:
    """A path as `git` writes it in a patch: in quotes with octal bytes, if it is no UTF-8 or has special characters."""
    is_text = not any("\ud800" <= character <= "\udfff" for character in name)
    if is_text and name.isprintable() and not set(name) & {'"', "\\"}:
        return name
    escaped = (
        f"\\{chr(byte)}" if byte in b'"\\' else chr(byte) if 32 <= byte < 127 else f"\\{byte:03o}"
        for byte in fsencode(name)
    )
    return f'"{"".join(escaped)}"'


def _lines(text: str) -> list[str]:
    """The lines with their ends. Other characters that Python takes for the end of a line are part of it."""
    return [f"{line}\n" for line in text.split("\n")[:-1]] + [line for line in text.split("\n")[-1:] if line]


def _with_line_ends(lines: Iterable[str]) -> Iterator[str]:
    """The lines of a patch; one without an end is marked as `git` marks it."""
    for line in lines:
        yield line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
