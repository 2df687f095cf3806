"""Multiply-accumulates of a call by torch's own counter, for functions that no op of vggscope covers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from vggscope.record import record
from vggscope.trace.tensors import Arguments, Function, KeywordArguments, mapped_tensors, tensors_in
from vggscope.trace.transforms import is_transforming

if TYPE_CHECKING:
    from torch import Tensor

OWN_NAMESPACES = ("aten", "prim", "prims")
"""Namespaces of torch's own operators. Those without a formula contain no matrix product."""

WITHOUT_PRODUCTS = frozenset(
    f"torchvision::{name}"
    for operator in ("nms", "roi_align", "roi_pool", "ps_roi_align", "ps_roi_pool")
    for name in (operator, f"_{operator}_backward")
)
"""Operators of other libraries that contain no matrix product."""


@record
class Counted:
    """The multiply-accumulates of a call and of its backward pass by torch's counter; None if unknown."""

    macs: int | None = None
    backward: int | None = None
    differentiable: bool = True


UNCOUNTED = Counted()


def counted(function: Function, args: Arguments, kwargs: KeywordArguments, leaves: Sequence[Tensor]) -> Counted:
    """Return the cost of a call, and of its backward pass to the tensors `leaves` among its arguments.

    The call runs on copies of its arguments, because it may write to them.

    The backward pass is unknown if several results have gradients, because it depends on which of them are used, and if
    the call reads a tensor of `leaves` that is no argument.
    """
    import torch

    if is_transforming():
        return Counted(counted_macs(partial(function, *args, **kwargs)), None)
    replaced = {id(t): t.detach().requires_grad_() for t in leaves if t.is_floating_point() or t.is_complex()}
    arguments = tensors_in((args, kwargs))
    args, kwargs = mapped_tensors((args, kwargs), lambda tensor: replaced.get(id(tensor), tensor).clone())
    try:
        with torch.enable_grad():
            result, macs = with_macs(partial(function, *args, **kwargs))
    except Exception:  # the model's code may raise anything
        return UNCOUNTED
    is_complete = all(any(leaf is tensor for tensor in arguments) for leaf in leaves)
    outputs = [tensor for tensor in tensors_in(result) if tensor.requires_grad]
    if not outputs:
        return Counted(macs, 0 if is_complete else None, differentiable=not (replaced and is_complete))
    gradients = [torch.ones_like(tensor) for tensor in outputs]
    backward_macs = counted_macs(
        partial(torch.autograd.grad, outputs, list(replaced.values()), gradients, allow_unused=True)
    )
    is_known = is_complete and (len(outputs) == 1 or backward_macs == 0)
    return Counted(macs, backward_macs if is_known else None)


def counted_macs(call: Callable[[], object]) -> int | None:
    """Return the multiply-accumulates of the operators that `call` dispatches; None if they are unknown.

    They are unknown if `call` raises, for example because it reads values of meta tensors, or if it dispatches an
    operator of another library. The formulas are those of torch.utils.flop_counter.

    >>> import torch
    >>> counted_macs(lambda: torch.cdist(torch.ones(2, 3, device="meta"), torch.ones(4, 3, device="meta")))
    0
    >>> counted_macs(lambda: torch.ones(2, 3, device="meta") @ torch.ones(3, 4, device="meta"))
    24
    """
    try:
        return with_macs(call)[1]
    except Exception:  # the model's code may raise anything
        return None


def with_macs(call: Callable[[], object]) -> tuple[object, int | None]:
    """Return the result of `call` and its multiply-accumulates, as `counted_macs` does. Errors of `call` are raised."""
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    flops = 0
    known = True

    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal flops, known
            kwargs = kwargs or {}
            own = OWN_FORMULAS.get(func._schema.name)
            formula = None if own else flop_registry.get(func._overloadpacket)
            if formula is None and own is None:
                with self:
                    parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
            result = func(*args, **kwargs)
            if own is not None:
                flops += 2 * own(result, *args)
            elif formula is not None:
                flops += formula(*args, **kwargs, out_val=result)
            elif func.namespace not in OWN_NAMESPACES and func._schema.name not in WITHOUT_PRODUCTS:
                known = False
            return result

    with Counter():  # type: ignore[no-untyped-call]
        result = call()
    return result, flops // 2 if known else None


def _deformable_convolution(result: Tensor, input: Tensor, weight: Tensor, *_: object) -> int:
    """A convolution at sampled positions (Dai et al. 2017, equation 2). Sampling the positions is not counted."""
    return result.numel() * weight[0].numel()


OWN_FORMULAS = {"torchvision::deform_conv2d": _deformable_convolution}
"""Multiply-accumulates of operators for which torch has no formula, by the result and the arguments."""
