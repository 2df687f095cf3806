"""Which model of torchvision or timm a checkpoint belongs to, by the keys and shapes of its state dict.

A checkpoint that is no VGG is compared with the models that its file's name or its `config.json` names. Then follow the
models of torchvision whose published number of parameters is near, those of timm that have its numbers of elements and
tensors, and last those whose keys are in the cache. The keys and shapes of a model are those of its module on the meta
device. They are remembered, so that the next checkpoint of this model is recognised without torch.
"""

from __future__ import annotations

import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

from vggscope.checkpoint.contents import unwrapped
from vggscope.checkpoint.formats.export_archive import FORMAT as EXPORT
from vggscope.checkpoint.formats.module_tree import plain_settings
from vggscope.checkpoint.inspection import GRAPHS, Inspection, LibraryModel, inspect, of_library_model
from vggscope.dtypes import converted, is_floating
from vggscope.errors import OptionError, option, printable
from vggscope.graph import Network
from vggscope.ops.base import Shape, numel
from vggscope.progress import step
from vggscope.record import record
from vggscope.sources.cache import LIBRARIES, models_with_keys, recalled_keys, remember_keys
from vggscope.sources.library_names import names_in
from vggscope.sources.resolve import has_unchanged_libraries, resolve, resolve_module
from vggscope.sources.timm_sizes import fitting, index
from vggscope.suppress import suppress_output
from vggscope.units import DTYPE_BYTES
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from torch import nn

NEAR = 0.1
"""Models are compared whose numbers of parameters differ from the file's by this fraction at most."""

MOST_COMPARED = 6
"""As many models of torchvision are compared, those with the nearest numbers of parameters."""

MOST_SIZED = 12
"""As many models of timm of the file's size are compared, of which some differ in paddings alone."""

FEWEST, MOST = 8, 6000
"""Of a file with fewer tensors, or more, less than half can be a model's: AlexNet has 16, ResNet-RS-420 2,683."""

NEAREST = 0.5
"""A model is called the nearest if this fraction of the tensors has its key and shape in the file."""

_PUBLISHED_CLASSES = 1000
"""The classes of ImageNet, with which torchvision's numbers of parameters are published."""

_PREFIXES = 4
"""The largest number of path components before the keys of a network."""

_MOST_SETTINGS = 4
"""Settings that are told one by one."""

_WITHOUT_EFFECT = ("training", "inplace", "out_features", "out_channels")
"""Settings of a layer that do not change what it computes at evaluation, or that the shapes of its weights tell."""

_UNCOMPARED = "num_batches_tracked"
"""The counter of a batch norm, which torch 0.4 and FrozenBatchNorm2d do not store."""


@record
class ModelKeys:
    """The state dict of a library's model: the shapes of its tensors by their keys, and the number of its classes.

    `num_classes` is None for a model that does not classify images.
    """

    num_classes: int | None
    shapes: dict[str, Shape]


@record
class _Compared:
    """How the tensors of a file differ from a model's, whose keys follow `prefix` in the file.

    `same` is the number of tensors with equal key and shape, `differing` has the keys, the file's and the model's
    shapes.
    """

    word: str
    keys: ModelKeys
    prefix: str
    same: int
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    differing: tuple[tuple[str, Shape, Shape], ...]
    other_classes: bool = False

    @property
    def is_exact(self) -> bool:
        return not (self.missing or self.extra or self.differing)

    @property
    def share(self) -> float:
        """The fraction of the tensors of both that are the same."""
        return self.same / (self.same + len(self.missing) + len(self.extra) + len(self.differing))

    @property
    def classes(self) -> int | None:
        """The number of classes with which the model may have the file's shapes; None where no number would."""
        if self.missing or self.extra or any(ours[1:] != theirs[1:] for _, ours, theirs in self.differing):
            return None
        return min((ours[0] for _, ours, _ in self.differing if ours), default=None)


def recognise(inspection: Inspection) -> Inspection:
    """The inspection of a checkpoint that is no VGG, with the model of torchvision or timm that it is or is nearest to.

    An inspection of a VGG, of a shard, of a file of another framework, and of one with fewer or more tensors than any
    model is returned as it is.
    """
    is_foreign = any(tensor.original for layer in inspection.layers for tensor in layer.tensors)
    has_other_keys = inspection.format in GRAPHS and inspection.format != EXPORT
    if inspection.notation is not None or inspection.shard or is_foreign or has_other_keys:
        return inspection
    if not FEWEST <= len(_shapes(inspection)) <= MOST:
        return inspection
    found = _match(inspection)
    if found is None:
        return replace(inspection, notes=(*inspection.notes, _searched(inspection)))
    named = of_library_model(inspection, found)
    others = list(_other_settings(inspection, found)) if inspection.modules and found.kind != "nearest" else []
    more = [f"{len(others) - _MOST_SETTINGS} more settings differ"] if len(others) > _MOST_SETTINGS else []
    return replace(named, problems=(*named.problems, *others[:_MOST_SETTINGS], *more))


def _other_settings(inspection: Inspection, found: LibraryModel) -> Iterator[str]:
    """The sentences on the layers of a whole module that are set otherwise than those of its library's model."""
    try:
        module = _module(found.word, found.num_classes if found.kind == "other classes" else None)
    except Exception:
        return
    parts = dict(module.named_modules())
    for stored in inspection.modules:
        part = parts.get(stored.path.removeprefix(found.prefix))
        kind, theirs, name = stored.kind.rpartition(".")[2], type(part).__name__, printable(stored.path, 60)
        is_headless = found.num_classes == 0 and kind == "Identity"
        if part is None or not stored.kind.startswith("torch.nn.modules.") or is_headless:
            continue
        if kind != theirs:
            yield f"{name} is of the class {kind}, in {found.word} of {theirs}"
            continue
        settings = dict(plain_settings(dict(vars(part))))
        for key, value in stored.settings:
            if key in settings and key not in _WITHOUT_EFFECT and _one(value) != _one(settings[key]):
                yield f"{name} has {key}={printable(repr(value), 60)}, in {found.word} it is {settings[key]!r}"


def _one(value: object) -> object:
    """A setting, as a single number where it is the same for all axes.

    >>> _one((3, 3)), _one((3, 2)), _one(3)
    (3, (3, 2), 3)
    """
    return value[0] if isinstance(value, tuple) and len(set(value)) == 1 else value


def library_word(path: str) -> tuple[str, int | None] | None:
    """The library's model that a checkpoint has the keys and shapes of, as a word, and the number of its classes.

    The number is None where it is the model's own. None for any other file.
    """
    inspection = recognise(inspect(path))
    if not _has_network(inspection):
        return None
    assert inspection.library_model is not None
    return inspection.library_model, inspection.num_classes if inspection.library_match == "other classes" else None


def library_network(inspection: Inspection, options: BuildOptions) -> Network | None:
    """The Network of the library's model that a checkpoint has the keys and shapes of; None for any other file.

    Of a whole module the settings of its layers must be those of the model too. Raises OptionError for an option that
    contradicts the file.
    """
    inspection = recognise(inspection)
    if not _has_network(inspection):
        return None
    assert inspection.library_model is not None
    if options.num_classes not in (None, inspection.num_classes):
        raise OptionError(
            f"{option('num_classes', options.num_classes)}: the file has {inspection.num_classes}",
            "leave the option out: a checkpoint has its own",
        )
    classes = inspection.num_classes if inspection.library_match == "other classes" else None
    network = resolve(inspection.library_model, replace(options, num_classes=classes))
    if inspection.modules and not _has_its_modules(network, inspection):
        return None
    dtype = next(filter(is_floating, inspection.dtypes), None)
    if dtype in DTYPE_BYTES and dtype != network.dtype:
        network = converted(network, dtype)
    return replace(
        network, name=printable(os.path.basename(inspection.path)), warnings=(*network.warnings, *inspection.notes)
    )


def _has_network(inspection: Inspection) -> bool:
    """Whether a file has the keys of a library's model, whose network ends at the scores of its classes."""
    return inspection.library_match in ("exact", "other classes") and inspection.num_classes != 0


def _has_its_modules(network: Network, inspection: Inspection) -> bool:
    """Whether a whole module is the network of a library: of its class, with the same settings, and unchanged."""
    from vggscope.foreign.torch.module import has_settings_of

    library = (inspection.library_model or "").partition(":")[0]
    return inspection.modules[0].kind.startswith(f"{library}.models.") and has_settings_of(inspection.modules, network)


def _match(inspection: Inspection) -> LibraryModel | None:
    """The model that a file belongs to, or the nearest of those that it is compared with; None for no near one."""
    shapes = _shapes(inspection)
    nearest: _Compared | None = None
    for word in _candidates(inspection):
        with step(f"comparing with {word}"):
            compared = _compared(word, shapes)
        if compared is not None and (nearest is None or compared.share > nearest.share):
            nearest = compared
        if compared is not None and compared.is_exact:
            break
    if nearest is None or nearest.share < NEAREST:
        return None
    kind = "nearest" if not nearest.is_exact else "other classes" if nearest.other_classes else "exact"
    return LibraryModel(
        nearest.word,
        kind,
        tuple(_twins(nearest, _sized(inspection))) if nearest.is_exact else (),
        nearest.prefix,
        nearest.keys.num_classes,
        nearest.missing,
        nearest.extra,
        nearest.differing,
    )


def _compared(word: str, shapes: dict[str, Shape]) -> _Compared | None:
    """A model compared with a file's tensors, with the file's number of classes if it then has the same shapes.

    None where the model cannot be built.
    """
    keys = _keys(word, None)
    if keys is None:
        return None
    compared = _difference(word, keys, shapes)
    if compared.is_exact:
        return compared
    is_headless = word.startswith("timm:") and compared.missing and not compared.extra and not compared.differing
    classes = 0 if is_headless else compared.classes
    other = None if classes is None or compared.share < NEAREST else _keys(word, classes)
    if other is not None:
        # A detector does not state its number of classes.
        told = other if other.num_classes is not None else replace(other, num_classes=classes)
        fitted = replace(_difference(word, told, shapes), other_classes=True)
        if fitted.is_exact:
            return fitted
    return compared


def _difference(word: str, keys: ModelKeys, shapes: dict[str, Shape]) -> _Compared:
    """A model compared with a file's tensors, after the prefix with which most are the same."""
    compared = [_after(prefix, word, keys, shapes) for prefix in _prefixes(shapes)]
    return max(compared, key=lambda each: each.same)


def _after(prefix: str, word: str, keys: ModelKeys, shapes: dict[str, Shape]) -> _Compared:
    expected = {prefix + key: shape for key, shape in keys.shapes.items()}
    common = [key for key in expected if key in shapes]
    return _Compared(
        word,
        keys,
        prefix,
        same=sum(shapes[key] == expected[key] for key in common),
        missing=tuple(key for key in expected if key not in shapes),
        extra=tuple(key for key in shapes if key not in expected),
        differing=tuple((key, shapes[key], expected[key]) for key in common if shapes[key] != expected[key]),
    )


def _prefixes(shapes: dict[str, Shape]) -> Iterator[str]:
    """What may precede a network's keys: the path components that most keys begin with.

    >>> list(_prefixes({"model.net.a.weight": (1,), "model.net.b.weight": (1,), "loss.weight": (1,)}))
    ['', 'model.', 'model.net.']
    """
    prefix = ""
    yield prefix
    for _ in range(_PREFIXES):
        inside = [key[len(prefix) :].split(".", 1) for key in shapes if key.startswith(prefix)]
        parts = Counter(parts[0] for parts in inside if len(parts) > 1)
        part, count = parts.most_common(1)[0] if parts else ("", 0)
        if 2 * count <= len(shapes):
            return
        prefix += f"{part}."
        yield prefix


def _candidates(inspection: Inspection) -> Iterator[str]:
    """The models to compare, as words: those that the file is named after, then those of a near or of the same size."""
    seen: set[str] = set()
    for source in (_named, _counted, _sized, lambda _: models_with_keys("timm")):
        for word in source(inspection):
            if word not in seen:
                seen.add(word)
                yield word


def _named(inspection: Inspection) -> Iterator[str]:
    """The models that the `config.json` beside the file, or its own name or that of its folder, begins with."""
    path = os.path.abspath(inspection.path)
    beside = inspection.architecture
    for name in (beside, os.path.basename(path), os.path.basename(os.path.dirname(path))):
        words = re.match(r"[a-z]\w{0,99}", name or "", re.ASCII)
        for library in LIBRARIES if words else ():
            known = set(names_in(library, cache=has_unchanged_libraries()))
            parts = words[0].split("_") if words else []
            tries = ("_".join(parts[:count]) for count in range(len(parts), 0, -1))
            word = next((each for each in tries if each in known), None)
            if word is not None:
                yield f"{library}:{word}"


def _counted(inspection: Inspection) -> list[str]:
    """The models of torchvision with the nearest numbers of parameters, for the file's classes or for ImageNet's."""
    from vggscope.sources.catalogue import published_counts  # imports much that is not needed elsewhere

    total = inspection.params
    counts = {total}
    repeated = Counter(layer.shape for layer in inspection.layers)
    for layer in inspection.layers:
        # A file need not keep the order, so that any layer of its own shape may be the one of the scores.
        rows, *columns = layer.shape or (0,)
        if rows and columns and set(columns[1:]) <= {1} and repeated[layer.shape] == 1:
            counts.add(total + layer.params // rows * (_PUBLISHED_CLASSES - rows))
    distances = {}
    for name, published in published_counts(cache=has_unchanged_libraries()).items():
        distance = min(abs(published - count) for count in counts) / published
        if distance <= NEAR:
            distances[f"torchvision:{name}"] = distance
    return sorted(distances, key=distances.__getitem__)[:MOST_COMPARED]


def _shapes(inspection: Inspection) -> dict[str, Shape]:
    """The shapes of the file's tensors by their keys, without those of counters."""
    tensors = (tensor for layer in inspection.layers for tensor in layer.tensors if tensor.leaf != _UNCOMPARED)
    return {unwrapped(tensor.name): tensor.shape for tensor in tensors}


def _sized(inspection: Inspection) -> list[str]:
    """The installed models of timm that have the file's numbers of elements and tensors, for any number of classes."""
    known = names_in("timm", cache=has_unchanged_libraries())
    return [f"timm:{name}" for name in _of_its_size(inspection) if name in known][:MOST_SIZED]


def _of_its_size(inspection: Inspection) -> Iterator[str]:
    shapes = _shapes(inspection)
    rows = {shape[0] for shape in shapes.values() if shape}
    return fitting(sum(map(numel, shapes.values())), len(shapes), rows)


def _searched(inspection: Inspection) -> str:
    """The sentence on the models that a file without a match was compared with."""
    known = names_in("timm", cache=has_unchanged_libraries())
    if not known:
        likely = ", ".join(f"timm:{name}" for name in islice(_of_its_size(inspection), 3))
        by_size = f"by its numbers of parameters and tensors it may be {likely}; " if likely else ""
        return f"no model of torchvision has its keys; {by_size}timm is not installed"
    version, models = index()
    others = len(set(known).difference(model.name for model in models))
    # timm's pruned models alone have no numbers in the table of their own version.
    is_new = (
        f"; {others} newer models, which timm {version} does not have, were not" if others > 0.02 * len(known) else ""
    )
    return (
        "no model of torchvision or timm has its keys: of torchvision those of about as many parameters were compared,"
        f" of timm those of as many parameters and tensors{is_new}"
    )


def _twins(exact: _Compared, same_size: Sequence[str]) -> Iterator[str]:
    """Other models with the same keys and shapes, of those whose keys are in the cache and, for timm's, of its size."""
    classes = exact.keys.num_classes if exact.other_classes else None
    near = same_size if exact.word.startswith("timm:") else ()
    for word in dict.fromkeys((*near, *(each for library in LIBRARIES for each in models_with_keys(library)))):
        keys = (_keys if word in near else _recalled)(word, classes) if word != exact.word else None
        if keys is not None and keys.shapes == exact.keys.shapes:
            yield word


def _keys(word: str, num_classes: int | None) -> ModelKeys | None:
    """The keys and shapes of a model, from the cache or from its module on the meta device; None if it fails."""
    keys = _recalled(word, num_classes)
    if keys is None:
        with suppress(Exception):
            keys = _built(word, num_classes)
            if has_unchanged_libraries():
                remember_keys(word, num_classes, _packed(keys))
    return keys


def _recalled(word: str, num_classes: int | None) -> ModelKeys | None:
    return recalled_keys(word, num_classes, _unpacked) if has_unchanged_libraries() else None


def _built(word: str, num_classes: int | None) -> ModelKeys:
    module = _module(word, num_classes)
    state = module.state_dict()
    shapes = {key: tuple(value.shape) for key, value in state.items() if not key.endswith(_UNCOMPARED)}
    if num_classes == 0:
        # timm builds it so: with an Identity in place of the classifier.
        heads = [name for name, part in module.named_modules() if part is module.get_classifier()]  # type: ignore[operator]
        return ModelKeys(0, {key: shape for key, shape in shapes.items() if key.rpartition(".")[0] not in heads})
    own = getattr(module, "num_classes", None)
    # torchvision's classifiers are two packages deep, those of other tasks three, and end with the scores' layer.
    if own is None and module.__class__.__module__.count(".") == 2 and shapes:
        own = next(reversed(shapes.values()))[0]
    return ModelKeys(own if isinstance(own, int) else None, shapes)


def _module(word: str, num_classes: int | None) -> nn.Module:
    """The module of a library's model on the meta device."""
    from vggscope.trace.build import without_data

    options = BuildOptions(num_classes=num_classes or None, cache=False)
    with suppress_output():
        return without_data(partial(resolve_module, word, options))


def _packed(keys: ModelKeys) -> bytes:
    return zlib.compress(json.dumps([keys.num_classes, keys.shapes]).encode())


def _unpacked(data: bytes) -> ModelKeys:
    num_classes, shapes = json.loads(zlib.decompress(data))
    return ModelKeys(num_classes, {key: tuple(shape) for key, shape in shapes.items()})
