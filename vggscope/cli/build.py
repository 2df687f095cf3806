"""`vggscope build MODEL`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggscope.builders.save import WRITERS, save
from vggscope.builders.weights import check_draw
from vggscope.cli.options import Model, ModelOptions, completed
from vggscope.cli.output import note, print_out
from vggscope.errors import OptionError
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
            autocompletion=completed("written", *WRITERS),
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
    check_draw(init, seed)
    network = resolve(model, options.source_options()).require_runnable()
    if output is None:
        _print(network, at)
        return
    if at is not None:
        raise OptionError("--at prints one part, -o writes the whole model", "leave out one of the two")
    save(network, output, init, seed)
    note(f"wrote {output}" + (f" ({bytes_text(Path(output).stat().st_size)})" if Path(output).is_file() else ""))


def _print(network: Network, at: str | None) -> None:
    import torch

    from vggscope.builders.module import module, part

    with torch.device("meta"):
        built = module(network)
    print_out(f"{built if at is None else part(built, at, network)}\n")
