"""A Network run by torch's functions, node by node: what a file of another framework is compared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vggscope.graph import Network, Node

POOLS = {"MaxPool": "max_pool", "AvgPool": "avg_pool"}


def outputs_of(network: Network, state: Mapping[str, Tensor], x: Tensor) -> list[Tensor]:
    """The outputs at evaluation, for the weights by the names of the parameters and buffers."""
    values = {network.inputs[0].name: x}
    for node in network.nodes:
        weights = [state[parameter.name] for parameter in node.parameters]
        values[node.name] = _run(node, [values[name] for name in node.inputs], weights, state)
        assert tuple(values[node.name].shape) == network.shapes[node.name], node.name
    return [values[output.source] for output in network.outputs]


def _run(node: Node, inputs: list[Tensor], weights: list[Tensor], state: Mapping[str, Tensor]) -> Tensor:
    op: Any = node.op.without_constants
    x, kind = inputs[0], type(op).__name__
    bias = weights[1] if len(weights) > 1 else None
    if kind == "Elementwise":
        shapes = [shape for shape in getattr(node.op, "constants", ()) if shape is not None]
        tensors = [*inputs, *(w.reshape(shape) for w, shape in zip(weights, shapes))]
        rest = iter(tensors)
        given = op.arguments_given or (None,) * len(tensors)
        return _FUNCTIONS[op.function](*(next(rest) if value is None else value for value in given))
    if kind[:-2] in POOLS:
        pool = getattr(functional, f"{POOLS[kind[:-2]]}{kind[-2:]}")
        mean = {"count_include_pad": op.count_include_pad} if kind.startswith("Avg") else {}
        return pool(x, op.kernel_size, op.stride, op.padding, ceil_mode=op.ceil_mode, **mean)
    if kind.startswith("BatchNorm"):
        mean, variance = (state[f"{node.module}.{leaf}"] for leaf in ("running_mean", "running_var"))
        return functional.batch_norm(x, mean, variance, weights[0] if weights else None, bias, False, 0.0, op.eps)
    if kind in _OPS:
        return _OPS[kind](op, inputs, weights, bias)
    own = {key: getattr(op, key) for key in ("negative_slope", "alpha", "min_val", "max_val") if hasattr(op, key)}
    return getattr(nn, op.name)(**own)(x)


def _scaled(left: Any, right: Any) -> Tensor:
    return left * right


_FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": _scaled,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "abs": torch.abs,
    "clamp": torch.clamp,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}

_OPS: Mapping[str, Callable[..., Any]] = {
    "Convolution": lambda op, x, w, bias: getattr(functional, f"conv{w[0].ndim - 2}d")(
        x[0], w[0], bias, op.stride, op.padding, op.dilation, op.groups
    ),
    "TransposedConvolution": lambda op, x, w, bias: functional.conv_transpose2d(
        x[0], w[0], bias, op.stride, op.padding, op.output_padding, op.groups, op.dilation
    ),
    "Linear": lambda op, x, w, bias: functional.linear(x[0], w[0], bias),
    "LayerNorm": lambda op, x, w, bias: functional.layer_norm(x[0], op.normalized_shape, w[0], bias, op.eps),
    "LocalResponseNorm": lambda op, x, w, bias: functional.local_response_norm(x[0], op.size, op.alpha, op.beta, op.k),
    "PReLU": lambda op, x, w, bias: functional.prelu(x[0], w[0].reshape(-1)),
    "Softmax": lambda op, x, w, bias: x[0].softmax(op.dim),
    "Dropout": lambda op, x, w, bias: x[0],
    "Dropout2d": lambda op, x, w, bias: x[0],
    "Identity": lambda op, x, w, bias: x[0],
    "Reduction": lambda op, x, w, bias: getattr(torch, op.function)(x[0], dim=op.dim, keepdim=op.keepdim),
    "AdaptiveAvgPool2d": lambda op, x, w, bias: functional.adaptive_avg_pool2d(x[0], op.output_size),
    "Upsample": lambda op, x, w, bias: functional.interpolate(
        x[0], op.size, op.scale_factor, op.mode, op.align_corners
    ),
    "Concatenation": lambda op, x, w, bias: torch.cat(x, op.dim),
    "Flatten": lambda op, x, w, bias: x[0].flatten(op.start_dim, op.end_dim),
    "Reshape": lambda op, x, w, bias: x[0].reshape(op.target),
    "Permute": lambda op, x, w, bias: x[0].permute(op.dims),
    "Pad": lambda op, x, w, bias: functional.pad(x[0], op.pad, op.mode, op.value or 0.0),
    "Slice": lambda op, x, w, bias: x[0][tuple(slice(*i) if isinstance(i, tuple) else i for i in op.index)],
}
