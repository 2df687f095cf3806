"""An ONNX file that onnxruntime runs, with the values of its layers.

A value becomes an output of the graph by a few bytes after the file's own: protobuf joins the two. Weights in other
files are read here, within the folder of the file, and handed to onnxruntime, which opens no file.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vggscope.checkpoint.data import open_checkpoint
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.onnx_file import file_name, initializers_of, weights_of
from vggscope.checkpoint.formats.onnx_model import DTYPES, OnnxModel
from vggscope.checkpoint.formats.protobuf import LENGTH, LONGEST_TEXT
from vggscope.checkpoint.reader import explained
from vggscope.errors import MissingTool, ModelError, VggscopeError, option, printable
from vggscope.foreign.file_runner import FileRunner
from vggscope.foreign.onnx.network import OnnxTranslation
from vggscope.graph import Node
from vggscope.ops.base import Shape
from vggscope.trace.inputs import CallInputs

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_FILE = 2**31 - 1
"""The largest message of protobuf in bytes, and so the largest graph that onnxruntime takes."""

_GRAPH, _OUTPUT, _NAME = 7, 12, 1
"""The fields of ModelProto, GraphProto and ValueInfoProto that name an output."""


class OnnxRunner(FileRunner):
    """A file's graph for one comparison: its inputs, the weights of its layers, and what it computes."""

    def __init__(self, path: str, model: OnnxModel, translation: OnnxTranslation, given: CallInputs | None) -> None:
        if not _is_installed():
            raise MissingTool("running an ONNX file needs onnxruntime", "pip install 'vggscope[onnxruntime]'")
        super().__init__(translation.network, given)
        self._path = path
        self._model = model
        self._translation = translation
        _check_locations(model, self.network.name)

    @property
    def engine(self) -> str:
        """What runs it, with the version."""
        import onnxruntime

        return f"onnxruntime {onnxruntime.__version__}"

    def tensors(self, nodes: Sequence[Node]) -> dict[str, list[Tensor]]:
        """The weights and running statistics of these layers in torch's layout, by the layer's name.

        A layer that has one that its file does not hold as it is, is left out.
        """
        found: dict[str, list[Tensor]] = {}
        with open_checkpoint(weights_of(self._model, self._path)) as file:
            stored = {file_name(tensor): tensor for tensor in reversed(file.checkpoint.tensors)}
            for node in nodes:
                tensors = [stored.get(name) for name in self._translation.weights[node.name]]
                known = [tensor for tensor in tensors if tensor is not None and not file.obstacle(tensor)]
                if tensors and len(known) == len(tensors):
                    found[node.name] = [_tensor(file.whole(tensor), tensor.dtype) for tensor in known]
        return found

    def run(self, inputs: CallInputs, nodes: Sequence[Node], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The output, and the outputs of the layers of which the file has the value, by the layer's name.

        Raises ModelError where onnxruntime does not run the graph.
        """
        import torch

        values = self._translation.values
        wanted = {node.name: values[node.name] for node in nodes if node.name in values}
        own = [info.name for info in self._model.outputs]
        extra = [name for name in dict.fromkeys(wanted.values()) if name not in own]
        arrays = self._fed(inputs)
        try:
            session = self._session(extra)
            results = dict(zip((*own, *extra), session.run([*own, *extra], arrays)))
        except VggscopeError:
            raise
        except Exception as error:  # its classes have no common one of their own
            reason = printable(str(error).partition("\n")[0], 300)
            problem = f"onnxruntime does not run {self.network.name}: {reason}"
            raise ModelError(problem, f"leave out {option('numeric')}") from error
        one = {name: torch.from_numpy(array) for name, array in results.items() if hasattr(array, "shape")}
        place = self.network.output_place
        output = _of_sample(one[own[place]], self.network.outputs[place].shape)
        shapes = self.network.shapes
        layers = {layer: _of_sample(one[name], shapes[layer]) for layer, name in wanted.items() if name in one}
        return output, layers

    def _session(self, extra: Sequence[str]) -> Any:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        with explained(self._path), BoundedFile(self._path) as file:
            if file.size > LARGEST_FILE:
                raise ModelError(f"{self.network.name} has {file.size} bytes, of which onnxruntime takes 2 GiB")
            file.allow(file.size)
            data = file.read()
        outside = self._external()
        if outside:
            options.add_external_initializers(list(outside), list(outside.values()))
        return onnxruntime.InferenceSession(data + _outputs_message(extra), options, providers=["CPUExecutionProvider"])

    def _external(self) -> dict[str, Any]:
        """The tensors in other files, read from there, as onnxruntime takes them."""
        outside = {name for name, tensor in self._model.initializers.items() if tensor.location}
        if not outside:
            return {}
        found: dict[str, Any] = {}
        with open_checkpoint(initializers_of(self._model, self._path)) as file:
            for tensor in file.checkpoint.tensors:
                if tensor.name in outside:
                    if obstacle := file.obstacle(tensor):
                        raise ModelError(f"{printable(tensor.name)} of {self.network.name} is not read: {obstacle}")
                    found[tensor.name] = _ort_value(file.whole(tensor), tensor.dtype)
        return found

    def _fed(self, inputs: CallInputs) -> dict[str, Any]:
        """The arrays of the graph's inputs, each repeated to the batch that the file fixes."""
        import torch

        fed = {}
        for info, tensor in zip(self._model.inputs, inputs.tensors()):
            kind = getattr(torch, info.dtype or self.network.dtype)
            fixed = [size if isinstance(size, int) else have for size, have in zip(info.axes or (), tensor.shape)]
            fed[info.name] = tensor.to(kind).expand(fixed or tensor.shape).contiguous().numpy()
        return fed


def _is_installed() -> bool:
    try:
        return importlib.util.find_spec("onnxruntime") is not None
    except ValueError:  # it is None in sys.modules, which forbids the import
        return False


def _check_locations(model: OnnxModel, name: str) -> None:
    """Raise ModelError for tensors in other files that cannot be handed to onnxruntime, which would look for them."""
    problem = ""
    if model.inner_locations:
        problem = f"it has tensors of attributes or inner graphs in {printable(min(model.inner_locations), 120)}"
    elif any("\ufffd" in name or len(name) >= LONGEST_TEXT for name, t in model.initializers.items() if t.location):
        problem = "the name of a tensor in another file is not valid text"
    if problem:
        raise ModelError(f"{name} is not run: {problem}", f"leave out {option('numeric')}")


def _tensor(array: Any, dtype: str) -> Tensor:
    """A tensor of elements as they are in the file."""
    import numpy as np
    import torch

    kind: torch.dtype = getattr(torch, dtype)
    return torch.from_numpy(np.array(array, order="C")).view(kind)


def _ort_value(array: Any, dtype: str) -> Any:
    """A value of onnxruntime of elements as they are in the file."""
    import numpy as np
    from onnxruntime import OrtValue

    whole = np.array(array, order="C")
    if dtype == "bool":
        return OrtValue.ortvalue_from_numpy(whole.view(np.bool_))
    if whole.dtype.name == dtype:
        return OrtValue.ortvalue_from_numpy(whole)
    number = next(number for number, name in DTYPES.items() if name == dtype)
    return OrtValue.ortvalue_from_numpy_with_onnx_type(whole, number)


def _of_sample(value: Tensor, shape: Shape) -> Tensor:
    """The first of the samples that the file's batch repeats, where the shape is that of one."""
    if len(value.shape) != len(shape):
        return value
    for axis, (have, wanted) in enumerate(zip(value.shape, shape)):
        if have > wanted:
            value = value.narrow(axis, 0, wanted)
    return value


def _outputs_message(names: Sequence[str]) -> bytes:
    """A message of protobuf that adds outputs of these names to the graph of a model that comes before it."""
    outputs = b"".join(_field(_OUTPUT, _field(_NAME, name.encode())) for name in names)
    return _field(_GRAPH, outputs) if outputs else b""


def _field(number: int, data: bytes) -> bytes:
    return _varint(number << 3 | LENGTH) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes((*parts, number))
