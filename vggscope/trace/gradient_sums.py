"""Which additions in a backward pass are sums of gradients that autograd does in place outside a dispatch mode.

Autograd sums the gradients of a tensor that is read twice as they arrive. It adds the second into the first where
nothing else refers to the first, but never while a dispatch mode is active: a third tensor is then allocated, which a
training step on a GPU does not have. (torch/csrc/autograd/input_buffer.cpp, `can_accumulate_inplace`)
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from vggscope.trace.dataless import operator_mode

if TYPE_CHECKING:
    from torch import Tensor

OWN = "vggscope."
"""How the names of this package's modules begin."""


class References(NamedTuple):
    """How many references in C++ a tensor has, and how many its storage."""

    tensor: int
    storage: int


def is_gradient_sum_in_place(first: Tensor) -> bool:
    """Whether autograd itself calls the current addition to `first`, and would add in place outside a dispatch mode.

    A node's own derivative formula may add as well. The caller excludes it: a gradient that autograd sums was allocated
    before the current node ran.
    """
    import torch

    if torch.is_grad_enabled() or not _is_called_by_autograd():
        return False
    return _references(first) == unshared() and _is_dense(first)


def _is_called_by_autograd() -> bool:
    """Whether no Python code runs between autograd and this package, as in the backward of an `autograd.Function`."""
    from torch.autograd.graph import _engine_run_backward

    frame = sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(OWN):
        frame = frame.f_back
    return frame.f_code is _engine_run_backward.__code__


@cache
def unshared() -> References:
    """Return the references to a gradient that is summed and that nothing else shares, counted in a dispatch mode.

    Each version of torch and Python's objects add some of their own, so they are counted in a small backward pass.
    """
    import torch

    counted: list[References] = []

    def run(operator: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if operator is torch.ops.aten.add.Tensor:
            counted.append(_references(args[0]))
        return operator(*args, **kwargs)

    with torch.enable_grad(), operator_mode(run):
        read_twice = torch.zeros(2, device="cpu", requires_grad=True).exp()
        torch.autograd.backward((read_twice.exp() * read_twice.sin()).sum())
    (references,) = counted
    return references


def _references(tensor: Tensor) -> References:
    import torch

    return References(tensor._use_count(), torch._C._storage_Use_Count(tensor.untyped_storage()._cdata))  # type: ignore[attr-defined]


def _is_dense(tensor: Tensor) -> bool:
    """Whether the values fill a block of memory without gaps, in any order of the axes."""
    expected = 1
    for stride, size in sorted(zip(tensor.stride(), tensor.shape, strict=True)):
        if size == 1:
            continue
        if stride != expected:
            return False
        expected *= size
    return True
