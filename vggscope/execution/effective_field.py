"""Effective receptive fields, measured by gradients: a unit depends on the centre of its field more than on its border.

Luo, Li, Urtasun and Zemel, "Understanding the Effective Receptive Field in Deep Convolutional Neural Networks" (NeurIPS
2016), backpropagate a gradient of 1 from one unit. Here all channels of the unit count: the square of the gradient for
noise over the channels is, on average, the sum of the channels' squared derivatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from vggscope.analysis.receptive_field.result import (
    Box,
    EffectiveField,
    EnergyBox,
    ReceptiveFields,
    describe,
    layer_named,
)
from vggscope.analysis.receptive_field.source import named_input
from vggscope.analysis.receptive_field.view import unit_positions, views
from vggscope.errors import OptionError, check_count, option
from vggscope.graph import INPUT, Input, Network
from vggscope.record import record
from vggscope.trace.forward import module_mode
from vggscope.trace.inputs import CallInputs, arguments
from vggscope.trace.tensors import tensors_in

if TYPE_CHECKING:
    from torch import Generator, Tensor, nn

PERCENTS = (50, 95)
"""The shares of the energy that the boxes hold, in percent."""

MOST_SAMPLES = 10**4


@record
class EffectiveMap:
    """A measured field; `heat` is the share of the energy of each pixel of an image, row by row, and empty for an input
    with another number of sides than two.
    """

    model: str
    input_shape: tuple[int, ...]
    axes: tuple[int, ...]
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
    of: str | None = None,
    progress: Callable[[int], None] = lambda sample: None,
) -> EffectiveMap:
    """Measure the effective field of a unit of the layer `at` with the module's own weights, at evaluation.

    `unit` is (row, column), the centre of the map if it is None. `samples` are images of noise, and `seed` is that of
    the noise. `of` names the input that the field lies in. `progress` is called with the number of each sample before
    its run. The module's mode and weights stay as they are.

    Raises OptionError for an unknown layer, unit or input, and for a layer that is not a module.
    """
    check_count("samples", samples, f"{samples} samples make no sense", MOST_SAMPLES)
    described = describe(network, [at], unit, of)
    (field,) = described.units
    node = layer_named(network, at)
    given = named_input(network, of)
    if given.dtype and not given.dtype.startswith(("float", "bfloat")):
        raise OptionError(
            f"the input{'' if given.name == INPUT else f' {given.label}'} is {given.dtype}, which has no gradient",
            f"leave out {option('effective')}: the rule gives the field",
        )
    view = views(network, of=given.name, only=[node.name])[node.name]
    positions = unit_positions(view, field.unit) if node.module is not None else None
    if positions is None:
        raise OptionError(f"{node.title} is not a module whose units have one position each", "name a layer before it")
    if field.reads is None:
        raise OptionError(
            f"unit {field.unit} of {field.title} reads no pixel of the input", "name another unit or layer"
        )
    energy = _energy(module, network, _Target(node.name, positions, given, described), samples, seed, progress)
    total = float(energy.sum())
    if not total:
        raise OptionError(f"no gradient reaches the image from {field.title}", "its weights, or what is before, are 0")
    boxes = tuple(_energy_box(energy / total, field.box, percent) for percent in PERCENTS)
    effective = EffectiveField(field.name, field.label, field.unit, field.box, samples, seed, boxes)
    shares: list[list[float]] = (energy / total).tolist() if energy.dim() == 2 else []
    return EffectiveMap(network.name, given.shape, described.axes, effective, tuple(map(tuple, shares)))


@record
class _Target:
    """A unit by its layer and its positions along axes of that layer's output, and the input to differentiate by."""

    layer: str
    positions: dict[int, int]
    given: Input
    fields: ReceptiveFields


def _energy(
    module: nn.Module, network: Network, target: _Target, samples: int, seed: int, progress: Callable[[int], None]
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
    energy = torch.zeros(target.fields.sides, dtype=torch.double)
    channels = [axis for axis in range(len(target.given.shape)) if axis not in target.fields.axes]
    with module_mode(module, training=False):
        for sample in range(samples):
            progress(sample)
            inputs = {given.name: _noise(given, noise) for given in network.inputs}
            image = inputs[target.given.name].requires_grad_()
            output = _output(module, state, arguments(module, network, inputs), target.layer)
            upstream = torch.zeros_like(output)
            unit = tuple(target.positions.get(axis, slice(None)) for axis in range(output.dim()))
            upstream[unit] = torch.randn(upstream[unit].shape, generator=noise)
            (gradient,) = torch.autograd.grad(output, image, upstream, allow_unused=True)
            if gradient is not None:
                energy += gradient.double().square().sum(channels)
    return energy / samples


def _noise(given: Input, generator: Generator) -> Tensor:
    """Noise for an input of floating type; zeros for numbers, such as tokens, and true for a mask."""
    import torch

    if given.dtype and not given.dtype.startswith(("float", "bfloat")):
        dtype = getattr(torch, given.dtype)
        return torch.full(given.shape, given.dtype == "bool", dtype=dtype)
    return torch.randn(given.shape, generator=generator)


class _Reached(Exception):
    """Raised once the layer has run, to skip the layers after it."""


def _output(
    module: nn.Module,
    state: dict[str, Tensor],
    call: CallInputs,
    name: str,
) -> Tensor:
    """The output of the layer, the first if it has several; the forward pass stops there."""
    import torch

    path, _, repeat = name.partition(":")
    left = int(repeat or 1)
    outputs: list[Tensor] = []

    def stop(part: object, inputs: object, output: object) -> None:
        nonlocal left
        left -= 1
        if not left:
            outputs.extend(tensors_in(output)[:1])
            raise _Reached

    hook = module.get_submodule(path).register_forward_hook(stop)
    try:
        torch.func.functional_call(module, state, call.args, dict(call.kwargs), tie_weights=False)
    except _Reached:
        if outputs:
            return outputs[0]
    finally:
        hook.remove()
    raise OptionError(f"{name} was not called, or returns no tensor", "name another layer")


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
    inside = tuple(slice(first, last + 1) for first, last in zip(clipped.first, clipped.last))
    return float(shares[inside].sum())
