"""The figures that `compare` shows of a library's model, as the text of an entry of the cache, and back, exactly.

A text creates the records that a row of a comparison has, with values of the types that their fields declare, and
nothing else.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar, get_type_hints

from vggscope.analysis.compare import Compared, LastConvolution
from vggscope.analysis.receptive_field.result import LayerField
from vggscope.analysis.receptive_field.view import ReceptiveField
from vggscope.analysis.tensors import TensorSummary
from vggscope.graph_json import decode

Figures = TypeVar("Figures", Compared, LastConvolution, LayerField, ReceptiveField, TensorSummary)

_KINDS = {
    cls.__name__: get_type_hints(cls) for cls in (Compared, LastConvolution, LayerField, ReceptiveField, TensorSummary)
}
"""The types of each record's fields."""


def packed(row: Compared) -> bytes:
    """Return a row as JSON. Raises ValueError for that of a network that fails, or if it would not read back."""
    text = json.dumps(_values(row), separators=(",", ":"))
    if row.failure is not None or repr(unpacked(text.encode())) != repr(row):
        raise ValueError(f"{row.model} fails, or its figures read back as others")
    return text.encode()


def _values(row: Compared) -> dict[str, object]:
    last = row.last_convolution
    field = None if last is None else last.receptive_field
    return {
        **vars(row),
        "last_convolution": last and {**vars(last), "receptive_field": field and vars(field)},
        "last_map": row.last_map and vars(row.last_map),
        "inputs": [vars(tensor) for tensor in row.inputs],
    }


def unpacked(data: bytes) -> Compared:
    """Return the row that `packed` wrote. Raises ValueError, or another error of decoding, for any other data.

    >>> from vggscope.analysis.compare import compared
    >>> from vggscope.sources.resolve import resolve
    >>> row = compared(resolve("A"))
    >>> unpacked(packed(row)) == row
    True
    """
    values: dict[str, Any] = json.loads(data)
    last, mapped, inputs = values.pop("last_convolution"), values.pop("last_map"), values.pop("inputs")
    if last is not None:
        field = last.pop("receptive_field")
        last = _record(LastConvolution, last, receptive_field=field and _record(ReceptiveField, field))
    mapped = mapped and _record(LayerField, mapped)
    tensors = tuple(_record(TensorSummary, tensor) for tensor in inputs)
    return _record(Compared, values, last_convolution=last, last_map=mapped, inputs=tensors)


def _record(cls: type[Figures], values: dict[str, object], **parts: Any) -> Figures:
    """Return a record with plain values of its fields' types, and with `parts` that are records themselves."""
    kinds = _KINDS[cls.__name__]
    if values.keys() | parts.keys() != kinds.keys():
        raise ValueError(f"a {cls.__name__} has other fields")
    decoded: dict[str, Any] = {name: decode(kinds[name], value) for name, value in values.items()}
    return cls(**decoded, **parts)
