"""The roofline of a card: no layer is faster than its arithmetic at the card's peak, nor than its bytes at the card's
bandwidth (Williams, Waterman and Patterson 2009).
"""

from __future__ import annotations

from vggscope.analysis.cards import CARDS, Card, card_named
from vggscope.errors import OptionError, unknown
from vggscope.record import record

SECOND = 10**9
"""In nanoseconds."""


@record
class Roof:
    """What a card can do at most in one second with one type of numbers: FLOPs, and bytes to and from its memory."""

    card: str
    flops: int
    bytes: int

    @property
    def ridge(self) -> float:
        """The FLOPs per byte from which on arithmetic is what takes longest."""
        return self.flops / self.bytes

    def time_ns(self, flops: int, moved: int) -> int:
        """The least time that a layer takes."""
        return round(max(flops * SECOND / self.flops, moved * SECOND / self.bytes))

    def bound(self, flops: int, moved: int) -> str:
        """What a layer waits for: `compute` or `memory`."""
        return "compute" if flops * self.bytes > moved * self.flops else "memory"


def roof_of(card: str, dtype: str) -> Roof:
    """The roof of a card by its name.

    Raises OptionError for a card that is not in the table, and for a type of numbers whose speed is not.
    """
    found = card_named(card)
    if found is None:
        raise unknown("card", card, (c.name for c in CARDS), "gpu")
    speed = _tflops(found, dtype)
    if speed is None:
        cards = ", ".join(card.name for card in CARDS if _tflops(card, dtype) is not None)
        remedy = f"for {dtype} --gpu is one of {cards}" if cards else "--dtype float32 has one for nearly every card"
        raise OptionError(f"no figure is known for {dtype} on {found.name}", remedy)
    return Roof(found.name, round(speed * 10**12), found.bandwidth_gb * 10**9)


def _tflops(card: Card, dtype: str) -> float | None:
    """A card's speed with a type of numbers; None where no figure is known."""
    tensor = card.float16_tflops if dtype == "float16" or card.bfloat16 else None
    return {"float32": card.float32_tflops, "float16": tensor, "bfloat16": tensor}.get(dtype)
