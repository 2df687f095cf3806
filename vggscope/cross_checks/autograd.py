"""Autograd: counts the modules whose units depend on exactly the pixels that the receptive field rule gives.

The units measured are a map's corners, its middle and one more. The module's own forward runs on an image of ones,
with weights of one and with the functions of `positive`, so that no dependence has a gradient of zero. All channels of
a map are then equal, and one of them is computed for each group of a convolution.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vggscope.analysis.receptive_field.source import named_input, pixel_axes
from vggscope.analysis.receptive_field.view import PixelView, UnknownView, mixes_channels, views
from vggscope.cross_checks.positive import Function, each_channel, functions, ones
from vggscope.cross_checks.reference_tool import FIELDS, NotApplicable, ReferenceTool, ReportedFigure, written_out
from vggscope.graph import Input, Network, Node
from vggscope.trace.inputs import arguments
from vggscope.trace.unseen import without_disabling

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_LAYERS = 64
"""The most layers that are measured: each takes a backward pass."""

Pixels = tuple[tuple[int, int], ...]
"""The first and the last pixel along each side of the input."""

Place = tuple[tuple[int, int], ...]
"""A unit of an output: its positions along some axes, as (axis, position)."""


def measured_layers(network: Network, of: str | None = None) -> tuple[str, ...]:
    """The layers to measure: modules whose receptive field with regard to the input `of` is known.

    If there are more than MOST_LAYERS, only those whose field differs from their input's, spread over the depth.
    """
    fields = views(network, of=named_input(network, of).name)
    gated = _after_gates(network)
    known = [node for node in network.nodes if _is_measurable(network, node) and _has_units(fields[node.name])]
    known = [node for node in known if node.name not in gated]
    if len(known) > MOST_LAYERS:
        known = [node for node in known if fields[node.name] not in [fields[name] for name in node.inputs]]
    if len(known) > MOST_LAYERS:
        known = [known[(i + 1) * len(known) // MOST_LAYERS - 1] for i in range(MOST_LAYERS)]
    return tuple(node.name for node in known)


def _is_measurable(network: Network, node: Node) -> bool:
    """Whether a node is a module with a row of its output for each sample, as a video's frames as a batch have not."""
    return node.module is not None and node.batch_growth is None and network.output_shape(node)[:1] == (1,)


def _after_gates(network: Network) -> set[str]:
    """The recurrent layers and what depends on them.

    Their gates saturate for weights of one, so that some gradients are zero.
    """
    gated: set[str] = set()
    for node in network.nodes:
        if node.op.has_gates or not gated.isdisjoint(node.inputs):
            gated.add(node.name)
    return gated


def _has_units(view: PixelView | UnknownView) -> bool:
    """Whether a map has units with a receptive field. Those of a flattened map mix pixels and channels."""
    return isinstance(view, PixelView) and bool(view.sides) and not mixes_channels(view)


def units(view: PixelView) -> tuple[Place, ...]:
    """The units of a layer's output to measure."""
    sides = [(side.axis, side.extent.units) for side in view.sides if side.axis is not None]
    if len({axis for axis, _ in sides}) < len(sides):
        sides = sides[:1]  # one axis of tokens covers both sides
    positions = (lambda n: 0, lambda n: n - 1, lambda n: n // 2, lambda n: n // 3)
    return tuple(dict.fromkeys(tuple((axis, position(count)) for axis, count in sides) for position in positions))


def _fields(network: Network, module: nn.Module) -> ReportedFigure:
    layers = measured_layers(network)
    if not layers:
        raise NotApplicable("no rule gives a receptive field here")
    if not _is_differentiable(named_input(network, None)):
        raise NotApplicable("the input is whole numbers, which have no gradient")
    if any(node.op.differentiates for node in network.nodes):
        raise NotApplicable("forward computes gradients itself")
    with without_disabling():
        mismatches = differences(network, module, layers)
    return ReportedFigure(len(layers) - len(mismatches), detail="; ".join(mismatches[:3]))


def differences(network: Network, module: nn.Module, layers: tuple[str, ...], of: str | None = None) -> list[str]:
    """For each layer with a unit that depends on other pixels than the rule gives, a sentence about the first one."""
    given = named_input(network, of)
    by_rule = _known_views(views(network, of=given.name), layers)
    exact = _known_views(views(network, exact=True, of=given.name, only=layers), layers)
    measured = measure(module, network, {name: units(exact[name]) for name in layers}, given)
    sides = tuple(given.shape[axis] for axis in pixel_axes(network, given.name))
    texts = (
        _difference(network.by_name[name], sides, by_rule[name], exact[name], measured.get(name, {})) for name in layers
    )
    return [text for text in texts if text]


def _known_views(views: Mapping[str, PixelView | UnknownView], names: tuple[str, ...]) -> dict[str, PixelView]:
    return {name: view for name in names if isinstance(view := views[name], PixelView)}


def _difference(
    node: Node, sides: tuple[int, ...], by_rule: PixelView, exact: PixelView, measured: Mapping[Place, Pixels | None]
) -> str:
    """A sentence about the first unit with a mismatch, or an empty one.

    The expected pixels are the rule's if they all lie on the image, else those that the unit depends on exactly.
    """
    for place in units(exact):
        ruled = _pixels(by_rule, place)
        inside = ruled is not None and all(first >= 0 and last < side for (first, last), side in zip(ruled, sides))
        expected = ruled if inside else _pixels(exact, place)
        if place not in measured:
            return f"{node.title} was not called"
        if measured[place] != expected:
            unit = ",".join(str(position) for _, position in place)
            return f"{node.title}, unit {unit}, depends on {_text(measured[place])}, by the rule on {_text(expected)}"
    return ""


def _pixels(view: PixelView, place: Place) -> Pixels | None:
    """The pixels of a unit in a view; None if it covers none."""
    positions = dict(place)
    spans = [side.extent.span(0 if side.axis is None else positions[side.axis]) for side in view.sides]
    known = tuple(span for span in spans if span is not None)
    return known if len(known) == len(spans) else None


def _text(pixels: Pixels | None) -> str:
    """The first and the last pixel of each side."""
    return " x ".join(f"{first} to {last}" for first, last in pixels) if pixels else "nothing"


def measure(
    module: nn.Module, network: Network, units: Mapping[str, Sequence[Place]], of: Input | None = None
) -> dict[str, dict[Place, Pixels | None]]:
    """The pixels of the input `of` with a non-zero gradient for units of modules' outputs; None for a unit without any.

    `units` has the units by the module's path, with :2, :3... for later calls. The module is on the meta device and
    stays as it is. Outputs that are not tensors are left out.
    """
    given = of or named_input(network, None)
    width = max(map(len, units.values()), default=1)
    inputs = {other.name: _ones(other, width) for other in network.inputs}
    image = inputs[given.name].requires_grad_()
    others = [axis for axis in range(1, len(given.shape)) if axis not in pixel_axes(network, given.name)]
    call = arguments(module, network, inputs)
    with _one_thread():
        with _recorded_outputs(module, network, units.keys()) as outputs, _positive():
            module(*call.args, **call.kwargs)
        return {
            name: _touched(outputs[name], image, places, others) for name, places in units.items() if name in outputs
        }


def _ones(given: Input, batch: int) -> Tensor:
    """An input of ones for a batch; zeros for numbers, such as tokens."""
    import torch

    shape = (batch, *given.shape[1:]) if given.batch_growth is None else given.shape
    return torch.ones(shape) if _is_differentiable(given) else torch.zeros(shape, dtype=getattr(torch, given.dtype))


def _is_differentiable(given: Input) -> bool:
    return not given.dtype or given.dtype.startswith(("float", "bfloat", "complex"))


def _touched(output: Tensor, image: Tensor, places: Sequence[Place], channels: list[int]) -> dict[Place, Pixels | None]:
    """The pixels of all units in one backward pass: each unit has its own image of the batch."""
    import torch

    if not output.requires_grad:
        return dict.fromkeys(places)
    selected = torch.zeros_like(output)
    for number, place in enumerate(places):
        positions: list[int | slice] = [number, *(slice(None) for _ in output.shape[1:])]
        for axis, position in place:
            positions[axis] = position
        selected[tuple(positions)] = 1
    (gradient,) = torch.autograd.grad(output, image, selected, retain_graph=True, allow_unused=True)
    if gradient is None:
        return dict.fromkeys(places)
    touched = gradient.ne(0).any(channels) if channels else gradient.ne(0)
    return {place: _bounds(touched[number]) for number, place in enumerate(places)}


def _bounds(touched: Tensor) -> Pixels | None:
    """The smallest box around the true pixels, of which there is a number for each side."""
    if not touched.any():
        return None
    corners = touched.nonzero()
    return tuple((int(first), int(last)) for first, last in zip(corners.amin(0), corners.amax(0)))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Run torch on one thread: on maps of one channel, more threads only wait for one another."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _recorded_outputs(module: nn.Module, network: Network, names: Collection[str]) -> Iterator[dict[str, Tensor]]:
    """Record the outputs of the modules' calls by the name of the node; a module's second call is path:2."""
    from torch import Tensor

    outputs: dict[str, Tensor] = {}
    calls: Counter[str] = Counter()

    root = next((node.name for node in network.nodes if node.module == ""), "")

    def hook_for(path: str) -> Callable[[object, object, object], None]:
        def hook(part: object, inputs: object, output: object) -> None:
            calls[path] += 1
            name = path if calls[path] == 1 else f"{path}:{calls[path]}"
            first = output[0] if isinstance(output, tuple) and output else output
            if name in names and isinstance(first, Tensor):
                outputs[name] = each_channel(first)

        return hook

    hooks = [part.register_forward_hook(hook_for(path or root)) for path, part in module.named_modules()]
    try:
        yield outputs
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _positive() -> Iterator[None]:
    """Replace torch's functions by those of `positive`, and tensors on the meta device by ones."""
    from torch.overrides import TorchFunctionMode

    class PositiveMode(TorchFunctionMode):
        def __torch_function__(
            self, func: Function, types: object, args: tuple[object, ...] = (), kwargs: object = None
        ) -> object:
            named = kwargs if isinstance(kwargs, dict) else {}
            name = getattr(func, "__name__", "").strip("_")
            return positive.get(name, func)(*map(ones, args), **{key: ones(value) for key, value in named.items()})

    positive = functions()
    with written_out(), _differentiable_inference(), PositiveMode():
        yield


@contextmanager
def _differentiable_inference() -> Iterator[None]:
    """Let torch.inference_mode do nothing within the block: what it computes depends on its input too."""
    from torch import inference_mode

    kind: Any = inference_mode
    enter, leave = kind.__enter__, kind.__exit__
    kind.__enter__, kind.__exit__ = (lambda self: None), (lambda self, *error: None)
    try:
        yield
    finally:
        kind.__enter__, kind.__exit__ = enter, leave


REFERENCE_TOOL = ReferenceTool(name="autograd", title="autograd", reports={FIELDS: _fields}, package="torch")
