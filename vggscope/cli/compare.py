"""`vggscope compare MODEL...`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from signal import SIGINT
from typing import TYPE_CHECKING, Annotated, Any, get_args

from vggscope import api
from vggscope.choices import Chart, Order, Theme
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
from vggscope.cli.output import check_format, check_theme, emit, emit_lines, is_read, note, note_failures
from vggscope.errors import OptionError, Stopped, unknown
from vggscope.progress import nowhere
from vggscope.record import record
from vggscope.render.compare import failure_text, json_line, missing_text
from vggscope.render.formats import FORMATS, PICTURE, name_for
from vggscope.units import parse_numbers, parse_shape

if TYPE_CHECKING:
    from vggscope.analysis.compare import Compared, Comparison, Uncompared
    from vggscope.analysis.fleet import Fleet


LINES = "jsonl"
"""The format with a line for each model."""


@record
class ComparisonOutput(OutputOptions):
    """Where the result goes."""

    format: Annotated[
        str | None,
        option(
            "FORMAT",
            f"One of {', '.join(form.name for form in FORMATS)}, {LINES}.",
            "vggscope.cli.compare:FORMAT_NAMES",
            names=("--format", "-f"),
        ),
    ] = None


FORMAT_NAMES = (*(form.name for form in FORMATS), LINES)
"""What --format takes."""


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


@record
class FleetOptions:
    """Many models."""

    sort: Annotated[
        str | None,
        option("FIGURE", "Sort by a figure, e.g. macs, params or memory.", "vggscope.analysis.compare:SORTS"),
    ] = None
    order: Annotated[
        Order | None,
        option("ORDER", "ascending or descending (the largest first).", "vggscope.analysis.compare:ORDERS"),
    ] = None
    top: Annotated[int | None, option("N", "Show the first N of --sort.")] = None
    columns: Annotated[
        str | None,
        option(
            "NAMES",
            "Columns of the table, CSV or plot, e.g. model,params,macs; JSON has all.",
            "several",
            "vggscope.render.compare:COLUMNS",
        ),
    ] = None
    jobs: Annotated[
        int | None, option("N", "Processes at once; else one for each core, if there are enough models.")
    ] = None

    def keywords(self) -> dict[str, Any]:
        """The arguments of a function of `api`."""
        columns = self.columns.split(",") if self.columns is not None else None
        return {**vars(self), "columns": columns}

    def check_unused(self, other: str) -> None:
        """Raise OptionError for an option that does not go with `other`."""
        for name, value in vars(self).items():
            if value is not None:
                raise OptionError(f"--{name} with {other}", f"leave out --{name}")


def compare(
    build: ModelFlags,
    batch: BatchOptions,
    output: ComparisonOutput,
    many: FleetOptions,
    over: GridOptions,
    models: Annotated[
        list[str] | None,
        argument("MODEL...", "Models, each a word as `summary` takes it, or a pattern, e.g. 'timm:resnet*'.", "models"),
    ] = None,
    paper: Annotated[
        bool,
        flag("--paper", "Tables 1 and 2 beside computed values; compares all columns if no MODEL is named."),
    ] = False,
    theme: Annotated[Theme, option("THEME", f"A plot's theme: {THEME_WORDS}", THEMES)] = "light",
    chart: Annotated[
        Chart, option("CHART", "The plot: bars, or bubbles.", "vggscope.render.compare_plot:CHARTS")
    ] = "bars",
) -> int:
    """Models side by side: parameters, MACs, memory, depth, receptive field; -o FILE.svg, .png or .pdf plots them.

    A pattern in quotes names the models of an installed library. --format jsonl, or -o FILE.jsonl, writes a line for
    each model as soon as it is done. Ctrl-C shows what is done.

    Example: vggscope compare A D E torchvision:resnet18

    Example: vggscope compare 'timm:resnet*' 'torchvision:vgg*' --sort macs --top 20

    Example: vggscope compare A D --grid --sizes 64,224 --batches 1-256 --optimizers sgd,adam -o grid.csv
    """
    batch.check()
    over.check()
    if over.grid:
        if paper:
            raise OptionError("--paper and --grid are two things", "ask for one of them")
        many.check_unused("--grid")
        return _grid(models or [], build, batch, output, over)
    in_lines = _in_lines(output)
    if in_lines:
        FleetOptions(many.sort, many.order, many.top).check_unused("lines that are written one by one")
    else:
        check_format(output.format, output.output, "compare", LINES)
    check_theme(theme)
    if chart not in get_args(Chart):
        raise unknown("chart", chart, get_args(Chart))
    fleet = api.fleet(
        *models or (), batch=batch.batch, dtype=batch.dtype, paper=paper, **many.keywords(), **build.keywords()
    )
    if not in_lines and _is_plot(output):
        from vggscope.render.compare_plot import check

        check(min(len(fleet), many.top or len(fleet)), chart, fleet.columns)
    rows = _until_interrupted(fleet)
    if in_lines:
        with _progress_beside(output):
            emit_lines((json_line(row, batch.batch) for row in rows), output.output, at_once=1)
    else:
        for _ in rows:
            pass
        emit(fleet.comparison(), output.format, output.output, theme=theme, chart=chart)
    told = not in_lines and is_read(output.format, output.output)
    return _note_problems(fleet.comparison(), told, "the output" if output.output is None else output.output)


def _in_lines(output: OutputOptions) -> bool:
    suffix = Path(output.output).suffix.lower() if output.output is not None else ""
    return (output.format or suffix.removeprefix(".")) == LINES


def _is_plot(output: OutputOptions) -> bool:
    return output.format is None and output.output is not None and name_for(output.output, "compare") == PICTURE


def _progress_beside(output: OutputOptions) -> AbstractContextManager[None]:
    """A progress bar between lines on a terminal would make both unreadable."""
    shown = output.output is not None or (sys.stdout is not None and not sys.stdout.isatty())
    return nullcontext() if shown else nowhere()


def _until_interrupted(fleet: Fleet) -> Iterator[Compared | Uncompared]:
    """The rows of a fleet until Ctrl-C. It ends the program if nothing is done yet."""
    try:
        yield from fleet
    except Stopped as stopped:
        if stopped.number != SIGINT or len(fleet.missing) == len(fleet):
            raise


def _note_problems(comparison: Comparison, told: bool, target: str) -> int:
    """Print what is wrong, in short if stdout has `told` it, and return the exit code. Data went to `target`."""
    failures, missing = comparison.failures, comparison.missing
    is_one = len(comparison.models) + len(failures) + len(missing) == 1
    code = 0
    for model in comparison.models:
        code = max(code, note_failures(model.failure, told=told, model="" if is_one else model.model))
    if failures:
        count = "1 model" if len(failures) == 1 else f"{len(failures):,} models"
        note(f"vggscope: {count} cannot be compared{', as noted' if told else ''}")
        note(*(() if told else map(failure_text, failures)))
    if missing:
        partial = "" if told else f"{target} is partial; "
        # A terminal shows the sentence below the table.
        note(*(() if told and sys.stdout.isatty() else [f"vggscope: {partial}interrupted: {missing_text(comparison)}"]))
        return 128 + SIGINT
    return 2 if failures else code


def _grid(models: list[str], build: ModelFlags, batch: BatchOptions, output: OutputOptions, over: GridOptions) -> int:
    from vggscope.render.grid import LINES

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
    with _progress_beside(output):
        emit_lines(LINES[name](points), output.output)
    return 0


def _words(text: str) -> list[Any]:
    """The words of a list with commas. Raises OptionError where there is none."""
    listed = words(text)
    if not listed:
        raise OptionError(f"{text!r:.40} names nothing", "write words with commas between them")
    return listed
