"""GPU cards: their memory, what of it a program gets, and their speed with the roofline of each.

Roofline: no layer is faster than its arithmetic at the card's peak, nor than its bytes at the card's bandwidth
(Williams, Waterman and Patterson 2009).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

from vggscope.errors import OptionError, nearest, option, printable, unknown
from vggscope.record import record
from vggscope.units import parse_bytes

MIB = 2**20
GIB = 2**30

CONTEXT = 512 * MIB
"""What the CUDA context and the loaded kernels take, where no measurement of the card is known.

Out-of-memory messages of torch 2 give what a process holds beside torch's allocator, most at inference: 0.10 to 0.13
GiB on a T4 (mbzuai-oryx/GeoPixel#5, QwenLM/Qwen3-VL#1046, Zheng-Chong/CatVTON#133), 0.18 on an RTX 3070
(meta-llama/codellama#82), 0.46 to 0.49 on an RTX 4090 (pinokiofactory/flux-webui#11, 3DTopia/Phidias-Diffusion#8), 0.49
on an A100 (TianheWu/CoSeR#10, lianqi1008/Control-GIC#6), 0.58 to 0.60 on an RTX 5090 (Wan-Video/Wan2.1#465,
TrajectoryCrafter/TrajectoryCrafter#20).
"""


@record
class Card:
    """`sold_gb` is the maker's figure. `memory_mib` is the total that nvidia-smi or rocm-smi shows, which is less.

    The bandwidth in GB/s and the peak TFLOPS are from the makers' data sheets or white papers, None where no figure is
    at hand. float32 is on the CUDA cores. float16 is on the tensor cores with float32 accumulation and without sparsity
    (half of a figure with it). `bfloat16` is as fast, if the card has it. V100, A100, H100 and H200 are the SXM boards,
    P100 is the PCIe board.
    """

    name: str
    sold_gb: int
    memory_mib: int
    bandwidth_gb: int
    float32_tflops: float | None
    float16_tflops: float | None
    bfloat16: bool = True
    maker: str = "NVIDIA"

    @property
    def word(self) -> str:
        """The name without spaces, which a shell takes as one word."""
        return self.name.replace(" ", "-")

    @property
    def memory_bytes(self) -> int:
        """The memory that programs share."""
        return self.memory_mib * MIB

    @property
    def usable_bytes(self) -> int:
        """What a program gets of the memory: the published figure, or an estimate that is rather too small.

        The published cards of NVIDIA lack 80 to 770 MiB of the total, 3.3% at most. The estimate lacks 3.3%, up to 896
        MiB. AMD's MI355X lacks 10 MiB; the estimate for its relatives is 16.
        """
        if self.name in USABLE:
            return USABLE[self.name][0] * MIB
        kept = min(self.memory_mib * 33 // 1000, 896) if self.maker == "NVIDIA" else 16
        return (self.memory_mib - kept) * MIB

    @property
    def source(self) -> str:
        """Where the figure of `usable_bytes` is from."""
        return USABLE[self.name][1] if self.name in USABLE else "an estimate: no published figure is known"

    @property
    def context_bytes(self) -> int:
        """The size of the CUDA context: measured on the card, or the default."""
        return CONTEXTS[self.name] * MIB if self.name in CONTEXTS else CONTEXT

    @property
    def converts_layout(self) -> bool:
        """Whether cuDNN runs float32 convolutions on tensor cores (TF32), for which it copies NCHW tensors to NHWC."""
        return self.maker == "NVIDIA" and self.bfloat16


def _gib(figure: float) -> int:
    """MiB of a figure in GiB that was rounded to two decimals: the least that it can mean."""
    return int((figure - 0.005) * 1024)


RUNS = "torch.cuda.get_device_properties, published with memory measurements"

CARDS = (
    # The paper's four (section 3.3).
    Card("GTX Titan Black", 6, 6144, 336, 5.1, None, bfloat16=False),
    Card("GTX 1060", 6, 6144, 192, 4.4, None, bfloat16=False),
    Card("GTX 1080", 8, 8192, 320, 8.9, None, bfloat16=False),
    Card("GTX 1080 Ti", 11, 11264, 484, 11.3, None, bfloat16=False),
    Card("Titan Xp", 12, 12288, 548, 12.1, None, bfloat16=False),
    Card("GTX 1660 Ti", 6, 6144, 288, 5.4, None, bfloat16=False),
    Card("RTX 2060", 6, 6144, 336, 6.5, 51.6, bfloat16=False),
    Card("RTX 2070", 8, 8192, 448, 7.5, 59.7, bfloat16=False),
    Card("RTX 2080", 8, 8192, 448, 10.1, 80.5, bfloat16=False),
    Card("RTX 2080 Ti", 11, 11264, 616, 13.4, 53.8, bfloat16=False),
    Card("Titan RTX", 24, 24576, 672, 16.3, 130.5, bfloat16=False),
    Card("RTX 3050", 8, 8192, 224, 9.1, None),
    Card("RTX 3060", 12, 12288, 360, 12.7, None),
    Card("RTX 3060 Ti", 8, 8192, 448, 16.2, None),
    Card("RTX 3070", 8, 8192, 448, 20.3, 40.6),
    Card("RTX 3070 Ti", 8, 8192, 608, 21.7, None),
    Card("RTX 3080", 10, 10240, 760, 29.8, 59.5),
    Card("RTX 3080 Ti", 12, 12288, 912, 34.1, None),
    Card("RTX 3090", 24, 24576, 936, 35.6, 71.0),
    Card("RTX 3090 Ti", 24, 24564, 1008, 40.0, None),
    Card("RTX 4060", 8, 8188, 272, 15.1, None),
    Card("RTX 4060 Ti", 8, 8188, 288, 22.1, None),
    Card("RTX 4060 Ti-16GB", 16, 16380, 288, 22.1, None),
    Card("RTX 4070", 12, 12282, 504, 29.1, None),
    Card("RTX 4070 Super", 12, 12282, 504, 35.5, None),
    Card("RTX 4070 Ti", 12, 12282, 504, 40.1, None),
    Card("RTX 4070 Ti Super", 16, 16376, 672, 44.1, None),
    Card("RTX 4080", 16, 16376, 717, 48.7, 97.5),
    Card("RTX 4080 Super", 16, 16376, 736, 52.2, None),
    Card("RTX 4090", 24, 24564, 1008, 82.6, 165.2),
    Card("RTX 5060 Ti-16GB", 16, 16311, 448, 23.7, None),
    Card("RTX 5070", 12, 12227, 672, 30.9, None),
    Card("RTX 5070 Ti", 16, 16303, 896, 43.9, None),
    Card("RTX 5080", 16, 16303, 960, 56.3, None),
    Card("RTX 5090", 32, 32607, 1792, 104.8, 209.5),
    Card("P100", 16, 16384, 732, 9.3, None, bfloat16=False),
    Card("V100-16GB", 16, 16384, 900, 15.7, 125.0, bfloat16=False),
    Card("V100-32GB", 32, 32768, 900, 15.7, 125.0, bfloat16=False),
    Card("T4", 16, 15360, 320, 8.1, 65.0, bfloat16=False),
    Card("RTX 8000", 48, 49152, 672, 16.3, 130.5, bfloat16=False),
    Card("A10", 24, 23028, 600, 31.2, 125.0),
    # Made for one cloud: no public data sheet gives its speed.
    Card("A10G", 24, 23028, 600, None, None),
    Card("A30", 24, 24576, 933, 10.3, 165.0),
    Card("L4", 24, 23034, 300, 30.3, 121.0),
    Card("A40", 48, 46068, 696, 37.4, 149.7),
    Card("L40", 48, 46068, 864, 90.5, 181.0),
    Card("L40S", 48, 46068, 864, 91.6, 362.05),
    Card("RTX A4000", 16, 16376, 448, 19.2, None),
    Card("RTX A5000", 24, 24564, 768, 27.8, None),
    Card("RTX A6000", 48, 49140, 768, 38.7, 154.8),
    Card("RTX 6000 Ada", 48, 49140, 960, 91.1, 364.2),
    Card("A100-40GB", 40, 40960, 1555, 19.5, 312.0),
    Card("A100-80GB", 80, 81920, 2039, 19.5, 312.0),
    Card("H100", 80, 81559, 3350, 66.9, 989.4),
    Card("H200", 141, 143771, 4800, 66.9, 989.4),
    Card("B200", 180, 183359, 8000, None, None),
    Card("RX 7900 XTX", 24, 24560, 960, 61.4, 122.8, maker="AMD"),
    Card("MI100", 32, 32752, 1229, 23.1, 184.6, maker="AMD"),
    Card("MI210", 64, 65520, 1638, 22.6, 181.0, maker="AMD"),
    Card("MI300X", 192, 196592, 5300, 163.4, 1307.4, maker="AMD"),
    Card("MI325X", 256, 262128, 6000, 163.4, 1307.4, maker="AMD"),
    Card("MI355X", 288, 294896, 8000, 157.3, None, maker="AMD"),
)

USABLE = {
    "GTX 1080": (_gib(7.92), "lengstrom/fast-style-transfer#10"),
    "GTX 1660 Ti": (_gib(5.81), "zhou13/lcnn#23"),
    "RTX 2080 Ti": (_gib(10.76), "JDAI-CV/image-captioning#11"),
    "RTX 3060": (12037, RUNS),
    "RTX 3070": (_gib(7.76), "sshan-zhao/GASDA#19"),
    "RTX 3080": (_gib(9.78), "zai-org/CogVideo#34"),
    "RTX 3090": (_gib(23.70), "GaoLii/DSP#10"),
    "RTX 4060": (7933, RUNS),
    "RTX 4070 Ti": (_gib(11.73), "OpenLMLab/LOMO#17"),
    "RTX 4090": (24210, RUNS),
    "RTX 5090": (_gib(31.36), "TrajectoryCrafter/TrajectoryCrafter#20"),
    "P100": (16280, "the README.md of ultralytics/yolov5 in 2020"),
    "V100-16GB": (16130, "the README.md of ultralytics/yolov3 in 2020"),
    "V100-32GB": (_gib(31.74), "haotian-liu/LLaVA#812"),
    "T4": (_gib(14.56), "AlphaGPU/leetgpu-challenges#52"),
    "RTX 8000": (_gib(47.46), "Victarry/stable-dreambooth#8"),
    "A30": (_gib(23.53), "google/RB-Modulation#5"),
    "L40": (_gib(44.40), "QwenLM/Qwen3-VL#2097"),
    "L40S": (_gib(44.52), "huggingface/sentence-transformers#3214"),
    "RTX A4000": (_gib(15.61), "DengKaiCQ/VGGT-Long#6"),
    "A100-40GB": (40450, RUNS),
    "A100-80GB": (81150, RUNS),
    "H100": (_gib(79.11), "vllm-project/vllm#27508"),
    "MI355X": (_gib(287.98), "ROCm/TheRock#2118"),
}
"""The MiB that a program gets of a card (`total_memory` of torch.cuda.get_device_properties), and where that is
published: measurements, or the GitHub issue, by repository and number, whose out-of-memory message gives the capacity.
The least of several figures for a card.
"""

CONTEXTS = {"A100-40GB": 1792, "A100-80GB": 1792}
"""The measured size of the CUDA context in MiB: what GPUMemNet's runs of MobileNet V2 and EfficientNet leave beside the
replay, 1,754 to 1,852 MiB at each batch (docs/memory.md). Recent versions of torch load kernels lazily: about 500 MiB.
"""


@record
class Gpu:
    """A GPU that `--gpu` names: its memory, what a program gets of it, and where that figure is from.

    `context_bytes` is the default for what a process holds beside torch's allocator. `converts_layout` is
    `Card.converts_layout`, true for an amount of memory without a card. `tool` shows the memory in use. `has_foreach`
    is whether torch's optimizers step over all parameters at once on this device, if they are not told otherwise.
    """

    name: str
    capacity_bytes: int
    usable_bytes: int
    source: str
    context_bytes: int
    converts_layout: bool
    tool: str = "nvidia-smi"
    has_foreach: bool = True


def find_gpu(text: str) -> Gpu:
    """The GPU of a card's name, an Apple chip with its memory, or an amount of memory. A number alone is GiB.

    >>> find_gpu("4070 ti").name, find_gpu("a100").usable_bytes // 2**20, find_gpu("24").usable_bytes // 2**30
    ('RTX 4070 Ti', 40450, 24)
    >>> find_gpu("m2 max 32GB").usable_bytes // 2**20
    21845

    Raises OptionError for any other text, and for an amount below one MiB.
    """
    card = card_named(_without_board(text))
    if card is not None:
        sizes = card.memory_bytes, card.usable_bytes
        tool = "nvidia-smi" if card.maker == "NVIDIA" else "rocm-smi"
        return Gpu(card.name, *sizes, card.source, card.context_bytes, card.converts_layout, tool)
    if (chip := APPLE.fullmatch(" ".join(text.lower().split()))) is not None:
        return _apple(chip)
    text = re.sub(r"\s*v?ram$", "", text.strip(), flags=re.IGNORECASE)
    amount = _amount(text)
    name = f"{text}GiB" if NUMBER.fullmatch(text) else text
    return Gpu(name, amount, amount, "as given", CONTEXT, True)


def gpu_memory(text: str) -> int:
    """The bytes of a GPU from an amount or a card's name.

    >>> gpu_memory("24GiB"), gpu_memory("rtx4090") // 2**20
    (25769803776, 24564)

    Raises OptionError for any other text, and for an amount below one MiB.
    """
    return find_gpu(text).capacity_bytes


SIZE_TOLERANCE = 0.05
"""By how much of its memory a device may differ from a card of its name, which may be sold in several sizes."""

MOST_GIB = 1024
"""The largest number that is read as GiB without a unit. Larger ones are more likely a mistyped card."""


def _amount(text: str) -> int:
    """The bytes of an amount of memory. Raises OptionError for any other text, and for an amount below one MiB."""
    is_number = NUMBER.fullmatch(text.strip()) is not None
    try:
        amount = parse_bytes(f"{text}GiB" if is_number else text)
    except OptionError:
        amount = None
    if amount is None or (is_number and amount > MOST_GIB * GIB):
        near = _near(text)
        found = nearest(text, near) or (f", did you mean {near[0]}?" if near else "")
        raise OptionError(f"unknown GPU {printable(text)!r}{found}", _remedy(text, near))
    if not MIB <= amount <= 2**50:
        raise OptionError(f"a GPU with {text!r} makes no sense", _remedy(text, []))
    return amount


NUMBER = re.compile(r"\d+(?:\.\d+)?")
COUNTED = re.compile(r"(\d+) ?x +(\D.*|\d{4}.*)|(.+?) x ?(\d+)", re.IGNORECASE)
"""Several cards, as people write them: `4x A100`, `T4 x2`."""

HINTS = (
    (
        "laptop|mobile|max-?q",
        "a laptop's card often has less memory than the desktop's of that name: {gpu} is its memory",
    ),
    ("colab", "Colab offers T4, L4 and A100 cards: {gpu} names one"),
    ("kaggle", "Kaggle offers P100 and T4 cards: {gpu} names one"),
    ("jetson|orin", "a Jetson shares its memory with the processor: {gpu} is what is free of it, such as 6GiB"),
    ("tpu", "a TPU runs torch without CUDA's allocator, and no figure is known for it"),
)
"""Words that people say in place of a card, as regular expressions, with what is known of them."""


def _remedy(text: str, near: list[str]) -> str:
    """What to write in place of a text that is no GPU."""
    gpu, word = option("gpu"), text.lower()
    if (several := COUNTED.fullmatch(text.strip())) is not None:
        number, card = int(several[1] or several[4]), card_named(several[2] or several[3])
        if card is not None:
            return f"{gpu} is one of the cards: {option('gpu', card.word)} and {option('gpus', number)}"
    for pattern, hint in HINTS:
        if re.search(rf"\b(?:{pattern})", word):
            return hint.format(gpu=gpu)
    remedy = f"{gpu} is a card such as RTX 4090, A100-80GB or M2 Max 32GB; for any other, its memory, such as 24GiB"
    return f"{remedy}; near it: {', '.join(near)}" if len(near) > 1 else remedy


APPLE = re.compile(r"(?:apple )?(m[1-9])(?: ?(pro|max|ultra))?(?:[ -]+(\d+) ?(?:g|gb|gib)?)?")
"""An Apple chip, and its memory if it follows."""


def _apple(chip: re.Match[str]) -> Gpu:
    """The GPU of an Apple chip, which gets a part of the memory that it shares with the processor.

    Metal recommends a working set of 2/3 of the memory up to 36 GiB, and of 3/4 above; torch's `mps` fails at 1.7 times
    that, when the rest of the system is already swapped out. Messages of torch give 18.13 / 1.7 of 16 GiB, 36.27 / 1.7
    of 32 GiB and 81.60 / 1.7 of 64 GiB.
    """
    name, kind, size = chip.groups()
    chip_name = " ".join(part for part in (name.upper(), (kind or "").title()) if part)
    if size is None:
        remedy = f"{option('gpu')} is for example '{chip_name} 32GB'"
        raise OptionError(f"an Apple {chip_name} is sold with several sizes of memory", remedy)
    memory = int(size) * GIB
    if not memory or int(size) > MOST_GIB:
        raise OptionError(
            f"an Apple chip with {size} GiB makes no sense", f"{option('gpu')} is for example 'M2 Max 32GB'"
        )
    share = memory * 2 // 3 if memory <= 36 * GIB else memory * 3 // 4
    source = "Metal's recommended working set (haoheliu/AudioLDM2#20)"
    return Gpu(f"{chip_name} {size}GB", memory, share, source, 0, False, "torch.mps", has_foreach=False)


def card_named(text: str) -> Card | None:
    """The card with this name, in any spelling; None if there is none.

    A name that is sold in two sizes means the smaller one, unless the size follows it.

    >>> [card.name for word in ("tesla t4", "3060 12GB", "a100 80g") if (card := card_named(word)) is not None]
    ['T4', 'RTX 3060', 'A100-80GB']
    """
    word = _plain(text)
    return next((card for card in CARDS if word and word in _words(card)), None)


def _words(card: Card) -> Iterator[str]:
    """The words for a card, without the parts that people leave out: with and without its size."""
    base = re.sub(rf"{card.sold_gb}gb$", "", _plain(card.name))
    yield base
    for unit in ("gb", "g", "gib", ""):
        yield f"{base}{card.sold_gb}{unit}"


def _plain(name: str) -> str:
    """A card's name without the parts that people leave out."""
    return re.sub(
        r"nvidia|amd|geforce|tesla|quadro|instinct|radeon|rtx|gtx|\brx\b|sxm\d?|hbm\d?e?|generation|[\s_-]",
        "",
        name.lower(),
    )


def _without_board(name: str) -> str:
    """A name without the board: the PCIe boards have the memory of the others, but not their speed."""
    return re.sub(r"pcie", "", name, flags=re.IGNORECASE)


def device_card(name: str, total_bytes: int) -> Card | None:
    """The card of a device with the name that its driver gives, and with this memory. None if the table has none.

    >>> card = device_card("NVIDIA GeForce RTX 4060 Ti", 16000 * MIB)
    >>> card.name if card else ""
    'RTX 4060 Ti-16GB'
    """
    word = _plain(re.sub("laptop gpu", "", _without_board(name), flags=re.IGNORECASE))
    for card in CARDS:
        if word in _words(card) and abs(card.usable_bytes - total_bytes) < SIZE_TOLERANCE * total_bytes:
            return card
    return None


def _near(text: str) -> list[str]:
    """The names of up to four cards like a word, the nearest first."""
    words = {_plain(card.name): card.name for card in CARDS}
    return [words[word] for word in get_close_matches(_plain(text), words, n=4, cutoff=0.7)]


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
