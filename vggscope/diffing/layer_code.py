"""A layer of the reference as code of the user's: its class or function, its arguments, a call around an expression."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

from vggscope.diffing.code_edits import CodeFile, Edit
from vggscope.diffing.result import Change
from vggscope.diffing.wording import op_text
from vggscope.graph import Node
from vggscope.ops.base import Op, scalar


def other_call(source: CodeFile, call: ast.Call, mine: Node, other: Node, *, whole: bool) -> Edit | None:
    """Call another class or function in place of the one of a layer; `whole` with other arguments too."""
    if other.op.is_layout and mine.module is None and isinstance(call.func, ast.Attribute):
        value = argument_of(call)
        return source.replaced(call, f"{source.segment(value)}.flatten(1)") if value is not None else None
    name = call.func.attr if isinstance(call.func, ast.Attribute) else ""
    prefix = source.segment(call.func)[: -len(name)] if name else ""
    if whole:
        return source.replaced(call, f"{prefix}{op_text(other.op)}") if mine.module is not None else None
    if not _takes_arguments(call, argument_names(mine), argument_names(other)):
        if mine.module is not None or not call.args:
            return None
        return source.replaced(call, f"{prefix}{_function_call(other, source.segment(call.args[0]))}")
    return source.replaced(call.func, f"{prefix}{_function(other) if mine.module is None else other.op.name}")


def _takes_arguments(call: ast.Call, ours: list[str], others: list[str]) -> bool:
    """Whether another function takes the arguments of a call in the same meaning; `ours` and `others` are the names."""
    names = [keyword.arg for keyword in call.keywords]
    positions = range(len(call.args))
    return all(name in others for name in names) and all(ours[i : i + 1] == others[i : i + 1] for i in positions)


def other_argument(source: CodeFile, call: ast.Call, mine: Node, other: Node, attribute: str) -> Edit | None:
    """Give the call of a layer an argument as in the reference."""
    names = argument_names(mine)
    if attribute == "active_in":
        return source.with_argument(call, names, "training", "self.training")
    name = "padding" if attribute == "same" else attribute  # the field of padding="same"
    value = other.op.arguments().get(name)
    edit = source.with_argument(call, names, name, None if value is None else repr(value))
    if edit is None and value is None:  # the default, at a place where an argument must stand
        edit = source.with_argument(call, names, name, repr(scalar(getattr(other.op, name))))
    return edit


def argument_names(node: Node) -> list[str]:
    """The positional arguments of torch's class or function, in order: `inplace` is the last one of each."""
    names = sorted((field.name for field in fields(node.op) if field.repr), key="inplace".__eq__)
    if node.module is not None:
        return names
    return ["input", "p", "training", "inplace"] if node.op.is_dropout else ["input", *names]


def differing(ours: Op, reference: Op) -> list[Change]:
    """The attributes that differ, with the width that follows from the input."""
    names = [field.name for field in fields(ours) if field.compare and field.name != "inplace"]
    found = [Change(n, getattr(ours, n), getattr(reference, n, None)) for n in names]
    if ours.active_in != reference.active_in:
        found.append(Change("active_in", ours.active_in, reference.active_in))
    return [change for change in found if change.ours != change.reference]


def numbers(ours: Op, reference: Op) -> list[tuple[int, int]]:
    """The numbers that differ, of a window each once."""
    found = []
    for change in differing(ours, reference) if ours.name == reference.name else []:
        sides = [v if isinstance(v, tuple) else (v,) for v in (change.ours, change.reference)]
        found += [(a, b) for a, b in zip(*sides) if type(a) is int and type(b) is int]
    return list(dict.fromkeys(found))


def _function(node: Node) -> str:
    """The name of an op in torch.nn.functional: max_pool2d of MaxPool2d, leaky_relu of LeakyReLU."""
    return re.sub(r"(?<=[a-z])(?=[A-Z][a-z])|(?<=[a-z])(?=ReLU)", "_", node.op.name).lower()


def has_code(other: Node) -> bool:
    """Whether a class or a function of torch.nn makes a layer: its op is named as the class."""
    return other.module is not None or other.op.is_layout or other.op.name[:1].isupper()


def layer_text(other: Node) -> str:
    """A layer of the reference as code: a module."""
    return f"nn.{op_text(other.op)}"


def with_width(text: str, source: CodeFile, call: ast.expr, before: Node | None) -> str:
    """The code of a layer with its input width as the call of the layer before writes its own: `cout` for 64.

    A function or a loop makes layers of several widths by one call.
    """
    shape = before.op.parameters().get("weight") if before is not None else None
    if before is None or not shape or not isinstance(call, ast.Call):
        return text
    names = argument_names(before)
    widths = [name for name in names if name.endswith(("_channels", "_features"))]
    given: dict[str | None, ast.expr] = dict(zip(names, call.args))
    given.update((keyword.arg, keyword.value) for keyword in call.keywords)
    width = given.get(widths[-1]) if widths else None
    if width is None or isinstance(width, (ast.Constant, ast.Starred)):
        return text
    written = source.segment(width)
    return re.sub(rf"(?<=\(){shape[0]}\b", lambda _: written, text, count=1)


def around(other: Node, text: str, source: CodeFile) -> str:
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


def call_name(source: CodeFile, call: ast.expr) -> str:
    """What the text calls a function, as `F.relu`, or a tensor's method, as `.relu()`; empty for other expressions."""
    if not isinstance(call, ast.Call):
        return ""
    func = call.func
    if isinstance(func, ast.Attribute) and is_value(func.value):
        return f".{func.attr}()"
    return source.segment(func)


def argument_of(call: ast.Call) -> ast.expr | None:
    """The value that a function or a tensor's method takes: its first argument, or the tensor."""
    if isinstance(call.func, ast.Attribute) and is_value(call.func.value):
        return call.func.value
    return next(iter(call.args), None)


def is_value(node: ast.expr) -> bool:
    """Whether an expression may be a tensor of which a method is called: not a module's name, such as `F`."""
    return not (isinstance(node, ast.Name) and node.id in ("F", "nn", "torch", "functional")) and not (
        isinstance(node, ast.Attribute) and node.attr == "functional"
    )
