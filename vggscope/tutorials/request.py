"""What somebody asks to have explained: a topic, a topic about a model, or a model's layer."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, OptionError
from vggscope.graph import Network
from vggscope.tutorials import TOPICS, contents, explain, unknown_topic
from vggscope.tutorials.layer import explain_layer
from vggscope.tutorials.lesson import Lesson

if TYPE_CHECKING:
    from torch import nn

    Model = str | nn.Module | Network


def asked(
    first: Model | None,
    second: Model | None,
    options: Mapping[str, object],
    load: Callable[[Model], Network],
) -> Lesson:
    """The lesson that one or two words ask for, of nothing the contents; `load` gives the Network of a model.

    Raises OptionError for a topic or a layer that is not there, and for an option that does not belong to it.
    """
    if first is None:
        return contents()
    if isinstance(first, str) and first in TOPICS:
        return explain(first, **options, network=None if second is None else load(second))
    if second is None:
        raise _no_layer(first, load)
    refused = next((name for name, value in options.items() if value is not None), None)
    if refused is not None:
        raise OptionError(f"--{refused} is for topics, not for a layer", f"vggscope explain {first} {second}")
    if not isinstance(second, str):
        raise OptionError(f"a layer is named by its label or its path, not by a {type(second).__name__}", "conv3_2")
    return explain_layer(load(first), second)


def _no_layer(first: Model, load: Callable[[Model], Network]) -> OptionError:
    """What to say of one word that is no topic: a model without a layer, or nothing that is known."""
    try:
        network = load(first)
    except ModelError:
        return unknown_topic(str(first))
    node = next((node for node in network.nodes if node.parameters), network.nodes[0])
    name = first if isinstance(first, str) else network.name
    return OptionError(f"which layer of {name}?", f"for example vggscope explain {name} {node.label or node.name}")
