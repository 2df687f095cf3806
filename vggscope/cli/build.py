"""`vggscope build MODEL`."""

from __future__ import annotations

from typing import Annotated

from vggscope import api
from vggscope.builders.initialisation import check_draw
from vggscope.choices import Init
from vggscope.cli.options import CHECKPOINT_FILES, OUTPUT, Model, ModelFlags, flag, option
from vggscope.cli.output import note, note_written, print_out
from vggscope.errors import OptionError

WRITTEN = (".py", ".pth", ".pt", ".safetensors", ".onnx", ".pt2")


def build(
    model: Model,
    options: ModelFlags,
    output: Annotated[
        str | None,
        option("FILE", "Write .py (source), .pth, .safetensors, .onnx or .pt2.", "written", *WRITTEN, names=OUTPUT),
    ] = None,
    at: Annotated[
        str | None, option("LAYER", "Print one part, by its path or label: features.0, conv1_1.", "layer")
    ] = None,
    init: Annotated[
        Init, option("INIT", "Draw weights as the paper or torchvision does.", "vggscope.builders.initialisation:INITS")
    ] = "torchvision",
    seed: Annotated[int, option("N", "Seed of the weights.")] = 0,
    weights: Annotated[
        str | None, option("FILE", "Weights to write, from a checkpoint of any format.", *CHECKPOINT_FILES)
    ] = None,
    rgb: Annotated[bool, flag("--rgb", "Reverse the input channels of weights that expect BGR.")] = False,
    force: Annotated[bool, flag("--force", "Overwrite the file if it is there.")] = False,
    check: Annotated[bool, flag("--check", "Run the file of the weights too, and compare the outputs.")] = False,
) -> int:
    """Print the model as a PyTorch module, or write its source, its initialised weights, or a graph.

    --weights takes those of a file instead, of another framework too: mapped by layer, in torch's layout; a model of
    your own code is then written as it is. A file that is there is kept unless --force is given. --check runs what was
    written and the network in the file of the weights on one input, an ONNX file by onnxruntime, and exits with 1 where
    their outputs differ.

    Example: vggscope build D --at features

    Example: vggscope build D --num-classes 10 -o vgg16.py

    Example: vggscope build D --weights weights.npz -o vgg16.safetensors
    """
    check_draw(init, seed)
    if output is None and (weights is not None or rgb or check):
        raise OptionError("--weights, --rgb and --check are for a file that is written", "add -o vgg16.safetensors")
    if output is None:
        network = api.network(model, **options.keywords()).require_runnable()

        import torch

        with torch.device("meta"):
            module = api.build(network, at=at)
        print_out(f"{module}\n")
        return 0
    if at is not None:
        raise OptionError("--at prints one part, -o writes the whole model", "leave out one of the two")
    done = api.export(
        model,
        output,
        init=init,
        seed=seed,
        weights=weights,
        rgb=rgb,
        force=force,
        check=check,
        **options.keywords(),
    )
    note_written(output)
    if done is None:
        return 0
    note(done.sentence)
    return 0 if done.agrees else 1
