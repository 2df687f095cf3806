"""The reference that a model is held against: a library's counterpart, the paper's column, or any other MODEL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from vggscope.diffing.align import distance
from vggscope.errors import ModelError, nearest
from vggscope.graph import Network
from vggscope.record import record
from vggscope.sources.cache import remembered
from vggscope.sources.resolve import SOURCES, column_named, resolve, resolve_module
from vggscope.units import shape_text
from vggscope.vgg.configs import CONFIGS, LITERATURE
from vggscope.vgg.options import Options

if TYPE_CHECKING:
    from torch import nn

LIBRARIES = ("torchvision", "timm")
"""Words that mean the model's counterpart in that library."""

SMALLEST = 32
"""The side in pixels from which on a VGG runs: its five pools leave nothing of less, as of MNIST's 28."""

_PUBLISHED = {column: name for name, column in LITERATURE.items()}


@record
class Reference:
    """A network to compare with, how to build its module, and what its reader should know of the choice."""

    network: Network
    build: Callable[[], nn.Module]
    notes: tuple[str, ...] = ()


def reference_for(word: str, model: str, ours: Network, options: Options, *, cache: bool = True) -> Reference:
    """What `--ref word` means for the model that the word `model` named.

    `torchvision` and `timm` mean the model's counterpart there, `paper` its column of Table 1; where it has none, the
    one whose layers are nearest by alignment. Any other word is a MODEL of its own. Raises ModelError where a word
    names nothing. A library's model is remembered for the next time, unless `cache` is off.
    """
    if not word:
        raise ModelError("--ref names no model", "it is torchvision, timm, paper or any MODEL")
    near = nearest(word, (*LIBRARIES, "paper"))
    if near and word not in (*LIBRARIES, "paper") and not any(source.claims(word) for source in SOURCES):
        raise ModelError(f"unknown reference {word!r}{near}", "--ref is torchvision, timm, paper or any MODEL")
    same = Options(input=ours.input_shape[1:], num_classes=options.num_classes)
    if word in LIBRARIES:
        # A library's models are made for RGB.
        same = replace(same, input=(3, *ours.input_shape[2:]))
        column, note = _counterpart(model, ours, list(_PUBLISHED), options)
        same, notes = _large_enough(same, ours, note)
        word = f"{word}:{_PUBLISHED[column.removesuffix('_bn')]}{'_bn' if column.endswith('_bn') else ''}"
        return _reference(word, same, word, notes, cache)
    if word == "paper":
        column, note = _counterpart(model, ours, list(CONFIGS), options)
        same, notes = _large_enough(same, ours, note)
        return _reference(column, same, f"the paper's column {column}", notes, cache)
    return _reference(word, same, word, (), cache)


def _large_enough(options: Options, ours: Network, note: str) -> tuple[Options, tuple[str, ...]]:
    """The options with an input that a VGG runs on, where ours runs on a smaller one; and what is to be said."""
    notes = (note,) if note else ()
    size = options.input or ()
    if len(size) != 3 or min(size[1:]) >= SMALLEST or ours.failure is not None:
        return options, notes
    channels, *sides = size
    larger = (channels, *(max(side, SMALLEST) for side in sides))
    text = f"{{}} does not run on {shape_text((1, *size))}, it stands here at {shape_text((1, *larger))}"
    return replace(options, input=larger), (*notes, text)


def _reference(word: str, options: Options, name: str, notes: tuple[str, ...], cache: bool) -> Reference:
    load = partial(resolve, word, options)
    network = replace(remembered(word, options, load) if cache else load(), name=name)
    return Reference(network, lambda: resolve_module(word, options), tuple(note.format(name) for note in notes))


def _counterpart(model: str, ours: Network, columns: list[str], options: Options) -> tuple[str, str]:
    """The column that a model is meant to be, and a note where that is a guess."""
    named = column_named(model)
    if named is not None and named[0] in columns:
        return named[0] + ("_bn" if named[1] or options.batch_norm else ""), ""
    candidates = [name + suffix for name in columns for suffix in ("", "_bn")]
    nearest = min(candidates, key=lambda name: distance(ours, resolve(name)))
    if named is not None:
        return nearest, f"column {named[0]} of Table 1 has no counterpart there; {{}} is the nearest"
    return nearest, "{} is the nearest by its layers; --ref names another"
