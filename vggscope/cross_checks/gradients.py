"""Receptive fields measured: autograd says which pixels a unit's value depends on.

The module's own forward runs on an image of ones, its weights ones too and its functions those of `positive`, so that
nothing hides a dependence. All channels of a map are then alike and one of them is computed, except where groups keep
them apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vggscope.cross_checks.positive import Function, each_channel, functions, ones
from vggscope.cross_checks.reference_tool import written_out
from vggscope.ops.base import Shape

if TYPE_CHECKING:
    from torch import Tensor, nn

Pixels = tuple[tuple[int, int], ...]
"""The first and the last pixel along each side of the image."""

Place = tuple[tuple[int, int], ...]
"""A unit of an output: positions along some of its axes, as (axis, position)."""


def measure(
    module: nn.Module, input_shape: Shape, units: Mapping[str, Sequence[Place]]
) -> dict[str, dict[Place, Pixels | None]]:
    """For units of modules' outputs, the pixels that have a gradient; None where none has.

    `units` has places by the module's path (with :2, :3... for a later call). The module is on the meta device and
    stays as it is. What is no tensor is left out.
    """
    import torch

    width = max(map(len, units.values()), default=1)
    image = torch.ones((width, *input_shape[1:]), requires_grad=True)
    with _one_thread():
        with _kept_outputs(module, units.keys()) as outputs, _positive():
            module(image)
        return {name: _gradients(outputs[name], image, places) for name, places in units.items() if name in outputs}


def _gradients(output: Tensor, image: Tensor, places: Sequence[Place]) -> dict[Place, Pixels | None]:
    """One backward pass for all units: each has its own image of the batch."""
    import torch

    if not output.requires_grad:
        return dict.fromkeys(places)
    wanted = torch.zeros_like(output)
    for number, place in enumerate(places):
        positions: list[int | slice] = [number, *(slice(None) for _ in output.shape[1:])]
        for axis, position in place:
            positions[axis] = position
        wanted[tuple(positions)] = 1
    (gradient,) = torch.autograd.grad(output, image, wanted, retain_graph=True)
    return {place: _extent(gradient[number].ne(0).any(0)) for number, place in enumerate(places)}


def _extent(touched: Tensor) -> Pixels | None:
    """The smallest box around the pixels that are touched."""
    if not touched.any():
        return None
    corners = touched.nonzero()
    return tuple((int(first), int(last)) for first, last in zip(corners.amin(0), corners.amax(0)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Maps of one channel are too small to be shared among threads, which wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _kept_outputs(module: nn.Module, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """The outputs of the modules' calls, by path; a module's second call is path:2."""
    from torch import Tensor

    outputs: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    def keep(path: str) -> Callable[[object, object, object], None]:
        def hook(part: object, inputs: object, output: object) -> None:
            calls[path] += 1
            name = path if calls[path] == 1 else f"{path}:{calls[path]}"
            first = output[0] if isinstance(output, tuple) and output else output
            if name in names and isinstance(first, Tensor):
                outputs[name] = each_channel(first)

        return hook

    hooks = [part.register_forward_hook(keep(path)) for path, part in module.named_modules() if path]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _positive() -> Iterator[None]:
    """Within this, torch's functions are replaced by those of `positive`, and tensors without data by ones."""
    from torch.overrides import TorchFunctionMode

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Function, types: object, args: tuple[object, ...] = (), kwargs: object = None
        ) -> object:
            given = kwargs if isinstance(kwargs, dict) else {}
            name = getattr(func, "__name__", "").strip("_")
            return positive.get(name, func)(*map(ones, args), **{key: ones(value) for key, value in given.items()})

    positive = functions()
    with written_out(), Mode():
        yield
