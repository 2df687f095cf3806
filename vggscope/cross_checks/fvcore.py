"""fvcore, as its FlopCountAnalysis counts: MACs, which it calls flops, and some element-wise work on top.

It traces the module with torch.jit, which cannot see through tensors without data, so that it runs on the CPU with
weights that hold whatever the memory held: the counts depend on shapes alone.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vggscope.cross_checks.reference_tool import MACS, PARAMS, ReferenceTool, ReportedFigure, Term, frozen, written_out
from vggscope.graph import Network, Node
from vggscope.ops.attention import Einsum
from vggscope.ops.base import Op, Shape, numel
from vggscope.ops.constant import WithConstants
from vggscope.ops.recurrent import Recurrent

if TYPE_CHECKING:
    from torch import nn


def params(module: nn.Module) -> int:
    """The whole module, as parameter_count has it."""
    from fvcore.nn import parameter_count

    return int(parameter_count(module)[""])


def macs(module: nn.Module, input_shape: Shape) -> int:
    """FlopCountAnalysis's total for a module without data; it is computed in a copy."""
    import torch
    from fvcore.nn import FlopCountAnalysis

    real = copy.deepcopy(module).to_empty(device="cpu")
    for buffer in real.buffers():
        buffer.zero_()  # indices among them must not point anywhere
    with torch.no_grad(), written_out():  # it knows the projections of an attention, but not where they are fused
        return int(FlopCountAnalysis(real, torch.zeros(input_shape)).total())


PER_VALUE: Mapping[str, int] = MappingProxyType(
    {
        "AdaptiveAvgPool2d": 1,
        "BatchNorm1d": 2,
        "BatchNorm2d": 2,
        "BatchNorm3d": 2,
        "LayerNorm": 5,
        "GroupNorm": 5,
        "InstanceNorm2d": 5,
    }
)
"""The operations that fvcore (its jit_handles) counts for each value of an op's input, at evaluation and with a learned
scale; one less without.
"""


PER_RESULT: Mapping[tuple[str, str], int] = MappingProxyType({("Upsample", "nearest"): 1, ("Upsample", "bilinear"): 4})
"""The same for each value of an op's output, by the op and its mode."""

NAMED_PADDING = "convolutions whose padding is a word, which it does not know"
RECURRENT = "recurrent layers, which it does not know"
EINSUM = "einsum, its FLOPs read from a text of four digits"
ATTENTION = "queries with keys and weights with values in attention, which it does not know"


def flop_terms(network: Network) -> tuple[Term, ...]:
    """What fvcore's total has beyond MACs, worked out from the network's ops."""
    amounts: Counter[str] = Counter()
    for node in network.nodes:
        op, read = _read(network, node)
        if node.op.name in PER_VALUE:
            per_value = _per_value(node)
            what = f"{per_value} for each value that {node.op.name} reads"
            amounts[what] += per_value * numel(network.input_shapes(node)[0])
        elif (node.op.name, getattr(node.op, "mode", "")) in PER_RESULT:
            per_value = PER_RESULT[node.op.name, getattr(node.op, "mode", "")]
            what = f"{per_value} for each value that {node.op.name} gives"
            amounts[what] += per_value * numel(network.output_shape(node))
        elif isinstance(op, Recurrent):
            amounts[RECURRENT] -= op.macs(read, network.output_shape(node))
        elif "attention" in node.op.name.lower():
            amounts[ATTENTION] -= _attention(network, node)
        elif isinstance(op, Einsum):
            amounts[EINSUM] += _einsum(op, read) - (op.macs(read, network.output_shape(node)) or 0)
    return tuple(Term(amount, what) for what, amount in amounts.items() if amount)


def _einsum(op: Einsum, inputs: tuple[Shape, ...]) -> int:
    """What fvcore takes an einsum for (its einsum_flop_jit): two forms it knows; the FLOPs of any other it reads from
    the text of numpy's einsum_path, which has four digits.
    """
    left, _, right = op.equation.replace(" ", "").partition("->")
    sizes = dict(zip(left.replace(",", ""), (size for shape in inputs for size in shape)))
    renamed = str.maketrans("".join(sizes), "".join(chr(ord("a") + place) for place in range(len(sizes))))
    product = numel(tuple(sizes.values()))
    if f"{left}->{right}".translate(renamed) in ("abc,abd->acd", "abc,adc->adb"):
        return product
    factor = max(1, len(inputs) - 1) + any(letter not in right for letter in sizes)
    return int(float(f"{factor * product:.3e}") // 2)


def _attention(network: Network, node: Node) -> int:
    """The MACs of queries with keys and of weights with values: all but the learned projections'."""
    op, read = _read(network, node)
    own = node.parameters if op.name == "MultiheadAttention" else ()
    projections = sum(numel(p.shape) for p in own if len(p.shape) == 2) * numel(read[0][:-1])
    return (op.macs(read, network.output_shape(node)) or 0) - projections


def _read(network: Network, node: Node) -> tuple[Op, tuple[Shape, ...]]:
    """A node's op, and the shapes of all that it reads, constants among them."""
    inputs = network.input_shapes(node)
    if isinstance(node.op, WithConstants):
        return node.op.op, node.op.all_inputs(inputs)
    return node.op, inputs


def _per_value(node: Node) -> int:
    return PER_VALUE[node.op.name] - ("Norm" in node.op.name and not node.parameters)


def _params(network: Network, module: nn.Module) -> ReportedFigure:
    return ReportedFigure(params(module))


def _macs(network: Network, module: nn.Module) -> ReportedFigure:
    return ReportedFigure(macs(module, network.input_shape), terms=tuple(_worded(network, module)))


def _worded(network: Network, module: nn.Module) -> Iterator[Term]:
    """What it leaves out of convolutions whose padding is given as a word: torch.jit calls another function then."""
    parts = dict(module.named_modules())
    nodes = [
        node for node in network.nodes if node.module and isinstance(getattr(parts.get(node.module), "padding", 0), str)
    ]
    amount = sum(node.op.macs(network.input_shapes(node), network.output_shape(node)) or 0 for node in nodes)
    if amount:
        yield Term(-amount, NAMED_PADDING)
    of_weights = _normalised_weights(module, network.input_shape)
    if of_weights:
        yield Term(of_weights, "4 for each value of weights that are standardised, 5 with a learned scale")


def _normalised_weights(module: nn.Module, input_shape: Shape) -> int:
    """What it counts where forward puts weights, which no input reaches, through a batch norm."""
    import torch
    from torch.nn.functional import batch_norm
    from torch.overrides import TorchFunctionMode

    found = 0

    class Mode(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., object], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> object:
            nonlocal found
            if func is batch_norm:
                given = {**dict(zip(("input", "", "", "weight", "", "training"), args)), **(kwargs or {})}
                if given.get("training") and not given["input"].requires_grad:
                    found += given["input"].numel() * (4 if given.get("weight") is None else 5)
            return func(*args, **(kwargs or {}))

    with frozen(module), torch.enable_grad(), Mode():
        module(torch.empty(input_shape, device="meta", requires_grad=True).clone())
    return found


REFERENCE_TOOL = ReferenceTool(
    name="fvcore",
    title="fvcore",
    ask={PARAMS: _params, MACS: _macs},
    explain={MACS: lambda network, value: flop_terms(network)},
    package="fvcore",
)
