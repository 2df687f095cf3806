"""A network as the calls that torch makes for it: which tensors each makes, and what autograd keeps of it.

Mostly a node is one call. A node that torch writes out in several (local response normalisation) is several, and
under autocast the casts of weights and activations are calls of their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

from vggscope.analysis.memory.allocation_log import BatchLinear
from vggscope.analysis.memory.step_config import Runtime
from vggscope.graph import INPUT, Network, Node, Parameter
from vggscope.ops.base import SavedTensors, Shape, numel
from vggscope.ops.constant import WithConstants
from vggscope.ops.elementwise import Elementwise
from vggscope.ops.linear import Linear
from vggscope.ops.view import Chunk, Select, Split
from vggscope.record import record

LOSS = "(loss)"
LOG_SOFTMAX = "(log-softmax)"
"""Names of values that no module has. The calls of the loss belong to no layer."""

HALF_OPS = frozenset(
    {
        *("Conv1d", "Conv2d", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "Linear"),
        *("matmul", "mm", "bmm", "addmm", "baddbmm", "einsum", "scaled_dot_product_attention", "MultiheadAttention"),
    }
)
"""What autocast runs in half precision."""

COPY = "@half"
"""What a weight's copy in half precision has behind its name."""

HALF = 2
SINGLE = 4
LABEL = 8
"""Bytes of a class label, an int64."""


@record
class Call:
    """One call: `inputs` and `output` are the names of values, `size` is the output's.

    `shares` tells that the output lies in the first input's memory. `keeps` are the values that autograd keeps, `extra`
    the further tensors that the call makes and autograd keeps, `copies` those that it makes for autograd alone,
    `passing` those that are gone with it. `named_until` is the layer behind which no variable names the output, where
    known. `gradient` is how an input's gradient is made of the output's: `new` memory, the `same` memory, a `part` of
    it, or `none`. `scratch` counts for each input the tensors of the output's size that are alive while its gradient is
    made, `reverse` tells that the last input's is made first. `sums` tells that gradients of parameters are made in the
    output's size and then summed up, `relays` that those of weights are made in another layout and then copied, `mixes`
    that inputs are made alike in size and width, so that a gradient comes in the output's size and is then fitted to
    its input's. `first_piece` is the output of the first of several calls that are one in torch, as the pieces of a
    `chunk` are: together their gradients make the input's. `holds` are values that a Python variable still names while
    this runs.
    """

    layer: str
    inputs: tuple[str, ...]
    output: str
    size: BatchLinear
    shares: bool = False
    keeps: tuple[str, ...] = ()
    extra: tuple[BatchLinear, ...] = ()
    copies: tuple[BatchLinear, ...] = ()
    passing: tuple[BatchLinear, ...] = ()
    named_until: str = ""
    gradient: str = "new"
    scratch: tuple[int, ...] = ()
    mixes: bool = False
    sums: bool = False
    relays: bool = False
    reverse: bool = False
    first_piece: str = ""
    holds: tuple[str, ...] = ()
    parameters: tuple[Parameter, ...] = ()


@record
class Program:
    """The calls in order, the sizes of their values, and the copies of weights that autocast holds until the loss."""

    calls: tuple[Call, ...]
    sizes: dict[str, BatchLinear]
    copies: tuple[str, ...]


class _Writer:
    def __init__(self, network: Network, width: int, runtime: Runtime, training: bool, autocast: bool) -> None:
        self.network, self.width, self.runtime = network, width, runtime
        self.training, self.autocast = training, autocast
        self.calls: list[Call] = []
        self.sizes: dict[str, BatchLinear] = {}
        self.widths: dict[str, int] = {}
        self.copies: dict[str, str] = {}
        self.pieces = _pieces(network)

    def add(self, call: Call, width: int) -> None:
        self.calls.append(call)
        self.sizes[call.output] = call.size
        self.widths[call.output] = width

    def node(self, node: Node) -> None:
        """The calls of one node."""
        steps = node.op.kernel_calls(self.network.output_shape(node))
        if not steps:
            self.one(node)
            return
        names = [*node.inputs]
        for position, step in enumerate(steps, 1):
            output = node.name if position == len(steps) else f"{node.name}#{position}"
            inputs, width = self.inputs(step.function, tuple(names[i] for i in step.inputs), node.name)
            kept = tuple(inputs[i] for i in step.keeps)
            self.add(
                Call(
                    node.name,
                    inputs,
                    output,
                    self.line(node, step.shape, width),
                    shares=step.shares,
                    keeps=kept,
                    gradient="none" if node.detached else "same" if step.passes_gradient else "new",
                    scratch=step.scratch,
                    reverse=True,
                    # A caller names what it passed in, not autocast's copy of it.
                    holds=tuple(names[i] for i in (*step.inputs, *step.holds)),
                    named_until=node.named_until if position == len(steps) else "",
                ),
                width,
            )
            names.append(output)

    def one(self, node: Node) -> None:
        """The one call of a node, with autocast's casts before it."""
        op = node.op
        shape = self.network.output_shape(node)
        idle = op.active_in == "training" and not self.training
        kept = op.saved_for_backward(self.network.input_shapes(node), shape)
        parameters = node.parameters
        casts: tuple[str, ...] = ()
        if self.autocast and op.name in HALF_OPS:
            casts = tuple(self.copy(node.name, parameter) for parameter in reversed(parameters))
            parameters = ()
        # A parameter among the inputs is in float32.
        learned = isinstance(op, WithConstants) and len(parameters) > len(op.parameters())
        inputs, width = self.inputs(op.name, node.inputs, node.name, SINGLE if learned else 0)
        width = op.element_bytes or width
        arithmetic = op.op if isinstance(op, WithConstants) else op
        size = self.line(node, shape, width)
        apart = isinstance(op, Linear) and op.apart and op.bias and not self.runtime.adds_in_place
        output = f"{node.name}#products" if apart else node.name
        self.add(
            Call(
                node.name,
                (*inputs, *reversed(casts)),
                output,
                size,
                shares=idle or not op.allocates,
                keeps=(
                    *(inputs[i] for i in kept.inputs),
                    *(cast for cast, p in zip(casts, reversed(node.parameters)) if len(p.shape) > 1),
                    *((node.name,) if kept.output else ()),
                ),
                extra=() if idle else tuple(self.beside(node, kept, width)),
                copies=() if idle else tuple(self.line(node, shape, width) for shape in kept.copies),
                passing=() if idle else tuple(self.line(node, shape, width) for shape in kept.passing),
                named_until="" if apart else node.named_until,
                gradient="none" if node.detached else "same" if idle else op.gradient,
                # Where torch repeats or widens an operand, its gradient is made in the output's size and then summed.
                first_piece=self.pieces.get(node.name, ""),
                mixes=isinstance(arithmetic, Elementwise),
                sums=op.sums_gradients,
                relays=op.relays_gradients,
                reverse=isinstance(arithmetic, Elementwise),
                parameters=parameters,
                holds=node.inputs,
            ),
            width,
        )
        if apart:
            gradient = "none" if node.detached else "same"
            added = Call(node.name, (output,), node.name, size, named_until=node.named_until, gradient=gradient)
            self.add(replace(added, holds=node.inputs), width)

    def line(self, node: Node, shape: Shape, width: int) -> BatchLinear:
        """The size of a tensor that a node makes: once, or for each sample."""
        if node.name in self.network.batchless:
            return BatchLinear(numel(shape) * width, 0)
        return per_sample(shape, width)

    def beside(self, node: Node, kept: SavedTensors, width: int) -> Iterator[BatchLinear]:
        """What a call makes beside its output."""
        for shape, own in kept.extra:
            yield self.line(node, shape, own or width)
        for shape in kept.masks:
            yield self.line(node, shape, self.runtime.mask_width or width)
        if self.training:
            for shape in kept.statistics:
                yield BatchLinear(numel(shape) * max(width, self.runtime.statistics_width), 0)

    def inputs(self, function: str, names: tuple[str, ...], layer: str, least: int = 0) -> tuple[tuple[str, ...], int]:
        """The inputs as the call gets them, and the width of what it gives, `least` or more if autocast leaves it."""
        if not self.autocast:
            return names, self.width
        widest = max((least, *(self.widths[name] for name in names))) or SINGLE
        if function in HALF_OPS:
            wanted = HALF
        elif function in self.runtime.float32_ops:
            wanted = SINGLE
        elif function in self.runtime.widened_ops:
            wanted = widest
        else:
            return names, widest
        return tuple(self.cast(name, wanted, layer) for name in names), wanted

    def cast(self, name: str, width: int, layer: str) -> str:
        """An activation in another width: a new tensor for each reader."""
        if self.widths[name] == width:
            return name
        size = self.sizes[name]
        scaled = BatchLinear(size.fixed * width // self.widths[name], size.per_sample * width // self.widths[name])
        copy = f"{name}@{layer}"
        self.add(Call(layer, (name,), copy, scaled), width)
        return copy

    def copy(self, layer: str, parameter: Parameter) -> str:
        """A weight's copy in half precision: made once, held until autocast ends."""
        if parameter.name not in self.copies:
            name = parameter.name + COPY
            self.add(
                Call(layer, (), name, BatchLinear(numel(parameter.shape) * HALF, 0), parameters=(parameter,)), HALF
            )
            self.copies[parameter.name] = name
        return self.copies[parameter.name]

    def loss(self) -> None:
        """The cross-entropy of the network's output with int64 labels: log-soft-max, then the mean of its picks."""
        logits = self.network.end
        (scores,), width = self.inputs("cross_entropy", (logits,), "")
        self.add(Call("", (scores,), LOG_SOFTMAX, self.sizes[scores], keeps=(LOG_SOFTMAX,)), width)
        scalar = BatchLinear(width, 0)
        held = tuple(dict.fromkeys((logits, scores)))
        self.add(Call("", (LOG_SOFTMAX,), LOSS, scalar, keeps=(LOG_SOFTMAX,), extra=(scalar,), holds=held), width)


def _pieces(network: Network) -> dict[str, str]:
    """For each piece of a tensor that one call cut up, the first of them that is read."""
    found: dict[str, str] = {}
    before: Node | None = None
    for node in network.nodes:
        if isinstance(node.op, (Chunk, Split, Select)) and not node.name.rpartition(".")[2].startswith("select"):
            same = before is not None and before.inputs == node.inputs and _position(before) < _position(node)
            found[node.name] = found[before.name] if same and before is not None else node.name
            before = node
        else:
            before = None
    return found


def _position(node: Node) -> int:
    assert isinstance(node.op, (Chunk, Split, Select))
    return node.op.position


def per_sample(shape: Shape, width: int) -> BatchLinear:
    """The size of a tensor that each sample has one of."""
    return BatchLinear(0, numel(shape) * width)


def labels(network: Network) -> BatchLinear:
    """The class labels: one for each position of the output, whose axis 1 holds the classes."""
    shape = network.shapes[network.end]
    return BatchLinear(0, numel(shape) // shape[1] * LABEL if len(shape) > 1 else LABEL)


def program(network: Network, width: int, runtime: Runtime, *, training: bool, autocast: bool, loss: bool) -> Program:
    """The calls of one forward pass; `width` is the bytes of one element of the weights and the input."""
    writer = _Writer(network, width, runtime, training, autocast)
    writer.sizes[INPUT] = per_sample(network.input_shape, width)
    writer.widths[INPUT] = width
    for node in network.nodes:
        writer.node(node)
    if loss:
        writer.loss()
    return Program(tuple(writer.calls), writer.sizes, tuple(writer.copies.values()))


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


def head_parameters(network: Network) -> frozenset[str]:
    """The names of the parameters behind the last layer that makes the map smaller: VGG's FC layers, a ResNet's `fc`.

    Where there are none behind it, those of the last layer with parameters.
    """
    start = 0
    for position, node in enumerate(network.nodes):
        before = [_area(shape) for shape in network.input_shapes(node)]
        if before and 0 < _area(network.output_shape(node)) < max(before):
            start = position + 1
    owned = [node.parameters for node in network.nodes[start:] if node.parameters]
    if not owned:
        owned = [node.parameters for node in network.nodes if node.parameters][-1:]
    return frozenset(p.name for parameters in owned for p in parameters)


def stages(network: Network, calls: Sequence[Call]) -> tuple[range, ...]:
    """The calls of each stage that checkpointing recomputes from one tensor.

    A stage ends at the first place where the map has become smaller and one tensor is all that later calls read of
    earlier ones. What stands behind the last such place is the head and in no stage.
    """
    found: list[range] = []
    start, area = 0, _area(network.input_shape)
    for position in _crossings(calls):
        now = _area(network.shapes.get(calls[position].output, ()))
        if 0 < now < area:
            found.append(range(start, position + 1))
            start, area = position + 1, now
    return tuple(found)


def _area(shape: Shape) -> int:
    """Pixels of a map; 0 for what is no map."""
    return numel(shape[2:]) if len(shape) == 4 else 0


def _crossings(calls: Sequence[Call]) -> Iterator[int]:
    """The positions behind which only that call's output is read, and is not overwritten."""
    last = {name: position for position, call in enumerate(calls) for name in call.inputs}
    needed_until = last.get(INPUT, -1)
    for position, (call, following) in enumerate(pairwise(calls)):
        overwritten = following.shares and following.gradient == "new"
        if needed_until <= position and not overwritten:
            yield position
        needed_until = max(needed_until, last.get(call.output, -1))
