"""The pictures of tutorials: for each topic that has one, the function that draws it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from vggscope.drawing import Diagram
from vggscope.drawing.picture import Picture
from vggscope.drawing.theme import theme_named
from vggscope.errors import OptionError
from vggscope.tutorials.tutorial import Tutorial

PICTURES: Mapping[str, str] = MappingProxyType(
    {
        "conv": "vggscope.render.explain.windows:draw_convolution",
        "pool": "vggscope.render.explain.windows:draw_pooling",
        "relu": "vggscope.render.explain.activation:draw",
        "dense": "vggscope.render.explain.dense:draw",
        "depth": "vggscope.render.explain.depth:draw",
    }
)
"""By topic, the function that draws the tutorial's data in a theme."""


def picture(tutorial: Tutorial, theme: str = "light") -> Diagram:
    """The diagram of a tutorial; `theme` is one of THEMES.

    Raises OptionError for an unknown theme, for a topic without a picture, and for too many numbers to read.
    """
    chosen = theme_named(theme)
    if tutorial.topic not in PICTURES:
        raise OptionError(f"{tutorial.topic} has no picture", f"these have: {', '.join(PICTURES)}")
    module, _, function = PICTURES[tutorial.topic].partition(":")
    draw: Any = getattr(import_module(module), function)
    drawing: Picture = draw(tutorial.title, tutorial.data, chosen)
    return Diagram(drawing, chosen, "LR")
