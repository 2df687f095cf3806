"""Sizes of a model's inputs as a user writes them: `3x224x224`, `ids=128:int64`, `scalar`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vggscope.errors import OptionError, option
from vggscope.record import record
from vggscope.units import image_option

DTYPES = (
    *("float32", "float64", "float16", "bfloat16", "complex64", "complex128"),
    *("int64", "int32", "int16", "int8", "uint8", "bool"),
)
"""Names of the torch dtypes that an input may have."""

SCALAR = "scalar"
"""The text for the size of a tensor without axes, a batch axis included."""

_SIZE = re.compile(r"(?:(?P<name>[^\W\d]\w*)=)?(?P<size>[^:=]*)(?::(?P<dtype>\w+))?")

EXAMPLES = "3x224x224, 1x16000, 128:int64, mask=128:bool, :int64 (a number per sample) or scalar"


@record
class InputSize:
    """The size of one input.

    - `name` is the keyword argument of forward; empty for a positional argument.
    - `dtype` is the name of a torch dtype; empty for the model's floating-point dtype.
    - `batched` is whether `shape` includes the batch axis. None decides by the first layer's number of axes.
    - `per_sample` is whether an empty `shape` stands for one number per sample: the batch axis is its only one.
    """

    shape: tuple[int, ...]
    name: str = ""
    dtype: str = ""
    batched: bool | None = False
    per_sample: bool = False

    def for_one(self, batch_axis: int | None) -> tuple[int, ...]:
        """The shape with a batch of one at `batch_axis`; as it is if it includes the batch or there is none.

        >>> InputSize((5, 8)).for_one(1), InputSize((5, 8)).for_one(None)
        ((5, 1, 8), (5, 8))
        """
        if self.batched or batch_axis is None:
            return self.shape
        return (*self.shape[:batch_axis], 1, *self.shape[batch_axis:])

    def for_stated(self, stated: Sequence[object], batch_axis: int | None) -> tuple[int, ...]:
        """The shape with a batch of one at `batch_axis`, for an input whose axes a file states, the batch among them.

        A size with all of these axes includes the batch, unless it is one without (`batched` is false) that the file
        does not fix.

        >>> InputSize((1, 5, 16)).for_stated((1, 5, 16), 0), InputSize((5, 16)).for_stated((1, 5, 16), 0)
        ((1, 5, 16), (1, 5, 16))
        >>> InputSize((4, 5, 16), batched=None).for_stated(("batch", 5, 16), 0)
        (1, 5, 16)

        A single number is the side of an image with the channels that the file states.

        >>> InputSize((32,)).for_stated(("batch", 3, "h", "w"), 0)
        (1, 3, 32, 32)
        """
        channels = stated[1] if len(stated) == 4 and batch_axis == 0 else None
        if isinstance(channels, int) and len(self.shape) == 1 and not self.batched:
            return (1, channels, *self.shape * 2)
        is_whole = len(self.shape) == len(stated) and (self.batched is None or self.shape == tuple(stated))
        if self.batched or batch_axis is None or not is_whole:
            return self.for_one(batch_axis)
        return (*self.shape[:batch_axis], 1, *self.shape[batch_axis + 1 :])


@record
class Inputs:
    """The inputs of forward: `sizes`, or `data` in a form that `trace.inputs.from_data` accepts.

    `batch_axis` is the position of the batch dimension; None for a forward without one.
    """

    sizes: tuple[InputSize, ...] = ()
    batch_axis: int | None = 0
    data: object = None

    @property
    def _only_size(self) -> InputSize | None:
        return self.sizes[0] if len(self.sizes) == 1 and self.batch_axis == 0 else None

    @property
    def is_one_image(self) -> bool:
        """Whether there is one size, and it is channels x height x width with or without the batch axis."""
        size = self._only_size
        if size is None or size.name or size.dtype:
            return False
        return len(size.shape) == 3 or (len(size.shape) == 4 and size.batched is not False)

    def image_shape(self, channels: int) -> tuple[int, ...]:
        """Return the shape of the only input, an image, as (channels, height, width). A single number is its side.

        Raises OptionError for any other inputs.
        """
        size = self._only_size
        shape = () if size is None or size.name or size.dtype not in ("", "float32") else size.shape
        if size is not None and size.batched is not False and len(shape) == 4:
            shape = shape[1:]
        if len(shape) == 1:
            shape = (channels, *shape * 2)
        if len(shape) != 3:
            raise OptionError(
                "a VGG takes one image",
                f"give {option('input_size')} as channels x height x width: {image_option((3, 224, 224))}",
            )
        return shape


def parse_input(text: str) -> InputSize:
    """Parse `[NAME=]SIZE[:DTYPE]`.

    Raises OptionError for anything else.

    A size without axes, as in `label=:int64`, is one number per sample.

    >>> parse_input("3x224x224").shape, parse_input("mask=128:bool").dtype, parse_input("scalar").shape
    ((3, 224, 224), 'bool', ())
    >>> parse_input("label=:int64").per_sample
    True
    """
    match = _SIZE.fullmatch(text.strip())
    per_sample = match is not None and not match["size"].strip() and match["dtype"] is not None
    sides = () if per_sample else None if match is None else _sides(match["size"].strip().lower())
    if match is None or sides is None:
        raise OptionError(f"{option('input_size')} {text!r} is not a size", f"write {option('input_size')} {EXAMPLES}")
    dtype = parse_dtype(match["dtype"], f"{option('input_size')} {text!r}") if match["dtype"] else ""
    return InputSize(sides, match["name"] or "", dtype, per_sample=per_sample)


def parse_dtype(dtype: object, source: str = "input_size") -> str:
    """Return the name of a torch dtype, which may be given by name.

    Raises OptionError for an unknown one; `source` is where the caller gave it.

    >>> parse_dtype("torch.int64")
    'int64'
    """
    name = str(dtype).removeprefix("torch.")
    if name not in DTYPES:
        raise OptionError(f"{source}: unknown dtype {name!r}", f"dtypes are {', '.join(DTYPES)}")
    return name


def parse_batch_axis(text: str) -> int | None:
    """Parse the position of the batch axis, or `none`. Raises OptionError for anything else.

    >>> parse_batch_axis("1"), parse_batch_axis("none")
    (1, None)
    """
    if text.lower() == "none":
        return None
    if not re.fullmatch(r"\d", text, re.ASCII):
        raise OptionError(f"{option('batch_axis')} {text}: no axis", "write 0, 1, ... or none")
    return int(text)


def check_batch_axis(batch_axis: int | None, axes: Sequence[int]) -> None:
    """Raise OptionError for a batch axis that no input has; `axes` are their numbers of axes, the batch among them.

    Inputs without axes are numbers for all samples.
    """
    most = max(axes, default=0)
    if batch_axis and batch_axis >= most:
        problem = f"{option('batch_axis', batch_axis)}: the input has {most} axes, the batch among them"
        places = f"give one of {', '.join(map(str, range(most)))}, or " if most > 1 else ""
        raise OptionError(problem, f"{places}leave {option('batch_axis')} out")


def _sides(text: str) -> tuple[int, ...] | None:
    if text == SCALAR:
        return ()
    parts = re.split("[x×,]", text)
    if not all(re.fullmatch(r"\d{1,9}", part.strip(), re.ASCII) for part in parts):
        return None
    sides = tuple(int(part) for part in parts)
    return sides if all(sides) else None
