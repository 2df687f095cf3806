"""What a checkpoint lacks, has too much or has otherwise than its column, in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vggscope.checkpoint.chain import Link
from vggscope.checkpoint.configs import Found, same
from vggscope.checkpoint.head import HIDDEN, LABELS, Head
from vggscope.checkpoint.reparametrised import whole
from vggscope.checkpoint.runs import CAFFE, OTHER, SLICED
from vggscope.checkpoint.stored import StoredTensor
from vggscope.errors import printable
from vggscope.record import record
from vggscope.units import kernel_text

SHOWN = 6
"""How many names a sentence lists."""


@record
class Differences:
    """`missing` and `extra` are state-dict keys, or a layer's label where the file tells no key; `unbiased` are those
    of the missing that belong to convolutions made without a bias; `sentences` are for people.
    """

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    sentences: tuple[str, ...]
    unbiased: frozenset[str] = frozenset()

    @property
    def is_whole(self) -> bool:
        """Whether a model of the column, its convolutions without a bias where the file's are, has the file's keys."""
        return not self.extra and self.unbiased.issuperset(self.missing)


NO_DIFFERENCES = Differences((), (), ())


def differences(found: Found, head: Head, links: tuple[Link, ...], tensors: Sequence[StoredTensor]) -> Differences:
    """The file beside its column."""
    whole = _absent_convolutions(found)
    cut = _cut(found, head, whole)
    parts = tuple(_absent_tensors(links))
    absent_fc = () if cut else tuple(_absent_fully_connected(head))
    missing = (*([] if cut else whole), *parts, *absent_fc)
    extra = tuple(_extra(links, tensors))
    sentences = [
        cut,
        *_wrong_shapes(found),
        *_odd_parts(links),
        _before(found),
        _head_differs(found, head),
        _renumbered(found),
    ]
    bare = _without_bias(links)
    absent = tuple(key for key in missing if key not in bare)
    if bare:
        sentences.append(f"its {len(bare)} convolutions have no bias, as is usual before a batch norm")
    if absent:
        sentences.append(f"missing: {listed(absent)}")
    if extra:
        sentences.append(
            f"extra: {listed(extra)}; {_column(found)} has no place for {'it' if len(extra) == 1 else 'them'}"
        )
    return Differences(missing, extra, tuple(filter(None, sentences)), bare)


def listed(names: Sequence[str]) -> str:
    """Some of the names, and how many more there are."""
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _column(found: Found) -> str:
    return f"column {found.column}" if found.column else " and ".join(found.alike)


def _absent_convolutions(found: Found) -> list[str]:
    return [
        f"{_path(found, i)}.{leaf}" for i, conv in enumerate(found.convs) if conv is None for leaf in ("weight", "bias")
    ]


def _path(found: Found, index: int) -> str:
    place = found.places[index]
    if found.run.style in (OTHER, SLICED):
        return "conv{}_{}".format(*place.stage)
    return found.run.path(place.position(found.run.style))


def _cut(found: Found, head: Head, whole: list[str]) -> str:
    """What is said of a file that ends early: at a convolution, or before the FC layers."""
    if head.layers:
        return ""
    if found.column is None:
        return f"cut: its {len(found.convs)} convolutions are the first of {_listing(found.alike)}; the rest is missing"
    last = max(i for i, conv in enumerate(found.convs) if conv)
    if last + 1 == len(found.places):
        return "features only: the FC layers fc6, fc7 and fc8 are missing"
    return (
        f"cut: the last convolution is {_label(found, last)}; {_label(found, last + 1)} and all that follow are missing"
    )


def _label(found: Found, index: int) -> str:
    return "conv{}_{}".format(*found.places[index].stage)


def _listing(names: Sequence[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"


def _absent_tensors(links: tuple[Link, ...]) -> Iterator[str]:
    """Tensors that a layer of the file should have beside those that it has."""
    for link in links:
        if link.stored is None:
            if link.label.startswith("bn"):
                yield link.label
            continue
        have = {tensor.leaf for tensor in link.stored.tensors}
        for leaf, _ in link.expected:
            if leaf not in have:
                yield f"{link.stored.name}.{leaf}"


def _without_bias(links: tuple[Link, ...]) -> frozenset[str]:
    """The keys of the convolutions' biases, where none has one and each is followed by a batch norm."""
    convs = [link.stored for link in links if link.word and link.word.kind == "conv" and link.stored]
    norms = [link for link in links if link.word and link.word.kind == "bn" and link.stored]
    has_bias = any(tensor.leaf == "bias" for conv in convs for tensor in conv.tensors)
    return frozenset() if has_bias or len(norms) < len(convs) else frozenset(f"{conv.name}.bias" for conv in convs)


def _absent_fully_connected(head: Head) -> Iterator[str]:
    """FC layers that the column has and the file does not: their keys, or their labels where the names are unusual."""
    for name, layer in zip(head.names, head.layers):
        if layer is None:
            yield from (name,) if name in LABELS else (f"{name}.weight", f"{name}.bias")


def _extra(links: tuple[Link, ...], tensors: Iterable[StoredTensor]) -> Iterator[str]:
    """Tensors that no layer of the column owns."""
    owned: set[str] = set()
    for link in links:
        if link.stored:
            leaves = {leaf for leaf, _ in link.expected} | ({"num_batches_tracked"} if link.text == "BN" else set())
            owned.update(tensor.name for tensor in link.stored.tensors if whole(tensor.leaf) in leaves)
    return (tensor.name for tensor in tensors if tensor.name not in owned)


def _wrong_shapes(found: Found) -> Iterator[str]:
    for i, (conv, place) in enumerate(zip(found.convs, found.places)):
        if conv and not same(conv.shape, place.shape, not i):
            yield (
                f"{printable(conv.name)}.weight is {kernel_text(conv.shape)},"
                f" {_label(found, i)} of {_column(found)} is {kernel_text(place.shape)}"
            )


def _odd_parts(links: tuple[Link, ...]) -> Iterator[str]:
    """Biases and statistics that are not as long as their layer is wide."""
    for link in links:
        expected = dict(link.expected)
        for tensor in link.stored.tensors if link.stored else ():
            shape = expected.get(tensor.leaf, tensor.shape)
            if tensor.shape != shape:
                yield f"{printable(tensor.name)} is {kernel_text(tensor.shape) or 'a number'}, not {kernel_text(shape)}"


def _head_differs(found: Found, head: Head) -> str:
    """A head of other widths than the column's FC-4096 FC-4096."""
    expected = [HIDDEN, HIDDEN]
    have = [layer.shape[0] if layer else None for layer in head.layers]
    if not have or (len(have) == 3 and all(a in (b, None) for a, b in zip(have, expected))):
        return ""
    words = " ".join(f"FC-{units}" for units in head.units)
    return f"its head is {words}, {_column(found)} has FC-4096 FC-4096 FC-1000"


def _renumbered(found: Found) -> str:
    if not found.renumbered:
        return ""
    position = next(
        i
        for i, (have, place) in enumerate(zip(found.run.positions, found.places))
        if have != place.position(found.run.style)
    )
    usual = found.run.path(found.places[position].position(found.run.style))
    conv = found.convs[position]
    if found.run.style != CAFFE and found.run.room > 1:
        return "the numbers leave room for one more layer before each convolution, most likely a pad"
    return f"{_label(found, position)} is {printable(conv.name if conv else '')}, {usual} by the usual numbering"


def _before(found: Found) -> str:
    """The convolution that some put before a VGG to take the image from the range that they use to the one it reads."""
    before = found.before
    return f"before conv1_1 stands {printable(before.name)}, a 1x1 convolution of the colours" if before else ""
