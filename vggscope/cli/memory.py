"""`vggscope memory MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope import api
from vggscope.choices import Mode, Optimizer, Parallel, StepDtype, StepOptions
from vggscope.cli.options import (
    CARDS,
    DTYPES,
    MODES,
    OPTIMIZERS,
    Model,
    ModelOptions,
    OutputOptions,
    PictureOptions,
    completed,
)
from vggscope.cli.output import check_format, emit


def memory(
    model: Model,
    build: ModelOptions,
    output: OutputOptions,
    picture: PictureOptions,
    batch: Annotated[int, typer.Option(metavar="N", help="Inputs in a batch.")] = 1,
    mode: Annotated[
        Mode,
        typer.Option(
            metavar="MODE", help="train, inference or finetune-head.", autocompletion=completed("one_of", MODES)
        ),
    ] = "train",
    optimizer: Annotated[
        Optimizer,
        typer.Option(
            metavar="NAME",
            help="sgd, sgd-momentum, adam, adamw or rmsprop.",
            autocompletion=completed("one_of", OPTIMIZERS),
        ),
    ] = "sgd-momentum",
    dtype: Annotated[
        StepDtype,
        typer.Option(
            metavar="DTYPE", help="float32, float16, bfloat16 or amp.", autocompletion=completed("one_of", DTYPES)
        ),
    ] = "float32",
    foreach: Annotated[bool, typer.Option(help="Update all parameters at once, torch's default on a GPU.")] = False,
    accumulate: Annotated[int, typer.Option(metavar="N", help="Split the batch into N micro-batches.")] = 1,
    checkpoint: Annotated[
        bool, typer.Option("--checkpoint", help="Recompute each stage in the backward pass.")
    ] = False,
    gpus: Annotated[int, typer.Option(metavar="N", help="GPUs that share the batch.")] = 1,
    parallel: Annotated[
        Parallel | None,
        typer.Option(
            metavar="HOW",
            help="ddp, zero1, zero2 or fsdp.",
            show_default=False,
            autocompletion=completed("one_of", "vggscope.analysis.memory.step_config:PARALLEL"),
        ),
    ] = None,
    gpu: Annotated[
        str | None,
        typer.Option(
            metavar="GPU",
            help="Does it fit? An amount (24GiB) or a card (RTX 4090).",
            autocompletion=completed("one_of", CARDS),
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(metavar="SIZE", help="Memory set aside for the CUDA context.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Run a step and show the predicted and the measured peak.")
    ] = False,
    workspace: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory set aside for cuDNN's workspace.")
    ] = None,
) -> None:
    """Memory of a training or inference step, its peak, and the largest batch that fits a GPU.

    -o memory.svg (or .png, .pdf) plots the step's timeline.

    Example: vggscope memory D -o memory.svg

    Example: vggscope memory D --batch 96 --optimizer adam --gpu 24GiB
    """
    check_format(output.format, output.output, "memory")
    step: StepOptions = {
        "mode": mode,
        "optimizer": optimizer,
        "dtype": dtype,
        "foreach": foreach,
        "accumulate": accumulate,
        "checkpoint": checkpoint,
        "gpus": gpus,
        "parallel": parallel,
    }
    if measure:
        emit(api.measure(model, batch=batch, **step, **build.keywords()), output.format, output.output)
        return
    report = api.memory(model, batch=batch, gpu=gpu, context=context, workspace=workspace, **step, **build.keywords())
    emit(report, output.format, output.output, theme=picture.theme, dpi=picture.dpi)
