"""A module as an ONNX graph, in one file, with the batch size left open."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from vggscope.errors import MissingTool
from vggscope.ops.base import Shape
from vggscope.suppress import suppress_output

if TYPE_CHECKING:
    from os import PathLike

    from torch import nn

PACKAGES = ("onnx", "onnxscript")


def write_onnx(model: nn.Module, input_shape: Shape, path: str | PathLike[str]) -> None:
    """Export the module at evaluation on an input of this shape (its batch size does not matter) to the path.

    The graph's input is called `input`, its output `output`. The module is left in evaluation mode.

    Raises MissingTool where the packages that torch's exporter needs are not installed.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingTool(f"writing .onnx needs {' and '.join(missing)}", "pip install 'vggscope[onnx]'")
    import torch

    # A batch of 1 would be taken for a constant.
    example = torch.zeros(2, *input_shape[1:])
    with suppress_output():
        torch.onnx.export(
            model.eval(),
            (example,),
            path,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            dynamo=True,
            verbose=False,
        )
