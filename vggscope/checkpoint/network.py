"""A column built for a checkpoint, under the file's own names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import PurePath

from vggscope.checkpoint.chain import GUESSED_POOL
from vggscope.checkpoint.inspection import Inspection
from vggscope.checkpoint.model import Model
from vggscope.checkpoint.reparametrised import whole
from vggscope.checkpoint.stored import StoredLayer
from vggscope.errors import OptionError, printable
from vggscope.graph import Network, Node, Parameter, module_node
from vggscope.ops.activation import ReLU
from vggscope.ops.convolution import Convolution, conv2d
from vggscope.ops.linear import Linear
from vggscope.ops.pooling import AdaptiveAvgPool2d
from vggscope.ops.regularization import Dropout, Identity
from vggscope.ops.shape import Flatten
from vggscope.vgg.labels import labelled
from vggscope.vgg.notation import Word
from vggscope.vgg.options import BuildOptions

PRE_LOGITS = "pre_logits"
"""timm's way to write the FC layers."""


def words_and_options(found: Inspection, options: BuildOptions) -> tuple[tuple[Word, ...], BuildOptions]:
    """What builds the column that a file's weights belong to.

    Raises CheckpointError where none can be built, and OptionError for an option that the weights contradict.
    """
    model = found.model()
    _check(found, model, options)
    words = tuple(word for word in model.words if word.kind != "fc") if found.head == PRE_LOGITS else model.words
    head = None if found.head == PRE_LOGITS else options.head or model.head
    return words, BuildOptions(options.input or model.input, head, soft_max=options.soft_max)


def _check(found: Inspection, model: Model, options: BuildOptions) -> None:
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
    """Each node's path in the file. Where the file tells none, behind its prefix: the column's own, if those around it
    are the column's own; the next number, if the path before it ends with one and leaves room; else the label, in the
    module that both the path before it and the next are in.
    """
    known = {
        node.name: stored[node.label].name.removeprefix(found.prefix) for node in column.nodes if node.label in stored
    }
    parts = {name.partition(".")[0] for name in known}
    usual = {part for part in parts if all(n == p for n, p in known.items() if n.startswith(f"{part}."))}
    paths: dict[str, str] = {}
    before = ""
    for node, after in zip(column.nodes, _following(column, known)):
        part, _, number = node.name.partition(".")
        if node.name in known:
            before = known[node.name]
        elif number and (part in usual or part not in parts):
            before = node.name
        else:
            label = _around(before, after) + (node.label or node.name)
            before = _next_number(before, after, is_certain=not number) or label
        paths[node.name] = before
    if len(set(paths.values())) < len(paths):
        paths = {node.name: node.name for node in column.nodes}
    return {name: found.prefix + path for name, path in paths.items()}


def _following(column: Network, known: dict[str, str]) -> list[str]:
    """For each node the next path behind it that is known, or an empty one."""
    found, after = [], ""
    for node in reversed(column.nodes):
        found.append(after)
        after = known.get(node.name, after)
    return found[::-1]


def _around(before: str, after: str) -> str:
    """What two paths begin with, up to a dot; up to the last one in `before` where `after` is empty."""
    pairs = zip(before.split(".")[:-1], (after or before).split(".")[:-1])
    return "".join(f"{part}." for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _next_number(before: str, after: str, *, is_certain: bool) -> str:
    """The path behind `before` in its Sequential, if it is numbered and leaves room before `after`; else empty. To be
    certain, `after` must stand in the same Sequential.
    """
    parent, dot, number = before.rpartition(".")
    if not re.fullmatch("[0-9]{1,6}", number):
        return ""
    path = f"{parent}{dot}{int(number) + 1}"
    limit = after.removeprefix(parent + dot).partition(".")[0] if after.startswith(parent + dot) else ""
    if not re.fullmatch("[0-9]{1,6}", limit):
        return "" if is_certain else path
    return path if int(limit) > int(number) + 1 else ""


def _node(node: Node, layer: StoredLayer | None, paths: dict[str, str]) -> Node:
    """A node under its new path, with the parameters that the file has for it."""
    path = paths[node.name]
    parameters, op = node.parameters, node.op
    if layer:
        have = {tensor.leaf: tensor for tensor in layer.tensors}
        own = [tensor for tensor in layer.tensors if tensor.learned and whole(tensor.leaf) in op.parameters()]
        parameters = tuple(Parameter(tensor.name, tensor.shape) for tensor in own)
        if isinstance(op, (Convolution, Linear)) and "bias" not in have:
            op = replace(op, bias=False)
    return replace(
        node,
        name=path,
        op=op,
        inputs=tuple(paths.get(name, name) for name in node.inputs),
        # A function that the file numbers, or that stands inside a wrapped network, is a module there.
        module=path if node.module is not None or path != node.name else None,
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
