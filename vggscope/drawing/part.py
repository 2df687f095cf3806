"""A part of a network to draw: from one stage, module or layer to another."""

from __future__ import annotations

from collections.abc import Sequence

from vggscope.drawing.layer import Layer
from vggscope.drawing.stages import Stage
from vggscope.errors import OptionError, nearest, option, printable
from vggscope.graph import Input, Network

BETWEEN = ".."
"""Between the two ends of a part: `stage3..stage5`."""

EXAMPLES = 12
"""The most names that an error lists."""


def chosen(layers: tuple[Layer, ...], stages: Sequence[Stage], words: str) -> tuple[Layer, ...]:
    """The layers of a part in execution order. `words` are `FIRST..LAST`, or one name: of a stage, a module or a layer.

    Raises OptionError for a name that is none of them, and for a part whose end comes before its beginning.
    """
    names = words.split(BETWEEN, 1) if BETWEEN in words else [words]
    places = [_places(layers, stages, name.strip()) for name in names]
    first, last = min(places[0]), max(places[-1])
    if first > last:
        raise OptionError(
            f"{printable(names[0])} comes after {printable(names[-1])}",
            f"{option('only')} takes the first one first: {printable(names[-1])}{BETWEEN}{printable(names[0])}",
        )
    return layers[first : last + 1]


def given_to(layers: Sequence[Layer]) -> tuple[str, ...]:
    """The names of the tensors that a part reads and does not compute, in the order in which it reads them."""
    own = {layer.node.name for layer in layers}
    return tuple(dict.fromkeys(name for layer in layers for name in layer.node.inputs if name not in own))


def entering(network: Network, given: Sequence[str], names: dict[str, str]) -> tuple[Input, ...]:
    """The tensors with these names. A layer's output has the one of `names` that people know."""
    inputs = {tensor.name: tensor for tensor in network.inputs}
    return tuple(inputs.get(name) or _output_of(network, name, names) for name in given)


def _output_of(network: Network, name: str, names: dict[str, str]) -> Input:
    dtype = network.dtype_of(name)
    own = "" if dtype == network.dtype else dtype
    return Input(names[name], network.shapes[name], own, network.growth_of(name))


def _places(layers: Sequence[Layer], stages: Sequence[Stage], name: str) -> list[int]:
    """The places of the layers with this name: those of a stage, of a module, or one layer."""
    word = _plain(name)
    of_stage = {layer.node.name for stage in stages if _plain(stage.name) == word for layer in stage.layers}
    found = [
        place
        for place, layer in enumerate(layers)
        if layer.node.name in of_stage
        or (word and word in (_plain(layer.node.name), _plain(layer.node.label)))
        or (word and _plain(layer.node.name).startswith(f"{word}."))
    ]
    if found:
        return found
    known = [*(_plain(stage.name) for stage in stages), *(layer.name for layer in layers)]
    shown = ", ".join(dict.fromkeys(known[:EXAMPLES]))
    raise OptionError(
        f"no stage, module or layer is called {printable(name)!r}{nearest(name, known)}",
        f"{option('only')} takes one name or FIRST{BETWEEN}LAST of: {printable(shown)}"
        f"{', ...' if len(known) > EXAMPLES else ''}",
    )


def _plain(name: str) -> str:
    """A name as it is typed: `stage 3` as `stage3`."""
    return name.replace(" ", "").lower()
