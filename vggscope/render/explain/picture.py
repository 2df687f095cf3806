"""Pictures of lessons: for each topic that has one the function that draws it."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from vggscope.drawing import Diagram
from vggscope.drawing.picture import Picture
from vggscope.errors import OptionError
from vggscope.render.matplotlib_figure import theme_named
from vggscope.tutorials.lesson import Lesson

PICTURES: Mapping[str, str] = MappingProxyType(
    {
        "conv": "vggscope.render.explain.windows:convolution",
        "pool": "vggscope.render.explain.windows:pooling",
        "relu": "vggscope.render.explain.curves:curves",
        "dense": "vggscope.render.explain.maps:maps",
        "depth": "vggscope.render.explain.reach:reach",
    }
)
"""By topic, the function that makes a Picture of the lesson's data in a theme."""


def picture(lesson: Lesson, theme: str = "light") -> Diagram:
    """The lesson drawn; `theme` is one of THEMES.

    Raises OptionError for a theme that is not there, for a topic without a picture, and for numbers too many to be
    read.
    """
    chosen = theme_named(theme)
    if lesson.topic not in PICTURES:
        raise OptionError(f"{lesson.topic} has no picture", f"these have: {', '.join(PICTURES)}")
    module, _, function = PICTURES[lesson.topic].partition(":")
    draw: Any = getattr(import_module(module), function)
    drawn: Picture = draw(lesson.title, lesson.data, chosen)
    return Diagram(drawn, chosen, "LR")
