"""The sizes that a user gives for a model's inputs: `3x224x224`, `ids=128:int64`, `scalar`."""

from __future__ import annotations

import re

from vggscope.errors import OptionError
from vggscope.record import record

DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
"""torch's names of the dtypes that an input may have."""

SCALAR = "scalar"
"""The size of a tensor without axes."""

_SIZE = re.compile(r"(?:(?P<name>[^\W\d]\w*)=)?(?P<size>[^:=]*)(?::(?P<dtype>\w+))?")

EXAMPLES = "3x224x224, 1x16000, 128:int64, mask=128:bool or scalar"


@record
class InputSize:
    """One input of a model: its `shape` without the batch axis, and torch's name of its dtype.

    With a `name` it is passed by keyword. An empty `dtype` is the model's own floating type.
    """

    shape: tuple[int, ...]
    name: str = ""
    dtype: str = ""


def parse_input(text: str) -> InputSize:
    """Read `[NAME=]SIZE[:DTYPE]`.

    Raises OptionError for anything else.

    >>> parse_input("3x224x224"), parse_input("mask=128:bool").dtype, parse_input("scalar").shape
    (InputSize(shape=(3, 224, 224), name='', dtype=''), 'bool', ())
    """
    match = _SIZE.fullmatch(text.strip())
    sides = None if match is None else _sides(match["size"].strip().lower())
    if match is None or sides is None:
        raise OptionError(f"--input {text}: not a size", f"write {EXAMPLES}")
    dtype = (match["dtype"] or "").removeprefix("torch.")
    if dtype and dtype not in DTYPES:
        raise OptionError(f"--input {text}: unknown dtype {dtype!r}", f"dtypes are {', '.join(DTYPES)}")
    return InputSize(sides, match["name"] or "", dtype)


def _sides(text: str) -> tuple[int, ...] | None:
    if text == SCALAR:
        return ()
    parts = re.split("[x×,]", text)
    if not all(re.fullmatch(r"\d{1,9}", part.strip(), re.ASCII) for part in parts):
        return None
    sides = tuple(int(part) for part in parts)
    return sides if all(sides) else None
