"""The words that options take, as types: `Literal` for one of several words, `TypedDict` for keyword arguments.

The words of a type are those of a table elsewhere, such as `drawing.STYLES`: a test holds the two together. At run time
any word is accepted, and a wrong one raises an OptionError that names the nearest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

Head = Literal["adaptive", "flatten", "dense"]
"""The classifier of a VGG: torchvision's with adaptive pooling, the paper's, or the paper's as convolutions."""

Dtype = Literal["float32", "float64", "float16", "bfloat16"]
"""The dtype of parameters and activations."""

StepDtype = Literal["float32", "float64", "float16", "bfloat16", "amp"]
"""The dtype of a training step; `amp` is automatic mixed precision."""

Mode = Literal["train", "inference", "finetune-head"]
"""What a step does: train all parameters, none, or those of the head."""

Optimizer = Literal["sgd", "sgd-momentum", "adam", "adamw", "rmsprop", "adagrad", "adadelta", "adamax"]
"""The optimizer of a training step."""

Recipe = Literal["paper", "torchvision", "timm"]
"""Whose optimizer, weight decay, dtype and batch a training step has."""

Parallel = Literal["ddp", "zero1", "zero2", "fsdp"]
"""How several GPUs share training."""

Cudnn = Literal["heuristic", "benchmark", "none"]
"""How cuDNN chooses the algorithms, whose workspaces count; none for no workspaces."""

Device = Literal["cuda", "cpu"]
"""Where a step is measured: on a GPU by its counters, or on a CPU by torch's memory tracker."""

Runtime = Literal["cuda", "tracker"]
"""Where a step runs: on a GPU, or under torch's memory tracker."""

Count = Literal["macs", "all"]
"""Which operations count: multiply-accumulates, or bias, activation, pooling and the rest too."""

Depth = Literal["layer", "stage"]
"""What a row of a summary is."""

Ignorable = Literal["names", "dropout", "inplace", "bias", "classes"]
"""A kind of difference that a diff may leave out."""

Init = Literal["paper", "torchvision"]
"""How weights are drawn."""

Style = Literal["blocks", "layers", "volumes", "table"]
"""The kind of a diagram."""

Theme = Literal["light", "dark", "paper", "warm", "pastel", "slides", "blueprint", "sepia"]
"""The colours of a picture."""

Direction = Literal["LR", "TB"]
"""The direction of a diagram: left to right, top to bottom."""

Engine = Literal["bundled", "system"]
"""The Graphviz that lays out a diagram: pygraphviz's, or `dot` on PATH."""

Annotation = Literal["shape", "rf", "params", "macs", "memory", "rule"]
"""A figure that a diagram shows beside each layer."""

Heat = Literal["rf", "params", "macs", "memory"]
"""A figure that a diagram shows as the strength of a layer's colour."""

Chart = Literal["bars", "bubbles"]
"""The chart of compared models."""

PictureFormat = Literal["svg", "png", "pdf", "dot", "tex"]
"""The format of a diagram's file."""

Topic = Literal[
    "conv",
    "pool",
    "relu",
    "linear",
    "lrn",
    "softmax",
    "input",
    "dense",
    "depth",
    "padding",
    "parameters",
    "flops",
    "memory",
    "backward",
    "dropout",
    "batchnorm",
    "init",
    "why-tools-disagree",
    "paper",
]
"""What `explain` explains beside the layers of a model."""


ComparedFigure = Literal[
    "model",
    "params",
    "macs",
    "activation_bytes",
    "inference_peak_bytes",
    "training_peak_bytes",
    "depth",
    "weight_layers",
    "receptive_field",
]
"""What models are sorted by."""

ComparedColumn = Literal[
    "model",
    "input_shape",
    "params",
    "macs",
    "activation_bytes",
    "inference_peak_bytes",
    "training_peak_bytes",
    "depth",
    "weight_layers",
    "receptive_field",
    "output_shape",
]
"""A column of a table of models."""

Order = Literal["ascending", "descending"]
"""The order in which models are sorted."""


class WordOptions(TypedDict, total=False):
    """How a model is built from a word.

    `head` and `batch_norm` are for configurations of Table 1, `num_classes` is the width of the last layer, and
    `soft_max` ends the model with the soft-max instead of the logits. Without `cache` a library's model is neither read
    from the user's cache folder nor written to it.
    """

    head: Head | None
    batch_norm: bool
    num_classes: int | None
    soft_max: bool
    cache: bool


class ModelOptions(WordOptions, total=False):
    """WordOptions, and what the model's forward is called with.

    `input_data` is what forward is called with, in place of `input_size`: a tensor, a tuple of positional arguments or
    a dict of keyword arguments, which may hold lists and dicts of tensors. A NumPy array stands for its tensor.
    `dtypes` are torch's dtypes, or their names, of the sizes in `input_size`; one is that of a single size.
    `batch_axis` is the axis of the batch, 0 if left out, None for none.
    """

    input_data: object
    dtypes: object
    batch_axis: int | None


class StepOptions(TypedDict, total=False):
    """How a step of training or inference runs.

    `foreach` updates all parameters at once, torch's default on a GPU; `fused` does so in one kernel. `weight_decay`
    and `nesterov` are the optimizer's. `clip_grad_norm` clips gradients by their norm. `ema` keeps a moving average of
    the weights. `accumulate` splits the batch into that many micro-batches. `checkpoint` recomputes the activations of
    each stage in the backward pass. `gpus` share the batch.
    """

    mode: Mode
    optimizer: Optimizer
    dtype: StepDtype | None
    foreach: bool | None
    fused: bool
    weight_decay: float
    nesterov: bool
    clip_grad_norm: bool
    ema: bool
    accumulate: int
    checkpoint: bool
    gpus: int
    parallel: Parallel | None
    runtime: Runtime


class ModelAndStepOptions(ModelOptions, StepOptions, total=False):
    """ModelOptions and StepOptions together."""


class PictureOptions(TypedDict, total=False):
    """How the picture of a result looks. Each kind of result takes some of these.

    A diff takes `fold`, which hides equal layers, a comparison `chart`, and a tutorial `animate`, which makes an SVG
    move. Receptive fields take `image`, a path or an image of pillow's, and `beside`, the fields of other models.
    """

    theme: Theme
    fold: bool
    chart: Chart
    animate: bool
    image: object
    beside: Sequence[object]


class SaveOptions(PictureOptions, total=False):
    """PictureOptions, and the dots per inch of a PNG."""

    dpi: int
