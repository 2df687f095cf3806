"""A file with an architecture: `arch.json`, which `vggscope lock` wrote. No code in it runs."""

from __future__ import annotations

from typing import Any

from vggscope.graph import Network, input_sizes
from vggscope.inputs import Inputs
from vggscope.lock_file import parse
from vggscope.sources.locked import SUMMARY, read, read_bytes, sized
from vggscope.vgg.options import BuildOptions


def claims(word: str) -> bool:
    """Whether the word has the suffix of JSON, and is not the index of a checkpoint's shards."""
    name = word.lower()
    return name.endswith(".json") and not name.endswith(".index.json")


def load(word: str, options: BuildOptions) -> Network:
    """The Network that the file holds, named after the file; raises as `locked.read` and `locked.sized` do."""
    return sized(read(word), options)


def inputs(word: str) -> Inputs | None:
    """The inputs that the file was written for, to run another model on; None if sizes do not describe them."""
    return input_sizes(read(word), named=True)


def summary(word: str) -> dict[str, Any] | None:
    """The object of a summary's JSON, with which `diff` compares layers alone; None for any other file."""
    try:
        values = parse(read_bytes(word).decode())
    except ValueError:
        return None
    return values if str(values.get("schema")).startswith(SUMMARY) else None
