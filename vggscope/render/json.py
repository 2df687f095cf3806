"""Results as JSON (docs/json.md): the fields under their own names, raw integers, null for unknown values."""

from __future__ import annotations

import json

from vggscope.plain_data import plain_value


def write(result: object) -> str:
    """The result as JSON. Lists of scalars stay on one line."""
    text = getattr(result, "json_text", None)
    return text if isinstance(text, str) else _text(plain_value(result), "") + "\n"


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
