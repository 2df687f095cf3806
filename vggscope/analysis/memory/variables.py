"""How long Python's variables name a value: what no autograd keeps lives as long as that."""

from __future__ import annotations

from collections.abc import Sequence

from vggscope.analysis.memory.calls import Call


def last_reads(calls: Sequence[Call]) -> dict[str, int]:
    """For each value that these calls make, the position of the call behind which no variable names it any more.

    Where that was not seen, it is its last reader, or the end of a module that it went into: the caller holds its
    arguments until it returns. The last value is returned, so it is not among them.
    """
    last: dict[str, int] = {}
    made: dict[str, int] = {}
    frames: list[tuple[str, int, set[str]]] = []
    for position, call in enumerate(calls):
        path = _module(call.layer)
        _leave(frames, path, position - 1, last)
        frames += [(part, position, set()) for part in path[len(frames) :]]
        made[call.output] = last[call.output] = position
        for name in (*call.inputs, *call.holds):
            if name in made:
                last[name] = position
                for _, start, passed in frames:
                    if made[name] < start:
                        passed.add(name)
    _leave(frames, [], len(calls) - 1, last)
    ends = {call.layer: position for position, call in enumerate(calls) if call.layer}
    last.update({call.output: ends[call.named_until] for call in calls if call.named_until in ends})
    if calls:
        last.pop(calls[-1].output)
    return last


def _module(layer: str) -> list[str]:
    """The modules around a layer, from the outermost: a node's name is its path, with :2, :3... for further calls."""
    return layer.partition(":")[0].split(".")[:-1]


def _leave(frames: list[tuple[str, int, set[str]]], path: list[str], position: int, last: dict[str, int]) -> None:
    """Return from the modules that the next call is not in."""
    inside = 0
    while inside < min(len(frames), len(path)) and frames[inside][0] == path[inside]:
        inside += 1
    while len(frames) > inside:
        for name in frames.pop()[2]:
            last[name] = position
