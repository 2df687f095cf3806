"""A Network as the compressed text of an entry, with what other files leave out, and back, exactly.

A text creates the records of graph_json.py and recorded steps, with values of the types that their fields declare, and
nothing else.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from types import NoneType
from typing import Any

from vggscope.graph import CodePosition, Network, Node
from vggscope.graph_json import check_order, decode, encode
from vggscope.record import changed
from vggscope.recorded_step import RecordedStep, StepRequest, StorageEvent

LARGEST_TEXT = 64 * 2**20
"""The largest text of a Network, in bytes. That of the largest known model has a tenth of it."""

_REQUEST: dict[str, type | tuple[type, ...]] = {
    "trains": bool,
    "dtype": (str, NoneType),
    "samples": (int, NoneType),
    "for_any_batch": bool,
    "passes": int,
    "on_gpu": bool,
}
"""The fields of a StepRequest, with their types."""

_NESTED = ("in_training", "training_step")
"""The fields of a Network that hold another one."""

_POSITION = [str, int, int, int, int]
"""The types of a CodePosition's fields."""

_EVENT = [str, str, int, str, int, int, bool]
"""The types of a StorageEvent's fields."""


def packed(network: Network) -> bytes:
    """Return a Network as compressed JSON. Raises ValueError if it would not read back as it is."""
    text = _text(_values(network))
    if len(text) > LARGEST_TEXT or _text(_values(_network(json.loads(text)))) != text:
        raise ValueError(f"{network.name} is too large, or reads back as another network")
    return zlib.compress(text.encode())


def unpacked(data: bytes) -> Network:
    """Return the Network that `packed` wrote. Raises ValueError, or another error of decoding, for any other data.

    >>> from vggscope.sources.resolve import resolve
    >>> unpacked(packed(resolve("A"))) == resolve("A")
    True
    """
    reader = zlib.decompressobj()
    try:
        text = reader.decompress(data, LARGEST_TEXT)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if not reader.eof or reader.unused_data:
        raise ValueError("the data are cut off, or too large")
    return _network(json.loads(text))


def _text(values: object) -> str:
    return json.dumps(values, separators=(",", ":"))


def _values(network: Network) -> dict[str, object]:
    if network.failure is not None:
        raise ValueError(f"{network.name} fails")
    return {
        "network": encode(replace(network, steps=())),
        "steps": [_step_values(step) for step in network.steps],
        "positions": {
            node.name: [node.built_at, node.called_at] for node in network.nodes if node.position is not None
        },
        **{name: _values(other) if (other := getattr(network, name)) is not None else None for name in _NESTED},
        "answers_any": network.answers_any,
    }


def _network(values: Any) -> Network:
    if not isinstance(values, dict) or values.keys() != {"network", "steps", "positions", *_NESTED, "answers_any"}:
        raise ValueError("it has other parts")
    network = decode(Network, values["network"])
    assert isinstance(network, Network)
    check_order(network)
    _require(network.failure is None and type(values["answers_any"]) is bool)
    _require(len(network.shapes) > 0)  # the property raises ShapeError for layers that do not fit each other
    in_training, training_step = (None if values[name] is None else _network(values[name]) for name in _NESTED)
    return replace(
        network,
        nodes=_with_positions(network.nodes, values["positions"]),
        steps=tuple(map(_step, values["steps"])),
        in_training=in_training,
        training_step=training_step,
        answers_any=values["answers_any"],
    )


def _with_positions(nodes: tuple[Node, ...], positions: Any) -> tuple[Node, ...]:
    """Return the nodes with their calls in the user's code."""
    _require(isinstance(positions, dict) and positions.keys() <= {node.name for node in nodes})
    if not positions:
        return nodes

    def calls(rows: Any) -> tuple[CodePosition, ...]:
        _require(isinstance(rows, list) and all([type(value) for value in row] == _POSITION for row in rows))
        return tuple(CodePosition(*row) for row in rows)

    def with_positions(node: Node) -> Node:
        if node.name not in positions:
            return node
        built_at, called_at = map(calls, positions[node.name])
        return changed(node, built_at=built_at, called_at=called_at)

    return tuple(map(with_positions, nodes))


def _step_values(step: RecordedStep) -> dict[str, object]:
    return {
        "request": [getattr(step.request, name) for name in _REQUEST],
        "samples": step.samples,
        "dtype": step.dtype,
        "events": [list(event) for event in step.events],
        "trained": list(step.trained),
        "replaced": sorted(step.replaced),
    }


def _step(values: Any) -> RecordedStep:
    _require(isinstance(values, dict) and values.keys() == set(RecordedStep.__dataclass_fields__))
    request, samples, dtype = values["request"], values["samples"], values["dtype"]
    _require(len(request) == len(_REQUEST))
    _require(all(isinstance(value, kinds) for value, kinds in zip(request, _REQUEST.values())))
    _require(isinstance(samples, (int, NoneType)) and isinstance(dtype, str))
    names = values["trained"], values["replaced"]
    _require(all(isinstance(name, str) for name in chain(*names)))
    events = tuple(map(_event, values["events"]))
    return RecordedStep(StepRequest(*request), samples, dtype, events, tuple(names[0]), frozenset(names[1]))


def _event(row: Sequence[Any]) -> StorageEvent:
    _require([type(value) for value in row] == _EVENT)
    return StorageEvent(*row)


def _require(holds: bool) -> None:
    """Raise ValueError unless a condition holds."""
    if not holds:
        raise ValueError("a value is of another type")
