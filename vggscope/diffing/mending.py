"""The user's line of each difference, and what to write there to mend it.

A difference has several candidates (`candidates.py`), since the code may build a layer by a call, a loop over a list,
or a function. The first one is shown as a line of code, if that line makes or runs no other layers. A patch
(`patch.py`) consists of candidates after which the two networks were compared again and agreed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from vggscope.diffing.candidates import change_of_call, direct_candidates, fitting
from vggscope.diffing.code_edits import CodeFile, Edit, Edits, without_overlap
from vggscope.diffing.layer_code import around, call_name, has_code, layer_text
from vggscope.diffing.module_calls import shares_weights, unused_path
from vggscope.diffing.result import SHARING, Diff, Difference
from vggscope.diffing.user_code import UserCode, all_nodes, read_sources
from vggscope.diffing.width_lists import list_changes
from vggscope.diffing.wording import op_text
from vggscope.graph import CodePosition, Network, Node

_WITHOUT_CODE = ("inputs", "values", "order", "constants", SHARING)
"""Attributes that the code of one layer does not show."""

MOST_SHOWN_LINES = 2
"""How many lines beside the first one of a change are written out; of more, their numbers are shown."""

MOST_SHOWN_LAYERS = 3
"""How many layers are written out that have to be added together."""


def with_code(diff: Diff, ours: Network, reference: Network) -> Diff:
    """The Diff with the user's line of each difference, and the change of the code that would mend it."""
    if not diff.differences or not any(node.position for node in all_nodes(ours)):
        return diff
    code = UserCode((diff, ours, reference), read_sources(ours))
    changes = {place: _shown_change(code, place) for place in range(len(diff.differences))}
    return replace(diff, differences=tuple(_explained(code, place, changes) for place in changes))


def _shown_change(code: UserCode, place: int) -> Edits:
    """The edits that a remedy shows; empty if there are none, or if the code makes or runs other layers too."""
    difference = code.diff.differences[place]
    if difference.kind == "renamed" or difference.effect == "none":
        return ()
    first = next(direct_candidates(code, place), None)
    if first is None or not first.is_local or not _is_visible(code, first.edits):
        return ()
    follows = fitting(code, place) if difference.effect == "shape" and code.ours.failure is None else ()
    return tuple(without_overlap((*first.edits, *(edit for edit in follows if edit.file == first.edits[0].file))))


def _explained(code: UserCode, place: int, changes: Mapping[int, Edits]) -> Difference:
    """A difference with its line and its remedy. `changes` are the edits of all differences."""
    difference = code.diff.differences[place]
    if difference.kind == "renamed":
        return difference
    position, remedy = _shown_position(code, place), ""
    if difference.effect != "none":
        computed = next((change for change in list_changes(code, place) if not change.edits), None)
        if changes[place]:
            others = [edit for other, edits in changes.items() if other != place for edit in edits]
            position, remedy = _shown_edits(code, changes[place], position, others)
        elif computed is not None:
            position, remedy = computed.position, computed.text
        else:
            remedy = _in_words(code, place, difference)
    if position is None:
        return difference
    return replace(difference, line=position.text, remedy=remedy)


def _shown_position(code: UserCode, place: int) -> CodePosition | None:
    """Where our layer of a difference is, or the layer before a missing one: the call of one that shares weights."""
    for mine, other in code.pairs(place):
        node = mine or (other and code.before(other))
        if node is None:
            continue
        if mine is None and other and node.called_at and code.ours.failure is None and unused_path(code, other):
            return node.called_at[-1]
        is_alike = code.is_sharing(place) or (mine and other and mine.op == other.op)
        if mine and other and node.called_at and is_alike and shares_weights(code, mine, other):
            return node.called_at[0]
        if node.position is not None:
            return node.position
    return None


def _is_visible(code: UserCode, edits: Edits) -> bool:
    """Whether edits change the text of one file: not those of a layer that was replaced after its line ran."""
    return len({edit.file for edit in edits}) == 1 and code.sources[edits[0].file].changes(edits)


def _shown_edits(
    code: UserCode, edits: Edits, position: CodePosition | None, others: Sequence[Edit]
) -> tuple[CodePosition, str]:
    """The line that edits change, and what to write there: the line at the position, if it is one of them.

    It is shown with the changes of other differences, `others`, in the same line.
    """
    source = code.sources[edits[0].file]
    lines: dict[int, list[Edit]] = {}
    for edit in sorted(edits, key=lambda edit: edit.start):
        lines.setdefault(source.line_number(edit.start), []).append(edit)
    for edit in others:
        number = source.line_number(edit.start) if edit.file == source.file else 0
        if number in lines and not _is_new_line(edit) and edit in without_overlap([*lines[number], edit]):
            lines[number].append(edit)
    is_there = position is not None and position.file == source.file and position.line in lines
    first = position.line if position is not None and is_there else min(lines)
    rest = [number for number in lines if number != first]
    text = _line_text(source, lines[first])
    if len(rest) <= MOST_SHOWN_LINES:
        text += "".join(f" and line {number}: {_line_text(source, lines[number])}" for number in rest)
    else:
        text += f"; the same in lines {', '.join(map(str, rest))}"
    return CodePosition(source.file, first), text


def _line_text(source: CodeFile, edits: Sequence[Edit]) -> str:
    before, after = source.lines_around(edits)
    if not any(after):
        return "delete this line"
    added = after[len(before) :]
    if added and after[: len(before)] == before:
        return f"add {' and '.join(added)} after this line"
    if added and len(before) == 1:
        return f"write {after[0]} and after it {' and '.join(added)}"
    return f"write {next((new for old, new in zip(before, after) if old != new), after[0])}"


def _is_new_line(edit: Edit) -> bool:
    return edit.start == edit.end and "\n" in edit.text


def _in_words(code: UserCode, place: int, difference: Difference) -> str:
    """The layer to change, where a loop or a function builds other layers by the same code."""
    pairs = code.pairs(place)
    mine, other = pairs[0]
    if other is None:
        return f"leave out {_named(code, mine)}{_more(len(pairs))}" if mine is not None else ""
    if mine is None:
        return _added(code, [node for _, node in pairs if node is not None])
    if (code.is_sharing(place) or mine.op == other.op) and shares_weights(code, mine, other):
        if len(pairs) > 1:
            return "give each of these layers a module of its own"
        what = f"module of its own: {layer_text(other)}" if _is_called_again(code, mine) else "weight of its own"
        return f"give it a {what}"
    attribute = difference.changes[0].attribute if difference.changes else ""
    is_code = attribute not in _WITHOUT_CODE and mine.op != other.op and has_code(other)
    text = _changed_call(code, mine, other) if mine.module is None else layer_text(other)
    return f"write {text}" if is_code and text else ""


def _named(code: UserCode, mine: Node) -> str:
    """A layer of ours as its line names it: a module by its arguments, a function by its call."""
    if mine.module is not None:
        return op_text(mine.op)
    found = code.at(mine.called_at)
    name = call_name(*found) if found is not None else ""
    return f"the call of {name} for {mine.title}" if name else mine.title


def _changed_call(code: UserCode, mine: Node, other: Node) -> str:
    """The call of a function with the arguments of the reference's layer; empty if it is not found."""
    found, edits = code.at(mine.called_at), change_of_call(code, mine, other, whole=False)
    return found[0].segment_after(found[1], edits) if found is not None and edits else ""


def _is_called_again(code: UserCode, mine: Node) -> bool:
    """Whether the module of a layer runs more than once."""
    return mine.module is not None and code.runs[mine.module] > 1


def _added(code: UserCode, others: list[Node]) -> str:
    """The layers to add and the one that they follow; empty if no class or function of torch.nn makes the first."""
    before = code.before(others[0])
    where = f" after {code.title(before)}" if before else ""
    first = next((other for other in others if other.op.parameters()), None)
    if code.ours.failure is None and first is not None and (path := unused_path(code, first)):
        return f"call {path}, which forward does not use{where and ','}{where}"
    if not has_code(others[0]):
        return ""
    shown = others if len(others) <= MOST_SHOWN_LAYERS and all(map(has_code, others)) else others[:1]
    layers = ", ".join(_added_text(code, other, before) for other in shown) + _more(len(others) - len(shown) + 1)
    return f"add {layers}{where}"


def _added_text(code: UserCode, other: Node, before: Node | None) -> str:
    """A layer to add as code: a module, unless it is a function after a function."""
    found = code.at(before.called_at) if before is not None and before.module is None else None
    return layer_text(other) if found is None or other.op.parameters() else around(other, "x", found[0])


def _more(count: int) -> str:
    """The layers of a block after its first one, `count` of them with that one."""
    if count == 1:
        return ""
    return " and the layer after it" if count == 2 else f" and the {count - 1} layers after it"
