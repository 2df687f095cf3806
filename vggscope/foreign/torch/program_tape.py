"""A program that was read, as the calls of torch's functions that compute it.

Only functions that vggscope knows are called, by names of its own tables: nothing of the file's code runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from vggscope.builders.graph_module import OPERATOR, GraphStep, GraphTape, refusal
from vggscope.foreign.aten import FREE, MAKERS, FunctionCall
from vggscope.foreign.program import Program, ProgramCall, has_no_rule
from vggscope.foreign.values import ProgramValue, values_in
from vggscope.graph import Network, Node
from vggscope.ops.base import DtypeArgument, TensorArgument, TorchCall, call_of, numel
from vggscope.ops.elementwise import COPIES, KEEPS
from vggscope.ops.recorded import RANDOM
from vggscope.trace.function_table import CREATIONS, FUNCTIONS, WITHOUT_MACS
from vggscope.units import DTYPE_BYTES

LARGEST_CONSTANT = 2**28
"""The most elements of a constant that a program computes: a GiB of numbers."""

CREATED = frozenset({"zeros", "ones", "full", "arange", "eye", "linspace", "scalar_tensor"})
"""Functions that make a tensor of no other."""

FUNCTIONS_CALLED = frozenset({*MAKERS, *FUNCTIONS, *KEEPS, "tensor"}) - RANDOM
"""The functions that are called with the arguments in the file, if no op tells what they compute."""

OPERATORS_CALLED = frozenset({*FREE, *WITHOUT_MACS, *CREATIONS, *CREATED}) - RANDOM - {"setitem"}
"""The operators of torch.ops.aten that are called likewise."""

CONVERTING = COPIES - {"clone", "contiguous", "zero", "fill"}

WITHOUT_EFFECT = frozenset({"layout", "device", "pin_memory", "memory_format", "non_blocking", "generator", "implicit"})
"""Arguments on which no value depends."""


def program_tape(
    network: Network,
    program: Program,
    inputs: Sequence[ProgramValue],
    held: Iterable[tuple[ProgramValue, str]],
    outputs: Sequence[ProgramValue],
) -> GraphTape:
    """The calls that compute what a program returns and the network's nodes.

    `held` are the tensors of the file, with their keys. Raises ModelError for a constant that is larger than any.
    """
    slots = _Slots({id(one): other for one, other in program.same})
    tensors = [(slots.of(value), value, key) for value, key in held]
    named = {slots.of(value): key for _, value, key in tensors}
    steps = [step for call in program.calls for step in _steps(network, program, call, slots)]
    returned = tuple(slots.of(value) for value in outputs)
    counters = {slot for slot, value, _ in tensors if not value.shape}
    kept = _needed(network, steps, returned, counters)
    read = {slot for step in kept for slot in step.operands} | set(returned)
    shapes = {key: value.shape for slot, value, key in tensors if slot in read}
    return GraphTape(
        network,
        tuple(slots.of(value) for value in inputs),
        {slot: key for slot, key in named.items() if slot in read},
        {},
        shapes,
        {key: value.dtype for _, value, key in tensors},
        frozenset(parameter.name for parameter in network.parameters()),
        tuple(kept),
        returned,
    )


@dataclass
class _Slots:
    """A number for each tensor, the same for those that are one. `same` has the tensor that another is, by identity."""

    same: dict[int, ProgramValue]
    numbers: dict[int, int] = field(default_factory=dict)

    def of(self, value: ProgramValue) -> int:
        while id(value) in self.same:
            value = self.same[id(value)]
        return self.numbers.setdefault(id(value), len(self.numbers))


def _steps(network: Network, program: Program, read: ProgramCall, slots: _Slots) -> Iterable[GraphStep]:
    """The steps of a call: one, or one for each piece that it cuts a tensor into."""
    nodes = [program.nodes.get(name) for name in read.nodes]
    results = tuple(slots.of(result) for result in read.results)
    if len(read.ops) == len(results) > 1:
        for node, result, slot in zip(nodes, read.results, results):
            if node is not None and node.name in network.by_name:
                yield _step(read, node, (slot,), result.dtype, slots)
        return
    constant = max((numel(result.shape) for result in read.results), default=0)
    if nodes[0] is None and constant > LARGEST_CONSTANT:
        raise refusal(network, read.call.name, f"makes a constant of {constant} elements")
    yield _step(read, nodes[0], results, read.results[0].dtype, slots)


def _step(read: ProgramCall, node: Node | None, results: tuple[int, ...], dtype: str, slots: _Slots) -> GraphStep:
    op = None if node is None else node.op.without_constants
    is_told = op is not None and not has_no_rule(op)
    operands = (*read.inputs, *read.weights) if is_told else values_in((read.call.args, read.call.kwargs))
    return GraphStep(
        read.call.name if node is None else node.title,
        op if is_told else None,
        None if is_told else _call(read.call, operands),
        tuple(map(slots.of, operands)),
        results,
        read.nodes if len(results) == len(read.nodes) else ("" if node is None else node.name,),
        len(read.weights) if is_told else 0,
        dtype,
        read.call.name,
    )


def _call(call: FunctionCall, operands: Sequence[ProgramValue]) -> TorchCall | None:
    """A call of a function without an op; None for one that vggscope does not know, or that draws random numbers."""
    if call.name in CONVERTING:
        return call_of("to", DtypeArgument())
    if call.name in FUNCTIONS_CALLED:
        name = call.name
    elif call.name in OPERATORS_CALLED:
        name = f"{OPERATOR}{call.name}"
    else:
        return None
    places = {id(value): TensorArgument(place) for place, value in enumerate(operands)}

    def given(value: Any) -> Any:
        if isinstance(value, ProgramValue):
            return places[id(value)]
        if isinstance(value, (tuple, list)):
            return tuple(map(given, value))
        return DtypeArgument(value) if isinstance(value, str) and value in DTYPE_BYTES else value

    args = tuple(given(value) for value in call.args if not (isinstance(value, str) and value in WITHOUT_EFFECT))
    kwargs = {name: value for name, value in call.kwargs.items() if name not in WITHOUT_EFFECT and value is not None}
    if isinstance(kwargs.get("dtype"), int):
        kwargs["dtype"] = DtypeArgument()  # a number of TorchScript: that of the result
    return TorchCall(name, args, tuple((name, given(value)) for name, value in kwargs.items()), None, call.in_place)


def _needed(
    network: Network, steps: Sequence[GraphStep], returned: tuple[int, ...], counters: set[int]
) -> list[GraphStep]:
    """The steps on which a node or what is returned depends; also those that write to a constant but the `counters`."""
    needed, kept = set(returned), []
    for step in reversed(steps):
        is_node = any(name in network.by_name for name in step.nodes)
        writes = step.call is not None and step.call.in_place and step.operands[0] not in counters
        if is_node or writes or not needed.isdisjoint(step.results):
            needed.update(step.operands)
            kept.append(step)
    return kept[::-1]
