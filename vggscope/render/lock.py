"""The Document of a locked architecture: its layers with their attributes, inputs, output shapes and parameters."""

from __future__ import annotations

from vggscope.diffing.wording import op_text
from vggscope.document import Column, Document, Facts, Table
from vggscope.graph import Network, Node
from vggscope.lock_file import Lock
from vggscope.units import at_least, count_text, shape_text


def document(lock: Lock) -> Document:
    """The layers, then the number of parameters."""
    network = lock.network
    inputs = ", ".join(
        f"{given.label} {shape_text(given.shape)}" if len(network.inputs) > 1 else shape_text(given.shape)
        for given in network.inputs
    )
    params = f"{at_least(network.parameter_count)}{count_text(network.parameters_known)}"
    return Document(
        f"{lock.model}   input {inputs}, {network.dtype}",
        (_layers(network), Facts((("parameters", params),))),
    )


def line(lock: Lock) -> str:
    """The model, its input, and the numbers of its layers and parameters."""
    return repr(lock.network).removeprefix("<Network ").removesuffix(">")


def _layers(network: Network) -> Table:
    columns = (
        Column("name", "layer"),
        Column("label", "label", priority=3),
        Column("op", "op", wrap=True),
        Column("inputs", "inputs", priority=2, wrap=True),
        Column("output_shape", "output", shape_text, right=True),
        Column("parameters", "parameters", priority=1, wrap=True),
    )
    owners: dict[str, str] = {}
    rows = []
    for node in network.nodes:
        inputs, shape = ", ".join(node.inputs), network.shapes[node.name]
        rows.append((node.name, node.label, op_text(node.op), inputs, shape, _parameters(node, owners)))
        owners.update({p.name: node.name for p in node.parameters if p.name not in owners})
    return Table(columns, tuple(rows))


def _parameters(node: Node, owners: dict[str, str]) -> str:
    """The parameters of a layer, each with its shape or the layer that it is shared with."""
    return ", ".join(
        f"{p.name} of {owners[p.name]}" if p.name in owners else f"{p.name} {'x'.join(map(str, p.shape))}"
        for p in node.parameters
    )
