"""`vggscope diff MODEL --ref REF`."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from vggscope import api
from vggscope.choices import Ignorable
from vggscope.cli.options import (
    CHECKPOINT_FILES,
    Model,
    ModelFlags,
    OutputOptions,
    PictureFlags,
    flag,
    option,
    words,
)
from vggscope.cli.output import check_format, emit
from vggscope.progress import on_terminal


def diff(
    model: Model,
    build: ModelFlags,
    output: OutputOptions,
    picture: PictureFlags,
    ref: Annotated[
        str, option("REF", "torchvision or timm (the counterpart there), paper, or any MODEL.", "references")
    ] = "torchvision",
    numeric: Annotated[bool, flag("--numeric", "Copy the weights across, run both, and compare the outputs.")] = False,
    seed: Annotated[int, option("N", "Seed of the weights and the input of --numeric.")] = 0,
    float64: Annotated[bool, flag("--float64", "Run --numeric in double precision.")] = False,
    weights: Annotated[
        str | None, option("FILE", "Weights for --numeric, from a checkpoint of the model.", *CHECKPOINT_FILES)
    ] = None,
    ignore: Annotated[
        str,
        option(
            "NAMES",
            f"Differences that do not count: {', '.join(get_args(Ignorable))}.",
            "several",
            "vggscope.diffing.result:IGNORABLE",
        ),
    ] = "",
    training: Annotated[
        bool, flag("--training", "Add what structure cannot show: how the paper and torchvision train.")
    ] = False,
    fold: Annotated[bool, typer.Option(help="In a picture, count equal layers instead of drawing them.")] = True,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Cache the library's model for the next diff.")
    ] = True,
    strict: Annotated[bool, flag("--strict", "Exit with 1 unless the two are identical.")] = False,
) -> int:
    """Where a model differs from a reference model, what each difference does, and whether both compute the same.

    Exits with 0 when they are identical or equivalent, with 1 when they differ. -o diff.svg (or .png, .pdf, .dot, .tex)
    draws both, aligned and marked.

    Example: vggscope diff my_vgg.py:VGG --ref torchvision

    Example: vggscope diff C --ref D -o diff.svg
    """
    check_format(output.format, output.output, "diff")
    with on_terminal():
        run = {"numeric": numeric, "seed": seed, "float64": float64, "weights": weights}
        given = {**run, "ignore": words(ignore), "training": training, "cache": cache, **build.keywords()}
        result = api.diff(model, ref, **given)
    emit(result, output.format, output.output, theme=picture.theme, dpi=picture.dpi, fold=fold)
    return 0 if result.verdict == "identical" or (result.verdict == "equivalent" and not strict) else 1
