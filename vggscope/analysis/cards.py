"""Cards with their memory, less than the name says (what nvidia-smi shows as total is what programs share), and with
their speed.
"""

from __future__ import annotations

import re

from vggscope.errors import OptionError, nearest
from vggscope.record import record
from vggscope.units import parse_bytes

MIB = 2**20


@record
class Card:
    """`sold_gb` is the maker's figure, `memory_mib` the total that nvidia-smi shows for the card.

    The rest is from NVIDIA's data sheets, where they are silent from its white papers on the architectures: memory
    bandwidth in GB/s, and the most TFLOPS, in float32 on the plain cores and in float16 on the tensor cores, added up
    in float32, without sparsity (half of a figure that is given with it); None where neither has one. `bfloat16` is as
    fast as float16 where the card has it. Of several boards of one name, V100, A100, H100 and H200 are the SXM ones,
    P100 is the one for PCIe.
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
        """What programs share on it."""
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
    # Made for one cloud alone: of its speed there is no public data sheet.
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
    """Bytes of a GPU, given as an amount or as a card's name.

    >>> gpu_memory("24GiB"), gpu_memory("rtx4090") // 2**20
    (25769803776, 24564)

    Raises OptionError for what is neither, and for an amount below one MiB.
    """
    card = card_named(text)
    if card is not None:
        return card.memory_bytes
    remedy = f"--gpu is an amount such as 24GiB, or one of {', '.join(card.name for card in CARDS)}"
    try:
        amount = parse_bytes(text)
    except OptionError:
        near = nearest(text, (card.name for card in CARDS))
        raise OptionError(f"{text!r} is no GPU and no amount of memory{near}", remedy) from None
    if not MIB <= amount <= 2**50:
        raise OptionError(f"a GPU with {text!r} makes no sense", remedy)
    return amount


def card_named(text: str) -> Card | None:
    """The card of this name, however it is written."""
    return next((card for card in CARDS if _plain(card.name) == _plain(text)), None)


def _plain(name: str) -> str:
    """A card's name without what people write or leave out."""
    return re.sub(r"nvidia|geforce|tesla|[\s_-]", "", name.lower())
