"""Pictures of networks: a style turns a network into shapes, and a writer turns the shapes into a file's contents.

    Network -> Subject (summary, stages) -> styles/ -> Picture -> writers/ -> svg, png, pdf, dot, tex

A new style is a file in styles/ and a row of STYLES; a new format is a file in writers/ and a row of FORMATS.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence

from vggscope.drawing.engine import ENGINES, check
from vggscope.drawing.fonts import HELVETICA, measured_in
from vggscope.drawing.installed_fonts import installed_font
from vggscope.drawing.look import FACTS, HEATS, Framing, Look
from vggscope.drawing.picture import Picture, linked, scaled
from vggscope.drawing.subject import Subject, with_printed_softmax
from vggscope.drawing.theme import Theme
from vggscope.drawing.themes import THEMES
from vggscope.errors import OptionError, check_count, option, unknown, visible
from vggscope.graph import Network
from vggscope.record import record
from vggscope.result import Drawn

STYLES = {
    "blocks": "a stage a card, its layers listed in it",
    "layers": "every op, with its shapes on the arrows",
    "volumes": "each feature map a solid, each vector a slab, on scale",
    "table": "several networks side by side, as the paper prints Table 1",
}
"""What `--style` takes, with a description of each style."""

FORMATS: tuple[str, ...] = ("svg", "png", "pdf", "dot", "tex")
"""The formats of a picture, each the suffix of its file."""

DIRECTIONS = ("LR", "TB")
"""What `--direction` takes: left to right, top to bottom."""

MOST_PIXELS = 10**8
"""The most pixels of a PNG: a square of 10,000 by 10,000."""

LEAST_WIDTH, MOST_WIDTH = 72, 14400
"""The limits of `--width`, in points: an inch, and the largest page of a PDF."""


@record
class Diagram(Drawn):
    """A drawn network. A notebook shows it, and `save` writes it to a file. `failure` says where and why the forward
    pass fails: the picture ends there.
    """

    picture: Picture
    theme: Theme
    direction: str
    failure: str | None = None

    forms = FORMATS

    @property
    def source(self) -> str:
        """The graph as DOT, for Graphviz to lay out anew.

        >>> import vggscope
        >>> vggscope.diagram("D").source.partition(" ")[0]
        'digraph'
        """
        return self.render("dot").decode()

    def render(self, form: str = "svg", dpi: int = 144) -> bytes:
        """The contents of a file of one of FORMATS; `dpi` is a PNG's dots per inch.

        Raises OptionError for an unknown format, and for a PNG without pixels or with more than MOST_PIXELS.

        >>> import vggscope
        >>> vggscope.diagram("D").render("pdf")[:4]
        b'%PDF'
        """
        _check("format", form, FORMATS)
        pixels = self.picture.width * self.picture.height * (dpi / 72) ** 2
        if form == "png" and not (dpi >= 1 and pixels <= MOST_PIXELS):
            most = int(72 * (MOST_PIXELS / (self.picture.width * self.picture.height)) ** 0.5)
            raise OptionError(f"a PNG of {dpi} dots per inch makes no sense here", f"{option('dpi')} is 1 to {most}")
        from vggscope.drawing.writers import dot, png_pdf, svg, tex

        with measured_in(self.picture.font):
            if form in ("png", "pdf"):
                return png_pdf.write(self.picture, form, dpi)
            if form == "dot":
                return dot.write(self.picture, self.theme, self.direction).encode()
            text = tex.write(self.picture, self.theme) if form == "tex" else svg.write(self.picture)
        return text.encode()

    def __repr__(self) -> str:
        picture = self.picture
        return f"<Diagram of {visible(picture.title)}, {picture.width:.0f}x{picture.height:.0f} pt>"


def diagram(
    networks: Network | Sequence[Network],
    style: str | None = None,
    theme: str = "light",
    *,
    annotate: Sequence[str] | None = None,
    heat: str | None = None,
    fold: bool = True,
    direction: str | None = None,
    width: float | None = None,
    engine: str = "bundled",
    href: Callable[[str], str] | None = None,
    title: str | None = None,
    caption: str | None = None,
    legend: bool = True,
    crop: bool = False,
    only: str | None = None,
    font: str | None = None,
    depth: int | None = None,
) -> Diagram:
    """Draw a network, or several side by side. Without a `style` these are a table, and one network is blocks.

    `annotate` names the facts beside the layers, `heat` the one that their colour shows (FACTS). `fold` draws repeated
    modules once, with their number. `direction` is LR (the default) or TB. `width` is the largest width in points: a
    wider picture continues in another row or, if that is not possible, is scaled down. `engine` lays out networks that
    branch. `href` returns the address of a link on an SVG's node, given the name of its layer or stage. `title`,
    `caption`, `legend` and `crop` are those of Framing. `only` names the part to draw, as Subject does. `font` names a
    family that is installed here, in which the text is measured and drawn. `depth` is how deep modules have frames
    within each other, in the style `layers`.

    Raises OptionError for an unknown or unsuitable option or part, and MissingTool if `engine` is needed and not
    installed.
    """
    drawn = (networks,) if isinstance(networks, Network) else tuple(networks)
    style = style or ("table" if len(drawn) > 1 else "blocks")
    _check("style", style, tuple(STYLES))
    _check("theme", theme, tuple(THEMES))
    _check("direction", direction or "LR", DIRECTIONS)
    _check("engine", engine, ENGINES)
    for name in annotate or ():
        _check("annotate", name, tuple(FACTS))
    if heat is not None:
        _check("heat", heat, HEATS)
    if width is not None and not LEAST_WIDTH <= width <= MOST_WIDTH:
        limits = f"{option('width')} is {LEAST_WIDTH} to {MOST_WIDTH} points"
        raise OptionError(f"a width of {width:g} makes no sense", limits)
    _check_depth(depth, style)
    check(engine)
    for network in drawn:
        if not network.nodes:
            raise OptionError(f"{network.name} has no layers that could be drawn", "name another model")
    module = importlib.import_module(f"vggscope.drawing.styles.{style}")
    if style != "table" and len(drawn) != 1:
        remedy = f"{option('style', 'table')} sets several side by side"
        raise OptionError(f"style {style} draws one model at a time", remedy)
    annotations = tuple(module.DEFAULT if annotate is None else annotate)
    framing = Framing(title, caption, legend, crop)
    look = Look(THEMES[theme], width, direction or "LR", annotations, heat or "", engine, framing)
    with measured_in(HELVETICA if font is None else installed_font(font)):
        if style == "table":
            subjects = tuple(Subject(with_printed_softmax(network), fold, only) for network in drawn)
            picture: Picture = module.draw(subjects, look)
        else:
            picture = module.draw(Subject(drawn[0], fold, only, depth), look)
        if href is not None:
            picture = linked(picture, href)
        if width is not None and picture.width > width:
            picture = scaled(picture, width / picture.width)
    failure = next((network.failure for network in drawn if network.failure is not None), None)
    return Diagram(picture, THEMES[theme], direction or module.RANKDIR, failure)


def _check_depth(depth: int | None, style: str) -> None:
    if depth is None:
        return
    check_count("depth", depth, f"a depth of {depth} makes no sense", 1000)
    if style != "layers":
        remedy = f"{option('style', 'layers')} draws modules within modules"
        raise OptionError(f"style {style} has no frames down to a depth", remedy)


def _check(option: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise unknown(option, value, known)
