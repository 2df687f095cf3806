"""`vggscope build MODEL`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

import typer

from vggscope.cli.options import Model, ModelOptions, completed
from vggscope.cli.output import note, print_out
from vggscope.errors import OptionError
from vggscope.files import open_whole, whole_file, write_file
from vggscope.graph import Network
from vggscope.sources.resolve import resolve
from vggscope.units import bytes_text


def build(
    model: Model,
    options: ModelOptions,
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write .py (source), .pth, .safetensors or .onnx.",
            autocompletion=completed("modules"),
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="LAYER",
            help="Print one part, by its path or label: features.0, conv1_1.",
            autocompletion=completed("layer"),
        ),
    ] = None,
    init: Annotated[
        str,
        typer.Option(
            metavar="INIT",
            help="Weights drawn as in the paper or torchvision.",
            autocompletion=completed("one_of", "vggscope.builders.weights:INITS"),
        ),
    ] = "torchvision",
    seed: Annotated[int, typer.Option(metavar="N", help="Seed of the weights.")] = 0,
) -> None:
    """Print the model as a PyTorch module, or write its source, its initialised weights, or an ONNX graph.

    Example: vggscope build D --at features

    Example: vggscope build D --num-classes 10 -o vgg16.py
    """
    network = resolve(model, options.source_options())
    if output is None:
        _print(network, at)
        return
    if at is not None:
        raise OptionError("--at prints one part, -o writes the whole model", "leave out one of the two")
    suffix = Path(output).suffix.lower()
    if suffix not in WRITERS:
        raise OptionError(f"build cannot write {suffix or Path(output).name!r}", f"-o takes {', '.join(WRITERS)}")
    WRITERS[suffix](network, output, init, seed)
    note(f"wrote {output}" + (f" ({bytes_text(Path(output).stat().st_size)})" if Path(output).is_file() else ""))


def _print(network: Network, at: str | None) -> None:
    import torch

    from vggscope.builders.module import module, part

    with torch.device("meta"):
        built = module(network)
    print_out(f"{built if at is None else part(built, at, network)}\n")


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
"""What `-o` writes, by the file's suffix."""
