"""Activations of an image as the page's script reads them."""

from __future__ import annotations

from base64 import b64encode

from vggscope.execution.activations import METHOD, Activations, ChannelActivation, LayerActivations
from vggscope.graph import Network
from vggscope.render.json import plain

DIGITS = 5
"""Significant digits of the values in a page."""


def maps(network: Network, activations: Activations) -> dict[str, object]:
    """Return `layers` by their place in the network, the names of the output's `classes`, and `how` they are chosen."""
    places = {node.name: place for place, node in enumerate(network.nodes)}
    return {
        "layers": {places[layer.name]: _layer(layer) for layer in activations.layers},
        "classes": activations.classes,
        "how": METHOD,
    }


def _layer(layer: LayerActivations) -> dict[str, object]:
    if layer.channels:
        return {"channels": [_channel(channel) for channel in layer.channels]}
    return {"units": [[unit.unit, _short(unit.value)] for unit in layer.units]}


def _channel(channel: ChannelActivation) -> dict[str, object]:
    pixels = channel.map.pixels
    return {
        "channel": channel.channel,
        "mean": _short(channel.mean),
        "size": [len(pixels), len(pixels[0])],
        "low": _short(channel.map.low),
        "high": _short(channel.map.high),
        "map": b64encode(bytes(step for row in pixels for step in row)).decode(),
        "unit": channel.unit,
        "value": _short(channel.value),
        "product": _short(plain(channel.product)),
    }


def _short(value: object) -> object:
    """The value with every float in it rounded to DIGITS significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}")
    if isinstance(value, list):
        return [_short(item) for item in value]
    return {key: _short(item) for key, item in value.items()} if isinstance(value, dict) else value
