"""`vggscope summary MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope.analysis.summary import by_stage, summarize
from vggscope.cli.options import CARDS, BatchOptions, Model, ModelOptions, OutputOptions, completed
from vggscope.cli.output import broke_off, check_format, emit
from vggscope.errors import unknown
from vggscope.render.summary import SHOWN, column_keys
from vggscope.sources.resolve import resolve

DEPTHS = ("layer", "stage")


def summary(
    model: Model,
    build: ModelOptions,
    batch: BatchOptions,
    output: OutputOptions,
    columns: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Columns to show, e.g. layer,output,rule,params.",
            autocompletion=completed("several", "vggscope.render.summary:COLUMNS"),
        ),
    ] = None,
    count: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help="FLOPs as 2 x macs, or all: bias, activation, pooling and the rest too.",
            autocompletion=completed("one_of", "vggscope.analysis.operations.result:COUNTS"),
        ),
    ] = "macs",
    backward: Annotated[
        bool, typer.Option("--backward", help="Operations, forward and backward, and the bytes that they move.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="CARD",
            help="The least time of each layer on a card, e.g. A100-80GB.",
            autocompletion=completed("one_of", CARDS),
        ),
    ] = None,
    depth: Annotated[
        str,
        typer.Option(
            metavar="DEPTH",
            help="layer, or stage for a row per stage.",
            autocompletion=completed("one_of", "vggscope.cli.summary:DEPTHS"),
        ),
    ] = "layer",
) -> int:
    """Shapes with the rule, parameters, MACs, memory and receptive fields, layer by layer.

    Example: vggscope summary D

    Example: vggscope summary my_vgg.py:VGG --input 3x32x32

    Example: vggscope summary D --input 3x160x160 --columns layer,output,rule,params
    """
    batch.check()
    check_format(output.format)
    keys = column_keys(columns) if columns is not None else None
    if depth not in DEPTHS:
        raise unknown("depth", depth, DEPTHS)
    network = resolve(model, build.source_options())
    if backward or gpu is not None:
        from vggscope.analysis.operations.result import operations

        counted = operations(network, batch.batch, batch.dtype, count=count, card=gpu)
        emit(counted, output.format, output.output)
        return broke_off(network.failure)
    report = summarize(network, batch.batch, batch.dtype)
    if count != "macs":
        from vggscope.analysis.operations.result import operations, with_all

        report = with_all(report, operations(network, batch.batch, batch.dtype, count=count))
        keys = keys or tuple("flops" if key == "macs" else key for key in SHOWN)
    emit(by_stage(report) if depth == "stage" else report, output.format, output.output, keys)
    return broke_off(network.failure)
