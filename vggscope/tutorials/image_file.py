"""An image file, or an array of one, as what `explain input` has to know of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggscope.errors import OptionError, printable
from vggscope.ops.base import Shape
from vggscope.photo import read_image
from vggscope.record import record
from vggscope.units import kernel_text

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

    Array = np.ndarray[tuple[int, ...], np.dtype[np.generic]]

CHANNELS = GREY, RGB, RGBA = 1, 3, 4
_REMEDY = "--image takes an image or an array of one (.npy)"

PLAIN_MODES = ("L", "RGB", "RGBA", "I;16", "F", "I")


@record
class Channel:
    """A channel's least, mean and largest value, on a scale of 0 to 255."""

    least: float
    mean: float
    largest: float


@record
class Pixels:
    """The array's own shape, and the order of its axes as `order_of` has it; red, green and blue of it; and its middle
    pixel, on a scale of 0 to 255.
    """

    shape: Shape
    order: str
    channels: tuple[Channel, ...]
    middle: tuple[float, ...]
    notes: tuple[str, ...]


def read(path: str) -> Pixels:
    """An image file that pillow reads, or an array in a .npy file.

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

    # Opening a pipe would wait for its writer, and a device need not end.
    if not Path(path).is_file():
        raise OptionError(f"--image {printable(path)}: there is no such file", _REMEDY)
    try:
        # Mapped and not read, so that a header which promises more than the file holds takes no memory.
        found: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError, OverflowError) as error:
        reason = printable(str(error).split("\n")[0]) or type(error).__name__
        raise OptionError(f"--image {printable(path)} cannot be read: {reason}", _REMEDY) from None
    if not isinstance(found, np.ndarray):
        raise OptionError(f"{printable(path)} holds several arrays", _REMEDY)
    if found.dtype.kind not in "uif" or not found.size or not np.isfinite(found.sum(dtype=float)):
        raise OptionError(f"{printable(path)} holds no numbers of an image", _REMEDY)
    return found


def _image(path: str, notes: list[str]) -> Array:
    import numpy as np

    return read_image(path, lambda image: np.asarray(_with_channels(image, notes)), _REMEDY)


def _with_channels(image: Image.Image, notes: list[str]) -> Image.Image:
    """The image in a mode whose channels are grey, RGB or RGBA."""
    if image.mode in PLAIN_MODES:
        return image
    transparent = image.mode in ("LA", "PA", "La") or "transparency" in image.info
    mode = "L" if image.mode == "1" else "RGBA" if transparent else "RGB"
    notes.append(f"the file's mode is {image.mode}; read as {mode}")
    return image.convert(mode)


def order_of(shape: Sequence[int]) -> str:
    """Which axis of an image's array is which, told by where 1, 3 or 4 stands: `CHW`, `HWC`, `HW`, with `N` before for
    a batch; `` where it cannot be told.

    >>> order_of((224, 224, 3)), order_of((3, 224, 224)), order_of((8, 224, 224, 3)), order_of((3, 5, 3))
    ('HWC', 'CHW', 'NHWC', '')
    """
    if len(shape) == 4:
        found = order_of(shape[1:])
        return f"N{found}" if found else ""
    if len(shape) == 2:
        return "HW"
    if len(shape) != 3 or (shape[0] in CHANNELS) == (shape[2] in CHANNELS):
        return ""
    return "CHW" if shape[0] in CHANNELS else "HWC"


def _planes(array: Array, order: str, path: str, notes: list[str]) -> list[Array]:
    """Red, green and blue."""
    if not order and array.ndim == 3 and array.shape[2] in CHANNELS:
        notes.append("taken below for H,W,C")
        order = "HWC"
    if not order:
        raise OptionError(
            f"{printable(path)} is {kernel_text(array.shape)}, which is no image's shape",
            "an image is H,W or has 1, 3 or 4 channels first or last",
        )
    if order.startswith("N"):
        notes.append("the first of the batch is shown")
        array, order = array[0], order[1:]
    planes = [array] if order == "HW" else list(array if order == "CHW" else array.transpose(2, 0, 1))
    if len(planes) == RGBA:
        notes.append("the fourth channel, alpha, is left out below")
    if len(planes) == GREY:
        notes.append("grey: its one channel is repeated for red, green and blue")
    return planes * RGB if len(planes) == GREY else planes[:RGB]


def _scale(array: Array, notes: list[str]) -> float:
    """What brings the values to 0..255."""
    kind, largest = array.dtype.kind, float(array.max())
    if kind == "f" and largest <= 1:
        notes.append("taken for values of 0 to 1, as ToTensor gives them; shown times 255")
        return 255.0
    if kind in "ui" and largest > 255:
        notes.append("taken for values of 0 to 65535; shown on a scale of 0 to 255")
        return 255 / 65535
    return 1.0
