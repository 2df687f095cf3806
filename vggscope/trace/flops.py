"""Multiply-accumulates of the operators that torch dispatches, for calls that no op of vggscope covers."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cache, lru_cache, partial
from typing import TYPE_CHECKING, Any

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

HIDING_PRODUCTS = frozenset(
    f"aten::{name}"
    for name in (
        *("mkldnn_rnn_layer", "mkldnn_linear", "_cudnn_rnn", "_addmm_activation", "quantized_lstm", "quantized_gru"),
        *("_transformer_encoder_layer_fwd", "_native_multi_head_attention", "_scaled_grouped_mm"),
    )
)
"""torch's own operators that contain matrix products and have no formula, in torch or here."""

DESCRIBING = frozenset(
    f"{namespace}::{name}"
    for namespace, names in (
        ("aten", ("size", "stride", "storage_offset", "numel", "sym_size", "sym_stride", "sym_storage_offset")),
        ("aten", ("sym_numel", "dim", "is_contiguous", "is_strides_like_format", "is_non_overlapping_and_dense")),
        ("prim", ("layout",)),
    )
    for name in names
)
"""Operators by which torch asks a tensor of another class, such as a nested one, for its shape.

The class must answer: an error would end the process.
"""


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

    def backward() -> object:
        gradients = [torch.ones_like(tensor) for tensor in outputs]  # fails for a sparse tensor
        return torch.autograd.grad(outputs, list(replaced.values()), gradients, allow_unused=True)

    backward_macs = counted_macs(backward)
    is_known = is_complete and (len(outputs) == 1 or backward_macs == 0)
    return Counted(macs, backward_macs if is_known else None)


def counted_macs(call: Callable[[], object]) -> int | None:
    """Return the multiply-accumulates of the operators that `call` dispatches; None if they are unknown.

    They are unknown if `call` raises, for example because it reads values of meta tensors, or if it dispatches an
    operator of another library. The formulas are those of torch.utils.flop_counter, and OWN_FORMULAS for products that
    it leaves out.

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
    with operator_macs() as macs:
        result = call()
    return result, macs.total


def macs_without_formula(call: Callable[[], object]) -> Mapping[str, int]:
    """Return the multiply-accumulates of `call` that torch.utils.flop_counter leaves out, by operator.

    >>> import torch
    >>> macs_without_formula(lambda: torch.mv(torch.ones(2, 3), torch.ones(3)) @ torch.ones(2, 4))
    {'aten::mv': 6}
    """
    with operator_macs() as macs:
        call()
    return dict(macs.without_formula)


@dataclass
class OperatorMacs:
    """The multiply-accumulates of dispatched operators.

    - `by_formula` are those that torch.utils.flop_counter counts too.
    - `without_formula` are those of OWN_FORMULAS, by operator.
    - `is_known` is false if an operator was dispatched that may contain products which no formula covers.
    """

    by_formula: int = 0
    without_formula: Counter[str] = field(default_factory=Counter)
    is_known: bool = True

    @property
    def total(self) -> int | None:
        """The sum; None if it is unknown."""
        return self.by_formula + self.without_formula.total() if self.is_known else None

    def add(self, other: OperatorMacs, times: int = 1) -> None:
        """Add those of other operators, which run `times` times."""
        self.by_formula += other.by_formula * times
        self.without_formula.update({name: macs * times for name, macs in other.without_formula.items()})
        self.is_known &= other.is_known

    def without(self, macs: int | None) -> OperatorMacs:
        """Return the multiply-accumulates less those of a part, which are unknown if `macs` is None."""
        total = self.total
        return OperatorMacs(is_known=False) if macs is None or total is None else OperatorMacs(total - macs)


def operator_macs(macs: OperatorMacs | None = None) -> AbstractContextManager[OperatorMacs]:
    """Count the multiply-accumulates of the operators that torch dispatches in the block, and add them to `macs`."""
    return _operator_counter()(OperatorMacs() if macs is None else macs)


def add_linear(macs: OperatorMacs, input: Tensor, weight: Tensor) -> None:
    """Add the multiply-accumulates of a linear layer that no operator computes, by torch's formula for `aten::mm`."""
    features, outputs = weight.shape[1], weight.shape[0]
    macs.by_formula += _product_macs(input.numel() // features if features else 0, features, outputs)


@lru_cache(maxsize=4096)
def _product_macs(rows: int, columns: int, outputs: int) -> int:
    from torch import ops
    from torch.utils.flop_counter import flop_registry

    return int(flop_registry[ops.aten.mm]((rows, columns), (columns, outputs), out_val=None)) // 2


def add_convolution(macs: OperatorMacs, input: Tensor, weight: Tensor, output: Tensor) -> None:
    """Add the multiply-accumulates of a convolution by torch's formula, which dispatch would take longer to call."""
    from torch.utils.flop_counter import conv_flop_count

    macs.by_formula += conv_flop_count(input.shape, weight.shape, output.shape) // 2  # type: ignore[arg-type]


@cache
def _operator_counter() -> Callable[[OperatorMacs], AbstractContextManager[OperatorMacs]]:
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils.flop_counter import flop_registry

    class OperatorCounter(TorchDispatchMode):
        def __init__(self, macs: OperatorMacs) -> None:
            super().__init__()  # type: ignore[no-untyped-call]
            self.macs = macs

        def __enter__(self) -> OperatorMacs:
            super().__enter__()  # type: ignore[no-untyped-call]
            return self.macs

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            kwargs = kwargs or {}
            name, macs = func._schema.name, self.macs
            if name in DESCRIBING:
                return NotImplemented
            formula = flop_registry.get(func._overloadpacket)
            own = None if formula else OWN_FORMULAS.get(name)
            if formula is None and own is None:
                with self:
                    parts = func.decompose(*args, **kwargs)
                if parts is not NotImplemented:
                    return parts
            result = func(*args, **kwargs)
            has_formula = own is not None or formula is not None
            if _is_sparse_product(func, args) or not (has_formula or _is_without_products(func, name)):
                macs.is_known = False
            elif own is not None:
                macs.without_formula[name] += own(result, *args, **kwargs)
            elif formula is not None:
                macs.by_formula += formula(*args, **kwargs, out_val=result) // 2
            return result

    return OperatorCounter


def _is_without_products(function: Any, name: str) -> bool:
    """Return whether an operator without a formula contains no matrix product."""
    return name in WITHOUT_PRODUCTS or (function.namespace in OWN_NAMESPACES and name not in HIDING_PRODUCTS)


def _is_sparse_product(function: Any, args: Arguments) -> bool:
    """Return whether an operator multiplies by a sparse matrix. Its cost depends on the number of stored elements."""
    is_product = re.search("mm|mv|matmul", function._schema.name) is not None
    return is_product and any("sparse" in str(tensor.layout) for tensor in tensors_in(args))


def _deformable_convolution(result: Tensor, input: Tensor, weight: Tensor, *_: object) -> int:
    """A convolution at sampled positions (Dai et al. 2017, equation 2). Sampling the positions is not counted."""
    return result.numel() * weight[0].numel()


def _matrix_vector(result: Tensor, matrix: Tensor, vector: Tensor) -> int:
    return matrix.numel()


def _added_matrix_vector(result: Tensor, summand: Tensor, matrix: Tensor, vector: Tensor, **_: object) -> int:
    return matrix.numel()


def _added_outer_product(result: Tensor, summand: Tensor, column: Tensor, row: Tensor, **_: object) -> int:
    return result.numel()


def _inner_product(result: Tensor, one: Tensor, other: Tensor) -> int:
    return one.numel()


def _added_product(result: Tensor, summand: Tensor, left: Tensor, right: Tensor, **_: object) -> int:
    """For each matrix of a batch, which `addbmm` sums."""
    return left.numel() * right.shape[-1]


def _integer_product(result: Tensor, left: Tensor, right: Tensor) -> int:
    return result.numel() * left.shape[-1]


def _grouped_product(result: Tensor, left: Tensor, right: Tensor, *_: object, **__: object) -> int:
    """Each row, column or feature belongs to one group, unless both factors are batches of matrices."""
    batch = left.shape[0] if left.dim() == right.dim() == 3 else 1
    return batch * left.shape[-2] * left.shape[-1] * right.shape[-1]


def _bilinear(result: Tensor, left: Tensor, weight: Tensor, right: Tensor, *_: object, **__: object) -> int:
    """One for each weight and row. torch's only caller of the operator is torch.nn.functional.bilinear."""
    return weight.numel() * left.shape[0]


def _convolution_in_time(result: Tensor, input: Tensor, weight: Tensor, *_: object) -> int:
    return result.numel() * weight[..., 0].numel()


def _attention_on_cpu(result: Tensor, query: Tensor, key: Tensor, value: Tensor, *_: object, **__: object) -> int:
    """Each query with each key, and each weight with each value."""
    return query[..., 0].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _distances(result: Tensor, one: Tensor, other: Tensor) -> int:
    """Distances from |x|^2 + |y|^2 - 2xy: `cdist` of more than 25 points, or if it is asked to."""
    return result.numel() * one.shape[-1]


OWN_FORMULAS: dict[str, Callable[..., int]] = {
    "torchvision::deform_conv2d": _deformable_convolution,
    "aten::mv": _matrix_vector,
    **dict.fromkeys(("aten::addmv", "aten::addmv_"), _added_matrix_vector),
    **dict.fromkeys(("aten::addr", "aten::addr_"), _added_outer_product),
    **dict.fromkeys(("aten::dot", "aten::vdot"), _inner_product),
    **dict.fromkeys(("aten::addbmm", "aten::addbmm_", "aten::addmm_", "aten::baddbmm_"), _added_product),
    "aten::_int_mm": _integer_product,
    "aten::_grouped_mm": _grouped_product,
    "aten::_trilinear": _bilinear,
    "aten::conv_tbc": _convolution_in_time,
    "aten::_euclidean_dist": _distances,
    "aten::_scaled_dot_product_flash_attention_for_cpu": _attention_on_cpu,
}
"""Multiply-accumulates of operators for which torch has no formula, by the result and the arguments."""
