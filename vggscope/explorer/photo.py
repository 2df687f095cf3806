"""A reader's image: cut as the network takes it, and embedded in the page."""

from __future__ import annotations

import os
import warnings
from base64 import b64encode
from io import BytesIO
from typing import TYPE_CHECKING

from vggscope.errors import OptionError
from vggscope.ops.base import Shape

if TYPE_CHECKING:
    from PIL.Image import Image

SHARPER = 2
"""The page shows the image with so many pixels for one of the network's, as far as it has them."""

LONGEST = 640
"""And no side longer than this."""


def open_photo(path: str) -> Image:
    """The image in a file, upright. Raises OptionError where there is none that can be read."""
    from PIL import Image, ImageOps, UnidentifiedImageError

    if os.path.exists(path) and not os.path.isfile(path):
        raise OptionError(f"--image {path} is no file", "name a JPEG or a PNG")
    try:
        with warnings.catch_warnings():
            # An image of so many pixels that reading it would fill the memory.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as found:
                return ImageOps.exif_transpose(found).convert("RGB")
    except FileNotFoundError:
        raise OptionError(f"--image {path}: there is no such file", "name a JPEG or a PNG") from None
    except Exception as error:  # a damaged file makes pillow's readers raise whatever they like
        reason = "it is no image" if isinstance(error, UnidentifiedImageError) else str(error)
        raise OptionError(f"--image {path} cannot be read: {reason}", "name a JPEG or a PNG") from None


def cut(photo: Image, height: int, width: int) -> Image:
    """The middle of an image, scaled so that it fills height x width pixels."""
    from PIL import Image, ImageOps

    return ImageOps.fit(photo, (width, height), Image.Resampling.BILINEAR)


def data_uri(photo: Image, input_shape: Shape) -> str:
    """What the network with this input is shown of an image, a little sharper, as a data URI.

    Raises OptionError for a network that takes no image.
    """
    if len(input_shape) != 4:
        raise OptionError("--image: the first model takes no image", "leave --image out")
    height, width = input_shape[2:]
    scale = max(1.0, min(SHARPER, LONGEST / max(height, width)))
    file = BytesIO()
    cut(photo, round(height * scale), round(width * scale)).save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
