"""Memory layout of tensors, and which of them torch copies before a matrix product.

torch multiplies batches of matrices as tensors with three axes. A permuted tensor may not fold into three axes without
a copy, and autograd saves the copy for backward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vggscope.ops.base import Op
from vggscope.ops.constant import WithComputedWeights, WithConstants, WithMasks
from vggscope.ops.convolution import Convolution, TransposedConvolution
from vggscope.ops.linear import Linear
from vggscope.ops.shape import Flatten
from vggscope.ops.view import View
from vggscope.record import changed
from vggscope.trace.unseen import unwatched

if TYPE_CHECKING:
    from torch import Tensor


COMPLEX_PRODUCTS = 3
"""The real convolutions that torch computes for a complex one (ATen's complex_convolution)."""


def shares_memory(one: Tensor, other: Tensor) -> bool:
    """Return whether two tensors share a storage. Meta tensors have storages too, sparse ones have none."""
    import torch

    if one.layout != torch.strided or other.layout != torch.strided:
        return False
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)


def is_whole(tensor: Tensor) -> bool:
    """Return whether a tensor is all of its storage, in the order of its axes."""
    import torch

    if tensor.layout != torch.strided or not tensor.is_contiguous():
        return False
    return tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size()


_WRAPPERS = (WithConstants, WithComputedWeights, WithMasks)


def with_layout_of(op: Op, other: Op) -> Op | None:
    """Return the op with the memory layout of another of its class; None if nothing changes."""
    if type(op) is not type(other):
        return None
    if isinstance(op, _WRAPPERS) and isinstance(other, _WRAPPERS):
        inner = with_layout_of(op.op, other.op)
        return None if inner is None else replace(op, op=inner)
    return with_op_layout(op, layout_of(other))


def with_op_layout(op: Op, layout: Mapping[str, Any]) -> Op | None:
    """Return the op with another memory layout, as `layout_of` gives it; None if nothing changes."""
    if isinstance(op, _WRAPPERS):
        inner = with_op_layout(op.op, layout)
        return None if inner is None else replace(op, op=inner)
    return changed(op, **layout) if any(getattr(op, name) != value for name, value in layout.items()) else None


def layout_of(op: Op) -> dict[str, Any]:
    """Return what an op holds of the layout of its tensors in memory."""
    names = ("shares", "copied", "apart", "channels_last")
    return {name: getattr(op, name) for name in names if hasattr(op, name)}


def without_layout(op: Op) -> Op:
    """Return a layer's op as it is for tensors in the order of their axes."""
    if isinstance(op, Linear):
        return changed(op, copied=False, apart=False)
    return changed(op, channels_last=False) if isinstance(op, Convolution) else op


def with_layout(op: Op, inputs: Sequence[Tensor], result: Tensor) -> Op:
    """Return the op with the memory layout of its tensors: shared memory, not contiguous, channels last."""
    import torch

    if isinstance(op, (View, Flatten)):
        return changed(op, shares=any(shares_memory(tensor, result) for tensor in inputs))
    if isinstance(op, (Convolution, TransposedConvolution)) and result.is_complex():
        op = replace(op, real_products=COMPLEX_PRODUCTS)
    if isinstance(op, Convolution) and inputs[0].dim() == 4 and not inputs[0].is_contiguous():
        return changed(op, channels_last=inputs[0].is_contiguous(memory_format=torch.channels_last))
    if isinstance(op, Linear) and inputs[0].dim() > 2 and not inputs[0].is_contiguous():
        return changed(op, copied=is_copied(inputs[0], 1), apart=True)
    return op


KERNEL_LAYOUTS = frozenset({"conv2d", "scaled_dot_product_attention"})
"""The functions whose results may lie in memory otherwise than those of torch's meta device."""


def kernel_layout(name: str, args: Sequence[object]) -> tuple[int, ...] | None:
    """Return the order in memory of the axes of a result, where torch's meta device returns another one, else None.

    The kernels of a CPU and of a GPU return attention as (batch, token, head, feature), and the convolution of maps
    with the channels last as such maps.
    """
    import torch

    if name == "scaled_dot_product_attention":
        return (0, 2, 1, 3)
    given = args[0] if name == "conv2d" and args else None
    if not isinstance(given, torch.Tensor) or given.dim() != len("NCHW") or given.is_contiguous():
        return None
    return (0, 2, 3, 1) if given.is_contiguous(memory_format=torch.channels_last) else None


def laid_out(order: tuple[int, ...], function: Callable[..., Any], /, *args: object, **kwargs: object) -> object:
    """Run a function and return a result whose axes lie in memory in this order, if it has so many axes."""
    import torch

    result = function(*args, **kwargs)
    if not isinstance(result, torch.Tensor) or result.dim() != len(order) or result.requires_grad:
        return result
    with unwatched():
        empty = result.new_empty([result.shape[axis] for axis in order])
        return empty.permute([order.index(axis) for axis in range(len(order))])


def is_copied(factor: Tensor, last_axes: int) -> bool:
    """Return whether torch copies a factor to fold all but its `last_axes` last axes into one.

    It does not if each of these axes, without those of one element, lies as far apart as the next one is long in memory
    (torch.Tensor.view).
    """
    if factor.dim() < 3 or factor.is_contiguous():
        return False
    axes = [(size, stride) for size, stride in zip(factor.shape, factor.stride()) if size != 1]
    kept = sum(size != 1 for size in factor.shape[-last_axes:])
    folded = axes[: len(axes) - kept]
    return any(stride != size * inner for (_, stride), (size, inner) in pairwise(folded))


def copied_by_einsum(equation: str, factors: tuple[Tensor, ...]) -> tuple[bool, ...]:
    """Return for each of two factors whether torch copies it into a batch of matrices; empty for other equations."""
    left, _, output = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(factors) != 2 or len(terms) != 2 or "." in left or any(len(set(term)) < len(term) for term in terms):
        return ()
    summed = sorted((set(terms[0]) & set(terms[1])) - set(output))
    if not summed or (set(terms[0]) ^ set(terms[1])) - set(output):
        return ()
    stack = [letter for letter in output if letter in terms[0] and letter in terms[1]]
    rows, columns = ([letter for letter in output if letter in term and letter not in stack] for term in terms)
    orders = ((stack, rows, summed), (stack, summed, columns))
    return tuple(_is_rearranged(factor, term, order) for factor, term, order in zip(factors, terms, orders))


def _is_rearranged(factor: Tensor, term: str, order: tuple[list[str], ...]) -> bool:
    """Return whether torch copies a factor to fold the axes with these letters into the three groups of `order`."""
    sizes = dict(zip(term, factor.shape))
    permuted = factor.permute([term.index(letter) for group in order for letter in group])
    folded = permuted.reshape([math.prod(sizes[letter] for letter in group) for group in order])
    return not shares_memory(factor, folded)
