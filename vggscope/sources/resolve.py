"""A MODEL word to a Network: the one place that knows every kind of source.

Each kind is a row of SOURCES: what it is called, whether a word is meant as one, and what reads it. The rows are
tried in order and the first that claims the word has it, so that a mistake inside a word is reported by the source
that it was meant for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, OptionError, nearest, unknown
from vggscope.graph import Network
from vggscope.record import record
from vggscope.vgg.configs import CONFIGS, LITERATURE
from vggscope.vgg.notation import is_notation, parse
from vggscope.vgg.options import CHECKPOINTS, HEADS, Options

if TYPE_CHECKING:
    from torch import nn


@record
class Source:
    """A kind of MODEL word. `example` is shown to people, `claims` tells whether a word is meant as this kind.

    `load` gives its Network, `build` the module with weights; without `build` it is built from the Network.
    """

    title: str
    example: str
    claims: Callable[[str], bool]
    load: Callable[[str, Options], Network]
    build: Callable[[str, Options], nn.Module] | None = None


def resolve(word: str, options: Options | None = None) -> Network:
    """The Network that a word names.

    Raises ModelError, listing what a word may be, where nothing claims it.
    """
    options = options or Options()
    return _source_of(word, options).load(word.strip(), options)


def read(word: str, options: Options | None = None) -> Network | None:
    """The Network of a word that is only read; None where it takes a library or the user's code to run."""
    options = options or Options()
    source = _source_of(word, options)
    return None if source.build is not None else source.load(word.strip(), options)


def resolve_module(word: str, options: Options | None = None) -> nn.Module:
    """The module that a word names, with weights, on the device that the caller's context says; raises as `resolve`."""
    options = options or Options()
    source = _source_of(word, options)
    if source.build is not None:
        return source.build(word.strip(), options)
    from vggscope.builders.module import module

    return module(source.load(word.strip(), options))


def _source_of(word: str, options: Options) -> Source:
    """The kind of source that claims a word, its options checked."""
    _check(options)
    word = word.strip()
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        raise ModelError(f"{_short(word)!r} holds half a character", "write the word anew") from None
    for source in SOURCES:
        if source.claims(word):
            return source
    raise ModelError(
        f"unknown model {_short(word)!r}{nearest(word, _names())}",
        "a model is " + "; ".join(f"{s.title} ({s.example})" for s in SOURCES),
    )


def _check(options: Options) -> None:
    if options.head is not None and options.head not in HEADS:
        raise unknown("head", options.head, HEADS)
    if options.num_classes is not None and not 1 <= options.num_classes <= 10**6:
        raise OptionError(f"{options.num_classes} classes make no sense", "--num-classes is 1 to 1000000")


def _names() -> tuple[str, ...]:
    return (*CONFIGS, *LITERATURE, *(f"{name}_bn" for name in LITERATURE), "torchvision:vgg16", "timm:vgg16")


def _short(word: str) -> str:
    return word if len(word) <= 60 else word[:57] + "..."


def column_named(word: str) -> tuple[str, bool] | None:
    """The column that a word names, and whether with batch norm: `vgg16_bn` gives ("D", True)."""
    name, batch_norm = re.subn(r"[_-]bn$", "", word, flags=re.IGNORECASE)
    column = next((known for known in CONFIGS if known.lower() == name.lower()), LITERATURE.get(name.lower()))
    return (column, bool(batch_norm)) if column else None


def _load_column(word: str, options: Options) -> Network:
    from dataclasses import replace

    from vggscope.vgg.network import build_column

    named = column_named(word)
    assert named is not None
    column, batch_norm = named[0], named[1] or options.batch_norm
    name = column + ("_bn" if batch_norm else "")
    return build_column(name, parse(CONFIGS[column]), replace(options, batch_norm=batch_norm))


def _load_notation(word: str, options: Options) -> Network:
    from vggscope.vgg.network import build_column

    return build_column(" ".join(word.split()), parse(word), options)


def _load_toml(word: str, options: Options) -> Network:
    from vggscope.vgg.network import build_column
    from vggscope.vgg.toml import read_column

    path, _, name = word.rpartition(":")
    return build_column(name, parse(read_column(path, name)), options)


def _is_checkpoint(word: str) -> bool:
    """Whether it is a checkpoint's path, or any file that is there and is no code or TOML: its content will tell."""
    name = word.lower()
    return name.endswith(CHECKPOINTS) or (os.path.isfile(word) and not name.endswith((".py", ".toml")))


def _load_checkpoint(word: str, options: Options) -> Network:
    from vggscope.checkpoint import inspect
    from vggscope.checkpoint.network import with_stored_names, words_and_options
    from vggscope.vgg.network import build_column

    found = inspect(word)
    words, fitting = words_and_options(found, options)
    return with_stored_names(build_column(word, words, fitting), found)


def _load_torchvision(word: str, options: Options) -> Network:
    from vggscope.sources.torchvision import load

    return load(word.partition(":")[2], options)


def _build_torchvision(word: str, options: Options) -> nn.Module:
    from vggscope.sources.torchvision import build

    return build(word.partition(":")[2], options)


def _load_timm(word: str, options: Options) -> Network:
    from vggscope.sources.timm import load

    return load(word.partition(":")[2], options)


def _build_timm(word: str, options: Options) -> nn.Module:
    from vggscope.sources.timm import build

    return build(word.partition(":")[2], options)


def _is_code(word: str) -> bool:
    return re.search(r"\.py(:|$)", word) is not None or re.match(r"[^\W\d][\w.]*:[^\W\d]", word) is not None


def _load_code(word: str, options: Options) -> Network:
    from vggscope.sources.code import load

    return load(word, options)


def _build_code(word: str, options: Options) -> nn.Module:
    from vggscope.sources.code import build

    return build(word, options)


SOURCES = (
    Source(
        "a column of Table 1",
        "A, A-LRN, B, C, D, E, vgg16, vgg16_bn",
        lambda word: column_named(word) is not None,
        _load_column,
    ),
    Source("a column in a file", "columns.toml:NAME", lambda word: ".toml:" in word.lower(), _load_toml),
    Source(
        "a checkpoint",
        "weights.pth, weights.safetensors",
        _is_checkpoint,
        _load_checkpoint,
    ),
    Source(
        "torchvision's",
        "torchvision:vgg16",
        lambda word: word.startswith("torchvision:"),
        _load_torchvision,
        _build_torchvision,
    ),
    Source("timm's", "timm:vgg16", lambda word: word.startswith("timm:"), _load_timm, _build_timm),
    Source("your own code", "path/file.py:Net, package.module:make_net", _is_code, _load_code, _build_code),
    Source("Table 1 notation", '"conv3-64 maxpool FC-10"', is_notation, _load_notation),
)
