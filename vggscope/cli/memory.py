"""`vggscope memory MODEL`."""

from __future__ import annotations

from typing import Annotated

import typer

from vggscope import api
from vggscope.choices import Cudnn, Device, Mode, Optimizer, Parallel, Recipe, StepDtype
from vggscope.cli.options import (
    CARDS,
    DTYPES,
    MODES,
    OPTIMIZERS,
    RECIPES,
    Model,
    ModelFlags,
    OutputOptions,
    PictureFlags,
    flag,
    option,
)
from vggscope.cli.output import check_format, emit
from vggscope.errors import OptionError
from vggscope.record import record


@record
class _Step:
    """Options."""

    batch: Annotated[int | None, option("N", "Inputs in a batch, 1 if left out.")] = None
    mode: Annotated[Mode, option("MODE", "train, inference or finetune-head.", MODES)] = "train"
    recipe: Annotated[
        Recipe | None,
        option("NAME", "paper, torchvision or timm: batch, optimizer, weight decay, dtype as these train.", RECIPES),
    ] = None
    optimizer: Annotated[
        Optimizer | None,
        option(
            "NAME",
            "sgd, sgd-momentum, adam, adamw, rmsprop, adagrad, adadelta or adamax; sgd-momentum if left out.",
            OPTIMIZERS,
        ),
    ] = None
    weight_decay: Annotated[float | None, option("X", "The optimizer's weight decay, 0 if left out.")] = None
    nesterov: Annotated[bool | None, flag("--nesterov", "SGD with Nesterov momentum.")] = None
    fused: Annotated[bool, flag("--fused", "Update all parameters in one kernel, without temporaries.")] = False
    clip_grad_norm: Annotated[bool, flag("--clip-grad-norm", "Clip gradients by their norm.")] = False
    ema: Annotated[bool, flag("--ema", "Keep a moving average of the weights.")] = False
    dtype: Annotated[
        StepDtype | None, option("DTYPE", "float32, float16, bfloat16 or amp; else the model's own.", DTYPES)
    ] = None
    foreach: Annotated[
        bool | None,
        typer.Option("--foreach/--no-foreach", help="Update all parameters at once, torch's default on a GPU, or not."),
    ] = None
    accumulate: Annotated[int, option("N", "Split the batch into N micro-batches.")] = 1
    checkpoint: Annotated[bool, flag("--checkpoint", "Recompute each stage in the backward pass.")] = False
    gpus: Annotated[int, option("N", "GPUs that share the batch.")] = 1
    parallel: Annotated[
        Parallel | None, option("HOW", "ddp, zero1, zero2 or fsdp.", "vggscope.analysis.memory.step_config:PARALLEL")
    ] = None


def memory(
    model: Model,
    build: ModelFlags,
    output: OutputOptions,
    picture: PictureFlags,
    step: _Step,
    gpu: Annotated[str | None, option("GPU", "Does it fit? An amount (24GiB) or a card (RTX 4090).", CARDS)] = None,
    context: Annotated[str | None, option("SIZE", "The CUDA context; else the card's own.")] = None,
    measure: Annotated[bool, flag("--measure", "Run a step and show the predicted and the measured memory.")] = False,
    device: Annotated[
        Device | None,
        option("DEVICE", "Where --measure runs: cuda or cpu.", "vggscope.cross_checks.gpu_counters:DEVICES"),
    ] = None,
    workspace: Annotated[str | None, option("SIZE", "Memory set aside for cuDNN, in place of a model of it.")] = None,
    cudnn: Annotated[
        Cudnn | None,
        option("HOW", "heuristic (the default), benchmark or none.", "vggscope.analysis.memory.workspace:CUDNN"),
    ] = None,
) -> None:
    """Memory of a training or inference step, its peak, and the largest batch that fits a GPU.

    -o memory.svg (or .png, .pdf) plots the step's timeline.

    Example: vggscope memory D -o memory.svg

    Example: vggscope memory D --batch 96 --optimizer adam --gpu 24GiB
    """
    check_format(output.format, output.output, "memory")
    card = {"gpu": gpu, "context": context, "workspace": workspace, "cudnn": cudnn}
    given = {**vars(step), **build.keywords(), **card}
    if step.batch is None and step.recipe is None:
        given["batch"] = 1
    if measure:
        emit(api.measure(model, device=device, **given), output.format, output.output)
        return
    if device is not None:
        raise OptionError("--device is where --measure runs a step", "add --measure")
    report = api.memory(model, **given)
    emit(report, output.format, output.output, theme=picture.theme, dpi=picture.dpi)
