"""What `explain` shows: layers and ideas, worked with their numbers.

A topic is one file in this folder, with a function `explain` that returns a Tutorial, and its row in TOPICS. The
function's keyword arguments are the topic's options; any other option is refused. Only `tutorial.with_torch` imports
torch.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, OptionError, option, printable
from vggscope.record import record
from vggscope.tutorials.tutorial import Tutorial, listing, text, tutorial

if TYPE_CHECKING:
    from torch import nn

    from vggscope.graph import Network

    Model = str | nn.Module | Network


@record
class TopicModule:
    """The name of the module that explains a topic, and a line about the topic."""

    module: str
    about: str


TOPICS: Mapping[str, TopicModule] = MappingProxyType(
    {
        "conv": TopicModule("convolution", "a kernel slid over a small picture, each inner product written out"),
        "pool": TopicModule("pooling", "the maximum and the mean of each window"),
        "relu": TopicModule("activation", "ReLU, and the sigmoid beside it"),
        "linear": TopicModule("linear", "<w, x> + b, up to fc6"),
        "lrn": TopicModule("lrn", "local response normalisation across channels, and torch's other alpha"),
        "softmax": TopicModule("softmax", "logits to probabilities, and the loss that expects logits"),
        "input": TopicModule("image", "C, H, W; 1, 3 or 4 channels; the paper's preprocessing and torchvision's"),
        "dense": TopicModule("dense", "fully connected layers as convolutions"),
        "depth": TopicModule("depth", "three 3x3 convolutions against one 7x7"),
        "padding": TopicModule("padding", "the zeros around a picture, and the sizes without them"),
        "parameters": TopicModule("parameters", "the weights and biases of each layer, as products of its sizes"),
        "flops": TopicModule("flops", "the multiply-accumulates of each layer, as products of its sizes"),
        "memory": TopicModule("memory", "what a step holds at its peak, for one image and for 64"),
        "backward": TopicModule("backward", "what autograd keeps of the forward pass"),
        "dropout": TopicModule("dropout", "random zeros in training, nothing at evaluation"),
        "batchnorm": TopicModule("batch_norm", "one channel normalised, in training and at evaluation"),
        "init": TopicModule("init", "the first weights, and what they do to the signal"),
        "why-tools-disagree": TopicModule("counting_tools", "one network, several tools, and why their counts differ"),
        "paper": TopicModule("paper", "Tables 1 and 2 and the training, beside computed values"),
    }
)


def tutorial_for(
    topic: Model | None,
    layer: Model | None,
    options: Mapping[str, object],
    load: Callable[[Model], Network],
) -> Tutorial:
    """The tutorial on a topic, or on a model's layer; without arguments, the list of topics.

    `topic` is a topic or a model. `layer` is the model's layer, or the model that the topic is about. `load` returns
    the Network of a model. Raises OptionError for an unknown topic or layer, and for an option that it does not take.
    """
    if topic is None:
        return contents()
    if isinstance(topic, str) and topic in TOPICS:
        return explain(topic, **options, network=None if layer is None else load(layer))
    if layer is None:
        raise _missing_layer(topic, load)
    refused = next((name for name, value in options.items() if value is not None), None)
    if refused is not None:
        raise OptionError(f"{option(refused)} is for topics, not for a layer", f"vggscope explain {topic} {layer}")
    if not isinstance(layer, str):
        raise OptionError(f"a layer is named by its label or its path, not by a {type(layer).__name__}", "conv3_2")
    from vggscope.tutorials.layer import explain_layer

    return explain_layer(load(topic), layer)


def explain(topic: str, **options: object) -> Tutorial:
    """The tutorial on a topic. Options that are None count as not given.

    Raises OptionError for an unknown topic, with the nearest one, and for an option that the topic does not take.

    >>> explain("conv").data.output[0][0]
    308
    """
    if topic not in TOPICS:
        raise _unknown_topic(topic)
    function: Callable[..., Tutorial] = import_module(f"vggscope.tutorials.{TOPICS[topic].module}").explain
    options = {name: value for name, value in options.items() if value is not None}
    accepted = inspect.signature(function).parameters
    refused = [name for name in options if name not in accepted]
    if refused:
        raise OptionError(
            f"topic {topic} takes no {_option_text(refused[0])}",
            f"it takes {', '.join(map(_option_text, accepted))}" if accepted else "it takes no options",
        )
    return function(**options)


def contents() -> Tutorial:
    """The list of topics."""
    topics = listing(("topic", "what it shows"), tuple((name, topic.about) for name, topic in TOPICS.items()))
    layers = "vggscope explain D conv3_2, vggscope explain torchvision:resnet18 layer1.0.conv1"
    return tutorial("contents", "what there is to explain", None, topics, text(f"Any layer of any model: {layers}"))


_MEANT_TOPICS = {
    **dict.fromkeys(("convolution", "kernel", "stride"), "conv"),
    **dict.fromkeys(("pooling", "maxpool", "maxpooling", "max-pooling", "avgpool"), "pool"),
    **dict.fromkeys(("receptive-field", "receptive field", "field", "rf"), "depth"),
    **dict.fromkeys(("normalization", "normalisation", "norm", "bn"), "batchnorm"),
    **dict.fromkeys(("autograd", "gradient", "gradients", "backprop"), "backward"),
    **dict.fromkeys(("activation", "nonlinearity"), "relu"),
    **dict.fromkeys(("fc", "fully-connected"), "linear"),
    **dict.fromkeys(("weights", "params"), "parameters"),
    "macs": "flops",
}
"""Other words for what a topic shows."""


def _unknown_topic(word: str) -> OptionError:
    meant = _MEANT_TOPICS.get(word.lower())
    near = [meant] if meant else difflib.get_close_matches(word.lower(), TOPICS, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    return OptionError(
        f"unknown topic {printable(word)!r}{hint}",
        f"topics are {', '.join(TOPICS)}; or a MODEL and one of its layers: vggscope explain D conv3_2",
    )


def _missing_layer(word: Model, load: Callable[[Model], Network]) -> OptionError:
    """The error for a single word that is not a topic: a model without a layer, or an unknown word."""
    if isinstance(word, str) and (word.lower() in _MEANT_TOPICS or word.lower() in TOPICS):
        return _unknown_topic(word)  # Some, as maxpool, are also models of one layer.
    try:
        network = load(word)
    except ModelError:
        return _unknown_topic(str(word))
    node = next((node for node in network.nodes if node.parameters), network.nodes[0])
    name = word if isinstance(word, str) else network.name
    return OptionError(f"which layer of {name}?", f"for example vggscope explain {name} {node.label or node.name}")


def _option_text(name: str) -> str:
    return "MODEL" if name == "network" else option(name)
