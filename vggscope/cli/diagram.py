"""`vggscope diagram MODEL... -o FILE`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggscope.cli.options import ModelOptions, Models
from vggscope.cli.output import note, write_file
from vggscope.errors import OptionError
from vggscope.render.diagram import FORMATS, WIDTH
from vggscope.render.diagram import diagram as draw
from vggscope.sources.resolve import resolve
from vggscope.units import bytes_text


def diagram(
    models: Models,
    build: ModelOptions,
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="The picture: .svg, .png, .pdf or .dot.")
    ],
    style: Annotated[str, typer.Option(metavar="STYLE", help="blocks: a stage a box, its layers listed.")] = "blocks",
    theme: Annotated[str, typer.Option(metavar="THEME", help="light, dark or paper.")] = "light",
    engine: Annotated[
        str, typer.Option(metavar="ENGINE", help="bundled (with pygraphviz), or system (`dot` on PATH).")
    ] = "bundled",
    dpi: Annotated[int, typer.Option(metavar="N", help="Dots per inch of a PNG.")] = 144,
) -> None:
    """Draw a model, or several side by side.

    Example: vggscope diagram E -o vgg19.svg
    """
    form = Path(output).suffix.lower().removeprefix(".")
    if form not in FORMATS:
        kinds = ", ".join(f".{name}" for name in FORMATS)
        raise OptionError(f"no picture ends in {Path(output).suffix or Path(output).name!r}", f"-o takes {kinds}")
    options = build.source_options()
    drawn = draw([resolve(word, options) for word in models], style, theme, engine, WIDTH)
    data = drawn.render(form, dpi)
    write_file(output, data)
    note(f"wrote {output} ({bytes_text(len(data))})")
