"""The tensors that forward receives or returns, as results list them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field

from vggscope.graph import NamedTensor
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.units import sample_text


@record
class TensorSummary:
    """One tensor that forward receives or returns: its name, its shape with the batch, and torch's name of its dtype.

    An output's name is its place: `output`, `output[1]` of a tuple, `logits` of a dict. `batch_axis` is the axis that
    grows with the batch, None if there is none.
    """

    name: str
    shape: Shape
    dtype: str
    batch_axis: int | None = field(default=0, metadata={"json": False})


def summarize_tensors(
    tensors: Iterable[NamedTensor], batch: int = 1, dtype: str = "float32"
) -> tuple[TensorSummary, ...]:
    """The tensors at a batch. `dtype` is the network's floating-point type."""
    return tuple(
        TensorSummary(tensor.label, tensor.batched(batch), tensor.dtype or dtype, tensor.batch_axis)
        for tensor in tensors
    )


def sizes_text(tensors: Iterable[TensorSummary], dtype: str = "float32") -> str:
    """The sizes without the batch: `3x224x224`, or `image 3x32x32 and label scalar int64` of several tensors."""
    sizes = [(tensor.name, _size_text(tensor, dtype)) for tensor in tensors]
    return sizes[0][1] if len(sizes) == 1 else " and ".join(f"{name} {size}" for name, size in sizes)


def _size_text(tensor: TensorSummary, dtype: str) -> str:
    return sample_text(tensor.shape, tensor.batch_axis) + ("" if tensor.dtype == dtype else f" {tensor.dtype}")
