"""The weights of an ONNX file as a checkpoint: its initializers under the names and in the layout of torch.

The nodes that read an initializer say what it is: the second input of a Conv is a weight, and the third a bias. Its name
is the file's, unless that names no parameter; it then has the path of the node's module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod

from vggscope.checkpoint.contents import Checkpoint, Extent, Original, Place, StoredTensor
from vggscope.checkpoint.formats.bounded_file import BoundedFile
from vggscope.checkpoint.formats.onnx_model import (
    STANDARD,
    OnnxModel,
    OnnxNode,
    OnnxTensor,
    names_parameter,
    read_model,
)
from vggscope.checkpoint.layouts import permute, torch_name
from vggscope.errors import CheckpointError, printable
from vggscope.units import ELEMENT_BYTES

FORMAT = "ONNX"

_WEIGHT_AND_BIAS = {1: "weight", 2: "bias"}

_LEAVES: Mapping[str, Mapping[int, str]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), _WEIGHT_AND_BIAS),
    **dict.fromkeys(("LayerNormalization", "InstanceNormalization", "GroupNormalization"), _WEIGHT_AND_BIAS),
    **dict.fromkeys(("MatMul", "PRelu", "RMSNormalization"), {1: "weight"}),
    "BatchNormalization": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"},
}
"""What a node's inputs are, by its op."""

_ELEMENTS = {"raw": "", "f": "float32", "d": "float64"}
"""The fields whose bytes are the elements, and the dtype that a typed field has."""

_REMEDY = "copy or download it again"


@dataclass
class _Use:
    """A node that reads a tensor: the layer that it is and the tensor's name in that. `is_transposed` says whether the
    file has the tensor as inputs x outputs.
    """

    layer: str
    leaf: str
    is_transposed: bool


@dataclass
class _Graph:
    """The graph as far as it tells what its initializers are."""

    model: OnnxModel
    uses: dict[str, list[_Use]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        writers = {output: node for node in self.model.nodes for output in node.outputs}
        for number, node in enumerate(self.model.nodes):
            leaves = _LEAVES.get(node.op_type, {}) if node.domain in STANDARD else {}
            places = {place: leaf for place, leaf in leaves.items() if place < len(node.inputs)}
            sources = {place: self._source(node.inputs[place], writers) for place in places}
            layer = self._layer(node, number, [name for name, _ in sources.values() if name])
            for place, leaf in places.items():
                name, is_turned = sources[place]
                if name:
                    is_product = node.op_type == "MatMul" or (node.op_type == "Gemm" and not _is_set(node, "transB"))
                    is_matrix = place == 1 and len(self.model.initializers[name].shape) == 2
                    is_transposed = is_matrix and is_turned != is_product and node.op_type in ("MatMul", "Gemm")
                    self.uses.setdefault(name, []).append(_Use(layer, leaf, is_transposed))

    def _source(self, name: str, writers: Mapping[str, OnnxNode]) -> tuple[str, bool]:
        """The initializer that a value is, and whether it is transposed; an empty name for any other value."""
        is_turned = False
        for _ in range(8):
            if name in self.model.initializers:
                return name, is_turned
            node = writers.get(name)
            if node is None or not node.inputs or node.op_type not in ("Identity", "Transpose"):
                break
            if node.op_type == "Transpose":
                if node.attributes.get("perm", (1, 0)) != (1, 0):
                    break
                is_turned = not is_turned
            name = node.inputs[0]
        return "", False

    def _layer(self, node: OnnxNode, number: int, names: list[str]) -> str:
        """The path of a node's module: that of its named tensors, else the exporter's, else the node's own name."""
        named = [torch_name(name) for name in names if names_parameter(name)]
        paths = {name.rpartition(".")[0] for name in named if "." in name}
        if len(paths) == 1:
            return paths.pop()
        if node.scope:
            return node.scope
        common = os.path.commonprefix(named).rstrip("._/:-") if len(named) > 1 else ""
        plain = re.sub(r"[/.:\s]+", "_", node.name).strip("_")
        return common or plain or f"{node.op_type}_{number}"


def _is_set(node: OnnxNode, name: str) -> bool:
    return bool(node.attributes.get(name, 0))


def read(file: BoundedFile, path: str) -> Checkpoint:
    """The parameters of the graph. Raises CheckpointError where the file is no ONNX file or is damaged."""
    return weights_of(read_model(file), path)


def weights_of(model: OnnxModel, path: str) -> Checkpoint:
    """The parameters and running statistics of a graph that is read from `path`, in the file's order.

    A tensor that several layers read, as the exporter writes equal ones, is in the checkpoint for each of them. Data in
    other files is in shards, whose files are not opened.
    """
    graph = _Graph(model)
    tensors: list[tuple[StoredTensor, str]] = []
    storages: dict[str, dict[str, Extent]] = {}
    taken: set[str] = set()
    for stored in model.initializers.values():
        for tensor in _named(stored, graph.uses.get(stored.name, []), taken):
            extent = _extent(stored)
            where = _beside(path, stored.location) if stored.location else path
            if extent is not None:
                storages.setdefault(where, {})[stored.name] = extent
            tensors.append((tensor, where))
    everything = tuple(tensor for tensor, _ in tensors)
    if {where for _, where in tensors} <= {path}:
        return Checkpoint(path, FORMAT, everything, storages=storages.get(path, {}))
    parts = (
        Checkpoint(
            where,
            FORMAT if where == path else "data of ONNX",
            tuple(tensor for tensor, place in tensors if place == where),
            storages=storages.get(where, {}),
        )
        for where in dict.fromkeys(where for _, where in tensors)
    )
    return Checkpoint(path, FORMAT, everything, shards=tuple(parts))


def _named(stored: OnnxTensor, uses: list[_Use], taken: set[str]) -> Iterator[StoredTensor]:
    """A tensor of the file as those of the layers that read it, or under its own name if it names a parameter."""
    is_own = names_parameter(stored.name)
    floating = stored.dtype.startswith(("float", "bfloat", "complex"))
    original = Original(stored.name, stored.shape)
    plain = StoredTensor(stored.name, stored.shape, stored.dtype, Place(stored.name, 0), original)
    if not uses:
        if is_own and floating:
            taken.add(stored.name)
            yield plain
        return
    for use in uses:
        name = f"{use.layer}.{use.leaf}"
        if is_own and stored.name.endswith(f".{use.leaf}"):
            # Tensors that are equal are written once, under the name of the first.
            name = stored.name if len(uses) == 1 or use is uses[0] else name
        if name not in taken:
            taken.add(name)
            made = permute(plain, "IO") if use.is_transposed else plain
            yield replace(made, name=name, original=made.original if name != stored.name or use.is_transposed else None)


def _extent(stored: OnnxTensor) -> Extent | None:
    """Where the elements lie one by one in their file; None if they do not."""
    size = prod(stored.shape) * ELEMENT_BYTES.get(stored.dtype, 0)
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
        raise CheckpointError(
            f"{printable(stored.name)} has {span.length} bytes where its shape needs {size}", _REMEDY
        )
    return Extent(span.start, size)


def _beside(path: str, location: str) -> str:
    """The path of a file of external data. Raises CheckpointError for a location that leads out of the folder."""
    parts = location.replace("\\", "/").split("/")
    if location.startswith(("/", "\\")) or ".." in parts or ":" in location or "\0" in location or len(parts) > 16:
        raise CheckpointError(
            f"its weights are to be in {printable(location, 120)}, outside its folder", "it is damaged or malicious"
        )
    return os.path.join(os.path.dirname(path), *parts)
