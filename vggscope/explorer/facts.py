"""A network's layers and totals as the page takes them: raw numbers, layers by their place in the network."""

from __future__ import annotations

from collections import Counter

from vggscope.analysis.summary import LayerReport, Summary, summarize
from vggscope.drawing.layer import Layer
from vggscope.drawing.subject import Subject
from vggscope.errors import visible
from vggscope.graph import Network, Node


def facts(network: Network) -> dict[str, object]:
    """The layers, the totals and what is to be said of the whole, for a batch of one in float32."""
    report = summarize(network)
    stage = {layer.node.name: found.name for found in Subject(network).stages for layer in found.layers}
    place = {node.name: index for index, node in enumerate(network.nodes)}
    keys = addresses(network)
    return {
        "name": visible(network.name),
        "input": report.input_shape[1:],
        "dtype": report.dtype,
        "layers": [
            {
                **_layer(network, node, layer),
                "key": keys[node.name],
                "stage": stage.get(node.name, ""),
                "inputs": [place.get(name, -1) for name in node.inputs],
            }
            for node, layer in zip(network.nodes, report.layers)
        ],
        "totals": _totals(report),
        "warnings": list(report.warnings),
    }


def addresses(network: Network) -> dict[str, str]:
    """What each layer is called in the page's address: the literature's name where it has one alone, else its path."""
    labels = Counter(node.label for node in network.nodes)
    taken = {node.name for node in network.nodes}
    return {
        node.name: node.label if labels[node.label] == 1 and node.label and node.label not in taken else node.name
        for node in network.nodes
    }


def _layer(network: Network, node: Node, report: LayerReport) -> dict[str, object]:
    layer = Layer(node, report)
    return {
        "name": node.name,
        "label": node.label,
        "op": node.op.name,
        "kind": layer.kind,
        "spec": layer.spec,
        "in": report.input_shape[1:],
        "out": report.output_shape[1:],
        "rule": report.rule,
        "window": _window(network, node, report),
        "params": report.params,
        "macs": report.macs,
        "bytes": report.activation_bytes,
    }


def _window(network: Network, node: Node, report: LayerReport) -> dict[str, object] | None:
    """The window whose rule makes the output's size of the input's, axis by axis; None where there is none."""
    size = network.input_shapes(node)[0][2:] if report.rule else ()
    window = node.op.window(size) if report.rule else None
    if window is None:
        return None
    return {
        "size": size,
        "kernel": window.kernel_size,
        "stride": window.stride,
        "padding": window.padding,
        "dilation": window.dilation,
        "ceil": window.ceil_mode,
        "out": report.output_shape[2:],
        "groups": getattr(node.op, "groups", 1),
    }


def _totals(report: Summary) -> dict[str, object]:
    totals = report.totals
    return {
        "params": totals.params,
        "trainable": totals.trainable_params,
        "macs": totals.macs,
        "flops": totals.flops,
        "paramBytes": totals.param_bytes,
        "activationBytes": totals.activation_bytes,
        "other": [{"name": other.name, "params": other.params, "why": other.why} for other in totals.other_params],
        "inferencePeak": report.memory.inference_peak_bytes,
        "trainingPeak": report.memory.training_peak_bytes,
    }
