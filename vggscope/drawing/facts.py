"""What can be written beside layers, and shown as the strength of a colour: one row of FACTS each."""

from __future__ import annotations

from collections.abc import Callable

from vggscope.analysis.summary import Summary
from vggscope.drawing.layer import Layer, shape
from vggscope.record import record
from vggscope.units import UNKNOWN, bytes_text, percent_text, short_count

Layers = tuple[Layer, ...]


@record
class Fact:
    """`value` is the figure of layers taken together, None where it is not known; `text` says it, its share of the
    whole network with it where it has one. Without `value` it is words only.
    """

    title: str
    text: Callable[[Layers, Summary], str]
    value: Callable[[Layers], int | None] | None = None


def _total(field: str) -> Callable[[Layers], int | None]:
    def total(layers: Layers) -> int | None:
        found: list[int | None] = [getattr(layer.report, field) for layer in layers]
        return None if None in found else sum(value or 0 for value in found)

    return total


_params, _macs, _memory = map(_total, ("params", "macs", "activation_bytes"))


def _field(layers: Layers) -> int | None:
    field = layers[-1].report.receptive_field
    return None if field is None else max(field.size)


def _share(part: int | None, whole: int | None) -> str:
    if not part or not whole:
        return ""
    return " (<0.1%)" if part * 1000 < whole else f" ({percent_text(part, whole)})"


def _params_text(layers: Layers, report: Summary) -> str:
    return short_count(_params(layers)) + _share(_params(layers), report.totals.params)


def _macs_text(layers: Layers, report: Summary) -> str:
    return short_count(_macs(layers)) + _share(_macs(layers), report.totals.macs)


def _memory_text(layers: Layers, report: Summary) -> str:
    return bytes_text(_memory(layers))


def _field_text(layers: Layers, report: Summary) -> str:
    field = layers[-1].report.receptive_field
    return UNKNOWN if field is None else "×".join(map(str, field.size)) + " px"


def _shape_text(layers: Layers, report: Summary) -> str:
    return shape(layers[-1].report.output_shape)


def _rule_text(layers: Layers, report: Summary) -> str:
    return next((layer.report.rule for layer in layers if layer.report.rule), "")


FACTS = {
    "shape": Fact("output", _shape_text),
    "rf": Fact("receptive field", _field_text, _field),
    "params": Fact("parameters", _params_text, _params),
    "macs": Fact("MACs", _macs_text, _macs),
    "memory": Fact("activations", _memory_text, _memory),
    "rule": Fact("(W-K+2P)/S+1", _rule_text),
}
"""What `--annotate` takes."""

HEATS = tuple(name for name, fact in FACTS.items() if fact.value)
"""What `--heat` takes: those with a value."""
