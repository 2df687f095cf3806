"""The reference model of a comparison: a library's counterpart, the paper's column, or any other MODEL."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from vggscope.errors import ModelError, ShapeError, names_options, nearest, option
from vggscope.graph import Network
from vggscope.ops.base import Shape
from vggscope.record import record
from vggscope.sources.cache import LIBRARIES
from vggscope.sources.library_names import names_in
from vggscope.sources.resolve import in_full, is_model, library_model_of, resolve, resolve_module
from vggscope.units import shape_text
from vggscope.vgg.configs import CONFIGS, LITERATURE, config_named
from vggscope.vgg.families import FAMILIES, family_named
from vggscope.vgg.likeness import Likeness, has_batch_norms, likeness
from vggscope.vgg.network import HEAD_SIDE, INPUT_SHAPE
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from torch import nn

SMALLEST = 32
"""The smallest side in pixels that a VGG accepts: its five pools halve it to 1."""

CLASSES = 1000
"""The classes of Table 1's networks."""

SIZE_RATIO = 3
"""Published networks are references for images up to this many times as large or as small as their own."""

_PUBLISHED = {config: name for name, config in LITERATURE.items()}


@record
class Reference:
    """A network to compare with, a function that builds its module, and notes on why it was chosen.

    `likeness` is that of our network if the reference was chosen by its layers.
    """

    network: Network
    build: Callable[[], nn.Module]
    notes: tuple[str, ...] = ()
    likeness: Likeness | None = None


@record
class _Choice:
    """The word of a reference, its name if another, a note with a place for the name, and why it was chosen."""

    word: str
    name: str = ""
    note: str = ""
    likeness: Likeness | None = None


def reference_for(word: str | None, model: str, ours: Network, options: BuildOptions) -> Reference:
    """The reference that `--ref word` means for the Network `ours` of the word `model`.

    `torchvision` and `timm` mean the model's counterpart in that library, `paper` its column of Table 1. That of a
    library's model, and of a checkpoint of one, is the model of the same name. A model without a counterpart gets the
    one that it is most like. None means the most like of torchvision's VGGs and of all
    published networks. Any other word is a MODEL. Raises ModelError for a word that names nothing.
    """
    if word is not None:
        _check_word(word)
    same = BuildOptions(num_classes=options.num_classes, inputs=options.inputs, cache=options.cache)
    if ours.takes_one_image:
        same = replace(same, input=ours.input_shape[1:], inputs=None)
    named = _same_model(word, model) if word in (None, *LIBRARIES) else None
    if named is not None:
        choice, classes = named
        same = replace(same, num_classes=classes or same.num_classes)
        return _reference(choice, same, tuple(filter(None, (choice.note,))))
    if not ours.takes_one_image and word in (None, *LIBRARIES, "paper"):
        shown = word or "torchvision"
        raise ModelError(
            f"{shown} has no counterpart: the model does not take one image", f"{option('ref')} names another model"
        )
    if word is not None and word not in (*LIBRARIES, "paper"):
        return _reference(_Choice(in_full(word)), same, ())
    if word != "paper":
        same = replace(same, input=(3, *ours.input_shape[2:]))  # published models read RGB
    chosen = _counterpart(word, model, ours, options)
    same, notes = _large_enough(same, ours, chosen.note)
    if word == "paper":
        chosen = replace(chosen, name=_paper_name(chosen.word, same))
    return _reference(chosen, same, notes)


def _same_model(library: str | None, model: str) -> tuple[_Choice, int | None] | None:
    """The model of a library that a word names, or that its checkpoint belongs to, and the number of its classes.

    In another library it is the model of the same name. None for a VGG, and for a model of no library. Raises
    ModelError where the library has no model of that name.
    """
    found = library_model_of(model)
    if found is None or config_named(found[0].partition(":")[2]) is not None:
        return None
    word, classes = found
    own, _, name = word.partition(":")
    if library is None and word == in_full(model):
        return None  # the library's model itself
    wanted = library or own
    # timm's names may end with a tag, as resnet50.a1_in1k does.
    name = name if wanted == own else name.partition(".")[0]
    if wanted != own and name not in names_in(wanted):
        near = nearest(name, names_in(wanted))
        remedy = f"{option('ref')} names another: {option('ref', word)}"
        raise ModelError(f"{wanted} has no counterpart of {word}: no model of that name{near}", remedy)
    why = "" if word == in_full(model) else "the keys and shapes are those of {}"
    return _Choice(f"{wanted}:{name}", note=why if wanted == own else "{} is the model of the same name"), classes


def _check_word(word: str) -> None:
    if not word:
        raise ModelError(f"{option('ref')} names no model", "it is torchvision, timm, paper or any MODEL")
    near = nearest(word, (*LIBRARIES, "paper"))
    if near and word not in (*LIBRARIES, "paper") and not is_model(word):
        raise ModelError(
            f"unknown reference {word!r}{near}", f"{option('ref')} is torchvision, timm, paper or any MODEL"
        )


def _large_enough(options: BuildOptions, ours: Network, note: str) -> tuple[BuildOptions, tuple[str, ...]]:
    """The options with an input that a VGG accepts, and the notes with one on that change.

    A model that fails on the small input itself keeps it.
    """
    notes = (note,) if note else ()
    size = options.input or ()
    if len(size) != 3 or min(size[1:]) >= SMALLEST or ours.failure is not None:
        return options, notes
    channels, *sides = size
    larger = (channels, *(max(side, SMALLEST) for side in sides))
    text = f"{{}} does not run on {shape_text((1, *size))}, it is compared at {shape_text((1, *larger))}"
    return replace(options, input=larger), (*notes, text)


def _paper_name(config: str, options: BuildOptions) -> str:
    """The name of a column, with what it has here and not in the paper.

    >>> _paper_name("D", BuildOptions(input=(3, 224, 224)))
    "the paper's column D"
    >>> _paper_name("D_bn", BuildOptions(input=(3, 32, 32), num_classes=10))
    "the paper's column D with batch norm added, 10 classes and torchvision's head"
    """
    column, norm, _ = config.partition("_bn")
    channels, *sides = options.input or INPUT_SHAPE
    own_map = all(side // SMALLEST == HEAD_SIDE for side in sides)
    added = [
        *([] if channels == INPUT_SHAPE[0] else [f"{channels} input channel{'' if channels == 1 else 's'}"]),
        *(["batch norm added"] if norm else []),
        *([] if options.num_classes in (None, CLASSES) else [f"{options.num_classes} classes"]),
        *([] if own_map else ["torchvision's head"]),
    ]
    listed = " and ".join(filter(None, [", ".join(added[:-1]), *added[-1:]]))
    return f"the paper's column {column}" + (f" with {listed}" if listed else "")


def _reference(chosen: _Choice, options: BuildOptions, notes: tuple[str, ...]) -> Reference:
    word = chosen.word
    network = replace(resolve(word, options), name=chosen.name or word)
    texts = tuple(note.format(network.name) for note in notes)
    return Reference(network, lambda: resolve_module(word, options, any_graph=True), texts, chosen.likeness)


def _counterpart(word: str | None, model: str, ours: Network, options: BuildOptions) -> _Choice:
    """The model of a library, the column or the published network that a model implements."""
    library = "torchvision" if word is None else word
    columns = list(CONFIGS if word == "paper" else _PUBLISHED)
    named = config_named(model)
    if named is not None and named[0] in columns:
        return _of_column(library, named[0] + ("_bn" if named[1] or options.batch_norm else ""))
    norm = "_bn" if has_batch_norms(ours) else ""
    if named is not None:
        note = f"column {named[0]} of Table 1 has no counterpart there; {{}} is the nearest"
        return replace(_of_column(library, _most_like(ours, columns)[0] + norm), note=note)
    others = _families(ours, excluded=family_named(model)) if word is None else []
    closest, found = _most_like(ours, [*columns, *others])
    chosen = _Choice(closest + norm) if closest in others else _of_column(library, closest + norm)
    argument = option("ref") if names_options() else "the argument ref"
    return replace(chosen, note=f"most like {{}}: {found.text}; {argument} names another", likeness=found)


def _families(ours: Network, excluded: tuple[str, bool] | None) -> list[str]:
    """The published networks for images of about this size, without the one that the model's word names."""
    names = [name for name in FAMILIES if excluded is None or name != excluded[0]]
    height = max(ours.input_shape[2], SMALLEST)
    return [name for name in names if 1 / SIZE_RATIO <= height / FAMILIES[name].input[1] <= SIZE_RATIO]


def _of_column(library: str, config: str) -> _Choice:
    """The counterpart of a column (`D`, `D_bn`) in a library or in the paper."""
    if library == "paper":
        return _Choice(config)
    column, norm, _ = config.partition("_bn")
    return _Choice(f"{library}:{_PUBLISHED[column]}{norm}")


def _most_like(ours: Network, words: list[str]) -> tuple[str, Likeness]:
    """The word of the network that `ours` is most like, and how much; the first of several that are equally like it.

    A network without LRN is not like A-LRN. If the layers are equally like, the number of classes decides. A network
    that does not run on the input is left out.
    """
    options = BuildOptions(input=(3, *(max(side, SMALLEST) for side in ours.input_shape[2:])))
    networks = {word: network for word in words if (network := _that_runs(word, options)) is not None}
    found = {word: likeness(ours, network) for word, network in networks.items()}
    has_lrn = any(node.op.notation == "lrn" for node in ours.nodes)

    def rank(word: str) -> tuple[float, bool, bool]:
        return found[word].cost, has_lrn != (word == "A-LRN"), _classes(ours) != _classes(networks[word])

    closest = min(networks, key=rank)
    return closest, found[closest]


def _that_runs(word: str, options: BuildOptions) -> Network | None:
    """The network of a word, or None if it does not run on the input of the options."""
    try:
        network = resolve(word, options).truncated_at_failure()
    except ShapeError:  # the head that fits the features has no features to fit
        return None
    return network if network.failure is None else None


def _classes(network: Network) -> Shape:
    """The number of output channels, in a tuple; empty for an output without channels."""
    return network.shapes[network.end][1:2]
