"""A column built for a checkpoint, under the file's own names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePath

from vggscope.analysis.inspection.chain import GUESSED_POOL
from vggscope.analysis.inspection.inspect import Inspection
from vggscope.analysis.inspection.model import Model
from vggscope.analysis.inspection.stored import StoredLayer
from vggscope.errors import OptionError, printable
from vggscope.labels import labelled
from vggscope.network import Network, Node, Parameter, module_node
from vggscope.notation import Word
from vggscope.ops.activation import ReLU
from vggscope.ops.convolution import Convolution, conv2d
from vggscope.ops.linear import Linear
from vggscope.ops.pooling import AdaptiveAvgPool2d
from vggscope.ops.regularization import Dropout, Identity
from vggscope.ops.shape import Flatten
from vggscope.sources.options import Options

PRE_LOGITS = "pre_logits"
"""timm's way to write the FC layers."""


def words_and_options(found: Inspection, options: Options) -> tuple[tuple[Word, ...], Options]:
    """What builds the column that a file's weights belong to.

    Raises CheckpointError where none can be built, and OptionError for an option that the weights contradict.
    """
    model = found.model()
    _check(found, model, options)
    words = tuple(word for word in model.words if word.kind != "fc") if found.head == PRE_LOGITS else model.words
    head = None if found.head == PRE_LOGITS else options.head or model.head
    return words, Options(options.input or model.input, head, soft_max=options.soft_max)


def _check(found: Inspection, model: Model, options: Options) -> None:
    remedy = "leave the option out: a checkpoint has its own"
    if options.num_classes not in (None, found.num_classes):
        raise OptionError(f"--num-classes {options.num_classes}: the file has {found.num_classes}", remedy)
    if options.batch_norm and not found.batch_norm:
        raise OptionError("--batch-norm: the file has none", remedy)
    if options.input and options.input[0] != model.input[0]:
        raise OptionError(f"--input with {options.input[0]} channels: the file reads {model.input[0]}", remedy)
    allowed = ("adaptive", "flatten") if found.head == "linear" and found.head_side == 7 else (model.head,)
    if options.head not in (None, *allowed):
        raise OptionError(f"--head {options.head}: the file's FC layers are not written so", remedy)


def with_stored_names(column: Network, found: Inspection) -> Network:
    """The column with the file's paths and parameters; what the file lacks or has too much stands in `warnings` and
    `unused`.
    """
    if found.head == PRE_LOGITS:
        column = labelled(replace(column, nodes=(*column.nodes, *_timm_head(column, found))))
    stored = {layer.label: layer for layer in found.layers if layer.label}
    paths = _paths(column, stored, found)
    nodes = tuple(_node(node, stored.get(node.label), paths) for node in column.nodes)
    owned = {parameter.name for node in nodes for parameter in node.parameters}
    return replace(
        column,
        name=printable(PurePath(found.path).name),
        nodes=nodes,
        unused=tuple(_unused(found, owned)),
        warnings=(*column.warnings, *_warnings(found)),
    )


def _timm_head(column: Network, found: Inspection) -> Iterator[Node]:
    """The ConvMlp and ClassifierHead of timm 1.0 at their default drop rate of 0."""
    layers = {layer.name.removeprefix(found.prefix): layer for layer in found.layers}
    channels = next(node.op.out_channels for node in reversed(column.nodes) if isinstance(node.op, Convolution))
    last = column.nodes[-1].name
    ops = {
        "pre_logits.fc1": conv2d(channels, 4096, 7),
        "pre_logits.act1": ReLU(inplace=True),
        "pre_logits.drop": Dropout(0.0),
        "pre_logits.fc2": conv2d(4096, 4096, 1),
        "pre_logits.act2": ReLU(inplace=True),
        "head.global_pool.pool": AdaptiveAvgPool2d((1, 1)),
        "head.global_pool.flatten": Flatten(),
        "head.drop": Dropout(0.0),
        "head.fc": Linear(4096, found.num_classes or 0) if "head.fc" in layers else Identity(),
        "head.flatten": Identity(),
    }
    for path, op in ops.items():
        yield module_node(path, op, last)
        last = path


def _paths(column: Network, stored: dict[str, StoredLayer], found: Inspection) -> dict[str, str]:
    """Each node's path: as in the file, less its prefix; where the file tells none, the column's if the file's numbers
    are the column's, else the label.
    """
    known = {
        node.name: stored[node.label].name.removeprefix(found.prefix) for node in column.nodes if node.label in stored
    }
    paths = {}
    for node in column.nodes:
        part, _, number = node.name.partition(".")
        here = {name: path for name, path in known.items() if name.startswith(f"{part}.")}
        if node.name in known:
            paths[node.name] = known[node.name]
        elif all(name == path for name, path in here.items()):
            paths[node.name] = node.name
        elif all(name.partition(".")[2] == path for name, path in here.items()):
            paths[node.name] = number
        else:
            paths[node.name] = node.label or node.name
    repeated = any(count > 1 for count in Counter(paths.values()).values())
    return {node.name: node.name for node in column.nodes} if repeated else paths


def _node(node: Node, layer: StoredLayer | None, paths: dict[str, str]) -> Node:
    """A node under its new path, with the parameters that the file has for it."""
    path = paths[node.name]
    parameters, op = node.parameters, node.op
    if layer:
        have = {tensor.leaf: tensor for tensor in layer.tensors}
        parameters = tuple(Parameter(have[name].name, shape) for name, shape in op.parameters().items() if name in have)
        if isinstance(op, (Convolution, Linear)) and "bias" not in have:
            op = replace(op, bias=False)
    return replace(
        node,
        name=path,
        op=op,
        inputs=tuple(paths.get(name, name) for name in node.inputs),
        module=path if node.module is not None else None,
        parameters=parameters,
    )


def _unused(found: Inspection, owned: set[str]) -> Iterator[tuple[Parameter, str]]:
    why = f"no layer of column {found.column} owns it" if found.column else "no layer owns it"
    for layer in found.layers:
        for tensor in layer.tensors:
            if tensor.learned and tensor.name not in owned:
                yield Parameter(tensor.name, tensor.shape), why


def _warnings(found: Inspection) -> Iterator[str]:
    yield from found.problems
    if found.notation and GUESSED_POOL in found.notation:
        yield "the file does not tell where pools stand: they are guessed from the numbers in its keys"
