"""Tensors inside torch.func's transforms, such as vmap and grad.

A transform passes wrappers to the function that it transforms. Under vmap, a wrapper hides the axis of the samples,
and the tensor inside has it. Nodes are recorded on the tensors inside.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    from torch import Tensor


def is_transforming() -> bool:
    """Return whether a transform of torch.func is running."""
    return _innermost()() is not None


@cache
def _innermost() -> Callable[[], object]:
    """Return torch's function that gives the innermost transform. A trace calls it ten times for each node."""
    from torch._C._functorch import peek_interpreter_stack

    return peek_interpreter_stack


def plain_tensors_in(value: object) -> tuple[Tensor, ...]:
    """Return the tensors in nested arguments or results, without the wrappers of transforms."""
    return without_wrappers(tensors_in(value))


def without_wrappers(tensors: Iterable[Tensor]) -> tuple[Tensor, ...]:
    """Return tensors without the wrappers of transforms."""
    return tuple(map(unwrapped, tensors)) if is_transforming() else tuple(tensors)


def unwrapped(tensor: Tensor) -> Tensor:
    """Return the tensor inside the wrappers of transforms."""
    from torch._C import _functorch

    while _functorch.is_functorch_wrapped_tensor(tensor):
        tensor = _functorch.get_unwrapped(tensor)
    return tensor


@contextmanager
def vmap_results(record: Callable[[Tensor, Tensor], None]) -> Iterator[None]:
    """Call `record` within the block with each tensor that leaves a vmap: as it was inside, and as it is outside."""
    from torch._functorch import vmap

    transform: Any = vmap
    remove = transform._remove_batch_dim

    def remove_and_record(inside: Tensor, *args: object) -> Tensor:
        result: Tensor = remove(inside, *args)
        record(unwrapped(inside), unwrapped(result))
        return result

    transform._remove_batch_dim = remove_and_record
    try:
        yield
    finally:
        transform._remove_batch_dim = remove
