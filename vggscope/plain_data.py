"""Results as plain data: dicts and lists for JSON, and columns for pandas, polars and pyarrow.

A class may name the attributes to write in `json_names`, or give the whole text as `json_text`. A field with the
metadata `json: False` is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from math import isfinite
from typing import TYPE_CHECKING, Any

from vggscope.errors import MissingTool, unknown

if TYPE_CHECKING:
    from pandas import DataFrame as DataFrame  # noqa: PLC0414  # result.py names it

LARGEST_INT64 = 2**63 - 1

_EXACT = frozenset({str, int, bool, type(None)})
"""Types whose values JSON holds as they are."""


def plain_value(value: object) -> Any:
    """The value as plain dicts, lists and scalars. A number that JSON cannot hold, such as infinity, is None."""
    if type(value) in _EXACT:
        return value
    if is_dataclass(value) and not isinstance(value, type):
        return {name: plain_value(getattr(value, name)) for name in _names(type(value))}
    if isinstance(value, dict):
        return {str(key): plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain_value(item) for item in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def plain_fields(result: object) -> dict[str, Any]:
    """The fields of a result that its JSON has."""
    import json

    text = getattr(result, "json_text", None)
    found: dict[str, Any] = json.loads(text) if isinstance(text, str) else plain_value(result)
    return found


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The attributes of a dataclass that are written."""
    written = (field.name for field in fields(kind) if field.metadata.get("json", True))
    return tuple(getattr(kind, "json_names", None) or written)


def columns_of(rows: Sequence[object], kind: type) -> dict[str, list[Any]]:
    """The values of records of one `kind` by field. A field that is a record becomes a column for each of its fields.

    >>> from vggscope.analysis.receptive_field.result import Box, EnergyBox
    >>> columns_of([EnergyBox(50, Box((0,), (9,)), 0.6)], EnergyBox)
    {'percent': [50], 'box_first': [[0]], 'box_last': [[9]], 'share': [0.6]}
    """
    return dict(_columns(rows, kind, ""))


def _columns(rows: Sequence[object], kind: type, prefix: str) -> Iterator[tuple[str, list[Any]]]:
    for name in _names(kind):
        values = [None if row is None else getattr(row, name) for row in rows]
        nested = next((type(v) for v in values if is_dataclass(v) and not isinstance(v, type)), None)
        if nested is not None:
            yield from _columns(values, nested, f"{prefix}{name}_")
        else:
            yield prefix + name, [plain_value(value) for value in values]


def pandas_frame(columns: Mapping[str, list[Any]], names: Sequence[str] | None = None) -> DataFrame:
    """A dataframe of the columns with these `names`, of all if left out.

    Raises OptionError for an unknown name, and MissingTool where pandas is not installed.
    """
    for name in names or ():
        if name not in columns:
            raise unknown("column", name, columns, "columns")
    try:
        import pandas
    except ImportError:
        raise MissingTool("a dataframe needs pandas, which is not installed", "pip install pandas") from None
    chosen = columns if names is None else {name: columns[name] for name in names}
    # pandas would turn whole numbers beside None into floats, which are exact up to 2^53 only.
    series = {
        name: pandas.array(values, dtype="Int64") if None in values and _are_whole(values) else values
        for name, values in chosen.items()
    }
    frame: DataFrame = pandas.DataFrame(series)
    return frame


def arrow_stream(columns: Mapping[str, list[Any]], requested_schema: object = None) -> object:
    """A capsule with the columns as a stream of Arrow's C interface.

    Raises MissingTool unless pyarrow or polars is installed.
    """
    exact = {name: _decimals(values) for name, values in columns.items()}
    try:
        import pyarrow
    except ImportError:
        pass
    else:
        return pyarrow.table(exact).__arrow_c_stream__(requested_schema)
    try:
        import polars
    except ImportError:
        raise MissingTool("an Arrow stream needs pyarrow or polars", "pip install pyarrow") from None
    return polars.DataFrame(exact, strict=False).__arrow_c_stream__(requested_schema)


def _are_whole(values: Sequence[object]) -> bool:
    """Whether all values that are known are integers of 64 bits, and any is known."""
    known = [value for value in values if value is not None]
    return bool(known) and all(type(value) is int and abs(value) <= LARGEST_INT64 for value in known)


def _decimals(values: list[Any]) -> list[Any]:
    """The values, as decimals if an integer among them needs more than 64 bits."""
    if not any(type(value) is int and abs(value) > LARGEST_INT64 for value in values):
        return values
    from decimal import Decimal

    return [None if value is None else Decimal(value) for value in values]
