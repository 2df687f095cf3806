"""What a checkpoint has missing, extra or different from its column of Table 1."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from vggscope.checkpoint.config_match import ConfigMatch, same_shape
from vggscope.checkpoint.contents import StoredTensor, unwrapped, whole
from vggscope.checkpoint.conv_runs import CAFFE, OTHER, SLICED
from vggscope.checkpoint.fc_head import HIDDEN, LABELS, FCHead
from vggscope.checkpoint.structure import StoredVGG, StoredWord
from vggscope.errors import printable
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.units import kernel_text

SHOWN = 6
"""The most names that a sentence lists."""


@record
class Problems:
    """The mismatches between a file and its column.

    `missing` and `extra` are state-dict keys, or a layer's label where its key is unknown. `missing_biases` are those
    of the missing keys that belong to convolutions built without a bias. `sentences` describe all problems.
    """

    missing: tuple[str, ...]
    extra: tuple[str, ...]
    sentences: tuple[str, ...]
    missing_biases: frozenset[str] = frozenset()

    @property
    def has_all_keys(self) -> bool:
        """Whether the file has exactly the keys of the column, or of the column without convolution biases."""
        return not self.extra and self.missing_biases.issuperset(self.missing)


def find_problems(vgg: StoredVGG | None, tensors: Sequence[StoredTensor]) -> Problems:
    """The problems of a file with these tensors. A VGG that matches no column of Table 1 has extra tensors at most."""
    if vgg is None:
        return Problems((), (), ())
    if vgg.match is None:
        beside = tuple(t.name for t in tensors if not unwrapped(t.name).startswith(vgg.run.prefix))
        told = f"extra: {listed(beside)}; the network has no place for {'it' if len(beside) == 1 else 'them'}"
        return Problems((), beside, (told,) if beside else ())
    match, head, words = vgg.match, vgg.head, vgg.words
    missing_convs = _missing_convs(match)
    truncation = _truncation(match, head)
    missing = (
        *([] if truncation else missing_convs),
        *_missing_tensors(words),
        *(() if truncation else _missing_fc(head)),
    )
    extra = tuple(_extra(words, tensors))
    sentences = [
        truncation,
        *_wrong_conv_shapes(match),
        *_wrong_vector_shapes(words),
        _conv_before(match),
        _head_mismatch(match, head),
        _renumbering(match),
    ]
    biases = _missing_biases(words)
    absent = tuple(key for key in missing if key not in biases)
    if biases:
        sentences.append(f"its {len(biases)} convolutions have no bias, as is usual before a batch norm")
    if absent:
        sentences.append(f"missing: {listed(absent)}")
    if extra:
        pronoun = "it" if len(extra) == 1 else "them"
        sentences.append(f"extra: {listed(extra)}; {_title(match)} has no place for {pronoun}")
    return Problems(missing, extra, tuple(filter(None, sentences)), biases)


def library_differences(
    word: str, missing: tuple[str, ...], extra: tuple[str, ...], differing: tuple[tuple[str, Shape, Shape], ...]
) -> Iterator[str]:
    """Sentences on how a file differs from a library's model: other shapes, then missing keys, then extra ones."""
    for name, ours, theirs in differing[:SHOWN]:
        yield f"{printable(name)} is {_sides(ours)}, not {_sides(theirs)}"
    if len(differing) > SHOWN:
        yield f"{len(differing) - SHOWN} more tensors have other shapes"
    if missing:
        yield f"missing: {listed(missing)}"
    if extra:
        yield f"extra: {listed(extra)}; {word} has no place for {'it' if len(extra) == 1 else 'them'}"


def _sides(shape: Shape) -> str:
    return "x".join(map(str, shape)) or "a scalar"


def listed(names: Sequence[str]) -> str:
    """The first names, and the number of those left out."""
    shown = ", ".join(printable(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")


def _title(match: ConfigMatch) -> str:
    return f"column {match.config}" if match.config else " and ".join(match.candidates)


def _missing_convs(match: ConfigMatch) -> list[str]:
    return [
        f"{_usual_path(match, i)}.{leaf}"
        for i, conv in enumerate(match.convs)
        if conv is None
        for leaf in ("weight", "bias")
    ]


def _usual_path(match: ConfigMatch, index: int) -> str:
    """The path that a convolution has in the file's style, or its label where the style gives none."""
    expected = match.expected[index]
    if match.run.style in (OTHER, SLICED):
        return expected.label
    return match.run.path(expected.position(match.run.style))


def _truncation(match: ConfigMatch, head: FCHead) -> str:
    """The sentence on a file that ends at a convolution or before the FC layers; empty for any other."""
    if head.layers:
        return ""
    if match.config is None:
        candidates = ", ".join(match.candidates[:-1]) + f" and {match.candidates[-1]}"
        return f"cut: its {len(match.convs)} convolutions are the first of {candidates}; the rest is missing"
    last = max(i for i, conv in enumerate(match.convs) if conv)
    if last + 1 == len(match.expected):
        return "features only: the FC layers fc6, fc7 and fc8 are missing"
    final, following = match.expected[last].label, match.expected[last + 1].label
    return f"cut: the last convolution is {final}; {following} and all that follow are missing"


def _missing_tensors(words: tuple[StoredWord, ...]) -> Iterator[str]:
    """Tensors that the file's layers lack, and batch norms that it lacks wholly."""
    for word in words:
        if word.stored is None:
            if word.label.startswith("bn"):
                yield word.label
            continue
        leaves = {tensor.leaf for tensor in word.stored.tensors}
        for leaf, _ in word.expected:
            if leaf not in leaves:
                yield f"{word.stored.name}.{leaf}"


def _missing_biases(words: tuple[StoredWord, ...]) -> frozenset[str]:
    """The keys of the convolutions' biases, if none has one and a batch norm follows each."""
    convs = [word.stored for word in words if word.word and word.word.kind == "conv" and word.stored]
    norms = [word for word in words if word.word and word.word.kind == "bn" and word.stored]
    has_bias = any(tensor.leaf == "bias" for conv in convs for tensor in conv.tensors)
    return frozenset() if has_bias or len(norms) < len(convs) else frozenset(f"{conv.name}.bias" for conv in convs)


def _missing_fc(head: FCHead) -> Iterator[str]:
    """The keys of missing FC layers, or their labels where the names are unusual."""
    for name, layer in zip(head.names, head.layers):
        if layer is None:
            yield from (name,) if name in LABELS else (f"{name}.weight", f"{name}.bias")


def _extra(words: tuple[StoredWord, ...], tensors: Iterable[StoredTensor]) -> Iterator[str]:
    """Tensors that no layer of the column owns."""
    owned: set[str] = set()
    for word in words:
        if word.stored:
            leaves = {leaf for leaf, _ in word.expected} | ({"num_batches_tracked"} if word.text == "BN" else set())
            owned.update(tensor.name for tensor in word.stored.tensors if whole(tensor.leaf) in leaves)
    return (tensor.name for tensor in tensors if tensor.name not in owned)


def _wrong_conv_shapes(match: ConfigMatch) -> Iterator[str]:
    for i, (conv, expected) in enumerate(zip(match.convs, match.expected)):
        if conv and not same_shape(conv.shape, expected.shape, not i):
            yield (
                f"{printable(conv.name)}.weight is {kernel_text(conv.shape)},"
                f" {expected.label} of {_title(match)} is {kernel_text(expected.shape)}"
            )


def _wrong_vector_shapes(words: tuple[StoredWord, ...]) -> Iterator[str]:
    """Biases and batch-norm statistics whose length is not the layer's number of channels."""
    for word in words:
        expected = dict(word.expected)
        for tensor in word.stored.tensors if word.stored else ():
            shape = expected.get(tensor.leaf, tensor.shape)
            if tensor.shape != shape:
                yield f"{printable(tensor.name)} is {kernel_text(tensor.shape) or 'a number'}, not {kernel_text(shape)}"


def _head_mismatch(match: ConfigMatch, head: FCHead) -> str:
    """The sentence on a head with other hidden units than FC-4096 FC-4096; empty for any other."""
    units = [layer.shape[0] if layer else None for layer in head.layers]
    if not units or (len(units) == 3 and all(count in (HIDDEN, None) for count in units[:2])):
        return ""
    words = " ".join(f"FC-{units}" for units in head.units)
    return f"its head is {words}, {_title(match)} has FC-4096 FC-4096 FC-1000"


def _renumbering(match: ConfigMatch) -> str:
    """The sentence on the first convolution whose number is not the usual one; empty without any."""
    if not match.renumbered:
        return ""
    run = match.run
    index = next(
        i for i, pair in enumerate(zip(run.positions, match.expected)) if pair[0] != pair[1].position(run.style)
    )
    if run.style != CAFFE and run.min_gap > 1:
        return "the numbers leave room for one more layer before each convolution, most likely a pad"
    expected, conv = match.expected[index], match.convs[index]
    usual = run.path(expected.position(run.style))
    return f"{expected.label} is {printable(conv.name if conv else '')}, {usual} by the usual numbering"


def _conv_before(match: ConfigMatch) -> str:
    """The sentence on a convolution before conv1_1 that converts the image's value range; empty without one."""
    before = match.before
    return f"{printable(before.name)}, a 1x1 convolution of the colours, comes before conv1_1" if before else ""
