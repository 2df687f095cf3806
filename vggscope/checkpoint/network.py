"""A checkpoint as a Network, under the file's own names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import takewhile
from pathlib import PurePath

from vggscope.checkpoint.contents import StoredLayer, StoredTensor, whole
from vggscope.checkpoint.fc_head import HEAD_SIDE
from vggscope.checkpoint.inspection import BuildPlan, Inspection, inspect
from vggscope.checkpoint.structure import GUESSED_POOL
from vggscope.errors import OptionError, option, printable
from vggscope.graph import Network, Node, Parameter, module_node
from vggscope.ops.activation import ReLU
from vggscope.ops.convolution import Convolution, conv2d
from vggscope.ops.linear import Linear
from vggscope.ops.pooling import AdaptiveAvgPool2d
from vggscope.ops.regularization import Dropout, Identity
from vggscope.ops.shape import Flatten
from vggscope.units import DTYPE_BYTES
from vggscope.vgg.labels import labelled
from vggscope.vgg.network import network_of_config
from vggscope.vgg.options import BuildOptions

PRE_LOGITS = "pre_logits"
"""The kind of head in which timm writes the FC layers."""

POOLED = f"a pool to {HEAD_SIDE}x{HEAD_SIDE} before the first FC layer is taken, as torchvision's VGGs have it"
"""Of a file whose FC layers fit another input without it."""


def network_of_checkpoint(path: str, options: BuildOptions) -> Network:
    """The Network of the weights in a file, with the file's paths and parameters.

    Layers that the file lacks are in `warnings`, parameters that no layer owns in `unused`. Raises CheckpointError
    where the file cannot be read or its network not built, and OptionError for an option that the weights contradict.
    """
    return network_of_inspection(inspect(path), options)


def network_of_inspection(inspection: Inspection, options: BuildOptions) -> Network:
    """The Network of the weights in a file that is already read, as `network_of_checkpoint` makes it."""
    plan = inspection.build_plan()
    options = options.for_one_image(plan.input[0])
    _check(inspection, plan, options)
    is_timm = inspection.head == PRE_LOGITS
    words = tuple(word for word in plan.words if word.kind != "fc") if is_timm else plan.words
    head = None if is_timm else options.head or plan.head
    is_other_size = options.head is None and options.input not in (None, plan.input)
    notes: tuple[str, ...] = ()
    if is_other_size and head == "flatten" and "adaptive" in _heads(inspection, plan):
        head, notes = "adaptive", (POOLED,)
    config = network_of_config(
        inspection.path, words, BuildOptions(options.input or plan.input, head, soft_max=options.soft_max)
    )
    if is_timm:
        config = labelled(replace(config, nodes=(*config.nodes, *_timm_head(config, inspection))))
    stored = {layer.label: layer for layer in inspection.layers if layer.label}
    paths = _paths(config, stored, inspection)
    dtype = next((name for name in inspection.dtypes if name in DTYPE_BYTES), config.dtype)
    nodes = tuple(_node(node, stored.get(node.label), paths, dtype) for node in config.nodes)
    owned = {parameter.name for node in nodes for parameter in node.parameters}
    return replace(
        config,
        name=printable(PurePath(inspection.path).name),
        nodes=nodes,
        unused=tuple(_unused(inspection, owned, dtype)),
        dtype=dtype,
        warnings=(*config.warnings, *_warnings(inspection), *notes),
    )


def _check(inspection: Inspection, plan: BuildPlan, options: BuildOptions) -> None:
    """Raise OptionError for an option that the weights contradict."""
    remedy = "leave the option out: a checkpoint has its own"
    if options.num_classes not in (None, inspection.num_classes):
        raise OptionError(
            f"{option('num_classes', options.num_classes)}: the file has {inspection.num_classes}", remedy
        )
    if options.batch_norm and not inspection.batch_norm:
        raise OptionError(f"{option('batch_norm')}: the file has none", remedy)
    if options.input and options.input[0] != plan.input[0]:
        raise OptionError(
            f"{option('input_size')} with {options.input[0]} channels: the file reads {plan.input[0]}", remedy
        )
    if options.head not in (None, *_heads(inspection, plan)):
        raise OptionError(f"{option('head', options.head)}: the file's FC layers are not written so", remedy)


def _heads(inspection: Inspection, plan: BuildPlan) -> tuple[str | None, ...]:
    """The heads that the file's FC layers may have."""
    reads_usual_map = inspection.head == "linear" and inspection.head_side == HEAD_SIDE
    return ("adaptive", "flatten") if reads_usual_map else (plan.head,)


def _timm_head(config: Network, inspection: Inspection) -> Iterator[Node]:
    """The ConvMlp and ClassifierHead of timm 1.0 at their default drop rate of 0."""
    layers = {layer.name.removeprefix(inspection.prefix): layer for layer in inspection.layers}
    channels = next(node.op.out_channels for node in reversed(config.nodes) if isinstance(node.op, Convolution))
    last = config.nodes[-1].name
    ops = {
        "pre_logits.fc1": conv2d(channels, 4096, 7),
        "pre_logits.act1": ReLU(inplace=True),
        "pre_logits.drop": Dropout(0.0),
        "pre_logits.fc2": conv2d(4096, 4096, 1),
        "pre_logits.act2": ReLU(inplace=True),
        "head.global_pool.pool": AdaptiveAvgPool2d((1, 1)),
        "head.global_pool.flatten": Flatten(),
        "head.drop": Dropout(0.0),
        "head.fc": Linear(4096, inspection.num_classes or 0) if "head.fc" in layers else Identity(),
        "head.flatten": Identity(),
    }
    for path, op in ops.items():
        yield module_node(path, op, last)
        last = path


def _paths(config: Network, stored: dict[str, StoredLayer], inspection: Inspection) -> dict[str, str]:
    """Each node's path in the file, by its name in the configuration.

    A node without a stored layer gets the first of these that applies: the configuration's path, if the stored layers
    of its module have the configuration's paths; the next free number in the Sequential of the node before it; its
    label, in the module that holds both the node before it and the next known one. All follow the file's prefix.
    """
    known = {
        node.name: stored[node.label].name.removeprefix(inspection.prefix)
        for node in config.nodes
        if node.label in stored
    }
    parts = {name.partition(".")[0] for name in known}
    usual = {part for part in parts if all(n == p for n, p in known.items() if n.startswith(f"{part}."))}
    paths: dict[str, str] = {}
    before = ""
    for node, after in zip(config.nodes, _next_known(config, known)):
        part, _, number = node.name.partition(".")
        if node.name in known:
            before = known[node.name]
        elif number and (part in usual or part not in parts):
            before = node.name
        else:
            label = _common_module(before, after) + (node.label or node.name)
            before = _next_number(before, after, needs_limit=not number) or label
        paths[node.name] = before
    if len(set(paths.values())) < len(paths):
        paths = {node.name: node.name for node in config.nodes}
    return {name: inspection.prefix + path for name, path in paths.items()}


def _next_known(config: Network, known: dict[str, str]) -> list[str]:
    """For each node the path of the next node that the file has; empty after the last."""
    following, after = [], ""
    for node in reversed(config.nodes):
        following.append(after)
        after = known.get(node.name, after)
    return following[::-1]


def _common_module(before: str, after: str) -> str:
    """The module that holds both paths, with a dot; the module of `before` if `after` is empty."""
    pairs = zip(before.split(".")[:-1], (after or before).split(".")[:-1])
    return "".join(f"{part}." for part, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _next_number(before: str, after: str, *, needs_limit: bool) -> str:
    """The next path after `before` in its Sequential, if it is numbered and precedes `after`; else empty.

    With `needs_limit`, `after` must be in the same Sequential.
    """
    parent, dot, number = before.rpartition(".")
    if not re.fullmatch("[0-9]{1,6}", number):
        return ""
    path = f"{parent}{dot}{int(number) + 1}"
    limit = after.removeprefix(parent + dot).partition(".")[0] if after.startswith(parent + dot) else ""
    if not re.fullmatch("[0-9]{1,6}", limit):
        return "" if needs_limit else path
    return path if int(limit) > int(number) + 1 else ""


def _node(node: Node, layer: StoredLayer | None, paths: dict[str, str], dtype: str) -> Node:
    """The node under its path in the file, with the parameters that the file has for it. `dtype` is the network's."""
    path = paths[node.name]
    parameters, op = node.parameters, node.op
    if layer:
        order = list(op.parameters())
        own = [tensor for tensor in layer.tensors if tensor.learned and whole(tensor.leaf) in order]
        # A file may have the bias before the weight: the op's order is torch's.
        own.sort(key=lambda tensor: order.index(whole(tensor.leaf)))
        parameters = tuple(_parameter(tensor, dtype) for tensor in own)
        if isinstance(op, (Convolution, Linear)) and all(tensor.leaf != "bias" for tensor in layer.tensors):
            op = replace(op, bias=False)
        if isinstance(op, Linear) and len(layer.shape) == 2:
            # For another input than the file's, the configuration has a layer of another size.
            op = replace(op, in_features=layer.shape[1])
    return replace(
        node,
        name=path,
        op=op,
        inputs=tuple(paths.get(name, name) for name in node.inputs),
        # A function that the file numbers, or that is inside a wrapped network, is a module there.
        module=path if node.module is not None or path != node.name else None,
        parameters=parameters,
    )


def _parameter(tensor: StoredTensor, dtype: str) -> Parameter:
    return Parameter(tensor.name, tensor.shape, dtype="" if tensor.dtype == dtype else tensor.dtype)


def _unused(inspection: Inspection, owned: set[str], dtype: str) -> Iterator[tuple[Parameter, str]]:
    why = f"no layer of column {inspection.column} owns it" if inspection.column else "no layer owns it"
    for layer in inspection.layers:
        for tensor in layer.tensors:
            if tensor.learned and tensor.name not in owned:
                yield _parameter(tensor, dtype), why


def _warnings(inspection: Inspection) -> Iterator[str]:
    yield from inspection.problems
    if inspection.modules:
        yield "the code of forward is not in the file: the order of the layers is that of their keys"
    elif inspection.notation and GUESSED_POOL in inspection.notation:
        yield "the file does not tell where pools stand: they are guessed from the numbers in its keys"
