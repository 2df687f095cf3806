"""The errors for a library that is not installed, and for a model that it does not have."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from vggscope.errors import MissingTool, ModelError, printable


def missing(library: str) -> MissingTool:
    """The error for a library that is not installed."""
    return MissingTool(f"{library} is not installed", f"pip install {library}")


def no_model(library: str, name: str, known: Sequence[str]) -> ModelError:
    """The error for a name that is not among the `known` models of a library. It suggests near ones.

    >>> print(no_model("torchvision", "vgg17", ["resnet18", "vgg11", "vgg16"]))
    torchvision has no model 'vgg17'
    near it: vgg16, vgg11
    """
    near = difflib.get_close_matches(name, known, n=3)
    remedy = f"near it: {', '.join(near)}" if near else "vggscope list --refs shows models, such as vgg16"
    return ModelError(f"{library} has no model {printable(name)!r}", remedy)
