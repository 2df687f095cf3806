"""GPU cards: their memory and their speed, and the roofline of each.

Roofline: no layer is faster than its arithmetic at the card's peak, nor than its bytes at the card's bandwidth
(Williams, Waterman and Patterson 2009).
"""

from __future__ import annotations

import re

from vggscope.errors import OptionError, nearest, option, unknown
from vggscope.record import record
from vggscope.units import parse_bytes

MIB = 2**20


@record
class Card:
    """`sold_gb` is the maker's figure. `memory_mib` is the total that nvidia-smi shows, which is less.

    The rest is from NVIDIA's data sheets, or else from its white papers on the architectures: the memory bandwidth in
    GB/s and the peak TFLOPS, None if not published. float32 is on the CUDA cores. float16 is on the tensor cores with
    float32 accumulation and without sparsity (half of a figure with it). `bfloat16` is as fast, if the card has it.
    V100, A100, H100 and H200 are the SXM boards, P100 is the PCIe board.
    """

    name: str
    sold_gb: int
    memory_mib: int
    bandwidth_gb: int
    float32_tflops: float | None
    float16_tflops: float | None
    bfloat16: bool = True

    @property
    def memory_bytes(self) -> int:
        """The memory that programs share."""
        return self.memory_mib * MIB


CARDS = (
    # The paper's four (section 3.3).
    Card("GTX Titan Black", 6, 6144, 336, 5.1, None, bfloat16=False),
    Card("GTX 1080 Ti", 11, 11264, 484, 11.3, None, bfloat16=False),
    Card("RTX 2080 Ti", 11, 11264, 616, 13.4, 53.8, bfloat16=False),
    Card("RTX 3060", 12, 12288, 360, 12.7, None),
    Card("RTX 3090", 24, 24576, 936, 35.6, 71.0),
    Card("RTX 4080", 16, 16376, 717, 48.7, 97.5),
    Card("RTX 4090", 24, 24564, 1008, 82.6, 165.2),
    Card("RTX 5090", 32, 32607, 1792, 104.8, 209.5),
    Card("P100", 16, 16384, 732, 9.3, None, bfloat16=False),
    Card("V100-16GB", 16, 16384, 900, 15.7, 125.0, bfloat16=False),
    Card("V100-32GB", 32, 32768, 900, 15.7, 125.0, bfloat16=False),
    Card("T4", 16, 15360, 320, 8.1, 65.0, bfloat16=False),
    Card("A10", 24, 23028, 600, 31.2, 125.0),
    # Made for one cloud: no public data sheet gives its speed.
    Card("A10G", 24, 23028, 600, None, None),
    Card("L4", 24, 23034, 300, 30.3, 121.0),
    Card("A40", 48, 46068, 696, 37.4, 149.7),
    Card("L40S", 48, 46068, 864, 91.6, 362.05),
    Card("RTX A6000", 48, 49140, 768, 38.7, 154.8),
    Card("RTX 6000 Ada", 48, 49140, 960, 91.1, 364.2),
    Card("A100-40GB", 40, 40960, 1555, 19.5, 312.0),
    Card("A100-80GB", 80, 81920, 2039, 19.5, 312.0),
    Card("H100", 80, 81559, 3350, 66.9, 989.4),
    Card("H200", 141, 143771, 4800, 66.9, 989.4),
)


def gpu_memory(text: str) -> int:
    """The bytes of a GPU from an amount or a card's name.

    >>> gpu_memory("24GiB"), gpu_memory("rtx4090") // 2**20
    (25769803776, 24564)

    Raises OptionError for any other text, and for an amount below one MiB.
    """
    card = card_named(text)
    if card is not None:
        return card.memory_bytes
    remedy = f"{option('gpu')} is an amount such as 24GiB, or one of {', '.join(card.name for card in CARDS)}"
    try:
        amount = parse_bytes(text)
    except OptionError:
        near = nearest(text, (card.name for card in CARDS))
        raise OptionError(f"{text!r} is no GPU and no amount of memory{near}", remedy) from None
    if not MIB <= amount <= 2**50:
        raise OptionError(f"a GPU with {text!r} makes no sense", remedy)
    return amount


def card_named(text: str) -> Card | None:
    """The card with this name, in any spelling; None if there is none."""
    return next((card for card in CARDS if _plain(card.name) == _plain(text)), None)


def _plain(name: str) -> str:
    """A card's name without the parts that people leave out."""
    return re.sub(r"nvidia|geforce|tesla|[\s_-]", "", name.lower())


SECOND = 10**9
"""In nanoseconds."""


@record
class Roof:
    """The most that a card does in one second with one dtype: FLOPs, and bytes to and from its memory."""

    card: str
    flops: int
    bytes: int

    @property
    def ridge(self) -> float:
        """The FLOPs per byte above which arithmetic is the bottleneck."""
        return self.flops / self.bytes

    def time_ns(self, flops: int, moved: int) -> int:
        """The least time of a layer in nanoseconds."""
        return round(max(flops * SECOND / self.flops, moved * SECOND / self.bytes))

    def bound(self, flops: int, moved: int) -> str:
        """The bottleneck of a layer: `compute` or `memory`."""
        return "compute" if flops * self.bytes > moved * self.flops else "memory"


def roof_of(card: str, dtype: str) -> Roof:
    """The roof of a card by its name.

    Raises OptionError for an unknown card, and for a dtype whose speed is not published.
    """
    known = card_named(card)
    if known is None:
        raise unknown("card", card, (c.name for c in CARDS))
    speed = _tflops(known, dtype)
    if speed is None:
        cards = ", ".join(card.name for card in CARDS if _tflops(card, dtype) is not None)
        other = f"{option('dtype', 'float32')} has one for nearly every card"
        remedy = f"for {dtype} {option('card')} is one of {cards}" if cards else other
        raise OptionError(f"no figure is known for {dtype} on {known.name}", remedy)
    return Roof(known.name, round(speed * 10**12), known.bandwidth_gb * 10**9)


def _tflops(card: Card, dtype: str) -> float | None:
    """The peak TFLOPS of a card with a dtype; None if not published."""
    tensor = card.float16_tflops if dtype == "float16" or card.bfloat16 else None
    return {"float32": card.float32_tflops, "float16": tensor, "bfloat16": tensor}.get(dtype)
