"""Pictures of networks: a style makes a Picture of shapes, a writer makes a file's contents of it.

    networks -> Subject (report, stages) -> styles/ -> Picture -> writers/ -> svg, png, pdf, dot

Adding a style is one file in styles/ and a row of STYLES; adding a format is one file in writers/ and a row of FORMATS.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

from vggscope.errors import MissingTool, OptionError
from vggscope.network import Network
from vggscope.render.diagram.picture import Picture
from vggscope.render.diagram.stages import Subject
from vggscope.render.diagram.theme import THEMES, Theme

STYLES = {"blocks": "a stage a card, its layers listed in it"}
"""What `--style` takes, each with what it shows."""

FORMATS = ("svg", "png", "pdf", "dot")
"""What a picture can be written as; the suffix of its file."""

ENGINES = ("bundled", "system")
"""What lays out a branched network: the Graphviz inside pygraphviz, or `dot` on PATH."""

WIDTH = 540.0
"""How wide a picture may grow before it goes on in another row, in points: 7.5 inch."""


@dataclass(frozen=True)
class Diagram:
    """A drawn network; a notebook shows it by itself."""

    picture: Picture
    theme: Theme

    @property
    def source(self) -> str:
        """The graph as DOT, for Graphviz to lay out anew."""
        return self.render("dot").decode()

    def render(self, form: str = "svg", dpi: int = 144) -> bytes:
        """The contents of a file of one of FORMATS; `dpi` is a PNG's dots per inch.

        Raises OptionError for a format that is not there.
        """
        _check("format", form, FORMATS)
        if form in ("png", "pdf"):
            from vggscope.render.diagram.writers import raster

            return raster.write(self.picture, form, dpi)
        if form == "dot":
            from vggscope.render.diagram.writers import dot

            return dot.write(self.picture, self.theme).encode()
        from vggscope.render.diagram.writers import svg

        return svg.write(self.picture).encode()

    def _repr_svg_(self) -> str:
        return self.render("svg").decode()


def diagram(
    networks: Network | Sequence[Network],
    style: str = "blocks",
    theme: str = "light",
    engine: str = "bundled",
    width: float = WIDTH,
) -> Diagram:
    """The picture of a network, or of several side by side.

    Raises OptionError for a style, theme or engine that is not there or that cannot show these networks, and
    MissingTool where `engine` is not installed.
    """
    _check("style", style, tuple(STYLES))
    _check("theme", theme, tuple(THEMES))
    _check("engine", engine, ENGINES)
    if engine == "system" and shutil.which("dot") is None:
        raise MissingTool("--engine system needs Graphviz's `dot` on PATH", "install Graphviz, or leave --engine out")
    given = (networks,) if isinstance(networks, Network) else tuple(networks)
    draw = importlib.import_module(f"vggscope.render.diagram.styles.{style}").draw
    picture: Picture = draw(tuple(map(Subject, given)), THEMES[theme], width)
    return Diagram(picture, THEMES[theme])


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise OptionError(f"unknown {option} {value!r}", f"--{option} is one of {', '.join(known)}")
