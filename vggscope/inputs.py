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
    """The size of one input: its `shape`, and torch's name of its dtype, the model's floating type if empty.

    With a `name` it is passed by keyword. `batched` tells whether `shape` holds the batch axis; None leaves that to the
    model's first layer, which takes a known number of axes.
    """

    shape: tuple[int, ...]
    name: str = ""
    dtype: str = ""
    batched: bool | None = False


@record
class Inputs:
    """What a caller gives a forward: `sizes`, or `data` (tensors, as `trace.inputs.from_data` takes them).

    `batch_axis` is the axis along which samples lie; None for a forward without a batch.
    """

    sizes: tuple[InputSize, ...] = ()
    batch_axis: int | None = 0
    data: object = None

    @property
    def is_one_image(self) -> bool:
        """Whether the only size has the axes of an image, channels, height and width, with or without the batch."""
        size = self.sizes[0] if len(self.sizes) == 1 and self.batch_axis == 0 else None
        if size is None or size.name or size.dtype:
            return False
        return len(size.shape) == 3 or (len(size.shape) == 4 and size.batched is not False)

    def image_shape(self, channels: int) -> tuple[int, ...]:
        """The one image that the inputs are, as (channels, height, width); a single number is its side.

        Raises OptionError for any other inputs.
        """
        size = self.sizes[0] if len(self.sizes) == 1 and self.batch_axis == 0 else None
        shape = () if size is None or size.name or size.dtype not in ("", "float32") else size.shape
        if size is not None and size.batched is not False and len(shape) == 4:
            shape = shape[1:]
        if len(shape) == 1:
            shape = (channels, *shape * 2)
        if len(shape) != 3:
            raise OptionError("a VGG takes one image", "give --input as channels x height x width: --input 3x224x224")
        return shape


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


def parse_batch_axis(text: str) -> int | None:
    """Read the position of the batch axis, or `none`. Raises OptionError for anything else.

    >>> parse_batch_axis("1"), parse_batch_axis("none")
    (1, None)
    """
    if text.lower() == "none":
        return None
    if not re.fullmatch(r"\d", text, re.ASCII):
        raise OptionError(f"--batch-axis {text}: no axis", "write 0, 1, ... or none")
    return int(text)


def _sides(text: str) -> tuple[int, ...] | None:
    if text == SCALAR:
        return ()
    parts = re.split("[x×,]", text)
    if not all(re.fullmatch(r"\d{1,9}", part.strip(), re.ASCII) for part in parts):
        return None
    sides = tuple(int(part) for part in parts)
    return sides if all(sides) else None
