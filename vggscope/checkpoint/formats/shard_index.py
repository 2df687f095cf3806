"""The index of a checkpoint in several files: JSON that names the file of each tensor.

Hugging Face's libraries write it as `model.safetensors.index.json` or `pytorch_model.bin.index.json`, with its shards
beside it: https://huggingface.co/docs/huggingface_hub/package_reference/serialization.
"""

from __future__ import annotations

import json
import re

from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.pickle_objects import LARGEST_COUNT
from vggscope.errors import CheckpointError, printable

LARGEST_INDEX = 16 * 2**20
"""Bytes of an index of LARGEST_COUNT tensors with long names."""

LARGEST_SHARDS = 1000
"""Files of one checkpoint; the largest language models have a few hundred."""

SUFFIX = ".index.json"

_MAX_SIGNS = {b"{": 1000, b"[": 1000, b",": LARGEST_COUNT + 1000, b":": LARGEST_COUNT + 1000}
"""How often each sign occurs at most in an index; parsed, each takes many times the memory of its one byte."""

_SHARD_NAME = re.compile(r"(?P<base>.{1,200})-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<suffix>\.safetensors|\.bin)")

_REMEDY = "copy or download it again"


def read_index(file: BoundedFile) -> dict[str, str]:
    """The name of each tensor's shard, a file in the folder of the index.

    Raises CheckpointError where it is no such index, or names a file elsewhere.
    """
    weight_map = _parse(file).get("weight_map")
    if not isinstance(weight_map, dict):
        raise CheckpointError(
            "it is JSON without a weight_map, as the index of a checkpoint in several files has",
            "give the weights, or a file that vggscope lock wrote",
        )
    if not weight_map or len(weight_map) > LARGEST_COUNT:
        raise CheckpointError(f"its weight_map names {len(weight_map)} tensors, at most {LARGEST_COUNT} are read")
    for name in set(map(_text, weight_map.values())):
        if re.search(r"[/\\\0]", name) or name in ("", ".", "..") or re.match("[A-Za-z]:", name):
            raise CheckpointError(
                f"its shard {printable(name)!r} is not a file beside it; nothing was read",
                "all shards of a checkpoint are in the folder of its index",
            )
    if any(re.search("[\ud800-\udfff]", name) for name in weight_map):
        raise CheckpointError("it names a tensor whose name is not valid Unicode")
    shards = len(set(weight_map.values()))
    if shards > LARGEST_SHARDS:
        raise CheckpointError(f"it names {shards} shards, at most {LARGEST_SHARDS} are read")
    return weight_map


def index_name(shard: str) -> tuple[str, int, int] | None:
    """The name of the index that belongs to a file with a shard's name, its number and the number of shards.

    >>> index_name("model-00001-of-00002.safetensors")
    ('model.safetensors.index.json', 1, 2)
    """
    match = _SHARD_NAME.fullmatch(shard)
    return (f"{match['base']}{match['suffix']}{SUFFIX}", int(match["number"]), int(match["count"])) if match else None


def _text(value: object) -> str:
    if not isinstance(value, str) or re.search("[\ud800-\udfff]", value):
        raise CheckpointError("its weight_map names a shard by something other than a text")
    return value


def _dropped(text: str) -> None:
    """Stands for a number: no part of an index that matters is one, and a long one takes time to convert."""


def _parse(file: BoundedFile) -> dict[str, object]:
    file.seek(0)
    file.allow(LARGEST_INDEX)
    if file.size > LARGEST_INDEX:
        raise CheckpointError(
            f"it is JSON of {file.size} bytes, at most {LARGEST_INDEX} are read as an index of shards"
        )
    text = file.read()
    if any(text.count(sign) > most for sign, most in _MAX_SIGNS.items()):
        raise CheckpointError(f"it is JSON with more than an index of {LARGEST_COUNT} tensors has")
    try:
        value = json.loads(text.decode(), parse_int=_dropped, parse_float=_dropped, parse_constant=_dropped)
    except (ValueError, RecursionError) as error:
        reason = "nested too deep" if isinstance(error, RecursionError) else printable(str(error))
        raise CheckpointError(f"it is no index of shards: its JSON is damaged: {reason}", _REMEDY) from None
    return value if isinstance(value, dict) else {}
