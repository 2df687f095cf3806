"""Functions for which torch takes another kernel on a GPU than on the CPU, with what it then allocates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor


def gpu_kernel(function: Any) -> Any:
    """Return the function that allocates what `function` allocates on a GPU."""
    kernel = _KERNELS.get(getattr(function, "__name__", ""))
    return function if kernel is None else kernel(function)


def _dropout(function: Any) -> Any:
    """One fused kernel, whose mask is boolean."""

    def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        import torch

        if inplace:
            return function(input, p, training, inplace)  # type: ignore[no-any-return]
        if not training or not 0 < p < 1 or not input.numel():
            return function(input, p, training)  # type: ignore[no-any-return]
        return torch.native_dropout(input, p, True)[0]

    return dropout


def _linear(function: Any) -> Any:
    """A product to which the bias is added in place, where torch adds it separately."""

    def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        import torch

        if bias is None or input.dim() <= 2 or input.is_contiguous():
            return function(input, weight, bias)  # type: ignore[no-any-return]
        return torch.matmul(input, weight.t()).add_(bias)

    return linear


def _attention(function: Any) -> Any:
    """The flash kernel in half precision without a mask, else the memory-efficient one; both store no weights."""

    def attention(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        import torch

        tensors = (query, key, value)
        own = torch.ops.aten
        if enable_gqa or any(t.dim() != 4 or t.shape[-1] % 8 or t.shape[:2] != query.shape[:2] for t in tensors):
            return function(  # type: ignore[no-any-return]
                query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
            )
        if query.element_size() == HALF and attn_mask is None and query.shape[-1] <= WIDEST_FLASH_HEAD:
            flash = own._scaled_dot_product_flash_attention
            return flash(query, key, value, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]
        if attn_mask is not None:
            if attn_mask.dtype == torch.bool:
                attn_mask = torch.where(attn_mask, 0.0, float("-inf")).to(query.dtype)
            attn_mask = attn_mask.expand(*query.shape[:3], key.shape[2])
        needs_sums = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
        efficient = own._scaled_dot_product_efficient_attention
        return efficient(query, key, value, attn_mask, needs_sums, dropout_p, is_causal, scale=scale)[0]  # type: ignore[no-any-return]

    return attention


HALF = 2
"""The bytes of a value in half precision."""

WIDEST_FLASH_HEAD = 256
"""The widest head that the flash kernel takes."""

_KERNELS = {"linear": _linear, "dropout": _dropout, "scaled_dot_product_attention": _attention}
