"""`vggscope summary MODEL`."""

from __future__ import annotations

from typing import Annotated, cast

from vggscope import api
from vggscope.choices import Count, Depth, Theme
from vggscope.cli.options import (
    CARDS,
    THEME_WORDS,
    THEMES,
    BatchOptions,
    Model,
    ModelFlags,
    OutputOptions,
    flag,
    option,
)
from vggscope.cli.output import check_format, check_theme, emit, is_read, note_failures
from vggscope.render.summary import column_keys


def summary(
    model: Model,
    build: ModelFlags,
    batch: BatchOptions,
    output: OutputOptions,
    columns: Annotated[
        str | None,
        option(
            "NAMES", "Columns to show, e.g. layer,output,rule,params.", "several", "vggscope.render.summary:COLUMNS"
        ),
    ] = None,
    count: Annotated[
        Count,
        option(
            "WHAT",
            "FLOPs as 2 x macs, or all: bias, activation, pooling and the rest too.",
            "vggscope.analysis.operations:COUNTS",
        ),
    ] = "macs",
    backward: Annotated[bool, flag("--backward", "Show operations, forward and backward, and bytes moved.")] = False,
    gpu: Annotated[
        str | None, option("CARD", "Add the least time of each layer on a GPU, e.g. A100-80GB.", CARDS)
    ] = None,
    depth: Annotated[
        str,
        option(
            "DEPTH",
            "layer; stage for a row per stage; or a number, for the tree of modules to that depth.",
            "vggscope.api:DEPTHS",
        ),
    ] = "layer",
    theme: Annotated[Theme, option("THEME", f"A plot's theme: {THEME_WORDS}", THEMES)] = "light",
) -> int:
    """Shapes with the rule, parameters, MACs, memory and receptive fields, layer by layer; -o FILE.svg, .png or .pdf
    plots them.

    Example: vggscope summary D

    Example: vggscope summary my_vgg.py:VGG --input 3x32x32

    Example: vggscope summary D --input 3x160x160 --columns layer,output,rule,params
    """
    batch.check()
    check_format(output.format, output.output, "operations" if backward or gpu is not None else "summary")
    check_theme(theme)
    keys = column_keys(columns, count)
    if backward or gpu is not None:
        counted = api.operations(model, batch=batch.batch, dtype=batch.dtype, count=count, card=gpu, **build.keywords())
        emit(counted, output.format, output.output)
        return note_failures(counted.failure)
    shown = int(depth) if depth.isdecimal() else cast(Depth, depth)
    report = api.summary(model, batch=batch.batch, dtype=batch.dtype, count=count, depth=shown, **build.keywords())
    emit(report, output.format, output.output, keys, theme=theme)
    return note_failures(report.failure, told=is_read(output.format, output.output))
