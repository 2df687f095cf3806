"""Embed data, code and images in an HTML page, so that nothing in the data can become markup or code."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from vggscope.errors import OptionError, option
from vggscope.ops.base import Shape
from vggscope.photo import crop

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTO_SCALE = 2
"""Pixels of an embedded photo for one of the network's input, per side."""

PHOTO_SIDE = 640
"""Most pixels of an embedded photo per side."""

_MARKUP = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def data_block(data: object) -> str:
    r"""Return data as JSON for a script element. No text in it can close the element, open a comment or break a line
    (HTML Living Standard, restrictions for contents of script elements).

    >>> data_block(["</script>", "<!--", "\u2028"])
    '["\\u003c/script\\u003e","\\u003c!--","\\u2028"]'
    """
    return json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":")).translate(_MARKUP)


def packed(rows: Sequence[Mapping[str, object]]) -> dict[str, object]:
    """Return rows with the same keys as columns, which repeat no key and few values: `rows`, their number, and for each
    key `[values]` or, where most values are repeated, `[distinct values, the place of each row's]`.

    >>> packed([{"op": "ReLU", "out": [3, 8]}, {"op": "ReLU", "out": [3, 4]}, {"op": "ReLU", "out": [3, 4]}])
    {'rows': 3, 'columns': {'op': [['ReLU'], [0, 0, 0]], 'out': [[[3, 8], [3, 4], [3, 4]]]}}
    """
    columns = {key: _column([row[key] for row in rows]) for key in (rows[0] if rows else ())}
    return {"rows": len(rows), "columns": columns}


def _column(values: list[object]) -> list[object]:
    distinct: dict[str, int] = {}
    first: list[object] = []
    places = []
    for value in values:
        text = repr(value)
        if text not in distinct:
            distinct[text] = len(first)
            first.append(value)
        places.append(distinct[text])
    return [first, places] if 2 * len(first) < len(values) else [values]


def photo_uri(photo: Image, input_shape: Shape) -> str:
    """Return the part of a photo that a network with this input takes, sharper than the input, as a data URI.

    Raises OptionError for a network that takes no image.
    """
    if len(input_shape) != 4:
        raise OptionError(f"{option('image')}: the first model takes no image", f"leave {option('image')} out")
    height, width = input_shape[2:]
    scale = max(1.0, min(PHOTO_SCALE, PHOTO_SIDE / max(height, width)))
    file = BytesIO()
    crop(photo, round(height * scale), round(width * scale)).save(file, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{b64encode(file.getvalue()).decode()}"
