"""`vggscope rf MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope.analysis.receptive_field.result import describe
from vggscope.cli.options import Model, ModelOptions, OutputOptions
from vggscope.cli.output import check_format, emit
from vggscope.errors import OptionError
from vggscope.sources.resolve import resolve


def rf(
    model: Model,
    build: ModelOptions,
    output: OutputOptions,
    at: Annotated[
        str | None, typer.Option(metavar="LAYERS", help="Layers, by label or path: one unit's region, e.g. conv5_3.")
    ] = None,
    unit: Annotated[
        str | None, typer.Option(metavar="ROW,COLUMN", help="The unit of --at; the middle one if it is left out.")
    ] = None,
) -> None:
    """Receptive fields: size, stride and padding of each layer, or the pixels that one unit sees.

    Example: vggscope rf D --at conv5_3 --unit 6,6
    """
    check_format(output.format, output.output, "rf")
    layers = [name for part in (at or "").split(",") if (name := part.strip())]
    if unit is not None and not layers:
        raise OptionError("--unit needs a layer", "for example --at conv5_3 --unit 6,6")
    found = describe(resolve(model, build.source_options()), layers, _place(unit))
    emit(found, output.format, output.output)


def _place(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise OptionError(f"--unit {text!r} is no place in a map", "write row,column: --unit 6,6")
    return tuple(int(part) for part in parts)
