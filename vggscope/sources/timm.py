"""timm's models: `timm:vgg16`. Weights are never downloaded."""

from __future__ import annotations

import difflib
from functools import partial
from typing import TYPE_CHECKING

from vggscope.errors import MissingTool, ModelError
from vggscope.graph import Network
from vggscope.suppress import suppress_output
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from types import ModuleType

    from torch import nn


def claims(word: str) -> bool:
    """Whether the word begins with `timm:`."""
    return word.startswith("timm:")


def load(word: str, options: BuildOptions) -> Network:
    """The model's Network, at `options.input` or else at the input size of its pretrained configuration.

    Raises ModelError for a name that timm does not have, OptionError for an option that only a column takes.
    """
    from vggscope.trace.build import without_data
    from vggscope.trace.network import network_of

    make = partial(build, word, options)
    with suppress_output():
        module = without_data(make)
        size = options.given or tuple(getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
        return network_of(module, word, size, rebuild=make)


def build(word: str, options: BuildOptions) -> nn.Module:
    """The model, on the caller's default device; raises as `load` does."""
    timm, name = _timm(), word.partition(":")[2]
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, names(), n=3)
        raise ModelError(f"timm has no model {name!r}", f"near it: {', '.join(near)}" if near else "it has vgg16")
    options.refuse_column_options(f"{word} comes as it is")
    classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
    model: nn.Module = timm.create_model(name, pretrained=False, **classes)
    return model


def names(pattern: str = "") -> tuple[str, ...]:
    """The installed timm's models whose names match a pattern such as `vgg*`.

    Raises MissingTool where timm is not installed.
    """
    return tuple(_timm().list_models(pattern))


def parameter_counts() -> dict[str, int]:
    """The number of parameters of each VGG in timm, counted on modules without data."""
    from vggscope.trace.network import parameter_count

    with suppress_output():
        return {name: parameter_count(partial(build, f"timm:{name}", BuildOptions())) for name in names("vgg*")}


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise MissingTool("timm is not installed", "pip install vggscope[timm]") from None
    library: ModuleType = timm
    return library
