"""The reference that a model is held against: a library's counterpart, the paper's column, or any other MODEL."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vggscope.columns import COLUMNS, LITERATURE
from vggscope.diff.align import distance
from vggscope.errors import ModelError
from vggscope.network import Network
from vggscope.sources.options import Options
from vggscope.sources.resolve import column_named, resolve

LIBRARIES = ("torchvision", "timm")
"""Words that mean the model's counterpart in that library."""

_PUBLISHED = {column: name for name, column in LITERATURE.items()}


@dataclass(frozen=True)
class Reference:
    """A network to compare with, the word that names it, and what its reader should know of the choice."""

    word: str
    network: Network
    notes: tuple[str, ...] = ()


def reference_for(word: str, model: str, ours: Network, options: Options) -> Reference:
    """What `--ref word` means for the model that the word `model` named.

    `torchvision` and `timm` mean the model's counterpart there, `paper` its column of Table 1; where it has none, the
    one whose layers are nearest by alignment. Any other word is a MODEL of its own. Raises ModelError where a word
    names nothing.
    """
    height, width = ours.input_shape[2:]
    same_size = Options(input=(3, height, width), num_classes=options.num_classes)
    if word in LIBRARIES:
        column, note = _counterpart(model, ours, [name for name in COLUMNS if name in _PUBLISHED], options)
        name, batch_norm = column.removesuffix("_bn"), column.endswith("_bn")
        word = f"{word}:{_PUBLISHED[name]}{'_bn' if batch_norm else ''}"
        return Reference(word, _named(resolve(word, same_size), word), (note.format(word),) if note else ())
    if word == "paper":
        column, note = _counterpart(model, ours, list(COLUMNS), options)
        network = resolve(column, replace(same_size, input=ours.input_shape[1:]))
        return Reference(column, _named(network, f"the paper's column {column}"), (note.format(f"column {column}"),) if note else ())
    if not word:
        raise ModelError("--ref names no model", "it is torchvision, timm, paper or any MODEL")
    return Reference(word, resolve(word, replace(same_size, input=ours.input_shape[1:])))


def _named(network: Network, word: str) -> Network:
    return replace(network, name=word)


def _counterpart(model: str, ours: Network, columns: list[str], options: Options) -> tuple[str, str]:
    """The column that a model is meant to be, and a note where that is a guess."""
    named = column_named(model)
    if named is not None and named[0] in columns:
        return named[0] + ("_bn" if named[1] or options.batch_norm else ""), ""
    size = Options(input=ours.input_shape[1:])
    candidates = [name + suffix for name in columns for suffix in ("", "_bn")]
    nearest = min(candidates, key=lambda name: distance(ours, resolve(name, size)))
    if named is not None:
        return nearest, f"column {named[0]} of Table 1 has no counterpart there; {{}} is the nearest"
    return nearest, "{} is the nearest by its layers; --ref names another"
