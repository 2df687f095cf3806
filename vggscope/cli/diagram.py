"""`vggscope diagram MODEL... -o FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggscope.cli.options import THEMES, ModelOptions, Models, completed
from vggscope.cli.output import broke_off, note
from vggscope.drawing import FORMATS, STYLES
from vggscope.drawing import diagram as draw
from vggscope.drawing.facts import FACTS
from vggscope.errors import OptionError
from vggscope.files import is_special, write_file
from vggscope.sources.resolve import resolve
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
        str,
        typer.Option(
            metavar="STYLE",
            help=", ".join(STYLES) + ".",
            autocompletion=completed("one_of", "vggscope.drawing:STYLES"),
        ),
    ] = "blocks",
    theme: Annotated[
        str,
        typer.Option(metavar="THEME", help="light, dark or paper.", autocompletion=completed("one_of", THEMES)),
    ] = "light",
    annotate: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help=f"What is written beside the layers: {', '.join(FACTS)}.",
            autocompletion=completed("several", "vggscope.drawing.facts:FACTS"),
        ),
    ] = None,
    heat: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What the strength of the colour tells, e.g. macs.",
            autocompletion=completed("one_of", "vggscope.drawing.facts:HEATS"),
        ),
    ] = None,
    fold: Annotated[bool, typer.Option(help="Draw equal blocks in a row once, with their number.")] = True,
    direction: Annotated[
        str | None,
        typer.Option(
            metavar="LR|TB",
            help="Left to right (as if left out), or top to bottom.",
            show_default=False,
            autocompletion=completed("one_of", "vggscope.drawing:DIRECTIONS"),
        ),
    ] = None,
    width: Annotated[
        float | None, typer.Option(metavar="POINTS", help="The widest that the picture may be.", show_default=False)
    ] = None,
    engine: Annotated[
        str,
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
    if form not in FORMATS:
        kinds = ", ".join(f".{name}" for name in FORMATS)
        raise OptionError(f"no picture ends in {suffix or Path(output).name!r}", f"-o takes {kinds}")
    options = build.source_options()
    networks = [resolve(word, options) for word in models]
    drawn = draw(
        networks,
        style,
        theme,
        annotate=None if annotate is None else [name.strip() for name in annotate.split(",")],
        heat=heat,
        fold=fold,
        direction=direction,
        width=width,
        engine=engine,
    )
    data = drawn.render(form, dpi)
    write_file(output, data)
    note(f"wrote {output} ({bytes_text(len(data))})")
    return broke_off(*(network.failure for network in networks))
