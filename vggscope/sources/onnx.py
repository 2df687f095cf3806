"""An ONNX file: `model.onnx`. Its graph is read without the data of its weights; no code in it runs.

Only where outputs are compared does onnxruntime run it.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.errors import CheckpointError, ModelError, ShapeError, VggscopeError, printable
from vggscope.graph import Network, input_sizes
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from vggscope.checkpoint.formats.onnx_model import OnnxModel
    from vggscope.foreign.onnx.network import GivenInput, OnnxTranslation
    from vggscope.foreign.onnx.run import OnnxRunner
    from vggscope.inputs import Inputs

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
    return _read(word, options)[1].network


def runner(word: str, options: BuildOptions) -> OnnxRunner:
    """The file as onnxruntime runs it, on the data in `options` if they hold any. Raises as `load` does, and
    MissingTool where onnxruntime is not installed.
    """
    from vggscope.foreign.file_runner import given_data
    from vggscope.foreign.onnx.run import OnnxRunner

    return OnnxRunner(word, *_read(word, options), given_data(options))


def inputs(word: str) -> Inputs | None:
    """The sizes of the inputs, if the file fixes all but the batch."""
    model, translation = _read(word, BuildOptions())
    is_fixed = all(isinstance(size, int) for info in model.inputs for size in (info.axes or ("",))[1:])
    return input_sizes(translation.network, named=True) if is_fixed else None


def _read(word: str, options: BuildOptions) -> tuple[OnnxModel, OnnxTranslation]:
    """The graph of the file, and its Network."""
    from vggscope.checkpoint.formats.bounded_file import BoundedFile
    from vggscope.checkpoint.formats.onnx_model import read_model
    from vggscope.foreign.layer_graph import check_classes

    name = printable(os.path.basename(word))
    options.refuse_column_options(f"{word} has its layers")
    try:
        with BoundedFile(word) as file:
            given, batch_axis = _given(options)
            model = read_model(file)
            translation = _by_batch(model, name, given, batch_axis, chooses=options.inputs is None)
    except ShapeError as error:
        raise ShapeError(f"{name}: {error.problem}", error.remedy) from None
    except CheckpointError as error:
        remedy = _REMEDY if ".pth" in error.remedy else error.remedy
        raise ModelError(f"{printable(word, 200)}: {error.problem}", remedy) from None
    except (OSError, MemoryError, RecursionError) as error:
        raise ModelError(f"{printable(word, 200)}: it cannot be read: {printable(str(error))}") from None
    check_classes(translation.network, options)
    return model, translation


def _by_batch(
    model: OnnxModel, name: str, given: Sequence[GivenInput], batch_axis: int | None, *, chooses: bool
) -> OnnxTranslation:
    """The graph with the batch at an axis; with `chooses` at the second, where the first is the steps of a sequence.

    Where none is, the network has the sizes of the file for a batch of its own.
    """
    from vggscope.foreign.growth import batch_axis_note, has_batch, no_batch, reads_by_steps
    from vggscope.foreign.onnx.network import translated

    first = translated(model, name, given, batch_axis)
    if batch_axis is None or first.network.failure is not None or has_batch(first.network):
        return first
    if chooses and reads_by_steps(first.network) and all(len(given.shape) > 1 for given in first.network.inputs):
        with suppress(VggscopeError):
            second = translated(model, name, given, 1)
            if second.network.failure is None and has_batch(second.network):
                warnings = (*second.network.warnings, batch_axis_note(1))
                return replace(second, network=replace(second.network, warnings=warnings))
    filed = first
    with suppress(ShapeError):  # sizes that are given for another axis
        filed = translated(model, name, given, None)
    return replace(filed, network=replace(filed.network, single=no_batch()))


def _given(options: BuildOptions) -> tuple[list[GivenInput], int | None]:
    """The shapes of inputs that the options name, for one sample, and the axis of the batch."""
    from vggscope.foreign.onnx.network import GivenInput

    inputs = options.inputs
    if inputs is None:
        return [] if options.input is None else [GivenInput((1, *options.input))], 0
    axis = inputs.batch_axis
    if inputs.data is not None:
        from vggscope.trace.inputs import from_data

        tensors = from_data(inputs.data, axis).for_samples(1).tensors()
        return [GivenInput(tuple(tensor.shape)) for tensor in tensors], axis
    return [GivenInput(size.for_one(axis), size.name, size) for size in inputs.sizes], axis
