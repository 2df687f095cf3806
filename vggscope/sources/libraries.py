"""Models of torchvision and timm: `torchvision:vgg16`, `timm:vgg16`. Weights are never downloaded."""

from __future__ import annotations

import inspect
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vggscope.graph import Network
from vggscope.ops.base import Shape
from vggscope.sources import stand_ins
from vggscope.sources.library_errors import missing, no_model
from vggscope.suppress import suppress_output
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

_WITH_TRAINING_HEADS = ("googlenet", "inception_v3")
"""torchvision's models whose published parameter counts leave out the auxiliary heads, which run only in training."""

_FRAMES = 16
"""The number of frames of a clip, unless the weights need more."""


def claims(word: str) -> bool:
    """Whether the word begins with `torchvision:` or `timm:`."""
    return word.startswith(("torchvision:", "timm:"))


def load(word: str, options: BuildOptions) -> Network:
    """The model's Network, at `options.input` or else at the input size of its published weights.

    Raises ModelError for a name that the library does not have, OptionError for an option that only a column takes.
    """
    stand_in = stand_ins.load(word, options)
    if stand_in is not None:
        return stand_in
    from vggscope.trace.build import without_data
    from vggscope.trace.network import network_of

    make = partial(build, word, options)
    with suppress_output():
        module = without_data(make)
        return network_of(
            module,
            word,
            options.given or _input_size(word, module),
            rebuild=make,
            steps=options.steps,
            batch=options.batch,
            backward=options.backward,
        )


def build(word: str, options: BuildOptions) -> nn.Module:
    """The model, on the caller's default device; raises as `load` does."""
    library, _, name = word.partition(":")
    known = names(library)
    # timm's list has no names with a tag, such as `vgg16.tv_in1k`.
    if name not in known and not (library == "timm" and _timm().is_model(name)):
        raise no_model(library, name, known)
    options.refuse_column_options(f"{word} is built as its library defines it")
    arguments = {} if options.num_classes is None else {"num_classes": options.num_classes}
    return _build_timm(name, arguments) if library == "timm" else _build_torchvision(name, arguments)


def _build_timm(name: str, arguments: Mapping[str, int]) -> nn.Module:
    model: nn.Module = _timm().create_model(name, pretrained=False, **arguments)
    return model


def _build_torchvision(name: str, arguments: Mapping[str, int]) -> nn.Module:
    models = _torchvision()
    has_backbone = "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters
    weights = {"weights": None, "weights_backbone": None} if has_backbone else {"weights": None}
    with suppress_output():  # googlenet and inception_v3 warn of a change in a future release
        model: nn.Module = models.get_model(name, **weights, **arguments)
    return model


def library_model(word: str) -> tuple[str, int | None]:
    """The word itself, whose model has its own number of classes."""
    return word, None


def names(library: str, pattern: str = "") -> tuple[str, ...]:
    """The models of the installed library, those that match a pattern such as `vgg*` if one is given.

    torchvision's are those of classification, then those of detection, segmentation, video and optical flow.

    Raises MissingTool where the library is not installed.
    """
    if library == "timm":
        return tuple(_timm().list_models(pattern))
    found = _torchvision().list_models(include=pattern or None)
    return tuple(sorted(found, key=lambda name: (task(name) != "", name)))


def task(name: str) -> str:
    """The subpackage of torchvision.models that holds a model, such as `detection`; empty for classification.

    >>> task("vgg16"), task("ssd300_vgg16")
    ('', 'detection')
    """
    packages = _torchvision().get_model_builder(name).__module__.split(".")[2:-1]
    return ".".join(packages)


def parameter_counts(library: str) -> dict[str, int]:
    """The number of parameters of torchvision's models or of timm's VGGs.

    It is torchvision's published figure where that is complete, else counted on a module without data.
    """
    from vggscope.trace.network import parameter_count

    counts = {}
    for name in names(library, "vgg*" if library == "timm" else ""):
        if library == "timm" or task(name) or name in _WITH_TRAINING_HEADS:
            with suppress_output():
                counts[name] = parameter_count(partial(build, f"{library}:{name}", BuildOptions()))
        else:
            smallest = min(_torchvision().get_model_weights(name), key=lambda weights: expected_shape(weights) or ())
            counts[name] = smallest.meta["num_params"]
    return counts


def published_counts() -> dict[str, int]:
    """The number of parameters of torchvision's models as published, mostly without building them.

    Those of detection and segmentation may leave out a few parameters or an auxiliary head.
    """
    from vggscope.trace.network import parameter_count

    counts = {}
    for name in names("torchvision"):
        weights = list(_torchvision().get_model_weights(name))
        if name in _WITH_TRAINING_HEADS or not weights:
            with suppress_output():
                counts[name] = parameter_count(partial(build, f"torchvision:{name}", BuildOptions()))
        else:
            counts[name] = weights[0].meta["num_params"]
    return counts


def input_shape(name: str) -> Shape | None:
    """The smallest input that published weights of a torchvision model expect, without the batch dimension.

    None if they accept images of any size, as those of detection and optical flow do.

    >>> input_shape("vgg16"), input_shape("r3d_18"), input_shape("fcn_resnet50"), input_shape("ssd300_vgg16")
    ((3, 224, 224), (3, 16, 112, 112), (3, 520, 520), None)
    """
    shapes = [shape for weights in _torchvision().get_model_weights(name) if (shape := expected_shape(weights))]
    return min(shapes, default=None)


def expected_shape(weights: Any) -> Shape | None:
    """The input that published weights of torchvision expect, without the batch dimension; None for any size."""
    preset = getattr(weights.transforms, "keywords", {})
    # A preset of segmentation resizes its image without a crop.
    size = preset.get("crop_size", preset.get("resize_size"))
    if size is None:
        return None
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if weights.transforms.func.__name__ == "VideoClassification":
        return (3, max(_FRAMES, weights.meta.get("min_temporal_size", 0)), *sides)
    return (3, *sides)


def _input_size(word: str, module: nn.Module) -> Shape | None:
    library, _, name = word.partition(":")
    if library == "timm":
        return tuple(getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
    return input_shape(name)


def _timm() -> Any:
    return _library("timm", "timm")


def _torchvision() -> Any:
    return _library("torchvision", "torchvision.models")


def _library(name: str, module: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise missing(name) from None
