"""`vggscope compare MODEL...`."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from vggscope import api
from vggscope.choices import Theme
from vggscope.cli.options import (
    DTYPES,
    MODES,
    OPTIMIZERS,
    THEME_WORDS,
    THEMES,
    BatchOptions,
    ModelFlags,
    OutputOptions,
    argument,
    flag,
    option,
    words,
)
from vggscope.cli.output import check_format, emit, emit_lines, is_read, note_failures
from vggscope.drawing.themes import theme_named
from vggscope.errors import OptionError
from vggscope.progress import on_terminal
from vggscope.record import record
from vggscope.render.grid import LINES
from vggscope.units import parse_numbers, parse_shape


@record
class GridOptions:
    """Memory over a grid."""

    grid: Annotated[bool, flag("--grid", "Peak memory at every point of a grid, as CSV or JSON lines.")] = False
    sizes: Annotated[str | None, option("SIZES", "Of the grid: sides or CxHxW, e.g. 64,224,3x300x200.")] = None
    batches: Annotated[str | None, option("NUMBERS", "Of the grid: e.g. 1-256 or 1,8,64.")] = None
    modes: Annotated[str | None, option("MODES", "Of the grid: e.g. train,inference.", "several", MODES)] = None
    optimizers: Annotated[str | None, option("NAMES", "Of the grid: e.g. sgd,adam.", "several", OPTIMIZERS)] = None
    dtypes: Annotated[str | None, option("DTYPES", "Of the grid: e.g. float32,amp.", "several", DTYPES)] = None

    def inputs(self) -> list[tuple[int, ...]]:
        """The sizes as (channels, height, width). Raises OptionError for an invalid size."""
        sizes = _words(self.sizes) if self.sizes is not None else []
        return [parse_shape(f"3x{size}x{size}" if size.isascii() and size.isdigit() else size) for size in sizes]

    def check(self) -> None:
        """Raise OptionError for an option of the grid without --grid."""
        names = ("sizes", "batches", "modes", "optimizers", "dtypes")
        options = [f"--{name}" for name in names if getattr(self, name) is not None]
        if options and not self.grid:
            raise OptionError(f"{', '.join(options)} without --grid", "add --grid, or use --input, --batch and --dtype")


def compare(
    build: ModelFlags,
    batch: BatchOptions,
    output: OutputOptions,
    over: GridOptions,
    models: Annotated[
        list[str] | None, argument("MODEL...", "Models, each a word as `summary` takes it.", "models")
    ] = None,
    paper: Annotated[
        bool,
        flag("--paper", "Tables 1 and 2 beside computed values; compares all columns if no MODEL is named."),
    ] = False,
    theme: Annotated[Theme, option("THEME", f"A plot's theme: {THEME_WORDS}", THEMES)] = "light",
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
        return _grid(models or [], build, batch, output, over)
    check_format(output.format, output.output, "compare")
    theme_named(theme)
    comparison = api.compare(*models or (), batch=batch.batch, dtype=batch.dtype, paper=paper, **build.keywords())
    emit(comparison, output.format, output.output, theme=theme)
    return note_failures(*(model.failure for model in comparison.models), told=is_read(output.format, output.output))


def _grid(models: list[str], build: ModelFlags, batch: BatchOptions, output: OutputOptions, over: GridOptions) -> int:
    name = output.format or (Path(output.output).suffix.removeprefix(".") if output.output is not None else "csv")
    name = "json" if name == "jsonl" else name
    if name not in LINES:
        raise OptionError(f"a grid is not written as {name or 'a file without suffix'}", "it is written as csv or json")
    batches = parse_numbers(over.batches) if over.batches else [batch.batch] if batch.batch > 1 else []
    options = build.keywords()
    own_input, dtypes = options.pop("input_size"), over.dtypes or batch.dtype
    points = api.grid(
        *models,
        sizes=over.inputs() or ([own_input] if own_input else []),
        batches=batches,
        modes=_words(over.modes or "train"),
        optimizers=_words(over.optimizers or "sgd-momentum"),
        dtypes=_words(dtypes) if dtypes else (None,),
        **options,
    )
    # A progress bar between the rows on a terminal would make both unreadable.
    shown = output.output is not None or (sys.stdout is not None and not sys.stdout.isatty())
    with on_terminal() if shown else nullcontext():
        emit_lines(LINES[name](points), output.output)
    return 0


def _words(text: str) -> list[Any]:
    """The words of a list with commas. Raises OptionError where there is none."""
    listed = words(text)
    if not listed:
        raise OptionError(f"{text!r:.40} names nothing", "write words with commas between them")
    return listed
