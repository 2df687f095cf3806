"""A MODEL word as a Network or a module. SOURCES lists every kind of word.

Each kind is one file in this folder with the functions

    claims(word) -> bool                 whether the word is meant as this kind
    load(word, options) -> Network
    build(word, options) -> nn.Module    only for a source that runs code; others' modules are built from the Network
    inputs(word) -> Inputs | None        only for a source whose words hold the inputs that a model was run on
    runner(word, options) -> Runner | None    only for a source of files that are run with their own weights
    graph(word, options) -> Network | None    only for a source of files that hold weights, and a graph or none
    library_model(word) -> (word, classes) | None    only for a source whose words may be a library's model

The first row that claims a word resolves it, and reports its errors. A row's file is imported when the row is
tried, so `summary D` imports one.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from vggscope.errors import ModelError, printable
from vggscope.progress import step
from vggscope.record import record
from vggscope.vgg.configs import CONFIGS
from vggscope.vgg.options import BuildOptions

if TYPE_CHECKING:
    from torch import nn

    from vggscope.analysis.compare import Compared
    from vggscope.diffing.numeric import Runner
    from vggscope.graph import Network
    from vggscope.inputs import Inputs
    from vggscope.sources.cache import Origin


@record
class Source:
    """A kind of MODEL word: its title and an example for messages, and the name of its file in this folder.

    `is_stored`: Networks of this kind are kept in the cache. `is_user_code`: its words run code of the user's.
    `checks`: the file in this folder with `check(word, cache)`, which raises for a word whose model is missing.
    """

    title: str
    example: str
    file: str
    is_stored: bool = False
    is_user_code: bool = False
    checks: str = ""

    @property
    def _module(self) -> Any:
        return import_module(f"vggscope.sources.{self.file}")

    def claims(self, word: str) -> bool:
        """Whether the word is meant as this kind."""
        return bool(self._module.claims(word))

    def check(self, word: str, cache: bool) -> None:
        """Raise ModelError or MissingTool for a word whose model is known to be missing before torch is imported."""
        if self.checks:
            import_module(f"vggscope.sources.{self.checks}").check(word, cache)

    def load(self, word: str, options: BuildOptions) -> Network:
        """The word's Network."""
        network: Network = self._module.load(word, options)
        return network

    @property
    def build(self) -> Callable[[str, BuildOptions], nn.Module] | None:
        """The function that makes the word's module with weights; None where it is built from the Network."""
        return getattr(self._module, "build", None)

    @property
    def runner(self) -> Callable[[str, BuildOptions], Runner | None] | None:
        """The function that makes what runs the word's file with its weights; None for a source of modules."""
        return getattr(self._module, "runner", None)

    def inputs(self, word: str) -> Inputs | None:
        """The inputs that the word holds; None for a word without."""
        function: Callable[[str], Inputs | None] | None = getattr(self._module, "inputs", None)
        return None if function is None else function(word)

    def graph(self, word: str, options: BuildOptions) -> Network | None:
        """The graph in a file that holds its weights too; None for a word without such a file."""
        function: Callable[[str, BuildOptions], Network | None] | None = getattr(self._module, "graph", None)
        return None if function is None else function(word, options)

    @property
    def origin(self) -> Callable[[str], tuple[str, dict[str, str]]] | None:
        """What a word depends on besides the libraries, by the source's own rule; None for a library's model."""
        return getattr(self._module, "origin", None)

    def library_model(self, word: str) -> tuple[str, int | None] | None:
        """The library's model that the word is or belongs to, as a word, and its classes where they are not its own."""
        function: Callable[[str], tuple[str, int | None] | None] | None = getattr(self._module, "library_model", None)
        return None if function is None else function(word)

    def summary(self, word: str) -> dict[str, Any] | None:
        """The object of a summary's JSON that the word names; None for any other word."""
        function: Callable[[str], dict[str, Any] | None] | None = getattr(self._module, "summary", None)
        return None if function is None else function(word)


SOURCES = (
    Source("a column of Table 1 or of a file", f"{', '.join(CONFIGS)}, vgg16, columns.toml:NAME", "columns"),
    Source("another published VGG", "vgg16-cifar, vgg-face, cnn-m, ssd300; any with _bn", "families"),
    Source("a locked architecture", "arch.json", "lock"),
    Source("an ONNX file", "model.onnx", "onnx"),
    Source("a program of torch.export", "model.pt2", "torch_program"),
    Source("a net of Caffe", "deploy.prototxt, model.caffemodel", "caffe"),
    Source("a model of Keras", "model.keras, vgg16.h5", "keras"),
    Source("a network of MatConvNet", "imagenet-vgg-verydeep-16.mat", "matconvnet"),
    Source("a model of Lua Torch", "model.t7", "torch7"),
    Source("a checkpoint", "weights.pth, model.safetensors.index.json, a folder with them", "checkpoint"),
    Source(
        "a model of torchvision or timm",
        "torchvision:vgg16, timm:vgg16",
        "libraries",
        is_stored=True,
        checks="library_names",
    ),
    Source(
        "your own code",
        "path/file.py:Net, package.module:make_net",
        "code",
        is_stored=True,
        is_user_code=True,
        checks="code",
    ),
    Source("Table 1 notation", '"conv3-64 maxpool FC-10"', "notation"),
)


_process = {"is_ours": False, "ran_other_code": False}
"""Whether vggscope's code and the libraries' alone run in this process, and whether the user's has run."""

_HELPERS = frozenset({"einops", "numpy"})
"""Packages on which the user's code may depend, and a library's model does not."""

_imported_before: set[str] = set()
"""Those of _HELPERS that the caller's own code had imported, and may have changed, when this process became ours."""


@contextmanager
def own_process() -> Iterator[None]:
    """Within this context the caller runs no code of its own, as in a command, or in one call of a function.

    So the libraries are as they were installed, unless one was imported before, or a word names the user's code.
    """
    before = _process["is_ours"]
    claim_process()
    try:
        yield
    finally:
        _process["is_ours"] = before


def claim_process() -> None:
    """Note that from now on this process runs no code of the caller's, as `own_process` does for a context."""
    _imported_before.update(_changeable())
    _process["is_ours"] = has_unchanged_libraries()


def note_other_code() -> None:
    """Note that the user's code runs in this process, which may change torch and the libraries."""
    _process["ran_other_code"] = True


def has_unchanged_libraries() -> bool:
    """Whether no code but ours and the libraries' own can have changed them since they were imported."""
    is_imported = not sys.modules.keys().isdisjoint(("torch", "torchvision", "timm"))
    return not _process["ran_other_code"] and (_process["is_ours"] or not is_imported)


def _changeable() -> frozenset[str]:
    """Return those of _HELPERS that the caller's own code may have changed."""
    return frozenset(_imported_before if _process["is_ours"] else _HELPERS & sys.modules.keys())


_refusal: ContextVar[tuple[str, str] | None] = ContextVar("refusal", default=None)
"""The end of the sentence that refuses the user's code, and its remedy; None where the code may run."""


@contextmanager
def without_user_code(why: str, remedy: str) -> Iterator[None]:
    """Within this context no word runs the user's code: it raises ModelError, which says `why` and what would work."""
    token = _refusal.set((why, remedy))
    try:
        yield
    finally:
        _refusal.reset(token)


def kinds() -> str:
    """The kinds of MODEL words, each with examples."""
    return "; ".join(f"{source.title} ({source.example})" for source in SOURCES)


def resolve(word: str, options: BuildOptions | None = None) -> Network:
    """The Network that a word names.

    A library's model is read from the cache or written to it, unless other code may have changed the library in this
    process. Raises ModelError where no source claims the word.
    """
    options = options or BuildOptions()
    source, full = _source_of(word, options)
    network = _loaded(source, full, options)
    if full == word.strip():
        return network
    return replace(network, warnings=(*network.warnings, f"{word.strip()} is taken as {full}"))


def _loaded(source: Source, word: str, options: BuildOptions) -> Network:
    def load() -> Network:
        source.check(word, options.cache)
        if source.build is not None:
            _import_torch()
        with step(f"reading {word}"):
            return source.load(word, options)

    if not _is_remembered(source, options):
        return load()
    from vggscope.sources.cache import remembered

    return remembered(word, options, load, source.origin and _of_unchanged_helpers(source.origin))


def _of_unchanged_helpers(origin: Origin) -> Origin:
    """Return a function like `origin` that raises LookupError for a word that depends on a package that may differ."""
    changed = _changeable()  # not later: torch imports numpy

    def checked(word: str) -> tuple[str, dict[str, str]]:
        name, head = origin(word)
        if not changed.isdisjoint(head):
            raise LookupError(f"{word} depends on {', '.join(changed)}, which may be changed")
        return name, head

    return checked


def _import_torch() -> None:
    """Import torch as a step of its own, since it takes seconds. Where it is missing, what needs it says so."""
    if "torch" not in sys.modules:
        with step("importing torch"), suppress(ImportError):
            import torch  # noqa: F401


def _is_remembered(source: Source, options: BuildOptions) -> bool:
    """Whether what a source gives now is read from the cache and written to it."""
    return source.is_stored and options.cache and has_unchanged_libraries()


def figures(
    word: str, options: BuildOptions, batch: int, dtype: str | None, compute: Callable[[], Compared]
) -> Compared:
    """The figures of a word's model in a comparison, from `compute` or, as `resolve` does, from the cache."""
    source, word = _source_of(word, options)
    if not _is_remembered(source, options):
        return compute()
    from vggscope.sources.cache import remembered_figures

    return remembered_figures(word, options, batch, dtype, compute)


def recalled_figures(word: str, options: BuildOptions, batch: int, dtype: str | None) -> Compared | None:
    """The figures of a word's model in a comparison from the cache; None if they are not there."""
    source, word = _source_of(word, options)
    if not _is_remembered(source, options):
        return None
    from vggscope.sources.cache import recalled_figures as recalled

    return recalled(word, options, batch, dtype)


def read(word: str, options: BuildOptions | None = None) -> Network | None:
    """The Network of a word, or None where loading it would run a library or the user's code."""
    options = options or BuildOptions()
    source, word = _source_of(word, options)
    return None if source.build is not None else source.load(word, options)


def runs_code(word: str, options: BuildOptions | None = None) -> bool:
    """Whether loading a word would run a library or the user's code. Raises ModelError where no source claims it."""
    return _source_of(word, options or BuildOptions())[0].build is not None


def is_same_file(word: str, other: str) -> bool:
    """Whether two words name one file that is read and not run."""
    if not (os.path.exists(word) and os.path.exists(other) and os.path.samefile(word, other)):
        return False
    source = _source_of(word, BuildOptions())[0]
    return source is _source_of(other, BuildOptions())[0] and source.build is None


def inputs_of(word: str) -> Inputs | None:
    """The inputs that a word holds, such as those of a locked architecture; None without any."""
    source, word = _source_of(word, BuildOptions())
    return source.inputs(word)


def summary_of(word: str) -> dict[str, Any] | None:
    """The object of a summary's JSON that a word names; None for any other word."""
    claimed = _claimed(word)
    return None if claimed is None else claimed[0].summary(claimed[1])


def library_model_of(word: str) -> tuple[str, int | None] | None:
    """The library's model that a word is or whose checkpoint it names, and its classes where they are not its own.

    None for any other word.

    >>> library_model_of("alexnet"), library_model_of("vgg16")
    (('torchvision:alexnet', None), None)
    """
    claimed = _claimed(word)
    return None if claimed is None else claimed[0].library_model(claimed[1])


def in_full(word: str) -> str:
    """A word as it is resolved: that of a library's model where only its name is given.

    >>> in_full("alexnet"), in_full("vgg16")
    ('torchvision:alexnet', 'vgg16')
    """
    claimed = _claimed(word)
    return word if claimed is None else claimed[1]


def is_model(word: str) -> bool:
    """Whether a source claims a word, so that it is meant as a model."""
    return _claimed(word) is not None


def graph_in(word: str, options: BuildOptions) -> Network | None:
    """The Network of a file of another framework that holds its weights too; None for any other word."""
    claimed = _claimed(word)
    return None if claimed is None else claimed[0].graph(claimed[1], options)


def runner_of(word: str, options: BuildOptions) -> Runner | None:
    """What runs the file that a word names; None for a word whose model torch runs.

    Raises ModelError for a file that cannot be read, and MissingTool where its runtime is not installed.
    """
    claimed = _claimed(word)
    return None if claimed is None or claimed[0].runner is None else claimed[0].runner(claimed[1], options)


def resolve_module(word: str, options: BuildOptions | None = None, *, any_graph: bool = False) -> nn.Module:
    """The module that a word names, with weights, on the caller's default device; raises as `resolve` does.

    `any_graph`: it runs at evaluation alone, so that it may be that of a Network that is no chain of modules.
    """
    options = options or BuildOptions()
    source, word = _source_of(word, options)
    source.check(word, options.cache)
    _import_torch()
    with step(f"building {word}"):
        if source.build is not None:
            return source.build(word, options)
        return module_of(source.load(word, options), any_graph=any_graph)


def module_of(network: Network, *, any_graph: bool = False) -> nn.Module:
    """The module of a Network; with `any_graph`, one that runs its ops one by one if it is no chain of modules."""
    from vggscope.builders.graph_module import graph_module, tape_of
    from vggscope.builders.module import module

    try:
        return module(network)
    except ModelError:
        if not any_graph:
            raise
        return graph_module(tape_of(network))


def _source_of(word: str, options: BuildOptions) -> tuple[Source, str]:
    """The source that claims a word, and the word in full. Raises OptionError for options that no model has, ModelError
    where no source claims the word.
    """
    options.check()
    try:
        os.fsencode(word)
    except UnicodeEncodeError:
        raise ModelError(f"{word[:60]!r} is not valid Unicode text", "type the word again") from None
    if options.cache:
        return _known_source(word)
    from vggscope.sources.cache import unused

    with unused():
        return _known_source(word)


def _known_source(word: str) -> tuple[Source, str]:
    claimed = _claimed(word)
    if claimed is None:
        from vggscope.sources.unknown import unknown_model

        raise unknown_model(word.strip())
    refusal = _refusal.get()
    if refusal is not None and claimed[0].is_user_code:
        raise ModelError(f"{printable(word.strip())} is Python code, {refusal[0]}", refusal[1])
    return claimed


def _claimed(word: str) -> tuple[Source, str] | None:
    """The source that claims a word, and the word in full: `resnet50` is torchvision:resnet50. None for no source."""
    word = word.strip()
    for source in SOURCES:
        if source.claims(word):
            return source, word
    if not re.fullmatch(r"[a-z]\w*", word, re.ASCII):
        return None
    from vggscope.sources.library_names import names_in

    return _claimed(f"torchvision:{word}") if word in names_in("torchvision") else None
