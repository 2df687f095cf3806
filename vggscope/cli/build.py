"""`vggscope build MODEL`."""

from __future__ import annotations

from typing import Annotated

from vggscope import api
from vggscope.builders.initialisation import check_draw
from vggscope.choices import Init
from vggscope.cli.options import OUTPUT, Model, ModelFlags, option
from vggscope.cli.output import note_written, print_out
from vggscope.errors import OptionError

WRITTEN = (".py", ".pth", ".pt", ".safetensors", ".onnx")


def build(
    model: Model,
    options: ModelFlags,
    output: Annotated[
        str | None,
        option("FILE", "Write .py (source), .pth, .safetensors or .onnx.", "written", *WRITTEN, names=OUTPUT),
    ] = None,
    at: Annotated[
        str | None, option("LAYER", "Print one part, by its path or label: features.0, conv1_1.", "layer")
    ] = None,
    init: Annotated[
        Init, option("INIT", "Draw weights as the paper or torchvision does.", "vggscope.builders.initialisation:INITS")
    ] = "torchvision",
    seed: Annotated[int, option("N", "Seed of the weights.")] = 0,
) -> None:
    """Print the model as a PyTorch module, or write its source, its initialised weights, or an ONNX graph.

    Example: vggscope build D --at features

    Example: vggscope build D --num-classes 10 -o vgg16.py
    """
    check_draw(init, seed)
    network = api.network(model, **options.keywords()).require_runnable()
    if output is None:
        import torch

        with torch.device("meta"):
            module = api.build(network, at=at)
        print_out(f"{module}\n")
        return
    if at is not None:
        raise OptionError("--at prints one part, -o writes the whole model", "leave out one of the two")
    api.export(network, output, init=init, seed=seed)
    note_written(output)
