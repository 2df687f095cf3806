"""The weights of an ONNX file as a checkpoint: its initializers under the names and in the layout of torch.

The nodes that read an initializer say what it is: the second input of a Conv is a weight, and the third a bias. Its
name is the file's, unless that names no parameter; it then has the path of the node's module.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from math import prod

from vggscope.checkpoint.contents import Checkpoint, Extent, Original, Place, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.onnx_model import (
    STANDARD,
    OnnxModel,
    OnnxNode,
    OnnxTensor,
    file_beside,
    names_parameter,
    read_model,
)
from vggscope.checkpoint.formats.onnx_recurrent import JOINED, RecurrentWeight, joined, recurrent_weights
from vggscope.checkpoint.layouts import permute, torch_name
from vggscope.errors import CheckpointError, printable
from vggscope.record import record
from vggscope.units import ELEMENT_BYTES

FORMAT = "ONNX"

_AFFINE = ("weight", "bias")

_LEAVES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), _AFFINE),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), _AFFINE),
    **dict.fromkeys(("MatMul", "PRelu", "RMSNormalization"), ("weight",)),
    "BatchNormalization": (*_AFFINE, "running_mean", "running_var"),
}
"""What a node's inputs after the first are, by its op."""

_ELEMENTS = {"raw": "", "f": "float32", "d": "float64"}
"""The fields whose bytes are the elements, and the dtype that a typed field has."""

_QUANTISING = re.compile("[Qq]uantize|^QLinear|^QGemm")
"""The ops whose floating-point initializers are scales, and no parameters."""

_MOST_VIEWS = 8
"""The most nodes between an initializer and its layer that only lay it out."""

_REMEDY = "copy or download it again"


@record
class _Use:
    """A place at which a node reads an initializer: the path of the node's layer, and the tensor's name in that.

    `is_transposed` says whether the file has the tensor as inputs x outputs. `part` is which part of it the tensor is,
    for one of a recurrent layer.
    """

    tensor: OnnxTensor
    layer: str
    leaf: str
    is_transposed: bool = False
    part: RecurrentWeight | None = None


class _Graph:
    """The nodes as far as they tell what the initializers are."""

    def __init__(self, model: OnnxModel) -> None:
        self._model = model
        self._nodes = joined(model.nodes, model)
        self._writers = {output: node for node in self._nodes for output in node.outputs}
        self._scopes: dict[str, str] = {}

    def uses(self) -> Iterator[_Use]:
        """The places at which nodes read weights, in the nodes' order."""
        for number, node in enumerate(self._nodes):
            if node.op_type in JOINED.values():
                layer = self._layer(node, number, [])
                for part in recurrent_weights(node, self._model.initializers):
                    yield _Use(part.tensor, layer, part.leaf, part=part)
                continue
            leaves = _LEAVES.get(node.op_type, ()) if node.domain in STANDARD else ()
            found = {place: self._source(name) for place, name in enumerate(node.inputs[1 : len(leaves) + 1])}
            layer = self._layer(node, number, [tensor.name for tensor, _ in found.values() if tensor])
            for place, (tensor, is_turned) in found.items():
                if tensor is not None:
                    yield _Use(tensor, layer, leaves[place], place == 0 and _is_transposed(node, tensor, is_turned))

    def _source(self, name: str) -> tuple[OnnxTensor | None, bool]:
        """The initializer that a value is, and whether it is transposed; None for any other value."""
        is_turned = False
        for _ in range(_MOST_VIEWS):
            if name in self._model.initializers:
                return self._model.initializers[name], is_turned
            node = self._writers.get(name)
            if node is None or not node.inputs or node.op_type not in ("Identity", "Transpose"):
                break
            if node.op_type == "Transpose":
                if node.attributes.get("perm", (1, 0)) != (1, 0):
                    break
                is_turned = not is_turned
            name = node.inputs[0]
        return None, False

    def _layer(self, node: OnnxNode, number: int, names: list[str]) -> str:
        """The path of a node's module: that of its named tensors, else the exporter's, else the node's own name.

        Of a tensor that is written once for several layers, the path is that of the first.
        """
        named = [torch_name(name) for name in names if names_parameter(name)]
        path = next((name.rpartition(".")[0] for name in named if "." in name), "")
        if path and self._scopes.setdefault(path, node.scope) == node.scope:
            return path
        plain = re.sub(r"[/.:\s]+", "_", node.name).strip("_")
        return node.scope or path or plain or f"{node.op_type}_{number}"


def _is_transposed(node: OnnxNode, tensor: OnnxTensor, is_turned: bool) -> bool:
    """Whether the weight of a linear layer lies in the file as inputs x outputs."""
    is_linear = node.op_type in ("MatMul", "Gemm") and len(tensor.shape) == 2
    return is_linear and is_turned == bool(node.attributes.get("transB", 0))


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The parameters of the graph. Raises CheckpointError where the file is no ONNX file or is damaged."""
    return weights_of(read_model(file), path)


def weights_of(model: OnnxModel, path: str) -> Checkpoint:
    """The parameters and running statistics of a graph that is read from `path`, in the order of its layers.

    A tensor that several layers read, as the exporter writes equal ones, is in the checkpoint for each of them. Tensors
    whose data is in other files are in shards, and those files are not opened.
    """
    inner = (tensor.name for node in model.nodes for tensor in node.holds if prod(tensor.shape) > 1)
    packed = (name for name, tensor in model.initializers.items() if _is_quantised(tensor))
    return replace(_checkpoint(path, tuple(_tensors(model))), beside=tuple(inner), packed=tuple(packed))


def _is_quantised(tensor: OnnxTensor) -> bool:
    """Whether a tensor is a weight in a narrow integer dtype, whose values a scale turns into numbers."""
    return tensor.dtype.lstrip("u") in ("int2", "int4", "int8") and prod(tensor.shape) > 1


def initializers_of(model: OnnxModel, path: str) -> Checkpoint:
    """The initializers of a graph that is read from `path`, as they are in the file."""
    return _checkpoint(path, tuple((stored, _plain(stored)) for stored in model.initializers.values()))


def _checkpoint(path: str, tensors: tuple[tuple[OnnxTensor, StoredTensor], ...]) -> Checkpoint:
    places = [file_beside(path, stored.location) if stored.location else path for stored, _ in tensors]
    everything = tuple(tensor for _, tensor in tensors)
    parts = []
    for where in dict.fromkeys(places):
        own = [pair for pair, place in zip(tensors, places) if place == where]
        extents = {stored.name: extent for stored, _ in own if (extent := _extent(stored)) is not None}
        parts.append(Checkpoint(where, FORMAT, tuple(tensor for _, tensor in own), storages=extents))
    if len(parts) == 1 and parts[0].path == path:
        return parts[0]
    return Checkpoint(path, FORMAT, everything, shards=tuple(parts))


def _tensors(model: OnnxModel) -> Iterator[tuple[OnnxTensor, StoredTensor]]:
    """The initializers that are weights, each as the tensor of every layer that reads it, in the order of the layers;
    then those that no layer reads and that are named as parameters.
    """
    taken: set[str] = set()
    read: set[str] = set()
    for use in _Graph(model).uses():
        stored = use.tensor
        name = f"{use.layer}.{use.leaf}"
        if stored.name not in read and names_parameter(stored.name) and stored.name.endswith(f".{use.leaf}"):
            name = stored.name
        read.add(stored.name)
        if name not in taken:
            taken.add(name)
            made = _part(use.part) if use.part else permute(_plain(stored), "IO" if use.is_transposed else "")
            yield stored, replace(made, name=name)
    scales = {name for node in model.nodes if _QUANTISING.search(node.op_type) for name in node.inputs}
    for stored in model.initializers.values():
        floating = stored.dtype.startswith(("float", "bfloat", "complex"))
        if floating and stored.name not in read | taken | scales and names_parameter(stored.name):
            yield stored, _plain(stored)


def _plain(stored: OnnxTensor) -> StoredTensor:
    original = Original(stored.name, stored.shape)
    return StoredTensor(stored.name, stored.shape, stored.dtype, Place(stored.name, 0), original)


def _part(part: RecurrentWeight) -> StoredTensor:
    """A weight of a recurrent layer, with its gates in torch's order."""
    plain = _plain(part.tensor)
    place = Place(part.tensor.name, part.start * ELEMENT_BYTES.get(part.tensor.dtype, 1), blocks=part.gates)
    return replace(plain, shape=part.shape, place=place)


def file_name(tensor: StoredTensor) -> str:
    """What names a tensor in the file: its name there, and which part it is if that tensor has several weights.

    >>> file_name(StoredTensor("fc.weight", (2, 3), "float32", original=Original("val_3", (3, 2), "IO")))
    'val_3'
    """
    name = tensor.original.name if tensor.original else tensor.name
    is_part = tensor.place is not None and bool(tensor.place.blocks)
    return part_name(name, tensor.name.rpartition(".")[2]) if is_part else name


def part_name(tensor: str, leaf: str) -> str:
    """What names a part of a tensor in the file: `val_41, weight_ih_l0`."""
    return f"{tensor}, {leaf}"


def _extent(stored: OnnxTensor) -> Extent | None:
    """Where the elements lie one by one in their file; None if they do not."""
    if stored.dtype not in ELEMENT_BYTES or stored.stored is not None:
        return None
    size = prod(stored.shape) * ELEMENT_BYTES[stored.dtype]
    if stored.location:
        span = stored.external
        is_whole = span is not None and span.length in (-1, size)
        return Extent(span.start, size) if span is not None and is_whole and size else None
    if stored.data is None:
        return None
    key, span = stored.data
    if _ELEMENTS.get(key) not in ("", stored.dtype):
        return None
    if span.length != size:
        problem = f"{printable(stored.name)} has {span.length} bytes where its shape needs {size}"
        raise CheckpointError(problem, _REMEDY)
    return Extent(span.start, size)
