"""The memory of a step as the page's script reads it: bytes as lines over the batch, so that a reader can change it."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.analysis.memory.allocation_log import KINDS, Moment
from vggscope.analysis.memory.settings import OPTIMIZER_STEP, SIMULATED_AS, WEIGHTS_AS, step_memory
from vggscope.analysis.memory.step_config import MODES
from vggscope.graph import Network

EVENTS = ("start", "forward", "loss", "recompute", "backward", OPTIMIZER_STEP)
"""The events of a moment."""


def timelines(network: Network) -> dict[str, object]:
    """Return the data of `step_memory` in few numbers.

    `walks` by mode and dtype: each moment as [event, layer, then kind, fixed bytes, bytes per sample for each kind that
    has changed]. `optimizers` by mode and dtype, and by name: [bytes of the states, temporary bytes at the peak of the
    optimizer's step, its layer]. `restsOn` by mode, optimizer and dtype: indices into `assumptions`. A layer is its
    place in the network, -1 for none.
    """
    memory = step_memory(network)
    places = {node.name: place for place, node in enumerate(network.nodes)}
    for node in network.nodes:
        places.setdefault(node.module or node.name, places[node.name])
    optimizers: dict[str, dict[str, list[int]]] = {}
    for (mode, dtype, name), added in memory.optimizers.items():
        numbers = [added.states, added.temporary, places.get(added.layer, -1)]
        optimizers.setdefault(f"{mode}/{dtype}", {})[name] = numbers
    sentences: dict[str, int] = {}
    rests_on = {
        "/".join(setting): [sentences.setdefault(text, len(sentences)) for text in texts]
        for setting, texts in memory.assumptions.items()
    }
    return {
        "assumptions": list(sentences),
        "restsOn": rests_on,
        "kinds": KINDS,
        "modes": MODES,
        "events": EVENTS,
        "walkOf": SIMULATED_AS,
        "weightsOf": WEIGHTS_AS,
        "walks": {"/".join(setting): list(_changes(moments, places)) for setting, moments in memory.moments.items()},
        "optimizers": optimizers,
    }


def _changes(moments: tuple[Moment, ...], places: dict[str, int]) -> Iterator[list[int]]:
    """Each moment as the difference to the one before it; the first as the difference to nothing."""
    before = [(0, 0)] * len(KINDS)
    for moment in moments:
        numbers = [EVENTS.index(moment.event), places.get(moment.layer, -1)]
        for kind, line in enumerate(moment.alive):
            fixed, per_sample = before[kind]
            if (line.fixed, line.per_sample) != (fixed, per_sample):
                numbers += [kind, line.fixed - fixed, line.per_sample - per_sample]
        before = [(line.fixed, line.per_sample) for line in moment.alive]
        yield numbers
