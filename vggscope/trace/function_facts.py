"""What a trace asks about a function of torch, whatever its arguments are, and what a call of it tells of gradients."""

from __future__ import annotations

from functools import lru_cache
from types import BuiltinFunctionType, MethodDescriptorType, MethodWrapperType
from typing import Any, NamedTuple

from vggscope.trace.dtypes import checked_name
from vggscope.trace.function_table import MATRIX_PRODUCTS, NO_PRODUCTS
from vggscope.trace.functions import function_name
from vggscope.trace.known_results import VIEWS, is_covered
from vggscope.trace.layout import KERNEL_LAYOUTS
from vggscope.trace.meta_shortcuts import has_rule
from vggscope.trace.recurrent_steps import RECURRENT
from vggscope.trace.tensors import Function


class FunctionFacts(NamedTuple):
    """What a trace asks about a function at each of its calls.

    - `name` and `in_place` are as `function_name` gives them.
    - `is_custom`: it is an operator of another library, whose code may read sizes.
    - `may_multiply`: it may dispatch a matrix product. `is_product`: it computes nothing else.
    - `concerns_gradients`: a call of it may tell of gradients.
    - `differentiates`: it computes gradients, or keeps those that a later call computes.
    - `moves`: it may move a tensor to a device.
    - `has_dtype_rule`: the meta device accepts dtypes that it refuses elsewhere.
    - `is_view`: it makes no tensor with memory of its own but copies of its input.
    - `may_be_known`: the result of a call may be known without torch's kernel.
    - `is_quick`: its kernel is quick without data, and always runs.
    - `has_kernel_layout`: its result lies in memory as the CPU's and the GPU's kernels leave it.
    """

    name: str
    in_place: bool
    is_custom: bool
    may_multiply: bool
    is_product: bool
    concerns_gradients: bool
    differentiates: bool
    moves: bool
    has_dtype_rule: bool
    is_view: bool
    may_be_known: bool
    is_quick: bool
    has_kernel_layout: bool


@lru_cache(maxsize=4096)
def facts_of(function: Function) -> FunctionFacts:
    """Return what a trace asks about a function at each of its calls."""
    name, in_place = function_name(function)
    own_name = getattr(function, "__name__", "")
    return FunctionFacts(
        name,
        in_place,
        _is_custom(function),
        name not in NO_PRODUCTS,
        name in MATRIX_PRODUCTS,
        own_name in _SPARSE or asks_gradient(function) or _sets_gradient(function),
        is_differentiation(function),
        own_name in ("cuda", "to"),
        bool(checked_name(function)),
        (own_name in _VIEWS and isinstance(function, MethodDescriptorType | BuiltinFunctionType))
        or (own_name == "__get__" and name in _ATTRIBUTES and isinstance(function, MethodWrapperType)),
        name in RECURRENT or has_rule(function) or is_covered(function),
        name in VIEWS,
        name in KERNEL_LAYOUTS,
    )


_VIEWS = frozenset(
    {
        *("view", "reshape", "permute", "transpose", "flatten", "unsqueeze", "squeeze", "expand", "contiguous"),
        *("size", "dim", "numel", "stride", "is_contiguous"),
    }
)
"""Functions written in C++ that read no default, and make no tensor but views and copies of their input."""


_ATTRIBUTES = frozenset({"shape", "ndim", "dtype", "device", "layout", "is_meta"})
"""Attributes written in C++ that are no tensors."""


def is_differentiation(function: Function) -> bool:
    """Return whether a function computes gradients, or keeps those that a later call computes."""
    name, module = getattr(function, "__name__", ""), getattr(function, "__module__", None)
    is_autograd = module in ("torch.autograd", "torch._tensor")
    return name in ("retain_grad", "register_hook") or (name in ("grad", "backward") and is_autograd)


@lru_cache(maxsize=4096)
def asks_gradient(function: Function) -> bool:
    """Return whether a function tells if a tensor requires a gradient."""
    return getattr(function, "__name__", "") == "__get__" and _attribute(function) == "requires_grad"


def requires_gradient(function: Function, args: tuple[object, ...]) -> bool:
    """Return whether a call makes a tensor require a gradient."""
    return _sets_gradient(function) and (len(args) == 1 or bool(args[1]))


@lru_cache(maxsize=4096)
def _sets_gradient(function: Function) -> bool:
    """Return whether a function sets whether a tensor requires a gradient."""
    name = getattr(function, "__name__", "")
    return name == "requires_grad_" or (name == "__set__" and _attribute(function) == "requires_grad")


def makes_sparse_gradient(function: Function, args: tuple[object, ...], kwargs: dict[str, object]) -> bool:
    """Return whether a call looks up rows of a table whose gradient it asks to be sparse."""
    name = getattr(function, "__name__", "")
    if name not in _SPARSE:
        return False
    import torch

    word, place = ("sparse", 4) if function is torch.embedding else _SPARSE[name]
    return kwargs.get(word, args[place] if place < len(args) else False) is True


_SPARSE = {"embedding": ("sparse", 6), "embedding_bag": ("sparse", 7), "gather": ("sparse_grad", 3)}
"""The argument that asks for a sparse gradient, and its place, by function."""


def _attribute(function: Function) -> str:
    """Return the name of the attribute that a descriptor's method gets or sets."""
    return str(getattr(getattr(function, "__self__", None), "__name__", ""))


def _is_custom(function: Function) -> bool:
    """Return whether a function is an operator of another library than torch, whose code may read sizes."""
    library = str(getattr(function, "__module__", "")).removeprefix("torch._ops.")
    return type(function).__module__ == "torch._ops" and library not in ("aten", "prims")


def name_without_gradient(operator: Any) -> str:
    """Return the name of an operator for which autograd has no kernel, else an empty text.

    torch warns that the gradient of such an operator may be wrong.
    """
    from torch._C import _dispatch_has_kernel_for_dispatch_key

    packet = getattr(operator, "overloadpacket", operator)
    overloads = [getattr(packet, name)._name for name in packet.overloads()]
    has_kernel = any(_dispatch_has_kernel_for_dispatch_key(name, key) for name in overloads for key in _AUTOGRAD)
    return "" if has_kernel else str(packet._qualified_op_name)


_AUTOGRAD = ("CompositeImplicitAutograd", "Autograd", "AutogradCPU", "AutogradCUDA")
