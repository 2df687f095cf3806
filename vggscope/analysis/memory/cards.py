"""Cards with their memory: less than the name says, what nvidia-smi shows as total is what programs share."""

from __future__ import annotations

import re

from vggscope.errors import OptionError
from vggscope.record import record
from vggscope.units import parse_bytes

MIB = 2**20


@record
class Card:
    """`sold_gb` is the maker's figure (NVIDIA's data sheet), `memory_mib` the total that nvidia-smi shows for it."""

    name: str
    sold_gb: int
    memory_mib: int

    @property
    def memory_bytes(self) -> int:
        """What programs share on it."""
        return self.memory_mib * MIB


CARDS = (
    # The paper's four (section 3.3).
    Card("GTX Titan Black", 6, 6144),
    Card("GTX 1080 Ti", 11, 11264),
    Card("RTX 2080 Ti", 11, 11264),
    Card("RTX 3060", 12, 12288),
    Card("RTX 3090", 24, 24576),
    Card("RTX 4080", 16, 16376),
    Card("RTX 4090", 24, 24564),
    Card("RTX 5090", 32, 32607),
    Card("P100", 16, 16384),
    Card("V100-16GB", 16, 16384),
    Card("V100-32GB", 32, 32768),
    Card("T4", 16, 15360),
    Card("A10", 24, 23028),
    Card("A10G", 24, 23028),
    Card("L4", 24, 23034),
    Card("A40", 48, 46068),
    Card("L40S", 48, 46068),
    Card("RTX A6000", 48, 49140),
    Card("RTX 6000 Ada", 48, 49140),
    Card("A100-40GB", 40, 40960),
    Card("A100-80GB", 80, 81920),
    Card("H100", 80, 81559),
    Card("H200", 141, 143771),
)


def gpu_memory(text: str) -> int:
    """Bytes of a GPU, given as an amount or as a card's name.

    >>> gpu_memory("24GiB"), gpu_memory("rtx4090") // 2**20
    (25769803776, 24564)

    Raises OptionError for what is neither, and for an amount below one MiB.
    """
    for card in CARDS:
        if _plain(card.name) == _plain(text):
            return card.memory_bytes
    remedy = f"--gpu is an amount such as 24GiB, or one of {', '.join(card.name for card in CARDS)}"
    try:
        amount = parse_bytes(text)
    except OptionError:
        raise OptionError(f"{text!r} is no GPU and no amount of memory", remedy) from None
    if not MIB <= amount <= 2**50:
        raise OptionError(f"a GPU with {text!r} makes no sense", remedy)
    return amount


def _plain(name: str) -> str:
    """A card's name without what people write or leave out."""
    return re.sub(r"nvidia|geforce|tesla|[\s_-]", "", name.lower())
