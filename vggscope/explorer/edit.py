"""What the page needs to compute a changed network anew: each layer of a sequential network with the fields that a
reader may change, and what autograd saves of it.

js/rules.js evaluates the same rules as `ops/` and `analysis/` do; tests/test_page_edits.py compares the two.
"""

from __future__ import annotations

from typing import Any

from vggscope.graph import Network, Node
from vggscope.ops.base import NOTHING, Op, Shape, numel
from vggscope.units import ELEMENT_BYTES

ONLY = "Only a sequential network of convolutions, pools, norms, activations and linear layers can be changed here"


def editable(network: Network) -> dict[str, Any]:
    """Return `layers`, in the order of the network's, and `width`, the bytes of a value; or `why` it cannot be changed.
    `until` is the place of the layer up to which a variable names the output, where tracing found it.

    >>> import vggscope
    >>> editable(vggscope.network("D"))["layers"][0]["form"]
    'conv'
    >>> editable(vggscope.network("conv3-8 FC-10"))["width"]
    4
    """
    if why := _obstacle(network):
        return {"why": f"{ONLY}: {why}."}
    layers = []
    places = {node.name: place for place, node in enumerate(network.nodes)}
    for node in network.nodes:
        layer = _layer(network, node)
        if layer is None:
            return {"why": f"{ONLY}: {node.title} is a {node.op.name} without a rule on this page."}
        layers.append({**layer, "until": places.get(node.named_until)})
    return {"layers": layers, "width": ELEMENT_BYTES[network.dtype]}


def _obstacle(network: Network) -> str:
    """Why the layers of a network are no chain whose memory the rules give; empty if they are."""
    if len(network.inputs) != 1 or len(network.input_shape) != 4 or network.inputs[0].batch_growth is not None:
        return "this one does not take one image"
    return _odd_node(network) or _odd_parameter(network)


def _odd_node(network: Network) -> str:
    before = network.inputs[0].name
    for node in network.nodes:
        if node.inputs != (before,):
            return f"{node.title} does not read the layer before it alone"
        if node.detached or node.dtype or node.batch_growth is not None or node.constants or node.reads_computed_weight:
            return f"{node.title} is not computed as its kind of layer usually is"
        before = node.name
    return ""


def _odd_parameter(network: Network) -> str:
    parameters = [parameter for node in network.nodes for parameter in node.parameters]
    if network.unused or network.tables or len({p.name for p in parameters}) < len(parameters):
        return "layers share parameters, or no layer reads some"
    if not all(p.trainable and not p.dtype and p.stored is None for p in parameters):
        return "some parameters are frozen, or have another dtype"
    return ""


def _layer(network: Network, node: Node) -> dict[str, Any] | None:
    """The form of a layer with its fields and what autograd saves; None for an op that the page has no rule for."""
    (shape,), output = network.input_shapes(node), network.output_shape(node)
    op = node.op
    form = _form(op, shape, output)
    if form is None or not op.predicts_memory or op.needs_layout:
        return None
    kernels = _kernels(op, shape, output)
    memory = {"kernels": kernels} if kernels else _saved(op, shape, output)
    if memory is None:
        return None
    more = {"idle": op.active_in == "training", "allocates": op.allocates, "gradient": op.gradient}
    return {**form, **memory, **more}


def _form(op: Op, shape: Shape, output: Shape) -> dict[str, Any] | None:
    """How the shape and the parameters of a layer follow from its input and its fields."""
    fields = {name: getattr(op, name) for name in ("kernel_size", "stride", "padding") if hasattr(op, name)}
    if op.is_convolution and len(fields["kernel_size"]) == 2 and not op.relays_gradients:
        widths = {name: getattr(op, name) for name in ("in_channels", "out_channels", "groups", "bias", "dilation")}
        return {"form": "conv", **fields, **widths}
    if op.family == "pooling":
        return _pool(op, shape, fields)
    if op.is_weight_layer and op.width_axis == -1:
        return {"form": "fc", **{name: getattr(op, name) for name in ("in_features", "out_features", "bias")}}
    if op.is_layout and not op.allocates and output == (shape[0], numel(shape[1:])):
        return {"form": "flatten"}
    if output == shape and op.family in ("activation", "normalization", "regularization"):
        return _kept_shape(op, shape)
    return None


def _pool(op: Op, shape: Shape, fields: dict[str, Any]) -> dict[str, Any] | None:
    window = op.window(shape[2:])
    if len(shape) != 4 or window is None or not (op.takes_maximum or op.takes_mean):
        return None
    if op.is_adaptive:
        return {"form": "adaptive", **{name: getattr(op, name) for name in ("output_size", "takes_mean")}}
    return {"form": "pool", **fields, "dilation": window.dilation, "ceil": window.ceil_mode}


def _kept_shape(op: Op, shape: Shape) -> dict[str, Any] | None:
    """The form of a layer that keeps the shape, with one parameter or buffer for each channel, or none."""
    parameters, buffers = op.parameters().values(), op.buffers().values()
    if any(size != shape[1:2] for size in parameters) or any(size not in (shape[1:2], ()) for size in buffers):
        return None
    if (parameters or buffers) and (op.width_field != "num_features" or len(shape) != 4):
        return None
    return {
        "form": "each",
        "features": shape[1] if parameters or buffers else None,
        "weights": len(parameters),
        "buffers": sum(map(bool, buffers)),
        "counters": sum(not size for size in buffers),
    }


def _saved(op: Op, shape: Shape, output: Shape) -> dict[str, Any] | None:
    """What autograd saves: the input, the output, bytes for each value of the output, statistics of each channel."""
    saved = NOTHING if op.is_adaptive else op.saved_for_backward((shape,), output)
    whole = (*(size for size, _ in saved.extra), *saved.masks, *saved.copies)
    if any(size != output for size in whole) or any(size != shape[1:2] for size in saved.statistics):
        return None
    if saved.passing or any(width is None for _, width in saved.extra) or saved.copies:
        return None
    return {
        "savesInput": bool(saved.inputs) or op.is_adaptive,
        "savesOutput": saved.output,
        "extra": sum(width or 0 for _, width in saved.extra) + len(saved.masks) or (8 if _indexes(op) else 0),
        "statistics": len(saved.statistics),
    }


def _indexes(op: Op) -> bool:
    """Whether an adaptive pool keeps the index of each maximum."""
    return op.is_adaptive and op.takes_maximum


def _kernels(op: Op, shape: Shape, output: Shape) -> list[dict[str, Any]]:
    """The kernels of an op that torch runs one after another; `more` is how many channels each adds to the output's."""
    return [
        {
            "inputs": kernel.inputs,
            "keeps": kernel.keeps,
            "holds": kernel.holds,
            "scratch": kernel.scratch,
            "same": kernel.passes_gradient,
            "more": kernel.shape[1] - output[1],
        }
        for kernel in op.kernel_calls((shape,), output)
    ]
