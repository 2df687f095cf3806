"""Writes a network to a file that others read: source, weights, a graph. The suffix says which."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from types import MappingProxyType

from vggscope.errors import OptionError
from vggscope.files import is_special, open_whole, whole_file, write_file
from vggscope.graph import Network


def save(network: Network, path: str, init: str = "torchvision", seed: int = 0) -> None:
    """Write a network to a file, whole or not at all; its weights are drawn as `init` says, from `seed` on.

    A device without a suffix, /dev/stdout, gets the source. Raises OptionError for a suffix that is none of WRITERS,
    and OutputError where the file cannot be written.
    """
    suffix = os.path.splitext(path)[1].lower() or (".py" if is_special(path) else "")
    if suffix not in WRITERS:
        raise OptionError(f"build cannot write {suffix or os.path.basename(path)!r}", f"-o takes {', '.join(WRITERS)}")
    WRITERS[suffix](network, path, init, seed)


def _write_source(network: Network, output: str, init: str, seed: int) -> None:
    from vggscope.builders.source import source

    write_file(output, source(network).encode())


def _write_pth(network: Network, output: str, init: str, seed: int) -> None:
    from vggscope.builders.weights import state_dict, write_pth

    tensors = state_dict(network, init, seed)
    with open_whole(output) as file:
        write_pth(tensors, file)


def _write_safetensors(network: Network, output: str, init: str, seed: int) -> None:
    from vggscope.builders.weights import state_dict, write_safetensors

    tensors = state_dict(network, init, seed)
    with whole_file(output) as path:
        write_safetensors(tensors, path)


def _write_onnx(network: Network, output: str, init: str, seed: int) -> None:
    from vggscope.builders.onnx import write_onnx
    from vggscope.builders.weights import initialised

    model = initialised(network, init, seed)
    with whole_file(output) as path:
        write_onnx(model, network.input_shape, path)


WRITERS: Mapping[str, Callable[[Network, str, str, int], None]] = MappingProxyType(
    {
        ".py": _write_source,
        ".pth": _write_pth,
        ".pt": _write_pth,
        ".safetensors": _write_safetensors,
        ".onnx": _write_onnx,
    }
)
"""What is written, by the file's suffix."""
