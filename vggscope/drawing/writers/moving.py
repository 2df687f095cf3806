"""Pictures that follow each other, as an SVG that moves by CSS or as a GIF.

What is the same in all pictures is drawn once. A reader who asks for less motion, and a program that knows no
animation, see the last picture.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence

from vggscope.drawing.picture import Picture
from vggscope.drawing.writers import png_pdf, svg
from vggscope.errors import MissingTool

SECONDS = 0.9
"""How long a picture is shown; the last one, with the whole result, three times as long."""

LAST = 3

COLORS = 128
"""The colours of a GIF."""


def write_svg(pictures: Sequence[Picture]) -> str:
    """The SVG; equal pictures give equal text."""
    shapes = [list(picture.shapes()) for picture in pictures]
    counts = Counter(shape for listed in shapes for shape in set(listed))
    still = {shape for shape, count in counts.items() if count == len(pictures)}
    last = pictures[-1]
    body = [svg.element(shape) for shape in shapes[-1] if shape in still]
    for number, listed in enumerate(shapes, 1):
        own = "".join(svg.element(shape) for shape in listed if shape not in still)
        body.append(f'<g class="p p{number}">{own}</g>')
    return svg.document(last, [_style(len(pictures)), *body])


def _style(count: int) -> str:
    """The animation: picture N is visible in its share of the time, the last one without animation too."""
    steps = count - 1 + LAST
    rules = [
        ".p{visibility:hidden}",
        f".p{count}{{visibility:visible}}",
        "@media (prefers-reduced-motion:no-preference){",
        f".p{{animation:{steps * SECONDS:g}s step-end infinite}}",
    ]
    for number in range(1, count + 1):
        start, end = 100 * (number - 1) / steps, 100 * (number if number < count else steps) / steps
        before = "0%{visibility:hidden}" if number > 1 else ""
        after = f"{end:.3f}%{{visibility:hidden}}" if number < count else ""
        rules.append(f".p{number}{{animation-name:k{number}}}")
        rules.append(f"@keyframes k{number}{{{before}{start:.3f}%{{visibility:visible}}{after}}}")
    return f"<style>{''.join(rules)}}}</style>"


def write_gif(pictures: Sequence[Picture], dpi: int) -> bytes:
    """The GIF, which repeats without end.

    Raises MissingTool if pillow or matplotlib is not installed.
    """
    try:
        from PIL import Image
    except ImportError:
        raise MissingTool("pillow, which writes GIFs, is not installed", "pip install pillow") from None
    images = [Image.open(io.BytesIO(png_pdf.write(picture, "png", dpi))).convert("RGB") for picture in pictures]
    # One palette for all pictures, from the one that has everything in it.
    palette = images[-1].quantize(COLORS, dither=Image.Dither.NONE)
    first, *others = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    times = [round(1000 * SECONDS)] * (len(images) - 1) + [round(1000 * SECONDS * LAST)]
    with io.BytesIO() as file:
        first.save(file, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=False)
        return file.getvalue()
