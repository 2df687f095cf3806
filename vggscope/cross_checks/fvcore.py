"""fvcore's FlopCountAnalysis: MACs, which it calls flops, and some element-wise operations.

It traces the module with torch.jit, which needs tensors with data. So it runs on the CPU with weights of zero: the
counts depend on shapes alone.
"""

from __future__ import annotations

import ast
import copy
import inspect
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vggscope.cross_checks.reference_tool import (
    MACS,
    PARAMS,
    TRANSFORMS,
    NotApplicable,
    ReferenceTool,
    ReportedFigure,
    Term,
    device_of,
    frozen,
    run_copy,
    uses_transforms,
    written_out,
)
from vggscope.graph import Network
from vggscope.ops.attention import Einsum, ScaledDotProductAttention
from vggscope.ops.base import Shape, numel
from vggscope.ops.recurrent import Recurrent
from vggscope.trace.flops import macs_without_formula
from vggscope.trace.function_table import CONVOLUTIONS, MATRIX_PRODUCTS
from vggscope.trace.inputs import CallInputs, computed_copies, inputs_of

if TYPE_CHECKING:
    from torch import Tensor, nn


def params(module: nn.Module) -> int:
    """The parameters of the whole module by parameter_count."""
    from fvcore.nn import parameter_count

    return int(parameter_count(module)[""])


def macs(module: nn.Module, inputs: CallInputs) -> int:
    """FlopCountAnalysis's total for a module, computed on a copy.

    Raises NotApplicable for keyword arguments.
    """
    import torch
    from fvcore.nn import FlopCountAnalysis

    if inputs.kwargs:
        raise NotApplicable("it passes no keyword arguments")
    real = copy.deepcopy(module, computed_copies(module)).to_empty(device="cpu")
    with torch.no_grad(), written_out():  # it counts the projections of attention unless they are fused
        for tensor in (*real.parameters(), *real.buffers()):
            tensor.zero_()  # uninitialised indices and offsets would be out of range
        analysis = FlopCountAnalysis(real, inputs.to("cpu").args)
        macs = int(analysis.total())
    calls = [name for name in analysis.unsupported_ops() if name.startswith("prim::")]
    if calls:
        raise NotApplicable(f"it does not look into {', '.join(calls)}")
    return macs


PER_VALUE: Mapping[str, int] = MappingProxyType(
    {
        "AdaptiveAvgPool2d": 1,
        **dict.fromkeys(("BatchNorm1d", "BatchNorm2d", "BatchNorm3d"), 2),
        **dict.fromkeys(("LayerNorm", "GroupNorm", "InstanceNorm2d", "instance_norm"), 5),
    }
)
"""The operations that fvcore's jit_handles count per value of an op's input, at evaluation and with a learned scale;
one less without it.
"""

PER_RESULT: Mapping[tuple[str, str], int] = MappingProxyType(
    {("Upsample", "nearest"): 1, ("Upsample", "bilinear"): 4, ("grid_sample", ""): 4}
)
"""The same per value of an op's output, by the op and its mode."""

NAMED_PADDING = "convolutions whose padding is a word, which it does not know"
RECURRENT = "recurrent layers, which it does not know"
EINSUM = "einsum, its FLOPs read from a text of four digits"
PRODUCTS = "products by functions that it does not know"
VECTORS = "products with a vector in weights that forward computes"
KNOWN_PRODUCTS = frozenset({"matmul", "mm", "bmm", "addmm", "linear", "einsum"})
ATTENTION = "queries with keys and weights with values in attention, which it does not know"


def flop_terms(network: Network) -> tuple[Term, ...]:
    """The difference of fvcore's total from MACs, computed from the network's ops."""
    amounts: Counter[str] = Counter()
    for node in network.nodes:
        op, read = node.op.unwrapped(network.input_shapes(node))
        if node.op.name in PER_VALUE:
            per_value = PER_VALUE[node.op.name] if getattr(node.op, "is_fixed", True) else PER_VALUE["LayerNorm"]
            per_value -= "norm" in node.op.name.lower() and not (node.op.parameters() or node.parameters)
            what = f"{per_value} for each value that {node.op.name} reads"
            amounts[what] += per_value * numel(network.input_shapes(node)[0])
        elif (node.op.name, getattr(node.op, "mode", "")) in PER_RESULT:
            per_value = PER_RESULT[node.op.name, getattr(node.op, "mode", "")]
            what = f"{per_value} for each value that {node.op.name} gives"
            amounts[what] += per_value * numel(network.output_shape(node))
        elif isinstance(op, Recurrent):
            amounts[RECURRENT] -= op.macs(read, network.output_shape(node))
        elif op.name == ScaledDotProductAttention.name:
            amounts[ATTENTION] -= op.macs(read, network.output_shape(node)) or 0
        elif isinstance(op, Einsum):
            amounts[EINSUM] += _einsum(op, read) - (op.macs(read, network.output_shape(node)) or 0)
        elif op.name in (MATRIX_PRODUCTS | {"deform_conv2d"}) - KNOWN_PRODUCTS - CONVOLUTIONS:
            amounts[PRODUCTS] -= node.op.macs(network.input_shapes(node), network.output_shape(node)) or 0
    return tuple(Term(amount, what) for what, amount in amounts.items() if amount)


def _einsum(op: Einsum, inputs: tuple[Shape, ...]) -> int:
    """The MACs of an einsum by fvcore's einsum_flop_jit: exact for two forms, and otherwise read from the text of
    numpy's einsum_path, which has four digits.
    """
    left, _, right = op.equation.replace(" ", "").partition("->")
    sizes = dict(zip(left.replace(",", ""), (size for shape in inputs for size in shape)))
    renamed = str.maketrans("".join(sizes), "".join(chr(ord("a") + place) for place in range(len(sizes))))
    product = numel(tuple(sizes.values()))
    if f"{left}->{right}".translate(renamed) in ("abc,abd->acd", "abc,adc->adb"):
        return product
    factor = max(1, len(inputs) - 1) + any(letter not in right for letter in sizes)
    return int(float(f"{factor * product:.3e}") // 2)


def _macs(network: Network, module: nn.Module) -> ReportedFigure:
    inputs = inputs_of(module, network)
    catching = next(filter(_catches_errors, dict.fromkeys(map(type, module.modules()))), None)
    if catching is not None:
        name = catching.__name__
        raise NotApplicable(f"forward of {name} catches errors, on which torch.jit's tracer may end the process")
    if uses_transforms(module, inputs):
        raise NotApplicable(TRANSFORMS)
    ops = [node.op.without_constants for node in network.nodes]
    if any(op.name == Einsum.name and not isinstance(op, Einsum) for op in ops):
        raise NotApplicable("it multiplies the operands of einsum in another order than torch, if there are three")
    return ReportedFigure(
        macs(module, inputs), terms=tuple(_module_terms(network, module, inputs.to(device_of(module))))
    )


def _catches_errors(kind: type[nn.Module]) -> bool:
    """Whether a user's class has a forward with try and except. The sources of libraries are not read."""
    if kind.__module__.partition(".")[0] in ("torch", "torchvision", "timm"):
        return False
    try:
        source = ast.parse(textwrap.dedent(inspect.getsource(kind.forward)))
    except (OSError, TypeError, SyntaxError):
        return False
    return any(isinstance(node, ast.Try) for node in ast.walk(source))


def _module_terms(network: Network, module: nn.Module, inputs: CallInputs) -> Iterator[Term]:
    """The difference that follows from the module."""
    modules = dict(module.named_modules())
    vectors = sum(sum(macs_without_formula(part).values()) for part in modules.values() if _is_parametrization(part))
    if vectors:
        yield Term(-vectors, VECTORS)
    operations, attention, named_padding = _of_calls(module, inputs)
    if named_padding:
        yield Term(-named_padding, NAMED_PADDING)
    if operations:
        yield Term(operations, "4 for each value of weights that are standardised, 5 with a learned scale")
    if attention:
        yield Term(-attention, ATTENTION)


def _is_parametrization(module: nn.Module) -> bool:
    from torch.nn.utils.parametrize import ParametrizationList

    return isinstance(module, ParametrizationList)


def _of_calls(module: nn.Module, inputs: CallInputs) -> tuple[int, int, int]:
    """The operations that fvcore counts for weights that forward standardises by a batch norm, and the MACs that it
    does not count of multi-head attention, and of convolutions with a padding such as "same": torch.jit calls another
    function for these.
    """
    import torch
    from torch.nn.functional import batch_norm, conv1d, conv2d, conv3d, multi_head_attention_forward
    from torch.overrides import TorchFunctionMode

    operations = attention = named_padding = 0
    parameters = inspect.signature(multi_head_attention_forward)

    class CallsMode(TorchFunctionMode):
        def __torch_function__(
            self, func: Callable[..., object], types: object, args: tuple[Any, ...] = (), kwargs: Any = None
        ) -> Any:
            nonlocal operations, attention, named_padding
            if func is batch_norm:
                arguments = {**dict(zip(("input", "", "", "weight", "", "training"), args)), **(kwargs or {})}
                if arguments.get("training") and not arguments["input"].requires_grad:
                    operations += arguments["input"].numel() * (4 if arguments.get("weight") is None else 5)
            elif func is multi_head_attention_forward:
                attention += _uncounted_attention(**parameters.bind(*args, **(kwargs or {})).arguments)
            result: Any = func(*args, **(kwargs or {}))
            if func in (conv1d, conv2d, conv3d):
                arguments = {**dict(zip(("input", "weight", "bias", "stride", "padding"), args)), **(kwargs or {})}
                if isinstance(arguments.get("padding"), str):
                    named_padding += result.numel() * arguments["weight"][0].numel()
            return result

    own = inputs.map(lambda tensor: tensor.requires_grad_(tensor.is_floating_point()).clone())
    with frozen(module), torch.enable_grad(), CallsMode():
        run_copy(module, own)
    return operations, attention, named_padding


def _uncounted_attention(
    query: Tensor,
    key: Tensor,
    bias_k: Tensor | None,
    add_zero_attn: bool,
    need_weights: bool = True,
    key_padding_mask: Tensor | None = None,
    attn_mask: Tensor | None = None,
    **_: object,
) -> int:
    """The MACs of one call of torch's multi_head_attention_forward that fvcore does not count.

    These are all of its fused kernel. If the call returns the weights, these are only the products of queries with keys
    that baddbmm adds to a mask.
    """
    keys = key.shape[0] + (bias_k is not None) + add_zero_attn
    is_masked = key_padding_mask is not None or attn_mask is not None
    products = is_masked if need_weights else 2
    return products * query.numel() * keys


REFERENCE_TOOL = ReferenceTool(
    name="fvcore",
    title="fvcore",
    reports={PARAMS: lambda network, module: ReportedFigure(params(module)), MACS: _macs},
    explain={MACS: lambda network, value: flop_terms(network)},
    package="fvcore",
)
