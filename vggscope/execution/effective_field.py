"""Effective receptive fields, measured by gradients: a unit depends on the centre of its field more than on its border.

Luo, Li, Urtasun and Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks" (NeurIPS
2016), backpropagate a gradient of 1 from one unit. Here all channels of the unit count: the square of the gradient for
noise over the channels is, on average, the sum of the channels' squared derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vggscope.analysis.receptive_field.result import Box, EffectiveField, EnergyBox, UnitField, describe, layer_named
from vggscope.errors import OptionError
from vggscope.graph import Network
from vggscope.record import record
from vggscope.trace.run import module_mode

if TYPE_CHECKING:
    from torch import Tensor, nn

PERCENTS = (50, 95)
"""The shares of the energy that the boxes hold, in percent."""

MOST_SAMPLES = 10**4


@record
class EffectiveMap:
    """A measured field; `heat` is the share of the energy of each pixel, row by row."""

    model: str
    input_shape: tuple[int, ...]
    field: EffectiveField
    heat: tuple[tuple[float, ...], ...]


def effective_field(
    network: Network,
    module: nn.Module,
    at: str,
    unit: tuple[int, ...] | None = None,
    *,
    samples: int = 4,
    seed: int = 0,
    progress: Callable[[int], None] = lambda sample: None,
) -> EffectiveMap:
    """Measure the effective field of a unit of the layer `at` with the module's own weights, at evaluation.

    `unit` is (row, column), the centre of the map if it is None. `samples` are images of noise, and `seed` is that of
    the noise. `progress` is called with the number of each sample before its run. The module's mode and weights stay as
    they are.

    Raises OptionError for an unknown layer or unit, and for a layer that is no module.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise OptionError(f"{samples} samples make no sense", f"--samples is 1 to {MOST_SAMPLES}")
    (field,) = describe(network, [at], unit).units
    node = layer_named(network, at)
    output = network.output_shape(node)
    if node.module is None or (len(output) != 2 and output[2:] != field.map):
        raise OptionError(f"{node.title} is no module whose units can be told apart", "name a layer before it")
    if field.reads is None or len(network.input_shape) != 4:
        raise OptionError(
            f"unit {field.unit} of {field.title} reads no pixel of the input", "name another unit or layer"
        )
    energy = _energy(module, network, node.name, field, samples, seed, progress)
    total = float(energy.sum())
    if not total:
        raise OptionError(f"no gradient reaches the image from {field.title}", "its weights, or what is before, are 0")
    boxes = tuple(_energy_box(energy / total, field.box, percent) for percent in PERCENTS)
    effective = EffectiveField(field.name, field.label, field.unit, field.box, samples, seed, boxes)
    shares: list[list[float]] = (energy / total).tolist()
    return EffectiveMap(network.name, network.input_shape, effective, tuple(map(tuple, shares)))


def _energy(
    module: nn.Module,
    network: Network,
    name: str,
    unit: UnitField,
    samples: int,
    seed: int,
    progress: Callable[[int], None],
) -> Tensor:
    """The squared gradient of each pixel, averaged over the samples, in double precision: it is small in deep
    networks.
    """
    import torch

    state = {
        key: tensor.detach()
        for path, part in module.named_modules()
        for key, tensor in (*part.named_parameters(path, recurse=False), *part.named_buffers(path, recurse=False))
    }
    noise = torch.Generator().manual_seed(seed)
    energy = torch.zeros(network.input_shape[2:], dtype=torch.double)
    with module_mode(module, training=False):
        for sample in range(samples):
            progress(sample)
            image = torch.randn(network.input_shape, generator=noise).requires_grad_()
            output = _output(module, state, image, name)
            upstream = torch.zeros_like(output)
            place = unit.unit if output.dim() > 2 else ()
            channels: tuple[int | slice, ...] = (0, slice(None), *place)
            upstream[channels] = torch.randn(output.shape[1], generator=noise)
            (gradient,) = torch.autograd.grad(output, image, upstream)
            energy += gradient[0].double().square().sum(0)
    return energy / samples


class _Reached(Exception):
    """Raised once the layer has run, to skip the layers after it."""


def _output(module: nn.Module, state: dict[str, Tensor], image: Tensor, name: str) -> Tensor:
    """The output of the layer for an image; the forward pass stops there."""
    import torch

    path, _, call = name.partition(":")
    left = int(call or 1)
    outputs: list[Tensor] = []

    def stop(part: object, inputs: object, output: Tensor) -> None:
        nonlocal left
        left -= 1
        if not left:
            outputs.append(output)
            raise _Reached

    hook = module.get_submodule(path).register_forward_hook(stop)
    try:
        torch.func.functional_call(module, state, (image,), tie_weights=False)
    except _Reached:
        return outputs[0]
    finally:
        hook.remove()
    raise OptionError(f"{name} was not called", "name another layer")


def _energy_box(shares: Tensor, box: Box, percent: int) -> EnergyBox:
    """The unit's field, shrunk evenly from all sides as long as it holds this share of the energy."""
    best, share = box, 1.0
    steps = min(box.size) // 2
    for step in range(1, steps + 1):
        margins = [round(step * side / min(box.size)) for side in box.size]
        smaller = Box(
            tuple(first + by for first, by in zip(box.first, margins)),
            tuple(last - by for last, by in zip(box.last, margins)),
        )
        held = _held(shares, smaller)
        if min(smaller.size) < 1 or 100 * held < percent:
            break
        best, share = smaller, held
    return EnergyBox(percent, best, share)


def _held(shares: Tensor, box: Box) -> float:
    clipped = box.clipped(tuple(shares.shape))
    if clipped is None:
        return 0.0
    (top, left), (bottom, right) = clipped.first, clipped.last
    return float(shares[top : bottom + 1, left : right + 1].sum())
