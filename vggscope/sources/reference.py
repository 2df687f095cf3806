"""The reference model of a comparison: a library's counterpart, the paper's column, or any other MODEL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, nearest
from vggscope.graph import Network
from vggscope.record import record
from vggscope.sources.cache import LIBRARIES, remembered
from vggscope.sources.resolve import SOURCES, resolve, resolve_module
from vggscope.units import shape_text
from vggscope.vgg.configs import CONFIGS, LITERATURE, config_named
from vggscope.vgg.likeness import Likeness, has_batch_norms, likeness
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from torch import nn

SMALLEST = 32
"""The smallest side in pixels that a VGG accepts: its five pools halve it to 1."""

_PUBLISHED = {config: name for name, config in LITERATURE.items()}


@record
class Reference:
    """A network to compare with, a function that builds its module, and notes on why it was chosen."""

    network: Network
    build: Callable[[], nn.Module]
    notes: tuple[str, ...] = ()


def reference_for(word: str, model: str, ours: Network, options: BuildOptions, *, cache: bool = True) -> Reference:
    """The reference that `--ref word` means for the Network `ours` of the word `model`.

    `torchvision` and `timm` mean the model's counterpart in that library, `paper` its column of Table 1. A model
    without a counterpart gets the one that it is most like. Any other word is a MODEL. A library's model is read
    from the cache if `cache` is set. Raises ModelError for a word that names nothing.
    """
    if not word:
        raise ModelError("--ref names no model", "it is torchvision, timm, paper or any MODEL")
    near = nearest(word, (*LIBRARIES, "paper"))
    if near and word not in (*LIBRARIES, "paper") and not any(source.claims(word) for source in SOURCES):
        raise ModelError(f"unknown reference {word!r}{near}", "--ref is torchvision, timm, paper or any MODEL")
    same = BuildOptions(num_classes=options.num_classes, inputs=options.inputs)
    if ours.takes_one_image:
        same = replace(same, input=ours.input_shape[1:], inputs=None)
    elif word in (*LIBRARIES, "paper"):
        raise ModelError(f"{word} has no counterpart: the model does not take one image", "--ref names another model")
    if word in LIBRARIES:
        same = replace(same, input=(3, *ours.input_shape[2:]))  # a library's models read RGB
        config, note = _counterpart(model, ours, list(_PUBLISHED), options)
        same, notes = _large_enough(same, ours, note)
        word = f"{word}:{_PUBLISHED[config.removesuffix('_bn')]}{'_bn' if config.endswith('_bn') else ''}"
        return _reference(word, same, word, notes, cache)
    if word == "paper":
        config, note = _counterpart(model, ours, list(CONFIGS), options)
        same, notes = _large_enough(same, ours, note)
        return _reference(config, same, _paper_name(config), notes, cache)
    return _reference(word, same, word, (), cache)


def _large_enough(options: BuildOptions, ours: Network, note: str) -> tuple[BuildOptions, tuple[str, ...]]:
    """The options with an input that a VGG accepts, and the notes with one on that change.

    A model that fails on the small input itself keeps it.
    """
    notes = (note,) if note else ()
    size = options.input or ()
    if len(size) != 3 or min(size[1:]) >= SMALLEST or ours.failure is not None:
        return options, notes
    channels, *sides = size
    larger = (channels, *(max(side, SMALLEST) for side in sides))
    text = f"{{}} does not run on {shape_text((1, *size))}, it is compared at {shape_text((1, *larger))}"
    return replace(options, input=larger), (*notes, text)


def _paper_name(config: str) -> str:
    """The name of a column, which has no batch norm in the paper.

    >>> _paper_name("D"), _paper_name("D_bn")
    ("the paper's column D", "the paper's column D with batch norm added")
    """
    column = config.removesuffix("_bn")
    return f"the paper's column {column}" + (" with batch norm added" if column != config else "")


def _reference(word: str, options: BuildOptions, name: str, notes: tuple[str, ...], cache: bool) -> Reference:
    load = partial(resolve, word, options)
    network = replace(remembered(word, options, load) if cache else load(), name=name)
    return Reference(network, lambda: resolve_module(word, options), tuple(note.format(name) for note in notes))


def _counterpart(model: str, ours: Network, configs: list[str], options: BuildOptions) -> tuple[str, str]:
    """The configuration that a model implements (`D`, `D_bn`), and a note if it was chosen by its layers."""
    named = config_named(model)
    if named is not None and named[0] in configs:
        return named[0] + ("_bn" if named[1] or options.batch_norm else ""), ""
    closest, found = _most_like(ours, configs)
    closest += "_bn" if has_batch_norms(ours) else ""
    if named is not None:
        return closest, f"column {named[0]} of Table 1 has no counterpart there; {{}} is the nearest"
    return closest, f"most like {{}}: {found.text}; --ref names another"


def _most_like(ours: Network, words: list[str]) -> tuple[str, Likeness]:
    """The word of the network that `ours` is most like, and how much. A network without LRN is not like A-LRN."""
    channels, *sides = ours.input_shape[1:]
    options = BuildOptions(input=(channels, *(max(side, SMALLEST) for side in sides)))
    found = {word: likeness(ours, resolve(word, options)) for word in words}
    has_lrn = any(node.op.notation == "lrn" for node in ours.nodes)
    closest = min(words, key=lambda word: (found[word].cost, has_lrn != (word == "A-LRN")))
    return closest, found[closest]
