"""What a layer computes beyond its multiply-accumulates, by stated formulas: a table, read by the op's name.

An addition, a product, a division, a comparison and an kernel_calls function (exp, log, a root, a power, erf, tanh) are
one operation each. All is counted for the forward pass at evaluation, where dropout does nothing and batch norm is a
scale and a shift. Moving values about (views, joins, padding) costs none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import prod
from types import MappingProxyType
from typing import Any

from vggscope.ops.attention import MultiheadAttention
from vggscope.ops.axis_maps import Ranges, StridedWindow
from vggscope.ops.base import Op, Shape, numel
from vggscope.ops.constant import WithConstants
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.recorded import Recorded
from vggscope.ops.view import View
from vggscope.record import record

Shapes = tuple[Shape, ...]


@record
class Rule:
    """`count` gives an op's operations from its inputs' shapes and its output's; `formula` says the same in words, n
    being what it names.
    """

    formula: str
    count: Callable[[Any, Shapes, Shape], int]


def rule_for(op: Op) -> Rule | None:
    """The rule of an op; None where there is none, and what it costs is not known."""
    inner = op.op if isinstance(op, WithConstants) else op
    if inner.name in RULES:
        return RULES[inner.name]
    if isinstance(inner, View):
        return _MOVES
    if isinstance(inner, Elementwise):
        return _EACH
    return None


def operations(op: Op, inputs: Shapes, output: Shape) -> int | None:
    """The operations beyond multiply-accumulates, for a batch of one; None where no rule tells."""
    found = rule_for(op)
    if found is None or isinstance(op, Recorded):
        return None
    if isinstance(op, WithConstants):
        return found.count(op.op, op.all_inputs(inputs), output)
    return found.count(op, inputs, output)


def _per_value(count: int, formula: str) -> Rule:
    return Rule(f"{formula}: {count} a value", lambda op, inputs, output: count * numel(output))


def _bias(op: Any, inputs: Shapes, output: Shape) -> int:
    return numel(output) if op.bias else 0


def _area(op: Any) -> int:
    return prod(op.kernel_size)


def _regions(op: Any, inputs: Shapes, output: Shape) -> int:
    """The input positions of all regions of an adaptive pool, for all channels."""
    (reads,) = op.reads(inputs, output)
    lengths = []
    for axis in (len(output) - 2, len(output) - 1):
        reading = reads[axis][1]
        if isinstance(reading, StridedWindow):
            lengths.append(reading.kernel_size * output[axis])
        elif isinstance(reading, Ranges):
            lengths.append(sum(end - start for start, end in reading.bounds))
    return numel(output[:-2]) * prod(lengths)


def _rows(op: Any, output: Shape) -> tuple[int, int]:
    """How many rows a soft-max has, and how long they are."""
    length = output[op.dim]
    return numel(output) // max(length, 1), length


def _softmax(op: Any, inputs: Shapes, output: Shape) -> int:
    rows, length = _rows(op, output)
    return rows * (5 * length - 2)


def _log_softmax(op: Any, inputs: Shapes, output: Shape) -> int:
    rows, length = _rows(op, output)
    return rows * (5 * length - 1)


def _groups(op: Any, output: Shape) -> int:
    """Over how many groups of values a normalisation takes mean and variance."""
    if op.name == "LayerNorm":
        return numel(output) // numel(op.normalized_shape)
    return output[0] * int(getattr(op, "num_groups", output[1]))


def _normalisation(op: Any, inputs: Shapes, output: Shape) -> int:
    learned = len(op.parameters())
    return (5 + learned) * numel(output) + 2 * _groups(op, output)


def _scores(queries: int, keys: int) -> int:
    """Scaling and soft-max of the products of queries with keys."""
    return queries * (6 * keys - 2)


def _attention(op: Any, inputs: Shapes, output: Shape) -> int:
    query, key = inputs[:2]
    masks = numel(query[:-1]) * key[-2] if len(inputs) > 3 else 0
    return _scores(numel(query[:-1]), key[-2]) + masks


def _multihead(op: MultiheadAttention, inputs: Shapes, output: Shape) -> int:
    query, key = inputs[0], inputs[min(1, len(inputs) - 1)]
    tokens = 0 if not op.batch_first and len(query) == 3 else len(query) - 2
    keys = key[tokens] + op.add_bias_kv + op.add_zero_attn
    biases = op.embed_dim * (2 * numel(query[:-1]) + 2 * numel(key[:-1])) if op.bias else 0
    return _scores(numel(query[:-1]) * op.num_heads, keys) + biases


def _reduction(op: Any, inputs: Shapes, output: Shape) -> int:
    values, results = numel(inputs[0]), numel(output)
    return values if op.function == "mean" else values - results


def _einsum(op: Any, inputs: Shapes, output: Shape) -> int:
    """Products where nothing is summed, sums where there is one tensor; a contraction is all multiply-accumulates."""
    if op.macs(inputs, output):
        return 0
    return numel(output) if len(inputs) > 1 else numel(inputs[0]) - numel(output)


def _upsample(op: Any, inputs: Shapes, output: Shape) -> int:
    return 7 * numel(output) if op.mode == "bilinear" else 0


_MOVES = Rule("none, it moves values", lambda op, inputs, output: 0)
_IDLE = Rule("none at evaluation", lambda op, inputs, output: 0)
_EACH = _per_value(1, "one")

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **{f"Conv{kind}{n}d": Rule("bias: 1 a value", _bias) for kind in ("", "Transpose") for n in (1, 2, 3)},
        "Linear": Rule("bias: 1 a value", _bias),
        "ReLU": _per_value(1, "comparison"),
        "ReLU6": _per_value(2, "comparisons"),
        "Hardtanh": _per_value(2, "comparisons"),
        "LeakyReLU": _per_value(2, "comparison, product"),
        "PReLU": _per_value(2, "comparison, product"),
        "ELU": _per_value(4, "comparison, exp, -1, product"),
        "SELU": _per_value(5, "comparison, exp, -1, two products"),
        "Sigmoid": _per_value(4, "sign, exp, +1, division"),
        "SiLU": _per_value(5, "sigmoid, product"),
        "Tanh": _per_value(1, "tanh"),
        "Mish": _per_value(5, "exp, +1, log, tanh, product"),
        "GELU": Rule(
            "division, erf, +1, two products: 5 a value; as tanh 9",
            lambda op, inputs, output: (5 if op.approximate == "none" else 9) * numel(output),
        ),
        "Hardswish": _per_value(5, "+3, two comparisons, product, division"),
        "Hardsigmoid": _per_value(4, "+3, two comparisons, division"),
        "Softplus": _per_value(5, "product, exp, +1, log, division"),
        "GLU": _per_value(5, "sigmoid, product"),
        "Softmax": Rule("a row of n: n-1 comparisons, n differences, n exp, n-1 sums, n divisions: 5n-2", _softmax),
        "LogSoftmax": Rule(
            "a row of n: n-1 comparisons, n differences, n exp, n-1 sums, a log, n differences: 5n-1", _log_softmax
        ),
        "MaxPool2d": Rule(
            "n in the window: n-1 comparisons a value", lambda op, inputs, output: (_area(op) - 1) * numel(output)
        ),
        "AvgPool2d": Rule(
            "n in the window: n-1 sums and a division a value", lambda op, inputs, output: _area(op) * numel(output)
        ),
        "AdaptiveAvgPool2d": Rule("n in the region: n-1 sums and a division a value", _regions),
        "AdaptiveMaxPool2d": Rule(
            "n in the region: n-1 comparisons a value",
            lambda op, inputs, output: _regions(op, inputs, output) - numel(output),
        ),
        **{f"BatchNorm{n}d": _per_value(2, "scale, shift") for n in (1, 2, 3)},
        "LocalResponseNorm": Rule(
            "n channels: a square, n-1 sums, a division, alpha, k, a power, a division: n+5 a value",
            lambda op, inputs, output: (op.size + 5) * numel(output),
        ),
        **{
            name: Rule(
                "mean, difference, square, variance, scale: 5 a value, a learned tensor 1 more; eps, root: 2 a group",
                _normalisation,
            )
            for name in ("LayerNorm", "GroupNorm", "InstanceNorm2d")
        },
        "normalize": Rule(
            "a row of n: n squares, n-1 sums, a root, a comparison, n divisions: 3n+1",
            lambda op, inputs, output: (3 * output[op.dim] + 1) * (numel(output) // output[op.dim]),
        ),
        "scaled_dot_product_attention": Rule(
            "n keys: scale and soft-max of each query: 6n-2; a mask: n more", _attention
        ),
        "MultiheadAttention": Rule(
            "n keys: scale and soft-max of each query and head: 6n-2; biases of the projections", _multihead
        ),
        "einsum": Rule("1 for each product or sum that is no multiply-accumulate", _einsum),
        **{
            name: Rule("n values into one: n-1, a mean one more", _reduction)
            for name in ("mean", "sum", "amax", "amin", "prod", "any", "all", "argmax", "argmin")
        },
        "Upsample": Rule("bilinear: 4 products and 3 sums a value; nearest: none", _upsample),
        **dict.fromkeys(("matmul", "mm", "bmm"), Rule("none, all multiply-accumulates", lambda op, inputs, output: 0)),
        **dict.fromkeys(("addmm", "baddbmm"), _per_value(1, "sum")),
        **dict.fromkeys(("Dropout", "Dropout2d", "StochasticDepth", "Identity", "detach"), _IDLE),
        **dict.fromkeys(("Flatten", "cat", "stack", "Embedding", "clone", "contiguous", "zero", "fill"), _MOVES),
        **dict.fromkeys(("to", "type", "type_as", "float", "half", "double", "bfloat16"), _MOVES),
        **dict.fromkeys(("bool", "long", "int"), _MOVES),
    }
)
"""By the op's name. Adding an op's rule is one entry here."""
