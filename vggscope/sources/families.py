"""A published network beside Table 1: `vgg16-cifar`, `vgg-face`, `cnn-m`."""

from __future__ import annotations

from dataclasses import replace

from vggscope.graph import Network
from vggscope.vgg.families import FAMILIES, family_named
from vggscope.vgg.network import network_of_config
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word names an entry of FAMILIES."""
    return family_named(word) is not None


def load(word: str, options: BuildOptions) -> Network:
    """The network, at its own input size and with its own head unless the options name others."""
    named = family_named(word)
    assert named is not None
    name, batch_norm = named
    family = FAMILIES[name]
    batch_norm = batch_norm or options.batch_norm
    size = family.input if options.given is None else options.input
    own = replace(options, input=size, head=options.head or family.head, batch_norm=batch_norm)
    return network_of_config(name + ("_bn" if batch_norm else ""), family.words, own, family.layout)
