"""Models of torchvision and timm: `torchvision:vgg16`, `timm:vgg16`. Weights are never downloaded."""

from __future__ import annotations

import difflib
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vggscope.errors import MissingTool, ModelError
from vggscope.graph import Network
from vggscope.suppress import suppress_output
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from torch import nn

_WITH_TRAINING_HEADS = ("googlenet", "inception_v3")
"""torchvision's models whose published parameter counts leave out the auxiliary heads, which run only in training."""


def claims(word: str) -> bool:
    """Whether the word begins with `torchvision:` or `timm:`."""
    return word.startswith(("torchvision:", "timm:"))


def load(word: str, options: BuildOptions) -> Network:
    """The model's Network, at `options.input` or else at the input size of its published weights.

    Raises ModelError for a name that the library does not have, OptionError for an option that only a column takes.
    """
    from vggscope.trace.build import without_data
    from vggscope.trace.network import network_of

    make = partial(build, word, options)
    with suppress_output():
        module = without_data(make)
        return network_of(module, word, options.given or _input_size(word, module), rebuild=make)


def build(word: str, options: BuildOptions) -> nn.Module:
    """The model, on the caller's default device; raises as `load` does."""
    library, _, name = word.partition(":")
    known = names(library)
    # timm's list has no names with a tag, such as `vgg16.tv_in1k`.
    if name not in known and not (library == "timm" and _timm().is_model(name)):
        near = difflib.get_close_matches(name, known, n=3)
        remedy = f"near it: {', '.join(near)}" if near else "vggscope list --refs shows models, such as vgg16"
        raise ModelError(f"{library} has no model {name!r}", remedy)
    options.refuse_column_options(f"{word} is built as its library defines it")
    classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
    model: nn.Module
    if library == "timm":
        model = _timm().create_model(name, pretrained=False, **classes)
    else:
        with suppress_output():  # googlenet and inception_v3 warn of a change in a future release
            model = _torchvision().get_model(name, weights=None, **classes)
    return model


def names(library: str, pattern: str = "") -> tuple[str, ...]:
    """The classification models of the installed library, those that match a pattern such as `vgg*` if one is given.

    Raises MissingTool where the library is not installed.
    """
    if library == "timm":
        return tuple(_timm().list_models(pattern))
    models = _torchvision()
    return tuple(models.list_models(module=models, include=pattern or None))


def parameter_counts(library: str) -> dict[str, int]:
    """The number of parameters of torchvision's models or of timm's VGGs.

    It is torchvision's published figure where that is complete, else counted on a module without data.
    """
    from vggscope.trace.network import parameter_count

    counts = {}
    for name in names(library, "vgg*" if library == "timm" else ""):
        if library == "timm" or name in _WITH_TRAINING_HEADS:
            with suppress_output():
                counts[name] = parameter_count(partial(build, f"{library}:{name}", BuildOptions()))
        else:
            counts[name] = min(_torchvision().get_model_weights(name), key=_crop_size).meta["num_params"]
    return counts


def input_side(name: str) -> int:
    """The smallest input that published weights of a torchvision model expect, in pixels; 224 without weights."""
    return min(map(_crop_size, _torchvision().get_model_weights(name)), default=224)


def _input_size(word: str, module: nn.Module) -> tuple[int, ...]:
    library, _, name = word.partition(":")
    if library == "timm":
        return tuple(getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
    return (3, *(input_side(name),) * 2)


def _crop_size(weights: Any) -> int:
    side: int = weights.transforms.keywords["crop_size"]
    return side


def _timm() -> Any:
    return _library("timm", "timm", "vggscope[timm]")


def _torchvision() -> Any:
    return _library("torchvision", "torchvision.models", "torchvision")


def _library(name: str, module: str, package: str) -> Any:
    try:
        return import_module(module)
    except ImportError:
        raise MissingTool(f"{name} is not installed", f"pip install {package}") from None
