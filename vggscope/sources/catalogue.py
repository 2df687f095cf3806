"""The choices that `vggscope list` shows: columns, references, ops, formats, and installed packages."""

from __future__ import annotations

import pkgutil
import re
from importlib import import_module

from vggscope import ops
from vggscope.errors import MissingTool
from vggscope.ops.base import Op
from vggscope.progress import step
from vggscope.record import record
from vggscope.result import TableResult
from vggscope.sources.library_names import names_in
from vggscope.vgg.configs import CONFIGS, LITERATURE, Config
from vggscope.vgg.families import FAMILIES
from vggscope.vgg.notation import weight_layers, write

PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "torchinfo",
    "fvcore",
    "pygraphviz",
    "graphviz",
    "matplotlib",
    "jinja2",
    "safetensors",
    "onnx",
    "onnxruntime",
    "h5py",
    "mcp",
)
"""Packages that commands import only where they need them."""


@record
class ColumnEntry:
    """A column of Table 1: its literature name or None, its number of layers with weights, and its notation."""

    name: str
    literature: str | None
    weight_layers: int
    notation: str


@record
class FamilyEntry:
    """A published network beside Table 1: its word, what it is, where it was published, and its notation."""

    name: str
    title: str
    source: str
    weight_layers: int
    notation: str


@record
class ReferenceModel:
    """A reference model as a MODEL word, and its number of parameters, None where that needs the model."""

    name: str
    params: int | None


@record
class Choice:
    """An option's value, with a line that describes it."""

    name: str
    about: str


@record
class Installed:
    """A package and its version; None where it is not installed."""

    name: str
    version: str | None


@record
class Catalogue(TableResult[ColumnEntry]):
    """Everything that `vggscope list` shows."""

    rows_field = "columns"
    named_by = ("name", "literature")

    schema: str
    columns: tuple[ColumnEntry, ...]
    families: tuple[FamilyEntry, ...]
    references: tuple[ReferenceModel, ...]
    ops: tuple[Choice, ...]
    formats: tuple[Choice, ...]
    styles: tuple[Choice, ...]
    packages: tuple[Installed, ...]


def columns() -> tuple[ColumnEntry, ...]:
    """The columns of Table 1."""
    return tuple(_column(name, config) for name, config in CONFIGS.items())


def _column(name: str, config: Config) -> ColumnEntry:
    return ColumnEntry(name, config.literature, weight_layers(config.words), write(config.words))


def families() -> tuple[FamilyEntry, ...]:
    """The published networks beside Table 1."""
    return tuple(
        FamilyEntry(name, family.title, family.source, weight_layers(family.words), write(family.words))
        for name, family in FAMILIES.items()
    )


def references() -> tuple[ReferenceModel, ...]:
    """The VGGs of the installed torchvision, read from its source without importing it."""
    installed = names_in("torchvision")
    names = [f"{name}{suffix}" for name in LITERATURE for suffix in ("", "_bn")]
    return tuple(ReferenceModel(f"torchvision:{name}", None) for name in names if name in installed)


def published_counts(*, cache: bool = True) -> dict[str, int]:
    """The published numbers of parameters of torchvision's models; empty where it is not installed.

    `cache` allows them to be read from the cache, which imports no torchvision, and written to it.
    """
    from vggscope.sources.cache import remembered_counts

    def load() -> dict[str, int]:
        from vggscope.sources import libraries

        try:
            return libraries.published_counts()
        except MissingTool:
            return {}

    return remembered_counts("torchvision", load) if cache else load()


def all_references() -> tuple[ReferenceModel, ...]:
    """The installed torchvision's models and timm's VGGs, with their numbers of parameters."""
    from vggscope.sources.cache import LIBRARIES
    from vggscope.sources.libraries import parameter_counts

    models: list[ReferenceModel] = []
    for library in LIBRARIES:
        try:
            with step(f"counting the parameters of {library}'s models"):
                counts = parameter_counts(library)
        except MissingTool:
            continue
        models += (ReferenceModel(f"{library}:{name}", params) for name, params in counts.items())
    return tuple(models)


def all_ops() -> tuple[Choice, ...]:
    """Every op by the name that torch gives it, with the first sentence of its docstring."""
    classes = set()
    for module in pkgutil.iter_modules(ops.__path__):
        for value in vars(import_module(f"{ops.__name__}.{module.name}")).values():
            if isinstance(value, type) and issubclass(value, Op) and value is not Op:
                classes.add(value)
    described = {
        name: _first_sentence(cls.__doc__ or "")
        for cls in classes
        for name in _TORCH_NAMES.get(cls.__name__, (cls.__name__,))
    }
    names = sorted((name for name in described if not name.startswith("_")), key=str.lower)
    return tuple(Choice(name, described[name]) for name in names)


_TORCH_NAMES = {
    "Convolution": ("Conv1d", "Conv2d", "Conv3d"),
    "TransposedConvolution": ("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
    "Recurrent": ("RNN", "GRU", "LSTM"),
    "RecurrentCell": ("RNNCell", "GRUCell", "LSTMCell"),
    "Chunk": ("chunk",),
    "Concatenation": ("cat",),
    "Detach": ("detach",),
    "Einsum": ("einsum",),
    "Expand": ("expand",),
    "MatrixProduct": ("matmul",),
    "Normalize": ("normalize",),
    "Pad": ("pad",),
    "Permute": ("permute",),
    "Reshape": ("reshape",),
    "Roll": ("roll",),
    "ScaledDotProductAttention": ("scaled_dot_product_attention",),
    "Select": ("select",),
    "Split": ("split",),
    "Squeeze": ("squeeze",),
    "Stack": ("stack",),
    "TensorSplit": ("tensor_split",),
    "Unsqueeze": ("unsqueeze",),
    **dict.fromkeys(("Activation", "AlwaysDropout", "CallResult", "Elementwise", "Overwriting", "Recorded"), ()),
    **dict.fromkeys(("Reduction", "Registered", "Slice", "Uncounted", "Unknown", "View"), ()),
    **dict.fromkeys(("Lookup", "StoredWeight", "WithComputedWeights", "WithConstants", "WithMasks"), ()),
    **dict.fromkeys(("RewrittenWeight", "WithWeightInputs"), ()),
}
"""torch's names of the ops whose class has another one. Those without a name stand for many functions, or for none."""


def _first_sentence(text: str) -> str:
    """The text up to its first full stop (not that of "et al.") or its first colon outside parentheses."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    sentence = re.split(r"(?<=\.)(?<!et al\.)\s(?=[^a-z0-9])", paragraph)[0]
    return re.split(r":\s(?![^(]*\))", sentence)[0].rstrip(":.") + "."


def packages() -> tuple[Installed, ...]:
    """PACKAGES with their versions."""
    return tuple(Installed(name, _version(name)) for name in PACKAGES)


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version  # takes a tenth of a summary's time

    try:
        return version(name)
    except PackageNotFoundError:
        return None
