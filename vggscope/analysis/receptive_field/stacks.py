"""Stacks of small convolutions against one large convolution with the same receptive field (the VGG paper, 2.3)."""

from __future__ import annotations

from collections.abc import Iterator

from vggscope.graph import Network, Node
from vggscope.ops.axis_maps import pointwise
from vggscope.ops.convolution import Convolution
from vggscope.record import record
from vggscope.units import count_text

_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


@record
class ConvolutionStack:
    """Consecutive convolutions with `channels` channels; `kernels` are their kernel sizes.

    `nonlinearities` counts the activations between the first and the last.
    """

    first: Node
    last: Node
    channels: int
    kernels: tuple[int, ...]
    nonlinearities: int = 0

    @property
    def side(self) -> int:
        """The side of the receptive field on the input of the first convolution."""
        return 1 + sum(kernel - 1 for kernel in self.kernels)

    @property
    def note(self) -> str:
        """A sentence that compares the stack with one convolution with the same receptive field."""
        own, single, square = sum(kernel**2 for kernel in self.kernels), self.side**2, self.channels**2
        window = f"{self.side}x{self.side}"
        names = f"{self.first.label or self.first.name} to {self.last.label or self.last.name}"
        return (
            f"{names} ({self._kernels_text()}) see {window} of their input, as one {window} convolution would:"
            f" {own} C^2 weights against {single} C^2, {100 * (single - own) / own:.0f}% more;"
            f" with C = {self.channels} that is {count_text(own * square)} against {count_text(single * square)},"
            f" and {self._between_text()} between them"
        )

    def _kernels_text(self) -> str:
        kinds = [f"{kernel}x{kernel}" for kernel in self.kernels]
        return f"{_number(len(kinds))} {kinds[0]}" if len(set(kinds)) == 1 else ", ".join(kinds)

    def _between_text(self) -> str:
        return f"{_number(self.nonlinearities)} nonlinearit{'y' if self.nonlinearities == 1 else 'ies'}"


def stack_note(network: Network) -> str | None:
    """A sentence about the longest stack of convolutions with equal channels and stride 1, the last if several are
    equally long; None if there is no stack.
    """
    stacks = [stack for stack in _stacks(network) if stack.side > max(stack.kernels)]
    longest = max((len(stack.kernels) for stack in stacks), default=0)
    return next((stack.note for stack in reversed(stacks) if len(stack.kernels) == longest), None)


def _stacks(network: Network) -> Iterator[ConvolutionStack]:
    """Runs of convolutions with only pointwise ops between them."""
    run: list[Node] = []
    for node in network.nodes:
        if run and not _continues(network, run, node):
            yield from _stack(run)
            run = []
        if run or _channels(node) is not None:
            run.append(node)
    yield from _stack(run)


def _continues(network: Network, run: list[Node], node: Node) -> bool:
    last = run[-1].name
    if node.inputs != (last,) or network.consumers[last] != (node.name,):
        return False
    if node.op.is_convolution:
        return _channels(node) == _channels(run[0])
    output = network.output_shape(node)
    return node.op.reads((output,), output) == (pointwise(output, output),)


def _channels(node: Node) -> int | None:
    """The channels of a convolution that keeps their number and the resolution; None for any other op."""
    op = node.op
    if not isinstance(op, Convolution) or len(op.kernel_size) != 2 or len(set(op.kernel_size)) > 1:
        return None
    keeps_shape = {*op.stride, *op.dilation, op.groups} == {1} and op.in_channels == op.out_channels
    return op.out_channels if keeps_shape else None


def _stack(run: list[Node]) -> Iterator[ConvolutionStack]:
    """The stack from the first convolution of a run to its last, if it has several."""
    positions = [position for position, node in enumerate(run) if node.op.is_convolution]
    if len(positions) > 1:
        first, last = run[positions[0]], run[positions[-1]]
        kernels = tuple(node.op.kernel_size[0] for node in run if isinstance(node.op, Convolution))
        between = sum(node.op.family == "activation" for node in run[: positions[-1]])
        yield ConvolutionStack(first, last, _channels(first) or 0, kernels, between)


def _number(count: int) -> str:
    return _COUNTS.get(count, str(count))
