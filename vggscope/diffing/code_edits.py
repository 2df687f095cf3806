"""Edits of Python source: arguments of a call, elements of a list, calls around a value. No code runs."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from io import BytesIO
from tokenize import detect_encoding
from typing import NamedTuple, TypeVar

from vggscope.graph import CodePosition

Around = TypeVar("Around", bound=ast.AST)


class Edit(NamedTuple):
    """Replace the bytes of a file from `start` to `end` by `text`."""

    file: str
    start: int
    end: int
    text: str


Edits = tuple[Edit, ...]


def without_overlap(edits: Sequence[Edit]) -> list[Edit]:
    """The edits without those that overlap an earlier one.

    >>> [edit.text for edit in without_overlap([Edit("a", 0, 4, "x"), Edit("a", 2, 3, "y"), Edit("a", 4, 5, "z")])]
    ['x', 'z']
    """
    kept: list[Edit] = []
    for edit in edits:
        apart = (edit.file != o.file or edit.end <= o.start or o.end <= edit.start or edit == o for o in kept)
        if all(apart):
            kept.append(edit)
    return kept


LARGEST_SOURCE = 2**20
"""The largest file of code that is read, in bytes."""


def source_text(file: str) -> tuple[str, str]:
    """The text of a file of code, with its own ends of lines, and its encoding: UTF-8 or that of its coding line.

    Raises OSError or SyntaxError where Python could not read it either, and ValueError for other bytes or a huge file.
    """
    with open(file, "rb") as opened:
        data = opened.read(LARGEST_SOURCE + 1)
    if len(data) > LARGEST_SOURCE:
        raise ValueError(f"more than {LARGEST_SOURCE} bytes of code")
    encoding, _ = detect_encoding(BytesIO(data).readline)
    return data.decode(encoding), encoding


class CodeFile:
    """The text of a Python file with its syntax tree. Raises SyntaxError or ValueError for any other text."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.data = text.encode()
        self.tree = ast.parse(text)
        self._starts = [0]
        for line in self.data.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """The node around each node of the tree."""
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def _at(self) -> dict[tuple[int, int, int, int], ast.expr]:
        places: dict[tuple[int, int, int, int], ast.expr] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.expr):
                places.setdefault(_place(node), node)
        return places

    def expression(self, position: CodePosition) -> ast.expr | None:
        """The expression at a position, such as a call; without columns the only call in its line."""
        if position.file != self.file:
            return None
        if position.column >= 0:
            return self._at.get((position.line, position.column, position.end_line, position.end_column))
        calls = [node for node in ast.walk(self.tree) if isinstance(node, ast.Call) and node.lineno == position.line]
        return calls[0] if len(calls) == 1 else None

    def span(self, node: ast.expr | ast.keyword | ast.stmt) -> tuple[int, int]:
        """The first byte of a node and the one after its last."""
        line, column, end_line, end_column = _place(node)
        return self._starts[line - 1] + column, self._starts[end_line - 1] + end_column

    def segment(self, node: ast.expr | ast.keyword | ast.stmt) -> str:
        """The text of a node."""
        start, end = self.span(node)
        return self.data[start:end].decode()

    def line(self, number: int) -> str:
        """The text of a line, from 1."""
        return self.data[self._starts[number - 1] : self._starts[number]].decode()

    def line_number(self, byte: int) -> int:
        """The number of the line that holds a byte, from 1."""
        return sum(start <= byte for start in self._starts)

    def replaced(self, node: ast.expr | ast.keyword | ast.stmt, text: str) -> Edit:
        """The edit that puts a text in the place of a node."""
        return Edit(self.file, *self.span(node), text)

    def applied(self, edits: Sequence[Edit]) -> str:
        """The text after edits. Raises ValueError if two of them overlap."""
        data, last = self.data, len(self.data) + 1
        for edit in sorted(set(edits), reverse=True):
            if edit.end > last:
                raise ValueError("two edits overlap")
            data, last = data[: edit.start] + edit.text.encode() + data[edit.end :], edit.start
        return data.decode()

    def changes(self, edits: Sequence[Edit]) -> bool:
        """Whether edits change the text: not those of a layer that was replaced after its line ran."""
        return self.applied(edits) != self.text

    def segment_after(self, node: ast.expr, edits: Sequence[Edit]) -> str:
        """The text of a node after edits within it."""
        start, end = self.span(node)
        after = self.applied(edits).encode()
        return after[start : len(after) - (len(self.data) - end)].decode()

    def lines_around(self, edits: Sequence[Edit]) -> tuple[list[str], list[str]]:
        """The lines that edits change, before and after them, without indentation."""
        start = self._starts[self.line_number(min(edit.start for edit in edits)) - 1]
        end = max(edit.end for edit in edits)
        end = next((line for line in self._starts if line >= end and line > start), len(self.data))
        rest = len(self.data) - end
        after = self.applied(edits).encode()
        sides = self.data[start:end], after[start : len(after) - rest]
        before, changed = ([line.strip().decode() for line in side.splitlines()] for side in sides)
        return before, changed

    def with_argument(self, call: ast.Call, names: Sequence[str], name: str, value: str | None) -> Edit | None:
        """Give a call the argument `name` with this value, or its default if that is None.

        `names` are those of the positional arguments, in order. None if a * in the call hides where it is, and if other
        positional arguments come after one that should have its default.
        """
        for keyword in call.keywords:
            if keyword.arg == name:
                return self._without_argument(call, keyword) if value is None else self.replaced(keyword.value, value)
        place = names.index(name) if name in names else len(call.args)
        if place < len(call.args):
            return self._with_positional(call, place, value)
        if value is None:
            return None
        _, end = self.span(call)
        given: list[ast.expr | ast.keyword] = [*call.args, *call.keywords]
        if given:
            after = max(self.span(argument)[1] for argument in given)
            return Edit(self.file, after, after, f", {name}={value}")
        return Edit(self.file, end - 1, end - 1, f"{name}={value}")

    def _with_positional(self, call: ast.Call, place: int, value: str | None) -> Edit | None:
        if any(isinstance(argument, ast.Starred) for argument in call.args[: place + 1]):
            return None
        if value is not None:
            return self.replaced(call.args[place], value)
        is_last = place == len(call.args) - 1
        return self._without_argument(call, call.args[place]) if is_last else None

    def _without_argument(self, call: ast.Call, argument: ast.expr | ast.keyword) -> Edit:
        given: list[ast.expr | ast.keyword] = sorted([*call.args, *call.keywords], key=self.span)
        place = given.index(argument)
        start, end = self.span(argument)
        if place:
            return Edit(self.file, self.span(given[place - 1])[1], end, "")
        return Edit(self.file, start, self.span(given[1])[0] if len(given) > 1 else end, "")

    def siblings(self, node: ast.expr) -> Sequence[ast.expr]:
        """The elements of the list, or the positional arguments of the call, that a node is one of; else nothing."""
        around = self.parents.get(node)
        if isinstance(around, (ast.List, ast.Tuple)):
            return around.elts
        if isinstance(around, ast.Call) and node in around.args:
            return around.args
        return ()

    def inserted(self, node: ast.expr, texts: Sequence[str]) -> Edit:
        """Insert elements after a node, on lines of their own if it has one alone."""
        start, end = self.span(node)
        line = self.line(node.lineno)
        indent = line[: len(line) - len(line.lstrip())]
        is_last = all(other is node or other.lineno != node.end_lineno for other in self.siblings(node))
        has_line = self._starts[node.lineno - 1] + len(indent.encode()) == start and is_last
        comma = f",\n{indent}" if has_line else ","
        space = "" if has_line else " "
        return Edit(self.file, end, end, "".join(f"{comma}{space}{text}" for text in texts))

    def removed(self, node: ast.expr) -> Edit | None:
        """Remove an element of a list or a positional argument, with its line if it has one; None for anything else."""
        elements = self.siblings(node)
        if not elements:
            return None
        place = elements.index(node)
        start, end = self.span(node)
        before, after = self._starts[node.lineno - 1], self._starts[node.end_lineno or node.lineno]
        rest = self.data[end:after].strip()
        if not self.data[before:start].strip() and rest in (b",", b""):
            return Edit(self.file, before, after, "")
        if place + 1 < len(elements):
            return Edit(self.file, start, self.span(elements[place + 1])[0], "")
        return Edit(self.file, self.span(elements[place - 1])[1], end, "") if place else None

    def line_inserted(self, statement: ast.stmt, text: str) -> Edit | None:
        """Insert a line after a statement, as far indented; None if the statement has no line of its own."""
        start, end = self.span(statement)
        before, after = self._starts[statement.lineno - 1], self._starts[statement.end_lineno or statement.lineno]
        rest = self.data[end:after].strip()
        if self.data[before:start].strip() or (rest and not rest.startswith(b"#")):
            return None
        at = before + len(self.data[before:after].rstrip(b"\r\n"))
        indent = self.data[before:start].decode()
        return Edit(self.file, at, at, "".join(f"\n{indent}{line}" for line in text.split("\n")))

    def statement_inserted(self, statement: ast.Assign, text: str) -> Edit:
        """Insert a simple statement after one: in a line of its own, or in the same line if that has others too."""
        _, end = self.span(statement)
        return self.line_inserted(statement, text) or Edit(self.file, end, end, f"; {text}")

    def assigned_to(self, call: ast.expr) -> str:
        """The name to which a line of its own assigns the value of a call; empty if there is no such line."""
        statement = self.parents.get(call)
        target = statement.targets[0] if isinstance(statement, ast.Assign) and len(statement.targets) == 1 else None
        has_line = isinstance(statement, ast.Assign) and self.line_inserted(statement, "") is not None
        return target.id if has_line and isinstance(target, ast.Name) else ""

    def after_call(self, call: ast.expr, text: str) -> Edit:
        """An expression of the value of a call: in a line after it, if that assigns the value to a name."""
        name, statement = self.assigned_to(call), self.parents.get(call)
        line = self.line_inserted(statement, f"{name} = {text}") if name and isinstance(statement, ast.Assign) else None
        return line or self.replaced(call, text)

    def around(self, node: ast.AST, kind: type[Around]) -> Around | None:
        """The innermost node of a kind around a node."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, kind):
                return node
        return None

    def before_call(self, call: ast.Call, function: str) -> Edit:
        """Call a function on the argument of a call: in a line before it, if the call changes a name in a line."""
        name = self.assigned_to(call)
        if len(call.args) == 1 and name == self.segment(call.args[0]):
            line = self.line(call.lineno)
            indent = line[: len(line) - len(line.lstrip())]
            at = len(self.data[: self._starts[call.lineno - 1]].rstrip(b"\r\n"))
            return Edit(self.file, at, at, f"\n{indent}{name} = {function}({name})")
        argument = call.args[0] if call.args else call
        return self.replaced(argument, f"{function}({self.segment(argument)})")

    def entries_inserted(self, node: ast.expr, names: Sequence[str], texts: Sequence[str]) -> Edit | None:
        """Insert layers after a node that is an element of a list, an argument of a container, or the one that `append`
        takes; `names` are those of layers in a container of pairs.
        """
        around = self.parents.get(node)
        if self._named(node) is not None:
            return self.inserted(self._named(node) or node, [f'("{n}", {text})' for n, text in zip(names, texts)])
        if not isinstance(around, ast.Call):
            return self.inserted(node, texts) if self.siblings(node) else None
        name = around.func.attr if isinstance(around.func, ast.Attribute) else getattr(around.func, "id", "")
        if name == "append" and around.args == [node]:
            statement, call = self.parents.get(around), self.segment(around.func)
            lines = "\n".join(f"{call}({text})" for text in texts)
            return self.line_inserted(statement, lines) if isinstance(statement, ast.Expr) else None
        return self.inserted(node, texts) if name[:1].isupper() and node in around.args else None

    def entry_removed(self, node: ast.expr) -> Edit | None:
        """Remove an element of a list, with its name if the list is of pairs, or the line that appends it."""
        around = self.parents.get(node)
        statement = self.parents.get(around) if isinstance(around, ast.Call) else None
        if isinstance(around, ast.Call) and isinstance(statement, ast.Expr) and around.args[-1:] == [node]:
            is_added = isinstance(around.func, ast.Attribute) and around.func.attr in ("append", "add_module")
            return self.line_removed(statement) if is_added else None
        return self.removed(self._named(node) or node)

    def _named(self, node: ast.expr) -> ast.Tuple | None:
        """The pair of a name and a layer in a list, as `OrderedDict` takes them."""
        around = self.parents.get(node)
        if not isinstance(around, ast.Tuple) or len(around.elts) != 2 or around.elts[1] is not node:
            return None
        is_name = isinstance(around.elts[0], (ast.JoinedStr, ast.Constant)) and self.siblings(around)
        return around if is_name else None

    def line_removed(self, statement: ast.stmt) -> Edit | None:
        """Delete a statement that has lines of its own."""
        start, end = self.span(statement)
        before, after = self._starts[statement.lineno - 1], self._starts[statement.end_lineno or statement.lineno]
        is_alone = not self.data[before:start].strip() and not self.data[end:after].strip()
        return Edit(self.file, before, after, "") if is_alone else None

    def unwrapped(self, call: ast.expr, value: ast.expr) -> Edit:
        """Put a value in the place of a call around it. A line that would assign a variable to itself is deleted."""
        around = self.parents.get(call)
        text = self.segment(value)
        if isinstance(around, ast.Assign) and [self.segment(target) for target in around.targets] == [text]:
            return self.line_removed(around) or self.replaced(call, text)
        return self.replaced(call, text)

    def rows(self, node: ast.AST) -> Iterator[tuple[ast.expr, list[object]]]:
        """The lists and tuples of constants that are elements of a list or tuple below a node, with their values."""
        for inner in ast.walk(node):
            for row in inner.elts if isinstance(inner, (ast.List, ast.Tuple)) else ():
                if isinstance(row, (ast.List, ast.Tuple)) and all(isinstance(e, ast.Constant) for e in row.elts):
                    yield row, [element.value for element in row.elts if isinstance(element, ast.Constant)]

    def elements(self, node: ast.AST) -> Iterator[ast.expr]:
        """The constants of the lists, tuples and calls below a node, in the order of the text."""
        found = [
            element
            for inner in ast.walk(node)
            if isinstance(inner, (ast.List, ast.Tuple, ast.Call))
            for element in (inner.args if isinstance(inner, ast.Call) else inner.elts)
            if isinstance(element, ast.Constant)
        ]
        yield from sorted(found, key=self.span)


@lru_cache(maxsize=4)
def parsed(file: str, text: str) -> CodeFile:
    """The CodeFile of a text; the last four are kept, since a program compares a file's models one after another."""
    return CodeFile(file, text)


def _place(node: ast.expr | ast.keyword | ast.stmt) -> tuple[int, int, int, int]:
    return node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def is_in_loop(source: CodeFile, node: ast.AST) -> bool:
    """Whether a loop or a comprehension is around an expression in its function."""
    while node in source.parents and not isinstance(node, (ast.FunctionDef, ast.ClassDef)):
        node = source.parents[node]
        if isinstance(node, (ast.For, ast.While, ast.comprehension, ast.ListComp, ast.GeneratorExp)):
            return True
    return False
