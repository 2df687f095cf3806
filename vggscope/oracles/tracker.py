"""torch's memory tracker: the most bytes alive in one forward pass, and in one step of training with SGD and momentum.

The tracker follows fake CPU tensors and does not count the input and its labels, which are there before it looks. Ours
is for a GPU; the walk that is held to the tracker byte by byte tells what the two have apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from vggscope.analysis.memory.ledger import KINDS
from vggscope.analysis.memory.setup import Setup
from vggscope.analysis.memory.trace import trace
from vggscope.graph import Network, Node
from vggscope.ops.base import numel
from vggscope.ops.constant import WithConstants
from vggscope.ops.recorded import Recorded
from vggscope.oracles.memory_tracker import track
from vggscope.oracles.witness import INFERENCE_PEAK, TRAINING_PEAK, Abstains, Claim, Term, Witness, copied

if TYPE_CHECKING:
    from torch import Tensor, nn

MOST_LAYERS = 320
"""The longest network whose training step is followed: the tracker takes half a minute for more."""

_PRODUCTS = frozenset({"matmul", "bmm", "baddbmm", "einsum", "mm", "addmm"})

_SETUPS = {INFERENCE_PEAK: "inference", TRAINING_PEAK: "train"}


def _peak(network: Network, module: nn.Module, figure: str) -> Claim:
    why = next(_beyond(network, figure), None)
    if why is not None:
        raise Abstains(why)
    setup = Setup(mode=_SETUPS[figure])
    learned = None if setup.trains else ()
    batch, *size = network.input_shape
    seen = track(lambda: copied(module, _empty), tuple(size), batch, setup, learned, network.output_place)
    return Claim(seen.peak_bytes, terms=tuple(_terms(network, module, setup.mode)))


def _beyond(network: Network, figure: str) -> Iterator[str]:
    """Why the walk is not held to the tracker here."""
    ops = [node.op.op if isinstance(node.op, WithConstants) else node.op for node in network.nodes]
    odd = dict.fromkeys(op.name for op in ops if isinstance(op, Recorded) or op.name in _PRODUCTS)
    if odd:
        yield f"what {', '.join(odd)} takes on the way is not followed tensor by tensor"
    made = dict.fromkeys(n.op.name for n in network.nodes if isinstance(n.op, WithConstants) and _is_made(n, n.op))
    if made:
        yield f"what {', '.join(made)} reads is made of parameters on the way, which no input reaches"
    if any(n.op.name == "scaled_dot_product_attention" and len(network.output_shape(n)) != 4 for n in network.nodes):
        yield "a CPU writes attention out unless it has four axes"
    if figure == INFERENCE_PEAK:
        return
    if not any(p.trainable for node in network.nodes for p in node.parameters):
        yield "there is nothing to train"
    reading = dict.fromkeys(n.op.name for n in network.nodes if isinstance(n.op, WithConstants) and n.parameters)
    if reading:
        yield f"how {', '.join(reading)} gives its weights their gradient is not followed tensor by tensor"
    if any("attention" in op.name.lower() for op in ops):
        yield "attention keeps other tensors on a CPU than on a GPU"
    if any(why == "runs only in training" for _, why in network.unused):
        yield "the network has heads that run only in training"
    if len(network.nodes) > MOST_LAYERS:
        yield f"the tracker takes long for {len(network.nodes)} layers"


def _is_made(node: Node, op: WithConstants) -> bool:
    """Whether a node reads a tensor that was made of parameters and is none of them."""
    sizes = {numel(parameter.shape) for parameter in node.parameters}
    return bool(sizes) and any(constant is not None and numel(constant) not in sizes for constant in op.constants)


def _empty(tensor: Tensor) -> Tensor:
    """A tensor of the same shape on the CPU, which is a fake one where it is called."""
    import torch

    return torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu")


def _terms(network: Network, module: nn.Module, mode: str) -> Iterator[Term]:
    """What the tracker has beyond ours: on a CPU instead of a GPU, without the input, with every buffer."""
    ours, theirs = (trace(network, Setup(mode=mode, runtime=runtime)) for runtime in ("cuda", "tracker"))
    alive = dict(zip(KINDS, theirs.peak(1).alive))
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in module.buffers())
    amounts = {
        "the input and its labels, which it does not count": -alive["input"].at(1),
        "gradients added up in a third tensor and wider masks, as on a CPU": theirs.peak_bytes(1) - ours.peak_bytes(1),
        "buffers of parts that do not run": buffers - alive["buffers"].at(1),
    }
    return (Term(amount, what) for what, amount in amounts.items() if amount)


WITNESS = Witness(
    name="tracker",
    title="torch's memory tracker",
    ask={
        INFERENCE_PEAK: lambda network, module: _peak(network, module, INFERENCE_PEAK),
        TRAINING_PEAK: lambda network, module: _peak(network, module, TRAINING_PEAK),
    },
    package="torch",
)
