"""torchvision's classification models, by the names that it gives them. No weights are downloaded."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from vggscope.errors import MissingTool, ModelError, OptionError
from vggscope.network import Network
from vggscope.sources.options import Options

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
    from vggscope.trace.build import without_data
    from vggscope.trace.run import trace

    module = without_data(lambda: build(name, options))
    return trace(module, options.input or (3, 224, 224), f"torchvision:{name}")


def build(name: str, options: Options) -> nn.Module:
    """Torchvision's model of this name, allocated where the caller's device context says; raises as `load` does."""
    models = _models()
    if name not in names():
        near = difflib.get_close_matches(name, names(), n=3)
        raise ModelError(
            f"torchvision has no classification model {name!r}",
            f"near it: {', '.join(near)}" if near else "it has vgg16, resnet50 and others: vggscope list --refs",
        )
    if options.head is not None or options.batch_norm or options.soft_max:
        raise OptionError(
            f"--head, --batch-norm and --soft-max build a column of Table 1, torchvision:{name} comes as it is",
            "torchvision:vgg16_bn has batch normalisation; --num-classes is taken",
        )
    classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
    model: nn.Module = models.get_model(name, weights=None, **classes)
    return model


def _models() -> ModuleType:
    try:
        from torchvision import models
    except ImportError:
        raise MissingTool("torchvision is not installed", "pip install torchvision") from None
    found: ModuleType = models
    return found
