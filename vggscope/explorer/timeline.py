"""The memory of a step as the page takes it: every moment's bytes as lines over the batch, so that the page can put in
a batch by itself.

An optimizer keeps the same from the step's first moment to its last, and what it takes for its step does not grow with
the batch: a walk is made once for each mode and dtype, with plain SGD, and each optimizer adds two numbers to it.
"""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.analysis.memory.allocation_log import KINDS, Lines, Trace
from vggscope.analysis.memory.report import assumptions
from vggscope.analysis.memory.simulate import simulate_step
from vggscope.analysis.memory.step_config import MODES, OPTIMIZERS, StepConfig
from vggscope.graph import Network

WALKS = {"float32": "float32", "float16": "float16", "bfloat16": "float16", "amp": "amp"}
"""The dtypes that the page offers, each with the one whose walk it shares: the same bytes an element."""

WEIGHTS = {"float32": "float32", "float16": "float16", "bfloat16": "float16", "amp": "float32"}
"""The same for what an optimizer keeps and takes, which is as wide as the weights."""

STEP = "optimizer step"

EVENTS = ("start", "forward", "loss", "recompute", "backward", STEP)
"""What a moment can belong to."""


def timelines(network: Network) -> dict[str, object]:
    """`walks` by mode and dtype: the moments of a step with plain SGD, each [event, layer, and then for each kind that
    has changed: kind, fixed bytes, bytes a sample]. `optimizers` by mode and dtype, and by name: [bytes of the states,
    bytes taken at the height of the step, the layer it is at]. `restsOn` by mode, optimizer and dtype: the numbers of
    the sentences in `assumptions`.
    """
    places = {node.name: place for place, node in enumerate(network.nodes)}
    for node in network.nodes:
        places.setdefault(node.module or node.name, places[node.name])
    bare = {
        f"{mode}/{dtype}": simulate_step(network, StepConfig(mode=mode, optimizer="sgd", dtype=dtype))
        for mode in MODES
        for dtype in dict.fromkeys(WALKS.values())
    }
    return {
        **_assumptions(network),
        "kinds": KINDS,
        "modes": MODES,
        "events": EVENTS,
        "walkOf": WALKS,
        "weightsOf": WEIGHTS,
        "walks": {name: list(_changes(found, places)) for name, found in bare.items()},
        "optimizers": {
            f"{mode}/{dtype}": {
                name: _own(simulate_step(network, StepConfig(mode=mode, optimizer=name, dtype=dtype)), places)
                for name in OPTIMIZERS
            }
            for mode in MODES
            for dtype in dict.fromkeys(WEIGHTS.values())
            if mode != "inference"
        },
    }


def _assumptions(network: Network) -> dict[str, object]:
    sentences: dict[str, int] = {}
    rests_on = {
        f"{mode}/{optimizer}/{dtype}": [
            sentences.setdefault(text, len(sentences))
            for text in assumptions(network, StepConfig(mode=mode, optimizer=optimizer, dtype=dtype), 1)
        ]
        for mode in MODES
        for optimizer in OPTIMIZERS
        for dtype in WALKS
    }
    return {"assumptions": list(sentences), "restsOn": rests_on}


def _own(found: Trace, places: dict[str, int]) -> list[int]:
    """What an optimizer adds to a step."""
    states = found.moments[0].alive[KINDS.index("optimizer")].fixed
    height = max((moment for moment in found.moments if moment.event == STEP), key=lambda moment: moment.total.fixed)
    return [states, height.alive[KINDS.index("temporary")].fixed, places.get(height.layer, -1)]


def _changes(found: Trace, places: dict[str, int]) -> Iterator[list[int]]:
    """Each moment by what has changed since the one before; the first since nothing was there."""
    before: Lines = ()
    for moment in found.moments:
        told = [EVENTS.index(moment.event), places.get(moment.layer, -1)]
        for kind, line in enumerate(moment.alive):
            fixed, per_sample = before[kind] if before else (0, 0)
            if (line.fixed, line.per_sample) != (fixed, per_sample):
                told += [kind, line.fixed - fixed, line.per_sample - per_sample]
        before = moment.alive
        yield told
