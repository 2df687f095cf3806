"""`vggscope diff MODEL --ref REF`."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
    argument,
    flag,
    option,
    words,
)
from vggscope.cli.output import check_format, emit, emit_lines
from vggscope.errors import CheckpointError, OptionError
from vggscope.vgg.notation import is_notation


def diff(
    model: Model,
    build: ModelFlags,
    output: OutputOptions,
    picture: PictureFlags,
    reference: Annotated[str | None, argument("[REF]", "The same as --ref REF.", "references")] = None,
    ref: Annotated[
        str | None,
        option(
            "REF",
            "torchvision or timm (the counterpart there), paper, or any MODEL; else the most like of published VGGs.",
            "references",
        ),
    ] = None,
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
    patch: Annotated[
        bool, flag("--patch", "Write a patch of the model's file after which the two agree, for git apply.")
    ] = False,
    list_all: Annotated[
        bool, flag("--all", "List every layer with another name, or in place or not, instead of counting them.")
    ] = False,
    fold: Annotated[
        bool, typer.Option(help="In a picture, count equal and harmless layers instead of drawing them.")
    ] = True,
    values: Annotated[
        bool, flag("--values", "Compare the values of two checkpoints, tensor by tensor; REF is a file too.")
    ] = False,
    strict: Annotated[bool, flag("--strict", "Exit with 1 unless the two are identical.")] = False,
) -> int:
    """Where a model differs from a reference model, what each difference does, and whether both compute the same.

    Exits with 0 when they are identical or equivalent, with 1 when they differ or the model is no VGG. -o diff.svg (or
    .png, .pdf, .dot, .tex) draws both, aligned and marked, the gravest differences first; -o diff.html is a page of
    every difference with links into the drawing.

    Example: vggscope diff my_vgg.py:VGG --ref torchvision

    Example: vggscope diff C --ref D -o diff.svg

    Example: vggscope diff my_vgg.py:VGG -o diff.html

    Example: vggscope diff my_vgg.py:VGG --ref D --patch -o fix.diff

    Example: vggscope diff finetuned.pth --ref vgg16.pth --values
    """
    if reference is not None and ref is not None:
        raise OptionError(f"two references, {reference} and {ref}", "leave out one of them")
    if reference is not None and all(is_notation(word) and " " not in word.strip() for word in (model, reference)):
        # Without quotes, the shell passes a line of notation as several words.
        remedy = f'a line of notation is one word: vggscope diff "{model} {reference}"'
        raise OptionError(f"{model} and {reference} are parts of a network", remedy)
    word = reference if ref is None else ref
    if values:
        other = {"numeric": numeric, "float64": float64, "weights": weights, "ignore": ignore, "training": training}
        other |= {"patch": patch, "all": list_all}
        file = _reference_file(build, other, word)
        check_format(output.format, output.output, "values")
        compared = api.values(model, file)
        emit(compared, output.format, output.output)
        return _exit_code(compared.verdict, strict)
    if patch and output.format is not None:
        raise OptionError(
            f"--patch and --format {output.format} exclude each other", "a patch is one text: --patch -o fix.diff"
        )
    if not patch:
        check_format(output.format, output.output, "diff")
    run = {"numeric": numeric, "seed": seed, "float64": float64, "weights": weights}
    shown = {"training": training, "patch": patch, "list_all": list_all}
    given = {**run, **shown, "ignore": words(ignore), **build.keywords()}
    try:
        result = api.diff(model, word, **given)
    except CheckpointError as error:
        if word is None or not (os.path.isfile(model) and os.path.isfile(word)):
            raise
        # Two files of weights that no network can be built from can still be compared by their tensors.
        raise CheckpointError(error.problem, "--values compares two files tensor by tensor") from None
    if patch:
        emit_lines((result.patch or "").splitlines(keepends=True), output.output)
        return _exit_code(result.verdict, strict)
    emit(result, output.format, output.output, theme=picture.theme, dpi=picture.dpi, fold=fold)
    return _exit_code(result.verdict, strict)


def _reference_file(build: ModelFlags, options: Mapping[str, object], ref: str | None) -> str:
    """The reference of --values. Raises OptionError for options of a model, which --values does not build, and for a
    reference that is no file.
    """
    if ref is None or ref in ("torchvision", "timm", "paper"):
        problem = "--values compares two checkpoints, " + ("one is given" if ref is None else f"{ref} is none")
        raise OptionError(problem, "name the other file: --ref vgg16.pth")
    given = [name for name, value in options.items() if value]
    given += [name for name, value in vars(build).items() if value not in (None, False) and name != "cache"]
    if given:
        name = f"--{given[0].replace('_', '-')}"
        raise OptionError(f"--values and {name} exclude each other", "--values reads two files and builds no model")
    return ref


def _exit_code(verdict: str, strict: bool) -> int:
    return 0 if verdict == "identical" or (verdict in ("equivalent", "alike") and not strict) else 1
