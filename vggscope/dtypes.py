"""Convert a Network to another floating-point type, as `module.to(dtype)` converts a module.

Only floating-point parameters, buffers and inputs are converted; integers, complex and quantised tensors keep their
type. The types of the activations follow by torch's rules of type promotion.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from types import MappingProxyType
from typing import TypeVar

from vggscope.errors import option
from vggscope.graph import Buffer, Input, Network, Node, Output, Parameter
from vggscope.ops.base import numel
from vggscope.ops.constant import WithConstants
from vggscope.units import ELEMENT_BYTES, count_text

MIXED = "mixed"
"""The dtype of a network whose floating-point parameters have several types."""

COMPLEX = MappingProxyType({"float16": "complex32", "float32": "complex64", "float64": "complex128"})
"""The complex type of each floating-point type."""

_PARTS = MappingProxyType({complex_type: part for part, complex_type in COMPLEX.items()})

_Tensor = TypeVar("_Tensor", Parameter, Buffer, Input, Output)


def is_floating(dtype: str) -> bool:
    """Whether a type is floating-point, and not complex, as torch.Tensor.is_floating_point tells.

    >>> is_floating("bfloat16"), is_floating("complex64"), is_floating("int8")
    (True, False, False)
    """
    return dtype.startswith(("float", "bfloat"))


def promoted(dtypes: Iterable[str]) -> str:
    """The floating-point or complex type that torch promotes these to; empty if all are integers.

    >>> promoted(["float32", "int64"]), promoted(["float16", "bfloat16"]), promoted(["complex64", "float64"])
    ('float32', 'float32', 'complex128')
    """
    types = [dtype for dtype in dtypes if is_floating(dtype) or dtype in _PARTS]
    widest = ""
    for part in dict.fromkeys(_PARTS.get(dtype, dtype) for dtype in types):
        if {widest, part} == {"float16", "bfloat16"}:
            widest = "float32"
        elif not widest or ELEMENT_BYTES[part] > ELEMENT_BYTES[widest]:
            widest = part
    return COMPLEX.get(widest, widest) if any(dtype in _PARTS for dtype in types) else widest


def parameters_by_dtype(network: Network) -> dict[str, int]:
    """The elements of a network's parameters by their type, the most first.

    >>> import vggscope
    >>> parameters_by_dtype(vggscope.network("D"))
    {'float32': 138357544}
    """
    elements: dict[str, int] = {}
    for parameter in network.parameters():
        dtype = parameter.dtype or network.dtype
        elements[dtype] = elements.get(dtype, 0) + numel(parameter.shape)
    return dict(sorted(elements.items(), key=lambda item: -item[1]))


def dtype_of(network: Network) -> str:
    """The type of a network's floating-point parameters, or MIXED.

    >>> import vggscope
    >>> dtype_of(vggscope.network("D"))
    'float32'
    """
    floating = [dtype for dtype in parameters_by_dtype(network) if is_floating(dtype)]
    return MIXED if len(floating) > 1 else floating[0] if floating else network.dtype


def mixture_warning(network: Network) -> tuple[str, ...]:
    """A sentence on the types of floating-point parameters, if there are several."""
    if dtype_of(network) != MIXED:
        return ()
    sizes = ((dtype, size) for dtype, size in parameters_by_dtype(network).items() if is_floating(dtype))
    listed = ", ".join(f"{count_text(size)} {dtype}" for dtype, size in sizes)
    # The option converts the figures of a run in the model's own dtypes: it does not make a model run.
    how = option("dtype") if network.failure is None else "module.float() in the model's code"
    return (f"the floating-point parameters are of several dtypes: {listed}; {how} converts them to one",)


def converted(network: Network, dtype: str | None) -> Network:
    """Return the network with its floating-point tensors in `dtype`; the network itself for None.

    >>> import vggscope
    >>> converted(vggscope.network("D"), "float16").element_bytes("features.0")
    2
    """
    if dtype is None:
        return network
    before = {given.name: network.dtype_of(given.name) for given in network.inputs}
    types = {name: dtype if is_floating(own) else own for name, own in before.items()}
    nodes = []
    for node in network.nodes:
        before[node.name] = node.dtype or network.dtype
        types[node.name] = _converted_type(network, node, before, types, dtype)
        nodes.append(_in_type(node, types[node.name], network, dtype))
    result = replace(
        network,
        dtype=dtype,
        nodes=tuple(nodes),
        inputs=tuple(_converted(given, network) for given in network.inputs),
        returned=tuple(_converted_output(output, network, types, dtype) for output in network.returned),
        unused=tuple((_converted(parameter, network), why) for parameter, why in network.unused),
        failed=_in_type(network.failed, "", network, dtype) if network.failed is not None else None,
        tables=tuple(_converted(table, network) for table in network.tables),
        training_step=converted(network.training_step, dtype) if network.training_step is not None else None,
    )
    # The shapes do not depend on the types.
    vars(result)["_inferred"] = network._inferred
    return result


def _converted_type(network: Network, node: Node, before: dict[str, str], types: dict[str, str], dtype: str) -> str:
    """The type of a node's output after the conversion: what torch promotes its inputs and weights to, or the type to
    which forward casts it.
    """
    own = before[node.name]
    if node.op.fixed_dtype or not (is_floating(own) or own in _PARTS):
        return own
    weights = [parameter.dtype or network.dtype for parameter in node.parameters]
    was = promoted((*(before[name] for name in node.inputs), *weights))
    becomes = promoted(
        (*(types[name] for name in node.inputs), *(dtype if is_floating(weight) else weight for weight in weights))
    )
    if own == was:
        return becomes
    if own == _PARTS.get(was):
        return _PARTS.get(becomes, becomes)
    if is_floating(own) and isinstance(node.op, WithConstants) and node.op.fixed:
        # A buffer of that type, which is converted too.
        return promoted((becomes, dtype))
    if own in _PARTS:
        return COMPLEX.get(dtype, own) if _PARTS[own] == network.dtype else own
    return dtype if own == network.dtype else own


def _converted_output(output: Output, network: Network, types: dict[str, str], dtype: str) -> Output:
    if output.source not in types:
        return _converted(output, network)
    own = types[output.source]
    return replace(output, dtype="" if own == dtype else own)


def _in_type(node: Node, own: str, network: Network, dtype: str) -> Node:
    name = "" if own == dtype else own
    parameters = tuple(_converted(parameter, network) for parameter in node.parameters)
    if name == node.dtype and parameters == node.parameters:
        return node
    return replace(node, dtype=name, parameters=parameters)


def _converted(tensor: _Tensor, network: Network) -> _Tensor:
    own = tensor.dtype or network.dtype
    name = "" if is_floating(own) else own
    return replace(tensor, dtype=name) if name != tensor.dtype else tensor
