"""autograd: of the layers that are modules, how many have units that depend on the very pixels that we say.

Measured are a map's corners, its middle and a unit aside.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vggscope.analysis.receptive_field.ranges import Flattened
from vggscope.analysis.receptive_field.view import UnknownView, View, views
from vggscope.cross_checks.positive import Function, each_channel, functions, ones
from vggscope.cross_checks.reference_tool import FIELDS, NotApplicable, ReferenceTool, ReportedFigure, written_out
from vggscope.graph import Network, Node
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


MOST_LAYERS = 64
"""How many layers are measured, at most: each takes a backward pass."""

Views = Mapping[str, View | UnknownView]


def measured_layers(network: Network) -> tuple[str, ...]:
    """The layers that are measured: modules whose field the rule gives; of many, those that see otherwise than what
    they read, spread over the depth.
    """
    seen = views(network)
    known = [node for node in network.nodes if node.module is not None and _has_units(seen[node.name])]
    if len(known) > MOST_LAYERS:
        known = [node for node in known if seen[node.name] not in [seen[name] for name in node.inputs]]
    if len(known) > MOST_LAYERS:
        known = [known[(i + 1) * len(known) // MOST_LAYERS - 1] for i in range(MOST_LAYERS)]
    return tuple(node.name for node in known)


def _has_units(view: View | UnknownView) -> bool:
    """Whether units can be told from one another: those of a flattened map are its pixels and its channels in one."""
    return isinstance(view, View) and bool(view.sides) and not any(isinstance(s.extent, Flattened) for s in view.sides)


def units(view: View) -> tuple[Place, ...]:
    """The places of a layer's output that are measured."""
    sides = [(side.axis, side.extent.units) for side in view.sides if side.axis is not None]
    if len({axis for axis, _ in sides}) < len(sides):
        sides = sides[:1]  # a row of tokens goes along both sides
    ways = (lambda n: 0, lambda n: n - 1, lambda n: n // 2, lambda n: n // 3)
    return tuple(dict.fromkeys(tuple((axis, way(count)) for axis, count in sides) for way in ways))


def _fields(network: Network, module: nn.Module) -> ReportedFigure:
    layers = measured_layers(network)
    if not layers:
        raise NotApplicable("no rule gives a receptive field here")
    wrong = differences(network, module, layers)
    return ReportedFigure(len(layers) - len(wrong), detail="; ".join(wrong[:3]))


def differences(network: Network, module: nn.Module, layers: tuple[str, ...]) -> list[str]:
    """For each of these layers that depends on other pixels than we say, the first such unit, in words."""
    seen, exact = views(network), views(network, exact=True)
    places = {name: units(_view(exact, name)) for name in layers}
    found = measure(module, network.input_shape, places)
    nodes = {node.name: node for node in network.nodes}
    texts = (
        _difference(nodes[name], network.input_shape[2:], _view(seen, name), _view(exact, name), found.get(name, {}))
        for name in layers
    )
    return [text for text in texts if text]


def _view(views: Views, name: str) -> View:
    view = views[name]
    assert isinstance(view, View)
    return view


def _difference(
    node: Node, sides: tuple[int, ...], seen: View, exact: View, measured: Mapping[Place, Pixels | None]
) -> str:
    """The first unit that was measured otherwise than we say. Where the rule's region lies on the image, that is what
    has to be measured; at the border it is what is read in truth.
    """
    for place in units(exact):
        rule = _pixels(seen, place)
        within = rule is not None and all(first >= 0 and last < side for (first, last), side in zip(rule, sides))
        ours = rule if within else _pixels(exact, place)
        if place not in measured:
            return f"{node.title} was not called"
        if measured[place] != ours:
            unit = ",".join(str(position) for _, position in place)
            return f"{node.title}, unit {unit}, depends on {_text(measured[place])}, by the rule on {_text(ours)}"
    return ""


def _pixels(view: View, place: Place) -> Pixels | None:
    """What the rule gives for a unit."""
    positions = dict(place)
    spans = [side.extent.span(0 if side.axis is None else positions[side.axis]) for side in view.sides]
    known = tuple(span for span in spans if span is not None)
    return known if len(known) == len(spans) else None


def _text(pixels: Pixels | None) -> str:
    """Rows, then columns."""
    return " x ".join(f"{first} to {last}" for first, last in pixels) if pixels else "nothing"


REFERENCE_TOOL = ReferenceTool(name="autograd", title="autograd", ask={FIELDS: _fields}, package="torch")
