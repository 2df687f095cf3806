"""Where a tensor lies: what torch has to lay out anew before it can multiply.

A product of stacks of matrices is one call on three axes. What was permuted cannot always be seen so without a copy,
and autograd then keeps the copy.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.ops.base import Op
from vggscope.ops.constant import WithConstants
from vggscope.ops.convolution import Convolution
from vggscope.ops.linear import Linear
from vggscope.ops.view import View

if TYPE_CHECKING:
    from torch import Tensor


def shares_memory(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors lie in the same memory; those without data have a place too."""
    return bool(one.untyped_storage()._cdata == other.untyped_storage()._cdata)


def laid_out(op: Op, other: Op) -> Op | None:
    """The op with the layout of another of its kind: None where it is the same."""
    if isinstance(op, WithConstants) and isinstance(other, WithConstants):
        inner = laid_out(op.op, other.op)
        return None if inner is None else replace(op, op=inner)
    if type(op) is not type(other):
        return None
    given = {
        name: getattr(other, name) for name in ("shares", "copied", "apart", "channels_last") if hasattr(other, name)
    }
    return replace(op, **given) if any(getattr(op, name) != value for name, value in given.items()) else None


def lying(op: Op, inputs: Sequence[Tensor], result: Tensor) -> Op:
    """The op with what only its tensors tell: whether they lie in the same memory, in one piece, channels last."""
    import torch

    if isinstance(op, View):
        return replace(op, shares=any(shares_memory(tensor, result) for tensor in inputs))
    if isinstance(op, Convolution) and inputs[0].dim() == 4 and not inputs[0].is_contiguous():
        return replace(op, channels_last=inputs[0].is_contiguous(memory_format=torch.channels_last))
    if isinstance(op, Linear) and inputs[0].dim() > 2 and not inputs[0].is_contiguous():
        return replace(op, copied=is_copied(inputs[0], 1), apart=True)
    return op


def as_kernels_lay(function: Callable[..., object], result: object) -> object:
    """What attention gives as the kernels of CPU and GPU lay it out, the heads within the tokens: without data torch
    takes another way.
    """
    from torch import Tensor

    name = getattr(function, "__name__", "")
    if name != "scaled_dot_product_attention" or not isinstance(result, Tensor) or result.dim() != 4:
        return result
    return result.new_empty([result.shape[place] for place in (0, 2, 1, 3)]).transpose(1, 2)


def is_copied(factor: Tensor, kept: int) -> bool:
    """Whether torch copies the factor of a product when it folds all axes but the last `kept` into one."""
    if factor.dim() < 3:
        return False
    return not shares_memory(factor, factor.reshape(-1, *factor.shape[-kept:]))


def copied_by_einsum(equation: str, factors: tuple[Tensor, ...]) -> tuple[bool, ...]:
    """For each of two factors, whether torch lays it out anew to make a stack of matrices of it."""
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
    """Whether a tensor with these letters does not lie in its own memory as one with the letters in three axes."""
    sizes = dict(zip(term, factor.shape))
    permuted = factor.permute([term.index(letter) for group in order for letter in group])
    made = permuted.reshape([math.prod(sizes[letter] for letter in group) for group in order])
    return not shares_memory(factor, made)
