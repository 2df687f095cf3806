"""`vggscope diff MODEL --ref REF`."""

from __future__ import annotations

from typing import Annotated, get_args

import typer

from vggscope import api
from vggscope.choices import Ignorable
from vggscope.cli.options import CHECKPOINT_FILES, Model, ModelOptions, OutputOptions, PictureOptions, completed, words
from vggscope.cli.output import check_format, emit
from vggscope.progress import on_terminal


def diff(
    model: Model,
    build: ModelOptions,
    output: OutputOptions,
    picture: PictureOptions,
    ref: Annotated[
        str,
        typer.Option(
            metavar="REF",
            help="torchvision or timm (the counterpart there), paper, or any MODEL.",
            autocompletion=completed("references"),
        ),
    ] = "torchvision",
    numeric: Annotated[
        bool, typer.Option("--numeric", help="Copy the weights across, run both, and compare the outputs.")
    ] = False,
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the weights and the input of --numeric.")] = 0,
    float64: Annotated[bool, typer.Option("--float64", help="Run --numeric in double precision.")] = False,
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="Weights for --numeric, from a checkpoint of the model.",
            autocompletion=CHECKPOINT_FILES,
        ),
    ] = None,
    ignore: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help=f"Differences that do not count: {', '.join(get_args(Ignorable))}.",
            autocompletion=completed("several", "vggscope.diffing.result:IGNORABLE"),
        ),
    ] = "",
    training: Annotated[
        bool, typer.Option("--training", help="Add what structure cannot show: how the paper and torchvision train.")
    ] = False,
    fold: Annotated[bool, typer.Option(help="In a picture, count equal layers instead of drawing them.")] = True,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Cache the library's model for the next diff.")
    ] = True,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 unless the two are identical.")] = False,
) -> int:
    """Where a model differs from a reference model, what each difference does, and whether both compute the same.

    Exits with 0 when they are identical or equivalent, with 1 when they differ. -o diff.svg (or .png, .pdf, .dot, .tex)
    draws both, aligned and marked.

    Example: vggscope diff my_vgg.py:VGG --ref torchvision

    Example: vggscope diff C --ref D -o diff.svg
    """
    check_format(output.format, output.output, "diff")
    with on_terminal():
        result = api.diff(
            model,
            ref,
            numeric=numeric,
            seed=seed,
            float64=float64,
            weights=weights,
            ignore=words(ignore),
            training=training,
            cache=cache,
            **build.keywords(),
        )
    emit(result, output.format, output.output, theme=picture.theme, dpi=picture.dpi, fold=fold)
    return 0 if result.verdict == "identical" or (result.verdict == "equivalent" and not strict) else 1
