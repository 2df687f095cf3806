"""`vggscope diagram MODEL... -o FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from vggscope import api
from vggscope.choices import Annotation, Direction, Engine, Heat, PictureFormat, Style, Theme
from vggscope.cli.options import OUTPUT, THEME_WORDS, THEMES, ModelFlags, Models, flag, option
from vggscope.cli.output import note_failures, note_written
from vggscope.errors import OptionError
from vggscope.files import is_special, write_file
from vggscope.progress import step
from vggscope.record import record


@record
class _Look:
    """Options."""

    style: Annotated[
        Style | None,
        option(
            "STYLE",
            ", ".join(get_args(Style)) + "; blocks if left out, table for several models.",
            "vggscope.drawing:STYLES",
        ),
    ] = None
    theme: Annotated[Theme, option("THEME", THEME_WORDS, THEMES)] = "light"
    annotate: Annotated[
        str | None,
        option(
            "NAMES",
            f"Figures beside the layers: {', '.join(get_args(Annotation))}.",
            "several",
            "vggscope.drawing.look:FACTS",
        ),
    ] = None
    heat: Annotated[
        Heat | None,
        option("NAME", "Figure that the strength of the colour shows, e.g. macs.", "vggscope.drawing.look:HEATS"),
    ] = None
    fold: Annotated[bool, typer.Option(help="Draw equal blocks in a row once, with their number.")] = True
    direction: Annotated[
        Direction | None,
        option("LR|TB", "Left to right (the default), or top to bottom.", "vggscope.drawing:DIRECTIONS"),
    ] = None
    width: Annotated[float | None, option("POINTS", "The largest width of the picture.")] = None
    engine: Annotated[
        Engine,
        option("ENGINE", "bundled (with pygraphviz), or system (`dot` on PATH).", "vggscope.drawing.engine:ENGINES"),
    ] = "bundled"

    title: Annotated[str | None, option("TEXT", "The title, in place of the model's name; none for no title.")] = None
    caption: Annotated[str | None, option("TEXT", "The line below the title; none for no line.")] = None
    legend: Annotated[bool, typer.Option(help="Say below the picture what its colours and scales mean.")] = True
    crop: Annotated[bool, flag("--crop", "No margin around the picture.")] = False
    only: Annotated[
        str | None, option("FROM..TO", "A part of the model: stages, modules or layers, e.g. stage3..stage5.", "layers")
    ] = None

    font: Annotated[
        str | None,
        option("NAME", "A font that is installed here, in place of Helvetica.", "fonts"),
    ] = None

    depth: Annotated[
        int | None,
        option("N", "With --style layers: frames around modules within modules, down to this depth.", "depths"),
    ] = None

    def keywords(self) -> dict[str, Any]:
        names = None if self.annotate is None else [name.strip() for name in self.annotate.split(",")]
        return {**vars(self), "annotate": names}


def diagram(
    models: Models,
    build: ModelFlags,
    output: Annotated[str, option("FILE", "The picture: .svg, .png, .pdf, .dot or .tex.", "pictures", names=OUTPUT)],
    look: _Look,
    dpi: Annotated[int, option("N", "Dots per inch of a PNG.")] = 144,
) -> int:
    """Draw a model, or several side by side.

    Example: vggscope diagram E -o vgg19.svg

    Example: vggscope diagram A B C D E --theme paper -o table1.pdf
    """
    suffix = Path(output).suffix or (".svg" if is_special(output) else "")
    form = suffix.lower().removeprefix(".")
    if form not in get_args(PictureFormat):
        kinds = ", ".join(f".{name}" for name in get_args(PictureFormat))
        raise OptionError(f"no picture ends in {suffix or Path(output).name!r}", f"-o takes {kinds}")
    networks = [api.network(word, **build.keywords()) for word in models]
    picture = api.diagram(*networks, **look.keywords())
    with step(f"writing {output}"):
        data = picture.render(form, dpi)
        write_file(output, data)
    note_written(output)
    return note_failures(*(network.failure for network in networks))
