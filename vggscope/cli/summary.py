"""`vggscope summary MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope.analysis.report import by_stage, summarize
from vggscope.cli.options import BatchOptions, Model, ModelOptions, OutputOptions
from vggscope.cli.output import check_format, emit, note
from vggscope.errors import OptionError
from vggscope.render.summary import column_keys
from vggscope.sources.resolve import resolve


def summary(
    model: Model,
    build: ModelOptions,
    batch: BatchOptions,
    output: OutputOptions,
    columns: Annotated[
        str | None, typer.Option(metavar="NAMES", help="Columns to show, e.g. layer,output,rule,params.")
    ] = None,
    depth: Annotated[str, typer.Option(metavar="DEPTH", help="layer, or stage for a row per stage.")] = "layer",
) -> int:
    """Shapes with the rule, parameters, MACs, memory and receptive fields, layer by layer.

    Example: vggscope summary D --input 3x160x160 --columns layer,output,rule,params
    """
    batch.check()
    check_format(output.format)
    keys = column_keys(columns) if columns is not None else None
    if depth not in ("layer", "stage"):
        raise OptionError(f"unknown depth {depth!r}", "--depth is layer or stage")
    network = resolve(model, build.source_options())
    report = summarize(network, batch.batch, batch.dtype)
    emit(by_stage(report) if depth == "stage" else report, output.format, output.output, keys)
    if network.failure is not None:
        note(f"vggscope: {network.failure}\nwhat is shown ends there; --input gives another size")
        return 2
    return 0
