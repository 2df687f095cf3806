"""Sizes that torch.export writes as expressions of symbols, evaluated for chosen values of the symbols.

The text of an expression is that of sympy's srepr: `Mul(Integer(12), Symbol('s77', positive=True, integer=True))`.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping
from math import prod
from typing import Any

LONGEST = 1000
"""The most characters of an expression that is evaluated."""

LARGEST = 2**63
"""The size of numbers at which an evaluation ends."""


class Sizes:
    """Evaluates sizes with these values of symbols; without any, those of the example that the file was made with."""

    def __init__(self, symbols: Mapping[str, int]) -> None:
        self.symbols = dict(symbols)
        self._known: dict[str, int | None] = {}

    def of(self, size: Any) -> int | None:
        """The value of a size in the file: {"as_int": 3} or {"as_expr": {"expr_str": ..., "hint": ...}}; else None."""
        if not isinstance(size, dict):
            return None
        if "as_int" in size:
            return _count(size["as_int"])
        expression = size.get("as_expr")
        if not isinstance(expression, dict):
            return None
        text = expression.get("expr_str")
        if isinstance(text, str) and len(text) <= LONGEST:
            if text not in self._known:
                self._known[text] = _evaluated(text, self.symbols)
            if self._known[text] is not None:
                return self._known[text]
        return hint_of(size) if not self.symbols else None


def hint_of(size: Any) -> int | None:
    """The value that a size had in the example that the file was made with; None if it is not told."""
    expression = size.get("as_expr") if isinstance(size, dict) else None
    hint = expression.get("hint") if isinstance(expression, dict) else None
    return _count(hint.get("as_int")) if isinstance(hint, dict) else None


def symbol_of(size: Any) -> str:
    """The symbol that a size is, empty for a number and for any other expression.

    >>> symbol_of({"as_expr": {"expr_str": "Symbol('s7', positive=True, integer=True)", "hint": {"as_int": 2}}})
    's7'
    """
    expression = size.get("as_expr") if isinstance(size, dict) else None
    text = expression.get("expr_str") if isinstance(expression, dict) else None
    tree = _parsed(text) if isinstance(text, str) and len(text) <= LONGEST else None
    return _name(tree) if isinstance(tree, ast.Call) else str(tree.id) if isinstance(tree, ast.Name) else ""


def solved(size: Any, value: int, symbols: Mapping[str, int]) -> tuple[str, int] | None:
    """The one unknown symbol of a size and what it is where the size has this value; None if that is not told.

    The size is linear in the symbol, as the sides are that an exported program takes: `2*h` or `h + 1`.

    >>> solved({"as_expr": {"expr_str": "Mul(Integer(2), Symbol('s7', positive=True))"}}, 32, {})
    ('s7', 16)
    """
    expression = size.get("as_expr") if isinstance(size, dict) else None
    text = expression.get("expr_str") if isinstance(expression, dict) else None
    tree = _parsed(text) if isinstance(text, str) and len(text) <= LONGEST else None
    names = {name for node in ast.walk(tree) if (name := _symbol(node))} - symbols.keys() if tree else set()
    if len(names) != 1:
        return None
    symbol = names.pop()
    at_one, at_two = (_at(tree, symbols, symbol, trial) for trial in (1, 2))
    if at_one is None or at_two is None or at_one == at_two:
        return None
    found = 1 + (value - at_one) // (at_two - at_one)
    return (symbol, found) if found > 0 and _at(tree, symbols, symbol, found) == value else None


def _at(tree: ast.expr | None, symbols: Mapping[str, int], symbol: str, trial: int) -> int | None:
    """The value of an expression where a symbol has this value; None for an unknown one."""
    try:
        return None if tree is None else _value(tree, {**symbols, symbol: trial})
    except _UNKNOWN:
        return None


def _symbol(node: ast.AST) -> str:
    """The symbol that a part of an expression is; empty for any other part."""
    if isinstance(node, ast.Call):
        return _name(node)
    return node.id if isinstance(node, ast.Name) and node.id not in (*_FUNCTIONS, "Symbol") else ""


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < LARGEST else None


def _parsed(text: str) -> ast.expr | None:
    try:
        return ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return None


def _evaluated(text: str, symbols: Mapping[str, int]) -> int | None:
    tree = _parsed(text)
    try:
        value = None if tree is None else _value(tree, symbols)
    except _UNKNOWN:
        return None
    return value if value is not None and 0 <= value < LARGEST else None


_UNKNOWN = (LookupError, ArithmeticError, TypeError, ValueError, RecursionError)
"""The errors of an expression that has no value."""


def _name(call: ast.Call) -> str:
    """The name of `Symbol('s7', ...)`, empty for another call."""
    is_symbol = isinstance(call.func, ast.Name) and call.func.id == "Symbol" and call.args
    name = call.args[0] if is_symbol else None
    return name.value if isinstance(name, ast.Constant) and isinstance(name.value, str) else ""


def _value(tree: ast.expr, symbols: Mapping[str, int]) -> int:
    """The value of an expression. Raises one of _UNKNOWN for an unknown one."""
    if isinstance(tree, ast.Constant) and type(tree.value) is int:
        return _bounded(tree.value)
    if isinstance(tree, ast.UnaryOp) and isinstance(tree.op, ast.USub):
        return -_value(tree.operand, symbols)
    if isinstance(tree, ast.Name):
        return symbols[tree.id]
    if not isinstance(tree, ast.Call) or not isinstance(tree.func, ast.Name):
        raise TypeError(tree)
    if name := _name(tree):
        return symbols[name]
    values = [_value(argument, symbols) for argument in tree.args]
    return _bounded(_FUNCTIONS[tree.func.id](*values))


def _bounded(value: int) -> int:
    if abs(value) >= LARGEST:
        raise OverflowError(value)
    return value


def _power(base: int, exponent: int) -> int:
    if not 0 <= exponent < 64:
        raise OverflowError(exponent)
    return int(base**exponent)


def _divided(value: int, divisor: int) -> int:
    if value % divisor:
        raise ValueError(divisor)
    return value // divisor


_FUNCTIONS: dict[str, Callable[..., int]] = {
    "Integer": int,
    "Add": lambda *values: sum(values),
    "Mul": lambda *values: prod(values),
    "Pow": _power,
    "Max": max,
    "Min": min,
    **dict.fromkeys(("Mod", "PythonMod"), lambda value, divisor: value % divisor),
    "FloorDiv": lambda value, divisor: value // divisor,
    "CleanDiv": _divided,
}
"""sympy's functions of integers, and torch's."""
