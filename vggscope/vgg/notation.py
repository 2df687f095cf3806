"""Reads and writes the notation of Table 1.

    conv3-64 conv3-64 maxpool conv3-128 maxpool FC-4096 FC-1000 soft-max

A word is `conv<kernel>-<channels>`, `maxpool`, `LRN`, `FC-<units>` or `soft-max`, as the paper prints it. As an
extension there are `avgpool`, `BN`, `dropout`, a kernel size after a pool (`maxpool3`), and stride and padding after a
slash (`conv11-64/s4p2`). The defaults are the paper's: a convolution has stride 1 and padding (kernel-1)/2, a pool is
2x2 with stride 2. ReLU is not written: it follows every convolution and every FC layer but the last.

Spaces or commas part the words. The list of widths of people's code, `64, 64, 'M', 128`, is read too: a number is a 3x3
convolution, `M` a max pool.
"""

from __future__ import annotations

import re

from vggscope.errors import NotationError
from vggscope.record import record

EXPECTED = (
    "conv3-64, maxpool, avgpool, LRN, BN, dropout, FC-4096 or soft-max, with /s2, /p0 or /s2p1 after a conv or a pool"
)

LARGEST = 10**6
"""The largest kernel size, channel count, stride or padding."""

_WORD = re.compile(
    r"""(?:(?P<conv>conv)(?P<kernel>\d{1,20})-(?P<channels>\d{1,20})
        | (?P<pool>maxpool|avgpool)(?P<window>\d{1,20})?
        | (?P<fc>FC)-(?P<units>\d{1,20})
        | (?P<plain>LRN|BN|dropout|soft-?max))
        (?:/(?=[sp])(?:s(?P<stride>\d{1,20}))?(?:p(?P<padding>\d{1,20}))?)?""",
    re.IGNORECASE | re.VERBOSE | re.ASCII,
)


LONGEST_LINE = 2000
"""The most characters of a line that is respelled."""

_RESPELLED = tuple(
    (re.compile(rf"\b{pattern}", re.IGNORECASE | re.ASCII), meant)
    for pattern, meant in {
        r"conv(?:2d)?[ _-]?(\d{1,3})(?: ?x ?\1)? ?[-_ ] ?(\d+)": r"conv\1-\2",
        r"conv(?:2d)?[ _-](\d+)(?![-\d])": r"conv3-\1",
        r"(max|avg)[ _-]?pool(?:ing)?(?:2d)?\b": r"\1pool",
        r"(?:fc|linear|dense)[ _-]?(\d+)": r"FC-\1",
        r"batch[ _-]?norm(?:2d)?\b": "BN",
        r"relu\b": "",
    }.items()
)
"""Ways in which people write the words, and the words of the notation."""


@record
class Word:
    """One word of the notation. `kind` is conv, maxpool, avgpool, fc, lrn, bn, dropout or softmax.

    `size` is a convolution's output channels or an FC layer's units. `kernel`, `stride` and `padding` are in pixels and
    include the defaults.
    """

    kind: str
    size: int = 0
    kernel: int = 0
    stride: int = 0
    padding: int = 0


_PLAIN = {"lrn": "LRN", "bn": "BN", "dropout": "dropout", "softmax": "soft-max"}


def parse(line: str) -> tuple[Word, ...]:
    """The words of a line.

    >>> parse("conv3-64 maxpool")[0]
    Word(kind='conv', size=64, kernel=3, stride=1, padding=1)
    >>> write(parse("[64, 'M', 128, 'M']"))
    'conv3-64 maxpool conv3-128 maxpool'

    Raises NotationError, pointing at the word and saying what was expected.
    """
    texts = spelled(line)
    if not texts:
        raise NotationError("the notation is empty", f"a word is {EXPECTED}")
    words = tuple(_word(text, position) for position, text in enumerate(texts, 1))
    _check_order(words, texts)
    return words


def write(words: tuple[Word, ...]) -> str:
    """The line of these words, which `parse` reads back.

    >>> write(parse("CONV3-64/s1p1 maxpool2 fc-10"))
    'conv3-64 maxpool FC-10'
    """
    return " ".join(map(_text, words))


def weight_layers(words: tuple[Word, ...]) -> int:
    """The number of convolutions and FC layers.

    >>> weight_layers(parse("conv3-64 maxpool FC-10"))
    2
    """
    return sum(word.kind in ("conv", "fc") for word in words)


def is_notation(text: str) -> bool:
    """Whether a text is meant as notation: any of its words begins like one of the notation, or it is the
    configuration list of code.
    """
    begins = re.compile(r"(conv\d|maxpool|avgpool|fc-|lrn$|bn$|soft-?max$)", re.IGNORECASE)
    return is_config_list(text) or any(map(begins.match, _parts(text)))


def spelled(line: str) -> list[str]:
    """The words of a line in Table 1's notation, where it is written with commas or as a configuration list of code.

    >>> spelled("conv3-64, maxpool"), spelled("[64, 'M']")
    (['conv3-64', 'maxpool'], ['conv3-64', 'maxpool'])
    """
    return ["maxpool" if part in "Mm" else f"conv3-{part}" if part.isdigit() else part for part in _parts(line)]


def respelled(line: str) -> str:
    """The notation that is meant by a line with blanks, other joints or torch's names in its words; empty for no line.

    >>> respelled("conv 3-64, max pool, fc10"), respelled("Conv3x3_64 ReLU MaxPool2d"), respelled("resnet 50")
    ('conv3-64 maxpool FC-10', 'conv3-64 maxpool', '')
    """
    text = " ".join(re.sub(r"[,;'\"\[\]()]", " ", line[:LONGEST_LINE]).split())
    for pattern, meant in _RESPELLED:
        text = pattern.sub(meant, text)
    try:
        return write(parse(text)) if any(map(_WORD.fullmatch, text.split())) else ""
    except NotationError:
        return ""


def is_config_list(line: str) -> bool:
    """Whether a line is the configuration list of code, which has numbers and `M` alone."""
    parts = _parts(line)
    return len(parts) > 1 and all(re.fullmatch(r"\d+|[Mm]", part, re.ASCII) for part in parts)


def _parts(line: str) -> list[str]:
    return re.sub(r"[\s,;'\"\[\]()]+", " ", line).split()


def _word(text: str, position: int) -> Word:
    match = _WORD.fullmatch(text)
    if match is None:
        raise NotationError(f"word {position}, {text!r}, cannot be read", f"expected {EXPECTED}")
    numbers = {name: int(value) for name, value in match.groupdict().items() if value and value.isdigit()}
    _check_numbers(numbers, text, position)
    if match["conv"]:
        kernel = numbers["kernel"]
        return Word(
            "conv", numbers["channels"], kernel, numbers.get("stride", 1), numbers.get("padding", (kernel - 1) // 2)
        )
    if match["pool"]:
        kernel = numbers.get("window", 2)
        return Word(match["pool"].lower(), 0, kernel, numbers.get("stride", 2), numbers.get("padding", 0))
    if numbers.keys() & {"stride", "padding"}:
        raise NotationError(
            f"word {position}, {text!r}: only a conv or a pool has a stride and a padding", f"expected {EXPECTED}"
        )
    if match["fc"]:
        return Word("fc", numbers["units"])
    return Word(match["plain"].lower().replace("-", ""))


def _check_numbers(numbers: dict[str, int], text: str, position: int) -> None:
    for name, value in numbers.items():
        if not (name == "padding" or value) or value > LARGEST:
            lowest = 0 if name == "padding" else 1
            raise NotationError(
                f"word {position}, {text!r}: {name} {value} makes no sense", f"{name}: {lowest} to {LARGEST:,}"
            )
    kernel = numbers.get("window", 2) if "kernel" not in numbers else 0
    if kernel and numbers.get("padding", 0) > kernel // 2:
        raise NotationError(
            f"word {position}, {text!r}: padding {numbers['padding']} is more than half the window of {kernel}",
            f"a pool's padding is 0 to {kernel // 2}",
        )


def _check_order(words: tuple[Word, ...], texts: list[str]) -> None:
    """Raise NotationError for features after an FC layer, a soft-max before the end, or a BN without a convolution."""
    after_fc = False
    for position, (word, text) in enumerate(zip(words, texts), 1):
        after_fc = after_fc or word.kind == "fc"
        if after_fc and word.kind in ("conv", "maxpool", "avgpool", "lrn"):
            raise NotationError(
                f"word {position}, {text!r}, comes after an FC layer",
                "only FC, dropout and soft-max may follow FC-<units>",
            )
        if word.kind == "softmax" and position < len(words):
            raise NotationError(f"word {position}, {text!r}, is not the last", "soft-max ends a column")
        if word.kind == "bn" and (position == 1 or words[position - 2].kind != "conv"):
            raise NotationError(
                f"word {position}, {text!r}, has no convolution to normalise", "BN directly follows a conv"
            )


def _text(word: Word) -> str:
    if word.kind == "conv":
        return f"conv{word.kernel}-{word.size}" + _window(word, 1, (word.kernel - 1) // 2)
    if word.kind in ("maxpool", "avgpool"):
        return word.kind + ("" if word.kernel == 2 else str(word.kernel)) + _window(word, 2, 0)
    return f"FC-{word.size}" if word.kind == "fc" else _PLAIN[word.kind]


def _window(word: Word, stride: int, padding: int) -> str:
    changed = (f"s{word.stride}" if word.stride != stride else "") + (
        f"p{word.padding}" if word.padding != padding else ""
    )
    return f"/{changed}" if changed else ""
