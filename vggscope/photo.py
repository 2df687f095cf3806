"""Image files: read one, and crop it to the input of a network."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from vggscope.errors import MissingTool, OptionError, option, printable

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and standard deviation of the channels, in values of 0 to 1, by which torchvision's weights expect an image to
be normalised (torchvision.models, "Inference").
"""


def read_image(path: str, convert: Callable[[Image], T], remedy: str) -> T:
    """Return what `convert` makes of the image in a file.

    Raises OptionError with the `remedy` if there is no such file or it cannot be read, and MissingTool without pillow.
    """
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise MissingTool("pillow, which reads images, is not installed", "pip install pillow") from None
    # Opening a pipe would wait for its writer, and a device need not end.
    if not os.path.isfile(path):
        problem = "it is not a file" if os.path.exists(path) else "there is no such file"
        raise OptionError(f"{option('image')} {printable(path)}: {problem}", remedy)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Pillow warns of an image with so many pixels that it fills the memory, and then reads it.
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return convert(image)
    except Exception as error:  # pillow's readers raise errors of any type for a damaged file
        is_other = isinstance(error, UnidentifiedImageError)
        reason = "it is not an image" if is_other else printable(str(error).split("\n")[0]) or type(error).__name__
        raise OptionError(f"{option('image')} {printable(path)} cannot be read: {reason}", remedy) from None


def open_photo(path: str) -> Image:
    """Return the image in a file, upright, in RGB; raises as `read_image`."""

    def upright(image: Image) -> Image:
        from PIL import ImageOps

        return ImageOps.exif_transpose(image).convert("RGB")

    return read_image(path, upright, "name a JPEG or a PNG")


def crop(photo: Image, height: int, width: int) -> Image:
    """Return the centre of an image, scaled so that it fills height x width pixels."""
    from PIL import Image, ImageOps

    return ImageOps.fit(photo, (width, height), Image.Resampling.BILINEAR)
