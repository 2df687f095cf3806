"""Multiply-accumulates of a call by torch's own counter, for functions that no op of vggscope covers."""

from __future__ import annotations

from collections.abc import Callable

OWN_NAMESPACES = ("aten", "prim", "prims")
"""Namespaces of torch's own operators. Those without a formula contain no matrix product."""

WITHOUT_PRODUCTS = frozenset(f"torchvision::{name}" for name in ("nms", "roi_align", "roi_pool", "ps_roi_align"))
"""Operators of other libraries that contain no matrix product."""


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
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    flops = 0
    known = True

    class Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal flops, known
            kwargs = kwargs or {}
            formula = flop_registry.get(func._overloadpacket)
            if formula is None:
                with self:
                    parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
            result = func(*args, **kwargs)
            if formula is not None:
                flops += formula(*args, **kwargs, out_val=result)
            elif func.namespace not in OWN_NAMESPACES and func._schema.name not in WITHOUT_PRODUCTS:
                known = False
            return result

    try:
        with Counter():  # type: ignore[no-untyped-call]
            call()
    except Exception:  # the model's code may raise anything
        return None
    return flops // 2 if known else None
