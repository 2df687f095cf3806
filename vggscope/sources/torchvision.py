"""torchvision's classification models, by the names that it gives them. No weights are downloaded."""

from __future__ import annotations

import difflib
from functools import partial
from typing import TYPE_CHECKING

from vggscope.errors import MissingTool, ModelError
from vggscope.graph import Network
from vggscope.suppress import suppress_output
from vggscope.trace.build import without_data
from vggscope.trace.network import network_of, parameter_count
from vggscope.vgg.options import Options

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn


def names() -> tuple[str, ...]:
    """The classification models that the installed torchvision builds.

    Raises MissingTool where it is not installed.
    """
    models = _models()
    return tuple(models.list_models(module=models))


def load(name: str, options: Options) -> Network:
    """The Network of torchvision's model of this name, at its own input size unless `options.input` says otherwise.

    Raises ModelError for a name that torchvision does not have, OptionError for an option that only a column takes.
    """
    with suppress_output():
        module = without_data(lambda: build(name, options))
        size = options.input or (3, *(input_side(name),) * 2)
        return network_of(module, f"torchvision:{name}", size, rebuild=lambda: build(name, options))


def build(name: str, options: Options) -> nn.Module:
    """The model of this name, allocated where the caller's device context says; raises as `load` does."""
    models = _models()
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3)
        raise ModelError(
            f"torchvision has no classification model {name!r}",
            f"near it: {', '.join(near)}" if near else "it has vgg16, resnet50 and others: vggscope list --refs",
        )
    options.refuse_column_options(f"torchvision:{name} comes as it is")
    classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
    with suppress_output():  # two of them warn of what a future release will do
        model: nn.Module = models.get_model(name, weights=None, **classes)
    return model


def input_side(name: str) -> int:
    """The side in pixels that a model was first trained for: that of its smallest published weights."""
    sides = [weights.transforms.keywords["crop_size"] for weights in _models().get_model_weights(name)]
    return min(sides, default=224)


def parameter_counts() -> dict[str, int]:
    """Each model's parameters, as torchvision has written them down beside its weights.

    Those of two models leave out the heads that run only in training; these are built, without data, and counted.
    """
    counted = {}
    for name in names():
        if name in _WITH_TRAINING_HEADS:
            with suppress_output():
                counted[name] = parameter_count(partial(build, name, Options()))
        else:
            weights = min(_models().get_model_weights(name), key=lambda w: w.transforms.keywords["crop_size"])
            counted[name] = weights.meta["num_params"]
    return counted


_WITH_TRAINING_HEADS = ("googlenet", "inception_v3")


def _models() -> ModuleType:
    try:
        from torchvision import models
    except ImportError:
        raise MissingTool("torchvision is not installed", "pip install torchvision") from None
    found: ModuleType = models
    return found
