"""Numbers as text, and text as numbers.

All other code holds raw integers: bytes, counts, pixels. 1 KiB is 2**10 bytes, 1 MiB 2**20, 1 GiB 2**30; kB, MB and GB
are powers of ten. A shape as text has no batch dimension and begins with the channels: 3x224x224.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from vggscope.errors import OptionError, check_count, names_options, option, unknown

UNKNOWN = "?"
"""The text of an unknown figure."""

BINARY = "KiB = 2^10 bytes, MiB = 2^20"
"""The note below a table with bytes."""

ELEMENT_BYTES = {
    **{"float32": 4, "float64": 8, "float16": 2, "bfloat16": 2, "complex32": 4, "complex64": 8, "complex128": 16},
    **{"uint8": 1, "int8": 1, "int16": 2, "int32": 4, "int64": 8, "bool": 1, "uint16": 2, "uint32": 4, "uint64": 8},
    **{"float8_e4m3fn": 1, "float8_e5m2": 1, "float8_e4m3fnuz": 1, "float8_e5m2fnuz": 1, "float8_e8m0fnu": 1},
    **{"qint8": 1, "quint8": 1, "qint32": 4, "quint4x2": 1, "quint2x4": 1, "float4_e2m1fn_x2": 1},
    **{f"{sign}int{bits}": 1 for sign in ("", "u") for bits in range(1, 8)},
    **{"bits1x8": 1, "bits2x4": 1, "bits4x2": 1, "bits8": 1, "bits16": 2},
}
"""Bytes of one element of a tensor, by torch's name of its dtype."""

DTYPE_BYTES = {name: ELEMENT_BYTES[name] for name in ("float32", "float64", "float16", "bfloat16")}
"""The dtypes that --dtype takes, with the bytes of one element."""

_SCALE = {
    **{"": 1, "B": 1},
    **{f"{prefix}{unit}": 2 ** (10 * power) for power, prefix in enumerate("KMGT", 1) for unit in ("", "IB")},
    **{f"{prefix}B": 10 ** (3 * power) for power, prefix in enumerate("KMGT", 1)},
}


def count_text(value: int | None) -> str:
    """A whole number with thousands separators.

    >>> count_text(138357544)
    '138,357,544'
    """
    return UNKNOWN if value is None else f"{value:,}"


def short_count(value: int | None, unit: str = "") -> str:
    """A large number with two decimals and a prefix.

    >>> short_count(138357544), short_count(15470264320, "MACs"), short_count(640)
    ('138.36 M', '15.47 GMACs', '640')
    """
    if value is None:
        return UNKNOWN
    for scale, prefix in ((10**12, "T"), (10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(value) >= scale:
            return f"{value / scale:.2f} {prefix}{unit}"
    return f"{value} {unit}".rstrip()


def rounded_text(value: int, rounded_to: int) -> str:
    """A number rounded to millions, or an exact one.

    >>> rounded_text(15470000000, 10**6), rounded_text(15470264320, 1)
    ('15,470 M', '15,470,264,320')
    """
    return f"{count_text(value // 10**6)} M" if rounded_to == 10**6 else count_text(value)


def bytes_text(value: int | None) -> str:
    """Bytes in MiB, or a small amount in KiB or B.

    >>> bytes_text(12845056), bytes_text(4000), bytes_text(12)
    ('12.25 MiB', '3.9 KiB', '12 B')
    """
    if value is None:
        return UNKNOWN
    if abs(value) >= 2**20:
        return f"{value / 2**20:,.2f} MiB"
    return f"{value / 2**10:.1f} KiB" if abs(value) >= 2**10 else f"{value} B"


def time_text(nanoseconds: int | None) -> str:
    """A duration in the largest unit that keeps it above 1.

    >>> time_text(420), time_text(64012), time_text(1501200000)
    ('420 ns', '64.0 us', '1.50 s')
    """
    if nanoseconds is None:
        return UNKNOWN
    for scale, unit, digits in ((10**9, "s", 2), (10**6, "ms", 2), (10**3, "us", 1)):
        if nanoseconds >= scale:
            return f"{nanoseconds / scale:.{digits}f} {unit}"
    return f"{nanoseconds} ns"


def check_batch(batch: int | None, dtype: str | None = None) -> None:
    """Raise OptionError unless the batch is a whole number from 1 to 10^9 and the dtype is known. None is the model's.

    >>> check_batch(32, "float16")
    """
    if batch is not None:
        check_count("batch", batch, f"a batch of {batch} makes no sense", 10**9)
    if dtype is not None and dtype not in DTYPE_BYTES:
        raise unknown("dtype", dtype, DTYPE_BYTES)


def percent_text(part: int, whole: int) -> str:
    """A part as a percentage of a whole.

    >>> percent_text(102764544, 138357544)
    '74.3%'
    """
    return f"{100 * part / whole:.1f}%" if whole else UNKNOWN


def parse_bytes(text: str) -> int:
    """Parse an amount of memory into bytes. Raises OptionError for any other text.

    >>> parse_bytes("24GiB"), parse_bytes("512 MB")
    (25769803776, 512000000)
    """
    match = re.fullmatch(r"\s*(\d{1,20}(?:\.\d{1,20})?)\s*([A-Za-z]*)\s*", text)
    scale = _SCALE.get(match[2].upper()) if match else None
    if match is None or scale is None or float(match[1]) <= 0:
        raise OptionError(f"{text!r} is not an amount of memory", "write it as 24GiB, 8192MiB or 16GB")
    return int(float(match[1]) * scale)


def shape_text(shape: tuple[int, ...]) -> str:
    """The shape of a tensor without its batch dimension, the first.

    >>> shape_text((1, 64, 224, 224)), shape_text((8, 4096)), shape_text(())
    ('64x224x224', '4096', 'scalar')
    """
    return "x".join(map(str, shape[1:] or shape)) or "scalar"


def sample_sides(shape: tuple[int, ...], batch_axis: int | None) -> tuple[int, ...]:
    """The sides of a shape without its batch axis, wherever that is; all of them if there is none.

    >>> sample_sides((5, 1, 8), 1), sample_sides((3, 8), None)
    ((5, 8), (3, 8))
    """
    return tuple(side for axis, side in enumerate(shape) if axis != batch_axis)


def sample_text(shape: tuple[int, ...], batch_axis: int | None) -> str:
    """The shape of one sample.

    >>> sample_text((5, 1, 8), 1), sample_text((4,), 0)
    ('5x8', 'scalar')
    """
    return "x".join(map(str, sample_sides(shape, batch_axis))) or "scalar"


class BatchShape(tuple[int, ...]):
    """A shape with the axis of its batch, None if there is none. Text shows one sample, data all axes.

    >>> shape = BatchShape((5, 1, 8), batch_axis=1)
    >>> shape, shape.text()
    ((5, 1, 8), '5x8')
    """

    batch_axis: int | None

    def __new__(cls, sides: tuple[int, ...], batch_axis: int | None) -> BatchShape:
        shape = super().__new__(cls, sides)
        shape.batch_axis = batch_axis
        return shape

    def text(self) -> str:
        """The shape of one sample."""
        return sample_text(self, self.batch_axis)


def at_least(total: int | None) -> str:
    """The words before the known part of a total that is unknown.

    >>> at_least(None), at_least(3)
    ('at least ', '')
    """
    return "at least " if total is None else ""


def image_option(sides: tuple[int, ...]) -> str:
    """How an image of this size, channels x height x width, is given to a command or a function.

    >>> image_option((3, 32, 32))
    'input_size=(3, 32, 32)'
    """
    return option("input_size", "x".join(map(str, sides)) if names_options() else tuple(sides))


def parse_shape(text: str) -> tuple[int, ...]:
    """Parse channels, height and width. Raises OptionError for any other text.

    >>> parse_shape("3x224x224")
    (3, 224, 224)
    """
    side = r"([1-9]\d{0,5})"
    match = re.fullmatch(f"{side}[x×,]{side}[x×,]{side}", text.strip(), re.IGNORECASE | re.ASCII)
    if match is None:
        raise OptionError(
            f"{option('input_size')} {text!r} is not a size",
            f"write channels, height and width, each 1 to 999999: {option('input_size')} 3x224x224",
        )
    return tuple(map(int, match.groups()))


def parse_numbers(text: str) -> list[int]:
    """Parse numbers from 1 to 10^9 and ranges, at most 10^6 numbers. Raises OptionError for any other text.

    >>> parse_numbers("1-4, 64,128")
    [1, 2, 3, 4, 64, 128]
    """
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d{0,9})(?:-([1-9]\d{0,9}))?\s*", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last <= 10**9 or len(numbers) + last - first >= 10**6:
            raise OptionError(f"{part.strip()!r:.40} is not a number or a range", "write numbers as 1,8,64 or 1-256")
        numbers += range(first, last + 1)
    return numbers


def natural_order(name: str) -> list[tuple[int, str]]:
    """The key that sorts numbers in names by their value.

    >>> sorted(["resnet101", "resnet18", "resnest50"], key=natural_order)
    ['resnest50', 'resnet18', 'resnet101']
    """
    parts = re.split(r"(\d+)", name)
    return [(int(part) if place % 2 else 0, part) for place, part in enumerate(parts)]


def pair_text(pair: tuple[int, ...] | None) -> str:
    """The height and width of a window, one number if they are equal.

    >>> pair_text((3, 3)), pair_text((3, 1))
    ('3', '3x1')
    """
    if pair is None:
        return UNKNOWN
    return str(pair[0]) if len(set(pair)) == 1 else "x".join(map(str, pair))


def index_text(index: tuple[int, ...]) -> str:
    """The index of a unit in its feature map: row and column.

    >>> index_text((28, 28))
    '28,28'
    """
    return ",".join(map(str, index))


def positions_word(sides: int) -> str:
    """The word for positions along the sides of an input: pixels of an image, which has two."""
    return "pixels" if sides == 2 else "positions"


def whole_text(sides: int) -> str:
    """The words for a unit that sees all of an input with so many sides."""
    return f"whole {'image' if sides == 2 else 'input'}"


def field_text(size: Sequence[int]) -> str:
    """A receptive field in a picture: `268×268 px` of an image, else `128 positions`.

    >>> field_text((268, 268)), field_text((15996,)), field_text((1,))
    ('268×268 px', '15996 positions', '1 position')
    """
    word = "px" if len(size) == 2 else "position" if size == (1,) else "positions"
    return f"{'×'.join(map(str, size))} {word}"


def kernel_text(pair: tuple[int, ...]) -> str:
    """The size of a window with all its sides.

    >>> kernel_text((3, 3))
    '3x3'
    """
    return "x".join(map(str, pair))


def rule_text(size: int, kernel: int, padding: int, stride: int, dilation: int, result: int) -> str:
    """The rule (W-K+2P)/S+1 with the numbers of one side.

    >>> rule_text(224, 3, 1, 1, 1, 224), rule_text(225, 2, 0, 2, 1, 112)
    ('(224-3+2*1)/1+1 = 224', '(225-2+2*0)/2+1 = 112.5 -> 112')
    >>> rule_text(1002, 3, 0, 1000, 1, 1)
    '(1002-3+2*0)/1000+1 = 1.999 -> 1'
    """
    reach = dilation * (kernel - 1) + 1
    window = str(kernel) if dilation == 1 else f"({dilation}*({kernel}-1)+1)"
    exact = (size - reach + 2 * padding) / stride + 1
    text = f"{exact:.2f}" if round(exact, 2) % 1 else f"{exact:.6f}"  # a fraction that is cut off would not be seen
    value = str(result) if exact == result else f"{text.rstrip('0')} -> {result}"
    return f"({size}-{window}+2*{padding})/{stride}+1 = {value}"
