"""`vggscope diagram MODEL... -o FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from vggscope import api
from vggscope.choices import Annotation, Direction, Engine, Heat, PictureFormat, Style, Theme
from vggscope.cli.options import THEMES, ModelOptions, Models, completed
from vggscope.cli.output import note, note_failures
from vggscope.errors import OptionError
from vggscope.files import is_special, write_file
from vggscope.units import bytes_text


def diagram(
    models: Models,
    build: ModelOptions,
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The picture: .svg, .png, .pdf, .dot or .tex.",
            autocompletion=completed("pictures"),
        ),
    ],
    style: Annotated[
        Style,
        typer.Option(
            metavar="STYLE",
            help=", ".join(get_args(Style)) + ".",
            autocompletion=completed("one_of", "vggscope.drawing:STYLES"),
        ),
    ] = "blocks",
    theme: Annotated[
        Theme,
        typer.Option(metavar="THEME", help="light, dark or paper.", autocompletion=completed("one_of", THEMES)),
    ] = "light",
    annotate: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help=f"Figures beside the layers: {', '.join(get_args(Annotation))}.",
            autocompletion=completed("several", "vggscope.drawing.look:FACTS"),
        ),
    ] = None,
    heat: Annotated[
        Heat | None,
        typer.Option(
            metavar="NAME",
            help="Figure that the strength of the colour shows, e.g. macs.",
            autocompletion=completed("one_of", "vggscope.drawing.look:HEATS"),
        ),
    ] = None,
    fold: Annotated[bool, typer.Option(help="Draw equal blocks in a row once, with their number.")] = True,
    direction: Annotated[
        Direction | None,
        typer.Option(
            metavar="LR|TB",
            help="Left to right (the default), or top to bottom.",
            show_default=False,
            autocompletion=completed("one_of", "vggscope.drawing:DIRECTIONS"),
        ),
    ] = None,
    width: Annotated[
        float | None, typer.Option(metavar="POINTS", help="The largest width of the picture.", show_default=False)
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            metavar="ENGINE",
            help="bundled (with pygraphviz), or system (`dot` on PATH).",
            autocompletion=completed("one_of", "vggscope.drawing.engine:ENGINES"),
        ),
    ] = "bundled",
    dpi: Annotated[int, typer.Option(metavar="N", help="Dots per inch of a PNG.")] = 144,
) -> int:
    """Draw a model, or several side by side.

    Example: vggscope diagram E -o vgg19.svg

    Example: vggscope diagram A B C D E --style table --theme paper -o table1.pdf
    """
    suffix = Path(output).suffix or (".svg" if is_special(output) else "")
    form = suffix.lower().removeprefix(".")
    if form not in get_args(PictureFormat):
        kinds = ", ".join(f".{name}" for name in get_args(PictureFormat))
        raise OptionError(f"no picture ends in {suffix or Path(output).name!r}", f"-o takes {kinds}")
    networks = [api.network(word, **build.keywords()) for word in models]
    annotations: list[Any] | None = None if annotate is None else [name.strip() for name in annotate.split(",")]
    picture = api.diagram(
        *networks,
        style=style,
        theme=theme,
        annotate=annotations,
        heat=heat,
        fold=fold,
        direction=direction,
        width=width,
        engine=engine,
    )
    data = picture.render(form, dpi)
    write_file(output, data)
    note(f"wrote {output} ({bytes_text(len(data))})")
    return note_failures(*(network.failure for network in networks))
