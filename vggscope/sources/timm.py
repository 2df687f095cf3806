"""timm's models, by the names that it gives them. No weights are downloaded."""

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


def names(pattern: str = "") -> tuple[str, ...]:
    """The models that the installed timm builds, those that match a pattern such as `vgg*`.

    Raises MissingTool where it is not installed.
    """
    return tuple(_timm().list_models(pattern))


def load(name: str, options: Options) -> Network:
    """The Network of timm's model of this name, at its own input size unless `options.input` says otherwise.

    Raises ModelError for a name that timm does not have, OptionError for an option that only a column takes.
    """
    with suppress_output():
        module = without_data(lambda: build(name, options))
        size = options.input or tuple(getattr(module, "pretrained_cfg", {}).get("input_size", (3, 224, 224)))
        return network_of(module, f"timm:{name}", size, rebuild=lambda: build(name, options))


def build(name: str, options: Options) -> nn.Module:
    """The model of this name, allocated where the caller's device context says; raises as `load` does."""
    timm = _timm()
    if not timm.is_model(name):
        near = difflib.get_close_matches(name, names(), n=3)
        raise ModelError(f"timm has no model {name!r}", f"near it: {', '.join(near)}" if near else "it has vgg16")
    options.refuse_column_options(f"timm:{name} comes as it is")
    classes = {} if options.num_classes is None else {"num_classes": options.num_classes}
    model: nn.Module = timm.create_model(name, pretrained=False, **classes)
    return model


def parameter_counts() -> dict[str, int]:
    """The parameters of each of timm's VGGs, built without data."""
    with suppress_output():
        return {name: parameter_count(partial(build, name, Options())) for name in names("vgg*")}


def _timm() -> ModuleType:
    try:
        import timm
    except ImportError:
        raise MissingTool("timm is not installed", "pip install vggscope[timm]") from None
    found: ModuleType = timm
    return found
