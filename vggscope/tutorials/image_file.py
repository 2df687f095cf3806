"""The pixels of an image file, or of an array in a .npy file, for `explain input`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggscope.errors import OptionError, option, printable
from vggscope.ops.base import Shape
from vggscope.photo import read_image
from vggscope.record import record
from vggscope.units import kernel_text

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

CHANNELS = GREY, RGB, RGBA = 1, 3, 4
PLAIN_MODES = ("L", "RGB", "RGBA", "I;16", "F", "I")
"""Pillow's modes that need no conversion."""


def _remedy() -> str:
    return f"{option('image')} takes an image or an array of one (.npy)"


@record
class Channel:
    """A channel's least, mean and largest value, on a scale of 0 to 255."""

    least: float
    mean: float
    largest: float


@record
class Pixels:
    """An image as an array: its shape, the order of its axes (see `order_of`), and its red, green and blue channel.
    `middle` is the middle pixel, on a scale of 0 to 255. `notes` say how the file was read.
    """

    shape: Shape
    order: str
    channels: tuple[Channel, ...]
    middle: tuple[float, ...]
    notes: tuple[str, ...]


def read(path: str) -> Pixels:
    """Read an image file with pillow, or an array from a .npy file.

    Raises OptionError for a file that is neither, and MissingTool where pillow is not installed.
    """
    notes: list[str] = []
    is_array = path.lower().endswith(".npy")
    array = _array(path) if is_array else _image(path, notes)
    notes.append(f"values of type {array.dtype}")
    order = order_of(array.shape) if is_array else "HWC"[: array.ndim]
    planes, scale = _planes(array, order, path, notes), _scale(array, notes)
    channels = tuple(Channel(*(float(v) * scale for v in (p.min(), p.mean(dtype="float64"), p.max()))) for p in planes)
    middle = tuple(float(p[p.shape[0] // 2, p.shape[1] // 2]) * scale for p in planes)
    return Pixels(tuple(array.shape), order, channels, middle, tuple(notes))


def _array(path: str) -> Array:
    import numpy as np

    # Opening a pipe waits for its writer, and a device may never end.
    if not Path(path).is_file():
        raise OptionError(f"{option('image')} {printable(path)}: there is no such file", _remedy())
    try:
        # Map the file: if its header promises more than it holds, reading would fill the memory.
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        reason = printable(str(error).split("\n")[0]) or type(error).__name__
        raise OptionError(f"{option('image')} {printable(path)} cannot be read: {reason}", _remedy()) from None
    if not isinstance(array, np.ndarray):
        raise OptionError(f"{printable(path)} holds several arrays", _remedy())
    if array.dtype.kind not in "uif" or not array.size or not np.isfinite(array.sum(dtype=float)):
        raise OptionError(f"{printable(path)} holds no array of finite numbers", _remedy())
    return array


def _image(path: str, notes: list[str]) -> Array:
    import numpy as np

    return read_image(path, lambda image: np.asarray(_with_channels(image, notes)), _remedy())


def _with_channels(image: Image.Image, notes: list[str]) -> Image.Image:
    """The image converted to grey, RGB or RGBA."""
    if image.mode in PLAIN_MODES:
        return image
    transparent = image.mode in ("LA", "PA", "La") or "transparency" in image.info
    mode = "L" if image.mode == "1" else "RGBA" if transparent else "RGB"
    notes.append(f"the file's mode is {image.mode}; read as {mode}")
    return image.convert(mode)


def order_of(shape: Sequence[int]) -> str:
    """The order of the axes of an image's array: `CHW`, `HWC` or `HW`, after `N` for a batch. The axis of length 1, 3
    or 4 is the channels; if both ends or neither end have such a length, the order is unclear: an empty string.

    >>> order_of((224, 224, 3)), order_of((3, 224, 224)), order_of((8, 224, 224, 3)), order_of((3, 5, 3))
    ('HWC', 'CHW', 'NHWC', '')
    """
    if len(shape) == 4:
        order = order_of(shape[1:])
        return f"N{order}" if order else ""
    if len(shape) == 2:
        return "HW"
    if len(shape) != 3 or (shape[0] in CHANNELS) == (shape[2] in CHANNELS):
        return ""
    return "CHW" if shape[0] in CHANNELS else "HWC"


def _planes(array: Array, order: str, path: str, notes: list[str]) -> list[Array]:
    """The red, green and blue channels as arrays of height x width."""
    if not order and array.ndim == 3 and array.shape[2] in CHANNELS:
        notes.append("read as H,W,C below")
        order = "HWC"
    if not order:
        raise OptionError(
            f"{printable(path)} is {kernel_text(array.shape)}, which is not an image's shape",
            "an image is H,W or has 1, 3 or 4 channels first or last",
        )
    if order.startswith("N"):
        notes.append("the first image of the batch is shown")
        array, order = array[0], order[1:]
    planes = [array] if order == "HW" else list(array if order == "CHW" else array.transpose(2, 0, 1))
    if len(planes) == RGBA:
        notes.append("the fourth channel, alpha, is left out below")
    if len(planes) == GREY:
        notes.append("grey: its one channel is repeated for red, green and blue")
    return planes * RGB if len(planes) == GREY else planes[:RGB]


def _scale(array: Array, notes: list[str]) -> float:
    """The factor that scales the values to the range from 0 to 255."""
    kind, largest = array.dtype.kind, float(array.max())
    if kind == "f" and largest <= 1:
        notes.append("read as values of 0 to 1, as ToTensor returns them; shown times 255")
        return 255.0
    if kind in "ui" and largest > 255:
        notes.append("read as values of 0 to 65535; shown on a scale of 0 to 255")
        return 255 / 65535
    return 1.0
