"""The options of a picture, the facts beside its layers, and heat: a fact shown as the strength of a colour."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vggscope.analysis.summary import Summary
from vggscope.drawing.layer import Layer
from vggscope.drawing.picture import Rectangle, Shape, Text
from vggscope.drawing.theme import KINDS, SMALL, Theme
from vggscope.record import record
from vggscope.units import UNKNOWN, bytes_text, field_text, percent_text, short_count

Layers = tuple[Layer, ...]


@record
class Fact:
    """A figure or text beside layers. `text` shows it for several layers taken together, with its share of the network
    if it has one. `value` is the figure itself, None if unknown; a fact without a figure has no `value`.
    """

    title: str
    text: Callable[[Layers, Summary], str]
    value: Callable[[Layers], int | None] | None = None


def _sum_of(field: str) -> Callable[[Layers], int | None]:
    def total(layers: Layers) -> int | None:
        values: list[int | None] = [getattr(layer.report, field) for layer in layers]
        return None if None in values else sum(value or 0 for value in values)

    return total


def _count_of(field: str) -> Callable[[Layers, Summary], str]:
    def text(layers: Layers, report: Summary) -> str:
        count, whole = _sum_of(field)(layers), getattr(report.totals, field)
        if not count or not whole:
            return short_count(count)
        return f"{short_count(count)} ({'<0.1%' if count * 1000 < whole else percent_text(count, whole)})"

    return text


def _receptive_field(layers: Layers) -> int | None:
    field = layers[-1].report.receptive_field
    return None if field is None else max(field.size)


def _receptive_field_text(layers: Layers, report: Summary) -> str:
    field = layers[-1].report.receptive_field
    return UNKNOWN if field is None else field_text(field.size)


def _rule_text(layers: Layers, report: Summary) -> str:
    return next((layer.report.rule for layer in layers if layer.report.rule), "")


_bytes = _sum_of("activation_bytes")

FACTS = {
    "shape": Fact("output", lambda layers, report: layers[-1].output),
    "rf": Fact("receptive field", _receptive_field_text, _receptive_field),
    "params": Fact("parameters", _count_of("params"), _sum_of("params")),
    "macs": Fact("MACs", _count_of("macs"), _sum_of("macs")),
    "memory": Fact("activations", lambda layers, report: bytes_text(_bytes(layers)), _bytes),
    "rule": Fact("(W-K+2P)/S+1", _rule_text),
}
"""What `--annotate` takes."""

HEATS = tuple(name for name, fact in FACTS.items() if fact.value)
"""What `--heat` takes: the facts that have a value."""


NONE = "none"
"""The title, or the caption, of a picture without one."""


@record
class Framing:
    """What stands around a drawing. `title` and `caption` replace those of the network, NONE leaves one out. With
    `legend`, notes and the meaning of colours stand below it. With `crop`, the page ends where the picture does.
    """

    title: str | None = None
    caption: str | None = None
    legend: bool = True
    crop: bool = False


@record
class Look:
    """The options of a picture. `width` is its largest width in points, or None; `direction` is LR or TB.

    `annotate` names rows of FACTS, `heat` one of HEATS or is empty; `engine` lays out networks that branch.
    """

    theme: Theme
    width: float | None
    direction: str
    annotate: tuple[str, ...]
    heat: str
    engine: str
    framing: Framing = Framing()

    @property
    def facts(self) -> dict[str, Fact]:
        """The facts that are written beside layers."""
        return {name: FACTS[name] for name in self.annotate}


@record
class Heat:
    """A colour scale for one fact, from 0 to `top`, its largest value in the picture."""

    name: str
    top: int
    theme: Theme

    def fill(self, layers: Layers) -> str:
        """The colour of layers taken together; the card's colour if their value is unknown."""
        value = _value(self.name, layers)
        return self.theme.card if value is None else self.theme.heat_at(value / self.top if self.top else 0.0)

    @property
    def top_text(self) -> str:
        """The largest value in words."""
        if self.name == "memory":
            return bytes_text(self.top)
        return f"{self.top} px" if self.name == "rf" else short_count(self.top)

    def legend(self, x: float, y: float) -> tuple[Shape, ...]:
        """The scale from 0 to `top`, its texts on the baseline `y`."""
        title = Text(x, y, f"{FACTS[self.name].title}: 0", SMALL, self.theme.muted)
        start, steps, step = title.bounds[2] + 5, 24, 4.0
        scale = [
            Rectangle(start + i * step, y - 7, step + 0.2, 8, self.theme.heat_at(i / (steps - 1))) for i in range(steps)
        ]
        frame = Rectangle(start, y - 7, steps * step, 8, "", self.theme.border)
        return (title, *scale, frame, Text(start + steps * step + 5, y, self.top_text, SMALL, self.theme.muted))


def heat_of(look: Look, units: list[Layers]) -> Heat | None:
    """The colour scale that a look asks for, over the layers that a picture draws as units."""
    if not look.heat:
        return None
    values = [_value(look.heat, unit) for unit in units]
    return Heat(look.heat, max((value for value in values if value is not None), default=0), look.theme)


def kind_legend(x: float, y: float, kinds: Iterable[str], theme: Theme) -> tuple[Shape, ...]:
    """The colours of these kinds of layer with their names, in a row on the baseline `y`."""
    shapes: list[Shape] = []
    for kind in (kind for kind in KINDS if kind in set(kinds)):
        text = Text(x + 12, y, KINDS[kind], SMALL, theme.muted)
        shapes += [Rectangle(x, y - 7, 8, 8, theme.fills[kind], theme.accents[kind], 0.5), text]
        x = text.bounds[2] + 12
    return tuple(shapes)


def _value(name: str, layers: Layers) -> int | None:
    value = FACTS[name].value
    return value(layers) if value else None
