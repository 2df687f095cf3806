"""Notice code that reads values which differ from run to run, such as those of a layer's initial weights."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vggscope.ops.recorded import RANDOM
from vggscope.trace.functions import function_name
from vggscope.trace.layout import shares_memory
from vggscope.trace.tensor_map import TensorMap
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    from torch import Tensor

_DESCRIBING = frozenset(
    {
        *("shape", "size", "dim", "ndim", "ndimension", "nelement", "numel", "len", "stride", "storage_offset"),
        *("dtype", "device", "layout", "names", "itemsize", "element_size", "nbytes", "requires_grad", "grad"),
        *("grad_fn", "is_leaf", "is_meta", "is_cuda", "is_cpu", "is_sparse", "is_quantized", "is_nested", "is_complex"),
        *("is_floating_point", "is_contiguous", "is_tensor", "is_same_size", "is_shared", "is_inference", "is_signed"),
        *(
            "hash",
            "register_hook",
            "register_post_accumulate_grad_hook",
            "is_conj",
            "is_neg",
            "result_type",
            "get_device",
        ),
    }
)
"""Functions that return no tensor, and read no values."""

_SHAPED_BY_VALUES = frozenset(
    {
        *("nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "bincount", "repeat_interleave"),
        *("to_sparse", "tensor_split"),
    }
)
"""Functions whose results have a shape that depends on values."""


_FOR_VALUES = ("torch.nn.init",)
"""Modules whose code reads values to compute others of the same shape."""


def random_reads() -> Any:
    """Return a context manager whose `found` is whether code within it reads values that differ from run to run.

    Those of tensors that are computed from numbers alone do not: `torch.linspace(0, 0.1, 4).tolist()` is no such read.

    >>> import torch
    >>> with random_reads() as reads:
    ...     width = int(torch.arange(3).sum())
    >>> reads.found
    False
    >>> with reads:
    ...     width = int(torch.nn.Linear(3, 3).weight.gt(0).sum())
    >>> reads.found
    True
    """
    from torch.overrides import TorchFunctionMode

    class RandomReads(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.found = False
            self._fixed = _FixedTensors()

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            if self._fixed.reads_others(func, args, kwargs or {}, result):
                self.found |= sys._getframe(1).f_globals.get("__name__") not in _FOR_VALUES
            return result

    return RandomReads()


class _FixedTensors:
    """The tensors that are computed from numbers alone."""

    def __init__(self) -> None:
        self._fixed: TensorMap[bool] = TensorMap()

    def reads_others(self, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], result: Any) -> bool:
        """Whether a call reads values of other tensors. Note its results."""
        from torch.nn.parameter import is_lazy

        name, in_place = function_name(function)
        if name == "array":  # numpy's array shares the tensor's memory: what is written later is read unseen
            return True
        given, results = tensors_in((args, kwargs)), tensors_in(result)
        others = [tensor for tensor in given if tensor not in self._fixed]
        if name not in RANDOM and not others:
            self._fixed.update(dict.fromkeys(results, True))
            return False
        for written in results if in_place else given[:1] if result is None else ():
            for tensor in [] if is_lazy(written) else [fixed for fixed in self._fixed if shares_memory(fixed, written)]:
                del self._fixed[tensor]
        if results or result is None:
            return _is_shaped_by_values(name, others, args)
        return name not in _DESCRIBING


def _is_shaped_by_values(name: str, random: Sequence[Tensor], args: Sequence[Any]) -> bool:
    """Whether the shape of a call's result depends on the values of some of these tensors."""
    import torch

    if name in ("getitem", "index"):
        return any(tensor.dtype in (torch.bool, torch.uint8) for tensor in random if tensor is not args[0])
    return (name in _SHAPED_BY_VALUES or (name == "where" and len(args) == 1)) and bool(random)
