"""What autograd saves of a call for its backward, as torch itself says: the call is repeated with gradients."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import field, replace
from typing import TYPE_CHECKING

from vggscope.ops.base import Op, Shape, numel
from vggscope.record import field_names, record
from vggscope.trace.tensors import Arguments, Function, KeywordArguments, mapped_tensors, tensors_in

if TYPE_CHECKING:
    from torch import Tensor, nn


@record
class Saved:
    """The tensors that autograd saves of one call, besides parameters and buffers.

    `inputs` are the positions of the call's inputs that are saved, `output` is whether its output is, and `extra` are
    the bytes of other tensors. `shapes` are those of the call's inputs and, last, of its output when torch was asked.
    """

    inputs: tuple[int, ...] = ()
    output: bool = False
    extra: int = 0
    shapes: tuple[Shape, ...] = field(default=(), compare=False)

    @property
    def text(self) -> str:
        """What is saved, in words."""
        parts = [
            *(f"input {position}" for position in self.inputs),
            *(("the output",) if self.output else ()),
            *((f"{self.extra:,} bytes more",) if self.extra else ()),
        ]
        return " and ".join(parts) or "nothing"


def by_rule(
    op: Op, inputs: tuple[Shape, ...], output: Shape, needs: Sequence[bool], element_bytes: int, statistics_width: int
) -> Saved:
    """Return what an op's rule says is saved in training, with `statistics_width` bytes at least per statistic.

    `needs` is whether each input can have a gradient.
    """
    saved = op.saved_for_backward(inputs, output)
    if op.saves_factors:
        saved = saved._replace(inputs=tuple(i for i in saved.inputs if any(needs[:i]) or any(needs[i + 1 :])))
    extra = sum(numel(shape) * (width or element_bytes) for shape, width in saved.extra)
    extra += sum(map(numel, saved.sums)) * max(element_bytes, 4)
    extra += sum(map(numel, (*saved.masks, *saved.copies))) * element_bytes
    extra += sum(map(numel, (*saved.statistics, *saved.batch_statistics))) * max(element_bytes, statistics_width)
    return _merged(op, Saved(saved.inputs, saved.output, extra))


def _merged(op: Op, saved: Saved) -> Saved:
    """Return what is saved with an output that is its first input in memory named as that input."""
    if op.allocates or not saved.output:
        return saved
    return Saved(tuple(sorted({0, *saved.inputs})), False, saved.extra)


def kind(op: Op) -> tuple[object, ...]:
    """Return what tells apart the ops for which torch is asked once: their class and what is no number."""
    values = map(vars(op).__getitem__, field_names(type(op)))
    return type(op), op.name, *(value for value in values if isinstance(value, (bool, str)))


def saved_in_training(
    op: Op,
    function: Function,
    args: Arguments,
    kwargs: KeywordArguments,
    inputs: Sequence[Tensor],
    module: nn.Module | None,
) -> Saved | None:
    """Return what a call saves in training mode, with gradients for its inputs and the parameters of its module.

    None if the call fails or has no gradient. It runs on copies of its arguments, because it may write to them: on
    small tensors of zeros if they can be small, since some kernels of meta tensors import torch's compiler.
    """
    given = {id(tensor): tensor for tensor in tensors_in((args, kwargs))}
    small = _small_copies(given, module)
    if small is not None:
        with _with_small_weights(module):
            saved = _asked(op, function, args, kwargs, inputs, module, small)
        if saved is not None:
            return saved
    copies = {key: _copied(tensor) for key, tensor in given.items()}
    return _asked(op, function, args, kwargs, inputs, module, copies)


def _asked(
    op: Op,
    function: Function,
    args: Arguments,
    kwargs: KeywordArguments,
    inputs: Sequence[Tensor],
    module: nn.Module | None,
    copies: dict[int, Tensor],
) -> Saved | None:
    """Return what a call saves on copies of its arguments, which are given by the ids of the arguments."""
    import torch

    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    shapes = tuple(tuple(copies[id(tensor)].shape) for tensor in inputs if id(tensor) in copies)
    args, kwargs = mapped_tensors((args, kwargs), lambda tensor: copies[id(tensor)])
    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    try:
        with torch.enable_grad(), _in_training(module), hooks:
            result = function(*args, **kwargs)
    except Exception:  # torch may refuse the call in training, as batch norm on one value
        return None
    results = tensors_in(result)
    if len(shapes) < len(inputs) or not any(tensor.requires_grad for tensor in results):
        return None
    state = (*module.parameters(), *module.buffers()) if module is not None else ()
    given = {id(tensor) for tensor in inputs}
    weights = (copy for key, copy in copies.items() if key not in given)
    own = {_storage(tensor) for tensor in (*state, *weights)}
    positions = {_storage(copies[id(tensor)]): place for place, tensor in reversed(list(enumerate(inputs)))}
    outputs = {_storage(tensor) for tensor in results[:1]} - positions.keys()
    storages = {_storage(tensor): tensor.untyped_storage().nbytes() for tensor in kept}
    extra = sum(size for key, size in storages.items() if key not in own | outputs | positions.keys())
    saved = sorted(positions[key] for key in storages.keys() & positions.keys() - own)
    merged = _merged(op, Saved(tuple(saved), bool(outputs & storages.keys()), extra))
    return replace(merged, shapes=(*shapes, tuple(results[0].shape)))


SIDE = 8
"""The most pixels along a side of a small map. What is saved of a call does not depend on the size."""

MOST_VALUES = 1 << 20
"""The most values of a call on small tensors."""


def _copied(tensor: Tensor) -> Tensor:
    """Return a copy of a tensor, with a gradient if it can have one."""
    can_have = tensor.is_floating_point() or tensor.is_complex()
    return tensor.detach().requires_grad_().clone() if can_have else tensor.clone()


def _small_copies(given: Mapping[int, Tensor], module: nn.Module | None) -> dict[int, Tensor] | None:
    """Return zeros on the CPU in place of these tensors, with fewer pixels for maps; None if they would be large.

    None also for a tensor in another memory layout, on which it may depend what is saved.
    """
    import torch

    shapes = {key: _small_shape(tuple(tensor.shape)) for key, tensor in given.items()}
    values = sum(map(numel, shapes.values()))
    if module is not None:
        values += sum(tensor.numel() for tensor in (*module.parameters(), *module.buffers()))
    if values > MOST_VALUES or not all(t.layout == torch.strided and t.is_contiguous() for t in given.values()):
        return None
    return {key: _copied(torch.zeros(shapes[key], dtype=t.dtype, device="cpu")) for key, t in given.items()}


def _small_shape(shape: Shape) -> Shape:
    return (*shape[:2], *(min(size, SIDE) for size in shape[2:])) if len(shape) == len("NCHW") else shape


@contextmanager
def _with_small_weights(module: nn.Module | None) -> Iterator[None]:
    """Give a module zeros on the CPU for its parameters and buffers within the block."""
    import torch

    if module is None:
        yield
        return
    state = {
        **{key: torch.nn.Parameter(_zeros(weight)) for key, weight in module.named_parameters()},
        **{key: _zeros(buffer) for key, buffer in module.named_buffers()},
    }
    with torch.nn.utils.stateless._reparametrize_module(module, state, tie_weights=False):
        yield


def _zeros(tensor: Tensor) -> Tensor:
    import torch

    return torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")


def _storage(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@contextmanager
def _in_training(module: nn.Module | None) -> Iterator[None]:
    """Set a module to training mode, with gradients for its parameters, within the block."""
    parts = list(module.modules()) if module is not None else []
    modes = [part.training for part in parts]
    parameters = [p for p in module.parameters() if p.is_floating_point() or p.is_complex()] if module else []
    trained = [parameter.requires_grad for parameter in parameters]
    try:
        for part in parts:
            part.training = True
        for parameter in parameters:
            parameter.requires_grad_(True)
        yield
    finally:
        for part, mode in zip(parts, modes):
            part.training = mode
        for parameter, requires_grad in zip(parameters, trained):
            parameter.requires_grad_(requires_grad)
