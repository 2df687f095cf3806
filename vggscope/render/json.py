"""Results as JSON (docs/json.md): the fields under their own names, raw integers, null for unknown values.

A class may name the attributes to write in `json_names`, or give the whole text as `json_text`. A field with the
metadata `json: False` is left out.
"""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from typing import Any

_EXACT = frozenset({str, int, bool, type(None)})
"""Types whose values JSON holds as they are."""


def write(result: object) -> str:
    """The result as JSON. Lists of scalars stay on one line."""
    text = getattr(result, "json_text", None)
    return text if isinstance(text, str) else _text(json_value(result), "") + "\n"


def json_value(value: object) -> Any:
    """The value as plain dicts, lists and scalars. A number that JSON cannot hold, such as infinity, is None."""
    if type(value) in _EXACT:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: json_value(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, dict):
        return {str(key): json_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [json_value(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The attributes of a dataclass that are written."""
    written = (field.name for field in fields(kind) if field.metadata.get("json", True))
    return tuple(getattr(kind, "json_names", None) or written)


def _text(value: object, indent: str) -> str:
    if type(value) is str:
        return json.dumps(value)
    if type(value) is int:
        return str(value)
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        items = (f"{deeper}{json.dumps(key)}: {_text(item, deeper)}" for key, item in value.items())
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return "[\n" + ",\n".join(deeper + _text(item, deeper) for item in value) + f"\n{indent}]"
    return json.dumps(value)
