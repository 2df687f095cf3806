"""In-place writes to memory that several tensors share: a tensor and its views."""

from __future__ import annotations

from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vggscope.ops.base import Shape
from vggscope.record import record

if TYPE_CHECKING:
    from torch import Tensor


@record
class Region:
    """The elements of a storage that a tensor has."""

    offset: int
    shape: Shape
    stride: Shape

    def overlaps(self, other: Region) -> bool:
        """Return whether both may have an element in common: false for two different slices of one tensor."""
        if 0 in (*self.shape, *other.shape):
            return False
        sizes = [{s: size for s, size in zip(r.stride, r.shape) if size > 1} for r in (self, other)]
        strides = sorted({1, *sizes[0], *sizes[1]} - {0}, reverse=True)
        lengths = [(sizes[0].get(stride, 1), sizes[1].get(stride, 1)) for stride in strides]
        if any(max(pair) * stride > larger for larger, stride, pair in zip(strides, strides[1:], lengths[1:])):
            return True  # one of them folds axes of the other
        starts = self.offset, other.offset
        for stride, (mine, others) in zip(strides, lengths):
            first, second = (start // stride for start in starts)
            if first >= second + others or second >= first + mine:
                return False
            starts = starts[0] % stride, starts[1] % stride
        return True


@record
class Write:
    """A node that wrote to a region in place."""

    node: str
    region: Region


@dataclass
class Writes:
    """The writes to each storage, in order, and how many of them the recorded origin of each tensor includes."""

    seen: MutableMapping[Tensor, int]
    by_storage: dict[int, list[Write]] = field(default_factory=dict)
    storages: list[Any] = field(default_factory=list)

    def add(self, tensor: Tensor, node: str) -> None:
        """Record that a node has written to a tensor, whose origin it is."""
        from torch import strided
        from torch.multiprocessing.reductions import StorageWeakRef

        if tensor.layout == strided:
            storage = tensor.untyped_storage()
            if storage._cdata not in self.by_storage:
                # A weak reference keeps another storage from taking this one's address.
                self.storages.append(StorageWeakRef(storage))  # type: ignore[no-untyped-call]
            self.by_storage.setdefault(storage._cdata, []).append(Write(node, region_of(tensor)))
            self.include(tensor)

    def include(self, tensor: Tensor) -> None:
        """Record that the origin of a tensor includes all writes so far."""
        writes = self._writes(tensor)
        if writes:
            self.seen[tensor] = len(writes)

    def missed(self, tensor: Tensor) -> list[Write]:
        """Return the writes to a tensor's elements that its origin does not include."""
        writes = self._writes(tensor)
        later = writes[self.seen.get(tensor, 0) :]
        region = region_of(tensor) if later else None
        return [write for write in later if region and write.region.overlaps(region)]

    def is_last(self, tensor: Tensor) -> bool:
        """Return whether the last write to a tensor's storage was to the elements of this tensor."""
        writes = self._writes(tensor)
        return bool(writes) and writes[-1].region == region_of(tensor)

    def _writes(self, tensor: Tensor) -> list[Write]:
        import torch

        if not self.by_storage or tensor.layout != torch.strided:
            return []
        return self.by_storage.get(tensor.untyped_storage()._cdata, [])


def region_of(tensor: Tensor) -> Region:
    """Return the elements of its storage that a tensor has."""
    return Region(int(tensor.storage_offset()), tuple(tensor.shape), tensor.stride())
