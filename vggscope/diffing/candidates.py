"""The edits of the user's code that may mend a difference, the likeliest first: of a layer's call, or of a list."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from itertools import chain, islice, pairwise
from typing import NamedTuple

from vggscope.diffing.align import chosen_attributes
from vggscope.diffing.code_edits import CodeFile, Edit, Edits, is_in_loop, without_overlap
from vggscope.diffing.layer_code import (
    argument_of,
    around,
    differing,
    has_code,
    layer_text,
    numbers,
    other_argument,
    other_call,
    with_width,
)
from vggscope.diffing.locate import LayerPair
from vggscope.diffing.module_calls import (
    calls_after,
    calls_instead,
    calls_of_unused,
    equal_module,
    has_run_elsewhere,
    modules_of_own,
    unused_like,
    without_call,
)
from vggscope.diffing.user_code import UserCode
from vggscope.diffing.width_lists import edits_of_lists, is_part_of_several
from vggscope.graph import CodePosition, Node


class Candidate(NamedTuple):
    """Edits that may mend a difference. `is_local` tells that the edited code makes or runs no other layers."""

    edits: Edits
    is_local: bool


def candidates(code: UserCode, place: int) -> Iterator[Edits]:
    """The edits that may mend a difference, the likeliest first. None changes a list that other lists contain."""
    every = chain((found.edits for found in direct_candidates(code, place)), _guesses(code, place))
    yield from (edits for edits in every if not is_part_of_several(code, edits))


def direct_candidates(code: UserCode, place: int) -> Iterator[Candidate]:
    """The edits of the calls and the lists that are known to make and run the layers of a difference."""
    pairs = code.pairs(place)
    found: Iterator[Candidate] = iter(())
    if code.is_order(place):
        found = _swaps(code, pairs)
    elif all(mine and other for mine, other in pairs):
        found = _changes(code, place, pairs)
    elif all(mine for mine, _ in pairs):
        found = _removals(code, [mine for mine, _ in pairs if mine])
    elif all(other for _, other in pairs):
        found = _additions(code, [other for _, other in pairs if other])
    calls, lists = list(found), [Candidate(edits, is_local=True) for edits in edits_of_lists(code, place)]
    # A layer with a call of its own is mended there, whatever list has the same numbers.
    is_own = bool(calls) and calls[0].is_local
    for candidate in (*calls, *lists) if is_own else (*lists, *calls):
        if candidate.edits and without_overlap(candidate.edits) == list(candidate.edits):
            yield candidate


def _guesses(code: UserCode, place: int) -> Iterator[Edits]:
    """Changes of numbers in the code that may make or count the layers of a difference."""
    pairs = code.pairs(place)
    mine, other = pairs[0]
    if code.is_order(place):
        if node := next((mine for mine, _ in pairs if mine is not None), None):
            yield from _swapped_constants(code, node)
    elif mine is not None and other is not None:
        yield from _other_numbers(code, mine, pairs)
    elif mine is not None:
        yield from _list_edits(code, mine, [node for node, _ in pairs if node], inserts=False)
    elif other is not None and (before := code.before(other)) is not None:
        yield from _list_edits(code, before, [node for _, node in pairs if node], inserts=True)


def _candidate(
    code: UserCode, edits: Sequence[Edit], sites: Sequence[CodePosition], nodes: Sequence[Node]
) -> Candidate:
    """Edits of the calls at `sites`, which are local if they make or run no other layers than `nodes`."""
    return Candidate(tuple(dict.fromkeys(edits)), code.sharing(sites) <= {node.name for node in nodes})


# A layer with other arguments, or another op


def _changes(code: UserCode, place: int, pairs: list[LayerPair]) -> Iterator[Candidate]:
    both = [(mine, other) for mine, other in pairs if mine and other]
    if code.is_sharing(place) or all(mine.op == other.op for mine, other in both):
        instead = (edits for mine, other in both for edits in calls_instead(code, mine, other.op))
        for edits in chain(calls_of_unused(code, both), instead, modules_of_own(code, both)):
            yield Candidate(edits, is_local=True)
        return
    for edits in _uncalled(code, *both[0]):
        yield Candidate(edits, is_local=True)
    for whole in (False, True):
        groups = [change_of_call(code, mine, other, whole=whole) for mine, other in both]
        changed = [edit for group in groups if group for edit in group]
        if changed and all(group is not None for group in groups):
            sites = [place for mine, _ in both for place in _made_at(mine)[:1]]
            yield _candidate(code, changed, sites, [mine for mine, _ in both])


def _uncalled(code: UserCode, mine: Node, other: Node) -> Iterator[Edits]:
    """Calls of modules that nothing calls, if a layer fails for the want of one before it or in its place."""
    if mine is not code.ours.failed:
        return
    yield from calls_instead(code, mine, other.op)
    before = code.before(other)
    if before is not None:
        yield from calls_after(code, before, [other])


def _made_at(node: Node) -> tuple[CodePosition, ...]:
    """The calls that have the arguments of a layer: those that build a module, or call a function."""
    return node.built_at if node.module is not None else node.called_at


def change_of_call(code: UserCode, mine: Node, other: Node, *, whole: bool) -> list[Edit] | None:
    """The edits of the call that makes a layer; `whole` writes all arguments anew. None if it is not found."""
    found = code.at(_made_at(mine))
    if found is None or not isinstance(found[1], ast.Call):
        return None
    source, call = found[0], found[1]
    if mine.op.name == other.op.name and type(mine.op) is not type(other.op) and not mine.op.is_dropout:
        return None
    if whole or mine.op.name != other.op.name:
        edit = other_call(source, call, mine, other, whole=whole)
        return edit and [edit]
    edits = [other_argument(source, call, mine, other, change.attribute) for change in differing(mine.op, other.op)]
    known = [edit for edit in edits if edit is not None]
    return known if len(known) == len(edits) else None


def fitting(code: UserCode, place: int) -> Edits:
    """The edits of the next layer with weights, if it reads the width that a difference gives it, not the reference's.

    Our network runs with both: to mend the difference alone would break it.
    """
    start = next((i for i, (found, _) in enumerate(code.compared) if found == place), len(code.compared))
    for found, (mine, other) in code.compared[start:]:
        if found is not None and found != place and code.diff.differences[found].changes_output:
            return ()
        if mine is None or other is None or not mine.op.is_weight_layer or mine.op == other.op or found == place:
            continue
        is_wide = mine.op.fitted(code.reference.input_shapes(other)[0]) == other.op
        edits = change_of_call(code, mine, other, whole=False) if is_wide else None
        return tuple(edits) if edits and code.sharing(_made_at(mine)[:1]) == {mine.name} else ()
    return ()


def _other_numbers(code: UserCode, mine: Node, pairs: list[LayerPair]) -> Iterator[Edits]:
    """The constants that may be the number of a layer: those in the calls that build it first, then all."""
    both = [(one, other) for one, other in pairs if one and other]
    changed = dict.fromkeys(pair for one, other in both for pair in numbers(one.op, other.op))
    for source, elements in code.constants(mine):
        for ours, theirs in islice(changed, 3):
            for element in elements:
                if isinstance(element, ast.Constant) and type(element.value) is int and element.value == ours:
                    yield (source.replaced(element, str(theirs)),)


# A layer that the reference has not


def _removals(code: UserCode, nodes: list[Node]) -> Iterator[Candidate]:
    calls = [Candidate(edits, is_local=True) for edits in without_call(code, nodes)]
    if runs_twice := has_run_elsewhere(code, nodes):
        yield from calls
    for remove, is_call in ((_without_element, False), (_without_call, True)):
        edits = [remove(code, node) for node in nodes]
        if all(edits):
            sites = [place for n in nodes for place in (n.called_at if is_call else n.built_at)[:1]]
            yield _candidate(code, [edit for edit in edits if edit], sites, nodes)
    if not runs_twice:
        yield from calls


def _without_element(code: UserCode, node: Node) -> Edit | None:
    found = code.at(node.built_at)
    return found[0].entry_removed(found[1]) if found and not is_in_loop(*found) else None


def _without_call(code: UserCode, node: Node) -> Edit | None:
    """The value that a call takes, in place of the call."""
    found = code.at(node.called_at)
    if found is None:
        return None
    source, call = found
    value: ast.expr | None = None
    if isinstance(call, ast.BinOp):
        value = call.right if isinstance(call.left, ast.Constant) else call.left
    elif isinstance(call, ast.Call) and (node.module is None or len(call.args) == 1):
        value = argument_of(call) if node.module is None else call.args[0]
    return source.unwrapped(call, value) if value is not None else None


# A layer that ours has not


def _additions(code: UserCode, others: list[Node]) -> Iterator[Candidate]:
    before = code.before(others[0])
    if before is None:
        return
    groups = _successive(others)
    calls = chain(calls_instead(code, before), calls_after(code, before, others))
    blocks = [Candidate(edits, is_local=True) for edits in calls]
    for add, is_call in ((_unused_module, True), (None, True), (_element, False), (_wrapped, True)):
        if add is None:
            yield from blocks
            continue
        added = [add(code, group) for group in groups]
        if all(added):
            befores = [node for group in groups if (node := code.before(group[0])) is not None]
            sites = [place for n in befores for place in (n.called_at if is_call else n.built_at)[:1]]
            yield _candidate(code, [edit for edit in added if edit], sites, befores)
    for edits in _copies(code, before, others[0]):
        yield Candidate(edits, is_local=False)


def _successive(nodes: list[Node]) -> list[list[Node]]:
    """The nodes in groups of which each directly follows the one before it."""
    groups: list[list[Node]] = []
    for node in nodes:
        if groups and node.inputs == (groups[-1][-1].name,):
            groups[-1].append(node)
        else:
            groups.append([node])
    return groups


def _element(code: UserCode, others: list[Node]) -> Edit | None:
    """The layers as elements after the one before them, as in a Sequential."""
    if not all(map(has_code, others)):
        return None
    before = code.before(others[0])
    found = code.at(before.built_at) if before else None
    if found is None or not isinstance(found[1], ast.Call):
        return None
    source, call = found
    names = [other.label or other.op.name.lower() for other in others]
    texts = [with_width(layer_text(other), source, call, before) for other in others]
    return source.entries_inserted(call, names, texts)


def _wrapped(code: UserCode, others: list[Node]) -> Edit | None:
    """The layers as functions around the call before them."""
    before = code.before(others[0])
    found = code.at(before.called_at) if before else None
    if found is None or any(other.op.parameters() or not has_code(other) for other in others):
        return None
    source, call = found
    text = source.segment(call)
    for other in others:
        text = _called_around(code, other, text, source, call)
    return source.replaced(call, text)


def _called_around(code: UserCode, other: Node, text: str, source: CodeFile, near: ast.expr) -> str:
    """The call of a layer on an expression: of a module that the class around `near` calls for equal layers, if any."""
    name = equal_module(code, other, source, near)
    return f"self.{name}({text})" if name else around(other, text, source)


def _unused_module(code: UserCode, others: list[Node]) -> Edit | None:
    """The layers as calls of modules that the model holds and does not run, and of functions."""
    before = code.before(others[0])
    found = code.at(before.called_at) if before else None
    if found is None or before is None or not any(other.op.parameters() for other in others):
        return None
    source, call = found
    line = source.assigned_to(call)
    text, taken = line or source.segment(call), set[str]()
    for other in others:
        name = next((name for name in unused_like(code, other, before) if name not in taken), None)
        if name is not None:
            text = f"self.{name}({text})"
            taken.add(name)
        elif other.op.parameters() or not has_code(other):
            return None
        else:
            text = _called_around(code, other, text, source, call)
    return source.after_call(call, text)


def _copies(code: UserCode, before: Node, other: Node) -> Iterator[Edits]:
    """A copy of the code that builds a layer equal to the missing one, after that of the layer before it."""
    wanted = chosen_attributes(other.op)
    equal = [n for n in code.ours.nodes if chosen_attributes(n.op) == wanted and n.op == other.op]
    for depth in range(1, len(before.built_at)):
        found = code.at(before.built_at, depth)
        if found is None or not found[0].siblings(found[1]):
            continue
        texts = (copied[0].segment(copied[1]) for node in equal if (copied := code.at(node.built_at, depth)))
        for text in islice(dict.fromkeys(texts), 2):
            yield (found[0].inserted(found[1], [text]),)


def _list_edits(code: UserCode, node: Node, layers: Sequence[Node], *, inserts: bool) -> Iterator[Edits]:
    """Elements of lists that may stand for layers: one more or less of a width, or another count."""
    weights = [layer for layer in layers if layer.op.is_weight_layer]
    widths = {layer.op.parameters()["weight"][0] for layer in weights if "weight" in layer.op.parameters()}
    for source, elements in code.constants(node):
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
    for file in code.files(node):
        yield from _row_edits(code.sources[file], widths, inserts=inserts)


def _row_edits(source: CodeFile, widths: set[int], *, inserts: bool) -> Iterator[Edits]:
    """A tuple of a list that stands for a layer, such as its widths (256, 256), once more or left out."""
    for row, values in source.rows(source.tree):
        if values[-1:] and values[-1] in widths:
            edit = source.inserted(row, [source.segment(row)]) if inserts else source.removed(row)
            if edit is not None:
                yield (edit,)


# Layers in another order


def _swaps(code: UserCode, pairs: list[LayerPair]) -> Iterator[Candidate]:
    moved = [mine for mine, _ in pairs if mine is not None]
    others = [other for _, other in pairs if other is not None]
    edits: list[Edit] = []
    for mine, other in zip(moved, others):
        if not (swap := _swapped(code, mine, _neighbour(code, mine, other))):
            return
        edits += swap
    sites = [place for mine in moved for place in (*mine.built_at, *mine.called_at)[:1]]
    yield _candidate(code, edits, sites, moved)


def _neighbour(code: UserCode, mine: Node, other: Node) -> Node | None:
    """Our layer next to a moved one, in the direction in which the reference has it."""
    before = code.before(other)
    if before is not None and before.inputs == (mine.name,):
        return before
    return code.ours.by_name.get(mine.inputs[0]) if len(mine.inputs) == 1 else None


def _swapped(code: UserCode, node: Node, other: Node | None) -> list[Edit]:
    """The names of two calls, one of which is the argument of the other, swapped; or two elements of a list."""
    after, before = code.at(node.called_at), code.at(other.called_at) if other else None
    if after and before and after[0] is before[0] and isinstance(after[1], ast.Call):
        source, one, another = after[0], after[1], before[1]
        if isinstance(another, ast.Call) and (another in one.args[:1] or one in another.args[:1]):
            return _exchanged(source, one.func, another.func)
    after, before = code.at(node.built_at), code.at(other.built_at) if other else None
    if after and before and after[0] is before[0] and before[1] in after[0].siblings(after[1]):
        return _exchanged(after[0], after[1], before[1])
    return []


def _swapped_constants(code: UserCode, node: Node) -> Iterator[Edits]:
    """Two successive constants of a list, swapped."""
    for source, elements in code.constants(node):
        for one, other in pairwise(elements):
            if source.parents[one] is source.parents[other] and source.segment(one) != source.segment(other):
                yield tuple(_exchanged(source, one, other))


def _exchanged(source: CodeFile, one: ast.expr, other: ast.expr) -> list[Edit]:
    return [source.replaced(one, source.segment(other)), source.replaced(other, source.segment(one))]
