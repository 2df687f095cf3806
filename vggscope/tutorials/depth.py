"""`explain depth`: several small convolutions in place of a large one (the paper, section 2.3)."""

from __future__ import annotations

from vggscope.analysis.cost import costs
from vggscope.analysis.receptive_field.view import receptive_fields
from vggscope.errors import OptionError, check_count, option
from vggscope.ops.base import numel
from vggscope.record import record
from vggscope.sources.resolve import resolve
from vggscope.tutorials.tutorial import Tutorial, facts, listing, text, tutorial
from vggscope.units import count_text
from vggscope.vgg.options import BuildOptions

SMALL = 3
SIDE = 56
"""The side of the feature maps for which MACs are counted, as in the paper's third stage."""

NUMBERS = {2: "two", 3: "three", 4: "four", 5: "five", 6: "six"}


@record
class StackOf:
    """Consecutive convolutions with C channels in and out.

    `sees` is the side of each one's receptive field. `weights_per_c2` are the weights as a multiple of C^2; `params`
    includes the biases. `macs` are for feature maps of SIDE x SIDE. `activations` counts the ReLUs.
    """

    kernels: tuple[int, ...]
    sees: tuple[int, ...]
    weights_per_c2: int
    weights: int
    params: int
    macs: int | None
    activations: int


@record
class Depth:
    """The stack, and the single convolution with the same receptive field."""

    channels: int
    stack: StackOf
    single: StackOf
    more_percent: float


def explain(kernel: int = 7, channels: int = 256) -> Tutorial:
    """The receptive field and the cost of three 3x3 convolutions and of one 7x7, or of another `kernel` and as many
    3x3 as it takes to replace it.

    Raises OptionError for an even kernel and for numbers out of range.
    """
    if kernel not in range(5, 32, 2):
        raise OptionError(
            f"a kernel of {kernel} cannot be replaced by a stack of 3x3", f"{option('kernel')} is odd, 5 to 31"
        )
    check_count("channels", channels, f"{channels} channels make no sense", 4096)
    count = (kernel - 1) // (SMALL - 1)
    stack, single = stack_of((SMALL,) * count, channels), stack_of((kernel,), channels)
    more = 100 * (single.weights - stack.weights) / stack.weights
    several = f"{NUMBERS.get(count, str(count))} 3x3"
    return tutorial(
        "depth",
        f"depth: {several} convolutions against one {kernel}x{kernel}",
        Depth(channels, stack, single, more),
        text("Each 3x3 convolution with stride 1 adds two pixels to the height and width that a unit sees:"),
        listing(
            ("convolution", "a unit sees"),
            tuple((f"3x3 no. {place}", f"{sees}x{sees}") for place, sees in enumerate(stack.sees, 1)),
        ),
        text(f"So the last one sees as much as one {kernel}x{kernel}. The cost of each, with C channels in and out:"),
        listing(
            ("", several, f"one {kernel}x{kernel}"),
            (
                ("weights", f"{count} * 9 C^2 = {stack.weights_per_c2} C^2", f"{single.weights_per_c2} C^2"),
                (f"weights, C = {channels}", stack.weights, single.weights),
                ("with biases", stack.params, single.params),
                (f"MACs on {SIDE}x{SIDE}", stack.macs, single.macs),
                ("ReLUs after them", stack.activations, single.activations),
            ),
        ),
        facts(
            {
                "the difference": f"{single.weights_per_c2} C^2 is {more:.0f}% more than {stack.weights_per_c2} C^2,"
                " whatever C is",
                "why deeper": f"{count} nonlinearities instead of one, with fewer weights, for the same field",
                "not the same": "a stack factors a large kernel into small ones; not every large kernel factors",
                "and 1x1": f"column C's 1x1 convolutions add a ReLU for C^2 = {count_text(channels**2)} weights and"
                " see nothing new; D, with 3x3 in their place, did better in the paper",
            }
        ),
    )


def stack_of(kernels: tuple[int, ...], channels: int) -> StackOf:
    """The stack, with its figures read from the network that it makes."""
    line = " ".join(f"conv{kernel}-{channels}" for kernel in kernels)
    network = resolve(line, BuildOptions(input=(channels, SIDE, SIDE)))
    convolutions = [node for node in network.nodes if node.op.label_prefix == "conv"]
    weights = sum(numel(p.shape) for node in convolutions for p in node.parameters if len(p.shape) > 1)
    fields = receptive_fields(network)
    layer_costs = costs(network).values()
    return StackOf(
        kernels,
        tuple(field.size[0] for node in convolutions if (field := fields[node.name]) is not None),
        weights // channels**2,
        weights,
        sum(cost.params for cost in layer_costs),
        sum(cost.macs or 0 for cost in layer_costs),
        sum(node.op.label_prefix == "relu" for node in network.nodes),
    )
