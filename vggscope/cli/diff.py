"""`vggscope diff MODEL --ref REF`."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from vggscope.cli.options import Model, ModelOptions, OutputOptions
from vggscope.cli.output import check_format, emit
from vggscope.diffing.compare import compare
from vggscope.sources.reference import reference_for
from vggscope.sources.resolve import resolve, resolve_module


def diff(
    model: Model,
    build: ModelOptions,
    output: OutputOptions,
    ref: Annotated[
        str, typer.Option(metavar="REF", help="torchvision or timm (the counterpart there), paper, or any MODEL.")
    ] = "torchvision",
    numeric: Annotated[
        bool, typer.Option("--numeric", help="Copy the weights across, run both, and compare the outputs.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the weights and the input of --numeric.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 unless the two are identical.")] = False,
) -> int:
    """Where a model differs from a reference, what each difference does, and whether both compute the same.

    Exits with 0 when they are identical or equivalent, with 1 when they differ.

    Example: vggscope diff my_vgg.py:VGG --ref torchvision
    """
    check_format(output.format)
    options = build.source_options()
    ours = resolve(model, options)
    reference = reference_for(ref, model, ours, options)
    result = compare(ours, reference.network, reference.notes)
    if numeric:
        from vggscope.diffing.numeric import measure

        measured = measure(ours, reference.network, lambda: resolve_module(model, options), reference.build, seed)
        result = replace(result, numeric=measured)
    emit(result, output.format, output.output)
    return 0 if result.verdict == "identical" or (result.verdict == "equivalent" and not strict) else 1
