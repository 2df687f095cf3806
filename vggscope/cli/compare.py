"""`vggscope compare MODEL...`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope.analysis.compare import compare as analyse
from vggscope.cli.options import BatchOptions, ModelOptions, OutputOptions
from vggscope.cli.output import check_format, emit
from vggscope.cli.picture import picture_form, write_picture
from vggscope.columns import COLUMNS
from vggscope.errors import OptionError
from vggscope.lessons.paper import published
from vggscope.sources.resolve import resolve


def compare(
    build: ModelOptions,
    batch: BatchOptions,
    output: OutputOptions,
    models: Annotated[
        list[str] | None, typer.Argument(metavar="MODEL...", help="Models, each a word as `summary` takes it.")
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Tables 1 and 2 beside computed values; without MODEL, all six columns.")
    ] = False,
    theme: Annotated[str, typer.Option(metavar="THEME", help="A plot's theme: light, dark or paper.")] = "light",
) -> int:
    """Models side by side: parameters, MACs, memory, depth, receptive field; -o FILE.svg, .png or .pdf plots them.

    Example: vggscope compare A D E torchvision:resnet18
    """
    batch.check()
    check_format(output.format)
    form = picture_form(output.output, output.format, theme)
    words = models or (list(COLUMNS) if paper else [])
    if not words:
        raise OptionError("no model to compare", "for example vggscope compare A D E torchvision:resnet18, or --paper")
    options = build.source_options()
    networks = [resolve(word, options) for word in words]
    found = analyse(networks, batch.batch, batch.dtype, published() if paper else ())
    if form is not None and output.output is not None:
        from vggscope.render.compare_plot import plot

        write_picture(output.output, plot(found, form, theme))
    else:
        emit(found, output.format, output.output)
    return 2 if any(network.failure is not None for network in networks) else 0
