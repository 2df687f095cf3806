"""Writes a network to a file: source, weights, an ONNX graph or a program of torch.export. The suffix decides which."""

from __future__ import annotations

import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import TYPE_CHECKING

from vggscope.errors import MissingTool, ModelError, OptionError, VggscopeError, printable
from vggscope.files import is_special, open_whole, whole_file, write_file
from vggscope.graph import Network
from vggscope.ops.base import Shape
from vggscope.suppress import suppress_output

if TYPE_CHECKING:
    from os import PathLike
    from typing import BinaryIO

    from torch import Tensor, nn

ONNX_PACKAGES = ("onnx", "onnxscript")


def save(network: Network, path: str, make: Callable[[], nn.Module]) -> None:
    """Write a network to a file, whole or not at all, with the weights of the module that `make` returns.

    A device without a suffix, such as /dev/stdout, gets the source. Raises OptionError for a suffix that is none of
    WRITERS, and OutputError where the file cannot be written.
    """
    suffix = os.path.splitext(path)[1].lower() or (".py" if is_special(path) else "")
    if suffix not in WRITERS:
        raise OptionError(f"build cannot write {suffix or os.path.basename(path)!r}", f"-o takes {', '.join(WRITERS)}")
    WRITERS[suffix](network, path, make)


def write_pth(tensors: Mapping[str, Tensor], file: BinaryIO) -> None:
    """Write a state dict with torch.save; it loads with `torch.load(path, weights_only=True)`.

    Raises OSError where the file cannot be written.
    """
    import torch

    try:
        torch.save(dict(tensors), file)
    except RuntimeError as error:
        # On a full disk torch reports only a wrong length; the OSError is in the error's context.
        raise _first_os_error(error) or error from None


def _first_os_error(error: BaseException | None) -> OSError | None:
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def write_safetensors(tensors: Mapping[str, Tensor], path: str | PathLike[str]) -> None:
    """Write a state dict as safetensors, to a path because the library writes straight from the tensors' memory.

    Raises OSError where the file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file(dict(tensors), path, metadata={"format": "pt"})
    except SafetensorError as error:
        number = re.search(r"(?:os error|code:) (\d+)", str(error))  # before 0.6.1 it was "code: 28"
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from None


def write_onnx(model: nn.Module, input_shape: Shape, path: str | PathLike[str]) -> None:
    """Export a module as one ONNX file with a dynamic batch size; the batch dimension of `input_shape` is ignored.

    The graph's input is called `input`, its output `output`. The module is left in evaluation mode. Raises MissingTool
    where the packages that torch's exporter needs are not installed.

    Shapes are computed as far as they can be, and nothing else is optimised: the exporter's optimiser would join batch
    norms with convolutions, and write tensors of equal values once, so that the file would have other parameters than
    the module.
    """
    missing = [name for name in ONNX_PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingTool(f"writing .onnx needs {' and '.join(missing)}", "pip install 'vggscope[onnx]'")
    import torch

    # The exporter would take a batch of 1 for a constant.
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    example = torch.zeros(2, *input_shape[1:], dtype=dtype)
    with suppress_output():
        from onnxscript import optimizer

        program = torch.onnx.export(
            model.eval(),
            (example,),
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert program is not None
        optimizer.fold_constants(program.model)
        optimizer.remove_unused_nodes(program.model)
        program.save(path, external_data=False)


def _save_source(network: Network, output: str, make: Callable[[], nn.Module]) -> None:
    from vggscope.builders.source import source

    write_file(output, source(network).encode())


def _save_pth(network: Network, output: str, make: Callable[[], nn.Module]) -> None:
    tensors = make().state_dict()
    with open_whole(output) as file:
        write_pth(tensors, file)


def _save_safetensors(network: Network, output: str, make: Callable[[], nn.Module]) -> None:
    tensors = make().state_dict()
    with whole_file(output) as path:
        write_safetensors(tensors, path)


def _save_onnx(network: Network, output: str, make: Callable[[], nn.Module]) -> None:
    model = make()
    with whole_file(output) as path, _exporting(network):
        write_onnx(model, network.input_shape, path)


@contextmanager
def _exporting(network: Network) -> Iterator[None]:
    """Raise what torch's exporter says of a module that it does not take as ModelError."""
    name = printable(network.name)
    if len(network.inputs) > 1 or network.inputs[0].batch_axis not in (0, None):
        remedy = "export it in Python: torch.onnx.export(model, inputs, FILE)"
        raise ModelError(f"{name} takes more than one batch of samples, which alone is written", remedy)
    try:
        yield
    except (VggscopeError, OSError, MemoryError):
        raise
    except Exception as error:  # of the user's code, or of the exporter, whose classes have no common one
        reason = printable(str(error).strip().partition("\n")[0], 200)
        raise ModelError(f"torch does not export {name}: {reason}", "write its weights: -o FILE.pth") from error


def write_pt2(model: nn.Module, input_shape: Shape, file: BinaryIO) -> None:
    """Export a module by torch.export with a dynamic batch size; the batch dimension of `input_shape` is ignored.

    The module is left in evaluation mode. Raises OSError where the file cannot be written.
    """
    import torch

    # The exporter would take a batch of 1 for a constant.
    dtype = next((parameter.dtype for parameter in model.parameters()), torch.float32)
    example = torch.zeros(2, *input_shape[1:], dtype=dtype)
    with suppress_output():
        program = torch.export.export(model.eval(), (example,), dynamic_shapes=({0: torch.export.Dim("batch")},))
        try:
            torch.export.save(program, file)
        except RuntimeError as error:
            raise _first_os_error(error) or error from None


def _save_pt2(network: Network, output: str, make: Callable[[], nn.Module]) -> None:
    model = make()
    with open_whole(output) as file, _exporting(network):
        write_pt2(model, network.input_shape, file)


WRITERS: Mapping[str, Callable[[Network, str, Callable[[], nn.Module]], None]] = MappingProxyType(
    {
        ".py": _save_source,
        ".pth": _save_pth,
        ".pt": _save_pth,
        ".safetensors": _save_safetensors,
        ".onnx": _save_onnx,
        ".pt2": _save_pt2,
    }
)
"""The function that writes a network, by the file's suffix."""
