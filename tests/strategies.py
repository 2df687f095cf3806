"""Generated columns, in Table 1 notation."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st

from vggscope.errors import ShapeError
from vggscope.sources.resolve import resolve
from vggscope.vgg.options import BuildOptions

PER_TEST = settings.default.max_examples if settings.default else 60
"""Examples of a test without a number of its own: few with `--quick`, thousands with `make fuzz`."""


def examples(count: int) -> settings:
    """Settings of a test that draws `count` examples in the whole suite: a tenth of them, or less, with `--quick`."""
    return settings(max_examples=count if PER_TEST >= 60 else PER_TEST + count // 50)


MANY = settings(max_examples=max(examples(300).max_examples, PER_TEST))
"""For input from strangers: the same three hundred examples on every run, other and more ones in `make fuzz`."""

SIDE = 64
"""The input side that every generated column fits."""


@st.composite
def convolutions(draw: st.DrawFn) -> str:
    kernel = draw(st.sampled_from([1, 2, 3, 5, 7]))
    stride = draw(st.sampled_from([1, 1, 1, 2]))
    padding = draw(st.integers(0, 3))
    window = draw(st.sampled_from(["", f"/p{padding}", f"/s{stride}", f"/s{stride}p{padding}"]))
    return f"conv{kernel}-{draw(st.integers(1, 8))}{window}"


POOLS = st.sampled_from(["maxpool", "avgpool", "maxpool3", "maxpool3/p1", "avgpool3/s1", "maxpool/s1"])


@st.composite
def features(draw: st.DrawFn) -> list[str]:
    """Convolutions with what may follow them; at most two pools and two strided convolutions, so that 64x64 fits."""
    words: list[str] = []
    pools = strides = 0
    for _ in range(draw(st.integers(1, 5))):
        conv = draw(convolutions())
        strided = "/s2" in conv
        if strided and strides == 2:
            continue
        strides += strided
        words.append(conv)
        words += draw(st.sampled_from([[], ["BN"], ["LRN"], ["dropout"], ["BN", "LRN"]]))
        if pools < 2 and draw(st.booleans()):
            pools += 1
            words.append(draw(POOLS))
    return words or ["conv3-4"]


@st.composite
def heads(draw: st.DrawFn) -> list[str]:
    """Up to three FC layers."""
    return [f"FC-{units}" for units in draw(st.lists(st.integers(1, 12), max_size=3))]


@st.composite
def lines(draw: st.DrawFn) -> str:
    """A whole line of notation."""
    end = draw(st.sampled_from([[], ["soft-max"]]))
    return " ".join([*draw(features()), *draw(heads()), *end])


def fits(line: str) -> bool:
    """Whether a column's windows fit an input of SIDE x SIDE."""
    try:
        return bool(resolve(line, BuildOptions(input=(3, SIDE, SIDE))).shapes)
    except ShapeError:
        return False


def columns() -> st.SearchStrategy[str]:
    """Lines of notation that fit an input of SIDE x SIDE."""
    return lines().filter(fits)
