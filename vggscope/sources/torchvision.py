"""torchvision's classification models: `torchvision:vgg16`. Weights are never downloaded."""

from __future__ import annotations

import difflib
from functools import partial
from typing import TYPE_CHECKING, Any

from vggscope.errors import MissingTool, ModelError
from vggscope.graph import Network
from vggscope.suppress import suppress_output
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn

_WITH_TRAINING_HEADS = ("googlenet", "inception_v3")
"""Models whose published parameter counts leave out the auxiliary heads, which run only in training."""


def claims(word: str) -> bool:
    """Whether the word begins with `torchvision:`."""
    return word.startswith("torchvision:")


def load(word: str, options: BuildOptions) -> Network:
    """The model's Network, at `options.input` or else at the input size of its weights.

    Raises ModelError for a name that torchvision does not have, OptionError for an option that only a column takes.
    """
    from vggscope.trace.build import without_data
    from vggscope.trace.network import network_of

    make = partial(build, word, options)
    with suppress_output():
        module = without_data(make)
        size = options.given or (3, *(input_side(word.partition(":")[2]),) * 2)
        return network_of(module, word, size, rebuild=make)


def build(word: str, options: BuildOptions) -> nn.Module:
    """The model, on the caller's default device; raises as `load` does."""
    models, name = _models(), word.partition(":")[2]
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3)
        raise ModelError(
            f"torchvision has no classification model {name!r}",
            f"near it: {', '.join(near)}" if near else "it has vgg16, resnet50 and others: vggscope list --refs",
        )
    options.refuse_column_options(f"{word} comes as it is")
    classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
    with suppress_output():  # googlenet and inception_v3 warn of a change in a future release
        model: nn.Module = models.get_model(name, weights=None, **classes)
    return model


def names() -> tuple[str, ...]:
    """The installed torchvision's classification models.

    Raises MissingTool where torchvision is not installed.
    """
    models = _models()
    return tuple(models.list_models(module=models))


def input_side(name: str) -> int:
    """The side in pixels of the smallest input that published weights of a model expect; 224 without weights."""
    return min(map(_crop_size, _models().get_model_weights(name)), default=224)


def parameter_counts() -> dict[str, int]:
    """The number of parameters of each model: torchvision's published figure where it is complete, else counted."""
    from vggscope.trace.network import parameter_count

    counts = {}
    for name in names():
        if name in _WITH_TRAINING_HEADS:
            with suppress_output():
                counts[name] = parameter_count(partial(build, f"torchvision:{name}", BuildOptions()))
        else:
            counts[name] = min(_models().get_model_weights(name), key=_crop_size).meta["num_params"]
    return counts


def _crop_size(weights: Any) -> int:
    side: int = weights.transforms.keywords["crop_size"]
    return side


def _models() -> ModuleType:
    try:
        from torchvision import models
    except ImportError:
        raise MissingTool("torchvision is not installed", "pip install torchvision") from None
    library: ModuleType = models
    return library
