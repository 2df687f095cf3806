"""The one thing that every source makes and every analysis reads.

A Network is a frozen graph of named operations in execution order. It holds no tensors and knows no torch; it is
worked out for a batch of one, and every figure that grows with the batch is multiplied by it later.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field, replace
from functools import cached_property

from vggscope import result
from vggscope.errors import ShapeError, VggscopeError, printable
from vggscope.ops.base import Op, Shape, infer_output_shape, numel
from vggscope.record import record
from vggscope.units import count_text, shape_text

INPUT = "input"
"""The name under which a node refers to the network's own input."""

MOST_DRAWN = 500
"""How many layers a notebook draws unasked."""

LARGEST_SIDE = 1024
"""Where the search for the smallest input that fits gives up, in pixels."""

LARGEST_SEARCH = 10**6
"""How many layers that search passes in all: a deep network is not tried at as many sizes."""


@record
class Parameter:
    """A learned tensor, by its key in the state dict. Two nodes that name the same key share it."""

    name: str
    shape: Shape
    trainable: bool = True


@record
class Buffer:
    """A tensor that a module keeps and does not learn, by its key. `element_bytes` are those of one value; None where
    it is of the network's own type.
    """

    name: str
    shape: Shape
    element_bytes: int | None = None


@record
class Node:
    """One call of one operation.

    `name` is unique in its network: the module's path where a module was called. `module` is that path, or None for a
    function's call. `label` is the literature's name (conv1_1), or empty. `inputs` name earlier nodes, or INPUT.
    `named_until` is the last node that runs while a Python variable still names this one's output, where that was
    seen: for memory alone. `growth` is by how much each axis of the output grows with each further sample of a batch,
    None for the usual, the first axis by its own size; what an `irregular` one costs does not grow along. `several` is
    the op for more than one sample, where torch then lays its tensors out otherwise: for memory alone. `detached` is
    whether forward runs it under torch.no_grad, `made` whether it reads a tensor that forward makes of no activation.
    """

    name: str
    op: Op
    inputs: tuple[str, ...]
    module: str | None = None
    label: str = ""
    parameters: tuple[Parameter, ...] = ()
    named_until: str = field(default="", compare=False, repr=False)
    batch_growth: Shape | None = field(default=None, compare=False, repr=False)
    irregular: bool = field(default=False, compare=False, repr=False)
    batched_op: Op | None = field(default=None, compare=False, repr=False)
    detached: bool = field(default=False, repr=False)
    reads_computed_weight: bool = field(default=False, compare=False, repr=False)

    @property
    def passes_gradient(self) -> bool:
        """Whether a gradient goes back through it, to what it reads and to its own weights."""
        return not self.detached and self.op.gradient != "none"

    @property
    def title(self) -> str:
        """Path and label as a message names the layer: `features.0 (conv1_1)`; one of them where both are the same."""
        return f"{self.name} ({self.label})" if self.label not in ("", self.name) else self.name


def module_node(path: str, op: Op, source: str, label: str = "") -> Node:
    """A node for a module at `path`, its parameters named below that path."""
    parameters = tuple(Parameter(f"{path}.{name}", shape) for name, shape in op.parameters().items())
    return Node(path, op, (source,), path, label, parameters)


def channels_first(shape: Shape) -> str | None:
    """What would work where an input was given as height x width x channels, as image files have it, else None.

    >>> channels_first((1, 224, 200, 3))
    '--input is channels x height x width: 3x224x200'
    """
    _, *sides, channels = shape
    if len(shape) != 4 or channels not in (1, 3) or min(sides) <= channels:
        return None
    return f"--input is channels x height x width: {shape_text((1, channels, *sides))}"


@record
class Network:
    """A graph of nodes in execution order; each node's inputs stand before it.

    `input_shape` is batch (1), channels, height, width. `unused` are the parameters that no executed node owns, with
    the reason; `warnings` are what the source wants its reader to know. `failure` tells where and why a forward pass
    broke off: the nodes are then those up to there, and `failed` is the layer that it was, if it was one. `single`
    tells why nothing is known of a larger batch, if that is so. `output` is the node that gives the network's output,
    where that is not the last: of several tensors that forward returns the one that the most weights went into, of
    those the first; it is the one at `output_place` among them. `tables` are the buffers that are no node's: of layers
    that do not run, and what a forward looks up.
    """

    name: str
    input_shape: Shape
    nodes: tuple[Node, ...]
    unused: tuple[tuple[Parameter, str], ...] = ()
    warnings: tuple[str, ...] = ()
    failure: str | None = None
    failed: Node | None = None
    single: str | None = None
    output: str | None = None
    output_place: int = 0
    tables: tuple[Buffer, ...] = field(default=(), compare=False, repr=False)

    def __repr__(self) -> str:
        params = count_text(sum(numel(parameter.shape) for parameter in self.parameters()))
        layers = f"{len(self.nodes)} layers" + (", then it breaks off" if self.failure is not None else "")
        return f"<Network {printable(self.name)} at {shape_text(self.input_shape)}: {layers}, {params} parameters>"

    def _repr_svg_(self) -> str | None:
        """Its picture, for a notebook; None, so that its line is shown, where it has none or too large a one."""
        if len(self.nodes) > MOST_DRAWN:
            return None
        try:
            return result.presentation().diagram(self)._repr_svg_()
        except VggscopeError:
            return None

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Each node's output shape, by name, the input's among them.

        Raises ShapeError, naming the layer and a size that fits, where a layer does not fit what it meets.

        >>> import vggscope
        >>> vggscope.network("D").shapes["features.0"]
        (1, 64, 224, 224)
        """
        shapes, problem = self._inferred
        if problem is not None:
            raise ShapeError(f"{problem}; the network's input is {shape_text(self.input_shape)}", self._way_out())
        return shapes

    @cached_property
    def _inferred(self) -> tuple[dict[str, Shape], str | None]:
        return self._infer(self.input_shape)

    def _infer(self, input_shape: Shape) -> tuple[dict[str, Shape], str | None]:
        """The shapes up to the first layer that does not fit what it meets, and which it is and why."""
        shapes = {INPUT: input_shape}
        for node in self.nodes:
            try:
                shapes[node.name] = infer_output_shape(node.op, *(shapes[name] for name in node.inputs))
            except ShapeError as error:
                return shapes, f"{node.title}: {error.problem}"
        return shapes, None

    def _way_out(self) -> str:
        turned = channels_first(self.input_shape)
        if turned is not None:
            return turned
        channels = self.input_shape[1]
        side = self.smallest_side()
        if side is None:
            return f"no square input up to {channels}x{self._largest_tried()}x{self._largest_tried()} fits this network"
        return f"the smallest square input that fits is --input {channels}x{side}x{side}"

    def smallest_side(self) -> int | None:
        """The side in pixels of the smallest square input that passes every layer, or None where none was found.

        >>> import vggscope
        >>> vggscope.network("D").smallest_side()
        32
        """
        return next((side for side in range(1, self._largest_tried() + 1) if self._fits(side)), None)

    def _largest_tried(self) -> int:
        return min(LARGEST_SIDE, LARGEST_SEARCH // (len(self.nodes) + 1))

    def _fits(self, side: int) -> bool:
        return self._infer((*self.input_shape[:2], side, side))[1] is None

    def broken_off(self) -> tuple[str, ...]:
        """That the forward pass breaks off, and where, for the reader of what is known up to there; else nothing.

        >>> import vggscope
        >>> vggscope.network("D").broken_off()
        ()
        """
        return (f"it breaks off here: {self.failure}",) if self.failure is not None else ()

    def require_runnable(self) -> Network:
        """The network itself; raises ShapeError, naming the layer, for one whose forward pass breaks off.

        >>> import vggscope
        >>> vggscope.network("D").require_runnable().failure is None
        True
        """
        if self.failure is not None:
            raise ShapeError(f"{self.name} breaks off: {self.failure}", "--input gives another size")
        return self

    def truncated_at_failure(self) -> Network:
        """The network up to the first layer that does not fit what it meets, which `failure` then tells; the network
        itself where all fit.

        >>> import vggscope
        >>> vggscope.network("D", (3, 8, 8)).truncated_at_failure().failure
        'features.23 (pool4): a window of 2x2 does not fit its input of 1x1'
        """
        shapes, failure = self._inferred
        if failure is None:
            return self
        nodes, rest = self.nodes[: len(shapes) - 1], self.nodes[len(shapes) - 1 :]
        ran = {parameter.name for node in nodes for parameter in node.parameters}
        left = {p.name: p for node in rest for p in node.parameters if p.name not in ran}
        unused = (*((parameter, "behind the layer that failed") for parameter in left.values()), *self.unused)
        return replace(self, nodes=nodes, unused=unused, failure=failure, failed=rest[0], output=None)

    def with_input(self, shape: tuple[int, ...]) -> Network:
        """The same layers on an input of channels x height x width.

        >>> import vggscope
        >>> vggscope.network("D").with_input((3, 64, 64)).shapes["features.30"]
        (1, 512, 2, 2)
        """
        return replace(self, input_shape=(1, *shape))

    def input_shapes(self, node: Node) -> tuple[Shape, ...]:
        """The shapes that a node meets.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.input_shapes(network.nodes[0])
        ((1, 3, 224, 224),)
        """
        return tuple(self.shapes[name] for name in node.inputs)

    def output_shape(self, node: Node) -> Shape:
        """The shape that a node gives.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.output_shape(network.nodes[0])
        (1, 64, 224, 224)
        """
        return self.shapes[node.name]

    def batched(self, name: str, batch: int) -> Shape:
        """The shape of a node's output, or of the input, for a batch of that many; raises as `allow` does.

        >>> import vggscope
        >>> vggscope.network("D").batched("features.0", 32)
        (32, 64, 224, 224)
        """
        self.require_batch(batch)
        shape, node = self.shapes[name], self.by_name.get(name)
        if batch == 1 or not shape:
            return shape
        if node is None or node.batch_growth is None:
            return (shape[0] * batch, *shape[1:])
        return tuple(size + (batch - 1) * more for size, more in zip(shape, node.batch_growth))

    def for_batch(self, batch: int) -> Network:
        """The network with its ops as they lay their tensors out for a batch of that many.

        >>> import vggscope
        >>> network = vggscope.network("D")
        >>> network.for_batch(32) == network
        True
        """
        if batch == 1 or not any(node.batched_op for node in self.nodes):
            return self
        return replace(self, nodes=tuple(replace(n, op=n.batched_op) if n.batched_op else n for n in self.nodes))

    def require_batch(self, batch: int) -> None:
        """Raise ShapeError where the network is known for one sample alone, and more are asked for.

        >>> import vggscope
        >>> vggscope.network("D").require_batch(256)
        """
        if batch > 1 and self.single is not None:
            raise ShapeError(f"{self.name} is known for a batch of one alone: {self.single}", "leave out --batch")

    @cached_property
    def by_name(self) -> dict[str, Node]:
        """Each node by its name.

        >>> import vggscope
        >>> vggscope.network("D").by_name["features.0"].label
        'conv1_1'
        """
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> dict[str, tuple[str, ...]]:
        """The names of the nodes that read each node's output.

        >>> import vggscope
        >>> vggscope.network("torchvision:resnet18").consumers["maxpool"]
        ('layer1.0.conv1', 'layer1.0.add')
        """
        readers: dict[str, list[str]] = {INPUT: [], **{node.name: [] for node in self.nodes}}
        for node in self.nodes:
            for name in node.inputs:
                readers[name].append(node.name)
        return {name: tuple(found) for name, found in readers.items()}

    @property
    def end(self) -> str:
        """The node whose tensor is the network's output; INPUT where there are no nodes.

        >>> import vggscope
        >>> vggscope.network("D").end
        'classifier.6'
        """
        return self.output or (self.nodes[-1].name if self.nodes else INPUT)

    @cached_property
    def side_outputs(self) -> frozenset[str]:
        """The nodes from which no way leads to the output: a mean that forward prints, a softmax that it returns too.

        >>> import vggscope
        >>> vggscope.network("D").side_outputs
        frozenset()
        """
        ahead = {self.end}
        for node in reversed(self.nodes):
            if node.name in ahead:
                ahead.update(node.inputs)
        return frozenset(node.name for node in self.nodes if node.name not in ahead)

    @cached_property
    def batchless(self) -> frozenset[str]:
        """The nodes that give the same for every batch, and are run once.

        >>> import vggscope
        >>> vggscope.network("D").batchless
        frozenset()
        """
        return frozenset(
            node.name for node in self.nodes if node.batch_growth is not None and not any(node.batch_growth)
        )

    @property
    def is_chain(self) -> bool:
        """Whether each node reads the one before it and nothing else.

        >>> import vggscope
        >>> vggscope.network("D").is_chain, vggscope.network("torchvision:resnet18").is_chain
        (True, False)
        """
        previous = INPUT
        for node in self.nodes:
            if node.inputs != (previous,):
                return False
            previous = node.name
        return True

    def parameters(self) -> Iterator[Parameter]:
        """Every parameter once, in the order of first use; those of no executed node last.

        >>> import vggscope
        >>> next(vggscope.network("D").parameters())
        Parameter(name='features.0.weight', shape=(64, 3, 3, 3), trainable=True)
        """
        seen: set[str] = set()
        for node in self.nodes:
            for parameter in node.parameters:
                if parameter.name not in seen:
                    seen.add(parameter.name)
                    yield parameter
        for parameter, _ in self.unused:
            yield parameter
