"""`vggscope compare MODEL...`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from vggscope.analysis.compare import compare as analyse
from vggscope.analysis.memory.grid import grid
from vggscope.analysis.memory.setup import Setup
from vggscope.cli.options import DTYPES, MODES, OPTIMIZERS, THEMES, BatchOptions, ModelOptions, OutputOptions, completed
from vggscope.cli.output import check_format, emit, emit_lines, progress
from vggscope.cli.picture import picture_form, write_picture
from vggscope.columns import COLUMNS
from vggscope.errors import OptionError, ShapeError
from vggscope.graph import Network
from vggscope.lessons.paper import published
from vggscope.record import record
from vggscope.render.grid import LINES
from vggscope.sources.resolve import resolve
from vggscope.units import parse_numbers, parse_shape

BATCHES = "1,2,4,8,16,32,64,128,256"
"""Of a grid, where none is given."""


@record
class GridOptions:
    """Memory over a grid."""

    grid: Annotated[
        bool, typer.Option("--grid", help="Peak memory at every point of a grid, as CSV or JSON lines.")
    ] = False
    sizes: Annotated[
        str | None, typer.Option(metavar="SIZES", help="Of the grid: sides or CxHxW, e.g. 64,224,3x300x200.")
    ] = None
    batches: Annotated[str | None, typer.Option(metavar="NUMBERS", help="Of the grid: e.g. 1-256 or 1,8,64.")] = None
    modes: Annotated[
        str | None,
        typer.Option(
            metavar="MODES", help="Of the grid: e.g. train,inference.", autocompletion=completed("several", MODES)
        ),
    ] = None
    optimizers: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES", help="Of the grid: e.g. sgd,adam.", autocompletion=completed("several", OPTIMIZERS)
        ),
    ] = None
    dtypes: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPES", help="Of the grid: e.g. float32,amp.", autocompletion=completed("several", DTYPES)
        ),
    ] = None

    def setups(self, dtype: str) -> list[Setup]:
        """One for each mode, optimizer and dtype; without a backward pass an optimizer makes no difference.

        `dtype` is taken where none is listed. Raises OptionError for an unknown name.
        """
        optimizers, dtypes = words(self.optimizers or "sgd-momentum"), words(self.dtypes or dtype)
        found = (
            Setup(mode, optimizer, dtype)
            for mode in words(self.modes or "train")
            for optimizer in (optimizers if mode != "inference" else optimizers[:1])
            for dtype in dtypes
        )
        return list(dict.fromkeys(found))

    def inputs(self) -> list[tuple[int, ...]]:
        """Channels, height, width; empty where none is given. Raises OptionError for what is no size."""
        sizes = words(self.sizes) if self.sizes is not None else []
        return [parse_shape(f"3x{size}x{size}" if size.isascii() and size.isdigit() else size) for size in sizes]

    def check(self) -> None:
        """Raise OptionError where an option of the grid stands without one."""
        given = ("sizes", "batches", "modes", "optimizers", "dtypes")
        alone = [f"--{name}" for name in given if getattr(self, name) is not None]
        if alone and not self.grid:
            raise OptionError(f"{', '.join(alone)} without --grid", "add --grid, or use --input, --batch and --dtype")


def words(text: str) -> list[str]:
    """The words of a list with commas; raises OptionError where there is none."""
    found = [word.strip() for word in text.split(",") if word.strip()]
    if not found:
        raise OptionError(f"{text!r:.40} names nothing", "write words with commas between them")
    return found


def compare(
    build: ModelOptions,
    batch: BatchOptions,
    output: OutputOptions,
    over: GridOptions,
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL...",
            help="Models, each a word as `summary` takes it.",
            autocompletion=completed("models"),
        ),
    ] = None,
    paper: Annotated[
        bool, typer.Option("--paper", help="Tables 1 and 2 beside computed values; without MODEL, all six columns.")
    ] = False,
    theme: Annotated[
        str,
        typer.Option(
            metavar="THEME",
            help="A plot's theme: light, dark or paper.",
            autocompletion=completed("one_of", THEMES),
        ),
    ] = "light",
) -> int:
    """Models side by side: parameters, MACs, memory, depth, receptive field; -o FILE.svg, .png or .pdf plots them.

    Example: vggscope compare A D E torchvision:resnet18

    Example: vggscope compare A D --grid --sizes 64,224 --batches 1-256 --optimizers sgd,adam -o grid.csv
    """
    batch.check()
    over.check()
    if over.grid:
        if paper:
            raise OptionError("--paper and --grid are two things", "ask for one of them")
        return _grid(models or list(COLUMNS), build, batch, output, over)
    check_format(output.format)
    form = picture_form(output.output, output.format, theme)
    names = models or (list(COLUMNS) if paper else [])
    if not names:
        raise OptionError("no model to compare", "for example vggscope compare A D E torchvision:resnet18, or --paper")
    options = build.source_options()
    networks = [resolve(word, options) for word in names]
    found = analyse(networks, batch.batch, batch.dtype, published() if paper else ())
    if form is not None and output.output is not None:
        from vggscope.render.compare_plot import plot

        write_picture(output.output, plot(found, form, theme))
    else:
        emit(found, output.format, output.output)
    return 2 if any(network.failure is not None for network in networks) else 0


def _grid(models: list[str], build: ModelOptions, batch: BatchOptions, output: OutputOptions, over: GridOptions) -> int:
    name = output.format or (Path(output.output).suffix.removeprefix(".") if output.output is not None else "csv")
    name = "json" if name == "jsonl" else name
    if name not in LINES:
        raise OptionError(f"a grid is not written as {name or 'a file without suffix'}", "it is written as csv or json")
    options = build.source_options()
    setups = over.setups(batch.dtype)
    batches = parse_numbers(over.batches or (str(batch.batch) if batch.batch > 1 else BATCHES))
    inputs: list[tuple[int, ...] | None] = [*over.inputs()]
    points = [(model, size) for model in models for size in inputs or [options.input]]

    def networks(advance: Callable[[str], None]) -> Iterator[Network]:
        for model, size in points:
            advance(model)
            network = resolve(model, replace(options, input=size))
            if network.failure is not None:
                raise ShapeError(f"{model} does not run: {network.failure}", "--sizes gives other inputs")
            yield network

    # A bar among the rows of a terminal would spoil both.
    shown = output.output is not None or (sys.stdout is not None and not sys.stdout.isatty())
    with progress("estimating", len(points)) if shown else nullcontext(lambda model: None) as advance:
        emit_lines(LINES[name](grid(networks(advance), batches, setups)), output.output)
    return 0
