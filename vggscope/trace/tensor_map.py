"""A mapping from tensors, by identity, that keeps none of them alive."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import ref

if TYPE_CHECKING:
    from torch import Tensor

ValueT = TypeVar("ValueT")


FEWEST = 64
"""The number of entries from which on a mapping looks for those of freed tensors."""


class TensorMap(MutableMapping["Tensor", ValueT], Generic[ValueT]):
    """A mapping from tensors by identity. A tensor that is freed leaves the mapping.

    It does what torch.utils.weak.WeakTensorKeyDictionary does, which creates and compares references in Python for each
    lookup. A trace looks up each tensor ten times. The entry of a freed tensor is hidden at once, and removed with
    others later: a callback for each tensor would take longer than all else.

    >>> import torch
    >>> tensor = torch.zeros(2)
    >>> names = TensorMap()
    >>> names[tensor] = "zeros"
    >>> names[tensor], torch.zeros(2) in names
    ('zeros', False)
    >>> del tensor
    >>> len(names)
    0
    """

    def __init__(self, items: Iterable[tuple[Tensor, ValueT]] = ()) -> None:
        self._entries = {id(tensor): (ref(tensor), value) for tensor, value in items}
        self._most = max(FEWEST, 2 * len(self._entries))

    def __getitem__(self, tensor: Tensor) -> ValueT:
        reference, value = self._entries[id(tensor)]
        if reference() is not tensor:
            raise KeyError(tensor)
        return value

    def get(self, tensor: Tensor, default: Any = None) -> Any:
        """Return the value of a tensor, or the default."""
        entry = self._entries.get(id(tensor))
        return default if entry is None or entry[0]() is not tensor else entry[1]

    def __contains__(self, tensor: object) -> bool:
        entry = self._entries.get(id(tensor))
        return entry is not None and entry[0]() is tensor

    def __setitem__(self, tensor: Tensor, value: ValueT) -> None:
        self._entries[id(tensor)] = ref(tensor), value
        if len(self._entries) > self._most:
            self._entries = {key: entry for key, entry in self._entries.items() if entry[0]() is not None}
            self._most = max(FEWEST, 2 * len(self._entries))

    def __delitem__(self, tensor: Tensor) -> None:
        if tensor not in self:
            raise KeyError(tensor)
        del self._entries[id(tensor)]

    def __iter__(self) -> Iterator[Tensor]:
        tensors = [reference() for reference, _ in self._entries.values()]
        return (tensor for tensor in tensors if tensor is not None)

    def __len__(self) -> int:
        return sum(1 for _ in self)
