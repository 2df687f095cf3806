"""Layers and ideas worked with their numbers: what `explain` shows.

A topic is one file in this folder with a function `explain` that gives a Lesson, and a row of TOPICS. The function's
keyword arguments are the options that the topic takes; whatever else is asked of it is refused. Nothing here loads
torch but `agreement`, which asks it whether a lesson is right.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType

from vggscope.errors import OptionError, printable
from vggscope.record import record
from vggscope.tutorials.lesson import Lesson, Listing, Text, lesson


@record
class Topic:
    """The file that has it, and what it is about in a line."""

    module: str
    about: str


TOPICS: Mapping[str, Topic] = MappingProxyType(
    {
        "conv": Topic("convolution", "a kernel slid over a small picture, each inner product written out"),
        "pool": Topic("pooling", "the maximum and the mean of each window"),
        "relu": Topic("activation", "ReLU, and the sigmoid beside it"),
        "linear": Topic("linear", "<w, x> + b, up to fc6"),
        "lrn": Topic("lrn", "local response normalisation across channels, and torch's other alpha"),
        "softmax": Topic("softmax", "logits to probabilities, and the loss that wants logits"),
        "input": Topic("image", "C, H, W; 1, 3 or 4 channels; the paper's preprocessing and torchvision's"),
        "dense": Topic("dense", "fully connected layers as convolutions"),
        "depth": Topic("depth", "three 3x3 convolutions against one 7x7"),
        "why-tools-disagree": Topic("tools", "one network, several counts, and the sums between them"),
        "paper": Topic("paper", "Tables 1 and 2 and the training, beside what is computed"),
    }
)


def explain(topic: str, **options: object) -> Lesson:
    """The lesson of a topic. Options that are None were not asked for.

    Raises OptionError for a topic that is not there, with the nearest, and for an option that the topic does not take.

    >>> explain("conv").data.output[0][0]
    308
    """
    if topic not in TOPICS:
        raise unknown_topic(topic)
    make: Callable[..., Lesson] = import_module(f"vggscope.tutorials.{TOPICS[topic].module}").explain
    given = {name: value for name, value in options.items() if value is not None}
    taken = inspect.signature(make).parameters
    refused = [name for name in given if name not in taken]
    if refused:
        raise OptionError(
            f"topic {topic} takes no {_said(refused[0])}",
            f"it takes {', '.join(map(_said, taken))}" if taken else "it takes no options",
        )
    return make(**given)


def contents() -> Lesson:
    """What there is to explain."""
    return lesson(
        "contents",
        "what there is to explain",
        None,
        Listing(("topic", "what it shows"), tuple((name, topic.about) for name, topic in TOPICS.items())),
        Text(
            "Any layer of any model: vggscope explain D conv3_2, vggscope explain torchvision:resnet18 layer1.0.conv1"
        ),
    )


def unknown_topic(word: str, command: str = "vggscope explain") -> OptionError:
    """What to say of a word that is no topic."""
    near = difflib.get_close_matches(word.lower(), TOPICS, n=1)
    hint = f", did you mean {near[0]}?" if near else ""
    return OptionError(
        f"unknown topic {printable(word)!r}{hint}",
        f"topics are {', '.join(TOPICS)}; or a MODEL and one of its layers: {command} D conv3_2",
    )


def _said(option: str) -> str:
    return "MODEL" if option == "network" else f"--{option}"
