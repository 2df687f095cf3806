"""The packed weights of quantised layers: tensors of the state dict that are neither parameters nor buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vggscope.trace.parts import parts_of, tensors_of

if TYPE_CHECKING:
    from torch import Tensor, nn


def packed_weights(module: nn.Module) -> dict[str, Tensor]:
    """Return copies of the packed weights and biases in a module, by the names that its float layers would give them.

    >>> import torch
    >>> {name: weight.dtype for name, weight in packed_weights(torch.ao.nn.quantized.Conv2d(3, 4, 3)).items()}
    {'weight': torch.qint8, 'bias': torch.float32}
    """
    return {
        f"{path}.{name}".lstrip("."): tensor
        for path, part in module.named_modules()
        if not type(part).__name__.endswith("PackedParams")
        for name, tensor in _unpacked(part)
    }


def has_quantized_tensors(module: nn.Module) -> bool:
    """Return whether a module has quantised tensors. They cannot be on the meta device."""
    return True in [tensor.is_quantized for tensor in tensors_of(module)] or any(map(_unpacks, parts_of(module)))


def _unpacks(module: nn.Module) -> bool:
    if "quantized" not in type(module).__module__:
        return False
    return hasattr(module, "_weight_bias") or hasattr(module, "_packed_params")


def _unpacked(module: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield the weights of one layer: of convolutions and linear layers, of recurrent layers, of embeddings."""
    from torch import Tensor

    if not _unpacks(module):
        return
    if not hasattr(module, "_weight_bias"):
        yield "weight", module.weight()
        return
    unpacked = module._weight_bias()
    by_name: Mapping[str, object] = {}
    if isinstance(unpacked, Mapping):
        by_name = {name: tensor for group in unpacked.values() for name, tensor in group.items()}
    else:
        by_name = dict(zip(("weight", "bias"), unpacked))
    yield from ((name, tensor.detach()) for name, tensor in by_name.items() if isinstance(tensor, Tensor))
