"""An ONNX file: `model.onnx`. Its graph is read without the data of its weights; no code in it runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from vggscope.errors import CheckpointError, ModelError, OptionError, ShapeError, option, printable
from vggscope.graph import Network
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from vggscope.foreign.onnx_network import GivenInput

SUFFIX = ".onnx"

_REMEDY = "give the path of an .onnx file"


def claims(word: str) -> bool:
    """Whether the word has the suffix of ONNX."""
    return word.lower().endswith(SUFFIX)


def load(word: str, options: BuildOptions) -> Network:
    """The Network of the file's graph, named after the file.

    Raises ModelError where the file cannot be read, OptionError for an option that contradicts it, and ShapeError where
    it does not take the inputs in `options`.
    """
    from vggscope.checkpoint.formats.bounded_file import BoundedFile
    from vggscope.checkpoint.formats.onnx_model import read_model
    from vggscope.foreign.onnx_network import network_of_onnx

    name = printable(os.path.basename(word))
    options.refuse_column_options(f"{word} has its layers")
    try:
        with BoundedFile(word) as file:
            given, batch_axis = _given(options)
            network = network_of_onnx(read_model(file), name, given, batch_axis)
    except ShapeError as error:
        raise ShapeError(f"{name}: {error.problem}", error.remedy) from None
    except CheckpointError as error:
        remedy = _REMEDY if ".pth" in error.remedy else error.remedy
        raise ModelError(f"{printable(word, 200)}: {error.problem}", remedy) from None
    except (OSError, MemoryError, RecursionError) as error:
        raise ModelError(f"{printable(word, 200)}: it cannot be read: {printable(str(error))}") from None
    if options.num_classes is not None and network.failure is None:
        have = network.shapes[network.end][-1:]
        if have != (options.num_classes,):
            raise OptionError(f"{option('num_classes', options.num_classes)}: the file has its own", "leave it out")
    return network


def _given(options: BuildOptions) -> tuple[list[GivenInput], int | None]:
    """The shapes of inputs that the options name, for one sample, and the axis of the batch."""
    from vggscope.foreign.onnx_network import GivenInput

    inputs = options.inputs
    if options.input is not None:
        return [GivenInput((1, *options.input))], 0
    if inputs is None:
        return [], 0
    axis = inputs.batch_axis
    if inputs.data is not None:
        from vggscope.trace.inputs import from_data

        tensors = from_data(inputs.data, axis).for_samples(1).tensors()
        return [GivenInput(tuple(tensor.shape)) for tensor in tensors], axis
    return [GivenInput(_with_batch(size.shape, axis, size.batched), size.name) for size in inputs.sizes], axis


def _with_batch(shape: tuple[int, ...], axis: int | None, batched: bool | None) -> tuple[int, ...]:
    return shape if batched or axis is None else (*shape[:axis], 1, *shape[axis:])
