"""How a picture is asked to look."""

from __future__ import annotations

from vggscope.drawing.facts import FACTS, Fact, Layers
from vggscope.drawing.picture import Box, Shape, Text
from vggscope.drawing.theme import SMALL, Theme
from vggscope.record import record
from vggscope.units import bytes_text, short_count


@record
class Look:
    """`width` is how wide the picture may be, in points, or None for what looks well; `direction` LR or TB; `annotate`
    names rows of FACTS, `heat` one of them or nothing; `engine` lays out what branches.
    """

    theme: Theme
    width: float | None
    direction: str
    annotate: tuple[str, ...]
    heat: str
    engine: str

    @property
    def facts(self) -> dict[str, Fact]:
        """The facts to be written beside layers."""
        return {name: FACTS[name] for name in self.annotate}


@record
class Heat:
    """One figure as the strength of a colour, from none at 0 to full at `top`, the largest drawn."""

    name: str
    top: int
    theme: Theme

    def fill(self, layers: Layers) -> str:
        """The colour of layers taken together; the card's where their figure is not known."""
        value = _value(self.name, layers)
        return self.theme.card if value is None else self.theme.heat_at(value / self.top if self.top else 0.0)

    @property
    def top_text(self) -> str:
        """The largest figure in words."""
        if self.name == "memory":
            return bytes_text(self.top)
        return f"{self.top} px" if self.name == "rf" else short_count(self.top)

    def legend(self, x: float, y: float) -> tuple[Shape, ...]:
        """A scale from 0 to the top, its texts on the baseline `y`."""
        title = Text(x, y, f"{FACTS[self.name].title}: 0", SMALL, self.theme.muted)
        start, steps, step = title.bounds[2] + 5, 24, 4.0
        scale = [Box(start + i * step, y - 7, step + 0.2, 8, self.theme.heat_at(i / (steps - 1))) for i in range(steps)]
        frame = Box(start, y - 7, steps * step, 8, "", self.theme.border)
        return (title, *scale, frame, Text(start + steps * step + 5, y, self.top_text, SMALL, self.theme.muted))


def heat_of(look: Look, units: list[Layers]) -> Heat | None:
    """The heat that a look asks for, over the units that a picture draws."""
    if not look.heat:
        return None
    values = [_value(look.heat, unit) for unit in units]
    return Heat(look.heat, max((value for value in values if value is not None), default=0), look.theme)


def _value(name: str, layers: Layers) -> int | None:
    value = FACTS[name].value
    return value(layers) if value else None
